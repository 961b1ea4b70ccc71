"""Where a layer's output holds images, channels and positions: followed through a pass, never guessed from sizes."""

from vislens_interp.targets.layout.infer import (
    LAYOUTS,
    Arrangement,
    Layout,
    channel_axis,
    check_layout,
    declared,
    establish,
    leaf_axis,
)
from vislens_interp.targets.layout.kinds import Axes, axis_of
from vislens_interp.targets.layout.tracer import AxisTracer

__all__ = [
    "LAYOUTS",
    "Arrangement",
    "Axes",
    "AxisTracer",
    "Layout",
    "axis_of",
    "channel_axis",
    "check_layout",
    "declared",
    "establish",
    "leaf_axis",
]
