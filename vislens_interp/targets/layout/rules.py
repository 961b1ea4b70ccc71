"""What each operation of torch does to the axes of its inputs, by the operation's name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

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

if TYPE_CHECKING:
    from vislens_interp.targets.layout.tracer import AxisTracer


@dataclass
class Call:
    """One operation's arguments, and what is known of them."""

    tracer: "AxisTracer"
    args: Any
    kwargs: Any

    def get(self, place: int, name: str, default: Any = None) -> Any:
        """An argument by its place or its name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)

    def axes(self, tensor: Tensor) -> Axes:
        """Axes of an input; weights and constants have ``?``."""
        found = self.tracer.axes(tensor)
        return tuple(axis_of("?", size) for size in tensor.shape) if found is None else found

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether no image entered a tensor."""
        return self.tracer.axes(tensor) is None

    def name(self, tensor: Tensor) -> str:
        """Name of the parameter that a tensor shows, or ``""``."""
        return self.tracer.name(tensor)


def _first(call: Call) -> Tensor:
    return call.get(0, "self") if call.args else next(iter(call.kwargs.values()))


def pointwise(call: Call) -> Callable[[Tensor, int], Axes]:
    """Of any operation that combines its inputs element by element."""
    tensors = [one for one in tree_leaves((call.args, call.kwargs)) if isinstance(one, Tensor)]
    many = [call.axes(one) for one in tensors]
    return lambda output, number: broadcast(many, output.shape)


def _same(call: Call) -> Axes:
    return call.axes(_first(call))


def _as_strided(call: Call) -> Callable[[Tensor, int], Axes]:
    """Only another spelling of the same: adaptive pooling writes the strides of axes of length 1 anew."""
    tensor = _first(call)
    axes, shape, stride = call.axes(tensor), tuple(tensor.shape), tuple(tensor.stride())
    size, steps = tuple(call.get(1, "size")), tuple(call.get(2, "stride"))
    same = all(old == new for old, new, length in zip(stride, steps, shape, strict=True) if length > 1)
    if size != shape or not same or call.get(3, "storage_offset") not in (None, tensor.storage_offset()):
        raise UnknownError
    return lambda output, number: axes


def _same_all(call: Call) -> Callable[[Tensor, int], Axes]:
    axes = call.axes(_first(call))
    return lambda output, number: axes


def _copy(call: Call) -> Callable[[Tensor, int], Axes]:
    axes = call.axes(call.get(1, "src"))
    return lambda output, number: broadcast([axes], output.shape)


def _view(call: Call) -> Callable[[Tensor, int], Axes]:
    if isinstance(call.get(1, "size"), torch.dtype):
        raise UnknownError
    axes = call.axes(_first(call))

    def made(output: Tensor, number: int) -> Axes | None:
        try:
            return reshaped(axes, output.shape)
        except (UnknownError, IndexError):
            return None

    return made  # type: ignore[return-value]


def _permute(call: Call) -> Axes:
    axes = call.axes(_first(call))
    return tuple(axes[place] for place in call.get(1, "dims"))


def _transpose(call: Call) -> Axes:
    axes = list(call.axes(_first(call)))
    if len(call.args) < 2 and not call.kwargs:  # t()
        return tuple(axes[::-1])
    one, other = call.get(1, "dim0"), call.get(2, "dim1")
    axes[one], axes[other] = axes[other], axes[one]
    return tuple(axes)


def _expand(call: Call) -> Callable[[Tensor, int], Axes]:
    axes = call.axes(_first(call))
    return lambda output, number: broadcast([axes], output.shape)


def _unsqueeze(call: Call) -> Axes:
    axes = list(call.axes(_first(call)))
    place = call.get(1, "dim")
    axes.insert(place if place >= 0 else place + len(axes) + 1, ())
    return tuple(axes)


def _squeeze(call: Call) -> Axes:
    tensor = _first(call)
    axes, rank = call.axes(tensor), tensor.ndim
    chosen = call.get(1, "dim")
    chosen = range(rank) if chosen is None else [chosen] if isinstance(chosen, int) else chosen
    gone = {place % rank for place in chosen if tensor.shape[place] == 1}
    return tuple(axis for place, axis in enumerate(axes) if place not in gone)


