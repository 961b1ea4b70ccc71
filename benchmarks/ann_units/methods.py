"""What `ann_units` compares: every method at one budget of forward passes, and what is noted while it works."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.bench import Remembered
from benchmarks.common.edit_methods import BRAINACTIV, LANDSCAPE, MEANS, METHODS, PATTERN, SHUFFLED, TWIN, set_angle

Kind = Literal["ours", "edit", "optimised", "natural", "control"]
MADE: tuple[Kind, ...] = ("ours", "edit", "optimised")
"""Kinds that make images for a unit."""


@dataclass(frozen=True)
class Budget:
    """What every method may spend.

    Args:
        passes: Forward passes of the target a picture for whatever asks it: a multiple of 4, at least 8.
        images: Pictures of each direction, all optimised together, so that no row only fills a batch.
        angle: Degrees of the edits that are compared with one another.
    """

    passes: int
    images: int
    angle: float

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


@dataclass(frozen=True)
class Contestant:
    """A method of the comparison.

    Args:
        build: From the fitted lens and the budget to the method.
        kind: What it is; ``"optimised"`` asks the target about each picture again and again.
        traced: What the target says on the way is about the whole picture, and all pictures advance together.
    """

    build: Callable[[vl.FeatureLens, Budget], Any]
    kind: Kind
    traced: bool = False


def _shipped(lens: vl.FeatureLens, budget: Budget) -> Any:
    return vl.build_method("edit", lens.method_, None)  # pyright: ignore[reportArgumentType]


def _at_angle(lens: vl.FeatureLens, budget: Budget) -> Any:
    return vl.build_method("edit", lens.method_, budget.angle)  # pyright: ignore[reportArgumentType]


def _optimise(lens: vl.FeatureLens, budget: Budget) -> Any:
    method = vl.build_method("optimize", lens.method_, None)  # pyright: ignore[reportArgumentType]
    return method.override(optimize=_latent(budget))  # pyright: ignore[reportAttributeAccessIssue]


def _latent(budget: Budget) -> dict[str, int]:
    """The start is looked at, too."""
    return {"steps": budget.passes - 1, "chunk": budget.images}


def _edit(label: str) -> Contestant:
    def make(lens: vl.FeatureLens, budget: Budget) -> Any:
        method = METHODS[label]()
        set_angle(method, budget.angle)
        return method

    return Contestant(make, "control" if label == SHUFFLED else "edit")


def _named(name: str, kind: Kind, traced: bool = False, **settings: Callable[[Budget], Any]) -> Contestant:
    """A method by its name, with settings that follow from the budget."""
    return Contestant(
        lambda lens, budget: vl.method_by_name(name, **{key: of(budget) for key, of in settings.items()}), kind, traced
    )


def _together(budget: Budget) -> int:
    return budget.images


OURS, OURS_AT_ANGLE, OPTIMISED = "landscape, shipped edit", "landscape, matched edit", "landscape, optimised"
NATURAL, RANDOM, NOISE, UNEDITED = "top natural images", "random natural images", "noise", "α = 0"
CONTESTANTS: dict[str, Contestant] = {
    OURS: Contestant(_shipped, "ours"),
    OURS_AT_ANGLE: Contestant(_at_angle, "ours"),
    OPTIMISED: Contestant(_optimise, "ours", traced=True),
    **{label: _edit(label) for label in (LANDSCAPE, TWIN, MEANS, PATTERN, BRAINACTIV, SHUFFLED)},
    "standard VAE, optimised": Contestant(
        lambda lens, budget: vl.method_by_name("standard_vae", optimize=_latent(budget)), "optimised", traced=True
    ),
    "CMA-ES": _named(
        "cma_es",
        "optimised",
        generations=lambda b: b.search["generations"],
        population=lambda b: b.search["population"],
    ),
    # One pass of an ascent from noise goes into finding a start at which the unit answers.
    "activation max., pixels": _named(
        "pixel_maximization", "optimised", True, steps=lambda b: b.passes - 1, chunk=_together
    ),
    "activation max., Fourier": _named(
        "activation_maximization", "optimised", True, steps=lambda b: b.passes - 1, chunk=_together
    ),
    "DeepDream": _named("deepdream", "optimised", True, iterations=lambda b: b.passes // 4, chunk=_together),
    # One crop a step, of the published 6 and 16, so that as many steps as possible fit.
    "MACO": _named("maco", "optimised", True, steps=lambda b: b.passes - 1, crops=lambda b: 1, chunk=_together),
    "feature accentuation": _named(
        "feature_accentuation", "optimised", steps=lambda b: b.passes // 2, crops=lambda b: 1, chunk=_together
    ),
    NATURAL: _named("natural_images", "natural", count=_together),
    RANDOM: _named("random_images", "control"),
    NOISE: _named("noise", "control"),
    UNEDITED: _named("unedited", "control"),
}
"""In the order of the tables. What an edit is matched at is its angle; the shipped one goes as far as it is shipped."""


class Heard(vl.CountedTarget):
    """A target that notes when it was asked and the mean of what it said (raw, over units and rows of the call)."""

    def __init__(self, target: Any) -> None:
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
    """A method as it is, of which pictures, seconds and what the target said meanwhile are kept.

    Args:
        maker: The method.
        target: The one that its pictures are made for.

    Attributes (after ``generate``):
        made_: Direction to pictures (N, 3, S, S); ``"unedited"`` is none.
        seconds_: Direction to seconds a picture; ``"fit"`` to those of the fit, where it was fitted here.
        traces_: Direction to (seconds a picture since the start, raw mean response), a pair each time it was asked.
    """

    def __init__(self, maker: Any, target: Heard) -> None:
        self.maker = maker
        self.uses_alpha, self.uses_strength = maker.uses_alpha, maker.uses_strength
        self.shows_reference = maker.shows_reference
        if hasattr(maker, "target"):  # a landscape that is not fitted again
            self.target, self.backend = maker.target, maker.backend
        self.method = getattr(maker, "method", maker)  # where a comparison looks for angle and kind
        self.heard_ = target
        self.made_: dict[str, Tensor] = {}
        self.seconds_: dict[str, float] = {}
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

    def validate(self, target: Any, backend: Any) -> None:
        self.maker.validate(target, backend)

    def _fit(self, reference: Any, *, progress: bool, checkpoint: Any) -> None:
        start = self.heard_.clock()
        self.maker.fit(self.target, self.backend, reference, progress=progress, checkpoint=checkpoint)
        self.seconds_["fit"] = self.heard_.clock() - start

    def _generate(
        self, images: Tensor, directions: Any, seeds: list[int], alpha: float | None, strength: float | None
    ) -> tuple[Tensor, Tensor | None]:
        self.heard_.said = []
        start = self.heard_.clock()
        self.maker.target = self.target  # which counts what goes through it
        pictures, latents = self.maker._generate(images, directions, seeds, alpha, strength)
        (way,) = directions.values() or ("unedited",)
        self.made_[way] = pictures
        self.seconds_[way] = (self.heard_.clock() - start) / len(images)
        self.traces_[way] = [((moment - start) / len(images), value) for moment, value in self.heard_.said]
        return pictures, latents


class RememberedSets(Remembered):
    """The embedder, which keeps what it made of large sets, by content: every fit asks for the same again.

    Small sets are embedded each time, for that is part of what a picture costs.
    """

    smallest = 100
    """Images of a set that is kept, at least."""

    def __call__(self, images: Tensor) -> Tensor:
        if len(images) < self.smallest:
            with torch.no_grad():
                return self.embedder(images)
        for seen, x in self.known:
            if seen is images or (seen.shape == images.shape and torch.equal(seen, images)):
                return x
        with torch.no_grad():
            x = self.embedder(images)
        self.known.append((images, x))
        return x
