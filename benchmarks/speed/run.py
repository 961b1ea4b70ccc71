"""What editing saves over optimisation, what the warm start saves over training anew, what a hook and a unit cost."""

import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.common import package as vl
from benchmarks.common.judges import data_folder
from benchmarks.common.script import ROOT, parser, provenance, publish, read, shuffled
from benchmarks.speed.report import LAYER, PARTS, UNIT, report

TOWARDS: dict[int, vl.Sense] = {0: "increase"}
FEW = 32  # images of a small pass, in which what a reading costs by itself weighs most


@dataclass(frozen=True)
class Size:
    """How large everything is; None is the shipped default."""

    reference: int = 5000  # images that a landscape is fitted on
    images: int = 96  # edited and optimised; a multiple of `chunk` and of the refiner's 32: no padding
    chunk: int = 48  # images optimised together
    steps: int = 200
    repeats: int = 5  # rounds of the end-to-end comparison
    epochs: int | None = None
    shuffles: int | None = None
    budget: float = 900.0  # seconds that the plain loop may train
    check_every: int = 35  # steps between two looks at its loss
    small_repeats: int = 150  # rounds of the hook comparison for the ConvNet
    large_repeats: int = 16  # and for others
    batch: int | None = None  # images of a forward pass there; None: as many as a target reads at a time
    lens_references: int = 2118
    lens_rounds: int = 1  # processes of each version

    @property
    def fitting(self) -> dict[str, Any]:
        """Settings of our fit beside the shipped defaults."""
        return {} if self.epochs is None else {"epochs": self.epochs}


QUICK = Size(400, 32, 32, 5, 2, 1, 1, 2.0, 3, 10, 2, 4, 300)


