"""The pixel convention, RGB float32 in [0, 1] as (N, 3, H, W): load, check, resize, hash."""

import copy
import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, TypeGuard, get_args, runtime_checkable

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from vislens_interp.validation import array_remedy, check_word

COLOURS_SQRT = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
"""Square root of the covariance of ImageNet's colours (lucid, ``param/color.py``)."""

PathLike: TypeAlias = str | os.PathLike[str]
OnError: TypeAlias = Literal["raise", "skip"]
_Item: TypeAlias = Image.Image | PathLike
ImageSource: TypeAlias = Tensor | Image.Image | PathLike | Sequence[Image.Image | PathLike]

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_TOLERANCE = 1e-4  # what arithmetic in float32 may leave outside [0, 1]
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)  # what Pillow's readers raise


def load_images(
    source: ImageSource, *, size: int | None = None, on_error: OnError = "raise"
) -> tuple[Tensor, list[str]]:
    """Read images from wherever they are into one checked tensor.

    Files are turned upright as their EXIF orientation says. A file is resized by Pillow's antialiased bicubic filter,
    which is how networks' published transforms read files; a tensor by :func:`resize`, which differs by a few of 255
    levels, at sharp edges by more.

    Args:
        source: A tensor (checked, see :func:`check_images`), a PIL image, a path to a file, a path to a folder (read
            recursively in sorted order, through links to folders; a warning says what is left out: files that are no
            images by their suffix, whatever is hidden, and folders below it that hold what this library made), a
            sequence of PIL images, paths of files or tensors, a data set or a DataLoader, of which the images are
            taken and the rest is left: see :func:`dataset_images`; or :class:`ImageFiles`, such as a result's.
        size: Pixels of the square to make: the shorter side is resized to it and the centre cropped. None keeps the
            sizes, which then have to be the same.
        on_error: What to do with files that cannot be read: ``"raise"`` an error naming them, or ``"skip"`` them with
            a warning naming them.

    Returns:
        Images, (N, 3, H, W), float32 in [0, 1]; and N names: a file's path below the folder (or below the folder that
        all files of a sequence share), ``image_00000`` and so on for what has no path.

    Raises:
        ValueError: There is nothing to read, a file cannot be read, sizes differ, or values break the convention.
        FileNotFoundError: ``source`` is a path at which nothing is.
        TypeError: ``source`` is none of the above.
    """
    check_word("on_error", on_error, get_args(OnError))
    if size is not None:
        check_size(size)
    found = dataset_images(source)
    if isinstance(found, (Tensor, ImageFiles)):
        images = ordinary(check_images(found[:])).float()
        names = _numbered(len(images)) if isinstance(found, Tensor) else list(found.names)
        return images if size is None else resize(images, size), names

    items, names = _list_source(found)
    read = [_read(item, size) for item in items]
    _tell_of_failures(names, read, on_error)
    pictures = [(name, one) for name, one in zip(names, read, strict=True) if isinstance(one, _Picture)]
    several = [name for name, one in pictures if one.several]
    if several:
        warnings.warn(
            f"{len(several)} of {len(items)} images in source have several frames or pages ({', '.join(several[:3])});"
            " the first one is used.",
            stacklevel=2,
        )
    first_name, first = pictures[0]
    for name, one in pictures:
        if one.size != first.size:
            raise ValueError(
                f"source holds images of different sizes: {first_name} is {first.size} and {name} is {one.size}"
                " (height x width); expected one size. Pass size= to resize and crop them."
            )
    stack = torch.from_numpy(np.stack([one.array for _, one in pictures])).permute(0, 3, 1, 2)
    images = stack.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    return images, [name for name, _ in pictures]


