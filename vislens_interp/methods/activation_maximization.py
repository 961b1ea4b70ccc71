"""Activation maximisation: a picture made from noise by climbing the gradient of a unit's response."""

from typing import Literal

import torch
from torch import Tensor

from vislens_interp.methods.fourier import decay, recorrelate, to_signal
from vislens_interp.methods.pixel_ascent import AscentFromNoise
from vislens_interp.methods.robustness import wobble
from vislens_interp.validation import check_positive, check_word

Parametrization = Literal["fourier", "pixel"]

INITIAL_SD = 0.01
SATURATION = 4.0
"""What lucid divides a Fourier picture by before the sigmoid; the larger, the less saturated."""


class ActivationMaximization(AscentFromNoise):
    """Optimise a picture from noise so that a unit answers to it, written in a way that keeps it legible.

    The picture is sigmoid(C p), where C correlates colours as photographs do and p are pixels, or the inverse Fourier
    transform of coefficients over their frequency. It is shifted, scaled and rotated at random before each look, so
    that what remains is what withstands that.

    Args:
        decorrelate: Whether colours are correlated by C; None is with Fourier coefficients, and not with pixels.
        robust: Whether pictures are transformed at random before each look.
        steps, lr: 512 in lucid and lucent; Adam's learning rate, 0.05 in both.
        decay_power: Power of the frequency that coefficients are divided by, 1 in both.

    Source: Erhan et al. 2009 (the objective); Olah, Mordvintsev and Schubert 2017, "Feature Visualization", Distill,
    with the defaults of tensorflow/lucid and greentfrapp/lucent: ``render_vis(thresholds=(512,), lr=0.05)``,
    ``param.image(fft=True, decorrelate=True, sd=0.01)``, ``standard_transforms``. Deviations: the transformations as
    :func:`~vislens_interp.methods.robustness.wobble` says; the picture is as large as the backend's, lucent's 128 px; a
    silent start, which has no gradient, is drawn again at twice the contrast (lucid lets gradients through silent ReLUs
    for 16 steps); to decrease, the response is descended.
    """

    def __init__(
        self,
        parametrization: Parametrization = "fourier",
        *,
        decorrelate: bool | None = None,
        robust: bool = True,
        steps: int = 512,
        lr: float = 0.05,
        decay_power: float = 1.0,
        chunk: int = 8,
    ) -> None:
        super().__init__(steps=steps, chunk=chunk)
        check_word("parametrization", parametrization, ("fourier", "pixel"))
        check_positive(lr=lr)
        self.parametrization: Parametrization = parametrization
        self.decorrelate = parametrization == "fourier" if decorrelate is None else decorrelate
        self.robust, self.lr, self.decay_power = robust, lr, decay_power

    def draw(self, generators: list[torch.Generator], attempt: int = 0) -> Tensor:
        size = self.backend.size
        shape = (3, size, size) if self.parametrization == "pixel" else (3, size, size // 2 + 1, 2)
        drawn = [torch.randn(shape, generator=one) for one in generators]
        return INITIAL_SD * 2**attempt * torch.stack(drawn).to(self.target.device)

    def look(self, parameters: Tensor, generators: list[torch.Generator]) -> Tensor:
        picture = self.picture(parameters)
        return wobble(picture, generators) if self.robust else picture

    def picture(self, parameters: Tensor) -> Tensor:
        signal = parameters
        if self.parametrization == "fourier":
            size = parameters.shape[2]
            scaled = torch.view_as_complex(parameters * decay(size, self.decay_power).to(parameters)[..., None])
            signal = to_signal(scaled, size) / SATURATION
        return torch.sigmoid(recorrelate(signal) if self.decorrelate else signal)
