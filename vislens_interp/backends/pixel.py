"""Small images whose landscape is fitted in pixels: a CVAE encodes and decodes them, a DDPM refines them."""

import io
import zipfile
from collections.abc import Callable
from functools import cached_property
from typing import cast

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from vislens_interp import zoo
from vislens_interp.backends.base import Described, check_seed_count, register_backend
from vislens_interp.backends.refiner import DDPMRefiner
from vislens_interp.config import Config
from vislens_interp.images import resize
from vislens_interp.landscape.vae import VAE, BottleneckCVAE
from vislens_interp.math import full_chunks


class PixelBackend(Described):
    """CIFAR-10-like images at 32 px: x is the picture itself, and decoding is a refinement by a small DDPM.

    Args:
        device: Where it computes.

    Source: Sec. 4.3.3. The reference set is synthetic: pictures that the DDPM made, none of them a photograph.
    """

    name = "cifar10"
    size = 32
    shape: tuple[int, ...] = (3, 32, 32)
    differentiable = True
    feature_extractor_name = "fc1 of the shipped ConvNet (the target itself, for its own units)"
    # All on tuning units and images. What an optimisation holds and where it steps comes from
    # benchmarks/cifar10_landscape.py --tune; with 50 steps, not its 200, which drive a unit far beyond any photograph,
    # a shorter lr and one weight for both directions. The rest is from looks during development that no committed
    # benchmark records yet (ARCHITECTURE.md, What measurement changed).
    defaults = Config.of(
        fit={"epochs": 2, "lr": 1e-4, "w_kld": 0.1, "w_consistency": 1.0},
        prior={"block_dim": 1, "axis_scale_sd": 4.0, "cross_talk_penalty": 30.0},
        edit={"alpha": 1.0, "interpolation": "lerp", "cross_talk_steps": 2},
        optimize={
            "steps": 50,
            "lr": 0.2,
            "w_kld": 1e-4,
            "w_silent": 0.1,
            "w_consistency": 0.03,
            "noise": 2.0,
            "prior_mean_scale": 3.0,
            "move": "all",
            "scale": "response",
        },
        strength=0.1,
        shuffles=2,
    )

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def encode(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) at 32 px: (N, 3, 32, 32)."""
        return resize(images.to(self.device), self.size)

    def render(self, x: Tensor) -> Tensor:
        """x is an image already; its memory is laid out as convolutions on a CPU run fastest, at twice the speed."""
        return x.contiguous(memory_format=torch.channels_last)

    def decode(self, x: Tensor, *, init_image: Tensor | None, strength: float, seeds: list[int]) -> Tensor:
        """Refine x at ``strength``; ``init_image`` is not looked at, for x holds the pixels.

        Images are refined in batches of one size, so that an image does not depend on how many came with it.
        """
        if strength == 0:
            return x
        check_seed_count(seeds, len(x))
        parts = []
        for rows, own in full_chunks(len(x), 16):
            refined = self.refiner(x[rows], strength=strength, seeds=[seeds[row] for row in rows.tolist()])
            parts.append(refined[:own])
        return torch.cat(parts)

    @cached_property
    def refiner(self) -> DDPMRefiner:
        """The shipped DDPM."""
        for name in ("unet/config.json", "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"):
            path = zoo.weights(f"cifar10_ddpm/{name}")
        return DDPMRefiner(path.parent.parent).to(self.device)

    def reference_images(self) -> Tensor:
        """The synthetic reference set: (N, 3, 32, 32) in [0, 1]."""
        return self._reference

    @cached_property
    def _reference(self) -> Tensor:
        with zipfile.ZipFile(zoo.weights("cifar10_reference.zip")) as archive:
            pictures = [
                np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
                for name in sorted(archive.namelist())
            ]
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous().float() / 255

    def vae(self) -> VAE:
        """The shared CVAE, trained under N(0, 1)."""
        with torch.random.fork_rng(devices=[]):
            vae = BottleneckCVAE()
        vae.load_state_dict(load_file(zoo.weights("cifar10_cvae.safetensors")))
        return vae.to(self.device).to(memory_format=torch.channels_last)

    def feature_extractor(self) -> Callable[[Tensor], Tensor]:
        """``fc1`` of the shipped ConvNet, before its ReLU; for a unit of that very ConvNet it is no stranger."""
        network = cast(zoo.ConvNet, zoo.load("cifar10_convnet").to(self.device).requires_grad_(False))
        prepare = cast(Callable[[Tensor], Tensor], network.preprocess)
        return lambda x: network.semantics(network.maps(prepare(x)))


register_backend(PixelBackend.name, PixelBackend)