def _select(call: Call) -> Axes:
    axes = call.axes(_first(call))
    gone = call.get(1, "dim") % len(axes)
    return axes[:gone] + axes[gone + 1 :]


def _slice(call: Call) -> Callable[[Tensor, int], Axes]:
    tensor = _first(call)
    axes, place = call.axes(tensor), call.get(1, "dim", 0) % tensor.ndim
    size = tensor.shape[place]
    start, _, step = slice(call.get(2, "start"), call.get(3, "end"), call.get(4, "step", 1)).indices(size)
    return lambda output, number: _replaced(
        axes, place, part_of(axes[place], output.shape[place], axes, start=start if step == 1 else None)
    )


def _split(call: Call) -> Callable[[Tensor, int], Axes]:
    tensor = _first(call)
    axes, place = call.axes(tensor), call.get(2, "dim", 0) % tensor.ndim
    sizes = call.get(1, "split_size")
    starts = [0]
    for number in range(tensor.shape[place]):
        starts.append(starts[-1] + (sizes if isinstance(sizes, int) else sizes[min(number, len(sizes) - 1)]))

    def made(output: Tensor, number: int) -> Axes:
        return _replaced(axes, place, part_of(axes[place], output.shape[place], axes, start=starts[number]))

    return made


def _unbind(call: Call) -> Callable[[Tensor, int], Axes]:
    axes = call.axes(_first(call))
    gone = call.get(1, "dim", 0) % len(axes)
    return lambda output, number: axes[:gone] + axes[gone + 1 :]


def _replaced(axes: Axes, place: int, axis: Axis) -> Axes:
    return (*axes[:place], axis, *axes[place + 1 :])


def _shuffled(call: Call) -> Axes:
    """Entries of some axes in another order, or other entries: padded, rolled, flipped."""
    tensor = _first(call)
    moved = call.get(2, "dims", ()) if len(call.args) > 2 else call.get(1, "dims", ())
    moved = [moved] if isinstance(moved, int) else moved
    axes = call.axes(tensor)
    places = {place % tensor.ndim for place in moved}
    return tuple(
        part_of(axis, size_of(axis), axes) if place in places and axis else axis for place, axis in enumerate(axes)
    )


def _resized(call: Call) -> Callable[[Tensor, int], Axes]:
    """Pooled, padded or interpolated: axes change their length and keep their kind."""
    tensor = _first(call)
    axes = call.axes(tensor)

    def made(output: Tensor, number: int) -> Axes:
        if output.ndim != tensor.ndim:
            raise UnknownError
        return tuple(
            axis if size == size_of(axis) else axis_of("S", size) if not axis else part_of(axis, size, axes)
            for axis, size in zip(axes, output.shape, strict=True)
        )

    return made


def _pooled(call: Call) -> Callable[[Tensor, int], Axes]:
    """As :func:`_resized`, for what only makes sense over positions: an axis that is none is not known afterwards."""
    tensor = _first(call)
    axes = call.axes(tensor)

    def made(output: Tensor, number: int) -> Axes:
        return tuple(
            axis if size == size_of(axis) else axis_of("S" if kinds(axis) <= {"S"} else "X", size)
            for axis, size in zip(axes, output.shape, strict=True)
        )

    return made


def _index_select(call: Call) -> Callable[[Tensor, int], Axes]:
    axes = call.axes(_first(call))
    place = call.get(1, "dim") % len(axes)
    return lambda output, number: _replaced(axes, place, part_of(axes[place], output.shape[place], axes))


def _index(call: Call) -> Callable[[Tensor, int], Axes]:
    tensor = _first(call)
    axes = call.axes(tensor)
    given = [(place, one) for place, one in enumerate(call.get(1, "indices")) if one is not None]
    if len(given) != 1 or given[0][1].ndim != 1 or not call.is_constant(given[0][1]):
        raise UnknownError
    place = given[0][0]
    return lambda output, number: _replaced(axes, place, part_of(axes[place], output.shape[place], axes))


def _repeat(call: Call) -> Callable[[Tensor, int], Axes]:
    axes, times = call.axes(_first(call)), list(call.get(1, "repeats"))
    axes = ((),) * (len(times) - len(axes)) + axes

    def made(output: Tensor, number: int) -> Axes:
        return tuple(
            axis if factor == 1 else axis_of("X" if axis else "?", size)
            for axis, factor, size in zip(axes, times, output.shape, strict=True)
        )

    return made