def _tell_of_failures(names: Sequence[str], read: Sequence[object], on_error: OnError) -> None:
    """Raise for files that cannot be read, or warn of them if they are skipped and others are left."""
    failures = [f"{name} ({one})" for name, one in zip(names, read, strict=True) if isinstance(one, Exception)]
    if not failures:
        return
    said = f"{len(failures)} of {len(read)} images in source cannot be read: {'; '.join(failures)}."
    left = len(read) - len(failures)
    if on_error == "raise" or not left:
        remedy = "Mend or remove them, or pass on_error='skip' to use the rest." if left else "None is left."
        raise ValueError(f"{said} {remedy}")
    warnings.warn(f"{said} Going on with the other {left}.", stacklevel=3)


# Thumbnails, leftovers, deleted files.
_SYSTEM_FOLDERS = frozenset({"@eadir", "__macosx", "$recycle.bin", "lost+found"})
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", ".ds_store"})  # of which nobody has to hear

OWN_RECORDS = {
    "result.json": b'"vislens_interp result"',
    "comparison.json": b'"vislens_interp comparison"',
    "run.json": b'"vislens_interp unfinished"',
    "stimuli.tsv": b"number\tfile\tblock\tkind\t",
    "experiment.json": b'"vislens_interp experiment"',
    "manifest.json": b'"vislens_interp block"',
    "atlas.json": b'"vislens_interp atlas"',
    "preferences.csv": b",preferred,evidence,weak",
}
"""Files that lie beside pictures of our own making, and what their beginnings hold."""


def is_own_output(folder: PathLike) -> bool:
    """Whether a folder holds pictures that this library made: a result, whole or not, an experiment, an atlas, ..."""
    for name, mark in OWN_RECORDS.items():
        with suppress(OSError), open(os.path.join(folder, name), "rb") as file:
            if mark in file.read(1 << 20):
                return True
    return False


def list_images(folder: Path) -> tuple[list[Path], str]:
    """Image files below a folder, in the order of their paths, and in words what is left out.

    Links to folders are followed, as torchvision's ImageFolder does, except to a folder that holds them. Folders that
    hold what this library made are passed over, unless ``folder`` is one: a second run must not read the first one's.
    """
    found: list[Path] = []
    left_out: Counter[str] = Counter()
    own: list[str] = []

    def visit(place: Path, above: tuple[str, ...]) -> None:
        real = os.path.realpath(place)
        if real in above:
            left_out["links to a folder that holds them"] += 1
            return
        for entry in os.scandir(place):
            path = place / entry.name
            hidden = entry.name.startswith(".") or entry.name.lower() in _SYSTEM_FOLDERS
            if entry.is_dir():
                if hidden:
                    count = sum(len(files) for _, _, files in os.walk(path))
                    left_out[f"in hidden folders such as {entry.name}"] += count
                elif is_own_output(path):
                    own.append(entry.name)
                else:
                    visit(path, (*above, real))
            elif not entry.is_file():
                left_out["broken links or no files"] += 1
            elif entry.name.lower() in _SYSTEM_FILES:
                continue
            elif hidden:
                left_out["hidden"] += 1
            elif path.suffix.lower() in SUFFIXES:
                found.append(path)
            else:
                left_out[path.suffix.lower() or "without a suffix"] += 1

    visit(folder, ())
    if own:
        left_out[f"folders with our own results such as {min(own)}"] = len(own)
    return sorted(found), ", ".join(f"{count} {kind}" for kind, count in left_out.most_common() if count)


def _numbered(count: int) -> list[str]:
    return [f"image_{index:05d}" for index in range(count)]


