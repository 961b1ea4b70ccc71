"""Who paints what in the comparison with other tools: units, photographs, ways, and how many passes each may take."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.judges import channel_means, load_squeezenet
from benchmarks.common.networks import ALIVE, TUNING_UNITS, load_units

SIZE = 224
LAYERS = ("features.4", "features.7", "features.12")
CROPS = 6
"""Crops a step where a tool looks at crops: Horama's number."""
WHOLE = (0.6, 0.8)
"""What Horama has to be told for crops of 0.8 to 1.0 of the side."""


@dataclass(frozen=True)
class Unit:
    layer: str
    unit: int

    def __str__(self) -> str:
        return f"{self.layer}:{self.unit}"


@dataclass(frozen=True)
class Way:
    """One way to a picture.

    Args:
        label: In tables.
        place: ``"lucent"``, ``"horama"`` or ``"ours"``: where it runs.
        method: Its name there.
        equal: Settings for a number of passes.
        default: Settings that have to be given for it to run as it was released.
        kind: What it is compared with: ways of one kind do the same.
    """

    label: str
    place: str
    method: str
    equal: Callable[[int], dict[str, Any]]
    default: dict[str, Any] = field(default_factory=dict)
    kind: str = "from noise"


def _horama(label: str, method: str, **kind: str) -> Way:
    def equal(passes: int) -> dict[str, Any]:
        return {"image_size": SIZE, "box_size": WHOLE, "total_steps": passes // CROPS}

    return Way(f"Horama, {label}", "horama", method, equal, **kind)


def _ours(label: str, method: str, each: int = 1, **kind: str) -> Way:
    """Ours, which looks ``each`` times a step: at crops, or at crops of a picture and of a photograph."""
    crops = {"crops": CROPS} if each > 1 else {}
    equal = lambda passes: {"steps": passes // each, **crops, "chunk": 1}  # noqa: E731
    return Way(f"ours, {label}", "ours", method, equal, {"chunk": 1}, **kind)


PHOTOGRAPH = {"kind": "from a photograph"}
WAYS: dict[str, Way] = {
    "lucent": Way(
        "torch-lucent",
        "lucent",
        "render_vis",
        lambda passes: {"image_size": SIZE, "fixed_image_size": SIZE, "steps": passes},
        {"image_size": 128, "steps": 512},
    ),
    "horama_fourier": _horama("Fourier", "fourier"),
    "horama_maco": _horama("MACO", "maco"),
    "horama_accentuation": _horama("accentuation", "accentuation", **PHOTOGRAPH),
    "fourier": _ours("activation maximisation", "activation_maximization"),
    "maco": _ours("MACO", "maco", CROPS),
    "accentuation": _ours("accentuation", "feature_accentuation", 2 * CROPS, **PHOTOGRAPH),
}
LANDSCAPE, INPUT, BEST = "landscape", "input", "best"
OWN = {
    LANDSCAPE: "ours, landscape edit",
    BEST: "control: the best tuning photographs",
    INPUT: "control: the photograph that is started from",
}
"""What no number of passes applies to."""
RIVALS = {"fourier": "lucent", "maco": "horama_maco", "accentuation": "horama_accentuation"}
"""Ours and the other tool's, the same method."""


def cell_name(way: str, setting: str, unit: Unit, seed: int) -> str:
    """Name of a cell's files; ``setting`` is ``"default"``, ``"own"`` or, with the passes, ``"equal96"``."""
    return f"{way}-{setting}-{unit.layer}-{unit.unit}-{seed}"


class Photographs:
    """The network, the photographs and their responses; what was read is kept in ``out``."""

    def __init__(self, data: Path, out: Path) -> None:
        self.data, self.out = data, out
        photos = vl.pixels(vl.read_images(data / "photos" / "imagenet500.zip", SIZE)[0])
        self.tuning, self.test = photos[0::2], photos[1::2]

    @cached_property
    def network(self) -> Any:
        return load_squeezenet(self.data)

    @property
    def weights(self) -> Path:
        return self.data / "networks" / "imagenet_squeezenet1_0.safetensors"

    @cached_property
    def natural(self) -> dict[str, dict[str, Tensor]]:
        """``"tuning"`` and ``"test"`` to layer to responses of all its units (N, K)."""
        file = self.out / "natural.safetensors"
        if not file.is_file():
            found = {part: channel_means(self.network, LAYERS, getattr(self, part)) for part in ("tuning", "test")}
            vl.save_state(file, "photographs' responses", found)
        return vl.load_state(file, "photographs' responses")

    def units(self, count: int) -> list[Unit]:
        """The first test units of each layer in turn that at least one in twenty tuning photographs moves."""
        drawn = load_units()["squeezenet"]
        alive = {layer: [unit for unit in drawn[layer][TUNING_UNITS:] if self._moves(layer, unit)] for layer in LAYERS}
        rows = zip(*alive.values(), strict=False)  # as long as the layer with the fewest
        ordered = [Unit(layer, unit) for row in rows for layer, unit in zip(alive, row, strict=True)]
        if count > len(ordered):
            raise ValueError(
                f"units={count}, and {len(ordered)} of the drawn ones answer to photographs; expected at most those. "
                "Ask for fewer."
            )
        return ordered[:count]

    def _moves(self, layer: str, unit: int) -> bool:
        responses = self.natural["tuning"][layer][:, unit]
        return bool((responses != responses.mode().values).double().mean() >= ALIVE)

    def start(self, unit: Unit, seed: int) -> int:
        """Row of the tuning photograph that a unit and seed start from: another for each, drawn once."""
        rows = torch.randperm(len(self.tuning), generator=torch.Generator().manual_seed(seed))
        return int(rows[unit.unit % len(rows)])
