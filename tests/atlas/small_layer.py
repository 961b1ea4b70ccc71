"""What the tests of the atlas share: clouds of colour, and a layer with a dead, a constant and a doubled unit."""

import torch
from torch import nn
from torch.nn.functional import interpolate

from vislens_interp.backends.closed_loop import ClosedLoopGenerator
from vislens_interp.backends.depth_embedder import DepthEmbedder
from vislens_interp.backends.embedded import DEFAULTS
from vislens_interp.backends.embedding import EmbeddingBackend
from vislens_interp.backends.pyramid_decoder import PyramidDecoder
from vislens_interp.preprocess import Preprocess

UNITS, DEAD, CONSTANT, TWIN, ORIGINAL = 12, 9, 10, 11, 3


def clouds(count, side=64, seed=0):
    """Clouds of colour at three scales: (N, 3, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    layers = [
        interpolate(torch.rand(count, 3, cells, cells, generator=generator), (side, side), mode="bicubic")
        for cells in (2, 6, 20)
    ]
    return (0.5 * layers[0] + 0.3 * layers[1] + 0.2 * layers[2]).clamp(0, 1)


class SmallLayer(nn.Module):
    """A convolution and a ReLU on 64 px: twelve units."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.convolution = nn.Conv2d(3, UNITS, 5, stride=2)
        with torch.no_grad():
            self.convolution.weight[[DEAD, CONSTANT]] = 0
            self.convolution.bias[:] = 0.1
            self.convolution.bias[DEAD], self.convolution.bias[CONSTANT] = -1, 1
            self.convolution.weight[TWIN] = 2 * self.convolution.weight[ORIGINAL]
            self.convolution.bias[TWIN] = 2 * self.convolution.bias[ORIGINAL]
        self.layer = nn.ReLU()
        self.preprocess = Preprocess(64, [0.5], [0.5])

    def forward(self, x):
        return self.layer(self.convolution(x))


def small_layer():
    return SmallLayer().eval()


def kinds(directions):
    """Words that say nothing of the units: cloud for each, and one of three kinds."""
    return [["cloud", f"kind{row % 3}"] for row in range(len(directions))]


class SmallEmbedder(nn.Module):
    """Two convolutions with random weights."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            self.fine = nn.Sequential(nn.Conv2d(3, 24, 4, stride=2, padding=1), nn.ReLU())
            self.coarse = nn.Sequential(nn.Conv2d(24, 32, 4, stride=2, padding=1), nn.ReLU())

    def forward(self, x):
        return self.coarse(self.fine(x))


def small_backend():
    """The embedded backend's parts around two convolutions, at 64 px: the same code in a hundredth of the time."""
    images, layers = clouds(120, seed=9), ["fine", "coarse"]
    embedder = DepthEmbedder(SmallEmbedder(), layers, preprocess=Preprocess(64, [0.5], [0.25]), size=64)
    decoder = PyramidDecoder(embedder.standardise(images), layers).fit(images)
    return EmbeddingBackend(embedder, ClosedLoopGenerator(embedder, decoder, size=64), name="small", defaults=DEFAULTS)
