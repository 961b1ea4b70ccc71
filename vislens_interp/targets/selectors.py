"""From a layer's output to one number an image: what a unit is."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from vislens_interp.files import fingerprint
from vislens_interp.preprocess import PublishedWeights
from vislens_interp.targets.layout import Layout, channel_axis

Pool: TypeAlias = str
"""How a channel's positions become one number: one of ``POOLS``, or ``"token:k"`` for the k-th token."""
POOLS = ("mean", "max", "center", "cls", "patch_mean")
_WHOLE = ("int", "uin")
"""Beginnings of the names of NumPy's and torch's types of whole numbers."""
_TOKEN_POOLS = ("cls", "patch_mean", "token:")


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


class Direction:
    """A linear read-out of a layer's channels as one unit: a probe, a concept vector, a sparse autoencoder's feature.

    The dot product is taken at every position and then pooled, so that ``pool="max"`` is the best position's.

    Args:
        vector: One finite weight a channel, not all 0; used as it is, not normalised.
        name: Its name in results and files; None makes one from the weights.

    Raises:
        ValueError: The vector is none of this.

    >>> Direction([0.0, 1.0], name="stripes")
    Direction('stripes', 2 channels)
    """

    def __init__(self, vector: Tensor | ArrayLike, name: str | None = None) -> None:
        values = torch.as_tensor(vector).detach().to("cpu", torch.float64)
        if values.ndim != 1 or not len(values) or not values.isfinite().all() or not values.any():
            raise ValueError(
                f"vector of shape {tuple(values.shape)} in Direction; expected one finite weight a channel, not all 0."
                " For several directions pass a list of Direction."
            )
        self.vector = values.clone()
        self.name = f"direction({fingerprint({'vector': self.vector})[:8]})" if name is None else str(name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Direction) and self.name == other.name and torch.equal(self.vector, other.vector)

    def __hash__(self) -> int:
        return hash((self.name, len(self.vector)))

    def __repr__(self) -> str:
        return f"Direction({self.name!r}, {len(self.vector)} channels)"


@dataclass(frozen=True)
class Head:
    """An attention head as one unit: the length of its output vector, pooled over the tokens.

    The layer is the attention module (``"blocks.3.attn"``) or the concatenation of its heads' outputs.

    Args:
        index: Which head, from 0.
        heads: How many there are; None asks the attention module.

    >>> Head(2)
    Head(index=2, heads=None)
    """

    index: int
    heads: int | None = None

    def __post_init__(self) -> None:
        for name, value, least in (("index", self.index, 0), ("heads", 1 if self.heads is None else self.heads, 1)):
            if not _is_int(value) or value < least:
                raise ValueError(f"{name}={value!r} in Head; expected a whole number of at least {least}.")
        if self.heads is not None and self.index >= self.heads:
            raise ValueError(f"index={self.index} in Head is out of range; expected 0..{self.heads - 1}.")


OneUnit: TypeAlias = int | tuple[int | slice, ...] | MeanOf | Direction | Head | Callable[[Tensor], Tensor]
Unit: TypeAlias = OneUnit | str | list[OneUnit | str] | list[OneUnit] | list[int]
CHANNEL_UNITS = (int, MeanOf, Direction, Head)
"""Units that are made of channels, so that the axis of the channels has to be known."""
Labels: TypeAlias = Sequence[str] | Mapping[int, str] | Mapping[str, str] | PublishedWeights
"""What names a layer's channels, see :func:`labels_of`."""


def plain_units(unit: object) -> Any:
    """Whole numbers in a range, an array or a tensor as a list, or as one number; anything else as it is.

    >>> plain_units(range(3)), plain_units(torch.tensor(3))
    ([0, 1, 2], 3)
    """
    if isinstance(unit, range):
        return list(unit)
    if (
        isinstance(unit, (np.ndarray, Tensor))
        and unit.ndim < 2
        and str(unit.dtype).removeprefix("torch.")[:3] in _WHOLE
    ):
        return unit.tolist()
    return unit


