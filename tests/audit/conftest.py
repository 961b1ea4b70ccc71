import pytest
import torch
from colours import QUICK, Colours, smooth
from small_networks import Bare

from vislens_interp import FeatureLens


@pytest.fixture(scope="session")
def judge():
    """Colours at sixteen places: (N, 48). In fewer dimensions random pictures would tell as much."""
    return lambda images: torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1) - 0.5


@pytest.fixture(scope="session")
def photographs():
    return smooth(120, 1)


@pytest.fixture(scope="session")
def reference():
    return smooth(220, 0)


@pytest.fixture(scope="session")
def backend():
    return Bare()


@pytest.fixture(scope="session")
def lens(reference, backend):
    """On the red unit of a network that is honest. Tests do not fit it again."""
    return FeatureLens(Colours(), "unit", 0, backend=backend).fit(reference, **QUICK)
