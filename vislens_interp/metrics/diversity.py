"""Whether a method makes different pictures, or one picture again and again."""

import torch
from torch import Tensor

from vislens_interp.metrics.similarity import cosine_similarity


def diversity(features: Tensor) -> float:
    """Mean cosine distance between the features of every two pictures: 0 where all are the same.

    Args:
        features: (N, ...) of N pictures made from different inputs, N at least 2, in any network but the target's own.

    Returns:
        1 - mean cosine over the N (N - 1) / 2 pairs, from 0 to 2. Read it beside that of natural images.

    Raises:
        ValueError: There are fewer than two pictures, or a row is all zero or not finite.

    >>> diversity(torch.eye(3))
    1.0
    """
    if features.ndim < 2 or len(features) < 2:
        raise ValueError(
            f"features has shape {tuple(features.shape)}; expected (N, ...) of at least two pictures. Generate more."
        )
    first, second = torch.triu_indices(len(features), len(features), 1, device=features.device)
    return 1 - cosine_similarity(features[first], features[second]).double().mean().item()
