"""Table 3 of the paper: do structured landscapes edit and optimise better than a standard VAE's latent?"""

import argparse
import itertools
import json
import lzma
import multiprocessing
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.script import parse, parser, provenance, read
from benchmarks.table3 import rows as plan
from benchmarks.table3.figure import figure
from benchmarks.table3.landscapes import Cell, Material, cells, edits, fit, optimize_settings, trajectories
from benchmarks.table3.report import report
from benchmarks.table3.rows import FIT, ROWS, SIGN
from benchmarks.table3.tuning import merge_tuning, tune

STEPS = max(plan.TRACE)
PAIR_PARTS = 2
Job = Literal["structured", "standard"] | int | Cell
"""What a worker does: a tuning of a prior, a part of the pairs, or a cell."""


class Look:
    """What is seen of pictures made in one landscape: responses of its units, similarity to the input, features."""

    def __init__(self, bench: Material, cell: Cell) -> None:
        self.bench, self.units, self.seed = bench, cell.units(bench), cell.seed
        self.target = bench.target(cell.layer, self.units)
        self.scaler = vl.ResponseScaler.fit(self.target.responses(bench.reference), self.target.names)
        # A seed's third of the test images: the three seeds together cover all of them.
        self.pictures = bench.test[cell.seed :: plan.SEEDS]
        self.start = bench.features(self.pictures)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.bench.features(images)
        similarity = self.bench.similarity(features, self.start[: len(images)])
        return self.scaler.standardise(self.target.responses(images)), similarity, features

    def refined(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self(self.bench.refine(images[: plan.REFINED_IMAGES], self.seed))


def measure(
    bench: Material, cell: Cell, method: vl.LandscapeMethod, tuned: dict[str, Any], done: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """All that is left to do in one landscape: one record for each row, unit, direction and dose."""
    look, landscape = Look(bench, cell), method.landscape_
    pictures, units = look.pictures, look.units
    read_input, shown_random = look(pictures)[0], bench.similarity(look.start.roll(1, 0), look.start)
    unedited = landscape.decode(landscape.encode(method.backend.encode(pictures))[0])
    zero = {"decoded": look(unedited), "refined": look.refined(unedited)}
    finished = {(entry["row"], entry["unit"], entry["direction"]): entry for entry in done}
    known: dict[str, dict[str, Any]] = {}  # optimisations, by all that makes one what it is
    mine = [row for row in ROWS if (row.start, row.landscape) == (cell.start, cell.landscape)]
    for row, (unit, number), way in itertools.product(mine, enumerate(units), SIGN):
        began = time.monotonic()
        settings = optimize_settings(row, way, tuned, STEPS) if row.technique == "optimize" else {}
        same = f"{row.technique} {unit} {way} {settings}"
        if entry := finished.get((row.label, number, way)):
            if entry["settings"] != settings:
                raise ValueError(
                    f"{cell} was begun with {entry['settings']} for {row.label!r}, {way}; tuned.json now says "
                    f"{settings}. Delete what is left of the cell, or put the old tuned.json back."
                )
            known[same] = entry
            continue
        if same in known:  # two rows that differ in one direction alone
            yield known[same] | {"row": row.label}
            continue
        if row.technique == "optimize":
            doses: dict[Any, Tensor] = trajectories(method, pictures, unit, way, settings)
        else:
            doses = edits(method, pictures, unit, way, row.technique)
        entry = {"row": row.label, "layer": cell.layer, "group": cell.group, "seed": cell.seed, "unit": number}
        entry |= {"direction": way, "sd": look.scaler.std[unit].item(), "input": numbers(read_input[:, unit])}
        entry |= {"random": numbers(shown_random), "settings": settings, "seconds": time.monotonic() - began}
        entry["doses"] = []
        for dose, images in doses.items():
            seen = zero if dose == 0 else {"decoded": look(images)}
            if dose == max(doses) or (row.technique == "optimize" and dose in plan.REFINED_AT and dose > 0):
                seen["refined"] = look.refined(images)
            measured: dict[str, Any] = {"dose": dose}
            for stage, (responses, similarity, features) in seen.items():
                measured[stage] = {"response": numbers(responses[:, unit]), "similarity": numbers(similarity)}
                if dose == max(doses):
                    measured[stage]["features"] = [numbers(one) for one in features[: plan.JUDGED_IMAGES]]
            entry["doses"].append(measured)
        print(f"{cell} {row.label} unit {number} {way}: {entry['seconds']:.1f} s", flush=True)
        known[same] = entry
        yield entry


def numbers(values: Tensor) -> list[float]:
    """Values as they are written: to five digits, which is more than an interval shows."""
    return [float(f"{value:.5g}") for value in values.tolist()]


def pair_cell(bench: Material, part: int, parts: int) -> Iterator[dict[str, Any]]:
    """Two units in one latent, against a landscape of each alone: what does an edit for one do to the other?"""
    pool = bench.units("conv3")[1][:12]
    chosen = pairs(bench, pool)
    truth = bench.target("conv3", pool)
    scaler = vl.ResponseScaler.fit(truth.responses(bench.reference), truth.names)
    reference, pictures = bench.reference[:4000], bench.test[:100]
    single: dict[int, vl.LandscapeMethod] = {}

    def fit(units: list[int]) -> vl.LandscapeMethod:
        method = vl.LandscapeEdit(shuffles=0, **FIT)
        return method.fit(bench.target("conv3", units), bench.backend("consistent"), reference)

    for correlation, a, b in chosen[part::parts]:
        entry: dict[str, Any] = {"units": [a, b], "correlation": correlation, "edits": []}
        both = fit([a, b])
        single |= {unit: fit([unit]) for unit in (a, b) if unit not in single}
        for position, (unit, other) in enumerate(((a, b), (b, a))):
            for kind, method, index in (("single", single[unit], 0), ("both", both, position)):
                z, _ = method.landscape_.encode(method.backend.encode(pictures))
                start = scaler.standardise(truth.responses(method.landscape_.decode(z)))
                for way in SIGN:
                    moved = method.landscape_.decode(method.latents(pictures, {index: way}, alpha=1.0)[1])
                    change = scaler.standardise(truth.responses(moved)) - start
                    made = {"kind": kind, "unit": unit, "direction": way}
                    made["target"], made["other"] = (change[:, pool.index(one)].tolist() for one in (unit, other))
                    entry["edits"].append(made)
        print(f"pair {a}, {b} (r = {correlation:.2f})", flush=True)
        yield entry


def pairs(bench: Material, pool: list[int]) -> list[tuple[float, int, int]]:
    """Twenty pairs, at equal steps through all pairs of the pool sorted by their natural correlation."""
    natural = torch.corrcoef(bench.target("conv3", pool).responses(bench.reference).T)
    every = sorted((natural[i, j].item(), pool[i], pool[j]) for i in range(len(pool)) for j in range(i + 1, len(pool)))
    return [every[round(step)] for step in np.linspace(0, len(every) - 1, 20)]


def finish_cell(path: Path, bench: Material, cell: Cell, tuned: dict[str, Any], where: dict[str, str]) -> None:
    """Do one cell, or go on with it: until all is there, its landscape and its records lie beside ``path``."""
    records, learnt = (path.with_name(f"{path.name}.{kind}") for kind in ("part", "landscape"))
    method = fit(bench, cell, learnt)
    done = read_records(records)
    with records.open("a", encoding="utf-8") as file:
        for entry in measure(bench, cell, method, tuned, done):
            file.write(json.dumps(entry | where) + "\n")
            file.flush()
    packed = lzma.compress(json.dumps(read_records(records)).encode())
    vl.write_atomically(path, lambda temporary: temporary.write_bytes(packed))
    for part in (records, learnt):
        part.unlink()


def read_records(path: Path) -> list[dict[str, Any]]:
    """Records of a cell that is not finished; one that an interruption cut off is cut off from the file as well."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    vl.write_text(path, "".join(f"{line}\n" for line in lines[:-1]))
    return [json.loads(line) for line in lines[:-1]]


BENCH: list[Material] = []  # A worker's own, loaded when it starts


def begin(data: Path, pixel_vae: Path | None, device: str) -> None:
    """Start a worker: one thread, and the data once for all of its jobs."""
    torch.set_num_threads(1)
    BENCH.append(Material(data, pixel_vae, device))


def work(path: Path, what: Job, tuned: dict[str, Any], where: dict[str, str]) -> None:
    (bench,) = BENCH
    if isinstance(what, str):
        vl.write_text(path, json.dumps(tune(bench, STEPS, what), indent=1))
    elif isinstance(what, int):
        vl.write_text(path, json.dumps([entry | where for entry in pair_cell(bench, what, PAIR_PARTS)]))
    else:
        finish_cell(path, bench, what, tuned, where)


def main() -> None:
    command = parser(__doc__, "--data", "--out", "--device", needed="--data")
    command.add_argument("--pixel-vae", type=Path, help="standard CVAE trained with w_consistency=0")
    command.add_argument("--tune", action="store_true")
    command.add_argument("--report", action="store_true")
    command.add_argument("--figure", action="store_true", help="draw figure 5 into OUT/figure5.webp")
    command.add_argument("--seeds", type=int, default=plan.SEEDS, choices=range(1, plan.SEEDS + 1))
    command.add_argument("--workers", type=int, default=2)
    args = parse(command)
    torch.set_num_threads(1)
    said = provenance(seed=range(args.seeds), device=args.device)
    bench_of = (args.data, args.pixel_vae, args.device)
    if args.figure:
        figure(Material(*bench_of), read(args.out / "tuned.json"), args.out / "figure5.webp")
        return
    if not args.report:
        run(args, {name: said[name] for name in ("commit", "device")}, bench_of)
    if args.tune:
        merge_tuning(args.out)
    else:
        report(Material(*bench_of), args.out, said)


def run(args: argparse.Namespace, where: dict[str, str], bench_of: tuple[Any, ...]) -> None:
    """What is not there yet, ``--workers`` at a time; what is done stays where the command is interrupted."""
    jobs: dict[Path, Job] = {}
    if args.tune:
        jobs |= {args.out / f"tuning-{prior}.json": prior for prior in ("structured", "standard")}
    else:
        jobs |= {args.out / f"pairs-{part}-of-{PAIR_PARTS}.json": part for part in range(PAIR_PARTS)}
        jobs |= {args.out / f"cell-{cell}.json.xz": cell for cell in cells(args.seeds)}
    tuned = {} if args.tune else read(args.out / "tuned.json")
    context = multiprocessing.get_context("spawn")  # a GPU cannot be used after a fork
    failed = []
    with ProcessPoolExecutor(args.workers, context, initializer=begin, initargs=bench_of) as pool:
        running = {
            pool.submit(work, path, what, tuned, where): path for path, what in jobs.items() if not path.exists()
        }
        for done in as_completed(running):
            if error := done.exception():
                failed.append(running[done].name)
                traceback.print_exception(error)
            print(running[done].name, "failed" if error else "done", flush=True)
    if failed:
        raise SystemExit(f"{', '.join(failed)} failed; what is done is kept, run the same command again.")


if __name__ == "__main__":
    main()
