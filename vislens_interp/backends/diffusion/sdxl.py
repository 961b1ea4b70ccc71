"""Embeddings to images by Stable Diffusion XL, with the IP-Adapter that takes the embeddings of ``"sd15"``."""

from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self, Unpack

import torch
from torch import Tensor

from vislens_interp.backends.diffusion.adapters import AdapterState
from vislens_interp.backends.diffusion.generator import LoadOptions, StableDiffusionGenerator
from vislens_interp.backends.diffusion.loading import read_parts
from vislens_interp.backends.diffusion.speedups import SAMPLERS_XL
from vislens_interp.backends.sources import ADAPTER_SDXL
from vislens_interp.backends.weights import IP_ADAPTER_SDXL, SDXL, SDXL_VAE


class StableDiffusionXLGenerator(StableDiffusionGenerator):
    """:class:`StableDiffusionGenerator` on Stable Diffusion XL: two text encoders, 1,024 pixels.

    What it is told beside the text are the sizes that diffusers' pipeline gives by itself: those of the picture, not
    cropped. ``guidance_scale`` None is 5, the default of that pipeline. Everything else means the same.

    Raises:
        ValueError: The VAE leaves float16's range (``force_upcast`` in its configuration) and is to run in it.
    """

    samplers = SAMPLERS_XL
    adapter_files = ADAPTER_SDXL
    weights_memory = 8.9

    @classmethod
    def load(  # pyright: ignore[reportIncompatibleMethodOverride] (no single file, but a VAE of its own)
        cls,
        model: str | Path = SDXL.repo_id,
        adapter: str | Path | AdapterState = IP_ADAPTER_SDXL.repo_id,
        *,
        vae: str | Path | None = SDXL_VAE.repo_id,
        embedding_dim: int | None = None,
        device: torch.device | str = "cpu",
        **options: Unpack[LoadOptions],
    ) -> Self:
        """Read a checkpoint, its VAE and its adapter; arguments as for ``StableDiffusionGenerator.load``, and one more.

        Args:
            vae: An id or a folder with the VAE alone; None takes the one in ``model``.
        """
        read = partial(read_parts, model, xl=True, vae=vae)
        return cls._of(read, adapter, options, embedding_dim=embedding_dim, device=device)

    def _pipelines(self, parts: dict[str, Any]) -> tuple[Any, Any]:
        from vislens_interp.backends.diffusion.pipelines import ImageToImageXL, TextToImageXL

        if self.dtype == torch.float16 and self.vae.config["force_upcast"]:
            raise ValueError(
                "vae leaves float16's range, as its force_upcast=True says, and dtype is float16; expected a mended"
                f" one. Leave vae out, which is {SDXL_VAE.repo_id}, or pass dtype=torch.bfloat16."
            )
        return TextToImageXL(**parts, add_watermarker=False), ImageToImageXL(**parts, add_watermarker=False)

    @cached_property
    def _encoded(self) -> tuple[Tensor, ...]:
        """Text states (1, L, C) of both prompts, then their pooled embeddings (1, P)."""
        if self.prompt is None:
            config = self.unet.config
            pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
            made = [torch.zeros(1, 1, config["cross_attention_dim"]), torch.zeros(1, pooled)]
            text, summary = (one.to(self.device, self.dtype) for one in made)
            return text, text, summary, summary
        states: Any = self.text_to_image.encode_prompt(
            self.prompt, device=self.device, negative_prompt=self.negative_prompt
        )
        return states

    def pooled(self, count: int) -> dict[str, Tensor]:
        """Pooled text of the prompt, and sizes."""
        sizes = torch.tensor([[self.size, self.size, 0, 0, self.size, self.size]], device=self.device, dtype=self.dtype)
        return {"text_embeds": self._encoded[2].expand(count, -1), "time_ids": sizes.expand(count, -1)}

    def _pooled_arguments(self, count: int) -> dict[str, Any]:
        towards, away = (one.expand(count, -1) for one in self._encoded[2:])
        guided = self.guidance_scale > 1
        return {"pooled_prompt_embeds": towards, "negative_pooled_prompt_embeds": away if guided else None}
