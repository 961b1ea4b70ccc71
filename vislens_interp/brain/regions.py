"""Regions of the brain: vertices standardised within sessions, then averaged."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np

from vislens_interp.brain.responses import check_known

Rois: TypeAlias = Sequence[str] | Mapping[str, Sequence[str]]
Standard = Literal["session", "all", "none"]
CHUNK = 256
"""Images whose vertices are in memory at a time."""


def region_weights(
    rois: Rois | None, masks: Mapping[str, Mapping[str, np.ndarray]], where: str
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Names of K regions, and each vertex's share in their means: (V, K) by hemisphere; columns add up to 1 over both.

    ``masks`` are truth values by hemisphere and region; without ``rois`` all regions with vertices are taken. KeyError
    or ValueError for a region that is not there, or has no vertex.
    """
    known = sorted({name for side in masks.values() for name in side})
    filled = [name for name in known if any(side[name].any() for side in masks.values() if name in side)]
    chosen = filled if rois is None else [rois] if isinstance(rois, str) else rois
    parts = chosen if isinstance(chosen, Mapping) else {name: [name] for name in chosen}
    weights: dict[str, list[np.ndarray]] = {side: [] for side in masks}
    remark = (
        " Regions of the HCP atlas (TE2p, IP0, ...) are in NSD's HCP_MMP1 labels alone: write their masks beside the "
        "others."
    )
    for region, names in parts.items():
        for name in names:
            check_known("ROI", name, known, where, remark)
        union = {
            side: np.any([of[name] for name in names if name in of] or [np.zeros_like(next(iter(of.values())))], axis=0)
            for side, of in masks.items()
        }
        total = sum(int(mask.sum()) for mask in union.values())
        if total == 0:
            raise ValueError(
                f"ROI {region!r} has no vertex in {where}; expected at least one. Take another region, both "
                "hemispheres or a lower t_threshold."
            )
        for side, mask in union.items():
            weights[side].append(mask / total)
    return list(parts), {side: np.stack(columns, 1) for side, columns in weights.items()}


def region_means(
    betas: Mapping[str, np.ndarray],
    weights: Mapping[str, np.ndarray],
    names: Sequence[str],
    session: np.ndarray | None,
    standard: Standard,
) -> np.ndarray:
    """Average each region's vertices, each standardised first: (N, R, K), NaN where there was no trial.

    A few images of ``betas``, (N, R, V) or (N, V) by hemisphere, are in memory at a time. ``session`` (N, R) is below 0
    where there was no trial; None takes all together. ValueError for a region without a vertex that has no gap.
    """
    vertices = {side: np.flatnonzero(matrix.any(1)) for side, matrix in weights.items()}
    first = next(iter(betas.values()))
    label = np.zeros(first.shape[:-1], int) if session is None else session.astype(int)
    label = label.reshape(len(first), -1)
    seen = [_seen(data, vertices[side], label.shape) for side, data in betas.items()]
    present = np.any(seen, axis=0) & (label >= 0)
    sums, shares = np.zeros((*label.shape, len(names))), np.zeros(len(names))
    for side, data in betas.items():
        mean, scale, whole = _moments(data, vertices[side], label, present)
        if standard == "none":
            mean, scale = np.zeros_like(mean), np.ones_like(scale)
        matrix = weights[side][vertices[side]] * whole[:, None]
        for rows, trials in _parts(data, vertices[side]):
            # What is absent or has gaps counts as 0 here: its weight is 0, or it is set to NaN below.
            values = (np.nan_to_num(trials) - mean[label[rows]]) / scale[label[rows]]
            sums[rows] += values @ matrix
        shares += matrix.sum(0)
    lost = [name for name, share in zip(names, shares, strict=True) if share == 0]
    if lost:
        raise ValueError(
            f"ROI {lost[0]!r}: every vertex has missing values in recorded trials; expected at least one without. Get "
            "the responses again from where they were published, or leave the region out."
        )
    return np.where(present[..., None], sums / shares, np.nan)


def _parts(data: np.ndarray, vertices: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """A few images at a time: their rows, and (n, R, V) values of these vertices."""
    for start in range(0, len(data), CHUNK):
        rows = slice(start, min(start + CHUNK, len(data)))
        trials = np.asarray(data[rows])[..., vertices].astype(np.float64)
        yield rows, trials.reshape(trials.shape[0], -1, len(vertices))


def _seen(data: np.ndarray, vertices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Trials (N, R) in which any of these vertices has a value."""
    seen = np.zeros(shape, bool)
    for rows, trials in _parts(data, vertices):
        seen[rows] = ~np.isnan(trials).all(-1)
    return seen


def _moments(
    data: np.ndarray, vertices: np.ndarray, label: np.ndarray, present: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and SD of vertices by label (labels, V), and those without a gap in trials that are present (V,)."""
    labels = max(int(label.max()), 0) + 1
    total, square = np.zeros((labels, len(vertices))), np.zeros((labels, len(vertices)))
    count, whole = np.zeros((labels, 1)), np.ones(len(vertices), bool)
    for rows, trials in _parts(data, vertices):
        whole &= ~np.isnan(trials[present[rows]]).any(0)
        for number in np.unique(label[rows][present[rows]]):
            values = np.nan_to_num(trials[present[rows] & (label[rows] == number)])
            total[number] += values.sum(0)
            square[number] += (values**2).sum(0)
            count[number] += len(values)
    mean = total / np.maximum(count, 1)
    variance = np.maximum(square / np.maximum(count, 1) - mean**2, 0)
    return mean, np.where(variance > 1e-12 * mean**2, np.sqrt(variance), 1.0), whole
