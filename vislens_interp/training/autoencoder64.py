"""Recipe: the generator's own autoencoder, 64 pixels to 16 x 16 latents and back."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

from vislens_interp.precision import mixed_precision
from vislens_interp.training.cifar10_ddpm import write_folder
from vislens_interp.training.data import TEST, TUNING, augment, pixels, read_splits
from vislens_interp.training.loop import Progress, add_test_figures, train

ABOUT = "An autoencoder of 64-pixel images: principal components of patches, and a network that restores detail."

AUTOENCODER: dict[str, Any] = {"latent_channels": 12, "block_out_channels": (64, 64, 64), "blocks": 2}
"""Twelve of a 4 x 4 patch's 48 components: 26.2 dB by themselves on the training images, where 8 give 23.1 and 16 give
30.8. More are more to diffuse."""


def build(settings: dict[str, Any] | None = None) -> Any:
    """The network, a :class:`~vislens_interp.zoo.autoencoder.PatchAutoencoder`."""
    from vislens_interp.zoo.autoencoder import PatchAutoencoder

    return PatchAutoencoder(**(AUTOENCODER if settings is None else settings))


def run(
    data: Path,
    out: Path,
    *,
    device: str = "cpu",
    seed: int = 0,
    steps: int = 20_000,
    batch_size: int = 128,
    lr: float = 1e-3,
    noise: float = 0.05,
    settings: dict[str, Any] | None = None,
    minutes: float | None = None,
) -> tuple[nn.Module, Progress]:
    """Set the components in closed form, and train what decodes them on absolute pixel errors.

    Args:
        data: What :func:`~vislens_interp.training.data.read_splits` reads.
        out: Folder for the checkpoint.
        noise: Standard deviation of noise on the latents in training: what a diffusion model gives is not exact.
        settings: Of :func:`build`.

    Returns:
        The averaged network and the history: absolute error of pixels in [-1, 1] and PSNR in dB.
    """
    torch.manual_seed(seed)
    splits = read_splits(data, 64)
    images = splits.train.to(device)
    model: Any = build(settings)
    model.fit_components(2 * pixels(images[:: max(1, len(images) // 5000)].cpu()) - 1)
    model.components.requires_grad_(False)  # a generator learns the latents of all images once
    model = nn.Module.to(model, device)

    def decode(network: Any, latents: Tensor) -> Tensor:
        with mixed_precision(device):
            return network.decode(latents).sample.float()

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(0, len(images), (batch_size,), generator=generator).to(device)
        clean = 2 * pixels(augment(images[rows], generator, padding=4)) - 1
        latents = model.encode(clean).latent_dist.mode()
        noisy = latents + noise * torch.randn(latents.shape, generator=generator).to(device)
        return l1_loss(decode(model, noisy), clean)

    @torch.no_grad()
    def figures(network: Any, held_out: slice) -> dict[str, float]:
        clean = 2 * pixels(splits.validation[held_out].to(device)) - 1
        latents = encode(network, splits.validation[held_out])
        made = torch.cat([decode(network, part) for part in latents.split(250)])
        return {"absolute_error": l1_loss(made, clean).item(), "psnr": _psnr(made, clean)}

    average, progress = train(
        model,
        loss,
        out=out,
        steps=steps,
        lr=lr,
        seed=seed,
        minutes=minutes,
        warmup=min(200, steps // 10),
        evaluate=lambda average: figures(average, TUNING),
        evaluate_every=2000,
    )
    add_test_figures(progress, steps, lambda: figures(average, TEST))
    progress.data = splits.describe()
    return average, progress


def _psnr(made: Tensor, clean: Tensor) -> float:
    return -10 * torch.log10(mse_loss(made.clamp(-1, 1), clean) / 4).item()


@torch.no_grad()
def encode(network: Any, images: Tensor, batch_size: int = 250) -> Tensor:
    """Latents (N, C, h, w) float32 of bytes (N, 3, H, W), a batch at a time."""
    device = next(network.parameters()).device
    parts = [network.encode(2 * pixels(part.to(device)) - 1).latent_dist.mode() for part in images.split(batch_size)]
    return torch.cat(parts)


def save(model: nn.Module, path: Path) -> Path:
    """Write the network in half precision as a diffusers folder."""
    return write_folder(path, {"": model})


def load(folder: Path) -> Any:
    """The network that :func:`save` wrote, in float32 and evaluation mode.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"autoencoder {str(folder)!r}: no config.json there; expected trained weights. Train them first: "
            "python -m vislens_interp.training autoencoder64 --data DIR --out DIR"
        )
    from vislens_interp.zoo.autoencoder import PatchAutoencoder

    network: Any = PatchAutoencoder.from_pretrained(folder, torch_dtype=torch.float32, low_cpu_mem_usage=False)
    return network.eval().requires_grad_(False)
