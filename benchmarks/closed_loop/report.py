"""The table of the closed loop, what fails first."""

from typing import Any

import numpy as np

from benchmarks.common.provenance import provenance_line
from benchmarks.common.tables import over_units, signed, table, verdict

BUDGETS = (72, 120, 240)
LOOP = "Experiment, mixed"
METHODS = (LOOP, "random photographs", "best photographs so far", "ridge, fitted once", "ridge loop", "CMA-ES")
OFFLINE = METHODS[3]


def scores(cells: list[dict[str, Any]], method: str, budget: int, which: int) -> np.ndarray:
    """One number a neuron: of the photograph named first (0) or of the nine (1)."""
    return np.array([cell["found"]["scores"][method][str(budget)][which] for cell in cells])


def checks(cells: list[dict[str, Any]]) -> dict[str, bool | None]:
    """Sentence to whether it holds; None where the interval of the difference holds 0."""

    def compare(first: np.ndarray, second: np.ndarray, *, slack: bool) -> bool | None:
        difference = over_units(first - second)
        if slack:
            return True if difference.low >= 0 else None if difference.high >= 0 else False
        return True if difference.low > 0 else None if difference.high > 0 else False

    half, whole = BUDGETS[1], BUDGETS[2]
    claim = f"With {half} trials the loop's nine photographs reach what the ridge fitted once reaches with {whole}."
    early, late = scores(cells, LOOP, half, 1), scores(cells, OFFLINE, whole, 1)
    found: dict[str, bool | None] = {claim: compare(early, late, slack=True)}
    for method in METHODS[1:]:
        for budget in BUDGETS:
            found[f"At {budget} trials the loop's nine photographs drive the neuron more than: {method}."] = compare(
                scores(cells, LOOP, budget, 1), scores(cells, method, budget, 1), slack=False
            )
    return found


def report(cells: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    if not cells:
        raise FileNotFoundError("--out holds no neuron yet; run `run` first.")
    said = cells[0]["provenance"]
    held = checks(cells)
    lines = ["# A closed loop on simulated V4 experiments", "", *verdict(held), ""]
    best = over_units(np.array([cell["found"]["best"] for cell in cells]))
    counts = over_units(np.array([cell["found"]["mean_count"] for cell in cells]))
    text = (
        f"{len(cells)} neurons; mean and 95% bootstrap interval over neurons, one experiment each. True rate in SDs of "
        "the neuron's rates over its session's photographs; the best photograph of all has "
        f"{best.mean:+.2f}. Mean spike count of a trial: {counts.mean:.2f}. Photographs only: no pictures were made."
    )
    lines += [text, ""]
    for which, what in ((1, "The nine photographs that a method names"), (0, "The one that it names first")):
        rows = [["method", *(f"{budget} trials" for budget in BUDGETS)]]
        for method in METHODS:
            shown = (signed(over_units(scores(cells, method, budget, which))) for budget in BUDGETS)
            rows.append([method, *shown])
        lines += [f"## {what}", "", *table(rows)]
    lines += [provenance_line(said), ""]
    nine = lambda method, budget: scores(cells, method, budget, 1).round(4).tolist()  # noqa: E731
    measures = {method: {str(budget): nine(method, budget) for budget in BUDGETS} for method in METHODS}
    return "\n".join(lines), {"provenance": said, "checks": held, "measures": measures}
