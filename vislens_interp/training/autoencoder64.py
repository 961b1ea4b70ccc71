"""Recipe: the generator's own autoencoder, 64 pixels to 16 x 16 latents and back."""

import copy
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss, normalize

from vislens_interp.landscape.prior import kl_divergence
from vislens_interp.landscape.vae import sample_posterior
from vislens_interp.precision import mixed_precision
from vislens_interp.training.cifar10_ddpm import write_folder
from vislens_interp.training.data import TEST, TUNING, augment, pixels, read_splits
from vislens_interp.training.loop import Progress, add_test_figures, train
from vislens_interp.zoo.embedder import Embedder64

ABOUT = "An autoencoder (diffusers' AutoencoderKL) of 64-pixel images in 16 x 16 latents, the generator's own."

AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (24, 48, 96),
    "layers_per_block": 1,
    "latent_channels": 8,
    "norm_num_groups": 8,
    "mid_block_add_attention": False,
}
"""Eight channels, not Stable Diffusion's four: at 64 pixels a latent has more to say of what it covers. Thin at full
resolution, where the time goes, and without attention, so that it can be trained on crops."""


def build(settings: dict[str, Any] | None = None) -> Any:
    """The network: as many levels as ``block_out_channels`` has numbers, each but the last halving the side."""
    from diffusers import AutoencoderKL

    settings = AUTOENCODER if settings is None else settings
    levels = len(settings["block_out_channels"])
    blocks: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }
    return AutoencoderKL(sample_size=64, scaling_factor=1.0, **blocks, **settings)  # see standardise for the factor


