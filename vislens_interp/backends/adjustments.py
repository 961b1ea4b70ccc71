"""What an edit may change of a photograph so that it stays one: contrast and tint, by place and brightness."""

import torch
from torch import Tensor
from torch.nn import functional as F

from vislens_interp.images import COLOURS_SQRT

BANDS = 5
"""Octaves of a picture whose contrast can change; what is left is its coarse colours, of a 32nd of its side."""
PLACES = 4
"""Places of a grid along each side of the picture."""
CONTRAST_LEVELS, TINT_LEVELS = 4, 6
"""Levels of brightness of the grids. More move units further, and turn smooth shades into steps
(docs/design/diary.md)."""
LARGEST, SMALLEST = (0.2, 0.4, 0.7, 1.0, 1.0), -2.0
"""Logarithms of each band's largest gain, finest band first, and of the smallest gain. Another network tells edits from
photographs by fine contrast that is raised, and hardly by contrast that is lowered (docs/design/diary.md)."""
TINT = 0.5
"""How far one unit of a tint goes in the colour space."""

SMOOTH = 64
"""Side in pixels up to which bands are enlarged bicubically."""


class Adjustments:
    """A picture (N, 3, S, S) as bands of a Laplacian pyramid, with gains, and a tint.

    Gains multiply what the photograph has; they add no pattern to it. The tint shifts colours. Both are bilateral
    grids: a few places by a few levels of brightness, read at each pixel's place and brightness. So they follow the
    edges of what is in the photograph: a sky is tinted as a whole, and the bird in it is left alone. Colours are
    decorrelated first, so that brightness and hue change apart.

    Args:
        images: (N, 3, S, S) in [0, 1], S a multiple of 32.

    Attributes:
        gains: One grid (N, 3, levels, 4, 4) a band, finest first.
        tint: A grid (N, 3, levels, 4, 4).
        parameters: What an optimiser changes; all 0 is the pictures as they are.

    Source: the pyramid is Burt and Adelson 1983; gains of its bands are what photographers call local contrast. The
    bilateral grid is Chen, Paris and Durand 2007's; Gharbi et al. 2017 retouch photographs with it. The colour space is
    Olah et al. 2017's.
    """

    def __init__(self, images: Tensor) -> None:
        self.colours = COLOURS_SQRT.to(images)
        coarse = torch.einsum("rc,nchw->nrhw", torch.linalg.inv(self.colours), images - 0.5)
        brightness = images.mean(1, keepdim=True).clamp(0, 1)
        self.read_tint = _Slice(brightness, TINT_LEVELS)
        self.bands: list[Tensor] = []
        self.read_gains: list[_Slice] = []
        for _ in range(BANDS):
            low = F.interpolate(coarse, scale_factor=0.5, mode="bilinear", antialias=True, align_corners=False)
            self.bands.append(coarse - _enlarged(low, coarse))
            shades = F.interpolate(brightness, coarse.shape[-2:], mode="area")
            self.read_gains.append(_Slice(shades, CONTRAST_LEVELS))
            coarse = low
        self.coarse = coarse
        of = {"device": images.device, "requires_grad": True}
        self.gains = [torch.zeros(len(images), 3, CONTRAST_LEVELS, PLACES, PLACES, **of) for _ in range(BANDS)]
        self.tint = torch.zeros(len(images), 3, TINT_LEVELS, PLACES, PLACES, **of)
        self.parameters = [*self.gains, self.tint]

    def __call__(self) -> Tensor:
        """The pictures, adjusted; values may lie outside [0, 1]."""
        picture = self.coarse
        bands = zip(self.bands, self.gains, self.read_gains, LARGEST, strict=True)
        for band, gain, read, largest in reversed(list(bands)):
            field = torch.tanh(read(gain))
            picture = _enlarged(picture, band) + band * torch.exp(field * torch.where(field > 0, largest, -SMALLEST))
        picture = picture + TINT * self.read_tint(self.tint)
        return torch.einsum("rc,nchw->nrhw", self.colours, picture) + 0.5


class _Slice:
    """Reads grids (N, 3, levels, 4, 4) at each pixel's place and brightness, linearly between them: (N, 3, S, S).

    What torch's ``grid_sample`` does in three dimensions, up to a picture's borders, as two products of matrices.

    Args:
        brightness: (N, 1, S, S) in [0, 1].
    """

    def __init__(self, brightness: Tensor, levels: int) -> None:
        count, _, side, _ = brightness.shape
        level = torch.arange(levels, device=brightness.device)[:, None, None]
        weights = (1 - (brightness * (levels - 1) - level).abs()).clamp_min(0)  # of the two levels beside it, else 0
        places = torch.eye(PLACES).to(brightness)[None]
        self.places = F.interpolate(places, side, mode="linear", align_corners=False)[0]  # (4, S): of a row or column
        columns = weights.transpose(1, 2)[:, :, :, None] * self.places
        self.columns = columns.reshape(count * side, levels * PLACES, side)

    def __call__(self, grid: Tensor) -> Tensor:
        side = self.places.shape[1]
        rows = torch.einsum("nclpq,ps->nsclq", grid, self.places).reshape(len(self.columns), 3, -1)
        return torch.bmm(rows, self.columns).unflatten(0, (-1, side)).transpose(1, 2)


def _enlarged(small: Tensor, like: Tensor) -> Tensor:
    # Bicubic where places are few; at the finest sizes it costs as much as the network does.
    mode = "bicubic" if like.shape[-1] <= SMOOTH else "bilinear"
    return F.interpolate(small, like.shape[-2:], mode=mode, align_corners=False)
