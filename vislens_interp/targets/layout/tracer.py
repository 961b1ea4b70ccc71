"""What each axis of each tensor in a forward pass means: followed through the operations, never inferred from sizes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vislens_interp.targets.layout.kinds import Axes, Kind, UnknownError, axis_of, size_of, unknown_axes
from vislens_interp.targets.layout.rules import FACTORIES, POINTWISE, RULES, Call, Input, Rule, View, pointwise

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
        self._known: dict[View, Axes] = {}
        self.drew = False
        """Whether an operation has drawn random numbers."""
        self._factors: set[tuple[int, int, int]] = set()
        # Weak references keep a storage's address from being used again, but not its memory.
        self._storages: dict[int, StorageWeakRef] = {}
        pictures = inputs.ndim == len(_INPUTS)
        self._keep(inputs, tuple(map(axis_of, _INPUTS, inputs.shape)) if pictures else unknown_axes(inputs.shape))

    def axes(self, tensor: Tensor) -> Axes | None:
        """The axes of a tensor; None for one that no image entered."""
        return self._input(tensor).axes

    def factors(self, tensor: Tensor) -> frozenset[tuple[int, int]]:
        """How the last axis's channels were taken apart by the operations before: (how many, how far apart)."""
        axes = self.axes(tensor)
        keys = {atom.key for atom in axes[-1] if atom.kind == "C"} if axes else set()
        return frozenset((size, stride) for key, size, stride in self._factors if key in keys)

    def _input(self, tensor: Tensor) -> Input:
        view, shape = _view(tensor), tuple(tensor.shape)
        if view is None:
            return Input(unknown_axes(shape), shape, None, "")
        axes = self._known.get(view)
        if axes is None and view[0] in self._storages:
            axes = unknown_axes(shape)  # a view by other means, or a buffer that images were written into
        return Input(axes, shape, view, self._names.get(view[0], ""))

    def _keep(self, tensor: Tensor, axes: Axes) -> None:
        view = _view(tensor)
        if view is None:
            return
        self._known[view] = axes
        self._factors.update((atom.key, atom.size, atom.stride) for axis in axes for atom in axis if atom.kind == "C")
        if view[0] not in self._storages:
            self._storages[view[0]] = StorageWeakRef(tensor.untyped_storage())

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        self.drew = self.drew or _draws(func, args, kwargs)
        inputs = {id(one): self._input(one) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        result = func(*args, **kwargs)
        name = func.__name__.partition(".")[0]
        if name not in FACTORIES and any(one.axes is not None for one in inputs.values()):
            rule = _rule(func, name)
            outputs = result if isinstance(result, (list, tuple)) else [result]
            for number, output in enumerate(outputs):
                if isinstance(output, Tensor):
                    call = Call(args, kwargs, inputs, tuple(output.shape), number)
                    self._keep(output, _axes(rule, call))
        return result


def _view(tensor: Tensor) -> View | None:
    """What a tensor shows; None where torch says that it has no memory: oneDNN's own format, some sparse ones."""
    try:
        storage = tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):  # what torch raises there, by layout
        return None
    # By what it shows, not by object: autograd wraps views anew.
    return storage, int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride())


def _rule(func: OpOverload, name: str) -> Rule | None:
    base = name.rstrip("_")  # of an operation in place
    return RULES.get(name) or RULES.get(base) or (pointwise if _is_pointwise(func, base) else None)


def _axes(rule: Rule | None, call: Call) -> Axes:
    """What a rule says of an output's axes, if it says something that fits."""
    if rule is not None:
        try:
            axes = rule(call)
        except (UnknownError, LookupError, TypeError, ValueError, AttributeError):
            return unknown_axes(call.shape)
        if tuple(map(size_of, axes)) == call.shape:
            return axes
    return unknown_axes(call.shape)


def _draws(func: OpOverload, args: Sequence[object], kwargs: Mapping[str, object]) -> bool:
    """Whether an operation draws random numbers: attention without dropout is tagged so too, and does not."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    names = [one.name for one in func._schema.arguments]
    if "dropout_p" not in names:
        return True
    place = names.index("dropout_p")
    return bool(args[place] if len(args) > place else kwargs.get("dropout_p", 0))


def _is_pointwise(func: OpOverload, base: str) -> bool:
    if torch.Tag.pointwise in func.tags or base in POINTWISE:
        return True
    packet = getattr(torch.ops.aten, base, None)
    if packet is None or not func._schema.is_mutable:
        return False
    return any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads())
