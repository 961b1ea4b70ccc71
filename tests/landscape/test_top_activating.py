"""What strongly driven images have in common, as a goal: a known mean, and what it leaves alone."""

import pytest
import torch

from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import ActivationPrior, ResponseScaler
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.methods.landscape import LandscapeEdit


@pytest.fixture
def landscape():
    """Four latent dimensions: a unit's, another's, and two of nobody; the last image was held out."""
    latents = torch.tensor([[9.0, 9, 1, 0], [9, 9, 0, 4], [9, 9, -2, 2], [9, 9, 50, 50]])
    responses = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-3.0, 1.0], [100.0, -1.0]])
    scaler = ResponseScaler(torch.zeros(2), torch.ones(2))
    prior = ActivationPrior(4, [(0, 1), (1, 2)])
    held_out = torch.tensor([3])
    return Landscape(EmbeddingVAE(5, 4), prior, scaler, ["a", "b"], latents, responses, held_out)


def test_the_goal_is_the_weighted_mean_of_driven_images(landscape):
    z = torch.tensor([[0.3, 0.4, 0.5, 0.6]])
    up = landscape.goal(z, {0: "increase"}, top_activating_power=1.0)
    torch.testing.assert_close(up, torch.tensor([[1.0, 0.4, 1 / 3, 8 / 3]]))  # the other unit's block stays
    steep = landscape.goal(z, {0: "increase"}, top_activating_power=3.0)
    torch.testing.assert_close(steep[0, 2:], torch.tensor([1 / 9, 32 / 9]))
    down = landscape.goal(z, {0: "decrease"}, top_activating_power=3.0)
    torch.testing.assert_close(down, torch.tensor([[-1.0, 0.4, -2.0, 2.0]]))
    torch.testing.assert_close(landscape.goal(z, {0: "increase"})[0, 2:], z[0, 2:])


def test_several_units_take_the_mean_of_their_goals(landscape):
    z = torch.zeros(1, 4)
    both = landscape.goal(z, {0: "increase", 1: "increase"}, top_activating_power=1.0)
    one = torch.tensor([1 / 3, 8 / 3])
    torch.testing.assert_close(both[0, 2:], (one + torch.tensor([-2.0, 2.0])) / 2)
    assert both[0, :2].tolist() == [1.0, 1.0]


def test_a_negative_power_is_refused():
    with pytest.raises(ValueError, match="top_activating_power=-1 must not be negative"):
        LandscapeEdit(top_activating_power=-1).bind(None, _backend()).describe()


def _backend():
    from vislens_interp.config import Config

    class Backend:
        defaults = Config.of()

    return Backend()
