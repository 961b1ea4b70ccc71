"""Methods that optimise pixels by the gradient of the response: pixels in, pixels out, no embedding."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from vislens_interp.images import resize
from vislens_interp.landscape.prior import signed
from vislens_interp.math import full_chunks
from vislens_interp.methods.base import Directions, Method
from vislens_interp.validation import check_counts

ATTEMPTS = 10
"""How often a start is drawn for a unit that stays silent."""


class ImageAscent(Method):
    """Optimises pictures at the backend's size by the target's gradient; a backend has no other say in it.

    Subclasses say where a picture starts (:meth:`initial`) and how it is optimised (:meth:`ascend`).

    Args:
        steps: Gradient steps.
        chunk: Pictures optimised together; chunks are always filled up (:func:`~vislens_interp.math.full_chunks`), for
            many steps amplify the last bit.
    """

    needs_gradients = True

    def __init__(self, *, steps: int, chunk: int) -> None:
        check_counts(steps=steps, chunk=chunk)
        self.steps, self.chunk = steps, chunk

    def _generate(
        self, images: Tensor, directions: Directions, seeds: list[int], alpha: float | None, strength: float | None
    ) -> tuple[Tensor, None]:
        images = resize(images.float(), self.backend.size).to(self.target.device)
        made = []
        for rows, own in full_chunks(len(images), self.chunk):
            rows = rows if directions else rows[:own]
            generators = [torch.Generator().manual_seed(seeds[row]) for row in rows.tolist()]
            with torch.enable_grad():
                if directions:
                    part = self.ascend(images[rows], directions, generators)
                else:
                    part = self.initial(images[rows], generators)
            made.append(part.detach()[:own])
        return torch.cat(made).clamp(0, 1).float(), None

    def initial(self, images: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Pictures (N, 3, S, S) before the first step: the images, or what one generator each makes."""
        return images

    @abstractmethod
    def ascend(self, images: Tensor, directions: Directions, generators: list[torch.Generator]) -> Tensor:
        """Pictures (N, 3, S, S) after the last step."""

    def wanted(self, pictures: Tensor, directions: Directions) -> Tensor:
        """Response in the wanted directions, in SDs and summed over units: (N,)."""
        return signed(self.scaler_.standardise(self.target(pictures)), directions)


class AscentFromNoise(ImageAscent):
    """Optimises parameters (N, ...) that are drawn from noise: the image to edit has no say, a picture's seed makes it.

    Subclasses say how parameters are drawn (:meth:`draw`), what pictures they are (:meth:`picture`) and what the
    target sees of these (:meth:`look`), several looks of each, one picture after another.
    """

    lr: float
    optimizer: type[torch.optim.Optimizer] = torch.optim.Adam

    @abstractmethod
    def draw(self, generators: list[torch.Generator], attempt: int = 0) -> Tensor:
        """Parameters to start from, one generator a picture."""

    @abstractmethod
    def picture(self, parameters: Tensor) -> Tensor:
        """Parameters to pictures (N, 3, S, S) in [0, 1]."""

    @abstractmethod
    def look(self, parameters: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Parameters to what the target sees of their pictures."""

    def initial(self, images: Tensor, generators: list[torch.Generator]) -> Tensor:
        return self.picture(self.draw(generators))

    def ascend(self, images: Tensor, directions: Directions, generators: list[torch.Generator]) -> Tensor:
        parameters = self._awake(directions, generators).requires_grad_()

        def loss() -> Tensor:
            return -self.wanted(self.look(parameters, generators), directions).view(len(parameters), -1).mean(1)

        minimise([parameters], self.optimizer([parameters], lr=self.lr), loss, self.steps)  # pyright: ignore[reportCallIssue]
        return self.picture(parameters)

    def _awake(self, directions: Directions, generators: list[torch.Generator]) -> Tensor:
        """Parameters (N, ...) to start from, drawn again where the unit is silent and so has no gradient.

        Lucid sends gradients through silent ReLUs in the first steps. A target exposes no layers, so that cannot be
        done here.
        """
        parameters = self.draw(generators)
        for attempt in range(1, ATTEMPTS):
            parameters.requires_grad_()
            same = [torch.Generator().manual_seed(attempt) for _ in generators]  # their own draws are for the ascent
            seen = self.look(parameters, same)
            (gradient,) = torch.autograd.grad(self.wanted(seen, directions).sum(), parameters)
            parameters = parameters.detach()
            silent = (gradient.flatten(1) == 0).all(1).nonzero()[:, 0].tolist()
            if not silent:
                break
            parameters[silent] = self.draw([generators[row] for row in silent], attempt)
        return parameters


def minimise(
    parameters: list[Tensor], optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], steps: int
) -> None:
    """Step down the sum of a loss (N,), a row of each parameter a picture; gradients reach nothing else."""
    for _ in range(steps):
        for one, gradient in zip(parameters, torch.autograd.grad(loss().sum(), parameters), strict=True):
            one.grad = gradient
        optimizer.step()
