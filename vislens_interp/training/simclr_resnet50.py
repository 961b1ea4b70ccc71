"""Recipe: a ResNet-50 trained without labels, the paper's artificial target, at 64 pixels."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from vislens_interp.images import to_pil
from vislens_interp.precision import mixed_precision
from vislens_interp.training.data import TEST, TUNING, pixels, read_splits
from vislens_interp.training.loop import Progress, add_test_figures, train
from vislens_interp.training.loop import save_half as save  # noqa: F401 (what the command writes)
from vislens_interp.training.probe import probes
from vislens_interp.training.vit_tiny64 import standardisation

ABOUT = "timm's resnet50 on 64-pixel images, trained by SimCLR without labels."


class Views(Dataset[list[Tensor] | list[Image.Image]]):
    """Two views of an image, the same for the same seed, whichever process makes them."""

    def __init__(self, images: Tensor, transform: Callable[[Image.Image], list[Tensor] | list[Image.Image]]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> list[Tensor] | list[Image.Image]:
        row, seed = key
        torch.manual_seed(seed)  # the transforms of torchvision draw from the global generator
        return self.transform(to_pil(pixels(self.images[row : row + 1]))[0])


class Pupil(nn.Module):
    """The network with the head that only its training needs."""

    def __init__(self) -> None:
        super().__init__()
        import timm
        from lightly.models.modules import SimCLRProjectionHead

        self.backbone: Any = timm.create_model("resnet50", num_classes=0)
        self.project = SimCLRProjectionHead(self.backbone.num_features, 2048, 128)


def run(
    data: Path,
    out: Path,
    *,
    device: str = "cpu",
    seed: int = 0,
    epochs: int = 200,
    batch_size: int = 512,
    lr: float = 1e-3,
    temperature: float = 0.2,
    minutes: float | None = None,
    steps: int | None = None,
) -> tuple[nn.Module, Progress]:
    """Train the network by agreement between two views of an image.

    Args:
        data: What :func:`~vislens_interp.training.data.read_splits` reads; labels are used to measure only.
        out: Folder for the checkpoint.
        temperature: Of the loss.
        steps: The whole run's, instead of ``epochs``.

    Returns:
        The averaged network without its head, and the history: 20-NN and linear probe top-1 of its 2,048 features.

    Source: Vis-Lens, App. B.2 (SimCLR, ResNet-50; crops of 8 % and more, bicubic there, and flips). Loss, head and
    transform are lightly's, with its advice for small images: half the colour jitter, no blur. Deviation: 64 pixels
    instead of 128, AdamW instead of what the paper does not give.
    """
    from lightly.loss import NTXentLoss
    from lightly.transforms import SimCLRTransform

    torch.manual_seed(seed)
    splits = read_splits(data, 64)
    model = Pupil().to(device).to(memory_format=torch.channels_last)
    config = model.backbone.pretrained_cfg
    transform = SimCLRTransform(
        64, cj_strength=0.5, gaussian_blur=0.0, normalize={name: list(config[name]) for name in ("mean", "std")}
    )
    contrast = NTXentLoss(temperature)
    per_epoch = max(1, len(splits.train) // batch_size)
    total = steps or epochs * per_epoch
    batches: list[Iterator[list[Tensor]]] = []  # made at the first step, which only the loop knows

    def loss(step: int, generator: torch.Generator) -> Tensor:
        if not batches:
            keys = _keys(step, len(splits.train), batch_size, seed)
            workers = min(16, os.cpu_count() or 1) if device.startswith("cuda") else 0
            batches.append(iter(DataLoader(Views(splits.train, transform), batch_sampler=keys, num_workers=workers)))
        both = torch.cat(next(batches[0])).to(device).contiguous(memory_format=torch.channels_last)
        with mixed_precision(both.device):
            projected = model.project(model.backbone(both))
        return contrast(*projected.float().chunk(2))

    def figures(average: nn.Module, held_out: slice, bank: int = 10_000) -> dict[str, float]:
        if len(splits.classes) < 2:
            return {}
        backbone = cast(Pupil, average).backbone
        return probes(nn.Sequential(standardisation(backbone), backbone).to(device), splits, held_out, bank)

    average, progress = train(
        model,
        loss,
        out=out,
        steps=total,
        lr=lr,
        seed=seed,
        minutes=minutes,
        data=(splits.train,),
        settings={"batch_size": batch_size, "temperature": temperature},
        weight_decay=0.01,
        warmup=min(500, total // 10),
        evaluate=lambda average: figures(average, TUNING),
        evaluate_every=20 * per_epoch,
    )
    add_test_figures(progress, total, lambda: figures(average, TEST, len(splits.train)))
    progress.data = splits.describe()
    return cast(Pupil, average).backbone, progress


def _keys(first: int, images: int, batch_size: int, seed: int) -> Iterator[list[tuple[int, int]]]:
    """Batches of (image, seed of its views) from step ``first`` on: what an uninterrupted run would draw."""
    for step in itertools.count(first):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows = torch.randint(0, images, (batch_size,), generator=generator).tolist()
        seeds = torch.randint(0, 2**62, (batch_size,), generator=generator).tolist()
        yield list(zip(rows, seeds, strict=True))
