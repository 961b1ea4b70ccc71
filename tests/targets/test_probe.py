"""A response is a function of one image and of nothing else, or it is refused by the name of the layer at fault."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from vislens_interp.preprocess import Preprocess
from vislens_interp.targets import LayerTarget, list_units, read_responses
from vislens_interp.targets.probe import ModelPassError, OwnState, agree

PIXELS = Preprocess(8, [0], [1])
IMAGES = torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Step(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Counting(nn.Module):
    """Its output depends on how many passes there were."""

    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        return x * (1 + self.passes % 2)


class Walking(nn.Module):
    """Each image meets what the images before it in the batch left, as in a recurrent network over the wrong axis."""

    def forward(self, x):
        return torch.cumsum(x, 0)


RANDOM = {
    "functional dropout": lambda: Step(lambda x: F.dropout(x, 0.5)),
    "noise": lambda: Step(lambda x: x + torch.randn_like(x)),
    "seldom skipped": lambda: Step(lambda x: x if torch.rand(()) > 0.15 else x * 0),
    "Python's numbers": lambda: Step(lambda x: x * random.choice([1, 1, 2])),
    "NumPy's numbers": lambda: Step(lambda x: x * float(np.random.rand())),  # noqa: NPY002
    "stochastic depth": lambda: Step(lambda x: x * torch.bernoulli(torch.full((len(x), 1, 1, 1), 0.9))),
    "counting": Counting,
}
MIXING = {
    "batch statistics": lambda: nn.BatchNorm2d(3, track_running_stats=False),
    "mean of the batch": lambda: Step(lambda x: x - x.mean(0)),
    "softmax over the batch": lambda: Step(lambda x: x.softmax(0)),
    "walking": Walking,
    "sorted": lambda: Step(lambda x: x.sort(0).values),
    "neighbour": lambda: Step(lambda x: x + x.roll(1, 0)),
}


@settings(derandomize=True, deadline=None, max_examples=40)
@given(kind=st.sampled_from([*RANDOM, *MIXING]), before=st.integers(0, 2), after=st.integers(0, 2))
def test_what_is_no_function_of_one_image_is_refused_by_name(kind, before, after):
    torch.manual_seed(0)
    culprit = {**RANDOM, **MIXING}[kind]()
    model = nn.Sequential(
        *(nn.Conv2d(3, 3, 3, padding=1) for _ in range(before)), culprit, *(nn.Conv2d(3, 3, 1) for _ in range(after))
    ).eval()
    words = "other responses in a second pass" if kind in RANDOM else "other responses alone than among others"
    with pytest.raises(ValueError, match=f"(?s){words}.*first layer that differs is '{before}'"):
        LayerTarget(model, str(before + after), 1, preprocess=PIXELS, layout="NCHW")
    if before:  # what lies before it can be read, and is right
        got = read_responses(model, "0", 1, IMAGES, preprocess=PIXELS)
        assert torch.allclose(got, model[0](IMAGES)[:, 1].mean((1, 2)), atol=1e-6)


def test_randomness_that_changes_nothing_is_no_fault():
    fixed = torch.Generator()
    model = nn.Sequential(
        nn.Conv2d(3, 3, 1),
        Step(lambda x: x + torch.rand(3, 1, 1, generator=fixed.manual_seed(1))),
        Step(lambda x: F.dropout(x)),
    )
    state = torch.get_rng_state()
    got = read_responses(model, "1", 0, IMAGES, preprocess=PIXELS)
    assert torch.allclose(got, model[:2](IMAGES)[:, 0].mean((1, 2)), atol=1e-6)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_large_channel_hides_nothing():
    one = torch.cat([torch.full((2, 1, 4, 4), 1000.0), torch.rand(2, 7, 4, 4)], 1)
    other = one.clone()
    other[:, 1:] = torch.rand(2, 7, 4, 4)
    assert not agree(one, other, 0.005, 1)
    assert agree(one, one + 1e-5, 0.005, 1)
    assert not agree(one, one[:1], 0.005, 1)


class Memory(nn.Module):
    """Counts, keeps and closes something at the end of every pass, as a model with state of its own does."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(3, 4, 1)
        self.head = nn.Conv2d(4, 4, 1)
        self.register_buffer("tokens", torch.zeros(4))
        self.begun = self.ended = 0
        self.busy = False
        self.kept = []
        self.cache = {}

    def forward(self, x):
        if self.busy:
            raise RuntimeError("a pass began before the one before had ended")
        if self.kind == "busy":
            self.busy = True
        if self.kind == "counter":
            self.begun += 1
        hidden = self.conv(x)
        output = self.head(hidden)
        if self.kind == "counter":
            self.ended += 1
        if self.kind == "tokens":
            self.tokens.copy_(output.detach().mean((0, 2, 3)))
        if self.kind == "list":
            self.kept.append(len(x))
        if self.kind == "cache" and "mask" not in self.cache:
            self.cache["mask"] = torch.ones(8, 8)
        self.busy = False
        return output


