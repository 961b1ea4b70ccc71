"""Recipe: the paper's ConvNet as a CIFAR-10 classifier."""

from pathlib import Path

import torch
from torch import Tensor, nn

from vislens_interp.precision import mixed_precision
from vislens_interp.training.data import TUNING, augment, pixels, read_images
from vislens_interp.training.loop import Progress, train
from vislens_interp.training.probe import accuracy
from vislens_interp.zoo.convnet import ConvNet


def run(
    data: Path,
    out: Path,
    *,
    device: str = "cpu",
    seed: int = 0,
    epochs: int = 45,
    batch_size: int = 128,
    lr: float = 4e-3,
    minutes: float | None = None,
    grayscale: bool = False,
    steps: int | None = None,
) -> tuple[nn.Module, Progress]:
    """Train :class:`ConvNet` with shifts, flips, label smoothing and one cosine cycle of AdamW.

    Args:
        data: Folder with ``train.zip`` and ``test.zip`` (or folders ``train``, ``test``), one folder a class.
        out: Folder for the checkpoint.
        grayscale: The paper's grey images instead of colour.
        steps: Stop the schedule after so many steps instead of ``epochs``.

    Returns:
        The averaged network and the history; ``test_accuracy`` is over the even-positioned (tuning) test files.
    """
    torch.manual_seed(seed)
    images, labels, classes = read_images(split(data, "train"), 32, grayscale=grayscale)
    held_out, held_out_labels, _ = read_images(split(data, "test"), 32, grayscale=grayscale)
    images, labels = images.to(device), labels.to(device)
    model = ConvNet(num_classes=len(classes)).to(device).to(memory_format=torch.channels_last)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
    per_epoch = max(1, len(images) // batch_size)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(0, len(images), (batch_size,), generator=generator).to(images.device)
        batch = normalise(pixels(augment(images[rows], generator)))
        with mixed_precision(images.device):
            return criterion(model(batch.to(memory_format=torch.channels_last)), labels[rows])

    def evaluate(average: nn.Module) -> dict[str, float]:
        return {"test_accuracy": accuracy(average, normalise, held_out[TUNING], held_out_labels[TUNING])}

    return train(
        model,
        loss,
        out=out,
        steps=steps or epochs * per_epoch,
        lr=lr,
        seed=seed,
        minutes=minutes,
        data=(images, labels),
        settings={"batch_size": batch_size, "grayscale": grayscale},
        weight_decay=0.02,
        evaluate=evaluate,
        evaluate_every=per_epoch * 5,
    )


def normalise(images: Tensor) -> Tensor:
    """The paper's Normalize(0.5, 0.5): [0, 1] to [-1, 1]."""
    return (images - 0.5) / 0.5


def split(data: Path, name: str) -> Path:
    """The zip of one split if there is one, else its folder."""
    archive = Path(data) / f"{name}.zip"
    return archive if archive.exists() else Path(data) / name
