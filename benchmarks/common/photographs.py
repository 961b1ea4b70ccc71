"""Photographs of ImageNet below the data folder: those at even places tune, those at odd places test."""

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def read_zip(path: Path, names: list[str]) -> Tensor:
    """Files of a zip as (N, 3, S, S) uint8."""
    with zipfile.ZipFile(path) as archive:
        arrays = [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def listed(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return sorted(name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg", ".png", ".webp")))


def photographs(data: Path, parity: int) -> tuple[Tensor, Tensor]:
    """Photographs (N, 3, 224, 224) uint8 at even (0) or odd (1) places, and their ImageNet classes."""
    path = data / "photos" / "imagenet500.zip"
    names = listed(path)[parity::2]
    return read_zip(path, names), torch.tensor([int(Path(name).name.split("_")[0]) for name in names])
