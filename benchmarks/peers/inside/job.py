"""What a tool's own environment reads and writes: jobs in, a picture and what it cost out, a file each.

``run_lucent.py FILE`` and its like run there, where this library is not: they know torch, torchvision, timm,
safetensors, numpy, Pillow and their tool. FILE is JSON:

    {"network": weights of SqueezeNet 1.0 or EfficientNet-Lite2, "cells": folder, "jobs": [
        {"cell": name, "method": ..., "layer": "features.12", "unit": 3, "seed": 0, "size": side to save at,
         "reference": PNG or null, "settings": {of the tool's own call}}]}

A job's picture is ``cells/NAME.png``, and ``NAME.json``, which is written after it, says that it is done.
"""

import json
import os
import random
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Paint = Callable[[nn.Module, dict[str, Any]], Tensor]  # A network and a job to a picture (3, S, S) in [0, 1]


def run(paint: Paint, packages: tuple[str, ...], argv: list[str]) -> int:
    """Do the jobs of a file that are not done yet, by a tool and with its versions; the number that was done now."""
    if len(argv) != 2 or not Path(argv[1]).is_file():
        raise SystemExit(f"{Path(argv[0]).name}: expected one argument, a file of jobs; got {argv[1:]}.")
    asked = json.loads(Path(argv[1]).read_text(encoding="utf-8"))
    folder = Path(asked["cells"])
    versions = {name: version(name) for name in (*packages, "torch")}
    done = 0
    for job in asked["jobs"]:
        if (folder / f"{job['cell']}.json").is_file():
            continue
        network = load_network(asked["network"])  # a new one each time: hooks of a tool may outlive its call
        passes = Passes(network)
        seed_all(job["seed"])
        began, cpu_began = time.perf_counter(), time.process_time()
        picture = paint(network, job)
        spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}
        write_cell(folder, job, picture, {**spent, "forward": passes.images, "versions": versions})
        print(f"{job['cell']}: {passes.images} passes, {spent['seconds']:.1f} s", flush=True)
        done += 1
    return done


def load_network(path: str | Path) -> nn.Module:
    """A network that takes ImageNet's normalisation, as every tool gives it: Lite2 gets its own from that."""
    if "lite2" in Path(path).name:
        import timm

        network: nn.Module = timm.create_model("tf_efficientnet_lite2")
        network.register_forward_pre_hook(_to_lite)
    else:
        from torchvision.models import squeezenet1_0

        network = squeezenet1_0()
    state = load_file(path)
    network.load_state_dict({name: one.float() if one.is_floating_point() else one for name, one in state.items()})
    return network.eval().requires_grad_(False)


def _to_lite(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
    mean, std = (torch.tensor(values).to(inputs[0])[:, None, None] for values in (MEAN, STD))
    return ((inputs[0] * std + mean - 127 / 255) / (128 / 255),)


def to_layer(network: nn.Module, layer: str) -> Callable[[Tensor], Tensor]:
    """A function from what the network takes to the layer's output, which runs no further where that is simple."""
    part, _, last = layer.partition(".")
    first = next(iter(network.children()))
    if isinstance(first, nn.Sequential) and first is network.get_submodule(part) and last.isdigit():
        return first[: int(last) + 1]
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: Tensor) -> None:
        seen.append(output)

    network.get_submodule(layer).register_forward_hook(keep)

    def run_all(images: Tensor) -> Tensor:
        network(images)
        return seen.pop()

    return run_all


class Passes:
    """Counts the images that go into a network, wherever a tool stops the pass: a batch of six is six."""

    def __init__(self, network: nn.Module) -> None:
        self.images = 0
        first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        first.register_forward_pre_hook(self._count)

    def _count(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.images += len(inputs[0])


def seed_all(seed: int) -> None:
    """Tools draw from whatever generator is at hand."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (the one that lucent draws from)
    torch.manual_seed(seed)


def read_picture(path: str | Path) -> Tensor:
    """A PNG as (3, H, W) in [0, 1]."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255


def write_cell(folder: Path, job: dict[str, Any], picture: Tensor, found: dict[str, Any]) -> None:
    """Save a picture at the job's size in eight bits, then what it cost; each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = picture.detach().float().cpu()
    if picture.shape[-1] != job["size"]:
        shrunk = interpolate(picture[None], size=(job["size"],) * 2, mode="bilinear", antialias=True)
        found, picture = {**found, "made_at": picture.shape[-1]}, shrunk[0]
    pixels = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    kept = {name: job[name] for name in ("method", "layer", "unit", "seed", "settings")}
    temporary = folder / f".{job['cell']}.{os.getpid()}"
    Image.fromarray(pixels).save(temporary, format="PNG")
    os.replace(temporary, folder / f"{job['cell']}.png")
    temporary.write_text(json.dumps({**kept, **found}), encoding="utf-8")
    os.replace(temporary, folder / f"{job['cell']}.json")


def main(paint: Paint, *packages: str) -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or torch.get_num_threads())
    run(paint, packages, sys.argv)
