"""Point a lens at one unit of a vision model, and see the natural images that it prefers."""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # nothing is imported before it is used: `vislens --help` answers at once
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

__version__ = "0.2.0"

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

_MODULES = {
    "Backend": "backends.base",
    "CallableTarget": "targets",
    "Comparison": "evaluation.comparison",
    "Config": "config",
    "ContactSheet": "report.contact_sheet",
    "Direction": "targets",
    "FeatureLens": "lens",
    "Head": "targets",
    "LayerTarget": "targets",
    "LensResult": "results.result",
    "METHODS": "methods",
    "MeanOf": "targets",
    "Method": "methods.base",
    "Preprocess": "preprocess",
    "ReferenceSet": "reference",
    "compare": "evaluation.compare",
    "contact_sheet": "evaluation.contact_sheet",
    "list_units": "targets",
    "load_images": "images",
    "read_layer": "targets",
    "read_responses": "targets",
    "register_backend": "backends.base",
    "top_units": "targets",
}
"""Public name to the module of this package that holds it."""


def __getattr__(name: str) -> Any:
    """A public name, or a module of this package, imported when it is first asked for."""
    if name in _MODULES:
        value = getattr(importlib.import_module(f"vislens_interp.{_MODULES[name]}"), name)
    elif name.startswith("_") or importlib.util.find_spec(f"vislens_interp.{name}") is None:
        raise AttributeError(f"module 'vislens_interp' has no attribute {name!r}")
    else:
        value = importlib.import_module(f"vislens_interp.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
