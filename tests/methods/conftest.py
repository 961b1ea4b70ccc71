"""A linear unit, whose best picture is known, and a backend whose x is the picture."""

import pytest
import torch
from torch import nn

from vislens_interp.config import Config
from vislens_interp.preprocess import Preprocess
from vislens_interp.targets.target import LayerTarget


class Pixels:
    """x is the picture; decoding changes nothing."""

    name, device, differentiable = "pixels", torch.device("cpu"), True
    defaults = Config.of()

    def __init__(self, size=8):
        self.size, self.shape = size, (3, size, size)

    def encode(self, images):
        return images

    def render(self, x):
        return x

    def decode(self, x, *, init_image, strength, seeds):
        return x

    def reference_images(self):
        return None

    def vae(self):
        raise AssertionError("no method of these tests needs a VAE")

    def feature_extractor(self):
        return None


@pytest.fixture(scope="session")
def pixels():
    return Pixels


@pytest.fixture(scope="session")
def linear_unit():
    """A function of a filter (3, S, S): the target whose response is its inner product with the picture."""

    def make(weight):
        size = weight.shape[-1]
        model = nn.Sequential(nn.Flatten(), nn.Linear(weight.numel(), 1, bias=False))
        with torch.no_grad():
            model[1].weight.copy_(weight.flatten()[None])
        return LayerTarget(model, "1", [0], preprocess=Preprocess(size, [0], [1]))

    return make


@pytest.fixture(scope="session")
def pictures():
    """A function of count, size and seed: smooth pictures, unlike one another."""

    def make(count, size=8, seed=0):
        coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
        return nn.functional.interpolate(coarse, size=size, mode="bilinear")

    return make
