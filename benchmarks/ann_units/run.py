"""Every method on units of real networks, at one budget, by one scorer: Figure 4 and Table S2 in form.

    P="python -m benchmarks.ann_units.run --data $VISLENS_DATA --weights runs/weights64 --out runs/ann_units"
    $P run                                     # 4 units x 3 networks x 12 images x 1 seed; more with larger numbers
    $P run --share 0/2 & $P run --share 1/2    # the same by two processes
    $P report                                  # tables and figures of all that has been run, what fails first

README.md says what is measured, and how.
"""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.ann_units.methods import CONTESTANTS, Budget, Heard, RememberedSets, Watched
from benchmarks.ann_units.report import report
from benchmarks.common import package as vl
from benchmarks.common.bench import Bench, seen_by
from benchmarks.common.cells import save_cell
from benchmarks.common.edit_methods import JOB_ANGLE, SIGN
from benchmarks.common.networks import NETWORKS, load_units
from benchmarks.common.provenance import provenance

TARGETS = ("simclr_resnet50", "vit_tiny64", "squeezenet")
SECOND = ("vit_tiny64", "squeezenet", "cifar10_resnet20")
"""Where a change is transferred to: the first that is there and is not the target."""
JUDGES = 300
"""Test images that judge, after those that are moved."""
SHOWN = 2
"""Pictures of each method that a figure may show."""


class Seen:
    """Pooled features of a network's last layer; those of the images that every cell shares are kept on the disk.

    Args:
        bench: Where networks and the cache are.
        name: The network.
    """

    def __init__(self, bench: Bench, name: str) -> None:
        bench.network(name)
        self.bench, self.name = bench, name
        self.known: dict[str, Tensor] = {}

    def learn(self, images: Tensor) -> None:
        """Read these from the disk, or put them there."""
        store = vl.RowCache(
            self.bench.cache, f"seen-{self.name}", vl.weights_fingerprint(self.bench.network(self.name))
        )
        rows = store.rows(images, self._see, batch_size=50, progress=True).tensor()
        self.known |= dict(zip(vl.image_keys(images), rows.clone(), strict=True))

    def __call__(self, images: Tensor) -> Tensor:
        keys = vl.image_keys(images)
        new = [row for row, key in enumerate(keys) if key not in self.known]
        found = dict(zip([keys[row] for row in new], self._see(images[new]), strict=True)) if new else {}
        return torch.stack([found[key] if key in found else self.known[key] for key in keys])

    @torch.no_grad()
    def _see(self, images: Tensor) -> Tensor:
        network = self.bench.network(self.name)
        if not hasattr(network, "forward_head"):
            return seen_by(network, images)
        parts = images.to(self.bench.device).split(50)
        seen = [
            network.forward_head(network.forward_features(network.preprocess(one)), pre_logits=True) for one in parts
        ]
        return torch.cat(seen).cpu()


@dataclass(frozen=True)
class Cell:
    """One unit and seed.

    Args:
        network: Name of the target.
        layer: Its layer.
        column: Of the layer's candidates.
        first: It is its layer's first test unit: figure 4 shows it.
        seed: Of the noise.
    """

    network: str
    layer: str
    column: int
    first: bool
    seed: int

    @property
    def unit(self) -> int:
        return load_units()[self.network][self.layer][self.column]

    @property
    def stem(self) -> str:
        return f"{self.network}-{self.layer}-{self.unit}-{self.seed}"


def cells(bench: Bench, names: list[str], units: int, seeds: int) -> Iterator[Cell]:
    """Networks innermost, layers in turn, so that whatever has been run holds all networks."""
    columns: dict[tuple[str, str], list[int]] = {}
    for name in names:
        for layer in NETWORKS[name].layers:
            reference = bench.responses(name, layer, bench.reference)
            columns[name, layer] = bench.units(name, layer, reference, tune=False, count=units)
    for seed in range(seeds):
        for place in range(units):
            for name in names:
                layers = list(NETWORKS[name].layers)
                turn, layer = place // len(layers), layers[place % len(layers)]
                if turn < len(columns[name, layer]):
                    yield Cell(name, layer, columns[name, layer][turn], turn == 0, seed)


