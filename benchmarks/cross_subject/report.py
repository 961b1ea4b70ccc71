"""The page of cross_subject, which says first what fails, and the figures that go with it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.findings import Aim, Findings, Measure
from benchmarks.common.provenance import provenance_line
from benchmarks.common.tables import signed, table
from benchmarks.cross_subject.judging import (
    OTHER,
    OWN,
    SAME,
    SELF,
    SHARED,
    UNSHARED,
    VIEWS,
    Measured,
    Results,
    drawn_mean,
)
from benchmarks.cross_subject.subjects import ANIMALS, REGIONS
from benchmarks.v4_recorded.methods import ANGLES, BRAINACTIV, METHODS, OURS, RANDOM, RIVALS, SHUFFLED, SIGN

NOTES = """
- A change is in SDs of the judge's population response (mean of its z-scored neurons): of the recorded one over the
  half that was learnt from, of an encoder's over its gallery. A region's is in SDs of its own.
- Intervals: the judge's neurons are drawn first, then the gallery's pictures, for all neurons together. Two animals are
  two animals: no interval here speaks of a third. The landscape is not fitted again in a draw; groups of neurons say
  how much it depends on the neurons that it was learnt from.
- Where the judge is the same session, an encoder has learnt from the very recordings that the landscape was organised
  by. Recordings of other pictures judge it without that flaw, but of the same neurons.
- The defaults of the retrieval backend, and with them our method, were chosen on ten neurons of each session of animal
  WE (v4_recorded, tune). What WE judges is therefore not untouched; what PE judges of itself is.
- WE's pictures are partly gratings, noise and synthesised ones; PE's are photographs. So a landscape of one animal is
  also asked about kinds of pictures that it was not fitted on.
- The shuffled landscape is one permutation, and its edits lead to some pictures all the same, which may lie below the
  mean; the random direction is the control that moves nothing.
- Where the judges of simulated subjects share their tuning, they share the planted truth, so that its columns for the
  same and for another subject are equal by construction; recordings differ by their noise.
"""


def report(out: Path, said: dict[str, Any], *, table_angle: float) -> tuple[str, dict[str, Any]]:
    """The page and what its JSON holds.

    Raises:
        FileNotFoundError: Nothing has been fitted.
    """
    found = Results(out)
    if not found.populations:
        raise FileNotFoundError(f"--out {out} holds no landscape that was judged yet; run `fit` first.")
    kept = numbers(found, said, table_angle)
    aims = findings(kept).aims
    words = {None: "open", True: "met", False: "MISSED"}
    lines = ["# Landscapes of one animal, judged by another", ""]
    lines += [f"- **{words[aim.met]}**: {aim.what}" for aim in sorted(aims, key=lambda aim: aim.met is True)]
    absent = sorted(set(ANIMALS) - found.sessions)
    lines += ["", f"Sessions that have not been run: {', '.join(absent) or 'none'}.", ""]
    lines += [
        *kept_share(found, table_angle),
        *verdict(found),
        *table_2(found, table_angle),
        *by_angle(found),
        *by_groups(found, table_angle),
    ]
    lines += [*simulated(found, table_angle), *encoders(found), *notes(found), provenance_line(said), ""]
    return "\n".join(lines), kept


def labels_of(held: Iterable[Any]) -> list[str]:
    there = set(held)
    return [label for label in METHODS if label in there]


def kept_share(found: Results, angle: float) -> list[str]:
    """How much of what an animal's own landscape does another animal's does, by judge: the paper's question."""
    lines = [
        f"What the other animal's landscape does of what the judge's own does (recorded, {angle:.0f}°, {OURS}):",
        "",
    ]
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
            lines.append(
                f"- judge {judged}, {way}: {share[0]:.0%} [{share[1]:.0%}, {share[2]:.0%}] of {own}; difference "
                f"{other - reference} SD"
            )
    return [*lines, ""]


