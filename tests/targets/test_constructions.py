"""Random models, layers, units, preprocessings and inputs: right against a hook made by hand, or refused."""

import random
import traceback
from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision import transforms as T

from vislens_interp.images import load_images, to_pil
from vislens_interp.preprocess import Preprocess
from vislens_interp.targets import Direction, Head, LayerTarget, MeanOf

SIDE = 16
COARSE = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
IMAGES = F.interpolate(COARSE, SIDE, mode="bicubic").clamp(0, 1)


class Step(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.num_heads = 2
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        return x


def convolutional(*middle):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), *middle, nn.ReLU(inplace=True), nn.Conv2d(8, 5, 1), nn.Flatten(2)
    )


def shared():
    layer = nn.Tanh()
    return nn.Sequential(nn.Conv2d(3, 8, 1), layer, layer, nn.Conv2d(8, 4, 1))


class Encoder(nn.Module):
    """PyTorch's own encoder, whose fast path calls none of its layers."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)

    def forward(self, x):
        return self.encoder(self.patches(x).flatten(2).transpose(1, 2))


class Direct(nn.Module):
    """Calls a layer past its hooks."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return self.second(self.first.forward(x))


MODELS = {
    "plain": lambda: convolutional(nn.BatchNorm2d(8)),
    "dropout left on": lambda: convolutional(Step(lambda x: F.dropout(x, 0.3))),
    "batch statistics": lambda: convolutional(nn.BatchNorm2d(8, track_running_stats=False)),
    "counting": lambda: convolutional(Counts()),
    "tuple": lambda: convolutional(Step(lambda x: (x, x.mean((2, 3)))), Step(lambda pair: pair[0])),
    "tokens": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4), Step(lambda x: x.flatten(2).transpose(1, 2)), nn.LayerNorm(8), Attention()
    ),
    "other size": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 10 * 10, 4)),
    "half": lambda: convolutional().to(torch.bfloat16),
    "float64": lambda: convolutional().double(),
    "shared layer": shared,
    "grey": lambda: nn.Sequential(nn.Conv2d(1, 4, 1)),
    "lazy": lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.LazyConv2d(8, 1)),
    "weight norm": lambda: convolutional(nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1))),
    "spectral norm": lambda: convolutional(nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 1))),
    "group norm": lambda: convolutional(nn.GroupNorm(2, 8)),
    "squeezed": lambda: nn.Sequential(nn.Conv2d(3, 8, 1), Step(lambda x: x.mean((2, 3)).squeeze()), nn.Linear(8, 5)),
    "encoder": Encoder,
    "past the hooks": Direct,
    "scripted": lambda: nn.Sequential(nn.Conv2d(3, 8, 1), torch.jit.script(nn.Sequential(nn.ReLU(), nn.Tanh()))),
    "channels last": lambda: convolutional().to(memory_format=torch.channels_last),
    "truths": lambda: convolutional(Step(lambda x: x > 0), Step(lambda x: x.float())),
    "over all images": lambda: convolutional(Step(lambda x: x / x.abs().max())),
    "double batch": lambda: convolutional(Step(lambda x: torch.cat([x, -x]))),
}
PREPROCESS = {
    "pixels": lambda: Preprocess(SIDE, [0], [1]),
    "normalised": lambda: Preprocess(SIDE, [0.5], [0.2]),
    "function": lambda: lambda x: x * 2 - 1,
    "transform": lambda: T.Compose([T.Resize((SIDE, SIDE)), T.ToTensor(), T.Normalize([0.5] * 3, [0.2] * 3)]),
    "random": lambda: T.Compose([T.RandomCrop(12), T.Resize((SIDE, SIDE)), T.ToTensor()]),
    "bytes": lambda: T.Compose([T.Resize((SIDE, SIDE)), T.PILToTensor()]),
    "none": lambda: None,
    "number": lambda: 16,
    "dictionary": lambda: lambda x: {"pixel_values": x},
    "flips": lambda: lambda x: torch.cat([x, x.flip(-1)]),
    "in place": lambda: lambda x: x.sub_(0.5),
    "batch statistics": lambda: lambda x: (x - x.mean()) / x.std(),
    "colours reversed": lambda: Preprocess(SIDE, [0.5], [0.2], colours=[[0, 0, 1], [0, 1, 0], [1, 0, 0]]),
    "last axis": lambda: lambda x: x.permute(0, 2, 3, 1),
}
UNITS = {
    "first": 0,
    "last": 4,
    "far": 99,
    "below": -1,
    "neuron": (1, 2, 3),
    "token": (1, 2),
    "mean": MeanOf([0, 1]),
    "direction": Direction([1.0, -1, 0, 0, 0, 0, 0, 2]),
    "head": Head(1),
    "name": "cat",
    "function": lambda output: output.flatten(1).mean(1),
}
INPUTS = {
    "tensor": lambda: IMAGES,
    "pictures": lambda: load_images(to_pil(IMAGES))[0],
    "bytes": lambda: (IMAGES * 255).to(torch.uint8),
    "one": lambda: IMAGES[0],
    "wide": lambda: torch.cat([IMAGES, IMAGES], 3),
    "channels last": lambda: IMAGES.contiguous(memory_format=torch.channels_last),
    "loader": lambda: load_images(DataLoader(TensorDataset(IMAGES, torch.zeros(len(IMAGES))), 3))[0],
    "float64": lambda: IMAGES.double(),
    "normalised": lambda: IMAGES * 4 - 2,
}


