import pytest
import torch

from vislens_interp.metrics import diversity


def test_known_pairs():
    assert diversity(torch.ones(5, 4)) == 0
    assert diversity(torch.eye(4)) == 1
    assert diversity(torch.tensor([[1.0, 0.0], [-2.0, 0.0]])) == 2
    # 60 degrees apart: 1 - 1/2
    assert diversity(torch.tensor([[1.0, 0.0], [0.5, 3**0.5 / 2]])) == pytest.approx(0.5)


def test_it_is_the_mean_over_all_pairs():
    x = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0))
    flat = x.flatten(1)
    pairs = [
        1 - torch.nn.functional.cosine_similarity(flat[i], flat[j], dim=0).item() for i in range(6) for j in range(i)
    ]
    assert diversity(x) == pytest.approx(sum(pairs) / 15, abs=1e-6)
    assert diversity(x.flip(0) * 7) == pytest.approx(diversity(x), abs=1e-6)  # neither order nor length


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.ones(1, 3), r"shape \(1, 3\); expected .* at least two"),
        (torch.ones(3), "at least two"),
        (torch.tensor([[1.0, 0.0], [0.0, 0.0]]), "all zero in rows"),
    ],
)
def test_diversity_refuses(features, message):
    with pytest.raises(ValueError, match=message):
        diversity(features)
