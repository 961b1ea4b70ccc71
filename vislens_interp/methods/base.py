"""What every method is: fitted on a reference set, then asked for pictures, with what it cost and what was in force."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, final

import torch
from torch import Tensor

from vislens_interp.backends.base import Backend, check_seed_count
from vislens_interp.files import check_writable
from vislens_interp.images import ImageFiles, ordinary
from vislens_interp.landscape.prior import ResponseScaler, Sense
from vislens_interp.random_state import NOISE_SEEDS, check_seed
from vislens_interp.reference import ReferenceSet, embed
from vislens_interp.targets.cost import Cost, CountedTarget
from vislens_interp.targets.target import Target
from vislens_interp.validation import check_number, check_shares, shapes

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
        importance: (N, S, S) in [0, 1], how much the optimisation used each pixel: what a picture is shown with as
            opacity. None for methods that optimise no pixels.
    """

    images: Tensor
    latents: Tensor | None
    cost: Cost
    settings_in_force: dict[str, float | None] = field(default_factory=dict)
    importance: Tensor | None = None


class Method(ABC):
    """Makes preferred images: ours, and everything that is compared with it.

    Subclasses say what they learn (:meth:`_fit`) and what they make (:meth:`_generate`), and in class flags what they
    use; an argument that a method does not use is refused, so that no result can claim it.

    Attributes:
        uses_alpha, uses_strength: Whether pictures depend on ``alpha``, and are refined at ``strength``.
        uses_responses, needs_gradients: Whether a fit needs responses, and the target has to be differentiable.
        own_directions: Whether every image may have directions of its own.
        shows_reference: Whether it shows reference images as natural ones, so that a synthetic set will not do.
        target, backend: What it was fitted for.
        scaler_: The scale of the responses in the reference set, where ``uses_responses``.

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
    own_directions: bool = False
    target: Target
    backend: Backend
    scaler_: ResponseScaler

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
            reference: The reference set, or its images (N, 3, H, W).
            responses: (N, K) measured responses instead of the target's.
            checkpoint: File that an interrupted fit goes on from, where a fit takes long.

        Raises:
            ValueError: The method cannot work here, or responses are of another shape.
            OSError: ``checkpoint`` cannot be written.
        """
        self.validate(target, backend)
        if checkpoint is not None:
            check_writable(checkpoint)
        self.bind(target, backend)
        path = None if checkpoint is None else Path(checkpoint)
        with torch.inference_mode(False), torch.enable_grad():  # also where somebody calls without gradients
            self._fit(self._with_responses(reference, responses, progress), progress=progress, checkpoint=path)
        return self

    def _with_responses(
        self, reference: ReferenceSet | Tensor | ImageFiles, responses: Tensor | None, progress: bool
    ) -> ReferenceSet:
        """The reference set with its responses, checked and their scale learned."""
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
                raise ValueError(f"{shapes(responses=reference.responses)}; expected {wanted}: a row for each image.")
            if self.uses_responses:
                try:
                    self.scaler_ = ResponseScaler.fit(reference.responses, list(target.names))
                except ValueError as error:
                    if len(reference) < 2 or not reference.has_images or len(reference.groups.unique()) > 1:
                        raise
                    raise ValueError(
                        f"images holds {len(reference)} images that are all copies of one, to which no unit's response"
                        " varies; expected different images. Give others."
                    ) from error
        return reference

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
        check_shares(alpha=alpha, strength=strength)

    @final
    def generate(
        self,
        images: Tensor,
        directions: Directions | Sequence[Directions],
        *,
        seeds: Sequence[int],
        alpha: float | None = None,
        strength: float | None = None,
    ) -> Generated:
        """Move images in these directions.

        Args:
            images: (N, 3, H, W) in [0, 1].
            directions: Position of a unit to the wanted sense; none is the control, α = 0. Ascents in pixels also take
                one an image, and so paint many units in one batch.
            seeds: One noise seed an image.
            alpha: Weight of the edit, 0 to 1; None is the method's own.
            strength: SDEdit strength of the refinement; None is the method's own, or the backend's.

        Raises:
            ValueError: An argument has no effect on this method, or counts differ.
        """
        self.check_used(alpha=alpha, strength=strength)
        check_seed_count(seeds, len(images))
        if not isinstance(directions, Mapping):
            self._check_directions(directions, len(images))
        seeds = [check_seed(one, "seeds", NOISE_SEEDS) for one in seeds]
        alpha = self.own_alpha if alpha is None else alpha
        strength = self.own_strength if strength is None else strength
        target, counted = self.target, CountedTarget(self.target)
        self.target = counted
        start = time.perf_counter()
        try:
            with torch.inference_mode(False), torch.enable_grad():
                pictures, latents, *more = self._generate(ordinary(images), directions, seeds, alpha, strength)  # pyright: ignore[reportArgumentType]
        finally:
            self.target = target
        cost = Cost(counted.forward, counted.backward, time.perf_counter() - start)
        in_force = {"alpha": alpha if directions or not self.uses_alpha else 0.0, "strength": strength}
        images = pictures.detach() if pictures.requires_grad else pictures
        importance = more[0].detach().cpu() if more and more[0] is not None else None
        return Generated(images.cpu(), None if latents is None else latents.detach(), cost, in_force, importance)

    def _check_directions(self, directions: Sequence[Directions], count: int) -> None:
        """Raise ValueError for directions of each image that the method cannot follow."""
        if not self.own_directions:
            raise ValueError(
                f"directions is a list, and {type(self).__name__} moves all images alike; expected unit to sense, such "
                "as {0: 'increase'}. Call it once for each."
            )
        if len(directions) != count or not all(directions):
            raise ValueError(
                f"directions has {len(directions)} entries for {count} images; expected one an image, none empty."
            )

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

    @property
    def distinct(self) -> int | None:
        """Pictures of a direction that differ, at most: as many as there are reference images to show; None: any."""
        return None

    def encode(self, images: Tensor) -> Tensor:
        """The backend's x of images, encoded once however often they are asked for."""
        return embed(self.backend, images)

    def _fit(self, reference: ReferenceSet, *, progress: bool, checkpoint: Path | None) -> None:  # noqa: B027
        """Learn more than the scale of the responses, which are there unless ``uses_responses`` is False."""

    @abstractmethod
    def _generate(
        self, images: Tensor, directions: Directions, seeds: list[int], alpha: float | None, strength: float | None
    ) -> tuple[Tensor, Tensor | None] | tuple[Tensor, Tensor | None, Tensor | None]:
        """Pictures (N, 3, S, S), their latents (N, latent_dim) where there is a landscape, and an ascent's importance.

        ``alpha`` and ``strength`` are those in force; None where the method has none.
        """

    def settings(self) -> dict[str, Any]:
        """What the method is set to before a fit, by name."""
        inside = ("target", "backend", "uses_alpha", "uses_strength", "shows_reference", "own_directions")
        return {name: value for name, value in vars(self).items() if name not in inside and name.strip("_") == name}


class Wrapper(Method):
    """A method that changes what another one learns from, or starts from.

    Args:
        method: The other one, not fitted; its alpha, strength and demands are this one's.
    """

    def __init__(self, method: Method) -> None:
        if not isinstance(method, Method):
            raise TypeError(f"method is a {type(method).__name__}; expected a Method such as LandscapeEdit().")
        self.method = method
        self.uses_alpha, self.uses_strength = method.uses_alpha, method.uses_strength
        self.shows_reference = self.shows_reference or method.shows_reference

    @property
    def own_alpha(self) -> float | None:
        return self.method.own_alpha

    @property
    def own_strength(self) -> float | None:
        return self.method.own_strength

    @property
    def distinct(self) -> int | None:
        return self.method.distinct

    def validate(self, target: Target, backend: Backend) -> None:
        self.method.validate(target, backend)

    def _generate(
        self, images: Tensor, directions: Directions, seeds: list[int], alpha: float | None, strength: float | None
    ) -> tuple[Tensor, Tensor | None]:
        self.method.target = self.target  # which counts what goes through it
        return self.method._generate(images, directions, seeds, alpha, strength)[:2]
