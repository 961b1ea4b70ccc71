import inspect

import pytest
import torch
from torch import nn

from vislens_interp.preprocess import Preprocess
from vislens_interp.targets import LayerTarget, Reading, list_units, read_responses
from vislens_interp.targets.forward import Forward

PIXELS = Preprocess(8, [0], [1])
IMAGES = torch.rand(5, 3, 8, 8)


def test_reading_names_what_a_layer_target_takes():
    keywords = {
        name
        for name, one in inspect.signature(LayerTarget.__init__).parameters.items()
        if one.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert keywords == set(Reading.__annotations__)


class Conditional(nn.Module):
    """A network of images and of two further arguments, as language-image models have."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, scale, images, *, shift):
        return self.conv(images * scale) + shift[:, None, None, None]


def test_further_arguments_of_the_forward():
    model = Conditional()
    arguments = {"scale": torch.tensor(2.0), "shift": lambda images: torch.arange(float(len(images)))}
    got = read_responses(model, "conv", 1, IMAGES, preprocess=PIXELS, forward_args=arguments)
    assert torch.allclose(got, model.conv(2 * IMAGES)[:, 1].mean((1, 2)))
    assert [info.n_units for info in list_units(model, preprocess=PIXELS, forward_args=arguments)] == [4, 4]


def test_transformers_names_its_images():
    class Whole(nn.Module):
        def forward(self, input_ids=None, pixel_values=None):
            assert input_ids is None
            return pixel_values

    assert torch.equal(Forward(Whole())(IMAGES), IMAGES)


def test_forward_args_are_checked():
    model = Conditional()
    with pytest.raises(ValueError, match="forward_args lacks images, shift: Conditional.forward takes more than"):
        LayerTarget(model, "conv", 0, preprocess=PIXELS)
    with pytest.raises(ValueError, match="forward_args names scal, which Conditional.forward does not take.*scale"):
        LayerTarget(model, "conv", 0, preprocess=PIXELS, forward_args={"scal": 1})
    with pytest.raises(TypeError, match="forward_args is a list; expected a mapping from names"):
        LayerTarget(model, "conv", 0, preprocess=PIXELS, forward_args=[1])  # pyright: ignore[reportArgumentType]
