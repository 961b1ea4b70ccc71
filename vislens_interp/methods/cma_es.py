"""Gradient-free search: CMA-ES moves an embedding by what the target answers to its pictures, and by nothing else."""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from vislens_interp.backends.base import Backend
from vislens_interp.landscape.prior import signed
from vislens_interp.math import keep_norm
from vislens_interp.methods.base import Directions, Method
from vislens_interp.methods.embedding_edit import decode
from vislens_interp.reference import ReferenceSet
from vislens_interp.targets.target import Target
from vislens_interp.validation import check_counts, check_positive, check_shares, missing_library

RENDERED = 16
"""Pictures rendered at a time."""


class EmbeddingSearch(Method):
    """Evolve each image's x for a unit by CMA-ES, along the principal components of the reference set.

    A candidate is x + Σ c_k s_k v_k, with the reference set's components v and their SDs s; an embedding keeps its
    length. It is rendered without refinement, as an optimisation sees it, and ranked by the target's response. The best
    candidate, the image's own x among them, is decoded.

    Args:
        generations, population: Rounds, and candidates a round; None is 4 + 3 ln(components), CMA-ES's own rule.
        sigma: SD of the first round, in SDs of the components.
        components: Principal components that are searched, as many as there are at most.
        strength: SDEdit strength γ; None is the backend's.

    Attributes (after ``fit``):
        basis_: (components, D) principal components, each as long as its SD.

    Source: Hansen 2016, "The CMA Evolution Strategy: A Tutorial", as the package cmaes has it; for units, XDREAM (Ponce
    et al. 2019; Xiao and Kreiman 2020), and Wang and Ponce 2022, who found CMA-ES the best of twelve searches, in the
    4,096 dimensions of a GAN with under 3,000 pictures. Deviations: the backend's x and its principal components in
    the place of the GAN's code; the search starts from the image to edit; fewer pictures.
    """

    uses_strength = True

    def __init__(
        self,
        *,
        generations: int = 25,
        population: int | None = None,
        sigma: float = 0.5,
        components: int = 64,
        strength: float | None = None,
    ) -> None:
        check_counts(generations=generations, components=components, population=population or 4)
        if components < 2:
            raise ValueError(f"components={components} must be at least 2, the fewest that CMA-ES searches.")
        if population is not None and population < 4:
            raise ValueError(f"population={population} must be at least 4, or None for CMA-ES's own rule.")
        check_positive(sigma=sigma)
        check_shares(strength=strength)
        self.generations, self.population, self.sigma = generations, population, sigma
        self.components, self.strength = components, strength

    def validate(self, target: Target, backend: Backend) -> None:
        """Raise ImportError where the package cmaes is missing, before anything is computed."""
        if find_spec("cmaes") is None:
            raise missing_library("EmbeddingSearch needs the package cmaes", "search")

    def _fit(self, reference: ReferenceSet, *, progress: bool, checkpoint: Path | None) -> None:
        x = reference.embeddings(self.backend).flatten(1).cpu().double()
        _, lengths, directions = torch.linalg.svd(x - x.mean(0), full_matrices=False)
        kept = min(self.components, int((lengths > 1e-9 * lengths[0]).sum()))
        if kept < 2:
            raise ValueError(
                f"{len(x)} reference images have {kept} principal component(s); expected at least 2, the fewest that "
                "CMA-ES searches. Pass more images that differ."
            )
        self.basis_ = (directions[:kept] * (lengths[:kept, None] / len(x) ** 0.5)).float()

    @torch.no_grad()
    def embeddings(self, x: Tensor, directions: Directions, *, seeds: list[int]) -> Tensor:
        """The best x found for each (N, ...), a search of its own with its own seed; no direction leaves them."""
        if not directions:
            return x
        return torch.stack([self._search(one[None], directions, seed)[0] for one, seed in zip(x, seeds, strict=True)])

    def _search(self, x: Tensor, directions: Directions, seed: int) -> Tensor:
        import numpy as np
        from cmaes import CMA

        start = np.zeros(len(self.basis_))
        search = CMA(start, self.sigma, population_size=self.population, seed=seed % 2**32)
        best, most = x, self._wanted(x, directions).item()
        for _ in range(self.generations):
            asked = [search.ask() for _ in range(search.population_size)]
            candidates = self._moved(x, torch.from_numpy(np.stack(asked)))
            found = self._wanted(candidates, directions)
            search.tell([(code, -value) for code, value in zip(asked, found.tolist(), strict=True)])
            if found.max() > most:
                most, best = found.max().item(), candidates[found.argmax()][None]
        return best

    def _moved(self, x: Tensor, codes: Tensor) -> Tensor:
        """x (1, ...) with these steps along the components (n, k): (n, ...)."""
        moved = x.flatten(1) + (codes.to(self.basis_) @ self.basis_).to(x)
        if x.ndim == 2:
            moved = keep_norm(moved, x.expand(len(moved), -1))
        return moved.view(-1, *x.shape[1:])

    def _wanted(self, x: Tensor, directions: Directions) -> Tensor:
        """Response in the wanted directions to the pictures of x, in SDs and summed over units: (n,)."""
        pictures = (self.backend.render(part).clamp(0, 1) for part in x.split(RENDERED))
        responses = torch.cat([self.target.responses(picture) for picture in pictures])
        return signed(self.scaler_.standardise(responses), directions)

    def _generate(
        self, images: Tensor, directions: Directions, seeds: list[int], alpha: float | None, strength: float | None
    ) -> tuple[Tensor, None]:
        x = self.embeddings(self.encode(images), directions, seeds=seeds)
        return decode(self.backend, x, images, strength, seeds), None
