"""The page of cross_subject, which says first what fails, and the figures that go with it."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.findings import Aim, Findings, measure
from benchmarks.common.script import provenance_line
from benchmarks.common.tables import against_rivals, angles_table, fill, signed, table
from benchmarks.cross_subject.judging import Key, Measured, Results, drawn_mean
from benchmarks.cross_subject.made import made_lines, made_numbers
from benchmarks.cross_subject.subjects import ANIMALS, OTHER, OWN, REGIONS, SAME, SELF, SHARED, UNSHARED, VIEWS
from benchmarks.v4_recorded.methods import ANGLES, BRAINACTIV, METHODS, OURS, RANDOM, RIVALS, SHUFFLED, SIGN


def report(out: Path, said: dict[str, Any], *, table_angle: float) -> tuple[str, dict[str, Any]]:
    """The page and what its JSON holds."""
    found = Results(out)
    if not found.populations:
        raise FileNotFoundError(f"--out {out} holds no landscape that was judged yet; run `fit` first.")
    kept = numbers(found, out, said, table_angle)
    words = {None: "open", True: "met", False: "MISSED"}
    aims = sorted(findings(kept).aims, key=lambda aim: aim.met is True)
    differences = {}
    for rival, way, angle in itertools.product(RIVALS, SIGN, ANGLES):
        ours, theirs = (found.over_animals(OTHER, (label, way, angle)) for label in (OURS, rival))
        differences[rival, way, angle] = (ours - theirs).ends
    text = fill(
        __file__,
        "page",
        aims=[f"- **{words[aim.met]}**: {aim.what}" for aim in aims],
        absent=", ".join(sorted(set(ANIMALS) - found.sessions)) or "none",
        angle=table_angle,
        ours=OURS,
        shares=shares(found, table_angle),
        verdict=against_rivals(differences),
        tables=table_2(found, table_angle),
        angles=[line for way in SIGN for line in by_angle(found, way)],
        groups=by_groups(found, table_angle),
        simulated=simulated(found, table_angle),
        encoders=[*encoders(found), *made_lines(kept["made"])],
        excluded=found.excluded,
        source=provenance_line(said),
    )
    return text, kept


def by_direction(
    held: Iterable[Any], columns: dict[str, Any], cell: Callable[..., Any], zero: Sequence[str] = ()
) -> list[str]:
    """A table a direction: methods by columns; ``cell(label, way, column)`` is what stands there, ``zero`` below."""
    there = {key[2][0] for key in held}
    labels = [label for label in METHODS if label in there]
    lines = []
    for way in SIGN:
        rows = [[label, *(str(cell(label, way, column)) for column in columns.values())] for label in labels]
        rows += [[*zero, *[""] * (len(columns) - 1)]] if zero else []
        lines += table([[way, *columns], *rows])
    return lines


def shares(found: Results, angle: float) -> list[str]:
    """How much of what an animal's own landscape does another animal's does, by judge: the paper's question."""
    lines = []
    for source, judged, level in found.pairs():
        if level == SAME or source == judged:
            continue
        own = OWN if (judged, judged, OWN) in found.pairs() else SAME
        for way in SIGN:
            other, reference = (
                found.populations[pair, "recorded", (OURS, way, angle)]
                for pair in ((source, judged, level), (judged, judged, own))
            )
            share = Measured(other.value / reference.value, other.draws / reference.draws).ends
            ends = f"{share[0]:.0%} [{share[1]:.0%}, {share[2]:.0%}]"
            lines.append(f"- judge {judged}, {way}: {ends} of {own}; difference {other - reference} SD")
    return lines


