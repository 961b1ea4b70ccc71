import json
import subprocess
import sys

import pytest
import torch
from captum.attr import LayerActivation
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.transforms import CenterCrop

from vislens_interp.preprocess import Preprocess
from vislens_interp.targets import Direction, Head, LayerTarget, MeanOf, Target, list_units, read_responses
from vislens_interp.targets.inspect import LayerInfo
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

    class Apart(nn.Module):
        """Records gradients, but only of what it cut off itself."""

        def forward(self, x):
            return torch.tanh(x.detach().requires_grad_(torch.is_grad_enabled()))

    assert not LayerTarget(nn.Sequential(Apart(), nn.Conv2d(3, 4, 1)), "1", 0, preprocess=PREPROCESS).differentiable


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
    with pytest.raises(ValueError, match="layer 'conv_3:17' not found in ConvNet.* pass unit=17.* list_units"):
        make(layer="conv_3:17")
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
    with pytest.raises(ValueError, match="image_size: neither it nor preprocess ..lambda.. says.*Pass image_size="):
        make(preprocess=lambda images: images)
    with pytest.raises(TypeError, match="model is a str; expected a torch.nn.Module"):
        make(model="resnet50")
    with pytest.raises(TypeError, match="unit is a NoneType"):
        make(unit=None)
    assert make(preprocess=lambda images: images, image_size=32).shape == (128, 4, 4)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, images):
        return self.function(images)


def test_tokens_first_are_read():
    model = nn.Sequential(Function(lambda images: images.flatten(2).permute(2, 0, 1)), nn.Linear(3, 4))
    images = torch.rand(3, 3, 8, 8)
    target = LayerTarget(model, "1", [0, (5, 2)], preprocess=PIXELS)
    assert (target.layout, target.shape, target.n_units) == ("NLC", (64, 4), 4)
    output = model(images)
    assert torch.allclose(target.responses(images), torch.stack([output[..., 0].mean(0), output[5, :, 2]], 1))


def test_images_that_share_an_axis_with_something_else():
    model = nn.Sequential(Function(lambda images: images.flatten(0, 1)))
    with pytest.raises(ValueError, match="no axis holds the images"):
        LayerTarget(model, "0", 0, preprocess=PIXELS)
    with pytest.raises(
        ValueError, match=r"gives shape \(6, 8, 8\) for 2 images and \(9, 8, 8\) for 3; expected the images on"
    ):
        LayerTarget(model, "0", (0, 0), preprocess=PIXELS)


def test_channels_last_are_established_or_declared():
    last = Function(lambda images: images.permute(0, 2, 3, 1))
    model = nn.Sequential(last, nn.LayerNorm(3), nn.Linear(3, 5))
    images = torch.rand(2, 3, 8, 8)
    expected = model(images)[..., 4].mean((1, 2))
    assert torch.allclose(read_responses(model, "2", 4, images, preprocess=PIXELS), expected)
    assert [info.n_units for info in list_units(model, preprocess=PIXELS)] == [5, 3, 3, 5]

    # What leaves PyTorch cannot be followed.
    model = nn.Sequential(last, Function(lambda x: torch.from_numpy(x.detach().numpy().copy())))
    with pytest.raises(ValueError, match="cannot be established.*Pass layout='NCHW' or 'NHWC'"):
        LayerTarget(model, "1", 2, preprocess=PIXELS)
    got = read_responses(model, "1", 2, images, layout="NHWC", preprocess=PIXELS)
    assert torch.allclose(got, images[:, 2].mean((1, 2)))
    neuron = read_responses(model, "1", (3, 2, 1), images, preprocess=PIXELS)  # needs no layout
    assert torch.equal(neuron, images[:, 1, 3, 2])
    assert [info.n_units for info in list_units(model, preprocess=PIXELS)] == [None, 3, None]


def tiny_vit(**settings):
    import timm

    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, depth=2, embed_dim=24, num_heads=3, **settings
    ).eval()
    model.preprocess = Preprocess(32, [0.5], [0.5])
    return model


