"""What a comparison found: a tidy table with intervals, what it cost, and its figures."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vislens_interp.files import write_text
from vislens_interp.metrics import Interval, resampled_means

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS: tuple[str, ...] = (
    "method",
    "direction",
    "measure",
    "mean",
    "ci_low",
    "ci_high",
    "difference",
    "difference_low",
    "difference_high",
    "units",
    "images",
    "seeds",
)
MEASURES = {
    "response_change": "Δr against α = 0, SD",
    "response_change_from_input": "Δr against the input, SD",
    "right_way": "share the right way",
    "percentile": "percentile among natural",
    "similarity": "similarity to the input",
    "edit_angle": "edit angle, °",
    "kernel_distance": "kernel distance to natural",
    "spectrum_distance": "spectrum distance",
    "diversity": "diversity",
    "transfer": "Δr in a second network, SD",
    "predictivity": "predictivity (chance 0.5)",
    "forward": "forward passes a picture",
    "backward": "backward passes a picture",
    "seconds": "seconds a picture",
    "memory": "peak memory, MB",
    "fit_seconds": "seconds of the fit",
}
"""Name of each measure to what a table's head calls it; every signed change is positive where it is the wanted way."""
COST = ("forward", "backward", "seconds", "memory", "fit_seconds")

DRAWS, CONFIDENCE = 2000, 0.95

Key = tuple[str, str, str]
"""Method, direction and measure."""


