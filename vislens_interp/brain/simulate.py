"""Brain data whose truth is known, in the very files in which real data are published.

Beside them lies ``simulated.json``, which says what was planted, so that nobody takes them for recordings.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from vislens_interp.brain.planted import PlantedTruth, Tuning, plant
from vislens_interp.brain.windows import window_masks
from vislens_interp.files import write_atomically, write_text
from vislens_interp.images import check_images, to_pil
from vislens_interp.validation import check_whole

SIMULATED = "simulated.json"
"""The file in a folder that says that its data are simulated."""

ROIS = ("OFA", "FFA-1", "PPA")
CHANNELS = (
    *("Pz", "P3", "P7", "O1", "Oz", "O2", "P4", "P8", "P1", "P5", "PO7", "PO3", "POz", "PO4", "PO8", "P6", "P2"),
)
"""The 17 channels of THINGS-EEG2's preprocessed files, in their order."""

Names = Sequence[str] | Mapping[str, Tuning]
Snr = float | Mapping[str, float]


def simulate_algonauts(
    folder: str | os.PathLike[str],
    images: Tensor,
    *,
    rois: Names = ROIS,
    subject: int = 1,
    snr: Snr = 1.0,
    repetitions: int = 3,
    sessions: int = 4,
    vertices: int = 6,
    seed: int = 0,
) -> PlantedTruth:
    """Write ``folder/subj01`` in the Algonauts 2023 layout; :func:`~vislens_interp.brain.load_algonauts` reads it.

    Args:
        images: (N, 3, H, W) in [0, 1]; all are training images. Responses are those to the saved files, 8 bits a
            channel.
        rois: Regions, or region to tuning.
        subject: 1 to 8; subjects with equal tuning and other seeds share what they answer to and not their noise.
        snr: SD of a region's signal over that of its noise in one repetition.
        repetitions: Times that every image is shown; the file holds their average.
        sessions: Scanner sessions, each with an offset and a gain of its own, z-scored before averaging as published.
        vertices: Of each region in each hemisphere, and as many that belong to none.

    Raises:
        ValueError: Images break the pixel convention, a number is out of range, or nothing can be planted.
    """
    pictures, truth = _prepare(images, rois, snr, repetitions=repetitions, sessions=sessions, vertices=vertices)
    place = Path(folder) / f"subj{subject:02d}"
    draw = np.random.default_rng([seed, subject])
    for number, picture in enumerate(to_pil(pictures), 1):
        _save_image(place / "training_split/training_images" / f"train-{number:04d}_nsd-{7 * number:05d}.png", picture)
    trials, session = _regions(truth, repetitions, sessions, vertices, draw)
    group, mapping = "floc-faces", {0: "Unknown"} | dict(enumerate(truth.targets, 1))
    for side, betas in trials.items():
        standard = _within_sessions(betas, session).mean(1).astype(np.float32)
        _save(place / "training_split/training_fmri" / f"{side}_training_fmri.npy", standard)
        labels = np.repeat(np.arange(len(truth.targets) + 1), vertices)
        _save(place / "roi_masks" / f"{side}.{group}_challenge_space.npy", labels)
    # The published mapping is a pickled dictionary: the one reason for which this library writes such a file.
    _save(place / "roi_masks" / f"mapping_{group}.npy", np.array(mapping, dtype=object), pickled=True)
    _say_simulated(Path(folder), truth)
    return truth


