"""MACO: a picture whose Fourier amplitudes are those of photographs, and whose phases alone are optimised."""

import math

import torch
from torch import Tensor

from vislens_interp.methods.fourier import odd, recorrelate, to_signal
from vislens_interp.methods.natural_spectrum import natural_spectrum
from vislens_interp.methods.pixel_ascent import AscentFromNoise
from vislens_interp.methods.robustness import check_crops, crops, noise
from vislens_interp.validation import check_positive

SPREAD = 0.15
"""SD of a crop's centre, as a share of the side: the same in Horama and xplique."""


class MACO(AscentFromNoise):
    """Optimise the phases φ of a picture sigmoid(C F⁻¹(r e^{iφ})) from noise; r, the amplitudes, stay natural.

    Args:
        steps, lr: 256 in deel-ai/xplique, 1,000 in serre-lab/Horama, the authors' two releases; NAdam's rate, 1.0 in
            both. Ours falls to nothing as half a cosine, for at a constant rate the last step still throws every phase
            about.
        crops: Crops that the target sees in a step; 6 in Horama, 32 in xplique. At equal passes, many steps of one crop
            beat few of many.
        box: Smallest and largest side of a crop, as shares of the picture's; 0.2 and 0.25 in Horama.
        diversity, size, chunk: See :class:`~vislens_interp.methods.pixel_ascent.AscentFromNoise`.
        noise: SD of the Gaussian noise and width of the uniform one that crops get, in pixels of [0, 1]. Horama's 0.05
            is in the network's input, whose unit is the SD of ImageNet's colours (0.23): 0.011 here. 0.08 in xplique.

    Source: Fel et al. 2023, "Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained
    Optimization", NeurIPS: φ* = argmax f(F⁻¹(r e^{iφ})). Deviations:

    - r was measured by us (``natural_spectrum.safetensors`` and its card), in logits of pixels, so that a picture needs
      no standardisation before the sigmoid; mean and contrast are those of photographs.
    - φ starts uniform (released: normal, SD 1). Horama standardises φ in every step, so that its rate falls as φ grows;
      here the rate itself falls.
    - φ is made odd where a real picture's is (:func:`~vislens_interp.methods.fourier.odd`). The releases leave that
      to the inverse transform, which changes the amplitudes of two columns.
    - Crops are nearly the whole picture. The releases paint 1,280 (or 512) pixels and show a quarter of the side to a
      network of 224; this picture is as large as the backend's. ``box=(0.2, 0.25)`` is the published one.
    """

    optimizer = torch.optim.NAdam

    def __init__(
        self,
        *,
        steps: int = 256,
        lr: float = 0.3,
        crops: int = 1,
        box: tuple[float, float] = (0.8, 1.0),
        noise: float = 0.011,
        diversity: float = 0.0,
        size: int | None = None,
        chunk: int = 2,
    ) -> None:
        super().__init__(steps=steps, chunk=chunk, size=size, diversity=diversity)
        check_crops(crops, box, noise)
        check_positive(lr=lr)
        self.lr, self.crops, self.box, self.noise = lr, crops, box, noise

    def look(self, pictures: Tensor, generators: list[torch.Generator]) -> Tensor:
        seen = crops(pictures, generators, count=self.crops, box=self.box, spread=SPREAD)
        return noise(seen, generators, self.noise)

    def draw(self, generators: list[torch.Generator]) -> Tensor:
        size = self.side
        drawn = [torch.rand(3, size, size // 2 + 1, generator=one) for one in generators]
        return math.pi * (2 * torch.stack(drawn) - 1).to(self.target.device)

    def picture(self, phase: Tensor) -> Tensor:
        """Phases (N, 3, S, S // 2 + 1) to pictures (N, 3, S, S) in [0, 1]."""
        return torch.sigmoid(recorrelate(signal_of(phase)))


def signal_of(phase: Tensor) -> Tensor:
    """The signal (N, 3, S, S) with natural amplitudes and these phases, before colours and the sigmoid."""
    size = phase.shape[-2]
    natural = natural_spectrum(size)
    amplitude, turned = natural.amplitude.to(phase), odd(phase)
    signal = to_signal(torch.complex(amplitude * turned.cos(), amplitude * turned.sin()), size)
    return signal + natural.mean.to(phase)[:, None, None]
