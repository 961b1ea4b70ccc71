import pytest
import torch
from torch import nn

from vislens_interp.metrics import frechet_distance, kernel_distance


def gaussian(count, dim, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exactly(count, covariance_root):
    """Features whose sample mean is zero and whose sample covariance is exactly ``root.T @ root``."""
    x = gaussian(count, len(covariance_root))
    x = torch.linalg.qr(x - x.mean(0)).Q * (count - 1) ** 0.5
    return x @ covariance_root


def test_the_same_features_are_at_zero():
    x = gaussian(200, 16)
    assert frechet_distance(x, x) < 1e-6
    assert frechet_distance(x, x[torch.randperm(200)]) < 1e-6
    assert frechet_distance(x.float(), x.float()) < 1e-6


def test_a_shift_is_its_squared_length():
    x, shift = gaussian(200, 16), gaussian(1, 16, seed=1)
    assert frechet_distance(x, x + shift) == pytest.approx((shift**2).sum().item(), rel=1e-9)


def test_scaled_isotropic_gaussians():
    x = exactly(300, torch.eye(8, dtype=torch.float64))
    assert frechet_distance(x, 3 * x) == pytest.approx(8 * (3 - 1) ** 2, rel=1e-9)


def test_gaussians_whose_covariances_do_not_commute():
    root_a, root_b = gaussian(5, 5, seed=1), gaussian(5, 5, seed=2)
    cov_a, cov_b = root_a.T @ root_a, root_b.T @ root_b
    cross = torch.linalg.eigvals(cov_a @ cov_b).sqrt().real.sum()
    expected = (cov_a.trace() + cov_b.trace() - 2 * cross).item()
    assert frechet_distance(exactly(50, root_a), exactly(70, root_b)) == pytest.approx(expected, rel=1e-6)


def test_symmetric_and_invariant_to_rotation():
    a, b = gaussian(60, 6), 2 * gaussian(80, 6, seed=3) + 1
    turn = torch.linalg.qr(gaussian(6, 6, seed=4)).Q
    distance = frechet_distance(a, b)
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(distance, rel=1e-9)


def test_rank_deficient_features():
    """A ReLU feature that never fires makes a covariance singular; the distance is still defined."""
    x = gaussian(100, 4)
    x[:, 3] = 0
    assert frechet_distance(x, x) < 1e-9
    expected = x.mean(0).pow(2).sum() + x.var(0).sum()
    assert frechet_distance(x, 2 * x) == pytest.approx(expected.item(), rel=1e-9)


def test_agrees_with_torchmetrics():
    """On features that are handed to its public metric through a network that only flattens."""
    fid = pytest.importorskip("torchmetrics.image.fid")

    class Flatten(nn.Module):
        num_features = 12

        def forward(self, images):
            return images.flatten(1).double()

    a, b = torch.randint(0, 255, (2, 60, 3, 2, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    b = b // 2
    metric = fid.FrechetInceptionDistance(Flatten(), input_img_size=(3, 2, 2)).set_dtype(torch.float64)
    metric.update(a, real=True)
    metric.update(b, real=False)
    assert frechet_distance(a.flatten(1), b.flatten(1)) == pytest.approx(metric.compute().item(), rel=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.rand(10, 10), torch.rand(20, 10), "features_a holds 10 images for 10 features.*more than 10"),
        (torch.rand(20, 10), torch.rand(9, 10), "features_b holds 9 images"),
        (torch.rand(20, 3), torch.rand(20, 4), r"expected \(N, D\) and \(M, D\)"),
        (torch.rand(20, 3, 2), torch.rand(20, 3, 2), "Flatten or pool"),
        (torch.full((20, 3), torch.inf), torch.rand(20, 3), "features_a holds values that are NaN or infinite"),
    ],
)
def test_refuses(a, b, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(a, b)


def test_kernel_distance_is_known_in_closed_form():
    """Features of one number, a at 0 and b at c: within each k = 1 and (c² + 1)³, between them 1."""
    zero, c = torch.zeros(3, 1), 2.0
    assert kernel_distance(zero, torch.full((4, 1), c)) == pytest.approx(1 + (c**2 + 1) ** 3 - 2)


def test_kernel_distance_has_no_bias():
    generator = torch.Generator().manual_seed(0)
    found = torch.tensor([kernel_distance(*torch.randn(2, 10, 4, generator=generator)) for _ in range(400)])
    assert abs(found.mean()) < 3 * found.std() / 20
    assert (found < 0).any()


def test_kernel_distance_knows_neither_order_nor_rotation():
    a, b = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(1))
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(2))).Q
    expected = kernel_distance(a, b)
    assert kernel_distance(b.flip(0), a) == pytest.approx(expected)
    assert kernel_distance(a @ turn, b @ turn) == pytest.approx(expected, rel=1e-4)
    assert kernel_distance(a, b + 1) > expected


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.ones(2, 3), torch.ones(2, 4), r"features_a has shape \(2, 3\)"),
        (torch.ones(2, 3), torch.ones(1, 3), "features_b holds 1 images"),
        (torch.full((2, 3), float("nan")), torch.ones(2, 3), "features_a holds values"),
    ],
)
def test_kernel_distance_refuses(a, b, message):
    with pytest.raises(ValueError, match=message):
        kernel_distance(a, b)