def simulate_brainactiv(
    folder: str | os.PathLike[str],
    images: Tensor,
    *,
    rois: Names = ROIS,
    subject: int = 1,
    snr: Snr = 1.0,
    repetitions: int = 3,
    sessions: int = 4,
    vertices: int = 6,
    shared: int = 0,
    missing: float = 0.0,
    seed: int = 0,
) -> PlantedTruth:
    """Write ``folder/subj01`` in BrainACTIV's layout; :func:`~vislens_interp.brain.load_brainactiv` reads it.

    Args:
        images, rois, subject, snr, repetitions, sessions, vertices, seed: As :func:`simulate_algonauts`. Every region
            has t values; one vertex more of its mask lies below any sensible threshold and holds noise alone.
        shared: The last so many images are in ``shared1000.npy``.
        missing: Share of trials that were never recorded, 0 to 1; never an image's first.

    Returns, raises: As :func:`simulate_algonauts`.
    """
    pictures, truth = _prepare(images, rois, snr, repetitions=repetitions, sessions=sessions, vertices=vertices)
    if not 0 <= missing < 1 or not 0 <= shared <= len(pictures):
        raise ValueError(
            f"missing={missing}, shared={shared} of {len(pictures)} images; expected a share from 0 to below 1, and at "
            "most as many images as there are."
        )
    folder = Path(folder)
    place = folder / f"subj{subject:02d}"
    draw = np.random.default_rng([seed, subject])
    coco = 100_000 + 37 * np.arange(len(pictures))
    for number, picture in zip(coco, to_pil(pictures), strict=True):
        _save_image(folder / "images" / f"{number}.png", picture)
    _save(folder / "shared1000.npy", coco[len(coco) - shared :])
    _save(place / "coco_ids.npy", coco)
    trials, session = _regions(truth, repetitions, sessions, vertices, draw)
    absent = draw.random(session.shape) < missing
    absent[:, 0] = False
    session[absent] = -1
    _save(place / "session_id.npy", session.astype(np.int16))
    for side, betas in trials.items():
        noise = draw.standard_normal((*session.shape, len(truth.targets)))
        betas = np.concatenate([betas, noise], -1)
        betas[absent] = np.nan
        _save(place / f"{side}.fmri_data.npy", betas.astype(np.float16))
        regions = np.repeat(np.arange(len(truth.targets) + 1), vertices)
        labels = np.concatenate([regions, 1 + np.arange(noise.shape[-1])])
        t_values = np.where(np.arange(len(labels)) < len(regions), 9.0, 0.5).astype(np.float32)
        for number, name in enumerate(truth.targets, 1):
            _save(place / "roi" / f"{side}.{name}_mask.npy", labels == number)
            _save(place / "roi" / f"{side}.{name}_tval.npy", t_values)
    _say_simulated(folder, truth)
    return truth


def simulate_things_eeg(
    folder: str | os.PathLike[str],
    images: Tensor,
    *,
    test_images: Tensor | None = None,
    channels: Names = CHANNELS,
    subject: int = 1,
    snr: Snr = 1.0,
    repetitions: int = 4,
    test_repetitions: int = 80,
    seed: int = 0,
) -> PlantedTruth:
    """Write ``folder/sub-01`` and pictures as THINGS-EEG2's; :func:`~vislens_interp.brain.load_things_eeg` reads it.

    A channel's signal is 0 until 0.04 s after onset and constant from then on, in white noise; so a window of n of the
    N time points in all windows has the signal-to-noise ratio snr · √(n / N).

    Args:
        images: (N, 3, H, W) in [0, 1], of the training part, over which responses are standardised.
        test_images: Of the test part; None writes none.
        channels: Names, or name to tuning.
        snr: SD of a channel's signal over that of its noise in one repetition, averaged over all windows of the paper.
        repetitions, test_repetitions: Times that every image is shown.

    Returns, raises: As :func:`simulate_algonauts`.
    """
    pictures, truth = _prepare(images, channels, snr, repetitions=repetitions, test_repetitions=test_repetitions)
    folder = Path(folder)
    draw = np.random.default_rng([seed, subject])
    times = np.linspace(-0.2, 0.79, 100)
    inside = window_masks("all", times)[0]["all"]
    noise = np.sqrt(inside.sum()) / np.array([truth.snr[name] for name in truth.targets])
    index: dict[str, list[str]] = {}
    for part, shown, times_shown in (("training", pictures, repetitions), ("test", test_images, test_repetitions)):
        if shown is None:
            continue
        shown = _saved(shown)
        short = part.removesuffix("ing")
        concepts = [f"{number:05d}_object{number}" for number in range(1, len(shown) + 1)]
        files = [f"object{number}_01b.png" for number in range(1, len(shown) + 1)]
        for concept, file, picture in zip(concepts, files, to_pil(shown), strict=True):
            _save_image(folder / f"{part}_images" / concept / file, picture)
        index |= {f"{short}_img_concepts": concepts, f"{short}_img_files": files}
        signal = truth(shown).numpy()[:, None, :, None] * (times >= 0.04)
        data = signal + noise[:, None] * draw.standard_normal((len(shown), times_shown, len(noise), len(times)))
        found = {"preprocessed_eeg_data": data, "ch_names": list(truth.targets), "times": times}
        path = folder / f"sub-{subject:02d}" / f"preprocessed_eeg_{part}.npy"
        _save(path, np.array(found, dtype=object), pickled=True)
    _save(folder / "image_metadata.npy", np.array(index, dtype=object), pickled=True)
    _say_simulated(folder, truth)
    return truth


