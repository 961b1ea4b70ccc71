"""Some of the units of a target, as a target."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vislens_interp.targets.layout import Layout
from vislens_interp.targets.selectors import OneUnit, Unit, plain_units
from vislens_interp.targets.target import Target


class UnitsOf(Target):
    """Columns of another target: what is read is the same, what is not asked for is left out.

    Args:
        target: The other one.
        columns: Positions of the wanted units in it, at least one.

    Raises:
        ValueError: No column is named, or one is not there.
    """

    def __init__(self, target: Target, columns: Sequence[int]) -> None:
        count = len(target.names)
        if not columns or not all(0 <= column < count for column in columns):
            raise ValueError(
                f"columns={list(columns)} for a target with {count} units; expected at least one of 0..{count - 1}."
            )
        self.target, self.columns = target, list(columns)
        self.names = [target.names[column] for column in columns]
        self.differentiable = target.differentiable
        self.batch_size = target.batch_size
        self.doubts = {name: target.doubts[name] for name in self.names if name in target.doubts}

    @property
    def device(self) -> torch.device:
        return self.target.device

    @property
    def layout(self) -> Layout | None:
        """Where the channels of :meth:`features` are, if the other target says so."""
        return getattr(self.target, "layout", None)

    @property
    def units(self) -> list[OneUnit]:
        """Where each unit is in the layer, if the other target says so."""
        units = getattr(self.target, "units", None)
        if units is None:
            raise AttributeError(f"{type(self.target).__name__} says nothing of units.")
        return [units[column] for column in self.columns]

    @classmethod
    def named(cls, target: Target, units: Unit) -> "UnitsOf":
        """The units of these names, or of this one.

        Raises:
            ValueError: The target reads no unit of that name, or several.
        """
        units = plain_units(units)
        wanted = [str(unit) for unit in (units if isinstance(units, (list, tuple)) else [units])]
        wrong = [name for name in wanted if target.names.count(name) != 1]
        if wrong or not wanted:
            listed = ", ".join(map(repr, target.names[:5])) + (", ..." if len(target.names) > 5 else "")
            raise ValueError(
                f"unit={units!r}: the {type(target).__name__} reads {len(target.names)} units ({listed}); expected "
                "names among them, each of one unit."
            )
        return cls(target, [target.names.index(name) for name in wanted])

    def describe(self) -> dict[str, Any]:
        return {**self.target.describe(), "units": list(self.names)}

    def whole_layer(self) -> "tuple[Callable[[], Target], list[int], str] | None":
        found = self.target.whole_layer()
        if found is None:
            return None
        whole, columns, key = found
        return whole, [columns[column] for column in self.columns], key

    def __call__(self, images: Tensor) -> Tensor:
        return self.target(images)[:, self.columns]

    def features(self, images: Tensor) -> Tensor:
        return self.target.features(images)

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        responses, features = self.target.with_features(images)
        return responses[:, self.columns], features
