"""The table of the closed loop, what fails first."""

from typing import Any

import numpy as np

from benchmarks.common.findings import measure, stated_measures
from benchmarks.common.script import provenance_line
from benchmarks.common.tables import above, fill, over_units, signed, table, verdict

BUDGETS = (60, 120, 300, 600)
LANDSCAPE_BUDGETS = BUDGETS[-2:]  # A landscape refuses fewer than 200 images
LOOP, RANDOM, SO_FAR = "Experiment", "random photographs", "best photographs so far"
LANDSCAPE, RIDGE, RIDGE_LOOP, CMA_ES = "landscape, fitted once", "ridge, fitted once", "ridge loop", "CMA-ES"
SIDE, PICTURES, SECONDS = 64, 24, 10  # of a block whose time is measured, and what it may take
NEURON, REGION = "V4 neuron", "simulated region"
TRIALS = (60, 300, 600)  # that were told before such a block
DESIGNS = ("explore", "exploit", "mixed", "contrast")
RIVALS = (RANDOM, SO_FAR, LANDSCAPE, RIDGE, RIDGE_LOOP, CMA_ES)


def budgets_of(method: str) -> tuple[int, ...]:
    return LANDSCAPE_BUDGETS if method == LANDSCAPE else BUDGETS


def scores(cells: list[dict[str, Any]], method: str, budget: int, which: int = 1) -> np.ndarray:
    """One number a neuron: of the photograph named first (0) or of the nine (1)."""
    return np.array([cell["found"]["scores"][method][str(budget)][which] for cell in cells])


def checks(cells: list[dict[str, Any]]) -> dict[str, bool | None]:
    """Sentence to whether it holds; None where the interval of the difference holds 0."""
    half, whole = BUDGETS[-2:]
    difference = over_units(scores(cells, LOOP, half) - scores(cells, LANDSCAPE, whole))
    claim = f"With {half} trials the Experiment's nine photographs reach those of the landscape fitted once on {whole}"
    found = {f"{claim}: {signed(difference)} SD.": above(difference)}
    for rival in RIVALS:
        gap = lambda budget, rival=rival: over_units(scores(cells, LOOP, budget) - scores(cells, rival, budget))  # noqa: E731
        gaps = {budget: gap(budget) for budget in budgets_of(rival)}
        each = ", ".join(f"{signed(value)} ({budget} trials)" for budget, value in gaps.items())
        lost, won = any(value.high < 0 for value in gaps.values()), all(value.low > 0 for value in gaps.values())
        claim = f"Experiment minus {rival}, nine photographs, SD (wanted: above 0): {each}."
        found[claim] = won if won or lost else None
    return found


def speed_text(speeds: list[dict[str, Any]]) -> str:
    """Seconds of a block, by what is recorded, design and trials."""
    if not speeds:
        return ""
    said = speeds[0]["provenance"]
    shown = lambda row: f"{row['seconds']:.1f} ({row['cpu']:.1f}; {row['load']:.0f})"  # noqa: E731
    lines = []
    for cell in speeds:
        opened, *blocks = cell["found"]["rows"]
        found = {(row["what"], row["trials"]): row for row in blocks}
        rows = [[design, *(shown(found[design, trials]) for trials in TRIALS)] for design in DESIGNS]
        title = f"{cell['found']['name']}, {opened['pictures']} photographs; to open the experiment {shown(opened)}:"
        lines += [title, "", *table([["design", *(f"after {trials} trials" for trials in TRIALS)], *rows])]
    machine = {name: said[name] for name in ("threads", "cpus")}
    return fill(
        __file__, "speed", pictures=PICTURES, side=SIDE, tables=lines, source=provenance_line(said) + "\n", **machine
    )


def speed_check(speeds: list[dict[str, Any]]) -> dict[str, bool | None]:
    """Whether every block came in time; None where it did not, but the cores were at other work for the rest of it."""
    rows = [row for cell in speeds for row in cell["found"]["rows"][1:]]
    if not rows:
        return {}
    seconds, cpu, load = (max(row[name] for row in rows) for name in ("seconds", "cpu", "load"))
    text = f"A block of {PICTURES} at {SIDE} px takes at most {SECONDS} s: of {len(rows)} the slowest took "
    text += f"{seconds:.1f} s on a machine with a load of up to {load:.0f}, and {cpu:.1f} s of one core."
    return {text: True if seconds <= SECONDS else None if cpu <= SECONDS else False}


def methods_table(cells: list[dict[str, Any]], which: int) -> list[str]:
    rows = [["method", *(f"{budget} trials" for budget in BUDGETS)]]
    for method in (LOOP, *RIVALS):
        known = {budget: signed(over_units(scores(cells, method, budget, which))) for budget in budgets_of(method)}
        rows.append([method, *(known.get(budget, "") for budget in BUDGETS)])
    return table(rows)


def report(cells: list[dict[str, Any]], speeds: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    if not cells:
        raise FileNotFoundError("--out holds no neuron yet; run `run` first.")
    said, held, last = cells[0]["provenance"], checks(cells) | speed_check(speeds), BUDGETS[-1]
    means = {key: over_units([cell["found"][key] for cell in cells]).mean for key in ("best", "mean_count", "sd_count")}
    text = fill(
        __file__,
        "page",
        verdict=verdict(held),
        count=len(cells),
        sessions=" and ".join(sorted({cell["found"]["session"] for cell in cells})),
        photographs=cells[0]["found"]["photographs"],
        **means,
        nine=methods_table(cells, 1),
        first=methods_table(cells, 0),
        speed=speed_text(speeds),
        source=provenance_line(said),
    )
    measures = []
    for method in (LOOP, LANDSCAPE, SO_FAR):
        what, mean = f"{method}, nine photographs after {last} trials", over_units(scores(cells, method, last))
        measures.append(measure(what, mean, "SD", f"{len(cells)} V4 neurons"))
    each = {
        method: {str(budget): scores(cells, method, budget).round(4).tolist() for budget in budgets_of(method)}
        for method in (LOOP, *RIVALS)
    }
    speed = {cell["found"]["name"]: cell["found"]["rows"] for cell in speeds}
    stated = {"checks": held, "measures": stated_measures(measures), "neurons": each, "speed": speed}
    return text, {"provenance": said, **stated}
