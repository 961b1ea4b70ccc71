import pytest
from torch import nn

from vislens_interp.targets.layout import LAYOUTS, channel_axis, resolve_layout

SWIN_LIKE = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16))
CONVNEXT_LIKE = nn.Sequential(nn.Conv2d(16, 16, 7, groups=16), nn.LayerNorm(16), nn.Linear(16, 64), nn.Linear(64, 16))


class LayerNorm2d(nn.LayerNorm):
    """Channels first, as timm's."""


def test_channel_axis():
    assert [channel_axis(layout) for layout in LAYOUTS] == [1, 3, 2, 1]


@pytest.mark.parametrize(
    ("shape", "layer", "layout"),
    [
        ((2, 10), nn.Linear(4, 10), "NC"),
        ((2, 5, 16), nn.Linear(8, 16), "NLC"),
        ((2, 16, 8, 8), nn.Conv2d(3, 16, 3), "NCHW"),
        ((2, 16, 8, 8), nn.BatchNorm2d(16), "NCHW"),
        ((2, 16, 8, 8), nn.GroupNorm(4, 16), "NCHW"),
        ((2, 16, 8, 8), LayerNorm2d(16), "NCHW"),
        ((2, 16, 8, 8), nn.MaxPool2d(2), "NCHW"),
        ((2, 16, 8, 8), CONVNEXT_LIKE, "NCHW"),
        ((2, 16, 8, 8), None, "NCHW"),
    ],
)
def test_established(shape, layer, layout):
    assert resolve_layout(shape, layer=layer) == layout


def test_declared_overrides():
    assert resolve_layout((2, 8, 8, 16), "NHWC", layer=nn.Conv2d(3, 8, 1)) == "NHWC"


@pytest.mark.parametrize(
    ("shape", "layer", "model"),
    [
        ((2, 8, 8, 16), SWIN_LIKE, None),
        ((2, 8, 8, 16), nn.GELU(), SWIN_LIKE),
        ((2, 16, 16, 16), CONVNEXT_LIKE, None),
        ((2, 16, 5), nn.Conv1d(3, 16, 1), None),
        ((2, 16, 5, 5, 5), nn.Conv3d(3, 16, 1), None),
        ((2,), None, None),
    ],
)
def test_never_assumed(shape, layer, model):
    with pytest.raises(ValueError, match=r"layout: the channel axis of an output of shape \(2,.*cannot be established"):
        resolve_layout(shape, layer=layer, model=model)


def test_message_says_what_to_pass():
    with pytest.raises(ValueError, match="Pass layout='NCHW' or 'NHWC'"):
        resolve_layout((2, 8, 8, 16), layer=SWIN_LIKE)
    with pytest.raises(ValueError, match="layout='NCL'; expected None or one of 'NCHW', 'NHWC', 'NLC', 'NC'"):
        resolve_layout((2, 8, 8), "NCL")
    with pytest.raises(ValueError, match="layout='NHWC' has 4 axes, the layer's output has 3"):
        resolve_layout((2, 8, 8), "NHWC")
