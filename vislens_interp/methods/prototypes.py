"""Natural images chosen for what they tell of a unit, as they are or as the start of an edit."""

from pathlib import Path

import torch
from scipy.stats import rankdata
from torch import Tensor

from vislens_interp.backends.base import Backend
from vislens_interp.backends.depth_embedder import DepthEmbedder
from vislens_interp.images import resize
from vislens_interp.landscape.prior import SIGN, signed
from vislens_interp.math import unit_rows
from vislens_interp.methods.base import Directions, Method, Wrapper
from vislens_interp.methods.landscape import LandscapeEdit
from vislens_interp.methods.natural_images import NaturalImages
from vislens_interp.reference import ReferenceSet, remembered
from vislens_interp.validation import check_counts, check_shares

COUNT, SHARE = 8, 0.05
"""Prototypes to either side, and the share of images at either end of the responses that they are chosen from."""
CANDIDATES = 128
"""To either side, at most."""


class Prototypes(NaturalImages):
    """Show the reference images whose likeness to other images tells most of how a unit answers those.

    Top images are extremes: each has something that drives the unit, and much that has nothing to do with it. Here
    ``count`` of the images that drive the unit most and ``count`` of those that drive it least are chosen together, so
    that an image's mean likeness to the former less that to the latter correlates with the ranks of the responses to
    all reference images. Nothing is generated; a picture's noise seed picks an image, seed mod ``count``.

    Args:
        count: Images to either side.
        share: Share of the reference images, at either end of the responses, that are chosen from.

    Attributes (after ``fit``):
        likeness_: (N, D) features of length 1, whose cosine is the likeness: the embedding, of a
            :class:`~vislens_interp.DepthEmbedder` its last two layers, of a pixel backend its feature extractor's.

    Source: ours. Prototypes that stand for data are those of Bien and Tibshirani 2011 and Kim et al. 2016; here they
    stand for responses. What images have to tell is the task of Borowski et al. 2021.
    """

    def __init__(self, count: int = COUNT, share: float = SHARE) -> None:
        super().__init__(count)
        check_shares(share=share)
        self.share = share

    def _fit(self, reference: ReferenceSet, *, progress: bool, checkpoint: Path | None) -> None:
        super()._fit(reference, progress=progress, checkpoint=checkpoint)
        if len(reference) < 2 * self.count:
            raise ValueError(
                f"images holds {len(reference)} images; expected at least {2 * self.count}, count={self.count} to "
                "either side."
            )
        self.likeness_ = likeness(self.backend, reference)

    def rows(self, directions: Directions) -> Tensor:
        """Rows of the reference set: (count,)."""
        sign = SIGN[directions[min(directions)]]  # the two senses of a unit are the two sides of one choice
        sides = prototype_rows(
            self.likeness_, sign * signed(self.standard_, directions), self.groups_, self.count, self.share
        )
        return sides[0 if sign > 0 else 1]


class EditedPrototypes(Wrapper):
    """Start an edit from a unit's prototypes instead of the image to edit.

    Args:
        method: The edit; None is :class:`~vislens_interp.methods.landscape.LandscapeEdit`.
        count, share: Of :class:`Prototypes`.
    """

    shows_reference = True

    def __init__(self, method: Method | None = None, *, count: int = COUNT, share: float = SHARE) -> None:
        super().__init__(LandscapeEdit() if method is None else method)
        self.prototypes = Prototypes(count, share)

    @property
    def distinct(self) -> int | None:
        return self.prototypes.distinct

    def _fit(self, reference: ReferenceSet, *, progress: bool, checkpoint: Path | None) -> None:
        self.prototypes.fit(self.target, self.backend, reference.learned())
        self.method.fit(self.target, self.backend, reference, progress=progress, checkpoint=checkpoint)

    def _generate(
        self, images: Tensor, directions: Directions, seeds: list[int], alpha: float | None, strength: float | None
    ) -> tuple[Tensor, Tensor | None]:
        if directions:
            chosen = self.prototypes.images_[self.prototypes.choose(directions, seeds)]
            images = resize(chosen.float(), self.backend.size)
        return super()._generate(images, directions, seeds, alpha, strength)


