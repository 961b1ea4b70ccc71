"""The Natural Scenes Dataset, in two published layouts: responses of regions, averaged over their vertices."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from vislens_interp.brain.dataset import BrainDataset
from vislens_interp.brain.pickled import read_pickled
from vislens_interp.brain.published import check_shape, find_files, find_subject, read_array, refuse_missing
from vislens_interp.brain.regions import Rois, Standard, region_means, region_weights
from vislens_interp.validation import check_word

ALGONAUTS = "the Algonauts 2023 challenge data (algonauts.csail.mit.edu, github.com/gifale95/algonauts_2023)"
BRAINACTIV_FMRI = "scripts/download_nsd_fmri.py of github.com/diegogcerdas/BrainACTIV"
BRAINACTIV_IMAGES = "scripts/download_nsd_images.py of github.com/diegogcerdas/BrainACTIV"

Hemisphere = Literal["both", "lh", "rh"]
T_THRESHOLD = 5.0


def load_algonauts(
    folder: str | os.PathLike[str],
    subject: int = 1,
    *,
    rois: Rois | None = None,
    hemisphere: Hemisphere = "both",
    part: Literal["training", "test"] = "training",
    size: int = 224,
) -> BrainDataset:
    """NSD as prepared for the Algonauts Project 2023: betas z-scored within each session and averaged over repetitions.

    Args:
        folder: What holds ``subj01``, or that folder itself.
        rois: Regions, such as ``["FFA-1", "PPA"]``, or new ones out of several, ``{"FFA": ["FFA-1", "FFA-2"]}``; None
            takes all. The vertices of a region are averaged, those of both hemispheres together, without those that
            lack a value; pictures without any value are left out.
        part: ``"training"``, or ``"test"`` for those who have its responses.
        size: Side in pixels to which pictures are resized where they are read (425 as published).

    Returns:
        N images (read from their files when asked for) × 1 × regions, without a noise ceiling: trials are averaged.

    Raises:
        FileNotFoundError, KeyError, ValueError: A file or a region is missing (the message says where it comes from, or
            near names), or files do not fit together.

    Source: Gifford et al. 2023, arXiv 2301.03198; the files are those of its
    ``01_challenge_data_preparation/challenge_data_preparation.py`` (commit 4bfbf43d).
    """
    check_word("part", part, ("training", "test"))
    place = find_subject(folder, [f"subj{subject:02d}"], ALGONAUTS)
    split, hemispheres = place / f"{part}_split", _hemispheres(hemisphere)
    betas = {side: read_array(split / f"{part}_fmri" / f"{side}_{part}_fmri.npy", ALGONAUTS) for side in hemispheres}
    pictures = _algonauts_images(split / f"{part}_images", part)
    for side, array in betas.items():
        if array.ndim != 2 or len(array) != len(pictures):
            raise ValueError(
                f"{side}_{part}_fmri.npy has shape {array.shape} for {len(pictures)} pictures in {part}_images; "
                f"expected ({len(pictures)}, vertices), equal counts. Get both again from {ALGONAUTS}."
            )
    masks = {side: _algonauts_masks(place / "roi_masks", side, array.shape[1]) for side, array in betas.items()}
    names, weights = region_weights(rois, masks, f"{place.name} of the Algonauts layout")
    means = region_means(betas, weights, names, None, "none")[:, 0]
    kept = np.asarray(~np.isnan(means).all(1))
    pictures = [picture for picture, there in zip(pictures, kept.tolist(), strict=True) if there]
    return BrainDataset.from_arrays(
        pictures,
        means[kept],
        targets=names,
        subject=place.name,
        units="z-scored beta",
        size=size,
        names=[path.stem.split("_")[-1] for path in pictures],
    )


def _algonauts_images(folder: Path, part: str) -> list[Path]:
    """``train-0001_nsd-00013.png`` and so on, in the order of the responses' rows."""
    prefix = "train" if part == "training" else "test"
    example = f"pictures such as {prefix}-0001_nsd-00013.png"
    found = find_files(folder, f"{prefix}-*_nsd-*.png", example, "one for each row of responses", ALGONAUTS)
    numbers = [int(path.name.split("_")[0].removeprefix(f"{prefix}-")) for path in found]
    for expected, number in enumerate(numbers, 1):
        if number != expected:
            raise FileNotFoundError(
                f"{str(folder)!r}: picture {prefix}-{expected:04d} is missing ({found[expected - 1].name} comes in its "
                f"place); expected pictures 1 to {len(numbers)} without a gap. They come from {ALGONAUTS}."
            )
    return found


def _algonauts_masks(folder: Path, side: str, vertices: int) -> dict[str, np.ndarray]:
    """A mask of the hemisphere's vertices for each region that a mapping names."""
    example = "names of regions, such as mapping_floc-faces.npy"
    mappings = find_files(folder, "mapping_*.npy", "mapping_*.npy", example, ALGONAUTS)
    masks: dict[str, np.ndarray] = {}
    for file in mappings:
        group = file.stem.removeprefix("mapping_")
        file_name = f"{side}.{group}_challenge_space.npy"
        labels = read_array(folder / file_name, ALGONAUTS)
        check_shape(file_name, labels, (vertices,), "as many vertices as the responses have", ALGONAUTS)
        for number, name in read_pickled(file).items():
            if int(number) != 0:  # "Unknown"
                masks[f"{group}.{name}" if name in masks else str(name)] = np.asarray(labels == int(number))
    return masks


