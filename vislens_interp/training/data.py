"""Training images: a zip or a folder of one folder a class, read once into memory as bytes."""

import io
import lzma
import math
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from vislens_interp.images import list_images

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
LARGEST_FILE = 500_000_000
"""Bytes that an image in a zip may unpack to."""
_UNREADABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, RuntimeError, NotImplementedError),  # Pillow; passwords and methods
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)


def read_images(path: str | Path, size: int, *, grayscale: bool = False) -> tuple[Tensor, Tensor, list[str]]:
    """Read a labelled set of images, upright as their EXIF orientation says, resized and centre-cropped to a square.

    Args:
        path: A zip or a folder that holds ``.../<class>/<name>.<suffix>``.
        size: Side of the square in pixels.
        grayscale: Drop the colour and repeat the luminance three times, as the paper does for CIFAR-10.

    Returns:
        Images (N, 3, size, size) uint8 in the sorted order of their names, labels (N,) int64, and class names.

    Raises:
        FileNotFoundError: There is no such zip or folder, or no image in it.
        ValueError: The zip is damaged, or an image in it, which the message names, cannot be read.
    """
    path = Path(path)
    with _opened(path) as read:
        names = sorted(read)
        if not names:
            raise FileNotFoundError(f"data={str(path)!r} holds no images ({', '.join(sorted(SUFFIXES))}).")
        images = np.empty((len(names), size, size, 3), dtype=np.uint8)
        for row, name in enumerate(names):
            try:
                images[row] = _pixels_of(read[name](), size, grayscale)
            except _UNREADABLE as error:
                raise ValueError(
                    f"data={str(path)!r}: {name!r} cannot be read ({type(error).__name__}: {error}); expected a whole"
                    " image without a password. Mend or remove it."
                ) from error
    classes, labels = np.unique([Path(name).parent.name for name in names], return_inverse=True)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels), classes.tolist()


@contextmanager
def _opened(path: Path) -> Iterator[dict[str, Callable[[], bytes]]]:
    """Names of the images in a zip or a folder, and what reads each."""
    if path.is_dir():
        files, _ = list_images(path)
        names = [file.relative_to(path) for file in files if file.suffix.lower() in SUFFIXES]
        yield {str(name): (path / name).read_bytes for name in names}
        return
    if not path.is_file():
        raise FileNotFoundError(f"data={str(path)!r}: no such zip or folder of images.")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"data={str(path)!r} cannot be read as a zip ({error}); it is damaged or something else. Get it again."
        ) from error
    with archive:
        entries = [entry for entry in archive.infolist() if _is_image(entry.filename)]
        yield {entry.filename: partial(_read_entry, archive, entry) for entry in entries}


def _is_image(name: str) -> bool:
    """Whether an entry of a zip is an image, and not what a Mac leaves beside it."""
    parts = Path(name).parts
    return Path(name).suffix.lower() in SUFFIXES and "__MACOSX" not in parts and not parts[-1].startswith(".")


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    if entry.file_size > LARGEST_FILE:
        raise ValueError(f"it unpacks to {entry.file_size / 1e6:,.0f} MB")
    return archive.read(entry)


def _pixels_of(content: bytes, size: int, grayscale: bool) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(_square(ImageOps.exif_transpose(image).convert("RGB"), size, grayscale))


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


