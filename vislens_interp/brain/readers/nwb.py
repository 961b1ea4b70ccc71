"""Spikes in NWB files: counts of each unit in a window after each presentation of a picture."""

import os
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from vislens_interp.brain.readers.trials import (
    Recording,
    Session,
    gather,
    one_line,
    opening,
    pair_by_name,
    refuse_without,
)
from vislens_interp.brain.responses import NamedPictures
from vislens_interp.images import PathLike
from vislens_interp.validation import closest

if TYPE_CHECKING:
    from hdmf.common.table import DynamicTable
    from pynwb import NWBFile
    from pynwb.misc import Units

LONGEST = 10.0
"""Seconds after a presentation beyond which a window is in milliseconds."""


def read_nwb(
    file: "NWBFile | PathLike",
    images: NamedPictures,
    *,
    image_column: str,
    window: tuple[float, float] = (0.05, 0.15),
    table: str | None = None,
    where: str | None = None,
    label: str | None = None,
    subject: str | None = None,
    size: int | None = None,
    names: Sequence[str] | None = None,
) -> Recording:
    """Spike counts of units to pictures.

    Args:
        file: An NWB file, or a ``pynwb.NWBFile``. Spike times are read unit by unit.
        images: Pictures, found by name: a folder, paths, a mapping from names to files, or (N, 3, H, W) with ``names``.
        image_column: The column of the table that names the picture of each presentation (Allen's: ``image_name``).
        window: Seconds after a presentation's ``start_time``, the end left out.
        table: The table of presentations among ``intervals``; None takes the only one with that column.
        where: Which units, as a query of pandas on the units' table: ``"quality == 'good'"``.
        label: The column of the units' table that names them; None takes their numbers, ``"unit 12"``.
        subject: None takes ``subject_id``.
        size, names: Side in pixels of pictures in files; names of pictures in memory.

    Returns:
        Counts, NaN where a unit was not observed over the whole window (``obs_intervals``).

    Raises:
        ImportError: pynwb is not installed.
        FileNotFoundError, KeyError, ValueError: A file, a table, a column or a picture is missing or cannot be read, or
            no unit is left.

    >>> from datetime import UTC, datetime
    >>> import torch
    >>> from pynwb import NWBFile
    >>> from pynwb.epoch import TimeIntervals
    >>> from vislens_interp.brain import BrainDataset
    >>> shown = TimeIntervals(name="presentations", description="pictures")
    >>> shown.add_column("image_name", "the picture")
    >>> for start, name in ((0.0, "a"), (1.0, "b")):
    ...     shown.add_row(start_time=start, stop_time=start + 0.2, image_name=name)
    >>> file = NWBFile("a session", "one", datetime(2026, 1, 1, tzinfo=UTC))
    >>> _ = file.add_time_intervals(shown)
    >>> file.add_unit(spike_times=[0.06, 0.1, 1.14, 1.3])
    >>> data = BrainDataset.from_nwb(file, torch.rand(2, 3, 8, 8), names=["a", "b"], image_column="image_name")
    >>> data.mean_responses().flatten().tolist(), data.units
    ([2.0, 1.0], 'spikes in 0.05-0.15 s')
    """
    refuse_without("pynwb", "nwb", "from_nwb")
    ends = np.asarray(window, dtype=object).ravel().tolist()
    if len(ends) != 2 or not ends[0] < ends[1] or max(map(abs, ends)) >= LONGEST:
        raise ValueError(f"window={window}; expected two ends in seconds, start first, such as (0.05, 0.15).")
    start, stop = map(float, ends)
    with ExitStack() as stack:
        nwb = _opened(file, stack)
        shown, called = _presentations(nwb, table, image_column)
        labels = list(shown[image_column][:])
        source = f"column {image_column!r} of {called}"
        paired = pair_by_name(labels, images, source=source, size=size, names=names)
        units, rows, targets = _units(nwb, where, label)
        onsets = np.asarray(shown["start_time"][:], float)
        counts = np.empty((len(onsets), len(rows)), np.float32)
        for column, row in enumerate(rows):
            times = np.sort(np.asarray(units["spike_times"][row]))
            counts[:, column] = np.searchsorted(times, onsets + stop) - np.searchsorted(times, onsets + start)
            if "obs_intervals" in units.colnames:
                seen = np.asarray(units["obs_intervals"][row]).reshape(-1, 2)
                whole = ((seen[:, 0] <= onsets[:, None] + start) & (seen[:, 1] >= onsets[:, None] + stop)).any(1)
                counts[~whole, column] = np.nan
        if not np.nansum(counts):
            spikes = np.concatenate([np.asarray(units["spike_times"][row]) for row in rows])
            where_spikes = f"{spikes.min():g} to {spikes.max():g}" if len(spikes) else "none"
            warnings.warn(
                f"no unit has a spike within {start:g}-{stop:g} s after any of {len(onsets)} presentations. These "
                f"begin at {onsets.min():g} to {onsets.max():g}, and spikes come at {where_spikes}: are both in "
                "seconds, of one clock?",
                stacklevel=3,
            )
        whose = subject or getattr(nwb.fields.get("subject"), "subject_id", None)
    responses = gather([Session(len(counts), lambda a, b: counts[a:b])], paired, len(targets))
    return paired.recording(responses, targets, whose, f"spikes in {start:g}-{stop:g} s")


