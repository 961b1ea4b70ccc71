"""Whether pictures have the spatial frequencies of natural ones: optimised pictures have too many high ones."""

import torch
from torch import Tensor

from vislens_interp.images import check_images

LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Weights of red, green and blue (ITU-R BT.709)."""
FLOOR = 1e-6
"""Amplitude in intensities, below which a frequency counts as absent: what rounding leaves of a smooth picture."""


def amplitude_spectrum(images: Tensor) -> Tensor:
    """Mean luminance amplitude of pictures at each spatial frequency, around all orientations.

    Args:
        images: (N, 3, S, S) in [0, 1].

    Returns:
        (S // 2,) for 1, 2, ... cycles a picture, float64, in intensities; the mean luminance is left out.

    Raises:
        ValueError: The pictures are not square.
    """
    check_images(images, "images")
    size = images.shape[-1]
    if images.shape[-2] != size or size < 4:
        raise ValueError(
            f"images has shape {tuple(images.shape)}; expected squares of at least 4 px. Resize or crop them."
        )
    weights = torch.tensor(LUMINANCE, dtype=torch.float64, device=images.device).view(1, 3, 1, 1)
    amplitude = torch.fft.fft2((images.double() * weights).sum(1), norm="forward").abs().mean(0)
    along = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64, device=images.device)
    ring = (along[:, None] ** 2 + along[None] ** 2).sqrt().round().long()
    kept = [amplitude[ring == cycles].mean() for cycles in range(1, size // 2 + 1)]
    return torch.stack(kept)


def spectrum_distance(images_a: Tensor, images_b: Tensor) -> float:
    """Root mean squared difference of two sets' log amplitude spectra: 0 for the same, log c where one is c times it.

    Args:
        images_a: (N, 3, S, S) in [0, 1].
        images_b: (M, 3, S, S) in [0, 1].

    Returns:
        In natural logarithms of amplitude, averaged over frequencies.

    Raises:
        ValueError: The pictures are not squares of one size.

    Source: ours, after the 1/f amplitude of natural scenes (Field 1987).

    >>> images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> round(spectrum_distance(images, images / 2), 4)
    0.6931
    """
    if images_a.shape[1:] != images_b.shape[1:]:
        raise ValueError(
            f"images_a has shape {tuple(images_a.shape)} and images_b {tuple(images_b.shape)}; expected pictures of "
            "one size. Resize one of them."
        )
    logs = [amplitude_spectrum(images).clamp_min(FLOOR).log() for images in (images_a, images_b)]
    return ((logs[0] - logs[1]) ** 2).mean().sqrt().item()
