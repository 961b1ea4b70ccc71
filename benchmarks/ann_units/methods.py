"""What `ann_units` compares: every method at one budget of forward passes, and what is noted while it works."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.edit_methods import BRAINACTIV, LANDSCAPE, MEANS, METHODS, PATTERN, SHUFFLED, TWIN, set_angle

Kind = Literal["ours", "edit", "optimised", "natural", "control"]
MADE: tuple[Kind, ...] = ("ours", "edit", "optimised")  # kinds that make images for a unit


@dataclass(frozen=True)
class Budget:
    """What every method may spend."""

    passes: int  # forward passes of the target a picture for whatever asks it: a multiple of 4, at least 8
    images: int  # pictures of each direction, all optimised together, so that no row only fills a batch
    angle: float  # degrees of the edits that are compared with one another

    def __post_init__(self) -> None:
        if self.passes < 8 or self.passes % 4:
            raise ValueError(
                f"passes={self.passes}; expected a multiple of 4, at least 8: DeepDream has four octaves. Pass 8 or 16."
            )

    @property
    def search(self) -> dict[str, int]:
        """Candidates a round of CMA-ES and rounds, which with the start use as many passes as can be."""
        candidates = self.passes - 1
        population = min(range(4, 9), key=lambda size: (candidates % size, size))
        return {"population": population, "generations": candidates // population}

    @property
    def ascent(self) -> dict[str, int]:
        """Of an optimisation: one pass looks at the start, or finds one from noise at which the unit answers."""
        return {"steps": self.passes - 1, "chunk": self.images}


@dataclass(frozen=True)
class Contestant:
    kind: Kind  # what it is; `"optimised"` asks the target about each picture again and again
    build: Callable[[vl.FeatureLens, Budget], Any]  # from the fitted lens and the budget to the method
    # What the target says on the way is about the whole picture, and all pictures advance together.
    traced: bool = False


def _of_lens(lens: vl.FeatureLens, name: str, angle: float | None = None) -> Any:
    """The fitted lens's own edit or optimisation."""
    assert isinstance(lens.method_, vl.LandscapeMethod)
    return vl.build_method(name, lens.method_, angle)


def _edited_prototypes(lens: vl.FeatureLens, budget: Budget) -> Any:
    """The shipped edit, of as many of a unit's prototypes as there are images."""
    return vl.EditedPrototypes(vl.LandscapeEdit(lens.fitted_method.config, shuffles=0), count=budget.images)


def _edit(label: str) -> Contestant:
    def build(lens: vl.FeatureLens, budget: Budget) -> Any:
        method = METHODS[label]()
        set_angle(method, budget.angle)
        return method

    return Contestant("control" if label == SHUFFLED else "edit", build)


def _named(kind: Kind, name: str, settings: Callable[[Budget], Any] = lambda b: {}, *, traced: bool = False) -> Any:
    """A method by its name, with settings that follow from the budget."""
    return Contestant(kind, lambda lens, budget: vl.method_by_name(name, **settings(budget)), traced)


