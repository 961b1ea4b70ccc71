"""Who paints what in the comparison with other tools: units, photographs, ways, and how many passes each may take."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.judges import IMAGENET_MEAN, IMAGENET_STD, channel_means, load_squeezenet
from benchmarks.common.networks import TUNING_UNITS, alive, load_units
from benchmarks.common.script import shuffled
from benchmarks.peers.inside.job import load_network

SIZE = 224
LAYERS = ("features.4", "features.7", "features.12")
CROPS = 6  # crops a step of Horama, and of dreamlens, whose own 32 would leave three steps
CLASSES_SEED = 22  # of the draw of Lite2's class scores: all that the comparison takes of them are test units
NEARLY_WHOLE = (0.8, 1.0)  # sides of all crops, as shares of the picture's: it is the whole picture that is judged
WHOLE = (0.6, 0.8)  # what Horama has to be told for these


class Unit(NamedTuple):
    layer: str
    unit: int


@dataclass(frozen=True)
class Subject:
    """A network that pictures are made for."""

    label: str  # in tables
    file: str  # its weights below `networks` of the data folder
    layers: tuple[str, ...]  # of its units


# Units inside of the one, class scores of the other; the one recognises what the other's scores are made of.
SUBJECTS = {
    "squeezenet": Subject("SqueezeNet 1.0", "imagenet_squeezenet1_0.safetensors", LAYERS),
    "lite2": Subject("EfficientNet-Lite2", "imagenet_efficientnet_lite2.safetensors", ("classifier",)),
}


@dataclass(frozen=True)
class Way:
    label: str  # in tables
    place: str  # `"lucent"`, `"horama"`, `"dreamlens"` or `"ours"`: where it runs
    method: str  # its name there
    equal: Callable[[int], dict[str, Any]]  # settings for a number of passes
    # Settings that have to be given for it to run as it was released.
    default: dict[str, Any] = field(default_factory=dict)
    kind: str = "from noise"  # what it is compared with: ways of one kind do the same


def _horama(label: str, method: str, **kind: str) -> Way:
    def equal(passes: int) -> dict[str, Any]:
        return {"image_size": SIZE, "box_size": WHOLE, "total_steps": passes // CROPS}

    return Way(f"Horama, {label}", "horama", method, equal, **kind)


def _dreamlens(label: str, method: str, **kind: str) -> Way:
    def equal(passes: int) -> dict[str, Any]:
        each = {"maximize": 1, "maco": CROPS, "feature_accentuation": 2 * CROPS}[method]
        crops: dict[str, Any] = {"crops": CROPS} if each > 1 else {}
        if method == "feature_accentuation":
            crops |= {"crop_min": NEARLY_WHOLE[0], "crop_max": NEARLY_WHOLE[1]}
        return {"width": SIZE, "height": SIZE, "steps": passes // each, **crops}

    return Way(f"dreamlens, {label}", "dreamlens", method, equal, **kind)


def _ours(label: str, method: str, each: int = 1, **kind: str) -> Way:
    """Ours, which looks ``each`` times a step: at a picture, or at a picture and at a photograph."""
    crops = {"crops": 1, "box": NEARLY_WHOLE} if method != "activation_maximization" else {}
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
    "dreamlens_maximize": _dreamlens("maximisation", "maximize"),
    "dreamlens_maco": _dreamlens("MACO", "maco"),
    "dreamlens_accentuation": _dreamlens("accentuation", "feature_accentuation", **PHOTOGRAPH),
    "maximization": _ours("activation maximisation", "activation_maximization"),
    "maco": _ours("MACO", "maco"),
    "accentuation": _ours("accentuation", "feature_accentuation", 2, **PHOTOGRAPH),
}
LANDSCAPE, INPUT, BEST = "landscape", "input", "best"
# What no number of passes applies to.
OWN = {
    LANDSCAPE: "ours, landscape edit",
    BEST: "control: the best tuning photographs",
    INPUT: "control: the photograph that is started from",
}
# Ours and the other tools', the same method.
RIVALS = {
    "maximization": ("lucent", "horama_fourier", "dreamlens_maximize"),
    "maco": ("horama_maco", "dreamlens_maco"),
    "accentuation": ("horama_accentuation", "dreamlens_accentuation"),
}


def cell_name(way: str, setting: str, unit: Unit, seed: int) -> str:
    """Name of a cell's files; ``setting`` is ``"default"``, ``"own"`` or, with the passes, ``"equal96"``."""
    return f"{way}-{setting}-{unit.layer}-{unit.unit}-{seed}"


class Photographs:
    """The network, one of :data:`SUBJECTS`, the photographs and their responses; what was read is kept in ``out``."""

    def __init__(self, data: Path, out: Path, name: str = "squeezenet") -> None:
        self.data, self.out, self.name, self.subject = data, out, name, SUBJECTS[name]
        self.layers = self.subject.layers
        photos = vl.pixels(vl.read_images(data / "photos" / "imagenet500.zip", SIZE)[0])
        self.tuning, self.test = photos[0::2], photos[1::2]

    @cached_property
    def network(self) -> Any:
        if self.name == "squeezenet":
            return load_squeezenet(self.data)
        network: Any = load_network(self.weights)
        network.preprocess = vl.Preprocess(SIZE, IMAGENET_MEAN, IMAGENET_STD)  # as every tool is given it
        return network

    @property
    def weights(self) -> Path:
        return self.data / "networks" / self.subject.file

    @cached_property
    def natural(self) -> dict[str, dict[str, Tensor]]:
        """``"tuning"`` and ``"test"`` to layer to responses of all its units (N, K)."""
        file = self.out / "natural.safetensors"
        if not file.is_file():
            found = {part: channel_means(self.network, self.layers, getattr(self, part)) for part in ("tuning", "test")}
            vl.save_state(file, "photographs' responses", found)
        return vl.load_state(file, "photographs' responses")

    def units(self, count: int) -> list[Unit]:
        """The first test units of each layer in turn that at least one in twenty tuning photographs moves."""
        if self.name == "lite2":
            classes = shuffled(1000, CLASSES_SEED)[:count]
            return [Unit("classifier", one) for one in classes.tolist()]
        drawn = load_units()["squeezenet"]
        moved = {layer: alive(self.natural["tuning"][layer]) for layer in LAYERS}
        tested = ([unit for unit in drawn[layer][TUNING_UNITS:] if moved[layer][unit]] for layer in LAYERS)
        rows = zip(*tested, strict=False)  # as long as the layer with the fewest
        ordered = [Unit(layer, unit) for row in rows for layer, unit in zip(LAYERS, row, strict=True)]
        if count > len(ordered):
            raise ValueError(
                f"units={count}, and {len(ordered)} of the drawn ones answer to photographs; expected at most those. "
                "Ask for fewer."
            )
        return ordered[:count]

    def start(self, unit: Unit, seed: int) -> int:
        """Row of the tuning photograph that a unit and seed start from: another for each, drawn once."""
        rows = shuffled(len(self.tuning), seed)
        return int(rows[unit.unit % len(rows)])
