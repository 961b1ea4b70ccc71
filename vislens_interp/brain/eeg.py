"""THINGS-EEG2, as preprocessed by its authors: one number for each image, repetition and channel."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from vislens_interp.brain.dataset import BrainDataset
from vislens_interp.brain.pickled import read_pickled
from vislens_interp.brain.published import find_subject, refuse_missing
from vislens_interp.brain.responses import check_known
from vislens_interp.brain.windows import Window, window_masks
from vislens_interp.files import rebuilding
from vislens_interp.images import SUFFIXES
from vislens_interp.validation import check_word

THINGS_EEG = "THINGS-EEG2's preprocessed data (osf.io/anp5v, github.com/gifale95/eeg_encoding)"
THINGS_IMAGES = "THINGS-EEG2's image set (osf.io/y63gw: training_images, test_images, image_metadata.npy)"

SPACING = 0.2
"""Seconds from one image's onset to the next one's (Gifford et al. 2022)."""

KEYS = ("preprocessed_eeg_data", "ch_names", "times")


def load_things_eeg(
    folder: str | os.PathLike[str],
    subject: int = 1,
    *,
    windows: Window | Sequence[Window] = "all",
    channels: Sequence[str] | None = None,
    part: Literal["training", "test"] = "training",
    images: str | os.PathLike[str] | None = None,
    size: int = 224,
) -> BrainDataset:
    """Responses of EEG channels to THINGS images: the mean over a time window.

    Args:
        folder: What holds ``sub-01``, or that folder itself.
        subject: 1 to 10.
        windows: ``"all"``: one value, the mean over all time points in any of the paper's six windows; one of
            :data:`~vislens_interp.brain.windows.WINDOWS` by name; an interval in seconds, such as ``(0.1, 0.2)``, ends
            included; or a list of these, which makes a target of each channel and window (``"Oz N170"``).
        channels: Names; None takes all (17 occipital and parietal ones as published).
        part: ``"training"``: 16,540 images × 4 repetitions; ``"test"``: 200 × 80.
        images: What holds ``training_images`` and ``test_images``; None looks into ``folder`` and around it.
        size: Side in pixels to which pictures are resized where they are read (500 as published).

    Returns:
        N images × repetitions × channels (and windows), in SDs of the noise (the data are noise-normalised), not µV.

    Raises:
        FileNotFoundError, KeyError, ValueError: A file, a channel or a window is missing (the message says where it
            comes from, or near names); a file asks to run something, is damaged or does not fit; a window is empty.

    Source: Gifford et al. 2022; the file is that of its ``02_eeg_preprocessing/preprocessing_utils.py`` (commit
    d5fc1d82). The windows: the paper's App. B.1, read as one mean over the union of the windows **(ours)**, for it says
    only "averaged all data within those time windows".
    """
    check_word("part", part, ("training", "test"))
    place = find_subject(folder, [f"sub-{subject:02d}", f"sub-{subject}"], THINGS_EEG)
    data, names, times = _read(place / f"preprocessed_eeg_{part}.npy")
    chosen = names if channels is None else [channels] if isinstance(channels, str) else list(channels)
    for name in chosen:
        check_known("channel", name, names, place.name)
    columns = [names.index(name) for name in chosen]
    pictures = _pictures(Path(folder) if images is None else Path(images), part, images is None)
    if len(pictures) != len(data):
        raise ValueError(
            f"images and responses have unequal counts: {len(pictures)} in {part}_images, {len(data)} in "
            f"{place.name}'s file; expected the same. Get both again, from {THINGS_IMAGES} and {THINGS_EEG}."
        )
    masks, several = window_masks(windows, times)
    _warn_late({label: float(times[mask].max()) for label, mask in masks.items()})
    responses = np.stack([_mean(data, columns, mask) for mask in masks.values()], -1)
    targets = [f"{name} {label}" if several else name for name in chosen for label in masks]
    return BrainDataset.from_arrays(
        pictures,
        responses.reshape(*responses.shape[:2], -1),
        targets=targets,
        subject=place.name,
        units="noise-normalised EEG",
        size=size,
    )


def _read(path: Path) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Data (images, repetitions, channels, times), channel names and times in seconds."""
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r}: no such file; expected preprocessed EEG. It comes from {THINGS_EEG}.")
    found = read_pickled(path)
    missing = [key for key in KEYS if key not in found]
    if missing:
        raise ValueError(
            f"{str(path)!r} has no {', '.join(missing)} (it has {', '.join(map(str, found))}); expected "
            f"{', '.join(KEYS)}. It comes from {THINGS_EEG}."
        )
    data, names, times = found["preprocessed_eeg_data"], [str(name) for name in found["ch_names"]], found["times"]
    times = np.asarray(times, dtype=np.float64)
    shape = getattr(data, "shape", ())
    if len(shape) != 4 or shape[2:] != (len(names), len(times)) or data.dtype.kind != "f":
        raise ValueError(
            f"{str(path)!r}: preprocessed_eeg_data has shape {shape} for {len(names)} channels and {len(times)} times; "
            f"expected numbers of (images, repetitions, {len(names)}, {len(times)}). It comes from {THINGS_EEG}."
        )
    return data, names, times


def _mean(data: np.ndarray, columns: list[int], mask: np.ndarray) -> np.ndarray:
    """(images, repetitions, channels) means over time, a thousand images at a time."""
    parts = [
        data[start : start + 1000][:, :, columns][..., mask].mean(-1, dtype=np.float64).astype(np.float32)
        for start in range(0, len(data), 1000)
    ]
    return np.concatenate(parts)


def _warn_late(ends: dict[str, float]) -> None:
    late = {label: end for label, end in ends.items() if end > SPACING + 1e-6}
    if late:
        said = ", ".join(f"{label} (to {end:.2f} s)" for label, end in late.items())
        warnings.warn(
            f"windows: {said} reach beyond {SPACING} s, when the next image came on: what is recorded there answers to "
            "later images too, which are random and so add noise.",
            stacklevel=3,
        )


def _pictures(folder: Path, part: str, search: bool) -> list[Path]:
    """The pictures in the order of the responses' rows."""
    places = [folder]
    if search:
        places += [folder / "image_set", folder.parent, folder.parent / "image_set"]
    for place in places:
        root = place / f"{part}_images"
        if not root.is_dir():
            continue
        index = place / "image_metadata.npy"
        if index.is_file():
            with rebuilding(index, "the list of pictures"):
                said, key = read_pickled(index), {"training": "train", "test": "test"}[part]
                concepts, files = said[f"{key}_img_concepts"], said[f"{key}_img_files"]
                found = [root / str(concept) / str(file) for concept, file in zip(concepts, files, strict=True)]
            refuse_missing(found, THINGS_IMAGES)
            return found
        # Rows are numbered by the sorted paths: training_images/00001_aardvark/aardvark_01b.jpg comes first.
        return sorted(file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    raise FileNotFoundError(
        f"{str(folder)!r} has no {part}_images; expected the folder of pictures. Pass images=, where it is. It comes "
        f"from {THINGS_IMAGES}."
    )