def second_of(bench: Bench, name: str) -> str:
    return next(other for other in SECOND if other != name and other in bench.present())


def judge_of(bench: Bench, name: str) -> str:
    """SqueezeNet judges the others; itself is judged by a network of 64 pixels where there is one, not of 32."""
    return "vit_tiny64" if name == "squeezenet" and "vit_tiny64" in bench.present() else NETWORKS[name].judge


def run_cell(bench: Bench, backend: Any, sees: dict[str, Seen], cell: Cell, budget: Budget) -> dict[str, Any]:
    """Every method on one unit: scores of each picture, what it cost, and what the target said on the way.

    The pictures that figures show are written beside it, and features of all of them for the distances of whole sets.
    """
    inputs = bench.test[: budget.images]
    natural = bench.test[budget.images : budget.images + JUDGES]
    judge, second = judge_of(bench, cell.network), second_of(bench, cell.network)
    target = Heard(bench.target(cell.network, cell.layer, [cell.unit]))
    responses = bench.responses(cell.network, cell.layer, bench.reference)[:, [cell.column]]
    # Without the two shuffled fits behind the evidence: here a shuffled landscape is one of the methods.
    lens = vl.FeatureLens(target, backend=backend)
    began = target.clock()
    lens.fit(bench.reference, responses, shuffles=0)
    fit_seconds = target.clock() - began
    remember_learned(backend.embedder, bench, lens)
    methods = {label: Watched(one.build(lens, budget), target) for label, one in CONTESTANTS.items()}
    found = lens.compare(
        inputs, methods, [cell.seed], angle=budget.angle, natural=natural, embedding=sees[judge], second=sees[second]
    )
    scaler = lens.landscape_.scaler
    start = scaler.standardise(target.responses(inputs))[:, 0].mean().item()
    write_pictures(bench.out / f"pictures-{cell.stem}.safetensors", inputs, natural, methods, sees["cifar10_resnet20"])
    (evidence,) = lens.evidence_.values()
    return {
        "network": cell.network,
        "layer": cell.layer,
        "unit": cell.unit,
        "first": cell.first,
        "seed": cell.seed,
        "passes": budget.passes,
        "images": found.images,
        "angle": budget.angle,
        "judge": judge,
        "second": second,
        "correlation": evidence.correlation,
        "start": start,
        "shipped_optimise_steps": backend.defaults.optimize.steps,
        "notes": [note for note in found.notes if "econd network" in note],
        "scores": [
            {"method": method, "direction": way, "measure": measure, "values": [round(v, 5) for v in values]}
            for (method, way, measure), values in timed(found, methods, fit_seconds).items()
        ],
        "traces": {
            label: {way: trace_of(methods[label].traces_[way], scaler, sign) for way, sign in SIGN.items()}
            for label, one in CONTESTANTS.items()
            if one.traced
        },
    }


def timed(
    found: vl.Comparison, methods: dict[str, Watched], fit_seconds: float
) -> dict[tuple[str, str, str], list[float]]:
    """A score's values, one an image; seconds by our own clock, which does not run while other processes do."""
    scores = {key: values[0, :, 0].tolist() for key, values in found.scores.items()}
    for label, method in methods.items():
        for way in SIGN:
            scores[label, way, "seconds"] = [method.seconds_[way]]
            scores[label, way, "fit_seconds"] = [method.seconds_.get("fit", fit_seconds)]
    return scores


def remember_learned(embedder: RememberedSets, bench: Bench, lens: vl.FeatureLens) -> None:
    """The part of the reference set that every method learns from is embedded already."""
    held_out = set(lens.landscape_.held_out.tolist())
    rows = [row for row in range(len(bench.reference)) if row not in held_out]
    embedder.known = [embedder.known[0], (bench.reference[rows], embedder.known[0][1][rows])]


def trace_of(trace: list[tuple[float, float]], scaler: Any, sign: int) -> list[list[float]]:
    """Seconds a picture and the mean response in the wanted direction, in SDs, each time the target was asked."""
    said = scaler.standardise(torch.tensor([[value] for _, value in trace], dtype=torch.float32).view(-1, 1))[:, 0]
    return [
        [round(seconds, 5), round(sign * value, 4)] for (seconds, _), value in zip(trace, said.tolist(), strict=True)
    ]


