"""Models of other number types, compiled and scripted ones."""

import pytest
import torch
from torch import nn

from vislens_interp.preprocess import Preprocess
from vislens_interp.targets import LayerTarget, list_units, read_responses
from vislens_interp.zoo.convnet import ConvNet

IMAGES = torch.rand(7, 3, 32, 32)
PREPROCESS = Preprocess(32, [0.5], [0.5])
PIXELS = Preprocess(8, [0], [1])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ConvNet().train()  # in training mode: dropout and BatchNorm must not show


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_scripted_layers_are_refused_by_name():
    class Scripted(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 4, 1)
            self.b = torch.jit.script(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()))
            self.c = nn.Conv2d(4, 2, 1)

        def forward(self, x):
            return self.c(self.b(self.a(x)))

    model, images = Scripted(), torch.rand(3, 3, 8, 8)
    for layer, words in (("b", "is scripted or traced"), ("b.0", "is inside b, which is scripted or traced")):
        with pytest.raises(ValueError, match=f"layer '{layer}' {words}.*Choose a layer before or after it"):
            LayerTarget(model, layer, 1, preprocess=PIXELS)
    expected = model(images)[:, 1].mean((1, 2))
    assert torch.allclose(read_responses(model, "c", 1, images, preprocess=PIXELS), expected)
    assert [info.name for info in list_units(model, preprocess=PIXELS)] == ["", "a", "c"]
    whole = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 1)))
    assert torch.allclose(read_responses(whole, None, 1, images, preprocess=PIXELS), whole(images)[:, 1].mean((1, 2)))
    with pytest.raises(ValueError, match="layer '0' is inside the model, which is scripted.*layer=None"):
        LayerTarget(whole, "0", 1, preprocess=PIXELS)


def test_images_come_in_the_type_of_the_weights_that_they_meet_first():
    """As in open_clip's precision="fp16": text and normalisations stay in float32, the image's convolution does not."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.positional_embedding = nn.Parameter(torch.zeros(3))
            self.conv = nn.Conv2d(3, 4, 1).half()
            self.norm = nn.LayerNorm(4)

        def forward(self, x):
            return self.norm(self.conv(x).float().mean((2, 3)))

    model, images = Mixed(), torch.rand(3, 3, 8, 8)
    got = read_responses(model, "norm", 1, images, preprocess=PIXELS)
    assert torch.allclose(got, model(images.half())[:, 1], atol=0.02)
    assert [info.n_units for info in list_units(model, preprocess=PIXELS)] == [4, 4, 4]


def test_another_default_type_changes_nothing():
    images = torch.rand(3, 3, 8, 8)
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    expected = read_responses(model, "0", 1, images, preprocess=Preprocess(8, [0.5], [0.2]))
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(read_responses(model, "0", 1, images, preprocess=Preprocess(8, [0.5], [0.2])), expected)
        assert read_responses(nn.Sequential(nn.Conv2d(3, 4, 1)), "0", 1, images, preprocess=PIXELS).shape == (3,)
    finally:
        torch.set_default_dtype(torch.float32)


def test_compiled_half_and_scripted(model):
    expected = LayerTarget(model, "conv3", 3, preprocess=PREPROCESS).responses(IMAGES)
    compiled = torch.compile(model)
    for layer in ("conv3", "_orig_mod.conv3", model.conv3):
        assert torch.equal(LayerTarget(compiled, layer, 3, preprocess=PREPROCESS).responses(IMAGES), expected)
    half = LayerTarget(model.bfloat16(), "conv3", 3, preprocess=PREPROCESS)
    assert half(IMAGES).dtype == torch.bfloat16
    assert torch.allclose(half.responses(IMAGES), expected, atol=0.02)
