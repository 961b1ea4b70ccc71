"""What baselines that move an image's embedding share: responses are read, a goal is found, embeddings turn to it."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from vislens_interp.backends.base import Backend
from vislens_interp.landscape.edit import Interpolation, alpha_for_angle, interpolate, keep_norm
from vislens_interp.landscape.prior import DIRECTIONS, ResponseScaler
from vislens_interp.targets.cost import counted
from vislens_interp.targets.target import Target

if TYPE_CHECKING:
    from vislens_interp.method import Directions

SIGN = dict(zip(DIRECTIONS, (1.0, -1.0), strict=True))


class EmbeddingEdit(ABC):
    """Moves each embedding towards a goal, by weight or by angle, and generates from what comes out.

    Subclasses say what they learn (:meth:`learn`) and where an edit leads (:meth:`goal`).

    Args:
        alpha: Place between the embedding (0) and the goal (1).
        angle: Turn every embedding by so many degrees instead, as far as its goal allows: what methods are compared
            at, for α means something else to each.
        strength: SDEdit strength γ of the generation; None is the backend's.

    Every edited embedding keeps the length of the image's own, for generators read the length too.
    """

    interpolation: Interpolation = "slerp"

    def __init__(self, *, alpha: float = 0.75, angle: float | None = None, strength: float | None = None) -> None:
        check_weights(alpha=alpha, strength=strength)
        if angle is not None and not 0 <= angle <= 180:
            raise ValueError(f"angle={angle} must lie in [0, 180]: the degrees by which an embedding turns.")
        self.alpha, self.angle, self.strength = alpha, angle, strength

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
        """Learn from reference images.

        Args:
            target: Read for responses if None are given.
            backend: Carries images to embeddings and back.
            images: (N, 3, H, W) reference images.
            responses: (N, K) measured responses instead of the target's.
            progress: Show a bar.
            checkpoint: Not used; the fit takes seconds.

        Returns:
            Itself.

        Raises:
            ValueError: Responses of another shape, or a unit that never varies.
        """
        self.target, self.backend = target, backend
        responses = read_responses(target, images, responses, progress=progress)
        scaler = ResponseScaler.fit(responses, list(target.names))  # refuses units that never vary
        x = backend.encode(images).flatten(1)
        self.learn(x, responses.to(x), scaler.standardise(responses).to(x))
        return self

    @abstractmethod
    def learn(self, x: Tensor, responses: Tensor, standard: Tensor) -> None:
        """Keep what goals are made of.

        Args:
            x: (N, D) embeddings of the reference images.
            responses: (N, K) raw.
            standard: (N, K) standardised.
        """

    @abstractmethod
    def goal(self, x: Tensor, directions: "Directions") -> Tensor:
        """Where α = 1 leads: (N, D) or (D,), for embeddings (N, D)."""

    def embeddings(self, x: Tensor, directions: "Directions", *, alpha: float | None = None) -> Tensor:
        """Embeddings (N, ...) after the edit, each as long as it was; no direction leaves them as they are."""
        if not directions:
            return x
        flat = x.flatten(1)
        goal = self.goal(flat, directions)
        weight: Tensor | float = self.alpha if alpha is None else alpha
        if alpha is None and self.angle is not None:
            weight, _ = alpha_for_angle(flat, goal, self.angle, interpolation=self.interpolation)
        return keep_norm(interpolate(flat, goal, weight, self.interpolation), flat).view_as(x)

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
        """Images at the backend's size, moved in these directions: (N, 3, S, S) in [0, 1]."""
        x = self.embeddings(self.backend.encode(images), directions, alpha=alpha)
        return decode(self.backend, x, images, strength if strength is not None else self.strength, seeds)


class DirectionEdit(EmbeddingEdit):
    """An edit along one unit vector for each unit, by slerp; several units: along the mean of theirs.

    Attributes (after ``fit``):
        directions_: (K, D) unit vectors of increase.
    """

    directions_: Tensor

    def goal(self, x: Tensor, directions: "Directions") -> Tensor:
        return self.towards(directions) * x.norm(dim=1, keepdim=True)

    def towards(self, directions: "Directions") -> Tensor:
        """The unit vector (D,) that an edit in these directions turns to."""
        chosen = [self.directions_[unit] * SIGN[direction] for unit, direction in directions.items()]
        return unit_rows(torch.stack(chosen).mean(0, keepdim=True))[0]


def read_responses(target: Target, images: Tensor, responses: Tensor | None, *, progress: bool = False) -> Tensor:
    """The given responses (N, K), checked, or the target's own to these images."""
    if responses is None:
        responses = target.responses(images, progress=progress)
    if responses.shape != (len(images), len(target.names)):
        raise ValueError(
            f"responses has shape {tuple(responses.shape)}; expected ({len(images)}, {len(target.names)}): a row for "
            "each image and a column for each unit."
        )
    return responses


def decode(backend: Backend, x: Tensor, images: Tensor, strength: float | None, seeds: list[int]) -> Tensor:
    """Images of embeddings, at the backend's own strength where none is given; on the CPU.

    Where x is the picture itself, a straight edit leaves the range of pictures, and is clipped to it.
    """
    strength = backend.defaults.strength if strength is None else strength
    return backend.decode(x, reference=images, strength=strength, seeds=seeds).clamp(0, 1).cpu()


def unit_rows(rows: Tensor) -> Tensor:
    """Rows (N, D) of length 1; a row of zeros stays."""
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)


def check_weights(**weights: float | None) -> None:
    """Raise ValueError for a weight outside of [0, 1]; None passes."""
    for name, value in weights.items():
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name}={value} must lie in [0, 1].")