@pytest.fixture(scope="module")
def vit():
    return tiny_vit(reg_tokens=4)


def captured(model, layer, images):
    kept = []
    hook = model.get_submodule(layer).register_forward_hook(lambda module, args, output: kept.append((args[0], output)))
    with torch.no_grad():
        model(model.preprocess(images))
    hook.remove()
    return kept[0]


def test_tokens_of_a_vit(vit):
    _, output = captured(vit, "blocks.1", IMAGES)
    assert output.shape == (7, 9, 24)
    for settings, expected in (
        ({}, output.mean(1)),
        ({"pool": "max"}, output.amax(1)),
        ({"pool": "cls"}, output[:, 0]),
        ({"token": "cls"}, output[:, 0]),
        ({"token": 6}, output[:, 6]),
        ({"pool": "token:6"}, output[:, 6]),
        ({"pool": "patch_mean"}, output[:, 5:].mean(1)),
    ):
        target = LayerTarget(vit, "blocks.1", [5, 17], **settings)
        assert target.prefix == 5
        assert torch.allclose(target.responses(IMAGES), expected[:, [5, 17]], atol=1e-6)
    with pytest.raises(ValueError, match=r"pool='token:9' is out of range; expected 'token:0'..'token:8'"):
        LayerTarget(vit, "blocks.1", 5, token=9)
    with pytest.raises(ValueError, match="token=3 with pool='max'; expected one of the two"):
        LayerTarget(vit, "blocks.1", 5, token=3, pool="max")
    with pytest.raises(ValueError, match="token=-1; expected a whole number of at least 0, or 'cls'"):
        LayerTarget(vit, "blocks.1", 5, token=-1)
    with pytest.raises(ValueError, match="unit=24 is out of range"):
        LayerTarget(vit, "blocks.1", 24)


def test_a_register_is_no_class_token():
    model = tiny_vit(reg_tokens=2, class_token=False, global_pool="avg")
    with pytest.raises(ValueError, match="pool='cls' .* with 2 tokens before the patches, none of which is known"):
        LayerTarget(model, "blocks.1", 5, pool="cls")
    assert LayerTarget(model, "blocks.1", 5, pool="patch_mean").prefix == 2


def test_neurons_and_heads_of_a_vit(vit):
    _, output = captured(vit, "blocks.0.mlp.act", IMAGES)
    neuron = read_responses(vit, "blocks.0.mlp.act", 95, IMAGES, pool="cls")
    assert torch.allclose(neuron, output[:, 0, 95], atol=1e-6)
    inputs, _ = captured(vit, "blocks.0.attn.proj", IMAGES)
    target = LayerTarget(vit, "blocks.0.attn", [Head(0), Head(2)], pool="patch_mean")
    lengths = inputs.unflatten(2, (3, 8)).norm(dim=3)[:, 5:].mean(1)
    assert torch.allclose(target.responses(IMAGES), lengths[:, [0, 2]], atol=1e-6)
    assert target.names == ["head 0", "head 2"]
    assert target.layer == "blocks.0.attn"
    images = IMAGES.clone().requires_grad_()
    target(images).sum().backward()
    assert images.grad is not None
    with pytest.raises(ValueError, match=r"index=3 in Head is out of range; expected 0..2"):
        LayerTarget(vit, "blocks.0.attn", Head(3))
    with pytest.raises(ValueError, match="expected heads alone, of an attention module"):
        LayerTarget(vit, "blocks.0.mlp", Head(0))
    with pytest.raises(ValueError, match="expected heads alone"):
        LayerTarget(vit, "blocks.0.attn", [Head(0), 3])


def test_direction_of_a_layer(vit):
    _, output = captured(vit, "norm", IMAGES)
    vector = torch.randn(24, generator=torch.Generator().manual_seed(1))
    got = read_responses(vit, "norm", Direction(vector, "probe"), IMAGES, pool="cls")
    assert torch.allclose(got, output[:, 0] @ vector, atol=1e-5)


