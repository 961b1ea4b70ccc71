import pytest
import torch

from vislens_interp.metrics import predictivity


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def planted():
    """Natural images on a circle around their mean; the unit answers to the first coordinate."""
    around = torch.linspace(0, 2 * torch.pi, 61)[:-1]
    natural = torch.stack([around.cos(), around.sin()], 1) + 5  # far from the origin: centring has to find it
    return natural, natural[:, 0]


def test_planted_preference_is_predicted_without_a_mistake(planted):
    natural, responses = planted
    found = predictivity(torch.tensor([[9.0, 5.0]]), torch.tensor([[1.0, 5.0]]), natural, responses)
    assert found.accuracy == found.extremes == 1.0
    assert set(found.by_difficulty.values()) == {1.0}


def test_the_wrong_way_round_is_never_right(planted):
    natural, responses = planted
    assert predictivity(torch.tensor([[1.0, 5.0]]), torch.tensor([[9.0, 5.0]]), natural, responses).accuracy == 0.0


def test_preferred_pictures_alone_will_do(planted):
    natural, responses = planted
    assert predictivity(torch.tensor([[9.0, 5.0]]), None, natural, responses).accuracy == 1.0


def test_shuffled_responses_are_at_chance():
    natural = draw(300, 8)
    shuffled = natural[torch.randperm(300, generator=torch.Generator().manual_seed(1)), 0]
    found = predictivity(10 * torch.eye(8)[:1], -10 * torch.eye(8)[:1], natural, shuffled)
    assert found.accuracy == pytest.approx(0.5, abs=0.06)


def test_pictures_that_say_nothing_tie_at_exactly_one_half(planted):
    natural, responses = planted
    same = draw(3, 2, seed=2)
    assert predictivity(same, same, natural, responses).accuracy == 0.5


def test_pairs_without_an_answer_are_counted_and_left_out():
    natural = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    found = predictivity(natural[:1], natural[2:3], natural, torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert (found.pairs, found.ties, found.accuracy) == (3, 3, 1.0)


def test_easy_pairs_are_easier_where_the_pictures_are_only_half_right():
    natural = draw(400, 6)
    pictures = torch.tensor([[1.0, 1.5, 0, 0, 0, 0]]) * 10
    found = predictivity(pictures, -pictures, natural, natural[:, 0])
    hard, middle, easy = (found.by_difficulty[name] for name in ("hard", "middle", "easy"))
    assert 0.5 < hard < middle < easy < found.extremes + 0.02


def test_scale_shift_and_order_do_not_matter(planted):
    natural, responses = draw(50, 4), draw(50, seed=5)
    pictures = draw(3, 4, seed=6), draw(3, 4, seed=7)
    first = predictivity(*pictures, natural, responses)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(3))
    moved = predictivity(*(3 * part + 7 for part in pictures), 3 * natural[order] + 7, 2 * responses[order] - 1)
    assert moved.accuracy == pytest.approx(first.accuracy, abs=1e-3)
    assert first.to_dict()["pairs"] == 50 * 49 // 2


def test_what_cannot_be_asked_is_refused(planted):
    natural, responses = planted
    with pytest.raises(ValueError, match=r"preferred has shape \(2, 3\); expected \(N, 2\).*Pool all"):
        predictivity(torch.rand(2, 3), None, natural, responses)
    with pytest.raises(ValueError, match="suppressed holds values that are NaN.*Leave those out"):
        predictivity(natural, natural * float("nan"), natural, responses)
    with pytest.raises(ValueError, match=r"responses has shape \(3,\); expected \(60,\).*Pass one unit's"):
        predictivity(natural, None, natural, responses[:3])
    with pytest.raises(ValueError, match="responses are all 1: no two of the 60.*Give images that drive"):
        predictivity(natural, None, natural, torch.ones(60))
