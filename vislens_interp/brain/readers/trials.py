"""What all readers share: trials paired with pictures by name, tables of events, responses gathered by picture."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeGuard, Union

import numpy as np
import torch
from torch import Tensor

from vislens_interp.brain.responses import (
    Images,
    NamedPictures,
    Pictures,
    as_names,
    open_pictures,
    refuse_missing_files,
    repeated,
    repetitions,
)
from vislens_interp.files import allocate, write_atomically
from vislens_interp.images import PathLike
from vislens_interp.validation import closest, missing_library

if TYPE_CHECKING:
    import pandas as pd

Table: TypeAlias = Union[PathLike, "pd.DataFrame"]
"""A file, or a pandas DataFrame."""
CHUNK_BYTES = 1 << 26
"""Of float64 values that are in memory at a time, beside the responses that come out."""
FORMS: tuple[Callable[[str], str], ...] = (
    lambda name: name,
    lambda name: name.replace("\\", "/"),
    lambda name: _slashed(name).name,
    lambda name: str(_slashed(name).with_suffix("")),
    lambda name: _slashed(name).stem,
)
"""A picture's whole name, with slashes as Windows does not write them, its file's, and both without the suffix."""


def _slashed(name: str) -> PurePosixPath:
    return PurePosixPath(name.replace("\\", "/"))


class Recording(NamedTuple):
    """What a reader gives: the arguments of :class:`~vislens_interp.brain.dataset.BrainDataset`."""

    images: Images
    responses: Tensor
    targets: list[str]
    subject: str | None
    units: str
    names: list[str]
    pairing: str


@dataclass(frozen=True)
class Paired:
    """Pictures that were shown, which of them each kept trial showed, and how that was found.

    ``kept`` holds positions of trials with a picture, ``shown`` of pictures in ``images``, one for each of them.
    """

    images: Images
    names: list[str]
    kept: np.ndarray
    shown: np.ndarray
    text: str

    def recording(
        self, responses: Tensor, targets: list[str], subject: str | None, units: str, remark: str = ""
    ) -> Recording:
        """These pictures with responses to them (N, R, K); ``remark`` is added to how they were paired."""
        return Recording(self.images, responses, targets, subject, units, self.names, self.text + remark)


@dataclass(frozen=True)
class Session:
    """Trials of one session: ``read(start, stop)`` gives (stop - start, K) numbers of these ``count`` trials."""

    count: int
    read: Callable[[int, int], np.ndarray]


def refuse_without(package: str, extra: str, reader: str, otherwise: str = "") -> None:
    """Raise ImportError where the package that a reader, or something else, needs is missing."""
    if find_spec(package) is None:
        raise ImportError(f"{missing_library(f'{reader} needs the package {package}', extra)}{otherwise}")


def one_line(error: Exception) -> str:
    """What another library's error says, in one line of at most 200 characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


@contextmanager
def opening(file: PathLike, argument: str, library: str, expected: str) -> Iterator[None]:
    """Inside, ``library`` opens a file; FileNotFoundError, ValueError in one line where it is not there or refused."""
    called = f"{argument}={os.fspath(file)!r}"
    if not os.path.isfile(file):
        raise FileNotFoundError(f"{called}: no such file; expected {expected}.")
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{called} cannot be read by {library} ({one_line(error)}); expected {expected}. Restore a copy."
        ) from error


def names_picture(label: object) -> bool:
    """Whether a cell of a table names a picture, and is neither empty nor NaN nor ``"n/a"``."""
    return str(label).strip().lower() not in ("", "n/a", "nan", "none", "<na>")