def seconds_of(work: Callable[[], Any], device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """Wall time of one call, or another clock's, with what it left running on a GPU."""
    wait(device)
    start = clock()
    work()
    wait(device)
    return clock() - start


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turn(
    works: dict[str, Callable[[], Any]],
    repeats: int,
    device: torch.device,
    label: str,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each work in each round. Every round runs all of them, each time starting with another one."""
    names = list(works)
    for name in names:
        works[name]()  # the first call of anything is no measure of it
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in tqdm(range(repeats), desc=label, file=sys.stderr):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(seconds_of(works[name], device, clock))
    return seconds


def ratio(seconds: dict[str, list[float]], numerator: str, denominator: str) -> dict[str, float]:
    """Median and quartiles of the ratios within rounds."""
    ratios = np.array(seconds[numerator]) / np.array(seconds[denominator])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return {"median": float(middle), "quartile_1": float(low), "quartile_3": float(high), "rounds": len(ratios)}


def without_fit(method: vl.LandscapeMethod, fitted: vl.LandscapeMethod) -> vl.LandscapeMethod:
    """The rival that needs no fit: the shared VAE as it is, whose latents N(0, 1) holds."""
    known = fitted.landscape_
    rows = slice(0, 2)  # only optimisation under the standard prior follows, which looks at no reference set
    method.bind(fitted.target, fitted.backend)
    method.landscape_ = vl.Landscape.describe(
        fitted.backend.vae(),
        known.prior,
        known.scaler,
        known.names,
        torch.zeros(2, *fitted.backend.shape, device=fitted.backend.device),
        known.responses[rows],
        held_out=torch.arange(0),
    )
    return method


def end_to_end(target: vl.LayerTarget, backend: vl.PixelBackend, reference: Tensor, images: Tensor, size: Size) -> dict:
    """Seconds an image for editing and optimising, refinement included, and when a fit has paid for itself."""
    optimising, device = {"steps": size.steps, "chunk": size.chunk}, backend.device
    methods: dict[str, vl.LandscapeMethod] = {}

    def fit(name: str, shuffles: int | None) -> None:
        methods[name] = vl.LandscapeEdit(shuffles=shuffles, **size.fitting).fit(target, backend, reference)

    backend.refiner  # noqa: B018 (loads the network now, so that no clock below sees it)
    fit_seconds = [seconds_of(lambda: fit("edit", 0), device) for _ in range(min(3, size.repeats))]
    with_evidence = seconds_of(lambda: fit("shipped", size.shuffles), device)
    edit = methods["edit"]
    structured = vl.LandscapeOptimization(**size.fitting, optimize=optimising).bind(target, backend)
    structured.landscape_ = edit.landscape_
    standard = without_fit(vl.LandscapeOptimization(optimize={**vl.ALGORITHM_3, **optimising}), edit)
    made = {"edit": edit, "optimize": structured, "optimize, standard VAE": standard}
    latents, seeds = edit.latents(images, TOWARDS)[1], [42] * len(images)
    works: dict[str, Callable[[], Any]] = {
        name: lambda method=method: method.generate(images, TOWARDS, seeds=seeds).images
        for name, method in made.items()
    }
    works["refinement alone"] = lambda: backend.decode(
        edit.landscape_.decode(latents), init_image=images, strength=backend.defaults.edit.strength, seeds=seeds
    )
    seconds = in_turn(works, size.repeats, device, "end to end")
    per_image = {name: statistics.median(values) / len(images) for name, values in seconds.items()}
    fit_s = statistics.median(fit_seconds)
    gain = per_image["optimize, standard VAE"] - per_image["edit"]
    return {
        "images": len(images),
        "steps": size.steps,
        "reference_images": len(reference),
        "strength": backend.defaults.edit.strength,
        "seconds": seconds,
        "seconds_per_image": per_image,
        "ratios": {name: ratio(seconds, name, "edit") for name in works if name != "edit"},
        "fit_seconds": fit_s,
        "fit_seconds_with_evidence": with_evidence,
        "images_until_paid": fit_s / gain if gain > 0 else None,
        "images_until_paid_with_evidence": with_evidence / gain if gain > 0 else None,
    }


class ValidationLoss:
    """Eq. 4 with the consistency loss, written out again here: the one yardstick for both ways of fitting.

    Squared error summed over pixels + w_kld · KLD under the activation prior + w_consistency · the variance of the
    pixels · the mean unexplained share of the layer's maps and of their means.
    """

    def __init__(self, landscape: vl.Landscape, target: vl.LayerTarget, x: Tensor) -> None:
        self.target, self.x = target, x
        self.w_kld, self.w_consistency = landscape.settings["w_kld"], landscape.settings["w_consistency"]
        standard = landscape.scaler.standardise(landscape.responses)
        self.prior = [part.to(x.device) for part in landscape.prior.parameters(standard)]
        with torch.no_grad():
            parts = [self._see(part) for part in x.split(256)]
            self.seen = [torch.cat(column) for column in zip(*parts, strict=True)]
        self.variance_x = x.flatten(1).var(0).sum()
        self.variances = [column.var(0).sum() for column in self.seen]

    def _see(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.target.features(x.contiguous(memory_format=torch.channels_last))
        return maps.flatten(1), maps.flatten(2).mean(2)

    def parts(self, vae: vl.VAE, rows: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        """The weighted terms on rows of x, at the posterior's mean if there is no noise."""
        x = self.x[rows]
        mean, log_variance = vae.encode(x)
        decoded = vae.decode(mean if noise is None else vl.sample_posterior(mean, log_variance, noise))
        recon = ((decoded - x) ** 2).flatten(1).sum(1).mean()
        kld = vl.kl_divergence(mean, log_variance, *(part[rows] for part in self.prior)).mean()
        parts = {"recon": recon, "kld": self.w_kld * kld}
        if self.w_consistency > 0:
            shares = [
                ((now - then[rows]) ** 2).sum(1).mean() / variance
                for now, then, variance in zip(self._see(decoded), self.seen, self.variances, strict=True)
            ]
            parts["consistency"] = self.w_consistency * self.variance_x * torch.stack(shares).mean()
        return parts

    @torch.no_grad()
    def score(self, vae: vl.VAE, rows: Tensor) -> dict[str, float]:
        """Mean loss over rows, and its terms."""
        sums: dict[str, float] = {}
        for part in rows.split(256):
            for name, value in self.parts(vae, part).items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(part) / len(rows)
        return {"loss": sum(sums.values()), **sums}


def plain_loop(
    loss: ValidationLoss, training: Tensor, held_out: Tensor, goal: float, size: Size, seed: int
) -> list[dict[str, float]]:
    """Train by the paper's recipe from fresh weights, to the goal or the budget's end; scoring is off the clock."""
    torch.manual_seed(seed)
    device = loss.x.device
    vae = vl.BottleneckCVAE().to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-4)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.9)
    spent, step = 0.0, 0
    curve = [{"seconds": 0.0, "step": 0, **loss.score(vae, held_out)}]

    def batches() -> Iterator[Tensor]:
        while True:
            yield from training[torch.randperm(len(training))].split(128)
            schedule.step()

    def train(rows: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        noise = torch.randn(len(rows), vae.latent_dim).to(device)
        torch.stack(list(loss.parts(vae, rows, noise).values())).sum().backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()

    with tqdm(total=round(size.budget), desc="plain loop, s", file=sys.stderr) as bar:
        for rows in batches():
            if spent >= size.budget or curve[-1]["loss"] <= goal:
                break
            taken = seconds_of(lambda rows=rows: train(rows), device)
            spent, step = spent + taken, step + 1
            bar.update(min(taken, bar.total - bar.n))
            if step % size.check_every == 0:
                curve.append({"seconds": spent, "step": step, **loss.score(vae, held_out)})
    if curve[-1]["step"] < step:
        curve.append({"seconds": spent, "step": step, **loss.score(vae, held_out)})
    return curve


def same_loss(
    target: vl.LayerTarget, backend: vl.PixelBackend, reference: Tensor, size: Size, seed: int
) -> dict[str, Any]:
    """Seconds until our fit ends, and until a plain loop of the paper's recipe is as good on the same images."""
    method = vl.LandscapeEdit(shuffles=0, seed=seed, **size.fitting)
    ours_s = seconds_of(lambda: method.fit(target, backend, reference), backend.device)
    landscape = method.landscape_
    rows, held_out = torch.arange(len(reference)), landscape.held_out
    training = rows[~torch.isin(rows, held_out)]
    loss = ValidationLoss(landscape, target, backend.encode(reference))
    ours = loss.score(landscape.vae, held_out)
    curve = plain_loop(loss, training, held_out, ours["loss"], size, seed)
    reached = next((row["seconds"] for row in curve if row["loss"] <= ours["loss"]), None)
    # What each step of ours is worth: the VAE as it ships, organised in closed form, and fitted.
    vae = backend.vae()
    shipped = loss.score(vae, held_out)
    standard = landscape.scaler.standardise
    vl.closed_form_init(
        vae,
        loss.x[training],
        standard(landscape.responses[training]),
        landscape.prior,
        axis_scale_sd=method.config.prior.axis_scale_sd,
        respond=lambda x: standard(target(backend.render(x))),
    )
    organised = loss.score(vae, held_out)
    last = curve[-1]
    return {
        "training_images": len(training),
        "held_out": len(held_out),
        "w_kld": loss.w_kld,
        "w_consistency": loss.w_consistency,
        "ours_seconds": ours_s,
        "ours_loss": ours["loss"],
        "ours_terms": ours,
        "shipped_terms": shipped,
        "organised_terms": organised,
        "plain_seconds": reached,
        "plain_seconds_spent": last["seconds"],
        "plain_steps": last["step"],
        "plain_loss": last["loss"],
        "plain_loss_at_our_time": next((row["loss"] for row in curve if row["seconds"] >= ours_s), None),
        "ratio": None if reached is None else reached / ours_s,
        "ratio_at_least": last["seconds"] / ours_s if reached is None else None,
        "curve": curve,
    }


@dataclass(frozen=True)
class Reading:
    """A network whose layers are read."""

    name: str
    network: nn.Module  # in evaluation mode
    side: int  # of its images
    late: str  # the last layer before the output: stopping saves nothing, what is left is overhead
    early: str  # a layer near the input, where stopping saves most
    path: tuple[str, ...] = ()  # modules that a pass runs through, one after the other; empty where it is no chain
    large: bool = True  # a pass takes so long that fewer rounds do
    batch: int | None = None  # images of a pass; None leaves it to the run

    def ready(self, device: torch.device, batch: int | None) -> tuple[Any, Tensor, dict[str, Any]]:
        """The network there, a batch of images, and settings of targets."""
        draw = torch.Generator().manual_seed(0)
        settings = {"preprocess": vl.Preprocess(None, (0.5,), (0.5,)).to(device), "image_size": self.side}
        network = self.network.to(device).requires_grad_(False)
        batch = self.batch or batch or vl.LayerTarget(network, self.late, 0, **settings).batch_size
        images = torch.rand(batch, 3, self.side, self.side, generator=draw).to(device)
        return network, images, settings

    def times(self, seconds: dict[str, list[float]], pairs: dict[str, tuple[str, str]], batch: int) -> dict[str, Any]:
        """What both comparisons write down; ``pairs`` are what is divided by what."""
        return {
            "network": self.name,
            "batch": batch,
            "side": self.side,
            "bare_seconds": statistics.median(seconds["bare"]),
            "ratios": {name: ratio(seconds, *pair) for name, pair in pairs.items()},
        }


def clock_of(device: torch.device) -> Callable[[], float]:
    """CPU seconds, on which what other processes take is not counted; on a GPU, those of the wall."""
    return time.perf_counter if device.type == "cuda" else time.process_time


def readings() -> list[Reading]:
    """The shipped networks, and others with random weights, which take as long as trained ones."""
    import timm

    def made(name: str, **settings: Any) -> nn.Module:
        torch.manual_seed(0)
        return timm.create_model(name, pretrained=False, **settings).eval()

    path = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3")
    convs = ("conv1", "conv2", "conv3")
    convnet, lite, squeeze = (vl.zoo.load(n) for n in ("cifar10_convnet", "efficientnet_lite2", "squeezenet1_0"))
    return [
        Reading("ConvNet", convnet, 32, "fc2", "conv1", convs, large=False),
        Reading("ConvNet, few images", convnet, 32, "fc2", "conv1", convs, large=False, batch=FEW),
        Reading("timm resnet50", made("resnet50"), 64, "fc", "layer1", path),
        Reading("timm resnet18", made("resnet18"), 64, "fc", "layer1", path),
        Reading("EfficientNet-Lite2", lite, 64, "classifier", "blocks.1"),
        Reading("SqueezeNet", squeeze, 64, "classifier.1", "features.3"),
        Reading("timm vit_tiny", made("vit_tiny_patch16_224", img_size=64), 64, "head", "blocks.1"),
        Reading("timm convnext_atto", made("convnext_atto"), 64, "head.fc", "stages.0"),
    ]


@torch.no_grad()
def hooks(reading: Reading, device: torch.device, repeats: int, batch: int | None) -> dict[str, Any]:
    """Passes with hooks, as ratios to a bare forward pass of the same network and batch."""
    network, images, settings = reading.ready(device, batch)
    preprocess = settings["preprocess"]
    target, inputs = vl.LayerTarget(network, reading.late, 0, **settings), preprocess(images)
    works: dict[str, Callable[[], Any]] = {
        "bare": lambda: network(inputs),
        "bare again": lambda: network(inputs),
        "full": lambda: vl.run_to_layer(network, "", inputs),
        "late": lambda: vl.run_to_layer(network, reading.late, inputs),
        "early": lambda: vl.run_to_layer(network, reading.early, inputs),
        "bare with preprocessing": lambda: network(preprocess(images)),
        "target": lambda: target(images),
    }
    with vl.undisturbed(network):
        seconds = in_turn(works, repeats, device, reading.name, clock_of(device))
    pairs = {name: (name, "bare") for name in ("bare again", "full", "late", "early")}
    pairs["target"] = ("target", "bare with preprocessing")
    layers = {"late": reading.late, "early": reading.early}
    return reading.times(seconds, pairs, len(images)) | {"layers": layers}


@torch.no_grad()
def units(reading: Reading, device: torch.device, repeats: int, batch: int | None) -> dict[str, Any]:
    """One unit and all units of a layer, as ratios to the modules before it called by hand, without any hook."""
    network, images, settings = reading.ready(device, batch)
    preprocess, layer = settings["preprocess"], reading.path[-1]
    one, every = vl.LayerTarget(network, layer, 1, **settings), vl.all_units(network, layer, **settings)
    path = nn.Sequential(*(network.get_submodule(name) for name in reading.path)).eval()
    if not torch.allclose(path(preprocess(images)).mean((2, 3)), every(images), atol=1e-5):
        raise ValueError(f"path={reading.path} is not what a pass of {reading.name} runs through; mend readings().")
    works: dict[str, Callable[[], Any]] = {
        "bare": lambda: path(preprocess(images)),
        "bare again": lambda: path(preprocess(images)),
        "one": lambda: one(images),
        "all": lambda: every(images),
    }
    seconds = in_turn(works, repeats, device, f"{reading.name}, units", clock_of(device))
    pairs = {"bare again": ("bare again", "bare"), "one": ("one", "bare"), "all": ("all", "one")}
    return reading.times(seconds, pairs, len(images)) | {"layer": layer, "units": len(every.names)}


BEFORE = "fba091b"  # the commit that the further units of this one are compared with


def lens_units(references: int, rounds: int, threads: int) -> dict[str, Any]:
    """A first and further units of a layer by :mod:`benchmarks.speed.lens`, before and now in turn."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["git", "-C", str(ROOT), "archive", BEFORE, "vislens_interp"]
        packed = subprocess.run(words, stdout=subprocess.PIPE, check=True)  # a shallow copy does not hold that commit
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(folder, filter="data")
        found: dict[str, Any] = {"references": references, "commit": BEFORE, "before": [], "now": []}
        script = str(Path(__file__).with_name("lens.py"))
        for _ in range(rounds):
            for name, place in (("before", folder), ("now", str(ROOT))):
                words = [sys.executable, script, str(references), str(threads)]
                env = {**os.environ, "PYTHONPATH": place, "PYTHONSAFEPATH": "1"}
                ended = subprocess.run(words, env=env, stdout=subprocess.PIPE, check=True, text=True, cwd=folder)
                found[name].append(json.loads(ended.stdout.splitlines()[-1]))
                print(name, ended.stdout, file=sys.stderr, flush=True)
    return found


def pictures(data: Path | None, size: Size, seed: int, *, quick: bool) -> tuple[Tensor, Tensor]:
    """Images of CIFAR-10 to fit on, and others to edit."""
    archive = data_folder(data) / "cifar10"
    test, _, _ = vl.read_images(archive / "test.zip", 32)
    # Reading the training images takes longer than all the rest of a quick run.
    everything = test[::2] if quick else vl.read_images(archive / "train.zip", 32)[0]
    rows = shuffled(len(everything), seed)[: size.reference]
    return vl.pixels(everything[rows]), vl.pixels(test[1::2][: size.images])


def main() -> None:
    """Run all five, or some beside what the folder holds of the others, and write ``speed.md`` and ``speed.json``."""
    command = parser(__doc__, "--data", "--out", "--quick", "--device", "--seed", "--threads")
    command.add_argument("--budget", type=float, help=f"seconds for the plain loop; default {Size.budget:.0f}")
    command.add_argument("--only", choices=list("abcde"), nargs="+", help="parts to run; a quick run leaves e out")
    args = command.parse_args()
    # An earlier commit is read from the repository, which a shallow copy does not hold.
    args.only = args.only or list("abcd" if args.quick else "abcde")
    size = QUICK if args.quick else Size()
    size = size if args.budget is None else replace(size, budget=args.budget)
    device = torch.device(args.device)
    source = provenance(seed=args.seed, device=device)
    found: dict[str, Any] = {"provenance": source, "size": asdict(size), "quick": args.quick}
    if {"a", "b"} & set(args.only):
        reference, images = pictures(args.data, size, args.seed, quick=args.quick)
        backend = vl.PixelBackend(device)
        target = vl.LayerTarget(vl.zoo.load("cifar10_convnet").to(device), LAYER, UNIT)
        if "a" in args.only:
            found["end_to_end"] = end_to_end(target, backend, reference, images, size)
        if "b" in args.only:
            found["same_loss"] = same_loss(target, backend, reference, size, args.seed)
    if {"c", "d"} & set(args.only):
        vl.keep_freed_memory()
        torch.set_num_threads(1)  # a second thread waits by spinning, which a clock of CPU seconds counts as work
    for letter, part, work in (("c", "hooks", hooks), ("d", "units", units)):
        if letter in args.only:
            chosen = [one for one in readings() if part == "hooks" or one.path]
            found[part] = [
                work(one, device, size.large_repeats if one.large else size.small_repeats, size.batch) for one in chosen
            ]
    if "e" in args.only:
        found["lens"] = lens_units(size.lens_references, size.lens_rounds, args.threads)
    found["sources"] = {part: source for part in PARTS if part in found}
    found["sources"] |= {part: source | {"threads": 1} for part in ("hooks", "units") if part in found}
    if (args.out / "speed.json").exists():
        earlier = read(args.out / "speed.json")
        if earlier["quick"] == args.quick:
            kept = {part: earlier[part] for part in PARTS if part in earlier and part not in found}
            found |= kept
            found["sources"] |= {part: earlier.get("sources", {}).get(part, earlier["provenance"]) for part in kept}
    publish(args.out / "speed", report(found), found)


if __name__ == "__main__":
    main()
