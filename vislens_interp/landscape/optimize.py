"""Adam on latents (Algorithm 3), under the activation prior or the standard one."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vislens_interp.config import OptimizeConfig
from vislens_interp.math import full_chunks


@dataclass(frozen=True)
class Reading:
    """What is seen of latents (n, D).

    Args:
        response: (n,) signed response in SDs, differentiable; what is wanted is large.
        change: (n,) how far what should stay has changed, differentiable; None where nothing is held.
        silent: (n,) bool, where the response can say nothing of where to go; None where it always can.
    """

    response: Tensor
    change: Tensor | None = None
    silent: Tensor | None = None


RECENT = 0.1
"""Weight of the newest loss in its running mean, where noise makes single ones uncertain."""
Reader = Callable[[Tensor, Tensor], Reading]
"""Latents (n, D) and their row numbers (n,), which tie a latent to its image, to what is seen of them."""


@dataclass(frozen=True)
class Optimized:
    """Where the optimisation ended.

    Args:
        latents: (N, D) of the lowest loss seen; under noise, of the lowest running mean of the loss.
        responses: (steps + 1, N) signed response at the start and after each step, in SDs, under noise where that was
            asked for; constant after an image has stopped.
        klds, steps: (steps + 1, N) KLD likewise; (N,) steps that each image took.
    """

    latents: Tensor
    responses: Tensor
    klds: Tensor
    steps: Tensor


def optimize(
    z: Tensor,
    read: Reader,
    settings: OptimizeConfig,
    *,
    goal: Tensor,
    sigma: Tensor,
    block: Tensor,
    others: Tensor | None = None,
    spread: Tensor | None = None,
    sensitivity: Tensor | None = None,
    seed: int = 0,
    trace: Callable[[int, Tensor], None] | None = None,
) -> Optimized:
    """Minimise -response + w_kld · KLD + w_consistency · change over latents, image by image, from posterior means on.

    Args:
        z, read: (N, D) starting latents; latents and their row numbers to what is seen of them.
        goal: (N, D) structured prior means, an image's own code outside the block; the standard prior ignores it.
        sigma: (N, D) posterior widths, which the KLD keeps: the paper does not define its sigma for a point.
        block, others: (D,) bool, the dimensions of the units that the edit is for, and of other units, which the
            structured prior never moves.
        spread: (D,) standard deviation of each dimension over the reference set, for ``scale="spread"``.
        sensitivity: (D,) RMS of the units' gradient in each dimension, for ``scale="response"``.
        trace: Called with each step's number and a chunk's latents (rows of ``z`` in order, one chunk after another).

    Source: Algorithm 3. Deviation: responses in SDs, so that w_kld and lr mean the same for every unit.
    """
    for scale, name, given in (("spread", "spread", spread), ("response", "sensitivity", sensitivity)):
        if settings.scale == scale and given is None:
            raise ValueError(f"{name} is None; scale={scale!r} needs (D,) values. Give them or scale='latent'.")
    start = z.detach()
    free, prior_sigma = (torch.ones_like(start[0]) for _ in range(2))
    prior_mean, length = torch.zeros_like(start), torch.ones_like(start)
    if settings.prior == "structured":
        block = block.to(start.device)
        prior_mean = torch.where(block, settings.prior_mean_scale * goal, goal)
        prior_sigma = torch.where(block, settings.sigma_prior, settings.anchor_sigma).to(start)
        if settings.move == "block":
            free = block.to(start)
        elif others is not None:
            free = (block | ~others.to(start.device)).to(start)
    if settings.scale == "spread" and spread is not None:
        length = spread.to(start).expand_as(start)
    if settings.scale == "response" and sensitivity is not None:
        length = sigma * (sigma * sensitivity.to(start)).sqrt()
        total = (length * free).norm(dim=1, keepdim=True)
        # A unit that no reference picture moves says nothing of where it answers: steps are as wide as the posterior.
        length = torch.where(total > 0, length * (sigma * free).norm(dim=1, keepdim=True) / total, sigma)
    shape = _Shape(prior_mean, prior_sigma, sigma, free, length)
    parts = []
    for rows, own in full_chunks(len(z), settings.chunk):
        parts.append((_optimize_chunk(start, rows, own, read, settings, shape, seed, trace), own))
    return Optimized(
        torch.cat([part.latents[:count] for part, count in parts]),
        torch.cat([part.responses[:, :count] for part, count in parts], 1),
        torch.cat([part.klds[:, :count] for part, count in parts], 1),
        torch.cat([part.steps[:count] for part, count in parts]),
    )


@dataclass(frozen=True)
class _Shape:
    """What the KLD compares, and how each dimension moves: whether at all, and how far a step is; (N, D) or (D,)."""

    prior_mean: Tensor
    prior_sigma: Tensor
    sigma: Tensor
    free: Tensor
    length: Tensor


def _optimize_chunk(
    z: Tensor,
    rows: Tensor,
    own: int,
    read: Reader,
    settings: OptimizeConfig,
    shape: _Shape,
    seed: int,
    trace: Callable[[int, Tensor], None] | None,
) -> Optimized:
    # Every chunk draws the same noise, and every image of a chunk: none depends on how many came with it.
    draw = torch.Generator().manual_seed(seed)
    start, prior_mean, sigma, length = z[rows], shape.prior_mean[rows], shape.sigma[rows], shape.length[rows]
    prior_sigma, free = shape.prior_sigma, shape.free
    width = (sigma**2 / (2 * prior_sigma**2) - (sigma / prior_sigma).log() - 0.5) * free
    latent = start.clone().requires_grad_(True)
    moved = torch.zeros_like(start).requires_grad_(True)  # from the start, in the units of lr
    optimizer = torch.optim.Adam([moved], lr=settings.lr)
    best, best_loss = start.clone(), torch.full((len(rows),), torch.inf).to(start)
    since = torch.zeros(len(rows), dtype=torch.int64, device=start.device)
    taken = torch.zeros_like(since)
    active = torch.ones_like(since, dtype=torch.bool)
    mean = torch.zeros(len(rows)).to(start)
    responses, klds = [], []
    for step in range(settings.steps + 1):
        shaken = settings.noise * sigma * torch.randn(z.shape[1], generator=draw).to(z) if settings.noise > 0 else 0.0
        seen = read(latent + shaken, rows)
        response = seen.response
        kld = (width + (latent - prior_mean) ** 2 * free / (2 * prior_sigma**2)).sum(1)
        w_kld = settings.w_kld if seen.silent is None else settings.w_kld + settings.w_silent * seen.silent.to(kld)
        loss = -response + w_kld * kld
        if seen.change is not None:
            loss = loss + settings.w_consistency * seen.change
        with torch.no_grad():
            judged = loss.detach()
            if settings.noise > 0:  # one lucky draw is no better latent: the mean of all, then of the recent ones
                mean = torch.lerp(mean, judged, max(RECENT, 1 / (step + 1)))
                judged = mean if step + 1 >= 1 / RECENT or step == settings.steps else torch.full_like(mean, torch.inf)
            better = active & (judged < best_loss)
            best = torch.where(better[:, None], latent.detach(), best)
            best_loss = torch.where(better, judged, best_loss)
            # What has not been judged yet has not come to a stand.
            since = torch.where(better | judged.isposinf(), torch.zeros_like(since), since + 1)
            responses.append(torch.where(active, response, responses[-1]) if step else response.detach())
            klds.append(torch.where(active, kld, klds[-1]) if step else kld.detach())
            if settings.patience is not None:
                active &= since < settings.patience
            if trace is not None:
                trace(step, latent.detach()[:own])
        # Without patience nothing stops, and a GPU need not be waited for.
        if step == settings.steps or (settings.patience is not None and not active.any()):
            break
        (gradient,) = torch.autograd.grad(loss.sum(), latent)
        # An image that has stopped keeps its latent: Adam still sees it, and its move is taken back.
        before = moved.detach().clone()
        moved.grad = gradient * free * length
        optimizer.step()
        with torch.no_grad():
            moved.copy_(torch.where(active[:, None] & (free > 0), moved, before))
            latent.copy_(start + moved * length)
            taken += active
    missing = settings.steps + 1 - len(responses)
    responses += [responses[-1]] * missing
    klds += [klds[-1]] * missing
    return Optimized(best, torch.stack(responses).detach(), torch.stack(klds).detach(), taken)
