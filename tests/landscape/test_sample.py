import pytest
import torch

from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import ActivationPrior, ResponseScaler
from vislens_interp.landscape.sample import sample_latents
from vislens_interp.landscape.vae import EmbeddingVAE


def landscape(modes=1):
    torch.manual_seed(0)
    x, responses = torch.randn(300, 10) * 3 + 1, torch.randn(300, 2)
    return Landscape.describe(
        EmbeddingVAE(10, 8),
        ActivationPrior(8, [(0, 3), (3, 6)], modes=modes),
        ResponseScaler.fit(responses),
        ["a", "b"],
        x,
        responses,
        held_out=torch.arange(30),
    )


def test_sample_k_uses_seed_plus_k():
    one = landscape()
    ten = sample_latents(one, 10, {0: "increase"}, seed=7)
    assert torch.equal(sample_latents(one, 4, {0: "increase"}, seed=7), ten[:4])
    assert torch.equal(sample_latents(one, 4, {0: "increase"}, seed=10), ten[3:7])
    assert len(ten.unique(dim=0)) == 10


def test_samples_come_from_the_prior_in_the_block_and_from_the_reference_set_outside():
    one = landscape()
    z = sample_latents(one, 3000, {0: "decrease"}, response=3.0)
    sigma = one.prior.sigma(torch.tensor(3.0))
    torch.testing.assert_close(z[:, :3].mean(0), -torch.ones(3), atol=0.05, rtol=0)
    torch.testing.assert_close(z[:, :3].std(0), sigma.expand(3), atol=0.03, rtol=0)
    torch.testing.assert_close(z[:, 3:].mean(0), one.latents[:, 3:].mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(z[:, 3:].std(0), one.latents[:, 3:].std(0), atol=0.0, rtol=0.06)


def test_several_modes_take_turns_or_one_is_chosen():
    one = landscape(modes=2)
    many = {"directions": {1: "increase"}, "response": 1e6}
    z = sample_latents(one, 4000, **many)[:, 3:6]
    for mode in (0, 1):
        mean = one.prior.goal(1, "increase", mode)
        torch.testing.assert_close(z[mode::2].mean(0), mean, atol=0.02, rtol=0)
        chosen = sample_latents(one, 1000, mode=mode, **many)[:, 3:6]
        torch.testing.assert_close(chosen.mean(0), mean, atol=0.02, rtol=0)
    with pytest.raises(ValueError, match="mode=.* 0 to 1"):
        sample_latents(one, 2, {0: "increase"}, mode=2)


def test_the_global_generator_is_left_alone():
    one = landscape()
    before = torch.get_rng_state()
    sample_latents(one, 3, {0: "increase"})
    assert torch.equal(torch.get_rng_state(), before)


def test_none_at_all():
    with pytest.raises(ValueError, match="count=0 must be at least 1"):
        sample_latents(landscape(), 0, {0: "increase"})
