"""Whether generated pictures have the amplitude spectrum of natural ones: neither its noise nor its blur."""

import torch
from torch import Tensor

from vislens_interp.validation import check_finite, shapes

SMALLEST_AMPLITUDE = 1e-4
"""Added to amplitudes (RMS a frequency, of pixels in [0, 1]), so that an empty ring has a level: -80 dB."""


def amplitude_profile(images: Tensor) -> Tensor:
    """Level of each spatial frequency in decibels, over orientations, colours and pictures.

    Amplitudes are squared and averaged in rings one cycle a picture wide, from 1 to the Nyquist frequency; the mean
    (frequency 0) is left out. No window is applied: the edges' cross is in all sets alike.

    Args:
        images: (N, 3, S, S) in [0, 1].

    Returns:
        (S // 2,) in dB of the RMS amplitude: 6 dB more is twice as much.

    Raises:
        ValueError: The pictures are not square, too small, or not finite.
    """
    if images.ndim != 4 or images.shape[-1] != images.shape[-2] or len(images) == 0 or images.shape[-1] < 4:
        raise ValueError(f"{shapes(images=images)}; expected (N, C, S, S), square, at least one of 4 pixels or more.")
    check_finite(images=images)
    size = images.shape[-1]
    power = torch.zeros(size, size, dtype=torch.float64)
    for part in images.split(64):
        power += torch.fft.fft2(part.double().cpu(), norm="ortho").abs().square().mean(1).sum(0)
    cycles = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
    ring = torch.hypot(cycles[:, None], cycles[None]).round().long().flatten()
    mean = torch.bincount(ring, power.flatten() / len(images)) / torch.bincount(ring)
    amplitude = mean[1 : size // 2 + 1].sqrt()
    return 20 * (amplitude + SMALLEST_AMPLITUDE).log10()


def spectrum_distance(images_a: Tensor, images_b: Tensor) -> float:
    """RMS difference in decibels between the amplitude spectra of two sets of pictures.

    0 for the same set, for shifted (circularly) or mirrored pictures; c dB where one set has c dB more contrast at
    every frequency. Frequencies count alike on a logarithmic axis: ring f weighs 1 / f.

    Args:
        images_a, images_b: (N, 3, S, S) and (M, 3, S, S) in [0, 1], of one size.

    Raises:
        ValueError: The sizes differ, or as :func:`amplitude_profile`.

    Source: natural pictures fall off as 1 / f (Field 1987); pictures of feature visualisation do not (Olah et al.
    2017), which MACO (Fel et al. 2023) takes as its constraint. The distance is ours.

    >>> images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> spectrum_distance(images, images.flip(3))
    0.0
    """
    if images_a.shape[1:] != images_b.shape[1:]:
        raise ValueError(f"{shapes(images_a=images_a, images_b=images_b)}; expected one size. Resize the larger ones.")
    difference = amplitude_profile(images_a) - amplitude_profile(images_b)
    weight = 1 / torch.arange(1, len(difference) + 1, dtype=torch.float64)
    distance = ((weight * difference**2).sum() / weight.sum()).sqrt().item()
    return 0.0 if distance < 1e-9 else distance
