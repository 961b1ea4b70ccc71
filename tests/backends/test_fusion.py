import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from vislens_interp import zoo
from vislens_interp.backends.depth_embedder import DepthEmbedder
from vislens_interp.backends.fusion import fused
from vislens_interp.preprocess import Preprocess


class _Net(nn.Module):
    """Convolutions and norms, joined in one of several ways."""

    def __init__(self, join):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.join = join
            self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 1)
            self.norm, self.other = nn.BatchNorm2d(6), BatchNormAct2d(6)
            for norm in (self.norm, self.other):
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)
                nn.init.normal_(norm.weight)
                nn.init.normal_(norm.bias)
        self.eval()

    def forward(self, x):
        if self.join == "in turn":
            return self.other(self.second(self.norm(self.first(x)).relu()))
        if self.join == "the convolution is read elsewhere":
            y = self.first(x)
            return self.norm(y) + y
        if self.join == "the convolution runs twice":
            y = self.norm(self.first(x))
            return self.second(self.second(y)) + self.other(self.second(y))
        if self.join == "a function between that works in place":
            return self.norm(self.first(x).relu_())
        return self.second(self.first(x))  # no norm follows


JOINS = {
    "in turn": 2,
    "the convolution is read elsewhere": None,
    "the convolution runs twice": 1,
    "a function between that works in place": None,
    "no norm": None,
}


def _norms(network):
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(("join", "folded"), JOINS.items())
@torch.no_grad()
def test_a_copy_has_fewer_norms_and_the_same_outputs_or_there_is_none(join, folded):
    network, images = _Net(join), torch.rand(2, 3, 12, 12)
    state = copy.deepcopy(network.state_dict())
    made = fused(network, lambda one: [one(images)])
    assert (None if made is None else _norms(network) - _norms(made)) == folded
    others = torch.rand(4, 3, 16, 16)
    if made is not None:
        torch.testing.assert_close(made(others), network(others), atol=1e-4, rtol=1e-4)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@torch.no_grad()
def test_a_convolution_whose_own_output_is_read_is_left_as_it_is():
    network, images = _Net("in turn"), torch.rand(2, 3, 12, 12)
    made = fused(network, lambda one: [one(images)], kept=["first"])
    assert made is not None
    assert torch.equal(made.first.weight, network.first.weight)
    assert _norms(made) == 1


def test_the_shipped_network_loses_all_norms_that_its_embedding_passes():
    embedder = DepthEmbedder(zoo.load("efficientnet_lite0"), size=64).standardise(torch.rand(4, 3, 64, 64))
    images = torch.rand(3, 3, 64, 64)
    plain = embedder.maps(images, layers=embedder.layers)
    for got, wanted in zip(embedder.maps(images), plain, strict=True):
        torch.testing.assert_close(got, wanted, atol=2e-3, rtol=1e-3)
    assert _norms(embedder._fast()) == 0
    assert _norms(embedder.network) == 49


def test_an_embedder_follows_its_network_s_weights():
    network = _Net("in turn")
    options = {"preprocess": Preprocess(16, [0.5], [0.5]), "size": 16}
    images = torch.rand(2, 3, 16, 16)
    embedder = DepthEmbedder(network, ["norm", "other"], **options)
    names = list(embedder.state_dict())
    with torch.inference_mode():
        embedder.maps(images)
    with torch.no_grad():
        network.first.weight.mul_(2)
    embedder.network.load_state_dict(network.state_dict())
    for got, wanted in zip(embedder.maps(images), embedder.maps(images, layers=embedder.layers), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert embedder.maps(images.clone().requires_grad_())[0].requires_grad
    assert list(embedder.state_dict()) == names
    copy.deepcopy(embedder).double().maps(images.double())
