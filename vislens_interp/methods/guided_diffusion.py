"""BrainDiVE: a diffusion model samples, and at every step the unit's gradient pulls."""

from typing import Any, Literal

import torch
from torch import Tensor

from vislens_interp.backends.base import Backend, draw_noise
from vislens_interp.backends.diffusion.generator import StableDiffusionGenerator
from vislens_interp.landscape.prior import signed
from vislens_interp.math import full_chunks
from vislens_interp.methods.base import Directions, Method
from vislens_interp.targets.target import Target
from vislens_interp.validation import check_counts, check_not_negative, check_word


class GuidedDiffusion(Method):
    """Sample from noise by DDIM, the predicted noise shifted by -√(1-ᾱ) s ∇ f at every step (energy guidance).

    f is the unit's response, in SDs, to the picture of √(1-ᾱ) x̂₀ + (1-√(1-ᾱ)) x_t, where x̂₀ is the clean latent that
    the model predicts from x_t; the gradient goes through decoder and UNet back to x_t. No direction samples the same
    noise without guidance.

    Args:
        scale: s; 130 in the released scripts, whose README advises about 100 to 150.
        steps: Of the sampling; 50 in the release. None is the generator's own.
        condition: What the model is told: ``"none"``, as in the paper, so that the image to edit has no say; or
            ``"image"``, that image's embedding.

    Source: Luo et al. 2023, "Brain Diffusion for Visual Exploration", NeurIPS, and aluo-x/BrainDiVE:
    ``brain_guide_pipeline.py`` (``cond_fn``), ``run_brain_guidance_category.py`` (commits 37ddf584, 1a42c6e2).
    Deviations: the backend's generator and its DDIM in the place of Stable Diffusion 2.1 and DPM-Solver++; no
    self-attention guidance (released: 0.75); a step at which nothing of the picture is left (ᾱ = 0) is not guided, for
    there is nothing to differentiate.
    """

    needs_gradients = True

    def __init__(
        self, *, scale: float = 130.0, steps: int | None = 50, condition: Literal["none", "image"] = "none"
    ) -> None:
        check_not_negative(scale=scale)  # the direction has its sign already
        if steps is not None:
            check_counts(steps=steps)
        check_word("condition", condition, ("none", "image"))
        self.scale, self.steps = scale, steps
        self.condition: Literal["none", "image"] = condition

    def validate(self, target: Target, backend: Backend) -> None:
        """Raise ValueError for a target without gradients or a backend without a diffusion model of latents."""
        super().validate(target, backend)
        _generator_of(backend)

    def _generate(
        self, images: Tensor, directions: Directions, seeds: list[int], alpha: float | None, strength: float | None
    ) -> tuple[Tensor, None]:
        generator = _generator_of(self.backend)
        image = self.condition == "image"
        condition = self.encode(images) if image else torch.zeros(len(images), generator.embedding_dim)
        condition = condition[:, None].to(generator.device, generator.dtype)
        made = []
        for rows, own in full_chunks(len(images), generator.batch_size):
            sampled = self._sample(generator, condition[rows], directions, [seeds[row] for row in rows.tolist()])
            made.append(sampled[:own])
        return torch.cat(made), None

    def _sample(
        self, generator: StableDiffusionGenerator, condition: Tensor, directions: Directions, seeds: list[int]
    ) -> Tensor:
        from diffusers import DDIMScheduler

        scheduler: Any = DDIMScheduler.from_config(generator.text_to_image.scheduler.config)  # also where it has LCM's
        scheduler.set_timesteps(self.steps or generator.num_inference_steps)
        noise = draw_noise((torch.Generator().manual_seed(seed) for seed in seeds), generator.latent_shape)
        latents = noise.to(generator.device, generator.dtype) * scheduler.init_noise_sigma
        for time in scheduler.timesteps:
            share = scheduler.alphas_cumprod[time].item()
            guided = bool(directions) and self.scale > 0 and share > 0
            with torch.set_grad_enabled(guided):
                latents = latents.detach().requires_grad_(guided)
                predicted = generator.predict_noise(latents, condition, time.to(generator.device))
                if guided:
                    kind = scheduler.config.prediction_type
                    predicted = predicted + self._pull(generator, latents, predicted, directions, share, kind)
            latents = scheduler.step(predicted.detach(), time, latents.detach()).prev_sample
        with torch.no_grad():
            return generator.decode_latents(latents)

    def _pull(
        self,
        generator: StableDiffusionGenerator,
        latents: Tensor,
        predicted: Tensor,
        directions: Directions,
        share: float,
        kind: str,
    ) -> Tensor:
        """What guidance adds to a prediction, so that the noise in it moves by -√(1-ᾱ) s ∇ f."""
        signal, noise = share**0.5, (1 - share) ** 0.5
        if kind == "epsilon":
            clean, factor = (latents - noise * predicted) / signal, 1.0
        elif kind == "v_prediction":
            clean, factor = signal * latents - noise * predicted, 1 / signal
        else:  # the clean latent itself
            clean, factor = predicted, -noise / signal
        picture = generator.decode_latents(noise * clean + (1 - noise) * latents)
        response = signed(self.scaler_.standardise(self.target(picture)), directions).sum()
        (gradient,) = torch.autograd.grad(self.scale * response, latents)
        return -factor * noise * gradient


def _generator_of(backend: Backend) -> StableDiffusionGenerator:
    """The diffusion model of a backend; ValueError where it has none."""
    generator = getattr(backend, "generator", None)
    if not isinstance(generator, StableDiffusionGenerator):
        raise ValueError(
            f"GuidedDiffusion: backend {backend.name!r} has none; expected Stable Diffusion. Use backend='sd15'."
        )
    return generator
