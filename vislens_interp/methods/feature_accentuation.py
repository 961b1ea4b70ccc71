"""Feature accentuation: a reference image optimised for a unit, held to itself in the unit's own layer."""

from pathlib import Path

import torch
from torch import Tensor

from vislens_interp.backends.base import Backend
from vislens_interp.methods.fourier import (
    decorrelate,
    recorrelate,
    ring_amplitudes,
    to_logits,
    to_signal,
    to_spectrum,
    with_ring_amplitudes,
)
from vislens_interp.methods.pixel_ascent import (
    ImageAscent,
    Wanted,
    Watched,
    count_in,
    minimise,
    need_features,
    reader_of,
)
from vislens_interp.methods.robustness import check_crops, crops, noise
from vislens_interp.reference import ReferenceSet
from vislens_interp.targets.cost import CountedTarget
from vislens_interp.targets.target import Target
from vislens_interp.validation import check_not_negative, check_positive, check_switches

GATE = 5.0
"""Where the logits of the amplitudes' gates start: sigmoid(5) = 0.993, as in faccent."""


class FeatureAccentuation(ImageAscent):
    """Optimise the phases of an image, and gates that may only shrink its amplitudes, from the image itself.

    Maximised is f(x) - λ ‖h(x) - h(image)‖, where h is the layer that the unit is read from, both seen through the
    same random crops. λ is in units of the ratio of both gradients' lengths at the start, or at the first step at which
    the unit is not silent.

    Args:
        steps, lr: 100 in the release; Adam's learning rate, 0.05 there. 0.1 was chosen at 48 steps of one crop, on
            tuning units of SqueezeNet (``docs/design/diary.md``).
        crops: Crops of each picture in a step; 16 in the release.
        box: Smallest and largest side of a crop, as shares of the picture's; 0.05 and 0.99 in the release.
        noise: SD of the Gaussian noise and width of the uniform one that crops get; 0.02 in the release.
        regularization: λ; 1 in the release, where a layer is given. 0 needs no features, and half of the passes.
        layer: h, by its dotted name; None is the layer that the unit is read from, which needs no passes of its own.
        hold_spectrum: Scale each spatial frequency of the picture to the image's amplitude there (mean over
            orientations and colours). Without it the picture gains up to 3 dB at the highest ones.
        size, chunk: See :class:`~vislens_interp.methods.pixel_ascent.ImageAscent`.

    Source: Hamblin et al. 2024, "Feature Accentuation: Revealing 'What' Features Respond to in Natural Images",
    and chrishamblin7/faccent: ``render.render_vis``, ``param.fourrier_phase``, ``transform.standard_box_transforms``
    (commit b1e96ea5). Deviations: gates are scaled so that the first picture is the image itself (released: 0.7 % less
    contrast); without ``layer``, h is the unit's own (released: no regularisation); a unit that is silent at the
    start gets a gradient (:class:`~vislens_interp.methods.open_gates.OpenGates`); the rate falls to nothing as half a
    cosine; amplitudes of pixels are held (released: only those of logits); the picture is as large as the
    backend's (released: 512 px).
    """

    def __init__(
        self,
        *,
        steps: int = 100,
        lr: float = 0.1,
        crops: int = 16,
        box: tuple[float, float] = (0.05, 0.99),
        noise: float = 0.02,
        regularization: float = 1.0,
        layer: str | None = None,
        hold_spectrum: bool = True,
        size: int | None = None,
        chunk: int = 2,
    ) -> None:
        super().__init__(steps=steps, chunk=chunk, size=size)
        check_positive(lr=lr)
        check_switches(hold_spectrum=hold_spectrum)
        check_crops(crops, box, noise)
        check_not_negative(regularization=regularization)
        if layer is not None and not regularization:
            raise ValueError(f"layer={layer!r} is held to nothing at regularization=0. Leave it out, or pass a weight.")
        self.lr, self.crops, self.box, self.noise = lr, crops, box, noise
        self.regularization, self.layer, self.hold_spectrum = regularization, layer, hold_spectrum

    def validate(self, target: Target, backend: Backend) -> None:
        """Also for a target without features, unless nothing is held."""
        super().validate(target, backend)
        if self.regularization:
            need_features(target, "regularization", self.regularization)

    def _fit(self, reference: ReferenceSet, *, progress: bool, checkpoint: Path | None) -> None:
        self.held_ = None if self.layer is None else reader_of(self.target, self.layer)

    def ascend(
        self, images: Tensor, directions: Wanted, generators: list[torch.Generator]
    ) -> tuple[Tensor, Tensor | None]:
        watched = Watched()
        spectrum = to_spectrum(decorrelate(to_logits(images)))
        amplitude, size = spectrum.abs(), images.shape[-1]
        phase, gate = spectrum.angle().requires_grad_(), torch.full_like(amplitude, GATE).requires_grad_()
        parameters = [phase, gate]
        amplitudes = ring_amplitudes(to_spectrum(images))
        full = torch.tensor(GATE).sigmoid().to(amplitude)

        def picture() -> Tensor:
            kept = amplitude * gate.sigmoid() / full
            made = torch.sigmoid(recorrelate(to_signal(torch.complex(kept * phase.cos(), kept * phase.sin()), size)))
            return with_ring_amplitudes(made, amplitudes) if self.hold_spectrum else made

        def look() -> tuple[Tensor, Tensor]:
            """Response (N,) and distance from the image (N,), means over the same crops of both."""
            both = [watched(picture())] + ([images] if self.regularization else [])
            seen = crops(torch.cat(both, 1), generators, count=self.crops, box=self.box).split(3, 1)
            seen = [noise(one, generators, self.noise) for one in seen]
            if not self.regularization:
                response = self.wanted(seen[0], directions).view(len(images), -1).mean(1)
                return response, torch.zeros_like(response)
            with torch.no_grad():
                before = held.features(seen[1])
            if other is None:
                responses, after = self.target.with_features(seen[0])
            else:
                responses, after = self.target(seen[0]), held.features(seen[0])
            moved = (after - before).flatten(1).norm(dim=1)
            wanted = self.score(responses, directions)
            return wanted.view(len(images), -1).mean(1), moved.view(len(images), -1).mean(1)

        other = None if self.held_ is None else CountedTarget(self.held_)
        held = self.target if other is None else other
        weight = torch.zeros(len(images), device=images.device)

        def loss() -> Tensor:
            response, distance = look()
            if self.regularization and (weight == 0).any():
                weight.copy_(torch.where(weight == 0, self._balance(parameters, response, distance), weight))
            return weight * distance - response

        minimise(parameters, torch.optim.Adam(parameters, lr=self.lr), loss, self.steps)
        if other is not None:
            count_in(self.target, other)
        return picture(), watched.importance

    def _balance(self, parameters: list[Tensor], response: Tensor, distance: Tensor) -> Tensor:
        """λ of each picture: the weight at which both gradients are of one length, times ``regularization``."""
        lengths = []
        for term in (response, distance):
            gradients = torch.autograd.grad(term.sum(), parameters, retain_graph=True)
            lengths.append(torch.stack([one.abs().flatten(1).sum(1) for one in gradients]).sum(0))
        return self.regularization * lengths[0] / lengths[1].clamp_min(1e-12)
