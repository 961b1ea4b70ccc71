"""A DDPM that makes decoded images look like photographs again (SDEdit)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from vislens_interp.backends.base import check_seed_count, draw_noise
from vislens_interp.validation import check_counts, check_shares


class DDPMRefiner(nn.Module):
    """Add noise up to a level and denoise again: SDEdit with an unconditional diffusion model.

    Args:
        folder: A diffusers folder with ``unet`` (UNet2DModel) and ``scheduler``.
        steps: DDIM steps of a whole run from pure noise; a refinement takes its share of them.

    Source: App. C ("Post-processing with DDPM"); Meng et al. 2022, SDEdit. The paper gives neither the model nor the
    strength.
    """

    def __init__(self, folder: str | Path, steps: int = 50) -> None:
        from diffusers import DDIMScheduler, UNet2DModel  # here: importing the package must not import diffusers

        super().__init__()
        check_counts(steps=steps)
        self.steps = steps
        unet: Any = UNet2DModel.from_pretrained(folder, subfolder="unet")
        self.unet = unet.float().eval().requires_grad_(False).to(memory_format=torch.channels_last)
        # The published DDIM: deterministic, and ending at the clean image instead of one step before it.
        self.scheduler: Any = DDIMScheduler.from_pretrained(folder, subfolder="scheduler", timestep_spacing="trailing")
        self.patch = round((self.unet.config["in_channels"] / 3) ** 0.5)
        self.size = self.unet.config["sample_size"] * self.patch

    @torch.no_grad()
    def forward(self, images: Tensor, *, strength: float, seeds: list[int]) -> Tensor:
        """Refine images (N, 3, S, S) in [0, 1], to the same shape and range.

        Args:
            strength: Share of the noise schedule: 0 returns the very input, 1 forgets it altogether.
            seeds: One an image; equal seeds add the same noise.
        """
        check_shares(": 0 keeps the input, 1 ignores it.", strength=strength)
        if strength == 0:
            return images
        check_seed_count(seeds, len(images))
        clean = pixel_unshuffle(2 * images - 1, self.patch)
        noise = draw_noise((torch.Generator().manual_seed(seed) for seed in seeds), clean.shape[1:]).to(clean)
        self.scheduler.set_timesteps(self.steps)
        # Sliced here: the library's own rule truncates, so that a small strength would take no step at all.
        times = self.scheduler.timesteps[-max(1, round(strength * self.steps)) :]
        if strength == 1:
            latent = noise
        else:
            latent = self.scheduler.add_noise(clean, noise, times[:1].expand(len(clean)))
        for time in times:
            predicted = self.unet(latent.contiguous(memory_format=torch.channels_last), time).sample
            latent = self.scheduler.step(predicted, int(time), latent).prev_sample
        return ((pixel_shuffle(latent, self.patch) + 1) / 2).clamp(0, 1).contiguous()
