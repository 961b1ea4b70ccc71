"""diffusers' Stable Diffusion with one embedding and one generator for each image.

Imported only by what generates: this module loads diffusers.
"""

from typing import Any

import torch
from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)
from torch import Tensor

from vislens_interp.backends.base import draw_noise


class _OneEmbeddingAnImage:
    """Takes N embeddings for N images; the stock pipelines repeat all of them for every image of a batch."""

    def prepare_ip_adapter_image_embeds(
        self,
        ip_adapter_image: object,
        ip_adapter_image_embeds: list[Tensor] | None,
        device: torch.device,
        num_images_per_prompt: int,
        do_classifier_free_guidance: bool,
    ) -> list[Tensor]:
        """Embeddings [(N, 1, D)] to [(2N, 1, D)], their negatives, zeros, first; [(N, 1, D)] without guidance.

        The order is that of diffusers' guidance, which reads the first half of a batch as the unconditional one.
        """
        if ip_adapter_image_embeds is None or len(ip_adapter_image_embeds) != 1:
            raise ValueError("ip_adapter_image_embeds must hold one tensor (N, 1, D); images are not taken here.")
        embeds = ip_adapter_image_embeds[0].to(device)
        if len(embeds) != num_images_per_prompt:
            raise ValueError(
                f"{len(embeds)} embeddings were given for {num_images_per_prompt} images; expected one each."
            )
        return [torch.cat([torch.zeros_like(embeds), embeds]) if do_classifier_free_guidance else embeds]


class TextToImage(_OneEmbeddingAnImage, StableDiffusionPipeline):
    """From pure noise: what strength 1 means."""


class _FromAnImage(_OneEmbeddingAnImage):
    """Starts from a reference as SDEdit does, with rounded steps and no other randomness than the noise's."""

    scheduler: Any
    vae: Any

    def get_timesteps(
        self, num_inference_steps: int, strength: float, device: torch.device, denoising_start: None = None
    ) -> tuple[Tensor, int]:
        """The last ``max(1, round(strength · steps))`` timesteps.

        The library truncates: 0.58 · 50 would be 28, and below one step it fails.
        """
        steps = max(1, round(strength * num_inference_steps))
        return self.scheduler.timesteps[-steps:], steps

    def prepare_latents(
        self,
        image: Tensor,
        timestep: Tensor,
        batch_size: int,
        num_images_per_prompt: int,
        dtype: torch.dtype,
        device: torch.device,
        generator: list[torch.Generator],
        add_noise: bool = True,
    ) -> Tensor:
        """References (N, 3, H, W) in [-1, 1] to noisy latents at ``timestep``.

        The reference is encoded by the posterior's mode, not by a sample of it, so that all randomness is the noise's.
        """
        image = image.to(device, dtype)
        codes = [self.vae.encode(one[None]).latent_dist.mode() for one in image]  # alone, so that no batch matters
        clean = torch.cat(codes) * self.vae.config["scaling_factor"]
        return self.scheduler.add_noise(clean, draw_noise(generator, clean.shape[1:]).to(clean), timestep)


class ImageToImage(_FromAnImage, StableDiffusionImg2ImgPipeline):
    """From a noisy reference: SDEdit at a strength below 1."""


class TextToImageXL(_OneEmbeddingAnImage, StableDiffusionXLPipeline):
    """:class:`TextToImage` for Stable Diffusion XL."""


class ImageToImageXL(_FromAnImage, StableDiffusionXLImg2ImgPipeline):
    """:class:`ImageToImage` for Stable Diffusion XL."""
