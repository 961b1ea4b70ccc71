"""What a picture has to withstand while it is optimised: shifts, scales, rotations, crops and noise.

Every picture has its own generator, so that what happens to it does not depend on its batch.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from vislens_interp.validation import check_counts, check_not_negative

SIDE = 128
"""Pixels of lucid's default picture, by which its shifts are turned into shares."""
JITTER = (8 / SIDE, 4 / SIDE)
SCALES = tuple(1 + (step - 5) / 50 for step in range(11))
ANGLES = (*range(-10, 11), *[0] * 5)


def wobble(pictures: Tensor, generators: list[torch.Generator]) -> Tensor:
    """Shift, scale and rotate each picture at random; what comes in from outside is grey.

    Source: Olah et al. 2017, "Feature Visualization", and lucid's ``standard_transforms``: pad 12, jitter 8, scale
    0.9 to 1.1, rotate up to 10° (24 % not at all), jitter 4. Deviations: one resampling instead of four, at the
    picture's own size; shifts are shares of the side, as lucid's pixels are of its 128.
    """
    drawn = torch.stack([torch.rand(6, generator=one) for one in generators]).to(pictures)
    shift = (drawn[:, 0:2] - 0.5) * JITTER[0] + (drawn[:, 2:4] - 0.5) * JITTER[1]
    scale = torch.tensor(SCALES).to(pictures)[(drawn[:, 4] * len(SCALES)).long()]
    angle = torch.tensor(ANGLES).to(pictures)[(drawn[:, 5] * len(ANGLES)).long()] * math.pi / 180
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    transform = torch.cat([turn / scale[:, None, None], 2 * shift[:, :, None]], 2)
    grid = affine_grid(transform, list(pictures.shape), align_corners=False)
    return grid_sample(pictures - 0.5, grid, align_corners=False) + 0.5


def crops(
    pictures: Tensor,
    generators: list[torch.Generator],
    *,
    count: int,
    box: tuple[float, float],
    spread: float | None = None,
) -> Tensor:
    """Square parts of each picture at random, each enlarged to the picture's size.

    Args:
        count, box: Crops of each; smallest and largest side, as shares of the picture's.
        spread: SD of the crop's centre around the picture's, as a share of the side, never beyond the border; None is
            anywhere inside.

    Returns:
        (N · count, 3, S, S), those of one picture together; gradients flow.
    """
    drawn = torch.stack([torch.rand(count, 3, generator=one) for one in generators])
    side = box[0] + (box[1] - box[0]) * drawn[..., :1]
    room = 1 - side  # centres lie within ± room, where the picture reaches from -1 to 1
    if spread is None:
        centre = room * (2 * drawn[..., 1:] - 1)
    else:
        normal = torch.stack([torch.randn(count, 2, generator=one) for one in generators])
        centre = (2 * spread * normal).clamp(-room, room)
    transform = torch.zeros(len(pictures), count, 2, 3)
    transform[..., 0, 0] = transform[..., 1, 1] = side[..., 0]
    transform[..., 2] = centre
    transform = transform.flatten(0, 1).to(pictures)
    grid = affine_grid(transform, [len(transform), *pictures.shape[1:]], align_corners=False)
    return grid_sample(pictures.repeat_interleave(count, 0), grid, padding_mode="border", align_corners=False)


def noise(pictures: Tensor, generators: list[torch.Generator], level: float) -> Tensor:
    """Add Gaussian noise of SD ``level`` and uniform noise of that width; ``pictures`` are k of each generator."""
    each = len(pictures) // len(generators)
    shape = (each, *pictures.shape[1:])
    added = [torch.randn(shape, generator=one) + torch.rand(shape, generator=one) - 0.5 for one in generators]
    return pictures + level * torch.cat(added).to(pictures)


def check_crops(crops: int, box: tuple[float, float], noise: float) -> None:
    """Raise ValueError for crops that cannot be taken, or noise that cannot be added."""
    check_counts(crops=crops)
    check_not_negative(noise=noise)
    if len(box) != 2 or not 0 < box[0] <= box[1] <= 1:
        raise ValueError(f"box={box} must be the smallest and the largest side of a crop, in (0, 1]: (0.8, 1.0).")
