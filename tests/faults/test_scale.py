"""Memory over many lenses, the cache over many images, and what processes draw."""

import pytest
import scale


@pytest.mark.slow
def test_memory_stays_flat():
    assert scale.memory()["growth"] < 40  # MiB over forty lenses


@pytest.mark.slow
def test_the_cache_is_linear():
    assert scale.cache()["seconds_an_image_last_over_first"] < 1.5


@pytest.mark.slow  # of every file and figure; of one figure in tests/report
def test_figures_are_alike_between_processes():
    assert scale.figures(("0", "1"))["differ"] == []
