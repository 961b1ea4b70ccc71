"""The goal of each image's own: a closed form, the twin as its limit, and two preferences that one mean cannot show."""

from dataclasses import replace

import pytest
import torch

from vislens_interp.config import EditConfig
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.local_mean import local_mean_goal
from vislens_interp.landscape.prior import ActivationPrior, ResponseScaler
from vislens_interp.landscape.vae import EmbeddingVAE


@pytest.fixture
def landscape():
    """Two clusters of images drive the unit, at opposite ends of the first axis; the rest do not."""
    draw = torch.Generator().manual_seed(0)
    centres = torch.tensor([[4.0, 0, 0], [-4.0, 0, 0], [0, 4.0, 0], [0, -4.0, 0]])
    x = centres.repeat(60, 1) + 0.3 * torch.randn(240, 3, generator=draw)
    responses = x[:, :1].abs()
    vae = EmbeddingVAE(3, 3)
    with torch.no_grad():
        vae.fc_encode.weight.copy_(torch.cat([torch.eye(3), torch.zeros(3, 3)]))
        vae.fc_encode.bias.zero_()
        vae.fc_decode.weight.copy_(torch.eye(3))
        vae.fc_decode.bias.zero_()
    prior = ActivationPrior(3, [(0, 3)])
    scaler = ResponseScaler.fit(responses)
    return Landscape.describe(vae, prior, scaler, ["0"], x, responses, held_out=torch.arange(0))


def test_each_image_goes_to_the_preference_that_is_near(landscape):
    z = torch.tensor([[1.0, 2.0, 0.0], [-1.0, 2.0, 0.0]])
    goal = local_mean_goal(landscape, z, {0: "increase"})
    assert goal[0, 0] > 3
    assert goal[1, 0] < -3
    away = local_mean_goal(landscape, z, {0: "decrease"})
    assert (away[:, 1] > 3).all()
    assert (away[:, 0].abs() < 0.5).all()


def test_at_an_infinite_temperature_it_is_the_weighted_mean_of_all(landscape):
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    goal = local_mean_goal(landscape, z, {0: "increase"}, power=2.0, temperature=float("inf"))
    weight = landscape.scaler.standardise(landscape.responses)[:, 0].clamp_min(0) ** 2
    twin = (weight[:, None] * landscape.latents).sum(0) / weight.sum()
    assert torch.allclose(goal, twin.expand(4, 3), atol=1e-4)
    assert twin[0].abs() < 1  # and shows neither of the two


def test_what_the_fit_held_out_is_nobodys_goal(landscape):
    z = landscape.latents[:1]
    others = replace(landscape, held_out=torch.arange(0, 240, 4))  # the whole first cluster, an image of which z is
    assert local_mean_goal(landscape, z, {0: "increase"})[0, 0] > 3
    assert local_mean_goal(others, z, {0: "increase"})[0, 0] < 3


def test_an_unknown_goal_is_refused():
    with pytest.raises(ValueError, match="goal='far' is unknown; expected 'mean', 'local_mean' or 'surrogate_ascent'"):
        EditConfig(goal="far")
