"""What each operation of torch does to the axes of its inputs, by the operation's name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, TypeAlias

import torch
from torch import Tensor

from vislens_interp.targets.layout.kinds import (
    Axes,
    Axis,
    UnknownError,
    axis_of,
    broadcast,
    from_weights,
    is_whole,
    joined,
    kinds,
    merged,
    part_of,
    reshaped,
    size_of,
)

View: TypeAlias = tuple[int, int, tuple[int, ...], tuple[int, ...]]
"""What a tensor shows, by which views of the same are the same: address of its memory, offset in it, shape, stride."""


@dataclass(frozen=True)
class Input:
    """A tensor before an operation, which may change it in place (transpose_, as_strided_).

    Args:
        axes: What its axes are; None if no image entered it.
        view: What it shows; None if it has no memory of its own.
        name: Name of the parameter that it shows, or ``""``.
    """

    axes: Axes | None
    shape: tuple[int, ...]
    view: View | None
    name: str

    @property
    def known_axes(self) -> Axes:
        """Its axes; of weights and constants ``?``."""
        return tuple(axis_of("?", size) for size in self.shape) if self.axes is None else self.axes


@dataclass(frozen=True)
class Call:
    """One operation, and one of the tensors that it gave.

    Args:
        args: The operation's arguments.
        kwargs: Those given by name.
        inputs: What is known of each tensor among them, by its ``id``.
        shape: Of what the operation gave.
        number: Which of several outputs that is.
    """

    args: Sequence[Any]
    kwargs: dict[str, Any]
    inputs: dict[int, Input]
    shape: tuple[int, ...]
    number: int

    def get(self, place: int, name: str, default: object = None) -> Any:
        """An argument by its place or its name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)

    @property
    def tensor(self) -> Tensor:
        """The first argument."""
        return self.args[0] if self.args else next(iter(self.kwargs.values()))

    @property
    def own(self) -> Axes:
        """Axes of the first argument."""
        return self.axes(self.tensor)

    def axes(self, tensor: Tensor) -> Axes:
        """Axes of an input; weights and constants have ``?``."""
        return self.inputs[id(tensor)].known_axes

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether no image entered a tensor."""
        return self.inputs[id(tensor)].axes is None

    def part(self, place: int, *, start: int | None = None) -> Axes:
        """The first argument's axes with one of them cut to the output's length, from ``start`` or anyhow."""
        axes = self.own
        return _replaced(axes, place, part_of(axes[place], self.shape[place], start=start))


Rule: TypeAlias = Callable[[Call], Axes]


def _replaced(axes: Axes, place: int, axis: Axis) -> Axes:
    place %= len(axes)
    return (*axes[:place], axis, *axes[place + 1 :])


def _places(dims: int | Sequence[int] | Tensor | None, rank: int) -> set[int]:
    """The axes that an argument ``dim`` names; None names all."""
    if isinstance(dims, Tensor):
        raise UnknownError
    named = range(rank) if dims is None else [dims] if isinstance(dims, int) else dims
    return {place % rank for place in named}


def pointwise(call: Call) -> Axes:
    """Of any operation that combines its inputs element by element."""
    return broadcast([one.known_axes for one in call.inputs.values()], call.shape)


def _same(call: Call) -> Axes:
    return call.own


def _as_strided(call: Call) -> Axes:
    """Only another spelling of the same: adaptive pooling writes the strides of axes of length 1 anew."""
    view = call.inputs[id(call.tensor)].view
    if view is None:
        raise UnknownError
    _, offset, shape, stride = view
    size, steps = tuple(call.get(1, "size")), tuple(call.get(2, "stride"))
    same = all(old == new for old, new, length in zip(stride, steps, shape, strict=True) if length > 1)
    if size != shape or not same or call.get(3, "storage_offset") not in (None, offset):
        raise UnknownError
    return call.own


def _copy(call: Call) -> Axes:
    return broadcast([call.axes(call.get(1, "src"))], call.shape)


def _view(call: Call) -> Axes:
    if isinstance(call.get(1, "size"), torch.dtype):
        raise UnknownError
    return reshaped(call.own, call.shape)


def _permute(call: Call) -> Axes:
    axes = call.own
    return tuple(axes[place] for place in call.get(1, "dims"))


def _transpose(call: Call) -> Axes:
    axes = list(call.own)
    if len(call.args) < 2 and not call.kwargs:  # t()
        return tuple(axes[::-1])
    one, other = call.get(1, "dim0"), call.get(2, "dim1")
    axes[one], axes[other] = axes[other], axes[one]
    return tuple(axes)


def _expand(call: Call) -> Axes:
    return broadcast([call.own], call.shape)


def _unsqueeze(call: Call) -> Axes:
    axes = list(call.own)
    place = call.get(1, "dim")
    axes.insert(place if place >= 0 else place + len(axes) + 1, ())
    return tuple(axes)


def _squeeze(call: Call) -> Axes:
    axes = call.own
    chosen = _places(call.get(1, "dim"), len(axes))
    return tuple(axis for place, axis in enumerate(axes) if place not in chosen or size_of(axis) > 1)


def _select(call: Call) -> Axes:
    axes = call.own
    gone = call.get(1, "dim", 0) % len(axes)
    return axes[:gone] + axes[gone + 1 :]


def _slice(call: Call) -> Axes:
    place = call.get(1, "dim", 0)
    chosen = slice(call.get(2, "start"), call.get(3, "end"), call.get(4, "step", 1))
    start, _, step = chosen.indices(size_of(call.own[place]))
    return call.part(place, start=start if step == 1 else None)


def _split(call: Call) -> Axes:
    sizes = call.get(1, "split_size")
    start = sizes * call.number if isinstance(sizes, int) else sum(sizes[: call.number])
    return call.part(call.get(2, "dim", 0), start=start)


def _index_select(call: Call) -> Axes:
    return call.part(call.get(1, "dim"))


def _index(call: Call) -> Axes:
    given = [(place, one) for place, one in enumerate(call.get(1, "indices")) if one is not None]
    if len(given) != 1 or given[0][1].ndim != 1 or not call.is_constant(given[0][1]):
        raise UnknownError
    return call.part(given[0][0])


def _shuffled(call: Call) -> Axes:
    """Entries of some axes in another order: rolled, flipped."""
    axes = call.own
    chosen = _places(call.get(2, "dims", ()) if len(call.args) > 2 else call.get(1, "dims", ()), len(axes))
    return tuple(part_of(axis, size_of(axis)) if place in chosen and axis else axis for place, axis in enumerate(axes))


def _resized(call: Call) -> Axes:
    """Padded: axes change their length and keep their kind."""
    return tuple(
        axis if size == size_of(axis) else axis_of("S", size) if not axis else part_of(axis, size)
        for axis, size in zip(call.own, call.shape, strict=True)
    )


def _pooled(call: Call) -> Axes:
    """As :func:`_resized`, for what only makes sense over positions: an axis that is none is not known afterwards."""
    return tuple(
        axis if size == size_of(axis) else axis_of("S" if kinds(axis) <= {"S"} else "X", size)
        for axis, size in zip(call.own, call.shape, strict=True)
    )


def _repeat(call: Call) -> Axes:
    axes, times = call.own, call.get(1, "repeats")
    axes = ((),) * (len(times) - len(axes)) + axes
    return tuple(
        axis if factor == 1 else axis_of("X" if axis else "?", size)
        for axis, factor, size in zip(axes, times, call.shape, strict=True)
    )


def _cat(call: Call) -> Axes:
    tensors = [one for one in call.get(0, "tensors") if one.numel()]
    many = [call.axes(one) for one in tensors]
    if len(tensors) == 1:
        return many[0]
    place = call.get(1, "dim", 0) % tensors[0].ndim
    pieces = [axes[place] for axes in many]
    size = call.shape[place]
    found = set().union(*map(kinds, pieces)) - {"?"}
    if found == {"C"}:
        whole = all(is_whole(piece, axes) for piece, axes in zip(pieces, many, strict=True))
        together = axis_of("C" if whole else "X", size)
    elif found == {"S"}:
        parts: list[tuple[str | None, int]] = []
        for tensor, piece in zip(tensors, pieces, strict=True):
            if kinds(piece) != {"S"}:
                parts.append((call.inputs[id(tensor)].name, tensor.shape[place]))
            elif len(piece) == 1 and piece[0].source.parts:
                parts += piece[0].source.parts
            else:
                parts.append((None, tensor.shape[place]))
        together = axis_of("S", size, tuple(parts))
    else:
        together = axis_of("X" if found else "?", size)
    # Along the others the tensors are as long as each other.
    others = [[axis for number, axis in enumerate(axes) if number != place] for axes in many]
    made = [reduce(merged, axes) for axes in zip(*others, strict=True)]
    return (*made[:place], together, *made[place:])


def _stack(call: Call) -> Axes:
    tensors = call.get(0, "tensors")
    made = list(broadcast([call.axes(one) for one in tensors], tensors[0].shape))
    made.insert(call.get(1, "dim", 0) % len(call.shape), axis_of("X", len(tensors)))
    return tuple(made)


def _reduced(call: Call, place: int = 1) -> Axes:
    axes, dims = call.own, call.get(place, "dim")
    gone = _places(None if isinstance(dims, list) and not dims else dims, len(axes))
    if len(call.shape) == len(axes):
        return tuple(() if place in gone else axis for place, axis in enumerate(axes))
    return tuple(axis for place, axis in enumerate(axes) if place not in gone)


def _product(call: Call, place: int, name: str) -> Axes:
    """A product of matrices, the first of which is the argument of this place and name."""
    one, other = call.get(place, name), call.get(place + 1, "mat2")
    left, right = call.axes(one), call.axes(other)
    rows, columns = left[-2], right[-1]
    if call.is_constant(other):
        columns = from_weights(left[-1], left, other.shape[-1])
    elif call.is_constant(one):
        rows = from_weights(right[-2], right, one.shape[-2])
    # The right one first: of attention and values, the values' heads still belong to their features.
    lead = broadcast([right[:-2], left[:-2]], one.shape[:-2]) if one.ndim == 3 else ()
    return (*lead, rows, columns)


def _linear(call: Call) -> Axes:
    axes = call.own
    return (*axes[:-1], from_weights(axes[-1], axes, call.shape[-1]))


def _convolution(call: Call) -> Axes:
    axes, weight, made = call.own, call.get(1, "weight"), call.shape[1]
    if not call.is_constant(weight):  # dynamic convolutions fold the images into the channels
        raise UnknownError
    channels = axes[1]
    found = kinds(channels)
    if weight.shape[1] == 1 and weight.shape[0] == size_of(channels) == made:
        first = channels  # depthwise: whatever they are, each stays by itself
    elif found and found <= {"S", "M"}:
        first = axis_of("M", made)
    elif "N" in found or (found == {"C"} and not is_whole(channels, axes)):
        first = axis_of("X", made)
    else:
        first = axis_of("C", made)
    rest = []
    for axis, size in zip(axes[2:], call.shape[2:], strict=True):
        same = size == size_of(axis)
        if kinds(axis) <= {"S", "?", "X", "M"}:  # what a convolution runs along are positions
            rest.append(axis if same and kinds(axis) == {"S"} else axis_of("S", size))
        else:
            rest.append(axis_of("K" if same and kinds(axis) <= {"C", "K"} else "X", size))
    return (axes[0], first, *rest)


def _norm(call: Call, place: int = 1) -> Axes:
    """A normalisation of channels says which axis they are, where that was not known."""
    axes = call.own
    if kinds(axes[place]) <= {"X", "?"} and not any("C" in kinds(axis) for axis in axes):
        return _replaced(axes, place, axis_of("C", size_of(axes[place])))
    return axes


def _layer_norm(call: Call) -> Axes:
    return _norm(call, -1) if len(call.get(1, "normalized_shape")) == 1 else call.own


def _attention(call: Call) -> Axes:
    query, value = call.axes(call.get(0, "query")), call.axes(call.get(2, "value"))
    return (merged(query[0], value[0]), query[1], query[2], value[3])


def _unfold(call: Call) -> Axes:
    axes, place = call.own, call.get(1, "dimension")
    kind = "S" if kinds(axes[place]) <= {"S"} else "X"
    return (*_replaced(axes, place, axis_of(kind, call.shape[:-1][place])), axis_of(kind, call.shape[-1]))


def _im2col(call: Call) -> Axes:
    axes = call.own
    if len(axes) != 4 or not kinds(axes[2]) | kinds(axes[3]) <= {"S"}:
        raise UnknownError
    window = axis_of("S", call.shape[1] // size_of(axes[1]))
    return (axes[0], joined([*axes[1], *window]), axis_of("S", call.shape[2]))


def _col2im(call: Call) -> Axes:
    axes, count = call.own, call.shape[1]
    channels, window = reshaped((axes[1],), (count, size_of(axes[1]) // count))
    # What stands behind the channels are places in a window, even if a Linear made weights for them (VOLO).
    if kinds(channels) != {"C"} or not kinds(window) <= {"S", "C"} or kinds(axes[2]) != {"S"}:
        raise UnknownError
    return (axes[0], channels, axis_of("S", call.shape[2]), axis_of("S", call.shape[3]))


def _pixel_shuffle(call: Call) -> Axes:
    axes = call.own
    if kinds(axes[-3]) != {"C"} or not kinds(axes[-1]) | kinds(axes[-2]) <= {"S"}:
        raise UnknownError
    channels, *picture = call.shape[-3:]
    return (*axes[:-3], axis_of("C", channels), *(axis_of("S", size) for size in picture))


POINTWISE = frozenset(  # those that torch does not tag
    {"hardswish", "hardsigmoid", "hardtanh", "relu6", "leaky_relu", "elu", "silu", "mish", "gelu", "softplus", "celu"}
    | {"_prelu_kernel", "log_sigmoid_forward", "threshold", "rrelu_with_noise", "selu", "clamp", "where"}
)
FACTORIES = frozenset(
    {"new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided", "zeros_like", "ones_like", "empty_like"}
    | {"full_like", "rand_like", "randn_like", "randint_like", "bernoulli"}
)
_OPERATIONS: dict[Rule, str] = {
    _same: """
        clone contiguous _to_copy detach alias _softmax _log_softmax _safe_softmax cumsum tril triu lift_fresh sort
        native_dropout quantize_per_tensor dequantize fake_quantize_per_tensor_affine _conj_physical channel_shuffle
        native_channel_shuffle
    """,
    _as_strided: "as_strided",
    _copy: "copy_",
    _view: "view _unsafe_view reshape _reshape_alias",
    _expand: "expand",
    _permute: "permute",
    _transpose: "transpose t",
    _unsqueeze: "unsqueeze",
    _squeeze: "squeeze",
    _select: "select unbind",
    _slice: "slice",
    _split: "split unsafe_split split_with_sizes unsafe_split_with_sizes",
    _index_select: "index_select",
    _index: "index",
    _shuffled: "roll flip",
    _resized: """
        constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
    """,
    _pooled: """
        max_pool2d_with_indices avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d adaptive_avg_pool1d
        adaptive_max_pool2d max_pool3d_with_indices mkldnn_max_pool2d upsample_nearest1d upsample_nearest2d
        upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa _upsample_nearest_exact2d
    """,
    _repeat: "repeat",
    _cat: "cat",
    _stack: "stack",
    _reduced: "mean sum amax amin max min var std var_mean std_mean prod logsumexp argmax argmin any all",
    partial(_reduced, place=2): "linalg_vector_norm norm",
    partial(_product, place=0, name="self"): "mm bmm",
    partial(_product, place=1, name="mat1"): "addmm _addmm_activation baddbmm",
    _linear: "linear linear_dynamic linear_relu_dynamic mkldnn_linear",
    _convolution: "convolution _convolution mkldnn_convolution cudnn_convolution",
    _norm: """
        native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm
        miopen_batch_norm batch_norm_with_update _batch_norm_with_update _batch_norm_no_update native_group_norm
    """,
    _layer_norm: "native_layer_norm _fused_rms_norm",
    _attention: """
        _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention
        _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention _scaled_dot_product_attention_math
        scaled_dot_product_attention _scaled_dot_product_fused_attention_overrideable
    """,
    _unfold: "unfold",
    _im2col: "im2col",
    _col2im: "col2im",
    _pixel_shuffle: "pixel_shuffle pixel_unshuffle",
}
RULES: dict[str, Rule] = {name: rule for rule, names in _OPERATIONS.items() for name in names.split()}
