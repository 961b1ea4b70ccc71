"""Moving latents towards a prior mean, by weight or by angle."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from vislens_interp.math import angle_between
from vislens_interp.validation import check_word

Interpolation = Literal["lerp", "slerp"]
_DEGENERATE = 1e-3
"""Radians from 0° or 180° within which the great circle is undefined and the direction is interpolated straight."""


def interpolate(z: Tensor, goal: Tensor, alpha: Tensor | float, interpolation: Interpolation = "lerp") -> Tensor:
    """The latent at weight ``alpha`` between ``z`` (0) and ``goal`` (1).

    ``"lerp"`` is α·goal + (1 - α)·z. ``"slerp"`` turns the direction along the great circle and interpolates the norm,
    so that unlike the common slerp it neither shrinks vectors near 0° and 180° nor forgets their lengths; where the
    great circle is undefined (0°, 180°, a zero vector) it is the lerp.

    Args:
        z, goal: (N, D); (N, D) or (D,).
        alpha: Weight in [0, 1], one for all or (N,).

    Source: lerp, Sec. 4.3.1; slerp, Algorithm 2.
    """
    check_word("interpolation", interpolation, ("lerp", "slerp"))
    alpha = torch.as_tensor(alpha, dtype=z.dtype, device=z.device)
    if not ((alpha >= 0) & (alpha <= 1)).all():
        raise ValueError(f"alpha={alpha.tolist()} must lie in [0, 1]: 0 keeps the latent, 1 is the prior mean.")
    alpha = alpha.reshape(-1, 1)
    goal = goal.expand_as(z)
    straight = z + alpha * (goal - z)
    if interpolation == "lerp":
        return straight
    norm_z, norm_goal = z.norm(dim=1, keepdim=True), goal.norm(dim=1, keepdim=True)
    from_, to = z / norm_z.clamp_min(1e-12), goal / norm_goal.clamp_min(1e-12)
    # atan2 of chord lengths keeps its precision near 0° and 180°, where acos of the dot product has none.
    angle = 2 * torch.atan2((from_ - to).norm(dim=1, keepdim=True), (from_ + to).norm(dim=1, keepdim=True))
    turned = (torch.sin((1 - alpha) * angle) * from_ + torch.sin(alpha * angle) * to) / torch.sin(angle)
    round_ = turned * (norm_z + alpha * (norm_goal - norm_z))
    undefined = (angle < _DEGENERATE) | (angle > torch.pi - _DEGENERATE) | (norm_z < 1e-12) | (norm_goal < 1e-12)
    return torch.where(undefined, straight, round_)


def alpha_for_angle(
    z: Tensor,
    goal: Tensor,
    degrees: float,
    *,
    interpolation: Interpolation = "lerp",
    decode: Callable[[Tensor], Tensor] | None = None,
    start: Tensor | None = None,
    steps: int = 20,
) -> tuple[Tensor, Tensor]:
    """Weights (N,) at which edits have turned by ``degrees``, and angles reached: less where the goal is nearer.

    Args:
        z, goal: (N, D) latents; (N, D) or (D,) prior means.
        decode: Where the angle is measured: between decoded latents, or between the latents themselves if None.
        start: (N, ...) where the angle is measured from; None is ``z`` itself, decoded. A decoding that is not quite
            ``start`` at α = 0 has turned before it moves; so many degrees are then the least.
    """
    if not 0 <= degrees <= 180:
        raise ValueError(f"degrees={degrees} must lie between 0 and 180.")
    measure = decode or (lambda latent: latent)
    start = measure(z) if start is None else start
    low, high = torch.zeros(len(z)).to(z), torch.ones(len(z)).to(z)
    reached = angle_between(measure(interpolate(z, goal, 1.0, interpolation)), start)
    too_near = reached <= degrees
    for _ in range(steps):
        middle = (low + high) / 2
        turned = angle_between(measure(interpolate(z, goal, middle, interpolation)), start)
        low, high = torch.where(turned < degrees, middle, low), torch.where(turned < degrees, high, middle)
    alpha = torch.where(too_near, torch.ones_like(low), (low + high) / 2)
    return alpha, angle_between(measure(interpolate(z, goal, alpha, interpolation)), start)
