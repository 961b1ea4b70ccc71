"""BrainACTIV: embeddings turned along the direction in which ridge regression predicts a region's response."""

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from vislens_interp.baselines.embedding_edit import DirectionEdit, unit_rows

if TYPE_CHECKING:
    from vislens_interp.method import Directions

Variant = Literal["closed_form", "ridge_cv"]

PENALTY = 10.0
PENALTIES = torch.logspace(-1, 5, 13, dtype=torch.float64)


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
        alpha: Place on the arc, 0 the image, 1 the direction. Released: 0.5 (class), 0.7 (demo), 0.75 (experiment 1).
        angle: Degrees to turn by instead of ``alpha``.
        strength: SDEdit strength γ of the generation; 0.6 in all of them. None is the backend's.
        project: Whether the direction is projected onto natural embeddings.
        temperature: Of that projection's softmax; 0.01.
        natural: (M, ...) embeddings to project onto; None takes those of the images that it was fitted on.

    Attributes (after ``fit``):
        directions_: (K, D) unit vectors of increase.
        penalties_: (K,) the penalties that were used.

    Source: García Cerdas et al., ICLR 2025, and github.com/diegogcerdas/BrainACTIV: ``dataset/nsd_clip.py``,
    ``methods/projection.py``, ``methods/slerp.py`` (commit a1ca291a); ``brainactiv/pipeline.py``,
    ``brainactiv/config.py`` (commit b3898832). Deviations:

    - Slerp keeps lengths everywhere. The released one returns a vector of length about 1, whatever the embedding's,
      where the two are nearly parallel or opposite (|cos| above 0.9995).
    - The projection is a softmax in log space; the released exponential of a cosine over 0.01 overflows float32 from a
      cosine of 0.887 on (the older code works in float128 for it).
    - The release projects onto 400,000 images from LAION; by default this takes the reference set.
    - Several units at once: their unit vectors are averaged and brought to unit length, as the release does with
      several subjects.
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
        if variant not in ("closed_form", "ridge_cv"):
            raise ValueError(f"variant={variant!r} is unknown; expected 'closed_form' or 'ridge_cv'.")
        super().__init__(alpha=alpha, angle=angle, strength=strength)
        for name, value in (("penalty", penalty), ("temperature", temperature)):
            if value <= 0:
                raise ValueError(f"{name}={value} must be greater than 0.")
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
            weights, self.penalties_ = ridge_cv(codes, standard.to(codes))
        self.directions_ = unit_rows(weights.T).to(x)
        natural = x if self.natural is None else self.natural.flatten(1).to(x)
        if natural.shape[1] != x.shape[1]:
            raise ValueError(
                f"natural has shape {tuple(natural.shape)}; expected (M, {x.shape[1]}), embeddings of this backend."
            )
        self.natural_ = unit_rows(natural)

    def towards(self, directions: "Directions") -> Tensor:
        """The unit vector (D,) that an edit in these directions turns to, projected if that was asked for."""
        goal = super().towards(directions)
        if not self.project:
            return goal
        scores = torch.log_softmax((goal[None] @ self.natural_.T) / self.temperature, dim=1).exp()
        return unit_rows(scores @ self.natural_)[0]


def ridge_cv(x: Tensor, responses: Tensor, penalties: Tensor = PENALTIES) -> tuple[Tensor, Tensor]:
    """Ridge regression with a bias, the penalty of each target by its leave-one-out error.

    Args:
        x: (N, D), float64.
        responses: (N, K), float64.
        penalties: (P,) to choose from.

    Returns:
        (D, K) weights and (K,) penalties.

    Source: what scikit-learn's ``RidgeCV(alphas=..., cv=None)`` computes for one target: left-out errors are residuals
    over 1 - leverage, exactly (Golub, Heath and Wahba 1979 and references there).
    """
    centred, targets = x - x.mean(0), responses - responses.mean(0)
    u, s, vt = torch.linalg.svd(centred, full_matrices=False)
    projected = u.T @ targets
    kept = s**2 / (s**2 + penalties.to(s)[:, None])
    errors = []
    for share in kept:
        fitted = u @ (share[:, None] * projected)
        leverage = u**2 @ share + 1 / len(x)  # the bias is a direction of its own, which no penalty touches
        errors.append((((targets - fitted) / (1 - leverage)[:, None]) ** 2).mean(0))
    best = torch.stack(errors).argmin(0)
    chosen = penalties.to(s)[best]
    weights = vt.T @ (s[:, None] / (s[:, None] ** 2 + chosen) * projected)
    return weights, chosen.cpu()
