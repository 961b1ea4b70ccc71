"""Gradient ascent on a surrogate: small networks predict the response, and an embedding follows their gradient."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vislens_interp.copies import held_out_mask, row_groups
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import Sense, signed
from vislens_interp.math import angle_between, keep_norm, ridge_path

STEP_DEG = 7.5
"""Degrees of a step."""
MAX_ROTATION_DEG = 60.0
"""Degrees that an edit of α = 1 turns by; another α turns by its share of them."""
NEIGHBOURS = 300
"""Reference images whose covariance says in which directions images differ where a step is taken."""
NETWORKS, HIDDEN, BLUR, EPOCHS, PATIENCE, BATCH = 3, 64, 0.3, 30, 3, 128
"""Of a surrogate's networks and their training; blur in the embeddings' own SD, a mean over dimensions."""
LR, DECAY, BETAS = 3e-3, 0.1, (0.9, 0.999)
"""Of AdamW."""

FOLDS = 5
"""One part of so many says when a network's training stops, how much weight the networks get, and the ridge penalty."""
PENALTIES = torch.logspace(6, -2, 17, dtype=torch.float64)
"""Of the ridge regression, to choose from; the largest where no image is held out. Inputs have a mean square of 1.
Generalised cross-validation takes crops of one photograph for independent: with its penalty, a tenth of this one's,
predictions are no better and edits carry over less."""


