"""What an axis of a tensor can hold, and what splitting, joining and combining do to it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from math import prod
from typing import Literal, TypeAlias

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

_keys = count()


def axis_of(kind: Kind, size: int, parts: tuple[tuple[str | None, int], ...] = ()) -> Axis:
    """A new axis of one kind."""
    return () if size == 1 else (Atom(Source(kind, size, parts), next(_keys), size),)


def size_of(axis: Axis) -> int:
    """How long an axis is."""
    return prod(atom.size for atom in axis)


def kinds(axis: Axis) -> set[Kind]:
    """The kinds that an axis is made of."""
    return {atom.kind for atom in axis}


def is_whole(axis: Axis, axes: Axes) -> bool:
    """Whether an axis of channels is not just a factor of them, such as the heads of (N, heads, L, features)."""
    channels = [atom for atom in axis if atom.kind == "C"]
    elsewhere = {atom.key for other in axes if other is not axis for atom in other}
    return not any(atom.key in elsewhere for atom in channels) and min((a.stride for a in channels), default=1) == 1


class UnknownError(Exception):
    """A rule does not know."""


def unknown_axes(shape: Sequence[int]) -> Axes:
    """Axes of which nothing is known."""
    return tuple(axis_of("X", size) for size in shape)


def joined(atoms: Iterable[Atom]) -> Axis:
    """Atoms side by side, with those put together again that were one."""
    done: list[Atom] = []
    for atom in atoms:
        if done and done[-1].key == atom.key and done[-1].stride == atom.stride * atom.size:
            atom = Atom(atom.source, atom.key, done.pop().size * atom.size, atom.stride)
        done.append(atom)
    return tuple(done)


def reshaped(axes: Axes, shape: Sequence[int]) -> Axes:
    """Axes of the same entries in another shape, as ``view`` reads them."""
    left = [atom for axis in axes for atom in axis][::-1]
    made = []
    for size in shape:
        taken: list[Atom] = []
        have = 1
        while have < size:
            atom = left.pop()
            if size % have:
                raise UnknownError
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
                raise UnknownError
        made.append(joined(taken))
    return tuple(made)


def part_of(axis: Axis, size: int, *, start: int | None = None) -> Axis:
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


def merged(ours: Axis, theirs: Axis) -> Axis:
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
        made += merged(*pair)
    return joined(made)


def _has_parts(axis: Axis) -> bool:
    return any(atom.source.parts for atom in axis)


def broadcast(many: Sequence[Axes], shape: Sequence[int]) -> Axes:
    """Axes of what several tensors give, element by element."""
    made: list[Axis] = [()] * len(shape)
    for axes in many:
        for place, axis in enumerate(axes, len(shape) - len(axes)):
            made[place] = merged(made[place], axis)
    # What only constants stretch (a mask over one image) stays a constant axis.
    return tuple(axis if axis else axis_of("?", size) for axis, size in zip(made, shape, strict=True))


def from_weights(axis: Axis, axes: Axes, size: int) -> Axis:
    """The axis that a product with weights makes out of the one it sums over."""
    found = kinds(axis)
    if "X" in found or "N" in found:
        return axis_of("X", size)
    if found and found <= {"S", "M"}:
        return axis_of("M", size)
    if found == {"H"} or (found == {"C"} and not is_whole(axis, axes)):
        return axis_of("H", size)
    return axis_of("C", size)
