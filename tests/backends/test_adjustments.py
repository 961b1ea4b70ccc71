"""What an edit may change of a photograph: contrast and tint, and nothing that it does not have."""

import math

import pytest
import torch

from vislens_interp.backends.adjustments import LARGEST, PLACES, SMALLEST, Adjustments


def _photographs(count=2, side=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, side, side, generator=generator)


@pytest.mark.parametrize("side", [32, 64, 224])
def test_no_adjustment_gives_the_picture(side):
    images = _photographs(side=side)
    torch.testing.assert_close(Adjustments(images)(), images, atol=1e-5, rtol=0)


def test_a_gain_multiplies_the_contrast_of_one_band_at_one_place():
    images = _photographs(side=256)
    adjustments = Adjustments(images)
    with torch.no_grad():
        adjustments.gains[0][..., :2] = -10.0  # the left half, as far as it goes
    change = (adjustments() - images).detach()
    assert change[..., :96].abs().mean() > 0.1
    assert change[..., 160:].abs().max() < 1e-5
    low = torch.nn.functional.avg_pool2d(change, 8)
    assert low.abs().mean() < 0.1 * change.abs().mean()  # the finest band has no coarse colours


def _halves(dark=0.1, light=0.9, side=224):
    images = torch.full((1, 3, side, side), dark)
    images[..., side // 2 :] = light
    return images


def test_a_tint_follows_brightness_and_not_only_place():
    images = _halves()
    adjustments = Adjustments(images)
    with torch.no_grad():
        adjustments.tint[:, :, -1] = 1.0  # of the lightest level, everywhere
    change = (adjustments() - images).abs().amax(1)
    assert change[..., 112:].min() > 0.05
    assert change[..., :112].max() < 1e-5  # up to the last pixel before the edge


def test_a_tint_lies_linearly_between_places_and_levels():
    images, levels = _photographs(side=96), 6
    adjustments = Adjustments(images)
    grid = torch.randn(2, 3, levels, PLACES, PLACES, generator=torch.Generator().manual_seed(1))
    by_place = torch.nn.functional.interpolate(grid.flatten(1, 2), (96, 96), mode="bilinear").unflatten(1, (3, levels))
    level = images.mean(1, keepdim=True) * (levels - 1)
    below = level.long().clamp_max(levels - 2)
    pick = lambda one: by_place.gather(2, one[:, :, None].expand(-1, 3, 1, -1, -1))[:, :, 0]  # noqa: E731
    wanted = torch.lerp(pick(below), pick(below + 1), level - below)
    torch.testing.assert_close(adjustments.read_tint(grid), wanted, atol=1e-5, rtol=0)


def test_contrast_follows_brightness_and_not_only_place():
    images = (_halves(0.2, 0.8) + 0.2 * (_photographs(1, 224) - 0.5)).clamp(0, 1)
    adjustments = Adjustments(images)
    with torch.no_grad():
        adjustments.gains[0][:, :, :2] = -10.0  # of the two darkest levels, everywhere
    change = (adjustments() - images).detach()
    assert change[..., :108].square().mean() > 20 * change[..., 116:].square().mean()


def test_fine_contrast_is_raised_less_than_it_is_lowered():
    images = _photographs(side=128)
    adjustments = Adjustments(images)

    def change(gain):
        with torch.no_grad():
            adjustments.gains[0].fill_(gain)
            return adjustments() - images

    raised, lowered = change(10.0), change(-10.0)
    bounds = (math.exp(LARGEST[0]) - 1) / (math.exp(SMALLEST) - 1)
    assert abs(bounds) < 0.5
    torch.testing.assert_close(raised, bounds * lowered, atol=1e-4, rtol=0)


def test_a_picture_without_contrast_gets_none_but_can_be_tinted():
    grey = torch.full((1, 3, 64, 64), 0.4)
    adjustments = Adjustments(grey)
    with torch.no_grad():
        for gain in adjustments.gains:
            gain.normal_(generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(adjustments(), grey, atol=1e-5, rtol=0)
    with torch.no_grad():
        adjustments.tint += 0.5
    assert (adjustments() - grey).abs().max() > 0.01


def test_pictures_are_adjusted_apart_and_gradients_reach_all_parameters():
    images = _photographs(3)
    adjustments = Adjustments(images)
    adjustments()[1].square().sum().backward()
    for parameter in adjustments.parameters:
        assert parameter.grad[1].abs().sum() > 0
        assert parameter.grad[[0, 2]].abs().sum() == 0
