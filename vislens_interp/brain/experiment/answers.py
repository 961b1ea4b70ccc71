"""Responses by trial id: from mappings, tables, epochs and spikes, each kept once."""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
import torch
from numpy.typing import ArrayLike

from vislens_interp.brain.readers.epochs import read_epochs
from vislens_interp.brain.readers.nwb import read_nwb
from vislens_interp.brain.readers.trials import Recording, Table, is_frame, read_frame
from vislens_interp.files import rebuilding, write_text
from vislens_interp.schema import check_schema
from vislens_interp.validation import closest

if TYPE_CHECKING:
    from mne import BaseEpochs
    from pynwb import NWBFile

Answers = dict[str, list[float]]
Response: TypeAlias = ArrayLike | Mapping[str, float | None] | None
"""Of a trial: a number, K numbers, or numbers by target."""
Told: TypeAlias = Union[Mapping[str, Response], Table, "BaseEpochs", "NWBFile"]
FILE = "responses.json"


def read_answers(
    source: Told, targets: Sequence[str], trials: Sequence[str], column: str, reading: Mapping[str, object]
) -> Answers:
    """(K,) responses of each trial, NaN where a target has none; what it takes and refuses ``Experiment.tell`` says."""
    suffix = Path(source).suffix.lower() if isinstance(source, (str, os.PathLike)) else ""
    if suffix == ".fif" or hasattr(source, "get_data"):
        if "windows" not in reading:
            raise TypeError("responses are epochs and windows is missing; expected one, such as windows='N170'.")
        names, rows = _by_trial(read_epochs, source, trials, column, reading)
    elif suffix == ".nwb" or hasattr(source, "intervals"):
        names, rows = _by_trial(read_nwb, source, trials, column, reading)
    elif reading:
        raise TypeError(f"{next(iter(reading))}= belongs to epochs and NWB files, and responses is neither. Drop it.")
    elif isinstance(source, Mapping):
        return {str(trial): _row(trial, value, targets) for trial, value in source.items()}
    elif is_frame(source) or (isinstance(source, (str, os.PathLike)) and suffix in (".csv", ".tsv")):
        names, rows = _of_table(source, column)
    else:
        raise TypeError(
            f"responses is {source!r:.60}; expected a mapping from trial ids, a table (.csv, .tsv or DataFrame), MNE's "
            "epochs (-epo.fif) or an NWB file."
        )
    if not set(names) & set(targets):
        raise KeyError(
            f"responses hold {', '.join(map(repr, names[:5])) or 'no column'}; expected the experiment's targets "
            f"{', '.join(map(repr, targets[:5]))}. Name columns, channels or units like them."
        )
    found: Answers = {}
    for trial, values in rows:
        row = _row(trial, {name: value for name, value in zip(names, values, strict=True) if name in targets}, targets)
        if not np.array_equal(found.setdefault(trial, row), row, equal_nan=True):
            raise ValueError(f"trial {trial!r} comes twice in responses, with different numbers; expected one each.")
    return found


def merge(known: Answers, told: Answers, trials: Sequence[str], *, replace: bool) -> tuple[Answers, int]:
    """What is known after a telling, and how many numbers are new; KeyError, ValueError as ``Experiment.tell``."""
    merged, new, asked = {trial: list(row) for trial, row in known.items()}, 0, set(trials)
    for trial, row in told.items():
        if trial not in asked:
            near = closest(trial, list(trials), limit=3, otherwise="Asked:") if trials else "Call ask first."
            raise KeyError(
                f"trial {trial!r} was never asked for. {near} Trial ids stand in each block's conditions.csv."
            )
        before = merged.setdefault(trial, [math.nan] * len(row))
        for place, value in enumerate(row):
            if math.isnan(value) or value == before[place]:
                continue
            if not math.isnan(before[place]) and not replace:
                raise ValueError(
                    f"trial {trial!r} has the response {before[place]:g} already, and {value:g} was told; expected the "
                    "same. Pass replace=True to correct it."
                )
            before[place] = value
            new += 1
    return merged, new


def load_answers(folder: Path, count: int) -> Answers:
    """What :func:`save_answers` wrote, (count,) numbers a trial, or nothing."""
    path = folder / FILE
    if not path.is_file():
        return {}
    with rebuilding(path, "responses"):
        said = json.loads(path.read_text(encoding="utf-8"))
        check_schema(said, {str: [(float, None)]}, repr(str(path)), "responses")
        if trial := next((one for one, row in said.items() if len(row) != count), None):
            raise ValueError(f"{trial!r} has {len(said[trial])} numbers; expected {count}")
    return {trial: [math.nan if one is None else float(one) for one in row] for trial, row in said.items()}


def save_answers(folder: Path, answers: Answers) -> None:
    """Write all responses, whole or not at all."""
    plain = {trial: [None if math.isnan(one) else one for one in row] for trial, row in answers.items()}
    write_text(folder / FILE, json.dumps(plain))


def _by_trial(
    reader: Callable[..., Recording], source: Told, trials: Sequence[str], column: str, reading: Mapping[str, object]
) -> tuple[list[str], Iterable[tuple[str, list[float]]]]:
    """Names and rows by a reader that pairs trials with pictures; here a trial's id is the name of a picture."""
    blank = torch.zeros(1, 3, 1, 1).expand(len(trials), -1, -1, -1)
    try:
        recording = reader(source, blank, image_column=column, names=trials, **reading)
    except (KeyError, ValueError) as error:
        raise type(error)(f"responses, paired by trial id: {error.args[0]}") from error
    by_trial = zip(recording.names, recording.responses.double().tolist(), strict=True)
    # Padding of a trial that came less often than another is all NaN.
    return recording.targets, [(one, row) for one, rows in by_trial for row in rows if not np.isnan(row).all()]


def _of_table(source: Table, column: str) -> tuple[list[str], Iterable[tuple[str, list[float]]]]:
    """Columns and rows of a table, whatever their order."""
    table, _ = read_frame(source, column, argument="responses", column_argument="trial_column")
    table = table[table[column].notna()]
    names = [str(name) for name in table.columns]
    return names, zip(map(str, table[column]), table.to_numpy(dtype=object, na_value=np.nan).tolist(), strict=True)


def _row(trial: str, value: Response, targets: Sequence[str]) -> list[float]:
    if isinstance(value, Mapping):
        if unknown := [str(name) for name in value if name not in targets]:
            raise KeyError(f"trial {trial!r}: {unknown[0]!r} is no target. {closest(unknown[0], targets, cutoff=0.4)}")
        numbers = [value.get(name) for name in targets]
    else:
        numbers = np.atleast_1d(np.asarray(value, dtype=object)).tolist()
    try:
        row = [math.nan if one is None else float(one) for one in numbers]
    except (TypeError, ValueError):
        row = [math.inf]
    if len(row) != len(targets) or any(map(math.isinf, row)):
        raise ValueError(
            f"trial {trial!r} has the response {value!r}; expected {len(targets)} finite numbers, of "
            f"{', '.join(map(repr, targets[:5]))}, NaN where absent."
        )
    return row
