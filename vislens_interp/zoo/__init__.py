"""Small networks that travel with the package: they load offline, with their preprocessing attached."""

import difflib
import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from vislens_interp.preprocess import Preprocess
from vislens_interp.zoo.convnet import ConvNet

__all__ = ["ConvNet", "available", "load", "weights"]

WEIGHTS = Path(__file__).parent / "weights"


def _timm(name: str, **options: int) -> Callable[[int], nn.Module]:
    def build(classes: int) -> nn.Module:
        import timm

        create: Callable[..., nn.Module] = timm.create_model
        return create(name, num_classes=classes, **options)

    return build


def _squeezenet1_0(classes: int) -> nn.Module:
    from torchvision.models import squeezenet1_0

    return squeezenet1_0(num_classes=classes)


_HALF, _LITE = ((0.5,) * 3, (0.5,) * 3), ((127 / 255,) * 3, (128 / 255,) * 3)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_NETWORKS = {
    "cifar10_convnet": (lambda classes: ConvNet(num_classes=classes), "fc2.bias", 32, _HALF),
    "efficientnet_lite0": (_timm("tf_efficientnet_lite0"), "classifier.bias", 224, _LITE),
    "efficientnet_lite2": (_timm("tf_efficientnet_lite2"), "classifier.bias", 260, _LITE),
    "squeezenet1_0": (_squeezenet1_0, "classifier.1.bias", 224, _IMAGENET),
    "vit_tiny64": (_timm("vit_tiny_patch16_224", img_size=64, patch_size=8), "head.bias", 64, _HALF),
}


def available() -> list[str]:
    """Names that :func:`load` takes: the networks whose weights ship."""
    shipped = json.loads((WEIGHTS / "checksums.json").read_text(encoding="utf-8"))
    return [name for name in _NETWORKS if f"{name}.safetensors" in shipped]


def load(name: str) -> nn.Module:
    """A trained network in evaluation mode, on the CPU, with ``.preprocess`` attached.

    Args:
        name: One of :func:`available`; ``cifar10_convnet`` is the paper's classifier, trained on colour images at 32
            px; ``efficientnet_lite0``, ``efficientnet_lite2`` (TensorFlow's weights, Apache-2.0) and ``squeezenet1_0``
            (BSD) are ImageNet classifiers at 224, 260 and 224 px; ``vit_tiny64`` is a supervised vision transformer at
            64 px.

    Returns:
        The network; it takes images after ``.preprocess``, which takes RGB in [0, 1].

    Raises:
        KeyError, FileNotFoundError, ValueError: There is no such network, or its weights are missing or damaged.

    >>> sum(p.numel() for p in load("cifar10_convnet").parameters())
    620810
    """
    if name not in available():
        near = difflib.get_close_matches(str(name), available())
        closest = f" Closest: {', '.join(near)}." if near else ""
        raise KeyError(f"name={name!r} is not in the zoo; expected one of {available()}.{closest}")
    build, bias, size, colours = _NETWORKS[name]
    state = load_file(weights(f"{name}.safetensors"))
    with torch.random.fork_rng(devices=[]):  # fresh weights, replaced at once, are no reason to touch the generator
        model = build(len(state[bias]))
    model.preprocess = Preprocess(size, *colours)
    model.load_state_dict(state)  # into float32, from the half precision of most files
    return model.eval()


@cache
def weights(name: str) -> Path:
    """Path of a shipped file, its checksum verified once a process.

    Raises:
        FileNotFoundError, ValueError: The file is not in the installed package, or its bytes are not those that were
            shipped.
    """
    path = WEIGHTS / name
    checksums = json.loads((WEIGHTS / "checksums.json").read_text(encoding="utf-8"))
    if name not in checksums:
        raise FileNotFoundError(
            f"weights file {name!r} does not come with this version of vislens_interp; expected one of"
            f" {', '.join(sorted(checksums))}. Train it (docs/training.md), or choose another backend."
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"weights file {name!r} is not in this installation ({WEIGHTS}); reinstall vislens_interp."
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != checksums[name]:
        raise ValueError(
            f"weights file {str(path)!r} is damaged: its SHA-256 starts {found[:12]}, expected {checksums[name][:12]}. "
            "Reinstall vislens_interp."
        )
    return path
