import pytest
import torch

from vislens_interp.backends.pixel import PixelBackend
from vislens_interp.images import check_images


@pytest.fixture(scope="module")
def backend():
    return PixelBackend()


@pytest.fixture(scope="module")
def pictures():
    coarse = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=32, mode="bilinear")


def test_encode_and_render_are_the_identity(backend, pictures):
    assert torch.equal(backend.encode(pictures), pictures)
    assert torch.equal(backend.render(pictures), pictures)
    assert backend.encode(torch.rand(2, 3, 48, 64)).shape == (2, *backend.shape)


def test_strength_0_returns_the_very_input(backend, pictures):
    assert backend.decode(pictures, init_image=pictures, strength=0, seeds=[1, 2, 3]) is pictures


def test_refinement_does_not_depend_on_the_batch_and_is_repeatable(backend, pictures):
    def refine(rows):
        return backend.decode(pictures[rows], init_image=pictures[rows], strength=0.02, seeds=[7 + row for row in rows])

    before = torch.get_rng_state()
    together = refine([0, 1, 2])
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(refine([2]), together[2:], atol=1e-5, rtol=0)
    assert torch.equal(refine([0, 1, 2]), together)
    check_images(together)
    assert 0 < (together - pictures).abs().mean() < 0.1


def test_refinement_refuses(backend, pictures):
    with pytest.raises(ValueError, match="seeds has 2 entries for 3 images"):
        backend.decode(pictures, init_image=pictures, strength=0.1, seeds=[1, 2])
    with pytest.raises(ValueError, match=r"strength=-0.5 must lie in \[0, 1\]"):
        backend.decode(pictures, init_image=pictures, strength=-0.5, seeds=[1, 2, 3])


def test_the_shared_vae_knows_pictures_and_leaves_the_generator(backend, pictures):
    before = torch.get_rng_state()
    vae = backend.vae()
    assert torch.equal(torch.get_rng_state(), before)
    assert vae.shape == backend.shape
    with torch.no_grad():
        decoded = vae.decode(vae.encode(pictures)[0])
    assert ((decoded - pictures) ** 2).mean() < ((pictures - pictures.mean((2, 3), keepdim=True)) ** 2).mean()
    assert backend.vae() is not vae  # every fit changes its own


def test_perception_has_gradients(backend, pictures):
    x = pictures.clone().requires_grad_()
    features = backend.feature_extractor()(x)
    assert len(features) == 3
    features.square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_reference_set(backend):
    images = check_images(backend.reference_images())
    assert images.shape[1:] == backend.shape
    assert len(images) >= 200
    assert len(images.flatten(1).unique(dim=0)) == len(images)
    assert torch.equal(backend.reference_images(), images)


def test_defaults_name_settings_that_exist(backend):
    from vislens_interp.methods.landscape import LandscapeEdit

    said = LandscapeEdit().bind(None, backend).describe()  # type: ignore[arg-type]
    for kind in ("fit", "edit", "optimize"):
        assert getattr(backend.defaults, kind).items() <= said[kind].items()
    assert 0 < backend.defaults.strength <= 1
    assert backend.defaults.shuffles > 0