def _cat(call: Call) -> Axes:
    tensors = [one for one in call.get(0, "tensors") if one.numel()]
    place = call.get(1, "dim", 0) % tensors[0].ndim
    many = [call.axes(one) for one in tensors]
    made: list[Axis] = []
    for number in range(tensors[0].ndim):
        axis: Axis = ()
        for axes in many:
            axis = merged(axis, axes[number])
        made.append(axis)
    pieces = [axes[place] for axes in many]
    size = sum(one.shape[place] for one in tensors)
    found = set().union(*map(kinds, pieces)) - {"?"}
    if len(tensors) == 1:
        return many[0]
    if found == {"C"}:
        whole = all(is_whole(piece, axes) for piece, axes in zip(pieces, many, strict=True))
        made[place] = axis_of("C" if whole else "X", size)
    elif found == {"S"}:
        parts: list[tuple[str | None, int]] = []
        for tensor, piece in zip(tensors, pieces, strict=True):
            if kinds(piece) == {"S"}:
                parts += (
                    piece[0].source.parts or [(None, tensor.shape[place])]
                    if len(piece) == 1
                    else [(None, tensor.shape[place])]
                )
            else:
                parts.append((call.name(tensor), tensor.shape[place]))
        made[place] = axis_of("S", size, tuple(parts))
    else:
        made[place] = axis_of("X" if found else "?", size)
    return tuple(made)


def _stack(call: Call) -> Axes:
    tensors = call.get(0, "tensors")
    place = call.get(1, "dim", 0) % (tensors[0].ndim + 1)
    made = list(broadcast([call.axes(one) for one in tensors], tensors[0].shape))
    made.insert(place, axis_of("X", len(tensors)))
    return tuple(made)


def _reduced(call: Call) -> Callable[[Tensor, int], Axes]:
    tensor = _first(call)
    axes, rank = call.axes(tensor), tensor.ndim
    chosen = call.get(1, "dim")
    chosen = range(rank) if chosen is None or chosen == [] else [chosen] if isinstance(chosen, int) else chosen
    if isinstance(chosen, Tensor):
        raise UnknownError
    gone = {place % rank for place in chosen}

    def made(output: Tensor, number: int) -> Axes:
        if output.ndim == rank:
            return tuple(() if place in gone else axis for place, axis in enumerate(axes))
        return tuple(axis for place, axis in enumerate(axes) if place not in gone)

    return made


def _vector_norm(call: Call) -> Callable[[Tensor, int], Axes]:
    return _reduced(Call(call.tracer, (call.args[0], call.get(2, "dim")), {}))


def _mm(call: Call) -> Axes:
    return _product(call, call.get(0, "self"), call.get(1, "mat2"))


def _addmm(call: Call) -> Axes:
    return _product(call, call.get(1, "mat1"), call.get(2, "mat2"))


def _product(call: Call, one: Tensor, other: Tensor) -> Axes:
    left, right = call.axes(one), call.axes(other)
    rows, columns = left[-2], right[-1]
    if call.is_constant(other):
        columns = from_weights(left[-1], left, other.shape[-1])
    elif call.is_constant(one):
        rows = from_weights(right[-2], right, one.shape[-2])
    # The right one first: of attention and values, the values' heads still belong to their features.
    lead = broadcast([right[:-2], left[:-2]], one.shape[:-2]) if one.ndim == 3 else ()
    return (*lead, rows, columns)


def _linear(call: Call) -> Callable[[Tensor, int], Axes]:
    axes = call.axes(_first(call))
    return lambda output, number: (*axes[:-1], from_weights(axes[-1], axes, output.shape[-1]))


