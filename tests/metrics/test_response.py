import math

import pytest
import torch

from vislens_interp.metrics import interpolate_at, share_right_way, signed_change


def test_signed_change():
    change = torch.tensor([1.0, -2.0])
    assert signed_change(change, "increase").tolist() == [1, -2]
    assert signed_change(change, "decrease").tolist() == [-1, 2]


def test_signed_change_refuses_another_direction():
    with pytest.raises(ValueError, match="direction='custom' is unknown.*one unit at a time"):
        signed_change(torch.zeros(1), "custom")


def test_share_right_way():
    signed = torch.tensor([[1.0, -1.0], [0.0, 2.0]])
    assert share_right_way(signed) == 0.5  # no change is no success
    assert share_right_way(signed, 1.5) == 0.25
    assert share_right_way(signed, torch.tensor([[0.0, -2.0], [-1.0, 3.0]])) == 0.75


def test_share_right_way_refuses():
    with pytest.raises(ValueError, match="signed is empty"):
        share_right_way(torch.empty(0))
    with pytest.raises(ValueError, match="signed or control is NaN in 1 places"):
        share_right_way(torch.tensor([1.0, math.nan]))


def test_a_straight_curve_is_interpolated():
    x = torch.linspace(1, 0, 11)
    levels = torch.tensor([1.0, 0.95, 0.42, 0.0])
    torch.testing.assert_close(interpolate_at(x, 3 * x + 1, levels), (3 * levels + 1).double())


def test_a_rising_curve_is_read_from_the_other_side():
    x = torch.tensor([0.0, 1.0, 2.0])
    assert interpolate_at(x, x**2, 1.5).item() == 2.5


def test_the_first_crossing_counts():
    """The optimiser falls below 0.7, comes back above it with a better y, and falls again."""
    x, y = torch.tensor([1.0, 0.6, 0.9, 0.5]), torch.tensor([0.0, 1.0, 5.0, 6.0])
    assert interpolate_at(x, y, 0.7).item() == pytest.approx(0.75)
    assert interpolate_at(x, y, 0.55).item() == pytest.approx(5 + 0.35 / 0.4, rel=1e-6)


def test_nothing_is_extrapolated():
    x = torch.tensor([1.0, 0.5])
    found = interpolate_at(x, x, torch.tensor([1.1, 0.4, 0.5, 1.0]))
    assert found.isnan().tolist() == [True, True, False, False]


def test_the_start_is_reached_at_once():
    assert interpolate_at(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([7.0, 8.0, 9.0]), 1.0).item() == 7
    assert interpolate_at(torch.tensor([1.0]), torch.tensor([7.0]), 1.0).item() == 7


def test_many_curves_at_once_are_the_same_as_one_by_one():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 3, 4, 20, generator=generator).cumsum(-1)
    levels = torch.linspace(-3, 3, 7)
    found = interpolate_at(x, y, levels)
    assert found.shape == (3, 4, 7)
    assert interpolate_at(x, y, 0.5).shape == (3, 4)
    for i in range(3):
        for j in range(4):
            torch.testing.assert_close(found[i, j], interpolate_at(x[i, j], y[i, j], levels), equal_nan=True)


@pytest.mark.parametrize(
    ("x", "y", "level", "message"),
    [
        (torch.zeros(3), torch.zeros(4), 0.0, r"curve_x has shape \(3,\) and curve_y \(4,\)"),
        (torch.zeros(0), torch.zeros(0), 0.0, "one value a step"),
        (torch.zeros(2), torch.tensor([0.0, math.nan]), 0.0, "curve_y holds values that are NaN"),
        (torch.zeros(2), torch.zeros(2), torch.zeros(1, 1), r"x has shape \(1, 1\); expected a number or \(Q,\)"),
    ],
)
def test_interpolate_refuses(x, y, level, message):
    with pytest.raises(ValueError, match=message):
        interpolate_at(x, y, level)
