"""A BIDS dataset with preprocessed runs: a beta for each trial, by nilearn's general linear model."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vislens_interp.brain.readers.nifti import Masker, Regions, fitted_masker, names_found, open_image, read_volumes
from vislens_interp.brain.readers.trials import (
    Recording,
    Session,
    gather,
    name_targets,
    names_picture,
    pair_by_name,
    read_events,
    refuse_without,
)
from vislens_interp.brain.responses import NamedPictures
from vislens_interp.images import PathLike
from vislens_interp.validation import check_word

if TYPE_CHECKING:
    import pandas as pd
    from nibabel.spatialimages import SpatialImage

ENTITIES = ("ses", "run", "acq", "dir")
"""What tells a subject's runs of one task apart, by which volumes, events and confounds are paired."""
SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
"""Of the units that a NIfTI header may give its times in."""
LONGEST = 100.0
"""Seconds from one volume to the next beyond which they are milliseconds."""


def read_bids(
    folder: PathLike,
    task: str,
    regions: Regions,
    *,
    space: str,
    events: str = "stim_file",
    subject: str = "01",
    images: NamedPictures | None = None,
    derivatives: str = "derivatives",
    hrf_model: str = "spm",
    confounds: str | None = None,
    targets: Sequence[str] | Mapping[int, str] | None = None,
    standard: str = "none",
    size: int | None = None,
    cache: PathLike | None = None,
) -> Recording:
    """Responses of regions to pictures: each trial a regressor of its own in its run's general linear model.

    Args:
        folder: The dataset's root; ``*_events.tsv`` are in it, preprocessed ``*_bold.nii.gz`` below ``derivatives``.
        task, space: Labels in the names of the files, such as ``"things"`` and ``"MNI152NLin2009cAsym"``.
        regions: As in :func:`~vislens_interp.brain.readers.nifti.read_nifti`. Time series are averaged in them first;
            for ordinary least squares that gives the same as averaging betas.
        events: The column of the events that names each trial's picture; rows without one (``"n/a"``) are modelled by
            their ``trial_type`` and give no response.
        subject: The label behind ``sub-``, or with it.
        images: Pictures, found by name; None is the folder ``stimuli`` of the dataset.
        derivatives: Folder of the preprocessed data below ``folder``.
        hrf_model: A haemodynamic response of nilearn's.
        confounds: A strategy of ``nilearn.interfaces.fmriprep.load_confounds_strategy``, such as ``"simple"``; None
            takes none, and the pairing says so.
        targets, standard, size, cache: As in :func:`~vislens_interp.brain.readers.nifti.read_nifti`.

    Returns:
        Betas in percent of the region's mean signal over the run.

    Raises:
        ImportError: nilearn is not installed.
        FileNotFoundError, KeyError, ValueError: A file is missing, a run has no events or no repetition time, or what
            ``read_nifti`` refuses.

    Source: nilearn's ``make_first_level_design_matrix`` and ``run_glm`` (ordinary least squares), one regressor a trial
    ("LSA", Mumford et al. 2012), cosine drifts below 0.01 Hz. The first volume is taken at the ``StartTime`` of a run's
    sidecar, to which fMRIPrep shifts slices.
    """
    refuse_without("nilearn", "brain", "from_bids")
    check_word("standard", standard, ("session", "none"))
    root, subject = Path(folder), str(subject).removeprefix("sub-")
    runs = _runs(root, root / derivatives, subject, task, space)
    masker, found = fitted_masker(regions, targets)
    labels: list[str] = []
    sessions: list[Session] = []
    for bold, table in runs:
        rows, _ = read_events(table, events, "events")
        names, betas = _betas(bold, rows, events, masker, hrf_model, confounds)
        labels += names
        sessions.append(Session(len(betas), lambda start, stop, betas=betas: betas[start:stop]))
    if images is None:
        images = root / "stimuli"
        if not images.is_dir():
            raise FileNotFoundError(f"{str(images)!r}: no such folder; expected the dataset's pictures. Pass images=.")
    paired = pair_by_name(labels, images, source=f"column {events!r} of *_events.tsv", size=size)
    named = name_targets(targets, names_found(found, sessions[0]), "regions")
    responses = gather(sessions, paired, len(named), standard=standard, cache=cache)
    taken = f"confounds {confounds!r}" if confounds else "no confounds"
    units = "percent signal change" + (", z-scored within runs" if standard == "session" else "")
    remark = f"; {len(runs)} runs, {hrf_model} response, {taken}"
    return paired.recording(responses, named, f"sub-{subject}", units, remark)


