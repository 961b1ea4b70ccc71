"""What a comparison found: every method's scores on the same units, images and seeds, with intervals."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vislens_interp.evaluation.scorer import MEASURES
from vislens_interp.files import write_text
from vislens_interp.frames import Tabular
from vislens_interp.metrics.bootstrap import Interval, intervals
from vislens_interp.tables import csv_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS: tuple[str, ...] = ("method", "direction", "measure", "mean", "ci_low", "ci_high", "units", "images", "seeds")
SHOWN = (
    "response_change_from_input",
    "percentile",
    "similarity",
    "kernel_distance",
    "spectrum_distance",
    "diversity",
    "predictivity",
    "seconds",
)
"""Measures that a figure of scores draws unless others are named; those that were not measured are left out."""
DRAWS = 2000

Key = tuple[str, str, str]


@dataclass(eq=False, repr=False)
class Comparison(Tabular):
    """Scores of several methods, on the same units, inputs, noise seeds and scorer.

    Args:
        methods: Their labels, in the order of the tables.
        units: Names of the units.
        seeds: Repetitions.
        images: Keys of the inputs (:func:`~vislens_interp.images.image_keys`).
        scores: (method, direction, measure) to (units, images, seeds), or (units, 1, seeds) for a measure of all
            pictures of a unit and seed; a method that lacks a measure has no entry.
        pictures: Unit to ``"inputs"`` and (method, direction) to some pictures of the first seed, for the figure.
        notes: What a reader of the tables has to know: unequal budgets, synthetic pictures, what was left out.
        settings: JSON values that say how it was made.
        same_images: Every unit saw the same inputs.

    Raises:
        ValueError: A score's shape or a measure's name is none of these.
    """

    methods: list[str]
    units: list[str]
    seeds: list[int]
    images: list[str]
    scores: dict[Key, NDArray[np.float64]]
    pictures: dict[str, dict[str | tuple[str, str], Tensor]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    same_images: bool = True

    def __post_init__(self) -> None:
        for key, values in self.scores.items():
            method, _, measure = key
            if method not in self.methods or measure not in MEASURES:
                raise ValueError(
                    f"scores has the key {key}; expected one of methods {self.methods} and a measure of "
                    f"{list(MEASURES)}. Score with evaluation.scorer.Scorer."
                )
            count = len(self.images) if MEASURES[measure].each else 1
            if values.shape != (len(self.units), count, len(self.seeds)):
                raise ValueError(
                    f"scores[{key}] has shape {values.shape}; expected ({len(self.units)}, {count}, "
                    f"{len(self.seeds)}): units, images, seeds. Score every unit, image and seed."
                )

    def __repr__(self) -> str:
        return (
            f"Comparison({len(self.methods)} methods, {len(self.units)} units, {len(self.images)} images, "
            f"{len(self.seeds)} seeds)"
        )

    def _repr_html_(self) -> str:
        from vislens_interp.report.render import LABELS, render

        shown = [name for name in SHOWN if name in self.measures]
        table = {(row["method"], row["direction"], row["measure"]): row for row in self.table(shown)}
        rows = []
        for method, direction in dict.fromkeys(key[:2] for key in table):
            found = [table.get((method, direction, name)) for name in shown]
            said = ["" if one is None else " ".join(_numbers(one)) for one in found]
            name = f"{method}, {LABELS.get(direction, direction)}"
            rows.append({"name": name, "cells": [{"text": text} for text in said]})
        names = [MEASURES[name].label for name in shown]
        return render("notebook.html", title=self._title(), lines=self._said(), weak=False, columns=names, rows=rows)

    def columns(self) -> dict[str, Sequence[Any]]:
        """Those of :meth:`table`, for :meth:`to_pandas` and :meth:`to_parquet`."""
        rows = self.table()
        return {name: [row[name] for row in rows] for name in COLUMNS}

    @property
    def measures(self) -> list[str]:
        """What was measured, in the table's order."""
        present = {measure for _, _, measure in self.scores}
        return [name for name in MEASURES if name in present]

    @property
    def directions(self) -> list[str]:
        """``"increase"``, ``"decrease"`` and, for measures of both at once, ``"both"``."""
        present = {direction for _, direction, _ in self.scores}
        return [name for name in ("increase", "decrease", "both") if name in present]

    def table(self, measures: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """A row for each method, direction and measure: :data:`COLUMNS`.

        ``ci_low`` and ``ci_high`` are the ends of a 95 % interval: units are drawn anew first, then images within, then
        seeds. With one unit it says how sure this unit's mean is, and nothing about other units.

        Args:
            measures: Only these.
        """
        chosen = self._check(measures)
        rows = product(self.methods, self.directions, chosen)
        return [self._row(*key, self._intervals[key]) for key in rows if key in self._intervals]

    @cached_property
    def _intervals(self) -> dict[Key, Interval]:
        return self._drawn(self.scores)

    def _drawn(self, scores: Mapping[Key, NDArray[np.float64]]) -> dict[Key, Interval]:
        """Intervals of some scores; those of one shape under the same draws, which is what takes time."""
        found = {}
        for count in {values.shape[1] for values in scores.values()}:
            keys = [key for key, values in scores.items() if values.shape[1] == count]
            stack = np.stack([scores[key] for key in keys])
            found |= dict(zip(keys, intervals(stack, draws=DRAWS, same_images=self.same_images), strict=True))
        return found

    def _row(self, method: str, direction: str, measure: str, found: Interval) -> dict[str, Any]:
        counts = (len(self.units), len(self.images), len(self.seeds))
        return dict(zip(COLUMNS, (method, direction, measure, found.mean, found.low, found.high, *counts), strict=True))

    def difference(self, method: str, other: str, measures: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The paired difference of two methods: same unit, image and seed, one minus the other.

        Args:
            method: Label of a method.
            other: What is subtracted.
            measures: Only these.

        Returns:
            Rows as of :meth:`table`, without those that either lacks; the method is ``"method - other"``. An interval
            without 0 tells the two apart.

        Raises:
            ValueError: There is no such method or measure.
        """
        for name, label in (("method", method), ("other", other)):
            if label not in self.methods:
                raise ValueError(f"{name}={label!r} is not in this comparison; expected one of {self.methods}.")
        differences: dict[Key, NDArray[np.float64]] = {}
        for measure, direction in product(self._check(measures), self.directions):
            one, two = (self.scores.get((label, direction, measure)) for label in (method, other))
            if one is not None and two is not None:
                differences[f"{method} - {other}", direction, measure] = one - two
        drawn = self._drawn(differences)
        return [self._row(*key, drawn[key]) for key in differences]

    @classmethod
    def join(cls, comparisons: Iterable["Comparison"]) -> "Comparison":
        """One comparison over the units of several: intervals then speak of units, which are drawn first.

        Args:
            comparisons: Of the same methods, seeds and number of images, each of other units.

        Returns:
            Measures that one of them lacks are left out, and a note says which.

        Raises:
            ValueError: There are none, a unit is in two of them, or they do not fit together.
        """
        parts = list(comparisons)
        if not parts:
            raise ValueError("comparisons is empty; expected at least one Comparison. Run lens.compare first.")
        first = parts[0]
        for index, part in enumerate(parts):
            for name, mine, wanted in (
                ("methods", part.methods, first.methods),
                ("seeds", part.seeds, first.seeds),
                ("number of images", len(part.images), len(first.images)),
            ):
                if mine != wanted:
                    raise ValueError(
                        f"comparisons[{index}] has {name} {mine}; expected those of the first, {wanted}. Compare all "
                        "units in the same way before joining them."
                    )
        units = [unit for part in parts for unit in part.units]
        twice = sorted({unit for unit in units if units.count(unit) > 1})
        if twice:
            raise ValueError(f"comparisons holds unit {twice[0]!r} twice; expected every unit once. Leave one out.")
        shared = [key for key in first.scores if all(key in part.scores for part in parts)]
        lost = sorted({f"{m}, {d}: {k}" for part in parts for m, d, k in part.scores if (m, d, k) not in shared})
        notes = list(dict.fromkeys(note for part in parts for note in part.notes if note != ONE_UNIT))
        if lost:
            notes.append(f"Left out, for a unit lacks it: {'; '.join(lost)}.")
        if len(units) == 1:
            notes.append(ONE_UNIT)
        return cls(
            methods=first.methods,
            units=units,
            seeds=first.seeds,
            images=first.images,
            scores={key: np.concatenate([part.scores[key] for part in parts]) for key in shared},
            pictures={unit: shown for part in parts for unit, shown in part.pictures.items()},
            notes=notes,
            settings={"joined": [part.settings for part in parts]},
            same_images=all(part.same_images and part.images == first.images for part in parts),
        )

    def to_csv(self, path: str | Path | None = None, measures: Sequence[str] | None = None) -> str:
        """The table as CSV, numbers in full; written to ``path`` as well, if one is given."""
        return _written(csv_text(COLUMNS, (list(row.values()) for row in self.table(measures))), path)

    def to_markdown(self, path: str | Path | None = None, measures: Sequence[str] | None = None) -> str:
        """The table in Markdown, with the notes under it; written to ``path`` as well, if one is given."""
        head = ("method", "direction", "measure", "mean", "95 % interval")
        lines = [f"| {' | '.join(head)} |", "|---|---|---|---:|---:|"]
        for row in self.table(measures):
            mean, interval = _numbers(row)
            method = row["method"].replace("|", "\\|")
            lines.append(f"| {method} | {row['direction']} | {row['measure']} | {mean} | {interval} |")
        notes = [f"- {note}" for note in [self._counted(), *self.notes]]
        return _written("\n".join([*lines, "", *notes, ""]), path)

    def to_latex(self, path: str | Path | None = None, measures: Sequence[str] | None = None) -> str:
        """The table in LaTeX (booktabs), with the notes as comments; written to ``path`` as well, if one is given."""
        lines = [f"% {note}" for note in [self._counted(), *self.notes]]
        lines += [r"\begin{tabular}{lllrr}", r"\toprule", r"method & direction & measure & mean & 95\,\% interval \\"]
        before = None
        for row in self.table(measures):
            if row["method"] != before:
                lines.append(r"\midrule")
            before = row["method"]
            mean, low, high = (_digits(row[name]) for name in ("mean", "ci_low", "ci_high"))
            words = " & ".join(_tex(row[name]) for name in ("method", "direction", "measure"))
            lines.append(rf"{words} & ${mean}$ & $[{low},\,{high}]$ \\")
        return _written("\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""]), path)

    def figure(self, measures: Sequence[str] | None = None) -> "Figure":
        """Scores: a panel for each measure, a dot and its interval for each method and direction.

        Args:
            measures: Which; None draws :data:`SHOWN`.
        """
        from vislens_interp.report.comparison import scores_figure

        chosen = self._check(measures) if measures else [name for name in SHOWN if name in self.measures]
        labels = {
            name: MEASURES[name].label + {"higher": " →", "lower": " ←", None: ""}[MEASURES[name].better]
            for name in chosen
        }
        return scores_figure(self.table(chosen), self.methods, labels, title=self._title(), notes=self._said())

    def pictures_figure(self, unit: str | None = None) -> "Figure":
        """Pictures: inputs on top, then a row for each method, preferred beside suppressed, first seed.

        Args:
            unit: Which; None is the first.

        Raises:
            ValueError: There are no pictures of such a unit.
        """
        from vislens_interp.report.comparison import pictures_figure

        unit = self.units[0] if unit is None else unit
        if unit not in self.pictures:
            raise ValueError(f"unit={unit!r} has no pictures here; expected one of {list(self.pictures)}.")
        ways = [way for way in ("increase", "decrease") if way in self.directions]
        changes = {
            (method, way): self.scores[key][self.units.index(unit), :, 0].tolist()
            for method in self.methods
            for way in ways
            if (key := (method, way, "response_change_from_input")) in self.scores
        }
        notes = ["Under each picture: change against the input in SDs; ✗: the other way than wanted.", *self.notes]
        title = f"{unit}: what each method makes of the same pictures"
        return pictures_figure(self.pictures[unit], self.methods, ways, changes, title=title, notes=notes)

    def _title(self) -> str:
        few = ", ".join(self.units) if len(self.units) < 4 else f"{len(self.units)} units"
        return f"{few}: how the methods compare"

    def _counted(self) -> str:
        counts = [(len(self.units), "unit"), (len(self.images), "image"), (len(self.seeds), "seed")]
        return ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts) + "."

    def _said(self) -> list[str]:
        return [f"Mean and 95 % interval over {self._counted()} Arrows: the better way.", *self.notes]

    def _check(self, measures: Sequence[str] | None) -> list[str]:
        if measures is None:
            return self.measures
        for name in measures:
            if name not in self.measures:
                raise ValueError(
                    f"measures names {name!r}, which was not measured; expected some of {self.measures}. A network for "
                    "embedding= or second= adds those that need one."
                )
        return [name for name in self.measures if name in measures]


ONE_UNIT = (
    "One unit: intervals are over images and seeds, and say nothing about other units. Comparison.join adds some."
)


def _numbers(row: dict[str, Any]) -> tuple[str, str]:
    """A mean, and its interval."""
    mean, low, high = (_digits(row[name]) for name in ("mean", "ci_low", "ci_high"))
    return mean, f"{low} to {high}"


def _digits(value: float) -> str:
    """Two or three significant digits; an exponent only below 0.0001."""
    size = abs(value)
    if size >= 10 or value == 0:
        return f"{value:.0f}" if size >= 100 or value == 0 else f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"


def _tex(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text)


def _written(text: str, path: str | Path | None) -> str:
    if path is not None:
        write_text(path, text)
    return text
