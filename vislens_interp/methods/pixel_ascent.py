"""Methods that optimise pixels by the gradient of the response: pixels in, pixels out, no embedding."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vislens_interp.backends.base import Backend
from vislens_interp.images import resize
from vislens_interp.landscape.prior import signed
from vislens_interp.math import full_chunks
from vislens_interp.methods.base import Directions, Method
from vislens_interp.methods.open_gates import OpenGates
from vislens_interp.targets.cost import CountedTarget
from vislens_interp.targets.layout import channel_axis
from vislens_interp.targets.target import LayerTarget, Target
from vislens_interp.validation import check_counts, check_not_negative

Wanted = Directions | list[Directions]
"""What all pictures are to do, or each of them."""
OPAQUE = 0.8
"""Quantile of the accumulated gradients from which on a pixel is fully opaque: Horama's and xplique's plots."""


class ImageAscent(Method):
    """Optimises pictures at the backend's size by the target's gradient; a backend has no other say in it.

    Subclasses say where a picture starts (:meth:`initial`) and how it is optimised (:meth:`ascend`).

    Args:
        steps: Gradient steps.
        chunk: Pictures optimised together; chunks are always filled up (:func:`~vislens_interp.math.full_chunks`), for
            many steps amplify the last bit. A single picture costs as much as a chunk: small ones suit a CPU, larger
            ones a GPU.
        size: Side of the pictures in pixels; None is the backend's.
    """

    needs_gradients = True
    own_directions = True

    def __init__(self, *, steps: int, chunk: int, size: int | None = None) -> None:
        check_counts(steps=steps, chunk=chunk, **({} if size is None else {"size": size}))
        self.steps, self.chunk, self.size = steps, chunk, size

    @property
    def side(self) -> int:
        """Side of the pictures that are made."""
        return self.backend.size if self.size is None else self.size

    def _generate(
        self, images: Tensor, directions: Wanted, seeds: list[int], alpha: float | None, strength: float | None
    ) -> tuple[Tensor, None, Tensor | None]:
        images = resize(images.float(), self.side).to(self.target.device)
        pictures, importance = [], []
        for rows, own in full_chunks(len(images), self.together(len(images))):
            rows = rows if directions else rows[:own]
            generators = [torch.Generator().manual_seed(seeds[row]) for row in rows.tolist()]
            with torch.enable_grad():
                if directions:
                    each = directions if isinstance(directions, Mapping) else [directions[row] for row in rows.tolist()]
                    part, used = self.ascend(images[rows], each, generators)
                else:
                    part, used = self.initial(images[rows], generators), None
            pictures.append(part.detach()[:own])
            importance += [] if used is None else [used[:own]]
        return torch.cat(pictures).clamp(0, 1).float(), None, torch.cat(importance) if importance else None

    def together(self, count: int) -> int:
        """How many of ``count`` pictures are optimised together."""
        return self.chunk

    def initial(self, images: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Pictures (N, 3, S, S) before the first step: the images, or what one generator each makes."""
        return images

    @abstractmethod
    def ascend(
        self, images: Tensor, directions: Wanted, generators: list[torch.Generator]
    ) -> tuple[Tensor, Tensor | None]:
        """Pictures (N, 3, S, S) after the last step, and their importance (N, S, S) where it was watched."""

    def wanted(self, pictures: Tensor, directions: Wanted) -> Tensor:
        """Response in the wanted directions, in SDs and summed over units: (N,)."""
        return self.score(self.target(pictures), directions)

    def score(self, responses: Tensor, directions: Wanted) -> Tensor:
        """Raw responses (N, K) as what is wanted of them: (N,); several looks of a picture follow one another."""
        standard = self.scaler_.standardise(responses)
        if isinstance(directions, Mapping):
            return signed(standard, directions)
        looks = len(standard) // len(directions)
        return torch.cat([signed(rows, one) for rows, one in zip(standard.split(looks), directions, strict=True)])


class Watched:
    """Accumulates the absolute gradient that reaches each pixel of pictures (N, 3, S, S), step by step."""

    total: Tensor | None = None

    def __call__(self, pictures: Tensor) -> Tensor:
        """The same pictures; when a gradient comes back through them, it is added."""
        if pictures.requires_grad:
            pictures.register_hook(self._add)
        return pictures

    def _add(self, gradient: Tensor) -> None:
        used = gradient.detach().abs().sum(1)
        self.total = used if self.total is None else self.total + used

    @property
    def importance(self) -> Tensor | None:
        """(N, S, S) in [0, 1], 1 from the 80 % quantile of each picture on; None where nothing was seen."""
        if self.total is None:
            return None
        rows = self.total.flatten(1).float()
        opaque = rows.sort(1).values[:, int(OPAQUE * (rows.shape[1] - 1)), None].clamp_min(1e-30)
        return (rows / opaque).clamp(max=1).view(self.total.shape)


