"""A warm start in closed form: turn a VAE's latent so that each block's axis already predicts its unit."""

import torch
from torch import Tensor

from vislens_interp.landscape.prior import ActivationPrior
from vislens_interp.landscape.vae import VAE

REACH = 2.0
"""SDs of the predicted response, over the reference images, at which the axis is ±1: where the prior means lie."""

PENALTIES = torch.logspace(-3, 4, 15, dtype=torch.float64)


def ridge(codes: Tensor, responses: Tensor) -> Tensor:
    """Ridge weights, one penalty a unit, chosen by generalised cross-validation (Golub, Heath and Wahba 1979).

    Args:
        codes: (N, D), centred.
        responses: (N, K), centred.

    Returns:
        (D, K).
    """
    u, s, vt = torch.linalg.svd(codes, full_matrices=False)
    projected = u.T @ responses
    shrink = s[:, None] ** 2 / (s[:, None] ** 2 + PENALTIES.to(s))
    total = (responses**2).sum(0) - (projected**2).sum(0)
    residual = ((1 - shrink[:, :, None]) ** 2 * projected[:, None] ** 2).sum(0) + total
    score = residual / (len(codes) - shrink.sum(0)).clamp_min(1)[:, None] ** 2
    best = score.argmin(0)
    return vt.T @ (s[:, None] / (s[:, None] ** 2 + PENALTIES.to(s)[best]) * projected)


@torch.no_grad()
def organise(vae: VAE, x: Tensor, responses: Tensor, prior: ActivationPrior) -> None:
    """Change the basis of ``vae``'s latent in place; what it decodes stays the same.

    Along each block's axis (all its dimensions together) lies the ridge prediction of its unit's response; moving along
    it moves the old latent by that prediction's *pattern* (Haufe et al. 2014), at constant predictions for every other
    unit. A block's further dimensions are the main directions in which images that drive the unit strongly differ.
    All else is an orthonormal basis of the rest.

    Args:
        vae: A trained VAE.
        x: (N, ...) reference set.
        responses: (N, K) standardised responses.
        prior: Says which dimensions are whose.
    """
    vae.eval()
    device = next(vae.parameters()).device
    codes = torch.cat([vae.encode(part)[0] for part in x.split(512)]).double().cpu()
    responses = (responses - responses.mean(0)).double().cpu()
    centre = codes.mean(0)
    codes = codes - centre
    filters = ridge(codes, responses)
    filters = filters / (REACH * (codes @ filters).std(0))
    covariance = codes.T @ codes / len(codes)
    pattern = covariance @ filters @ torch.linalg.inv(filters.T @ covariance @ filters)

    def orthonormal(columns: Tensor) -> Tensor:
        return torch.linalg.qr(columns).Q

    taken = orthonormal(filters)  # directions orthogonal to every filter leave every axis alone
    columns = torch.zeros_like(covariance)
    for unit, (start, stop) in enumerate(prior.blocks):
        width = stop - start
        spin = orthonormal(torch.cat([torch.ones(width, 1), torch.eye(width)[:, 1:]], 1).double())
        spin = spin * torch.sign(spin[0, 0])
        columns[:, start:stop] = pattern[:, [unit]] @ torch.ones(1, width).double() / width
        if width > 1:
            free = codes - codes @ taken @ taken.T
            strength = responses[:, unit].abs()
            weighted = (free * strength[:, None]).T @ free / strength.sum()
            own = torch.linalg.eigh(weighted).eigenvectors[:, -(width - 1) :]
            own = orthonormal(own - taken @ (taken.T @ own))
            columns[:, start:stop] += own @ spin[:, 1:].T
            taken = torch.cat([taken, own], 1)
    rest = torch.linalg.qr(taken, mode="complete").Q[:, taken.shape[1] :]
    outside = [index for index in range(vae.latent_dim) if not any(a <= index < b for a, b in prior.blocks)]
    columns[:, outside] = rest
    vae.change_basis(columns.float().to(device), centre.float().to(device))
