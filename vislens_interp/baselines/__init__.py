"""Methods by name: ours, what it is compared with, and the controls. Each is imported when it is asked for."""

import difflib
import importlib
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vislens_interp.method import Method


@dataclass(frozen=True)
class Entry:
    """Where a method is.

    Args:
        module: Of this package: ``"baselines.centroids"``.
        attribute: The class, or a function that makes the method.
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
    "edit": Entry("method", "LandscapeMethod", {"technique": "edit"}),
    "optimize": Entry("method", "LandscapeMethod", {"technique": "optimize"}),
    # an embedding moved along what the responses say
    "ridge_direction": Entry("baselines.ridge_direction", "RidgeDirection"),
    "ridge_pattern": Entry("baselines.ridge_pattern", "RidgePattern"),
    "difference_of_means": Entry("baselines.difference_of_means", "DifferenceOfMeans"),
    "centroids": Entry("baselines.centroids", "Centroids"),
    # an embedding or latent moved by what the target answers
    "standard_vae": Entry("baselines.standard_vae", "StandardVAE"),
    "cma_es": Entry("baselines.cma_es", "EmbeddingSearch"),
    # pixels moved by the target's gradient
    "activation_maximization": Entry("baselines.activation_maximization", "ActivationMaximization"),
    "pixel_maximization": Entry(
        "baselines.activation_maximization", "ActivationMaximization", {"parametrization": "pixel"}
    ),
    "deepdream": Entry("baselines.deepdream", "DeepDream"),
    "maco": Entry("baselines.maco", "MACO"),
    "feature_accentuation": Entry("baselines.feature_accentuation", "FeatureAccentuation"),
    # a diffusion model pulled by it
    "guided_diffusion": Entry("baselines.guided_diffusion", "GuidedDiffusion"),
    # nothing generated
    "natural_images": Entry("baselines.natural_images", "NaturalImages"),
    # controls
    "random_images": Entry("baselines.natural_images", "RandomImages"),
    "noise": Entry("baselines.controls", "Noise"),
    "unedited": Entry("baselines.controls", "Unedited"),
    "shuffled": Entry("baselines.controls", "shuffled_landscape"),
}
"""What ``method=`` and ``methods=`` know by name."""


def method(name: str, **settings: Any) -> "Method":
    """A method by name, not fitted yet.

    Args:
        name: One of :data:`METHODS`.
        settings: Of that method; its class says which.

    Raises:
        ValueError: There is no such method.
        TypeError: The method has no such setting.

    >>> method("ridge_pattern", angle=40.0).angle
    40.0
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, 3)
        raise ValueError(
            f"method={name!r} is unknown; expected one of {', '.join(METHODS)}."
            + (f" Closest: {', '.join(near)}." if near else "")
        )
    entry = METHODS[name]
    build = entry.load()
    parameters = inspect.signature(build).parameters
    known = [one for one, said in parameters.items() if said.kind is not said.VAR_KEYWORD and one not in entry.preset]
    takes_any = len(parameters) > len([p for p in parameters.values() if p.kind is not p.VAR_KEYWORD])
    for setting in settings:
        if setting in entry.preset:
            raise TypeError(
                f"{setting}={settings[setting]!r}, but method {name!r} stands for {setting}="
                f"{entry.preset[setting]!r}. Leave it out."
            )
        if setting not in known and not takes_any:
            near = difflib.get_close_matches(setting, known, 3)
            raise TypeError(
                f"{setting}= is no setting of method {name!r}. "
                + (f"Closest: {', '.join(near)}." if near else f"Known: {', '.join(known) or 'none'}.")
            )
    return build(**entry.preset, **settings)
