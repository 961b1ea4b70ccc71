"""Many small steps up what the landscape knows of a response, each among the images that are near."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vislens_interp.landscape.edit import angle_between, keep_norm
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import Direction
from vislens_interp.landscape.start import ridge

STEP = 7.5
"""Degrees of a step."""
REACH = 60.0
"""Degrees that an edit of α = 1 turns by; another α turns by its share of them."""
NEIGHBOURS = 300
"""Reference images whose spread says in which directions images differ where a step is taken."""
NETWORKS, HIDDEN, BLUR, EPOCHS, PATIENCE, BATCH = 3, 64, 0.3, 30, 3, 128
"""Of a surface's networks and their training; blur in the embeddings' own SD, a mean over dimensions."""

FOLDS = 5
"""One part of so many says when a network's training stops, and how far it is to be believed."""


class Surface:
    """The height of a landscape everywhere: a plane, bent as far as images that were kept aside bear it out.

    A landscape's prior has one mean for a unit's preference, or a few. The responses that it was fitted on say more:
    where they rise from a given image on, which for a unit of several preferences differs from image to image. Small
    networks from embeddings to standardised responses learn that; from a few hundred noisy recordings they learn noise
    as well. So the height lies between their mean and a ridge regression, for each unit where the squared error on
    images that neither was trained on is least (stacking: Wolpert 1992; Breiman 1996).

    Args:
        landscape: The fitted landscape of an embedding backend. Its reference latents, decoded, and its recorded
            responses are all that is used; what its fit held out has no part in it.
        seed: Of the networks' weights and batches; each stops by another fifth of the images.

    Attributes:
        bend: (K,) share of the networks in each unit's height, 0 to 1; the rest is the plane's.

    Raises:
        ValueError: The landscape is not one of embeddings.
    """

    def __init__(self, landscape: Landscape, *, seed: int = 0) -> None:
        learnt = torch.ones(len(landscape.latents), dtype=torch.bool)
        learnt[landscape.held_out] = False
        device = next(landscape.vae.parameters()).device
        self.known = landscape.decode(landscape.latents[learnt].to(device))
        if self.known.ndim != 2:
            raise ValueError(
                f"goal='uphill' moves embeddings, and this landscape's x has shape {tuple(self.known.shape[1:])}. Use "
                "goal='mean', or a backend of embeddings."
            )
        self.centre = self.known.mean(0)
        self.scale = (self.known - self.centre).square().mean().sqrt().clamp_min(1e-12)
        standard = landscape.scaler.standardise(landscape.responses)[learnt].to(self.known)
        inputs = (self.known - self.centre) / self.scale
        self.members = [_Member(inputs, standard, seed * NETWORKS + member) for member in range(NETWORKS)]
        self.bend = _bend(self.members)

    def __call__(self, x: Tensor) -> Tensor:
        """Predicted responses (N, K), in SDs, to embeddings (N, D)."""
        inputs = (x - self.centre) / self.scale
        straight, curved = (
            torch.stack([getattr(member, name)(inputs) for member in self.members]).mean(0)
            for name in ("plane", "network")
        )
        return straight + self.bend * (curved - straight)

    def climb(self, x: Tensor, directions: Mapping[int, Direction], degrees: float) -> Tensor:
        """Embeddings (N, D) turned by so many degrees, uphill or downhill for these units; lengths stay.

        A step goes along Σ∇h: the slope of the height h, through the covariance Σ of the reference embeddings nearest
        to where it starts. So it changes what images there differ in, and leaves alone what they have in common.

        Args:
            x: (N, D).
            directions: Unit to direction; several units: the sum of what they want.
            degrees: From 0 to 180; a walk that bends back on itself may end before, after three times as many steps.

        Source: ours. Steps, neighbours and networks were chosen on tuning units (benchmarks/planted_units/run.py).
        """
        if not 0 <= degrees <= 180:
            raise ValueError(f"degrees={degrees} must lie between 0 and 180.")
        return torch.cat([self._climb(part, directions, degrees) for part in x.split(64)]) if len(x) else x

    def _climb(self, x: Tensor, directions: Mapping[int, Direction], degrees: float) -> Tensor:
        here, arrived = x, torch.full((len(x),), degrees <= 0, device=x.device)
        for _ in range(math.ceil(3 * degrees / STEP)):
            way = self._way(here, directions)
            there = _turn(here, way, torch.full((len(x),), STEP).to(x))
            over = angle_between(there, x) > degrees
            if (over & ~arrived).any():  # the last step ends where the walk has turned far enough
                low, high = torch.zeros(len(x)).to(x), torch.full((len(x),), STEP).to(x)
                for _ in range(20):
                    middle = (low + high) / 2
                    beyond = angle_between(_turn(here, way, middle), x) > degrees
                    low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
                there = torch.where(over[:, None], _turn(here, way, low), there)
            here = torch.where(arrived[:, None], here, there)
            arrived = arrived | over
            if arrived.all():
                break
        return keep_norm(here, x)

    def _way(self, x: Tensor, directions: Mapping[int, Direction]) -> Tensor:
        with torch.enable_grad():
            moved = x.detach().requires_grad_(True)
            height = self(moved)
            signed = [height[:, unit] * (1 if way == "increase" else -1) for unit, way in directions.items()]
            (slope,) = torch.autograd.grad(torch.stack(signed).sum(), moved)
        near = torch.cdist(x, self.known).topk(min(NEIGHBOURS, len(self.known)), largest=False).indices
        # Σ∇h is a mean of the neighbours, each weighted by how far its projection on the slope is from their mean one.
        along = (slope @ self.known.T).gather(1, near)
        weights = torch.zeros(len(x), len(self.known)).to(x)
        weights.scatter_(1, near, (along - along.mean(1, keepdim=True)) / near.shape[1])
        return weights @ self.known


