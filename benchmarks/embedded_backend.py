"""The embedded backend: how good its parts are, whether the method does its job with them, and what that costs.

    P="python benchmarks/embedded_backend.py --data $VISLENS_DATA --weights runs/weights64 --out runs/embedded"
    $P units                 # draw tuning and test units into benchmarks/embedded_units.json, before anything is fitted
    $P retrieval [--tune]    # edits judged by natural images: needs the embedder alone
    $P quality               # embedder and generator
    $P job --units 2 --images 24 --seeds 1     # edits judged by generated pictures; grows with larger numbers
    $P cost
    $P report                # the tables of all that has been run, what fails first
    $P figure                # figure 4

`--weights` holds what the recipes wrote: embedder64.safetensors, generator64/, and vit_tiny64.safetensors and
simclr_resnet50.safetensors where they have been trained; a network whose weights are not there is left out, and said.
Every cell is a file in `--out`, written when it is done and skipped when the command is run again.

What is fitted sees training images alone. Even-positioned files of val.zip and tuning units tune, odd-positioned ones
and test units test. Methods are compared at the same edit angle, the degrees between an image's embedding and what it
became, for α means something else to each of them.
"""

import argparse
import io
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

sys.path.insert(0, str(Path(__file__).parent))
from judges import CifarResNet, load_judge, load_squeezenet
from provenance import provenance, provenance_line

from vislens_interp.backends.cache import RowCache, weights_fingerprint
from vislens_interp.backends.embedded import DEFAULTS, LATENT_DIM, NOISE, embedded
from vislens_interp.baselines.centroids import Centroids
from vislens_interp.baselines.controls import Shuffled, Unedited
from vislens_interp.baselines.difference_of_means import DifferenceOfMeans
from vislens_interp.baselines.natural_images import NaturalImages, RandomImages
from vislens_interp.baselines.ridge_direction import RidgeDirection
from vislens_interp.baselines.ridge_pattern import RidgePattern
from vislens_interp.files import write_atomically, write_text
from vislens_interp.images import Preprocess, resize, to_pil
from vislens_interp.landscape.edit import angle_between
from vislens_interp.landscape.evidence import WEAK_CORRELATION
from vislens_interp.landscape.prior import Direction, ResponseScaler
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.method import LandscapeMethod
from vislens_interp.metrics.bootstrap import Interval, interval, paired_difference
from vislens_interp.metrics.realism import frechet_distance, kernel_distance
from vislens_interp.targets.target import LayerTarget, Target
from vislens_interp.training import vit_tiny64
from vislens_interp.training.data import pixels, read_images
from vislens_interp.training.probe import knn_accuracy, linear_probe, retrieval
from vislens_interp.zoo.embedder import Embedder64

UNITS = Path(__file__).parent / "embedded_units.json"
SIGN: dict[Direction, int] = {"increase": 1, "decrease": -1}
REFERENCE_IMAGES = 4000
CANDIDATES, TUNING_UNITS = 32, 8
"""Units drawn of each layer; the first few tune, of the others those test that answer to anything."""
ALIVE = 0.05
"""Share of the reference images that have to move a unit."""
ANGLES = (20.0, 30.0, 40.0, 55.0, 70.0)
JOB_ANGLE = 40.0
FIGURE_BYTES = 400_000
NEAREST = 5
NATURAL_IMAGES = 10
SQUEEZENET_PIXELS = 128
"""What 64-pixel images are enlarged to for it: at the 224 that it learnt on, a pass takes three times as long."""
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Network:
    """A target.

    Args:
        build: From the data folder and the weights folder to the network, with ``preprocess`` attached.
        layers: Early, middle, deep; layer to its units.
        judge: Who judges similarity and realism of pictures made for it: never the network itself.
        file: What it needs below ``--weights``; None is a third party's network below ``--data``.
    """

    build: Callable[[Path, Path], Any]
    layers: dict[str, int]
    judge: str = "squeezenet"
    file: str | None = None


def _vit(data: Path, weights: Path) -> Any:
    model: Any = vit_tiny64.build(200)
    return _trained(model, weights / "vit_tiny64.safetensors")


def _simclr(data: Path, weights: Path) -> Any:
    import timm

    return _trained(timm.create_model("resnet50", num_classes=0), weights / "simclr_resnet50.safetensors")


def _trained(model: Any, path: Path) -> Any:
    model.load_state_dict(load_file(path))
    model = nn.Module.eval(model.float()).requires_grad_(False)
    config = model.pretrained_cfg
    model.preprocess = Preprocess(64, config["mean"], config["std"])
    return model


NETWORKS = {
    "squeezenet": Network(
        lambda data, weights: _at(SQUEEZENET_PIXELS, load_squeezenet(data)),
        {"features.4": 128, "features.7": 256, "features.12": 512},
        judge="cifar10_resnet20",
    ),
    "vit_tiny64": Network(_vit, {"blocks.1": 192, "blocks.6": 192, "blocks.11": 192}, file="vit_tiny64.safetensors"),
    "simclr_resnet50": Network(
        _simclr, {"layer2": 512, "layer3": 1024, "layer4": 2048}, file="simclr_resnet50.safetensors"
    ),
    "cifar10_resnet20": Network(
        lambda data, weights: _at(32, load_judge(data)), {"layer1": 16, "layer2": 32, "layer3": 64}
    ),
}


def _at(pixels_: int, network: Any) -> Any:
    network.preprocess = Preprocess(pixels_, *IMAGENET)
    return network


def draw_units() -> dict[str, dict[str, list[int]]]:
    """Candidates of every layer in a fixed order; all of a layer that has fewer."""
    drawn: dict[str, dict[str, list[int]]] = {}
    for name, network in NETWORKS.items():
        for layer, width in network.layers.items():
            order = torch.randperm(width, generator=torch.Generator().manual_seed(0)).tolist()
            drawn.setdefault(name, {})[layer] = order[: min(CANDIDATES, width)]
    return drawn


# --------------------------------------------------------------------------------------------------------- methods