def run(
    data: Path,
    out: Path,
    *,
    weights: Path | None = None,
    device: str = "cpu",
    seed: int = 0,
    steps: int = 20_000,
    batch_size: int = 128,
    lr: float = 5e-4,
    w_kld: float = 1e-4,
    w_perception: float = 0.1,
    crop: int = 64,
    perception: Embedder64 | None = None,
    settings: dict[str, Any] | None = None,
    minutes: float | None = None,
) -> tuple[nn.Module, Progress]:
    """Train the autoencoder on absolute pixel errors and on errors in the embedder's maps.

    Args:
        data: What :func:`~vislens_interp.training.data.read_splits` reads.
        out: Folder for the checkpoint.
        weights: Folder of ``embedder64.safetensors``; None is two above ``out``.
        w_kld: Weight of the KLD, a mean over a latent's numbers as the pixel error is over pixels.
        w_perception: Weight of the squared distance between directions of maps, a mean over places; 0 needs none.
        crop: Side in pixels of the random crops that it is trained on; 32 costs a quarter of 64. Divisible by 4.
        perception: A trained embedder; None for the one in ``weights``.
        settings: Of :func:`build`.

    Returns:
        The averaged network with standardised latents, and the history: absolute and squared error of pixels in
        [-1, 1], PSNR in dB, and the error in the embedder's maps.

    Source: Rombach et al. 2022, App. G. Deviations: no adversarial loss, and our embedder's maps instead of VGG's.
    """
    torch.manual_seed(seed)
    see: Embedder64 | None = None
    if w_perception:
        see = perception or Embedder64.load((weights or out.parents[1]) / "embedder64.safetensors")
        see = see.to(device).eval().requires_grad_(False)
    splits = read_splits(data, 64)
    images = splits.train.to(device)
    model: Any = nn.Module.to(build(settings), device).to(memory_format=torch.channels_last)

    def errors(network: Any, clean: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with mixed_precision(clean.device):
            posterior = network.encode(clean.contiguous(memory_format=torch.channels_last)).latent_dist
            mean, log_variance = posterior.mean.float(), posterior.logvar.float()
            latents = mean if noise is None else sample_posterior(mean, log_variance, noise)
            decoded = network.decode(latents).sample.float()
            seen = [torch.zeros((), device=device)]
            if see is not None:
                pairs = zip(see.maps((decoded + 1) / 2), see.maps((clean + 1) / 2), strict=True)
                seen = [(normalize(a.float()) - normalize(b.float())).square().sum(1).mean() for a, b in pairs]
        zero, one = torch.zeros(1, device=device), torch.ones(1, device=device)
        kld = kl_divergence(mean.flatten(1), log_variance.flatten(1), zero, one).mean() / mean[0].numel()
        return l1_loss(decoded, clean), mse_loss(decoded.clamp(-1, 1), clean), torch.stack(seen).mean(), kld

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(0, len(images), (batch_size,), generator=generator).to(device)
        clean = 2 * pixels(augment(images[rows], generator, padding=4)) - 1
        top, left = torch.randint(0, 65 - crop, (2,), generator=generator).tolist()  # one place for the whole batch
        clean = clean[:, :, top : top + crop, left : left + crop]
        side = crop // 2 ** (len(model.config["block_out_channels"]) - 1)
        noise = torch.randn(batch_size, model.config["latent_channels"], side, side, generator=generator).to(device)
        absolute, _, seen, kld = errors(model, clean, noise)
        return absolute + w_perception * seen + w_kld * kld

    @torch.no_grad()
    def figures(network: nn.Module, held_out: slice) -> dict[str, float]:
        parts = splits.validation[held_out].split(250)
        rows = [torch.stack(errors(network, 2 * pixels(part.to(device)) - 1, None)) for part in parts]
        sizes = torch.tensor([float(len(part)) for part in parts], device=device)
        absolute, squared, seen, kld = ((torch.stack(rows) * sizes[:, None]).sum(0) / sizes.sum()).tolist()
        psnr = -10 * torch.log10(torch.tensor(squared / 4)).item()
        return {"absolute_error": absolute, "psnr": psnr, "perceptual_error": seen, "kld": kld}

    average, progress = train(
        model,
        loss,
        out=out,
        steps=steps,
        lr=lr,
        seed=seed,
        minutes=minutes,
        warmup=min(500, steps // 10),
        evaluate=lambda average: figures(average, TUNING),
        evaluate_every=2000,
    )
    add_test_figures(progress, steps, lambda: figures(average, TEST))
    progress.data = splits.describe()
    return standardise(average, splits.train), progress


@torch.no_grad()
def encode(network: Any, images: Tensor, batch_size: int = 250) -> Tensor:
    """Latents (N, C, h, w) float32 of bytes (N, 3, H, W): the posterior's means, a batch at a time."""
    device = next(network.parameters()).device
    parts = [network.encode(2 * pixels(part.to(device)) - 1).latent_dist.mode() for part in images.split(batch_size)]
    return torch.cat(parts)


@torch.no_grad()
def standardise(network: nn.Module, images: Tensor) -> nn.Module:
    """A copy whose latents have mean 0 and variance 1 in each channel, and whose pictures are the same.

    A diffusion model starts from N(0, 1) and ends in latents; Stable Diffusion's pipelines only know one factor for
    all channels. Here the change goes into the two 1 x 1 convolutions around the latents, so that the factor is 1.

    Args:
        network: The trained autoencoder.
        images: Bytes (N, 3, H, W) that the statistics are taken of, 5,000 of them evenly chosen.
    """
    network = copy.deepcopy(network)
    latents = encode(network, images[:: max(1, len(images) // 5000)])
    mean = latents.mean((0, 2, 3))
    std = latents.std((0, 2, 3)).clamp_min(1e-4)
    into, out_of = cast(nn.Conv2d, network.quant_conv), cast(nn.Conv2d, network.post_quant_conv)
    into_bias, out_bias = cast(Tensor, into.bias), cast(Tensor, out_of.bias)
    channels = len(mean)
    out_bias += (out_of.weight[:, :, 0, 0] * mean).sum(1)
    out_of.weight *= std[None, :, None, None]
    into.weight[:channels] /= std[:, None, None, None]
    into_bias[:channels] = (into_bias[:channels] - mean) / std
    into_bias[channels:] -= 2 * std.log()  # the second half are the posterior's log variances
    return network


def save(model: nn.Module, path: Path) -> Path:
    """Write the network in half precision as a diffusers folder."""
    return write_folder(path, {"": model})


def load(folder: Path) -> Any:
    """The network that :func:`save` wrote, in float32 and evaluation mode.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    from diffusers import AutoencoderKL

    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"autoencoder {str(folder)!r}: no config.json there; expected trained weights. Train them first: "
            "python -m vislens_interp.training autoencoder64 --data DIR --out DIR"
        )
    network: Any = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32, low_cpu_mem_usage=False)
    return network.eval().requires_grad_(False)