class AscentFromNoise(ImageAscent):
    """Optimises parameters (N, ...) that are drawn from noise: the image to edit has no say, a picture's seed makes it.

    Subclasses say how parameters are drawn (:meth:`draw`), what pictures they are (:meth:`picture`) and what the
    target sees of these (:meth:`look`), several looks of each, one picture after another.

    Args:
        diversity: How much the pictures of one call are to differ: the weight of the mean cosine between the
            correlations of their channels in the unit's layer, as a share of the response. Above 0 all pictures of a
            call are optimised together, and depend on one another. Olah et al. 2017, "Diversity"; the correlations are
            Gatys et al. 2015's. Deviation: as a share of the response, so that one weight suits every unit.
    """

    lr: float
    optimizer: type[torch.optim.Adam] | type[torch.optim.NAdam] = torch.optim.Adam

    def __init__(self, *, steps: int, chunk: int, size: int | None = None, diversity: float = 0.0) -> None:
        super().__init__(steps=steps, chunk=chunk, size=size)
        check_not_negative(diversity=diversity)
        self.diversity = diversity

    def validate(self, target: Target, backend: Backend) -> None:
        """Also for a target without features, where pictures are to differ."""
        super().validate(target, backend)
        if self.diversity:
            need_features(target, "diversity", self.diversity)

    def together(self, count: int) -> int:
        return count if self.diversity else self.chunk

    @abstractmethod
    def draw(self, generators: list[torch.Generator]) -> Tensor:
        """Parameters to start from, one generator a picture."""

    @abstractmethod
    def picture(self, parameters: Tensor) -> Tensor:
        """Parameters to pictures (N, 3, S, S) in [0, 1]."""

    @abstractmethod
    def look(self, pictures: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Pictures to what the target sees of them."""

    def initial(self, images: Tensor, generators: list[torch.Generator]) -> Tensor:
        return self.picture(self.draw(generators))

    def ascend(
        self, images: Tensor, directions: Wanted, generators: list[torch.Generator]
    ) -> tuple[Tensor, Tensor | None]:
        parameters, watched = self.draw(generators).requires_grad_(), Watched()

        def loss() -> Tensor:
            return self.loss(watched(self.picture(parameters)), images, directions, generators)

        minimise([parameters], self.optimizer([parameters], lr=self.lr), loss, self.steps)
        return self.picture(parameters), watched.importance

    def loss(self, pictures: Tensor, images: Tensor, directions: Wanted, generators: list[torch.Generator]) -> Tensor:
        """What is to fall, (N,): the response, and where pictures are to differ their likeness to one another."""
        seen, count = self.look(pictures, generators), len(pictures)
        if not self.diversity:
            return -self.wanted(seen, directions).view(count, -1).mean(1)
        responses, features = self.target.with_features(seen)
        wanted = self.score(responses, directions).view(count, -1).mean(1)
        return self.diversity * wanted.detach().abs() * self._alike(features, count) - wanted

    def _alike(self, features: Tensor, count: int) -> Tensor:
        """Mean cosine (N,) of each picture's channel correlations with those of the others."""
        layout = getattr(self.target, "layout", None)
        channels = features.float() if features.ndim > 2 else features.float()[..., None]
        channels = channels.movedim(1 if layout is None or features.ndim == 2 else channel_axis(layout), 1).flatten(2)
        looks = channels.view(count, -1, *channels.shape[1:]).transpose(1, 2).flatten(2)
        rows = normalize((looks @ looks.transpose(1, 2)).flatten(1), dim=1)
        cosines = rows @ rows.T
        return (cosines.sum(1) - cosines.diagonal()) / max(1, count - 1)


def minimise(
    parameters: list[Tensor], optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], steps: int
) -> None:
    """Step down the sum of a loss (N,), a row of each parameter a picture; gradients reach nothing else.

    The rate falls to nothing as half a cosine, so that the last steps settle; silent units are reached
    (:class:`~vislens_interp.methods.open_gates.OpenGates`).
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        with OpenGates():
            gradients = torch.autograd.grad(loss().sum(), parameters)
        for one, gradient in zip(parameters, gradients, strict=True):
            one.grad = gradient
        optimizer.step()


def need_features(target: Target, argument: str, value: object) -> None:
    """Raise ValueError for a target that shows no layer, which ``argument`` asks for."""
    whole = innermost(target)
    if type(whole).features is Target.features:
        without = f"{argument}=0, or " if value else ""
        raise ValueError(
            f"{argument}={value} needs the layer that the unit is read from, and "
            f"{type(whole).__name__} has no features. Pass {without}a network and a layer."
        )


def count_in(target: Target, other: CountedTarget) -> None:
    """Add another reader's passes to those of a counted target."""
    if isinstance(target, CountedTarget):
        target.forward += other.forward
        target.backward += other.backward


def innermost(target: Target) -> Target:
    """What a target that counts or selects reads from."""
    while isinstance(inner := getattr(target, "target", None), Target):
        target = inner
    return target


def reader_of(target: Target, layer: str) -> LayerTarget:
    """Another layer of a target's network, for its features.

    Raises:
        ValueError: The target reads no network, or there is no such layer.
    """
    whole = innermost(target)
    if not isinstance(whole, LayerTarget):
        raise ValueError(
            f"layer {layer!r} is looked for in a network, and {type(whole).__name__} shows none; expected a "
            "LayerTarget. Leave the layer out, or pass a network."
        )
    return LayerTarget(
        whole.model,
        layer,
        _first,  # a function, which every layout takes: only features are asked for
        preprocess=whole.preprocess,
        forward_args=whole.forward_args or None,
        image_size=whole._image_size,
    )


def _first(output: Tensor) -> Tensor:
    return output.flatten(1)[:, 0]
