"""The tools whose readings are checked: this library, and torch-lucent."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

ROWS = 4  # the first image three times (as it is, its first unit changed, its second unit changed), then another one
Read = Callable[[Tensor], Tensor]


class VislensReader:
    """This library, a target for each layer, told nothing but layer and unit."""

    changes = True  # its passes see an output that is changed
    note = "Every layer has a target of its own, which traces the network anew, as a user's would."

    def version(self) -> str:
        import vislens_interp

        return vislens_interp.__version__

    def open(self, model: nn.Module, size: int) -> None:
        self.model, self.size = model, size

    def prepare(self, layer: str, units: list[int], **told: int | str) -> Read:
        """What reads these units from images, (N, K); raises where it refuses. ``told``: what its refusal asked for."""
        from vislens_interp.preprocess import Preprocess
        from vislens_interp.targets import LayerTarget

        settings = {"preprocess": Preprocess(None, [0.5], [0.5]), "image_size": self.size, **told}
        return LayerTarget(self.model, layer or None, list(units), **settings).responses

    def close(self) -> None:
        """Targets leave nothing in a network."""


class LucentReader:
    """torch-lucent's ``objectives.channel``: hooks on every layer, dots of names written as underscores.

    One pass serves all cells, as it was written for, so that its values are compared but no output is changed.
    """

    changes = False
    note = Path(__file__).with_name("lucent.md").read_text(encoding="utf-8").strip()

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

    def prepare(self, layer: str, units: list[int], **told: int | str) -> Read:
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


Reader = VislensReader | LucentReader
READERS: dict[str, Callable[[], Reader]] = {"vislens_interp": VislensReader, "lucent": LucentReader}
