"""Every method on units of real networks, at one budget, by one scorer: Figure 4 and Table S2 in form."""

import argparse
import sys
import time
import traceback
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.ann_units.bench import Bench, Seen
from benchmarks.ann_units.methods import CONTESTANTS, Budget, Heard, Watched
from benchmarks.ann_units.report import report
from benchmarks.common import package as vl
from benchmarks.common.edit_methods import JOB_ANGLE, SIGN
from benchmarks.common.networks import NETWORKS, load_units
from benchmarks.common.script import (
    parse,
    parser,
    provenance,
    read,
    refuse_other_settings,
    rounded,
    save_cell,
    save_tensors,
)

TARGETS = ("lite2", "squeezenet", "vit_tiny64", "simclr_resnet50")
JUDGES = 200  # test images that judge, after those that are moved
SHOWN = 2  # pictures of each method that a figure may show


@dataclass(frozen=True)
class Cell:
    """One unit and seed."""

    network: str
    layer: str
    column: int  # the unit's place among its layer's candidates
    first: bool  # it is its layer's first test unit: figure 4 shows it
    seed: int  # of the noise

    @property
    def unit(self) -> int:
        return load_units()[self.network][self.layer][self.column]

    @property
    def stem(self) -> str:
        return f"{self.network}-{self.layer}-{self.unit}-{self.seed}"


def cells(bench: Bench, names: list[str], units: int, seeds: int) -> Iterator[Cell]:
    """Networks innermost, layers in turn, so that whatever has been run holds all networks."""
    columns = {(name, layer): bench.units(name, layer, units) for name in names for layer in NETWORKS[name].layers}
    for seed in range(seeds):
        for place in range(units):
            for name in names:
                layers = list(NETWORKS[name].layers)
                turn, layer = place // len(layers), layers[place % len(layers)]
                if turn < len(columns[name, layer]):
                    yield Cell(name, layer, columns[name, layer][turn], turn == 0, seed)


def run_cell(
    bench: Bench, sees: dict[str, Seen], cell: Cell, budget: Budget, labels: Collection[str] = tuple(CONTESTANTS)
) -> dict[str, Any]:
    """Methods on one unit: scores, what each picture cost, and what the target said on the way.

    The pictures that figures show are written beside it, and features of all of them for the distances of whole sets.
    """
    inputs = bench.test[: budget.images]
    natural = bench.test[budget.images : budget.images + JUDGES]
    judge = NETWORKS[cell.network].judge
    target = Heard(bench.target(cell.network, cell.layer, [cell.unit]))
    responses = bench.responses(cell.network, cell.layer, bench.reference)[:, [cell.column]]
    bench.reference_set.embeddings(bench.backend)  # once for all units, before any clock runs
    # Without the two shuffled fits behind the evidence: here a shuffled landscape is one of the methods.
    lens = vl.FeatureLens(target, backend=bench.backend)
    began = target.clock()
    lens.fit(bench.reference_set, responses, shuffles=0)
    fit_seconds = target.clock() - began
    wanted = {label: CONTESTANTS[label] for label in labels}
    methods = {label: Watched(one.build(lens, budget), target) for label, one in wanted.items()}
    found = lens.compare(
        inputs, methods, [cell.seed], angle=budget.angle, natural=natural, embedding=sees[judge], second=sees[judge]
    )
    scores = {key: values[0, :, 0].tolist() for key, values in found.scores.items()}
    for label, method in methods.items():  # by our own clock, which does not run while other processes do
        for way in SIGN:
            scores[label, way, "seconds"] = [method.seconds_[way]]
            scores[label, way, "fit_seconds"] = [method.seconds_.get("fit", fit_seconds)]
    scaler = lens.landscape_.scaler
    write_pictures(bench.out / f"pictures-{cell.stem}.safetensors", inputs, natural, methods, sees["cifar10_resnet20"])
    (evidence,) = lens.evidence_.values()
    return {
        **{key: getattr(cell, key) for key in ("network", "layer", "unit", "first", "seed")},
        "passes": budget.passes,
        "images": found.images,
        "angle": budget.angle,
        "judge": judge,
        "correlation": evidence.correlation,
        "start": scaler.standardise(target.responses(inputs))[:, 0].mean().item(),
        "shipped_optimise_steps": bench.backend.defaults.optimize.steps,
        "scores": [
            {"method": method, "direction": way, "measure": measure, "values": rounded(values, 5)}
            for (method, way, measure), values in scores.items()
        ],
        "traces": {
            label: {way: trace_of(methods[label].traces_[way], scaler, sign) for way, sign in SIGN.items()}
            for label, one in wanted.items()
            if one.traced
        },
    }


