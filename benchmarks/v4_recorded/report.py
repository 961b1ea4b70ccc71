"""Tables of edits for V4 neurons, judged by recordings."""

import itertools
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import package as vl
from benchmarks.common.findings import Aim, Findings, measure
from benchmarks.common.script import provenance_line, read_all, rounded
from benchmarks.common.tables import against_rivals, angles_table, fill, over_units
from benchmarks.common.v4_sessions import NEURONS
from benchmarks.v4_recorded.methods import ANGLES, BRAINACTIV, METHODS, OURS, RIVALS, SIGN, VARIANTS

NEAREST, EDITED, TOP = 5, 80, 10
"""Neighbours whose recordings judge; pictures edited in each half; natural images of the last rows."""


def table_of(
    cells: list[dict[str, Any]], method: str, direction: str | None, angle: float | None, key: str
) -> np.ndarray:
    """One number a neuron, the mean of both halves; pictures that nobody edited have no angle, some no direction."""
    where = (method, direction, angle)
    place = lambda row: (row["method"], row.get("direction"), row.get("angle"))  # noqa: E731
    rows = [[row[key] for half in cell["halves"] for row in half if place(row) == where] for cell in cells]
    return np.array([float(np.mean(one)) for one in rows])


def report(out: Path, said: dict[str, Any], *, tune: bool) -> tuple[str, dict[str, Any]]:
    cells = read_all(out, "tuning-*.json" if tune else "neuron-*.json")
    if not cells:
        raise FileNotFoundError(f"--out {out} holds no neuron yet; run `fit` first.")
    labels = [label for label in (*METHODS, *VARIANTS) if any(row["method"] == label for row in cells[0]["halves"][0])]
    neurons: dict[str, list[int]] = {name: [] for name in sorted({cell["session"] for cell in cells})}
    for cell in cells:
        neurons[cell["session"]].append(cell["neuron"])
    counts = (f"{len(done)} of the {NEURONS.get(name, '?')} of session {name}" for name, done in neurons.items())
    every = list(itertools.product(labels, SIGN, ANGLES))
    changes = {key: table_of(cells, *key, "change") for key in every}
    kept: dict[str, Any] = {"provenance": said, "neurons": neurons, "changes": {}}
    for label, way, angle in every:
        kept["changes"].setdefault(label, {}).setdefault(way, {})[f"{angle:.0f}"] = rounded(changes[label, way, angle])
    text = fill(
        __file__,
        "page",
        kind=" (tuning neurons)" if tune else "",
        verdict="" if tune else "\n".join([*verdict(changes, labels), ""]),
        count=len(cells),
        counts=", ".join(counts),
        edited=EDITED,
        changes=[line for way in SIGN for line in direction_lines(cells, changes, labels, way)],
        natural=table_of(cells, "α = 0", None, None, "natural").mean(),
        naturalness=angles_table(labels, ANGLES, lambda label: natural_cells(cells, label), "seconds to fit"),
        source=provenance_line(said),
    )
    return text, kept


def direction_lines(
    cells: list[dict[str, Any]], changes: dict[Any, np.ndarray], labels: list[str], way: vl.Sense
) -> list[str]:
    """The table of one direction, with the rows of pictures that nobody edited."""

    def shown(label: str) -> list[str]:
        found = []
        for angle in ANGLES:
            short = table_of(cells, label, way, angle, "short").mean()
            said = f" ({short:.0%} short)" if short > 0.05 else ""
            found.append(f"{over_units(changes[label, way, angle])}{said}")
        return found

    top, oracle = (over_units(table_of(cells, "top-10", way, None, key)) for key in ("change", "oracle"))
    drawn, zero = (table_of(cells, label, None, None, "level") for label in ("random images", "α = 0"))
    natural = SIGN[way] * (drawn - zero)
    rows = {
        "α = 0": "0 by definition",
        "nearest to the ten best pictures learnt from (no picture is edited)": top,
        "the ten best held-out pictures themselves (chosen by their recorded response: a bound)": oracle,
        "random held-out pictures": over_units(natural),
    }
    below = [f"| {name} | {value}" + " |" * len(ANGLES) for name, value in rows.items()]
    return [f"## {way.capitalize()}", "", *angles_table(labels, ANGLES, shown), *below, ""]


def natural_cells(cells: list[dict[str, Any]], label: str) -> list[str]:
    natural = [np.mean([table_of(cells, label, way, angle, "natural").mean() for way in SIGN]) for angle in ANGLES]
    return [f"{value:.2f}" for value in (*natural, table_of(cells, label, "increase", ANGLES[0], "seconds").mean())]


def verdict(changes: dict[Any, np.ndarray], labels: list[str]) -> list[str]:
    """Where ours wins, ties or loses against each rival."""
    differences = {}
    for rival, way, angle in itertools.product([label for label in RIVALS if label in labels], SIGN, ANGLES):
        one = vl.paired_difference(changes[OURS, way, angle], changes[rival, way, angle], levels=("unit",))
        differences[rival, way, angle] = one.mean, one.low, one.high
    return against_rivals(differences, " (paired, SDs)")


def findings(numbers: dict[str, Any]) -> Findings:
    """Edits judged by recordings: ahead of BrainACTIV's ridge in decrease, not behind in increase."""
    aims, measures = [], []
    for way in SIGN:
        ours, theirs = (
            [statistics.fmean(values) for values in zip(*numbers["changes"][label][way].values(), strict=True)]
            for label in (OURS, BRAINACTIV)
        )
        found = vl.paired_difference(ours, theirs, levels=("unit",))
        ahead = way == "decrease"
        wanted = "above zero" if ahead else "not below zero"
        text = f"{way}, mean over edit angles, {OURS} minus {BRAINACTIV}: {found} SD (wanted: {wanted})."
        aims.append(Aim(text, bool(found.low > 0 if ahead else found.high >= 0)))
        what = "V4 neurons, edits judged by recorded responses, mean over angles"
        measures.append(measure(what, over_units(ours), "SD", f"{len(ours)} neurons", way))
    return Findings(tuple(aims), tuple(measures))
