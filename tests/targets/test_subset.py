import pytest
import torch
from torch import nn

from vislens_interp.preprocess import Preprocess
from vislens_interp.targets.subset import UnitsOf
from vislens_interp.targets.target import LayerTarget


@pytest.fixture
def target():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
    return LayerTarget(model, "1", [0, 1, 5], preprocess=Preprocess(8, [0.5], [0.5]), batch_size=2)


def test_columns_are_those_of_the_target(target):
    some, images = UnitsOf(target, [2, 0]), torch.rand(5, 3, 8, 8)
    assert some.names == ["5", "0"]
    assert torch.equal(some.responses(images), target.responses(images)[:, [2, 0]])
    assert (some.layout, some.batch_size, some.differentiable) == ("NCHW", 2, True)
    assert torch.equal(some.features(images), target.features(images))


def test_gradients_flow(target):
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    UnitsOf(target, [1])(images).sum().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize("columns", [[], [3], [-1]])
def test_columns_that_are_not_there(target, columns):
    with pytest.raises(ValueError, match=r"for a target with 3 units; expected at least one of 0..2"):
        UnitsOf(target, columns)
