"""Controls: what a method makes of responses that mean nothing, and what generation does without an edit."""

from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from vislens_interp.backends.base import Backend
from vislens_interp.baselines.embedding_edit import check_weights, decode, read_responses
from vislens_interp.images import resize
from vislens_interp.targets.cost import Cost, counted
from vislens_interp.targets.target import Target

if TYPE_CHECKING:
    from vislens_interp.method import Directions


class Shuffled:
    """Another method, fitted on responses that were dealt out to the wrong images.

    What it changes, any edit of that size changes: a method has to beat it. With ``LandscapeMethod`` it is the
    shuffled-response landscape.

    Args:
        method: The method to fit, not fitted yet.
        seed: Of the permutation, the same for all units, so that what units have in common is kept.

    Source: permutation control, Vis-Lens does not report one.
    """

    def __init__(self, method: Any, *, seed: int = 0) -> None:
        if not (hasattr(method, "fit") and hasattr(method, "generate")):
            raise TypeError(
                f"method is a {type(method).__name__}; expected an object with fit and generate, such as "
                "LandscapeMethod()."
            )
        self.method, self.seed = method, seed

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
        """Fit the method on permuted responses; arguments as for every method."""
        responses = read_responses(target, images, responses, progress=progress)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.seed))
        self.method.fit(target, backend, images, responses[order.to(responses.device)], progress=progress)
        return self

    def embeddings(self, x: Tensor, directions: "Directions", **settings: Any) -> Tensor:
        """As the method's."""
        return self.method.embeddings(x, directions, **settings)

    def generate(self, images: Tensor, directions: "Directions", *, seeds: list[int], **settings: Any) -> Tensor:
        """As the method's."""
        return self.method.generate(images, directions, seeds=seeds, **settings)

    def refuse(self, target: Target, backend: Backend) -> None:
        """As the method."""
        if hasattr(self.method, "refuse"):
            self.method.refuse(target, backend)

    @property
    def cost_(self) -> Cost:
        """As the method's."""
        return self.method.cost_


def shuffled_landscape(*, seed: int = 0, **settings: Any) -> Shuffled:
    """The landscape of these settings (:class:`~vislens_interp.method.LandscapeMethod`) on shuffled responses.

    Args:
        seed: Of the fit; the permutation's is the next one.
        settings: Of the landscape.
    """
    from vislens_interp.method import LandscapeMethod

    return Shuffled(LandscapeMethod(**{"shuffles": 0, "seed": seed, **settings}), seed=seed + 1)


class Unedited:
    """α = 0: the image's own embedding through the same generator, whatever the direction.

    Everything that generation does by itself is in here; a response change is counted from it.

    Args:
        strength: SDEdit strength γ; None is the backend's.
    """

    def __init__(self, *, strength: float | None = None) -> None:
        check_weights(strength=strength)
        self.strength = strength

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
        """Nothing is learned; arguments as for every method, and checked as by all."""
        if responses is not None:
            read_responses(target, images, responses)
        self.target, self.backend = target, backend
        return self

    def embeddings(self, x: Tensor, directions: "Directions", *, alpha: float | None = None) -> Tensor:
        """The embeddings as they are."""
        return x

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
        """Images of the images' own embeddings: (N, 3, S, S) in [0, 1]."""
        strength = self.strength if strength is None else strength
        return decode(self.backend, self.backend.encode(images), images, strength, seeds)


class Noise:
    """White noise with the mean and the SD of the reference images' channels, whatever image, unit and direction.

    What a unit answers to pictures of nothing.

    Attributes (after ``fit``):
        mean_: (3,) of the reference images' pixels.
        std_: (3,) likewise.
    """

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
        """Learn mean and SD of the pixels; arguments as for every method, and checked as by all."""
        if responses is not None:
            read_responses(target, images, responses)
        self.target, self.backend = target, backend
        parts = [images[row : row + 64].double() for row in range(0, len(images), 64)]  # files are read as they come
        count = sum(part[:, 0].numel() for part in parts)
        self.mean_ = torch.stack([part.sum((0, 2, 3)) for part in parts]).sum(0) / count
        square = torch.stack([(part**2).sum((0, 2, 3)) for part in parts]).sum(0) / count
        self.std_ = (square - self.mean_**2).clamp_min(0).sqrt()
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
        """Noise of each seed, clipped, (N, 3, S, S) in [0, 1]; no direction gives the image itself."""
        if len(seeds) != len(images):
            raise ValueError(f"seeds has {len(seeds)} entries for {len(images)} images; expected one an image.")
        if not directions:
            return resize(images.float(), self.backend.size).cpu()
        size = self.backend.size
        drawn = [torch.randn(3, size, size, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        mean, std = (one.float()[:, None, None] for one in (self.mean_.cpu(), self.std_.cpu()))
        return (mean + std * torch.stack(drawn)).clamp(0, 1)
