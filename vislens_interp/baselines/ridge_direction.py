"""BrainACTIV: embeddings turned along the direction in which ridge regression predicts a region's response."""

from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor

from vislens_interp.backends.base import Backend
from vislens_interp.landscape.edit import interpolate, keep_norm
from vislens_interp.landscape.prior import ResponseScaler
from vislens_interp.targets.target import Target

if TYPE_CHECKING:
    from vislens_interp.method import Directions

Variant = Literal["closed_form", "ridge_cv"]

PENALTY = 10.0
PENALTIES = torch.logspace(-1, 5, 13, dtype=torch.float64)


class RidgeDirection:
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
        strength: SDEdit strength γ of the generation; 0.6 in all of them.
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
        strength: float = 0.6,
        project: bool = True,
        temperature: float = 0.01,
        natural: Tensor | None = None,
    ) -> None:
        if variant not in ("closed_form", "ridge_cv"):
            raise ValueError(f"variant={variant!r} is unknown; expected 'closed_form' or 'ridge_cv'.")
        for name, value in (("alpha", alpha), ("strength", strength)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value} must lie in [0, 1].")
        for name, value in (("penalty", penalty), ("temperature", temperature)):
            if value <= 0:
                raise ValueError(f"{name}={value} must be greater than 0.")
        self.variant: Variant = variant
        self.penalty, self.alpha, self.strength = penalty, alpha, strength
        self.project, self.temperature, self.natural = project, temperature, natural

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
        """Find each unit's direction.

        Args:
            target: Read for responses if None are given.
            backend: Carries images to embeddings and back.
            images: (N, 3, H, W) reference images.
            responses: (N, K) measured responses instead of the target's.
            progress: Show a bar.
            checkpoint: Not used; the fit takes a second.

        Returns:
            Itself.

        Raises:
            ValueError: Responses of another shape, or a unit that never varies.
        """
        self.target, self.backend = target, backend
        x = backend.encode(images).flatten(1)
        if responses is None:
            responses = target.responses(images, progress=progress)
        if responses.shape != (len(images), len(target.names)):
            raise ValueError(
                f"responses has shape {tuple(responses.shape)}; expected ({len(images)}, {len(target.names)}): a row "
                "for each image and a column for each unit."
            )
        scaler = ResponseScaler.fit(responses, list(target.names))  # refuses units that never vary
        codes = _unit(x.double())
        if self.variant == "closed_form":
            raw = responses.to(codes)
            gram = codes.T @ codes + self.penalty * torch.eye(codes.shape[1]).to(codes)
            weights = torch.linalg.solve(gram, codes.T @ raw)
            self.penalties_ = torch.full((raw.shape[1],), self.penalty, dtype=torch.float64)
        else:
            weights, self.penalties_ = ridge_cv(codes, scaler.standardise(responses).to(codes))
        self.directions_ = _unit(weights.T).to(x)
        natural = x if self.natural is None else self.natural.flatten(1).to(x)
        if natural.shape[1] != x.shape[1]:
            raise ValueError(
                f"natural has shape {tuple(natural.shape)}; expected (M, {x.shape[1]}), embeddings of this backend."
            )
        self.natural_ = _unit(natural)
        return self

    def towards(self, directions: "Directions") -> Tensor:
        """The unit vector (D,) that an edit in these directions turns to, projected if that was asked for."""
        chosen = [
            self.directions_[unit] * (1.0 if direction == "increase" else -1.0)
            for unit, direction in directions.items()
        ]
        goal = _unit(torch.stack(chosen).mean(0, keepdim=True))
        if self.project:
            scores = torch.log_softmax((goal @ self.natural_.T) / self.temperature, dim=1).exp()
            goal = _unit(scores @ self.natural_)
        return goal[0]

    def embeddings(self, x: Tensor, directions: "Directions", *, alpha: float | None = None) -> Tensor:
        """Embeddings (N, D) moved by slerp, each as long as it was."""
        if not directions:
            return x
        flat = x.flatten(1)
        goal = self.towards(directions) * flat.norm(dim=1, keepdim=True)
        moved = interpolate(flat, goal, self.alpha if alpha is None else alpha, "slerp")
        return keep_norm(moved, flat).view_as(x)  # within 0.001 rad of 0° and 180° the arc is a line, and shorter

    def generate(
        self,
        images: Tensor,
        directions: "Directions",
        *,
        seeds: list[int],
        alpha: float | None = None,
        strength: float | None = None,
    ) -> Tensor:
        """Images at the backend's size, moved in these directions: (N, 3, S, S) in [0, 1]."""
        x = self.embeddings(self.backend.encode(images), directions, alpha=alpha)
        strength = self.strength if strength is None else strength
        return self.backend.decode(x, reference=images, strength=strength, seeds=seeds).cpu()


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


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
