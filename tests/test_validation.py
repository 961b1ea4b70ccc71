"""One wording for each kind of mistake in an argument."""

import re

import numpy as np
import pytest
import torch

from vislens_interp.validation import (
    check_counts,
    check_finite,
    check_not_negative,
    check_positive,
    check_shares,
    check_whole,
    check_word,
    closest,
    shapes,
)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (
            lambda: check_word("form", "half", ("a", "b", "c"), " Ask."),
            "form='half' is unknown; expected 'a', 'b' or 'c'. Ask.",
        ),
        (lambda: check_counts(steps=3, chunk=0), "chunk=0 must be at least 1."),
        (lambda: check_whole(1, count=True), "count=True; expected a whole number of at least 1."),
        (lambda: check_whole(0, retries=-1), "retries=-1; expected a whole number of at least 0."),
        (lambda: check_positive(lr=0.0), "lr=0.0 must be greater than 0."),
        (lambda: check_not_negative(noise=-1), "noise=-1 must not be negative."),
        (lambda: check_positive(lr=float("nan")), "lr=nan must be greater than 0."),
        (lambda: check_not_negative(noise=float("nan")), "noise=nan must not be negative."),
        (lambda: check_shares(": no more than all.", alpha=1.5), "alpha=1.5 must lie in [0, 1]: no more than all."),
        (
            lambda: check_finite("Cut it.", curve=torch.tensor([0.0, torch.nan])),
            "curve holds values that are NaN or infinite; expected finite ones. Cut it.",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_value(check, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check()


@pytest.mark.parametrize("check", [check_counts, check_positive, check_not_negative, check_shares])
@pytest.mark.parametrize("value", ["3", [1], torch.tensor(1)])
def test_what_is_no_number_is_named_with_its_type(check, value):
    with pytest.raises(TypeError, match=rf"^share={re.escape(repr(value))} is a {type(value).__name__}; expected a "):
        check(share=value)


@pytest.mark.parametrize("value", [2.5, float("nan"), None])
def test_a_count_is_a_whole_number(value):
    with pytest.raises(TypeError, match=f"^steps={value} is a .*; expected a whole number of at least 1"):
        check_counts(steps=value)


def test_what_is_right_passes():
    check_counts(steps=np.int64(1))
    check_positive(lr=np.float32(0.1))
    check_word("form", "a", ("a", "b"))
    check_counts(steps=1)
    check_whole(0, retries=0)
    check_positive(lr=1e-9)
    check_not_negative(noise=0)
    check_shares(alpha=None, strength=1)
    check_finite(x=torch.ones(2), y=torch.arange(3))


def test_near_names_come_first():
    assert closest("epoch", ["alpha", "epochs"]) == "Closest: epochs."
    assert closest("zzz", ["alpha", "epochs"], limit=1) == "Known: alpha."
    assert closest("zzz", ["alpha"], otherwise=None) == ""
    assert closest("zzz", []) == "Known: none."


def test_shapes_of_one_and_of_several():
    assert shapes(x=torch.zeros(2, 3)) == "x has shape (2, 3)"
    assert shapes(x=torch.zeros(2), y=np.zeros((1, 4)), z=torch.zeros(())) == "x has shape (2,) and y (1, 4) and z ()"
