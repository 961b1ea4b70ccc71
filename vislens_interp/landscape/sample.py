"""Latents drawn from the prior itself, with no input image."""

import torch
from torch import Tensor

from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import Sense


def sample_latents(
    landscape: Landscape,
    count: int,
    directions: dict[int, Sense],
    *,
    response: float = 2.0,
    mode: int | None = None,
    seed: int = 0,
) -> Tensor:
    """Draw latents of images that would drive these units.

    A unit's block comes from its prior at ``response``; every other dimension from the reference set's own spread, for
    dimensions that no prior organised still have to look like images.

    Args:
        landscape: The fitted landscape.
        count: How many.
        directions: Unit to direction.
        response: How strongly the images should drive the unit, in SDs: it sets the width of the prior.
        mode: Which of several means; None takes them in turn.
        seed: Sample k uses ``seed + k``, so that one more sample does not change the others.

    Returns:
        (count, latent_dim).

    Source: Fig. 1. The paper samples N(μ_pos, σ²) without saying which σ; here that of an image ``response`` SDs away.
    """
    if count < 1:
        raise ValueError(f"count={count} must be at least 1.")
    noise = torch.stack(
        [
            torch.randn(landscape.prior.latent_dim, generator=torch.Generator().manual_seed(seed + index))
            for index in range(count)
        ]
    )
    z = landscape.latents.mean(0) + landscape.latents.std(0) * noise
    sigma = landscape.prior.sigma(torch.tensor(float(response)))
    for unit, direction in directions.items():
        block = landscape.block(unit)
        modes = torch.arange(count) % landscape.prior.modes if mode is None else torch.full((count,), mode)
        z[:, block] = landscape.prior.goal(unit, direction, modes) + sigma * noise[:, block]
    return z
