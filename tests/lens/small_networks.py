"""What the tests of lenses share: small networks that nobody trained, pictures, a backend without extras."""

import torch
from torch import nn

from vislens_interp import Preprocess
from vislens_interp.backends.pixel import PixelBackend
from vislens_interp.targets.target import Target

QUICK = {"epochs": 1, "shuffles": 1, "optimize": {"steps": 4, "chunk": 4}}


def pictures(count, seed=0):
    """Smooth colour pictures at 32 px, unlike one another."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=32, mode="bicubic", align_corners=False).clamp(0, 1)


class SmallNet(nn.Module):
    """An untrained network with what the library must leave alone: dropout, BatchNorm, a last layer of any kind."""

    def __init__(self, last=None):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.BatchNorm2d(8), nn.Tanh(), nn.Dropout(0.5))
        self.conv = nn.Conv2d(8, 6, 3, stride=2)
        self.last = nn.Identity() if last is None else last
        self.preprocess = Preprocess(32, [0.5], [0.5])

    def forward(self, x):
        return self.last(self.conv(self.stem(x)))


def small_network(seed=0, last=None):
    torch.manual_seed(seed)
    return SmallNet(last)


class Bare(PixelBackend):
    """The pixel backend without what it travels with."""

    name = "bare"

    def reference_images(self):
        return None

    def feature_extractor(self):
        return None


class Brightness(Target):
    """Two responses without gradients."""

    names = ("all", "top")
    differentiable = False

    def __call__(self, images):
        with torch.no_grad():
            return torch.stack([images.mean((1, 2, 3)), images[:, :, :8].mean((1, 2, 3))], 1)