def table_2(found: Results, angle: float) -> list[str]:
    """One table a view, in the paper's form: rows are methods, columns who learnt for whom."""
    lines = []
    for view in ("recorded", "encoder"):
        if any((pair, view, (OURS, way, angle)) not in found.populations for pair in found.pairs() for way in SIGN):
            lines += [f"Not judged yet by {VIEWS[view]}.", ""]
            continue
        lines += [f"## Judged by {VIEWS[view]}, at {angle:.0f}°", ""]
        for judged in sorted(set(ANIMALS.values())):
            columns = {f"from {pair[0]}, {pair[2]}": pair for pair in found.pairs() if pair[1] == judged}
            cell = lambda label, way, pair, view=view: found.populations[pair, view, (label, way, angle)]  # noqa: E731
            zero = ("α = 0", "0 by definition")
            lines += [f"Judge: animal {judged}.", "", *by_direction(found.populations, columns, cell, zero)]
    return lines


def by_angle(found: Results, way: str) -> list[str]:
    def cells(label: str) -> list[str]:
        shorts = [found.shorts[label, way, angle] for angle in ANGLES]
        changes = [found.over_animals(OTHER, (label, way, angle)) for angle in ANGLES]
        return [f"{a}" + f" ({b:.0%} short)" * (b > 0.05) for a, b in zip(changes, shorts, strict=True)]

    there = {key[2][0] for key in found.populations}
    rows = angles_table([label for label in METHODS if label in there], ANGLES, cells)
    return [f"## {way.capitalize()}, other animal, recorded responses, by edit angle", "", *rows, ""]


def by_groups(found: Results, angle: float) -> list[str]:
    """Landscapes of a quarter of the neurons, drawn as units first."""
    if not found.groups:
        return []
    lines = [f"## Landscapes of a quarter of a session's neurons, recorded responses, at {angle:.0f}°", ""]
    said = "Disjoint random groups of a session's neurons are the units, drawn first; then the judge's neurons, "
    columns = {named(pair): pair for pair in found.pairs() if pair[2] != SAME}
    cell = lambda label, way, pair: drawn_mean(found.groups[pair, "recorded", (label, way, angle)])  # noqa: E731
    return [*lines, f"{said}pictures.", "", *by_direction(found.groups, columns, cell), ""]


def simulated(found: Results, angle: float) -> list[str]:
    """Regions whose truth is known."""
    if not found.regions:
        return []
    units = max(len(regions) for regions in found.regions.values())
    lines = [f"## Simulated subjects, {units} of {len(REGIONS)} regions, at {angle:.0f}°", ""]
    lines += ["Units are regions, in the order of their list, drawn first, then pictures.", ""]
    columns = {pair: pair for pair in (SELF, SHARED, UNSHARED)}
    for view, words in VIEWS.items():
        if (SHARED, view, (OURS, "increase", angle)) not in found.regions:
            lines += [f"Not judged yet by {words}.", ""]
            continue
        cell = lambda label, way, pair, v=view: drawn_mean(found.regions[pair, v, (label, way, angle)])  # noqa: E731
        lines += [f"Judged by {words}:", "", *by_direction(found.regions, columns, cell)]
    return [*lines, ""]


def encoders(found: Results) -> list[str]:
    rows: list[list[Any]] = []
    for (name, half), judge in found.judges.items():
        if judge.encoder is not None:
            r, population = judge.encoder["r"], judge.encoder["population_r"]
            said = "" if "truth" in judge.views else f"{population:.2f}"
            rows.append([name, half, len(judge.position), len(r), f"{np.median(r):.2f}", said])
    head = ["subject", "half", "pictures", "targets", "median R of a target", "R of the population"]
    return ["## The encoders that judge, on their galleries", "", *table([head, *rows]), ""] if rows else []