def _convolution(call: Call) -> Callable[[Tensor, int], Axes]:
    tensor, weight = _first(call), call.get(1, "weight")
    axes = call.axes(tensor)
    if not call.is_constant(weight):  # dynamic convolutions fold the images into the channels
        raise UnknownError

    def made(output: Tensor, number: int) -> Axes:
        channels = axes[1]
        found = kinds(channels)
        if weight.shape[1] == 1 and weight.shape[0] == tensor.shape[1] and output.shape[1] == tensor.shape[1]:
            first = channels  # depthwise: whatever they are, each stays by itself
        elif found and found <= {"S", "M"}:
            first = axis_of("M", output.shape[1])
        elif "N" in found or (found == {"C"} and not is_whole(channels, axes)):
            first = axis_of("X", output.shape[1])
        else:
            first = axis_of("C", output.shape[1])
        rest = []
        for axis, size in zip(axes[2:], output.shape[2:], strict=True):
            if kinds(axis) <= {"S", "?", "X", "M"}:  # what a convolution runs along are positions
                same = size == size_of(axis) and kinds(axis) == {"S"}
                rest.append(axis if same else axis_of("S", size))
            else:
                along = size == size_of(axis) and kinds(axis) <= {"C", "K"}
                rest.append(axis_of("K" if along else "X", size))
        return (axes[0], first, *rest)

    return made


def _anchored(axes: Axes, place: int) -> Axes:
    """A normalisation of channels says which axis they are, where that was not known."""
    place %= len(axes)
    if kinds(axes[place]) <= {"X", "?"} and not any("C" in kinds(axis) for axis in axes):
        return _replaced(axes, place, axis_of("C", size_of(axes[place])))
    return axes


def _norm(call: Call) -> Axes:
    return _anchored(call.axes(_first(call)), 1)


def _layer_norm(call: Call) -> Axes:
    axes = call.axes(_first(call))
    return _anchored(axes, -1) if len(call.get(1, "normalized_shape")) == 1 else axes


def _attention(call: Call) -> Axes:
    query, value = call.axes(call.get(0, "query")), call.axes(call.get(2, "value"))
    return (merged(query[0], value[0]), query[1], query[2], value[3])


def _unfold(call: Call) -> Callable[[Tensor, int], Axes]:
    axes = call.axes(_first(call))
    place = call.get(1, "dimension") % len(axes)
    kind = "S" if kinds(axes[place]) <= {"S"} else "X"
    return lambda output, number: (
        *_replaced(axes, place, axis_of(kind, output.shape[place])),
        axis_of(kind, output.shape[-1]),
    )


def _im2col(call: Call) -> Callable[[Tensor, int], Axes]:
    axes = call.axes(_first(call))
    if len(axes) != 4 or not kinds(axes[2]) | kinds(axes[3]) <= {"S"}:
        raise UnknownError

    def made(output: Tensor, number: int) -> Axes:
        window = output.shape[1] // size_of(axes[1])
        return (axes[0], joined([*axes[1], *axis_of("S", window)]), axis_of("S", output.shape[2]))

    return made


