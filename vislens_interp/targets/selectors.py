"""From a layer's output to one number an image: what a unit is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from vislens_interp.targets.layout import Layout, channel_axis

Pool: TypeAlias = Literal["mean", "max", "center"]
POOLS: tuple[Pool, ...] = get_args(Pool)


@dataclass(frozen=True, init=False)
class MeanOf:
    """The mean over several units, as one unit.

    Args:
        units: Channels or features, at least one, each once.

    >>> MeanOf([17, 42])
    MeanOf(units=(17, 42))
    """

    units: tuple[int, ...]

    def __init__(self, units: Sequence[int]) -> None:
        units = tuple(units)
        if not units or not all(_is_int(unit) for unit in units) or len(set(units)) < len(units):
            raise ValueError(f"units={list(units)!r} in MeanOf; expected at least one whole number, each once.")
        object.__setattr__(self, "units", tuple(int(unit) for unit in units))


OneUnit: TypeAlias = int | tuple[int | slice, ...] | MeanOf | Callable[[Tensor], Tensor]
Unit: TypeAlias = OneUnit | list[OneUnit]


def unit_list(unit: Unit) -> list[OneUnit]:
    """A unit, or a list of them, as a checked list.

    Raises:
        ValueError: The list is empty or names a unit twice.
        TypeError: Something in it is no unit.
    """
    units = list(unit) if isinstance(unit, list) else [unit]
    if not units:
        raise ValueError("unit=[]; expected at least one unit.")
    for one in units:
        if not (_is_int(one) or isinstance(one, (tuple, MeanOf)) or callable(one)):
            raise TypeError(
                f"unit is a {type(one).__name__} ({one!r}); expected an int (a channel), a tuple of ints and slices (a"
                " neuron), MeanOf([...]), a function of the layer's output, or a list of these."
            )
    names = [unit_name(one) for one in units]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"unit names {', '.join(twice)} more than once; expected each unit once, with its own name.")
    return [int(one) if isinstance(one, Integral) else one for one in units]


def unit_name(unit: OneUnit) -> str:
    """A unit's name in results and files.

    >>> [unit_name(unit) for unit in (17, (17, 3, slice(1, None)), MeanOf([1, 2]), len)]
    ['17', '(17, 3, 1:)', 'mean(1, 2)', 'len']
    """
    if isinstance(unit, MeanOf):
        return f"mean({', '.join(map(str, unit.units))})"
    if isinstance(unit, tuple):
        return f"({', '.join(_slice_name(index) if isinstance(index, slice) else str(index) for index in unit)})"
    if callable(unit):
        return getattr(unit, "__name__", type(unit).__name__)
    return str(unit)


def _slice_name(index: slice) -> str:
    parts = ["" if part is None else str(part) for part in (index.start, index.stop, index.step)]
    return ":".join(parts if index.step is not None else parts[:2])


def pool_unit(output: Tensor, unit: Unit, *, pool: Pool = "mean", layout: Layout) -> Tensor:
    """Read one unit, or several, from a layer's output; gradients flow.

    Args:
        output: The layer's output, batch first.
        unit: An int is a channel, pooled over space or tokens (a feature where there are none: our extension of
            Captum's meaning). A tuple of ints and slices indexes the output behind the batch axis, and slices are
            summed, both as in Captum's neuron selectors. A function takes the output and returns (N,).
            :class:`MeanOf` is the mean of several ints. A list holds several of these.
        pool: How a channel's map becomes one number: ``"mean"``, ``"max"``, or ``"center"``, the value at
            (H // 2, W // 2).
        layout: Where the channels are.

    Returns:
        (N,) for one unit, (N, K) for a list of K.

    Raises:
        ValueError: A unit is out of range (the range is named), or ``pool`` does not fit.
        TypeError: Something is no unit, or a function's result no tensor.

    Source: Captum, ``captum._utils.common._verify_select_neuron``, for tuples and functions.

    >>> pool_unit(torch.arange(8.0).view(1, 2, 2, 2), [0, 1], layout="NCHW")
    tensor([[1.5000, 5.5000]])
    """
    check_pool(pool, layout)
    if not isinstance(unit, list):
        return _read_one(output, unit, pool, layout)
    if all(_is_int(one) for one in unit):
        return _read_channels(output, [_checked(one, output, layout) for one in unit], pool, layout)
    return torch.stack([_read_one(output, one, pool, layout) for one in unit], dim=1)


def check_pool(pool: str, layout: Layout | None = None) -> None:
    """Refuse a name that is no pooling, or a centre where there is no map.

    Raises:
        ValueError: Naming the poolings that there are.
    """
    if pool not in POOLS:
        raise ValueError(f"pool={pool!r}; expected one of {', '.join(map(repr, POOLS))}.")
    if pool == "center" and layout == "NLC":
        raise ValueError(
            "pool='center' on tokens (layout 'NLC'), which have no centre; expected 'mean' or 'max'."
            " For one token pass unit=(token, feature)."
        )


def _read_one(output: Tensor, unit: Any, pool: Pool, layout: Layout) -> Tensor:
    if _is_int(unit):
        return _pool(output.select(channel_axis(layout), _checked(unit, output, layout)), pool, layout)
    if isinstance(unit, MeanOf):
        return _read_channels(output, [_checked(one, output, layout) for one in unit.units], pool, layout).mean(1)
    if isinstance(unit, tuple):
        return _read_neuron(output, unit)
    if not callable(unit):
        raise TypeError(f"unit is a {type(unit).__name__} ({unit!r}); expected an int, a tuple, MeanOf or a function.")
    return _call(unit, output)


def _call(unit: Any, output: Tensor) -> Tensor:
    values = unit(output)
    if not isinstance(values, Tensor):
        raise TypeError(f"unit: {unit_name(unit)} returned a {type(values).__name__}; expected a tensor of shape (N,).")
    if values.shape != output.shape[:1]:
        raise ValueError(
            f"unit: {unit_name(unit)} returned shape {tuple(values.shape)}; expected ({len(output)},), one number an"
            " image. Reduce the other axes inside the function."
        )
    return values


def _read_channels(output: Tensor, units: list[int], pool: Pool, layout: Layout) -> Tensor:
    axis = channel_axis(layout)
    index = torch.tensor(units, device=output.device)
    return _pool(output.index_select(axis, index).movedim(axis, 1), pool, layout, lead=2)


def _pool(values: Tensor, pool: Pool, layout: Layout, lead: int = 1) -> Tensor:
    """Reduce everything behind the first ``lead`` axes."""
    if layout == "NC":
        return values
    if pool == "center":
        return values[..., values.shape[-2] // 2, values.shape[-1] // 2]
    flat = values.flatten(lead)
    return flat.mean(-1) if pool == "mean" else flat.amax(-1)


def _read_neuron(output: Tensor, unit: tuple[int | slice, ...]) -> Tensor:
    rank = output.ndim - 1
    shape = tuple(output.shape[1:])
    sliced = any(isinstance(index, slice) for index in unit)
    if len(unit) > rank or (len(unit) < rank and not sliced):
        hint = f" For channel {unit[0]}, pooled, pass the int {unit[0]}." if len(unit) == 1 and not sliced else ""
        raise ValueError(
            f"unit={unit_name(unit)} has {len(unit)} indices; expected {rank}, for an output of shape {shape} after the"
            f" batch axis.{hint}"
        )
    for axis, index in enumerate(unit):
        if isinstance(index, slice):
            if not range(shape[axis])[index]:
                raise ValueError(
                    f"unit={unit_name(unit)}: slice {axis} is empty; expected part of 0..{shape[axis] - 1}."
                )
        elif not _is_int(index):
            raise TypeError(
                f"unit={unit_name(unit)}: index {axis} is a {type(index).__name__}; expected an int or a slice."
            )
        elif not 0 <= index < shape[axis]:
            raise ValueError(f"unit={unit_name(unit)}: index {axis} is {index}; expected 0..{shape[axis] - 1}.")
    chosen = output[(slice(None), *unit)]
    return chosen.flatten(1).sum(1) if sliced else chosen


def _checked(unit: Any, output: Tensor, layout: Layout) -> int:
    channels = output.shape[channel_axis(layout)]
    if not 0 <= unit < channels:
        raise ValueError(
            f"unit={unit} is out of range; expected 0..{channels - 1} for an output of shape {tuple(output.shape)} with"
            f" layout {layout!r}. list_units(model) shows how many units each layer has."
        )
    return int(unit)


def _is_int(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
