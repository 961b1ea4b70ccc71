"""The tools whose readings are checked: this library, and torch-lucent."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

ROWS = 4
"""The first image three times (as it is, its first unit changed, its second unit changed), then another one."""


Read = Callable[[Tensor], Tensor]


class Reader(Protocol):
    """A tool that reads units.

    Attributes:
        changes: Whether its passes see an output that is changed.
        note: For the table.
    """

    changes: bool
    note: str

    def version(self) -> str: ...

    def open(self, model: nn.Module, size: int) -> None:
        """Get to know the network."""

    def prepare(self, layer: str, units: list[int], **told: Any) -> Read:
        """What reads these units from images, (N, K); raises where it refuses. ``told``: what its refusal asked for."""
        ...

    def close(self) -> None:
        """Leave the network."""


class VislensReader:
    """This library, a target for each layer, told nothing but layer and unit.

    Args:
        each: Let every target trace the network itself. Otherwise one trace of all layers is handed to all of them: the
            same function on the same two images, but once a network instead of once a layer.
    """

    changes = True
    note = (
        "One trace of all layers serves the targets of a network (`--each` traces anew for every layer, as a user"
        " would: the same result, several times the cost)."
    )

    def __init__(self, *, each: bool = False) -> None:
        self.each = each

    def version(self) -> str:
        import vislens_interp

        return vislens_interp.__version__

    def open(self, model: nn.Module, size: int) -> None:
        import vislens_interp.targets.target as target

        self.model, self.size = model, size
        self.module, self.survey = target, target.survey
        seen: dict[str, Any] = {}
        traced: list[Tensor] = []

        def once(model: nn.Module, names: Any, inputs: Tensor, **settings: Any) -> dict[str, Any]:
            if not settings.get("keep") or settings.get("before"):
                return self.survey(model, names, inputs, **settings)
            if not traced:
                seen.update(self.survey(model, [name for name, _ in model.named_modules()], inputs, **settings))
                traced.append(inputs.detach().clone())
            if not traced[0].equal(inputs):
                return self.survey(model, names, inputs, **settings)
            return {name: seen[name] for name in names}

        if not self.each:
            target.survey = once

    def prepare(self, layer: str, units: list[int], **told: Any) -> Read:
        from vislens_interp.preprocess import Preprocess
        from vislens_interp.targets import LayerTarget

        target = LayerTarget(
            self.model,
            layer or None,
            list(units),
            preprocess=Preprocess(None, [0.5], [0.5]),
            image_size=self.size,
            **told,
        )
        return lambda images: target.responses(images)

    def close(self) -> None:
        self.module.survey = self.survey


class LucentReader:
    """torch-lucent's ``objectives.channel``: hooks on every layer, dots of names written as underscores.

    One pass serves all cells, as it was written for, so that its values are compared but no output is changed.
    """

    changes = False
    note = (
        "In an environment of its own: `python -m venv ENV; ENV/bin/pip install torch-lucent timm`, then this script"
        " with `ENV/bin/python -W ignore`. It asks for kornia 0.4.1 or older (of 2020) and takes the newest torch;"
        " nothing had to be changed to run it. `objectives.channel(layer, n)` is axis 1, whatever that is: in (images,"
        " tokens, features) it is a token, and where there are fewer tokens than n an IndexError. It keeps what a layer"
        " returned without copying it, so that an activation or an addition in place behind it overwrites the reading"
        " (most of the wrong cells of convolution networks). Names have underscores for dots; the model's own output is"
        " `labels`, its last module. Values of one pass are compared; no output is changed, which could only find more."
    )

    def version(self) -> str:
        from importlib.metadata import version

        return f"{version('torch-lucent')} with kornia {version('kornia')}"

    def open(self, model: nn.Module, size: int) -> None:
        from lucent.optvis.render import hook_model

        before = {id(hook) for module in model.modules() for hook in module._forward_hooks.values()}
        self.model = model
        self.images: Tensor | None = None
        self.layers = hook_model(model, lambda: self.images)
        self.hooks = [
            (module, key)
            for module in model.modules()
            for key, hook in module._forward_hooks.items()
            if id(hook) not in before
        ]

    def prepare(self, layer: str, units: list[int], **told: Any) -> Read:
        from lucent.optvis.objectives import channel

        name = layer.replace(".", "_") or "labels"

        def read(images: Tensor) -> Tensor:
            with torch.no_grad():
                if self.images is not images:
                    self.model((images - 0.5) / 0.5)
                    self.images = images
                return torch.tensor(
                    [[-float(channel(name, unit, batch=row)(self.layers)) for unit in units] for row in range(ROWS)]
                )

        return read

    def close(self) -> None:
        for module, key in self.hooks:  # it never removes them
            del module._forward_hooks[key]


READERS = {"vislens_interp": VislensReader, "lucent": LucentReader}
