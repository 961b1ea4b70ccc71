import pytest
import torch
from torch import nn

from vislens_interp import FeatureLens
from vislens_interp.preprocess import Preprocess
from vislens_interp.reference import ReferenceSet
from vislens_interp.targets import CallableTarget
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


def test_a_lens_takes_units_of_a_target_by_name(target):
    some = FeatureLens(target, unit=["5", 1]).target
    assert some.names == ["5", "1"]
    assert some.describe() == {**target.describe(), "units": ["5", "1"]}
    with pytest.raises(ValueError, match=r"unit='7': the LayerTarget reads 3 units \('0', '1', '5'\); expected names"):
        FeatureLens(target, unit="7")
    with pytest.raises(ValueError, match=r"unit=\[\]: the LayerTarget reads 3 units"):
        FeatureLens(target, unit=[])


def test_all_columns_are_read_once_for_all_lenses(target):
    images, read = torch.rand(9, 3, 8, 8), []
    plain = type(target).responses
    reference = ReferenceSet(images)

    def counted(self, given, **options):
        read.append(len(self.names))
        return plain(self, given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(target), "responses", counted)
        for columns in ([0], [2, 1]):
            found = reference.read_by(UnitsOf(target, columns))
            assert torch.equal(found, plain(target, images)[:, columns])
    assert read == [6]  # the whole layer


def test_a_target_that_does_not_say_its_weights_is_read_anew():
    reference = ReferenceSet(torch.rand(9, 3, 8, 8))
    model = nn.Sequential(nn.Conv2d(3, 2, 1)).eval()
    for channel in (0, 1):  # functions of one name
        units = [lambda output, channel=channel: output[:, channel].mean((1, 2)), 0]
        of_layer = LayerTarget(model, "0", units, preprocess=Preprocess(8, [0.5], [0.5]))
        assert torch.equal(reference.read_by(UnitsOf(of_layer, [0])), of_layer.responses(reference.images)[:, :1])
    for factor in (1.0, 2.0):  # both say the same of themselves
        both = CallableTarget(lambda images, factor=factor: factor * images.mean((2, 3)), ["r", "g", "b"])
        found = reference.read_by(UnitsOf(both, [1]))
        torch.testing.assert_close(found, factor * reference.images.mean((2, 3))[:, 1:2])


def test_gradients_flow(target):
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    UnitsOf(target, [1])(images).sum().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize("columns", [[], [3], [-1]])
def test_columns_that_are_not_there(target, columns):
    with pytest.raises(ValueError, match=r"for a target with 3 units; expected at least one of 0..2"):
        UnitsOf(target, columns)
