"""Progress bars: often on a terminal, seldom in a file or a pipe, none where there is no stderr."""

import os
import sys
import threading
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm as _tqdm

SECONDS_IN_A_FILE = 30.0
"""Between two lines of a bar in what is no terminal: a log of hours stays short."""


class tqdm(_tqdm):  # noqa: N801 (it takes the place of tqdm's own)
    """``tqdm.tqdm`` whose bar is off without a stderr, as under ``pythonw``, and sparse in a pipe or a file.

    Its lock belongs to one process. tqdm's own is shared with forked processes, and stays shut when one of them is
    killed while it draws: every other process then waits for ever.
    """

    _lock = threading.RLock()
    monitor_interval = 0  # no thread that could hold the lock while the process forks

    def __init__(self, iterable: Iterable[object] | None = None, **options: Any) -> None:
        stream = options.get("file", sys.stderr)
        if stream is None or getattr(stream, "closed", False):
            options["disable"] = True
        elif not options.get("disable") and not _is_terminal(stream):
            options["mininterval"] = max(options.get("mininterval", 0.0), SECONDS_IN_A_FILE)
        super().__init__(iterable, **options)

    @classmethod
    def write(cls, s: str, file: TextIO | None = None, end: str = "\n", nolock: bool = False) -> None:
        """A line beside the bars, on stdout where nothing else is said; nothing where there is none."""
        stream = sys.stdout if file is None else file
        if stream is not None and not getattr(stream, "closed", False):
            super().write(s, file=stream, end=end, nolock=nolock)


def _open_lock() -> None:
    tqdm._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_lock)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError, OSError):
        return False
