"""How far an edit has gone: what methods are matched at before their responses are compared."""

from torch import Tensor

from vislens_interp.math import angle_between
from vislens_interp.validation import check_finite, shapes


def edit_angle(original: Tensor, edited: Tensor) -> Tensor:
    """Angle between each image's x and its edited x, in degrees: α means another thing to each method, this does not.

    Args:
        original, edited: (N, ...) embeddings before and after the edit; of pixels, the unedited decoding around 0.

    Returns:
        (N,) from 0 to 180; it does not depend on the lengths.

    Raises:
        ValueError: The shapes differ, a value is not finite, or a row is all zero and has no direction.

    >>> import torch
    >>> edit_angle(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]])).round().tolist()
    [90.0]
    """
    if original.shape != edited.shape or original.ndim < 2:
        raise ValueError(
            f"{shapes(original=original, edited=edited)}; expected the same (N, ...) twice, row by row one image."
        )
    check_finite(original=original, edited=edited)
    for name, x in (("original", original), ("edited", edited)):
        if (x.flatten(1) == 0).all(1).any():
            raise ValueError(f"{name} is all zero in a row; expected a direction to turn. Leave those images out.")
    return angle_between(original, edited)