def load_brainactiv(
    folder: str | os.PathLike[str],
    subject: int = 1,
    *,
    rois: Rois | None = None,
    hemisphere: Hemisphere = "both",
    part: Literal["train", "test", "all"] = "all",
    t_threshold: float = T_THRESHOLD,
    standard: Standard | None = None,
    size: int = 224,
) -> BrainDataset:
    """NSD's surface betas as BrainACTIV's scripts write them: trial by trial (or averaged, as in its first release).

    Args:
        folder: What holds ``subj01``, ``shared1000.npy`` and ``images``.
        rois, hemisphere, size: As :func:`load_algonauts`; the regions are the files ``roi/lh.<ROI>_mask.npy``.
        part: ``"train"`` without the 1,000 images that all subjects saw, ``"test"`` those alone, or ``"all"``.
        t_threshold: Smallest t value of the localizer for a vertex to count, where a region has t values
            (``roi/lh.<ROI>_tval.npy``). 5 in the present release, 2 in that of October 2024.
        standard: Each vertex z-scored within each ``"session"``, over ``"all"`` trials, or ``"none"``. None takes
            sessions where ``session_id.npy`` names them, else all trials; averaged files are left as they are.

    Returns:
        N images × up to 3 repetitions × regions; images that were never shown are left out. Sessions are standardised
        over all their images, those of the other part included, as in the release.

    Raises:
        FileNotFoundError, KeyError, ValueError: As :func:`load_algonauts`; a region has no vertex above the threshold.

    Source: García Cerdas et al., ICLR 2025, github.com/diegogcerdas/BrainACTIV: ``brainactiv/datasets/nsd.py``,
    ``scripts/download_nsd_fmri.py`` (commit b3898832); ``dataset/nsd.py`` (a1ca291a). Deviation: vertices with a
    missing value in a recorded trial are left out of their region.
    """
    check_word("part", part, ("train", "test", "all"))
    if standard is not None:
        check_word("standard", standard, ("session", "all", "none"), " None does what can be done.")
    place = find_subject(folder, [f"subj{subject:02d}"], BRAINACTIV_FMRI)
    coco = np.asarray(read_array(place / "coco_ids.npy", BRAINACTIV_FMRI))
    betas = {}
    for side in _hemispheres(hemisphere):
        array = read_array(place / f"{side}.fmri_data.npy", BRAINACTIV_FMRI)
        if array.ndim not in (2, 3) or len(array) != len(coco):
            raise ValueError(
                f"{side}.fmri_data.npy has shape {array.shape} for {len(coco)} images in coco_ids.npy; expected "
                f"({len(coco)}, 3, vertices), or ({len(coco)}, vertices) if averaged. Get both again from "
                f"{BRAINACTIV_FMRI}."
            )
        betas[side] = array
    session, standard = _sessions(place, betas, standard)
    masks = {
        side: _brainactiv_masks(place / "roi", side, array.shape[-1], t_threshold) for side, array in betas.items()
    }
    names, weights = region_weights(rois, masks, f"{place.name} of BrainACTIV's layout (t > {t_threshold:g})")
    responses = region_means(betas, weights, names, session, standard)

    kept = ~np.isnan(responses).all((1, 2))
    if part != "all":
        shared = np.isin(coco, read_array(place.parent / "shared1000.npy", BRAINACTIV_FMRI))
        kept &= shared if part == "test" else ~shared
    if not kept.any():
        raise ValueError(f"part={part!r} of {place.name} has no recorded image; expected some. Take part='all'.")
    pictures = [place.parent / "images" / f"{number}.png" for number in coco[kept]]
    refuse_missing(pictures, BRAINACTIV_IMAGES)
    units = {"session": "z-scored beta", "all": "beta, z-scored over all trials", "none": "beta"}[standard]
    return BrainDataset.from_arrays(
        pictures,
        responses[kept],
        targets=names,
        subject=place.name,
        units=units,
        size=size,
        names=[f"coco-{number}" for number in coco[kept]],
    )


def _sessions(
    place: Path, betas: Mapping[str, np.ndarray], standard: Standard | None
) -> tuple[np.ndarray | None, Standard]:
    """The session of each trial (N, R), where it is known and wanted, and how responses are standardised."""
    first = next(iter(betas.values()))
    file = place / "session_id.npy"
    if standard == "session" and (first.ndim == 2 or not file.is_file()):
        why = "responses are averaged over trials" if first.ndim == 2 else f"{str(file)!r} is missing"
        raise FileNotFoundError(
            f"standard='session', but {why}; expected the session of each trial. It comes from {BRAINACTIV_FMRI}; or "
            "pass standard='all'."
        )
    if standard is None:
        standard = "none" if first.ndim == 2 else "session" if file.is_file() else "all"
    if standard != "session":
        return None, standard
    session = np.asarray(read_array(file, BRAINACTIV_FMRI))
    check_shape("session_id.npy", session, first.shape[:2], "a session for each trial", BRAINACTIV_FMRI)
    return session, standard


def _brainactiv_masks(folder: Path, side: str, vertices: int, t_threshold: float) -> dict[str, np.ndarray]:
    named = f"{side}.<ROI>_mask.npy"
    found = find_files(folder, f"{side}.*_mask.npy", named, "a mask for each region", BRAINACTIV_FMRI)

    def read(path: Path) -> np.ndarray:
        array = read_array(path, BRAINACTIV_FMRI)
        check_shape(path.name, array, (vertices,), "as many vertices as the responses have", BRAINACTIV_FMRI)
        return np.asarray(array)

    masks = {}
    for file in found:
        name = file.stem.removeprefix(f"{side}.").removesuffix("_mask")
        masks[name] = read(file).astype(bool)
        t_values = folder / f"{side}.{name}_tval.npy"
        if t_values.is_file():
            masks[name] &= read(t_values) > t_threshold
    return masks


def _hemispheres(hemisphere: Hemisphere) -> tuple[str, ...]:
    check_word("hemisphere", hemisphere, ("both", "lh", "rh"))
    return ("lh", "rh") if hemisphere == "both" else (hemisphere,)
