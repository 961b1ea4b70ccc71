"""How cross_subject.py's cells are judged, how sure that is, and the report, which says first what fails.

One population has one landscape, so that there are no units to draw but those that judge. Two things are drawn: the
judge's neurons (which of an animal's neurons were recorded is chance), then the gallery's pictures, all neurons
together, for they saw the same ones; at large angles most edits become the same few pictures, and an interval that
ignored this would be too narrow. Pictures get weights of a Bayesian bootstrap, which never leaves all of an edit's
pictures out. Who else might have been the other animal no draw can say: there are two.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cross_subject_subjects import ANIMALS, CONTROL, REGIONS, SIMULATED
from numpy.typing import NDArray
from provenance import provenance_line
from v4_recorded import ANGLES, METHODS, OURS, RANDOM, RIVALS, SHUFFLED, SIGN

DRAWS = 1000
SAME, OWN, OTHER = "same session, other pictures", "own animal, other session", "other animal"
LEVELS = (SAME, OWN, OTHER)
SHARED, UNSHARED = "another subject, shared tuning", "another subject, unshared tuning (control)"
SELF = "the same subject, other pictures"
VIEWS = {"recorded": "recorded responses", "encoder": "encoders of the judge's other half", "truth": "planted truth"}
NOTES = """
- A change is in SDs of the judge's population response (mean of its z-scored neurons): of the recorded one over the
  half that was learnt from, of an encoder's over its gallery. A region's is in SDs of its own.
- Intervals: the judge's neurons are drawn first, then the gallery's pictures, for all neurons together. Two animals are
  two animals: no interval here speaks of a third. The landscape is not fitted again in a draw; groups of neurons say
  how much it depends on the neurons that it was learnt from.
- Where the judge is the same session, an encoder has learnt from the very recordings that the landscape was organised
  by. Recordings of other pictures judge it without that flaw, but of the same neurons.
- The defaults of the retrieval backend, and with them our method, were chosen on ten neurons of each session of animal
  WE (v4_recorded.py, tune). What WE judges is therefore not untouched; what PE judges of itself is.
- WE's pictures are partly gratings, noise and synthesised ones; PE's are photographs. So a landscape of one animal is
  also asked about kinds of pictures that it was not fitted on.
"""
Key = tuple[str, str, float]
"""Method, direction, angle."""


@dataclass(frozen=True)
class Measured:
    """A mean and what it is in each draw."""

    value: float
    draws: NDArray[np.float64]

    @property
    def ends(self) -> list[float]:
        """Value, lower and upper end of the 95 % interval."""
        low, high = np.quantile(self.draws, [0.025, 0.975])
        return [round(float(number), 4) for number in (self.value, low, high)]

    def __sub__(self, other: "Measured") -> "Measured":
        return Measured(self.value - other.value, self.draws - other.draws)

    def __str__(self) -> str:
        value, low, high = self.ends
        return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def mean(parts: Iterable[Measured]) -> Measured:
    """Of measures that are all kept: sessions, halves, angles."""
    parts = list(parts)
    return Measured(float(np.mean([part.value for part in parts])), np.mean([part.draws for part in parts], axis=0))


def drawn_mean(units: Sequence[Measured]) -> Measured:
    """Of units that were drawn from more than were measured: these are drawn again first."""
    chosen = np.random.default_rng(3).integers(len(units), size=(DRAWS, len(units)))
    draws = np.stack([unit.draws for unit in units])[chosen, np.arange(DRAWS)[:, None]].mean(1)
    return Measured(float(np.mean([unit.value for unit in units])), draws)


class Judge:
    """Responses to one gallery, (pictures, neurons), and draws of both that are the same for whatever is judged.

    Args:
        cell: What ``judge_cell`` wrote.
        place: Number of the subject, which seeds the draws of its neurons.
        half: Number of its half, which seeds those of its pictures.
    """

    def __init__(self, cell: dict[str, Any], place: int, half: int) -> None:
        self.cell, self.position = cell, {row: number for number, row in enumerate(cell["rows"])}
        self.views = {view: np.array(cell[view]) for view in VIEWS if view in cell}
        pictures, neurons = self.views["recorded"].shape
        self.pictures = np.random.default_rng([place, half]).exponential(size=(DRAWS, pictures))
        self.neurons = np.random.default_rng([place]).multinomial(neurons, [1 / neurons] * neurons, size=DRAWS)

    def weights(self, tally: dict[str, list[int]]) -> NDArray[np.float64]:
        """Share of each picture of the gallery in what edits became."""
        weights = np.zeros(len(self.position))
        weights[[self.position[row] for row in tally["rows"]]] = tally["counts"]
        return weights / weights.sum()

    def population(self, view: str, after: NDArray[np.float64], before: NDArray[np.float64]) -> list[Measured]:
        """Change of the neurons' mean, in its SDs, for each row of ``after`` (edits, pictures)."""
        responses = self.views[view] / self.cell["population_sd"][view]
        drawn = responses @ self.neurons.T / responses.shape[1]
        return self._changes(responses.mean(1), drawn.T, after, before)

    def column(self, view: str, number: int, after: NDArray[np.float64], before: NDArray[np.float64]) -> list[Measured]:
        """Change of one target, in SDs (of its predictions, where an encoder judges)."""
        responses = self.views[view][:, number]
        responses = responses / responses.std() if view == "encoder" else responses
        return self._changes(responses, responses[None], after, before)

    def by_neuron(self, after: NDArray[np.float64], before: NDArray[np.float64]) -> NDArray[np.float64]:
        """Recorded change of every neuron, (edits, neurons), in its own SDs."""
        return (after - before) @ self.views["recorded"]

    def _changes(
        self,
        responses: NDArray[np.float64],
        drawn: NDArray[np.float64],
        after: NDArray[np.float64],
        before: NDArray[np.float64],
    ) -> list[Measured]:
        weights = np.vstack([after, before])
        levels = (self.pictures * drawn) @ weights.T / (self.pictures @ weights.T)
        values = weights @ responses
        return [Measured(value - values[-1], levels[:, row] - levels[:, -1]) for row, value in enumerate(values[:-1])]