class ResponseSurrogate:
    """Predicts a landscape's responses from embeddings: a weighted mean of a ridge regression and of small networks.

    A landscape's prior has one mean for a unit's preference, or a few. The responses say more: where they rise from a
    given image on, which for a unit of several preferences differs from image to image. Small networks learn that; from
    a few hundred noisy recordings they learn noise as well. So each unit's prediction lies between their mean and a
    ridge regression, where the squared error on images that neither was trained on is least (stacking: Wolpert 1992;
    Breiman 1996).

    Args:
        landscape: The fitted landscape of an embedding backend; only what its fit learned from is used.
        x: (N, D) embeddings of its reference images; None, where they are not there any more: decoded latents.
        seed: Of the networks' weights and batches.
        state: What :meth:`state` gave for this landscape; nothing is trained then.
        groups: (N,) which images are copies of one another, which lie on one side of every split, see
            :mod:`vislens_interp.copies`; None looks for rows of x that are all but identical.

    Attributes:
        mlp_weight: (K,) weight of the networks in each unit's prediction, 0 to 1; the rest is the ridge regression's.

    Raises:
        ValueError: The landscape is not one of embeddings.
    """

    def __init__(
        self,
        landscape: Landscape,
        x: Tensor | None = None,
        *,
        seed: int = 0,
        state: dict[str, Any] | None = None,
        groups: Tensor | None = None,
    ) -> None:
        learned = landscape.learned
        device = next(landscape.vae.parameters()).device
        self.known = landscape.decode(landscape.latents[learned].to(device))
        if self.known.ndim != 2:
            raise ValueError(
                f"goal='surrogate_ascent' moves embeddings, and this landscape's x has shape "
                f"{tuple(self.known.shape[1:])}. Use goal='mean', or a backend of embeddings."
            )
        given = self.known if x is None else x[learned].to(self.known)
        self.centre = given.mean(0)
        self.scale = (given - self.centre).square().mean().sqrt().clamp_min(1e-12)
        if state is not None:
            if "centre" in state:  # not in files of 0.1.0, whose surrogates learned from decoded latents
                self.centre, self.scale = state["centre"].to(self.known), state["scale"].to(self.known)
            self.members = [_Member.from_state(one, self.known) for one in state["members"]]
            self.mlp_weight = state["mlp_weight"].to(self.known)
            return
        standard = landscape.scaler.standardise(landscape.responses)[learned].to(self.known)
        inputs = (given - self.centre) / self.scale
        groups = row_groups(given) if groups is None else groups[learned]
        self.members, self.mlp_weight = _train_members(inputs, standard, groups, seed)

    def __call__(self, x: Tensor) -> Tensor:
        """Predicted responses (N, K), in SDs, to embeddings (N, D)."""
        inputs = (x - self.centre) / self.scale
        linear = torch.stack([member.linear(inputs) for member in self.members]).mean(0)
        mlp = torch.stack([member.network(inputs) for member in self.members]).mean(0)
        return linear + self.mlp_weight * (mlp - linear)

    def ascend(self, x: Tensor, directions: Mapping[int, Sense], degrees: float) -> Tensor:
        """Embeddings (N, D) turned by so many degrees up (or down) the predicted responses; lengths stay.

        A step goes along Σ∇h: the gradient of the prediction h, through the covariance Σ of the reference embeddings
        nearest to where it starts. So it changes what images there differ in, and leaves alone what they have in
        common.

        Args:
            directions: Unit to sense; several units: the sum of what they want.
            degrees: From 0 to 180; a path that turns back on itself may end before, after three times as many steps.

        Source: ours. Steps, neighbours and networks were chosen on tuning units (benchmarks/planted_units.py).
        """
        if not 0 <= degrees <= 180:
            raise ValueError(f"degrees={degrees} must lie between 0 and 180.")
        return torch.cat([self._ascend(part, directions, degrees) for part in x.split(64)]) if len(x) else x

    def _ascend(self, x: Tensor, directions: Mapping[int, Sense], degrees: float) -> Tensor:
        here, arrived = x, torch.full((len(x),), degrees <= 0, device=x.device)
        for _ in range(math.ceil(3 * degrees / STEP_DEG)):
            direction = self.step_direction(here, directions)
            there = _turn(here, direction, torch.full((len(x),), STEP_DEG).to(x))
            over = angle_between(there, x) > degrees
            if (over & ~arrived).any():  # the last step ends where the path has turned far enough
                low, high = torch.zeros(len(x)).to(x), torch.full((len(x),), STEP_DEG).to(x)
                for _ in range(20):
                    middle = (low + high) / 2
                    beyond = angle_between(_turn(here, direction, middle), x) > degrees
                    low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
                there = torch.where(over[:, None], _turn(here, direction, low), there)
            here = torch.where(arrived[:, None], here, there)
            arrived = arrived | over
            if arrived.all():
                break
        return keep_norm(here, x)

    def step_direction(self, x: Tensor, directions: Mapping[int, Sense]) -> Tensor:
        """Σ∇h at embeddings (N, D), see :meth:`ascend`."""
        with torch.enable_grad():
            moved = x.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(signed(self(moved), directions).sum(), moved)
        near = torch.cdist(x, self.known).topk(min(NEIGHBOURS, len(self.known)), largest=False).indices
        # Σ∇h is a mean of the neighbours, each weighted by its projection on ∇h minus their mean projection.
        along = (gradient @ self.known.T).gather(1, near)
        weights = torch.zeros(len(x), len(self.known)).to(x)
        weights.scatter_(1, near, (along - along.mean(1, keepdim=True)) / near.shape[1])
        return weights @ self.known

    def state(self) -> dict[str, Any]:
        """What was learned, as nested dictionaries for :func:`vislens_interp.files.save_state`."""
        return {
            "centre": self.centre,
            "scale": self.scale,
            "mlp_weight": self.mlp_weight,
            "members": [member.state() for member in self.members],
        }


def _turn(x: Tensor, direction: Tensor, degrees: Tensor) -> Tensor:
    """``x`` (N, D) turned by (N,) degrees towards ``direction`` (N, D), on the sphere of its own length."""
    along = (direction * x).sum(1, keepdim=True) / (x**2).sum(1, keepdim=True).clamp_min(1e-12)
    tangent = keep_norm(direction - along * x, x)
    angle = torch.deg2rad(degrees)[:, None]
    return torch.cos(angle) * x + torch.sin(angle) * tangent


class _Member:
    """A network and a ridge regression, learned from the same images."""

    def __init__(self, network: nn.Module, weights: Tensor, offset: Tensor) -> None:
        self.network, self.weights, self.offset = network, weights, offset

    def linear(self, x: Tensor) -> Tensor:
        """The ridge regression's prediction (N, K)."""
        return x @ self.weights + self.offset

    def state(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "weights": self.weights, "offset": self.offset}

    @classmethod
    def from_state(cls, state: dict[str, Any], like: Tensor) -> "_Member":
        weights = state["weights"].clone().to(like)
        network = _network(*weights.shape)
        network.load_state_dict(state["network"])
        return cls(network.to(like).requires_grad_(False), weights, state["offset"].clone().to(like))