def unit_list(unit: Unit) -> list[OneUnit]:
    """A unit, or a list of them, as a checked list.

    Raises:
        ValueError: The list is empty.
        TypeError: Something in it is no unit.
    """
    unit = plain_units(unit)
    units = list(unit) if isinstance(unit, list) else [unit]
    if not units:
        raise ValueError("unit=[]; expected at least one unit.")
    checked: list[OneUnit] = []
    for one in units:
        if _is_int(one):
            checked.append(int(one))
        elif isinstance(one, (tuple, MeanOf, Direction, Head)) or callable(one):
            checked.append(one)
        else:
            remedy = " For names pass labels=, one a channel." if isinstance(one, str) else ""
            remedy = f" Pass unit={int(one)}." if isinstance(one, str) and one.isdecimal() else remedy
            raise TypeError(
                f"unit is a {type(one).__name__} ({one!r}); expected an int (a channel), a tuple of ints and slices (a"
                f" neuron), MeanOf([...]), Direction(vector), Head(k), a function of the layer's output, or a list of"
                f" these.{remedy}"
            )
    return checked


def labels_of(labels: object) -> list[str] | None:
    """Names of a layer's channels, from what holds them.

    Args:
        labels: A sequence of names; torchvision's weights (``ResNet50_Weights.IMAGENET1K_V2``, whose metadata has
            them); a mapping from number to name, as transformers' ``config.id2label``; or None.

    Raises:
        TypeError: It is none of these.
    """
    if labels is None:
        return None
    meta = getattr(labels, "meta", None)
    found = meta.get("categories") if isinstance(meta, Mapping) else labels
    if isinstance(found, Mapping):
        found = [found.get(number, found.get(str(number))) for number in range(len(found))]
    if isinstance(found, (str, bytes)) or not isinstance(found, Sequence) or not all(isinstance(x, str) for x in found):
        raise TypeError(
            f"labels is a {type(labels).__name__}; expected one name a channel, in their order, or torchvision's"
            " weights."
        )
    return list(found)


LISTED = 10
"""Labels that an error lists, at most."""


def by_label(unit: Unit, labels: list[str] | None) -> Unit:
    """A unit, or a list of them, with names replaced by the numbers of their channels.

    Raises:
        KeyError: A name is not among the labels, or stands there twice.
    """
    if labels is None:
        return unit
    if isinstance(unit, list):
        return [_channel(one, labels) if isinstance(one, str) else one for one in unit]
    return _channel(unit, labels) if isinstance(unit, str) else unit


def _channel(unit: str, labels: list[str]) -> int:
    places = [place for place, label in enumerate(labels) if label == unit]
    if len(places) == 1:
        return places[0]
    if places:
        raise KeyError(f"unit={unit!r} is the label of units {places}; expected one unit. Pass its number.")
    near = difflib.get_close_matches(unit, labels, n=3)
    closest = f" Closest: {', '.join(map(repr, near))}." if near else ""
    listed = f": {', '.join(map(repr, labels))}" if len(labels) <= LISTED else ""
    raise KeyError(f"unit={unit!r} is none of the {len(labels)} labels; expected one of them{listed}.{closest}")


def unit_name(unit: OneUnit) -> str:
    """A unit's name in results and files.

    >>> [unit_name(unit) for unit in (17, (17, 3, slice(1, None)), MeanOf([1, 2]), len)]
    ['17', '(17, 3, 1:)', 'mean(1, 2)', 'len']
    """
    if isinstance(unit, MeanOf):
        return f"mean({', '.join(map(str, unit.units))})"
    if isinstance(unit, Direction):
        return unit.name
    if isinstance(unit, Head):
        return f"head {unit.index}"
    if isinstance(unit, tuple):
        return f"({', '.join(_slice_name(index) if isinstance(index, slice) else str(index) for index in unit)})"
    if callable(unit):
        return getattr(unit, "__name__", type(unit).__name__)
    return str(unit)


def _slice_name(index: slice) -> str:
    parts = ["" if part is None else str(part) for part in (index.start, index.stop, index.step)]
    return ":".join(parts if index.step is not None else parts[:2])