def write_pictures(file: Path, inputs: Tensor, natural: Tensor, methods: dict[str, Watched], see: Seen) -> None:
    """``"LABEL|WAY"`` to the first pictures in 8 bits, and ``"LABEL|WAY|seen"`` to the features of all."""
    to_8_bits = lambda images: (images.clamp(0, 1) * 255).round().byte().contiguous()  # noqa: E731
    kept = {"input": to_8_bits(inputs[:SHOWN]), "natural|seen": see(natural).float().contiguous()}
    for label, method in methods.items():
        for way in SIGN:
            pictures = to_8_bits(method.made_[way])
            kept[f"{label}|{way}"] = pictures[:SHOWN].clone()
            kept[f"{label}|{way}|seen"] = see(pictures.float() / 255).float().contiguous()
    vl.write_atomically(file, lambda temporary: save_file(kept, temporary))


# ------------------------------------------------------------------------------------------------------------ main


def refuse_other_budgets(out: Path, budget: Budget) -> None:
    """Cells of another budget are not mixed with those of this one."""
    for file in sorted(out.glob("cell-*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))["found"]
        was, now = (found["passes"], len(found["images"])), (budget.passes, budget.images)
        if was != now:
            raise SystemExit(
                f"{file} was run with --passes {was[0]} --images {was[1]}, and this is --passes {now[0]} --images "
                f"{now[1]}; cells of one --out share them. Pass those, or another --out."
            )


def run(args: argparse.Namespace) -> int:
    """Run the cells of this share; the number of those that failed."""
    bench = Bench(args.data, args.weights, args.out, args.device)
    there = [name for name in args.networks if name in bench.present()]
    print(
        f"networks: {', '.join(there)}; not there: {', '.join(set(args.networks) - set(there)) or 'none'}", flush=True
    )
    budget = Budget(args.passes, args.images, JOB_ANGLE)
    backend = bench.backend
    backend.embedder = RememberedSets(bench.embedder.embedder)
    backend.embedder.known = [(bench.reference, bench.embed(bench.reference))]
    part, parts = (int(word) for word in args.share.split("/"))
    mine = [cell for place, cell in enumerate(cells(bench, there, args.units, args.seeds)) if place % parts == part]
    left = [cell for cell in mine if not (args.out / f"cell-{cell.stem}.json").exists()]
    refuse_other_budgets(args.out, budget)
    if not left:
        print("nothing is left to run")
        return 0
    print(f"{len(left)} cells to run", flush=True)
    sees = {name: Seen(bench, name) for name in ("cifar10_resnet20", *SECOND) if name in bench.present()}
    for name in {cell.network for cell in left}:
        sees[judge_of(bench, name)].learn(bench.test[: args.images + JUDGES])
        sees[second_of(bench, name)].learn(bench.reference)
        sees[second_of(bench, name)].learn(bench.test[: args.images])
    said = provenance(seed=list(range(args.seeds)), device=args.device)
    failed = 0
    for place, cell in enumerate(left):
        began, cpu = time.monotonic(), time.process_time()
        try:
            found = run_cell(bench, backend, sees, cell, budget)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):  # the other units go on
            traceback.print_exc()
            failed += 1
            continue
        spent = {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - cpu}
        save_cell(args.out / f"cell-{cell.stem}.json", found | spent, said)
        took = f"{spent['seconds']:.0f} s, {spent['cpu_seconds']:.0f} s of a core"
        print(f"{cell.stem}: {took}; {len(left) - place - 1} cells left", flush=True)
    if failed:
        print(f"{failed} cells failed, see above; run the command again for those alone", flush=True)
    return failed


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("run", "report"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--units", type=int, default=4, help="units of each network")
    parser.add_argument("--images", type=int, default=12, help="images that are moved")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--passes", type=int, default=8, help="forward passes a picture of what asks the target")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(TARGETS))
    parser.add_argument("--share", default="0/1", help="i/n: every n-th cell from the i-th, for n processes")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.part == "run":
        return min(1, run(args))
    print(report(args.out, args.networks, provenance(seed=list(range(args.seeds)), device=args.device)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