@pytest.mark.parametrize(
    ("kind", "stops"),
    [("none", True), ("cache", True), ("counter", False), ("busy", False), ("tokens", False), ("list", False)],
)
def test_a_model_that_keeps_something_of_every_pass_is_run_whole(kind, stops):
    model = Memory(kind)
    target = LayerTarget(model, "conv", 2, preprocess=PIXELS)
    calls = []
    handle = model.head.register_forward_hook(lambda *_: calls.append(1))
    got = target.responses(IMAGES)[:, 0]
    handle.remove()
    assert (calls == []) is stops
    assert torch.allclose(got, model.conv(IMAGES)[:, 2].mean((1, 2)), atol=1e-6)
    assert model.begun == model.ended
    model(IMAGES)
    if kind == "tokens":
        assert torch.allclose(model.tokens, model.head(model.conv(IMAGES)).mean((0, 2, 3)), atol=1e-6)


def test_own_state_sees_what_changes():
    model = Memory("none")
    before = OwnState(model)
    assert OwnState(model) == before
    model.tokens.add_(1)
    assert OwnState(model) != before
    before = OwnState(model)
    model.cache["x"] = [1, {"y": (2, np.zeros(3))}]
    changed = OwnState(model)
    assert changed != before
    model.cache["x"][1]["y"][1][0] = 1
    assert OwnState(model) != changed


def test_a_pass_that_fails_is_told_as_such():
    with pytest.raises(
        ModelPassError, match=r"a pass of Sequential fails on images of shape \(2, 3, 8, 8\).*RuntimeError"
    ):
        LayerTarget(nn.Sequential(nn.Conv2d(5, 4, 1)), "0", 0, preprocess=PIXELS)
    squeezes = nn.Sequential(Step(lambda x: x.mean((2, 3)).squeeze()), nn.Linear(3, 4), nn.BatchNorm1d(4))
    with pytest.raises(ValueError, match="fails on images of shape .1, 3, 8, 8.|shape"):
        LayerTarget(squeezes, "2", 0, preprocess=PIXELS)


def test_a_preprocessing_that_is_no_function_of_one_image_is_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    for preprocess, words in (
        (lambda x: x + torch.rand_like(x), "in two calls"),
        (lambda x: (x - x.mean()) / x.std(), "alone and among others"),
    ):
        with pytest.raises(ValueError, match=f"preprocess=<lambda> gives an image two different results {words}"):
            LayerTarget(model, "0", 1, preprocess=preprocess, image_size=8)


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        (
            lambda x: torch.cat([x, x.flip(-1)]),
            r"<lambda> gives shape .4, 3, 8, 8. for 2 images; expected a tensor with",
        ),
        (lambda x: x.mean(0, keepdim=True), r"gives shape .1, 3, 8, 8. for 2 images"),
        (lambda x: {"pixel_values": x}, "gives a dict for 2 images"),
        (lambda x: x.numpy(), "(gives a ndarray for 2 images|fails on images of shape .2, 3, 8, 8. .RuntimeError)"),
        (lambda x: x / (1 // 0), "fails on images .*ZeroDivisionError"),
    ],
)
def test_a_preprocessing_gives_one_row_an_image(preprocess, message):
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    with pytest.raises(ValueError, match=f"preprocess=.*{message}"):
        LayerTarget(model, "0", 1, preprocess=preprocess, image_size=8)
    with pytest.raises(ValueError, match=f"preprocess=.*{message}"):
        list_units(model, preprocess=preprocess, image_size=8)