def _list_source(source: object) -> tuple[Sequence[_Item], list[str]]:
    """The images or paths in a source that is no tensor, and their names."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.is_dir():
            return _list_folder(path)
        if not path.exists():
            raise FileNotFoundError(f"source={str(path)!r}: nothing is there; expected an image file or a folder.")
        source = [path]
    elif isinstance(source, Image.Image):
        source = [source]
    if not isinstance(source, Sequence) or isinstance(source, (bytes, bytearray)):
        raise TypeError(
            f"source is a {type(source).__name__}; expected a tensor, a PIL image, a path, a sequence of the last two,"
            f" a data set or a DataLoader. {array_remedy(source)}"
        )
    if not source:
        raise ValueError("source is an empty sequence; expected at least one image or path.")
    names = _numbered(len(source))
    paths: dict[int, Path] = {}
    for index, item in enumerate(source):
        if isinstance(item, (str, os.PathLike)):
            paths[index] = Path(os.path.abspath(item))
        elif not isinstance(item, Image.Image):
            raise TypeError(
                f"source[{index}] is a {type(item).__name__}; expected a PIL image or a path, as the others are."
                " Convert it with to_pil, or pass tensors alone."
            )
    if paths:
        folder = os.path.commonpath([path.parent for path in paths.values()])
        for index, path in paths.items():
            names[index] = path.relative_to(folder).as_posix()
    return list(source), names


def _list_folder(folder: Path) -> tuple[list[Path], list[str]]:
    paths, left_out = list_images(folder)
    if not paths:
        raise ValueError(
            f"source={str(folder)!r} is a folder without images; expected files ending in"
            f" {', '.join(sorted(SUFFIXES))}, in it or in its subfolders."
            + (f" Left out are {left_out}." if left_out else "")
        )
    if left_out:
        text = f"source={str(folder)!r}: {len(paths)} images are read; left out are {left_out}."
        warnings.warn(text, stacklevel=4)
    return paths, [file.relative_to(folder).as_posix() for file in paths]


@dataclass(frozen=True)
class _Picture:
    """One image as (H, W, 3) uint8, and whether it was the first of several frames."""

    array: np.ndarray
    several: bool = False

    @property
    def size(self) -> str:
        return f"{self.array.shape[0]} x {self.array.shape[1]}"


def _read(item: _Item, size: int | None) -> _Picture | Exception:
    """One image, or why it cannot be read."""
    try:
        if isinstance(item, Image.Image):
            return _Picture(np.array(_resize_pil(_to_rgb(ImageOps.exif_transpose(item)), size)))
        with Image.open(item) as image:
            # A phone's MPO holds a preview beside the picture, no frames.
            several = image.format != "MPO" and bool(getattr(image, "is_animated", False))
            deep = image.format == "PNG" and image.mode == "I"
            upright = ImageOps.exif_transpose(image)
            return _Picture(np.array(_resize_pil(_to_rgb(_to_8_bits(upright) if deep else upright), size)), several)
    except _UNREADABLE as error:
        return error


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, scaled; Pillow would clip it to 255 without a word."""
    return Image.fromarray((np.asarray(image).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _to_8_bits(image).convert("RGB")
    if image.mode in ("F", "I"):
        raise ValueError(f"mode {image.mode!r} has no known range; save it as an 8-bit or 16-bit image first")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise ValueError("it has transparent pixels; flatten it onto a background first")
    return image.convert("RGB")


def _resize_pil(image: Image.Image, size: int | None) -> Image.Image:
    if size is None:
        return image
    width, height = image.size
    new_height, new_width = _shorter_side_to(height, width, size)
    if (new_height, new_width) != (height, width):
        image = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _shorter_side_to(height: int, width: int, size: int) -> tuple[int, int]:
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def check_size(size: int) -> None:
    """Raise ValueError for what is no side of a square in pixels: a whole number of at least 1."""
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"size={size!r}; expected the side of a square in pixels, a whole number of at least 1.")


_IMAGE_KEYS = ("image", "images", "pixel_values", "img", "jpg", "png")


@runtime_checkable
class _Indexed(Protocol):
    def __getitem__(self, row: int, /) -> object: ...


def dataset_images(source: object) -> object:
    """The images of what holds images and labels; anything else as it is.

    Args:
        source: A ``DataLoader``, a data set of torch, torchvision or Hugging Face, or what these give: ``[x, y]``, a
            dictionary with an ``"image"``, a list of tensors. Of a tuple or a list the first part is taken.

    Returns:
        A tensor (N, 3, H, W), or a list of PIL images or of paths.

    Raises:
        TypeError: A data set's items hold no images.
        ValueError: It is empty, or its tensors differ in shape.
    """
    if isinstance(source, (Tensor, Image.Image, str, os.PathLike, bytes, np.ndarray, set, frozenset, ImageFiles)):
        return source
    if isinstance(source, Mapping):
        return _image_of(source)
    if isinstance(source, (list, tuple)):
        if source and isinstance(source[0], Mapping):
            return dataset_images([_image_of(item) for item in source])
        if source and isinstance(source[0], Tensor):
            first, *rest = source
            if first.ndim == 4 and not any(isinstance(one, Tensor) and one.ndim == 4 for one in rest):
                return first  # a batch and its labels
            return _joined([first] if rest and not isinstance(rest[0], Tensor) else list(source))
    if isinstance(source, Sequence) or not isinstance(source, (Iterable, _Indexed)):
        return source
    if isinstance(source, _Indexed) and isinstance(source, Sized) and not hasattr(source, "batch_size"):
        parts = [_image_of(source[row]) for row in range(len(source))]
    else:
        parts = [_image_of(item) for item in source]
    if not parts:
        raise ValueError(f"source is an empty {type(source).__name__}; expected at least one image.")
    return _joined(parts) if isinstance(parts[0], Tensor) else parts


def _image_of(item: object) -> Tensor | _Item:
    """The image, or the batch of images, of a data set's item."""
    if isinstance(item, Mapping):
        key = next((key for key in _IMAGE_KEYS if key in item), None)
        if key is None:
            raise TypeError(
                f"source holds dictionaries with {', '.join(map(repr, item))}; expected an image called"
                f" {', '.join(map(repr, _IMAGE_KEYS))}. Rename it."
            )
        return _image_of(item[key])
    if isinstance(item, (list, tuple)) and item:
        return _image_of(item[0])
    if not isinstance(item, (Tensor, Image.Image, str, os.PathLike)):
        raise TypeError(
            f"source holds items of type {type(item).__name__}; expected tensors, PIL images or paths, alone or"
            " first in a tuple. Map the data set to these."
        )
    return item


def _joined(parts: Sequence[object]) -> Tensor:
    """Images (3, H, W) and batches of them (N, 3, H, W) as one batch."""
    batches: list[Tensor] = []
    for place, part in enumerate(parts):
        batch = part[None] if isinstance(part, Tensor) and part.ndim == 3 else part
        if not isinstance(batch, Tensor) or (batches and batch.shape[1:] != batches[0].shape[1:]):
            shape = tuple(batch.shape[1:]) if isinstance(batch, Tensor) else type(batch).__name__
            raise ValueError(
                f"source[{place}] has shape {shape} and source[0] {tuple(batches[0].shape[1:])}; expected one shape."
                " Resize them first, or pass PIL images or paths and size=."
            )
        batches.append(batch)
    return torch.cat(batches)


class ImageFiles:
    """Pictures of one size that stay in their files and are read, as by :func:`load_images`, where they are asked for.

    9,000 pictures of 512 pixels are 28 GB as one tensor; here only what is asked for is in memory.

    Args:
        source: A folder, a path or paths.
        size: Pixels of the square that they are resized and cropped to.
        on_error: ``"raise"`` an error where a file that cannot be read is reached, or ``"skip"``: all are read once at
            the start, and those that cannot be are left out with a warning naming them.

    Attributes:
        names, shape: N names, as :func:`load_images` gives them; (N, 3, size, size).
        sorted_by_name: Whether they are a whole folder, in the order of their names as text, which nobody chose.

    Raises:
        ValueError, FileNotFoundError: There is nothing to read, or nothing at this path, or ``on_error`` is neither.
        TypeError: ``source`` holds pictures, not files.
    """

    def __init__(self, source: PathLike | Sequence[PathLike], size: int, *, on_error: OnError = "raise") -> None:
        check_word("on_error", on_error, get_args(OnError))
        check_size(size)
        if not holds_files(source):
            raise TypeError(
                f"source is a {type(source).__name__} of pictures in memory; expected a folder or paths of files."
                " load_images takes the others."
            )
        self.size, self.sorted_by_name = size, isinstance(source, (str, os.PathLike))
        items, self.names = _list_source(source)
        self.paths = [Path(item) for item in items if not isinstance(item, Image.Image)]
        kept: Sequence[int] = range(len(items))
        if on_error == "skip":
            read = [one if isinstance(one := _read(path, None), Exception) else None for path in self.paths]
            _tell_of_failures(self.names, read, on_error)
            kept = [row for row, one in enumerate(read) if one is None]
        self._keep(kept)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: int | slice | Sequence[int] | Tensor) -> Tensor:
        """Pictures at these positions, (n, 3, size, size) in [0, 1]; of one number (3, size, size)."""
        if isinstance(rows, (int, np.integer)):
            return self[[range(len(self))[rows]]][0]
        paths = [self.paths[row] for row in self._places(rows)]
        return load_images(paths, size=self.size)[0] if paths else torch.zeros(0, *self.shape[1:])

    def at(self, rows: Sequence[int]) -> "ImageFiles":
        """The files at these positions, at least one, still on the disk."""
        found = copy.copy(self)
        found._keep(self._places(rows))
        found.sorted_by_name = False
        return found

    def _keep(self, rows: Sequence[int]) -> None:
        self.paths, self.names = [self.paths[row] for row in rows], [self.names[row] for row in rows]
        self.shape = (len(rows), 3, self.size, self.size)

    def identity(self) -> Iterator[bytes]:
        """What tells these pictures from others without reading them: paths, sizes and times of change."""
        for path in self.paths:
            stat = os.stat(path)
            yield f"{os.path.abspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode("utf-8", "surrogateescape")

    def _places(self, rows: slice | Sequence[int] | Tensor) -> list[int]:
        if isinstance(rows, slice):
            return list(range(len(self))[rows])
        places = torch.as_tensor(rows)
        if places.dtype == torch.bool:  # a mask
            places = torch.arange(len(self))[places.cpu()]
        return [int(row) for row in places.tolist()]

    def split(self, count: int) -> Iterator[Tensor]:
        """All of them in order, ``count`` at a time."""
        for start in range(0, len(self), count):
            yield self[start : start + count]


