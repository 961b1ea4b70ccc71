"""Which of several preferred (or suppressed) means an image belongs to."""

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from vislens_interp.landscape.prior import ActivationPrior
from vislens_interp.landscape.vae import VAE

STRONG = 1.0
"""Standardised |response| from which an image is "strongly driven"; it then helps to place the modes."""


@torch.no_grad()
def assign_modes(vae: VAE, x: Tensor, responses: Tensor, prior: ActivationPrior, *, seed: int) -> Tensor:
    """Part the images of each sign of the response into ``prior.modes`` groups that look alike: (N, K), from 0 on.

    The strongly driven images are clustered by k-means on the starting VAE's latents; every other image joins the
    nearest cluster of its sign.

    Args:
        x, responses: (N, ...) what the VAE that the fit starts from encodes, and (N, K) standardised responses.
    """
    modes = torch.zeros(len(x), len(prior.blocks), dtype=torch.int64)
    if prior.modes == 1:
        return modes
    vae.eval()
    codes = torch.cat([vae.encode(part)[0] for part in x.split(512)]).double().cpu().numpy()
    codes = codes / codes.std(0).clip(1e-9)
    for unit in range(len(prior.blocks)):
        for sign in (1, -1):
            signed = (sign * responses[:, unit]).cpu().numpy()
            side, strong = signed > 0, signed > STRONG
            if strong.sum() < 10 * prior.modes:
                raise ValueError(
                    f"modes={prior.modes} needs at least {10 * prior.modes} strongly driven images of each sign; there "
                    f"are {int(strong.sum())} with a response {'above' if sign > 0 else 'below'} {sign * STRONG:+.0f} "
                    "SD. Lower modes or give more images."
                )
            centroids, _ = kmeans2(codes[strong], prior.modes, minit="++", rng=np.random.default_rng(seed))
            distance = ((codes[side, None] - centroids[None]) ** 2).sum(-1)
            modes[torch.from_numpy(side), unit] = torch.from_numpy(distance.argmin(1))
    return modes
