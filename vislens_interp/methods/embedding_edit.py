"""Methods that move an image's embedding towards a goal, by weight or by angle, and generate from it."""

from abc import abstractmethod
from pathlib import Path

import torch
from torch import Tensor

from vislens_interp.backends.base import Backend
from vislens_interp.landscape.edit import Interpolation, alpha_for_angle, interpolate
from vislens_interp.landscape.prior import SIGN
from vislens_interp.math import keep_norm, unit_rows
from vislens_interp.methods.base import Directions, Method
from vislens_interp.reference import ReferenceSet
from vislens_interp.validation import check_number, check_shares


class EmbeddingEdit(Method):
    """Moves each embedding towards a goal and generates from what comes out; an edited embedding keeps its length.

    Subclasses say what they learn (:meth:`learn`) and where an edit leads (:meth:`goal`).

    Args:
        alpha: Place between the embedding (0) and the goal (1).
        angle: Turn every embedding by so many degrees instead, as far as its goal allows: what methods are compared
            at, for α means something else to each.
        strength: SDEdit strength γ of the generation; None is the backend's.
    """

    uses_alpha = uses_strength = True
    interpolation: Interpolation = "slerp"

    def __init__(self, *, alpha: float = 0.75, angle: float | None = None, strength: float | None = None) -> None:
        check_shares(alpha=alpha, strength=strength)
        check_number("angle", angle or 0)
        if angle is not None and not 0 <= angle <= 180:
            raise ValueError(f"angle={angle} must lie in [0, 180]: the degrees by which an embedding turns.")
        self.alpha, self.angle, self.strength = alpha, angle, strength

    @property
    def own_alpha(self) -> float | None:
        return self.alpha if self.angle is None else None

    def _fit(self, reference: ReferenceSet, *, progress: bool, checkpoint: Path | None) -> None:
        responses = reference.responses
        assert responses is not None  # an edit uses responses
        x = reference.embeddings(self.backend).flatten(1)
        self.learn(x, responses.to(x), self.scaler_.standardise(responses).to(x))

    @abstractmethod
    def learn(self, x: Tensor, responses: Tensor, standard: Tensor) -> None:
        """Keep what goals are made of.

        Args:
            x: (N, D) embeddings of the reference images.
            responses, standard: (N, K) raw and standardised.
        """

    @abstractmethod
    def goal(self, x: Tensor, directions: Directions) -> Tensor:
        """Where α = 1 leads: (N, D) or (D,), for embeddings (N, D)."""

    def embeddings(self, x: Tensor, directions: Directions, *, alpha: float | None = None) -> Tensor:
        """Embeddings (N, ...) after the edit, each as long as it was; no direction leaves them as they are."""
        if not directions:
            return x
        flat = x.flatten(1)
        goal = self.goal(flat, directions)
        weight: Tensor | float | None = self.own_alpha if alpha is None else alpha
        if weight is None:
            assert self.angle is not None  # own_alpha is None only then
            weight, _ = alpha_for_angle(flat, goal, self.angle, interpolation=self.interpolation)
        return keep_norm(interpolate(flat, goal, weight, self.interpolation), flat).view_as(x)

    def _generate(
        self, images: Tensor, directions: Directions, seeds: list[int], alpha: float | None, strength: float | None
    ) -> tuple[Tensor, None]:
        x = self.embeddings(self.encode(images), directions, alpha=alpha)
        return decode(self.backend, x, images, strength, seeds), None


class DirectionEdit(EmbeddingEdit):
    """An edit along one unit vector for each unit, by slerp; several units: along the mean of theirs.

    Attributes (after ``fit``):
        directions_: (K, D) unit vectors of increase.
    """

    directions_: Tensor

    def goal(self, x: Tensor, directions: Directions) -> Tensor:
        return self.towards(directions) * x.norm(dim=1, keepdim=True)

    def towards(self, directions: Directions) -> Tensor:
        """The unit vector (D,) that an edit in these directions turns to."""
        chosen = [self.directions_[unit] * SIGN[sense] for unit, sense in directions.items()]
        return unit_rows(torch.stack(chosen).mean(0, keepdim=True))[0]


def decode(backend: Backend, x: Tensor, images: Tensor, strength: float | None, seeds: list[int]) -> Tensor:
    """Images of embeddings, refined from ``images`` at ``strength``.

    Where x is the picture itself, a straight edit leaves the range of pictures, and is clipped to it.
    """
    assert strength is not None  # who decodes uses a strength
    return backend.decode(x, init_image=images, strength=strength, seeds=seeds).clamp(0, 1)
