"""What a lens points at: units of a network's layer, read by one scoped hook, or any function of images."""

from vislens_interp.targets.callable import CallableTarget
from vislens_interp.targets.selectors import Direction, Head, MeanOf
from vislens_interp.targets.target import LayerTarget, Target, list_units, read_responses

__all__ = ["CallableTarget", "Direction", "Head", "LayerTarget", "MeanOf", "Target", "list_units", "read_responses"]
