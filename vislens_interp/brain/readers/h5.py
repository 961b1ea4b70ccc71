"""Single-trial betas in HDF5 files, as NSD (a file a session) and GLMsingle write them."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import ArrayLike

from vislens_interp.brain.readers.trials import (
    Recording,
    Session,
    Table,
    chunks,
    gather,
    in_parts,
    moments,
    name_targets,
    opening,
    pair_by_name,
    pair_events,
    refuse_without,
)
from vislens_interp.brain.responses import NamedPictures, check_known, repeated
from vislens_interp.images import PathLike
from vislens_interp.validation import check_word

if TYPE_CHECKING:
    import h5py

Masks: TypeAlias = ArrayLike | Mapping[str, ArrayLike]
"""Truth values or region numbers, or truth values by region."""
TRIAL_AXIS = {"betas": 0, "modelmd": 0, "betasmd": -1}
"""Where trials are: NSD's session files, GLMsingle from MATLAB (which turns axes round) and from Python."""
NSD_SCALE = 300
NSD_TRIALS = 750
"""NSD stores percent signal change × 300 as whole numbers, 750 trials a session (Allen et al. 2022)."""


def read_h5(
    files: PathLike | Sequence[PathLike],
    events: Sequence[str] | Table | Sequence[Table],
    images: NamedPictures,
    *,
    regions: Masks | None = None,
    dataset: str | None = None,
    trial_axis: int | None = None,
    image_column: str = "stim_file",
    targets: Sequence[str] | Mapping[int, str] | None = None,
    standard: Literal["session", "none"] = "session",
    units: str | None = None,
    subject: str | None = None,
    size: int | None = None,
    names: Sequence[str] | None = None,
    cache: PathLike | None = None,
) -> Recording:
    """Responses of regions or voxels to pictures, from betas that stay on the disk while they are read.

    Args:
        files: An HDF5 file, or a list, one for each session in the order of ``events``.
        events: The pictures' names, one for each trial of all files in their order (:func:`nsd_names` gives NSD's; a
            list, an array or a column of a DataFrame), or a table for each file with ``image_column``.
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
        cache: A file ``.npy`` that holds the responses on the disk.

    Raises:
        ImportError: h5py is not installed.
        FileNotFoundError, KeyError, TypeError, ValueError: A file, its dataset or a picture is missing or cannot be
            read, or counts and shapes differ.

    >>> import tempfile, h5py, torch
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
    listed = getattr(events, "tolist", None)  # of an array, or of a column of a table
    events = listed() if listed else events
    with ExitStack() as stack:
        paths = [files] if isinstance(files, str) or not isinstance(files, Sequence) else files
        stored = [_opened(path, dataset, trial_axis, stack) for path in paths]
        shapes = {one.space for one in stored}
        if len(shapes) > 1:
            raise ValueError(f"files hold trials of the shapes {sorted(shapes)}; expected one. Read them apart.")
        counts = [one.count for one in stored]
        if not _are_names(events):
            paired = pair_events(events, image_column, counts, "files", images, size=size, names=names)
        elif len(events) != sum(counts):
            raise ValueError(
                f"events holds {len(events)} names for {sum(counts)} trials in {len(counts)} files of {counts}; "
                "expected one for each trial."
            )
        else:
            paired = pair_by_name(events, images, source="the names in events", size=size, names=names)
        whole, scored = any(one.whole_numbers for one in stored), standard == "session"
        scale = NSD_SCALE if whole and not scored else 1
        masks, inside, found = _selected(regions, targets, stored[0].space)
        named = name_targets(targets, found, "regions" if masks else "voxels")
        sessions = [one.session(inside, scale if one.whole_numbers else 1) for one in stored]
        if masks:
            sessions, standard = _averaged(sessions, masks, inside, scored), "none"
        responses = gather(sessions, paired, len(named), standard=standard, cache=cache)
    text = f"; trials in the order of {', '.join(one.name for one in stored[:3])}"
    if len(stored) > 3:
        text += f" and {len(stored) - 3} more files"
    if whole:
        text += f"; whole numbers divided by {NSD_SCALE}, as NSD stores percent signal change"
    said = units or ("z-scored beta" if scored else "percent signal change" if whole else "beta")
    return paired.recording(responses, named, subject, said, text)


def nsd_names(design: PathLike, subject: int, sessions: Sequence[int], form: str = "nsd-{:05d}") -> list[str]:
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
    """One file's trials."""

    def __init__(self, data: "h5py.Dataset", axis: int, name: str) -> None:
        self.data, self.last, self.name = data, axis == data.ndim - 1, name
        self.count = int(data.shape[axis])
        self.space = tuple(data.shape[:-1] if self.last else data.shape[1:])
        self.whole_numbers = data.dtype.kind in "iu"

    def session(self, inside: np.ndarray, scale: float) -> Session:
        """Voxels ``inside`` of the flattened trials, divided by ``scale``; all are read, a few trials at a time."""

        def read(start: int, stop: int) -> np.ndarray:
            values = np.moveaxis(self.data[..., start:stop], -1, 0) if self.last else self.data[start:stop]
            return values.reshape(len(values), -1)[:, inside] / scale

        return Session(self.count, in_parts(read, int(np.prod(self.space))))


