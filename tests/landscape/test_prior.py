import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal
from torch.distributions import kl_divergence as reference_kl

from vislens_interp.landscape.prior import ActivationPrior, ResponseScaler, equal_blocks, kl_divergence, mode_means


def test_kld_is_that_of_torch():
    torch.manual_seed(0)
    mean, log_variance, prior_mean = torch.randn(3, 40, 7, dtype=torch.float64)
    prior_sigma = torch.rand(40, 7, dtype=torch.float64) + 0.1
    expected = reference_kl(Normal(mean, (log_variance / 2).exp()), Normal(prior_mean, prior_sigma)).sum(1)
    torch.testing.assert_close(kl_divergence(mean, log_variance, prior_mean, prior_sigma), expected)


def test_kld_of_equal_distributions_is_zero():
    mean, sigma = torch.randn(5, 3), torch.rand(5, 3) + 0.5
    torch.testing.assert_close(kl_divergence(mean, 2 * sigma.log(), mean, sigma), torch.zeros(5), atol=1e-6, rtol=0)


def test_sigma_is_the_papers_between_its_clamps():
    prior = ActivationPrior(4, [(0, 4)], lam=0.5, eps=0.1, sigma_min=0.2, sigma_max=0.9)
    found = prior.sigma(torch.tensor([0.9, -0.9, 0.0, 1e-3, 100.0, -100.0]))
    torch.testing.assert_close(found, torch.tensor([0.5, 0.5, 0.9, 0.9, 0.2, 0.2]))


@given(st.floats(-50, 50))
@settings(max_examples=50, deadline=None)
def test_sigma_is_finite_and_narrows_with_the_response(response):
    prior = ActivationPrior(4, [(0, 4)])
    here, further = prior.sigma(torch.tensor(response)), prior.sigma(torch.tensor(response * 1.5))
    assert prior.sigma_min <= further <= here <= prior.sigma_max


def test_mean_by_sign_and_standard_normal_outside_the_blocks():
    prior = ActivationPrior(7, [(0, 2), (3, 5)])
    mean, sigma = prior.parameters(torch.tensor([[2.0, -1.0], [-0.5, 0.0]]))
    assert mean.tolist() == [[1, 1, 0, -1, -1, 0, 0], [-1, -1, 0, -1, -1, 0, 0]]
    assert (sigma[:, [2, 5, 6]] == 1).all()
    torch.testing.assert_close(sigma[0, [0, 3]], torch.tensor([1 / 2.1, 1 / 1.1]).clamp(max=1))


def test_goal_is_the_mean_of_a_driven_image():
    prior = ActivationPrior(6, [(0, 6)], modes=3)
    mean, _ = prior.parameters(torch.tensor([[2.0], [-2.0]]), torch.tensor([[2], [1]]))
    torch.testing.assert_close(mean[0], prior.goal(0, "increase", 2))
    torch.testing.assert_close(mean[1], prior.goal(0, "decrease", 1))
    assert prior.goal(0, "increase", torch.tensor([0, 2, 2, 1])).shape == (4, 6)


def test_one_mode_is_the_paper():
    assert torch.equal(mode_means(5, 1), torch.ones(1, 5))


@pytest.mark.parametrize(("width", "modes"), [(4, 2), (4, 3), (24, 5)])
def test_several_modes_share_norm_and_axis(width, modes):
    means = mode_means(width, modes)
    assert means.shape == (modes, width)
    torch.testing.assert_close(means.norm(dim=1), torch.full((modes,), math.sqrt(width)))
    torch.testing.assert_close(means.mean(1), torch.full((modes,), 1 / math.sqrt(2)))
    apart = means - means.mean(1, keepdim=True)
    gram = apart @ apart.T
    torch.testing.assert_close(gram, torch.eye(modes) * width / 2, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("width", "modes"), [(1, 2), (3, 3), (3, 0), (3, 9)])
def test_impossible_modes(width, modes):
    with pytest.raises(ValueError, match=f"modes={modes} .*widen the block"):
        mode_means(width, modes)


def test_mode_that_is_not_there():
    prior = ActivationPrior(6, [(0, 6)], modes=2)
    for mode in (2, -1, torch.tensor([0, 2])):
        with pytest.raises(ValueError, match=r"mode=.* 0 to 1"):
            prior.goal(0, "increase", mode)


@pytest.mark.parametrize(
    "wrong", [{"lam": 0}, {"eps": -1}, {"sigma_min": 0}, {"sigma_min": 0.5, "sigma_max": 0.4}], ids=str
)
def test_impossible_prior(wrong):
    with pytest.raises(ValueError, match="expected lam > 0, eps >= 0 and 0 < sigma_min <= sigma_max"):
        ActivationPrior(4, [(0, 4)], **wrong)


def test_prior_survives_its_state():
    prior = ActivationPrior(8, [(0, 3), (3, 6)], modes=2, lam=0.7)
    again = ActivationPrior.from_state(prior.state())
    assert again == prior
    assert torch.equal(again.means[1], prior.means[1])


def test_blocks():
    assert equal_blocks(10, 3) == [(0, 3), (3, 6), (6, 9)]
    assert equal_blocks(10, 2, 1) == [(0, 1), (1, 2)]
    for arguments in [(10, 3, 4), (2, 3), (10, 1, 0)]:
        with pytest.raises(ValueError, match="Give fewer units or a smaller block_dim"):
            equal_blocks(*arguments)


def test_standardised_responses_have_mean_0_and_sd_1():
    responses = torch.randn(500, 3) * torch.tensor([1.0, 20.0, 1e-3]) + torch.tensor([0.0, 5.0, 1e-2])
    scaler = ResponseScaler.fit(responses)
    found = scaler.standardise(responses)
    torch.testing.assert_close(found.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.std(0), torch.ones(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("value", [0.0, 3.5, -1e-8])
def test_dead_and_constant_units_are_refused(value):
    responses = torch.stack([torch.randn(50), torch.full((50,), value)], 1)
    with pytest.raises(ValueError, match=r"unit 'fc1:7' never varies: .* all 50 images.*choose another"):
        ResponseScaler.fit(responses, ["fc1:3", "fc1:7"])


def test_small_responses_are_not_dead():
    assert ResponseScaler.fit(torch.rand(50, 1) * 1e-5).std > 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_responses_that_are_not_finite(value):
    responses = torch.randn(50, 1)
    responses[[3, 8]] = value
    with pytest.raises(ValueError, match="responses holds 2 values that are NaN or infinite"):
        ResponseScaler.fit(responses)


def test_other_bad_responses():
    with pytest.raises(ValueError, match=r"shape \(50,\); expected \(N, K\)"):
        ResponseScaler.fit(torch.randn(50))