def test_labels_of_the_output(vit, model):
    names = [f"class {number}" for number in range(10)]
    target = LayerTarget(model, None, ["class 3", 4], labels=names, preprocess=PREPROCESS)
    assert target.names == ["class 3", "4"]
    expected = LayerTarget(model, None, [3, 4], preprocess=PREPROCESS).responses(IMAGES)
    assert torch.equal(target.responses(IMAGES), expected)
    with pytest.raises(ValueError, match="labels has 10 names for a layer with 256 channels"):
        LayerTarget(model, "fc1", "class 3", labels=names, preprocess=PREPROCESS)
    with pytest.raises(KeyError, match="Closest: 'class 3'"):
        LayerTarget(model, None, "class  3", labels=names, preprocess=PREPROCESS)
    model.labels = names
    assert LayerTarget(model, None, "class 3", preprocess=PREPROCESS).units == [3]


def test_doubts_of_the_model_about_its_own_outputs(model):
    model.labels = [f"class {number}" for number in range(10)]
    model.doubts = {"class 3": "near chance"}
    for unit in ("class 3", 3):  # by its number, too
        target = LayerTarget(model, None, [unit, 4], preprocess=PREPROCESS)
        assert target.doubts == {target.names[0]: "near chance"}


def test_call_and_output():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.pair = Function(lambda x: {"twice": x * 2, "thrice": (x * 3, None)})

        def forward(self, x):
            return self.pair(self.conv(self.conv(x)))["twice"]

    model = Odd()
    images = torch.rand(2, 3, 8, 8)
    first = model.conv(images)
    for call, expected in enumerate([first, model.conv(first)]):
        target = LayerTarget(model, "conv", 1, call=call, preprocess=PIXELS)
        assert torch.allclose(target.responses(images)[:, 0], expected[:, 1].mean((1, 2)))
        assert target.describe()["call"] == call
    with pytest.raises(ValueError, match="'conv' is called 2 times.*Pass call=0 to call=1"):
        LayerTarget(model, "conv", 1, preprocess=PIXELS)
    thrice = read_responses(model, "pair", 1, images, output=("thrice", 0), preprocess=PIXELS)
    assert torch.allclose(thrice, model.conv(first)[:, 1].mean((1, 2)) * 3)
    with pytest.raises(TypeError, match=r"Pass output= for one of 'twice' of shape \(2, 3, 8, 8\), \('thrice', 0\)"):
        LayerTarget(model, "pair", 1, preprocess=PIXELS)


def test_never_normalised_twice():
    model = nn.Sequential(Preprocess(None, [0.5], [0.5]), nn.Conv2d(3, 4, 1))
    with pytest.raises(ValueError, match="Sequential normalises its inputs itself in '0'; expected one normalisation"):
        LayerTarget(model, "1", 0, preprocess=Preprocess(8, [0.5], [0.5]))
    assert LayerTarget(model, "1", 0, preprocess=PIXELS).differentiable


def test_detectors_normalise_themselves():
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    detector = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    how = {"layout": "NCHW", "output": "0"}
    with pytest.raises(ValueError, match="SSD normalises its inputs itself in 'transform'"):
        LayerTarget(detector, "backbone", 1, preprocess=Preprocess(320, [0.5], [0.5]), **how)
    images = torch.rand(2, 3, 320, 320, generator=torch.Generator().manual_seed(0))
    got = LayerTarget(detector, "backbone", 1, preprocess=Preprocess(320, [0], [1]), **how).responses(images)
    kept = []
    detector.eval().backbone.register_forward_hook(lambda module, args, output: kept.append(output["0"]))
    detector(images)
    assert torch.allclose(got[:, 0], kept[0][:, 1].mean((1, 2)), atol=1e-5)


