"""Networks that judge results and have no part in making them: trained by others, on other code."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from benchmarks.common import package as vl

NEAREST = 5
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class _Shortcut(nn.Module):
    """To half the size and twice the channels without parameters (option A): every second pixel, channels of zeros."""

    def forward(self, x: Tensor) -> Tensor:
        added = x.shape[1] // 2  # in front and behind
        return pad(x[:, :, ::2, ::2], (0, 0, 0, 0, added, added))


class CifarResNet(nn.Module):
    """ResNet-20 for 32 px images: three stages of 16, 32 and 64 channels, three blocks each.

    Source: He et al. 2016, Sec. 4.2, with option-A shortcuts; parameter names are those of the shipped files.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, 1)
        self.layer2 = self._stage(16, 32, 2)
        self.layer3 = self._stage(32, 64, 2)
        self.linear = nn.Linear(64, 10)
        self.preprocess = vl.Preprocess(32, IMAGENET_MEAN, IMAGENET_STD)

    @staticmethod
    def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        from torchvision.models.resnet import BasicBlock  # here: some who import this module measure their memory

        first = BasicBlock(inputs, outputs, stride, None if stride == 1 else _Shortcut())
        return nn.Sequential(first, BasicBlock(outputs, outputs), BasicBlock(outputs, outputs))

    def penultimate(self, x: Tensor) -> Tensor:
        """Preprocessed images (N, 3, 32, 32) to features (N, 64)."""
        x = relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.penultimate(x))

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) in [0, 1] to the features below the classifier: (N, 64), on the CPU."""
        device = self.linear.weight.device
        parts = [self.penultimate(self.preprocess(part.to(device))).cpu() for part in images.split(256)]
        return torch.cat(parts)


def data_folder(data: str | Path | None = None) -> Path:
    """The folder of real files: ``data``, or what VISLENS_DATA names."""
    named = data or os.environ.get("VISLENS_DATA")
    if not named or not Path(named).is_dir():
        raise FileNotFoundError(
            f"data={str(named)!r} is no folder; expected the folder of real files (docs/data.md). Pass --data DIR or "
            "set VISLENS_DATA."
        )
    return Path(named)


def load_judge(data: str | Path | None = None) -> CifarResNet:
    """The third-party ResNet-20 (akamaster/pytorch_resnet_cifar10, BSD-2), frozen and in evaluation mode."""
    network = CifarResNet()
    network.load_state_dict(load_file(data_folder(data) / "networks" / "cifar10_resnet20.safetensors"))
    return network.eval().requires_grad_(False)


def load_squeezenet(data: str | Path | None = None, *, size: int = 224) -> Any:
    """The third-party SqueezeNet 1.0 (songhan/SqueezeNet-Deep-Compression, BSD), frozen and in evaluation mode.

    Images of any size are enlarged to ``size`` pixels; it learnt on 224.
    """
    network = fresh_squeezenet(size=size)
    network.load_state_dict(load_file(data_folder(data) / "networks" / "imagenet_squeezenet1_0.safetensors"))
    return network.requires_grad_(False)


def fresh_squeezenet(*, size: int = 224) -> Any:
    """The same architecture, as torchvision has it, with the weights that it starts from and ``preprocess``."""
    from torchvision.models import squeezenet1_0

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: Any = squeezenet1_0()
    network.preprocess = vl.Preprocess(size, IMAGENET_MEAN, IMAGENET_STD)
    return network.eval()


@torch.no_grad()
def seen_by(judge: nn.Module, images: Tensor) -> Tensor:
    """Features (N, D), on the CPU, of a network that judges: of timm's networks what is below the classifier."""
    if isinstance(judge, CifarResNet):
        return judge.features(vl.resize(images, 32))
    network: Any = judge
    device, found = next(network.parameters()).device, []
    for part in images.split(50):
        x = network.preprocess(part.to(device))
        if hasattr(network, "forward_head"):
            found.append(network.forward_head(network.forward_features(x), pre_logits=True).cpu())
        else:
            found.append(network.features(x).mean((2, 3)).cpu())
    return torch.cat(found)


@torch.no_grad()
def channel_means(network: nn.Module, layers: Sequence[str], images: Tensor) -> dict[str, Tensor]:
    """Means over positions of all channels (or scores) of some layers, (N, C) by layer, from one pass of images."""
    seen: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    preprocess: Any = network.preprocess

    def keep(rows: list[Tensor], module: nn.Module, inputs: object, output: Tensor) -> None:
        rows.append(output.flatten(2).mean(2) if output.ndim > 2 else output)

    with ExitStack() as hooks:
        for layer, rows in seen.items():
            hooks.callback(network.get_submodule(layer).register_forward_hook(partial(keep, rows)).remove)
        for part in images.split(25):
            network(preprocess(part))
    return {layer: torch.cat(rows) for layer, rows in seen.items()}


def nearest(x: Tensor, gallery: Tensor) -> Tensor:
    """Cosines (N, NEAREST) of x (N, D) with the rows of a gallery (M, D) that are nearest to it."""
    return (vl.unit_rows(x.float()) @ vl.unit_rows(gallery.float()).T).topk(NEAREST, dim=1).values
