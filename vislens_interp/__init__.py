"""Point a lens at one unit of a vision model, and see the natural images that it prefers."""

from vislens_interp import zoo
from vislens_interp.backends.base import Backend, register_backend
from vislens_interp.config import Config
from vislens_interp.evaluation.compare import compare
from vislens_interp.evaluation.comparison import Comparison
from vislens_interp.evaluation.contact_sheet import contact_sheet
from vislens_interp.images import load_images
from vislens_interp.lens import FeatureLens
from vislens_interp.methods import METHODS
from vislens_interp.methods.base import Method
from vislens_interp.preprocess import Preprocess
from vislens_interp.reference import ReferenceSet
from vislens_interp.report.contact_sheet import ContactSheet
from vislens_interp.results.result import LensResult
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
    "METHODS",
    "Backend",
    "CallableTarget",
    "Comparison",
    "Config",
    "ContactSheet",
    "Direction",
    "FeatureLens",
    "Head",
    "LayerTarget",
    "LensResult",
    "MeanOf",
    "Method",
    "Preprocess",
    "ReferenceSet",
    "compare",
    "contact_sheet",
    "list_units",
    "load_images",
    "read_layer",
    "read_responses",
    "register_backend",
    "top_units",
    "zoo",
]
