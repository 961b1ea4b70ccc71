"""A warm start in closed form: turn a VAE's latent so that each block's axis already predicts its unit."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vislens_interp.copies import permuted_rows
from vislens_interp.landscape.prior import ActivationPrior
from vislens_interp.landscape.vae import VAE
from vislens_interp.math import ridge_gcv

GRADIENT_IMAGES = 1000
"""Reference images whose gradients decide the basis of the rest, and what a move does to other units."""

AT_ONCE = 100
"""Permuted responses in a ridge regression at a time: 60 MB for 512 latent dimensions and 15 penalties."""


@dataclass(frozen=True)
class Codes:
    """Latents of a reference set in the VAE that a fit starts from: the same for a unit and for its shuffled controls.

    Args:
        codes: (N, D) centred, in double precision; ``centre`` (D,) is what was taken away.
        variance: (D,) mean posterior variance.
        covariance: (D, D) of the codes.
    """

    codes: Tensor
    centre: Tensor
    variance: Tensor
    covariance: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, vae: VAE, x: Tensor) -> "Codes":
        """Encode x (N, ...)."""
        posteriors = [vae.eval().encode(part) for part in x.split(512)]
        codes = torch.cat([mean for mean, _ in posteriors]).double().cpu()
        variance = torch.cat([log_variance for _, log_variance in posteriors]).exp().mean(0)
        centre = codes.mean(0)
        codes = codes - centre
        return cls(codes, centre, variance, codes.T @ codes / len(codes))


@torch.no_grad()
def closed_form_init(
    vae: VAE,
    x: Tensor,
    responses: Tensor,
    prior: ActivationPrior,
    *,
    axis_scale_sd: float = 4.0,
    cross_talk_penalty: float = 0.0,
    respond: Callable[[Tensor], Tensor] | None = None,
    known: Codes | None = None,
) -> None:
    """Change the basis of ``vae``'s latent in place; what it decodes stays the same.

    Along each block's axis (all its dimensions together) lies the ridge prediction of its unit's response; moving along
    it moves the old latent by that prediction's *pattern* (Haufe et al. 2014), at constant predictions for every other
    unit. A block's further dimensions are the main directions in which images that drive the unit strongly differ. All
    else is an orthonormal basis of the rest: where the target has gradients, the eigenvectors of the responses' mean
    gradient outer product, so that Adam spends its steps on the few directions that move the units.

    Args:
        x, responses: (N, ...) reference set, and (N, K) standardised responses.
        axis_scale_sd: SDs of the predicted response, over the reference images, at which a block's axis is ±1.
        cross_talk_penalty: Several units and gradients: how much a change of the other units' responses counts against
            the likelihood of a block's move (:func:`_isolated`); 0 is the pattern.
        respond: Differentiable standardised responses (n, K) to x (n, ...), or None for targets without gradients.
        known: The codes of x in this VAE; None computes them.
    """
    vae.eval()
    device = next(vae.parameters()).device
    known = Codes.of(vae, x) if known is None else known
    codes, centre, variance, covariance = known.codes, known.centre, known.variance, known.covariance
    responses = (responses - responses.mean(0)).double().cpu()
    filters = ridge_gcv(codes, responses)
    filters = filters / (axis_scale_sd * (codes @ filters).std(0))
    pattern = covariance @ filters @ torch.linalg.inv(filters.T @ covariance @ filters)
    gradients = None
    if respond is not None:
        gradients = _gradients(vae, x[:: max(1, len(x) // GRADIENT_IMAGES)], respond)
        if cross_talk_penalty > 0 and len(prior.blocks) > 1:
            pattern = _isolated(filters, covariance, gradients, cross_talk_penalty)

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
    if gradients is not None and rest.shape[1]:
        free = gradients.flatten(0, 1) @ rest
        rest = rest @ torch.linalg.eigh(free.T @ free).eigenvectors.flip(1)
    columns[:, outside] = rest
    vae.change_basis(columns.float().to(device), centre.float().to(device), variance)


@torch.no_grad()
def shuffled_axes(vae: VAE, known: Codes, responses: Tensor, groups: Tensor, *, count: int, seed: int) -> Tensor:
    """(count, K, *x) which way x moves along the axes that the closed form finds for permuted responses.

    A landscape fitted on them would start from there, at a hundredth of its time.

    Args:
        vae: That of the codes, as it is before any fit.
        known: Codes of the images that a fit learns from.
        responses, groups: (N, K) and (N,) theirs; copies of one image keep one response.
        count: Permutations; ``seed`` is theirs.
    """
    generator = torch.Generator().manual_seed(seed)
    permuted = torch.stack([responses[permuted_rows(groups, generator)] for _ in range(count)]).double().cpu()
    columns = (permuted - permuted.mean(1, keepdim=True)).transpose(0, 1).flatten(1)
    filters = torch.cat([ridge_gcv(known.codes, part) for part in columns.split(AT_ONCE, 1)], 1)
    moves = known.covariance @ filters
    moves = moves / (filters * moves).sum(0).clamp_min(1e-300)
    z = torch.cat([moves.T, torch.zeros(1, len(moves)).double()]).float().to(next(vae.parameters()).device)
    x = vae.eval().decode(z).cpu()
    return (x[:-1] - x[-1]).unflatten(0, (count, responses.shape[1]))


def _isolated(filters: Tensor, covariance: Tensor, gradients: Tensor, penalty: float) -> Tensor:
    """The moves (D, K) that change one unit's prediction by one and no other's, likely and with little side effect.

    Under the codes' Gaussian alone that is Haufe's pattern. A prediction that stands still is not yet a response that
    does: so the mean squared change of the other units' responses, to first order, is weighed against the likelihood.
    """
    outer = torch.einsum("kni,knj->kij", gradients, gradients) / gradients.shape[1]
    eye = torch.eye(len(covariance)).double()
    patterns = []
    for unit in range(filters.shape[1]):
        others = (outer.sum(0) - outer[unit]) / (filters.shape[1] - 1)
        # (C⁻¹ + λ G)⁻¹ F without C⁻¹, which a latent dimension that nothing uses would not have.
        likely = torch.linalg.solve(eye + penalty * covariance @ others, covariance @ filters)
        patterns.append((likely @ torch.linalg.inv(filters.T @ likely))[:, unit])
    return torch.stack(patterns, 1)


def _gradients(vae: VAE, x: Tensor, respond: Callable[[Tensor], Tensor]) -> Tensor:
    """Gradients of every unit's response with respect to the latent, (K, n, D) in double precision."""
    parts = []
    for part in x.split(250):
        z = vae.encode(part)[0].detach().requires_grad_(True)
        with torch.enable_grad():
            each = [
                torch.autograd.grad(response, z, retain_graph=True)[0].double().cpu()
                for response in respond(vae.decode(z)).sum(0)
            ]
        parts.append(torch.stack(each))
    return torch.cat(parts, 1)