@dataclass(eq=False, repr=False)
class Comparison:
    """Methods side by side on the same units, images, seeds and scorers.

    Args:
        methods: Labels, in the order asked for; the first is what the others are compared with.
        units: Names of the units.
        seeds: Noise seeds.
        values: (method, direction, measure) to (units, images, seeds), or (units, 1, seeds) where a measure belongs to
            a whole set of pictures.
        matched: Method to whether its edits turn by ``settings["angle"]``.
        pictures: Method, then direction, to (n, 3, S, S) of the first unit and seed, for the figure.
        inputs: (n, 3, S, S) that these were made from.
        settings: What all methods shared, as JSON values.
    """

    methods: list[str]
    units: list[str]
    seeds: list[int]
    values: dict[Key, NDArray[np.float64]]
    matched: dict[str, bool] = field(default_factory=dict)
    pictures: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    inputs: Tensor | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_parts(
        cls,
        parts: Mapping[tuple[str, int], dict[str, Any]],
        methods: list[str],
        seeds: list[int],
        units: list[str],
        settings: dict[str, Any],
    ) -> Self:
        """Put together what was measured, a part for each method and seed."""
        values: dict[Key, NDArray[np.float64]] = {}
        for method in methods:
            rows = [parts[method, seed] for seed in seeds]
            for kind in ("scores", "cost"):
                for way, measures in rows[0][kind].items():
                    for measure in measures:
                        each = [row[kind][way][measure].numpy() for row in rows]
                        values[method, way, measure] = np.stack(each, 2)
            fits = np.array([[[float(row["fit_seconds"]) for row in rows]]])
            values[method, "both", "fit_seconds"] = np.repeat(fits, len(units), 0)
        first = {method: parts[method, seeds[0]] for method in methods}
        return cls(
            methods,
            units,
            seeds,
            values,
            {method: bool(part["matched"]) for method, part in first.items()},
            {
                method: {way: pictures[0].float() / 255 for way, pictures in part["pictures"].items()}
                for method, part in first.items()
            },
            first[methods[0]]["inputs"].float() / 255,
            settings,
        )

    @classmethod
    def join(cls, comparisons: Sequence["Comparison"]) -> "Comparison":
        """One comparison over the units of several, for intervals over units.

        Raises:
            ValueError: There is none, or methods, seeds or numbers of images differ.
        """
        if not comparisons:
            raise ValueError("comparisons is empty; expected at least one. Pass what lens.compare returned.")
        first = comparisons[0]
        for one in comparisons[1:]:
            for name in ("methods", "seeds"):
                if getattr(one, name) != getattr(first, name):
                    raise ValueError(
                        f"comparisons differ in {name}: {getattr(first, name)} and {getattr(one, name)}; expected the "
                        "same. Compare the same methods with the same seeds."
                    )
            unlike = {key for key in first.values if key not in one.values} ^ {
                key for key in one.values if key not in first.values
            }
            unlike |= {
                k for k in first.values if k in one.values and first.values[k].shape[1] != one.values[k].shape[1]
            }
            if unlike:
                raise ValueError(
                    "comparisons differ in measures or numbers of images "
                    f"({', '.join(sorted({k[2] for k in unlike}))}); expected the same. Compare as "
                    "many images with the same features= and second=."
                )
        values = {key: np.concatenate([one.values[key] for one in comparisons]) for key in first.values}
        units = [name for one in comparisons for name in one.units]
        settings = {"joined": [one.settings for one in comparisons]}
        matched = {method: all(one.matched.get(method, False) for one in comparisons) for method in first.methods}
        return cls(first.methods, units, first.seeds, values, matched, first.pictures, first.inputs, settings)

    def __repr__(self) -> str:
        return f"Comparison({len(self.methods)} methods, {len(self.units)} units, seeds {self.seeds})"

    def interval(self, method: str, direction: str, measure: str) -> Interval:
        """Mean and 95 % interval; units are drawn first, then images, then seeds."""
        means = self._drawn(method, direction, measure)
        return _interval(float(self.values[method, direction, measure].mean()), means)

    def difference(self, method: str, other: str, direction: str, measure: str) -> Interval:
        """Mean and interval of ``method`` minus ``other``, paired: same unit, image and seed."""
        apart = self._drawn(method, direction, measure) - self._drawn(other, direction, measure)
        own, theirs = (self.values[one, direction, measure].mean() for one in (method, other))
        return _interval(float(own - theirs), apart)

    @cached_property
    def _means(self) -> dict[Key, NDArray[np.float64]]:
        """Bootstrap means of everything; measures of one shape share their draws."""
        found: dict[Key, NDArray[np.float64]] = {}
        for shape in {values.shape for values in self.values.values()}:
            keys = [key for key, values in self.values.items() if values.shape == shape]
            stack = np.stack([self.values[key] for key in keys], 3)
            means = resampled_means(stack, levels=self._levels, draws=DRAWS, same_images=True)
            found |= dict(zip(keys, means.T, strict=True))
        return found

    @property
    def _levels(self) -> tuple[str, ...]:
        return ("unit", "image", "seed") if len(self.units) > 1 else ("image", "seed")

    def _drawn(self, method: str, direction: str, measure: str) -> NDArray[np.float64]:
        if (method, direction, measure) not in self.values:
            known = sorted({key[2] for key in self.values if key[:2] == (method, direction)})
            raise KeyError(
                f"({method!r}, {direction!r}, {measure!r}) was not measured; methods are {self.methods}, directions "
                f"'increase', 'decrease' and 'both', measures here {known}. table() shows all."
            )
        return self._means[method, direction, measure]

    @property
    def budgets(self) -> dict[str, float]:
        """Method to passes of images through the target, forward and back, that a picture took."""
        found = {}
        for method in self.methods:
            each = [
                self.values[key].mean() for key in self.values if key[0] == method and key[2] in ("forward", "backward")
            ]
            found[method] = float(sum(each)) / 2  # two directions
        return found

    @property
    def notes(self) -> list[str]:
        """What a reader of the table has to know."""
        spent = self.budgets
        lines = []
        told = ", ".join(f"{method} {passes:g}" for method, passes in spent.items())
        if len({round(passes, 6) for passes in spent.values()}) > 1:
            lines.append(f"Budgets are unequal: passes through the target a picture, forward and back: {told}.")
        else:
            lines.append(f"Budgets are equal: {told} passes a picture.")
        free = [method for method in self.methods if not self.matched.get(method, False)]
        angle = self.settings.get("angle")
        if angle is not None:
            lines.append(
                f"Edits turn by {angle:g}°"
                + (f", except where there is no such setting: {', '.join(free)}." if free else ".")
            )
        if len(self.units) == 1:
            lines.append("One unit: intervals are over images and seeds, and say nothing about other units.")
        else:
            lines.append(f"Intervals: 95 %, bootstrap over {len(self.units)} units, then images and seeds.")
        if not any(key[2] == "similarity" for key in self.values):
            lines.append(
                "No features= were given: similarity, diversity, kernel distance and predictivity are left out."
            )
        return lines

    def table(self) -> list[dict[str, Any]]:
        """A row for each method, direction and measure, with its interval and its difference from the first method."""
        rows = []
        for (method, direction, measure), values in self.values.items():
            own = self.interval(method, direction, measure)
            row: dict[str, Any] = {"method": method, "direction": direction, "measure": measure, "mean": own.mean}
            row |= {"ci_low": own.low, "ci_high": own.high}
            row |= dict.fromkeys(("difference", "difference_low", "difference_high"))
            if method != self.methods[0] and (self.methods[0], direction, measure) in self.values:
                apart = self.difference(method, self.methods[0], direction, measure)
                row |= {"difference": apart.mean, "difference_low": apart.low, "difference_high": apart.high}
            rows.append(row | dict(zip(("units", "images", "seeds"), values.shape, strict=True)))
        return rows

    def to_csv(self, path: str | Path | None = None) -> str:
        """The tidy table as text; written to a file too if there is a path."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.table())
        return _kept(text.getvalue(), path)

    def to_markdown(self, path: str | Path | None = None) -> str:
        """A table a direction, methods by measures, and the notes."""
        lines = []
        for direction, heads, rows in self._wide():
            lines += [f"**{direction}**", "", f"| method | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
            lines += [f"| {method} | {' | '.join(cells)} |" for method, cells in rows]
            lines.append("")
        return _kept("\n".join([*lines, *(f"- {note}" for note in self.notes), ""]), path)

    def to_latex(self, path: str | Path | None = None) -> str:
        """The same tables for a paper; nothing but ``tabular`` is needed."""
        lines = []
        for direction, heads, rows in self._wide():
            lines += [f"% {direction}", rf"\begin{{tabular}}{{l{'r' * len(heads)}}}", r"\hline"]
            lines.append(" & ".join(["method", *map(_latex, heads)]) + r" \\")
            lines.append(r"\hline")
            lines += [" & ".join([_latex(method), *map(_latex, cells)]) + r" \\" for method, cells in rows]
            lines += [r"\hline", r"\end{tabular}", ""]
        return _kept("\n".join([*lines, *(f"% {note}" for note in self.notes), ""]), path)

    def to_dict(self) -> dict[str, Any]:
        """The table, the notes and the settings as JSON values."""
        return {
            "methods": self.methods,
            "units": self.units,
            "seeds": self.seeds,
            "rows": self.table(),
            "notes": self.notes,
            "settings": self.settings,
        }

    def _wide(self) -> list[tuple[str, list[str], list[tuple[str, list[str]]]]]:
        """For each direction: heads, and a row of cells for each method."""
        found = []
        for direction in ("increase", "decrease", "both"):
            measures = [name for name in MEASURES if any(key[1:] == (direction, name) for key in self.values)]
            if not measures:
                continue
            rows = []
            for method in self.methods:
                cells = []
                for measure in measures:
                    if (method, direction, measure) not in self.values:
                        cells.append("")
                        continue
                    own = self.interval(method, direction, measure)
                    cost = measure in COST
                    cells.append(f"{own.mean:.3g}" if cost else f"{own.mean:.2f} [{own.low:.2f}, {own.high:.2f}]")
                rows.append((method, cells))
            found.append((direction, [MEASURES[name] for name in measures], rows))
        return found

    def figure(self) -> "Figure":
        """Pictures of the first unit and seed: inputs, then every method, preferred and suppressed side by side."""
        from vislens_interp.report.comparison import pictures_figure  # here: importing must not import matplotlib

        if self.inputs is None or not self.pictures:
            raise ValueError("this comparison kept no pictures; expected those of lens.compare. Compare again.")
        return pictures_figure(self.inputs, self.pictures, self.title)

    def scores_figure(self, measures: Sequence[str] | None = None) -> "Figure":
        """Every measure's means and intervals, a panel each.

        Args:
            measures: Names of :data:`MEASURES`; None takes all that were measured, seconds included.
        """
        from vislens_interp.report.comparison import scores_figure

        present = [name for name in MEASURES if any(key[2] == name for key in self.values)]
        wanted = [name for name in present if name not in COST or name == "seconds"] if measures is None else measures
        if unknown := [name for name in wanted if name not in present]:
            raise ValueError(f"measures={unknown} were not measured; expected some of {present}. Leave them out.")
        points = {
            name: {
                (method, way): self.interval(method, way, name)
                for method in self.methods
                for way in ("increase", "decrease", "both")
                if (method, way, name) in self.values
            }
            for name in wanted
        }
        return scores_figure(self.methods, points, {name: MEASURES[name] for name in wanted}, self.title, self.notes)

    @property
    def title(self) -> str:
        """What was compared, in one line."""
        said = self.settings.get("target", {})
        where = f"{said['model']}, {said.get('layer') or 'output'}, " if "model" in said else ""
        units = self.units[0] if len(self.units) == 1 else f"{len(self.units)} units"
        return f"{where}{'unit ' if len(self.units) == 1 else ''}{units}: {len(self.methods)} methods"


def _interval(mean: float, means: NDArray[np.float64]) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), CONFIDENCE, len(means))


def _kept(text: str, path: str | Path | None) -> str:
    if path is not None:
        write_text(path, text)
    return text


def _latex(text: str) -> str:
    for sign in "&%$#_{}":
        text = text.replace(sign, "\\" + sign)
    return text.replace("Δ", r"$\Delta$").replace("α", r"$\alpha$").replace("°", r"$^\circ$")
