"""Networks whose units the embedded backend is tested on, and which units."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.common import package as vl
from benchmarks.common.judges import load_judge
from benchmarks.common.script import read

UNITS = Path(__file__).parent / "network_units.json"
TUNING_UNITS = 8  # of a layer's units in the file, the first few tune; of the others those test that answer to anything
ALIVE = 0.05  # share of the reference images that have to move a unit


@dataclass(frozen=True)
class Network:
    # From the data folder and the weights folder to the network, with `preprocess` attached.
    build: Callable[[Path, Path], Any]
    layers: dict[str, int]  # early, middle, deep, and class scores; layer to its units
    judge: str = "squeezenet"  # who judges similarity and realism of pictures made for it: never the network itself
    # What it needs below `--weights`; None is one that ships, or a third party's below `--data`.
    file: str | None = None


def _vit(data: Path, weights: Path) -> Any:
    return _trained(vl.vit_tiny64.build(200), weights / "vit_tiny64.safetensors")


def _simclr(data: Path, weights: Path) -> Any:
    import timm

    return _trained(timm.create_model("resnet50", num_classes=0), weights / "simclr_resnet50.safetensors")


def _trained(model: nn.Module, path: Path) -> Any:
    model.load_state_dict(load_file(path))
    network: Any = model.float().eval().requires_grad_(False)
    network.preprocess = vl.Preprocess(64, network.pretrained_cfg["mean"], network.pretrained_cfg["std"])
    return network


NETWORKS = {
    "lite2": Network(
        lambda data, weights: vl.zoo.load("efficientnet_lite2"),
        {"blocks.1": 24, "blocks.3": 88, "blocks.5": 208, "classifier": 1000},
    ),
    "squeezenet": Network(
        lambda data, weights: vl.zoo.load("squeezenet1_0"),
        {"features.4": 128, "features.7": 256, "features.12": 512},
        judge="lite2",
    ),
    "vit_tiny64": Network(_vit, {"blocks.1": 192, "blocks.6": 192, "blocks.11": 192}, file="vit_tiny64.safetensors"),
    "simclr_resnet50": Network(
        _simclr, {"layer2": 512, "layer3": 1024, "layer4": 2048}, file="simclr_resnet50.safetensors"
    ),
    "cifar10_resnet20": Network(lambda data, weights: load_judge(data), {"layer1": 16, "layer2": 32, "layer3": 64}),
}


def alive(responses: Tensor) -> Tensor:
    """Which units enough images move from their usual response: (N, K) to (K,) bools."""
    return (responses != responses.mode(0).values).double().mean(0) >= ALIVE


def load_units() -> dict[str, dict[str, list[int]]]:
    return read(UNITS)
