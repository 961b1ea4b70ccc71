"""Ridge regression that several rooms share."""

import pytest
import torch

from vislens_interp.math import pearson, ridge_gcv, ridge_loo


@pytest.mark.parametrize("images", [150, 199, 200, 201, 260])
def test_the_penalty_holds_where_images_are_fewer_than_dimensions(images: int) -> None:
    """Centring takes a degree of freedom: without it, the penalty goes to 0 there and the weights fit noise alone."""
    draw = torch.Generator().manual_seed(3)
    spectrum = torch.arange(1, 201, dtype=torch.float64) ** -0.7
    x = torch.randn(images + 500, 200, generator=draw, dtype=torch.float64) * spectrum
    signal = x @ torch.randn(200, 4, generator=draw, dtype=torch.float64)
    y = signal + signal.std() * torch.randn(len(x), 4, generator=draw, dtype=torch.float64)
    rows, held = slice(images), slice(images, None)
    centre, level = x[rows].mean(0), y[rows].mean(0)
    by_gcv = pearson((x[held] - centre) @ ridge_gcv(x[rows] - centre, y[rows] - level), signal[held])
    by_loo = pearson((x[held] - centre) @ ridge_loo(x[rows], y[rows])[0], signal[held])
    assert (by_gcv > by_loo - 0.05).all()
