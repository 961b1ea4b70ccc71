"""Table 3's cells in numbers with intervals: side by side, at matched similarity and at matched response change."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.table3.rows import OURS, RIVAL, SIGN, Row

GIVEN_UP = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Similarity that every picture gives up where methods are compared: shares of what lies between the mean
reconstruction and a random pair."""
SHARES = (0.25, 0.5, 0.75, 0.9)  # shares of a common Δr at which similarities are compared
LEFT = (0.9, 0.8, 0.7, 0.6, 0.5)  # what is left of that similarity where means over pictures are compared
MEANS = ("Δr, mean over similarities", "similarity, mean over Δr")
HARDLY = 0.05  # A common Δr, in SDs, so small that similarities at shares of it say nothing


def change_where_given_up(change: Tensor, kept: Tensor, span: float) -> Tensor:
    """Δr of each picture where it has given up the shares ``GIVEN_UP`` of ``span``: (N, T) twice to (N, levels).

    A picture that never gives up so much, because it stands still or turns back, counts with the most it reached.
    """
    lost = (kept[:, :1] - kept) / span
    found = torch.stack([vl.interpolate_at(lost, change, level) for level in GIVEN_UP], 1)
    return torch.where(found.isnan(), change.max(1, keepdim=True).values.double(), found)


def change_at(kept: Tensor, change: Tensor, levels: Tensor) -> Tensor:
    """Mean Δr where a trajectory first falls to a similarity, (U, T) twice to (U, Q); its largest if it never does."""
    value = vl.interpolate_at(kept, change, levels)
    value = torch.where(value.isnan(), change.amax(1, keepdim=True), value)
    return torch.where(kept[:, :1] <= levels, 0.0, value)


def similarity_at_shares(change: Tensor, kept: Tensor, reach: Tensor) -> Tensor:
    """Similarity where trajectories come to ``SHARES`` of a change: (U, T) twice and (U,) to (U, shares)."""
    return vl.interpolate_at(change / reach[:, None], kept, torch.tensor(SHARES))


