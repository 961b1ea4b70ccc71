"""Latents drawn from the prior itself, with no input image."""

import torch
from torch import Tensor

from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import Sense
from vislens_interp.validation import check_counts


def sample_latents(
    landscape: Landscape,
    count: int,
    directions: dict[int, Sense],
    *,
    response: float = 2.0,
    mode: int | None = None,
    seed: int = 0,
) -> Tensor:
    """Draw latents (count, latent_dim) of images that would drive these units.

    A unit's block comes from its prior at ``response``; every other dimension from the reference set's own spread, for
    dimensions that no prior organised still have to look like images.

    Args:
        response: How strongly the images should drive the unit, in SDs: it sets the width of the prior.
        mode: Which of several means; None takes them in turn.
        seed: Sample k uses ``seed + k``, so that one more sample does not change the others.

    Source: Fig. 1. The paper samples N(μ_pos, σ²) without saying which σ; here that of an image ``response`` SDs away.
    """
    check_counts(count=count)
    generators = (torch.Generator().manual_seed(seed + index) for index in range(count))
    noise = torch.stack([torch.randn(landscape.prior.latent_dim, generator=one) for one in generators])
    z = landscape.latents.mean(0) + landscape.latents.std(0) * noise
    sigma = landscape.prior.sigma(torch.tensor(float(response)))
    for unit, direction in directions.items():
        block = landscape.block(unit)
        modes = torch.arange(count) % landscape.prior.modes if mode is None else torch.full((count,), mode)
        z[:, block] = landscape.prior.goal(unit, direction, modes) + sigma * noise[:, block]
    return z
