"""What every backend promises, on all of them."""

import math

import pytest
import torch

from vislens_interp.backends.base import Backend, get_backend
from vislens_interp.images import check_images
from vislens_interp.methods.landscape import LandscapeEdit

STRENGTH = {"cifar10": 0.02, "sd15": 0.5, "textless": 0.4, "embedded": 1.0, "retrieval": 1.0}
"""Of a refinement that takes a step or two."""


@pytest.fixture(scope="module", params=list(STRENGTH))
def backend(request):
    fixture = {"embedded": "small_embedded"}.get(request.param, request.param)
    return get_backend("cifar10") if request.param == "cifar10" else request.getfixturevalue(fixture)


@pytest.fixture
def pictures(backend):
    coarse = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=backend.size, mode="bilinear")


@pytest.fixture
def refine(backend, pictures):
    def decode(rows, seeds):
        x = backend.encode(pictures[rows])
        return backend.decode(x, init_image=pictures[rows], strength=STRENGTH[backend.name], seeds=seeds)

    return decode


@pytest.fixture(autouse=True)
def global_generator_is_left_alone():
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


def test_it_is_a_backend(backend):
    assert isinstance(backend, Backend)
    assert get_backend(backend) is backend
    assert backend.size >= 8
    assert backend.device == torch.device("cpu")


def test_x_has_the_shape_that_it_says(backend, pictures):
    x = backend.encode(pictures)
    assert x.shape == (3, *backend.shape)
    assert x.dtype == torch.float32
    assert x.isfinite().all()
    assert not x.requires_grad
    assert backend.encode(torch.rand(1, 3, 48, 64, generator=torch.Generator())).shape == (1, *backend.shape)


def test_an_x_does_not_depend_on_its_batch(backend, pictures):
    together = backend.encode(pictures)
    torch.testing.assert_close(backend.encode(pictures[2:]), together[2:], atol=1e-5, rtol=0)
    assert not torch.equal(together[0], together[1])


def test_decoded_pixels_stay_pixels(backend, refine):
    made = check_images(refine([0, 1, 2], [1, 2, 3]))
    assert made.shape == (3, 3, backend.size, backend.size)
    assert made.dtype == torch.float32
    assert not made.requires_grad


def test_decoding_is_repeatable_to_the_bit(refine):
    assert torch.equal(refine([0, 1], [1, 2]), refine([0, 1], [1, 2]))


def test_an_image_does_not_depend_on_its_batch(refine):
    together = refine([0, 1, 2], [3, 1, 4])
    for row, seed in enumerate([3, 1, 4]):
        torch.testing.assert_close(refine([row], [seed]), together[row : row + 1], atol=1e-4, rtol=0)


def test_each_image_has_its_own_seed(refine):
    same, other, again = refine([0, 0, 0], [7, 8, 7])
    torch.testing.assert_close(same, again, atol=1e-4, rtol=0)
    assert (same - other).abs().max() > 1e-3


def test_strength_0_adds_no_noise(backend, pictures):
    x = backend.encode(pictures)
    one, other = (backend.decode(x, init_image=pictures, strength=0, seeds=seeds) for seeds in ([1] * 3, [2] * 3))
    if backend.name == "retrieval":
        pytest.skip("there is no noise: a seed picks a neighbour, at any strength")
    assert torch.equal(one, other)
    assert torch.equal(one, pictures)


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan])
def test_strength_out_of_range(backend, pictures, strength):
    x = backend.encode(pictures)
    with pytest.raises(ValueError, match=r"strength=.* must lie in \[0, 1\]: 0 keeps the .*, 1 ignores it"):
        backend.decode(x, init_image=pictures, strength=strength, seeds=[1] * 3)


def test_too_few_seeds(backend, refine):
    with pytest.raises(ValueError, match="seeds has 2 entries for 3 images; expected one an image"):
        refine([0, 1, 2], [1, 2])


def test_render_has_gradients_where_the_backend_says_so(backend, pictures):
    x = backend.encode(pictures[:1]).clone().requires_grad_()
    made = backend.render(x)
    assert made.shape == (1, 3, backend.size, backend.size)
    check_images(made)
    assert made.requires_grad == backend.differentiable


def test_every_fit_starts_from_a_vae_of_its_own(backend, pictures):
    vae, again = backend.vae(), backend.vae()
    assert vae is not again
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in vae.state_dict().items())
    assert vae.shape == backend.shape
    with torch.no_grad():
        mean, _ = vae.encode(backend.encode(pictures))
        assert vae.decode(mean).shape == (3, *backend.shape)


def test_reference_set(backend):
    images = backend.reference_images()
    if backend.name == "sd15":
        assert images is None
        return
    assert check_images(images[:8]).shape[1:] == (3, backend.size, backend.size)
    assert len(images) >= 200


def test_perception_is_another_network_or_none(backend, pictures):
    perception = backend.feature_extractor()
    assert (perception is None) == (backend.name != "cifar10")
    if perception is not None:
        assert len(perception(backend.encode(pictures)).flatten(1)) == 3


def test_defaults_name_settings_that_exist(backend):
    said = LandscapeEdit().bind(None, backend).describe()
    assert said == backend.defaults.to_dict()
    assert 0 <= backend.defaults.edit.strength <= 1
    assert backend.feature_extractor() is not None or backend.defaults.fit.w_consistency == 0