def _runs(root: Path, derivatives: Path, subject: str, task: str, space: str) -> list[tuple[Path, Path]]:
    """Each preprocessed run with its events, paired by session and run."""
    from nilearn.interfaces.bids import get_bids_files, parse_bids_filename

    for place, what in ((root, "a BIDS dataset"), (derivatives, "preprocessed data, such as fMRIPrep's")):
        if not place.is_dir():
            raise FileNotFoundError(f"{str(place)!r}: no such folder; expected {what}.")

    def files(place: Path, tag: str, kind: str, **filters: str) -> dict[tuple[str | None, ...], Path]:
        listed = get_bids_files(
            str(place), tag, kind, subject, "func", [("task", task), *filters.items()], sub_folder=True
        )
        by_run: dict[tuple[str | None, ...], Path] = {}
        for file in listed:
            said = parse_bids_filename(file)["entities"]
            key = tuple(said.get(entity) for entity in ENTITIES)
            if key in by_run:
                raise ValueError(
                    f"{Path(file).name} and {by_run[key].name} are of one run; expected one {tag} file for each. Take "
                    "derivatives= of one pipeline."
                )
            by_run[key] = Path(file)
        return by_run

    # A raw run has no space, so that it is never taken for a preprocessed one.
    bold = files(derivatives, "bold", "nii*", space=space)
    if not bold:
        raise FileNotFoundError(
            f"{str(derivatives)!r} holds no sub-{subject}_*task-{task}_*space-{space}_*bold.nii(.gz); expected "
            "preprocessed runs. Check subject, task and space."
        )
    tables = files(root, "events", "tsv")
    for key, file in bold.items():
        if key not in tables:
            raise FileNotFoundError(
                f"{file.name} has no *_events.tsv of the same session and run below {str(root)!r} "
                f"({len(tables)} of the task are there); expected one for each run."
            )
    return [(bold[key], tables[key]) for key in sorted(bold, key=str)]


def _betas(
    bold: Path, rows: "pd.DataFrame", column: str, masker: Masker, hrf_model: str, confounds: str | None
) -> tuple[list[str], np.ndarray]:
    """Names of pictures, one for each trial with one, and (trials, K) betas of a run."""
    from nilearn.glm.first_level import make_first_level_design_matrix, mean_scaling, run_glm
    from nilearn.interfaces.fmriprep import load_confounds_strategy

    for needed in ("onset", "duration"):
        if needed not in rows.columns:
            raise KeyError(f"events of {bold.name} have no column {needed!r}; expected onset and duration in seconds.")
    image = open_image(bold, "bold")
    signal = read_volumes(masker, image)(0, image.shape[3])
    kept = [names_picture(label) for label in rows[column]]
    types = [f"trial_{place:05d}" if there else "other" for place, there in enumerate(kept)]
    if "trial_type" in rows.columns:
        types = [
            kind if there else f"other_{said}"
            for kind, there, said in zip(types, kept, rows["trial_type"], strict=True)
        ]
    nuisance, sample = None, None
    if confounds is not None:
        nuisance, sample = load_confounds_strategy(str(bold), denoise_strategy=confounds)
    first, step = _times(bold, image)
    last = first + step * image.shape[3]
    late = int(np.sum(rows["onset"].to_numpy() >= last))
    if late:
        raise ValueError(
            f"events of {bold.name}: {late} of {len(rows)} begin after its {image.shape[3]} volumes of {step:g} s, the "
            f"last one at {rows['onset'].max():g}; expected onsets in seconds. Convert them, or leave these rows out."
        )
    design = make_first_level_design_matrix(
        np.arange(image.shape[3]) * step + first,
        rows[["onset", "duration"]].assign(trial_type=types),
        hrf_model=hrf_model,
        add_regs=nuisance,
    )
    taken = slice(None) if sample is None else sample
    scaled, _ = mean_scaling(signal[taken], axis=0)
    fits = run_glm(scaled, design.to_numpy()[taken], noise_model="ols")
    assignment, results = fits
    betas = np.empty((design.shape[1], signal.shape[1]))
    for label, result in results.items():
        betas[:, assignment == label] = result.theta
    places = [design.columns.get_loc(kind) for kind, there in zip(types, kept, strict=True) if there]
    return [str(label) for label, there in zip(rows[column], kept, strict=True) if there], betas[places]


def _times(bold: Path, image: "SpatialImage") -> tuple[float, float]:
    """Seconds at which the first volume was taken, and from one to the next: of the sidecar, or of the header."""
    sidecar = bold.with_name(bold.name.split(".")[0] + ".json")
    said = json.loads(sidecar.read_text(encoding="utf-8")) if sidecar.is_file() else {}
    first, stated = float(said.get("StartTime") or 0), said.get("RepetitionTime")
    if stated:
        if not 0 < float(stated) < LONGEST:
            raise ValueError(
                f"{sidecar.name} has RepetitionTime {stated}; expected seconds from one volume to the next, less "
                f"than {LONGEST:g}. Correct it: BIDS has no milliseconds there."
            )
        return first, float(stated)
    header: Any = image.header
    zooms, unit = header.get_zooms(), header.get_xyzt_units()[1]
    # Without a unit, 1 is what a header holds that nobody has filled in.
    if len(zooms) > 3 and zooms[3] > 0 and (unit in SECONDS or zooms[3] != 1):
        return first, float(zooms[3]) * SECONDS.get(unit, 1.0)
    raise ValueError(
        f"{bold.name} has no RepetitionTime in {sidecar.name} and none in its header; expected seconds from one volume "
        "to the next. Write it into the sidecar."
    )
