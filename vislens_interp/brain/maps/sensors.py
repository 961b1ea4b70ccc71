"""Preferences of sensors: topographies by MNE-Python, and time courses."""

import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vislens_interp.brain.maps.surface import COLOURS, NOTHING, WEAK, check_colours
from vislens_interp.brain.readers.trials import refuse_without
from vislens_interp.brain.responses import check_known
from vislens_interp.frames import figure_class

if TYPE_CHECKING:
    import mne
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vislens_interp.brain.maps.preference import PreferenceMap

_TIME = re.compile(r"(?P<sensor>.+) (?P<time>-?\d+\.\d+) s")


def topography_figure(found: "PreferenceMap", info: "mne.Info", *, axes: Sequence[str] | None = None) -> "Figure":
    """Scores over the head, a row for each window: one map an axis, which axis each sensor prefers, and the evidence.

    Sensors with weak evidence have no dot on the maps of scores; in the last but one column they are grey.

    Args:
        found: Its places are sensors (``"Oz"``) or sensors in windows (``"Oz N170"``), as ``from_epochs`` names them.
        info: ``epochs.info`` with the sensors' positions (``epochs.set_montage``).
        axes: Which axes get a map of their own; None is all.

    Raises:
        ImportError: MNE is not installed.
        KeyError, ValueError: An axis is unknown, there are more than eight, no place is a sensor of ``info``, or
            sensors have no positions.
    """
    refuse_without("mne", "mne", "PreferenceMap.topography")
    import mne
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.lines import Line2D

    check_colours(found)
    chosen = found.known_axes(axes)
    windows = _by_window(found, info.ch_names)
    columns = len(chosen) + 1 + (found.evidence is not None)
    figure = figure_class()(figsize=(2.1 * columns + 0.6, 2.3 * len(windows) + 0.9), layout="constrained")
    cells = figure.subplots(len(windows), columns, squeeze=False)
    limit = float(np.abs(np.nan_to_num(found.scores)).max()) or 1.0
    for line, (window, sensors) in zip(cells, windows.items(), strict=True):
        names, rows = list(sensors), np.array(list(sensors.values()))
        part = mne.pick_info(info, [info.ch_names.index(name) for name in names])
        if any(not np.isfinite(channel["loc"][:3]).all() or not channel["loc"][:3].any() for channel in part["chs"]):
            raise ValueError("info has sensors without positions; expected all. Call epochs.set_montage first.")
        strong = ~found.weak[rows]
        for axis, name in zip(line, chosen, strict=False):
            values = found.scores[rows, found.axes.index(name)]
            mne.viz.plot_topomap(
                np.nan_to_num(values), part, axes=axis, show=False, cmap="RdBu_r", vlim=(-limit, limit), sensors=False,
                contours=0, mask=strong & np.isfinite(values),
                mask_params={"marker": "o", "markersize": 3, "markerfacecolor": "k"},
            )  # fmt: skip
            axis.set_title(f"{name}, {window}" if window else name, fontsize=8)
        _preferred(line[len(chosen)], found, part, rows)
        if found.evidence is not None:
            evidence, _ = mne.viz.plot_topomap(
                np.nan_to_num(found.evidence[rows]), part, axes=line[-1], show=False, cmap="viridis", contours=0,
                vlim=(0.0, max(float(np.nan_to_num(found.evidence).max()), 1e-9)),
            )  # fmt: skip
            line[-1].set_title(found.evidence_unit, fontsize=8)
            figure.colorbar(evidence, ax=line[-1], shrink=0.5).ax.tick_params(labelsize=6)
    scale = ScalarMappable(Normalize(-limit, limit), "RdBu_r")
    figure.colorbar(scale, ax=list(cells[:, : len(chosen)].flat), shrink=0.5, label=found.unit, location="left")
    shown = [*zip(found.axes, COLOURS, strict=False), ("nothing", NOTHING)]
    if found.evidence is not None:
        shown.append(("weak evidence", WEAK))
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, markeredgecolor="k", label=name)
        for name, colour in shown
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=7, frameon=False)
    return figure


