"""Time windows after an image's onset: the paper's by name, intervals in seconds, or every time point."""

from collections.abc import Sequence
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


def is_interval(window: object) -> TypeGuard[tuple[float, float]]:
    """Whether it is a pair of numbers."""
    return isinstance(window, tuple) and len(window) == 2 and all(isinstance(end, (int, float)) for end in window)


def window_masks(windows: Window | Sequence[Window], times: np.ndarray) -> tuple[dict[str, np.ndarray], bool]:
    """Which time points each window takes, by its label, and whether several windows were asked for.

    Args:
        windows: ``"all"`` (any of the paper's windows), one of :data:`WINDOWS` by name, an interval in seconds with
            both ends, ``"times"`` (every time point by itself), or a list of these.
        times: (T,) seconds.

    Raises:
        KeyError, ValueError: A name is unknown, an entry is no interval, or a window holds no time point.
    """
    if isinstance(windows, str) and windows == "times":
        return {f"{time:.3f} s": np.arange(len(times)) == place for place, time in enumerate(times)}, True
    several = not isinstance(windows, str) and not is_interval(windows)
    wanted = cast(list[Window], list(windows) if several else [windows])
    masks = [_inside(window, times) for window in wanted]
    return dict(zip(map(_label, wanted), masks, strict=True)), several


def refuse_cut_windows(windows: Window | Sequence[Window], times: np.ndarray) -> None:
    """Raise ValueError for a window that begins before the first time point or ends after the last one."""
    several = not isinstance(windows, str) and not is_interval(windows)
    for window in cast(list[Window], list(windows) if several else [windows]):
        intervals = WINDOWS.values() if window == "all" else [WINDOWS.get(window, window)]  # type: ignore[arg-type]
        step = float(np.diff(times).max()) if len(times) > 1 else 0.0
        for interval in intervals:
            if is_interval(interval) and (interval[0] < times[0] - step or interval[1] > times[-1] + step):
                fitting = [name for name, (start, stop) in WINDOWS.items() if times[0] <= start and stop <= times[-1]]
                raise ValueError(
                    f"window {_label(window)} reaches over {interval[0]:g} to {interval[1]:g} s, and the epochs hold "
                    f"{times[0]:g} to {times[-1]:g} s; expected windows inside. Pass an interval, or of the named ones "
                    f"{', '.join(fitting) or 'none: they are all longer'}."
                )


def _label(window: Window) -> str:
    return window if isinstance(window, str) else f"{window[0]:g}-{window[1]:g} s"


def _inside(window: Window, times: np.ndarray) -> np.ndarray:
    """Which time points are in a window."""
    if isinstance(window, str):
        if window != "all" and window not in WINDOWS:
            near = closest(window, [*WINDOWS, "all"], cutoff=0.4)
            raise KeyError(f"window {window!r} is unknown. {near} Or pass seconds, (0.1, 0.2).")
        intervals = list(WINDOWS.values()) if window == "all" else [WINDOWS[window]]
    elif is_interval(window):
        intervals = [window]
    else:
        raise ValueError(f"windows holds {window!r}; expected a name, or an interval in seconds such as (0.1, 0.2).")
    # Times are multiples of 0.01 s only up to rounding.
    mask = np.any([(times >= start - 1e-6) & (times <= stop + 1e-6) for start, stop in intervals], axis=0)
    if not mask.any():
        raise ValueError(
            f"window {_label(window)} holds no time point; expected an interval in seconds, start first, within "
            f"{times.min():g} to {times.max():g}."
        )
    return mask
