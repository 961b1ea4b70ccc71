"""A pass through somebody's model that leaves it as it was, also beside other threads."""

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

import torch
from torch import nn

# Flags of timm and transformers: recompute in the backward pass, in which no hook of ours may stand.
_CHECKPOINTING = ("grad_checkpointing", "gradient_checkpointing")


class _Locks:
    """One lock for all modules that were first seen together; models that share modules share their locks."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all: in a process that was forked, where nobody holds what another thread held."""
        self._guard = threading.Lock()
        self._numbers = count()
        self._of_module: weakref.WeakKeyDictionary[nn.Module, tuple[int, threading.RLock]] = weakref.WeakKeyDictionary()
        self._of_model: weakref.WeakKeyDictionary[nn.Module, tuple[int, list[Any]]] = weakref.WeakKeyDictionary()

    def of(self, model: nn.Module, modules: list[nn.Module]) -> list[Any]:
        """The locks of a model, always in the same order, so that two threads never wait for each other."""
        with self._guard:
            known = self._of_model.get(model)
            if known is None or known[0] != len(modules):
                new = (next(self._numbers), threading.RLock())
                found = {self._of_module.setdefault(module, new) for module in modules}
                locks = [lock for _, lock in sorted(found, key=lambda numbered: numbered[0])]
                known = self._of_model[model] = (len(modules), locks)
            return known[1]


_LOCKS = _Locks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_LOCKS.clear)


def _modules(model: nn.Module) -> list[nn.Module]:
    """``model.modules()`` in another order; its nested generators cost more than all else that is done for a pass."""
    modules, seen = [model], {model}
    for module in modules:
        for child in module._modules.values():
            if child is not None and child not in seen:
                seen.add(child)
                modules.append(child)
    return modules


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in eval mode, its parameters need no gradients, and no other thread runs it.

    The training flag of every module, ``requires_grad`` of every parameter and flags of gradient checkpointing (off
    inside: it would call layers again) are restored, also after an exception. Flags are set directly, because a model's
    own ``train`` may do more (merge adapters, say). Only what differs is touched, and ``requires_grad`` only where
    gradients are recorded.

    Flags and hooks belong to modules, not to threads. So of several threads that read a model, or models that share
    modules, one runs at a time; and a pass of the caller's own that another thread begins meanwhile waits until this
    one has ended. One that had begun before goes on, and sees eval mode if the model was in training mode.

    Args:
        model: The network; its parameters stay where they are.
    """
    modules = _modules(model)
    ours = threading.get_ident()
    locks = _LOCKS.of(model, modules)

    def wait(module: nn.Module, args: tuple[object, ...]) -> None:
        if threading.get_ident() != ours:
            with ExitStack() as held:
                for lock in locks:
                    held.enter_context(lock)

    with ExitStack() as stack:
        for lock in locks:
            stack.enter_context(lock)
        switched: list[tuple[nn.Module | nn.Parameter, str]] = [(one, "training") for one in modules if one.training]
        switched += [(one, flag) for one in modules for flag in _CHECKPOINTING if one.__dict__.get(flag) is True]
        if torch.is_grad_enabled():
            # Not model.parameters(), which would build every name: this is done for each pass.
            held = (parameter for module in modules for parameter in module._parameters.values())
            switched += [(one, "requires_grad") for one in held if one is not None and one.requires_grad]
        if not isinstance(model, torch.jit.ScriptModule):
            stack.callback(model.register_forward_pre_hook(wait).remove)
        try:
            for owner, flag in switched:
                setattr(owner, flag, False)
            yield
        finally:
            for owner, flag in switched:
                setattr(owner, flag, True)