PAPER: dict[str, Any] = {
    # Table S3 and Algorithm 2 by exact rounds, which reach the loss that its 150 epochs end with
    # (benchmarks/sd15_speed.py) in a hundredth of the time.
    "solver": "alternating",
    "goal": "mean",
    "organise": False,
    "block_dim": None,
    "modes": 1,
    "w_kld": 1.0,
    "w_consistency": 0.0,
    "interpolation": "lerp",
    "residual": False,
    "keep_norm": True,
}
LANDSCAPE, OURS = "the paper's landscape, lerp", "ours as shipped"
SLERP = "the paper's landscape, slerp"
TWIN, MEANS, PATTERN = "algebraic twin, lerp", "difference of means", "ridge pattern"
BRAINACTIV, SHUFFLED = "ridge direction (BrainACTIV)", "shuffled landscape (ours)"
NATURAL, UNEDITED = "top-10 natural images", "α = 0"
UNIT = "the unit itself"
"""What judges the pictures of a job: the responses are read, not predicted."""
METHODS: dict[str, Callable[[], Any]] = {
    OURS: lambda: LandscapeMethod(shuffles=0),
    LANDSCAPE: lambda: LandscapeMethod(shuffles=0, **PAPER),
    SLERP: lambda: LandscapeMethod(shuffles=0, **{**PAPER, "interpolation": "slerp"}),
    TWIN: lambda: Centroids(),
    MEANS: lambda: DifferenceOfMeans(),
    PATTERN: lambda: RidgePattern(),
    BRAINACTIV: lambda: RidgeDirection(strength=None),
    SHUFFLED: lambda: Shuffled(LandscapeMethod(shuffles=0), seed=1),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "ours, decoded": {"goal": "mean", "residual": False},
    "ours, residual": {"goal": "mean", "residual": True},
    "ours, decoded, slerp": {"goal": "mean", "residual": False, "interpolation": "slerp"},
    "ours, residual, no gradient steps": {"goal": "mean", "residual": True, "solver": "alternating", "epochs": 1},
    "ours, decoded, 3 modes": {"goal": "mean", "residual": False, "modes": 3},
    "ours, residual, 3 modes": {"goal": "mean", "residual": True, "modes": 3},
    "ours, residual, 6 modes": {"goal": "mean", "residual": True, "modes": 6},
    "ours, residual, reach 8": {"goal": "mean", "residual": True, "reach": 8.0},
    "ours, residual, reach 16": {"goal": "mean", "residual": True, "reach": 16.0},
    "the paper's landscape, residual": {**PAPER, "residual": True},
    "the paper's landscape, fading residual": {**PAPER, "residual": "fade"},
    "the paper's landscape, fading residual, 3 modes": {**PAPER, "residual": "fade", "modes": 3},
}
"""What `retrieval --tune` compares beside the methods; the best becomes the backend's default."""
VARIANT_METHODS: dict[str, Callable[[], Any]] = {
    label: (lambda settings=settings: LandscapeMethod(shuffles=0, **settings)) for label, settings in VARIANTS.items()
}
RIVALS = (TWIN, MEANS, PATTERN, BRAINACTIV)
JOB_METHODS = (OURS, LANDSCAPE, TWIN, MEANS, PATTERN, BRAINACTIV, SHUFFLED)


def set_angle(method: Any, angle: float) -> None:
    """From now on every embedding turns so far."""
    if isinstance(method, Shuffled):
        set_angle(method.method, angle)
    elif isinstance(method, LandscapeMethod):
        method.settings = {**method.settings, "angle": angle}
    else:
        method.angle = angle


class Remembered:
    """The embedder, which keeps what it made of the images that every fit and every edit begins with."""

    def __init__(self, embedder: Embedder64) -> None:
        self.embedder, self.dim, self.size, self.device = embedder, embedder.dim, embedder.size, embedder.device
        self.known: list[tuple[Tensor, Tensor]] = []

    def __call__(self, images: Tensor) -> Tensor:
        for seen, x in self.known:
            if seen is images:
                return x
        with torch.no_grad():
            return self.embedder(images)


class EmbedderOnly:
    """A backend that can be fitted and edited in, but not drawn from: the generator is not there."""

    name, differentiable, device = "embedder64", False, torch.device("cpu")
    defaults = DEFAULTS

    def __init__(self, embedder: Remembered, reference: Tensor) -> None:
        self.embedder, self.size, self.shape = embedder, embedder.size, (embedder.dim,)
        self._reference = reference

    def encode(self, images: Tensor) -> Tensor:
        return self.embedder(images)

    def render(self, x: Tensor) -> Tensor:
        raise ValueError("x cannot be rendered: --weights holds no generator64.")

    def decode(self, x: Tensor, *, reference: Tensor | None, strength: float, seeds: list[int]) -> Tensor:
        return self.render(x)

    def reference(self) -> None:
        return None

    def vae(self) -> EmbeddingVAE:
        x = self._reference
        return EmbeddingVAE.principal(x.mean(0), x.T.cov(correction=0), LATENT_DIM, NOISE)

    def perception(self) -> None:
        return None


class Recorded(Target):
    """Units whose responses are all known beforehand."""

    differentiable = False

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __call__(self, images: Tensor) -> Tensor:
        raise TypeError("these responses were read beforehand; pass them to fit.")


# ------------------------------------------------------------------------------------------------------------ data


