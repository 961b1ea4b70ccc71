"""fMRI volumes as nilearn reads them: single-trial betas in a mask or an atlas."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, Union, runtime_checkable

import numpy as np

from vislens_interp.brain.readers.trials import (
    Recording,
    Session,
    Table,
    gather,
    in_parts,
    name_targets,
    one_line,
    opening,
    pair_events,
    refuse_without,
)
from vislens_interp.brain.responses import NamedPictures
from vislens_interp.images import PathLike
from vislens_interp.validation import check_word

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage
    from sklearn.utils import Bunch

STANDARDISING = ("standardize", "detrend", "low_pass", "high_pass")
"""What a masker would do over the volumes of one call, which are a few at a time."""


@runtime_checkable
class Masker(Protocol):
    """What is asked of nilearn's maskers."""

    def fit(self) -> Self: ...

    def transform(self, imgs: "SpatialImage") -> np.ndarray: ...


Regions: TypeAlias = Union[Masker, PathLike, "SpatialImage", "Bunch"]
"""A masker, an image of region numbers or its file, or an atlas as nilearn fetches it."""


def read_nifti(
    betas: "SpatialImage | PathLike | Sequence[SpatialImage | PathLike]",
    regions: Regions,
    events: Table | Sequence[Table],
    images: NamedPictures,
    *,
    image_column: str = "stim_file",
    targets: Sequence[str] | Mapping[int, str] | None = None,
    standard: str = "none",
    units: str = "beta",
    subject: str | None = None,
    size: int | None = None,
    names: Sequence[str] | None = None,
    cache: PathLike | None = None,
) -> Recording:
    """Responses of regions or voxels to pictures: one volume for each trial.

    Args:
        betas: A 4D NIfTI file or image, or a list of these, one for each session; a few volumes are in memory at a
            time (of a file without compression).
        regions: A nilearn masker (``NiftiLabelsMasker``, ``NiftiMasker``, ``NiftiMapsMasker``), a 3D image or file of
            region numbers, 0 or below outside, or what ``nilearn.datasets.fetch_atlas_*`` gives. Voxels that are NaN in
            a volume are left out of its regions' means.
        events: A table (file or DataFrame) for each session, with a row for each volume in its order: such as
            ``*_events.tsv``.
        images: Pictures, found by name: a folder, paths, a mapping from names to files, or (N, 3, H, W) with ``names``.
        image_column: The column of events that names each trial's picture.
        targets: Names of what the masker gives, in its order, or, where ``regions`` is no masker, a mapping from region
            numbers to names; None takes those of the masker or atlas.
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
    recordings = [betas] if isinstance(betas, str) or not isinstance(betas, Sequence) else betas
    volumes = [open_image(image, "betas") for image in recordings]
    counts = [image.shape[3] for image in volumes]
    paired = pair_events(events, image_column, counts, "betas", images, size=size, names=names)
    masker, found = fitted_masker(regions, targets)
    sessions = [Session(image.shape[3], read_volumes(masker, image)) for image in volumes]
    named = name_targets(targets, names_found(found, sessions[0]), "regions")
    responses = gather(sessions, paired, len(named), standard=standard, cache=cache)
    return paired.recording(
        responses, named, subject, f"{units}, z-scored within sessions" if standard == "session" else units
    )


def fitted_masker(regions: Regions, targets: Sequence[str] | Mapping[int, str] | None) -> tuple[Masker, list[str]]:
    """A fitted masker that only averages, and the names of what it gives as far as it knows them."""
    masker = regions if isinstance(regions, Masker) else _labels_masker(regions, targets)
    doing = [name for name in STANDARDISING if getattr(masker, name, None)]
    if doing:
        said = ", ".join(f"{name}={getattr(masker, name)!r}" for name in doing)
        raise ValueError(
            f"regions is a masker with {said}, which would apply to the few volumes of "
            "each reading; expected one that only averages. Leave it out; "
            "standard='session' standardises."
        )
    if not hasattr(masker, "n_elements_"):
        try:
            masker = masker.fit()
        except Exception as error:
            raise ValueError(
                f"regions: nilearn cannot fit this {type(masker).__name__} ({one_line(error)}); expected "
                "a masker with its mask or label image, or a 3D image of whole numbers."
            ) from error
    return masker, _names(masker)


def names_found(found: Sequence[str], session: Session) -> list[str]:
    """A masker's names of regions, which have to be as many as it gives numbers of a volume; numbers without names."""
    width = session.read(0, 1).shape[1]
    if found and len(found) != width:
        raise ValueError(
            f"regions names {len(found)}, and {width} of them are left in the volumes (resampling or a mask took the "
            "others); expected as many. Bring regions to the volumes first: "
            "nilearn.image.resample_to_img(regions, volume, interpolation='nearest')."
        )
    return list(found) or [f"region {number}" for number in range(1, width + 1)]


