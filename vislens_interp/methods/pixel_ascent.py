"""Methods that optimise pixels by the gradient of the response: pixels in, pixels out, no embedding."""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from vislens_interp.images import resize
from vislens_interp.landscape.prior import ResponseScaler
from vislens_interp.methods.base import Directions, Method, check_counts
from vislens_interp.methods.embedding_edit import signed
from vislens_interp.reference import ReferenceSet

ATTEMPTS = 10
"""How often a start is drawn for a unit that stays silent."""


class ImageAscent(Method):
    """Optimises pictures at the backend's size by the target's gradient; a backend has no other say in it.

    Subclasses say where a picture starts (:meth:`initial`) and how it is optimised (:meth:`ascend`).

    Args:
        steps: Gradient steps.
        chunk: Pictures optimised together. Chunks are always filled up to this size, so that a picture's numerics,
            which many steps would amplify, do not depend on how many came with it.

    Attributes (after ``fit``):
        scaler_: The scale of the responses, which are optimised in SDs.
    """

    needs_gradients = True

    def __init__(self, *, steps: int, chunk: int) -> None:
        check_counts(steps=steps, chunk=chunk)
        self.steps, self.chunk = steps, chunk

    def _fit(self, reference: ReferenceSet, *, progress: bool, checkpoint: Path | None) -> None:
        assert reference.responses is not None  # the scale uses responses
        self.scaler_ = ResponseScaler.fit(reference.responses, list(self.target.names))

    def _generate(
        self, images: Tensor, directions: Directions, seeds: list[int], alpha: float | None, strength: float | None
    ) -> tuple[Tensor, None]:
        images = resize(images.float(), self.backend.size).to(self.target.device)
        made = []
        for rows in torch.arange(len(images)).split(self.chunk):
            padded = torch.cat([rows, rows[-1:].expand(self.chunk - len(rows))]) if directions else rows
            generators = [torch.Generator().manual_seed(seeds[row]) for row in padded.tolist()]
            with torch.enable_grad():
                if directions:
                    part = self.ascend(images[padded], directions, generators)
                else:
                    part = self.initial(images[padded], generators)
            made.append(part.detach()[: len(rows)])
        return torch.cat(made).clamp(0, 1).float(), None

    @abstractmethod
    def initial(self, images: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Pictures (N, 3, S, S) before the first step, from the images or from one generator each."""

    @abstractmethod
    def ascend(self, images: Tensor, directions: Directions, generators: list[torch.Generator]) -> Tensor:
        """Pictures (N, 3, S, S) after the last step."""

    def awake(
        self,
        draw: Callable[[list[torch.Generator], int], Tensor],
        look: Callable[[Tensor, list[torch.Generator]], Tensor],
        directions: Directions,
        generators: list[torch.Generator],
    ) -> Tensor:
        """Parameters (N, ...) to start from, drawn again where the unit is silent and so has no gradient.

        Lucid sends gradients through silent ReLUs in the first steps. A target exposes no layers, so that cannot be
        done here.

        Args:
            draw: Generators and the number of the attempt to parameters.
            look: Parameters and generators to what the target sees of the pictures.
            directions: What is wanted.
            generators: One a picture.
        """
        parameters = draw(generators, 0)
        for attempt in range(1, ATTEMPTS):
            parameters.requires_grad_()
            same = [torch.Generator().manual_seed(attempt) for _ in generators]  # their own draws are for the ascent
            seen = look(parameters, same)
            (gradient,) = torch.autograd.grad(self.wanted(seen, directions).sum(), parameters)
            parameters = parameters.detach()
            silent = (gradient.flatten(1) == 0).all(1).nonzero()[:, 0].tolist()
            if not silent:
                break
            parameters[silent] = draw([generators[row] for row in silent], attempt)
        return parameters

    def wanted(self, pictures: Tensor, directions: Directions) -> Tensor:
        """Response in the wanted directions, in SDs and summed over units: (N,)."""
        return self.signed(self.target(pictures), directions)

    def signed(self, responses: Tensor, directions: Directions) -> Tensor:
        """Raw responses (N, K) to what is wanted of them: in SDs, large where they lie in the directions, (N,)."""
        return signed(self.scaler_.standardise(responses), directions)


def minimise(
    parameters: list[Tensor], optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], steps: int
) -> None:
    """Step down the sum of a loss (N,), a row of each parameter a picture; gradients reach nothing else."""
    for _ in range(steps):
        for one, gradient in zip(parameters, torch.autograd.grad(loss().sum(), parameters), strict=True):
            one.grad = gradient
        optimizer.step()
