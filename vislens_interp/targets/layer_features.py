"""What a target's layer sees of a picture: the consistency loss of a fit, and what an optimisation leaves as it is."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vislens_interp.targets.layout import channel_axis
from vislens_interp.targets.selectors import MeanOf
from vislens_interp.targets.target import Target


class LayerFeatures:
    """A layer's output as one vector a picture: its maps, and their means beside them at equal weight.

    A map that is blurred has its details wrong, which cannot be helped, and its mean too low, which can.

    Args:
        target: Reads the layer.
        images: (N, 3, H, W) that the weight of the means is balanced on.
        without: Units of the target whose own place in the layer is left out. A unit that is a function of the layer's
            output, a direction or a head has no place of its own there, and its parts stay.

    Attributes:
        variance: Total variance of what is seen, over ``images``.

    Raises:
        TypeError: The target reads no layer.
    """

    def __init__(self, target: Target, images: Tensor, *, without: Sequence[int] = ()) -> None:
        self.target = target
        layout = getattr(target, "layout", None)
        self.axis = 1 if layout is None else channel_axis(layout)
        self.weight: Tensor | float = 1.0
        self.mask: Tensor | None = None
        with torch.no_grad():
            layer = target.features(images).float()
            if without:
                self.mask = torch.ones_like(layer[:1])
                units = getattr(target, "units", [])
                for unit in (units[index] for index in without if index < len(units)):
                    if isinstance(unit, int):
                        self.mask.select(self.axis, unit).zero_()
                    elif isinstance(unit, MeanOf):
                        for one in unit.units:
                            self.mask.select(self.axis, one).zero_()
                    elif isinstance(unit, tuple):
                        self.mask[0][unit] = 0
            maps, means = self._parts(layer)
            self.weight = (maps.var(0).sum() / means.var(0).sum().clamp_min(1e-12)).sqrt()
            self.variance = self.of(layer).var(0).sum()

    def _parts(self, layer: Tensor) -> tuple[Tensor, Tensor]:
        layer = layer if self.mask is None else layer * self.mask
        pooled = layer.movedim(self.axis, 1).flatten(2).mean(2) if layer.ndim > 2 else layer
        return layer.flatten(1), pooled

    def of(self, layer: Tensor) -> Tensor:
        """The layer's output (N, ...) as (N, F)."""
        maps, means = self._parts(layer.float())
        return torch.cat([maps, means * self.weight], 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) to (N, F); gradients flow."""
        return self.of(self.target.features(images))
