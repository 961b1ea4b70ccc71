"""Training images: a zip or a folder of one folder a class, read once into memory as bytes."""

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


def read_images(path: str | Path, size: int, *, grayscale: bool = False) -> tuple[Tensor, Tensor, list[str]]:
    """Read a labelled set of images, resized (shorter side) and centre-cropped to a square.

    Args:
        path: A zip or a folder that holds ``.../<class>/<name>.<suffix>``.
        size: Side of the square in pixels.
        grayscale: Drop the colour and repeat the luminance three times, as the paper does for CIFAR-10.

    Returns:
        Images (N, 3, size, size) uint8 in the sorted order of their names, labels (N,) int64, and class names.

    Raises:
        FileNotFoundError: There is no such zip or folder, or no image in it.
    """
    path = Path(path)
    if path.is_dir():
        names = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        opened = {name: (path / name).read_bytes for name in names}
    elif path.is_file():
        archive = zipfile.ZipFile(path)
        names = sorted(name for name in archive.namelist() if Path(name).suffix.lower() in SUFFIXES)
        opened = {name: (lambda name=name: archive.read(name)) for name in names}
    else:
        raise FileNotFoundError(f"data={str(path)!r}: no such zip or folder of images.")
    if not names:
        raise FileNotFoundError(f"data={str(path)!r} holds no images ({', '.join(sorted(SUFFIXES))}).")
    classes = sorted({Path(name).parent.name for name in names})
    index = {label: number for number, label in enumerate(classes)}
    images = np.empty((len(names), size, size, 3), dtype=np.uint8)
    for row, name in enumerate(names):
        with Image.open(io.BytesIO(opened[name]())) as image:
            images[row] = np.asarray(_square(image.convert("RGB"), size, grayscale))
    labels = torch.tensor([index[Path(name).parent.name] for name in names])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels, classes


def _square(image: Image.Image, size: int, grayscale: bool) -> Image.Image:
    if grayscale:
        image = image.convert("L").convert("RGB")
    if image.size != (size, size):
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - size) // 2, (height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return image


def pixels(images: Tensor) -> Tensor:
    """Bytes (N, 3, H, W) as float32 in [0, 1]."""
    return images.float() / 255


def augment(images: Tensor, generator: torch.Generator, *, padding: int = 4) -> Tensor:
    """Random shifts of up to ``padding`` pixels (reflected borders) and random horizontal flips, an image at a time.

    Args:
        images: (N, C, H, W).
        generator: Source of randomness.
        padding: Largest shift, in pixels.

    Returns:
        The same shape.
    """
    count, _, height, width = images.shape
    if padding:
        padded = torch.nn.functional.pad(images.float(), [padding] * 4, mode="reflect").to(images.dtype)
        top = torch.randint(0, 2 * padding + 1, (count, 1), generator=generator) + torch.arange(height)
        left = torch.randint(0, 2 * padding + 1, (count, 1), generator=generator) + torch.arange(width)
        rows = torch.arange(count)[:, None, None]
        images = padded.permute(0, 2, 3, 1)[rows, top[:, :, None], left[:, None, :]].permute(0, 3, 1, 2)
    flip = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    return torch.where(flip, images.flip(-1), images)
