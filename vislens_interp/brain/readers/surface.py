"""Surface maps as nilearn has them: single-trial betas on the vertices of both hemispheres."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
from numpy.typing import ArrayLike

from vislens_interp.brain.readers.trials import (
    Recording,
    Session,
    Table,
    gather,
    name_targets,
    pair_events,
    refuse_without,
)
from vislens_interp.brain.responses import NamedPictures
from vislens_interp.images import PathLike
from vislens_interp.validation import check_word

if TYPE_CHECKING:
    from nilearn.surface import SurfaceImage
    from scipy.sparse import csr_array

RegionNumbers: TypeAlias = Union["SurfaceImage", Mapping[str, ArrayLike]]
"""Region numbers of vertices, 0 or below outside: nilearn's image, or (V,) by hemisphere."""


def read_surface(
    betas: "SurfaceImage | Sequence[SurfaceImage]",
    events: Table | Sequence[Table],
    images: NamedPictures,
    *,
    labels: RegionNumbers | None = None,
    image_column: str = "stim_file",
    targets: Sequence[str] | Mapping[int, str] | None = None,
    standard: str = "none",
    units: str = "beta",
    subject: str | None = None,
    size: int | None = None,
    names: Sequence[str] | None = None,
    cache: PathLike | None = None,
) -> Recording:
    """Responses of vertices, or of regions on a surface, to pictures: one map for each trial.

    Args:
        betas: A nilearn ``SurfaceImage`` with (vertices, trials) for each hemisphere, or a list, one for each session.
        labels: None takes every vertex; a ``SurfaceImage`` of region numbers, 0 or below outside, or a mapping from
            hemispheres to (V,) of them, averages the vertices of each region over both hemispheres, without those that
            are NaN in a trial.
        targets: A mapping from region numbers to names, or names of the targets in order of their numbers (of vertices,
            the left hemisphere's first).
        events, images, image_column, standard, units, subject, size, names, cache: As in
            :func:`~vislens_interp.brain.readers.nifti.read_nifti`; events have a row for each map.

    Raises:
        ImportError: nilearn is not installed.
        KeyError, TypeError, ValueError: Betas are no surface images or differ in vertices, labels do not fit, or what
            :func:`~vislens_interp.brain.readers.nifti.read_nifti` refuses.

    >>> import pandas as pd, torch
    >>> from nilearn.surface import InMemoryMesh, PolyMesh, SurfaceImage
    >>> from vislens_interp.brain import BrainDataset
    >>> side = InMemoryMesh(np.eye(3), np.array([[0, 1, 2]]))
    >>> betas = SurfaceImage(PolyMesh(left=side, right=side), {"left": np.eye(3, 4), "right": np.ones((3, 4))})
    >>> events = pd.DataFrame({"stim_file": ["a.png", "b.png", "a.png", "b.png"]})
    >>> BrainDataset.from_surface(betas, events, torch.rand(2, 3, 8, 8), names=["a.png", "b.png"]).targets[2:4]
    ['left 2', 'right 0']
    """
    refuse_without("nilearn", "brain", "from_surface")
    check_word("standard", standard, ("session", "none"))
    maps = [_parts(one) for one in (betas if isinstance(betas, Sequence) else [betas])]
    vertices = [{side: len(data) for side, data in parts.items()} for parts in maps]
    sizes = vertices[0]
    if (other := next((number for number, found in enumerate(vertices) if found != sizes), None)) is not None:
        raise ValueError(
            f"betas[{other}] has {vertices[other]} vertices and betas[0] {sizes}; expected one surface. Resample them "
            "first."
        )
    counts = [next(iter(parts.values())).shape[1] for parts in maps]
    paired = pair_events(events, image_column, counts, "betas", images, size=size, names=names)
    if labels is None:
        weights, found = None, [f"{side} {vertex}" for side, count in sizes.items() for vertex in range(count)]
    else:
        weights, found = _regions(labels, targets, sizes)
    named = name_targets(targets, found, "targets")

    def read(parts: dict[str, np.ndarray], start: int, stop: int) -> np.ndarray:
        values = np.concatenate([data[:, start:stop] for data in parts.values()]).T
        there = np.isfinite(values)
        if weights is None or there.all():
            return values if weights is None else values.astype(np.float64) @ weights
        share = there.astype(np.float64) @ weights
        return np.where(there, values, 0).astype(np.float64) @ weights / np.where(share > 0, share, np.nan)

    sessions = [Session(count, partial(read, parts)) for count, parts in zip(counts, maps, strict=True)]
    responses = gather(sessions, paired, len(named), standard=standard, cache=cache)
    return paired.recording(
        responses, named, subject, f"{units}, z-scored within sessions" if standard == "session" else units
    )


def region_numbers(labels: RegionNumbers) -> dict[str, np.ndarray] | None:
    """(V,) numbers by hemisphere; None for what holds none."""
    parts = labels if isinstance(labels, Mapping) else getattr(getattr(labels, "data", None), "parts", None)
    return None if parts is None else {side: np.asarray(part).squeeze() for side, part in parts.items()}


def _parts(betas: "SurfaceImage") -> dict[str, np.ndarray]:
    from nilearn.surface import SurfaceImage

    if not isinstance(betas, SurfaceImage):
        raise TypeError(
            f"betas is a {type(betas).__name__}; expected a nilearn SurfaceImage. Files become one by "
            "SurfaceImage(mesh, {'left': 'lh.func.gii', 'right': 'rh.func.gii'})."
        )
    parts = {side: np.asarray(data) for side, data in betas.data.parts.items()}
    if any(data.ndim != 2 for data in parts.values()):
        raise ValueError(
            f"betas has shape { {side: data.shape for side, data in parts.items()} }; expected (vertices, trials) for "
            "each hemisphere. A single map is no experiment."
        )
    return parts


def _regions(
    labels: RegionNumbers, targets: Sequence[str] | Mapping[int, str] | None, sizes: dict[str, int]
) -> tuple["csr_array", list[str]]:
    """(V, K) sparse shares of vertices in their region's mean, and names of the regions."""
    from scipy.sparse import csr_array

    parts = region_numbers(labels)
    if parts is None:
        raise TypeError(
            f"labels is a {type(labels).__name__}; expected a SurfaceImage of region numbers, or a mapping from "
            f"{', '.join(sizes)} to (V,) of them."
        )
    shapes = {side: parts[side].shape if side in parts else None for side in sizes}
    if shapes != {side: (count,) for side, count in sizes.items()}:
        raise ValueError(
            f"labels has {shapes} numbers of regions, and betas {sizes} vertices; expected one for each vertex. Take "
            "labels of the same surface."
        )
    numbers = np.concatenate([parts[side] for side in sizes])
    known = [int(number) for number in np.unique(numbers[np.isfinite(numbers)]) if number > 0]
    if not known:
        raise ValueError("labels holds no region: no vertex is above 0; expected numbers of regions.")
    if (np.nan_to_num(numbers) % 1).any():
        raise ValueError("labels holds fractions; expected whole numbers of regions. Resample by the nearest vertex.")
    called = targets if isinstance(targets, Mapping) else {}
    columns = np.searchsorted(known, np.nan_to_num(numbers))
    inside = np.flatnonzero(np.isin(numbers, known))
    share = 1 / np.bincount(columns[inside], minlength=len(known))[columns[inside]]
    weights = csr_array((share, (inside, columns[inside])), shape=(len(numbers), len(known)))
    return weights, [str(called.get(number, f"region {number}")) for number in known]
