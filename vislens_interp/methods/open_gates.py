"""Gradients for silent units: a ReLU that stops all of a picture's gradient lets it through."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_IN_PLACE: dict[Callable[..., Any], bool] = {
    torch.relu: False,
    torch.relu_: True,
    Tensor.relu: False,
    Tensor.relu_: True,
    functional.relu_: True,
    functional.hardtanh_: True,
}
"""Functions that give x or a bound, and whether they overwrite x; those of :data:`_ASKED` say it by ``inplace=``."""
_ASKED = (functional.relu, functional.relu6, functional.hardtanh)


class OpenGates(TorchFunctionMode):
    """Within this, ReLU, ReLU6 and hardtanh pass on gradients that they would stop, for pictures that get no other.

    Values are as they were, and so are the gradients of every picture of which anything gets through. Only a gradient
    that leads back between the bounds is let through, so that a silent unit is woken and is not silenced further.

    Source: Olah et al. 2017; lucid's ``redirected_relu_grad``, which does so in the first 16 steps.

    >>> x = torch.tensor([[-1.0], [2.0]], requires_grad=True)
    >>> with OpenGates():
    ...     (-torch.relu(x)).sum().backward()
    >>> x.grad.tolist()
    [[-1.0], [-1.0]]
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        given = args[0] if args else kwargs.get("input")
        if func not in _IN_PLACE and func not in _ASKED:
            return func(*args, **kwargs)
        if not (isinstance(given, Tensor) and given.requires_grad and torch.is_grad_enabled() and given.ndim > 0):
            return func(*args, **kwargs)
        if func in _ASKED:
            place = 1 if func is not functional.hardtanh else 3
            in_place = bool(args[place] if len(args) > place else kwargs.get("inplace", False))
        else:
            in_place = _IN_PLACE[func]
        kwargs.pop("input", None)
        return _Gate.apply(given, lambda x: func(x, *args[1:], **kwargs), in_place)


class _Gate(torch.autograd.Function):
    """A function that clips, whose gradient finds a way where it clips all of a row."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, clip: Callable[[Tensor], Tensor], in_place: bool) -> Tensor:
        before = x.clone() if in_place else x
        clipped = clip(x)
        if in_place:
            ctx.mark_dirty(x)
        ctx.save_for_backward(before < clipped, before > clipped)
        return clipped

    @staticmethod
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> tuple[Tensor, None, None]:
        below, above = list(ctx.saved_tensors)
        passed = gradient.masked_fill(below | above, 0)
        stopped = (passed.flatten(1) == 0).all(1) if passed.ndim > 1 else passed == 0
        stopped = stopped.view(-1, *[1] * (passed.ndim - 1))
        back = gradient.clamp(max=0) * below + gradient.clamp(min=0) * above
        return torch.where(stopped, back, passed), None, None
