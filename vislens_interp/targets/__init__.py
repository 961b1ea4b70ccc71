"""What a lens points at: units of a network's layer, read by one scoped hook."""

from vislens_interp.targets.selectors import MeanOf
from vislens_interp.targets.target import LayerTarget, Target, list_units, read_responses

__all__ = ["LayerTarget", "MeanOf", "Target", "list_units", "read_responses"]
