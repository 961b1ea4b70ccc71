"""What a picture costs: passes of images through the target, forward and back, and seconds."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vislens_interp.targets.target import Target


@dataclass(frozen=True)
class Cost:
    """What a call spent.

    Args:
        forward: Images that went through the target: a batch of eight is eight. Rows that only fill a batch count too.
        backward: Images whose gradient came back.
        seconds: Of the whole call, the generator's work included.

    >>> Cost(forward=8, backward=0, seconds=0.5) + Cost(forward=2, backward=2, seconds=0.5)
    Cost(forward=10, backward=2, seconds=1.0)
    """

    forward: int
    backward: int
    seconds: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.forward + other.forward, self.backward + other.backward, self.seconds + other.seconds)


class CountedTarget(Target):
    """A target that counts what goes through it; in everything else it is the one that it wraps.

    Args:
        target: The other one.

    Attributes:
        forward: Images that went through.
        backward: Images whose gradient came back.

    >>> from vislens_interp.targets import CallableTarget
    >>> import torch
    >>> counted = CountedTarget(CallableTarget(lambda images: images.mean((1, 2, 3))))
    >>> _ = counted.responses(torch.rand(5, 3, 4, 4))
    >>> counted.forward, counted.backward
    (5, 0)
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.names, self.differentiable, self.batch_size = target.names, target.differentiable, target.batch_size
        self.doubts = target.doubts
        self.forward = self.backward = 0

    @property
    def device(self) -> torch.device:
        return self.target.device

    def __getattr__(self, name: str) -> Any:
        if name == "target":  # not there yet, as in a copy that is being made
            raise AttributeError(name)
        return getattr(self.target, name)

    def __call__(self, images: Tensor) -> Tensor:
        return self._count(self.target(images), len(images))

    def features(self, images: Tensor) -> Tensor:
        return self._count(self.target.features(images), len(images))

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if type(self.target).with_features is Target.with_features:  # two passes, each counted
            return super().with_features(images)
        responses, features = self.target.with_features(images)
        return responses, self._count(features, len(images))  # on their way back, responses pass through the features

    def describe(self) -> dict[str, Any]:
        return self.target.describe()

    def _count(self, output: Tensor, images: int) -> Tensor:
        self.forward += images
        if output.requires_grad:

            def count(_: Tensor) -> None:
                self.backward += images

            output.register_hook(count)
        return output