def ours(error):
    """Whether an error was raised by our code, in words of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, (ValueError, TypeError, KeyError)) and "/vislens_interp/" in frames[-1].filename


def only(output):
    """The tensor of a pair of a tensor and None, which attention gives."""
    return output[0] if isinstance(output, tuple) else output


def by_hand(model, layer, unit, inputs, pool):
    kept = []
    module = model.get_submodule(layer)
    if isinstance(unit, Head):
        hook = module.proj.register_forward_pre_hook(lambda module, args: kept.append(args[0].clone()))
    else:
        hook = module.register_forward_hook(lambda module, args, output: kept.append(only(output).clone()))
    with torch.no_grad():
        model.eval()(inputs)
    hook.remove()
    output = kept[0].double()

    def pooled(values):
        """Over the positions, all axes behind the first two."""
        values = values.flatten(2) if values.ndim > 2 else values[..., None]
        return values.mean(2) if pool == "mean" else values.amax(2)

    if callable(unit):
        return unit(output)
    if isinstance(unit, tuple):
        return output[(slice(None), *unit)]
    tokens = output.ndim == 3 and output.shape[-1] in (8, 16, 24)
    channels = output.movedim(-1, 1) if tokens else output
    if isinstance(unit, Head):
        return pooled(channels[:, 4 * unit.index : 4 * unit.index + 4].norm(dim=1, keepdim=True))[:, 0]
    if isinstance(unit, MeanOf):
        return pooled(channels[:, list(unit.units)]).mean(1)
    if isinstance(unit, Direction):
        return pooled(torch.einsum("nc...,c->n...", channels, unit.vector)[:, None])[:, 0]
    return pooled(channels[:, [unit]])[:, 0]


def construct(choose):
    """One random construction: "right", or the first words of one of our errors; anything else raises.

    Args:
        choose: One of several names, and what it is for.
    """
    torch.manual_seed(0)
    kind = choose(list(MODELS), "model")
    model = MODELS[kind]().train(choose([False, True], "train"))
    layer = choose([name for name, _ in model.named_modules() if name], "layer")
    unit = UNITS[choose(list(UNITS), "unit")]
    prepared = choose(list(PREPROCESS), "preprocess")
    given_ = INPUTS[choose(list(INPUTS), "input")]()
    pool = choose(["mean", "max"], "pool")
    modes = [module.training for module in model.modules()]
    try:
        target = LayerTarget(model, layer, unit, pool=pool, preprocess=PREPROCESS[prepared](), image_size=SIDE)
        got = target.responses(given_)
    except Exception as error:
        if not ours(error):
            raise
        return f"{type(error).__name__}: {' '.join(str(error).split()[:3])}"
    finally:
        assert [module.training for module in model.modules()] == modes
        assert not any(module._forward_hooks for module in model.modules())
    assert kind not in ("batch statistics", "dropout left on", "over all images") or layer == "0"
    dtype = next(model.parameters()).dtype
    expected = by_hand(model, layer, unit, target.preprocess(given_.clone()).to(dtype), pool)
    close = 0.02 if dtype == torch.bfloat16 else 1e-4
    assert torch.allclose(got[:, 0].double(), expected.flatten(), rtol=close, atol=close)
    return "right"


quiet = pytest.mark.filterwarnings(
    "ignore:preprocess. Compose does what Preprocess cannot",
    "ignore:.*torch.jit.script.* is deprecated",
)


@quiet
@settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_right_or_one_of_our_own_errors(data):
    construct(lambda names, label: data.draw(st.sampled_from(names), label))


@quiet
@pytest.mark.slow
def test_a_thousand_constructions():
    """The same without hypothesis, a thousand times; outcomes are counted and printed."""
    counts = Counter()
    for number in range(1000):
        draw = random.Random(number)
        outcome = construct(lambda names, label, draw=draw: draw.choice(names))
        counts[outcome.partition(":")[0]] += 1
    print(dict(counts))
    assert counts["right"] > 50  # most draws ask for what is not there
    assert set(counts) <= {"right", "ValueError", "TypeError", "KeyError", "ModelPassError"}
