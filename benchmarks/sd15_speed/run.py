"""How long the full path takes: a landscape of the paper's size, and a picture of 512 pixels."""

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.judges import data_folder, load_squeezenet
from benchmarks.common.script import parser, provenance, provenance_line, read, shuffled
from benchmarks.sd15_speed import generation
from benchmarks.sd15_speed.report import fit_lines, generation_lines, path_lines
from benchmarks.speed.run import seconds_of

SPREAD = 0.35  # mean variance of a dimension, as guessed for CLIP's embeddings: the weights of the losses depend on it


@dataclass(frozen=True)
class Size:
    """How large everything is, as in the paper."""

    images: int = 9000  # embeddings that a landscape is fitted on
    dim: int = 1024  # numbers in one
    epochs: int = 150  # of the paper's recipe


QUICK = Size(images=400, dim=32, epochs=3)


def simulated(size: Size, units: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Embeddings (N, D) about as long and as correlated as CLIP's, and responses (N, K) that half depend on them."""
    draw = torch.Generator().manual_seed(seed)
    spectrum = 1 / torch.arange(1, size.dim + 1)
    spread = (SPREAD * size.dim * spectrum / spectrum.sum()).sqrt()
    basis = torch.linalg.qr(torch.randn(size.dim, size.dim, generator=draw)).Q
    factors = torch.randn(size.images, size.dim, generator=draw)
    factors = factors * (0.7 + 0.6 * torch.rand(size.images, 1, generator=draw))
    x = (factors * spread) @ basis.T + 0.4 * torch.randn(size.dim, generator=draw)
    weights = torch.randn(size.dim, units, generator=draw) * spread[:, None].sqrt()
    read = factors @ weights
    noise = torch.randn(size.images, units, generator=draw)
    return x, (read / read.std(0) + noise) / 2**0.5


def photographs(data: Path, size: Size, cache: Path) -> tuple[Tensor, Tensor]:
    """SqueezeNet's last features (N, 1024) of Tiny ImageNet's pictures, and one channel of its fifth block (N, 1)."""
    network = load_squeezenet(data, size=128)
    early, late = network.features[:8], network.features[8:]

    def compute(images: Tensor) -> Tensor:
        middle = early(network.preprocess(images))
        last = late(middle)
        return torch.cat([last.mean((2, 3)), last.amax((2, 3)), middle[:, :1].mean((2, 3))], 1)

    images, _, _ = vl.read_images(data / "tiny_imagenet" / "train_0.zip", 64)
    rows = shuffled(len(images), 0)[: size.images]
    store = vl.RowCache(cache, "squeezenet", vl.weights_fingerprint(network, side=128, channel=0))
    found = store.rows(vl.pixels(images[rows]), compute, batch_size=128, progress=True).tensor()
    x, responses = found[:, :-1], found[:, -1:]
    return x * (SPREAD * x.shape[1] / x.var(0).sum()).sqrt(), responses  # as long as CLIP's, or Adam diverges


def same_loss(name: str, x: Tensor, responses: Tensor, size: Size, device: torch.device) -> dict[str, Any]:
    """Both recipes from the same start, and when each has what the paper's ends with."""
    x, dim = x.to(device), x.shape[1]
    paper = replace(vl.PAPER_DEFAULTS.fit, epochs=size.epochs)
    prior = vl.ActivationPrior(dim, [(0, dim)])
    torch.manual_seed(0)
    vae = vl.EmbeddingVAE(dim).to(device)
    fits: dict[str, vl.Landscape] = {}
    clocks: dict[str, tuple[float, float]] = {}  # seconds, and of a processor: nearer to those of an idle machine
    for recipe, settings in {"alternating": replace(paper, solver="alternating"), "adam": paper}.items():

        def fit(recipe: str = recipe, settings: vl.FitConfig = settings) -> None:
            fits[recipe] = vl.fit_landscape(vae, x, responses, prior, settings, progress=True)

        start = time.process_time()
        clocks[recipe] = seconds_of(fit, device), time.process_time() - start
    goal = min(row["validation_loss"] for row in fits["adam"].history)
    found: dict[str, Any] = {"name": name, "images": len(x), "dim": dim, "goal": goal, "settings": asdict(paper)}
    for recipe, fitted in fits.items():
        # What is done before the first round, and after the last, belongs to the time as well.
        seconds, cpu_seconds = clocks[recipe]
        around = seconds - fitted.history[-1]["seconds"]
        reached = [row for row in fitted.history if row["validation_loss"] <= goal]
        found[recipe] = {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "epochs": len(fitted.history),
            "validation_loss": min(row["validation_loss"] for row in fitted.history),
            "training_loss": fitted.history[-1]["loss"],
            "seconds_to_goal": around + reached[0]["seconds"] if reached else None,
            "epochs_to_goal": reached[0]["epoch"] if reached else None,
            "axis_correlation": axis_correlation(fitted),
            "curve": [[row["seconds"], row["validation_loss"]] for row in fitted.history],
        }
    return found


def axis_correlation(landscape: vl.Landscape) -> float:
    """Correlation of held-out images' place on the axis with their responses."""
    rows = landscape.held_out
    pair = torch.stack([landscape.axis(0, landscape.latents[rows]), landscape.responses[rows, 0]])
    return torch.corrcoef(pair)[0, 1].item()


class Measured:
    """What was measured so far, in a JSON file: parts that are there are not measured again.

    ``key`` has to be the same for parts to stand in one table: a file with another one is refused. ``source`` says
    where what is measured from now on comes from.
    """

    def __init__(self, path: Path, key: dict[str, Any], source: dict[str, Any]) -> None:
        self.path, self.key, self.source = path, key, source
        self.parts = self._written()

    def _written(self) -> dict[str, Any]:
        if not self.path.is_file():
            return {}
        before = read(self.path)
        if before.get("key") != self.key:
            raise ValueError(
                f"out={str(self.path.parent)!r} holds results of another machine or size ({before.get('key')}); "
                f"expected {self.key}, to go on. Choose another --out, or delete {self.path.name}."
            )
        return before["parts"]

    def part(self, name: str, work: Callable[[], Any]) -> Any:
        """What ``work`` gives, from the file if it is there, with where it comes from beside it."""
        if name not in self.parts:
            load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
            found = {"found": work(), "source": self.source | {"load_before": load}}
            self.parts = {**self._written(), name: found}  # the other half may have been measured meanwhile
            vl.write_text(self.path, json.dumps({"key": self.key, "parts": self.parts}, indent=1))
        return self.parts[name]["found"]

    def sources(self) -> list[str]:
        """Command, commit and machine of all parts, and what else the machine had to do."""
        members: dict[str, dict[str, float | None]] = {}
        for name, part in self.parts.items():
            members.setdefault(provenance_line(part["source"]), {})[name] = part["source"]["load_before"]
        lines = []
        for said, loads in members.items():
            known = [load for load in loads.values() if load is not None]
            busy = f" · load average before a part {min(known):.1f} to {max(known):.1f}" if known else ""
            if known and max(known) > 0.5:
                cpus = next(part["source"]["cpus"] for part in self.parts.values())
                busy += f": **other work ran beside on these {cpus} CPUs**, trust ratios and CPU seconds"
            lines += ["", f"{', '.join(loads)}: {said}{busy}"]
        return lines


def measure_fit(measured: Measured, size: Size, device: torch.device, data: Path | None) -> list[str]:
    """The fit half: one unit by both recipes."""
    fits = [measured.part("fit, simulated", lambda: same_loss("simulated", *simulated(size), size, device))]

    def real() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as cache:
            x, responses = photographs(data_folder(data), size, Path(cache))
        return same_loss("SqueezeNet on Tiny ImageNet", x, responses, size, device)

    if data is not None or "fit, photographs" in measured.parts:
        fits.append(measured.part("fit, photographs", real))
    return fit_lines(fits)


def measure_generation(measured: Measured, device: torch.device, quick: bool) -> list[str]:
    """The generation half: counted, timed by parts, and on a GPU by whole pictures."""
    networks, effort = (generation.TINY, generation.QUICK) if quick else (generation.PUBLISHED, generation.Effort())
    gpu = device.type == "cuda"
    dtype = torch.float16 if gpu else torch.float32

    def work(name: str, function: Callable[..., Any]) -> Any:
        arguments = (networks, effort, device, dtype)
        if gpu:  # memory is counted by tensors there
            return measured.part(name, lambda: function(*arguments))
        return measured.part(name, lambda: generation.alone(function, *arguments, threads=torch.get_num_threads()))

    found: dict[str, Any] = {"counts": measured.part("counts", lambda: generation.counts(networks))}
    found["embedding"] = work("embedding", generation.embedding)
    found["parts"] = work("parts of a picture", generation.parts)
    if gpu or quick:
        side = effort.matrix * (4 if gpu else 1)
        found["grid"], found["grid_rate"] = [], {}
        for variant in generation.variants(device):
            rate = lambda dtype=variant.dtype: generation.matrix_rate(device, getattr(torch, dtype), side)  # noqa: E731
            found["grid_rate"][variant.dtype] = measured.part(f"matrix rate, {variant.dtype}", rate)
            grid = generation.Grid(networks, effort, device, variant)
            for batch in effort.batches:
                cell = measured.part(f"{variant}, batch {batch}", lambda grid=grid, batch=batch: grid.cell(batch))
                found["grid"].append({**cell, "variant": str(variant)})
    source = next(iter(measured.parts.values()))["source"]
    lines = generation_lines(found, source["device"], source["cpus"])
    if quick:
        return lines
    return [*lines, "", *path_lines(measured.part("operations of each path", generation.paths))]


def main() -> None:
    """Run and write ``sd15_speed.md`` and ``sd15_speed.json``."""
    command = parser(__doc__, "--data", "--out", "--device", "--quick")
    command.add_argument("--only", choices=("fit", "generation"), help="one half; the other stays as it is in --out")
    args = command.parse_args()
    size = QUICK if args.quick else Size()
    device = torch.device(args.device)
    machine = provenance(seed=0, device=device)
    key = {"quick": args.quick, "size": asdict(size)} | {name: machine[name] for name in ("device", "cpus", "torch")}
    measured = Measured(args.out / "sd15_speed.json", key, machine)
    lines = ["# Speed of the full path" + " (quick run: it works, and measures nothing)" * args.quick]
    # What is there already is said again, so that the table is whole.
    if args.only != "generation" or "fit, simulated" in measured.parts:
        lines += ["", *measure_fit(measured, size, device, None if args.only == "generation" else args.data)]
    if args.only != "fit" or "counts" in measured.parts:
        lines += ["", *measure_generation(measured, device, args.quick)]
    text = "\n".join([*lines, *measured.sources()]) + "\n"
    vl.write_text(args.out / "sd15_speed.md", text)
    print(text)


if __name__ == "__main__":
    main()
