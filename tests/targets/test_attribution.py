import warnings

import pytest
import torch
from captum.attr import LayerActivation, NeuronGradient, NeuronIntegratedGradients
from torch import nn

from vislens_interp import FeatureLens, read_layer, zoo
from vislens_interp.preprocess import Preprocess
from vislens_interp.targets import LayerTarget
from vislens_interp.targets.attribution import attribute
from vislens_interp.zoo.convnet import ConvNet

PREPROCESS = Preprocess(32, [0.5], [0.5])
IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ConvNet().eval()


def whole(model):
    """The network on pixels, as Captum wants it."""
    return lambda images: model(PREPROCESS(images))


@pytest.mark.parametrize("layer", ["conv2.0", "conv3", "fc1.relu", "fc2"])
def test_responses_are_captums_activations(model, layer):
    activation = LayerActivation(whole(model), model.get_submodule(layer)).attribute(IMAGES)
    assert isinstance(activation, torch.Tensor)
    units = [0, 3, 7]
    chosen = activation[:, units].flatten(2).mean(2) if activation.ndim > 2 else activation[:, units]
    got = LayerTarget(model, layer, units, preprocess=PREPROCESS).responses(IMAGES)
    assert (got - chosen).abs().max() <= 1e-6


@pytest.mark.parametrize(
    ("layer", "unit"),
    [("conv3", (5, 2, 1)), ("conv3", (slice(0, 3), 1, slice(0, 2))), ("conv2", (1, slice(2, 4))), ("fc2", (4,))],
)
def test_captums_selectors_give_captums_numbers(model, layer, unit):
    """The same tuple, handed to both: value, gradient and attribution agree."""
    target = LayerTarget(model, layer, unit, preprocess=PREPROCESS)
    module = model.get_submodule(layer)
    given = IMAGES.clone().requires_grad_()
    (ours,) = torch.autograd.grad(target(given).sum(), given)
    captums = NeuronGradient(whole(model), module).attribute(IMAGES.clone().requires_grad_(), unit)
    assert (ours - captums).abs().max() <= 1e-6
    found = attribute(target, IMAGES, method="NeuronGradient")
    assert (found.values - captums).abs().max() <= 1e-6
    assert torch.equal(found.responses, target.responses(IMAGES)[:, 0])
    integrated = NeuronIntegratedGradients(whole(model), module).attribute(IMAGES.clone(), unit, n_steps=8)
    assert (attribute(target, IMAGES, n_steps=8).values - integrated).abs().max() <= 1e-6


def test_a_channel_is_captums_function(model):
    target = LayerTarget(model, "conv3", [9, 16], preprocess=PREPROCESS)
    captums = NeuronGradient(whole(model), model.conv3).attribute(
        IMAGES.clone().requires_grad_(), lambda output: output[:, 16].mean((1, 2))
    )
    assert (attribute(target, IMAGES, 1, method="NeuronGradient").values - captums).abs().max() <= 1e-6


def test_integrated_gradients_are_shares_of_the_response(model):
    target = LayerTarget(model, "conv3", 16, preprocess=PREPROCESS)
    found = attribute(target, IMAGES, n_steps=300)
    black = target.responses(torch.zeros_like(IMAGES))[:, 0]
    assert torch.allclose(found.values.flatten(1).sum(1), found.responses - black, atol=2e-3, rtol=0.02)


def test_a_notebook_is_not_flooded_with_pixels(model):
    made = attribute(LayerTarget(model, "conv3", 5, preprocess=PREPROCESS), IMAGES, n_steps=2)
    table = read_layer(model, "conv3", IMAGES, preprocess=PREPROCESS)
    assert repr(made).startswith("Attribution(unit='5', method='NeuronIntegratedGradients', responses=tensor([")
    assert len(repr(made)) < 200
    assert "tensor(" not in repr(table)


def test_a_unit_that_looks_at_one_corner():
    conv = nn.Conv2d(3, 2, 1, bias=False)
    nn.init.ones_(conv.weight)
    model = nn.Sequential(conv)
    target = LayerTarget(
        model, "0", lambda output: output[:, 0, :2, :2].sum((1, 2)), preprocess=Preprocess(8, [0], [1])
    )
    images = torch.rand(2, 3, 8, 8)
    values = attribute(target, images, n_steps=4).values
    assert torch.allclose(values[..., :2, :2], images[..., :2, :2], atol=1e-5)
    assert values.abs().sum().item() == pytest.approx(values[..., :2, :2].abs().sum().item())
    quarters = torch.tensor([[0, 1], [2, 3]]).repeat_interleave(4, 0).repeat_interleave(4, 1).expand(1, 3, 8, 8)
    ablated = attribute(target, images, method="NeuronFeatureAblation", feature_mask=quarters).values
    assert torch.allclose(ablated[:, 0, 0, 0], target.responses(images)[:, 0], atol=1e-5)
    assert ablated[..., 4:, 4:].abs().max() == 0


def test_the_model_is_left_as_it_was(model):
    model.train()
    model.fc1.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    random = torch.get_rng_state()
    attribute(LayerTarget(model, "conv3", 1, preprocess=PREPROCESS), IMAGES, n_steps=2)
    assert model.training
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    model.requires_grad_(True).eval()


def test_refused(model):
    target = LayerTarget(model, "fc2", lambda output: output.argmax(1), preprocess=PREPROCESS)
    with pytest.raises(ValueError, match="method='NeuronGradient' needs gradients, and LayerTarget gives none"):
        attribute(target, IMAGES, method="NeuronGradient")
    with pytest.raises(ValueError, match="method='GradCam' is unknown; expected 'NeuronIntegratedGradients', "):
        attribute(target, IMAGES, method="GradCam")


def test_a_lens_shows_where_its_unit_looks():
    lens = FeatureLens(zoo.load("cifar10_convnet"), "conv3", unit=[16, 3], backend="cifar10")
    pictures = lens.backend.reference_images()[:40]
    strongest = lens.target.responses(pictures)[:, 1].argmax()
    found = lens.attribute(torch.stack([pictures[strongest], torch.zeros(3, 32, 32)]), unit=3, n_steps=4)
    assert (found.unit, found.method) == ("3", "NeuronIntegratedGradients")
    assert found.values.shape == (2, 3, 32, 32)
    assert found.values[0].abs().max() > 0
    assert found.values[1].abs().max() == 0  # black is the baseline
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = found.figure()
    assert len(figure.axes) == 4
    drawn = figure.axes[2].images[0].get_array()
    assert drawn.shape == (32, 32)
    assert 0 < drawn.max() <= 1
    assert figure.axes[3].texts[0].get_text() == "nowhere"
