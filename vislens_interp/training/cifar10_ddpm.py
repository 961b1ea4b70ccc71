"""Recipe: a small DDPM of CIFAR-10 images, which refines what a landscape decodes."""

import copy
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor, nn
from torch.nn.functional import mse_loss, pixel_unshuffle

from vislens_interp.files import write_folder
from vislens_interp.precision import mixed_precision
from vislens_interp.training.cifar10_convnet import split
from vislens_interp.training.data import augment, pixels, read_images
from vislens_interp.training.loop import Progress, train

ABOUT = (
    "A small DDPM of CIFAR-10 images (diffusers' UNet2DModel on 2 x 2 pixels as channels, v-prediction, cosine "
    "schedule), stored in half precision. It refines what a landscape decodes (SDEdit), at low strength."
)
PATCH = 2
"""Side of the squares of pixels that the network sees as channels: a quarter of the cost of the layers at 32 px."""


def build() -> UNet2DModel:
    """The network: 2 x 2 pixels as 12 channels at 16 x 16, three levels, attention at 8 x 8 and 4 x 4."""
    return UNet2DModel(
        sample_size=16,
        in_channels=3 * PATCH**2,
        out_channels=3 * PATCH**2,
        layers_per_block=1,
        block_out_channels=(64, 96, 128),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
        norm_num_groups=16,
    )


def scheduler() -> DDPMScheduler:
    """A cosine schedule with v-prediction: small networks train steadily on it at every noise level."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=True,
    )


def save(model: UNet2DModel, folder: Path) -> Path:
    """Write the network in half precision and its schedule as the diffusers folder that a refiner loads."""
    half: Any = copy.deepcopy(model)  # diffusers' types lose what .to and save_pretrained are
    half = half.cpu().half().to(memory_format=torch.contiguous_format)  # no channels-last in safetensors
    half.register_to_config(_name_or_path="")  # where it was loaded from is nobody else's business

    def fill(temporary: Path) -> None:
        half.save_pretrained(temporary / "unet")
        scheduler().save_pretrained(temporary / "scheduler")

    return write_folder(folder, fill)


def run(
    data: Path,
    out: Path,
    *,
    device: str = "cpu",
    seed: int = 0,
    steps: int = 5_000,
    batch_size: int = 64,
    lr: float = 1e-3,
    minutes: float | None = None,
) -> tuple[nn.Module, Progress]:
    """Train the denoiser; the history holds its loss on the even-positioned (tuning) test files at fixed noise."""
    torch.manual_seed(seed)
    images, _, _ = read_images(split(data, "train"), 32)
    held_out, _, _ = read_images(split(data, "test"), 32)
    images, held_out = images.to(device), held_out[::10].to(device)
    noise_schedule: Any = scheduler()
    model = nn.Module.to(build(), device).to(memory_format=torch.channels_last)  # diffusers' .to has lost its type

    def denoise(network: nn.Module, batch: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        clean = pixel_unshuffle(2 * pixels(batch) - 1, PATCH)
        noisy = noise_schedule.add_noise(clean, noise, times).to(memory_format=torch.channels_last)
        wanted = noise_schedule.get_velocity(clean, noise, times)
        with mixed_precision(clean.device):
            predicted = network(noisy, times).sample
        return mse_loss(predicted.float(), wanted)

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        there = generator.device
        noise = torch.randn(count, 3 * PATCH**2, 16, 16, generator=generator, device=there)
        return noise.to(device), torch.randint(0, 1000, (count,), generator=generator, device=there).to(device)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(0, len(images), (batch_size,), generator=generator).to(images.device)
        batch = augment(images[rows], generator, padding=0)
        # Drawn on the device: a GPU would wait for a batch's noise from the CPU.
        there = torch.Generator(device).manual_seed(int(torch.randint(0, 2**62, (), generator=generator)))
        return denoise(model, batch, *draw(batch_size, there))

    @torch.no_grad()
    def evaluate(average: nn.Module) -> dict[str, float]:
        generator = torch.Generator().manual_seed(1)  # on the CPU: figures of one device are those of another
        return {"validation_loss": denoise(average, held_out, *draw(len(held_out), generator)).item()}

    average, progress = train(
        model,
        loss,
        out=out,
        steps=steps,
        lr=lr,
        seed=seed,
        minutes=minutes,
        data=(images,),
        settings={"batch_size": batch_size},
        warmup=500,
        evaluate=evaluate,
        evaluate_every=1000,
    )
    progress.data = f"{len(images):,} images to train on, {len(held_out):,} even-positioned test images held out"
    return average, progress
