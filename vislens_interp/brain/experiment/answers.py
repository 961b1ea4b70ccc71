"""Responses by trial: from mappings, tables, epochs and spikes, kept once each."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vislens_interp.brain.readers.events import read_events
from vislens_interp.files import write_text
from vislens_interp.validation import closest

Answers = dict[str, list[float]]
FILE = "responses.json"


def read_answers(source: Any, targets: Sequence[str], trial_column: str, **given: Any) -> Answers:
    """(K,) responses of each trial, NaN where a target has none.

    Args:
        source: A mapping from trial ids to a number (of the only target), to K numbers or to ``{target: number}``; a
            table (``.csv``, ``.tsv`` or a pandas DataFrame) with a column of trial ids and one for each target; MNE's
            epochs or their file with trial ids in the metadata; or an NWB file with them in a table of presentations.
        trial_column: Of tables, metadata and presentations.
        **given: For epochs what :func:`~vislens_interp.brain.readers.epochs.epoch_values` takes (``windows``), for NWB
            what :func:`~vislens_interp.brain.readers.nwb.spike_counts` takes (``window``).

    Raises:
        KeyError, TypeError, ValueError: It holds no such column or target, a trial comes twice with different
            responses, or something is no number.
    """
    if isinstance(source, Mapping):
        return {str(trial): _row(trial, value, targets) for trial, value in source.items()}
    suffix = Path(source).suffix if isinstance(source, (str, os.PathLike)) else ""
    if suffix == ".fif" or hasattr(source, "get_data"):
        from vislens_interp.brain.readers.epochs import epoch_values

        labels, values, names = epoch_values(source, trial_column, **given)
    elif suffix == ".nwb" or hasattr(source, "intervals"):
        from vislens_interp.brain.readers.nwb import spike_counts

        labels, values, names, *_ = spike_counts(source, trial_column, **given)
    elif suffix in (".csv", ".tsv") or hasattr(source, "columns"):
        table, _ = read_events(source, trial_column, "trial_column")
        names = [str(name) for name in table.columns if str(name) in targets]
        labels, values = list(table[trial_column]), table[names].to_numpy(dtype=float)
    else:
        raise TypeError(
            f"responses is a {type(source).__name__}; expected a mapping from trial ids, a table, epochs "
            "or an NWB file."
        )
    if not set(names) & set(targets):
        raise KeyError(
            f"responses hold {', '.join(map(repr, names[:5])) or 'no target'}; expected the experiment's targets "
            f"{', '.join(map(repr, targets))}. Name columns, channels or units like them."
        )
    found: Answers = {}
    for label, row in zip(labels, values, strict=True):
        given_row = _row(label, dict(zip(names, row.tolist(), strict=True)), targets, extra=True)
        if str(label) in found and not _same(found[str(label)], given_row):
            raise ValueError(f"trial {label!r} comes twice in responses, with different numbers; expected one each.")
        found[str(label)] = given_row
    return found


def merge(known: Answers, told: Answers, trials: Sequence[str], *, replace: bool) -> tuple[Answers, int]:
    """What is known after a telling, and the number of responses that are new.

    NaN never takes the place of a number, and a number always that of NaN.

    Raises:
        KeyError, ValueError: A trial was never asked for, or has another response already and ``replace`` is False.
    """
    merged, new = {trial: list(row) for trial, row in known.items()}, 0
    asked = set(trials)
    for trial, row in told.items():
        if trial not in asked:
            raise KeyError(
                f"trial {trial!r} was never asked for. {closest(trial, trials, limit=3, otherwise='Asked:')} Trial ids "
                "stand in conditions.csv of each block."
            )
        before = merged.setdefault(trial, [math.nan] * len(row))
        for place, value in enumerate(row):
            if math.isnan(value) or value == before[place]:
                continue
            if not math.isnan(before[place]) and not replace:
                raise ValueError(
                    f"trial {trial!r} has the response {before[place]:g} already, and {value:g} was told; expected the "
                    "same, or replace=True to correct it."
                )
            before[place] = value
            new += 1
    return merged, new


def load_answers(folder: Path) -> Answers:
    """What :func:`save_answers` wrote, or nothing."""
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return {str(trial): [math.nan if one is None else float(one) for one in row] for trial, row in said.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{str(path)!r} cannot be read as responses ({error}); expected what Experiment.tell wrote. Restore a copy."
        ) from error


def save_answers(folder: Path, answers: Answers) -> None:
    """Write all responses, whole or as before."""
    plain = {trial: [None if math.isnan(one) else one for one in row] for trial, row in answers.items()}
    write_text(folder / FILE, json.dumps(plain))


def _row(trial: Any, value: Any, targets: Sequence[str], *, extra: bool = False) -> list[float]:
    if isinstance(value, Mapping):
        if not extra and (unknown := [name for name in value if str(name) not in targets]):
            raise KeyError(
                f"trial {trial!r}: {unknown[0]!r} is no target. {closest(str(unknown[0]), targets, cutoff=0.4)}"
            )
        numbers = [value.get(name, math.nan) for name in targets]
    else:
        numbers = np.atleast_1d(np.asarray(value)).tolist()
    try:
        row = [math.nan if one is None else float(one) for one in numbers]
    except (TypeError, ValueError):
        raise ValueError(f"trial {trial!r} has the response {value!r}; expected numbers, NaN where absent.") from None
    if len(row) != len(targets) or any(math.isinf(one) for one in row):
        raise ValueError(
            f"trial {trial!r} has the response {value!r}; expected {len(targets)} finite numbers, of "
            f"{', '.join(map(repr, targets[:5]))}, NaN where absent."
        )
    return row


def _same(first: list[float], second: list[float]) -> bool:
    return all(one == two or (math.isnan(one) and math.isnan(two)) for one, two in zip(first, second, strict=True))
