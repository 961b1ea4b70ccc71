"""Surface maps as nilearn has them: single-trial betas on the vertices of both hemispheres."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vislens_interp.brain.readers.events import several, trial_labels
from vislens_interp.brain.readers.trials import (
    Recording,
    Session,
    check_targets_count,
    gather,
    pair_by_name,
    refuse_without,
)
from vislens_interp.validation import check_word


def read_surface(
    betas: Any,
    events: Any,
    images: Any,
    *,
    labels: Any = None,
    image_column: str = "stim_file",
    targets: Sequence[str] | Mapping[int, str] | None = None,
    standard: str = "none",
    units: str = "beta",
    subject: str | None = None,
    size: int | None = None,
    names: Sequence[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Recording:
    """Responses of vertices, or of regions on a surface, to pictures: one map for each trial.

    Args:
        betas: A nilearn ``SurfaceImage`` with (vertices, trials) for each hemisphere, or a list, one for each session.
        events: A table (file or DataFrame) for each session, with a row for each map in its order.
        images: Pictures, found by name: a folder, paths, a mapping from names to files, or (N, 3, H, W) with ``names``.
        labels: None takes every vertex; a ``SurfaceImage`` of region numbers, 0 outside, or a mapping from
            hemispheres to (V,) of them, averages the vertices of each region over both hemispheres.
        image_column: The column of events that names each trial's picture.
        targets: A mapping from region numbers to names, or names of the targets in order of their numbers (of vertices,
            the left hemisphere's first).
        standard: ``"session"`` standardises each target within each session, ``"none"`` leaves values.
        units, subject: What a value is measured in, and whose it is.
        size, names: Side in pixels of pictures in files; names of pictures in memory.
        cache: A file ``.npy`` that holds the responses on the disk.

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
    maps = [_parts(one) for one in several(betas)]
    sizes = {side: data.shape[0] for side, data in maps[0].items()}
    for number, parts in enumerate(maps):
        if {side: data.shape[0] for side, data in parts.items()} != sizes:
            raise ValueError(
                f"betas[{number}] has { {side: len(data) for side, data in parts.items()} } vertices and betas[0] "
                f"{sizes}; expected one surface. Resample them first."
            )
    counts = [next(iter(parts.values())).shape[1] for parts in maps]
    trials = trial_labels(events, image_column, counts, "betas")
    paired = pair_by_name(trials, images, source=f"column {image_column!r} of events", size=size, names=names)
    weights, found = _regions(labels, targets, sizes)
    if weights is None:
        found = [f"{side} {vertex}" for side, count in sizes.items() for vertex in range(count)]
    named = check_targets_count(None if isinstance(targets, Mapping) else targets, found, "targets")

    def reader(parts: dict[str, np.ndarray]) -> Any:
        def read(start: int, stop: int) -> np.ndarray:
            values = np.concatenate([data[:, start:stop] for data in parts.values()]).T
            return values if weights is None else values.astype(np.float64) @ weights

        return read

    sessions = [Session(count, reader(parts)) for count, parts in zip(counts, maps, strict=True)]
    responses = gather(sessions, paired, len(named), standard=standard, cache=cache)
    said = f"{units}, z-scored within sessions" if standard == "session" else units
    return Recording(paired.images, responses, named, subject, said, paired.names, paired.text)


def _parts(betas: Any) -> dict[str, np.ndarray]:
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


def _regions(labels: Any, targets: Any, sizes: dict[str, int]) -> tuple[Any, list[str]]:
    """(V, K) sparse shares of vertices in their region's mean, and names of the regions; None for every vertex."""
    from scipy.sparse import csr_array

    if labels is None:
        return None, []
    parts = labels if isinstance(labels, Mapping) else getattr(getattr(labels, "data", None), "parts", None)
    if parts is None:
        raise TypeError(
            f"labels is a {type(labels).__name__}; expected a SurfaceImage of region numbers, or a mapping from "
            f"{', '.join(sizes)} to (V,) of them."
        )
    shapes = {side: np.asarray(parts[side]).squeeze().shape if side in parts else None for side in sizes}
    if shapes != {side: (count,) for side, count in sizes.items()}:
        raise ValueError(
            f"labels has {shapes} numbers of regions, and betas {sizes} vertices; expected one for each vertex. Take "
            "labels of the same surface."
        )
    numbers = np.concatenate([np.asarray(parts[side]).squeeze() for side in sizes])
    known = [int(number) for number in np.unique(numbers[np.isfinite(numbers)]) if number != 0]
    if not known:
        raise ValueError("labels holds no region: every vertex is 0; expected numbers of regions.")
    called = targets if isinstance(targets, Mapping) else {}
    columns = np.searchsorted(known, np.nan_to_num(numbers))
    inside = np.flatnonzero(np.isin(numbers, known))
    share = 1 / np.bincount(columns[inside], minlength=len(known))[columns[inside]]
    weights = csr_array((share, (inside, columns[inside])), shape=(len(numbers), len(known)))
    return weights, [str(called.get(number, f"region {number}")) for number in known]
