import pytest
from small_networks import QUICK, Bare, pictures, small_network

from vislens_interp import FeatureLens


@pytest.fixture(scope="session")
def network():
    return small_network()


@pytest.fixture(scope="session")
def fitted(network):
    """One unit, fitted on 220 pictures. Tests do not fit it again."""
    return FeatureLens(network, "conv", 2, backend="cifar10").fit(pictures(220), **QUICK)


@pytest.fixture(scope="session")
def pair(network):
    return FeatureLens(network, "conv", [1, 4], backend="cifar10").fit(pictures(220), **QUICK)


@pytest.fixture
def lens(network):
    """Not fitted."""
    return FeatureLens(network, "conv", 2, backend=Bare())


@pytest.fixture
def images():
    return pictures(3, seed=1)
