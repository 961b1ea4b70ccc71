import pytest
import torch

from vislens_interp.backends import base
from vislens_interp.backends.base import Backend, get_backend, register_backend
from vislens_interp.backends.pixel import PixelBackend
from vislens_interp.config import Config


@pytest.fixture
def registry(monkeypatch):
    """A copy, so that what a test registers is gone afterwards."""
    monkeypatch.setattr(base, "_registry", dict(base._registry))


def test_backends_are_found_by_name():
    backend = get_backend("cifar10", "cpu")
    assert isinstance(backend, PixelBackend)
    assert isinstance(backend, Backend)
    assert backend.device == torch.device("cpu")


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


def test_defaults_are_the_papers_where_a_backend_has_none():
    defaults = Config.of()
    assert defaults.fit == defaults.prior == defaults.edit == defaults.optimize == {}
    assert defaults.strength == 1
