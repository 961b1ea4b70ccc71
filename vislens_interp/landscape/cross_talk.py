"""After an edit: bring the responses of the other units back to where they were, picture by picture."""

from collections.abc import Callable

import torch
from torch import Tensor

Responses = Callable[[Tensor, Tensor], Tensor]

DAMPING = 1e-2
"""Of the least squares, as a share of the mean squared gradient: what a unit hardly answers to is left alone."""


def reduce_cross_talk(
    edited: Tensor, start: Tensor, respond: Responses, moved: list[int], *, steps: int, spread: Tensor
) -> Tensor:
    """The nearest latents that leave the edit's own units where it took them and the others where they were.

    Blocks and patterns keep other units still on average, to first order. What a single picture does to two units that
    look at the same things is mended here: Gauss-Newton steps of least length, measured in each dimension's spread.

    Args:
        edited, start: (N, D) latents after the edit, and before it.
        respond: Latents (n, D) and their row numbers (n,) to responses (n, K) in SDs, differentiable.
        steps: Gauss-Newton steps; 0 leaves ``edited`` as it is. Each costs K backward passes.
        spread: (D,) standard deviation of each dimension over the reference set; ``moved`` are the edit's own units.
    """
    parts = []
    for rows in torch.arange(len(start)).split(64):
        z = edited[rows]
        with torch.no_grad():
            wanted = respond(start[rows], rows)
            wanted[:, moved] = respond(z, rows)[:, moved]
        for _ in range(steps):
            z = _step(z, rows, wanted, respond, spread)
        parts.append(z)
    return torch.cat(parts)


def _step(z: Tensor, rows: Tensor, wanted: Tensor, respond: Responses, spread: Tensor) -> Tensor:
    z = z.detach().requires_grad_(True)
    with torch.enable_grad():
        responses = respond(z, rows)
        each = [torch.autograd.grad(unit, z, retain_graph=True)[0] * spread for unit in responses.sum(0)]
    slope = torch.stack(each, 1)  # (n, K, D)
    gram = slope @ slope.mT
    scale = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    damped = gram + DAMPING * scale[:, None, None] * torch.eye(gram.shape[1]).to(gram)
    away = (wanted - responses.detach())[..., None]
    move = slope.mT @ torch.linalg.solve(damped, away)
    return z.detach() + move[..., 0] * spread
