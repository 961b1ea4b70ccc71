"""What is compared on V4 recordings: ours, the paper's, their rivals and controls."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.common import package as vl
from benchmarks.common.edit_methods import PAPER

SIGN: dict[vl.Sense, int] = {"increase": 1, "decrease": -1}


ANGLES = (10.0, 25.0, 40.0, 55.0, 75.0)


class RandomDirection(vl.DirectionEdit):
    """Turn every embedding towards one random direction: what any edit of that size changes."""

    def learn(self, x: Tensor, responses: Tensor, standard: Tensor) -> None:
        draw = torch.randn(1, x.shape[1], generator=torch.Generator().manual_seed(0))
        self.directions_ = normalize(draw.to(x), dim=1)


def landscape(**settings: Any) -> Callable[[], Any]:
    return lambda: vl.LandscapeEdit(shuffles=0, **settings)


OURS, LANDSCAPE = "ours as shipped", "the paper's landscape, lerp"


FADE = "the paper's landscape, fading residual"


TWIN, MEANS, PATTERN = "algebraic twin (weighted centroids), lerp", "difference of means", "ridge pattern"


BRAINACTIV, SHUFFLED = "ridge direction (BrainACTIV)", "shuffled landscape (ours)"


RANDOM = "a random direction"


METHODS: dict[str, Callable[[], Any]] = {
    OURS: landscape(),
    LANDSCAPE: landscape(**{**PAPER, "top_activating_power": 0.0}),
    FADE: landscape(**{**PAPER, "top_activating_power": 0.0, "residual": "fade"}),
    TWIN: lambda: vl.Centroids(),
    MEANS: lambda: vl.DifferenceOfMeans(),
    PATTERN: lambda: vl.RidgePattern(),
    BRAINACTIV: lambda: vl.RidgeDirection(strength=None),
    SHUFFLED: lambda: vl.Shuffled(vl.LandscapeEdit(shuffles=0), seed=1),
    RANDOM: lambda: RandomDirection(),
}


TWIN_SLERP, FILTER = "algebraic twin, slerp", "ridge direction, not projected"


VARIANTS: dict[str, Callable[[], Any]] = {
    "ours, decoded, one axis, reach 16": landscape(residual=False, top_activating_power=0.0, axis_scale_sd=16.0),
    "ours, residual, one axis, reach 16": landscape(residual=True, top_activating_power=0.0, axis_scale_sd=16.0),
    "ours, fading residual, one axis, reach 16": landscape(
        residual="fade", top_activating_power=0.0, axis_scale_sd=16.0
    ),
    "ours, fading residual, driven 2, reach 4": landscape(residual="fade", top_activating_power=2.0, axis_scale_sd=4.0),
    "ours, fading residual, driven 3, reach 2": landscape(residual="fade", top_activating_power=3.0, axis_scale_sd=2.0),
    "ours, fading residual, driven 3, reach 4": landscape(residual="fade", top_activating_power=3.0, axis_scale_sd=4.0),
    "ours, fading residual, driven 3, reach 8": landscape(residual="fade", top_activating_power=3.0, axis_scale_sd=8.0),
    "ours, decoded, driven 3, reach 4": landscape(residual=False, top_activating_power=3.0, axis_scale_sd=4.0),
    TWIN_SLERP: lambda: vl.Centroids(interpolation="slerp"),
    FILTER: lambda: vl.RidgeDirection(strength=None, project=False),
}
"""What `tune` compares beside the methods."""


RIVALS = (TWIN, MEANS, PATTERN, BRAINACTIV)
