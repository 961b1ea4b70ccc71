"""The architectures of `unit_coverage` and the declared layouts of their layers, from ``layouts.toml``."""

import importlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.common.script import read


@dataclass(frozen=True)
class Architecture:
    family: str  # as in the table
    name: str  # timm's name, `torchvision:NAME`, or `MODULE:CLASS` to build a smaller one of a class
    layouts: tuple[tuple[str, str], ...]  # patterns of layer names, searched in this order, and what they declare
    # For the constructor: fewer blocks or channels, so that a thousand passes fit into minutes. Which kinds of layers
    # there are does not change.
    settings: dict[str, Any] = field(default_factory=dict)
    size: int = 64  # side of its images, in pixels

    @property
    def key(self) -> str:
        """A file name."""
        made = "_".join(f"{name}{value}" for name, value in self.settings.items() if name in ("block", "conv_mlp"))
        return re.sub(r"\W+", "_", f"{self.name}_{made}").strip("_")

    def build(self) -> nn.Module:
        """The network, with random weights."""
        module, _, name = self.name.rpartition(":")
        if not module:
            import timm

            return timm.create_model(name, pretrained=False, **self.settings).eval()
        if module == "torchvision":
            from torchvision import models

            return models.get_model(name, weights=None, **self.settings).eval()
        classes = importlib.import_module(module)
        settings = {k: getattr(classes, v) if isinstance(v, str) else v for k, v in self.settings.items()}
        return getattr(classes, name)(**settings).eval()

    def declared(self, layer: str) -> str:
        """What a person says of a layer."""
        return next(layout for pattern, layout in self.layouts if re.search(pattern, layer))


def _read() -> tuple[dict[str, tuple[tuple[str, str], ...]], list[Architecture]]:
    held = read(Path(__file__).with_suffix(".toml"))
    named: dict[str, tuple[tuple[str, str], ...]] = {}

    def patterns(rows: list[Any]) -> tuple[tuple[str, str], ...]:
        return tuple(one for row in rows for one in (named[row] if isinstance(row, str) else [tuple(row)]))

    for name, rows in held["layouts"].items():
        named[name] = patterns(rows)
    found = []
    for family in held["family"]:
        for network in family["networks"]:
            said = {"name": network} if isinstance(network, str) else network
            settings, lists = said.get("settings", {}), said["name"].startswith("torchvision")
            settings = {k: tuple(v) if isinstance(v, list) and not lists else v for k, v in settings.items()}
            layouts = patterns(family["layouts"])
            found.append(Architecture(family["name"], said["name"], layouts, settings, said.get("size", 64)))
    return named, found


LAYOUTS, ARCHITECTURES = _read()