class Bench:
    """Images, embeddings, networks and their responses, each read once and kept below ``out/cache``."""

    def __init__(self, data: Path, weights: Path, out: Path, device: str = "cpu") -> None:
        self.data, self.weights, self.out, self.device = data, weights, out, torch.device(device)
        self.cache = out / "cache"
        self.reference, self.tuning, self.test = self._images()
        self.embedder = Remembered(Embedder64.load(weights / "embedder64.safetensors").to(self.device))
        self.networks: dict[str, Any] = {}

    def _images(self) -> tuple[Tensor, Tensor, Tensor]:
        file = self.cache / "images.safetensors"
        if not file.is_file():
            self.cache.mkdir(parents=True, exist_ok=True)
            train = torch.cat([read_images(self.imagenet / f"train_{part}.zip", 64)[0] for part in (0, 1)])
            rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:REFERENCE_IMAGES]
            held_out = read_images(self.imagenet / "val.zip", 64)[0]
            tensors = {"reference": train[rows].contiguous(), "held_out": held_out.contiguous()}
            write_atomically(file, lambda temporary: save_file(tensors, temporary))
        stored = load_file(file)
        # In one fixed order that is not the classes', so that the first few hundred are of all kinds.
        order = torch.randperm(len(stored["held_out"]) // 2, generator=torch.Generator().manual_seed(1))
        even, odd = stored["held_out"][0::2][order], stored["held_out"][1::2][order]
        return pixels(stored["reference"]), pixels(even), pixels(odd)

    @property
    def imagenet(self) -> Path:
        return self.data / "tiny_imagenet"

    @cached_property
    def labels(self) -> dict[str, Tensor]:
        """Labels of the test images, in their order."""
        labels = read_images(self.imagenet / "val.zip", 64)[1]
        order = torch.randperm(len(labels) // 2, generator=torch.Generator().manual_seed(1))
        return {"test": labels[1::2][order]}

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings from the cache; the embedder remembers them for this very tensor, and the last few others."""
        for seen, x in self.embedder.known:
            if seen is images:
                return x
        store = RowCache(self.cache, "embeddings", weights_fingerprint(self.embedder.embedder))
        x = store.rows(images, self.embedder, batch_size=100, progress=True).tensor().clone().to(self.device)
        self.embedder.known = [*self.embedder.known[-3:], (images, x)]
        return x

    def present(self) -> list[str]:
        """Networks whose weights are there."""
        return [
            name
            for name, network in NETWORKS.items()
            if network.file is None or (self.weights / network.file).is_file()
        ]

    def network(self, name: str) -> Any:
        if name not in self.networks:
            self.networks[name] = NETWORKS[name].build(self.data, self.weights).to(self.device)
        return self.networks[name]

    def target(self, name: str, layer: str, units: list[int]) -> LayerTarget:
        return LayerTarget(self.network(name), layer, units, batch_size=64)

    def responses(self, name: str, layer: str, images: Tensor) -> Tensor:
        """Responses of all candidates of a layer (N, C), in the order of the file."""
        candidates = load_units()[name][layer]
        target = self.target(name, layer, candidates)
        pixels_ = self.network(name).preprocess.size  # part of what a response is, and of no weight
        store = RowCache(
            self.cache, f"{name}-{layer}-{pixels_}px", weights_fingerprint(self.network(name), units=candidates)
        )
        return store.rows(images, target, batch_size=64, progress=True).tensor().clone()

    def units(self, name: str, layer: str, reference: Tensor, *, tune: bool, count: int) -> list[int]:
        """Columns of :meth:`responses` to use: tuning units, or test units, that are alive on the reference set."""
        first = min(TUNING_UNITS, reference.shape[1] // 2)
        columns = range(first) if tune else range(first, reference.shape[1])
        usual = reference.mode(0).values
        alive = ((reference != usual).double().mean(0) >= ALIVE) & (reference.std(0) > 1e-6)
        return [column for column in columns if alive[column]][:count]

    def judge(self, name: str) -> Any:
        """What sees similarity and realism for this target: ``features`` of a network that is not the target."""
        other = NETWORKS[name].judge
        if other not in self.networks:
            self.networks[other] = NETWORKS[other].build(self.data, self.weights).to(self.device)
        return self.networks[other]

    def backend(self, **options: Any) -> Any:
        """The embedded backend of ``--weights``, or the embedder alone where there is no generator."""
        if not (self.weights / "generator64").is_dir():
            return EmbedderOnly(self.embedder, self.embedder(self.reference))
        backend: Any = embedded(self.device, folder=self.weights, **options)
        backend.embedder = self.embedder
        return backend


def load_units() -> dict[str, dict[str, list[int]]]:
    return json.loads(UNITS.read_text(encoding="utf-8"))


def unit_rows(x: Tensor) -> Tensor:
    return normalize(x.float(), dim=1)


# ------------------------------------------------------------------------------------------------------- retrieval


def nearest(x: Tensor, gallery: Tensor, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Cosines and rows, (N, 5) each, of the five embeddings of a gallery that are nearest to x.

    Args:
        x: (N, D).
        gallery: (M, D).
        own: (N,) rows that do not count, for they are the images that x was made from.
    """
    cosine = unit_rows(x) @ unit_rows(gallery).T
    if own is not None:
        cosine[torch.arange(len(x)), own] = -2.0
    found = cosine.topk(NEAREST, dim=1)
    return found.values, found.indices


def retrieval_cell(
    bench: Bench,
    name: str,
    layer: str,
    *,
    tune: bool,
    units: int,
    images: int,
    methods: dict[str, Callable[[], Any]],
) -> Iterator[dict[str, Any]]:
    """One record for each unit, method, direction and angle; edits are judged by the images they come to lie among."""
    gallery_images = bench.tuning if tune else bench.test
    gallery, reference_x = bench.embed(gallery_images), bench.embed(bench.reference)
    backend = EmbedderOnly(bench.embedder, reference_x)
    reference = bench.responses(name, layer, bench.reference)
    known = bench.responses(name, layer, gallery_images)
    candidates = load_units()[name][layer]
    own = torch.arange(images)
    x = gallery[own]
    cosine_0, rows_0 = nearest(x, gallery, own)
    for column in bench.units(name, layer, reference, tune=tune, count=units):
        responses = reference[:, [column]]
        scaler = ResponseScaler.fit(responses)
        standard = scaler.standardise(known[:, [column]])[:, 0]
        before = standard[rows_0].mean(1)
        for label, build in methods.items():
            began = time.monotonic()
            method = build()
            fit_with_fewer_modes(method, Recorded([str(candidates[column])]), backend, bench.reference, responses)
            seconds = time.monotonic() - began
            for angle in ANGLES:
                set_angle(method, angle)
                for way in SIGN:
                    moved = method.embeddings(x, {0: way})
                    cosine, rows = nearest(moved, gallery, own)
                    yield {
                        "network": name,
                        "layer": layer,
                        "unit": candidates[column],
                        "method": label,
                        "direction": way,
                        "angle": angle,
                        "reached": rounded(angle_between(moved, x)),
                        "change": rounded(SIGN[way] * (standard[rows].mean(1) - before)),
                        "natural": rounded(cosine.mean(1)),
                        "seconds": seconds,
                        "correlation": correlation_of(method),
                    }
    print(f"{name} {layer}: untouched images have {cosine_0.mean():.2f} to their five nearest", flush=True)


def fit_with_fewer_modes(method: Any, target: Target, backend: Any, images: Tensor, responses: Tensor) -> None:
    """Fit; a landscape of several modes takes as many as the unit's strongly driven images place."""
    while True:
        try:
            method.fit(target, backend, images, responses)
        except ValueError as error:
            if "Lower modes" not in str(error):
                raise
            method.settings = {**method.settings, "modes": method.settings["modes"] - 1}
        else:
            return


def correlation_of(method: Any) -> float | None:
    """Held-out correlation of a landscape's axis with its unit: its evidence, without the shuffled fits."""
    found = list(getattr(method, "evidence_", {}).values())
    return found[0].correlation if found else None


def rounded(values: Tensor, digits: int = 4) -> list[float]:
    return [round(value, digits) for value in values.double().cpu().tolist()]


# ------------------------------------------------------------------------------------------------------ pictures


@torch.no_grad()
def seen_by(judge: Any, images: Tensor) -> Tensor:
    """Features (N, D), on the CPU, of a network that judges."""
    if isinstance(judge, CifarResNet):
        return judge.features(resize(images, 32))
    device = next(judge.parameters()).device
    return torch.cat(
        [judge.features(judge.preprocess(part.to(device))).mean((2, 3)).cpu() for part in images.split(50)]
    )


def spread_of(features: Tensor, centre: Tensor) -> float:
    """How unlike one another the pictures are: 1 - mean cosine over pairs, features around ``centre``."""
    rows = unit_rows(features - centre)
    cosine = rows @ rows.T
    return (1 - (cosine.sum() - cosine.diagonal().sum()) / (len(rows) * (len(rows) - 1))).item()


@dataclass(frozen=True)
class Eyes:
    """Who looks at the pictures that are made for one unit.

    Args:
        answers: Images to every judge's response to them, (N,), standardised; by the judge's name.
        sees: Images to features (N, D), on the CPU, of a network that is neither the target nor one of the judges.
        natural: (M, D), those of natural images that are not edited.
    """

    answers: Callable[[Tensor], dict[str, Tensor]]
    sees: Callable[[Tensor], Tensor]
    natural: Tensor


def judged_edits(
    eyes: Eyes,
    methods: dict[str, Any],
    target: Target,
    backend: Any,
    reference: tuple[Tensor, Tensor],
    pictures: Tensor,
    noise: list[int],
    angle: float,
    about: str,
) -> dict[str, Any]:
    """Every method for one unit on the same pictures, with the same noise, turned by the same angle.

    Args:
        eyes: Who judges.
        methods: By their names; they are fitted here. Natural images among them are shown, not edited.
        target: The unit.
        backend: Embeds and generates.
        reference: Images to learn from, and their responses (N, 1).
        pictures: Images to edit.
        noise: A seed for each.
        angle: Degrees.
        about: Printed with each method's seconds.

    Returns:
        JSON values: what judges say of the pictures (``input``), of α = 0 (``zero``), and of every method and
        direction, whose ``changes`` are against α = 0, signed, by judge.
    """
    natural = eyes.natural
    centre = natural.mean(0)

    def near(features: Tensor) -> Tensor:
        return nearest(features - centre, natural - centre)[0].mean(1)

    control = Unedited().fit(target, backend, *reference)
    zero_images = control.generate(pictures, {}, seeds=noise)
    zero, zero_seen = eyes.answers(zero_images), eyes.sees(zero_images)
    shown, shown_seen = eyes.answers(pictures), eyes.sees(pictures)
    cell: dict[str, Any] = {
        "input": {judge: rounded(values) for judge, values in shown.items()},
        "zero": {judge: rounded(values) for judge, values in zero.items()},
        "zero_similarity": rounded(cosine_similarity(zero_seen - centre, shown_seen - centre)),
        "random_similarity": rounded(cosine_similarity(zero_seen.roll(1, 0) - centre, zero_seen - centre)),
        "zero_natural": rounded(near(zero_seen)),
        "input_natural": rounded(near(shown_seen)),
        "zero_diversity": spread_of(zero_seen, centre),
        "zero_kernel": kernel_distance(zero_seen, natural),
        "input_kernel": kernel_distance(shown_seen, natural),
        "methods": [],
    }
    x = backend.encode(pictures)
    for label, method in methods.items():
        began = time.monotonic()
        method.fit(target, backend, *reference)
        fitted = time.monotonic() - began
        edits = not isinstance(method, NaturalImages)
        if edits:
            set_angle(method, angle)
        # Of the top k each is shown once; of random images one for each picture, by its noise.
        seeds = noise if edits or isinstance(method, RandomImages) else list(range(min(method.count, len(pictures))))
        seconds = 0.0
        for way in SIGN:
            began = time.monotonic()
            made = method.generate(pictures[: len(seeds)], {0: way}, seeds=seeds)
            seconds = time.monotonic() - began
            response, seen = eyes.answers(made), eyes.sees(made)
            # A natural image has no picture of its own to be compared with: against the mean of all.
            before = zero if edits else {judge: values.mean() for judge, values in zero.items()}
            measured: dict[str, Any] = {
                "method": label,
                "direction": way,
                "fit_seconds": fitted,
                "correlation": correlation_of(method),
                "seconds": seconds,
                "natural": rounded(near(seen)),
                "diversity": spread_of(seen, centre),
                "changes": {judge: rounded(SIGN[way] * (values - before[judge])) for judge, values in response.items()},
            }
            if edits:
                reached = angle_between(method.embeddings(x, {0: way}), x)
                # What stops short of the angle has arrived at α = 1, where all pictures are one: not in a distance.
                open_ = (reached >= angle - 1).cpu()
                measured |= {
                    "reached": rounded(reached),
                    "similarity": rounded(cosine_similarity(seen - centre, zero_seen - centre)),
                    "arrived": int((~open_).sum()),
                    "kernel": kernel_distance(seen[open_], natural) if open_.sum() > 1 else None,
                }
            cell["methods"].append(measured)
        print(f"{about} {label}: {fitted:.0f} s + {seconds:.0f} s", flush=True)
    return cell


def job_cell(
    bench: Bench,
    backend: Any,
    name: str,
    layer: str,
    column: int,
    seed: int,
    images: int,
    angle: float,
    labels: Sequence[str] = JOB_METHODS,
) -> dict[str, Any]:
    """One unit and seed."""
    judge = bench.judge(name)
    unit = load_units()[name][layer][column]
    target = bench.target(name, layer, [unit])
    responses = bench.responses(name, layer, bench.reference)[:, [column]]
    scaler = ResponseScaler.fit(responses)
    pictures = bench.test[:images]
    for remembered in (bench.reference, pictures):
        bench.embed(remembered)
    eyes = Eyes(
        lambda made: {UNIT: scaler.standardise(target.responses(made))[:, 0]},
        lambda made: seen_by(judge, made),
        seen_by(judge, bench.test[images : 11 * images]),
    )
    methods = {label: METHODS[label]() for label in labels} | {NATURAL: NaturalImages(NATURAL_IMAGES)}
    noise = [1000 * seed + row for row in range(images)]
    about = f"{name} {layer} {unit} seed {seed}"
    reference = (bench.reference, responses)
    said = {"network": name, "layer": layer, "unit": unit, "seed": seed, "angle": angle, "images": images}
    return said | judged_edits(eyes, methods, target, backend, reference, pictures, noise, angle, about)


# ------------------------------------------------------------------------------------------------------- quality


def quality_embedder(bench: Bench, bank: int) -> dict[str, Any]:
    """Linear probe and 20-NN top-1 on the test images, from ``bank`` training images."""
    parts = [read_images(bench.imagenet / f"train_{part}.zip", 64) for part in (0, 1)]
    images, labels = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(2))[:bank]
    known, asked = bench.embed(pixels(images[rows])), bench.embed(bench.test)
    return {
        "bank": len(rows),
        "test": len(asked),
        "linear_probe_top1": linear_probe(known, labels[rows], asked, bench.labels["test"]),
        "knn20_top1": knn_accuracy(known, labels[rows], asked, bench.labels["test"]),
        "parameters": sum(p.numel() for p in bench.embedder.embedder.parameters()),
    }


def generated(bench: Bench, backend: Any, count: int, chunk: int = 50) -> Tensor:
    """One picture from the embedding of each of the first ``count`` test images, made and kept a chunk at a time."""
    x = bench.embed(bench.test)[:count]
    made = []
    for start in range(0, count, chunk):
        file = bench.out / f"generated-{start:04d}.safetensors"
        if not file.is_file():
            part = x[start : start + chunk]
            seeds = list(range(start, start + len(part)))
            pictures = backend.decode(part, reference=None, strength=1.0, seeds=seeds).cpu()
            stored = {"images": (pictures * 255).round().byte().contiguous()}
            write_atomically(file, lambda temporary, stored=stored: save_file(stored, temporary))
            print(f"generated {start + len(part)} of {count}", flush=True)
        made.append(pixels(load_file(file)["images"]))
    return torch.cat(made)[:count]


def jpeg(images: Tensor, quality: int = 20) -> Tensor:
    """The same images through a JPEG file."""
    arrays = []
    for picture in to_pil(images):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        with Image.open(file) as again:
            arrays.append(np.asarray(again.convert("RGB")))
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


def quality_generator(bench: Bench, backend: Any, count: int) -> dict[str, Any]:
    """Do pictures have the embedding they were asked for, do they look like photographs, and are they new?"""
    wanted = bench.embed(bench.test)[:count]
    made = generated(bench, backend, count)
    obtained = bench.embedder(made)
    cosine = cosine_similarity(obtained, wanted)  # embeddings are standardised: this is the centred cosine
    random = cosine_similarity(obtained.roll(1, 0), wanted)
    rest = bench.test[count : 2 * count]
    judge = load_squeezenet(bench.data)
    against = seen_by(judge, rest)
    from torchvision.transforms.functional import gaussian_blur

    pairs = {
        "generated": made,
        "floor: training images": bench.reference[: len(rest)],
        "floor: the same test images": bench.test[: len(rest)],
        "blurred copies (sigma 1 px)": gaussian_blur(bench.test[: len(rest)], [9, 9], [1.0, 1.0]),
        "JPEG-20 copies": jpeg(bench.test[: len(rest)]),
    }
    distances: dict[str, Any] = {}
    for label, pictures in pairs.items():
        features = seen_by(judge, pictures[: len(rest)])
        enough = len(features) > features.shape[1]
        distances[label] = {
            "images": len(features),
            "frechet": frechet_distance(features, against) if enough else None,
            "kernel": kernel_distance(features, against),
        }
        print(label, distances[label], flush=True)
    train = torch.cat([read_images(bench.imagenet / f"train_{part}.zip", 64)[0] for part in (0, 1)])
    small = torch.cat([resize(pixels(part), 16).flatten(1) for part in train.split(2000)])
    near = {
        label: pixel_neighbour(resize(pictures, 16).flatten(1), small)
        for label, pictures in {"generated": made, "test images": bench.test[:count]}.items()
    }
    return {
        "images": count,
        "cosine": rounded(cosine),
        "random": rounded(random),
        "retrieval": retrieval(obtained, wanted),
        "distances": distances,
        "nearest_training_image": {label: rounded(value) for label, value in near.items()},
        "sampling": {"steps": backend.generator.steps, "guidance": backend.generator.guidance},
    }


def pixel_neighbour(queries: Tensor, bank: Tensor) -> Tensor:
    """Root mean squared pixel difference to the nearest of the bank: (N,)."""
    return torch.cat([torch.cdist(part, bank).min(1).values for part in queries.split(200)]) / queries.shape[1] ** 0.5


# ----------------------------------------------------------------------------------------------------------- cost


def cost_stage(bench: Bench, stage: str) -> dict[str, Any]:
    """Seconds of one stage and the peak memory of this process, which does nothing else."""
    name = "vit_tiny64" if "vit_tiny64" in bench.present() else "squeezenet"
    layer = list(NETWORKS[name].layers)[1]
    images = bench.reference[:1000]
    target = bench.target(name, layer, load_units()[name][layer][:1])
    count = {"embed": 1000, "read": 1000, "fit": len(bench.reference), "generate": 8}[stage]
    if stage == "fit":
        bench.embed(bench.reference)
        responses = bench.responses(name, layer, bench.reference)[:, :1]
    elif stage == "generate":
        backend, x = bench.backend(), bench.embedder(images[:8])
    began = time.monotonic()
    if stage == "embed":
        bench.embedder(images)
    elif stage == "read":
        target.responses(images)
    elif stage == "fit":
        method = LandscapeMethod()  # with the shuffled fits behind the evidence, as a lens does it
        method.fit(target, EmbedderOnly(bench.embedder, bench.embedder(bench.reference)), bench.reference, responses)
    else:
        backend.decode(x, reference=None, strength=1.0, seeds=[42] * 8)
    return {
        "stage": stage,
        "images": count,
        "seconds": time.monotonic() - began,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "network": f"{name} {layer}",
    }


# --------------------------------------------------------------------------------------------------------- report


def table(rows: list[list[str]]) -> list[str]:
    """Markdown; the first row is the head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|---" * len(rows[0]) + "|", *lines[1:], ""]


class Edits:
    """What edits did, as arrays over units, images and seeds; methods are compared on what all of them have.

    Args:
        records: ``method``, ``direction``, ``angle``, ``unit`` (anything that names it), ``seed``, and per-image lists.
    """

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.cells: dict[tuple[str, str, float], dict[tuple[Any, int], dict[str, Any]]] = {}
        for record in records:
            key = (record["method"], record["direction"], record["angle"])
            self.cells.setdefault(key, {})[record["unit"], record["seed"]] = record
        self.methods = list(dict.fromkeys(record["method"] for record in records))
        self.angles = sorted({record["angle"] for record in records})
        common = set.intersection(*(set(cell) for cell in self.cells.values())) if self.cells else set()
        seeds_of: dict[Any, set[int]] = {}
        for unit, seed in common:
            seeds_of.setdefault(unit, set()).add(seed)
        self.units = sorted(seeds_of, key=str)
        self.seeds = sorted(set.intersection(*seeds_of.values())) if seeds_of else []

    def values(self, method: str, way: str, angle: float, what: str = "change") -> np.ndarray:
        """(units, images, seeds)."""
        cell = self.cells[method, way, angle]
        return np.array([[cell[unit, seed][what] for seed in self.seeds] for unit in self.units]).transpose(0, 2, 1)

    def both(self, method: str, angle: float, what: str = "change") -> np.ndarray:
        """(units, images, seeds), the mean over the two directions: one number a picture, positive the wanted way."""
        return np.mean([self.values(method, way, angle, what) for way in SIGN], axis=0)

    def right(self, method: str, angle: float, control: str | None = None, only: np.ndarray | None = None) -> float:
        """Share of units × directions whose mean change is the wanted way, and above the control's.

        Args:
            only: (units,) bool: which units count.
        """
        only = np.ones(len(self.units), bool) if only is None else only
        shares = []
        for way in SIGN:
            least = np.zeros(len(self.units))
            if control is not None and control in self.methods:
                least = np.maximum(self.values(control, way, angle).mean((1, 2)), 0.0)
            shares.append((self.values(method, way, angle).mean((1, 2)) > least)[only])
        return float(np.mean(shares)) if only.any() else math.nan

    def evident(self, method: str, angle: float) -> np.ndarray:
        """(units,) bool: whose axis correlates with the response on held-out images, in every seed's fit."""
        cell = self.cells[method, "increase", angle]
        return np.array(
            [
                all((cell[unit, seed].get("correlation") or 0.0) >= WEAK_CORRELATION for seed in self.seeds)
                for unit in self.units
            ]
        )

    def against(self, method: str, other: str, angle: float, what: str = "change") -> Interval:
        """Paired difference over both directions; units drawn first, the same images for all units."""
        return paired_difference(
            self.both(method, angle, what), self.both(other, angle, what), draws=1000, same_images=True
        )


def ci(values: np.ndarray) -> str:
    return str(interval(values, draws=1000, same_images=True))


def edit_lines(edits: Edits, angle: float, extra: dict[str, str]) -> list[str]:
    """The table of one angle; ``extra`` names further per-image measures and their columns."""
    head = ["method", "Δr increase", "Δr decrease", "images right", "units right", *extra.values(), "angle reached"]
    rows = [head]
    for method in edits.methods:
        if (method, "increase", angle) not in edits.cells:
            continue
        reached = [edits.values(method, way, angle, "reached").mean() for way in SIGN]
        changes = {way: edits.values(method, way, angle) for way in SIGN}
        rows.append(
            [
                method,
                *(ci(values) for values in changes.values()),
                f"{np.mean([(values > 0).mean() for values in changes.values()]):.0%}",
                f"{edits.right(method, angle):.0%}",
                *(f"{edits.both(method, angle, name).mean():.3f}" for name in extra),
                f"{np.mean(reached):.0f}°",
            ]
        )
    return table(rows)


def difference_lines(edits: Edits, angle: float, what: dict[str, str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Ours minus every rival, paired, with intervals."""
    rows, found = [["ours as shipped minus", *what.values()]], {}
    for rival in (*RIVALS, LANDSCAPE, SHUFFLED):
        if rival not in edits.methods or OURS not in edits.methods:
            continue
        differences = {name: edits.against(OURS, rival, angle, name) for name in what}
        found[rival] = {name: {"mean": one.mean, "low": one.low, "high": one.high} for name, one in differences.items()}
        rows.append([rival, *(f"{one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}]" for one in differences.values())])
    return table(rows), found


def edit_checks(part: str, edits: Edits, angle: float, found: dict[str, dict[str, Any]]) -> dict[str, bool]:
    """What the issue asks of edits, as sentences, and whether it is so."""
    checks: dict[str, bool] = {}
    about = f"{part}, {angle:.0f}°, {len(edits.units)} units"
    for rival, what in found.items():
        one = what["change"]
        said = f"{one['mean']:+.3f} SD [{one['low']:+.3f}, {one['high']:+.3f}]"
        if rival == BRAINACTIV:
            checks[f"{about}: Δr of ours minus BrainACTIV's ridge {said} (wanted: above 0)."] = one["low"] > 0
        elif rival in RIVALS:
            text = f"{about}: Δr of ours minus {rival} {said} (wanted: not below by more than the interval)."
            checks[text] = one["high"] >= 0
    evident = edits.evident(OURS, angle)
    share = edits.right(OURS, angle, SHUFFLED, evident)
    text = f"{about}: {share:.0%} of directions of the {evident.sum()} units with evidence (held-out correlation of at"
    text += f" least {WEAK_CORRELATION}) go the right way and above the shuffled control"
    checks[f"{text} (wanted: 95 %)."] = share >= 0.95
    return checks


def retrieval_report(records: list[dict[str, Any]]) -> tuple[list[str], dict[str, Any], dict[str, bool]]:
    records = [
        {**record, "unit": (record["network"], record["layer"], record["unit"]), "seed": 0} for record in records
    ]
    edits = Edits(records)
    networks = sorted({unit[0] for unit in edits.units})
    images = len(records[0]["change"])
    lines = [
        "## Edits judged by natural images",
        "",
        f"{len(edits.units)} units of {', '.join(networks)}, {images} held-out images each. An edited embedding has",
        "the mean response of its five nearest held-out images (the edited one never among them); Δr is against those",
        'of the untouched embedding, in SDs of the unit. "natural" is the mean cosine to those five.',
        "",
    ]
    numbers: dict[str, Any] = {"units": len(edits.units), "images": images, "angles": {}}
    checks: dict[str, bool] = {}
    for angle in edits.angles:
        what, found = difference_lines(edits, angle, {"change": "Δr", "natural": "natural"})
        lines += [f"### {angle:.0f}°", "", *edit_lines(edits, angle, {"natural": "natural"}), *what]
        numbers["angles"][f"{angle:.0f}"] = {
            "methods": {
                method: {
                    "change": {way: edits.values(method, way, angle).mean() for way in SIGN},
                    "natural": edits.both(method, angle, "natural").mean(),
                }
                for method in edits.methods
            },
            "differences": found,
        }
        if angle == JOB_ANGLE:
            checks = edit_checks("Retrieval", edits, angle, found)
    return lines, numbers, checks


def job_report(cells: list[dict[str, Any]]) -> tuple[list[str], dict[str, Any], dict[str, bool]]:
    records, natural = [], {}
    for cell in cells:
        unit = (cell["network"], cell["layer"], cell["unit"])
        for method in cell["methods"]:
            change = method["changes"][UNIT]
            record = {**method, "change": change, "unit": unit, "seed": cell["seed"], "angle": cell["angle"]}
            if record.get("kernel") is not None:  # shares, for networks differ in the scale of their features
                record["kernel"] /= abs(cell["zero_kernel"])
            if method["method"] == NATURAL:
                natural.setdefault(method["direction"], {})[unit] = np.mean(change)
            else:
                records.append(record)
    edits = Edits(records)
    angle = edits.angles[0]
    per_network = {name: len({u for u in edits.units if u[0] == name}) for name in {u[0] for u in edits.units}}
    pictures = len(edits.units) * len(edits.seeds) * cells[0]["images"] * 2 * len(edits.methods)
    lines = [
        "## The job: generated pictures",
        "",
        f"{', '.join(f'{count} units of {name}' for name, count in sorted(per_network.items()))}; {cells[0]['images']}",
        f"test images, {len(edits.seeds)} seed(s), turned by {angle:.0f}°: {pictures} pictures. Δr is against α = 0",
        "with the same noise, in SDs of the unit over the reference images. Similarity (to the α = 0 picture), realism",
        "(mean cosine to the five nearest natural images) and distances are in a network that is not the target; all",
        "cosines are around the mean of natural images.",
        "",
        *edit_lines(edits, angle, {"similarity": "similarity", "natural": "realism"}),
    ]
    sets = [["method", "kernel distance to natural images, α = 0 being 1", "diversity", "arrived at α = 1, not in it"]]
    for method in edits.methods:
        mine = [record for record in records if record["method"] == method]
        known = [record["kernel"] for record in mine if record["kernel"] is not None]
        arrived = sum(record["arrived"] for record in mine)
        diversity = np.mean([record["diversity"] for record in mine])
        kernel = f"{np.mean(known):.2f} ± {np.std(known) / math.sqrt(len(known)):.2f}" if known else "none left"
        sets.append([method, kernel, f"{diversity:.3f}", str(arrived)])
    for label, key in (("α = 0", "zero"), ("the photographs themselves", "input")):
        values = [cell[f"{key}_kernel"] / abs(cell["zero_kernel"]) for cell in cells]
        diversity = f"{np.mean([cell['zero_diversity'] for cell in cells]):.3f}" if key == "zero" else ""
        error = np.std(values) / math.sqrt(len(values))
        sets.append([label, f"{np.mean(values):.2f} ± {error:.2f}", diversity, ""])
    lines += table(sets)
    mean = {key: np.mean([np.mean(cell[key]) for cell in cells]) for key in cells[0] if key.endswith("_similarity")}
    realism = {key: np.mean([np.mean(cell[f"{key}_natural"]) for cell in cells]) for key in ("input", "zero")}
    best = ", ".join(f"{way} {np.mean(list(values.values())):+.2f} SD" for way, values in natural.items())
    lines += [
        f"Similarity of random pairs {mean['random_similarity']:.3f}, of α = 0 to the photograph",
        f"{mean['zero_similarity']:.3f}. Realism of photographs {realism['input']:.3f}, of α = 0",
        f"{realism['zero']:.3f}. Top-10 natural images against the mean of α = 0: {best}.",
        "",
    ]
    rivals, found = difference_lines(edits, angle, {"change": "Δr", "natural": "realism", "similarity": "similarity"})
    distances = [["ours as shipped minus", "kernel distance to natural images, α = 0 being 1"]]
    for rival in found:
        one = kernel_difference(records, rival)
        found[rival]["kernel"] = {"mean": one.mean, "low": one.low, "high": one.high}
        distances.append([rival, with_interval(found[rival]["kernel"])])
    checks = edit_checks("Generated", edits, angle, found)
    if BRAINACTIV in found:
        near, change = found[BRAINACTIV]["kernel"], found[BRAINACTIV]["change"]
        text = (
            f"Generated, {angle:.0f}°: kernel distance of ours minus BrainACTIV's ridge {with_interval(near)}, at a Δr"
        )
        text += f" of {with_interval(change)} SD more (wanted: nearer to natural images at no smaller Δr)."
        checks[text] = near["high"] < 0 and change["high"] >= 0
    numbers = {"units": per_network, "pictures": pictures, "angle": angle, "differences": found}
    numbers["methods"] = {
        method: {way: edits.values(method, way, angle).mean() for way in SIGN} for method in edits.methods
    }
    numbers["measures"] = [
        {
            "what": f"embedded backend, {what}: Δr against α = 0 at {angle:.0f}°",
            "value": found_.mean,
            "unit": "SD",
            "sample": f"{len(edits.units)} units of {len(per_network)} networks",
            "low": found_.low,
            "high": found_.high,
            "spread": "95 % bootstrap interval over units first",
            "direction": way,
        }
        for method, what in {OURS: "the shipped edit", BRAINACTIV: "BrainACTIV's ridge", SHUFFLED: "shuffled"}.items()
        if method in edits.methods
        for way in SIGN
        for found_ in [interval(edits.values(method, way, angle), draws=1000, same_images=True)]
    ]
    return [*lines, *rivals, *table(distances)], numbers, checks


def with_interval(one: dict[str, float]) -> str:
    """A mean and the ends of its interval, in words."""
    return f"{one['mean']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]"


def kernel_difference(records: list[dict[str, Any]], rival: str) -> Interval:
    """Ours minus a rival's kernel distance, paired over units in which both have one."""
    means: dict[str, dict[Any, list[float]]] = {OURS: {}, rival: {}}
    for record in records:
        if record["method"] in means and record.get("kernel") is not None:
            means[record["method"]].setdefault(record["unit"], []).append(record["kernel"])
    both = sorted(set(means[OURS]) & set(means[rival]), key=str)
    ours, theirs = ([float(np.mean(means[method][unit])) for unit in both] for method in (OURS, rival))
    return paired_difference(ours, theirs, levels=("unit",))


def quality_report(parts: dict[str, Any]) -> tuple[list[str], dict[str, bool]]:
    lines, checks = ["## Quality", ""], {}
    if one := parts.get("embedder"):
        text = f"linear probe {one['linear_probe_top1']:.1%}"
        lines += [
            f"Embedder, {one['parameters'] / 1e6:.1f} M parameters: {text}, 20-NN {one['knn20_top1']:.1%} top-1 on",
            f"{one['test']} test images from {one['bank']:,} training images.",
            "",
        ]
        checks[f"Embedder: {text} (wanted: 45 %)."] = one["linear_probe_top1"] >= 0.45
    if one := parts.get("generator"):
        lines += [
            f"Generator, {one['images']} pictures of test embeddings ({one['sampling']['steps']} steps, guidance",
            f"{one['sampling']['guidance']}): centred cosine of obtained and wanted embedding",
            f"{np.mean(one['cosine']):.3f}, of a random row {np.mean(one['random']):.3f}; {one['retrieval']:.1%} find",
            f"their source among {one['images']}.",
            "",
        ]
        rows = [["set, against as many other test images", "images", "Fréchet", "kernel"]]
        for label, found in one["distances"].items():
            frechet = "too few" if found["frechet"] is None else f"{found['frechet']:.1f}"
            rows.append([label, str(found["images"]), frechet, f"{found['kernel']:.4f}"])
        lines += table(rows)
        near = {label: np.median(values) for label, values in one["nearest_training_image"].items()}
        lines += [
            "Features of the third-party SqueezeNet. Median distance to the nearest training image (RMS over 16 x 16",
            f"pixels): generated {near['generated']:.3f}, test images {near['test images']:.3f}.",
            "",
        ]
        checks[f"Generator: {one['retrieval']:.1%} find their source (wanted: 90 %)."] = one["retrieval"] >= 0.9
        made, yardstick = (one["distances"][label]["frechet"] for label in ("generated", "JPEG-20 copies"))
        if made is not None:
            text = f"Generator: Fréchet distance {made:.1f}, JPEG-20 copies {yardstick:.1f} (wanted: below)."
            checks[text] = made < yardstick
        text = f"Generator: nearest training image at {near['generated']:.3f}, of test images {near['test images']:.3f}"
        checks[f"{text} (wanted: no nearer than four fifths)."] = near["generated"] >= 0.8 * near["test images"]
    return lines, checks


def report(out: Path, said: dict[str, Any]) -> str:
    """Everything that is in ``out``, what fails first; written beside it."""
    lines: list[str] = []
    numbers: dict[str, Any] = {}
    checks: dict[str, bool] = {}
    sources: list[dict[str, Any]] = []
    redone: dict[str, dict[str, Any]] = {}

    def read(pattern: str) -> list[Any]:
        found = [json.loads(path.read_text()) for path in sorted(out.glob(pattern))]
        sources.extend(one["provenance"] for one in found)
        for one in found:
            redone.update(one.get("redone", {}))
        return [one["found"] for one in found]

    quality = {path.stem.partition("-")[2]: None for path in sorted(out.glob("quality-*.json"))}
    if quality:
        quality = dict(zip(quality, read("quality-*.json"), strict=True))
        text, more = quality_report(quality)
        lines, checks = lines + text, checks | more
        numbers["quality"] = {
            part: {name: value for name, value in found.items() if not isinstance(value, list)}
            for part, found in quality.items()
        }
    if records := [record for found in read("retrieval-*.json") for record in found]:
        text, numbers["retrieval"], more = retrieval_report(records)
        lines, checks = lines + text, checks | more
    if cells := read("job-*.json"):
        text, numbers["job"], more = job_report(cells)
        lines, checks = lines + text, checks | more
        numbers["measures"] = numbers["job"].pop("measures")
    if stages := read("cost-*.json"):
        rows = [["stage", "images", "seconds", "peak memory, MiB", "threads"]]
        for stage in stages:
            threads = str(stage["threads"])
            rows.append(
                [stage["stage"], str(stage["images"]), f"{stage['seconds']:.1f}", f"{stage['peak_mib']:.0f}", threads]
            )
        lines += ["## Cost", "", *table(rows)]
        numbers["cost"] = stages
    if not checks:
        raise SystemExit(f"nothing to report in {out}: run quality, retrieval, job or cost first.")
    failed, held = ([f"- {text}" for text, ok in checks.items() if bool(ok) is wanted] for wanted in (False, True))
    head = ["# The embedded backend", "", "**What fails, first.**", "", *(failed or ["- Nothing of what was asked."])]
    head += ["", "**What holds.**", "", *(held or ["- Nothing."]), ""]
    made = sorted({(one["commit"] or "none")[:10] + ("+" if one["dirty"] else "") for one in sources})
    lines += [
        provenance_line(said),
        "",
        f"Cells were run at {', '.join(made)} on {', '.join(sorted({one['device'] for one in sources}))}.",
    ]
    lines += [f"Run anew at {one['commit'][:10]}: {label}." for label, one in redone.items()]
    numbers |= {"checks": {text: bool(ok) for text, ok in checks.items()}, "provenance": said}
    write_text(out / "embedded.json", json.dumps(numbers, indent=1))
    text = "\n".join([*head, *lines]) + "\n"
    write_text(out / "embedded.md", text)
    return text


def tuning_report(out: Path, said: dict[str, Any]) -> str:
    """What `retrieval --tune` found; no verdict, for nothing is claimed on tuning units."""
    found = [json.loads(path.read_text())["found"] for path in sorted(out.glob("tuning-*.json"))]
    lines, numbers, _ = retrieval_report([record for cell in found for record in cell])
    text = "\n".join(["# Tuning units and images", "", *lines, provenance_line(said)]) + "\n"
    write_text(out / "tuning.md", text)
    write_text(out / "tuning.json", json.dumps({**numbers, "provenance": said}, indent=1))
    return text


# --------------------------------------------------------------------------------------------------------- figure


def figure(bench: Bench, path: Path, pictures: int = 6) -> None:
    """Figure 4: of each layer its first test unit, the first test images: photograph, preferred, suppressed, top 10.

    Nothing is picked. Below each generated picture stands its Δr against α = 0.
    """
    backend = bench.backend()
    bench.embed(bench.reference)
    images = bench.test[:pictures]
    rows: list[tuple[str, Tensor, list[str]]] = []
    noise = list(range(pictures))
    for name in bench.present():
        for layer in NETWORKS[name].layers:
            reference = bench.responses(name, layer, bench.reference)
            column = bench.units(name, layer, reference, tune=False, count=1)[0]
            unit = load_units()[name][layer][column]
            target, responses = bench.target(name, layer, [unit]), reference[:, [column]]
            scaler = ResponseScaler.fit(responses)
            method = METHODS[OURS]().fit(target, backend, bench.reference, responses)
            set_angle(method, JOB_ANGLE)
            made = {"α = 0": Unedited().fit(target, backend, bench.reference).generate(images, {}, seeds=noise)}
            for way, label in (("increase", "preferred"), ("decrease", "suppressed")):
                made[label] = method.generate(images, {0: way}, seeds=noise)
            read = {key: scaler.standardise(target.responses(value))[:, 0] for key, value in made.items()}
            rows.append((f"{name}\n{layer}, unit {unit}\nphotograph", images, [""] * pictures))
            for label, shown in made.items():
                notes = [f"{value:+.1f}" for value in (read[label] - read["α = 0"]).tolist()]
                rows.append((label, shown, notes))
            best = responses[:, 0].argsort(descending=True)[:pictures]
            rows.append(("top natural", bench.reference[best], [""] * pictures))
            print(f"figure: {name} {layer}", flush=True)
    save_small(sheet(rows), path)


def sheet(rows: list[tuple[str, Tensor, list[str]]]) -> Any:
    """A figure of rows of pictures: what the row is, images (N, 3, H, W), and a note below each of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pictures = len(rows[0][1])
    page = Figure(figsize=(1.05 * pictures + 1.6, 1.2 * len(rows)), dpi=110)
    FigureCanvasAgg(page)
    axes = page.subplots(len(rows), pictures, squeeze=False)
    for index, (label, shown, notes) in enumerate(rows):
        for column in range(pictures):
            axis = axes[index][column]
            axis.imshow(shown[column].permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(notes[column], fontsize=8, labelpad=1)
        axes[index][0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    page.tight_layout(pad=0.4)
    return page


def save_small(page: Any, path: Path, limit: int = FIGURE_BYTES) -> None:
    """Write a figure as WebP, of less quality until it is small enough."""
    drawn = io.BytesIO()
    page.savefig(drawn, format="png")
    picture = Image.open(drawn).convert("RGB")
    for quality in (90, 80, 70, 60, 45, 30):
        packed = io.BytesIO()
        picture.save(packed, "WEBP", quality=quality, method=6)
        if packed.tell() <= limit:
            write_atomically(path, lambda temporary, packed=packed: temporary.write_bytes(packed.getvalue()))
            return
    raise ValueError(f"limit={limit} bytes; expected {packed.tell()} at least for this figure. Show fewer pictures.")


# ----------------------------------------------------------------------------------------------------------- main


def save_cell(path: Path, found: Any, said: dict[str, Any]) -> None:
    write_text(path, json.dumps({"provenance": said, "found": found}))


def to_redo(path: Path, labels: list[str], said: dict[str, Any]) -> list[str]:
    """Of these methods, those whose rows in a finished cell are of another commit than this one."""
    cell = json.loads(path.read_text())
    made = dict.fromkeys(labels, cell["provenance"]) | cell.get("redone", {})
    return [label for label in labels if made[label]["commit"] != said["commit"]]


def rows_of(found: Any) -> list[dict[str, Any]]:
    """What a cell says of each method."""
    return found["methods"] if isinstance(found, dict) else found


def redo(path: Path, found: Any, labels: list[str], said: dict[str, Any]) -> None:
    """Put the rows of some methods, run anew, in a finished cell, which says so; all else in it stays."""
    cell = json.loads(path.read_text())
    old, new = cell["found"], found
    if isinstance(old, dict) and old["zero"] != new["zero"]:
        raise ValueError(f"--redo: {path.name} has other α = 0 answers than this run; delete it to run it whole.")
    old, new = rows_of(old), rows_of(new)
    old[:] = [row for row in new if row["method"] in labels] + [row for row in old if row["method"] not in labels]
    write_text(path, json.dumps({**cell, "redone": {**cell.get("redone", {}), **dict.fromkeys(labels, said)}}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("units", "quality", "retrieval", "job", "cost", "report", "figure"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tune", action="store_true", help="retrieval and its report: tuning units, images, variants")
    parser.add_argument("--units", type=int, default=8, help="units of each layer")
    parser.add_argument("--images", type=int, default=100, help="images of each unit; of quality: pictures to make")
    parser.add_argument("--seeds", type=int, default=1, help="job: noise seeds")
    parser.add_argument("--angle", type=float, default=JOB_ANGLE, help="job: edit angle in degrees")
    parser.add_argument("--bank", type=int, default=10_000, help="quality: training images that the probe sees")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), help="targets; all whose weights are there")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--redo", nargs="+", choices=list(METHODS), default=[], metavar="METHOD", help="run anew in finished cells"
    )
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    said = provenance(seed=list(range(args.seeds)), device=args.device)
    if args.part == "units":
        write_text(UNITS, json.dumps(draw_units()) + "\n")
        return
    if args.part == "report":
        print(tuning_report(args.out, said) if args.tune else report(args.out, said))
        return
    if args.part == "cost" and args.stage is None:
        drawn = (args.weights / "generator64").is_dir()
        for stage in ("embed", "read", "fit", *(["generate"] if drawn else [])):
            if not (args.out / f"cost-{stage}.json").exists():
                subprocess.run([sys.executable, *sys.argv, "--stage", stage], check=True)
        return
    bench = Bench(args.data, args.weights, args.out, args.device)
    names = args.networks or bench.present()
    print(f"networks: {', '.join(names)}; not there: {', '.join(set(NETWORKS) - set(bench.present())) or 'none'}")
    if args.part == "cost":
        save_cell(args.out / f"cost-{args.stage}.json", cost_stage(bench, args.stage) | {"threads": args.threads}, said)
    elif args.part == "figure":
        figure(bench, args.out / "figure4.webp")
    elif args.part == "quality":
        if not (path := args.out / "quality-embedder.json").exists():
            save_cell(path, quality_embedder(bench, args.bank), said)
        path = args.out / "quality-generator.json"
        if not path.exists() and (args.weights / "generator64").is_dir():
            save_cell(path, quality_generator(bench, bench.backend(), args.images), said)
    elif args.part == "retrieval":
        for name in names:
            for layer in NETWORKS[name].layers:
                path = args.out / f"{'tuning' if args.tune else 'retrieval'}-{name}-{layer}.json"
                if not path.exists():
                    methods = METHODS | (VARIANT_METHODS if args.tune else {})
                    cell = retrieval_cell(
                        bench, name, layer, tune=args.tune, units=args.units, images=args.images, methods=methods
                    )
                    save_cell(path, list(cell), said)
                elif not args.tune and (labels := to_redo(path, args.redo, said)):
                    methods = {label: METHODS[label] for label in labels}
                    cell = retrieval_cell(
                        bench, name, layer, tune=False, units=args.units, images=args.images, methods=methods
                    )
                    redo(path, list(cell), labels, said)
    else:
        backend = bench.backend()
        # Units outermost in the order of the file, so that whatever has been run holds all networks and layers.
        for seed in range(args.seeds):
            for place in range(args.units):
                for name in names:
                    for layer in NETWORKS[name].layers:
                        reference = bench.responses(name, layer, bench.reference)
                        columns = bench.units(name, layer, reference, tune=False, count=args.units)
                        if place >= len(columns):
                            continue
                        path = args.out / f"job-{name}-{layer}-{columns[place]}-{seed}.json"
                        cell = partial(
                            job_cell, bench, backend, name, layer, columns[place], seed, args.images, args.angle
                        )
                        if not path.exists():
                            save_cell(path, cell(), said)
                        elif labels := to_redo(path, [label for label in args.redo if label in JOB_METHODS], said):
                            redo(path, cell(labels), labels, said)


if __name__ == "__main__":
    main()
