"""Pictures that were shown, from memory or from files, with their names."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from vislens_interp.images import ImageFiles, PathLike, check_images, holds_files, load_images

Images: TypeAlias = Tensor | ImageFiles
Pictures: TypeAlias = Images | np.ndarray | PathLike | Sequence[PathLike]
NamedPictures: TypeAlias = Pictures | Mapping[str, PathLike]
"""Pictures, or files by what trials call them."""


def open_pictures(images: Pictures, size: int | None) -> tuple[Images, list[str] | None]:
    """Pictures and their names; None for those in memory. With a size, files stay on the disk.

    Raises:
        TypeError, ValueError: They are neither images in [0, 1] nor files, or files cannot be read.
    """
    if isinstance(images, (Tensor, np.ndarray)):
        return load_images(check_images(torch.as_tensor(images)), size=size)[0], None
    if isinstance(images, ImageFiles):
        return images, images.names
    if not holds_files(images):
        raise TypeError(
            f"images is a {type(images).__name__}; expected a folder, paths, ImageFiles, (N, 3, H, W) in [0, 1] or, to "
            "readers, a mapping from names to files."
        )
    if size is None:
        return load_images(images)
    files = ImageFiles(images, size)
    return files, files.names
