import pytest
import torch
from torch import nn

from vislens_interp.targets.capture import survey
from vislens_interp.targets.layout import LAYOUTS, Arrangement, axis_of, channel_axis, check_layout, declared, establish
from vislens_interp.targets.undisturbed import undisturbed

IMAGES = torch.rand(2, 3, 16, 16)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs):
        return self.function(inputs)


def layout_of(*modules, layer=None):
    """What is established of the last module's output, with a convolution to 8 channels and 8 x 8 before them."""
    model = nn.Sequential(nn.Conv2d(3, 8, 2, stride=2), *modules).eval()
    layer = str(len(modules)) if layer is None else layer
    with undisturbed(model):
        (seen,) = survey(model, [layer], IMAGES)[layer]
    ((path, shape),) = seen.shapes.items()
    return establish(shape, seen.axes[path], model.get_submodule(layer))


def of(function):
    return Function(function)


TOKENS = of(lambda x: x.flatten(2).transpose(1, 2))
LAST = of(lambda x: x.permute(0, 2, 3, 1))


def windows(x):  # (N, H, W, C) to (N * windows, rows * columns, C), as Swin does
    n, h, w, c = x.shape
    return x.view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)


def test_channel_axis():
    assert [channel_axis(layout) for layout in LAYOUTS] == [1, 3, 2, 2, 1, 1]


@pytest.mark.parametrize(
    ("modules", "layout"),
    [
        ([], "NCHW"),
        ([nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)], "NCHW"),
        ([nn.GroupNorm(4, 8)], "NCHW"),
        ([nn.AdaptiveAvgPool2d(1)], "NCHW"),
        ([LAST], "NHWC"),
        ([LAST, nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU()], "NHWC"),
        ([LAST, nn.Linear(8, 5), of(lambda x: x.permute(0, 3, 1, 2)), nn.AdaptiveAvgPool2d(1)], "NCHW"),
        ([TOKENS], "NLC"),
        ([TOKENS, nn.Linear(8, 64)], "NLC"),  # as many channels as tokens
        ([of(lambda x: x.flatten(2)), nn.Conv1d(8, 6, 1)], "NCL"),
        ([nn.Flatten()], "NC"),
        ([of(lambda x: x.mean((2, 3))), nn.Linear(8, 1)], "NC"),
    ],
)
def test_established(modules, layout):
    arrangement = layout_of(*modules)
    assert (arrangement.layout, arrangement.raw, arrangement.folded) == (layout, layout, 1)


def test_tokens_first():
    arrangement = layout_of(TOKENS, of(lambda x: x.transpose(0, 1)), nn.Linear(8, 5))
    assert (arrangement.layout, arrangement.raw) == ("NLC", "LNC")
    output = torch.rand(64, 2, 5)
    assert torch.equal(arrangement.arrange(output), output.transpose(0, 1))


def test_windows_are_folded_back():
    arrangement = layout_of(LAST, of(windows), nn.Linear(8, 5))
    assert (arrangement.layout, arrangement.folded, arrangement.windows_first) == ("NLC", 4, False)
    output = torch.arange(8.0)[:, None, None].expand(8, 16, 5)
    assert arrangement.arrange(output).shape == (2, 64, 5)
    assert arrangement.arrange(output)[1].unique().tolist() == [4, 5, 6, 7]
    behind = layout_of(LAST, of(windows), of(lambda x: x.view(2, 4, 16, 8).transpose(0, 1).reshape(8, 16, 8)))
    assert (behind.folded, behind.windows_first) == (4, True)
    assert behind.arrange(output)[1].unique().tolist() == [1, 3, 5, 7]
    back = layout_of(LAST, of(windows), of(lambda x: x.view(2, 2, 2, 4, 4, 8).transpose(2, 3).reshape(2, 8, 8, 8)))
    assert (back.layout, back.folded, back.is_map) == ("NHWC", 1, True)


class Prefixed(nn.Module):
    """Class token and two registers before the tokens."""

    def __init__(self, order):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.reg_token = nn.Parameter(torch.zeros(1, 2, 8))
        self.order = order

    def forward(self, x):
        tokens = {"p": x, "c": self.cls_token.expand(len(x), -1, -1), "r": self.reg_token.expand(len(x), -1, -1)}
        return torch.cat([tokens[letter] for letter in self.order], 1)