def holds_files(source: object) -> TypeGuard[PathLike | Sequence[PathLike]]:
    """Whether a source of :func:`load_images` is a folder, a path or paths, and nothing else."""
    if isinstance(source, (str, os.PathLike)):
        return True
    if isinstance(source, (bytes, bytearray)) or not isinstance(source, Sequence):
        return False
    return len(source) > 0 and all(isinstance(item, (str, os.PathLike)) for item in source)


def check_images(images: Tensor, argument: str = "images") -> Tensor:
    """Refuse what is no batch of RGB images in [0, 1].

    Args:
        images: The tensor to check.
        argument: Its name in error messages.

    Returns:
        ``images`` itself, (N, 3, H, W).

    Raises:
        TypeError: It is no tensor.
        ValueError: It breaks the convention; the message says in what, and how to mend it.

    >>> check_images(torch.rand(2, 3, 8, 8)).shape
    torch.Size([2, 3, 8, 8])
    """
    check_shape(images, argument)
    low, high = (bound.item() for bound in images.detach().aminmax())
    if not np.isfinite(low + high):
        bad = int((~images.detach().flatten(1).isfinite().all(1)).sum())
        raise ValueError(
            f"{argument} has NaN or infinite values in {bad} of {len(images)} images; expected finite values in"
            " [0, 1]. Remove these images or mend what made them."
        )
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        if low < -0.25:
            remedy = "They look normalised: undo that (x * std + mean); preprocess= applies it inside."
        elif high > 1.5:
            remedy = f"They look like 0..255: divide by 255 ({argument} / 255)."
        else:
            remedy = f"Clip them with {argument}.clamp(0, 1)."
        raise ValueError(f"{argument} has values from {low:.4g} to {high:.4g}; expected [0, 1]. {remedy}")
    return images


