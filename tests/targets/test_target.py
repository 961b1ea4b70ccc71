import json
import subprocess
import sys

import pytest
import torch
from captum.attr import LayerActivation
from torch import nn

from vislens_interp.images import Preprocess
from vislens_interp.targets import LayerTarget, MeanOf, Target, list_units, read_responses
from vislens_interp.targets.target import LayerInfo
from vislens_interp.zoo.convnet import ConvNet

IMAGES = torch.rand(7, 3, 32, 32)
PREPROCESS = Preprocess(32, [0.5], [0.5])
PIXELS = Preprocess(8, [0], [1])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ConvNet().train()  # in training mode: dropout and BatchNorm must not show


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def test_known_answer_of_a_convolution():
    conv = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 2.0, 0]])[..., None, None])
        conv.bias.copy_(torch.tensor([0.0, 1.0]))  # pyright: ignore[reportOptionalMemberAccess]
    images = torch.zeros(1, 3, 8, 8)
    images[:, 0, :, :4] = 1
    images[:, 1] = 0.5
    assert read_responses(nn.Sequential(conv), "0", [0, 1], images, preprocess=PIXELS).tolist() == [[0.5, 2.0]]
    assert read_responses(nn.Sequential(conv), "0", 0, images, pool="max", preprocess=PIXELS).tolist() == [1.0]
    assert read_responses(nn.Sequential(conv), "0", 0, images, pool="center", preprocess=PIXELS).tolist() == [0.0]


@pytest.mark.parametrize("layer", ["conv2.0", "conv3", "fc1.relu", "fc2"])
def test_same_as_captum(model, layer):
    target = LayerTarget(model, layer, [0, 3], preprocess=PREPROCESS)
    got = target.responses(IMAGES)
    model.eval()
    activation = LayerActivation(model, model.get_submodule(layer)).attribute(PREPROCESS(IMAGES))
    assert isinstance(activation, torch.Tensor)
    activation = activation if activation.ndim == 2 else activation.mean((2, 3))
    assert torch.allclose(got, activation[:, [0, 3]], atol=1e-6)


def test_own_output(model):
    target = LayerTarget(model, None, 9, preprocess=PREPROCESS)
    assert target.layer == ""
    assert torch.allclose(target.responses(IMAGES)[:, 0], model.eval()(PREPROCESS(IMAGES))[:, 9], atol=1e-6)


def test_responses_are_plain_and_do_not_depend_on_the_batch(model):
    target = LayerTarget(model, "conv3", [3, MeanOf([1, 2])], preprocess=PREPROCESS)
    whole = target.responses(IMAGES)
    assert whole.shape == (7, 2)
    assert whole.dtype == torch.float32
    assert not whole.requires_grad
    assert not whole.is_inference()
    assert torch.allclose(target.responses(IMAGES, batch_size=3), whole, atol=1e-5)
    assert torch.allclose(target(IMAGES), whole, atol=1e-6)
    assert torch.equal(target.responses(IMAGES), whole)
    (whole * torch.ones(2, requires_grad=True)).sum().backward()


def test_progress_bar(model, capsys):
    target = LayerTarget(model, "conv3", 3, preprocess=PREPROCESS, batch_size=2)
    target.responses(IMAGES, progress=True)
    assert "4/4" in capsys.readouterr().err


