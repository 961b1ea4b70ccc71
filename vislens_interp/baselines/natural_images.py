"""Top-k natural images: what drives a unit most among pictures that nobody made."""

from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from vislens_interp.backends.base import Backend
from vislens_interp.baselines.embedding_edit import SIGN, read_responses
from vislens_interp.images import resize
from vislens_interp.landscape.prior import ResponseScaler
from vislens_interp.targets.cost import counted
from vislens_interp.targets.target import Target

if TYPE_CHECKING:
    from vislens_interp.method import Directions


class NaturalImages:
    """Show the ``count`` reference images that a unit answers to most (or least): the reality check.

    Nothing is generated and the image to edit has no say: a picture's noise seed picks its rank, seed mod ``count``.
    No direction gives the image itself.

    Args:
        count: k; 10 in the paper.

    Attributes (after ``fit``):
        images_: (N, 3, H, W) the reference images.
        standard_: (N, K) their standardised responses.

    Source: Vis-Lens, Figs. 4 and S21 to S26 (top 10). Several units: ranked by the sum of their wanted changes.
    """

    shows_reference = True
    """What it shows passes for natural, so that a synthetic reference set will not do."""

    def __init__(self, count: int = 10) -> None:
        if count < 1:
            raise ValueError(f"count={count} must be at least 1.")
        self.count = count

    def fit(
        self,
        target: Target,
        backend: Backend,
        images: Tensor,
        responses: Tensor | None = None,
        *,
        progress: bool = False,
        checkpoint: Any = None,
    ) -> Self:
        """Read the responses to the reference images; arguments as for every method."""
        if len(images) < self.count:
            raise ValueError(f"images holds {len(images)} images; expected at least count={self.count}.")
        self.target, self.backend = target, backend
        responses = read_responses(target, images, responses, progress=progress)
        self.images_ = images
        self.standard_ = ResponseScaler.fit(responses, list(target.names)).standardise(responses)
        return self

    def rows(self, directions: "Directions") -> Tensor:
        """Rows of the reference set, the best first: (count,)."""
        score = torch.stack([SIGN[direction] * self.standard_[:, unit] for unit, direction in directions.items()])
        return score.sum(0).argsort(descending=True, stable=True)[: self.count]

    @counted
    def generate(
        self,
        images: Tensor,
        directions: "Directions",
        *,
        seeds: list[int],
        alpha: float | None = None,
        strength: float | None = None,
    ) -> Tensor:
        """Natural images at the backend's size, (N, 3, S, S) in [0, 1]; ``alpha`` and ``strength`` play no part."""
        if len(seeds) != len(images):
            raise ValueError(f"seeds has {len(seeds)} entries for {len(images)} images; expected one an image.")
        if directions:
            images = self.images_[self.choose(directions, seeds)]
        return resize(images.float(), self.backend.size).cpu()

    def choose(self, directions: "Directions", seeds: list[int]) -> Tensor:
        """A row of the reference set for each seed: (N,)."""
        return self.rows(directions)[torch.tensor([seed % self.count for seed in seeds])]


class RandomImages(NaturalImages):
    """Show any reference images, whatever a unit answers to them: the control of the top-k images.

    A picture's noise seed picks it, for one direction as for the other. No direction gives the image itself.

    Attributes (after ``fit``):
        images_: (N, 3, H, W) the reference images.
    """

    def __init__(self) -> None:
        super().__init__(count=1)

    def choose(self, directions: "Directions", seeds: list[int]) -> Tensor:
        """A row of the reference set for each seed: (N,)."""
        count = len(self.images_)
        return torch.cat([torch.randint(count, (1,), generator=torch.Generator().manual_seed(seed)) for seed in seeds])
