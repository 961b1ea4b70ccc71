"""The dose-response that a report holds, through the lens."""

import pytest
import torch
from torch import nn

from vislens_interp import FeatureLens
from vislens_interp.targets.target import Target


class Brightness(Target):
    """One response, without gradients."""

    names = ("all",)
    differentiable = False

    def __call__(self, images):
        return images.mean((1, 2, 3))[:, None]


def pictures(count):
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, size=32, mode="bicubic", align_corners=False).clamp(0, 1)


def test_doses_are_measured_like_the_pictures():
    lens = FeatureLens(Brightness(), backend="cifar10").fit(pictures(200), epochs=1, shuffles=0, w_consistency=0.0)
    images = lens.reference_set.held_out(2)[0]
    result = lens.visualize(images, strength=0, alphas=[0.5])
    behind = result.background
    assert behind.alphas == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert (behind.changes[2] == 0).all()
    for row, key in ((0, "decrease"), (4, "increase")):
        torch.testing.assert_close(behind.changes[row], result.response_change[key], atol=1e-5, rtol=1e-4)
    half = lens.visualize(images, "increase", alpha=0.5, strength=0)
    torch.testing.assert_close(behind.changes[3], half.response_change["increase"], atol=1e-5, rtol=1e-4)
    assert half.background.alphas == [0.0, 0.5]


def test_doses_that_are_none():
    lens = FeatureLens(Brightness(), backend="cifar10")
    with pytest.raises(ValueError, match=r"alphas=\[0.5\] are weights of method='edit', not of 'optimize'"):
        lens.visualize(pictures(2), method="optimize", alphas=[0.5])
    for wrong in (0.0, 1.5, -0.5):
        with pytest.raises(ValueError, match=r"must lie in \(0, 1\]; each direction is taken"):
            lens.visualize(pictures(2), alphas=[wrong])
