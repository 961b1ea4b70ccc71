"""Memory that is left on a device, and work that takes fewer pictures at a time where it runs out."""

import ctypes
import gc
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")
GLIBC = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 2**26)}
"""Numbers of ``mallopt``'s parameters, and their values in a process that keeps its freed memory."""


def memory_left(device: torch.device) -> int | None:
    """Bytes that a process can still take on a device; None where nobody says it.

    >>> memory_left(torch.device("cpu")) != 0
    True
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        (kilobytes,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(kilobytes) * 1024
    except (OSError, ValueError):  # no Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if hasattr(os, "sysconf") else None


def keep_freed_memory() -> bool:
    """Let this process keep memory that is freed, for what it needs next; False where the C library is not glibc.

    Pictures on a CPU otherwise ask the system for the same pages in every layer of every step: an atlas then takes a
    quarter more seconds. It is for processes that are ours, such as commands and workers.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(number, value) == 1 for number, value in GLIBC.values())


def too_little_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def in_batches(work: Callable[[slice], T], count: int, size: int, what: str = "pictures") -> tuple[list[T], int]:
    """Work over ``count`` rows, ``size`` at a time; where memory runs out, half as many, with a warning.

    Args:
        work: Takes the rows of a batch.
        count: Rows in all.
        size: Rows at a time.
        what: What rows are, for the warning.

    Returns:
        What every batch gave, in order, and how many rows at a time were possible.

    Raises:
        MemoryError, RuntimeError: Memory ran out with a single row.

    >>> in_batches(lambda rows: rows.stop - rows.start, 5, 2)
    ([2, 2, 1], 2)
    """
    results: list[T] = []
    start = 0
    while start < count:
        rows = slice(start, min(start + size, count))
        try:
            results.append(work(rows))
            start = rows.stop
            continue
        except (MemoryError, RuntimeError) as error:
            if rows.stop - start == 1 or not too_little_memory(error):
                raise
            size = (rows.stop - start) // 2
        # Here the error is gone, and with it what its traceback held.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        warnings.warn(f"memory ran out with {rows.stop - start} {what} at once; going on with {size}.", stacklevel=2)
    return results, size
