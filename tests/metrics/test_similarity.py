import math

import pytest
import torch

from vislens_interp.metrics import cosine_similarity, normalised_similarity


def test_cosine_is_the_angle_of_each_pair():
    angles = torch.tensor([0.0, 30.0, 90.0, 180.0]).deg2rad()
    a = torch.tensor([[2.0, 0.0]]).expand(4, 2)
    b = 5 * torch.stack([angles.cos(), angles.sin()], 1)
    assert cosine_similarity(a, b).tolist() == pytest.approx([1, math.sqrt(3) / 2, 0, -1], abs=1e-6)


def test_cosine_agrees_with_torch_on_maps():
    a, b = torch.randn(2, 5, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1))
    torch.testing.assert_close(cosine_similarity(a, b), expected)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_cosine_does_not_depend_on_the_scale(scale):
    a, b = torch.rand(2, 3, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cosine_similarity(a * scale, b), cosine_similarity(a, b))


def test_cosine_takes_half_precision_and_keeps_double():
    x = torch.rand(3, 8)
    assert cosine_similarity(x.half(), x.half()).dtype == torch.float32
    assert cosine_similarity(x.double(), x.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.ones(2, 3), torch.ones(3, 3), r"shape \(2, 3\).*Pair the images"),
        (torch.ones(3), torch.ones(3), r"expected the same \(N, ...\)"),
        (torch.tensor([[math.nan, 1.0]]), torch.ones(1, 2), "features_a holds values that are NaN"),
        (torch.ones(2, 2), torch.tensor([[1.0, 1.0], [0.0, 0.0]]), r"features_b is all zero in rows \[1\]"),
    ],
)
def test_cosine_refuses(a, b, message):
    with pytest.raises(ValueError, match=message):
        cosine_similarity(a, b)


def test_normalised_similarity_has_its_ends():
    scale = normalised_similarity(torch.tensor([0.6, 0.8, 0.7, 0.9]), 0.6, 0.8)
    assert scale.tolist() == pytest.approx([0, 1, 0.5, 1.5], abs=1e-6)


def test_normalised_similarity_takes_ends_for_each_unit():
    found = normalised_similarity(torch.full((2, 3), 0.5), torch.tensor([[0.0], [0.25]]), torch.tensor([[1.0], [0.75]]))
    assert found.tolist() == [[0.5] * 3, [0.5] * 3]


@pytest.mark.parametrize("reconstruction", [0.6, 0.6005, 0.5, math.nan])
def test_normalised_similarity_refuses_a_degenerate_scale(reconstruction):
    with pytest.raises(ValueError, match="more similar than random; expected at least 0.001"):
        normalised_similarity(0.7, 0.6, reconstruction)
