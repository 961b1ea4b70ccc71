"""Random networks that carry their channels through random layouts: what is read is right, or a clear error."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from vislens_interp.preprocess import Preprocess
from vislens_interp.targets import LayerTarget

SIDE = 8
IMAGES = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
PIXELS = Preprocess(SIDE, [0], [1])
ATOL = {torch.float32: 1e-5, torch.float64: 1e-5, torch.bfloat16: 0.05}


class Step(nn.Module):
    """One step, and beside it the same for (N, C, positions), which is what has to be read."""

    def __init__(self, function, weights=None):
        super().__init__()
        self.function, self.weights = function, weights

    def forward(self, x):
        return self.function(x) if self.weights is None else self.function(x, self.weights)


def windows(x):
    n, h, w, c = x.shape
    return x.view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)


# Layout before: (layout after, what is done, what that does to the channels of (N, C, positions)).
SAME = "same"
STEPS = {
    "NCHW": [
        ("NHWC", lambda c: Step(lambda x: x.permute(0, 2, 3, 1)), SAME),
        ("NLC", lambda c: Step(lambda x: x.flatten(2).transpose(1, 2)), SAME),
        ("NCL", lambda c: Step(lambda x: x.flatten(2)), SAME),
        ("NCHW", lambda c: nn.Conv2d(c, c, 1), "weights"),
        ("NCHW", lambda c: nn.Hardtanh(-0.5, 0.5), "clip"),
        ("NC", lambda c: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), "mean"),
    ],
    "NHWC": [
        ("NCHW", lambda c: Step(lambda x: x.permute(0, 3, 1, 2)), SAME),
        ("NLC", lambda c: Step(lambda x: x.flatten(1, 2)), SAME),
        ("NHWC", lambda c: Step(lambda x: torch.roll(x, 1, 1)), SAME),
        ("NHWC", lambda c: nn.Linear(c, c), "weights"),
        ("folded", lambda c: Step(windows), SAME),
    ],
    "folded": [
        ("folded", lambda c: nn.Linear(c, c), "weights"),
        ("folded", lambda c: nn.Hardtanh(-0.5, 0.5), "clip"),
        (
            "NHWC",
            lambda c: Step(lambda x: x.view(-1, 4, 4, 2, 2, c).transpose(2, 3).reshape(-1, 8, 8, c)),
            SAME,
        ),
    ],
    "NLC": [
        ("LNC", lambda c: Step(lambda x: x.transpose(0, 1)), SAME),
        ("NCL", lambda c: Step(lambda x: x.transpose(1, 2)), SAME),
        ("NLC", lambda c: nn.Linear(c, c), "weights"),
        ("NLC", lambda c: Step(lambda x: x.flip(1)), SAME),
        ("NC", lambda c: Step(lambda x: x.mean(1)), "mean"),
    ],
    "LNC": [
        ("NLC", lambda c: Step(lambda x: x.transpose(0, 1)), SAME),
        ("LNC", lambda c: nn.Linear(c, c), "weights"),
    ],
    "NCL": [
        ("NLC", lambda c: Step(lambda x: x.transpose(1, 2)), SAME),
        ("NCL", lambda c: nn.Conv1d(c, c, 1), "weights"),
        ("NCHW", lambda c: Step(lambda x: x.unflatten(2, (SIDE, SIDE))), SAME),
    ],
    "NC": [("NC", lambda c: nn.Linear(c, c), "weights")],
}


def follow(x, module, effect):
    """The same step on (N, C, positions)."""
    if effect == "weights":
        weight = module.weight.flatten(1)
        return torch.einsum("dc,ncp->ndp", weight, x) + module.bias[:, None]
    return {"same": lambda: x, "clip": lambda: x.clamp(-0.5, 0.5), "mean": lambda: x.mean(2, keepdim=True)}[effect]()


@settings(derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_right_through_any_chain_of_layouts(data):
    channels = data.draw(st.sampled_from([2, 3, 4, SIDE, 16, SIDE * SIDE]), "channels")  # also as many as positions
    dtype = data.draw(st.sampled_from(list(ATOL)), "dtype")
    torch.manual_seed(channels)
    modules = [nn.Conv2d(3, channels, 1)]
    truth, layout = follow(IMAGES.flatten(2), modules[0], "weights"), "NCHW"
    for _ in range(data.draw(st.integers(0, 5), "steps")):
        layout, make, effect = data.draw(st.sampled_from(STEPS[layout]), "step")
        modules.append(make(channels))
        truth = follow(truth, modules[-1], effect)
    model = nn.Sequential(*modules).to(dtype)
    units = data.draw(st.lists(st.integers(0, channels - 1), min_size=1, max_size=3, unique=True), "units")
    pool = data.draw(st.sampled_from(["mean", "max"]), "pool")
    batch = data.draw(st.integers(1, 4), "batch")
    target = LayerTarget(model, str(len(modules) - 1), units, pool=pool, preprocess=PIXELS)
    got = target.responses(IMAGES, batch_size=batch)
    pooled = truth.mean(2) if pool == "mean" else truth.amax(2)
    assert target.n_units == channels
    assert torch.allclose(got, pooled[:, units], atol=ATOL[dtype])


def fits(unit, shape):
    """Whether a selector is in range and selects something."""
    if isinstance(unit, int):
        return 0 <= unit < 4
    if len(unit) > len(shape) or (len(unit) < len(shape) and not any(isinstance(one, slice) for one in unit)):
        return False
    sized = zip(unit, shape, strict=False)
    return all(len(range(n)[one]) > 0 if isinstance(one, slice) else 0 <= one < n for one, n in sized)


@settings(derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_selectors_are_right_or_refused(data):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Step(lambda x: x.flatten(2).transpose(1, 2)))
    layer = data.draw(st.sampled_from(["0", "1"]), "layer")
    index = st.one_of(
        st.integers(-2, 9), st.builds(slice, st.none() | st.integers(0, 9), st.none() | st.integers(0, 9))
    )
    unit = data.draw(st.one_of(st.integers(-2, 9), st.tuples(index), st.tuples(index, index, index)), "unit")
    with torch.no_grad():
        output = model[: int(layer) + 1](IMAGES)
    if not fits(unit, output.shape[1:]):
        with pytest.raises(ValueError, match="(?s)unit=.*expected"):
            LayerTarget(model, layer, unit, preprocess=PIXELS)
        return
    got = LayerTarget(model, layer, unit, preprocess=PIXELS).responses(IMAGES)[:, 0]
    if isinstance(unit, int):
        expected = output[:, unit].mean((1, 2)) if layer == "0" else output[..., unit].mean(1)
    else:
        expected = output[(slice(None), *unit)].reshape(3, -1).sum(1)
    assert torch.allclose(got, expected, atol=1e-5)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(shape=st.lists(st.integers(0, 5), min_size=0, max_size=5), scale=st.sampled_from([1.0, -1.0, 255.0]))
def test_any_images_are_read_or_refused(shape, scale):
    target = LayerTarget(nn.Sequential(nn.Conv2d(3, 4, 1)), "0", 1, preprocess=Preprocess(None, [0], [1]), image_size=4)
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * scale
    if len(shape) == 4 and shape[1] == 3 and images.numel() and 0 <= scale <= 1:
        assert target.responses(images).shape == (shape[0], 1)
    else:
        with pytest.raises(ValueError, match="images .*expected"):
            target.responses(images)