def _prepare(images: Tensor, names: Names, snr: Snr, **counts: int) -> tuple[Tensor, PlantedTruth]:
    """Pictures as they will be in their files, and the truth planted over them."""
    check_whole(1, **counts)
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"target {name!r} cannot be part of a file's name; expected one without slashes.")
    pictures = _saved(images)
    if len(pictures) < 2:
        raise ValueError(f"images holds {len(pictures)} pictures; expected at least 2, over which responses vary.")
    return pictures, plant(names, pictures, snr)


def _say_simulated(folder: Path, truth: PlantedTruth) -> None:
    planted = {name: asdict(truth.tuning[name]) | {"snr": truth.snr[name]} for name in truth.targets}
    write_text(
        folder / SIMULATED, json.dumps({"what": "simulated responses, no recordings", "planted": planted}, indent=1)
    )


def _saved(images: Tensor) -> Tensor:
    return (check_images(images).float() * 255).round() / 255


def _regions(
    truth: PlantedTruth, repetitions: int, sessions: int, vertices: int, draw: np.random.Generator
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Betas of each hemisphere (N, R, V), the first vertices of no region; and the session of each trial (N, R).

    The noise of a region is common to its vertices; what each vertex has besides cancels in the region's mean.
    """
    signal = truth.responses.numpy()
    count = len(signal)
    common = draw.standard_normal((count, repetitions, len(truth.targets)))
    common /= np.array([truth.snr[name] for name in truth.targets])
    region = signal[:, None] + common
    session = (draw.permutation(count * repetitions) % sessions + 1).reshape(count, repetitions)
    offset, gain = draw.normal(0, 2, sessions + 1), draw.uniform(0.5, 2, sessions + 1)
    own = draw.standard_normal((count, repetitions, len(truth.targets), 2 * vertices))
    own -= own.mean(-1, keepdims=True)
    each = np.split(region[..., None] + own, 2, -1)
    betas = {}
    for side, values in zip(("lh", "rh"), each, strict=True):
        rest = draw.standard_normal((count, repetitions, vertices))
        together = np.concatenate([rest, values.reshape(count, repetitions, -1)], -1)
        betas[side] = together * gain[session][..., None] + offset[session][..., None]
    return betas, session


def _within_sessions(betas: np.ndarray, session: np.ndarray) -> np.ndarray:
    standard = np.empty_like(betas)
    for number in np.unique(session):
        trials = session == number
        spread = betas[trials].std(0)
        standard[trials] = (betas[trials] - betas[trials].mean(0)) / np.where(spread > 0, spread, 1)
    return standard


def _save(path: Path, array: np.ndarray, *, pickled: bool = False) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a name, NumPy would add a suffix to it
            np.save(file, array, allow_pickle=pickled)

    write_atomically(path, write)


def _save_image(path: Path, picture: Image.Image) -> None:
    write_atomically(path, lambda temporary: picture.save(temporary, "PNG"))
