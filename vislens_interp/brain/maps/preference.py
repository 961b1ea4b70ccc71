"""What each vertex, region or sensor prefers along named axes, with the evidence for it beside."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from vislens_interp.brain.maps.sensors import time_course_figure, topography_figure
from vislens_interp.brain.maps.surface import surface_figure
from vislens_interp.brain.noise_ceiling import NoiseCeiling
from vislens_interp.brain.readers.trials import Table, is_frame
from vislens_interp.brain.responses import as_names, check_known
from vislens_interp.files import write_atomically, write_folder, write_text
from vislens_interp.images import PathLike
from vislens_interp.tables import csv_text, read_given
from vislens_interp.validation import closest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cell: TypeAlias = float | str | None
Scores: TypeAlias = Table | ArrayLike | Mapping[str, Mapping[str, Cell]]
EVIDENCE = "evidence"
"""The column of a table that is evidence and no axis."""


@dataclass(frozen=True, eq=False)
class PreferenceMap:
    """Scores of places along axes; what :func:`preference_map` gives.

    Args:
        places, axes: P names of vertices, regions, sensors (with their window: ``"Oz N170"``), and A of axes.
        scores: (P, A), such as the change of response along each axis; NaN where there is none.
        evidence: (P,), how well each place is supported (a noise ceiling, a prediction's correlation); None if unknown.
        threshold: Evidence below it is weak.
        unit, evidence_unit: What both are, for figures.
    """

    places: tuple[str, ...]
    axes: tuple[str, ...]
    scores: np.ndarray
    evidence: np.ndarray | None = None
    threshold: float = 0.2
    unit: str = "score"
    evidence_unit: str = "evidence"

    @property
    def preferred(self) -> np.ndarray:
        """(P,) the number of the axis with the highest score; -1 where no score is above 0 or all are NaN."""
        filled = np.where(np.isnan(self.scores), -np.inf, self.scores)
        return np.where(filled.max(1) > 0, filled.argmax(1), -1)

    @property
    def weak(self) -> np.ndarray:
        """(P,) where evidence is below the threshold or missing; nowhere where it was not given at all."""
        if self.evidence is None:
            return np.zeros(len(self.places), bool)
        return ~(self.evidence >= self.threshold)

    def __str__(self) -> str:
        counts = [f"{name} {int(((self.preferred == axis) & ~self.weak).sum())}" for axis, name in enumerate(self.axes)]
        said = "evidence unknown" if self.evidence is None else f"{int(self.weak.sum())} weakly supported"
        return f"{len(self.places)} places prefer: {', '.join(counts)}; {said}"

    def known_axes(self, names: Sequence[str] | None) -> list[str]:
        """These axes, or all of them if None; KeyError with near names for an unknown one."""
        chosen = as_names(self.axes if names is None else names, "axes")
        for name in chosen:
            check_known("axis", name, self.axes, "this map")
        return chosen

    surface = surface_figure
    topography = topography_figure
    time_course = time_course_figure

    def table(self) -> str:
        """CSV: a row for each place with its scores, what it prefers, its evidence and whether that is weak."""
        columns = ["place", *self.axes, "preferred", EVIDENCE, "weak"]
        preferred, weak = self.preferred, self.weak
        rows = [
            [
                place,
                *[None if np.isnan(score) else float(score) for score in self.scores[row]],
                self.axes[preferred[row]] if preferred[row] >= 0 else "",
                None if self.evidence is None or np.isnan(self.evidence[row]) else float(self.evidence[row]),
                "unknown" if self.evidence is None else "yes" if weak[row] else "no",
            ]
            for row, place in enumerate(self.places)
        ]
        return csv_text(columns, rows, digits=6)

    def save(self, folder: PathLike, figures: Mapping[str, "Figure"] | None = None) -> Path:
        """Write ``preferences.csv`` and figures by their names as PNG into a new folder, whole or not at all."""

        def fill(temporary: Path) -> None:
            write_text(temporary / "preferences.csv", self.table())
            for name, figure in (figures or {}).items():
                write_atomically(temporary / f"{name}.png", partial(figure.savefig, format="png", dpi=150))

        return write_folder(folder, fill, replace=False)


def preference_map(
    scores: Scores,
    *,
    axes: Sequence[str] | None = None,
    places: Sequence[str] | None = None,
    evidence: ArrayLike | Mapping[str, float] | NoiseCeiling | None = None,
    threshold: float = 0.2,
    unit: str = "score",
    evidence_unit: str = "evidence",
) -> PreferenceMap:
    """Bring scores of places along axes together.

    Args:
        scores: (P, A) with ``axes`` and ``places``; or a table with names: a pandas DataFrame (places as its index),
            a mapping from places to ``{axis: score}``, or a CSV whose first column names places. A column ``evidence``
            of a table is that, and ``preferred`` and ``weak`` of :meth:`PreferenceMap.table` are left out.
        axes, places: Names, each once; ``None`` for a table.
        evidence: (P,) in the order of places, a mapping from places to numbers, or a noise ceiling, whose ``r`` is
            taken by the names of its targets.
        threshold, unit, evidence_unit: See :class:`PreferenceMap`.

    Raises:
        FileNotFoundError, TypeError, ValueError: There is no such table, shapes and names do not fit, a place has no
            evidence, or a score is infinite.

    >>> found = preference_map([[1.0, -0.5], [0.2, 2.0]], axes=["face", "place"], places=["FFA", "PPA"])
    >>> [found.axes[axis] for axis in found.preferred]
    ['face', 'place']
    """
    if isinstance(scores, (str, os.PathLike)):
        scores = _read_csv(Path(scores))
    elif is_frame(scores):
        scores = scores.to_dict("index")
    if isinstance(scores, Mapping):
        places, axes, values, kept = _of_mapping(scores)
        evidence = kept if evidence is None else evidence
    else:
        values = np.asarray(scores, dtype=np.float64)
    if axes is None or places is None:
        raise TypeError("axes or places is None for scores in an array; expected names of both. Pass them.")
    places, axes = as_names(places, "places"), as_names(axes, "axes")
    for what, listed in (("places", places), ("axes", axes)):
        if len(set(listed)) < len(listed) or not listed:
            raise ValueError(
                f"{what} holds {len(listed)} names, {len(set(listed))} of them different; expected each once."
            )
    if values.shape != (len(places), len(axes)):
        raise ValueError(
            f"scores has shape {values.shape} for {len(places)} places and {len(axes)} axes; "
            "expected a row for each place and a column for each axis."
        )
    if np.isinf(values).any():
        raise ValueError("scores holds infinite values; expected numbers, with NaN where there is none. Mend them.")
    supported = _evidence(evidence, places)
    return PreferenceMap(tuple(places), tuple(axes), values, supported, threshold, unit, evidence_unit)


def _evidence(evidence: ArrayLike | Mapping[str, float] | NoiseCeiling | None, places: list[str]) -> np.ndarray | None:
    if evidence is None:
        return None
    if isinstance(evidence, NoiseCeiling):
        evidence = dict(zip(evidence.targets, evidence.r.tolist(), strict=True))
    if isinstance(evidence, Mapping):
        missing = [place for place in places if place not in evidence]
        if missing:
            raise ValueError(
                f"evidence lacks {len(missing)} of {len(places)} places, such as {missing[0]!r}; expected a number for "
                f"each (NaN where it is unknown). {closest(missing[0], [str(key) for key in evidence], cutoff=0.4)}"
            )
        evidence = [evidence[place] for place in places]
    values = np.asarray(evidence, dtype=np.float64)
    if values.shape != (len(places),):
        raise ValueError(f"evidence has shape {values.shape}; expected ({len(places)},), a number for each place.")
    return values


def _of_mapping(
    scores: Mapping[str, Mapping[str, Cell]],
) -> tuple[list[str], list[str], np.ndarray, dict[str, float] | None]:
    """Places, axes, (P, A) and the evidence that a table holds."""
    rows = [(str(place), {str(axis): value for axis, value in row.items()}) for place, row in scores.items()]
    axes = list(dict.fromkeys(axis for _, row in rows for axis in row))
    has_evidence = EVIDENCE in axes
    axes = [axis for axis in axes if axis not in (EVIDENCE, "preferred", "weak")]
    values = np.array([[_number(row.get(axis), place, axis) for axis in axes] for place, row in rows])
    kept = {place: _number(row.get(EVIDENCE), place, EVIDENCE) for place, row in rows}
    return [place for place, _ in rows], axes, values, kept if has_evidence else None


def _number(value: Cell, place: str, axis: str) -> float:
    if value is None or value == "":
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"scores: {value!r} of place {place!r} along {axis!r} is no number; expected one, or nothing."
        ) from None


def _read_csv(path: Path) -> dict[str, dict[str, str]]:
    head, rows = read_given(path, "scores")
    if len({row[0] for row in rows}) < len(rows):
        raise ValueError(f"scores={str(path)!r} names a place twice; expected a row for each place, each place once.")
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}
