"""The most memory that a call takes: on the GPU what was allocated, on the CPU what the process grew by."""

import threading
from pathlib import Path
from typing import Self

import torch

INTERVAL = 0.005
"""Seconds between two looks at the process."""
_STATUS = Path("/proc/self/statm")


class PeakMemory:
    """Measures while its block runs.

    On the CPU the process is looked at every few milliseconds, so that a shorter peak is missed, and memory that an
    earlier call left with the process is taken again unseen: then it says 0. Only Linux shows a process its own size.

    Args:
        device: Where the work is done.

    Attributes (after the block):
        mebibytes: Peak above what was in use before, at least 0; None where it cannot be known.

    >>> with PeakMemory(torch.device("cpu")) as memory:
    ...     block = torch.ones(8, 1024, 1024)
    >>> memory.mebibytes is None or memory.mebibytes >= 0
    True
    """

    mebibytes: float | None = None

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> Self:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        elif _STATUS.exists():
            self._before = self._peak = _resident()
            self._done = threading.Event()
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.mebibytes = (torch.cuda.max_memory_allocated(self.device) - self._before) / 2**20
        elif _STATUS.exists():
            self._done.set()
            self._thread.join()
            self.mebibytes = max(0, max(self._peak, _resident()) - self._before) / 2**20

    def _look(self) -> None:
        while not self._done.wait(INTERVAL):
            self._peak = max(self._peak, _resident())


def _resident() -> int:
    """Bytes of this process in memory."""
    import resource

    return int(_STATUS.read_text().split()[1]) * resource.getpagesize()
