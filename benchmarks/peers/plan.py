"""Who paints what in the comparison with other tools: units, photographs, ways, and how many passes each may take."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.judges import load_squeezenet
from benchmarks.common.networks import UNITS

SIZE = 224
LAYERS = ("features.4", "features.7", "features.12")
TUNING_UNITS = 8
"""The first units of a layer in that file tune; what is painted here are others."""
ALIVE = 0.05
"""Share of the tuning photographs that have to move a unit."""
CROPS = 6
"""Crops a step where a tool looks at crops: Horama's number."""
WHOLE = (0.6, 0.8)
"""What Horama has to be told for crops of 0.8 to 1.0 of the side."""
SETTINGS = ("equal", "default", "own")


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


WAYS: dict[str, Way] = {
    "lucent": Way(
        "torch-lucent",
        "lucent",
        "render_vis",
        lambda passes: {"image_size": SIZE, "fixed_image_size": SIZE, "steps": passes},
        {"image_size": 128, "steps": 512},
    ),
    "horama_fourier": Way(
        "Horama, Fourier",
        "horama",
        "fourier",
        lambda passes: {"image_size": SIZE, "box_size": WHOLE, "total_steps": passes // CROPS},
    ),
    "horama_maco": Way(
        "Horama, MACO",
        "horama",
        "maco",
        lambda passes: {"image_size": SIZE, "box_size": WHOLE, "total_steps": passes // CROPS},
    ),
    "horama_accentuation": Way(
        "Horama, accentuation",
        "horama",
        "accentuation",
        lambda passes: {"image_size": SIZE, "box_size": WHOLE, "total_steps": passes // CROPS},
        kind="from a photograph",
    ),
    "fourier": Way(
        "ours, activation maximisation",
        "ours",
        "activation_maximization",
        lambda passes: {"steps": passes, "chunk": 1},
        {"chunk": 1},
    ),
    "maco": Way(
        "ours, MACO",
        "ours",
        "maco",
        lambda passes: {"steps": passes // CROPS, "crops": CROPS, "chunk": 1},
        {"chunk": 1},
    ),
    "accentuation": Way(
        "ours, accentuation",
        "ours",
        "feature_accentuation",
        # Each crop of the picture goes with one of the photograph: two passes.
        lambda passes: {"steps": passes // (2 * CROPS), "crops": CROPS, "chunk": 1},
        {"chunk": 1},
        kind="from a photograph",
    ),
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
    """The network, the photographs and their responses.

    Args:
        data: The folder of real files.
        out: Where what was read is kept.
    """

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
            found = {part: respond(self.network, getattr(self, part)) for part in ("tuning", "test")}
            vl.save_state(file, "photographs' responses", found)
        return vl.load_state(file, "photographs' responses")

    def units(self, count: int) -> list[Unit]:
        """The first test units of each layer in turn that at least one in twenty tuning photographs moves."""
        drawn = json.loads(UNITS.read_text(encoding="utf-8"))["squeezenet"]
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


@torch.no_grad()
def respond(network: Any, images: Tensor, batch_size: int = 25) -> dict[str, Tensor]:
    """Mean response of every unit of the layers to images (N, 3, S, S) in [0, 1]: layer to (N, K), in one pass."""
    seen: dict[str, list[Tensor]] = {layer: [] for layer in LAYERS}
    hooks = [
        network.get_submodule(layer).register_forward_hook(
            lambda module, inputs, output, rows=rows: rows.append(output.mean((2, 3)))
        )
        for layer, rows in seen.items()
    ]
    try:
        for part in images.split(batch_size):
            network.features(network.preprocess(part))
    finally:
        for hook in hooks:
            hook.remove()
    return {layer: torch.cat(rows) for layer, rows in seen.items()}
