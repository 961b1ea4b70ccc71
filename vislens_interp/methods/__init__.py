"""Methods by name: ours, what it is compared with, and the controls. Each is imported when it is asked for."""

import importlib
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vislens_interp.validation import closest

if TYPE_CHECKING:
    from vislens_interp.methods.base import Method


@dataclass(frozen=True)
class Entry:
    """Where a method is.

    Args:
        module, attribute: Of this package, ``"methods.directions"``, and in it the class, or a function that makes the
            method.
        preset: Settings that the name stands for.
    """

    module: str
    attribute: str
    preset: dict[str, Any] = field(default_factory=dict)

    def load(self) -> Any:
        """The class or function itself."""
        return getattr(importlib.import_module(f"vislens_interp.{self.module}"), self.attribute)


METHODS: dict[str, Entry] = {
    # ours
    "edit": Entry("methods.landscape", "LandscapeEdit"),
    "optimize": Entry("methods.optimization", "LandscapeOptimization"),
    "edited_prototypes": Entry("methods.prototypes", "EditedPrototypes"),
    # an embedding moved along what the responses say
    "ridge_direction": Entry("methods.directions", "RidgeDirection"),
    "ridge_pattern": Entry("methods.directions", "RidgePattern"),
    "difference_of_means": Entry("methods.directions", "DifferenceOfMeans"),
    "centroids": Entry("methods.directions", "Centroids"),
    # an embedding or latent moved by what the target answers
    "standard_vae": Entry("methods.standard_vae", "StandardVAE"),
    "cma_es": Entry("methods.cma_es", "EmbeddingSearch"),
    # pixels moved by the target's gradient
    "activation_maximization": Entry("methods.activation_maximization", "ActivationMaximization"),
    "pixel_maximization": Entry(
        "methods.activation_maximization", "ActivationMaximization", {"parametrization": "pixel"}
    ),
    "deepdream": Entry("methods.deepdream", "DeepDream"),
    "maco": Entry("methods.maco", "MACO"),
    "feature_accentuation": Entry("methods.feature_accentuation", "FeatureAccentuation"),
    "caricature": Entry("methods.caricature", "Caricature"),
    # a diffusion model pulled by it
    "guided_diffusion": Entry("methods.guided_diffusion", "GuidedDiffusion"),
    # nothing generated
    "natural_images": Entry("methods.natural_images", "NaturalImages"),
    "prototypes": Entry("methods.prototypes", "Prototypes"),
    # controls
    "random_images": Entry("methods.natural_images", "RandomImages"),
    "noise": Entry("methods.controls", "Noise"),
    "unedited": Entry("methods.controls", "Unedited"),
    "shuffled": Entry("methods.controls", "shuffled_landscape"),
}
"""What ``method=`` and ``methods=`` know by name."""


def method_by_name(name: str, **settings: object) -> "Method":
    """A method by name, not fitted yet.

    Args:
        name, settings: One of :data:`METHODS`, and settings of that method; its class says which.

    Raises:
        ValueError, TypeError: There is no such method, or it has no such setting.

    >>> method_by_name("ridge_pattern", angle=40.0).angle
    40.0
    """
    if name not in METHODS:
        near = closest(name, METHODS, otherwise=None)
        raise ValueError(f"method={name!r} is unknown; expected one of {', '.join(METHODS)}. {near}")
    entry = METHODS[name]
    build = entry.load()
    parameters = inspect.signature(build).parameters
    takes_any = any(said.kind is said.VAR_KEYWORD for said in parameters.values())
    known = [one for one in parameters if one not in entry.preset]
    for setting in settings:
        if setting in entry.preset:
            raise TypeError(
                f"{setting}={settings[setting]!r}, but method {name!r} stands for {setting}={entry.preset[setting]!r}. "
                "Leave it out."
            )
        if setting not in known and not takes_any:
            raise TypeError(f"{setting}= is no setting of method {name!r}. {closest(setting, known)}")
    return build(**entry.preset, **settings)
