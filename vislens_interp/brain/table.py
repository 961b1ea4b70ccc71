"""A table of image paths and responses, as people keep it: CSV or TSV, a row for each trial or image."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vislens_interp.brain.responses import as_names, check_known
from vislens_interp.images import PathLike
from vislens_interp.tables import read_given

ABSENT = frozenset({"", "nan", "na", "n/a", "none", "null"})


@dataclass(frozen=True)
class Table:
    """N pictures in the order of their first row, responses (T, K) with NaN for empty cells, what each row showed.

    ``shown`` holds T positions in ``paths``; ``targets`` the K columns' names, ``image_column`` that of the paths.
    """

    paths: list[Path]
    responses: Tensor
    shown: list[int]
    targets: list[str]
    image_column: str


def read_table(
    path: PathLike,
    *,
    image_column: str | None = None,
    targets: Sequence[str] | None = None,
    folder: PathLike | None = None,
) -> Table:
    """Read a table with a header; several rows with the same path are repetitions of that image.

    Args:
        path: The file: tabs between cells if its name ends in ``.tsv`` or ``.tab``, else commas.
        image_column: The column of paths; None takes the first that is not the row numbers that pandas writes.
        targets: The columns of responses; None takes all others.
        folder: Where relative paths start; None is the table's own folder.

    Raises:
        FileNotFoundError, KeyError: The table, pictures that it names or a column are not there.
        ValueError: It has no rows, a row of another length, or a cell that is no number (empty, NaN and NA are absent).
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"path is a {type(path).__name__}; expected the path of a CSV or TSV. Write a data frame to one:"
            " frame.to_csv(path, index=False)."
        )
    path = Path(path)
    header, lines = read_given(path, "path")
    named = [place for place in range(len(header)) if not _is_index(header[place], [row[place] for row in lines])]
    twice = sorted({header[place] for place in named if header.count(header[place]) > 1})
    if twice:
        raise ValueError(
            f"path={str(path)!r} has several columns called {', '.join(map(repr, twice))}; expected each name once."
        )
    image = named[0] if image_column is None else _column(image_column, header)
    names = [header[place] for place in named if place != image] if targets is None else as_names(targets, "targets")
    columns = [_column(name, header) for name in names]
    start = path.parent if folder is None else Path(folder)

    if nameless := [number for number, row in enumerate(lines, 2) if not row[image].strip()]:
        raise ValueError(
            f"path={str(path)!r} names no picture in row {nameless[0]}, column {header[image]!r} ({len(nameless)} such "
            "rows); expected a path in each. Leave these rows out."
        )
    order: dict[Path, int] = {}
    shown = [order.setdefault(start / row[image], len(order)) for row in lines]
    missing = [str(picture) for picture in order if not picture.is_file()]
    if missing:
        raise FileNotFoundError(
            f"path={str(path)!r} names {len(missing)} pictures in column {header[image]!r} that are not there, such as "
            f"{missing[0]!r}; expected paths below {str(start)!r}. Pass folder=, where they start, or image_column=."
        )
    cells = [
        [_number(row[column], number, header[column], path) for column in columns]
        for number, row in enumerate(lines, 2)
    ]
    return Table(list(order), torch.tensor(cells, dtype=torch.float32), shown, names, header[image])


def _is_index(name: str, cells: list[str]) -> bool:
    """Whether a column holds the row numbers that pandas writes, without a name or as ``Unnamed: 0``."""
    return (not name or name.startswith("Unnamed:")) and all(cell.strip().isdecimal() for cell in cells)


def _column(name: str, header: list[str]) -> int:
    check_known("column", name.strip(), header, "the table")
    return header.index(name.strip())


def _number(cell: str, row: int, column: str, path: Path) -> float:
    if cell.strip().lower() in ABSENT:
        return math.nan
    try:
        return float(cell)
    except ValueError:
        raise ValueError(
            f"path={str(path)!r}, row {row}, column {column!r}: {cell!r} is no number; expected one, or an empty cell "
            "where it is absent."
        ) from None