def numbers(found: Results, out: Path, said: dict[str, Any], table_angle: float) -> dict[str, Any]:
    """What the JSON holds: value, lower and upper end of everything that is in the tables."""
    kept: dict[str, Any] = {"provenance": said, "table_angle": table_angle, "cells": found.cells}
    kept["sessions"] = sorted(found.sessions)

    def put(name: str, view: str, pair: str, key: Key, ends: list[float]) -> None:
        method, way, angle = key
        place = kept.setdefault(name, {}).setdefault(view, {}).setdefault(pair, {})
        place.setdefault(method, {}).setdefault(way, {})[f"{angle:.0f}"] = ends

    def minus_ours(level: str, label: str, way: str) -> list[float]:
        theirs, ours = (found.over_angles(level, one, way) for one in (label, OURS))
        return (theirs - ours).ends

    for (pair, view, key), one in found.populations.items():
        put("changes", view, named(pair), key, one.ends)
    rivals = (*RIVALS, SHUFFLED, RANDOM)
    kept["minus ours"] = {
        level: {label: {way: minus_ours(level, label, way) for way in SIGN} for label in rivals}
        for level in found.levels()
    }
    kept["over animals"] = {
        level: {way: found.over_animals(level, (OURS, way, table_angle)).ends for way in SIGN}
        for level in found.levels()
    }
    kept["neurons"] = {
        named(pair): {way: [round(one, 3) for one in found.neurons[pair, (OURS, way, table_angle)]] for way in SIGN}
        for pair in found.pairs()
    }
    kept["made"] = made_numbers(out)
    kept["regions"] = [max(map(len, found.regions.values()), default=0), len(REGIONS)]
    for (pair, view, key), regions in found.regions.items():
        put("simulated", view, pair, key, drawn_mean(regions).ends)
    return kept


def named(pair: tuple[str, str, str]) -> str:
    return f"{pair[0]} to {pair[1]}, {pair[2]}"


def findings(numbers: dict[str, Any]) -> Findings:
    """A landscape moves the other animal too, like one of its own; what is not shared is not moved."""
    aims, measures = [], []
    angle = f"{numbers['table_angle']:.0f}"
    sample = f"2 animals, {len(numbers['sessions'])} sessions"
    for pair, held in numbers["changes"]["recorded"].items():
        for way in SIGN if pair.endswith(OTHER) else ():
            ends, moved = held[OURS][way][angle], numbers["neurons"][pair][way]
            right = sum(value > 0 for value in moved)
            text = f"{pair}, {way} at {angle}°, {OURS}, recorded: {signed(ends)} SD (wanted: above zero)"
            aims.append(Aim(f"{text}; {right} of {len(moved)} single neurons move the wanted way.", ends[1] > 0))
    for way in SIGN:
        for rival in (SHUFFLED, BRAINACTIV):
            mean, low, high = numbers["minus ours"][OTHER][rival][way]
            ahead = rival == SHUFFLED or way == "decrease"
            wanted, ours = "above zero" if ahead else "not below zero", signed([-mean, -high, -low])
            text = f"Other animal, {way}, mean over edit angles, {OURS} minus {rival}: {ours} SD (wanted: {wanted})."
            aims.append(Aim(text, -high > 0 if ahead else -low >= 0))
        for level, held in numbers["over animals"].items():
            what = f"V4 population, edits at {angle}° judged by recordings of: {level}"
            spread = "95 % bootstrap over the judge's neurons, pictures"
            measures.append(measure(what, held[way], "SD", sample, way, spread))
    for pair, held in numbers.get("made", {}).items():
        for way in SIGN if pair.endswith(OTHER) else ():
            text = f"Pictures made by the default generator, {pair}, {way}, {OURS}, judged by encoders: "
            aims.append(Aim(f"{text}{signed(held[OURS][way])} SD (wanted: above zero).", held[OURS][way][1] > 0))
    for pair in (SHARED, UNSHARED):
        for way in SIGN:
            if "simulated" not in numbers:
                aims.append(Aim(f"Simulated subjects have not been measured: {pair}, {way}.", None))
                continue
            ends = numbers["simulated"]["truth"][pair][OURS][way][angle]
            wanted = "above zero" if pair == SHARED else "zero within the interval: the control must fail"
            done, total = numbers["regions"]
            text = f"Simulated, {pair}, {way} at {angle}°, planted truth, {done} of {total} regions: {signed(ends)} SD"
            met = ends[1] > 0 if pair == SHARED else ends[1] <= 0 <= ends[2]
            # Of few regions any interval holds zero.
            aims.append(Aim(f"{text} (wanted: {wanted}).", met if pair == SHARED or done == total else None))
    return Findings(tuple(aims), tuple(measures))
