"""What is compared on V4 recordings: ours, the paper's, their rivals and controls."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.common import edit_methods
from benchmarks.common import package as vl
from benchmarks.common.edit_methods import BRAINACTIV, LANDSCAPE, MEANS, OURS, PAPER, PATTERN, SHUFFLED, landscape
from benchmarks.common.edit_methods import SIGN as SIGN

ANGLES = (10.0, 25.0, 40.0, 55.0, 75.0)
FADE = "the paper's landscape, fading residual"
TWIN, RANDOM = "algebraic twin (weighted centroids), lerp", "a random direction"


class RandomDirection(vl.DirectionEdit):
    """Turn every embedding towards one random direction: what any edit of that size changes."""

    def learn(self, x: Tensor, responses: Tensor, standard: Tensor) -> None:
        draw = torch.randn(1, x.shape[1], generator=torch.Generator().manual_seed(0))
        self.directions_ = normalize(draw.to(x), dim=1)


METHODS: dict[str, Callable[[], Any]] = {
    OURS: landscape(),
    LANDSCAPE: landscape(**PAPER, top_activating_power=0.0),
    FADE: landscape(**{**PAPER, "top_activating_power": 0.0, "residual": "fade"}),
    TWIN: vl.Centroids,
    **{label: edit_methods.METHODS[label] for label in (MEANS, PATTERN, BRAINACTIV, SHUFFLED)},
    RANDOM: RandomDirection,
}
RIVALS = (TWIN, MEANS, PATTERN, BRAINACTIV)


def _variant(residual: bool | str, power: float, reach: float) -> Callable[[], Any]:
    return landscape(residual=residual, top_activating_power=power, axis_scale_sd=reach)


# What `tune` compares beside the methods.
VARIANTS: dict[str, Callable[[], Any]] = {
    "ours, decoded, one axis, reach 16": _variant(False, 0.0, 16.0),
    "ours, residual, one axis, reach 16": _variant(True, 0.0, 16.0),
    "ours, fading residual, one axis, reach 16": _variant("fade", 0.0, 16.0),
    "ours, fading residual, driven 2, reach 4": _variant("fade", 2.0, 4.0),
    "ours, fading residual, driven 3, reach 2": _variant("fade", 3.0, 2.0),
    "ours, fading residual, driven 3, reach 4": _variant("fade", 3.0, 4.0),
    "ours, fading residual, driven 3, reach 8": _variant("fade", 3.0, 8.0),
    "ours, decoded, driven 3, reach 4": _variant(False, 3.0, 4.0),
    "algebraic twin, slerp": lambda: vl.Centroids(interpolation="slerp"),
    "ridge direction, not projected": lambda: vl.RidgeDirection(strength=None, project=False),
}