def _averaged(sessions: list[Session], masks: dict[str, np.ndarray], inside: np.ndarray, scored: bool) -> list[Session]:
    """Means over regions of the voxels ``inside`` that are never missing in a trial, each standardised if wanted."""
    gaps = np.zeros(len(inside), bool)
    for session in sessions:
        for _, values in chunks(session, len(inside)):
            missing = np.isnan(values)
            gaps |= missing[~missing.all(1)].any(0)
    weights = np.stack([mask[inside] & ~gaps for mask in masks.values()], 1).astype(float)
    voxels = weights.sum(0)
    if lost := [name for name, count in zip(masks, voxels, strict=True) if count == 0]:
        raise ValueError(
            f"ROI {lost[0]!r}: every vertex has missing values in recorded trials; expected at least one without. "
            "Restore a copy of the files, or leave the region out."
        )

    def averaged(session: Session) -> Session:
        mean, scale = moments(session) if scored else (0.0, 1.0)

        def read(start: int, stop: int) -> np.ndarray:
            values = (session.read(start, stop) - mean) / scale
            return np.where(np.isnan(values).all(1, keepdims=True), np.nan, np.nan_to_num(values) @ (weights / voxels))

        return Session(session.count, in_parts(read, len(inside)))

    return [averaged(session) for session in sessions]


def _opened(file: PathLike, dataset: str | None, axis: int | None, stack: ExitStack) -> _Stored:
    import h5py

    path = Path(file)
    expected = "an HDF5 file, such as NSD's betas_session01.hdf5 or a .mat saved with -v7.3 (arrays go to from_trials)"
    with opening(path, "files", "h5py", expected):
        opened = stack.enter_context(h5py.File(path, "r"))
    known: dict[str, h5py.Dataset] = {}
    opened.visititems(lambda place, data: known.update({place: data} if isinstance(data, h5py.Dataset) else {}))
    name = dataset or next((one for one in TRIAL_AXIS if one in known), " or ".join(TRIAL_AXIS))
    check_known("dataset", name, known, path.name, " Pass dataset=.")
    data = known[name]
    if data.ndim < 2 or data.dtype.kind not in "fiu":
        raise ValueError(
            f"{path.name}: {name} has shape {data.shape} and type {data.dtype}; expected numbers of trials and voxels."
        )
    place = axis if axis is not None else TRIAL_AXIS.get(name)
    if place not in (0, -1, data.ndim - 1):
        raise ValueError(
            f"trial_axis={place} of {name}, shape {data.shape} in {path.name}; expected 0, or -1 for the last. Pass "
            "trial_axis=."
        )
    return _Stored(data, place % data.ndim, path.name)


def _are_names(events: Sequence[str] | Table | Sequence[Table]) -> TypeGuard[Sequence[str]]:
    """Whether these are names of pictures, and neither tables nor files of tables."""
    if not isinstance(events, Sequence) or isinstance(events, str):
        return False
    return all(isinstance(one, (str, int, float)) and not str(one).endswith((".tsv", ".csv")) for one in events)


def _truth(mask: ArrayLike, name: str) -> np.ndarray:
    """A mask of truth values, also if it says them as 1, and 0, less or NaN outside."""
    values = np.asarray(mask)
    inside = values > 0  # NaN is outside
    if not (values[inside] == 1).all():
        raise ValueError(
            f"regions[{name!r}] holds {', '.join(f'{one:g}' for one in np.unique(values)[:4])}, ...; expected truth "
            "values. Pass a comparison, such as labels == 1, or region numbers as regions= itself."
        )
    return inside


def _selected(
    regions: Masks | None, targets: Sequence[str] | Mapping[int, str] | None, space: tuple[int, ...]
) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    """Flat masks of regions (none for voxels), the voxels that are read, and names of the targets."""
    masks: dict[str, np.ndarray] = {}
    if isinstance(regions, Mapping):
        masks = {str(name): _truth(mask, str(name)) for name, mask in regions.items()}
    elif regions is not None and (numbers := np.asarray(regions)).dtype != bool:
        called = targets if isinstance(targets, Mapping) else {}
        known = [int(one) for one in np.unique(numbers) if one > 0]
        labels = [str(called.get(one, f"region {one}")) for one in known]
        if twice := repeated(labels):
            raise ValueError(
                f"targets calls several numbers of regions {twice[0]!r}; expected a name for each. Pass regions as a "
                "mapping from names to masks to join them."
            )
        masks = {label: numbers == one for label, one in zip(labels, known, strict=True)}
    voxels = np.ones(space, bool) if regions is None else np.asarray(regions)
    for name, mask in (masks or {"": voxels}).items():
        if mask.shape != space or not mask.any():
            which = f"regions[{name!r}]" if name else "regions"
            raise ValueError(
                f"{which} has shape {mask.shape} with {int(mask.sum())} voxels inside, and a trial "
                f"{space}; expected that shape and at least one voxel. MATLAB's axes come in reverse order."
            )
    if masks:
        flat = {name: mask.ravel() for name, mask in masks.items()}
        return flat, np.flatnonzero(np.any(list(flat.values()), 0)), list(masks)
    kind = "vertex" if len(space) == 1 else "voxel"
    return {}, np.flatnonzero(voxels), [f"{kind} {' '.join(map(str, place))}" for place in np.argwhere(voxels)]