def pair_by_name(
    labels: Sequence[object],
    images: NamedPictures,
    *,
    source: str,
    size: int | None = None,
    names: Sequence[str] | None = None,
) -> Paired:
    """Find the picture that each trial names; nothing is taken from the order of either.

    A label is a picture's name, such as ``"faces/anna.png"`` (or with the backslashes of Windows), its file name alone,
    or either without the suffix; it is empty, NaN or ``"n/a"`` where a trial shows none. ``source`` says where labels
    come from. TypeError or ValueError for pictures without names, a label of none or of several of them, or no label.
    """
    texts = [str(label).strip() for label in labels]
    kept = [trial for trial, text in enumerate(texts) if names_picture(text)]
    if not kept:
        raise ValueError(
            f"{source} names no picture in {len(texts)} trials; expected names of images. Pass another column."
        )
    wanted = list(dict.fromkeys(texts[trial] for trial in kept))
    if isinstance(images, Mapping):
        images, names = _of_mapping(images, wanted, source)
    pictures, known = _named(images, size, names)
    rows = _rows(wanted, known, source)
    used = sorted(set(rows.values()))
    place = {row: number for number, row in enumerate(used)}
    shown = np.array([place[rows[texts[trial]]] for trial in kept])
    text = f"{len(kept)} trials showed {len(used)} pictures, paired by {source}"
    if left := len(texts) - len(kept):
        text += f"; {left} trials without a picture are left out"
    if left := len(known) - len(used):
        text += f"; {left} pictures were never shown and are left out"
    chosen = pictures[used] if isinstance(pictures, Tensor) else pictures.at(used)
    refuse_missing_files(chosen)
    return Paired(chosen, [known[row] for row in used], np.array(kept), shown, text)


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
        except ValueError as error:
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
    import pandas as pd

    if "onset" not in rows.columns:
        return rows, called
    onsets = pd.Series(pd.to_numeric(rows["onset"], errors="coerce"))
    if onsets.isna().any():
        bad = int(onsets.isna().to_numpy().argmax())
        raise ValueError(
            f"{called}: onset {rows['onset'].iloc[bad]!r} in row {bad + 1} is no number; expected seconds. Mend it, or "
            "leave the column out where the order of rows is that of the trials."
        )
    if not onsets.is_monotonic_increasing:
        raise ValueError(
            f"{called}: rows are not in the order of their onsets; expected trials as they were shown, because volumes "
            "are. Sort them, if the volumes have that order."
        )
    return rows.assign(onset=onsets), called


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


def gather(
    sessions: Sequence[Session],
    paired: Paired,
    targets: int,
    *,
    standard: str = "none",
    cache: PathLike | None = None,
) -> Tensor:
    """Responses by picture, (N, R, K) float32, with NaN where a picture was shown less often than another.

    Trials are read a few at a time. With ``standard="session"`` each of the K ``targets`` is standardised over the
    trials of each session first; with a file ``.npy`` as ``cache`` the result stays on the disk.
    """
    before, most = repetitions(torch.from_numpy(paired.shown), len(paired.names))
    repetition = before.numpy()
    shape = (len(paired.names), most, targets)

    def fill(out: np.ndarray) -> None:
        out[...] = np.nan
        first = 0
        for session in sessions:
            mean, scale = moments(session) if standard == "session" and session.count else (0.0, 1.0)
            for start, values in chunks(session, targets):
                if values.shape[1] != targets:  # one column would fill all of them
                    raise ValueError(
                        f"a session gives {values.shape[1]} numbers for a trial, and there are {targets} targets; "
                        "expected as many. Read sessions with other regions apart."
                    )
                trials = paired.kept - (first + start)
                here = (trials >= 0) & (trials < len(values))
                out[paired.shown[here], repetition[here]] = (values[trials[here]] - mean) / scale
            first += session.count

    if cache is None:
        responses = np.empty(shape, np.float32)
        fill(responses)
        return torch.from_numpy(responses)

    def write(path: Path) -> None:
        out = np.lib.format.open_memmap(path, mode="w+", dtype="<f4", shape=shape)
        with path.open("r+b") as file:
            allocate(file, path.stat().st_size)  # a full disk is an OSError here, and SIGBUS later
        fill(out)
        out.flush()

    return torch.from_numpy(np.load(write_atomically(cache, write), mmap_mode="c"))


