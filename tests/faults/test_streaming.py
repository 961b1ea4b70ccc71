"""Memory over 2,000 streamed inputs, and kills."""

import sys

import pytest
import streaming


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("backend", ["cifar10", "sd15"])
def test_memory_is_flat_and_kills_change_nothing(backend):
    found = streaming.run(["memory", "kills"], backend)
    assert found["memory"]["many_over_few"] < 1.1
    assert found["kills"]["differ"] == found["kills"]["left_over"] == []