def check_shape(images: Tensor, argument: str = "images") -> Tensor:
    """The part of :func:`check_images` that reads no values, so that a GPU need not wait; arguments are the same.

    Raises:
        TypeError: It is no tensor.
        ValueError: Rank, channels or type are wrong.
    """
    if not isinstance(images, Tensor):
        raise TypeError(
            f"{argument} is a {type(images).__name__}; expected a tensor of shape (N, 3, H, W)."
            " load_images reads files, folders and PIL images."
        )
    shape = tuple(images.shape)
    if images.ndim == 3:
        raise ValueError(f"{argument} has shape {shape}; expected (N, 3, H, W). For one image pass {argument}[None].")
    if images.ndim != 4:
        raise ValueError(f"{argument} has shape {shape}; expected four axes, (N, 3, H, W). Reshape them.")
    if shape[1] != 3:
        if shape[1] == 1:
            remedy = f"Grey images: repeat the channel with {argument}.expand(-1, 3, -1, -1)."
        elif shape[1] == 4:
            remedy = f"RGBA images: flatten them onto a background, or drop alpha with {argument}[:, :3]."
        elif shape[3] == 3:
            remedy = f"The channels are last: pass {argument}.permute(0, 3, 1, 2)."
        else:
            remedy = "Choose the three that are red, green and blue."
        raise ValueError(f"{argument} has {shape[1]} channels (shape {shape}); expected 3, RGB. {remedy}")
    if images.numel() == 0:
        raise ValueError(f"{argument} is empty (shape {shape}); expected at least one image of one pixel.")
    if not images.is_floating_point():
        raise ValueError(
            f"{argument} has type {images.dtype}; expected floating point in [0, 1]."
            f" If its values are 0..255, pass {argument} / 255."
        )
    return images


