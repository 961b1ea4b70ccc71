"""fMRI volumes as nilearn reads them: single-trial betas in a mask or an atlas."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

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
from vislens_interp.validation import check_word

STANDARDISING = ("standardize", "detrend", "low_pass", "high_pass")
"""What a masker would do over the volumes of one call, which are a few at a time."""


def read_nifti(
    betas: Any,
    regions: Any,
    events: Any,
    images: Any,
    *,
    image_column: str = "stim_file",
    targets: Sequence[str] | Mapping[int, str] | None = None,
    standard: str = "none",
    units: str = "beta",
    subject: str | None = None,
    size: int | None = None,
    names: Sequence[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Recording:
    """Responses of regions or voxels to pictures: one volume for each trial.

    Args:
        betas: A 4D NIfTI file or image, or a list of these, one for each session; a few volumes are in memory at a
            time (of a file without compression).
        regions: A nilearn masker (``NiftiLabelsMasker``, ``NiftiMasker``, ``NiftiMapsMasker``), a 3D image or file of
            region numbers, 0 outside, or what ``nilearn.datasets.fetch_atlas_*`` gives.
        events: A table (file or DataFrame) for each session, with a row for each volume in its order: such as
            ``*_events.tsv``.
        images: Pictures, found by name: a folder, paths, a mapping from names to files, or (N, 3, H, W) with ``names``.
        image_column: The column of events that names each trial's picture.
        targets: Names of what the masker gives, in its order, or a mapping from region numbers to names; None takes
            those of the masker or atlas.
        standard: ``"session"`` standardises each target within each session, ``"none"`` leaves values.
        units, subject: What a value is measured in, and whose it is.
        size, names: Side in pixels of pictures in files; names of pictures in memory.
        cache: A file ``.npy`` that holds the responses on the disk.

    Raises:
        ImportError: nilearn is not installed.
        FileNotFoundError, KeyError, TypeError, ValueError: A file, a column or a picture is missing or cannot be read,
            counts differ, or the masker standardises.
    """
    refuse_without("nilearn", "brain", "from_nifti")
    check_word("standard", standard, ("session", "none"))
    volumes = [open_image(one, "betas") for one in several(betas)]
    labels = trial_labels(events, image_column, [image.shape[3] for image in volumes], "betas")
    paired = pair_by_name(labels, images, source=f"column {image_column!r} of events", size=size, names=names)
    masker, found = fitted_masker(regions, targets)
    width = masker_width(masker, volumes[0])
    named = check_targets_count(None if isinstance(targets, Mapping) else targets, found or width, "regions")
    sessions = [Session(image.shape[3], read_volumes(masker, image)) for image in volumes]
    responses = gather(sessions, paired, len(named), standard=standard, cache=cache)
    said = f"{units}, z-scored within sessions" if standard == "session" else units
    return Recording(paired.images, responses, named, subject, said, paired.names, paired.text)


def fitted_masker(regions: Any, targets: Any = None) -> tuple[Any, list[str]]:
    """A fitted masker, and the names of what it gives as far as it knows them.

    Raises:
        TypeError, ValueError: It is neither masker nor atlas, cannot be fitted, or would standardise.
    """
    from nilearn.maskers import NiftiLabelsMasker

    if not hasattr(regions, "transform"):
        image = getattr(regions, "maps", regions)
        if not isinstance(image, (str, os.PathLike)) and not hasattr(image, "affine"):
            raise TypeError(
                f"regions is a {type(regions).__name__}; expected a nilearn masker, an image or a file of region "
                "numbers, or an atlas that nilearn fetched."
            )
        known = getattr(regions, "labels", None)
        lut = _look_up(targets) if isinstance(targets, Mapping) else None
        background = [str(name) for name in known] if known is not None else None
        regions = NiftiLabelsMasker(image, labels=background if lut is None else None, lut=lut, reports=False)
    doing = [name for name in STANDARDISING if getattr(regions, name, None)]
    if doing:
        said = ", ".join(f"{name}={getattr(regions, name)!r}" for name in doing)
        raise ValueError(
            f"regions is a masker with {said}, which would apply to the few volumes of "
            "each reading; expected one that only averages. Leave it out; "
            "standard='session' standardises."
        )
    if not hasattr(regions, "n_elements_"):
        try:
            regions = regions.fit()
        except Exception as error:
            raise ValueError(
                f"regions: nilearn cannot fit this {type(regions).__name__} ({one_line(error)}); expected "
                "a masker with its mask or label image, or a 3D image of whole numbers."
            ) from error
    return regions, _names(regions)


def masker_width(masker: Any, image: Any) -> list[str]:
    """Numbered names of what a masker gives for one volume."""
    count = masker.transform(image.slicer[..., :1]).shape[1]
    return [f"region {number}" for number in range(1, count + 1)]


def _look_up(targets: Mapping[int, str]) -> Any:
    import pandas as pd

    rows = sorted((int(number), str(name)) for number, name in targets.items() if int(number) != 0)
    return pd.DataFrame(rows, columns=["index", "name"])


def _names(masker: Any) -> list[str]:
    names = getattr(masker, "region_names_", None)
    if names:
        return [str(names[key]) for key in sorted(names, key=str if isinstance(next(iter(names)), str) else None)]
    mask = getattr(masker, "mask_img_", None)
    if type(masker).__name__ == "NiftiMasker" and mask is not None:
        return [f"voxel {x} {y} {z}" for x, y, z in np.argwhere(np.asarray(mask.dataobj) != 0)]
    return []


def open_image(betas: Any, name: str) -> Any:
    """A 4D image whose values are still in its file."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    if isinstance(betas, (str, os.PathLike)):
        if not os.path.isfile(betas):
            raise FileNotFoundError(f"{name}={os.fspath(betas)!r}: no such file; expected a 4D NIfTI file.")
        try:
            image = nibabel.load(betas)
        except (ImageFileError, OSError, ValueError, EOFError) as error:
            raise ValueError(
                f"{name}={os.fspath(betas)!r} cannot be read by nibabel ({one_line(error)}); expected a 4D "
                "NIfTI file. Restore a copy."
            ) from error
    else:
        image = betas
    shape = getattr(image, "shape", None)
    if shape is None or not hasattr(image, "slicer") or len(shape) != 4:
        raise ValueError(
            f"{name} is a {type(image).__name__} of shape {shape}; expected a 4D image, a volume for each trial. Join "
            "single volumes with nilearn.image.concat_imgs."
        )
    return image


def read_volumes(masker: Any, image: Any) -> Callable[[int, int], np.ndarray]:
    """What gives (stop - start, K) of a masker for the volumes from start to stop, a few in memory at a time."""
    step = max(1, CHUNK_BYTES // (8 * int(np.prod(image.shape[:3]))))

    def read(start: int, stop: int) -> np.ndarray:
        try:
            parts = [
                masker.transform(image.slicer[..., first : min(first + step, stop)])
                for first in range(start, stop, step)
            ]
        except (OSError, EOFError) as error:
            raise ValueError(
                f"betas: volumes {start} to {stop} cannot be read ({one_line(error)}); expected a whole "
                "file. Restore a copy."
            ) from error
        return np.concatenate([np.atleast_2d(part) for part in parts])

    return read
