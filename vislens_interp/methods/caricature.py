"""Caricature: what some layers see in an image, exaggerated."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from vislens_interp.backends.base import Backend
from vislens_interp.methods.activation_maximization import ActivationMaximization
from vislens_interp.methods.pixel_ascent import Wanted, count_in, need_features, reader_of
from vislens_interp.reference import ReferenceSet
from vislens_interp.targets.cost import CountedTarget
from vislens_interp.targets.target import Target
from vislens_interp.validation import check_not_negative


class Caricature(ActivationMaximization):
    """Paint, from noise, a picture whose features point where the image's do, and go further.

    Maximised is the mean over layers of ⟨h(x), h(image)⟩ / |h(image)|² · cos(h(x), h(image)), where both are seen
    through the same random looks. The unit and its direction have no part in it: its response is measured, not climbed.

    Args:
        layers: Dotted names; none is the layer that the unit is read from. Each takes two passes a step.
        power: Of the cosine, which keeps the direction; 0 lets the length alone grow.
        steps, lr, contrast, robust, size, chunk: As of
            :class:`~vislens_interp.methods.activation_maximization.ActivationMaximization`.

    Raises:
        ValueError, TypeError: The target shows no layers, or there is no such layer; ``layers`` is one name.

    Source: the caricatures of tensorflow/lucid (its notebook of that name, ``dot_compare``). Deviations: dot products
    as shares of the image's own, so that all layers weigh alike; the same looks for both; natural amplitudes.
    """

    uses_responses = False

    def __init__(
        self,
        layers: Sequence[str] = (),
        *,
        power: float = 1.0,
        steps: int = 128,
        lr: float = 0.05,
        contrast: float | None = 1.5,
        robust: bool = True,
        size: int | None = None,
        chunk: int = 2,
    ) -> None:
        super().__init__(steps=steps, lr=lr, contrast=contrast, robust=robust, size=size, chunk=chunk)
        check_not_negative(power=power)
        if isinstance(layers, str):
            raise TypeError(f"layers={layers!r} is one name; expected a list of them. Pass [{layers!r}].")
        self.layers, self.power = tuple(layers), power

    def validate(self, target: Target, backend: Backend) -> None:
        super().validate(target, backend)
        if not self.layers:
            need_features(target, "layers", self.layers)

    def _fit(self, reference: ReferenceSet, *, progress: bool, checkpoint: Path | None) -> None:
        self.readers_ = [reader_of(self.target, layer) for layer in self.layers]

    def ascend(
        self, images: Tensor, directions: Wanted, generators: list[torch.Generator]
    ) -> tuple[Tensor, Tensor | None]:
        self._counted = [CountedTarget(one) for one in self.readers_]
        made = super().ascend(images, directions, generators)
        for reader in self._counted:
            count_in(self.target, reader)
        return made

    def loss(self, pictures: Tensor, images: Tensor, directions: Wanted, generators: list[torch.Generator]) -> Tensor:
        """What is to fall, (N,): how little the pictures' features go the way of the images'."""
        picture, image = self.look(torch.cat([pictures, images], 1), generators).split(3, 1)
        wanted, readers = torch.zeros(len(images), device=images.device), self._counted or [self.target]
        for reader in readers:
            with torch.no_grad():
                kept = reader.features(image).flatten(1)
            seen = reader.features(picture).flatten(1)
            share = (seen * kept).sum(1) / kept.square().sum(1).clamp_min(1e-12)
            wanted = wanted + share * cosine_similarity(seen, kept).clamp_min(0.1) ** self.power
        return -wanted / len(readers)
