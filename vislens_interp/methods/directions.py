"""Directions and goals in embedding space that are read from responses in closed form."""

from typing import Literal

import torch
from torch import Tensor

from vislens_interp.landscape.edit import Interpolation
from vislens_interp.landscape.prior import SIGN
from vislens_interp.math import ridge_loo, unit_rows
from vislens_interp.methods.base import Directions
from vislens_interp.methods.embedding_edit import DirectionEdit, EmbeddingEdit
from vislens_interp.validation import check_not_negative, check_positive, check_switches, check_word

Variant = Literal["closed_form", "ridge_cv"]

PENALTY = 10.0
"""λ of BrainACTIV's closed form."""


class RidgeDirection(DirectionEdit):
    """Turn an image's embedding towards where a unit's response grows, and generate from that (BrainACTIV).

    The direction is a unit's ridge weights on l2-normalised embeddings, brought to unit length: w to increase, -w to
    decrease. It is projected onto natural embeddings (a mean of their directions, weighted by softmax(cosine /
    temperature)), scaled to the length of the image's embedding, and the embedding is moved towards it by slerp.

    Args:
        variant: ``"closed_form"``: w = (XᵀX + 10 I)⁻¹ Xᵀr, without centring, as in the code of October 2024.
            ``"ridge_cv"``: z-scored responses, a bias, and the penalty out of 13 from 0.1 to 100,000 with the smallest
            leave-one-out error, as in the present code.
        penalty: λ of the closed form; 10 in the release.
        alpha: As :class:`EmbeddingEdit`, like ``angle``. Released: 0.5 (class), 0.7 (demo), 0.75 (experiment 1).
        strength: SDEdit strength γ; 0.6 in all of them. None is the backend's.
        project, temperature: Whether the direction is projected onto natural embeddings, and with what softmax.
        natural: (M, ...) embeddings to project onto; None takes the reference set's (released: 400,000 of LAION).

    Attributes (after ``fit``):
        directions_, penalties_: (K, D) unit vectors of increase; (K,) the penalties that were used.

    Source: García Cerdas et al., ICLR 2025, and github.com/diegogcerdas/BrainACTIV: ``dataset/nsd_clip.py``,
    ``methods/projection.py``, ``methods/slerp.py`` (commit a1ca291a); ``brainactiv/pipeline.py``,
    ``brainactiv/config.py`` (b3898832). Deviations: slerp keeps lengths everywhere (the released one gives length
    1 where |cos| is above 0.9995); the softmax is in log space, for the released exponential overflows float32 from a
    cosine of 0.887 on; unit vectors of several units are averaged, as the release does with several subjects.
    """

    def __init__(
        self,
        variant: Variant = "ridge_cv",
        *,
        penalty: float = PENALTY,
        alpha: float = 0.75,
        angle: float | None = None,
        strength: float | None = 0.6,
        project: bool = True,
        temperature: float = 0.01,
        natural: Tensor | None = None,
    ) -> None:
        check_word("variant", variant, ("closed_form", "ridge_cv"))
        super().__init__(alpha=alpha, angle=angle, strength=strength)
        check_positive(penalty=penalty, temperature=temperature)
        check_switches(project=project)
        self.variant: Variant = variant
        self.penalty = penalty
        self.project, self.temperature, self.natural = project, temperature, natural

    def learn(self, x: Tensor, responses: Tensor, standard: Tensor) -> None:
        codes = unit_rows(x.double())
        if self.variant == "closed_form":
            gram = codes.T @ codes + self.penalty * torch.eye(codes.shape[1]).to(codes)
            weights = torch.linalg.solve(gram, codes.T @ responses.to(codes))
            self.penalties_ = torch.full((responses.shape[1],), self.penalty, dtype=torch.float64)
        else:
            weights, self.penalties_, _ = ridge_loo(codes, standard.to(codes))
        self.directions_ = unit_rows(weights.T).to(x)
        natural = x if self.natural is None else self.natural.flatten(1).to(x)
        if natural.shape[1] != x.shape[1]:
            raise ValueError(
                f"natural has shape {tuple(natural.shape)}; expected (M, {x.shape[1]}), embeddings of this backend."
            )
        self.natural_ = unit_rows(natural)

    def towards(self, directions: Directions) -> Tensor:
        """The unit vector (D,) that an edit in these directions turns to, projected if that was asked for."""
        goal = super().towards(directions)
        if not self.project:
            return goal
        scores = torch.log_softmax((goal[None] @ self.natural_.T) / self.temperature, dim=1).exp()
        return unit_rows(scores @ self.natural_)[0]


