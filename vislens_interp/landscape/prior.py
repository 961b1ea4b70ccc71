"""The activation prior: where an image's latent should lie, given the unit's response to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeAlias

import torch
from torch import Tensor

from vislens_interp.config import PriorConfig

Sense = Literal["increase", "decrease"]
UnitSenses: TypeAlias = str | Mapping[Any, Sense]
"""A sense, ``"both"``, or a sense for each unit, by what selects it."""
SENSES: tuple[Sense, Sense] = ("increase", "decrease")
SIGN: dict[Sense, float] = {"increase": 1.0, "decrease": -1.0}


def signed(responses: Tensor, directions: Mapping[int, Sense]) -> Tensor:
    """Standardised responses (N, K) as what is wanted of them: summed over units, large in these directions, (N,)."""
    return torch.stack([SIGN[sense] * responses[:, unit] for unit, sense in directions.items()]).sum(0)


@dataclass(frozen=True)
class ResponseScaler:
    """Standardises responses on the reference images, so that zero and one mean something for every unit.

    Args:
        mean, std: (K,) each, of each unit's responses over the reference images, in raw units; ``std`` is what "SDs"
            means in every result.

    Source: not in the paper, whose responses are z-scored fMRI; a ReLU unit's are never negative, and Eq. 2 needs a
    zero to tell preferred from suppressed images.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, responses: Tensor, names: list[str] | None = None) -> "ResponseScaler":
        """Learn the scale from (N, K) raw responses; ValueError for one not finite, or for a dead or constant unit."""
        if responses.ndim != 2:
            raise ValueError(f"responses has shape {tuple(responses.shape)}; expected (N, K): images by units.")
        responses = responses.double()
        if wrong := int((~responses.isfinite()).sum()):
            raise ValueError(
                f"responses holds {wrong} values that are NaN or infinite; remove those images or fill them."
            )
        mean, std = responses.mean(0), responses.std(0)
        names = names or [str(index) for index in range(responses.shape[1])]
        for index, name in enumerate(names):
            spread = (responses[:, index].max() - responses[:, index].min()).item()
            # Relative: the unit may be tesla. Of 0 alone the spread is 0, too.
            if spread <= 1e-6 * responses[:, index].abs().max().item():
                raise ValueError(
                    f"unit {name!r} never varies: its response is {mean[index].item():.4g} for all {len(responses)} "
                    "images. A dead or constant unit has no preferred images; choose another, or give other images."
                )
        return cls(mean.float(), std.float())

    def standardise(self, responses: Tensor) -> Tensor:
        """Raw responses (N, K) in SDs from the reference mean: the scale of every response change."""
        return (responses - self.mean.to(responses)) / self.std.to(responses)

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std}


def equal_blocks(latent_dim: int, units: int, block_dim: int | None = None) -> list[tuple[int, int]]:
    """(start, stop) of each unit: ``block_dim`` dimensions (None shares all) from the first on, all different."""
    width = latent_dim // units if block_dim is None else block_dim
    if width < 1 or width * units > latent_dim:
        raise ValueError(
            f"block_dim={block_dim} for {units} units needs {max(width, 1) * units} latent dimensions; the latent has "
            f"{latent_dim}. Give fewer units or a smaller block_dim."
        )
    return [(unit * width, (unit + 1) * width) for unit in range(units)]


def check_mode(mode: Tensor | int, modes: int) -> None:
    """Raise ValueError for a mean that a prior of ``modes`` means does not have."""
    if not ((chosen := torch.as_tensor(mode)) >= 0).all() or (chosen >= modes).any():
        raise ValueError(f"mode={mode} is not there: this prior has the modes 0 to {modes - 1}.")


def mode_means(block_dim: int, modes: int) -> Tensor:
    """Prior means of one direction, (modes, block_dim), each as long as the paper's all-ones vector.

    One mode is the paper's +1 in every dimension (Algorithm 3). Several (ours) share half of their squared length along
    that axis, which still means "more response", and spend the other half on directions orthogonal to it and to one
    another, so that unlike preferences have places of their own.
    """
    ones = torch.ones(1, block_dim)
    if modes == 1:
        return ones
    if not 1 <= modes < block_dim:
        raise ValueError(
            f"modes={modes} must be 1, or from 2 to block_dim - 1 ({block_dim - 1}), for each has a direction of its "
            "own beside the axis; lower modes or widen the block."
        )
    # An orthonormal basis whose first vector is the axis; a fixed generator makes it the same everywhere.
    basis = torch.cat([ones, torch.randn(block_dim - 1, block_dim, generator=torch.Generator().manual_seed(0))])
    basis = torch.linalg.qr(basis.T.double()).Q.T.float()
    return (ones + basis[1 : modes + 1] * block_dim**0.5) / 2**0.5


