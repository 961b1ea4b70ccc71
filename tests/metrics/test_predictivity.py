import math

import pytest
import torch

from vislens_interp.metrics import predictivity


def planted(count=60, dim=8, seed=0):
    """Natural images whose unit is the first feature."""
    natural = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    natural = natural / natural.norm(dim=1, keepdim=True)
    return natural, natural[:, 0].clone()


AXIS = torch.eye(8)[:1]


def test_the_planted_direction_tells_every_pair():
    natural, responses = planted()
    found = predictivity(AXIS, -AXIS, natural, responses)
    assert found.accuracy == 1
    assert found.pairs == 60 * 59 / 2
    assert predictivity(AXIS, None, natural, responses).accuracy == 1
    assert predictivity(None, -AXIS, natural, responses).accuracy == 1


def test_it_is_the_share_of_concordant_pairs():
    natural, responses = planted()
    noisy = responses + 0.3 * torch.randn(60, generator=torch.Generator().manual_seed(1))
    order = [(noisy[i] > noisy[j]) == (responses[i] > responses[j]) for i in range(60) for j in range(i)]
    expected = sum(bool(one) for one in order) / len(order)
    assert predictivity(AXIS, -AXIS, natural, noisy).accuracy == pytest.approx(expected)


def test_exchanged_sets_are_wrong_where_they_were_right():
    natural, responses = planted()
    pictures = torch.randn(10, 8, generator=torch.Generator().manual_seed(2))
    right = predictivity(pictures[:5], pictures[5:], natural, responses).accuracy
    wrong = predictivity(pictures[5:], pictures[:5], natural, responses).accuracy
    assert right + wrong == pytest.approx(1)


def test_pictures_that_say_nothing_are_at_chance():
    natural, responses = planted()
    assert predictivity(AXIS, AXIS, natural, responses).accuracy == 0.5
    generator = torch.Generator().manual_seed(3)
    random = [predictivity(*torch.randn(2, 4, 8, generator=generator), natural, responses).accuracy for _ in range(200)]
    assert sum(random) / 200 == pytest.approx(0.5, abs=0.03)


def test_lengths_of_features_and_scales_of_responses_play_no_part():
    natural, responses = planted()
    pictures = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(4))
    expected = predictivity(*pictures, natural, responses)
    assert predictivity(*(3 * pictures), 7 * natural, responses.exp()).accuracy == expected.accuracy
    moved = predictivity(*pictures, natural, 5 * responses + 2)
    assert (moved.accuracy, moved.gap) == (expected.accuracy, pytest.approx(expected.gap, abs=1e-5))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(5))
    assert predictivity(*pictures, natural[order], responses[order]).accuracy == pytest.approx(expected.accuracy)


def test_ties_of_the_unit_have_no_answer():
    natural, _ = planted()
    responses = torch.zeros(60)
    responses[natural[:, 0].argmax()] = 1
    found = predictivity(AXIS, -AXIS, natural, responses)
    assert (found.accuracy, found.pairs) == (1, 59)


def test_extreme_pairs_are_fewer_farther_apart_and_easier():
    natural, responses = planted(200)
    noisy = responses + 0.5 * torch.randn(200, generator=torch.Generator().manual_seed(6))
    every, half, easy = (predictivity(AXIS, -AXIS, natural, noisy, extreme=one) for one in (None, 0.5, 0.1))
    assert easy.pairs == 20 * 20
    assert half.pairs == 100 * 100
    assert every.gap < half.gap < easy.gap
    assert every.accuracy < half.accuracy < easy.accuracy


NATURAL = torch.eye(3)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((None, None, NATURAL, torch.arange(3.0)), {}, "preferred and suppressed are both None"),
        ((NATURAL, None, NATURAL, torch.zeros(2)), {}, r"responses \(2,\); expected \(N, F\) and \(N,\)"),
        ((NATURAL, None, NATURAL, torch.zeros(3)), {}, "no pair of images that differ, among 3"),
        ((NATURAL, None, NATURAL, torch.tensor([1.0, math.nan, 0.0])), {}, "responses holds values that are NaN"),
        ((torch.ones(2, 4), None, NATURAL, torch.arange(3.0)), {}, r"preferred has shape \(2, 4\); expected \(N, 3\)"),
        ((None, torch.zeros(1, 3), NATURAL, torch.arange(3.0)), {}, "all zero in rows"),
        ((NATURAL, None, NATURAL, torch.arange(3.0)), {"extreme": 0.7}, r"extreme=0.7 must lie in \(0, 0.5\]"),
    ],
)
def test_predictivity_refuses(arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        predictivity(*arguments, **settings)