def ordinary(tensor: Tensor) -> Tensor:
    """The tensor without what it was computed from; a copy of one made under ``torch.inference_mode``."""
    if not tensor.is_inference():
        return tensor.detach() if tensor.requires_grad else tensor
    with torch.inference_mode(False):
        return tensor.clone()


def resize(images: Tensor, size: int) -> Tensor:
    """Resize the shorter side, antialiased bicubic, and crop the centre; gradients flow.

    Args:
        images: (N, 3, H, W) in [0, 1].
        size: Side of the square to make, in pixels.

    Returns:
        (N, 3, size, size), clamped to [0, 1] where it was resized; ``images`` itself if they have this size already.

    Raises:
        ValueError: ``size`` is no whole number of at least 1.

    >>> resize(torch.rand(1, 3, 40, 60), 20).shape
    torch.Size([1, 3, 20, 20])
    """
    check_size(size)
    height, width = images.shape[-2:]
    new = _shorter_side_to(height, width, size)
    if new != (height, width):
        images = F.interpolate(images, new, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    if new == (size, size):
        return images
    top, left = round((new[0] - size) / 2), round((new[1] - size) / 2)
    return images[..., top : top + size, left : left + size]


def to_pil(images: Tensor) -> list[Image.Image]:
    """PIL images of a batch, rounded to 8 bits.

    Args:
        images: (N, 3, H, W) in [0, 1], on any device.

    Returns:
        N images of mode RGB.

    Raises:
        ValueError: The tensor breaks the convention.

    >>> [image.size for image in to_pil(torch.rand(2, 3, 8, 6))]
    [(6, 8), (6, 8)]
    """
    pixels = check_images(images).detach().clamp(0, 1).mul(255).round().to(torch.uint8)
    return [Image.fromarray(array) for array in pixels.permute(0, 2, 3, 1).cpu().numpy()]


def image_keys(images: Tensor) -> list[str]:
    """A short hash of each picture's pixels, rounded to 8 bits: equal keys are equal pictures.

    >>> len(set(image_keys(torch.zeros(3, 3, 8, 8))))
    1
    """
    pixels = (images.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu().contiguous().numpy()
    return [hashlib.sha256(picture.tobytes()).hexdigest()[:16] for picture in pixels]
