import sys

import pytest
import torch

from vislens_interp.targets.memory import INTERVAL, PeakMemory


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows a process its own size")
def test_a_block_that_was_freed_again_is_in_the_peak():
    import time

    with PeakMemory(torch.device("cpu")) as memory:
        block = torch.ones(80 * 2**20, dtype=torch.uint8)  # large enough that the allocator gives it back
        time.sleep(20 * INTERVAL)
        del block
    assert memory.mebibytes is not None
    assert memory.mebibytes > 60


def test_an_exception_passes_and_the_watch_ends():
    import threading

    before = threading.active_count()
    with pytest.raises(KeyError), PeakMemory(torch.device("cpu")):
        raise KeyError("x")
    assert threading.active_count() == before
