"""A lens goes to another device with what is its own; the model is its owner's."""

import pytest
import torch

from vislens_interp import FeatureLens, zoo
from vislens_interp.backends.base import get_backend, on_device
from vislens_interp.backends.pixel import PixelBackend


@pytest.fixture(scope="module")
def lens():
    pictures = torch.rand(220, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return FeatureLens(zoo.load("cifar10_convnet"), "conv3", 16, backend="cifar10").fit(pictures, epochs=1, shuffles=1)


def test_a_lens_moves_itself_and_not_the_model(lens, tmp_path):
    backend = lens.backend
    assert lens.to("cpu") is lens
    assert lens.to(torch.device("cpu")).backend is backend
    with pytest.raises(TypeError, match="device is a dtype .torch.float16.; expected 'cpu', 'cuda'"):
        lens.to(torch.float16)
    with pytest.raises(ValueError, match="device='meta' is unknown; expected cpu, cuda"):
        lens.to("meta")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device='cuda' is not available"):
            lens.to("cuda")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    expected = lens.visualize(images, strength=0).images["increase"]
    loaded = FeatureLens.load(lens.save(tmp_path / "lens"), lens.target.model)
    loaded.fitted_method.move(PixelBackend())  # what goes to a device that is there
    assert torch.allclose(loaded.visualize(images, strength=0).images["increase"], expected, atol=1e-5)


def test_a_backend_that_its_name_does_not_make_stays_where_it_is():
    with pytest.raises(ValueError, match="backend 'cifar10' was made by you on 'cpu'; expected one that its name"):
        on_device(PixelBackend(), torch.device("cuda"))
    shared = get_backend("cifar10")
    assert on_device(shared, torch.device("cpu")) is shared
