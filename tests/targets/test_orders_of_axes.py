"""Whatever order a network keeps its axes in, everything that reads its layers reads the same of them."""

import pytest
import torch
from torch import nn

from vislens_interp.audit.paths import path, weighted_layers
from vislens_interp.backends.depth_embedder import DepthEmbedder
from vislens_interp.brain.backbone import Backbone
from vislens_interp.preprocess import Preprocess
from vislens_interp.targets import LayerTarget

SIDE, WIDTH = 32, 6
PREPROCESS = Preprocess(SIDE, [0.5], [0.25])


class Attention(nn.Module):
    """A block of attention over tokens, as CLIP has it."""

    def __init__(self, batch_first):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=batch_first)
        self.weight = nn.Parameter(torch.eye(WIDTH))

    def forward(self, x):
        return (x + self.attention(x, x, x)[0]) @ self.weight


class Tokens(nn.Module):
    """A transformer with the images first or the tokens first."""

    def __init__(self, batch_first):
        super().__init__()
        self.batch_first = batch_first
        self.patch = nn.Conv2d(3, WIDTH, 8, 8)
        self.blocks = nn.Sequential(Attention(batch_first), Attention(batch_first))
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, images):
        x = self.patch(images).flatten(2).transpose(1, 2)
        x = self.blocks(x if self.batch_first else x.transpose(0, 1))
        return self.head((x if self.batch_first else x.transpose(0, 1)).mean(1))


class Mixer(nn.Module):
    """A linear map of channels at every position, before or after the picture's axes."""

    def __init__(self, channels_first):
        super().__init__()
        self.channels_first, self.weight = channels_first, nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, x):
        if self.channels_first:
            return torch.einsum("nchw,dc->ndhw", x, self.weight).tanh()
        return torch.einsum("nhwc,dc->nhwd", x, self.weight).tanh()


class Maps(nn.Module):
    """A network of maps with the channels first or last, as Swin has them."""

    def __init__(self, channels_first):
        super().__init__()
        self.channels_first = channels_first
        self.patch = nn.Conv2d(3, WIDTH, 4, 4)
        self.blocks = nn.Sequential(Mixer(channels_first), Mixer(channels_first))
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, images):
        x = self.patch(images)
        x = self.blocks(x if self.channels_first else x.permute(0, 2, 3, 1))
        return self.head(x.mean((2, 3) if self.channels_first else (1, 2)))


@pytest.fixture(params=[Tokens, Maps])
def twins(request):
    """The same network with its axes in two orders."""
    one, other = request.param(True).eval(), request.param(False).eval()
    other.load_state_dict(one.state_dict())
    return one, other


@pytest.fixture
def images():
    return torch.rand(5, 3, SIDE, SIDE)


def alike(read, twins):
    for one, other in zip(*map(read, twins), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_backbone(twins, images):
    alike(lambda network: Backbone(network, preprocess=PREPROCESS, grid=2)(images), twins)


def test_an_embedder_of_all_depths(twins, images):
    def embed(network):
        embedder = DepthEmbedder(network, ["patch", "blocks.0", "blocks.1"], preprocess=PREPROCESS, size=SIDE)
        assert embedder.channels == (WIDTH,) * 3
        return embedder.standardise(images)(images)

    alike(embed, twins)


def test_the_way_through_an_audited_network(twins, images):
    def means(network):
        target = LayerTarget(network, "head", 0, preprocess=PREPROCESS)
        seen = path(target, images, weighted_layers(target))
        assert [name for name in seen if name.startswith("blocks.") and name.count(".") == 1] == [
            "blocks.0",
            "blocks.1",
        ]
        return [rows for name, rows in seen.items() if name.count(".") < 2]

    alike(means, twins)


def test_a_unit_of_a_layer(twins, images):
    alike(lambda network: LayerTarget(network, "blocks.1", [0, 3], preprocess=PREPROCESS)(images), twins)
