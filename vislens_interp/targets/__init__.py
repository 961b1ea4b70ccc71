"""What a lens points at: units of a network's layer, read by one scoped hook, or any function of images."""

from vislens_interp.targets.attribution import Attribution, attribute
from vislens_interp.targets.callable import CallableTarget
from vislens_interp.targets.inspect import LayerInfo, list_units
from vislens_interp.targets.ranking import TopUnits, top_units
from vislens_interp.targets.reading import Reading
from vislens_interp.targets.selectors import Direction, Head, MeanOf
from vislens_interp.targets.target import LayerTarget, Target
from vislens_interp.targets.whole_layer import LayerTable, open_table, read_layer, read_responses

__all__ = [
    "Attribution",
    "CallableTarget",
    "Direction",
    "Head",
    "LayerInfo",
    "LayerTable",
    "LayerTarget",
    "MeanOf",
    "Reading",
    "Target",
    "TopUnits",
    "attribute",
    "list_units",
    "open_table",
    "read_layer",
    "read_responses",
    "top_units",
]
