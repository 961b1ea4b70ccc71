"""What each axis of each tensor in a forward pass means: followed through the operations, never inferred from sizes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vislens_interp.targets.layout.kinds import Axes, Kind, UnknownError, axis_of, size_of, unknown_axes
from vislens_interp.targets.layout.rules import FACTORIES, POINTWISE, RULES, Call, pointwise

_INPUTS: tuple[Kind, ...] = ("N", "C", "S", "S")


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
            self._keep(inputs, unknown_axes(inputs.shape))

    def axes(self, tensor: Tensor) -> Axes | None:
        """The axes of a tensor; None for one that no image entered."""
        storage = _storage(tensor)
        if storage is None:
            return unknown_axes(tensor.shape)
        found = self._known.get(_view_key(storage, tensor))
        if found is None and storage in self._storages:
            return unknown_axes(tensor.shape)  # a view by other means, or a buffer that images were written into
        return found

    def name(self, tensor: Tensor) -> str:
        """Name of the parameter that a tensor shows, or ``""``."""
        storage = _storage(tensor)
        return "" if storage is None else self._names.get(storage, "")

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
                    self._keep(output, made if fits and made is not None else unknown_axes(output.shape))
        return result

    def _rule(self, func: Any, args: Any, kwargs: Any) -> Callable[[Tensor, int], Axes | None] | None:
        """What gives an output its axes; None where no image enters the output."""
        name = func.__name__.partition(".")[0]
        if name in FACTORIES:
            return None
        base = name.rstrip("_") if name not in RULES else name
        rule = RULES.get(name) or RULES.get(base)
        if rule is None and _is_pointwise(func, base):
            rule = pointwise
        if rule is None:
            return lambda output, number: None
        call = Call(self, args, kwargs)
        try:
            made = rule(call)
        except (UnknownError, IndexError, TypeError, ValueError, AttributeError):
            return lambda output, number: None
        return made if callable(made) else lambda output, number: made if number == 0 else None


def _storage(tensor: Tensor) -> int | None:
    """Address of a tensor's memory; None where torch says that it has none: oneDNN's own format, some sparse ones."""
    try:
        return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):  # what torch raises there, by layout
        return None


def _view_key(storage: int, tensor: Tensor) -> tuple:
    # By what a tensor shows, not by object: autograd wraps views anew.
    return storage, tensor.storage_offset(), tuple(tensor.shape), tuple(tensor.stride())


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
    if torch.Tag.pointwise in func.tags or base in POINTWISE:
        return True
    packet = getattr(torch.ops.aten, base, None)
    if packet is None or not func._schema.is_mutable:
        return False
    return any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads())
