"""Tables of edits for V4 neurons, judged by recordings."""

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import package as vl
from benchmarks.common.findings import Aim, Findings, Measure
from benchmarks.common.provenance import provenance_line
from benchmarks.common.v4_sessions import NEURONS
from benchmarks.v4_recorded.methods import ANGLES, BRAINACTIV, METHODS, OURS, RIVALS, SIGN, VARIANTS

NEAREST, EDITED, TOP = 5, 80, 10
"""Neighbours whose recordings judge; pictures edited in each half; natural images of the last rows."""


def table_of(cells: list[dict[str, Any]], method: str, direction: str, angle: float | None, key: str) -> np.ndarray:
    """One number a neuron, the mean of both halves."""
    values = []
    for cell in cells:
        rows = [
            row[key]
            for half in cell["halves"]
            for row in half
            if row["method"] == method and row.get("direction") == direction and row.get("angle") == angle
        ]
        values.append(float(np.mean(rows)))
    return np.array(values)


def level_of(cells: list[dict[str, Any]], method: str, key: str) -> np.ndarray:
    return np.array(
        [np.mean([row[key] for half in cell["halves"] for row in half if row["method"] == method]) for cell in cells]
    )


def report(out: Path, said: dict[str, Any], *, tune: bool) -> tuple[str, dict[str, Any]]:
    paths = sorted(out.glob("tuning-*.json" if tune else "neuron-*.json"))
    cells = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    if not cells:
        raise FileNotFoundError(f"--out {out} holds no neuron yet; run `fit` first.")
    labels = [label for label in (*METHODS, *VARIANTS) if any(row["method"] == label for row in cells[0]["halves"][0])]
    sessions = sorted({cell["session"] for cell in cells})
    done = {name: sum(cell["session"] == name for cell in cells) for name in sessions}
    counts = ", ".join(f"{count} of the {NEURONS.get(name, '?')} of session {name}" for name, count in done.items())
    changes = {
        (label, way, angle): table_of(cells, label, way, angle, "change")
        for label in labels
        for way in SIGN
        for angle in ANGLES
    }
    lines = ["# Edits for V4 neurons, judged by recordings" + (" (tuning neurons)" if tune else ""), ""]
    if not tune:
        lines += verdict(changes, labels)
    lines += [
        (
            f"{len(cells)} neurons ({counts}; where not all were run, the first of a fixed random order). Signed "
            f"change of the recorded response in SDs, positive is the wanted way, with a 95 % interval (bootstrap over "
            f"neurons; a neuron is a mean over {EDITED} pictures of each half)."
        ),
        "",
    ]
    kept: dict[str, Any] = {"provenance": said, "neurons": {}, "changes": {}}
    kept["neurons"] = {name: [cell["neuron"] for cell in cells if cell["session"] == name] for name in sessions}
    for way in SIGN:
        lines += [f"## {way.capitalize()}", "", f"| method | {' | '.join(f'{angle:.0f}°' for angle in ANGLES)} |"]
        lines.append("|---" * (len(ANGLES) + 1) + "|")
        for label in labels:
            shown = []
            for angle in ANGLES:
                values = changes[label, way, angle]
                short = table_of(cells, label, way, angle, "short").mean()
                shown.append(
                    f"{vl.interval(values, levels=('unit',))}" + (f" ({short:.0%} short)" if short > 0.05 else "")
                )
                kept["changes"].setdefault(label, {}).setdefault(way, {})[f"{angle:.0f}"] = [
                    round(value, 4) for value in values.tolist()
                ]
            lines.append(f"| {label} | {' | '.join(shown)} |")
        top = table_of(cells, "top-10", way, None, "change")
        oracle = table_of(cells, "top-10", way, None, "oracle")
        natural = level_of(cells, "random images", "level") - level_of(cells, "α = 0", "level")
        lines += [
            "| α = 0 | 0 by definition" + " |" * len(ANGLES),
            "| nearest to the ten best pictures learnt from (no picture is edited) | "
            f"{vl.interval(top, levels=('unit',))}" + " |" * len(ANGLES),
            "| the ten best held-out pictures themselves (chosen by their recorded response: a bound) | "
            f"{vl.interval(oracle, levels=('unit',))}" + " |" * len(ANGLES),
            f"| random held-out pictures | {vl.interval(SIGN[way] * natural, levels=('unit',))}" + " |" * len(ANGLES),
            "",
        ]
    lines += [
        "## Naturalness: mean cosine to the five nearest held-out pictures",
        "",
        f"Untouched pictures: {level_of(cells, 'α = 0', 'natural').mean():.2f}.",
        "",
        f"| method | {' | '.join(f'{angle:.0f}°' for angle in ANGLES)} | seconds to fit |",
        "|---" * (len(ANGLES) + 2) + "|",
    ]
    for label in labels:
        shown = [
            f"{np.mean([table_of(cells, label, way, angle, 'natural').mean() for way in SIGN]):.2f}" for angle in ANGLES
        ]
        seconds = table_of(cells, label, "increase", ANGLES[0], "seconds").mean()
        lines.append(f"| {label} | {' | '.join(shown)} | {seconds:.2f} |")
    lines += ["", "Short: share of edits whose goal lies nearer than the angle, and which stop there.", ""]
    lines += [provenance_line(said), ""]
    return "\n".join(lines), kept


def verdict(changes: dict[Any, np.ndarray], labels: list[str]) -> list[str]:
    """Where ours wins, ties or loses against each rival, in plain words, losses first."""
    lost, even, won = [], [], []
    for rival in (label for label in RIVALS if label in labels):
        for way in SIGN:
            for angle in ANGLES:
                difference = vl.paired_difference(
                    changes[OURS, way, angle], changes[rival, way, angle], levels=("unit",)
                )
                said = f"{way} at {angle:.0f}° {difference} against {rival}"
                (even if not difference.excludes_zero else won if difference.mean > 0 else lost).append(said)
    lines = []
    for title, found in (("Ours loses", lost), ("Neither way", even), ("Ours wins", won)):
        lines.append(f"**{title}** in {len(found)} of {len(lost) + len(even) + len(won)} comparisons (paired, SDs):")
        lines += [f"- {said}" for said in found] or ["- none"]
        lines.append("")
    return lines


def findings(numbers: dict[str, Any]) -> Findings:
    """Edits judged by recordings: ahead of BrainACTIV's ridge in decrease, not behind in increase."""

    def by_neuron(label: str, way: str) -> list[float]:
        return [statistics.fmean(values) for values in zip(*numbers["changes"][label][way].values(), strict=True)]

    aims, measures = [], []
    for way in ("increase", "decrease"):
        ours, theirs = by_neuron(OURS, way), by_neuron(BRAINACTIV, way)
        found = vl.paired_difference(ours, theirs, levels=("unit",))
        wanted = "above zero" if way == "decrease" else "not below zero"
        text = f"{way}, mean over edit angles, {OURS} minus {BRAINACTIV}: {found} SD (wanted: {wanted})."
        aims.append(Aim(text, bool(found.low > 0 if way == "decrease" else found.high >= 0)))
        mean = vl.interval(ours, levels=("unit",))
        ends = (mean.low, mean.high)
        what = "V4 neurons, edits judged by recorded responses, mean over angles"
        measures.append(
            Measure(what, mean.mean, "SD", f"{len(ours)} neurons", *ends, "95 % bootstrap over neurons", way)
        )
    return Findings(tuple(aims), tuple(measures))
