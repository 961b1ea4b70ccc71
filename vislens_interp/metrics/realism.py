"""Whether a set of generated images looks like a set of real ones."""

import torch
from torch import Tensor


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Fréchet distance between Gaussian fits of two sets of features; 0 for the same set.

    ‖μ_a - μ_b‖² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½). The last trace is the sum of the singular values of R_a R_bᵀ, where R
    is the triangular factor of the centred features: no covariance is formed, whose root would lose half of the digits.

    Args:
        features_a: (N, D), with N > D.
        features_b: (M, D), with M > D.

    Returns:
        The squared distance, in squared units of the features. It is biased upwards by few images: compare sets of
        equal size only. "FID" means Inception-v3's 2,048 features; in other features it is another number.

    Raises:
        ValueError: The sets do not share D, hold too few images for a covariance, or are not finite.

    Source: Heusel et al. 2017, Eq. 6; computed in float64. torchmetrics offers the same only as a metric that carries
    a network.

    >>> x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    >>> round(frechet_distance(x, x + torch.tensor([3.0, 0.0, 4.0])), 4)
    25.0
    """
    _check_pair(features_a, features_b)
    fits = []
    for name, features in (("features_a", features_a), ("features_b", features_b)):
        count, dim = features.shape
        if count <= dim:
            raise ValueError(
                f"{name} holds {count} images for {dim} features; a covariance of full rank needs more than {dim}. "
                "Give more images, or features of fewer dimensions."
            )
        features = features.detach().double()
        _check_finite(name, features)
        mean = features.mean(0)
        fits.append((mean, torch.linalg.qr((features - mean) / (count - 1) ** 0.5, mode="r").R))
    (mean_a, root_a), (mean_b, root_b) = fits
    cross = torch.linalg.svdvals(root_a @ root_b.T).sum()
    distance = ((mean_a - mean_b) ** 2).sum() + (root_a**2).sum() + (root_b**2).sum() - 2 * cross
    return max(0.0, distance.item())


def kernel_distance(features_a: Tensor, features_b: Tensor, *, degree: int = 3) -> float:
    """Squared maximum mean discrepancy under a polynomial kernel, without bias: 0 on average for sets of one kind.

    k(x, y) = (x·y / D + 1) ** degree. Unlike the Fréchet distance it needs no more images than dimensions, and sets of
    different sizes may be compared; it may come out a little below zero.

    Args:
        features_a: (N, D), N at least 2.
        features_b: (M, D), M at least 2.
        degree: Of the polynomial; 3 is usual, 1 compares means alone.

    Returns:
        The squared distance, in the kernel's unit. "KID" means Inception-v3's features; in others it is another number.

    Raises:
        ValueError: The sets do not share D, hold fewer than two images, or are not finite; ``degree`` is below 1.

    Source: Bińkowski et al. 2018, Eq. 4; over all images at once, where torchmetrics averages random subsets.

    >>> x = torch.eye(4)
    >>> round(kernel_distance(x, x + 2.0, degree=1), 4)
    4.0833
    """
    if degree < 1:
        raise ValueError(f"degree={degree} must be at least 1. Pass 3, which is usual.")
    _check_pair(features_a, features_b)
    a, b = features_a.detach().double(), features_b.detach().double()
    for name, features in (("features_a", a), ("features_b", b)):
        if len(features) < 2:
            raise ValueError(f"{name} holds {len(features)} images; expected at least 2. Give more images.")
        _check_finite(name, features)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** degree

    def within(x: Tensor) -> Tensor:
        all_pairs = kernel(x, x)
        return (all_pairs.sum() - all_pairs.diagonal().sum()) / (len(x) * (len(x) - 1))

    return (within(a) + within(b) - 2 * kernel(a, b).mean()).item()


def _check_pair(features_a: Tensor, features_b: Tensor) -> None:
    if features_a.ndim != 2 or features_b.ndim != 2 or features_a.shape[1] != features_b.shape[1]:
        raise ValueError(
            f"features_a has shape {tuple(features_a.shape)} and features_b {tuple(features_b.shape)}; expected (N, D) "
            "and (M, D). Flatten or pool the features first."
        )


def _check_finite(name: str, features: Tensor) -> None:
    if not torch.isfinite(features).all():
        raise ValueError(f"{name} holds values that are NaN or infinite; expected finite ones. Leave those images out.")
