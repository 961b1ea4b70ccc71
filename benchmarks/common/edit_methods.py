"""What is compared where embeddings are edited: ours, the paper's, their rivals and controls."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from benchmarks.common import package as vl

SIGN: dict[vl.Sense, int] = {"increase": 1, "decrease": -1}
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
TWIN, MEANS, PATTERN = "algebraic twin, lerp", "difference of means", "ridge pattern"
BRAINACTIV, SHUFFLED = "ridge direction (BrainACTIV)", "shuffled landscape (ours)"
NATURAL, UNEDITED = "top-10 natural images", "α = 0"


def landscape(**settings: Any) -> Callable[[], Any]:
    """Makes a landscape edit without the shuffled fits behind its evidence."""
    return lambda: vl.LandscapeEdit(shuffles=0, **settings)


METHODS: dict[str, Callable[[], Any]] = {
    OURS: landscape(),
    LANDSCAPE: landscape(**PAPER),
    TWIN: vl.Centroids,
    MEANS: vl.DifferenceOfMeans,
    PATTERN: vl.RidgePattern,
    BRAINACTIV: lambda: vl.RidgeDirection(strength=None),
    SHUFFLED: lambda: vl.Shuffled(vl.LandscapeEdit(shuffles=0), seed=1),
}
JOB_METHODS = tuple(METHODS)


class Recorded(vl.Target):
    """Units whose responses are all known beforehand."""

    differentiable = False

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __call__(self, images: Tensor) -> Tensor:
        raise TypeError("these responses were read beforehand; pass them to fit.")


def set_angle(method: Any, angle: float) -> None:
    """From now on every embedding turns so far."""
    if isinstance(method, vl.Shuffled):
        set_angle(method.method, angle)
    elif isinstance(method, vl.LandscapeMethod):
        method.override(angle=angle)
    else:
        method.angle = angle
