"""Tables of events, as BIDS has them: a row for each trial, one column with the name of its picture."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vislens_interp.brain.readers.trials import one_line, refuse_without
from vislens_interp.validation import closest


def read_events(events: Any, column: str, argument: str = "image_column") -> tuple[Any, str]:
    """A table of events and what to call it.

    Args:
        events: A file (tabs between cells in ``.tsv``, commas in ``.csv``), or a pandas DataFrame.
        column: Has to be there; ``argument`` is under which name it was given.

    Where there is a column ``onset``, rows have to be in its order.

    Raises:
        FileNotFoundError, TypeError, KeyError, ValueError: There is no such table, it cannot be read, lacks the column,
            or its rows are not in the order of their onsets.
    """
    refuse_without("pandas", "brain", "a table of events")
    import pandas as pd

    called = "events"
    if isinstance(events, (str, os.PathLike)):
        path = Path(events)
        called = path.name
        if not path.is_file():
            raise FileNotFoundError(f"events={str(path)!r}: no such file; expected a table such as *_events.tsv.")
        try:
            events = pd.read_csv(path, sep="," if path.suffix == ".csv" else "\t", keep_default_na=True)
        except (ValueError, UnicodeDecodeError) as error:
            raise ValueError(
                f"events={str(path)!r} cannot be read as a table ({one_line(error)}); expected a header and "
                "a row for each trial."
            ) from error
    if not isinstance(events, pd.DataFrame):
        raise TypeError(f"events is a {type(events).__name__}; expected a file .tsv or .csv, or a pandas DataFrame.")
    if column not in events.columns:
        remark = " It names each trial's picture; BIDS calls it stim_file." if argument == "image_column" else ""
        near = closest(column, [str(name) for name in events.columns], cutoff=0.4)
        raise KeyError(f"{argument}={column!r} is not in {called}. {near}{remark}")
    if "onset" in events.columns and not events["onset"].is_monotonic_increasing:
        raise ValueError(
            f"{called}: rows are not in the order of their onsets; expected trials as they were shown, because volumes "
            "are. Sort them, if the volumes have that order."
        )
    return events, called


def several(source: Any) -> list[Any]:
    """What is given for one session, or for several, as a list."""
    return list(source) if isinstance(source, Sequence) and not isinstance(source, (str, bytes)) else [source]


def trial_labels(events: Any, column: str, volumes: Sequence[int], what: str) -> list[Any]:
    """The picture that each volume's trial names, of one table a session.

    A session has a volume for each row of its table, or for each row that names a picture; both are checked by their
    number.

    Raises:
        ValueError: Numbers of tables or of rows differ from those of sessions or volumes.
    """
    tables = several(events)
    if len(tables) != len(volumes):
        raise ValueError(
            f"events holds {len(tables)} tables for {len(volumes)} sessions of {what}; expected one for each."
        )
    labels: list[Any] = []
    for table, count in zip(tables, volumes, strict=True):
        rows, called = read_events(table, column)
        found = list(rows[column])
        named = [label for label in found if str(label).strip().lower() not in ("", "n/a", "nan", "none", "<na>")]
        if count not in (len(found), len(named)):
            raise ValueError(
                f"{called} has {len(found)} rows, {len(named)} of them with a picture in {column!r}, and {what} "
                f"{count} volumes; expected a volume for each row, or for each row with a picture."
            )
        labels += found if count == len(found) else named
    return labels