def _labels_masker(
    regions: "SpatialImage | Bunch | PathLike", targets: Sequence[str] | Mapping[int, str] | None
) -> Masker:
    """A masker that averages in regions of an image or an atlas, which it or ``targets`` names."""
    import pandas as pd
    from nilearn.maskers import NiftiLabelsMasker

    image = getattr(regions, "maps", regions)
    if not isinstance(image, (str, os.PathLike)) and not hasattr(image, "affine"):
        raise TypeError(
            f"regions is a {type(regions).__name__}; expected a nilearn masker, an image or a file of region "
            "numbers, or an atlas that nilearn fetched."
        )
    image, numbers = _region_numbers(image)
    lut, labels = getattr(regions, "lut", None), getattr(regions, "labels", None)
    if isinstance(targets, Mapping):
        called = {int(number): str(name) for number, name in targets.items()}
    elif lut is not None:
        called = dict(zip(map(int, lut["index"]), map(str, lut["name"]), strict=True))
    elif labels is not None:
        names = [str(name) for name in labels]
        names = names[names[:1] in (["Background"], ["background"]) :]
        if len(names) != len(numbers):
            raise ValueError(
                f"regions names {len(names)} labels, and its image holds {len(numbers)} regions; expected as many, for "
                "no label says its number. Pass the image, and targets= as a mapping from its numbers to names."
            )
        called = dict(zip(numbers, names, strict=True))
    else:
        called = {number: str(number) for number in numbers}
    rows = [(number, called.get(number, f"region {number}")) for number in numbers]
    return NiftiLabelsMasker(image, lut=pd.DataFrame(rows, columns=["index", "name"]), reports=False)


def _region_numbers(image: Any) -> tuple["SpatialImage", list[int]]:
    """An image of whole numbers, 0 outside regions, and the numbers of these; below 0 and NaN are outside."""
    from nilearn.image import load_img, new_img_like

    try:
        loaded = load_img(image)
        values = np.asanyarray(loaded.dataobj)
    except Exception as error:
        raise ValueError(
            f"regions: nilearn cannot read this image ({one_line(error)}); expected a 3D image of whole numbers."
        ) from error
    values = values[..., 0] if values.ndim == 4 and values.shape[3] == 1 else values
    found = np.unique(values[np.isfinite(values)])
    if values.ndim != 3 or (found != np.floor(found)).any():
        raise ValueError(
            f"regions is an image of shape {values.shape} whose values are {found[:3].tolist()} and so on; expected a "
            "3D image of whole numbers. Of probabilities make a NiftiMapsMasker."
        )
    inside = np.where(values > 0, values, 0).astype(np.int32)
    return new_img_like(loaded, inside), [int(number) for number in found if number > 0]


def _names(masker: Masker) -> list[str]:
    names = getattr(masker, "region_names_", None)
    if names:
        return [str(names[place]) for place in sorted(names)]
    mask = getattr(masker, "mask_img_", None)
    if type(masker).__name__ == "NiftiMasker" and mask is not None:
        return [f"voxel {x} {y} {z}" for x, y, z in np.argwhere(np.asarray(mask.dataobj) != 0)]
    return []


def open_image(image: "SpatialImage | PathLike", name: str) -> "SpatialImage":
    """A 4D image whose values are still in its file."""
    import nibabel
    from nibabel.spatialimages import SpatialImage

    opened = image
    if isinstance(image, (str, os.PathLike)):
        with opening(image, name, "nibabel", "a 4D NIfTI file"):
            opened = nibabel.load(image)
    if not isinstance(opened, SpatialImage) or len(opened.shape) != 4:
        raise ValueError(
            f"{name} is a {type(opened).__name__} of shape {getattr(opened, 'shape', None)}; expected a 4D image, a "
            "volume for each trial. Join single volumes with nilearn.image.concat_imgs."
        )
    return opened


def read_volumes(masker: Masker, image: "SpatialImage") -> Callable[[int, int], np.ndarray]:
    """What gives (stop - start, K) of a masker for the volumes from start to stop, a few in memory at a time.

    Voxels without a value are left out of their region's mean, and a region without any voxel is NaN: nilearn takes
    them as 0, which is left to it where a masker gives no means.
    """
    means = getattr(masker, "strategy", None if hasattr(masker, "maps_img") else "mean") == "mean"

    made: Any = type(image)

    def transformed(values: np.ndarray) -> np.ndarray:
        return np.atleast_2d(masker.transform(made(values, image.affine)))

    def read(start: int, stop: int) -> np.ndarray:
        try:
            volumes = image.slicer[..., start:stop]
            values = np.asanyarray(volumes.dataobj)
            there = np.isfinite(values)
            if there.all() or not means:
                return np.atleast_2d(masker.transform(volumes))
            share = transformed(there.astype(np.float32)) / transformed(np.ones(values.shape, np.float32))
            return transformed(np.where(there, values, 0)) / np.where(share > 0, share, np.nan)
        except (OSError, EOFError) as error:
            raise ValueError(
                f"betas: volumes {start} to {stop} cannot be read ({one_line(error)}); expected a whole "
                "file. Restore a copy."
            ) from error
        except ValueError as error:
            raise ValueError(
                f"regions: nilearn cannot read them in volumes {start} to {stop} ({one_line(error)}); expected regions "
                "in the space of the volumes."
            ) from error

    return in_parts(read, int(np.prod(image.shape[:3])))
