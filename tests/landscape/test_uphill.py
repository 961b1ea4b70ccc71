import pytest
import torch

from vislens_interp.landscape.edit import angle_between
from vislens_interp.landscape.fit import FitSettings, fit_landscape
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import ActivationPrior, equal_blocks
from vislens_interp.landscape.uphill import Surface
from vislens_interp.landscape.vae import EmbeddingVAE

DIM = 12


def landscape_of(respond, count=600) -> tuple[Landscape, torch.Tensor]:
    """Embeddings that vary in eight of twelve dimensions, and the landscape of a response to them."""
    x = torch.randn(count, DIM, generator=torch.Generator().manual_seed(0))
    x[:, 8:] = 3.0
    vae = EmbeddingVAE.principal(x.mean(0), x.T.cov(correction=0), 8, 0.01)
    prior = ActivationPrior(8, equal_blocks(8, 1))
    settings = FitSettings(epochs=1, w_consistency=0.0)
    return fit_landscape(vae, x, respond(x)[:, None], prior, settings, names=["unit"]), x


@pytest.fixture(scope="module")
def either() -> tuple[Landscape, torch.Tensor]:
    """A unit of two unlike preferences."""
    return landscape_of(lambda x: x[:, 0].abs().clamp_min(1.0))


def test_each_image_climbs_to_the_preference_that_is_near(either):
    landscape, _ = either
    x = torch.randn(40, DIM, generator=torch.Generator().manual_seed(1))
    x[:, 8:] = 3.0
    x[:, 0] = torch.tensor([1.5, -1.5]).repeat(20)
    there = Surface(landscape).climb(x, {0: "increase"}, 25.0)
    assert (there[0::2, 0] > x[0::2, 0]).float().mean() > 0.9
    assert (there[1::2, 0] < x[1::2, 0]).float().mean() > 0.9
    away = Surface(landscape).climb(x, {0: "decrease"}, 15.0)
    assert (away[:, 0].abs() < x[:, 0].abs()).float().mean() > 0.9


def test_so_many_degrees_and_no_other_length(either):
    landscape, x = either
    surface = Surface(landscape)
    for degrees in (5.0, 20.0, 31.0):
        there = surface.climb(x[:30], {0: "increase"}, degrees)
        assert torch.allclose(angle_between(there, x[:30]), torch.tensor(degrees), atol=0.05)
        assert torch.allclose(there.norm(dim=1), x[:30].norm(dim=1), rtol=1e-5)
    assert torch.equal(surface.climb(x[:30], {0: "increase"}, 0.0), x[:30])


def test_a_step_stays_within_what_images_differ_in(either):
    landscape, x = either
    there = Surface(landscape).climb(x[:30], {0: "increase"}, 10.0)
    # The constant dimensions shrink by the turn alone, all of them alike.
    assert torch.allclose(there[:, 8:], there[:, 8:9].expand(-1, 4), atol=1e-2)


def test_a_step_goes_along_covariance_times_slope(either):
    landscape, x = either
    surface = Surface(landscape)
    here = x[:3].clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(surface(here).sum(), here)
    way = surface._way(x[:3], {0: "increase"})
    for row in range(3):
        near = (surface.known - x[row]).norm(dim=1).argsort()[:300]
        assert torch.allclose(way[row], surface.known[near].T.cov(correction=0) @ slope[row], atol=1e-4)


def test_the_same_surface_from_the_same_seed_and_no_state_left_behind(either):
    landscape, x = either
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same = Surface(landscape, seed=3), Surface(landscape, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one(x[:5]), same(x[:5]))


def test_held_out_images_are_not_learnt_from(either):
    landscape, _ = either
    changed = landscape.responses.clone()
    changed[landscape.held_out] = 100.0
    other = Landscape(**{**vars(landscape), "responses": changed})
    assert torch.equal(Surface(landscape)(landscape.latents.new_ones(2, DIM)), Surface(other)(torch.ones(2, DIM)))


def test_an_image_alone_climbs_as_in_a_batch(either):
    landscape, x = either
    surface = Surface(landscape)
    together = surface.climb(x[:70], {0: "increase"}, 20.0)
    assert torch.allclose(surface.climb(x[66:67], {0: "increase"}, 20.0), together[66:67], atol=1e-4)
    assert surface.climb(x[:0], {0: "increase"}, 20.0).shape == (0, DIM)


def test_degrees_out_of_range(either):
    with pytest.raises(ValueError, match="degrees=181 must lie between 0 and 180"):
        Surface(either[0]).climb(either[1][:2], {0: "increase"}, 181)


def test_the_height_bends_as_far_as_images_kept_aside_bear_it_out(either):
    assert Surface(either[0]).bend.item() > 0.8
    noise = torch.randn(600, generator=torch.Generator().manual_seed(2))
    landscape, _ = landscape_of(lambda x: x[:, 0] + x[:, 1] + 3 * noise)
    surface = Surface(landscape)
    x = torch.randn(200, DIM, generator=torch.Generator().manual_seed(3))
    x[:, 8:] = 3.0
    truth = landscape.scaler.standardise((x[:, 0] + x[:, 1])[:, None])
    blend, bend = (surface(x) - truth).square().mean(), surface.bend.item()
    assert bend < 1
    surface.bend = torch.ones(1)
    assert blend < (surface(x) - truth).square().mean()
    surface.bend = torch.zeros(1)
    plane = torch.stack([member.plane((x - surface.centre) / surface.scale) for member in surface.members]).mean(0)
    assert torch.allclose(surface(x), plane)
