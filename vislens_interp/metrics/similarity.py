"""How much of the input is left: similarity in the features of a network that had no part in the edit."""

import torch
from torch import Tensor

from vislens_interp.validation import check_finite, shapes

SMALLEST_GAP = 1e-3
"""Difference between reconstruction and random pair below which a normalised similarity would be mostly noise."""


def cosine_similarity(features_a: Tensor, features_b: Tensor) -> Tensor:
    """Cosine between the features of each image and those of its counterpart.

    Args:
        features_a, features_b: (N, ...) each: row i of both belongs to the same image.

    Returns:
        (N,) in [-1, 1], float64 if the features are, else float32.

    Raises:
        ValueError: The shapes differ, a value is not finite, or a row is all zero and so has no direction.

    Source: the similarity of Sec. 4.3.3 and Table 3. Means little alone: see :func:`normalised_similarity`.

    >>> cosine_similarity(torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 2.0], [6.0, 8.0]])).tolist()
    [0.0, 1.0]
    """
    if features_a.shape != features_b.shape or features_a.ndim < 2:
        raise ValueError(
            f"{shapes(features_a=features_a, features_b=features_b)}; expected the same (N, ...). Pair the images."
        )
    a, b = unit_features(features_a, "features_a"), unit_features(features_b, "features_b")
    return (a * b).sum(1).clamp(-1, 1)


def unit_features(features: Tensor, name: str) -> Tensor:
    """Features (N, ...) as rows of length 1; ValueError where one is not finite or all zero, and has no direction."""
    flat = features.flatten(1)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    check_finite(**{name: flat})
    largest = flat.abs().amax(1, keepdim=True)
    if (largest == 0).any():
        empty = (largest[:, 0] == 0).nonzero().flatten().tolist()
        raise ValueError(
            f"{name} is all zero in rows {empty[:5]} ({len(empty)} of {len(flat)}); a cosine needs a direction. "
            "Take another layer, or leave those images out."
        )
    flat = flat / largest  # first, so that neither tiny nor huge features lose their norm
    return flat / flat.norm(dim=1, keepdim=True)


def normalised_similarity(similarity: Tensor | float, random: Tensor | float, reconstruction: Tensor | float) -> Tensor:
    """Similarity on a scale where 0 is a random pair of images and 1 the unedited reconstruction.

    Args:
        similarity, random, reconstruction: What was measured, that of random pairs, and that of the α = 0 result to its
            input; numbers, or anything that broadcasts.

    Returns:
        (similarity - random) / (reconstruction - random), float64, of the broadcast shape.

    Raises:
        ValueError: Somewhere the reconstruction is not more similar than a random pair, so that there is no scale.

    >>> normalised_similarity(0.75, random=0.5, reconstruction=1.0).item()
    0.5
    """
    measured, zero, one = (torch.as_tensor(value).double() for value in (similarity, random, reconstruction))
    gap = one - zero
    if not (gap >= SMALLEST_GAP).all():
        worst = gap.min().item()
        raise ValueError(
            f"reconstruction is only {worst:.4g} more similar than random; expected at least {SMALLEST_GAP}. Between "
            "the two lies the whole scale: use a network, or a decoder, in which they differ."
        )
    return (measured - zero) / gap