@pytest.mark.parametrize(
    ("order", "prefix", "token"),
    [("p", 0, None), ("cp", 1, 0), ("crp", 3, 0), ("rcp", 3, 2), ("rp", 2, None), ("pc", None, None)],
)
def test_prefix_only_where_the_rest_are_the_patches(order, prefix, token):
    for more in ([], [nn.LayerNorm(8), nn.Linear(8, 8)]):
        arrangement = layout_of(TOKENS, Prefixed(order), *more)
        assert (arrangement.prefix, arrangement.class_token) == (prefix, token)
    without = layout_of(TOKENS, Prefixed("crp"), of(lambda x: x[:, 3:]))
    assert without.prefix == 0


@pytest.mark.parametrize(
    ("modules", "why"),
    [
        ([of(lambda x: x.flatten(2)), nn.Linear(64, 64)], "runs over positions"),  # of tokens, as in a Mixer
        ([of(lambda x: x.flatten(2)), nn.Linear(64, 64), of(lambda x: x.transpose(1, 2))], "runs over positions"),
        ([of(lambda x: x.flatten(2)), nn.Linear(64, 9), nn.GELU()], "runs over positions"),
        ([of(lambda x: torch.fft.fft2(x).real)], "cannot be followed"),
        ([of(lambda x: torch.from_numpy(x.detach().numpy() * 2))], "cannot be followed|no image enters"),
        ([of(lambda x: x.view(2, 2, 4, 8, 8))], "share the channels"),
        ([of(lambda x: x.flatten(0, 1))], "images alone|share"),
        ([of(lambda x: x.view(2, 2, 4, 64).mean(2))], "parts of channels"),
        ([of(lambda x: x.sum(1))], "no axis holds channels"),
        ([of(lambda x: x.mean(0))], "no axis holds the images"),
        ([of(lambda x: torch.zeros(2, 4))], "no image enters it"),
    ],
)
def test_never_assumed(modules, why):
    with pytest.raises(ValueError, match=rf"layout: the channel axis of an output of shape .* established: .*({why})"):
        layout_of(*modules)


def test_what_undoes_a_mixture_is_established_again():
    mixed = [of(lambda x: x.flatten(2)), nn.Linear(64, 64)]
    assert layout_of(*mixed, of(lambda x: x.unflatten(2, (8, 8))), nn.Conv2d(8, 6, 1)).layout == "NCHW"


def test_messages_say_what_to_pass():
    with pytest.raises(ValueError, match="Pass layout='NCHW' or 'NHWC', or pass unit= a function"):
        establish((2, 8, 8, 16), None)
    with pytest.raises(ValueError, match="Choose a layer of rank 2 to 4"):
        establish((2, 8, 8, 16, 4), None)
    with pytest.raises(
        ValueError, match="layout='CHW'; expected None or one of 'NCHW', 'NHWC', 'NLC', 'LNC', 'NCL', 'NC'"
    ):
        check_layout("CHW")
    with pytest.raises(ValueError, match="layout='NHWC' has 4 axes, the layer's output has 3"):
        declared("NHWC", (2, 8, 8), 2)
    with pytest.raises(ValueError, match="layout='NLC': axis 0 of the output is 8 long for 2 images"):
        declared("NLC", (8, 49, 8), 2)


def test_declared():
    assert declared("LNC", (5, 2, 8), 2) == Arrangement("NLC", "LNC", is_map=False)
    assert declared("NHWC", (2, 8, 8, 3), 2).layout == "NHWC"


def test_a_leaf_that_says_otherwise_is_refused():
    axes = (axis_of("N", 2), axis_of("S", 5), axis_of("C", 8))
    assert establish((2, 5, 8), axes).layout == "NLC"
    with pytest.raises(ValueError, match="BatchNorm1d makes axis 1, but the channels before it are on axis 2"):
        establish((2, 5, 8), axes, nn.BatchNorm1d(5))
