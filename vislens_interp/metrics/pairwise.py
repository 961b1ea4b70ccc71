"""Whether a method makes many pictures, or one picture many times."""

from torch import Tensor

from vislens_interp.metrics.similarity import unit_features
from vislens_interp.validation import shapes


def diversity(features: Tensor) -> float:
    """Mean cosine distance between the features of all pairs of pictures; 0 where all are one picture.

    Args:
        features: (N, ...) of N >= 2 generated pictures, in a network that had no part in making them.

    Returns:
        1 - mean cosine over the pairs: 1 for orthogonal directions, at most N / (N - 1). It has no right value of its
        own: read it beside that of natural pictures.

    Raises:
        ValueError: There are fewer than two pictures, or features without a direction.

    Source: as Zhu et al. 2017 (BicycleGAN), who take LPIPS, where this takes the cosine.

    >>> import torch
    >>> diversity(torch.eye(3))
    1.0
    """
    if features.ndim < 2 or len(features) < 2:
        raise ValueError(f"{shapes(features=features)}; expected (N, ...) of at least two pictures. Generate more.")
    count = len(features)
    flat = unit_features(features.detach().double(), "features")
    total = flat.sum(0).square().sum().item()  # all ordered pairs, and N ones
    return max(0.0, round(1 - (total - count) / (count * (count - 1)), 12))
