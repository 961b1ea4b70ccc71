"""The algebraic twin: what the paper's landscape comes to when encoder, decoder and edit are linear."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vislens_interp.baselines.embedding_edit import SIGN, EmbeddingEdit
from vislens_interp.landscape.edit import Interpolation

if TYPE_CHECKING:
    from vislens_interp.method import Directions


class Centroids(EmbeddingEdit):
    """Move an embedding to a centroid of reference embeddings weighted by r·|r|: those with r > 0, or those with r < 0.

    With linear encoder and decoder, decode(μ_pos) is one point, and an image's pull towards the prior mean grows as
    the square of its response: close to this centroid, for which nothing needs training. What a landscape is worth
    beyond it shows in the difference.

    Args:
        alpha: Weight of the centroid, 0 to 1.
        interpolation: ``"lerp"``, as in Sec. 4.3.1, or ``"slerp"``, as in Algorithm 2.
        angle: Degrees to turn by instead of ``alpha``, as far as the centroid lies away.
        strength: SDEdit strength γ; None is the backend's.

    Attributes (after ``fit``):
        centroids_: Direction to (K, D).

    Source: ours, after Vis-Lens, Eq. 1 to 4 and Sec. 4.3.1: at σ_prior = λ / (|r| + ε) the KLD weighs the distance to
    the mean by about r². Several units: the mean of their centroids.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.75,
        interpolation: Interpolation = "lerp",
        angle: float | None = None,
        strength: float | None = None,
    ) -> None:
        super().__init__(alpha=alpha, angle=angle, strength=strength)
        if interpolation not in ("lerp", "slerp"):
            raise ValueError(f"interpolation={interpolation!r} is unknown; expected 'lerp' or 'slerp'.")
        self.interpolation = interpolation

    def learn(self, x: Tensor, responses: Tensor, standard: Tensor) -> None:
        self.centroids_ = {}
        for direction, sign in SIGN.items():
            weights = (sign * standard * standard.abs()).clamp_min(0)
            self.centroids_[direction] = ((x.T @ weights) / weights.sum(0)).T

    def goal(self, x: Tensor, directions: "Directions") -> Tensor:
        return torch.stack([self.centroids_[direction][unit] for unit, direction in directions.items()]).mean(0)