def pool_unit(
    output: Tensor,
    unit: OneUnit | list[OneUnit] | list[int],
    *,
    pool: Pool = "mean",
    layout: Layout,
    prefix: int | None = None,
) -> Tensor:
    """Read one unit, or several, from a layer's output; gradients flow.

    Args:
        output: The layer's output, batch first.
        unit: An int is a channel, pooled over space or tokens (a feature where there are none: our extension of
            Captum's meaning). A tuple of ints and slices indexes the output behind the batch axis, and slices are
            summed, both as in Captum's neuron selectors. A function takes the output and returns (N,).
            :class:`MeanOf` is the mean of several ints, :class:`Direction` a linear read-out of the channels,
            :class:`Head` the length of an attention head's output. A list holds several of these.
        pool: How a channel's positions become one number: ``"mean"``, ``"max"``, ``"center"``, the value at
            (H // 2, W // 2), ``"token:k"``, the k-th token's, or ``"patch_mean"``, the mean without the prefix.
        layout: Where the channels are.
        prefix: Tokens before the patches.

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
    how = _Positions(pool, layout, prefix)
    if not isinstance(unit, list):
        return _read_one(output, unit, how)
    channels = [one for one in unit if _is_int(one)]
    if len(channels) == len(unit):
        return _read_channels(_numbers(output), channels, how)
    return torch.stack([_read_one(output, one, how) for one in unit], dim=1)


def check_pool(pool: str, layout: Layout | None = None) -> None:
    """Refuse a name that is no pooling, a centre where there is no map, or a token where there are none.

    Raises:
        ValueError: Naming the poolings that there are.
    """
    if pool not in POOLS and token_of(pool) is None:
        raise ValueError(
            f"pool={pool!r}; expected one of {', '.join(map(repr, POOLS))} or 'token:k', such as 'token:0'."
        )
    if pool == "center" and layout in ("NLC", "NCL"):
        raise ValueError(
            f"pool='center' on tokens (layout {layout!r}), which have no centre; expected 'mean' or 'max'."
            " For one token pass unit=(token, feature)."
        )
    if layout not in (None, "NLC") and pool.startswith(_TOKEN_POOLS):
        raise ValueError(
            f"pool={pool!r} on an output of layout {layout!r}, which has no tokens; expected 'mean', 'max' or 'center'."
            " Choose a layer of layout 'NLC'."
        )


def token_of(pool: str) -> int | None:
    """The k of ``"token:k"``.

    >>> token_of("token:3"), token_of("mean")
    (3, None)
    """
    name, _, number = pool.partition(":") if isinstance(pool, str) else ("", "", "")
    return int(number) if name == "token" and number.isdecimal() else None


@dataclass(frozen=True)
class _Positions:
    """How positions are pooled."""

    pool: Pool
    layout: Layout
    prefix: int | None

    def __call__(self, values: Tensor, lead: int = 1) -> Tensor:
        """Reduce everything behind the first ``lead`` axes."""
        if self.layout == "NC":
            return values
        if self.pool == "center":
            return values[..., values.shape[-2] // 2, values.shape[-1] // 2]
        if self.pool in ("mean", "max"):
            places = tuple(range(lead, values.ndim))
            return values.mean(places) if self.pool == "mean" else values.amax(places)
        flat = values.flatten(lead)
        token = token_of(self.pool)
        if token is not None:
            if token >= flat.shape[-1]:
                raise ValueError(
                    f"pool={self.pool!r} is out of range; expected 'token:0'..'token:{flat.shape[-1] - 1}'."
                )
            return flat[..., token]
        if self.pool == "patch_mean":
            if self.prefix is None:
                raise ValueError("pool='patch_mean', but the number of prefix tokens is not known; pass prefix=.")
            return flat[..., self.prefix :].mean(-1)
        raise ValueError(f"pool={self.pool!r}, but which token it is is not known here; pass pool='token:k'.")


def _numbers(output: Tensor) -> Tensor:
    """Whole numbers and truths as floating point, so that they have means."""
    return output if output.is_floating_point() or output.is_complex() else output.float()


def _read_one(output: Tensor, unit: OneUnit, how: _Positions) -> Tensor:
    if not callable(unit):
        output = _numbers(output)
    if _is_int(unit):
        return how(output.select(channel_axis(how.layout), _checked(unit, output, how.layout)))
    if isinstance(unit, MeanOf):
        return _read_channels(output, unit.units, how).mean(1)
    if isinstance(unit, Direction):
        return _read_direction(output, unit, how)
    if isinstance(unit, Head):
        return _read_head(output, unit, how)
    if isinstance(unit, tuple):
        return _read_neuron(output, unit)
    if not callable(unit):
        raise TypeError(f"unit is a {type(unit).__name__} ({unit!r}); expected an int, a tuple, MeanOf or a function.")
    return _call(unit, output)


def _read_direction(output: Tensor, unit: Direction, how: _Positions) -> Tensor:
    axis = channel_axis(how.layout)
    if len(unit.vector) != output.shape[axis]:
        raise ValueError(
            f"unit={unit!r} for an output of shape {tuple(output.shape)} with layout {how.layout!r}; expected"
            f" {output.shape[axis]} weights, one a channel. Pass a vector of this layer."
        )
    return how(output.movedim(axis, -1) @ unit.vector.to(output))


def _read_head(output: Tensor, unit: Head, how: _Positions) -> Tensor:
    axis = channel_axis(how.layout)
    channels = output.shape[axis]
    if unit.heads is None or channels % unit.heads:
        raise ValueError(
            f"unit={unit!r} for an output of shape {tuple(output.shape)} with layout {how.layout!r}; expected heads"
            f" that divide its {channels} channels. Pass layer= an attention module, or Head(k, heads=) of their"
            " outputs."
        )
    width = channels // unit.heads
    return how(torch.linalg.vector_norm(output.narrow(axis, unit.index * width, width), dim=axis))


def _call(unit: Callable[[Tensor], Tensor], output: Tensor) -> Tensor:
    values = unit(output)
    if not isinstance(values, Tensor):
        raise TypeError(f"unit: {unit_name(unit)} returned a {type(values).__name__}; expected a tensor of shape (N,).")
    if values.shape != output.shape[:1]:
        raise ValueError(
            f"unit: {unit_name(unit)} returned shape {tuple(values.shape)}; expected ({len(output)},), one number an"
            " image. Reduce the other axes inside the function."
        )
    return values


def _read_channels(output: Tensor, channels: Sequence[int], how: _Positions) -> Tensor:
    axis = channel_axis(how.layout)
    units = [_checked(one, output, how.layout) for one in channels]
    if len(units) == 1:  # a view; several are gathered
        chosen = output.narrow(axis, units[0], 1)
    else:
        chosen = output.index_select(axis, torch.tensor(units, device=output.device))
    return how(chosen.movedim(axis, 1) if axis != 1 else chosen, lead=2)


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


def _checked(unit: int, output: Tensor, layout: Layout) -> int:
    channels = output.shape[channel_axis(layout)]
    if not 0 <= unit < channels:
        raise ValueError(
            f"unit={unit} is out of range; expected 0..{channels - 1} for an output of shape {tuple(output.shape)} with"
            f" layout {layout!r}. list_units(model) shows how many units each layer has."
        )
    return int(unit)


def _is_int(value: object) -> TypeGuard[int]:
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def own_labels(model: nn.Module) -> list[str] | None:
    """Names of a model's own outputs, if it says some: a list called ``labels``, or transformers' ``id2label``."""
    own = getattr(model, "labels", None)
    try:
        return labels_of(
            own if isinstance(own, (list, tuple)) else getattr(getattr(model, "config", None), "id2label", None)
        )
    except TypeError:  # something else of that name
        return None


def unit_names(units: list[OneUnit], asked: Unit, labels: list[str] | None) -> list[str]:
    """Names of the units: the label of one that was asked for by its label.

    Raises:
        ValueError: Two have one name.
    """
    by_name = [one for one in (asked if isinstance(asked, list) else [asked]) if isinstance(one, str)]
    named = {number: label for number, label in enumerate(labels or []) if label in by_name}
    names = [named.get(one, str(one)) if isinstance(one, int) else unit_name(one) for one in units]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"unit names {', '.join(twice)} more than once; expected each unit once, with its own name.")
    return names
