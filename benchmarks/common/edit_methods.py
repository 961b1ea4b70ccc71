"""What is compared in the embedded backend: ours, the paper's, their rivals and controls."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from benchmarks.common import package as vl

SIGN: dict[vl.Sense, int] = {"increase": 1, "decrease": -1}
ANGLES = (20.0, 30.0, 40.0, 55.0, 70.0)
JOB_ANGLE = 40.0
PAPER: dict[str, Any] = {
    # Table S3 and Algorithm 2 by exact rounds, which reach the loss that its 150 epochs end with
    # (benchmarks/sd15_speed) in a hundredth of the time.
    "solver": "alternating",
    "goal": "mean",
    "closed_form_init": False,
    "block_dim": None,
    "modes": 1,
    "w_kld": 1.0,
    "w_consistency": 0.0,
    "interpolation": "lerp",
    "residual": False,
    "keep_norm": True,
}
LANDSCAPE, OURS = "the paper's landscape, lerp", "ours as shipped"
SLERP = "the paper's landscape, slerp"
TWIN, MEANS, PATTERN = "algebraic twin, lerp", "difference of means", "ridge pattern"
BRAINACTIV, SHUFFLED = "ridge direction (BrainACTIV)", "shuffled landscape (ours)"
NATURAL, UNEDITED = "top-10 natural images", "α = 0"
UNIT = "the unit itself"
"""What judges the pictures of a job: the responses are read, not predicted."""
METHODS: dict[str, Callable[[], Any]] = {
    OURS: lambda: vl.LandscapeEdit(shuffles=0),
    LANDSCAPE: lambda: vl.LandscapeEdit(shuffles=0, **PAPER),
    SLERP: lambda: vl.LandscapeEdit(shuffles=0, **{**PAPER, "interpolation": "slerp"}),
    TWIN: lambda: vl.Centroids(),
    MEANS: lambda: vl.DifferenceOfMeans(),
    PATTERN: lambda: vl.RidgePattern(),
    BRAINACTIV: lambda: vl.RidgeDirection(strength=None),
    SHUFFLED: lambda: vl.Shuffled(vl.LandscapeEdit(shuffles=0), seed=1),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "ours, decoded": {"goal": "mean", "residual": False},
    "ours, residual": {"goal": "mean", "residual": True},
    "ours, decoded, slerp": {"goal": "mean", "residual": False, "interpolation": "slerp"},
    "ours, residual, no gradient steps": {"goal": "mean", "residual": True, "solver": "alternating", "epochs": 1},
    "ours, decoded, 3 modes": {"goal": "mean", "residual": False, "modes": 3},
    "ours, residual, 3 modes": {"goal": "mean", "residual": True, "modes": 3},
    "ours, residual, 6 modes": {"goal": "mean", "residual": True, "modes": 6},
    "ours, residual, reach 8": {"goal": "mean", "residual": True, "axis_scale_sd": 8.0},
    "ours, residual, reach 16": {"goal": "mean", "residual": True, "axis_scale_sd": 16.0},
    "the paper's landscape, residual": {**PAPER, "residual": True},
    "the paper's landscape, fading residual": {**PAPER, "residual": "fade"},
    "the paper's landscape, fading residual, 3 modes": {**PAPER, "residual": "fade", "modes": 3},
}
"""What `retrieval --tune` compares beside the methods; the best becomes the backend's default."""
VARIANT_METHODS: dict[str, Callable[[], Any]] = {
    label: (lambda settings=settings: vl.LandscapeEdit(shuffles=0, **settings)) for label, settings in VARIANTS.items()
}
RIVALS = (TWIN, MEANS, PATTERN, BRAINACTIV)
JOB_METHODS = (OURS, LANDSCAPE, TWIN, MEANS, PATTERN, BRAINACTIV, SHUFFLED)


def set_angle(method: Any, angle: float) -> None:
    """From now on every embedding turns so far."""
    if isinstance(method, vl.Shuffled):
        set_angle(method.method, angle)
    elif isinstance(method, vl.LandscapeMethod):
        method.override(angle=angle)
    else:
        method.angle = angle


def fit_with_fewer_modes(method: Any, target: vl.Target, backend: Any, images: Tensor, responses: Tensor) -> None:
    """Fit; a landscape of several modes takes as many as the unit's strongly driven images place."""
    while True:
        try:
            method.fit(target, backend, images, responses)
        except ValueError as error:
            if "Lower modes" not in str(error):
                raise
            method.override(modes=method.settings()["modes"] - 1)
        else:
            return


def correlation_of(method: Any) -> float | None:
    """Held-out correlation of a landscape's axis with its unit: its evidence, without the shuffled fits."""
    found = list(getattr(method, "evidence_", {}).values())
    return found[0].correlation if found else None
