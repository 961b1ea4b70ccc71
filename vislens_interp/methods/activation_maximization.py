"""Activation maximisation: a picture made from noise by climbing the gradient of a unit's response."""

from typing import Literal

import torch
from torch import Tensor

from vislens_interp.backends.base import draw_noise
from vislens_interp.methods.fourier import decay, recorrelate, to_signal
from vislens_interp.methods.natural_spectrum import natural_spectrum
from vislens_interp.methods.pixel_ascent import AscentFromNoise
from vislens_interp.methods.robustness import wobble
from vislens_interp.validation import check_number, check_positive, check_switches, check_word

Parametrization = Literal["natural", "fourier", "pixel"]

INITIAL_SD = 0.01
SATURATION = 4.0
"""What lucid divides a Fourier picture by before the sigmoid; the larger, the less saturated."""
RATE, RATE_STEPS, RATE_POWER = 0.08, 96, 0.28
"""Of Adam: with more steps the same rate leaves photographs' spectrum (one tuning unit
at 512 steps: 11.7 dB, 8.6 at 0.05)."""
START = 0.3
"""Contrast of the first picture, as a share of photographs'."""


class ActivationMaximization(AscentFromNoise):
    """Optimise a picture from noise so that a unit answers to it, written in a way that keeps it legible.

    The picture is sigmoid(C p), where C correlates colours as photographs do and p are pixels, or the inverse Fourier
    transform of coefficients. It is shifted, scaled and rotated at random before each look, so that what remains is
    what withstands that.

    Args:
        parametrization: ``"natural"``: coefficients are in units of photographs' amplitudes, and the picture's contrast
            is at most ``contrast`` times theirs, so that it cannot end in saturated confetti. ``"fourier"``: over their
            frequency, as in lucid, and as large as they grow. ``"pixel"``: logits of pixels.
        decorrelate: Whether colours are correlated by C; None is with Fourier coefficients, and not with pixels.
        robust: Whether pictures are transformed at random before each look.
        steps, lr: 512 in lucid and lucent; Adam's learning rate, 0.05 in both. Here it falls to nothing as half a
            cosine; None starts at 0.08 with up to 96 steps and at less with more, 0.05 with 512 (224 px, tuning units
            of SqueezeNet: six at 96 steps, one at 512; ``docs/design/diary.md``).
        decay_power: Of ``"fourier"``: power of the frequency that coefficients are divided by, 1 in both.
        contrast: Of ``"natural"``: largest SD of each decorrelated colour, in photographs'; None is without a bound.
        diversity, size, chunk: See :class:`~vislens_interp.methods.pixel_ascent.AscentFromNoise`.

    Source: Erhan et al. 2009 (the objective); Olah, Mordvintsev and Schubert 2017, "Feature Visualization", Distill,
    with the defaults of tensorflow/lucid and greentfrapp/lucent: ``render_vis(thresholds=(512,), lr=0.05)``,
    ``param.image(fft=True, decorrelate=True, sd=0.01)``, ``standard_transforms``. Deviations: ``"natural"`` and the
    falling rate; the transformations as :func:`~vislens_interp.methods.robustness.wobble` says; the picture is as large
    as the backend's, lucent's 128 px; silent units get gradients throughout, not for 16 steps, and only while they are
    silent; to decrease, the response is descended.
    """

    def __init__(
        self,
        parametrization: Parametrization = "natural",
        *,
        decorrelate: bool | None = None,
        robust: bool = True,
        steps: int = 512,
        lr: float | None = None,
        decay_power: float = 1.0,
        contrast: float | None = 1.5,
        diversity: float = 0.0,
        size: int | None = None,
        chunk: int = 2,
    ) -> None:
        super().__init__(steps=steps, chunk=chunk, size=size, diversity=diversity)
        check_switches(decorrelate=decorrelate, robust=robust)
        check_word("parametrization", parametrization, ("natural", "fourier", "pixel"))
        lr = RATE * min(1.0, (RATE_STEPS / steps) ** RATE_POWER) if lr is None else lr
        check_number("decay_power", decay_power)
        check_positive(lr=lr, **({} if contrast is None else {"contrast": contrast}))
        self.parametrization: Parametrization = parametrization
        self.decorrelate = parametrization != "pixel" if decorrelate is None else decorrelate
        self.robust, self.lr, self.decay_power, self.contrast = robust, lr, decay_power, contrast

    def draw(self, generators: list[torch.Generator]) -> Tensor:
        size = self.side
        shape = (3, size, size) if self.parametrization == "pixel" else (3, size, size // 2 + 1, 2)
        spread = START if self.parametrization == "natural" else INITIAL_SD
        return spread * draw_noise(generators, shape).to(self.target.device)

    def look(self, pictures: Tensor, generators: list[torch.Generator]) -> Tensor:
        return wobble(pictures, generators) if self.robust else pictures

    def picture(self, parameters: Tensor) -> Tensor:
        signal = parameters
        if self.parametrization == "fourier":
            size = parameters.shape[2]
            scaled = torch.view_as_complex(parameters * decay(size, self.decay_power).to(parameters)[..., None])
            signal = to_signal(scaled, size) / SATURATION
        elif self.parametrization == "natural":
            signal = self._natural(torch.view_as_complex(parameters))
        return torch.sigmoid(recorrelate(signal) if self.decorrelate else signal)

    def _natural(self, coefficients: Tensor) -> Tensor:
        """The signal (N, 3, S, S) of coefficients in photographs' amplitudes, no more contrasty than was allowed."""
        size = coefficients.shape[2]
        natural = natural_spectrum(size)
        signal = to_signal(coefficients * natural.amplitude.to(coefficients.real), size)
        if self.contrast is not None:
            bound = self.contrast * natural.contrast.to(signal)[:, None, None]
            spread = signal.std((2, 3), keepdim=True, correction=0)
            signal = signal * (bound / spread.clamp_min(1e-12)).clamp(max=1)
        return signal + natural.mean.to(signal)[:, None, None]
