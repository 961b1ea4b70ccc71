"""What carries images to x and x back to images, and how a backend is found by name."""

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from vislens_interp.config import DEFAULT_BACKEND as DEFAULT_BACKEND
from vislens_interp.config import Config
from vislens_interp.images import ImageFiles, check_images
from vislens_interp.landscape.vae import VAE
from vislens_interp.validation import check_shares


class Described:
    """A backend's repr: its class, name, size and device."""

    name: str
    size: int
    device: torch.device

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.size} px, {str(self.device)!r})"


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
    defaults: Config

    def encode(self, images: Tensor) -> Tensor:
        """Images at the backend's size to x, (N, *shape)."""
        ...

    def render(self, x: Tensor) -> Tensor:
        """x to images without refinement: what an optimisation sees. Differentiable where the backend says so."""
        ...

    def decode(self, x: Tensor, *, init_image: Tensor | None, strength: float, seeds: list[int]) -> Tensor:
        """x to images, refined at ``strength`` with one noise seed an image.

        ``init_image`` are the images that x was made from, or what an optimisation saw; None where there are none, as
        in a sample.
        """
        ...

    def reference_images(self) -> Tensor | ImageFiles | None:
        """The backend's own reference images, or None."""
        ...

    def vae(self) -> VAE:
        """The VAE that every fit starts from."""
        ...

    def feature_extractor(self) -> Callable[[Tensor], Tensor] | None:
        """Features of an unrelated network for targets without gradients, x to (N, F), or None."""
        ...


BUILT_IN = {"embedded": "embedded", "cifar10": "pixel", "sd15": "embedding", "sdxl": "embedding"}
"""Names of our own backends to the modules of this room, each of which registers its backend when it is imported."""

NOT_BUILT = {
    "unclip": "stable unCLIP takes ViT-H/14's embeddings by itself, but its publisher removed Stable Diffusion 2.1 in"
    " 2025, and no copy is pinned by checksum here",
    "kandinsky": "Kandinsky 2.2 takes the 1,280-d embeddings of ViT-bigG/14, which no other backend makes, so that"
    " landscapes would not serve both",
}
"""Generators of the same kind that somebody may ask for, and why they are not here."""

_registry: dict[str, Callable[..., Backend]] = {}
_built: WeakValueDictionary[tuple[str, str], Backend] = WeakValueDictionary()
"""Backends without options, by name and device, as long as somebody uses them."""


def register_backend(name: str, build: Callable[..., Backend]) -> None:
    """Make ``backend=name`` call ``build(device=...)``.

    Raises:
        ValueError: The name is taken.
    """
    if name in _registry or (name in BUILT_IN and not build.__module__.startswith("vislens_interp.")):
        raise ValueError(f"name={name!r} is already a backend; choose another name.")
    _registry[name] = build


def check_generation(
    embeddings: Tensor, dim: int, init_image: Tensor | None, strength: float, seeds: list[int]
) -> None:
    """Refuse arguments of a generator that do not go together.

    Args:
        embeddings: (N, dim).
        dim: Dimensions of an embedding that the generator takes.
        init_image: (N, 3, H, W) in [0, 1], or None at strength 1.
        strength: From 0, which keeps the image, to 1, which does not look at it.
        seeds: One an image.

    Raises:
        ValueError: One of them is not of this form.
    """
    check_shares(": 0 keeps the image, 1 ignores its pixels.", strength=strength)
    if embeddings.ndim != 2 or embeddings.shape[1] != dim:
        raise ValueError(
            f"embeddings has shape {tuple(embeddings.shape)}; expected (N, {dim}), what the generator takes."
        )
    if bad := int((~embeddings.isfinite().all(1)).sum()):
        raise ValueError(
            f"embeddings has NaN or infinite values in {bad} of {len(embeddings)} rows; expected finite ones. Mend "
            "what made them."
        )
    check_seed_count(seeds, len(embeddings))
    if init_image is None:
        if strength < 1:
            raise ValueError(f"strength={strength} starts from an image, and init_image=None. Pass one, or strength=1.")
        return
    check_images(init_image, "init_image")
    if len(init_image) != len(embeddings):
        raise ValueError(
            f"init_image has {len(init_image)} images for {len(embeddings)} embeddings; expected one each."
        )


def check_seed_count(seeds: Sequence[int], count: int) -> None:
    """Raise ValueError unless there is one noise seed for each image."""
    if len(seeds) != count:
        raise ValueError(f"seeds has {len(seeds)} entries for {count} images; expected one an image.")


def draw_noise(generators: Iterable[torch.Generator], shape: Sequence[int]) -> Tensor:
    """Noise (N, *shape) in float32 from one generator an image, so that it is the same in every batch and precision."""
    return torch.stack([torch.randn(*shape, generator=generator) for generator in generators])


def backend_names() -> list[str]:
    """Names that :func:`get_backend` knows: those of the package and what was registered."""
    for module in BUILT_IN.values():
        importlib.import_module(f"vislens_interp.backends.{module}")
    return sorted(_registry)


def get_backend(backend: "str | Backend", device: torch.device | str = "cpu", **options: object) -> Backend:
    """A backend by name, or the given one as it is.

    Without options, the same name and device give the same backend, so that its weights are read once and reference
    sets are embedded once for all lenses.
    """
    names = backend_names()
    if not isinstance(backend, str):
        if not isinstance(backend, Backend):
            raise TypeError(
                f"backend is a {type(backend).__name__}; expected a name ({', '.join(names)}) or an object "
                "with encode, render, decode, reference_images, vae and feature_extractor."
            )
        return backend
    if backend not in names:
        for word, why in NOT_BUILT.items():
            if word in backend.lower():
                raise KeyError(f"backend={backend!r} is not built: {why}; expected 'sd15' or 'sdxl'. Use one of them.")
        raise KeyError(f"backend={backend!r} is unknown; expected one of {names}.")
    device = torch.device(device)
    if options:
        return _registry[backend](device=device, **options)
    key = (backend, str(device))
    if (known := _built.get(key)) is not None:
        return known
    _built[key] = built = _registry[backend](device=device)
    return built


def on_device(backend: Backend, device: torch.device) -> Backend:
    """The backend of the same name on another device.

    Raises:
        ValueError: This one was not made by its name alone, so that nobody knows how to make it again.
    """
    if _built.get((backend.name, str(backend.device))) is not backend:
        raise ValueError(
            f"backend {backend.name!r} was made by you on {str(backend.device)!r}; expected one that its name makes."
            f" Make it on {str(device)!r} and give that to a new lens, FeatureLens(..., backend=...)."
        )
    return get_backend(backend.name, device)
