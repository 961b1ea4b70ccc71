"""Whether a set of generated images looks like a set of real ones."""

import torch
from torch import Tensor

from vislens_interp.validation import check_finite, shapes


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Fréchet distance between Gaussian fits of two sets of features; 0 for the same set.

    ‖μ_a - μ_b‖² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½). The last trace is the sum of the singular values of R_a R_bᵀ, where R
    is the triangular factor of the centred features: no covariance is formed, whose root would lose half of the digits.

    Args:
        features_a, features_b: (N, D) and (M, D), with N and M above D.

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
    fits = []
    for name, features in _pair(features_a, features_b):
        count, dim = features.shape
        if count <= dim:
            raise ValueError(
                f"{name} holds {count} images for {dim} features; a covariance of full rank needs more than {dim}. "
                "Give more images, or features of fewer dimensions."
            )
        mean = features.mean(0)
        fits.append((mean, torch.linalg.qr((features - mean) / (count - 1) ** 0.5, mode="r").R))
    (mean_a, root_a), (mean_b, root_b) = fits
    cross = torch.linalg.svdvals(root_a @ root_b.T).sum()
    distance = ((mean_a - mean_b) ** 2).sum() + (root_a**2).sum() + (root_b**2).sum() - 2 * cross
    return max(0.0, distance.item())


def kernel_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Squared maximum mean discrepancy of two sets of features, without bias however few images there are.

    The kernel is (a · b / D + 1)³. Sets of one distribution give 0 on average, and so a negative number half of the
    time. "KID" means Inception-v3's features; in other features it is another number.

    Args:
        features_a, features_b: (N, D) and (M, D), N and M at least 2.

    Returns:
        The distance, computed in float64; it grows with the sixth power of the features' scale.

    Raises:
        ValueError: The sets do not share D, hold fewer than two images, or are not finite.

    Source: Bińkowski et al. 2018, "Demystifying MMD GANs", Sec. 4 (the unbiased estimator, one block).

    >>> x = torch.eye(2)
    >>> kernel_distance(x, -x)
    0.875
    """
    sets = []
    for name, features in _pair(features_a, features_b):
        if len(features) < 2:
            raise ValueError(f"{name} holds {len(features)} images; expected at least two. Give more images.")
        sets.append(features)
    a, b = sets

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Tensor) -> Tensor:
        every = kernel(x, x)
        return (every.sum() - every.diagonal().sum()) / (len(x) * (len(x) - 1))

    return (within(a) + within(b) - 2 * kernel(a, b).mean()).item()


def _pair(features_a: Tensor, features_b: Tensor) -> list[tuple[str, Tensor]]:
    """Both sets in float64, by name; ValueError where they do not share D or are not finite."""
    if features_a.ndim != 2 or features_b.ndim != 2 or features_a.shape[1] != features_b.shape[1]:
        raise ValueError(
            f"{shapes(features_a=features_a, features_b=features_b)}; expected (N, D) and (M, D). Flatten or pool."
        )
    check_finite(features_a=features_a, features_b=features_b)
    return [("features_a", features_a.detach().double()), ("features_b", features_b.detach().double())]