def _train_members(x: Tensor, responses: Tensor, groups: Tensor, seed: int) -> tuple[list[_Member], Tensor]:
    """Members, each trained without some images of its own, and the networks' weight (K,) in their prediction.

    The images that a member did not see say which penalty is best, and at which weight of the networks the blend's
    squared error is least.
    """
    drawn = []
    errors = torch.zeros(len(PENALTIES), responses.shape[1]).double()
    for member in range(NETWORKS):
        number = seed * NETWORKS + member
        draw = torch.Generator().manual_seed(number)
        order = torch.randperm(len(x), generator=draw)
        inside = held_out_mask(groups, order, len(x) // FOLDS)[order]
        held, rows = order[inside], order[~inside]
        network = _train_network(x, responses, held, rows, draw, number)
        centre, level = x[rows].double().mean(0), responses[rows].double().mean(0)
        path = ridge_path(x[rows].double() - centre, responses[rows].double() - level, PENALTIES)
        predicted = (x[held].double() - centre) @ path + level
        errors += (predicted - responses[held].double()).square().sum(1).cpu()
        drawn.append((network, path, centre, level, held))
    best = errors.argmin(0)
    members, linear, mlp = [], [], []
    for network, path, centre, level, held in drawn:
        weights = path[best, :, torch.arange(len(best))].T
        member = _Member(network, weights.to(x), (level - centre @ weights).to(x))
        members.append(member)
        linear.append(member.linear(x[held]))
        mlp.append(network(x[held]))
    truth = torch.cat([responses[held] for *_, held in drawn])
    return members, _stack(torch.cat(linear), torch.cat(mlp), truth)


def _stack(linear: Tensor, mlp: Tensor, truth: Tensor) -> Tensor:
    """Weight (K,) of the networks at which the blend's squared error on the held-out images (n, K) is least."""
    difference = mlp - linear
    return ((difference * (truth - linear)).sum(0) / difference.square().sum(0).clamp_min(1e-12)).clamp(0, 1)


def _network(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, outputs))


@torch.no_grad()
def _train_network(
    x: Tensor, responses: Tensor, held: Tensor, rows: Tensor, draw: torch.Generator, seed: int
) -> nn.Module:
    """The network of the epoch that predicts the held-out responses best; they say when to stop, too.

    A step is a millisecond of arithmetic, to which autograd and an optimizer's bookkeeping would add as much again. So
    the gradients of the two layers are written out.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(x.shape[1], responses.shape[1])
    network = network.to(x).requires_grad_(False)
    weights = [parameter.data for parameter in network.parameters()]
    first, first_bias, last, last_bias = weights
    moments = [(torch.zeros_like(one), torch.zeros_like(one)) for one in weights]
    best, kept, since, step = float("inf"), [one.clone() for one in weights], 0, 0
    for _ in range(EPOCHS):
        for part in rows[torch.randperm(len(rows), generator=draw)].split(BATCH):
            blurred = x[part] + BLUR * torch.randn(x[part].shape, generator=draw).to(x)
            before = torch.addmm(first_bias, blurred, first.T)
            hidden = F.gelu(before)
            error = torch.addmm(last_bias, hidden, last.T) - responses[part]
            slope = error * (2 / error.numel())
            inner = torch.ops.aten.gelu_backward(slope @ last, before)
            slopes = [inner.T @ blurred, inner.sum(0), slope.T @ hidden, slope.sum(0)]
            step += 1
            for weight, one, moment in zip(weights, slopes, moments, strict=True):
                _adamw(weight, one, *moment, step)
        wrong = (network(x[held]) - responses[held]).square().mean().item()
        since += 1
        if wrong < best:
            best, since, kept = wrong, 0, [one.clone() for one in weights]
        if since > PATIENCE:
            break
    for weight, one in zip(weights, kept, strict=True):
        weight.copy_(one)
    return network


def _adamw(weight: Tensor, slope: Tensor, mean: Tensor, square: Tensor, step: int) -> None:
    """A step of torch.optim.AdamW, in place."""
    weight.mul_(1 - LR * DECAY)
    mean.lerp_(slope, 1 - BETAS[0])
    square.mul_(BETAS[1]).addcmul_(slope, slope, value=1 - BETAS[1])
    size = (square / (1 - BETAS[1] ** step)).sqrt_().add_(1e-8)
    weight.addcdiv_(mean, size, value=-LR / (1 - BETAS[0] ** step))
