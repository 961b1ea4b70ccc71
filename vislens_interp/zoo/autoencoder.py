"""The generator's autoencoder: principal components of patches, and a small network that restores what they lose.

Imported only by what needs it: this module loads diffusers.
"""

from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, silu

_CERTAIN = -30.0  # log variance of a code that is not random


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """Pixels to latents by one linear map of each patch, and back by its inverse plus a small convolutional network.

    It stands where Stable Diffusion has an AutoencoderKL, whose convolutions at full resolution take forty times as
    long. The linear part is known in closed form (:meth:`fit_components`), so that training starts where the
    principal components of patches are, and only adds what the neighbours of a patch say of it.

    Args:
        latent_channels: Components of a patch that are kept.
        block_out_channels: The last is the width of the network. Their number says the side of a patch, 2 to the power
            of one less, as it does in AutoencoderKL: diffusers' pipelines read it from there.
        blocks: Residual blocks of the network.
        scaling_factor: What latents are multiplied with before they are diffused.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 12,
        block_out_channels: tuple[int, ...] = (64, 64, 64),
        blocks: int = 2,
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.patch, width = 2 ** (len(block_out_channels) - 1), block_out_channels[-1]
        pixels = 3 * self.patch**2
        self.components = nn.Conv2d(pixels, latent_channels, 1)
        self.inverse = nn.Conv2d(latent_channels, pixels, 1)
        self.into = nn.Conv2d(latent_channels, width, 3, padding=1)
        self.residual = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 1))
            for _ in range(blocks)
        )
        self.out = nn.Conv2d(width, pixels, 3, padding=1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def encode(self, images: Tensor) -> AutoencoderKLOutput:
        """Images (N, 3, H, W) in [-1, 1] to latents (N, C, H / patch, W / patch), which are certain."""
        mean = self.components(pixel_unshuffle(images, self.patch))
        parameters = torch.cat([mean, torch.full_like(mean, _CERTAIN)], dim=1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(parameters, deterministic=True))

    def decode(self, latents: Tensor, return_dict: bool = True, generator: Any = None) -> Any:
        """Latents to images (N, 3, H, W), about in [-1, 1]."""
        hidden = self.into(latents)
        for block in self.residual:
            hidden = hidden + block(hidden)
        made = pixel_shuffle(self.inverse(latents) + self.out(silu(hidden)), self.patch)
        return DecoderOutput(sample=made) if return_dict else (made,)

    @torch.no_grad()
    def fit_components(self, images: Tensor) -> None:
        """Set the linear part to the principal components of the patches of these images.

        A latent's standard deviation is the root of its component's, relative to the first: a step towards equal
        weights, without asking of a diffusion model that it spend as much on the last component as on the first.

        Args:
            images: (N, 3, H, W) in [-1, 1].
        """
        patches = pixel_unshuffle(images, self.patch).movedim(1, -1).flatten(0, 2).double()
        mean = patches.mean(0)
        centred = patches - mean
        variances, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        kept = self.components.out_channels
        std, vectors = variances[-kept:].flip(0).clamp_min(1e-12).sqrt(), vectors[:, -kept:].flip(1)
        scale = (std / std[0]).sqrt() / std
        into, back = vectors.T * scale[:, None], vectors / scale
        self.components.weight.copy_(into[:, :, None, None])
        self.inverse.weight.copy_(back[:, :, None, None])
        self.components.bias.copy_(-into @ mean)  # type: ignore[union-attr]
        self.inverse.bias.copy_(mean)  # type: ignore[union-attr]
