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
    """This library, a target for each layer, told nothing but layer and unit."""

    changes = True
    note = "Every layer has a target of its own, which traces the network anew, as a user's would."

    def version(self) -> str:
        import vislens_interp

        return vislens_interp.__version__

    def open(self, model: nn.Module, size: int) -> None:
        self.model, self.size = model, size

    def prepare(self, layer: str, units: list[int], **told: Any) -> Read:
        from vislens_interp.preprocess import Preprocess
        from vislens_interp.targets import LayerTarget

        preprocess = Preprocess(None, [0.5], [0.5])
        target = LayerTarget(
            self.model, layer or None, list(units), preprocess=preprocess, image_size=self.size, **told
        )
        return target.responses

    def close(self) -> None:
        """Targets leave nothing in a network."""


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

        every = lambda: [(one, key) for one in model.modules() for key in one._forward_hooks]  # noqa: E731
        self.model, before = model, every()
        self.images: Tensor | None = None
        self.layers = hook_model(model, lambda: self.images)
        self.hooks = [hook for hook in every() if hook not in before]

    def prepare(self, layer: str, units: list[int], **told: Any) -> Read:
        from lucent.optvis.objectives import channel

        name = layer.replace(".", "_") or "labels"

        @torch.no_grad()
        def read(images: Tensor) -> Tensor:
            if self.images is not images:
                self.model((images - 0.5) / 0.5)
                self.images = images
            rows = [[channel(name, unit, batch=row)(self.layers) for unit in units] for row in range(ROWS)]
            return torch.tensor([[-float(value) for value in row] for row in rows])

        return read

    def close(self) -> None:
        for module, key in self.hooks:  # it never removes them
            del module._forward_hooks[key]


READERS: dict[str, Callable[[], Reader]] = {"vislens_interp": VislensReader, "lucent": LucentReader}