OURS, OURS_AT_ANGLE, OPTIMISED = "landscape, shipped edit", "landscape, matched edit", "landscape, optimised"
NATURAL, RANDOM, NOISE, UNEDITED = "top natural images", "random natural images", "noise", "α = 0"
PROTOTYPES, EDITED = "prototypes", "prototypes, edited"
# In the order of the tables. What an edit is matched at is its angle; the shipped one goes as far as it is shipped.
CONTESTANTS: dict[str, Contestant] = {
    OURS: Contestant("ours", lambda lens, b: _of_lens(lens, "edit")),
    OURS_AT_ANGLE: Contestant("ours", lambda lens, b: _of_lens(lens, "edit", b.angle)),
    OPTIMISED: Contestant("ours", lambda lens, b: _of_lens(lens, "optimize").override(optimize=b.ascent), traced=True),
    EDITED: Contestant("ours", _edited_prototypes),
    **{label: _edit(label) for label in (LANDSCAPE, TWIN, MEANS, PATTERN, BRAINACTIV, SHUFFLED)},
    "standard VAE, optimised": _named("optimised", "standard_vae", lambda b: {"optimize": b.ascent}, traced=True),
    "CMA-ES": _named("optimised", "cma_es", lambda b: b.search),
    "activation max., pixels": _named("optimised", "pixel_maximization", lambda b: b.ascent, traced=True),
    "activation max., Fourier": _named("optimised", "activation_maximization", lambda b: b.ascent, traced=True),
    "DeepDream": _named(
        "optimised", "deepdream", lambda b: {"iterations": b.passes // 4, "chunk": b.images}, traced=True
    ),
    # One crop a step, of the published 6 and 16, so that as many steps as possible fit.
    "MACO": _named("optimised", "maco", lambda b: b.ascent | {"crops": 1}, traced=True),
    "feature accentuation": _named(
        "optimised", "feature_accentuation", lambda b: {"steps": b.passes // 2, "crops": 1, "chunk": b.images}
    ),
    NATURAL: _named("natural", "natural_images", lambda b: {"count": b.images}),
    PROTOTYPES: _named("natural", "prototypes", lambda b: {"count": b.images}),
    RANDOM: _named("control", "random_images"),
    NOISE: _named("control", "noise"),
    UNEDITED: _named("control", "unedited"),
}


class Heard(vl.CountedTarget):
    """A target that notes when it was asked and the mean of what it said (raw, over units and rows of the call)."""

    def __init__(self, target: vl.Target) -> None:
        super().__init__(target)
        self.said: list[tuple[float, float]] = []

    def clock(self) -> float:
        """Seconds: of the processor, which other processes do not lengthen, or of the clock with an accelerator."""
        return time.process_time() if self.device.type == "cpu" else time.perf_counter()

    def __call__(self, images: Tensor) -> Tensor:
        return self._note(super().__call__(images))

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        responses, features = super().with_features(images)
        return self._note(responses), features

    def _note(self, responses: Tensor) -> Tensor:
        self.said.append((self.clock(), responses.detach().mean().item()))
        return responses


class Watched(vl.Method):
    """A method as it is, of which pictures, seconds and what the target said meanwhile are kept."""

    def __init__(self, maker: Any, target: Heard) -> None:
        self.maker, self.heard_ = maker, target
        self.uses_alpha, self.uses_strength = maker.uses_alpha, maker.uses_strength
        self.shows_reference = maker.shows_reference
        if hasattr(maker, "target"):  # a landscape that is not fitted again
            self.target, self.backend = maker.target, maker.backend
        self.method = getattr(maker, "method", maker)  # where a comparison looks for angle and kind
        self.made_: dict[str, Tensor] = {}  # direction to pictures (N, 3, S, S); "unedited" is none
        self.seconds_: dict[str, float] = {}  # a picture, by direction; "fit" where it was fitted here
        # Direction to (seconds a picture since the start, raw mean response), a pair each time it was asked.
        self.traces_: dict[str, list[tuple[float, float]]] = {}

    def __getattr__(self, name: str) -> Any:
        if name == "maker":  # not there yet, as in a copy that is being made
            raise AttributeError(name)
        return getattr(self.maker, name)

    @property
    def own_alpha(self) -> float | None:
        return self.maker.own_alpha

    @property
    def own_strength(self) -> float | None:
        return self.maker.own_strength

    def validate(self, target: vl.Target, backend: vl.Backend) -> None:
        self.maker.validate(target, backend)

    def _fit(self, reference: vl.ReferenceSet, *, progress: bool, checkpoint: Path | None) -> None:
        start = self.heard_.clock()
        self.maker.fit(self.target, self.backend, reference, progress=progress, checkpoint=checkpoint)
        self.seconds_["fit"] = self.heard_.clock() - start

    def _generate(
        self, images: Tensor, directions: Any, seeds: list[int], alpha: float | None, strength: float | None
    ) -> tuple[Tensor, Tensor | None] | tuple[Tensor, Tensor | None, Tensor | None]:
        self.heard_.said = []
        start = self.heard_.clock()
        self.maker.target = self.target  # which counts what goes through it
        generated = self.maker._generate(images, directions, seeds, alpha, strength)
        (way,) = directions.values() or ("unedited",)
        self.made_[way] = generated[0]
        self.seconds_[way] = (self.heard_.clock() - start) / len(images)
        self.traces_[way] = [((moment - start) / len(images), value) for moment, value in self.heard_.said]
        return generated
