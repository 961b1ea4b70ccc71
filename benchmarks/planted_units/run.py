"""Planted truth: units whose preference is known, noisy recordings, and the noiseless response to what methods make."""

import argparse
import itertools
import json
import time
from typing import Any

from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.edit_methods import SIGN
from benchmarks.common.judges import data_folder
from benchmarks.common.script import RESULTS, parser, provenance, read, read_all, rounded, shuffled
from benchmarks.planted_units.methods import METHODS, fit_and_move
from benchmarks.planted_units.report import Rows, report, verdicts
from benchmarks.planted_units.truth import Space, load_plan, load_space, name_of_space, plant, record


def realism(x: Tensor, pool: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    """Mean cosine to the nearest pool images, (N,), and the row of the nearest one."""
    nearest = (vl.unit_rows(x) @ vl.unit_rows(pool).T).topk(neighbours, dim=1)
    return nearest.values.mean(1), nearest.indices[:, 0]


def furthest(change: list[float], real: list[float], level: float) -> float:
    """The change at the furthest point of a path whose realism is at or above the level, straight between its steps."""
    last = max((step for step, value in enumerate(real) if value >= level), default=0)
    if last == len(real) - 1 or real[last] < level:
        return change[last]
    share = (real[last] - level) / (real[last] - real[last + 1])
    return change[last] + share * (change[last + 1] - change[last])


def measure_unit(
    family: str,
    seed: int,
    condition: dict[str, Any],
    space: Space,
    inputs: Tensor,
    plan: dict[str, Any],
    labels: list[str],
) -> list[dict[str, Any]]:
    """All methods on one unit under one condition: a row for each method and direction."""
    unit = plant(family, seed, space, plan)
    x = space.fit[shuffled(len(space.fit), seed)[: condition["images"]]]
    responses = record(unit, x, condition["snr"], seed)
    neighbours, angles = plan["realism"]["neighbours"], plan["angles"]
    untouched, start = realism(inputs, space.pool, neighbours)
    before, natural_before = unit(inputs), unit(space.pool)[start]
    matched = angles.index(plan["matched_angle"])
    found = []
    for label in labels:
        began = time.perf_counter()
        moved = fit_and_move(label, x, responses, inputs, tuple(SIGN), angles)
        seconds = time.perf_counter() - began
        for direction, path in moved.items():
            sign = SIGN[direction]
            change, real, retrieved = [0.0], [untouched.mean().item()], [0.0]
            for step in path:
                near, nearest = realism(step, space.pool, neighbours)
                change.append(sign * (unit(step) - before).mean().item())
                real.append(near.mean().item())
                retrieved.append(sign * (unit(space.pool)[nearest] - natural_before).mean().item())
            row = {"family": family, "seed": seed, **condition, "method": label, "direction": direction}
            row |= {"angle": change[matched + 1], "retrieval": retrieved[matched + 1], "seconds": seconds}
            for level in plan["realism"]["levels"]:
                row[f"realism {level}"] = furthest(change, real, level * real[0])
            row |= {"change": change, "realism": real}
            found.append({key: rounded(value) for key, value in row.items()})
    return found


def run(args: argparse.Namespace, plan: dict[str, Any], space: Space) -> Rows:
    """Rows of every unit and condition; finished ones are read from the folder."""
    inputs = (space.tune if args.set == "tune" else space.test)[: 20 if args.quick else None]
    where = args.out / f"{args.set}{'_quick' if args.quick else ''}_{name_of_space(space)[:8]}"
    seeds = [seed for seed in plan["seeds"][args.set] if not args.seeds or seed in args.seeds]
    seeds = seeds[:1] if args.quick else seeds
    numbers = [3] if args.quick else args.conditions or range(len(plan["conditions"]))
    rows: Rows = []
    for seed, family, number in itertools.product(seeds, plan["families"], numbers):
        condition = plan["conditions"][number]
        file = where / f"{family.replace(' ', '_')}-{seed}-{condition['snr']}-{condition['images']}.json"
        kept = read(file) if file.exists() else []
        missing = [label for label in METHODS if label not in {row["method"] for row in kept}]
        if missing:
            kept += measure_unit(family, seed, condition, space, inputs, plan, missing)
            vl.write_text(file, json.dumps(kept))
            print(file.name, flush=True)
        rows += [row for row in kept if row["method"] in METHODS]
    return rows


def finished(args: argparse.Namespace, plan: dict[str, Any], space: Space) -> Rows:
    """Rows of everything that earlier calls left in the folder, of the planned units and conditions."""
    files = read_all(args.out / f"{args.set}_{name_of_space(space)[:8]}", "*.json")
    known = [(condition["snr"], condition["images"]) for condition in plan["conditions"]]
    seeds = plan["seeds"][args.set]
    planned = lambda row: row["seed"] in seeds and (row["snr"], row["images"]) in known  # noqa: E731
    return [row for rows in files for row in rows if row["method"] in METHODS and planned(row)]


def main(argv: list[str] | None = None) -> None:
    command = parser(__doc__, "--data", "--out", "--quick")
    command.add_argument("--set", choices=("test", "tune"), default="test")
    command.add_argument("--conditions", nargs="+", type=int, help="positions in the plan's list; all if left out")
    command.add_argument("--seeds", nargs="+", type=int, help="of the plan's; all if left out")
    command.add_argument("--publish", action="store_true", help="write benchmarks/results too")
    args = command.parse_args(argv)
    if args.publish and args.set == "tune":
        command.error("--publish is of test units; expected --set test. Leave one of both out.")
    plan = load_plan()
    space = load_space(data_folder(args.data), args.out, plan)
    rows = run(args, plan, space)
    if args.publish:
        rows = finished(args, plan, space)
    source = provenance(seed=plan["seeds"][args.set])
    slim = [{key: value for key, value in row.items() if key != "change"} for row in rows]
    content = json.dumps({"provenance": source, "rows": slim, "verdicts": [text for _, text in verdicts(rows)]})
    text = report(rows, source)
    for folder in [args.out, *([RESULTS] if args.publish else [])]:
        vl.write_text(folder / "planted_units.json", content.replace('}, {"family"', '},\n{"family"') + "\n")
        vl.write_text(folder / "planted_units.md", text)
    print(text)


if __name__ == "__main__":
    main()
