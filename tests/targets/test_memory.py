import sys

import pytest
import torch

from vislens_interp.targets.memory import INTERVAL, PeakMemory


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows a process its own size")
def test_a_block_that_was_freed_again_is_in_the_peak():
    import mmap
    import time

    size = 80 * 2**20
    with PeakMemory(torch.device("cpu")) as memory:
        # Pages of the system's own: an allocator may hand out memory that earlier tests have freed.
        block = mmap.mmap(-1, size)
        for start in range(0, size, mmap.PAGESIZE):
            block[start] = 1
        time.sleep(20 * INTERVAL)
        block.close()
    assert memory.mebibytes is not None
    assert memory.mebibytes > 60


def test_an_exception_passes_and_the_watch_ends():
    import threading

    before = threading.active_count()
    with pytest.raises(KeyError), PeakMemory(torch.device("cpu")):
        raise KeyError("x")
    assert threading.active_count() == before
