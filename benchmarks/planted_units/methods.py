"""What `planted_units` compares, and the one method that only lives there: a non-linear landscape."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import package as vl
from benchmarks.common.edit_methods import Recorded, landscape, set_angle

NOISE = 0.1
FIT: dict[str, Any] = {"epochs": 20, "lr": 1e-3, "w_kld": 0.2, "w_consistency": 0.0, "patience": 5}
DEFAULTS = vl.Config.of(
    fit=FIT,
    prior={"block_dim": 1, "axis_scale_sd": 4.0, "gradients": False},
    edit={"alpha": 1.0, "interpolation": "lerp", "keep_norm": True},
    shuffles=0,
)


class Embeddings:
    """A backend whose images are embeddings already: nothing is drawn, so that nothing can be hallucinated.

    ``build`` makes the starting VAE for ``x`` (N, D).
    """

    name, size, differentiable, device, defaults = "embeddings", 0, False, torch.device("cpu"), DEFAULTS

    def __init__(self, x: Tensor, build: Callable[[Tensor], Any]) -> None:
        self.x, self.shape, self.build = x, tuple(x.shape[1:]), build

    def encode(self, images: Tensor) -> Tensor:
        return images

    def render(self, x: Tensor) -> Tensor:
        return x

    def decode(self, x: Tensor, *, init_image: Tensor | None, strength: float, seeds: list[int]) -> Tensor:
        return x

    def reference_images(self) -> None:
        return None

    def vae(self) -> Any:
        return self.build(self.x)

    def feature_extractor(self) -> None:
        return None


class NonLinearVAE(nn.Module):
    """An embedding VAE with one hidden layer each way, beside which runs the linear one that it starts as."""

    def __init__(self, linear: vl.EmbeddingVAE, hidden: int = 256) -> None:
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


def linear(x: Tensor) -> vl.EmbeddingVAE:
    """The best linear VAE for ``x``, in closed form."""
    return vl.EmbeddingVAE.principal(x.mean(0), x.T.cov(correction=0), x.shape[1], NOISE)


def non_linear(x: Tensor) -> NonLinearVAE:
    """The non-linear VAE that starts as the best linear one for ``x``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NonLinearVAE(linear(x))


PAPER = {"closed_form_init": False, "block_dim": None, "modes": 1}
# Label to what makes the method.
METHODS: dict[str, Callable[[], Any]] = {
    "landscape (paper: one mode, linear)": landscape(**PAPER),
    "landscape, default start": landscape(),
    "landscape, two modes, residual fades": landscape(modes=2, residual="fade"),
    "landscape, non-linear": landscape(residual="fade", closed_form_init=False, block_dim=None),
    "landscape, goal uphill": landscape(goal="surrogate_ascent", **PAPER),
    "landscape, goal near": landscape(goal="local_mean", residual="fade", **PAPER),
    "ridge (BrainACTIV)": lambda: vl.RidgeDirection("ridge_cv"),
    "ridge, not projected": lambda: vl.RidgeDirection("ridge_cv", project=False),
    "ridge pattern": vl.RidgePattern,
    "difference of means": vl.DifferenceOfMeans,
    "algebraic twin": vl.Centroids,
    "shuffled landscape": lambda: vl.Shuffled(vl.LandscapeEdit(shuffles=0, **PAPER), seed=1),
    "α = 0": vl.Unedited,
}

SHIPPED = "landscape, goal uphill"
SINGLE = ("ridge (BrainACTIV)", "ridge, not projected", "ridge pattern", "difference of means", "algebraic twin")
"""Methods that know one direction."""


def fit_and_move(
    label: str, x: Tensor, responses: Tensor, inputs: Tensor, directions: tuple[str, ...], angles: list[float]
) -> dict[str, list[Tensor]]:
    """Inputs (n, D) moved by each angle, by direction, by a method fitted on noisy responses (N, 1) to x (N, D).

    A method whose goal lies nearer than the angle goes to its goal.
    """
    method = METHODS[label]()
    backend: Any = Embeddings(x, non_linear if "non-linear" in label else linear)
    while True:  # a landscape of several modes takes as many as the unit's strongly driven images place
        try:
            method.fit(Recorded(["planted"]), backend, x, responses)
            break
        except ValueError as error:
            if "Lower modes" not in str(error):
                raise
            method.override(modes=method.settings()["modes"] - 1)
    found: dict[str, list[Tensor]] = {direction: [] for direction in directions}
    for direction, angle in itertools.product(directions, angles):
        set_angle(method, angle)
        with torch.no_grad():
            found[direction].append(method.embeddings(inputs, {0: direction}))
    return found
