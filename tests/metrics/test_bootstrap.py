import math

import numpy as np
import pytest
import torch

from vislens_interp.metrics import interval, intervals, paired_difference


def width(found):
    return found.high - found.low


def test_constant_data_has_no_width():
    found = interval(np.full((5, 7, 2), 3.5), draws=50)
    assert (found.mean, found.low, found.high) == (3.5, 3.5, 3.5)
    assert found.excludes_zero


def test_units_that_differ_dominate():
    """Ten units at their own levels, with images that add nothing: the interval is that of ten numbers."""
    levels = np.linspace(-1, 1, 10)
    few = interval(np.repeat(levels[:, None], 2, 1), draws=4000)
    many = interval(np.repeat(levels[:, None], 500, 1), draws=4000)
    expected = 2 * 1.96 * levels.std() / math.sqrt(10)
    assert width(few) == pytest.approx(expected, rel=0.06)
    assert width(many) == pytest.approx(expected, rel=0.06), "more images must not narrow it"
    assert width(interval(np.repeat(levels[:, None], 2, 1), levels=("image",), draws=50)) == 0


def test_images_are_drawn_within_their_unit():
    """Each unit's images scatter around one common mean: with fixed units the width is that of all the images."""
    values = np.random.default_rng(0).normal(size=(8, 100))
    expected = 2 * 1.96 / math.sqrt(800)
    assert width(interval(values, levels=("image",), draws=4000)) == pytest.approx(expected, rel=0.1)


def test_seeds_are_drawn_within_their_image():
    values = np.random.default_rng(0).normal(size=(4, 25, 10))
    expected = 2 * 1.96 / math.sqrt(1000) * math.sqrt(9 / 10)
    assert width(interval(values, levels=("seed",), draws=4000)) == pytest.approx(expected, rel=0.1)
    assert width(interval(values)) > width(interval(values, levels=("seed",)))


def test_what_is_common_to_a_picture_does_not_average_out():
    """Every unit saw the same 25 pictures, and the picture decides everything."""
    values = np.repeat(np.random.default_rng(0).normal(size=(1, 25)), 20, 0)
    expected = 2 * 1.96 * values.std() / math.sqrt(25)
    assert width(interval(values, same_images=True, draws=4000)) == pytest.approx(expected, rel=0.06)
    assert width(interval(values, draws=4000)) < expected / 3


def test_covers_about_as_often_as_it_says():
    """Units N(0, 1) around the true mean, images N(0, 1) around their unit: 200 experiments."""
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        values = rng.normal(size=(30, 1)) + rng.normal(size=(30, 10))
        found = interval(values, draws=300, seed=trial)
        hits += found.low <= 0 <= found.high
    assert 0.90 <= hits / 200 <= 0.99


def test_same_seed_same_ends_and_levels_that_are_absent_are_ignored():
    values = np.random.default_rng(0).normal(size=(6, 9))
    assert interval(values, seed=3, draws=100) == interval(values, seed=3, draws=100, levels=("unit", "image"))
    assert interval(values, seed=3, draws=100) != interval(values, seed=4, draws=100)


def test_takes_tensors_and_units_alone():
    found = interval(torch.tensor([1.0, 2.0, 3.0]), draws=100, confidence=0.9)
    assert found.mean == 2
    assert found.confidence == 0.9
    assert str(found).startswith("+2.00 [+")


def test_paired_difference_removes_what_both_share():
    rng = np.random.default_rng(0)
    shared = 10 * rng.normal(size=(12, 30))
    better = shared + 0.5 + 0.1 * rng.normal(size=(12, 30))
    found = paired_difference(better, shared, draws=500)
    assert found.mean == pytest.approx(0.5, abs=0.02)
    assert found.excludes_zero
    assert not interval(better, draws=500).excludes_zero
    assert paired_difference(shared, better, draws=500).mean == -found.mean


def test_paired_difference_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"values_a has shape \(2, 3\) and values_b \(2, 4\)"):
        paired_difference(np.zeros((2, 3)), np.zeros((2, 4)))


@pytest.mark.parametrize(
    ("values", "arguments", "message"),
    [
        (np.zeros((2, 0)), {}, r"values has shape \(2, 0\)"),
        (np.zeros((1, 1, 1, 1)), {}, r"expected \(units, images\)"),
        ([[1.0, math.nan]], {}, "values holds 1 that are NaN or infinite"),
        ([[1.0]], {"levels": ("units",)}, r"levels=\('units',\); expected a tuple"),
        ([[1.0]], {"levels": "unit"}, "levels='unit'; expected a tuple"),
        ([1.0, 5.0], {"levels": ("image", "seed")}, r"values has shape \(2,\), of which nothing would be drawn again"),
        ([[1.0]], {"draws": 0}, "draws=0; expected at least 1"),
        ([[1.0]], {"confidence": 95}, "confidence=95; expected between 0 and 1"),
    ],
)
def test_refuses(values, arguments, message):
    with pytest.raises(ValueError, match=message):
        interval(values, **arguments)


@pytest.mark.parametrize("same_images", [False, True])
@pytest.mark.parametrize("shape", [(4, 3, 2), (5, 4), (6,)])
def test_many_measures_at_once_are_as_one_by_one(shape, same_images):
    values = np.random.default_rng(0).normal(size=(3, *shape))
    found = intervals(values, draws=50, same_images=same_images)
    for one, measure in zip(found, values, strict=True):
        expected = interval(measure, draws=50, same_images=same_images)
        assert (one.mean, one.low, one.high) == pytest.approx((expected.mean, expected.low, expected.high))


def test_intervals_refuse():
    with pytest.raises(ValueError, match=r"values has shape \(3,\); expected \(measures, units, images\)"):
        intervals([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="some that are NaN"):
        intervals([[[1.0]], [[float("nan")]]])
