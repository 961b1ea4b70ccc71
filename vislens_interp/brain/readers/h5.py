"""Single-trial betas in HDF5 files, as NSD (a file a session) and GLMsingle write them."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vislens_interp.brain.readers.events import several, trial_labels
from vislens_interp.brain.readers.trials import (
    CHUNK_BYTES,
    Recording,
    Session,
    check_targets_count,
    gather,
    one_line,
    pair_by_name,
    refuse_without,
)
from vislens_interp.brain.regions import region_means, region_weights
from vislens_interp.brain.responses import by_image
from vislens_interp.validation import check_word, closest

TRIAL_AXIS = {"betas": 0, "modelmd": 0, "betasmd": -1}
"""Where trials are: NSD's session files, GLMsingle from MATLAB (which turns axes round) and from Python."""
NSD_SCALE = 300
NSD_TRIALS = 750
"""NSD stores percent signal change × 300 as whole numbers, 750 trials a session (Allen et al. 2022)."""


def read_h5(
    files: Any,
    events: Any,
    images: Any,
    *,
    regions: Any = None,
    dataset: str | None = None,
    trial_axis: int | None = None,
    image_column: str = "stim_file",
    targets: Sequence[str] | Mapping[int, str] | None = None,
    standard: str = "session",
    units: str | None = None,
    subject: str | None = None,
    size: int | None = None,
    names: Sequence[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Recording:
    """Responses of regions or voxels to pictures, from betas that stay on the disk while they are read.

    Args:
        files: An HDF5 file, or a list, one for each session in the order of ``events``.
        events: The pictures' names, one for each trial of all files in their order (:func:`nsd_names` gives NSD's), or
            a table for each file with ``image_column``.
        images: Pictures, found by name: a folder, paths, a mapping from names to files, or (N, 3, H, W) with ``names``.
        regions: None takes every voxel or vertex; a mask of truth values those inside; whole numbers, 0 outside (with
            ``targets`` as a mapping from numbers to names), or a mapping from names to masks, averages each region,
            without voxels that lack a value. All in the shape that a trial has in the file.
        dataset: Its name in the files; None takes ``"betas"``, ``"modelmd"`` or ``"betasmd"``, whichever is there.
        trial_axis: Which axis of it holds trials; None knows it for these three.
        image_column: The column of tables of events that names pictures.
        targets: Names of the targets; None numbers voxels.
        standard: ``"session"`` standardises each voxel within each file, before regions are averaged, as is customary
            for NSD; ``"none"`` leaves values.
        units, subject: What a value is measured in (None says what was done), and whose it is.
        size, names: Side in pixels of pictures in files; names of pictures in memory.
        cache: A file ``.npy`` that holds the responses of voxels on the disk.

    Raises:
        ImportError: h5py is not installed.
        FileNotFoundError, KeyError, TypeError, ValueError: A file, its dataset or a picture is missing or cannot be
            read, or counts and shapes differ.

    >>> import tempfile, h5py
    >>> from vislens_interp.brain import BrainDataset
    >>> path = Path(tempfile.mkdtemp()) / "betas_session01.hdf5"
    >>> with h5py.File(path, "w") as file:
    ...     file["betas"] = np.arange(24, dtype=np.int16).reshape(4, 1, 2, 3) % 7
    >>> masks = {"V1": np.array([[[True, True, False], [False] * 3]])}
    >>> shown, pictures = ["a", "b", "a", "b"], torch.rand(2, 3, 8, 8)
    >>> data = BrainDataset.from_h5(path, shown, pictures, names=["a", "b"], regions=masks)
    >>> data.targets, data.units, data.repetitions
    (['V1'], 'z-scored beta', 2)
    """
    refuse_without("h5py", "brain", "from_h5")
    check_word("standard", standard, ("session", "none"))
    with ExitStack() as stack:
        stored = [_opened(one, dataset, trial_axis, stack) for one in several(files)]
        shapes = {one.space for one in stored}
        if len(shapes) > 1:
            raise ValueError(f"files hold trials of the shapes {sorted(shapes)}; expected one. Read them apart.")
        counts = [one.count for one in stored]
        labels, source = _labels(events, image_column, counts)
        paired = pair_by_name(labels, images, source=source, size=size, names=names)
        masks, inside, found = _selected(regions, targets, stored[0].space)
        whole = any(one.whole_numbers for one in stored)
        if masks is None:
            named = check_targets_count(None if isinstance(targets, Mapping) else targets, found, "voxels")
            sessions = [
                Session(one.count, lambda a, b, one=one: one.columns(a, b, inside) / (NSD_SCALE if whole else 1))
                for one in stored
            ]
            responses = gather(sessions, paired, len(named), standard=standard, cache=cache)
        else:
            named = check_targets_count(None if isinstance(targets, Mapping) else targets, found, "regions")
            session = np.repeat(np.arange(len(counts)), counts)[:, None] if standard == "session" else None
            weights = region_weights(found, {"": masks}, "regions")
            trials = region_means({"": _Joined(stored)}, weights, found, session, standard)[:, 0]  # type: ignore[dict-item]
            trials = trials / (NSD_SCALE if whole and standard == "none" else 1)
            responses = by_image(torch.from_numpy(trials[paired.kept]).float(), paired.shown, len(paired.names))
    text = f"{paired.text}; trials in the order of {', '.join(one.name for one in stored[:3])}" + (
        f" and {len(stored) - 3} more files" if len(stored) > 3 else ""
    )
    if whole:
        text += f"; whole numbers divided by {NSD_SCALE}, as NSD stores percent signal change"
    said = units or ("z-scored beta" if standard == "session" else "percent signal change" if whole else "beta")
    return Recording(paired.images, responses, named, subject, said, paired.names, text)


def nsd_names(
    design: str | os.PathLike[str], subject: int, sessions: Sequence[int], form: str = "nsd-{:05d}"
) -> list[str]:
    """Names of the pictures in NSD's trials, in their order.

    Args:
        design: NSD's ``nsd_expdesign.mat``.
        subject: 1 to 8.
        sessions: Numbers of the session files, from 1.
        form: How a picture is called by its number among 73,000, from 0 as in ``nsd_stimuli.hdf5``; the default is
            that of the Algonauts challenge.

    Raises:
        FileNotFoundError, ValueError: The file is missing or is another one, or there is no such subject or session.
    """
    from scipy.io import loadmat

    path = Path(design)
    if not path.is_file():
        raise FileNotFoundError(
            f"design={str(path)!r}: no such file; expected nsd_expdesign.mat. It comes from naturalscenesdataset.org."
        )
    found = loadmat(path)
    if not {"masterordering", "subjectim"} <= set(found):
        raise ValueError(
            f"design={str(path)!r} holds {', '.join(key for key in found if not key.startswith('_'))}; expected "
            "masterordering and subjectim, as in NSD's nsd_expdesign.mat."
        )
    order, pictures = found["masterordering"].ravel(), found["subjectim"]
    if not 1 <= subject <= len(pictures) or min(sessions) < 1 or max(sessions) * NSD_TRIALS > len(order):
        raise ValueError(
            f"subject={subject}, sessions={list(sessions)}; expected 1 to {len(pictures)}, and sessions of 1 to "
            f"{len(order) // NSD_TRIALS}."
        )
    trials = np.concatenate([order[(one - 1) * NSD_TRIALS : one * NSD_TRIALS] for one in sessions]).astype(int)
    return [form.format(int(number) - 1) for number in pictures[subject - 1, trials - 1]]


class _Stored:
    """One file's trials: ``read(start, stop)`` gives (n, V) of them, the shape of a trial flattened."""

    def __init__(self, data: Any, axis: int, name: str) -> None:
        self.data, self.last, self.name = data, axis == data.ndim - 1, name
        self.count = int(data.shape[axis])
        self.space = tuple(data.shape[:-1] if self.last else data.shape[1:])
        self.whole_numbers = data.dtype.kind in "iu"

    def read(self, start: int, stop: int) -> np.ndarray:
        values = np.moveaxis(self.data[..., start:stop], -1, 0) if self.last else self.data[start:stop]
        return values.reshape(len(values), -1)

    def columns(self, start: int, stop: int, inside: np.ndarray) -> np.ndarray:
        """Some of the voxels (n, len(inside)); the others are in memory for a few trials at a time."""
        step = max(1, CHUNK_BYTES // (8 * int(np.prod(self.space))))
        return np.concatenate([self.read(one, min(one + step, stop))[:, inside] for one in range(start, stop, step)])


class _Joined:
    """Trials of several files as one array (T, V) that is read by slices of rows."""

    ndim = 2

    def __init__(self, stored: list[_Stored]) -> None:
        self.stored = stored
        self.shape = (sum(one.count for one in stored), int(np.prod(stored[0].space)))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        parts, first = [], 0
        for one in self.stored:
            start, stop = max(rows.start - first, 0), min(rows.stop - first, one.count)
            if start < stop:
                parts.append(one.read(start, stop))
            first += one.count
        return np.concatenate(parts)


def _opened(file: Any, dataset: str | None, axis: int | None, stack: ExitStack) -> _Stored:
    import h5py

    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(
            f"files: {str(path)!r} is not there; expected HDF5 files such as betas_session01.hdf5 of NSD "
            "(naturalscenesdataset.org)."
        )
    try:
        opened = stack.enter_context(h5py.File(path, "r"))
    except OSError as error:
        raise ValueError(
            f"files: {str(path)!r} cannot be read by h5py ({one_line(error)}); expected an HDF5 file. Restore a copy."
        ) from error
    known = [str(name) for name in opened if isinstance(opened[name], h5py.Dataset)]
    name = dataset or next((one for one in TRIAL_AXIS if one in known), None)
    if name not in known:
        wanted = name or " or ".join(TRIAL_AXIS)
        raise KeyError(f"dataset {wanted!r} is not in {path.name}. {closest(wanted, known, cutoff=0.4)} Pass dataset=.")
    data: Any = opened[name]
    if data.ndim < 2 or data.dtype.kind not in "fiu":
        raise ValueError(
            f"{path.name}: {name} has shape {data.shape} and type {data.dtype}; expected numbers of trials and voxels."
        )
    place = axis if axis is not None else TRIAL_AXIS.get(str(name))
    if place not in (0, -1, data.ndim - 1):
        raise ValueError(
            f"trial_axis={place} of {name}, shape {data.shape} in {path.name}; expected 0, or -1 for the last. Pass "
            "trial_axis=."
        )
    return _Stored(data, place % data.ndim, path.name)


def _labels(events: Any, column: str, counts: list[int]) -> tuple[list[Any], str]:
    table = not isinstance(events, Sequence) or isinstance(events, str)
    if not table and all(isinstance(one, str) for one in events) and not str(events[0]).endswith((".tsv", ".csv")):
        if len(events) != sum(counts):
            raise ValueError(
                f"events holds {len(events)} names for {sum(counts)} trials in {len(counts)} files of {counts}; "
                "expected one for each trial."
            )
        return list(events), "the names in events"
    return trial_labels(events, column, counts, "files"), f"column {column!r} of events"


def _selected(
    regions: Any, targets: Any, space: tuple[int, ...]
) -> tuple[dict[str, np.ndarray] | None, np.ndarray, list[str]]:
    """Masks of regions (or None for voxels), which voxels are taken, and names of the targets."""
    masks: dict[str, np.ndarray] = {}
    if isinstance(regions, Mapping):
        masks = {str(name): np.asarray(mask).astype(bool) for name, mask in regions.items()}
    elif regions is not None and np.asarray(regions).dtype != bool:
        called = targets if isinstance(targets, Mapping) else {}
        numbers = np.asarray(regions)
        masks = {
            str(called.get(int(one), f"region {int(one)}")): numbers == one for one in np.unique(numbers) if one > 0
        }
    mask = np.ones(space, bool) if regions is None else None if masks else np.asarray(regions)
    for name, one in masks.items() if mask is None else [("", mask)]:
        if one.shape != space or not one.any():
            which = f"regions[{name!r}]" if name else "regions"
            raise ValueError(
                f"{which} has shape {one.shape} with {int(one.sum())} voxels inside, and a trial "
                f"{space}; expected that shape and at least one voxel. MATLAB's axes come in reverse order."
            )
    if mask is None:
        return {name: one.ravel() for name, one in masks.items()}, np.zeros(0, int), list(masks)
    inside = np.flatnonzero(mask)
    kind = "vertex" if len(space) == 1 else "voxel"
    return None, inside, [f"{kind} {' '.join(map(str, place))}" for place in np.argwhere(mask)]
