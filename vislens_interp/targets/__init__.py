"""What a lens points at: units of a network's layer, read by one scoped hook, or any function of images."""

from vislens_interp.targets.callable import CallableTarget
from vislens_interp.targets.ranking import top_units
from vislens_interp.targets.selectors import Direction, Head, MeanOf
from vislens_interp.targets.target import LayerTarget, Target, list_units, read_responses
from vislens_interp.targets.whole_layer import read_layer

__all__ = [
    "CallableTarget",
    "Direction",
    "Head",
    "LayerTarget",
    "MeanOf",
    "Target",
    "list_units",
    "read_layer",
    "read_responses",
    "top_units",
]
