import pytest
import torch

from vislens_interp.training.probe import knn_accuracy, linear_probe


@pytest.fixture
def clusters():
    """Three classes in 16 dimensions: centres far apart, and 40 points around each."""
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.nn.functional.one_hot(torch.arange(3), 16).float()
    labels = torch.arange(3).repeat_interleave(40)
    return centres[labels] + 0.3 * torch.randn(120, 16, generator=generator), labels


def test_separate_classes_are_told_apart(clusters):
    x, labels = clusters
    assert knn_accuracy(x[::2], labels[::2], x[1::2], labels[1::2]) == 1
    assert linear_probe(x[::2], labels[::2], x[1::2], labels[1::2]) == 1


def test_chance_where_there_is_nothing(clusters):
    _, labels = clusters
    noise = torch.randn(120, 16, generator=torch.Generator().manual_seed(1))
    assert knn_accuracy(noise[::2], labels[::2], noise[1::2], labels[1::2]) < 0.55
    assert linear_probe(noise[::2], labels[::2], noise[1::2], labels[1::2]) < 0.6


def test_a_direction_of_small_spread_is_found_by_the_probe_alone():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2).repeat(300)
    x = torch.randn(600, 8, generator=generator)
    x[:, 0] = 0.01 * (2 * labels - 1)
    assert linear_probe(x[:400], labels[:400], x[400:], labels[400:]) == 1
    assert knn_accuracy(x[:400], labels[:400], x[400:], labels[400:]) < 0.65


def test_the_nearest_votes_count_more():
    bank = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]])
    labels = torch.tensor([0, 1, 1])
    asked = torch.tensor([[2.0, 0.0]])
    assert knn_accuracy(bank, labels, asked, torch.tensor([0])) == 1  # one at cosine 1 against two at 0.6
