"""Table 3 of the paper: do structured landscapes edit and optimise better than a standard VAE's latent?

    python benchmarks/cifar10_landscape.py --data ../shared/data --out runs/table3 --tune     # tuning units and images
    python benchmarks/cifar10_landscape.py --data ../shared/data --out runs/table3            # the table
    python benchmarks/cifar10_landscape.py --data ../shared/data --out runs/table3 --report   # from what has been run
    python benchmarks/cifar10_landscape.py --data ../shared/data --out runs/table3 --figure   # figure 5

Every cell (layer, seed, edits or optimisations) is written when it is done and skipped when the command is run again.
`--workers 2` runs two cells at a time, one thread each. What is tuned uses even-positioned test files and tuning units;
the table uses odd-positioned files and test units. Both lists of units are drawn here, before anything is fitted.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from provenance import provenance
from table3_bench import Bench, edits, landscapes, optimize_settings, trajectories
from table3_figure import figure
from table3_report import report, report_pairs
from table3_rows import FIT, REFINED_AT, REFINED_IMAGES, ROWS, SIGN, TEST_UNITS, TRACE, WHAT
from table3_tuning import merge_tuning, tune

from vislens_interp.files import write_text
from vislens_interp.landscape.prior import ResponseScaler
from vislens_interp.method import LandscapeMethod


def cell(
    bench: Bench, layer: str, seed: int, what: str, tuned: dict[str, Any], steps: int, published: bool
) -> Iterator[dict[str, Any]]:
    """All edits or all optimisations of one layer and seed: one record for each row, unit, direction and dose.

    ``published`` says whether the published optimisation rows, half of their time, are run too.
    """
    units = bench.units(layer)[1][: TEST_UNITS[layer]]
    made = landscapes(bench, layer, units, seed)
    truth = bench.target(layer, units)
    scaler = ResponseScaler.fit(truth.responses(bench.reference), truth.names)
    # A seed's third of the test images: the three seeds together cover all of them.
    pictures = bench.test[seed % 3 :: 3]
    start = bench.features(pictures)

    def look(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = bench.features(images)
        return scaler.standardise(truth.responses(images)), bench.similarity(features, start[: len(images)]), features

    read_input = look(pictures)[0]
    shown_random = bench.similarity(start.roll(1, 0), start)
    for row in ROWS:
        optimisation = row.technique == "optimize"
        if optimisation != (what == "optimisations") or (optimisation and row.start == "pixel" and not published):
            continue
        method = made[row.start, row.landscape]
        landscape = method.landscape_
        z, _ = landscape.encode(pictures)
        unedited = landscape.decode(z)
        zero = {"decoded": look(unedited), "refined": look(bench.refine(unedited[:REFINED_IMAGES], seed))}
        for unit in range(len(units)):
            for way in SIGN:
                began = time.monotonic()
                if row.technique == "optimize":
                    settings = optimize_settings(row, way, tuned, steps)
                    doses = trajectories(bench, method, pictures, unit, way, settings)
                else:
                    doses = edits(method, pictures, unit, way, row.technique)
                entry: dict[str, Any] = {
                    "row": row.label,
                    "layer": layer,
                    "seed": seed,
                    "unit": units[unit],
                    "direction": way,
                    "sd": scaler.std[unit].item(),
                    "input": read_input[:, unit].tolist(),
                    "random": shown_random.tolist(),
                    "seconds": time.monotonic() - began,
                    "doses": [],
                }
                for dose, images in doses.items():
                    seen = {"decoded": look(images)}
                    if dose == 0:
                        seen["refined"] = zero["refined"]
                    elif dose == max(doses) or (row.technique == "optimize" and dose in REFINED_AT):
                        seen["refined"] = look(bench.refine(images[:REFINED_IMAGES], seed))
                    measured: dict[str, Any] = {"dose": dose}
                    for stage, (responses, similarity, features) in seen.items():
                        measured[stage] = {
                            "change": (SIGN[way] * (responses - zero[stage][0])[:, unit]).tolist(),
                            "response": responses[:, unit].tolist(),
                            "similarity": similarity.tolist(),
                        }
                        if dose == max(doses):
                            measured[stage]["features"] = features.half().tolist()
                    entry["doses"].append(measured)
                print(f"{layer} seed {seed} {row.label} unit {units[unit]} {way}: {entry['seconds']:.1f} s", flush=True)
                yield entry


def pair_cell(bench: Bench, part: int, parts: int) -> Iterator[dict[str, Any]]:
    """Two units in one latent, against a landscape of each alone: what does an edit for one do to the other?"""
    pool = bench.units("conv3")[1][:12]
    chosen = pairs(bench, pool)
    truth = bench.target("conv3", pool)
    scaler = ResponseScaler.fit(truth.responses(bench.reference), truth.names)
    reference, pictures = bench.reference[:4000], bench.test[:100]
    single: dict[int, LandscapeMethod] = {}

    def fit(units: list[int]) -> LandscapeMethod:
        method = LandscapeMethod(shuffles=0, **FIT)
        return method.fit(bench.target("conv3", units), bench.backend("consistent"), reference)

    for correlation, a, b in chosen[part::parts]:
        entry: dict[str, Any] = {"units": [a, b], "correlation": correlation, "edits": []}
        both = fit([a, b])
        for unit in (a, b):
            if unit not in single:
                single[unit] = fit([unit])
        for position, (unit, other) in enumerate(((a, b), (b, a))):
            for kind, method, index in (("single", single[unit], 0), ("both", both, position)):
                z, _ = method.landscape_.encode(pictures)
                start = scaler.standardise(truth.responses(method.landscape_.decode(z)))
                for way in SIGN:
                    moved = method.landscape_.decode(method.latents(pictures, {index: way}, alpha=1.0)[1])
                    change = scaler.standardise(truth.responses(moved)) - start
                    target, elsewhere = change[:, pool.index(unit)], change[:, pool.index(other)]
                    entry["edits"].append(
                        {
                            "kind": kind,
                            "unit": unit,
                            "direction": way,
                            "target": target.tolist(),
                            "other": elsewhere.tolist(),
                        }
                    )
        print(f"pair {a}, {b} (r = {correlation:.2f})", flush=True)
        yield entry


def pairs(bench: Bench, pool: list[int]) -> list[tuple[float, int, int]]:
    """Twenty pairs, at equal steps through all pairs of the pool sorted by their natural correlation."""
    natural = torch.corrcoef(bench.target("conv3", pool).responses(bench.reference).T)
    every = sorted((natural[i, j].item(), pool[i], pool[j]) for i in range(len(pool)) for j in range(i + 1, len(pool)))
    return [every[round(step)] for step in np.linspace(0, len(every) - 1, 20)]


def save_cell(path: Path, entries: Iterator[dict[str, Any]], commit: str) -> None:
    write_text(path, json.dumps([{**entry, "commit": commit} for entry in entries]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pixel-vae", type=Path, help="standard CVAE trained with w_consistency=0; pairs need none")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--figure", action="store_true", help="draw figure 5 into OUT/figure5.webp")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--published-seeds", type=int, default=3, help="seeds that the published optimisation rows get")
    parser.add_argument("--only", choices=("pairs", "edits", "optimisations"), help="run these cells alone")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--part", type=int, help="run only every workers-th job, this one first (used by --workers)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    said = provenance(seed=0)
    if not args.report and not args.figure and args.part is None and args.workers > 1:
        commands = [[sys.executable, *sys.argv, "--part", str(part)] for part in range(args.workers)]
        running = [subprocess.Popen(command) for command in commands]
        if any(process.wait() for process in running):
            raise SystemExit("a worker failed; what it finished is kept, run the same command again.")
        if args.tune:
            merge_tuning(args.out)
            return
        args.report = True
    bench = Bench(args.data, args.pixel_vae)
    steps = max(TRACE)
    if args.tune:
        for index, prior in enumerate(("structured", "standard")):
            path = args.out / f"tuning-{prior}.json"
            if index % args.workers == (args.part or 0) % args.workers and not path.exists():
                write_text(path, json.dumps(tune(bench, steps, prior), indent=1))
        if args.workers == 1:
            merge_tuning(args.out)
        return
    if args.report and args.only == "pairs":
        print(report_pairs(args.out, said))
        return
    if args.report:
        print(report(bench, args.out, said))
        return
    tuned = {} if args.only == "pairs" else json.loads((args.out / "tuned.json").read_text())
    if args.figure:
        figure(bench, tuned, args.out / "figure5.webp")
        return
    part = args.part or 0
    path = args.out / f"pairs-{part}-of-{args.workers}.json"
    if not path.exists() and args.only in (None, "pairs"):
        save_cell(path, pair_cell(bench, part, args.workers), said["commit"])
    jobs = [(what, layer, seed) for what in WHAT for seed in range(args.seeds) for layer in TEST_UNITS]
    # A conv3 cell costs twice an fc1 cell: odd seeds swap who begins, so that two workers end together.
    for what, layer, seed in [job for index, job in enumerate(jobs) if (index + job[2]) % args.workers == part]:
        path = args.out / f"cell-{layer}-{seed}-{what}.json"
        if not path.exists() and args.only in (None, what):
            entries = cell(bench, layer, seed, what, tuned, steps, seed < args.published_seeds)
            save_cell(path, entries, said["commit"])


if __name__ == "__main__":
    main()