def _col2im(call: Call) -> Callable[[Tensor, int], Axes]:
    axes = call.axes(_first(call))

    def made(output: Tensor, number: int) -> Axes:
        channels = reshaped((axes[1],), (output.shape[1], size_of(axes[1]) // output.shape[1]))
        # What stands behind the channels are places in a window, even if a Linear made weights for them (VOLO).
        if kinds(channels[0]) != {"C"} or not kinds(channels[1]) <= {"S", "C"} or kinds(axes[2]) != {"S"}:
            raise UnknownError
        return (axes[0], channels[0], axis_of("S", output.shape[2]), axis_of("S", output.shape[3]))

    def safely(output: Tensor, number: int) -> Axes | None:
        try:
            return made(output, number)
        except (UnknownError, IndexError):
            return None

    return safely  # type: ignore[return-value]


def _pixel_shuffle(call: Call) -> Callable[[Tensor, int], Axes]:
    axes = call.axes(_first(call))
    if kinds(axes[-3]) != {"C"} or not kinds(axes[-1]) | kinds(axes[-2]) <= {"S"}:
        raise UnknownError
    return lambda output, number: (
        *axes[:-3],
        axis_of("C", output.shape[-3]),
        axis_of("S", output.shape[-2]),
        axis_of("S", output.shape[-1]),
    )


POINTWISE = frozenset(  # those that torch does not tag
    {"hardswish", "hardsigmoid", "hardtanh", "relu6", "leaky_relu", "elu", "silu", "mish", "gelu", "softplus", "celu"}
    | {"_prelu_kernel", "log_sigmoid_forward", "threshold", "rrelu_with_noise", "selu", "clamp", "where"}
)
Rule: TypeAlias = Callable[[Call], Axes | Callable[[Tensor, int], Axes | None]]
FACTORIES = frozenset(
    {"new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided", "zeros_like", "ones_like", "empty_like"}
    | {"full_like", "rand_like", "randn_like", "randint_like", "bernoulli"}
)
RULES: dict[str, Rule] = {
    **dict.fromkeys(
        [
            "clone",
            "contiguous",
            "_to_copy",
            "detach",
            "alias",
            "_softmax",
            "_log_softmax",
            "_safe_softmax",
            "cumsum",
            "tril",
            "triu",
            "lift_fresh",
            "quantize_per_tensor",
            "dequantize",
            "fake_quantize_per_tensor_affine",
            "_conj_physical",
        ],
        _same,
    ),
    **dict.fromkeys(["native_dropout", "sort"], _same_all),
    **dict.fromkeys(["view", "_unsafe_view", "reshape", "_reshape_alias"], _view),
    **dict.fromkeys(["expand"], _expand),
    **dict.fromkeys(["transpose", "t"], _transpose),
    **dict.fromkeys(["roll", "flip"], _shuffled),
    **dict.fromkeys(
        [
            "constant_pad_nd",
            "reflection_pad1d",
            "reflection_pad2d",
            "reflection_pad3d",
            "replication_pad1d",
            "replication_pad2d",
        ],
        _resized,
    ),
    **dict.fromkeys(
        [
            "max_pool2d_with_indices",
            "avg_pool1d",
            "avg_pool2d",
            "avg_pool3d",
            "_adaptive_avg_pool2d",
            "adaptive_avg_pool1d",
            "adaptive_max_pool2d",
            "max_pool3d_with_indices",
            "mkldnn_max_pool2d",
            "upsample_nearest1d",
            "upsample_nearest2d",
            "upsample_bilinear2d",
            "upsample_bicubic2d",
            "_upsample_bilinear2d_aa",
            "_upsample_bicubic2d_aa",
            "_upsample_nearest_exact2d",
        ],
        _pooled,
    ),
    **dict.fromkeys(["split", "unsafe_split", "split_with_sizes", "unsafe_split_with_sizes"], _split),
    **dict.fromkeys(
        [
            "mean",
            "sum",
            "amax",
            "amin",
            "max",
            "min",
            "var",
            "std",
            "var_mean",
            "std_mean",
            "prod",
            "logsumexp",
            "argmax",
            "argmin",
            "any",
            "all",
        ],
        _reduced,
    ),
    **dict.fromkeys(["linalg_vector_norm", "norm"], _vector_norm),
    **dict.fromkeys(["addmm", "_addmm_activation", "baddbmm"], _addmm),
    **dict.fromkeys(["mm", "bmm"], _mm),
    **dict.fromkeys(["linear", "linear_dynamic", "linear_relu_dynamic", "mkldnn_linear"], _linear),
    **dict.fromkeys(["convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution"], _convolution),
    **dict.fromkeys(
        [
            "native_batch_norm",
            "_native_batch_norm_legit",
            "_native_batch_norm_legit_no_training",
            "cudnn_batch_norm",
            "miopen_batch_norm",
            "batch_norm_with_update",
            "_batch_norm_with_update",
            "_batch_norm_no_update",
            "native_group_norm",
        ],
        _norm,
    ),
    **dict.fromkeys(["native_layer_norm", "_fused_rms_norm"], _layer_norm),
    **dict.fromkeys(
        [
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_attention_math",
            "scaled_dot_product_attention",
            "_scaled_dot_product_fused_attention_overrideable",
        ],
        _attention,
    ),
    **dict.fromkeys(["pixel_shuffle", "pixel_unshuffle"], _pixel_shuffle),
    "as_strided": _as_strided,
    "copy_": _copy,
    "permute": _permute,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "select": _select,
    "slice": _slice,
    "unbind": _unbind,
    "index_select": _index_select,
    "index": _index,
    "repeat": _repeat,
    "cat": _cat,
    "stack": _stack,
    "unfold": _unfold,
    "im2col": _im2col,
    "col2im": _col2im,
    "channel_shuffle": _same,
    "native_channel_shuffle": _same,
}
