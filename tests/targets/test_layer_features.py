import pytest
import torch
from torch import nn

from vislens_interp.preprocess import Preprocess
from vislens_interp.targets.callable import CallableTarget
from vislens_interp.targets.layer_features import LayerFeatures
from vislens_interp.targets.selectors import MeanOf
from vislens_interp.targets.subset import UnitsOf
from vislens_interp.targets.target import LayerTarget


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def target(network, layer, units):
    return LayerTarget(network, layer, units, preprocess=Preprocess(8, [0.5], [0.5]))


def test_maps_and_their_means_weigh_alike(network, images):
    sight = LayerFeatures(target(network, "1", [0]), images)
    seen = sight(images)
    assert seen.shape == (12, 4 * 36 + 4)
    torch.testing.assert_close(seen[:, :144].var(0).sum(), seen[:, 144:].var(0).sum())
    torch.testing.assert_close(sight.variance, seen.var(0).sum())


@pytest.mark.parametrize("subset", [False, True])
def test_a_channel_is_left_out(network, images, subset):
    read = target(network, "1", [0, 2])
    sight = LayerFeatures(UnitsOf(read, [1]) if subset else read, images, without=[0 if subset else 1])
    seen = sight(images)
    maps = seen[:, :144].unflatten(1, (4, 36))
    assert (maps[:, 2] == 0).all()
    assert (seen[:, 144 + 2] == 0).all()
    assert maps[:, [0, 1, 3]].abs().sum() > 0


def test_all_channels_of_a_mean_are_left_out(network, images):
    sight = LayerFeatures(target(network, "1", [MeanOf([0, 2])]), images, without=[0])
    maps = sight(images)[:, :144].unflatten(1, (4, 36))
    assert (maps[:, [0, 2]] == 0).all()
    assert maps[:, [1, 3]].abs().sum() > 0


def test_a_place_is_left_out_and_a_function_has_none(network, images):
    sight = LayerFeatures(
        target(network, "1", [(1, 2, 3), lambda output: output.flatten(1).sum(1)]), images, without=[0]
    )
    maps = sight(images)[:, :144].unflatten(1, (4, 6, 6))
    assert (maps[:, 1, 2, 3] == 0).all()
    assert (maps[:, 1] != 0).any()
    whole = LayerFeatures(sight.target, images, without=[1])
    torch.testing.assert_close(whole(images), LayerFeatures(sight.target, images)(images))


def test_a_vector_layer(network, images):
    seen = LayerFeatures(target(network, "3", [4]), images, without=[0])(images)
    assert seen.shape == (12, 10)
    assert (seen[:, [4, 9]] == 0).all()


def test_gradients_flow(network, images):
    pictures = images.clone().requires_grad_(True)
    LayerFeatures(target(network, "1", [0]), images)(pictures).sum().backward()
    assert pictures.grad.abs().sum() > 0


def test_a_target_without_a_layer_says_so(images):
    with pytest.raises(TypeError, match="CallableTarget has no features"):
        LayerFeatures(CallableTarget(lambda pictures: pictures.mean((1, 2, 3))), images)
