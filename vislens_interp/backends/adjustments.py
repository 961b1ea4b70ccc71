"""What an edit may change of a photograph so that it stays one: contrast, band by band and place by place, and tint."""

import torch
from torch import Tensor
from torch.nn import functional as F

from vislens_interp.images import COLOURS_SQRT

BANDS = 5
"""Octaves of a picture whose contrast can change; what is left is its coarse colours, of a 32nd of its side."""
FIELDS = (32, 32, 32, 64, 64)
"""Pixels of the picture to one place of a band's field of gains, finest band first. With a quarter of this, edits of
the same force are 1.4 times as far from photographs for a network with no part in them (12 tuning units of Lite2)."""
LARGEST, SMALLEST = (0.2, 0.4, 0.7, 1.0, 1.0), -2.0
"""Logarithms of each band's largest gain, finest band first, and of the smallest gain. Another network tells edits from
photographs by fine contrast that is raised, and hardly by contrast that is lowered (docs/design/diary.md)."""
TINT = 0.5
"""How far one unit of a tint goes in the colour space."""

SMOOTH = 64
"""Side in pixels up to which bands are enlarged bicubically."""


class Adjustments:
    """A picture (N, 3, S, S) as bands of a Laplacian pyramid, with a gain for each band, place and colour.

    Gains multiply what the photograph has; they add no pattern to it. The coarsest colours can shift as well. Colours
    are decorrelated first, so that brightness and hue change apart.

    Args:
        images: (N, 3, S, S) in [0, 1], S a multiple of 32.

    Attributes:
        parameters: What an optimiser changes; all 0 is the pictures as they are.

    Source: the pyramid is Burt and Adelson 1983; gains of its bands are what photographers call local contrast. The
    colour space is Olah et al. 2017's.
    """

    def __init__(self, images: Tensor) -> None:
        self.colours = COLOURS_SQRT.to(images)
        coarse = torch.einsum("rc,nchw->nrhw", torch.linalg.inv(self.colours), images - 0.5)
        self.bands: list[Tensor] = []
        for _ in range(BANDS):
            low = F.interpolate(coarse, scale_factor=0.5, mode="bilinear", antialias=True, align_corners=False)
            self.bands.append(coarse - _enlarged(low, coarse))
            coarse = low
        self.coarse = coarse
        count, side = len(images), images.shape[-1]
        sides = [max(1, side // pixels) for pixels in FIELDS]
        zeros = lambda cells: torch.zeros(count, 3, cells, cells, device=images.device, requires_grad=True)  # noqa: E731
        self.gains = [zeros(cells) for cells in sides]
        self.tint = zeros(coarse.shape[-1])
        self.parameters = [*self.gains, self.tint]

    def __call__(self) -> Tensor:
        """The pictures, adjusted; values may lie outside [0, 1]."""
        picture = self.coarse + TINT * self.tint
        for band, gain, largest in reversed(list(zip(self.bands, self.gains, LARGEST, strict=True))):
            field = torch.tanh(F.interpolate(gain, band.shape[-2:], mode="bilinear", align_corners=False))
            picture = _enlarged(picture, band) + band * torch.exp(field * torch.where(field > 0, largest, -SMALLEST))
        return torch.einsum("rc,nchw->nrhw", self.colours, picture) + 0.5


def _enlarged(small: Tensor, like: Tensor) -> Tensor:
    # Bicubic where places are few; at the finest sizes it costs as much as the network does.
    mode = "bicubic" if like.shape[-1] <= SMOOTH else "bilinear"
    return F.interpolate(small, like.shape[-2:], mode=mode, align_corners=False)