def time_course_figure(found: "PreferenceMap", *, sensors: Sequence[str] | None = None) -> "Figure":
    """Scores of sensors over time, one panel a sensor, weak evidence grey below.

    Args:
        found: Its places are sensors at times (``"Oz 0.100 s"``), as ``from_epochs(windows="times")`` names them.
        sensors: Which get a panel; None takes the four with the largest scores.

    Raises:
        KeyError, ValueError: A sensor is unknown, there are more than eight axes, or places carry no times.
    """
    check_colours(found)
    courses: dict[str, list[tuple[float, int]]] = {}
    for row, place in enumerate(found.places):
        if said := _TIME.fullmatch(place):
            courses.setdefault(said["sensor"], []).append((float(said["time"]), row))
    if not courses:
        raise ValueError(
            f"places such as {found.places[0]!r} carry no times; expected 'Oz 0.100 s' and so on, as targets of "
            "BrainDataset.from_epochs(windows='times')."
        )
    if sensors is None:
        largest = {
            name: np.abs(np.nan_to_num(found.scores[[row for _, row in points]])).max()
            for name, points in courses.items()
        }
        sensors = sorted(largest, key=lambda name: -largest[name])[:4]
    figure = figure_class()(figsize=(6.4, 1.5 * len(sensors) + 0.7), layout="constrained")
    panels = figure.subplots(len(sensors), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    for panel, name in zip(panels, sensors, strict=True):
        check_known("sensor", name, courses, "this map")
        times, rows = map(np.array, zip(*sorted(courses[name]), strict=True))
        for axis, (label, colour) in enumerate(zip(found.axes, COLOURS, strict=False)):
            panel.plot(times, found.scores[rows, axis], color=colour, label=label, linewidth=1.5)
        panel.axhline(0, color="k", linewidth=0.5)
        panel.axvline(0, color="k", linewidth=0.5, linestyle=":")
        if found.evidence is not None:
            panel.fill_between(
                times, 0, 1, where=found.weak[rows], transform=panel.get_xaxis_transform(), color=WEAK, alpha=0.5,
                linewidth=0, label=f"weak: {found.evidence_unit} < {found.threshold:g}",
            )  # fmt: skip
        panel.set_ylabel(f"{name}\n{found.unit}", fontsize=8)
    panels[-1].set_xlabel("seconds after the picture's onset", fontsize=8)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=7, frameon=False)
    return figure


def _preferred(axis: "Axes", found: "PreferenceMap", part: "mne.Info", rows: np.ndarray) -> None:
    """A dot for each sensor in the colour of what it prefers."""
    import mne

    # Every sensor is marked, and the marks are read back: where MNE draws them is its own affair.
    mne.viz.plot_topomap(
        np.zeros(len(rows)), part, axes=axis, show=False, cmap="Greys", contours=0, sensors=False, vlim=(0, 1),
        mask=np.ones(len(rows), bool),
    )  # fmt: skip
    lines = (np.asarray(line.get_xydata()) for line in reversed(axis.lines))
    points = next(points for points in lines if len(points) == len(rows))
    colours = [
        WEAK if weak else COLOURS[number] if number >= 0 else NOTHING
        for number, weak in zip(found.preferred[rows], found.weak[rows], strict=True)
    ]
    axis.scatter(points[:, 0], points[:, 1], c=colours, edgecolors="k", linewidths=0.4, s=42, zorder=10)
    axis.set_title("preferred", fontsize=8)


def _by_window(found: "PreferenceMap", channels: Sequence[str]) -> dict[str, dict[str, int]]:
    """The row of each sensor, by window; the empty name where places are sensors alone."""
    windows: dict[str, dict[str, int]] = {}
    strange: list[str] = []
    for row, place in enumerate(found.places):
        names = [name for name in channels if place == name or place.startswith(f"{name} ")]
        if names:
            name = max(names, key=len)
            windows.setdefault(place[len(name) :].strip(), {})[name] = row
        else:
            strange.append(place)
    if strange and windows:
        warnings.warn(
            f"{len(strange)} of {len(found.places)} places, such as {strange[0]!r}, are no sensors of info and are "
            "left out of the topography.",
            stacklevel=3,
        )
    if not windows:
        raise ValueError(
            f"no place, such as {found.places[0]!r}, is a sensor of info ({', '.join(channels[:3])}, ...); expected "
            "names as BrainDataset.from_epochs gives them."
        )
    return windows
