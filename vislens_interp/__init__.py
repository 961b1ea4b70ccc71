"""Point a lens at one unit of a vision model, and see the natural images that it prefers."""

from vislens_interp import zoo
from vislens_interp.backends.base import register_backend
from vislens_interp.comparison import Comparison
from vislens_interp.images import load_images
from vislens_interp.lens import FeatureLens
from vislens_interp.preprocess import Preprocess
from vislens_interp.result import LensResult
from vislens_interp.targets import (
    CallableTarget,
    Direction,
    Head,
    LayerTarget,
    MeanOf,
    list_units,
    read_layer,
    read_responses,
    top_units,
)

__version__ = "0.1.0"

__all__ = [
    "CallableTarget",
    "Comparison",
    "Direction",
    "FeatureLens",
    "Head",
    "LayerTarget",
    "LensResult",
    "MeanOf",
    "Preprocess",
    "list_units",
    "load_images",
    "read_layer",
    "read_responses",
    "register_backend",
    "top_units",
    "zoo",
]
