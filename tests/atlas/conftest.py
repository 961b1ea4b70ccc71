import pytest
import torch
from small_layer import clouds, kinds, small_backend, small_layer

from vislens_interp.atlas import Atlas


@pytest.fixture(scope="session")
def network():
    return small_layer()


@pytest.fixture(scope="session")
def backend():
    return small_backend()


@pytest.fixture(scope="session")
def images():
    return clouds(220)


@pytest.fixture(scope="session")
def fitted(network, backend, images):
    """All units, fitted, with two inputs. Tests do not fit it again."""
    before = torch.random.get_rng_state()
    atlas = Atlas(network, "layer", images, backend=backend, words=kinds).fit(inputs=2, top_images=4)
    assert torch.equal(before, torch.random.get_rng_state())
    return atlas


@pytest.fixture(scope="session")
def store(fitted, tmp_path_factory):
    """A finished atlas of all units. Tests do not write into it."""
    return fitted.save(tmp_path_factory.mktemp("atlas") / "layer", shard=5)