def merged(known: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """A cell in which some methods were run again."""
    again = {row["method"] for row in found["scores"]}
    scores = [row for row in known["scores"] if row["method"] not in again]
    return known | {"scores": scores + found["scores"], "traces": known["traces"] | found["traces"]}


def trace_of(trace: list[tuple[float, float]], scaler: vl.ResponseScaler, sign: int) -> list[list[float]]:
    """Seconds a picture and the mean response in the wanted direction, in SDs, each time the target was asked."""
    said = scaler.standardise(torch.tensor([[value] for _, value in trace], dtype=torch.float32).view(-1, 1))[:, 0]
    pairs = zip(trace, said.tolist(), strict=True)
    return [[round(seconds, 5), round(sign * value, 4)] for (seconds, _), value in pairs]


def write_pictures(file: Path, inputs: Tensor, natural: Tensor, methods: dict[str, Watched], see: Seen) -> None:
    """``"LABEL|WAY"`` to the first pictures in 8 bits, and ``"LABEL|WAY|seen"`` to the features of all.

    Those of other methods that are there stay.
    """
    to_8_bits = lambda images: (images.clamp(0, 1) * 255).round().byte()  # noqa: E731
    kept = load_file(file) if file.is_file() else {}
    kept |= {"input": to_8_bits(inputs[:SHOWN]), "natural|seen": see(natural).float()}
    for label, method in methods.items():
        for way in SIGN:
            pictures = to_8_bits(method.made_[way])
            kept[f"{label}|{way}"] = pictures[:SHOWN].clone()
            kept[f"{label}|{way}|seen"] = see(pictures.float() / 255).float()
    save_tensors(file, kept)


def run(args: argparse.Namespace) -> int:
    """Run the cells of this share; the number of those that failed."""
    bench = Bench(args.data, args.weights, args.out, args.device)
    there = [name for name in args.networks if name in bench.present()]
    absent = ", ".join(set(args.networks) - set(there)) or "none"
    print(f"networks: {', '.join(there)}; not there: {absent}", flush=True)
    budget, (part, parts) = Budget(args.passes, args.images, JOB_ANGLE), args.share
    mine = list(cells(bench, there, args.units, args.seeds))[part::parts]
    paths = {cell: args.out / f"cell-{cell.stem}.json" for cell in mine}
    left = [cell for cell, path in paths.items() if path.exists() == bool(args.again)]
    labels = args.again or [label for label in CONTESTANTS if label not in args.without]
    refuse_other_settings(args.out, {"passes": budget.passes, "images": budget.images})
    if not left:
        print("nothing is left to run")
        return 0
    print(f"{len(left)} cells to run", flush=True)
    judges = {NETWORKS[cell.network].judge for cell in left}
    sees = {name: Seen(bench, name) for name in {"cifar10_resnet20", *judges}}
    for name in judges:
        sees[name].learn(bench.test[: args.images + JUDGES])
        sees[name].learn(bench.reference)
    said = provenance(seed=list(range(args.seeds)), device=args.device)
    failed = 0
    for place, cell in enumerate(left):
        began, cpu = time.monotonic(), time.process_time()
        try:
            found = run_cell(bench, sees, cell, budget, labels)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):  # the other units go on
            traceback.print_exc()
            failed += 1
            continue
        spent = {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - cpu}
        save_cell(paths[cell], merged(read(paths[cell])["found"], found) if args.again else found | spent, said)
        took = f"{spent['seconds']:.0f} s, {spent['cpu_seconds']:.0f} s of a core"
        print(f"{cell.stem}: {took}; {len(left) - place - 1} cells left", flush=True)
    if failed:
        print(f"{failed} cells failed, see above; run the command again for those alone", flush=True)
    return failed


def main(argv: list[str] | None = None) -> int:
    names = ("--data", "--weights", "--out", "--device", "--share", "--threads")
    command = parser(__doc__, *names, parts=("run", "report"), needed="--data --weights")
    command.add_argument("--units", type=int, default=4, help="units of each network")
    command.add_argument("--images", type=int, default=12, help="images that are moved")
    command.add_argument("--seeds", type=int, default=1)
    command.add_argument("--passes", type=int, default=8, help="forward passes a picture of what asks the target")
    command.add_argument("--without", nargs="+", choices=list(CONTESTANTS), default=[], help="methods to leave out")
    command.add_argument("--again", nargs="+", choices=list(CONTESTANTS), help="run these again in finished cells")
    command.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(TARGETS))
    args = parse(command, argv)
    if args.part == "run":
        return min(1, run(args))
    report(args.out, args.networks, provenance(seed=list(range(args.seeds)), device=args.device))
    return 0


if __name__ == "__main__":
    sys.exit(main())