def _opened(file: "NWBFile | PathLike", stack: ExitStack) -> "NWBFile":
    from pynwb import NWBHDF5IO, NWBFile

    if isinstance(file, NWBFile):
        return file
    with opening(file, "file", "pynwb", "an NWB file"):
        reader: Any = NWBHDF5IO  # hdmf's decorators hide its arguments
        return stack.enter_context(reader(os.fspath(file), "r", load_namespaces=True)).read()


def _presentations(nwb: "NWBFile", table: str | None, column: str) -> tuple["DynamicTable", str]:
    """The table of presentations, and its name."""
    tables: dict[str, DynamicTable] = dict(nwb.fields.get("intervals") or {})
    if nwb.trials is not None:
        tables.setdefault("trials", nwb.trials)
    if table is not None and table not in tables:
        raise KeyError(f"table={table!r} is not among the file's intervals. {closest(table, tables, cutoff=0.4)}")
    chosen = [name for name in tables if column in tables[name].colnames] if table is None else [table]
    if len(chosen) != 1:
        known = {name: ", ".join(map(str, one.colnames)) for name, one in tables.items()}
        raise KeyError(
            f"image_column={column!r} is in {len(chosen)} tables of the file ({known or 'it has none'}); expected "
            "one that names each presentation's picture. Pass table=, or another column."
        )
    shown = tables[chosen[0]]
    if column not in shown.colnames:
        raise KeyError(f"image_column={column!r} is not in {chosen[0]}. {closest(column, shown.colnames, cutoff=0.4)}")
    return shown, chosen[0]


def _units(nwb: "NWBFile", where: str | None, label: str | None) -> tuple["Units", list[int], list[str]]:
    """The table of units, rows of the wanted ones, and their names."""
    import pandas as pd

    units = nwb.units
    if units is None or len(units) == 0 or "spike_times" not in units.colnames:
        raise ValueError(
            "file holds no units with spike times; expected sorted spikes. Sort raw voltages first (spikeinterface)."
        )
    rows = list(range(len(units)))
    if where is not None:
        plain = [name for name in units.colnames if name not in ("spike_times", "obs_intervals", "electrodes")]
        frame = pd.DataFrame({name: list(units[name][:]) for name in plain}, index=pd.Index(rows))
        try:
            rows = [int(row) for row in frame.query(where).index]
        except Exception as error:
            raise ValueError(
                f"where={where!r} is no query on the units' columns {plain} ({one_line(error)}); expected "
                "such as \"quality == 'good'\"."
            ) from error
        if not rows:
            raise ValueError(f"where={where!r} leaves none of {len(units)} units; expected at least one.")
    if label is not None and label not in units.colnames:
        raise KeyError(f"label={label!r} is not in the units' table. {closest(label, units.colnames, cutoff=0.4)}")
    names = [f"unit {int(units.id[row])}" if label is None else str(units[label][row]) for row in rows]
    return units, rows, names
