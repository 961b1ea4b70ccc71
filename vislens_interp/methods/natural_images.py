"""Top-k natural images: what drives a unit most among pictures that nobody made."""

from pathlib import Path

import torch
from torch import Tensor

from vislens_interp.copies import top_rows
from vislens_interp.images import ImageFiles, resize
from vislens_interp.landscape.prior import SIGN, signed
from vislens_interp.methods.base import Directions, Method
from vislens_interp.random_state import check_seed
from vislens_interp.reference import ReferenceSet
from vislens_interp.validation import check_counts


class NaturalImages(Method):
    """Show the ``count`` reference images that a unit answers to most (or least): the reality check.

    One of each photograph: crops and copies are shown once. Nothing is generated and the image to edit has no say: a
    picture's noise seed picks its rank, seed mod ``count``. No direction gives the image itself.

    Args:
        count: k; 10 in the paper.

    Attributes (after ``fit``):
        images_, standard_: (N, 3, H, W) the reference images; (N, K) their standardised responses.
        groups_: (N,) which of them are crops of one photograph.

    Source: Vis-Lens, Figs. 4 and S21 to S26 (top 10). Several units: ranked by the sum of their wanted changes.
    """

    shows_reference = True
    images_: Tensor | ImageFiles

    def __init__(self, count: int = 10) -> None:
        check_counts(count=count)
        self.count = count

    def _fit(self, reference: ReferenceSet, *, progress: bool, checkpoint: Path | None) -> None:
        if len(reference) < self.count:
            raise ValueError(f"images holds {len(reference)} images; expected at least count={self.count}.")
        assert reference.responses is not None  # the ranking uses responses
        self.images_, self.groups_ = reference.images, reference.groups
        self.standard_ = self.scaler_.standardise(reference.responses)

    @property
    def distinct(self) -> int | None:
        return self.count

    def rows(self, directions: Directions) -> Tensor:
        """Rows of the reference set, the best first: (count,), or as many as there are photographs."""
        return torch.tensor(top_rows(signed(self.standard_, directions).cpu(), self.groups_, self.count))

    def _generate(
        self, images: Tensor, directions: Directions, seeds: list[int], alpha: float | None, strength: float | None
    ) -> tuple[Tensor, None]:
        if directions:
            images = self.images_[self.choose(directions, seeds)]
        return resize(images.float(), self.backend.size), None

    def choose(self, directions: Directions, seeds: list[int]) -> Tensor:
        """A row of the reference set for each seed: (N,)."""
        rows = self.rows(directions)
        return rows[torch.tensor([seed % len(rows) for seed in seeds])]


class RandomImages(NaturalImages):
    """Show random reference images, whatever a unit answers to them: the control of the top-k images.

    One of each photograph; those that stand for one direction come last for the other.

    Args:
        seed: Of their order.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(count=1)
        self.seed = check_seed(seed)

    @property
    def distinct(self) -> None:
        return None

    def rows(self, directions: Directions) -> Tensor:
        """Rows of the reference set, one of each photograph: (G,)."""
        order = torch.rand(len(self.images_), generator=torch.Generator().manual_seed(self.seed))
        sign = SIGN[directions[min(directions)]]
        return torch.tensor(top_rows(sign * order, self.groups_, len(order)))
