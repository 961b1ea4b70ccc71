"""Tables of events, as BIDS has them: a row for each trial, one column with the name of its picture."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeGuard, Union

from vislens_interp.brain.pictures import NamedPictures
from vislens_interp.brain.readers.trials import Paired, names_picture, one_line, pair_by_name, refuse_without
from vislens_interp.images import PathLike
from vislens_interp.validation import closest

if TYPE_CHECKING:
    import pandas as pd

Table: TypeAlias = Union[PathLike, "pd.DataFrame"]
"""A file, or a pandas DataFrame."""


def is_frame(value: object) -> TypeGuard["pd.DataFrame"]:
    """Whether it is a pandas DataFrame, which is not imported for the question."""
    return hasattr(value, "columns") and hasattr(value, "to_dict")


def read_frame(
    table: Table, column: str, *, argument: str, column_argument: str, remark: str = ""
) -> tuple["pd.DataFrame", str]:
    """A table (commas between cells in ``.csv``, else tabs) with a column of text, and what to call it.

    ``argument`` and ``column_argument`` are the names under which both were given, ``remark`` is said of the column
    where it is missing.
    """
    refuse_without("pandas", "brain", f"a table of {argument}")
    import pandas as pd

    called = argument
    if isinstance(table, (str, os.PathLike)):
        path = Path(table)
        called = path.name
        if not path.is_file():
            raise FileNotFoundError(f"{argument}={str(path)!r}: no such file; expected a table, a row for each trial.")
        try:
            table = pd.read_csv(path, sep="," if path.suffix.lower() == ".csv" else "\t", dtype={column: str})
        except (ValueError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{argument}={str(path)!r} cannot be read as a table ({one_line(error)}); expected a header and a row "
                "for each trial."
            ) from error
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"{argument} is a {type(table).__name__}; expected a file .tsv or .csv, or a pandas DataFrame.")
    if column not in table.columns:
        near = closest(column, [str(name) for name in table.columns], cutoff=0.4)
        raise KeyError(f"{column_argument}={column!r} is not in {called}. {near}{remark}")
    return table, called


def read_events(events: Table, column: str, column_argument: str = "image_column") -> tuple["pd.DataFrame", str]:
    """A table of events, whose rows have to be in the order of ``onset`` where it has that column, and its name."""
    remark = " It names each trial's picture; BIDS calls it stim_file."
    rows, called = read_frame(events, column, argument="events", column_argument=column_argument, remark=remark)
    if "onset" in rows.columns and not rows["onset"].is_monotonic_increasing:
        raise ValueError(
            f"{called}: rows are not in the order of their onsets; expected trials as they were shown, because volumes "
            "are. Sort them, if the volumes have that order."
        )
    return rows, called


def pair_events(
    events: Table | Sequence[Table],
    column: str,
    volumes: Sequence[int],
    what: str,
    images: NamedPictures,
    *,
    size: int | None,
    names: Sequence[str] | None,
) -> Paired:
    """The picture that each volume's trial names, of one table a session.

    A session has a volume for each row of its table, or for each row that names a picture; ValueError for others.
    """
    tables = [events] if isinstance(events, str) or not isinstance(events, Sequence) else events
    if len(tables) != len(volumes):
        raise ValueError(
            f"events holds {len(tables)} tables for {len(volumes)} sessions of {what}; expected one for each."
        )
    labels: list[object] = []
    for table, count in zip(tables, volumes, strict=True):
        rows, called = read_events(table, column)
        found = list(rows[column])
        named = list(filter(names_picture, found))
        if count not in (len(found), len(named)):
            raise ValueError(
                f"{called} has {len(found)} rows, {len(named)} of them with a picture in {column!r}, and {what} "
                f"{count} volumes; expected a volume for each row, or for each row with a picture."
            )
        labels += found if count == len(found) else named
    return pair_by_name(labels, images, source=f"column {column!r} of events", size=size, names=names)