def _turn(x: Tensor, way: Tensor, degrees: Tensor) -> Tensor:
    """``x`` (N, D) turned by (N,) degrees towards ``way`` (N, D), on the sphere of its own length."""
    tangent = way - (way * x).sum(1, keepdim=True) / (x**2).sum(1, keepdim=True).clamp_min(1e-12) * x
    tangent = keep_norm(tangent, x)
    angle = torch.deg2rad(degrees)[:, None]
    return torch.cos(angle) * x + torch.sin(angle) * tangent


class _Member:
    """A network and a plane, learnt from the same images; both predict the fold that neither was trained on."""

    def __init__(self, x: Tensor, responses: Tensor, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(x), generator=draw)
        self.held, rows = order[: len(x) // FOLDS], order[len(x) // FOLDS :]
        self.network = _learn(x, responses, self.held, rows, draw, seed)
        centre, level = x[rows].mean(0), responses[rows].mean(0)
        self.weights = ridge((x[rows] - centre).double(), (responses[rows] - level).double()).to(x)
        self.offset = level - centre @ self.weights
        self.truth = responses[self.held]
        self.straight, self.curved = self.plane(x[self.held]), self.network(x[self.held])

    def plane(self, x: Tensor) -> Tensor:
        """Ridge regression, one penalty a unit."""
        return x @ self.weights + self.offset


def _bend(members: list[_Member]) -> Tensor:
    """Share (K,) of the networks at which the blend's squared error on the folds is least."""
    straight, curved, truth = (
        torch.cat([getattr(member, name) for member in members]) for name in ("straight", "curved", "truth")
    )
    way = curved - straight
    return ((way * (truth - straight)).sum(0) / way.square().sum(0).clamp_min(1e-12)).clamp(0, 1)


def _learn(x: Tensor, responses: Tensor, held: Tensor, rows: Tensor, draw: torch.Generator, seed: int) -> nn.Module:
    """The network that predicts held-out responses best: they say when to stop."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.GELU(), nn.Linear(HIDDEN, responses.shape[1]))
    network = network.to(x)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.1)
    best, kept, since = float("inf"), network.state_dict(), 0
    for _ in range(EPOCHS):
        for part in rows[torch.randperm(len(rows), generator=draw)].split(BATCH):
            blurred = x[part] + BLUR * torch.randn(x[part].shape, generator=draw).to(x)
            with torch.enable_grad():
                loss = (network(blurred) - responses[part]).square().mean()
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
        with torch.no_grad():
            error = (network(x[held]) - responses[held]).square().mean().item()
        since += 1
        if error < best:
            best, since = error, 0
            kept = {name: value.clone() for name, value in network.state_dict().items()}
        if since > PATIENCE:
            break
    network.load_state_dict(kept)
    return network.requires_grad_(False)
