"""What edits did, as arrays over units, images and seeds, and tables of them."""

import math
from typing import Any

import numpy as np

from benchmarks.common import package as vl
from benchmarks.common.edit_methods import SIGN
from benchmarks.common.tables import table


class Edits:
    """What edits did, as arrays over units, images and seeds; methods are compared on what all of them have.

    Args:
        records: ``method``, ``direction``, ``angle``, ``unit`` (anything that names it), ``seed``, and per-image lists.
    """

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.cells: dict[tuple[str, str, float], dict[tuple[Any, int], dict[str, Any]]] = {}
        for record in records:
            key = (record["method"], record["direction"], record["angle"])
            self.cells.setdefault(key, {})[record["unit"], record["seed"]] = record
        self.methods = list(dict.fromkeys(record["method"] for record in records))
        self.angles = sorted({record["angle"] for record in records})
        common = set.intersection(*(set(cell) for cell in self.cells.values())) if self.cells else set()
        seeds_of: dict[Any, set[int]] = {}
        for unit, seed in common:
            seeds_of.setdefault(unit, set()).add(seed)
        self.units = sorted(seeds_of, key=str)
        self.seeds = sorted(set.intersection(*seeds_of.values())) if seeds_of else []

    def values(self, method: str, way: str, angle: float, what: str = "change") -> np.ndarray:
        """(units, images, seeds)."""
        cell = self.cells[method, way, angle]
        return np.array([[cell[unit, seed][what] for seed in self.seeds] for unit in self.units]).transpose(0, 2, 1)

    def both(self, method: str, angle: float, what: str = "change") -> np.ndarray:
        """(units, images, seeds), the mean over the two directions: one number a picture, positive the wanted way."""
        return np.mean([self.values(method, way, angle, what) for way in SIGN], axis=0)

    def right(self, method: str, angle: float, control: str | None = None, only: np.ndarray | None = None) -> float:
        """Share of units × directions whose mean change is the wanted way, and above the control's.

        Args:
            only: (units,) bool: which units count.
        """
        only = np.ones(len(self.units), bool) if only is None else only
        shares = []
        for way in SIGN:
            least = np.zeros(len(self.units))
            if control is not None and control in self.methods:
                least = np.maximum(self.values(control, way, angle).mean((1, 2)), 0.0)
            shares.append((self.values(method, way, angle).mean((1, 2)) > least)[only])
        return float(np.mean(shares)) if only.any() else math.nan

    def evident(self, method: str, angle: float) -> np.ndarray:
        """(units,) bool: whose axis correlates with the response on held-out images, in every seed's fit."""
        cell = self.cells[method, "increase", angle]
        return np.array(
            [
                all((cell[unit, seed].get("correlation") or 0.0) >= vl.WEAK_CORRELATION for seed in self.seeds)
                for unit in self.units
            ]
        )

    def against(self, method: str, other: str, angle: float, what: str = "change") -> vl.Interval:
        """Paired difference over both directions; units drawn first, the same images for all units."""
        return vl.paired_difference(
            self.both(method, angle, what), self.both(other, angle, what), draws=1000, same_images=True
        )


def ci(values: np.ndarray) -> str:
    return str(vl.interval(values, draws=1000, same_images=True))


def edit_lines(edits: Edits, angle: float, extra: dict[str, str]) -> list[str]:
    """The table of one angle; ``extra`` names further per-image measures and their columns."""
    head = ["method", "Δr increase", "Δr decrease", "images right", "units right", *extra.values(), "angle reached"]
    rows = [head]
    for method in edits.methods:
        if (method, "increase", angle) not in edits.cells:
            continue
        reached = [edits.values(method, way, angle, "reached").mean() for way in SIGN]
        changes = {way: edits.values(method, way, angle) for way in SIGN}
        rows.append(
            [
                method,
                *(ci(values) for values in changes.values()),
                f"{np.mean([(values > 0).mean() for values in changes.values()]):.0%}",
                f"{edits.right(method, angle):.0%}",
                *(f"{edits.both(method, angle, name).mean():.3f}" for name in extra),
                f"{np.mean(reached):.0f}°",
            ]
        )
    return table(rows)
