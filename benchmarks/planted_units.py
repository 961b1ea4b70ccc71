"""Planted truth: units whose preference is known, noisy recordings, and the noiseless response to what methods make.

    python benchmarks/planted_units.py --data $VISLENS_DATA --out runs/planted [--set test] [--quick]

Does a landscape know more than one direction does? ``planted_units.json`` holds families, SNRs, sizes, seeds,
angles and both measures, committed before the first run. Embeddings of real photographs are edited by every method at
the same angles, and judged (a) by the truth on the edited embedding, at one angle and at equal realism, and (b) by the
truth of the natural image that lies nearest, which cannot be hallucinated.

Every unit x condition is written when it is done and skipped when the command is run again. ``--set tune`` uses other
units and other images; only these may choose settings. ``--publish`` writes benchmarks/results/planted_units.md, of
everything that is finished.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from judges import data_folder
from planted_methods import METHODS, SHIPPED, SINGLE, fit_and_move
from planted_truth import Space, load_plan, load_space, name_of_space, plant, record
from provenance import provenance, provenance_line
from torch import Tensor

from vislens_interp.files import write_text
from vislens_interp.metrics import interval, paired_difference

DIRECTIONS = ("increase", "decrease")
RESULTS = Path(__file__).parent / "results"
MEASURES = {
    "realism 0.9": "at equal realism (0.9 of natural)",
    "realism 1.0": "at equal realism (1.0 of natural)",
    "angle": "at the matched angle",
    "retrieval": "nearest natural image, at the matched angle",
}


def realism(x: Tensor, pool: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    """Mean cosine to the nearest pool images, (N,), and the row of the nearest one."""
    unit, others = (part / part.norm(dim=1, keepdim=True) for part in (x, pool))
    nearest = (unit @ others.T).topk(neighbours, dim=1)
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
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(space.fit), generator=draw)[: condition["images"]]
    x = space.fit[rows]
    responses = record(unit, x, condition["snr"], seed)
    neighbours, angles = plan["realism"]["neighbours"], plan["angles"]
    untouched, start = realism(inputs, space.pool, neighbours)
    before, natural_before = unit(inputs), unit(space.pool)[start]
    matched = angles.index(plan["matched_angle"])
    found = []
    for label in labels:
        began = time.perf_counter()
        moved = fit_and_move(label, x, responses, inputs, DIRECTIONS, angles)
        seconds = time.perf_counter() - began
        for direction, path in moved.items():
            sign = 1.0 if direction == "increase" else -1.0
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
            found.append({key: _short(value) for key, value in row.items()})
    return found


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return [_short(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of every unit and condition; finished ones are read from the folder."""
    plan = load_plan()
    space = load_space(data_folder(args.data), args.out, plan)
    inputs = space.tune if args.set == "tune" else space.test
    seeds, conditions, families = plan["seeds"][args.set], plan["conditions"], list(plan["families"])
    labels = list(METHODS) if args.only is None else [label for label in METHODS if label in args.only]
    if args.conditions:
        conditions = [conditions[number] for number in args.conditions]
    if args.families:
        families = [family for family in families if family in args.families]
    if args.seeds:
        seeds = [seed for seed in seeds if seed in args.seeds]
    if args.quick:
        seeds, conditions, inputs = seeds[:1], plan["conditions"][3:4], inputs[:20]
    where = args.out / f"{args.set}{'_quick' if args.quick else ''}_{name_of_space(space)[:8]}"
    rows = []
    for seed in seeds:
        for family in families:
            for condition in conditions:
                name = f"{family.replace(' ', '_')}-{seed}-{condition['snr']}-{condition['images']}.json"
                file = where / name
                kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
                missing = [label for label in labels if label not in {row["method"] for row in kept}]
                if missing:
                    kept += measure_unit(family, seed, condition, space, inputs, plan, missing)
                    write_text(file, json.dumps(kept))
                    print(file.name, flush=True)
                rows += [row for row in kept if row["method"] in labels]
    return rows