@dataclass(frozen=True)
class ActivationPrior:
    """p(z | r) = N(mean(r), sigma(r)²), a block of latent dimensions for each unit, N(0, 1) outside the blocks.

    Args:
        blocks: (start, stop) of each unit's dimensions.
        modes: Number of means in each direction; 1 is the paper.
        lam, eps: λ and ε of sigma = λ / (|r| + ε), in SDs of the response.
        sigma_min, sigma_max: Smallest prior sigma, so that one extreme image does not pin its code, and largest, which
            images with r ≈ 0 get instead of an unbounded width.

    Source: Eq. 1 and 2. Deviations: |r| in the width, for r ≤ 0 makes no width in the paper's form; both clamps.
    """

    latent_dim: int
    blocks: list[tuple[int, int]]
    modes: int = 1
    lam: float = 1.0
    eps: float = 0.1
    sigma_min: float = 0.1
    sigma_max: float = 1.0
    means: list[Tensor] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.lam <= 0 or self.eps < 0 or not 0 < self.sigma_min <= self.sigma_max:
            raise ValueError(
                f"lam={self.lam}, eps={self.eps}, sigma_min={self.sigma_min}, sigma_max={self.sigma_max}: expected "
                "lam > 0, eps >= 0 and 0 < sigma_min <= sigma_max."
            )
        object.__setattr__(self, "means", [mode_means(stop - start, self.modes) for start, stop in self.blocks])

    @classmethod
    def of(cls, config: PriorConfig, latent_dim: int, units: int) -> Self:
        """The prior of ``units`` units over a latent, as a config says."""
        blocks = equal_blocks(latent_dim, units, config.block_dim)
        return cls(latent_dim, blocks, config.modes, config.lam, config.eps, config.sigma_min, config.sigma_max)

    def sigma(self, responses: Tensor) -> Tensor:
        """Width for standardised responses, any shape."""
        return (self.lam / (responses.abs() + self.eps)).clamp(self.sigma_min, self.sigma_max)

    def goal(self, unit: int, direction: Sense, mode: Tensor | int = 0) -> Tensor:
        """Prior mean of one unit's block: (block_dim,), or (N, block_dim) for (N,) modes."""
        check_mode(mode, self.modes)
        return SIGN[direction] * self.means[unit][mode]

    def parameters(self, responses: Tensor, modes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and sigma for standardised responses (N, K), and the mode of each (N, K), 0 if None."""
        count = len(responses)
        mean = responses.new_zeros(count, self.latent_dim)
        sigma = responses.new_ones(count, self.latent_dim)
        for unit, (start, stop) in enumerate(self.blocks):
            response = responses[:, unit, None]
            means = self.means[unit].to(responses)
            chosen = means[0].expand(count, -1) if modes is None else means[modes[:, unit]]
            mean[:, start:stop] = torch.where(response > 0, chosen, -chosen)
            sigma[:, start:stop] = self.sigma(response)
        return mean, sigma

    def state(self) -> dict[str, Any]:
        names = ("latent_dim", "modes", "lam", "eps", "sigma_min", "sigma_max")
        return {"blocks": [list(block) for block in self.blocks], **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "ActivationPrior":
        return cls(**{**state, "blocks": [(start, stop) for start, stop in state["blocks"]]})


def kl_divergence(mean: Tensor, log_variance: Tensor, prior_mean: Tensor, prior_sigma: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) ‖ N(prior_mean, prior_sigma²)), summed over dimensions: (N, D) to (N,).

    Source: Eq. 3.
    """
    squared = (log_variance.exp() + (mean - prior_mean) ** 2) / (2 * prior_sigma**2)
    return (prior_sigma.log() - log_variance / 2 - 0.5 + squared).sum(-1)
