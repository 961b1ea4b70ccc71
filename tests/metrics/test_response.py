import math

import pytest
import torch

from vislens_interp.metrics import interpolate_at, monotonicity, percentile_among, share_right_way, signed_change


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
    with pytest.raises(
        ValueError, match=r"signed has shape \(3,\) and control \(3, 1\); expected one control for each"
    ):
        share_right_way(torch.zeros(3), torch.zeros(3, 1))


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


def test_percentiles_count_what_lies_below():
    natural = torch.arange(1.0, 11)
    found = percentile_among(torch.tensor([[0.0, 5.5], [10.0, 11.0]]), natural)
    assert found.tolist() == [[0, 50], [95, 100]]
    assert percentile_among(natural, natural).mean().item() == 50


def test_a_silent_unit_has_its_median_at_fifty():
    assert percentile_among(torch.tensor([0.0, 1.0]), torch.zeros(9)).tolist() == [50, 100]


def test_percentiles_know_the_order_alone():
    responses, natural = torch.randn(2, 40, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(percentile_among(responses.exp(), natural.exp()), percentile_among(responses, natural))
    torch.testing.assert_close(percentile_among(-responses, -natural), 100 - percentile_among(responses, natural))


def test_percentiles_refuse():
    with pytest.raises(ValueError, match=r"natural has shape \(2, 2\); expected \(M,\)"):
        percentile_among(torch.zeros(1), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="responses is NaN in 1 places"):
        percentile_among(torch.tensor([math.nan]), torch.zeros(2))


def test_monotonicity_has_its_ends_and_middle():
    doses = torch.tensor([1.0, 0.0, 0.5, 2.0])
    up = doses.exp()
    swapped = torch.tensor([2.0, 0.0, 1.0, 1.5])  # the two largest doses exchanged: 1 - 6 * 2 / (4 * 15)
    found = monotonicity(doses, torch.stack([up, -up, torch.zeros(4), swapped], 1))
    assert found.tolist() == pytest.approx([1, -1, 0, 0.8])


def test_monotonicity_is_spearmans_correlation():
    from scipy.stats import spearmanr

    changes = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).round()  # with ties
    doses = torch.linspace(-1, 1, 7)
    expected = [spearmanr(doses.numpy(), column.numpy()).statistic for column in changes.T]
    torch.testing.assert_close(monotonicity(doses, changes), torch.tensor(expected).double())
    torch.testing.assert_close(monotonicity(doses.exp(), 3 * changes + 1), monotonicity(doses, changes))


@pytest.mark.parametrize(
    ("doses", "changes", "message"),
    [
        (torch.ones(3), torch.zeros(3, 1), "at least two different doses"),
        (torch.arange(3.0), torch.zeros(2, 1), r"doses has shape \(3,\) and changes \(2, 1\)"),
        (torch.arange(2.0), torch.full((2, 1), math.nan), "NaN"),
    ],
)
def test_monotonicity_refuses(doses, changes, message):
    with pytest.raises(ValueError, match=message):
        monotonicity(doses, changes)
