"""What every method is: fitted on a reference set, then asked for pictures, with what it cost and what was in force."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, Self, final

import torch
from torch import Tensor

from vislens_interp.backends.base import Backend
from vislens_interp.files import check_writable
from vislens_interp.images import ImageFiles, ordinary
from vislens_interp.landscape.prior import Sense
from vislens_interp.random_state import NOISE_SEEDS, check_seed
from vislens_interp.reference import ReferenceSet, embed
from vislens_interp.targets.cost import Cost, CountedTarget
from vislens_interp.targets.target import Target

Directions = Mapping[int, Sense]
"""Position of a unit in the target to the wanted sense; empty is the α = 0 control."""


@dataclass(frozen=True, eq=False)
class Generated:
    """What one call of :meth:`Method.generate` gave.

    Args:
        images: (N, 3, S, S) in [0, 1], on the CPU.
        latents: (N, latent_dim) codes in the method's landscape; None for methods without one.
        cost: Passes through the target, and seconds.
        settings_in_force: ``alpha`` and ``strength`` as they were used; None where the method has none, or where an
            angle gives every image an alpha of its own.
    """

    images: Tensor
    latents: Tensor | None
    cost: Cost
    settings_in_force: dict[str, float | None] = field(default_factory=dict)


class Method(ABC):
    """Makes preferred images: ours, and everything that is compared with it.

    Subclasses say what they learn (:meth:`_fit`) and what they make (:meth:`_generate`), and in class flags what they
    use; an argument that a method does not use is refused, so that no result can claim it.

    Attributes:
        uses_alpha: Whether pictures depend on ``alpha``.
        uses_strength: Whether pictures are refined at ``strength``.
        uses_responses: Whether a fit needs responses.
        needs_gradients: Whether the target has to be differentiable.
        shows_reference: Whether it shows reference images as natural ones, so that a synthetic set will not do.
        target: What it was fitted for; :attr:`backend` likewise.

    A method is fitted and asked in the same way, whatever it is:

    >>> import torch
    >>> from vislens_interp import CallableTarget
    >>> from vislens_interp.backends.base import get_backend
    >>> import vislens_interp.backends.pixel
    >>> from vislens_interp.methods import method_by_name
    >>> brightness = CallableTarget(lambda images: images.mean((1, 2, 3)))
    >>> noise = method_by_name("noise").fit(brightness, get_backend("cifar10"), torch.rand(8, 3, 32, 32))
    >>> noise.generate(torch.rand(2, 3, 32, 32), {0: "increase"}, seeds=[0, 1]).images.shape
    torch.Size([2, 3, 32, 32])
    """

    uses_alpha: bool = False
    uses_strength: bool = False
    uses_responses: bool = True
    needs_gradients: bool = False
    shows_reference: bool = False
    target: Target
    backend: Backend

    def validate(self, target: Target, backend: Backend) -> None:
        """Raise where the method cannot work, before anything is computed."""
        if self.needs_gradients and not target.differentiable:
            raise ValueError(
                f"{type(self).__name__} needs gradients from the picture to the response, and this target has none. "
                "Use 'cma_es', or an edit such as 'ridge_pattern', which only ask for responses."
            )

    @final
    def fit(
        self,
        target: Target,
        backend: Backend,
        reference: ReferenceSet | Tensor | ImageFiles,
        responses: Tensor | None = None,
        *,
        progress: bool = False,
        checkpoint: str | Path | None = None,
    ) -> Self:
        """Learn from reference images.

        Args:
            target: Read for responses where the reference set has none.
            backend: Carries images to x and back.
            reference: The reference set, or its images (N, 3, H, W).
            responses: (N, K) measured responses instead of the target's.
            progress: Show a bar.
            checkpoint: File that an interrupted fit goes on from, where a fit takes long.

        Returns:
            Itself.

        Raises:
            ValueError: The method cannot work here, or responses are of another shape.
            OSError: ``checkpoint`` cannot be written.
        """
        self.validate(target, backend)
        if checkpoint is not None:
            check_writable(checkpoint)
        self.bind(target, backend)
        with _gradients_possible():
            self._fit_to(reference, responses, progress, None if checkpoint is None else Path(checkpoint))
        return self

    def _fit_to(
        self,
        reference: ReferenceSet | Tensor | ImageFiles,
        responses: Tensor | None,
        progress: bool,
        checkpoint: Path | None,
    ) -> None:
        target = self.target
        if not isinstance(reference, ReferenceSet):
            reference = ReferenceSet(reference)
        if responses is not None:
            reference = reference.with_responses(responses, measured=True)
        if reference.responses is None and self.uses_responses:
            reference = reference.with_responses(reference.read_by(target, progress=progress))
        if reference.responses is not None:
            wanted = (len(reference), len(target.names))
            if reference.responses.shape != wanted:
                raise ValueError(
                    f"responses has shape {tuple(reference.responses.shape)}; expected {wanted}: a row for each image "
                    "and a column for each unit."
                )
        self._fit(reference, progress=progress, checkpoint=checkpoint)

    def bind(self, target: Target, backend: Backend) -> Self:
        """Take target and backend without fitting."""
        self.target, self.backend = target, backend
        return self

    def check_used(self, name: str | None = None, *, alpha: float | None = None, strength: float | None = None) -> None:
        """Raise ValueError for an argument that the method does not use, or that lies outside of [0, 1]."""
        name = type(self).__name__ if name is None else name
        for argument, value, used in (("alpha", alpha, self.uses_alpha), ("strength", strength, self.uses_strength)):
            if value is None:
                continue
            check_number(argument, value)
            if not used:
                raise ValueError(f"{argument}={value} has no effect on method {name!r}. Leave {argument} out.")
            if not 0 <= value <= 1:
                raise ValueError(f"{argument}={value} must lie in [0, 1].")

    @final
    def generate(
        self,
        images: Tensor,
        directions: Directions,
        *,
        seeds: Sequence[int],
        alpha: float | None = None,
        strength: float | None = None,
    ) -> Generated:
        """Move images in these directions.

        Args:
            images: (N, 3, H, W) in [0, 1].
            directions: Position of a unit to the wanted sense; none is the control, α = 0.
            seeds: One noise seed an image.
            alpha: Weight of the edit, 0 to 1; None is the method's own.
            strength: SDEdit strength of the refinement; None is the method's own, or the backend's.

        Raises:
            ValueError: An argument has no effect on this method, or counts differ.
        """
        self.check_used(alpha=alpha, strength=strength)
        if len(seeds) != len(images):
            raise ValueError(f"seeds has {len(seeds)} entries for {len(images)} images; expected one an image.")
        seeds = [check_seed(one, "seeds", NOISE_SEEDS) for one in seeds]
        alpha = self.own_alpha if alpha is None else alpha
        strength = self.own_strength if strength is None else strength
        target, counted = self.target, CountedTarget(self.target)
        self.target = counted
        start = time.perf_counter()
        try:
            with _gradients_possible():
                pictures, latents = self._generate(ordinary(images), directions, seeds, alpha, strength)
        finally:
            self.target = target
        cost = Cost(counted.forward, counted.backward, time.perf_counter() - start)
        in_force = {"alpha": alpha if directions or not self.uses_alpha else 0.0, "strength": strength}
        images = pictures.detach() if pictures.requires_grad else pictures
        return Generated(images.cpu(), None if latents is None else latents.detach(), cost, in_force)

    @property
    def own_alpha(self) -> float | None:
        """The alpha in force where none is given; None where the method has none, or goes by angle."""
        return None

    @property
    def own_strength(self) -> float | None:
        """The strength in force where none is given; None where the method has none."""
        if not self.uses_strength:
            return None
        own = getattr(self, "strength", None)
        return self.backend.defaults.edit.strength if own is None else own

    def encode(self, images: Tensor) -> Tensor:
        """The backend's x of images, encoded once however often they are asked for."""
        return embed(self.backend, images)

    @abstractmethod
    def _fit(self, reference: ReferenceSet, *, progress: bool, checkpoint: Path | None) -> None:
        """Learn from a reference set, whose responses are there unless ``uses_responses`` is False."""

    @abstractmethod
    def _generate(
        self, images: Tensor, directions: Directions, seeds: list[int], alpha: float | None, strength: float | None
    ) -> tuple[Tensor, Tensor | None]:
        """Pictures (N, 3, S, S), and their latents (N, latent_dim) where there is a landscape.

        ``alpha`` and ``strength`` are those in force; None where the method has none.
        """

    def settings(self) -> dict[str, Any]:
        """What the method is set to before a fit, by name."""
        inside = ("target", "backend", "uses_alpha", "uses_strength", "shows_reference")
        return {
            name: value
            for name, value in vars(self).items()
            if name not in inside and not name.startswith("_") and not name.endswith("_")
        }


@contextmanager
def _gradients_possible() -> Iterator[None]:
    """Gradients are recorded inside, also where somebody calls under ``torch.no_grad`` or ``inference_mode``."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def check_number(argument: str, value: Any) -> None:
    """Raise TypeError for what is no number, such as a tensor of one."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{argument}={value!r} is a {type(value).__name__}; expected a number. Pass float({argument}) of a tensor."
        )


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


def check_shares(**shares: float | None) -> None:
    """Raise ValueError for a value outside of [0, 1]; None passes."""
    for name, value in shares.items():
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name}={value} must lie in [0, 1].")
