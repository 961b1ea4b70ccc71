"""A goal of each image's own: the mean of the preferred images near it, instead of one prior mean for all."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import SIGN, Sense
from vislens_interp.math import unit_rows

POWER = 3.0
"""Of the response in a weight; 2 is the weight that the prior's width gives an image (the algebraic twin)."""
TEMPERATURE = 0.4
"""Cosine by which two decoded images have to be more alike for a weight e times as large."""


@torch.no_grad()
def local_mean_goal(
    landscape: Landscape,
    z: Tensor,
    directions: Mapping[int, Sense],
    *,
    power: float = POWER,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """Mean latent of the reference images that a unit prefers and that look like each image: (N, latent_dim).

    A unit with several unlike preferences has no one preferred image: their mean may be none of them. Weighted by
    likeness as well as by response, each image has the preference that lies nearest, and no number of modes is chosen.

    Args:
        landscape: The fitted landscape; only images that its fit learned from are used.
        z: (N, latent_dim) latents of the images to edit; several units: towards images that all of them want.
        power: Of the standardised response; larger trusts single strong responses more.
        temperature: Of the likeness, a cosine between decoded images about the reference set's mean.

    Source: ours. power and temperature were picked on tuning units of planted_units.json (SNR 1, 2,000 images). On its
    test units it is not the best on mixtures (benchmarks/results/planted_units.md), which is why it is no default.
    """
    learned = landscape.learned  # the others judge
    latents = landscape.latents[learned].to(z)
    known = landscape.decode(latents).flatten(1)
    centre = known.mean(0)
    likeness = unit_rows(landscape.decode(z).flatten(1) - centre) @ unit_rows(known - centre).T
    standard = landscape.scaler.standardise(landscape.responses[learned]).to(z)
    pull = torch.zeros(len(known)).to(z)
    for unit, direction in directions.items():
        signed = (SIGN[direction] * standard[:, unit]).clamp_min(1e-5)  # the other sign has next to no weight
        pull = pull + power * signed.log()
    return torch.softmax(pull + likeness / temperature, 1) @ latents
