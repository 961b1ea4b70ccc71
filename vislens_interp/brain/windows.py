"""Time windows after an image's onset: the paper's by name, intervals in seconds, or every time point."""

from collections.abc import Sequence
from numbers import Real
from typing import TypeAlias, TypeGuard, cast

import numpy as np

from vislens_interp.validation import closest

WINDOWS = {
    "C1": (0.05, 0.09),
    "P1": (0.08, 0.12),
    "N170": (0.13, 0.18),
    "P2": (0.16, 0.24),
    "P300": (0.25, 0.40),
    "LPP": (0.40, 0.70),
}
"""Seconds after the image's onset (the paper's App. B.1)."""

Window: TypeAlias = str | tuple[float, float]


def window_masks(
    windows: Window | Sequence[Window], times: np.ndarray, *, whole: bool = False
) -> tuple[dict[str, np.ndarray], bool]:
    """Which time points (T,) each window takes, by its label, and whether several windows were asked for.

    A window is ``"all"`` (any of the paper's), one of :data:`WINDOWS` by name, an interval in seconds with both ends,
    or ``"times"`` (every time point by itself). With ``whole`` it may not begin before the first time point nor end
    after the last one. KeyError or ValueError for an unknown name, no interval, or a window without time points.
    """
    if isinstance(windows, str) and windows == "times":
        return {label: np.arange(len(times)) == place for place, label in enumerate(_labels(times))}, True
    one = isinstance(windows, str) or _is_interval(windows)
    wanted = cast(list[Window], [windows] if one else list(windows))
    masks = {}
    for window in wanted:
        label, intervals = _intervals(window)
        if whole:
            _refuse_cut(label, intervals, times)
        # Times are multiples of 0.01 s only up to rounding.
        mask = np.any([(times >= start - 1e-6) & (times <= stop + 1e-6) for start, stop in intervals], axis=0)
        if not mask.any():
            raise ValueError(
                f"window {label} holds no time point; expected an interval in seconds, start first, within "
                f"{times.min():g} to {times.max():g}."
            )
        masks[label] = mask
    return masks, not one


def _labels(times: np.ndarray) -> list[str]:
    """``"0.100 s"``; with more decimals where time points are less than a millisecond apart."""
    labels: list[str] = []
    for decimals in range(3, 10):
        labels = [f"{time:.{decimals}f} s" for time in times]
        if len(set(labels)) == len(times):
            break
    return labels


def _is_interval(window: object) -> TypeGuard[tuple[float, float]]:
    return isinstance(window, tuple) and len(window) == 2 and all(isinstance(end, Real) for end in window)


def _intervals(window: Window) -> tuple[str, list[tuple[float, float]]]:
    """A window's label, and its intervals in seconds."""
    if isinstance(window, str):
        if window != "all" and window not in WINDOWS:
            near = closest(window, [*WINDOWS, "all"], cutoff=0.4)
            raise KeyError(f"window {window!r} is unknown. {near} Or pass seconds, (0.1, 0.2).")
        return window, list(WINDOWS.values()) if window == "all" else [WINDOWS[window]]
    if not _is_interval(window):
        raise ValueError(f"windows holds {window!r}; expected a name, or an interval in seconds such as (0.1, 0.2).")
    return f"{window[0]:g}-{window[1]:g} s", [window]


def _refuse_cut(label: str, intervals: list[tuple[float, float]], times: np.ndarray) -> None:
    step = float(np.diff(times).max()) if len(times) > 1 else 0.0
    for start, stop in intervals:
        if start < times[0] - step or stop > times[-1] + step:
            fitting = [name for name, (first, last) in WINDOWS.items() if times[0] <= first and last <= times[-1]]
            raise ValueError(
                f"window {label} reaches over {start:g} to {stop:g} s, and the epochs hold {times[0]:g} to "
                f"{times[-1]:g} s; expected windows inside. Pass an interval, or of the named ones "
                f"{', '.join(fitting) or 'none: they are all longer'}."
            )