def finished(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of everything that earlier calls left in the folder, of the planned units and conditions."""
    plan = load_plan()
    space = load_space(data_folder(args.data), args.out, plan)
    rows = []
    for file in sorted((args.out / f"{args.set}_{name_of_space(space)[:8]}").glob("*.json")):
        rows += json.loads(file.read_text(encoding="utf-8"))
    known = [(condition["snr"], condition["images"]) for condition in plan["conditions"]]
    return [
        row
        for row in rows
        if row["method"] in METHODS and row["seed"] in plan["seeds"][args.set] and (row["snr"], row["images"]) in known
    ]


def complete(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the units on which every method was run: what a table that compares them may average."""
    methods = {row["method"] for row in rows}
    run_on: dict[tuple[Any, ...], set[str]] = {}
    for row in rows:
        run_on.setdefault((row["family"], row["seed"], row["snr"], row["images"]), set()).add(row["method"])
    return [row for row in rows if run_on[row["family"], row["seed"], row["snr"], row["images"]] == methods]


def per_unit(rows: list[dict[str, Any]], method: str, measure: str, **where: Any) -> list[float]:
    """The measure of each unit (family x seed), averaged over the conditions and directions that remain."""
    units: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if row["method"] == method and all(row[key] in value for key, value in where.items()):
            units.setdefault((row["family"], row["seed"]), []).append(row[measure])
    return [sum(values) / len(values) for _, values in sorted(units.items())]


def verdicts(rows: list[dict[str, Any]]) -> list[tuple[bool, str]]:
    """Whether the shipped method beats each single direction on mixtures at equal realism: (it does, a sentence)."""
    found = []
    mixtures = [family for family in load_plan()["families"] if family.startswith("mixture")]
    measure = f"realism {load_plan()['realism']['levels'][0]}"
    present = {row["method"] for row in rows}
    for rival in SINGLE if SHIPPED in present else ():
        if rival not in present:
            continue
        ours, theirs = (
            per_unit(rows, method, measure, family=mixtures, direction=["increase"]) for method in (SHIPPED, rival)
        )
        difference = paired_difference(ours, theirs, levels=("unit",))
        won = difference.low > 0
        says = "beats" if won else ("loses to" if difference.high < 0 else "is not told apart from")
        found.append((won, f"On mixtures, {MEASURES[measure]}, increase: {SHIPPED} {says} {rival}: {difference} SD."))
    return found


def table(rows: list[dict[str, Any]], measure: str, direction: str, **where: Any) -> list[str]:
    """A Markdown table: methods by families, mean and interval over units."""
    families = list(load_plan()["families"])
    lines = [f"| method | {' | '.join(families)} |", "|---" * (len(families) + 1) + "|"]
    labels = [label for label in METHODS if any(row["method"] == label for row in rows)]
    cells = {
        (label, family): per_unit(rows, label, measure, family=[family], direction=[direction], **where)
        for label in labels
        for family in families
    }
    for label in labels:
        line = []
        for family in families:
            values = cells[label, family]
            if not values:
                line.append("")
                continue
            best = max(sum(cells[other, family]) for other in labels)
            text = str(interval(values, levels=("unit",))) if len(values) > 1 else f"{values[0]:+.2f}"
            line.append(f"**{text}**" if sum(values) == best else text)
        lines.append(f"| {label} | {' | '.join(line)} |")
    return lines


def report(rows: list[dict[str, Any]], source: dict[str, Any]) -> str:
    """The page: losses first."""
    plan = load_plan()
    said = sorted(verdicts(rows), key=lambda item: item[0])
    lines = ["# Planted units", "", *[f"- {text}" for _, text in said], ""]
    decided = len({(row["family"], row["seed"]) for row in rows if row["method"] == SHIPPED})
    rows = complete(rows)
    units = len({(row["family"], row["seed"]) for row in rows})
    about = (
        f"Tables: the {units} units on which every method was run; the lines above: all {decided}, of which more are "
        "mixtures. True response change in SDs of the noiseless response, the wanted way positive, against the "
        "unedited embedding; mean over inputs and conditions, 95 % bootstrap interval over units (few, so too narrow). "
        f"Matched angle: {plan['matched_angle']:g}°. Realism: {plan['realism']['measure']}; {plan['realism']['read']}. "
        f"Level: {plan['realism']['level']}. Retrieval: {plan['retrieval']}."
    )
    lines += [about, ""]
    for direction in DIRECTIONS:
        for measure, title in MEASURES.items():
            lines += [f"## {direction}, {title}", "", *table(rows, measure, direction), ""]
    first = f"realism {plan['realism']['levels'][0]}"
    for condition in plan["conditions"]:
        chosen = {"snr": [condition["snr"]], "images": [condition["images"]]}
        if any(row["snr"] == condition["snr"] and row["images"] == condition["images"] for row in rows):
            title = f"increase, SNR {condition['snr']:g}, {condition['images']} images, {MEASURES[first]}"
            lines += [f"## {title}", "", *table(rows, first, "increase", **chosen), ""]
    seconds = {label: [row["seconds"] for row in rows if row["method"] == label] for label in METHODS}
    lines += [
        "## Seconds for a fit and its edits (both directions, all angles), mean",
        "",
        "| method | s |",
        "|---|---|",
    ]
    lines += [f"| {label} | {sum(spent) / len(spent):.2f} |" for label, spent in seconds.items() if spent]
    return "\n".join([*lines, "", provenance_line(source), ""])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of real files; VISLENS_DATA if left out")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", choices=("test", "tune"), default="test")
    parser.add_argument("--conditions", nargs="+", type=int, help="positions in the plan's list; all if left out")
    parser.add_argument("--seeds", nargs="+", type=int, help="of the plan's; all if left out")
    parser.add_argument("--families", nargs="+", choices=list(load_plan()["families"]), help="all if left out")
    parser.add_argument("--only", nargs="+", choices=list(METHODS), help="these methods alone")
    parser.add_argument("--quick", action="store_true", help="one unit a family, one condition, 20 images")
    parser.add_argument("--publish", action="store_true", help="write benchmarks/results too")
    args = parser.parse_args(argv)
    rows = run(args)
    if args.publish:
        rows = finished(args)
    source = provenance(seed=load_plan()["seeds"][args.set])
    slim = [{key: value for key, value in row.items() if key not in ("change",)} for row in rows]
    content = json.dumps({"provenance": source, "rows": slim, "verdicts": [text for _, text in verdicts(rows)]})
    for folder in [args.out, *([RESULTS] if args.publish else [])]:
        write_text(folder / "planted_units.json", content.replace('}, {"family"', '},\n{"family"') + "\n")
        write_text(folder / "planted_units.md", report(rows, source))
    print(report(rows, source))


if __name__ == "__main__":
    main()