def test_gradients_reach_the_images_and_no_parameter(model):
    target = LayerTarget(model, "conv3", 3, preprocess=PREPROCESS)
    assert target.differentiable
    images = IMAGES.clone().requires_grad_()
    target(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not target(IMAGES).requires_grad
    features = target.features(images)
    assert features.shape == (7, 128, 4, 4)
    assert features.requires_grad


def test_gradients_are_not_lost_under_the_callers_mode(model):
    with torch.no_grad():
        assert LayerTarget(model, "conv3", 3, preprocess=PREPROCESS).differentiable
    with torch.inference_mode():
        target = LayerTarget(model, "conv3", 3, preprocess=PREPROCESS)
        target.responses(IMAGES)
    assert target.differentiable


def test_target_without_gradients_says_so(model):
    target = LayerTarget(model, "fc2", lambda out: out.argmax(1), preprocess=PREPROCESS)
    assert not target.differentiable
    assert target.names == ["<lambda>"]
    assert target.responses(IMAGES).dtype == torch.float32


@pytest.mark.parametrize("outcome", ["normal", "bad unit", "raises"])
def test_model_is_left_as_it_was(model, outcome):
    model.conv2.eval()
    model.fc2.weight.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    grads = [parameter.requires_grad for parameter in model.parameters()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    if outcome == "normal":
        target = LayerTarget(model, "fc1", 3, preprocess=PREPROCESS)
        target(IMAGES.clone().requires_grad_()).sum().backward()
        target.responses(IMAGES)
        list_units(model, preprocess=PREPROCESS)
    elif outcome == "bad unit":
        with pytest.raises(ValueError, match=r"unit=256 is out of range; expected 0..255"):
            LayerTarget(model, "fc1", 256, preprocess=PREPROCESS)
    else:

        def fails(output):
            raise RuntimeError("selector")

        with pytest.raises(RuntimeError, match="selector"):
            LayerTarget(model, "fc1", fails, preprocess=PREPROCESS)
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            LayerTarget(model, "fc1", 3, preprocess=Preprocess(16, [0.5], [0.5]))
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == grads
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert hooks(model) == 0


def test_passes_after_the_first_stop_at_the_layer(model):
    target = LayerTarget(model, "conv1", 3, preprocess=PREPROCESS)
    calls = []
    model.conv2.register_forward_hook(lambda *_: calls.append(1))
    target.responses(IMAGES)
    target(IMAGES)
    assert calls == []


def test_validated_at_construction(model):
    def make(**changes):
        return LayerTarget(**({"model": model, "layer": "conv3", "unit": 0, "preprocess": PREPROCESS} | changes))

    with pytest.raises(ValueError, match=r"layer 'conv7' not found in ConvNet. Closest: .*'conv3'"):
        make(layer="conv7")
    with pytest.raises(ValueError, match="pool='sum'"):
        make(pool="sum")
    with pytest.raises(ValueError, match="layout='NLC' has 3 axes"):
        make(layout="NLC")
    with pytest.raises(ValueError, match="layout='CHW'"):
        make(layout="CHW")
    with pytest.raises(ValueError, match="batch_size=0; expected a whole number of at least 1"):
        make(batch_size=0)
    with pytest.raises(ValueError, match="ConvNet does not say how its inputs are prepared"):
        make(preprocess=None)
    with pytest.raises(ValueError, match="image_size: neither it nor preprocess .function. says.*Pass image_size="):
        make(preprocess=lambda images: images)
    with pytest.raises(TypeError, match="model is a str; expected a torch.nn.Module"):
        make(model="resnet50")
    with pytest.raises(TypeError, match="unit is a NoneType"):
        make(unit=None)
    assert make(preprocess=lambda images: images, image_size=32).shape == (128, 4, 4)


def test_first_axis_must_be_the_images():
    class Tokens(nn.Module):
        def forward(self, images):
            return images.flatten(2).permute(2, 0, 1)

    with pytest.raises(ValueError, match=r"gives shape \(64, 2, 3\) for 2 images"):
        LayerTarget(nn.Sequential(Tokens()), "0", 0, preprocess=PIXELS)


def test_channels_last_has_to_be_declared():
    class Last(nn.Module):
        def forward(self, images):
            return images.permute(0, 2, 3, 1)

    model = nn.Sequential(Last(), nn.LayerNorm(3), nn.Linear(3, 5))
    with pytest.raises(ValueError, match="cannot be established.*Pass layout='NCHW' or 'NHWC'"):
        LayerTarget(model, "2", 4, preprocess=PIXELS)
    images = torch.rand(2, 3, 8, 8)
    got = read_responses(model, "2", 4, images, layout="NHWC", preprocess=PIXELS)
    assert torch.allclose(got, model(images)[..., 4].mean((1, 2)))
    neuron = read_responses(model, "2", (3, 2, 4), images, preprocess=PIXELS)  # needs no layout
    assert torch.allclose(neuron, model(images)[:, 3, 2, 4])
    assert [info.n_units for info in list_units(model, preprocess=PIXELS)] == [None] * 4


def test_images_are_checked(model):
    target = LayerTarget(model, "conv3", 3, preprocess=PREPROCESS)
    with pytest.raises(ValueError, match="divide by 255"):
        target.responses(IMAGES * 255)
    with pytest.raises(ValueError, match=r"pass images\[None\]"):
        target(IMAGES[0])
    with pytest.raises(ValueError, match="batch_size=-1"):
        target.responses(IMAGES, batch_size=-1)
    with pytest.raises(ValueError, match="NaN"):
        read_responses(model, "conv3", 3, IMAGES * torch.nan, preprocess=PREPROCESS)


def test_model_of_another_type(model):
    model = model.double()
    target = LayerTarget(model, "conv3", 3, preprocess=PREPROCESS)
    assert target(IMAGES).dtype == torch.float64
    assert target.responses(IMAGES).dtype == torch.float32
    assert target.device == torch.device("cpu")


def test_model_without_parameters():
    assert read_responses(
        nn.Sequential(nn.AvgPool2d(2)), "0", 1, torch.ones(2, 3, 8, 8), preprocess=PIXELS
    ).tolist() == [
        1.0,
        1.0,
    ]


def test_describe_and_fingerprint(model):
    target = LayerTarget(model, model.conv3, [16, MeanOf([1, 2])], preprocess=PREPROCESS)
    said = json.loads(json.dumps(target.describe()))
    assert said["model"] == "ConvNet"
    assert said["layer"] == target.layer == "conv3"
    assert said["units"] == target.names == ["16", "mean(1, 2)"]
    assert said["shape"] == [128, 4, 4]
    assert said["layout"] == "NCHW"
    assert said["preprocess"] == PREPROCESS.describe()
    assert said["fingerprint"] == target.fingerprint()
    with torch.no_grad():
        model.fc2.bias[0] += 1
    assert target.fingerprint() != said["fingerprint"]


def test_list_units(model):
    model.preprocess = PREPROCESS
    infos = list_units(model)
    by_name = {info.name: info for info in infos}
    assert infos[0] == LayerInfo("", "ConvNet", (10,), 10)
    assert by_name["conv3"] == LayerInfo("conv3", "Sequential", (128, 4, 4), 128)
    assert by_name["fc1.relu"] == LayerInfo("fc1.relu", "ReLU", (256,), 256)
    assert "preprocess" not in by_name
    for info in infos:
        assert info.n_units is not None
        assert LayerTarget(model, info.name, info.n_units - 1).shape == info.shape
        with pytest.raises(ValueError, match="out of range"):
            LayerTarget(model, info.name, info.n_units)
    with pytest.raises(ValueError, match="image_size: neither"):
        list_units(model, preprocess=lambda images: images)
    assert list_units(model, preprocess=lambda images: images, image_size=32) == infos


def test_list_units_leaves_out_what_cannot_be_read():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice = nn.ReLU()
            self.unused = nn.ReLU()
            self.once = nn.Conv2d(3, 4, 1)

        def forward(self, images):
            return {"out": self.once(self.twice(self.twice(images)))}

    model = Odd()
    assert [info.name for info in list_units(model, preprocess=PIXELS)] == ["once"]
    with pytest.raises(ValueError, match="layer 'twice' is called 2 times"):
        LayerTarget(model, "twice", 0, preprocess=PIXELS)
    with pytest.raises(TypeError, match="own output.*gives a dict"):
        LayerTarget(model, None, 0, preprocess=PIXELS)
    assert hooks(model) == 0


def test_a_target_of_ones_own():
    class Brightness(Target):
        def __init__(self):
            self.names = ["brightness"]
            self.differentiable = True

        def __call__(self, images):
            return images.mean((1, 2, 3))[:, None]

    target = Brightness()
    assert torch.allclose(target.responses(IMAGES, batch_size=2)[:, 0], IMAGES.mean((1, 2, 3)))
    assert target.device == torch.device("cpu")
    with pytest.raises(TypeError, match="Brightness has no features"):
        target.features(IMAGES)


def test_imports_are_light():
    heavy = ["timm", "diffusers", "captum", "matplotlib", "torchmetrics", "tqdm.auto"]
    code = f"import sys, vislens_interp.images, vislens_interp.targets; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == "[]"
