import pytest
import torch

from vislens_interp.backends import base
from vislens_interp.backends.base import Backend, get_backend, register_backend
from vislens_interp.backends.pixel import PixelBackend


@pytest.fixture
def registry(monkeypatch):
    """A copy, so that what a test registers is gone afterwards."""
    monkeypatch.setattr(base, "_registry", dict(base._registry))


def test_backends_are_found_by_name():
    backend = get_backend("cifar10", "cpu")
    assert isinstance(backend, PixelBackend)
    assert isinstance(backend, Backend)
    assert backend.device == torch.device("cpu")
    assert repr(backend) == "PixelBackend('cifar10', 32 px, 'cpu')"


def test_a_backend_is_taken_as_it_is():
    backend = PixelBackend()
    assert get_backend(backend) is backend


def test_a_backend_of_ones_own(registry):
    register_backend("mine", PixelBackend)
    assert isinstance(get_backend("mine"), PixelBackend)


def test_taken_name(registry):
    with pytest.raises(ValueError, match="name='cifar10' is already a backend; choose another name"):
        register_backend("cifar10", PixelBackend)


def test_unknown_name():
    with pytest.raises(KeyError, match=r"backend='cifar100' is unknown; expected one of \['cifar10'"):
        get_backend("cifar100")


@pytest.mark.parametrize("wrong", [None, PixelBackend, torch.nn.ReLU()], ids=["None", "class", "module"])
def test_no_backend(wrong):
    with pytest.raises(TypeError, match=f"backend is a {type(wrong).__name__}; expected a name .*cifar10.* an object"):
        get_backend(wrong)


def test_the_same_name_is_the_same_backend_as_long_as_it_is_used(registry):
    backend = get_backend("cifar10", "cpu")
    assert get_backend("cifar10") is backend
    register_backend("other", lambda device, shade=0: PixelBackend(device))
    assert get_backend("other", shade=1) is not get_backend("other", shade=1)  # with options each is its own


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("stable-unclip", "its publisher removed Stable Diffusion 2.1 in 2025, and no copy is pinned by checksum"),
        ("Kandinsky-2.2", r"takes the 1,280-d embeddings of ViT-bigG/14"),
    ],
)
def test_generators_that_are_not_here_and_why(name, why):
    with pytest.raises(KeyError, match=rf"backend='{name}' is not built: .*{why}.*expected 'sd15' or 'sdxl'"):
        get_backend(name)