class Results:
    """Everything judged: populations by who learnt and who judged, groups of neurons, simulated regions."""

    def __init__(self, out: Path) -> None:
        self.judges = {}
        names = [*ANIMALS, *SIMULATED]
        for path in sorted(out.glob("judge-*.json")):
            name, half = path.stem.split("-")[1:]
            cell = json.loads(path.read_text(encoding="utf-8"))["found"]
            self.judges[name, int(half)] = Judge(cell, names.index(name), int(half))
        populations: dict[Any, list[Measured]] = defaultdict(list)
        groups: dict[Any, list[Measured]] = defaultdict(list)
        regions: dict[Any, list[Measured]] = defaultdict(list)
        neurons: dict[Any, list[Any]] = defaultdict(list)
        shorts: dict[Any, list[float]] = defaultdict(list)
        natural: dict[Any, list[float]] = defaultdict(list)
        self.sources: list[dict[str, Any]] = []
        self.excluded = 0
        for path in sorted(out.glob("source-*.json")):
            cell = json.loads(path.read_text(encoding="utf-8"))["found"]
            source, half, unit = cell["source"], cell["half"], cell["unit"]
            self.sources.append({name: cell[name] for name in ("source", "half", "unit")})
            self.excluded += cell["excluded"] * (unit == "population")
            before, *edits = cell["edits"]
            keys: list[Key] = [(edit["method"], edit["direction"], edit["angle"]) for edit in edits]
            signs = np.array([SIGN[edit["direction"]] for edit in edits])
            for name in before["judges"]:
                judge = self.judges[name, half]
                zero = judge.weights(before["judges"][name])
                after = np.stack([judge.weights(edit["judges"][name]) for edit in edits])
                for view in judge.views:
                    if unit in REGIONS:
                        found = judge.column(view, list(REGIONS).index(unit), after, zero)
                    else:
                        found = judge.population(view, after, zero)
                    for key, sign, one in zip(keys, signs, found, strict=True):
                        signed = Measured(sign * one.value, sign * one.draws)
                        if unit in REGIONS:
                            regions[subject_pair(source, name), view, key, unit].append(signed)
                        elif unit == "population":
                            populations[animal_pair(source, name), view, key].append(signed)
                        else:
                            groups[animal_pair(source, name), view, key, (source, unit)].append(signed)
                if unit == "population":
                    for key, row in zip(keys, signs[:, None] * judge.by_neuron(after, zero), strict=True):
                        neurons[animal_pair(source, name), key, name].append(row)
                    for key, edit in zip(keys, edits, strict=True):
                        natural[animal_pair(source, name)[2], key].append(edit["judges"][name]["natural"])
            if unit == "population":
                for key, edit in zip(keys, edits, strict=True):
                    shorts[key].append(edit["short"])
        self.populations = {key: mean(parts) for key, parts in populations.items()}
        self.groups = _units({key: mean(parts) for key, parts in groups.items()})
        self.regions = _units({key: mean(parts) for key, parts in regions.items()})
        self.shorts = {key: float(np.mean(parts)) for key, parts in shorts.items()}
        self.natural = {key: float(np.mean(parts)) for key, parts in natural.items()}
        changes: dict[Any, list[float]] = defaultdict(list)
        for (pair, key, _), parts in neurons.items():
            changes[pair, key].extend(np.mean(parts, axis=0).tolist())
        self.neurons = dict(changes)

    def pairs(self) -> list[tuple[str, str, str]]:
        """Who learnt, who judged, and how they differ; by judge."""
        return sorted({key[0] for key in self.populations}, key=lambda pair: (pair[1], LEVELS.index(pair[2])))

    def levels(self) -> list[str]:
        """Kinds of judges that there are so far."""
        return [level for level in LEVELS if any(pair[2] == level for pair in self.pairs())]

    def over_animals(self, level: str, view: str, key: Key) -> Measured:
        return mean(self.populations[pair, view, key] for pair in self.pairs() if pair[2] == level)

    def over_angles(self, level: str, view: str, method: str, way: str) -> Measured:
        return mean(self.over_animals(level, view, (method, way, angle)) for angle in ANGLES)