def prototype_rows(
    likeness: Tensor, responses: Tensor, groups: Tensor, count: int = COUNT, share: float = SHARE
) -> tuple[Tensor, Tensor]:
    """Choose images at both ends of the responses: one after another, then each again while the others stay.

    Args:
        likeness: (N, D) rows of length 1.
        responses: (N,).
        groups: (N,) group of each image; of one group, one image is chosen at most, as long as there are others, and
            no image counts for how like it is to its own.
        count: Images to either side, at most half of N.
        share: Share of N to choose from at either end, at least 8 ``count`` images and at most 128.

    Returns:
        Rows (count,) of images with large responses, and with small ones, in the order of their choice.

    >>> x = torch.tensor([[0.0, 1.0], [0.8, 0.6], [1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> [rows.tolist() for rows in prototype_rows(x, torch.arange(6.0), torch.arange(6), 1, 0.5)]
    [[4], [2]]
    """
    check_counts(count=count)
    likeness, responses, groups = (one.detach().cpu() for one in (likeness, responses, groups))
    side = max(count, min(max(8 * count, round(share * len(responses))), CANDIDATES, len(responses) // 2))
    order = responses.argsort(descending=True, stable=True)
    candidates = torch.cat([order[:side], order[-side:].flip(0)])
    like = likeness.double() @ likeness[candidates].double().T
    own = groups[:, None] == groups[candidates]
    others = (~own).double()
    mean = (like * others).sum(0) / others.sum(0).clamp_min(1)
    like = torch.where(own, 0.0, like - mean)
    ranks = torch.from_numpy(rankdata(responses.double().numpy()))
    along, gram = like.T @ (ranks - ranks.mean()), like.T @ like
    signs = torch.cat([torch.ones(side), -torch.ones(side)]).double()
    chosen: tuple[list[int], list[int]] = ([], [])

    def best(half: int) -> int:
        """The candidate of this side that adds most to the correlation."""
        weights = torch.zeros(2 * side, dtype=torch.float64)
        for number, rows in enumerate(chosen):
            weights[rows] = signs[rows] / (len(rows) + (number == half))
        step = signs / (len(chosen[half]) + 1)
        squared = weights @ gram @ weights + 2 * step * (gram @ weights) + step.square() * gram.diag()
        found = (weights @ along + step * along) / squared.clamp_min(1e-12).sqrt()
        inside = torch.arange(2 * side) // side == half
        taken = torch.tensor(chosen[0] + chosen[1], dtype=torch.long)
        free = inside & ~torch.isin(groups[candidates], groups[candidates[taken]])
        if not free.any():  # fewer photographs than pictures
            free = inside & ~torch.isin(candidates, candidates[taken])
        return int(found.masked_fill(~free, -torch.inf).argmax())

    for turn in range(2 * count):
        chosen[turn % 2].append(best(turn % 2))
    for _ in range(3):
        before = [list(rows) for rows in chosen]
        for half, rows in enumerate(chosen):
            for place in range(count):
                rows.pop(place)
                rows.insert(place, best(half))
        if before == list(chosen):
            break
    return candidates[chosen[0]], candidates[chosen[1]]


def has_prototypes(reference: ReferenceSet) -> bool:
    """Whether a reference set has its images at hand, and enough of them for prototypes."""
    return reference.has_images and len(reference) >= 2 * COUNT


def likeness(backend: Backend, reference: ReferenceSet) -> Tensor:
    """Features (N, D) of length 1, in which reference images are alike that show alike things; computed once."""

    def compute() -> Tensor:
        x, embedder = reference.embeddings(backend), getattr(backend, "embedder", None)
        extractor = backend.feature_extractor()
        if isinstance(embedder, DepthEmbedder):
            x = embedder.last_layers(x)
        elif extractor is not None:
            x = torch.cat([extractor(part) for part in x.split(256)])
        return unit_rows(x.flatten(1).cpu())

    return remembered(backend, f"likeness of {reference.key}", compute)
