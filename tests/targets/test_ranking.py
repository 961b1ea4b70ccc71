import math

import pytest
import torch
from torch import nn

from vislens_interp.preprocess import Preprocess
from vislens_interp.targets.ranking import predictability, rank, selectivity, sparsity, top_units
from vislens_interp.targets.whole_layer import LayerTable

PIXELS = Preprocess(8, [0], [1])


def table(responses):
    return LayerTable(responses, {"layer": "here"})


def test_sparsity_of_known_units():
    count = 50
    one = torch.zeros(count)
    one[7] = 3
    alike = torch.full((count,), 2.0)
    half = torch.cat([torch.ones(count // 2), torch.zeros(count // 2)])
    found = sparsity(torch.stack([one, alike, half, half - 1], dim=1))
    assert found.tolist() == pytest.approx([1, 0, 0.5 / (1 - 1 / count), 0.5 / (1 - 1 / count)])


def test_selectivity_counts_sds_to_the_strongest_hundredth():
    values = torch.zeros(200, 1)
    values[:2] = 1
    mean = 2 / 200
    assert selectivity(values).item() == pytest.approx((1 - mean) / math.sqrt(mean * (1 - mean)))
    normal = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    assert selectivity(normal).item() == pytest.approx(2.665, abs=0.02)


def test_predictability_recovers_what_is_linear():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(400, 20, generator=generator)
    weights = torch.randn(20, generator=generator)
    noise = torch.randn(400, generator=generator)
    signal = embeddings @ weights
    half = signal / signal.std() + noise
    found = predictability(torch.stack([signal, 5 * half - 3, noise], dim=1), embeddings)
    assert found[0] > 0.999
    assert found[1].item() == pytest.approx(math.sqrt(0.5), abs=0.12)
    assert abs(found[2]) < 0.3
    more = torch.randn(400, 500, generator=generator)  # more dimensions than images
    assert predictability(signal[:, None], torch.cat([embeddings * 10, more], 1)) > 0.5


@pytest.mark.parametrize("by", ["sparsity", "selectivity", "evidence"])
def test_the_planted_unit_comes_first_and_dead_ones_never(by):
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(300, 5, generator=generator)
    responses = torch.rand(300, 6, generator=generator)
    responses[:, 4] = embeddings[:, 0].relu() ** 3
    responses[:, 1] = 0
    responses[:, 2] = 0.7
    found = rank(table(responses), by, 10, embeddings if by == "evidence" else None)
    assert found.units[0] == 4
    assert sorted(found.units) == [0, 3, 4, 5]
    assert found.scores == sorted(found.scores, reverse=True)
    assert found.all_scores.isnan().tolist() == [False, True, True, False, False, False]
    assert (found.dead, found.constant) == ([1], [1, 2])
    assert "1 dead: 1\n1 constant but not 0: 2" in str(found)


def test_top_units_of_a_layer(tmp_path):
    conv = nn.Conv2d(3, 4, 1)
    with torch.no_grad():
        conv.weight.zero_()
        conv.bias.copy_(torch.tensor([0.0, 0.0, 0.0, -1.0]))
        conv.weight[0, 0], conv.weight[1, 1] = 1, 1
        conv.bias[2] = 0.5
    model = nn.Sequential(conv, nn.ReLU())
    images = torch.zeros(40, 3, 8, 8)
    images[:, 0] = 0.5 + 0.01 * torch.rand(40, generator=torch.Generator().manual_seed(0))[:, None, None]
    images[3, 1] = 1
    path = tmp_path / "1.safetensors"
    found = top_units(model, "1", images, count=1, path=path, preprocess=PIXELS)
    assert found.units == [1]  # a single image drives it
    assert found.scores == pytest.approx([1])
    assert (found.dead, found.constant) == ([3], [2, 3])
    assert found.table.path == path
    assert hasattr(found.table.responses, "shape")


def test_refused():
    responses = torch.rand(30, 3)
    with pytest.raises(ValueError, match="by='size' is unknown; expected 'sparsity', 'selectivity' or 'evidence'"):
        rank(table(responses), "size")
    with pytest.raises(ValueError, match="count=0; expected a whole number of at least 1"):
        rank(table(responses), count=0)
    with pytest.raises(ValueError, match="images: 10 came; expected at least 20"):
        rank(table(responses[:10]))
    with pytest.raises(ValueError, match="by='evidence', but embeddings were not given"):
        rank(table(responses), "evidence")
    with pytest.raises(ValueError, match="by='sparsity', but embeddings were given"):
        rank(table(responses), embeddings=torch.rand(30, 2))
    with pytest.raises(ValueError, match=r"embeddings has shape \(29, 2\); expected \(30, D\)"):
        rank(table(responses), "evidence", embeddings=torch.rand(29, 2))
