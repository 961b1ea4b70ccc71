"""What each axis of each tensor in a forward pass means: followed through the operations, never inferred from sizes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Kind: TypeAlias = Literal["N", "C", "S", "M", "H", "K", "?", "X"]
"""N images, C channels, S positions, ? weights or constants, X not known; and mixed by weights, neither fish nor fowl:
M positions (by a Linear of tokens), H heads (talking heads), K channels (by a convolution along them)."""


@dataclass(frozen=True)
class Source:
    """Where atoms come from: one axis as an operation made it.

    Args:
        kind: What it holds.
        size: How long it is.
        parts: Of tokens that were joined: (name of the parameter or ``""``, how many) of each piece, None for patches.
    """

    kind: Kind
    size: int
    parts: tuple[tuple[str | None, int], ...] = ()


@dataclass(frozen=True)
class Atom:
    """A factor of an axis: every ``stride``-th entry of its source, ``size`` of them. Sizes of 1 have none."""

    source: Source
    key: int
    size: int
    stride: int = 1

    @property
    def kind(self) -> Kind:
        return self.source.kind


Axis: TypeAlias = tuple[Atom, ...]
Axes: TypeAlias = tuple[Axis, ...]

_INPUTS: tuple[Kind, ...] = ("N", "C", "S", "S")
_keys = count()


def axis_of(kind: Kind, size: int, parts: tuple[tuple[str | None, int], ...] = ()) -> Axis:
    """A new axis of one kind."""
    return () if size == 1 else (Atom(Source(kind, size, parts), next(_keys), size),)


def size_of(axis: Axis) -> int:
    """How long an axis is."""
    size = 1
    for atom in axis:
        size *= atom.size
    return size


def kinds(axis: Axis) -> set[Kind]:
    """The kinds that an axis is made of."""
    return {atom.kind for atom in axis}


def is_whole(axis: Axis, axes: Axes) -> bool:
    """Whether an axis of channels is not just a factor of them, such as the heads of (N, heads, L, features)."""
    channels = [atom for atom in axis if atom.kind == "C"]
    elsewhere = {atom.key for other in axes if other is not axis for atom in other}
    return not any(atom.key in elsewhere for atom in channels) and min((a.stride for a in channels), default=1) == 1


class AxisTracer(TorchDispatchMode):
    """Inside, the axes of what is computed from ``inputs`` are known; ask :meth:`axes`.

    Every operation below autograd is seen, whatever Python or TorchScript called it. An operation without a rule gives
    axes that are not known, and so in the end a refusal, never a guess.

    Args:
        inputs: (N, C, H, W), what the model is called with.
        names: Storage of a parameter to its name, to tell class tokens from registers.
    """

    def __init__(self, inputs: Tensor, names: dict[int, str]) -> None:
        super().__init__()
        self._names = names
        self._known: dict[tuple, Axes] = {}
        self.drew = False
        """Whether an operation has drawn random numbers."""
        self._factors: set[tuple[int, int, int]] = set()
        # Weak references keep a storage's address from being used again, but not its memory.
        self._storages: dict[int, StorageWeakRef] = {}
        if inputs.ndim == 4:
            self._keep(inputs, tuple(map(axis_of, _INPUTS, inputs.shape)))
        else:
            self._keep(inputs, _unknown(inputs.shape))

    def axes(self, tensor: Tensor) -> Axes | None:
        """The axes of a tensor; None for one that no image entered."""
        storage = _storage(tensor)
        if storage is None:
            return _unknown(tensor.shape)
        found = self._known.get(_view_key(storage, tensor))
        if found is None and storage in self._storages:
            return _unknown(tensor.shape)  # a view by other means, or a buffer that images were written into
        return found

    def factors(self, tensor: Tensor) -> frozenset[tuple[int, int]]:
        """How the last axis's channels were taken apart by the operations before: (how many, how far apart)."""
        axes = self.axes(tensor)
        keys = {atom.key for atom in axes[-1] if atom.kind == "C"} if axes else set()
        return frozenset((size, stride) for key, size, stride in self._factors if key in keys)

    def _keep(self, tensor: Tensor, axes: Axes) -> None:
        storage = _storage(tensor)
        if storage is None:
            return
        self._known[_view_key(storage, tensor)] = axes
        self._factors.update((atom.key, atom.size, atom.stride) for axis in axes for atom in axis if atom.kind == "C")
        if storage not in self._storages:
            self._storages[storage] = StorageWeakRef(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.drew = self.drew or _draws(func, args, kwargs)
        seen = [self.axes(one) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        # Before the operation: in place, it may change what it is given (transpose_, squeeze_).
        axes = self._rule(func, args, kwargs) if any(one is not None for one in seen) else None
        result = func(*args, **kwargs)
        if axes is not None:
            outputs = [result] if isinstance(result, Tensor) else list(result) if _is_list(result) else []
            for number, output in enumerate(outputs):
                if isinstance(output, Tensor):
                    made = axes(output, number)
                    fits = made is not None and tuple(map(size_of, made)) == tuple(output.shape)
                    self._keep(output, made if fits and made is not None else _unknown(output.shape))
        return result

    def _rule(self, func: Any, args: Any, kwargs: Any) -> Callable[[Tensor, int], Axes | None] | None:
        """What gives an output its axes; None where no image enters the output."""
        name = func.__name__.partition(".")[0]
        if name in _FACTORIES:
            return None
        base = name.rstrip("_") if name not in RULES else name
        rule = RULES.get(name) or RULES.get(base)
        if rule is None and _is_pointwise(func, base):
            rule = _pointwise
        if rule is None:
            return lambda output, number: None
        call = Call(self, args, kwargs)
        try:
            made = rule(call)
        except (_UnknownError, IndexError, TypeError, ValueError, AttributeError):
            return lambda output, number: None
        return made if callable(made) else lambda output, number: made if number == 0 else None


class _UnknownError(Exception):
    """A rule does not know."""


@dataclass
class Call:
    """One operation's arguments, and what is known of them."""

    tracer: AxisTracer
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
        storage = _storage(tensor)
        return "" if storage is None else self.tracer._names.get(storage, "")


def _storage(tensor: Tensor) -> int | None:
    """Address of a tensor's memory; None where torch says that it has none: oneDNN's own format, some sparse ones."""
    try:
        return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):  # what torch raises there, by layout
        return None


def _view_key(storage: int, tensor: Tensor) -> tuple:
    # By what a tensor shows, not by object: autograd wraps views anew.
    return storage, tensor.storage_offset(), tuple(tensor.shape), tuple(tensor.stride())


def _unknown(shape: Sequence[int]) -> Axes:
    return tuple(axis_of("X", size) for size in shape)


def _draws(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operation draws random numbers: attention without dropout is tagged so too, and does not."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    names = [one.name for one in func._schema.arguments]
    if "dropout_p" not in names:
        return True
    place = names.index("dropout_p")
    return bool(args[place] if len(args) > place else kwargs.get("dropout_p", 0))


def _is_list(result: Any) -> bool:
    return isinstance(result, (list, tuple))


def _is_pointwise(func: Any, base: str) -> bool:
    if torch.Tag.pointwise in func.tags or base in _POINTWISE:
        return True
    packet = getattr(torch.ops.aten, base, None)
    if packet is None or not func._schema.is_mutable:
        return False
    return any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads())


# What happens to axes


def _joined(atoms: Iterable[Atom]) -> Axis:
    """Atoms side by side, with those put together again that were one."""
    done: list[Atom] = []
    for atom in atoms:
        if done and done[-1].key == atom.key and done[-1].stride == atom.stride * atom.size:
            atom = Atom(atom.source, atom.key, done.pop().size * atom.size, atom.stride)
        done.append(atom)
    return tuple(done)


def _reshaped(axes: Axes, shape: Sequence[int]) -> Axes:
    left = [atom for axis in axes for atom in axis][::-1]
    made = []
    for size in shape:
        taken: list[Atom] = []
        have = 1
        while have < size:
            atom = left.pop()
            if size % have:
                raise _UnknownError
            want = size // have
            if want % atom.size == 0:
                taken.append(atom)
                have *= atom.size
            elif atom.size % want == 0:
                rest = atom.size // want
                taken.append(Atom(atom.source, atom.key, want, atom.stride * rest))
                left.append(Atom(atom.source, atom.key, rest, atom.stride))
                have *= want
            else:
                raise _UnknownError
        made.append(_joined(taken))
    return tuple(made)


def _part(axis: Axis, size: int, axes: Axes, *, start: int | None = None) -> Axis:
    """Some of an axis, or its entries in another order."""
    if size == size_of(axis) and start == 0:
        return axis
    found = kinds(axis)
    if len(found) != 1:
        return axis_of("X", size) if axis else axis_of("?", size)
    (kind,) = found
    # Features of each head may be divided among queries, keys and values; heads themselves may not.
    if kind == "N" or (kind == "C" and axis[-1].stride > 1):
        return axis_of("X", size)
    parts = []
    source = axis[0].source
    if start is not None and source.parts and len(axis) == 1 and axis[0].size == source.size:
        place = 0
        for name, length in source.parts:
            inside = min(place + length, start + size) - max(place, start)
            if inside > 0:
                parts.append((name, inside))
            place += length
    return axis_of(kind, size, tuple(parts))


def _merged(ours: Axis, theirs: Axis) -> Axis:
    """One axis of two tensors that are combined element by element."""
    if not ours or not theirs:
        return ours or theirs
    first, second = kinds(ours), kinds(theirs)
    if ours == theirs or second == {"?"}:
        return ours
    if first == {"?"}:
        return theirs
    size = size_of(ours)
    if size != size_of(theirs):
        return axis_of("X", size)
    if [(atom.kind, atom.size) for atom in ours] == [(atom.kind, atom.size) for atom in theirs]:
        return theirs if _has_parts(theirs) and not _has_parts(ours) else ours
    if len(ours) > 1 or len(theirs) > 1:  # images with heads, say: each with its own
        return _pairwise(ours, theirs)
    if first | second <= {"S", "M", "?"} and "S" in first | second:
        return theirs if second == {"S"} else ours if first == {"S"} else axis_of("S", size)
    if first | second == {"C"}:
        return axis_of("C", size)
    for mixed in ("H", "K"):  # heads weighted by talking heads, channels by channel attention
        if {mixed} in (first, second) and first | second == {mixed, "C"}:
            return ours if first == {"C"} else theirs
    return axis_of("X", size)


def _pairwise(ours: Axis, theirs: Axis) -> Axis:
    """Two axes of one size merged factor by factor, the coarser one split as the finer one is."""
    left, right = list(ours[::-1]), list(theirs[::-1])
    made: list[Atom] = []
    while left and right:
        one, other = left.pop(), right.pop()
        size = min(one.size, other.size)
        pair: list[Axis] = []
        for atom, rest in ((one, left), (other, right)):
            if atom.size % size:
                return axis_of("X", size_of(ours))
            if atom.size > size:
                rest.append(Atom(atom.source, atom.key, atom.size // size, atom.stride))
                atom = Atom(atom.source, atom.key, size, atom.stride * (atom.size // size))
            pair.append((atom,))
        made += _merged(*pair)
    return _joined(made)


def _has_parts(axis: Axis) -> bool:
    return any(atom.source.parts for atom in axis)


def _broadcast(many: Sequence[Axes], shape: Sequence[int]) -> Axes:
    made: list[Axis] = [()] * len(shape)
    for axes in many:
        for place, axis in enumerate(axes, len(shape) - len(axes)):
            made[place] = _merged(made[place], axis)
    # What only constants stretch (a mask over one image) stays a constant axis.
    return tuple(axis if axis else axis_of("?", size) for axis, size in zip(made, shape, strict=True))


def _from_weights(axis: Axis, axes: Axes, size: int) -> Axis:
    """The axis that a product with weights makes out of the one it sums over."""
    found = kinds(axis)
    if "X" in found or "N" in found:
        return axis_of("X", size)
    if found and found <= {"S", "M"}:
        return axis_of("M", size)
    if found == {"H"} or (found == {"C"} and not is_whole(axis, axes)):
        return axis_of("H", size)
    return axis_of("C", size)


# Rules, by the operation's name


def _first(call: Call) -> Tensor:
    return call.get(0, "self") if call.args else next(iter(call.kwargs.values()))


def _pointwise(call: Call) -> Callable[[Tensor, int], Axes]:
    tensors = [one for one in tree_leaves((call.args, call.kwargs)) if isinstance(one, Tensor)]
    many = [call.axes(one) for one in tensors]
    return lambda output, number: _broadcast(many, output.shape)


def _same(call: Call) -> Axes:
    return call.axes(_first(call))


def _as_strided(call: Call) -> Callable[[Tensor, int], Axes]:
    """Only another spelling of the same: adaptive pooling writes the strides of axes of length 1 anew."""
    tensor = _first(call)
    axes, shape, stride = call.axes(tensor), tuple(tensor.shape), tuple(tensor.stride())
    size, steps = tuple(call.get(1, "size")), tuple(call.get(2, "stride"))
    same = all(old == new for old, new, length in zip(stride, steps, shape, strict=True) if length > 1)
    if size != shape or not same or call.get(3, "storage_offset") not in (None, tensor.storage_offset()):
        raise _UnknownError
    return lambda output, number: axes


def _same_all(call: Call) -> Callable[[Tensor, int], Axes]:
    axes = call.axes(_first(call))
    return lambda output, number: axes


def _copy(call: Call) -> Callable[[Tensor, int], Axes]:
    axes = call.axes(call.get(1, "src"))
    return lambda output, number: _broadcast([axes], output.shape)


def _view(call: Call) -> Callable[[Tensor, int], Axes]:
    if isinstance(call.get(1, "size"), torch.dtype):
        raise _UnknownError
    axes = call.axes(_first(call))

    def made(output: Tensor, number: int) -> Axes | None:
        try:
            return _reshaped(axes, output.shape)
        except (_UnknownError, IndexError):
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
    return lambda output, number: _broadcast([axes], output.shape)


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
        axes, place, _part(axes[place], output.shape[place], axes, start=start if step == 1 else None)
    )


def _split(call: Call) -> Callable[[Tensor, int], Axes]:
    tensor = _first(call)
    axes, place = call.axes(tensor), call.get(2, "dim", 0) % tensor.ndim
    sizes = call.get(1, "split_size")
    starts = [0]
    for number in range(tensor.shape[place]):
        starts.append(starts[-1] + (sizes if isinstance(sizes, int) else sizes[min(number, len(sizes) - 1)]))

    def made(output: Tensor, number: int) -> Axes:
        return _replaced(axes, place, _part(axes[place], output.shape[place], axes, start=starts[number]))

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
        _part(axis, size_of(axis), axes) if place in places and axis else axis for place, axis in enumerate(axes)
    )


def _resized(call: Call) -> Callable[[Tensor, int], Axes]:
    """Pooled, padded or interpolated: axes change their length and keep their kind."""
    tensor = _first(call)
    axes = call.axes(tensor)

    def made(output: Tensor, number: int) -> Axes:
        if output.ndim != tensor.ndim:
            raise _UnknownError
        return tuple(
            axis if size == size_of(axis) else axis_of("S", size) if not axis else _part(axis, size, axes)
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
    return lambda output, number: _replaced(axes, place, _part(axes[place], output.shape[place], axes))


def _index(call: Call) -> Callable[[Tensor, int], Axes]:
    tensor = _first(call)
    axes = call.axes(tensor)
    given = [(place, one) for place, one in enumerate(call.get(1, "indices")) if one is not None]
    if len(given) != 1 or given[0][1].ndim != 1 or not call.is_constant(given[0][1]):
        raise _UnknownError
    place = given[0][0]
    return lambda output, number: _replaced(axes, place, _part(axes[place], output.shape[place], axes))


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
            axis = _merged(axis, axes[number])
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
    made = list(_broadcast([call.axes(one) for one in tensors], tensors[0].shape))
    made.insert(place, axis_of("X", len(tensors)))
    return tuple(made)


def _reduced(call: Call) -> Callable[[Tensor, int], Axes]:
    tensor = _first(call)
    axes, rank = call.axes(tensor), tensor.ndim
    chosen = call.get(1, "dim")
    chosen = range(rank) if chosen is None or chosen == [] else [chosen] if isinstance(chosen, int) else chosen
    if isinstance(chosen, Tensor):
        raise _UnknownError
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
        columns = _from_weights(left[-1], left, other.shape[-1])
    elif call.is_constant(one):
        rows = _from_weights(right[-2], right, one.shape[-2])
    # The right one first: of attention and values, the values' heads still belong to their features.
    lead = _broadcast([right[:-2], left[:-2]], one.shape[:-2]) if one.ndim == 3 else ()
    return (*lead, rows, columns)


def _linear(call: Call) -> Callable[[Tensor, int], Axes]:
    axes = call.axes(_first(call))
    return lambda output, number: (*axes[:-1], _from_weights(axes[-1], axes, output.shape[-1]))


def _convolution(call: Call) -> Callable[[Tensor, int], Axes]:
    tensor, weight = _first(call), call.get(1, "weight")
    axes = call.axes(tensor)
    if not call.is_constant(weight):  # dynamic convolutions fold the images into the channels
        raise _UnknownError

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
    return (_merged(query[0], value[0]), query[1], query[2], value[3])


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
        raise _UnknownError

    def made(output: Tensor, number: int) -> Axes:
        window = output.shape[1] // size_of(axes[1])
        return (axes[0], _joined([*axes[1], *axis_of("S", window)]), axis_of("S", output.shape[2]))

    return made


def _col2im(call: Call) -> Callable[[Tensor, int], Axes]:
    axes = call.axes(_first(call))

    def made(output: Tensor, number: int) -> Axes:
        channels = _reshaped((axes[1],), (output.shape[1], size_of(axes[1]) // output.shape[1]))
        # What stands behind the channels are places in a window, even if a Linear made weights for them (VOLO).
        if kinds(channels[0]) != {"C"} or not kinds(channels[1]) <= {"S", "C"} or kinds(axes[2]) != {"S"}:
            raise _UnknownError
        return (axes[0], channels[0], axis_of("S", output.shape[2]), axis_of("S", output.shape[3]))

    def safely(output: Tensor, number: int) -> Axes | None:
        try:
            return made(output, number)
        except (_UnknownError, IndexError):
            return None

    return safely  # type: ignore[return-value]


def _pixel_shuffle(call: Call) -> Callable[[Tensor, int], Axes]:
    axes = call.axes(_first(call))
    if kinds(axes[-3]) != {"C"} or not kinds(axes[-1]) | kinds(axes[-2]) <= {"S"}:
        raise _UnknownError
    return lambda output, number: (
        *axes[:-3],
        axis_of("C", output.shape[-3]),
        axis_of("S", output.shape[-2]),
        axis_of("S", output.shape[-1]),
    )


_POINTWISE = frozenset(  # those that torch does not tag
    {"hardswish", "hardsigmoid", "hardtanh", "relu6", "leaky_relu", "elu", "silu", "mish", "gelu", "softplus", "celu"}
    | {"_prelu_kernel", "log_sigmoid_forward", "threshold", "rrelu_with_noise", "selu", "clamp", "where"}
)
Rule: TypeAlias = Callable[[Call], Axes | Callable[[Tensor, int], Axes | None]]
_FACTORIES = frozenset(
    [
        "new_zeros",
        "new_ones",
        "new_full",
        "new_empty",
        "new_empty_strided",
        "zeros_like",
        "ones_like",
        "empty_like",
        "full_like",
        "rand_like",
        "randn_like",
        "randint_like",
        "bernoulli",
    ]
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
