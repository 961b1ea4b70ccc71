"""What carries images to x and x back to images, and how a backend is found by name."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from vislens_interp.landscape.vae import VAE


@dataclass(frozen=True)
class Defaults:
    """Settings that a benchmark chose for one backend.

    Args:
        fit: Arguments of :class:`~vislens_interp.landscape.fit.FitSettings`.
        prior: Arguments of :class:`~vislens_interp.landscape.prior.ActivationPrior`, and ``block_dim``.
        edit: ``alpha`` and ``interpolation`` of an edit.
        optimize: Arguments of :class:`~vislens_interp.landscape.optimize.OptimizeSettings`.
        strength: SDEdit strength of the decoding.
        optimize_strength: The same after an optimisation, which starts from what was optimised; None is ``strength``.
        shuffles: Shuffled fits behind the evidence.
    """

    fit: dict[str, Any] = field(default_factory=dict)
    prior: dict[str, Any] = field(default_factory=dict)
    edit: dict[str, Any] = field(default_factory=dict)
    optimize: dict[str, Any] = field(default_factory=dict)
    strength: float = 1.0
    optimize_strength: float | None = None
    shuffles: int = 2

    def strength_of(self, technique: str) -> float:
        """The strength of ``"edit"`` or ``"optimize"``."""
        if technique == "optimize" and self.optimize_strength is not None:
            return self.optimize_strength
        return self.strength


@runtime_checkable
class Backend(Protocol):
    """Carries images (N, 3, H, W) in [0, 1] to x and x back to images.

    Attributes:
        name: What the registry knows it by.
        size: Side of its images in pixels.
        shape: Shape of one x.
        differentiable: Whether gradients flow from rendered images to x, through :meth:`render`.
        device: Where it computes.
        defaults: Measured settings.
    """

    name: str
    size: int
    shape: tuple[int, ...]
    differentiable: bool
    device: torch.device
    defaults: Defaults

    def encode(self, images: Tensor) -> Tensor:
        """Images at the backend's size to x, (N, *shape)."""
        ...

    def render(self, x: Tensor) -> Tensor:
        """x to images without refinement: what an optimisation sees. Differentiable where the backend says so."""
        ...

    def decode(self, x: Tensor, *, reference: Tensor | None, strength: float, seeds: list[int]) -> Tensor:
        """x to images, refined at ``strength`` with one noise seed an image.

        ``reference`` are the images that x was made from, or what an optimisation saw; None where there are none, as
        in a sample.
        """
        ...

    def reference(self) -> Tensor | None:
        """The backend's own reference images, or None."""
        ...

    def vae(self) -> VAE:
        """The VAE that every fit starts from."""
        ...

    def perception(self) -> Callable[[Tensor], Tensor] | None:
        """Features of an unrelated network for targets without gradients, x to (N, F), or None."""
        ...


DEFAULT_BACKEND = "embedded"
"""What a lens, ``vislens visualize`` and ``vislens demo`` use where no backend is named; the one place that says so."""

_registry: dict[str, Callable[..., Backend]] = {}


def register_backend(name: str, build: Callable[..., Backend]) -> None:
    """Make ``backend=name`` call ``build(device=...)``.

    Raises:
        ValueError: The name is taken.
    """
    if name in _registry:
        raise ValueError(f"name={name!r} is already a backend; choose another name.")
    _registry[name] = build


def get_backend(backend: "str | Backend", device: torch.device | str = "cpu", **options: Any) -> Backend:
    """A backend by name, built with these options, or the given one as it is."""
    if not isinstance(backend, str):
        if not isinstance(backend, Backend):
            raise TypeError(
                f"backend is a {type(backend).__name__}; expected a name ({', '.join(sorted(_registry))}) or an object "
                "with encode, render, decode, reference, vae and perception."
            )
        return backend
    if backend not in _registry:
        raise KeyError(f"backend={backend!r} is unknown; expected one of {sorted(_registry)}.")
    return _registry[backend](device=torch.device(device), **options)
