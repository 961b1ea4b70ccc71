"""How a model is called: with the images, and with what its ``forward`` takes beside them."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

_IMAGES = "pixel_values"  # what transformers calls the images, in whichever place


class Forward:
    """A pass of a model over images, with fixed further arguments.

    The images go to ``pixel_values`` if ``forward`` has such an argument, otherwise to its first that is not given.

    Args:
        model: The network.
        forward_args: Name of an argument to its value. A function is called with the images; a tensor is moved to
            their device. None is none.

    Raises:
        TypeError: ``forward_args`` is no mapping from names.
        ValueError: ``forward`` has no argument of that name, or needs one that is not given.

    >>> import torch
    >>> class Scaled(nn.Module):
    ...     def forward(self, factor, images):
    ...         return factor * images
    >>> Forward(Scaled(), {"factor": 3})(torch.ones(1))
    tensor([3.])
    """

    def __init__(self, model: nn.Module, forward_args: Mapping[str, object] | None = None) -> None:
        self.forward_args: dict[str, object] = {}
        if isinstance(forward_args, Mapping) and all(isinstance(name, str) for name in forward_args):
            self.forward_args = dict(forward_args)
        elif forward_args is not None:
            raise TypeError(
                f"forward_args is a {type(forward_args).__name__}; expected a mapping from names of arguments of"
                f" {type(model).__name__}.forward to their values, without the images."
            )
        self.model = model
        self.images: str | None = None
        """Name of the argument that takes the images; None for the first place."""
        try:
            parameters = inspect.signature(model.forward).parameters
        except (TypeError, ValueError):  # TorchScript has none that Python can read
            return
        by_name = [
            name
            for name, one in parameters.items()
            if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) and name not in self.forward_args
        ]
        if _IMAGES in by_name:
            self.images = _IMAGES
        elif self.forward_args and by_name:
            self.images = by_name[0]
        self._check(parameters, by_name)

    def _check(self, parameters: Mapping[str, inspect.Parameter], by_name: list[str]) -> None:
        kind = type(self.model).__name__
        open_ended = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        unknown = [name for name in self.forward_args if name not in parameters and not open_ended]
        if unknown:
            raise ValueError(
                f"forward_args names {', '.join(unknown)}, which {kind}.forward does not take; expected some of"
                f" {', '.join(parameters)}. Correct the names."
            )
        images = self.images or next(iter(by_name), None)
        needed = [name for name in by_name if parameters[name].default is inspect.Parameter.empty and name != images]
        if needed:
            raise ValueError(
                f"forward_args lacks {', '.join(needed)}: {kind}.forward takes more than the images; expected a value"
                f" of each. Pass forward_args={{{needed[0]!r}: ...}}, or a module that takes images alone."
            )

    def __call__(self, images: Tensor) -> Any:
        """The model's output for images that are already preprocessed."""
        given = {name: _value(value, images) for name, value in self.forward_args.items()}
        return self.model(images, **given) if self.images is None else self.model(**{self.images: images}, **given)


def _value(value: object, images: Tensor) -> object:
    if isinstance(value, Tensor):
        return value.to(images.device)
    return value(images) if callable(value) and not isinstance(value, nn.Module) else value