def _units(found: dict[Any, Measured]) -> dict[Any, list[Measured]]:
    """Those that differ in the last part of their key, together."""
    together: dict[Any, list[Measured]] = defaultdict(list)
    for key, one in found.items():
        together[key[:-1]].append(one)
    return dict(together)


def animal_pair(source: str, judge: str) -> tuple[str, str, str]:
    level = SAME if source == judge else OWN if ANIMALS[source] == ANIMALS[judge] else OTHER
    return ANIMALS[source], ANIMALS[judge], level


def subject_pair(source: str, judge: str) -> str:
    return SELF if source == judge else UNSHARED if judge == CONTROL else SHARED


def report(out: Path, said: dict[str, Any], *, table_angle: float) -> tuple[str, dict[str, Any]]:
    """The page and what its JSON holds.

    Raises:
        FileNotFoundError: Nothing has been fitted.
    """
    found = Results(out)
    if not found.populations:
        raise FileNotFoundError(f"--out {out} holds no landscape that was judged yet; run `fit` first.")
    kept = numbers(found, said, table_angle)
    from findings import cross_subject

    aims = cross_subject(kept).aims
    words = {None: "not measured", True: "met", False: "MISSED"}
    lines = ["# Landscapes of one animal, judged by another", ""]
    lines += [f"- **{words[aim.met]}**: {aim.what}" for aim in sorted(aims, key=lambda aim: aim.met is True)]
    absent = sorted(set(ANIMALS) - {cell["source"] for cell in found.sources})
    lines += ["", f"Sessions that have not been run: {', '.join(absent) or 'none'}.", ""]
    lines += [*verdict(found), *table_2(found, table_angle), *by_angle(found), *by_groups(found, table_angle)]
    lines += [*simulated(found, table_angle), *encoders(found), *notes(found), provenance_line(said), ""]
    return "\n".join(lines), kept


def labels_of(held: Iterable[Any]) -> list[str]:
    there = set(held)
    return [label for label in METHODS if label in there]


