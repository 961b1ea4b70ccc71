"""What a loaded file has to hold: each message names the file and the field."""

import math
import re

import pytest
import torch
from torch import nn

from vislens_interp.schema import check_finite, check_inside, check_schema, check_tensors, restore_optimizer

SPEC = {
    "unit": str,
    "scale": float,
    "seeds": [int],
    "images": {str: [str]},
    "kind": frozenset({"a", "b"}),
    "evidence": ({"p": float, "copies?": int}, None),
    "free?": object,
}
GOOD = {"unit": "16", "scale": 1, "seeds": [1], "images": {"inputs": ["x.png"]}, "kind": "a", "evidence": {"p": 0.5}}


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("good", [{}, {"evidence": None}, {"more": 3}, {"evidence": {"p": 0, "copies": 2}}])
def test_what_fits(good):
    check_schema({**GOOD, **good}, SPEC, "'file'")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"unit": 16}, "unit is 16; expected text"),
        ({"scale": "1"}, "scale is '1'; expected a finite number"),
        ({"scale": math.nan}, "scale is nan; expected a finite number"),
        ({"scale": True}, "scale is True; expected a finite number"),
        ({"seeds": [1, 2.5]}, r"seeds\[1\] is 2.5; expected a whole number"),
        ({"seeds": {"a": 1}}, "seeds is a dict; expected a list"),
        ({"images": {"inputs": [None]}}, r"images\['inputs'\]\[0\] is None; expected text"),
        ({"images": []}, "images is a list; expected a dictionary"),
        ({"kind": "c"}, r"kind is 'c'; expected one of \['a', 'b'\]"),
        ({"evidence": "x" * 100}, "evidence is 'xxx.*; expected a dictionary or null"),
        ({"evidence": {}}, "evidence.p is missing; expected a finite number"),
        ({"evidence": {"p": 1, "copies": None}}, "evidence.copies is None; expected a whole number"),
        ({"free": nested(100)}, "free is nested more than 40 levels deep"),
    ],
)
def test_what_does_not_fit_is_named(bad, message):
    with pytest.raises(ValueError, match=rf"'file': {message}.*Restore a copy"):
        check_schema({**GOOD, **bad}, SPEC, "'file'")


def test_the_whole_may_be_wrong():
    with pytest.raises(ValueError, match="'file': the whole is a list; expected a dictionary"):
        check_schema([], SPEC, "'file'")
    with pytest.raises(ValueError, match="'file': unit is missing; expected text"):
        check_schema({}, SPEC, "'file'")


@pytest.mark.parametrize(
    "file", ["", "/etc/passwd", "../x.png", "a/../../x.png", "C:\\x.png", "a\\..\\..\\x", "x\0.png"]
)
def test_a_path_outside_is_refused(tmp_path, file):
    with pytest.raises(ValueError, match=f"'file': images names {re.escape(repr(file))}, outside the folder"):
        check_inside(tmp_path, file, "'file'", "images")


def test_a_link_to_the_outside_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="outside the folder"):
        check_inside(tmp_path / "in", "link/secret.png", "'file'", "images")
    assert check_inside(tmp_path / "in", "images/a.png", "'file'", "images") == tmp_path / "in" / "images" / "a.png"


def test_tensors_that_are_not_those_of_a_network():
    like = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}
    check_tensors({name: value + 1 for name, value in like.items()}, like, "'file'", "vae")
    for changed, message in (
        ({"weight": like["weight"]}, "vae.bias is missing; expected Tensor"),
        ({**like, "bias": 3}, "vae.bias is 3; expected Tensor"),
        ({**like, "bias": torch.zeros(3)}, r"vae.bias has shape \(3,\); expected \(2,\)"),
        ({**like, "more": torch.zeros(1)}, "vae.more is unknown"),
        ([], "vae is a list; expected a dictionary"),
    ):
        with pytest.raises(ValueError, match=rf"'file': {message}"):
            check_tensors(changed, like, "'file'", "vae")


def test_what_is_not_finite_is_named():
    check_finite({"a": [torch.ones(1), torch.tensor([1])], "b": math.nan}, "'file'")
    with pytest.raises(ValueError, match=r"'file': a.1.c holds NaN or infinity"):
        check_finite({"a": [torch.ones(1), {"c": torch.tensor([1, torch.inf])}]}, "'file'")


def test_an_optimiser_goes_on_or_says_what_does_not_fit():
    def adam():
        layer = nn.Linear(2, 3)
        return layer, torch.optim.Adam(layer.parameters(), lr=0.1)

    layer, optimizer = adam()
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    saved = optimizer.state_dict()
    other = adam()[1]
    saved["param_groups"][0] |= {"lr": 0.5, "betas": None}
    restore_optimizer(other, saved, "'file'")
    assert other.param_groups[0]["lr"] == 0.5
    assert other.param_groups[0]["betas"] == (0.9, 0.999)
    assert torch.equal(other.state_dict()["state"][0]["exp_avg"], saved["state"][0]["exp_avg"])
    for changed, message in (
        ({"state": {}}, "optimizer.param_groups is missing"),
        ({**saved, "param_groups": []}, "optimizer holds 0 param_groups"),
        ({**saved, "state": {0: saved["state"][0]}}, r"the state of \[0\]; expected 1 and 2 parameters"),
        ({**saved, "param_groups": [{"lr": math.nan}]}, r"optimizer.param_groups\[0\].lr is nan"),
        ({**saved, "state": {**saved["state"], 1: {}}}, "optimizer.state.1.step is missing"),
    ):
        with pytest.raises(ValueError, match=f"'file': .*{message}"):
            restore_optimizer(adam()[1], changed, "'file'")
