"""Fits, edits and optimisations under ``torch.no_grad`` and ``inference_mode``: the same pictures as without."""

import pytest
import torch
from torch import nn

from vislens_interp import FeatureLens
from vislens_interp.config import Config
from vislens_interp.images import resize
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.preprocess import Preprocess


class SmallPixels:
    """Pixels of 8-pixel images as one long x."""

    name, size, shape, device, differentiable = "small", 8, (192,), torch.device("cpu"), True
    defaults = Config.of(epochs=1, block_dim=1, shuffles=1, optimize={"steps": 3, "lr": 0.05, "chunk": 2})

    def encode(self, images):
        return resize(images, 8).flatten(1)

    def render(self, x):
        return x.unflatten(1, (3, 8, 8)).clamp(0, 1)

    def decode(self, x, *, init_image, strength, seeds):
        return self.render(x)

    def reference_images(self):
        return None

    def vae(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return EmbeddingVAE(192, 12)

    def feature_extractor(self):
        return None


def pictures(count, seed):
    coarse = torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=8, mode="bilinear")


def changes(network, method):
    lens = FeatureLens(network, "1", unit=1, backend=SmallPixels(), preprocess=Preprocess(8, [0.5], [0.5]))
    lens.fit(pictures(220, 1))
    return lens.visualize(pictures(2, 2), method=method).images


@pytest.mark.parametrize("method", ["edit", "optimize", "pixel_maximization", "ridge_direction"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_same_pictures(mode, method):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh())
    before = changes(network, method)
    with mode():
        after = changes(network, method)
    for key, images in before.items():
        torch.testing.assert_close(after[key], images)