def verdict(found: Results) -> list[str]:
    """Ours against each rival on the other animal, losses first, as v4_recorded.py says it."""
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
        lines += [f"## Judged by {VIEWS[view]}, at {angle:.0f}°", ""]
        for judged in sorted(set(ANIMALS.values())):
            pairs = [pair for pair in found.pairs() if pair[1] == judged]
            columns = [f"{way}: from {pair[0]}, {pair[2]}" for way in SIGN for pair in pairs]
            lines += [f"Judge: animal {judged}.", "", f"| method | {' | '.join(columns)} |"]
            lines.append("|---" * (len(columns) + 1) + "|")
            for label in labels_of(key[2][0] for key in found.populations):
                shown = [str(found.populations[pair, view, (label, way, angle)]) for way in SIGN for pair in pairs]
                lines.append(f"| {label} | {' | '.join(shown)} |")
            lines += ["| α = 0 | 0 by definition" + " |" * len(columns), ""]
    return lines


def by_angle(found: Results) -> list[str]:
    lines = []
    for way in SIGN:
        lines += [f"## {way.capitalize()}, other animal, recorded responses, by edit angle", ""]
        lines += [f"| method | {' | '.join(f'{angle:.0f}°' for angle in ANGLES)} |", "|---" * (len(ANGLES) + 1) + "|"]
        for label in labels_of(key[2][0] for key in found.populations):
            shown = []
            for angle in ANGLES:
                short = found.shorts[label, way, angle]
                said = f" ({short:.0%} short)" if short > 0.05 else ""
                shown.append(f"{found.over_animals(OTHER, 'recorded', (label, way, angle))}{said}")
            lines.append(f"| {label} | {' | '.join(shown)} |")
        lines.append("")
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
    pairs = found.pairs()
    columns = [f"{way}: {pair[0]} to {pair[1]}, {pair[2]}" for way in SIGN for pair in pairs if pair[2] != SAME]
    lines += [f"| method | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for label in labels_of(key[2][0] for key in found.groups):
        shown = [
            str(drawn_mean(found.groups[pair, "recorded", (label, way, angle)]))
            for way in SIGN
            for pair in pairs
            if pair[2] != SAME
        ]
        lines.append(f"| {label} | {' | '.join(shown)} |")
    return [*lines, ""]


def simulated(found: Results, angle: float) -> list[str]:
    """Regions whose truth is known."""
    if not found.regions:
        return []
    units = max(len(regions) for regions in found.regions.values())
    lines = [f"## Simulated subjects, {units} regions, at {angle:.0f}°", ""]
    lines += ["Units are regions, drawn first, then pictures.", ""]
    for view, words in VIEWS.items():
        columns = [f"{way}: {pair}" for way in SIGN for pair in (SELF, SHARED, UNSHARED)]
        lines += [f"Judged by {words}:", "", f"| method | {' | '.join(columns)} |"]
        lines.append("|---" * (len(columns) + 1) + "|")
        for label in labels_of(key[2][0] for key in found.regions):
            shown = [
                str(drawn_mean(found.regions[pair, view, (label, way, angle)]))
                for way in SIGN
                for pair in (SELF, SHARED, UNSHARED)
            ]
            lines.append(f"| {label} | {' | '.join(shown)} |")
        lines.append("")
    return lines


def encoders(found: Results) -> list[str]:
    lines = ["## The encoders that judge, on their galleries", ""]
    lines += ["| subject | half | pictures | targets | median R of a target | R of the population |", "|---" * 6 + "|"]
    for (name, half), judge in found.judges.items():
        cell = judge.cell
        population = "" if "truth" in cell else f"{cell['population_r']:.2f}"
        lines.append(
            f"| {name} | {half} | {len(cell['rows'])} | {len(cell['r'])} | {np.median(cell['r']):.2f} | {population} |"
        )
    return [*lines, ""]


def notes(found: Results) -> list[str]:
    left_out = "- Pictures left out of galleries, for the source had learnt from them: " + f"{found.excluded}."
    return ["## What this says and does not say", "", *NOTES.strip().splitlines(), left_out, ""]


def numbers(found: Results, said: dict[str, Any], table_angle: float) -> dict[str, Any]:
    """What the JSON holds: value, lower and upper end of everything that is in the tables."""
    kept: dict[str, Any] = {"provenance": said, "table_angle": table_angle, "cells": len(found.sources)}
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
    for (pair, view, (method, way, angle)), regions in found.regions.items():
        place = kept.setdefault("simulated", {}).setdefault(view, {}).setdefault(pair, {})
        place.setdefault(method, {}).setdefault(way, {})[f"{angle:.0f}"] = drawn_mean(regions).ends
    return kept
