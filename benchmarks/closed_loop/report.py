"""The table of the closed loop, what fails first."""

from typing import Any

import numpy as np

from benchmarks.common.findings import measure, stated_measures
from benchmarks.common.provenance import provenance_line
from benchmarks.common.tables import over_units, signed, table, verdict

BUDGETS = (60, 120, 300, 600)
LANDSCAPE_BUDGETS = BUDGETS[-2:]
"""A landscape refuses fewer than 200 images."""
LOOP, RANDOM, SO_FAR = "Experiment", "random photographs", "best photographs so far"
LANDSCAPE, RIDGE, RIDGE_LOOP, CMA_ES = "landscape, fitted once", "ridge, fitted once", "ridge loop", "CMA-ES"
SIDE, PICTURES, SECONDS = 64, 24, 10
"""Of a block whose time is measured, and what it may take."""
NEURON, REGION = "V4 neuron", "simulated region"
TRIALS = (60, 300, 600)
"""That were told before such a block."""
DESIGNS = ("explore", "exploit", "mixed", "contrast")
RIVALS = (RANDOM, SO_FAR, LANDSCAPE, RIDGE, RIDGE_LOOP, CMA_ES)


def budgets_of(method: str) -> tuple[int, ...]:
    return LANDSCAPE_BUDGETS if method == LANDSCAPE else BUDGETS


def scores(cells: list[dict[str, Any]], method: str, budget: int, which: int) -> np.ndarray:
    """One number a neuron: of the photograph named first (0) or of the nine (1)."""
    return np.array([cell["found"]["scores"][method][str(budget)][which] for cell in cells])


def checks(cells: list[dict[str, Any]]) -> dict[str, bool | None]:
    """Sentence to whether it holds; None where the interval of the difference holds 0."""
    found: dict[str, bool | None] = {}
    half, whole = BUDGETS[-2:]
    difference = over_units(scores(cells, LOOP, half, 1) - scores(cells, LANDSCAPE, whole, 1))
    claim = f"With {half} trials the Experiment's nine photographs reach those of the landscape fitted once on {whole}"
    found[f"{claim}: {signed(difference)} SD."] = None if difference.low <= 0 <= difference.high else difference.low > 0
    for rival in RIVALS:
        differences = {
            budget: over_units(scores(cells, LOOP, budget, 1) - scores(cells, rival, budget, 1))
            for budget in budgets_of(rival)
        }
        each = ", ".join(f"{signed(value)} ({budget} trials)" for budget, value in differences.items())
        lost = any(value.high < 0 for value in differences.values())
        won = all(value.low > 0 for value in differences.values())
        claim = f"Experiment minus {rival}, nine photographs, SD (wanted: above 0): {each}."
        found[claim] = won if won or lost else None
    return found


def speed_lines(speeds: list[dict[str, Any]]) -> list[str]:
    """Seconds of a block, by what is recorded, design and trials."""
    if not speeds:
        return []
    said = speeds[0]["provenance"]
    text = (
        f"`ask({PICTURES})`: seconds (CPU seconds of {said['threads']} thread; load of the machine, the processes that "
    )
    text += (
        f"wanted one of its {said['cpus']} cores meanwhile). Of the pictures that are no controls the backend makes "
    )
    text += f"half, at {SIDE} px; files have 512 px, as by default."
    lines = [f"## Seconds of a block of {PICTURES} at {SIDE} px", "", text, ""]
    for cell in speeds:
        opened, *blocks = cell["found"]["rows"]
        found = {(row["what"], row["trials"]): row for row in blocks}
        rows = [[design, *(_shown(found[design, trials]) for trials in TRIALS)] for design in DESIGNS]
        title = f"{cell['found']['name']}, {opened['pictures']} photographs; to open the experiment {_shown(opened)}:"
        lines += [title, "", *table([["design", *(f"after {trials} trials" for trials in TRIALS)], *rows])]
    return [*lines, provenance_line(said), ""]


def _shown(row: dict[str, Any]) -> str:
    return f"{row['seconds']:.1f} ({row['cpu']:.1f}; {row['load']:.0f})"


def speed_check(speeds: list[dict[str, Any]]) -> dict[str, bool | None]:
    """Whether every block came in time; None where it did not, but the cores were at other work for the rest of it."""
    rows = [row for cell in speeds for row in cell["found"]["rows"][1:]]
    if not rows:
        return {}
    seconds, cpu, load = (max(row[name] for row in rows) for name in ("seconds", "cpu", "load"))
    text = (
        f"A block of {PICTURES} at {SIDE} px takes at most {SECONDS} s: of {len(rows)} the slowest took {seconds:.1f} s"
    )
    text += f" on a machine with a load of up to {load:.0f}, and {cpu:.1f} s of one core."
    return {text: True if seconds <= SECONDS else None if cpu <= SECONDS else False}


def report(cells: list[dict[str, Any]], speeds: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    if not cells:
        raise FileNotFoundError("--out holds no neuron yet; run `run` first.")
    said, held = cells[0]["provenance"], checks(cells) | speed_check(speeds)
    best, count, spread = (
        over_units(np.array([cell["found"][key] for cell in cells])).mean for key in ("best", "mean_count", "sd_count")
    )
    sessions = sorted({cell["found"]["session"] for cell in cells})
    text = (
        f"{len(cells)} neurons of sessions {' and '.join(sessions)}; mean and 95 % bootstrap interval over neurons, "
        "one experiment each. Numbers are true rates in SDs of the neuron's rates over its session's "
        f"{cells[0]['found']['photographs']} photographs, of which the best has {best:+.2f}. A trial is one Poisson "
        f"count: mean {count:.2f}, SD of the true rates {spread:.2f}. Photographs only: no picture was made."
    )
    lines = ["# A closed loop on simulated V4 experiments", "", *verdict(held), text, ""]
    for which, what in ((1, "The nine photographs that a method names"), (0, "The one that it names first")):
        rows = [["method", *(f"{budget} trials" for budget in BUDGETS)]]
        for method in (LOOP, *RIVALS):
            known = {budget: signed(over_units(scores(cells, method, budget, which))) for budget in budgets_of(method)}
            rows.append([method, *(known.get(budget, "") for budget in BUDGETS)])
        lines += [f"## {what}", "", *table(rows)]
    lines += [*speed_lines(speeds), provenance_line(said), ""]
    measures = [
        measure(f"{method}, nine photographs after {budget} trials", over_units(scores(cells, method, budget, 1)), "SD",
                f"{len(cells)} V4 neurons")
        for method in (LOOP, LANDSCAPE, SO_FAR)
        for budget in BUDGETS[-1:]
    ]  # fmt: skip
    each = {
        method: {str(budget): scores(cells, method, budget, 1).round(4).tolist() for budget in budgets_of(method)}
        for method in (LOOP, *RIVALS)
    }
    return "\n".join(lines), {
        "provenance": said, "checks": held, "measures": stated_measures(measures), "neurons": each,
        "speed": {cell["found"]["name"]: cell["found"]["rows"] for cell in speeds},
    }  # fmt: skip
