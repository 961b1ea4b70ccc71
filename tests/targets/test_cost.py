"""What is counted is what went through the target, and nothing else changes."""

import copy

import pytest
import torch
from torch import nn

from vislens_interp.preprocess import Preprocess
from vislens_interp.targets.cost import Cost, CountedTarget
from vislens_interp.targets.subset import UnitsOf
from vislens_interp.targets.target import LayerTarget, Target


@pytest.fixture
def target():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh())
    return LayerTarget(model, "0", [1, 3], preprocess=Preprocess(6, [0.5], [0.5]), batch_size=4)


def test_passes_are_counted_by_image(target):
    meter, images = CountedTarget(target), torch.rand(7, 3, 6, 6)
    assert torch.equal(meter.responses(images), target.responses(images))  # in batches of 4 and 3
    assert (meter.forward, meter.backward) == (7, 0)
    meter(images[:2])  # the weights' gradients are not asked for
    assert (meter.forward, meter.backward) == (9, 0)
    meter(images[:3].requires_grad_()).sum().backward()
    meter.features(images[:1].detach().requires_grad_()).sum().backward()
    assert (meter.forward, meter.backward) == (13, 4)


def test_responses_and_features_are_one_pass_where_they_can_be(target):
    meter, images = CountedTarget(target), torch.rand(3, 3, 6, 6).requires_grad_()
    responses, features = meter.with_features(images)
    assert torch.equal(responses, target(images))
    assert torch.equal(features, target.features(images))
    (responses.sum() + features.sum()).backward()
    assert (meter.forward, meter.backward) == (3, 3)
    some = UnitsOf(target, [1])
    assert torch.equal(some.with_features(images)[0], responses[:, [1]])

    class Function(Target):
        names, differentiable = ["mean"], True

        def __call__(self, images):
            return images.mean((1, 2, 3))[:, None]

        def features(self, images):
            return images

    meter = CountedTarget(Function())
    meter.with_features(images)
    assert meter.forward == 6


def test_everything_else_is_the_targets_own(target):
    meter = CountedTarget(target)
    assert (meter.layout, meter.names, meter.batch_size) == (target.layout, ["1", "3"], 4)
    assert meter.describe() == target.describe()
    target.doubts = {"3": "noisy"}
    assert CountedTarget(target).doubts == target.doubts
    assert copy.copy(meter).layout == "NCHW"
    with pytest.raises(AttributeError, match="colour"):
        _ = meter.colour


def test_costs_add_up():
    assert Cost(1, 2, 3.0) + Cost(4, 5, 6.0) == Cost(5, 7, 9.0)