def verdict(found: Results) -> list[str]:
    """Ours against each rival on the other animal, losses first, as v4_recorded says it."""
    outcomes: dict[str, list[str]] = {"Ours loses": [], "Neither way": [], "Ours wins": []}
    for rival in RIVALS:
        for way in SIGN:
            for angle in ANGLES:
                ours, theirs = (found.over_animals(OTHER, "recorded", (label, way, angle)) for label in (OURS, rival))
                difference = ours - theirs
                value, low, high = difference.ends
                title = "Neither way" if low <= 0 <= high else "Ours wins" if value > 0 else "Ours loses"
                outcomes[title].append(f"{way} at {angle:.0f}° {difference} against {rival}")
    total = sum(len(said) for said in outcomes.values())
    lines = [
        "Judged by the other animal's recordings, the mean of both ways round (paired, SDs of the population):",
        "",
    ]
    for title, said in outcomes.items():
        lines += [f"**{title}** in {len(said)} of {total} comparisons:"]
        lines += [*(f"- {one}" for one in said or ["none"]), ""]
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
            pairs = [pair for pair in found.pairs() if pair[1] == judged]
            columns = [f"{way}: from {pair[0]}, {pair[2]}" for way in SIGN for pair in pairs]
            rows = [["method", *columns]]
            for label in labels_of(key[2][0] for key in found.populations):
                shown = [str(found.populations[pair, view, (label, way, angle)]) for way in SIGN for pair in pairs]
                rows.append([label, *shown])
            lines += [f"Judge: animal {judged}.", "", *table(rows)[:-1]]
            lines += ["| α = 0 | 0 by definition" + " |" * len(columns), ""]
    return lines


def by_angle(found: Results) -> list[str]:
    lines = []
    for way in SIGN:
        lines += [f"## {way.capitalize()}, other animal, recorded responses, by edit angle", ""]
        rows = [["method", *(f"{angle:.0f}°" for angle in ANGLES)]]
        for label in labels_of(key[2][0] for key in found.populations):
            shown = []
            for angle in ANGLES:
                short = found.shorts[label, way, angle]
                said = f" ({short:.0%} short)" if short > 0.05 else ""
                shown.append(f"{found.over_animals(OTHER, 'recorded', (label, way, angle))}{said}")
            rows.append([label, *shown])
        lines += table(rows)
    return [*lines, "Short: share of edits whose goal lies nearer than the angle, and which stop there.", ""]


def by_groups(found: Results, angle: float) -> list[str]:
    """Landscapes of a quarter of the neurons, drawn as units first."""
    if not found.groups:
        return []
    lines = [f"## Landscapes of a quarter of a session's neurons, recorded responses, at {angle:.0f}°", ""]
    lines += [
        "Disjoint random groups of a session's neurons are the units, drawn first; then the judge's neurons, pictures.",
        "",
    ]
    pairs = [(way, pair) for way in SIGN for pair in found.pairs() if pair[2] != SAME]
    rows = [["method", *(f"{way}: {pair[0]} to {pair[1]}, {pair[2]}" for way, pair in pairs)]]
    for label in labels_of(key[2][0] for key in found.groups):
        shown = (str(drawn_mean(found.groups[pair, "recorded", (label, way, angle)])) for way, pair in pairs)
        rows.append([label, *shown])
    return [*lines, *table(rows)]


def simulated(found: Results, angle: float) -> list[str]:
    """Regions whose truth is known."""
    if not found.regions:
        return []
    units = max(len(regions) for regions in found.regions.values())
    lines = [f"## Simulated subjects, {units} of {len(REGIONS)} regions, at {angle:.0f}°", ""]
    lines += ["Units are regions, in the order of their list, drawn first, then pictures.", ""]
    for view, words in VIEWS.items():
        if (SHARED, view, (OURS, "increase", angle)) not in found.regions:
            lines += [f"Not judged yet by {words}.", ""]
            continue
        pairs = [(way, pair) for way in SIGN for pair in (SELF, SHARED, UNSHARED)]
        rows = [["method", *(f"{way}: {pair}" for way, pair in pairs)]]
        for label in labels_of(key[2][0] for key in found.regions):
            shown = (str(drawn_mean(found.regions[pair, view, (label, way, angle)])) for way, pair in pairs)
            rows.append([label, *shown])
        lines += [f"Judged by {words}:", "", *table(rows)]
    return lines