def test_whole_and_complex_numbers():
    class Rounded(nn.Module):
        def forward(self, x):
            return (x * 10).long()

    class Positive(nn.Module):
        def forward(self, x):
            return x > 0

    class Spectrum(nn.Module):
        def forward(self, x):
            return torch.fft.fft2(x.float())

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Rounded(), Spectrum())
    whole = model[:2](IMAGES[..., :8, :8])
    units = [1, MeanOf([0, 2]), Direction([0.25, 0, 0.5, 0]), (1, 2, 3), lambda output: output.flatten(1).sum(1)]
    got = LayerTarget(model, "1", units, preprocess=PIXELS, image_size=8).responses(IMAGES[..., :8, :8])
    signs = nn.Sequential(model[0], Positive())
    got_signs = LayerTarget(signs, "1", 2, preprocess=PIXELS, image_size=8).responses(IMAGES[..., :8, :8])[:, 0]
    assert torch.allclose(got_signs, (model[0](IMAGES[..., :8, :8]) > 0)[:, 2].float().mean((1, 2)))
    maps = whole.float().mean((2, 3))
    expected = [maps[:, 1], maps[:, [0, 2]].mean(1), 0.25 * maps[:, 0] + 0.5 * maps[:, 2], whole[:, 1, 2, 3]]
    assert torch.allclose(got, torch.stack([*expected, whole.flatten(1).sum(1)], 1), atol=1e-4)
    with pytest.raises(ValueError, match="layer '2' of Sequential gives complex numbers.*unit= a function"):
        LayerTarget(model, "2", 1, preprocess=PIXELS, layout="NCHW")


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # torch's own, of reentrant ones
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_blocks(reentrant):
    class Saves(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 5, 3))

        def forward(self, x):
            return checkpoint(self.block, x, use_reentrant=reentrant)

    model = Saves()
    target = LayerTarget(model, "block.1", 2, preprocess=PIXELS)
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(target.responses(images)[:, 0], model.block[:2](images)[:, 2].mean((1, 2)))
    assert target.differentiable is not reentrant  # a reentrant block runs without gradients until it ends
    if not reentrant:
        images.requires_grad_()
        target(images).sum().backward()
        (expected,) = torch.autograd.grad(model.block[:2](images)[:, 2].mean((1, 2)).sum(), images)
        assert torch.allclose(images.grad, expected, atol=1e-6)  # pyright: ignore[reportArgumentType]


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


def test_a_transform_that_names_height_and_width(model):
    crop = CenterCrop(32)  # whose size is (32, 32)
    target = LayerTarget(model, "conv3", 3, preprocess=crop)
    assert target.batch_size == 256
    assert torch.equal(
        target.responses(IMAGES), LayerTarget(model, "conv3", 3, preprocess=Preprocess(32, [0], [1]))(IMAGES)
    )


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
    assert [info.name for info in list_units(model, preprocess=PIXELS)] == ["", "once"]
    with pytest.raises(ValueError, match="layer 'twice' is called 2 times"):
        LayerTarget(model, "twice", 0, preprocess=PIXELS)
    assert LayerTarget(model, None, 0, preprocess=PIXELS).shape == (4, 8, 8)  # the only tensor of its dict
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


def test_labels_of_the_models_own_that_do_not_fit_are_ignored():
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    model.labels = ["rows", "of", "something", "else", "five"]  # pyright: ignore[reportArgumentType]
    images = torch.rand(3, 3, 8, 8)
    target = LayerTarget(model, None, 1, preprocess=PIXELS)
    assert (target.labels, target.names) == (None, ["1"])
    assert torch.allclose(target.responses(images)[:, 0], model(images)[:, 1].mean((1, 2)))
    model.labels = [1, 2, 3]  # pyright: ignore[reportArgumentType]
    assert LayerTarget(model, None, 1, preprocess=PIXELS).labels is None
    with pytest.raises(ValueError, match="labels has 5 names for a layer with 4 channels"):
        LayerTarget(model, None, 1, preprocess=PIXELS, labels=["a", "b", "c", "d", "e"])
    model.labels = ["cat", "dog", "owl", "bee"]  # pyright: ignore[reportArgumentType]
    assert LayerTarget(model, None, "owl", preprocess=PIXELS).names == ["owl"]
