"""How much of the input is left: similarity in the features of a network that had no part in the edit."""

import torch
from torch import Tensor

SMALLEST_GAP = 1e-3
"""Difference between reconstruction and random pair below which a normalised similarity would be mostly noise."""


def cosine_similarity(features_a: Tensor, features_b: Tensor) -> Tensor:
    """Cosine between the features of each image and those of its counterpart.

    Args:
        features_a: (N, ...) features of one set of images.
        features_b: The same shape: row i belongs to the same image.

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
            f"features_a has shape {tuple(features_a.shape)} and features_b {tuple(features_b.shape)}; expected the "
            "same (N, ...) twice, row i of both from the same image. Pair the images before taking their features."
        )
    rows = []
    for name, features in (("features_a", features_a), ("features_b", features_b)):
        flat = features.flatten(1)
        flat = flat if flat.dtype == torch.float64 else flat.float()
        if not torch.isfinite(flat).all():
            raise ValueError(
                f"{name} holds values that are NaN or infinite; expected finite ones. Leave those images out."
            )
        largest = flat.abs().amax(1, keepdim=True)
        if (largest == 0).any():
            empty = (largest[:, 0] == 0).nonzero().flatten().tolist()
            raise ValueError(
                f"{name} is all zero in rows {empty[:5]} ({len(empty)} of {len(flat)}); a cosine needs a direction. "
                "Take another layer, or leave those images out."
            )
        flat = flat / largest  # first, so that neither tiny nor huge features lose their norm
        rows.append(flat / flat.norm(dim=1, keepdim=True))
    return (rows[0] * rows[1]).sum(1).clamp(-1, 1)


def normalised_similarity(similarity: Tensor | float, random: Tensor | float, reconstruction: Tensor | float) -> Tensor:
    """Similarity on a scale where 0 is a random pair of images and 1 the unedited reconstruction.

    Args:
        similarity: What was measured, any shape.
        random: Similarity of random pairs of images, a number or anything that broadcasts.
        reconstruction: Similarity of the α = 0 result to its input, likewise.

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