def in_parts(read: Callable[[int, int], np.ndarray], size: int) -> Callable[[int, int], np.ndarray]:
    """The same reading, a few trials at a time, where each takes ``size`` float64 before there are fewer of them."""
    step = max(1, CHUNK_BYTES // (8 * size))

    def read_parts(start: int, stop: int) -> np.ndarray:
        return np.concatenate([read(one, min(one + step, stop)) for one in range(start, stop, step)])

    return read_parts


def chunks(session: Session, targets: int) -> Iterator[tuple[int, np.ndarray]]:
    """A few trials at a time: the first one's number, and (n, K) float64."""
    step = max(1, CHUNK_BYTES // (8 * targets))
    for start in range(0, session.count, step):
        yield start, np.asarray(session.read(start, min(start + step, session.count)), np.float64)


def moments(session: Session) -> tuple[np.ndarray, np.ndarray]:
    """Mean and SD (over n) of each target over a session's trials, (K,); 1 for the SD of a constant."""
    first = np.asarray(session.read(0, 1), np.float64)[0]
    count, total, square = (np.zeros_like(first) for _ in range(3))
    centre = np.nan_to_num(first)  # far from 0, squares would lose the spread
    for _, values in chunks(session, len(first)):
        there = ~np.isnan(values)
        values = np.where(there, values - centre, 0.0)
        count, total, square = count + there.sum(0), total + values.sum(0), square + (values**2).sum(0)
    mean = total / np.maximum(count, 1)
    variance = np.maximum(square / np.maximum(count, 1) - mean**2, 0)
    return mean + centre, np.where(variance > 0, np.sqrt(variance), 1.0)


def name_targets(targets: Sequence[str] | Mapping[int, str] | None, default: Sequence[str], what: str) -> list[str]:
    """Names of targets: those that were given, one for each, or the source's own, which a mapping has named already."""
    if isinstance(targets, Mapping) and not {str(name) for name in targets.values()} & set(default):
        raise ValueError(
            f"targets maps numbers of regions to names, and none of the {len(default)} {what} has such a number; "
            "expected names in their order, or None."
        )
    if targets is None or isinstance(targets, Mapping):
        return list(default)
    names = as_names(targets, "targets")
    if len(names) != len(default):
        raise ValueError(f"targets holds {len(names)} names for {len(default)} {what}; expected one for each.")
    return names


def _of_mapping(images: Mapping[str, PathLike], wanted: list[str], source: str) -> tuple[list[PathLike], list[str]]:
    files = {str(label): file for label, file in images.items()}
    missing = [label for label in wanted if label not in files]
    if missing:
        raise ValueError(
            f"images maps no file to {missing[0]!r}, which {source} names ({len(missing)} of {len(wanted)} are "
            f"missing); expected one for each. {closest(missing[0], files, cutoff=0.4)}"
        )
    return list(files.values()), list(files)


def _named(images: Pictures, size: int | None, names: Sequence[str] | None) -> tuple[Images, list[str]]:
    """Pictures and their names, each once."""
    pictures, own = open_pictures(images, size)
    names = own if names is None else names
    if names is None:
        raise ValueError(
            "names is None for images in memory; expected a name for each, by which trials are paired (never by "
            "their order). Pass names=, or a folder of files."
        )
    known = as_names(names)
    twice = repeated(known)
    if len(known) != len(pictures) or twice:
        raise ValueError(
            f"names holds {len(known)} for {len(pictures)} images"
            + (f", {twice[0]!r} more than once" if twice else "")
            + "; expected a name for each image, each once."
        )
    return pictures, known


def in_order(pictures: Images, own: list[str], names: list[str]) -> Images | None:
    """The files that ``names`` names, in this order; None if they name none of them, and are other names for all.

    ``own`` are the files' names. ValueError if only some are found, or one may be several files.
    """
    known = [_by_form(own, form) for form in FORMS]
    if not any(_found(name, form, places) for form, places in zip(FORMS, known, strict=True) for name in names):
        return None
    rows = _rows(names, own, "names=")
    places = [rows[name] for name in names]
    return pictures[places] if isinstance(pictures, Tensor) else pictures.at(places)


def _by_form(names: Sequence[str], form: Callable[[str], str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        places.setdefault(form(name), []).append(row)
    return places


def _found(label: str, form: Callable[[str], str], places: Mapping[str, list[int]]) -> list[int]:
    """Places of a label: as it is first, for the ".5" of "contrast 0.5" is no suffix."""
    return places.get(label) or places.get(form(label), [])


def _rows(wanted: list[str], known: list[str], source: str) -> dict[str, int]:
    """The picture of each label, found by the same form of name for all of them."""
    best: tuple[int, list[str]] = (-1, wanted)
    for form in FORMS:
        places = _by_form(known, form)
        matched = {label: _found(label, form, places) for label in wanted}
        several = [label for label, rows in matched.items() if len(rows) > 1]
        if all(matched.values()):
            if not several and len({rows[0] for rows in matched.values()}) == len(wanted):
                return {label: rows[0] for label, rows in matched.items()}
            label = several[0] if several else wanted[0]
            raise ValueError(
                f"{source} names {label!r}, which may be several pictures "
                f"({', '.join(repr(known[row]) for row in matched[label][:3])}); expected names that belong to one "
                "picture each. Write paths as they are below the folder of images."
            )
        found = sum(map(bool, matched.values()))
        if found > best[0]:
            best = found, [label for label, rows in matched.items() if not rows]
    missing = best[1]
    raise ValueError(
        f"{source} names {len(missing)} of {len(wanted)} pictures that images do not hold, such as {missing[0]!r}; "
        f"expected names of images. {closest(missing[0], known, cutoff=0.4, limit=3, otherwise='They hold')}"
    )
