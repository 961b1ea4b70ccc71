"""How gradient ascent writes pictures down: logits of pixels, decorrelated colours, Fourier coefficients."""

import torch
from torch import Tensor

from vislens_interp.images import COLOURS_SQRT

LOGIT_EPS = 1e-3
"""Pixels nearer to black or white than this are taken for this, so that their logit is finite."""

COLOURS = COLOURS_SQRT / COLOURS_SQRT.norm(dim=0).max()
"""Square root of the covariance of ImageNet's colours, its longest column of length 1."""


def recorrelate(channels: Tensor) -> Tensor:
    """Independent channels (N, 3, H, W) to colours that vary together as those of photographs do."""
    return torch.einsum("rc,nchw->nrhw", COLOURS.to(channels), channels)


def decorrelate(colours: Tensor) -> Tensor:
    """The inverse of :func:`recorrelate`."""
    return torch.einsum("cr,nrhw->nchw", torch.linalg.inv(COLOURS.double()).to(colours), colours)


def to_logits(images: Tensor, eps: float = LOGIT_EPS) -> Tensor:
    """Pixels (N, 3, H, W) in [0, 1] to logits, of which ``sigmoid`` is the inverse."""
    return torch.logit(images.clamp(eps, 1 - eps))


def frequencies(size: int) -> Tensor:
    """Cycles a pixel of each coefficient of a real picture: (size, size // 2 + 1)."""
    return (torch.fft.fftfreq(size)[:, None] ** 2 + torch.fft.rfftfreq(size)[None] ** 2).sqrt()


def decay(size: int, power: float) -> Tensor:
    """What coefficients are multiplied by: 1 / max(f, 1 / size) ** power, (size, size // 2 + 1)."""
    return frequencies(size).clamp_min(1 / size) ** -power


def to_spectrum(signal: Tensor) -> Tensor:
    """Real (N, 3, S, S) to coefficients (N, 3, S, S // 2 + 1), complex; lengths are kept (``norm="ortho"``)."""
    return torch.fft.rfft2(signal, norm="ortho")


def to_signal(spectrum: Tensor, size: int) -> Tensor:
    """The inverse of :func:`to_spectrum`, at this size."""
    return torch.fft.irfft2(spectrum, s=(size, size), norm="ortho")


def edges(size: int) -> list[int]:
    """Columns of coefficients that hold both f and -f; elsewhere -f follows from f."""
    return [0] if size % 2 else [0, size // 2]


def multiplicity(size: int) -> Tensor:
    """How many coefficients of a whole spectrum those of each column stand for, conjugates too: (size // 2 + 1,)."""
    twice = torch.full((size // 2 + 1,), 2.0)
    twice[edges(size)] = 1
    return twice


def rings(size: int) -> Tensor:
    """The ring, one cycle a picture wide, in which each coefficient lies: (size, size // 2 + 1)."""
    return (size * frequencies(size)).round().long()


def ring_amplitudes(spectrum: Tensor) -> Tensor:
    """RMS amplitude in each ring, over orientations and channels: (N, C, S, S // 2 + 1) to (N, rings)."""
    size = spectrum.shape[-2]
    ring, weight = rings(size).flatten(), multiplicity(size).repeat(size)
    count = torch.bincount(ring, weight).to(spectrum.real)
    power = spectrum.abs().square().mean(1).flatten(1) * weight.to(spectrum.device)
    return (power.new_zeros(len(power), len(count)).index_add(1, ring.to(power.device), power) / count).sqrt()


def with_ring_amplitudes(pictures: Tensor, amplitudes: Tensor) -> Tensor:
    """Pictures (N, 3, S, S) scaled to these amplitudes (N, rings) ring by ring, their means kept; clipped to [0, 1].

    The scale is a constant to the gradient.
    """
    spectrum = to_spectrum(pictures)
    scale = amplitudes / ring_amplitudes(spectrum.detach()).clamp_min(1e-12)
    scale[:, 0] = 1
    return to_signal(spectrum * scale[:, rings(spectrum.shape[-2])][:, None], pictures.shape[-1]).clamp(0, 1)


def odd(phase: Tensor) -> Tensor:
    """Phases (..., S, S // 2 + 1) that a real picture can have: φ(-f) = -φ(f) where both are in the half-plane."""
    size = phase.shape[-2]
    opposite = (-torch.arange(size, device=phase.device)) % size
    edge, turned = phase[..., edges(size)], phase.clone()
    turned[..., edges(size)] = (edge - edge[..., opposite, :]) / 2
    return turned