class RidgePattern(DirectionEdit):
    """Turn an embedding along cov(x, ŝ) = Σ_x w, where ŝ = wᵀx is a ridge prediction of the unit's response.

    The filter w says how to read the response out of an embedding and is free to be large where embeddings hardly
    vary; its pattern says how embeddings differ where the response does. With Gaussian embeddings and a linear
    response it is the likeliest way to any change of the response.

    Args:
        alpha, angle, strength: As :class:`EmbeddingEdit`.

    Attributes (after ``fit``):
        directions_, penalties_: (K, D) unit vectors of increase; (K,) ridge penalties, each by its leave-one-out error.

    Source: Haufe et al. 2014, NeuroImage 87, Eq. 6 and 7: A = Σ_x W Σ_ŝ⁻¹, for one unit at a time, of which the
    direction is kept. The penalty is chosen as by BrainACTIV's ``RidgeCV``.
    """

    def learn(self, x: Tensor, responses: Tensor, standard: Tensor) -> None:
        centred = x.double() - x.double().mean(0)
        weights, self.penalties_, _ = ridge_loo(centred, standard.double())
        self.directions_ = unit_rows((centred.T @ (centred @ weights)).T).to(x.dtype).to(x.device)


class DifferenceOfMeans(DirectionEdit):
    """Turn an embedding along mean(x | r > t) - mean(x | r < -t), r in SDs: a unit's *pattern* by counting alone.

    Args:
        threshold: t, in SDs of the response; 0 divides the images in two. Where fewer than two images lie beyond it on
            a side, the two extreme ones are taken.
        alpha, angle, strength: As :class:`EmbeddingEdit`.

    Source: the concept vectors of Larsen et al. 2016, "Autoencoding beyond pixels", Sec. 4.3 (mean with minus mean
    without an attribute, added at weight 1). Deviations: a response takes the attribute's place; slerp instead of a
    sum, so that the edit angle is what is set.
    """

    def __init__(
        self,
        threshold: float = 0.0,
        *,
        alpha: float = 0.75,
        angle: float | None = None,
        strength: float | None = None,
    ) -> None:
        super().__init__(alpha=alpha, angle=angle, strength=strength)
        check_not_negative(threshold=threshold)
        self.threshold = threshold

    def learn(self, x: Tensor, responses: Tensor, standard: Tensor) -> None:
        self.directions_ = unit_rows((self._means(x, standard) - self._means(x, -standard)).T.contiguous())

    def _means(self, x: Tensor, standard: Tensor) -> Tensor:
        """Mean embedding (D, K) of the images that drive each unit beyond the threshold."""
        least = standard.topk(2, dim=0).values[1]  # of two images, at any rate
        chosen = ((standard > self.threshold) | (standard >= least)).to(x)
        return x.T @ (chosen / chosen.sum(0))


class Centroids(EmbeddingEdit):
    """Move an embedding to a centroid of reference embeddings weighted by r·|r|: those with r > 0, or those with r < 0.

    With linear encoder and decoder, an image's pull towards the prior mean grows as the square of its response, and
    decode(μ_pos) is close to this centroid, for which nothing needs training: what a landscape is worth beyond it
    shows in the difference.

    Args:
        alpha, angle, strength: As :class:`EmbeddingEdit`; the angle goes as far as the centroid lies away.
        interpolation: ``"lerp"``, as in Sec. 4.3.1, or ``"slerp"``, as in Algorithm 2.

    Attributes (after ``fit``):
        centroids_: Direction to (K, D).

    Source: ours, after Vis-Lens, Eq. 1 to 4 and Sec. 4.3.1. Several units: the mean of their centroids.
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
        check_word("interpolation", interpolation, ("lerp", "slerp"))
        self.interpolation = interpolation

    def learn(self, x: Tensor, responses: Tensor, standard: Tensor) -> None:
        weights = {sense: (sign * standard * standard.abs()).clamp_min(0) for sense, sign in SIGN.items()}
        self.centroids_ = {sense: ((x.T @ one) / one.sum(0)).T for sense, one in weights.items()}

    def goal(self, x: Tensor, directions: Directions) -> Tensor:
        return torch.stack([self.centroids_[direction][unit] for unit, direction in directions.items()]).mean(0)