class Table:
    """What the cells say, in numbers with intervals: units are drawn first, then seeds and images within them."""

    def __init__(self, entries: list[dict[str, Any]], draws: int = 400) -> None:
        self.cells: dict[tuple[str, str, int], dict[int, dict[str, Any]]] = {}
        for entry in entries:
            unit = (entry["layer"], entry["unit"])
            self.cells.setdefault((entry["row"], entry["direction"], unit), {})[entry["seed"]] = entry
        # A row counts the seeds that all of its units have, so that every unit is seen on the same pictures.
        for row in {row for row, _, _ in self.cells}:
            mine = [key for key in self.cells if key[0] == row]
            common = set.intersection(*(set(self.cells[key]) for key in mine))
            self.cells |= {key: {seed: self.cells[key][seed] for seed in sorted(common)} for key in mine}
        self.units, self.draws = sorted({unit for _, _, unit in self.cells}), draws
        random = {entry["seed"]: entry["random"] for entry in entries}
        self.random = float(np.mean(np.concatenate(list(random.values()))))

    def values(
        self, row: str, way: vl.Sense, what: str, *, stage: str = "decoded", dose: float | None = None
    ) -> np.ndarray:
        """(units, images): one number for each picture at a dose, the seeds' thirds of the test set side by side."""

        def of(entry: dict[str, Any]) -> np.ndarray:
            at = entry["doses"][-1] if dose is None else next(one for one in entry["doses"] if one["dose"] == dose)
            if what != "change":
                return np.array(at[stage][what])
            before, after = (np.array(one[stage]["response"]) for one in (entry["doses"][0], at))
            return SIGN[way] * (after - before)  # against α = 0 of the same landscape and seed

        cells = (self.cells[row, way, unit].values() for unit in self.units)
        return np.array([np.concatenate([of(entry) for entry in entries]) for entries in cells])

    def seeds(self, row: str) -> int:
        """Seeds that a row was run for."""
        return min(len(cells) for (label, _, _), cells in self.cells.items() if label == row)

    def doses(self, row: str, stage: str) -> list[float]:
        entry = next(iter(self.cells[row, "increase", self.units[0]].values()))
        return [dose["dose"] for dose in entry["doses"] if stage in dose]

    def curves(self, row: str, way: vl.Sense, stage: str) -> tuple[np.ndarray, np.ndarray]:
        """Change and similarity along the doses: (units, images, doses) twice."""
        doses = self.doses(row, stage)
        return tuple(
            np.stack([self.values(row, way, what, stage=stage, dose=dose) for dose in doses], -1)
            for what in ("change", "similarity")
        )

    def matched(self, way: vl.Sense, stage: str, ours: Row, rival: Row) -> dict[str, Any]:
        """Ours against the rival's picture by picture, at matched similarity and at matched change, with intervals.

        A third of all pictures stand at a rectified unit's floor, without a gradient: they stay where they are under
        one prior and drift under another. Means over pictures at one step mix them with those that go far.
        """
        curves = [self.curves(row.label, way, stage) for row in (ours, rival)]
        span = float(np.mean([kept[..., 0].mean() for _, kept in curves])) - self.random
        at = [
            np.stack(
                [change_where_given_up(*map(torch.from_numpy, unit), span).numpy() for unit in zip(*pair, strict=True)]
            )
            for pair in curves
        ]
        gained = at[0] - at[1]  # (units, images, levels)
        # Shares of what both reach with a picture, so that a rectified unit's floor and an open ceiling compare alike.
        reach = np.minimum(*(change.max(-1) for change, _ in curves))
        moved = reach > HARDLY
        alike = [
            similarity_at_shares(*(torch.from_numpy(one[moved]) for one in (change, kept, reach)))
            for change, kept in curves
        ]
        kept = np.full((*reach.shape, len(SHARES)), np.nan)
        kept[moved] = (alike[0] - alike[1]).numpy()
        found = {f"Δr where {share:.0%} of similarity is given up": gained[..., i] for i, share in enumerate(GIVEN_UP)}
        found |= {f"similarity at {share:.0%} of the common Δr": kept[..., i] for i, share in enumerate(SHARES)}
        found |= dict(zip(MEANS, (gained.mean(-1), kept.mean(-1)), strict=True))
        rng = np.random.default_rng(0)
        units, images = reach.shape
        drawn = [(rng.integers(units, size=units), rng.integers(images, size=images)) for _ in range(2 * self.draws)]
        out: dict[str, Any] = {}
        for name, values in found.items():
            # A unit counts as one, however many of its pictures could be compared.
            means = [np.nanmean(np.nanmean(values[np.ix_(*pick)], 1)) for pick in drawn]
            low, high = np.percentile(means, [2.5, 97.5])
            by_unit = np.nanmean(values, 1)
            out[name] = {"difference": float(np.nanmean(by_unit)), "low": float(low), "high": float(high)}
            out[name]["by_unit"] = by_unit.tolist()
        never = [
            ((lost[..., :1] - lost).max(-1)[..., None] < np.array(GIVEN_UP) * span).mean((0, 1)) for _, lost in curves
        ]
        out["never gave up so much"] = {row.label: one.tolist() for row, one in zip((ours, rival), never, strict=True)}
        out["pictures with a common Δr"] = float(np.isfinite(kept[..., 0]).mean())
        return out

    def matched_means(self, way: vl.Sense, stage: str) -> dict[str, Any]:
        """Ours against the rival's, means over pictures at the same step, at matched similarity and matched change."""
        curves = {row.label: self.curves(row.label, way, stage) for row in (OURS, RIVAL)}
        start = float(curves[RIVAL.label][1][..., 0].mean())
        levels = torch.tensor([self.random + share * (start - self.random) for share in LEFT], dtype=torch.float64)

        def compare(units: np.ndarray, rows: np.ndarray) -> dict[str, float]:
            pick = np.ix_(units, rows)
            means = [[torch.from_numpy(part[pick].mean(1)) for part in curves[row.label]] for row in (OURS, RIVAL)]
            ours, theirs = (change_at(kept, change, levels) for change, kept in means)
            found = {f"Δr at {share:.0%} similarity": x for share, x in zip(LEFT, (ours - theirs).T, strict=True)}
            # Shares of what both reach, so that a rectified unit's floor and a wide-open ceiling compare alike. A unit
            # that one of the two never moved the wanted way has none.
            reach = torch.minimum(*(change.amax(1) for change, _ in means))
            moved = reach > 0
            ours, theirs = (similarity_at_shares(one[moved], kept[moved], reach[moved]) for one, kept in means)
            shares = zip(SHARES, (ours - theirs).T, strict=True)
            found |= {f"similarity at {share:.0%} of the common Δr": x for share, x in shares}
            flat = {name: value.nanmean().item() for name, value in found.items()}
            for name, start in zip(MEANS, ("Δr at", "similarity at"), strict=True):
                flat[name] = float(np.mean([value for key, value in flat.items() if key.startswith(start)]))
            return flat

        count, images = curves[OURS.label][0].shape[:2]
        point = compare(np.arange(count), np.arange(images))
        rng = np.random.default_rng(0)
        # All units were shown the same pictures: one draw of images for all of them, or their luck would average out.
        drawn = [
            compare(rng.integers(count, size=count), rows) for rows in rng.integers(images, size=(self.draws, images))
        ]
        ends = {name: np.nanpercentile([one[name] for one in drawn], [2.5, 97.5]).tolist() for name in point}
        return {name: {"difference": one, "low": ends[name][0], "high": ends[name][1]} for name, one in point.items()}

    def frechet(self, row: str, way: str, stage: str, real: Tensor) -> float:
        """Fréchet distance of the last dose's pictures, of the same few photographs for each unit, to real images."""
        rows = [
            np.array(entry["doses"][-1][stage]["features"])
            for unit in self.units
            for entry in self.cells[row, way, unit].values()
        ]
        pictures = torch.from_numpy(np.concatenate(rows)).float()
        return vl.frechet_distance(pictures, real[: len(pictures)])
