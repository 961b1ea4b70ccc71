"""What baselines that climb a response by the gradient of a picture share: pixels in, pixels out, no embedding."""

from abc import ABC, abstractmethod
from collections.abc import Callable
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


class ImageAscent(ABC):
    """Optimises pictures at the backend's size by the target's gradient; a backend has no other say in it.

    Subclasses say where a picture starts (:meth:`start`) and how it climbs (:meth:`ascend`).

    Args:
        steps: Gradient steps.
        chunk: Pictures optimised together. Chunks are always filled up to this size, so that a picture's numerics,
            which many steps would amplify, do not depend on how many came with it.

    Attributes (after ``fit``):
        scaler_: The scale of the responses, which are climbed in SDs.
    """

    def __init__(self, *, steps: int, chunk: int) -> None:
        check_counts(steps=steps, chunk=chunk)
        self.steps, self.chunk = steps, chunk

    def refuse(self, target: Target, backend: Backend) -> None:
        """Raise ValueError for a target without gradients, before anything is computed."""
        if not target.differentiable:
            raise ValueError(
                f"{type(self).__name__} needs gradients from the picture to the response, and this target has none. "
                "Use 'cma_es', or an edit such as 'ridge_pattern', which only ask for responses."
            )

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
        """Learn the scale of the responses alone; arguments as for every method.

        Raises:
            ValueError: The target has no gradients, responses are of another shape, or a unit never varies.
        """
        self.refuse(target, backend)
        self.target, self.backend = target, backend
        responses = read_responses(target, images, responses, progress=progress)
        self.scaler_ = ResponseScaler.fit(responses, list(target.names))
        return self

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
        """Pictures at the backend's size, (N, 3, S, S) in [0, 1]; no direction gives what the ascent starts from.

        ``alpha`` and ``strength`` play no part.
        """
        if len(seeds) != len(images):
            raise ValueError(f"seeds has {len(seeds)} entries for {len(images)} images; expected one an image.")
        images = resize(images.float(), self.backend.size).to(self.target.device)
        made = []
        for rows in torch.arange(len(images)).split(self.chunk):
            padded = torch.cat([rows, rows[-1:].expand(self.chunk - len(rows))]) if directions else rows
            generators = [torch.Generator().manual_seed(seeds[row]) for row in padded.tolist()]
            with torch.enable_grad():
                if directions:
                    part = self.ascend(images[padded], directions, generators)
                else:
                    part = self.start(images[padded], generators)
            made.append(part.detach()[: len(rows)])
        return torch.cat(made).clamp(0, 1).float().cpu()

    @abstractmethod
    def start(self, images: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Pictures (N, 3, S, S) before the first step, from the images or from one generator each."""

    @abstractmethod
    def ascend(self, images: Tensor, directions: "Directions", generators: list[torch.Generator]) -> Tensor:
        """Pictures (N, 3, S, S) after the last step."""

    def wanted(self, pictures: Tensor, directions: "Directions") -> Tensor:
        """Response in the wanted directions, in SDs and summed over units: (N,)."""
        return self.signed(self.target(pictures), directions)

    def signed(self, responses: Tensor, directions: "Directions") -> Tensor:
        """Raw responses (N, K) to what is wanted of them: in SDs, large where they lie in the directions, (N,)."""
        read = self.scaler_.standardise(responses)
        return torch.stack([SIGN[direction] * read[:, unit] for unit, direction in directions.items()]).sum(0)


def climb(parameters: list[Tensor], optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], steps: int) -> None:
    """Step down the sum of a loss (N,), a row of each parameter a picture; gradients reach nothing else."""
    for _ in range(steps):
        for one, gradient in zip(parameters, torch.autograd.grad(loss().sum(), parameters), strict=True):
            one.grad = gradient
        optimizer.step()


def check_counts(**counts: int) -> None:
    """Raise ValueError for a count below 1."""
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")


def check_positive(**values: float) -> None:
    """Raise ValueError for a value that is not greater than 0."""
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{name}={value} must be greater than 0.")
