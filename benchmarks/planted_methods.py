"""What `planted_units.py` compares, and the two methods that only live there: a non-linear landscape, local steps."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from vislens_interp.backends.base import Defaults
from vislens_interp.baselines.centroids import Centroids
from vislens_interp.baselines.controls import Shuffled, Unedited
from vislens_interp.baselines.difference_of_means import DifferenceOfMeans
from vislens_interp.baselines.ridge_direction import RidgeDirection
from vislens_interp.baselines.ridge_pattern import RidgePattern
from vislens_interp.landscape.edit import angle_between, keep_norm
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.method import LandscapeMethod
from vislens_interp.targets.target import Target

NOISE = 0.1
FIT: dict[str, Any] = {"epochs": 20, "lr": 1e-3, "w_kld": 0.2, "w_consistency": 0.0, "patience": 5}
DEFAULTS = Defaults(
    fit=FIT,
    prior={"block_dim": 1, "reach": 4.0, "gradients": False},
    edit={"alpha": 1.0, "interpolation": "lerp", "keep_norm": True},
    shuffles=0,
)


class Embeddings:
    """A backend whose images are embeddings already: nothing is drawn, so that nothing can be hallucinated.

    Args:
        x: (N, D) that the starting VAE is made for, in closed form.
        build: Makes that VAE instead.
    """

    name, size, differentiable, device, defaults = "embeddings", 0, False, torch.device("cpu"), DEFAULTS

    def __init__(self, x: Tensor, build: Callable[[Tensor], Any] | None = None) -> None:
        self.x, self.shape, self.build = x, tuple(x.shape[1:]), build

    def encode(self, images: Tensor) -> Tensor:
        return images

    def render(self, x: Tensor) -> Tensor:
        return x

    def decode(self, x: Tensor, *, reference: Tensor | None, strength: float, seeds: list[int]) -> Tensor:
        return x

    def reference(self) -> None:
        return None

    def vae(self) -> Any:
        if self.build is not None:
            return self.build(self.x)
        return EmbeddingVAE.principal(self.x.mean(0), self.x.T.cov(correction=0), self.x.shape[1], NOISE)

    def perception(self) -> None:
        return None


class Recorded(Target):
    """A unit of which only recordings are known."""

    names, differentiable, batch_size = ["planted"], False, 256

    def __call__(self, images: Tensor) -> Tensor:
        raise ValueError("a planted unit was recorded; it answers to nothing else. Pass responses=.")


class NonLinearVAE(nn.Module):
    """An embedding VAE with one hidden layer each way, beside which runs the linear one that it starts as.

    Args:
        linear: The closed-form VAE.
        hidden: Width of the hidden layers.
    """

    def __init__(self, linear: EmbeddingVAE, hidden: int = 256) -> None:
        super().__init__()
        dim, latent = linear.shape[0], linear.latent_dim
        self.linear, self.latent_dim, self.shape = linear, latent, linear.shape
        self.config: dict[str, Any] = {**linear.config, "hidden": hidden}
        self.into = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, latent))
        self.out = nn.Sequential(nn.Linear(latent, hidden), nn.GELU(), nn.Linear(hidden, dim))
        for last in (self.into[-1], self.out[-1]):
            nn.init.zeros_(last.weight)  # pyright: ignore[reportArgumentType]
            nn.init.zeros_(last.bias)  # pyright: ignore[reportArgumentType]

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.linear.encode(x)
        return mean + self.into(x), log_variance

    def decode(self, z: Tensor) -> Tensor:
        return self.linear.decode(z) + self.out(z)


def non_linear(x: Tensor) -> NonLinearVAE:
    """The non-linear VAE that starts as the best linear one for ``x``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NonLinearVAE(EmbeddingVAE.principal(x.mean(0), x.T.cov(correction=0), x.shape[1], NOISE))


