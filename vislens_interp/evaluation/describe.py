"""A lens in a few lines of text."""

from types import FunctionType
from typing import TYPE_CHECKING

from vislens_interp.report.render import render

if TYPE_CHECKING:
    from vislens_interp.lens import FeatureLens


def describe_lens(lens: "FeatureLens") -> str:
    """What the lens points at, what it applies to images, and what its fit is worth."""
    described = lens.target.describe()
    pool = ""
    # A neuron at its place and a function of the whole output are not pooled.
    pooled = not all(isinstance(unit, tuple | FunctionType) for unit in getattr(lens.target, "units", [0]))
    if pooled and len(described.get("shape", [])) > 1:
        over = "the map" if described["layout"] in ("NCHW", "NHWC", None) else "the positions"
        pool = f"{described['pool']} over {over}" if described["pool"] in ("mean", "max") else described["pool"]
        pool = f" ({pool})"
    layer = f"layer {described['layer']}" if described.get("layer") else "output"
    units = ", ".join(lens.target.names)
    lines = [
        f"{described['model']}, {layer}, unit {units}{pool}, backend {lens.backend.name}",
        f"preprocessing: {described.get('preprocess', 'none')}",
    ]
    if lens.method_ is None:
        return "\n".join([*lines, "not fitted yet"])
    lines.append(f"fitted on {len(lens.landscape_.latents)} images ({lens.reference_set.kind})")
    if lens.reference_set.pairing is not None:
        lines.append(f"images and their responses: {lens.reference_set.pairing}")
    return "\n".join([*lines, *(str(item) for item in lens.evidence_.values())])


def lens_cell(lens: "FeatureLens") -> str:
    """A lens in a notebook."""
    title, *lines = describe_lens(lens).splitlines()
    weak = lens.method_ is not None and any(item.weak for item in lens.evidence_.values())
    return render("notebook.html", title=title, lines=lines, weak=weak, columns=[], rows=[])