def evenly(rows: Tensor, count: int) -> Tensor:
    """About ``count`` rows, evenly spaced; all of them where there are fewer."""
    return rows[:: max(1, len(rows) // count)]


def augment(images: Tensor, generator: torch.Generator, *, padding: int = 4) -> Tensor:
    """Images (N, C, H, W), each shifted by up to ``padding`` pixels (reflected borders) and perhaps flipped."""
    count, _, height, width = images.shape
    if padding:
        padded = torch.nn.functional.pad(images.float(), [padding] * 4, mode="reflect").to(images.dtype)
        top = torch.randint(0, 2 * padding + 1, (count, 1), generator=generator) + torch.arange(height)
        left = torch.randint(0, 2 * padding + 1, (count, 1), generator=generator) + torch.arange(width)
        rows = torch.arange(count)[:, None, None]
        images = padded.permute(0, 2, 3, 1)[rows, top[:, :, None], left[:, None, :]].permute(0, 3, 1, 2)
    flip = (torch.rand(count, 1, 1, 1, generator=generator) < 0.5).to(images.device)
    return torch.where(flip, images.flip(-1), images)


def views(
    images: Tensor,
    generator: torch.Generator,
    *,
    min_scale: float = 0.2,
    jitter: float = 0.4,
    gray: float = 0.1,
) -> Tensor:
    """Random crops of each image, resized to its size, flipped, with other brightness, contrast and saturation.

    The whole batch at once and on its device, which is what makes it as fast as the network.

    Args:
        images: (N, 3, H, W) uint8.
        generator: Source of randomness, on the CPU, so that a seed means the same views on every device.
        min_scale: Smallest area of a crop, as a share of the image's.
        jitter: The three factors lie within ``1 ± jitter``.
        gray: Share of views without colour.

    Returns:
        (N, 3, H, W) float32 in [0, 1].
    """
    count = len(images)
    drawn = torch.rand(9, count, generator=generator).to(images.device)
    area = min_scale + (1 - min_scale) * drawn[0]
    aspect = torch.exp(math.log(4 / 3) * (2 * drawn[1] - 1))
    width, height = (area * aspect).sqrt().clamp_max(1), (area / aspect).sqrt().clamp_max(1)
    turn = torch.where(drawn[2] < 0.5, -1.0, 1.0)
    transform = torch.zeros(count, 2, 3, device=images.device)
    transform[:, 0, 0], transform[:, 1, 1] = width * turn, height
    transform[:, 0, 2], transform[:, 1, 2] = (1 - width) * (2 * drawn[3] - 1), (1 - height) * (2 * drawn[4] - 1)
    grid = affine_grid(transform, list(images.shape), align_corners=False)
    seen = grid_sample(pixels(images), grid, padding_mode="reflection", align_corners=False)
    brightness, contrast, saturation = (1 + jitter * (2 * drawn[5:8] - 1))[..., None, None, None]
    seen = (seen * brightness).clamp(0, 1)
    mean = seen.mean((1, 2, 3), keepdim=True)
    seen = mean + contrast * (seen - mean)
    luminance = (seen * seen.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    saturation = torch.where(drawn[8].view(-1, 1, 1, 1) < gray, torch.zeros_like(saturation), saturation)
    return (luminance + saturation * (seen - luminance)).clamp(0, 1)


@dataclass(frozen=True)
class Splits:
    """Labelled images (N, 3, S, S) uint8 to train on and to validate on, and how they were divided."""

    train: Tensor
    train_labels: Tensor
    validation: Tensor
    validation_labels: Tensor
    classes: list[str]
    division: str

    def describe(self) -> str:
        """One line for a model card."""
        return (
            f"{len(self.train):,} images of {len(self.classes)} classes to train on, {len(self.validation):,} held out "
            f"({self.division})"
        )


TUNING, TEST = slice(0, None, 2), slice(1, None, 2)
"""Of the held-out images, in the sorted order of their names: even positions tune, odd ones test."""


def read_splits(data: str | Path, size: int) -> Splits:
    """Read a person's own images, or a data set in parts.

    Args:
        data: A folder with ``train.zip``, ``train_0.zip`` and on, or a folder ``train``, and likewise ``val`` (or
            ``test``); or a folder or zip of images without such a division, of which every tenth is then held out. One
            folder a class; without folders all are of one class.
        size: Side of the square in pixels.

    Raises:
        FileNotFoundError: There is nothing of this kind.
        ValueError: A held-out class has no training images, or there are too few images.
    """
    data = Path(data)
    train, held_out = _parts(data, "train"), _parts(data, "val") or _parts(data, "test")
    if train and held_out:
        images, labels = _read_parts(train, size)
        other, other_labels = _read_parts(held_out, size)
        division = ", ".join(part.name for part in held_out)
    else:
        images, labels, other, other_labels = _hold_out(*_read_parts(train or [data], size), data)
        division = "every tenth"
    unknown = sorted(set(other_labels) - set(labels))
    if unknown:
        raise ValueError(
            f"data={str(data)!r}: held-out class {unknown[0]!r} has no training images ({len(unknown)} such); expected "
            "the same classes. Rename or remove its folder."
        )
    classes, numbers = np.unique(labels, return_inverse=True)
    numbers, other_numbers = torch.from_numpy(numbers), torch.from_numpy(np.searchsorted(classes, other_labels))
    return Splits(images, numbers, other, other_numbers, classes.tolist(), division)


def _parts(data: Path, name: str) -> list[Path]:
    if (data / f"{name}.zip").is_file():
        return [data / f"{name}.zip"]
    return sorted(data.glob(f"{name}_*.zip")) or ([data / name] if (data / name).is_dir() else [])


def _read_parts(parts: list[Path], size: int) -> tuple[Tensor, list[str]]:
    read = [read_images(part, size) for part in parts]
    return torch.cat([images for images, _, _ in read]), [
        names[row] for _, rows, names in read for row in rows.tolist()
    ]


def _hold_out(images: Tensor, labels: list[str], data: Path) -> tuple[Tensor, list[str], Tensor, list[str]]:
    rows = torch.arange(len(images))
    held = rows % 10 == 9
    if not held.any():
        raise ValueError(
            f"data={str(data)!r} holds {len(images)} images; expected at least 10, of which every tenth is held out. "
            "Add images, or a folder val beside train."
        )
    kept, held_rows = rows[~held].tolist(), rows[held].tolist()
    return images[~held], [labels[row] for row in kept], images[held], [labels[row] for row in held_rows]
