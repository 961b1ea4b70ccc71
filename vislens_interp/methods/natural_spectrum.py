"""The amplitude spectrum of photographs, as it was measured and at any size."""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from vislens_interp import zoo
from vislens_interp.files import load_state
from vislens_interp.methods.fourier import decorrelate, edges, frequencies, multiplicity, to_logits, to_spectrum

FILE, KIND = "natural_spectrum.safetensors", "natural spectrum"
EPS = 0.01
"""Pixels nearer to black or white than this are taken for this where amplitudes are measured."""


class NaturalSpectrum(NamedTuple):
    """What photographs have in common, in logits of pixels with decorrelated colours.

    Args:
        amplitude: (3, S, S // 2 + 1) mean absolute Fourier coefficient (``norm="ortho"``), without the mean's.
        mean: (3,) mean value.
    """

    amplitude: Tensor
    mean: Tensor

    @property
    def contrast(self) -> Tensor:
        """(3,) SD of a picture with these amplitudes."""
        size = self.amplitude.shape[-2]
        return ((self.amplitude.square() * multiplicity(size)).sum((1, 2)) / size**2).sqrt()


def measure(images: Tensor) -> NaturalSpectrum:
    """Mean amplitudes and mean of square photographs (N, 3, S, S) in [0, 1].

    Source: Fel et al. 2023 (MACO): r = E|F(x)| over photographs. Deviation: in the logits that a picture is written
    in, instead of in pixels, so that what is rendered needs no rescaling.
    """
    signal = decorrelate(to_logits(images, EPS))
    mean = signal.mean((0, 2, 3))
    amplitude = to_spectrum(signal - signal.mean((2, 3), keepdim=True)).abs().mean(0)
    amplitude[:, 0, 0] = 0
    return NaturalSpectrum(amplitude, mean)


def relative_contrast(images: Tensor) -> Tensor:
    """How contrasty pictures are beside photographs, in the decorrelated colour in which they are most so: (N,).

    The SD of each colour's logits over that of photographs: 1 is theirs, and saturated noise has several times as much.

    Args:
        images: (N, 3, S, S) in [0, 1].
    """
    spread = decorrelate(to_logits(images.float(), EPS)).std((2, 3), correction=0)
    return (spread / natural_spectrum(images.shape[-1]).contrast.to(spread)).amax(1)


@cache
def natural_spectrum(size: int) -> NaturalSpectrum:
    """The shipped spectrum for pictures of this side, from the nearest measured size that is not smaller.

    >>> natural_spectrum(32).amplitude.shape
    torch.Size([3, 32, 17])
    """
    measured = _shipped()
    chosen = min((side for side in measured if side >= size), default=max(measured))
    spectrum = measured[chosen]
    amplitude = at_size(spectrum.amplitude, size)
    opposite = (-torch.arange(size)) % size
    edge = amplitude[..., edges(size)]  # f and -f are both in there, and alike in every real picture
    amplitude[..., edges(size)] = (edge + edge[:, opposite]) / 2
    return NaturalSpectrum(amplitude, spectrum.mean)


def at_size(amplitude: Tensor, size: int) -> Tensor:
    """Amplitudes (3, T, T // 2 + 1) at the frequencies of pictures of another side: (3, size, size // 2 + 1).

    With ``norm="ortho"`` they are a function of cycles a pixel, whatever the side. They are interpolated after
    multiplication by the frequency, which makes them nearly flat; below the lowest measured frequency they go on as
    one over it.
    """
    side = amplitude.shape[-2]
    if side == size:
        return amplitude.clone()
    flat = amplitude * frequencies(side).to(amplitude)
    neighbours = torch.stack([flat[:, 1, 0], flat[:, -1, 0], flat[:, 0, 1], flat[:, 1, 1], flat[:, -1, 1]])
    flat[:, 0, 0] = neighbours.mean(0)
    rows = flat.roll(side // 2, 1)  # from -1/2 cycles a pixel up
    rows = torch.cat([rows, rows[:, :1]], 1)  # 1/2 is -1/2
    y = 2 * torch.fft.fftfreq(size).to(amplitude)
    x = 4 * torch.fft.rfftfreq(size).to(amplitude) - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
    found = grid_sample(rows[None], grid, padding_mode="border", align_corners=True)[0]
    found = found / frequencies(size).to(amplitude).clamp_min(1 / (4 * size))
    found[:, 0, 0] = 0
    return found


@cache
def _shipped() -> dict[int, NaturalSpectrum]:
    state = load_state(zoo.weights(FILE), KIND)
    return {
        int(side): NaturalSpectrum(part["amplitude"].float(), part["mean"].float())
        for side, part in state["sizes"].items()
    }