def encoders(found: Results) -> list[str]:
    if all(judge.encoder is None for judge in found.judges.values()):
        return []
    lines = ["## The encoders that judge, on their galleries", ""]
    rows = [["subject", "half", "pictures", "targets", "median R of a target", "R of the population"]]
    for (name, half), judge in found.judges.items():
        if judge.encoder is not None:
            r, population = judge.encoder["r"], judge.encoder["population_r"]
            said = "" if "truth" in judge.views else f"{population:.2f}"
            rows.append([name, half, len(judge.position), len(r), f"{np.median(r):.2f}", said])
    return [*lines, *table(rows)]


def notes(found: Results) -> list[str]:
    left_out = "- Pictures left out of galleries, for the source had learnt from them: " + f"{found.excluded}."
    return ["## What this says and does not say", "", *NOTES.strip().splitlines(), left_out, ""]


def numbers(found: Results, said: dict[str, Any], table_angle: float) -> dict[str, Any]:
    """What the JSON holds: value, lower and upper end of everything that is in the tables."""
    kept: dict[str, Any] = {"provenance": said, "table_angle": table_angle, "cells": found.cells}
    kept["sessions"] = sorted(found.sessions)
    for (pair, view, (method, way, angle)), one in found.populations.items():
        place = kept.setdefault("changes", {}).setdefault(view, {}).setdefault(f"{pair[0]} to {pair[1]}, {pair[2]}", {})
        place.setdefault(method, {}).setdefault(way, {})[f"{angle:.0f}"] = one.ends
    kept["minus ours"] = {
        level: {
            label: {
                way: (
                    found.over_angles(level, "recorded", label, way) - found.over_angles(level, "recorded", OURS, way)
                ).ends
                for way in SIGN
            }
            for label in (*RIVALS, SHUFFLED, RANDOM)
        }
        for level in found.levels()
    }
    kept["over animals"] = {
        level: {way: found.over_animals(level, "recorded", (OURS, way, table_angle)).ends for way in SIGN}
        for level in found.levels()
    }
    kept["neurons"] = {
        f"{pair[0]} to {pair[1]}, {pair[2]}": {
            way: [round(value, 3) for value in found.neurons[pair, (OURS, way, table_angle)]] for way in SIGN
        }
        for pair in found.pairs()
    }
    kept["regions"] = [max(map(len, found.regions.values()), default=0), len(REGIONS)]
    for (pair, view, (method, way, angle)), regions in found.regions.items():
        place = kept.setdefault("simulated", {}).setdefault(view, {}).setdefault(pair, {})
        place.setdefault(method, {}).setdefault(way, {})[f"{angle:.0f}"] = drawn_mean(regions).ends
    return kept


def findings(numbers: dict[str, Any]) -> Findings:
    """A landscape moves the other animal too, like one of its own; what is not shared is not moved."""

    aims, measures = [], []
    angle, ways = f"{numbers['table_angle']:.0f}", ("increase", "decrease")
    sample = f"2 animals, {len(numbers['sessions'])} sessions"
    for pair, held in numbers["changes"]["recorded"].items():
        if not pair.endswith(OTHER):
            continue
        for way in ways:
            ends, moved = held[OURS][way][angle], numbers["neurons"][pair][way]
            right = sum(value > 0 for value in moved)
            text = f"{pair}, {way} at {angle}°, {OURS}, recorded: {signed(ends)} SD (wanted: above zero)"
            aims.append(Aim(f"{text}; {right} of {len(moved)} single neurons move the wanted way.", ends[1] > 0))
    for way in ways:
        for rival in (SHUFFLED, BRAINACTIV):
            theirs = numbers["minus ours"][OTHER][rival][way]
            ends = [-theirs[0], -theirs[2], -theirs[1]]
            ahead = rival == SHUFFLED or way == "decrease"
            wanted = "above zero" if ahead else "not below zero"
            text = f"Other animal, {way}, mean over edit angles, {OURS} minus {rival}: {signed(ends)} SD "
            text += f"(wanted: {wanted})."
            aims.append(Aim(text, ends[1] > 0 if ahead else ends[2] >= 0))
        for level, held in numbers["over animals"].items():
            value, low, high = held[way]
            what = f"V4 population, edits at {angle}° judged by recordings of: {level}"
            spread = "95 % bootstrap over the judge's neurons, pictures"
            measures.append(Measure(what, value, "SD", sample, low, high, spread, way))
    for pair in (SHARED, UNSHARED):
        for way in ways:
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