class LocalSteps:
    """Many small steps along Σ(x)∇r(x): r a small network, Σ(x) the covariance of the fitted images around x.

    Args:
        angle: Degrees to turn by.
        neighbours: Fitted images around x behind Σ(x); None takes all, one Σ for every x.
        step: Degrees of a step.
        hidden: Width of the network, which has one hidden layer.
        seed: Of its weights and batches.
    """

    def __init__(
        self,
        *,
        angle: float | None = None,
        neighbours: int | None = 500,
        step: float = 5.0,
        hidden: int = 64,
        seed: int = 0,
    ) -> None:
        self.angle, self.neighbours, self.step, self.hidden, self.seed = angle, neighbours, step, hidden, seed

    def fit(self, target: Target, backend: Any, images: Tensor, responses: Tensor) -> Self:
        x, y = images, responses[:, 0]
        y = (y - y.mean()) / y.std()
        draw = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(len(x), generator=draw)
        held, rows = order[: len(x) // 5], order[len(x) // 5 :]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = nn.Sequential(nn.Linear(x.shape[1], self.hidden), nn.GELU(), nn.Linear(self.hidden, 1))
        optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.1)
        best, kept, since = float("inf"), {}, 0
        for _ in range(60):
            for part in rows[torch.randperm(len(rows), generator=draw)].split(64):
                blurred = x[part] + 0.3 * torch.randn(x[part].shape, generator=draw)
                loss = ((net(blurred)[:, 0] - y[part]) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                error = ((net(x[held])[:, 0] - y[held]) ** 2).mean().item()
            since += 1
            if error < best:
                best, since = error, 0
                kept = {name: value.clone() for name, value in net.state_dict().items()}
            if since > 5:
                break
        net.load_state_dict(kept)
        self.net_, self.x_ = net.requires_grad_(False), x
        self.covariance_ = x.T.cov()
        return self

    def path(self, x: Tensor, direction: str, angles: list[float]) -> list[Tensor]:
        """Embeddings at each angle, (N, D) each: where the walk first gets so far, or where it ends."""
        sign = 1.0 if direction == "increase" else -1.0
        here, found = x.clone(), [x.clone() for _ in angles]
        done = [torch.zeros(len(x), dtype=torch.bool) for _ in angles]
        for _ in range(round(3 * max(angles) / self.step)):
            way = sign * self._way(here)
            tangent = way - (way * here).sum(1, keepdim=True) / (here**2).sum(1, keepdim=True) * here
            tangent = tangent / tangent.norm(dim=1, keepdim=True).clamp_min(1e-12) * here.norm(dim=1, keepdim=True)
            turn = torch.deg2rad(torch.tensor(self.step))
            here = keep_norm(torch.cos(turn) * here + torch.sin(turn) * tangent, x)
            turned = angle_between(here, x)
            for at, (angle, reached) in enumerate(zip(angles, done, strict=True)):
                found[at] = torch.where(reached[:, None], found[at], here)
                done[at] = reached | (turned >= angle - 1e-3)
        return found

    def _way(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            moved = x.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.net_(moved).sum(), moved)
        if self.neighbours is None:
            return gradient @ self.covariance_
        near = torch.cdist(x, self.x_).topk(min(self.neighbours, len(self.x_)), largest=False).indices
        around = self.x_[near]
        around = around - around.mean(1, keepdim=True)
        return (around * (around @ gradient[..., None])).mean(1)


def _landscape(**settings: Any) -> Callable[[], LandscapeMethod]:
    return lambda: LandscapeMethod("edit", shuffles=0, **settings)


PAPER = {"organise": False, "block_dim": None, "modes": 1}
METHODS: dict[str, Callable[[], Any]] = {
    "landscape (paper: one mode, linear)": _landscape(**PAPER),
    "landscape, default start": _landscape(),
    "landscape, residual fades": _landscape(residual="fade"),
    "landscape, two modes, residual fades": _landscape(modes=2, residual="fade", **{"organise": False, "block_dim": None}),
    "landscape, three modes, residual fades": _landscape(
        modes=3, residual="fade", **{"organise": False, "block_dim": None}
    ),
    "landscape, non-linear": _landscape(residual="fade", organise=False, block_dim=None),
    "local steps": LocalSteps,
    "ridge (BrainACTIV)": lambda: RidgeDirection("ridge_cv"),
    "ridge, not projected": lambda: RidgeDirection("ridge_cv", project=False),
    "ridge pattern": RidgePattern,
    "difference of means": DifferenceOfMeans,
    "algebraic twin": Centroids,
    "shuffled landscape": lambda: Shuffled(LandscapeMethod("edit", shuffles=0, **PAPER), seed=1),
    "α = 0": Unedited,
}
"""Label to what makes the method."""

SHIPPED = "landscape, default start"
SINGLE = ("ridge (BrainACTIV)", "ridge, not projected", "ridge pattern", "difference of means", "algebraic twin")
"""Methods that know one direction."""


def fit_and_move(
    label: str, x: Tensor, responses: Tensor, inputs: Tensor, directions: tuple[str, ...], angles: list[float]
) -> dict[str, list[Tensor]]:
    """Inputs moved by each angle, in each direction, by a method that is fitted on noisy responses.

    Args:
        label: One of :data:`METHODS`.
        x: (N, D) embeddings.
        responses: (N, 1) recorded.
        inputs: (n, D) to move.
        directions: Which ways.
        angles: In degrees; a method whose goal lies nearer goes to its goal.

    Returns:
        Direction to (n, D) for each angle.
    """
    method = METHODS[label]()
    backend: Any = Embeddings(x, non_linear if "non-linear" in label else None)
    while True:
        try:
            method.fit(Recorded(), backend, x, responses)
            break
        except ValueError as error:  # too few strongly driven images for so many modes
            if "Lower modes" not in str(error):
                raise
            method.settings = {**method.settings, "modes": method.settings["modes"] - 1}
    found: dict[str, list[Tensor]] = {}
    for direction in directions:
        if hasattr(method, "path"):
            found[direction] = method.path(inputs, direction, angles)
            continue
        found[direction] = []
        for angle in angles:
            editor = getattr(method, "method", method)  # a shuffled control holds the method that edits
            if isinstance(editor, LandscapeMethod):
                editor.settings = {**editor.settings, "angle": angle}
            else:
                editor.angle = angle
            with torch.no_grad():
                found[direction].append(method.embeddings(inputs, {0: direction}))
    return found
