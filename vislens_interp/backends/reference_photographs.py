"""A backend's own reference set: crops of free photographs, which travel in one zip with their terms."""

import io
import json
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load, save
from torch import Tensor, nn

from vislens_interp.files import fingerprint, rebuilding, write_atomically
from vislens_interp.images import ImageFiles, check_size
from vislens_interp.schema import check_schema

EMBEDDINGS, ABOUT, TERMS = "embeddings.safetensors", "about.json", "licences.csv"
QUALITIES = (85, 80, 75, 70, 60, 50)
"""Of WebP; the best at which the set is small enough."""
SIDE = 384
"""Longest side in pixels at which a photograph is kept."""
CROPS = (1.0, 0.75, 0.75, 0.5, 0.5, 0.35)
"""Sides of a photograph's crops, in shares of its shorter side: the whole, parts and details."""
DECODED = 32
"""Photographs whose pixels are remembered: the crops of one are asked for one after another."""


class ReferencePhotographs(ImageFiles):
    """Crops of photographs that stay in their zip and are read where they are asked for.

    Args:
        path: What :func:`write_reference` wrote.
        size: Side in pixels of a crop.
        embedder: The network whose embeddings of the crops travel along; of another one, or at another size, they are
            not used. None does not look.

    Attributes:
        names: ``PHOTOGRAPH-crop``, one a crop.
        groups: (N,) number of the photograph that a crop was taken from.
        about: What the zip says of itself.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or no reference set.
    """

    def __init__(self, path: str | Path, size: int, embedder: nn.Module | None = None) -> None:  # no files are listed
        check_size(size)
        self.path, self.size = Path(path), size
        if not self.path.is_file():
            raise FileNotFoundError(
                f"reference {str(self.path)!r}: no such file; expected a set of reference photographs. Make it: "
                "vislens_interp.backends.reference_photographs.write_reference."
            )
        self.about: dict[str, Any] = self._read_about()
        self.boxes: list[list[int]] = self.about["crops"]
        photographs: list[str] = self.about["photographs"]
        self.paths: list[str | Path] = [f"{self.path}/{photographs[box[0]]}" for box in self.boxes]
        self.names = _names(photographs, self.boxes)
        self.groups = torch.tensor([box[0] for box in self.boxes])
        self.shape = (len(self.boxes), 3, size, size)
        self.rows = list(range(len(self.boxes)))
        self._known = (
            embedder is not None
            and size == self.about.get("size")
            and self.about.get("embedder") == fingerprint(embedder.state_dict())
        )

    def __getitem__(self, rows: int | slice | Sequence[int] | Tensor) -> Tensor:
        """Crops at these positions, (n, 3, size, size) in [0, 1]; of one number (3, size, size)."""
        if isinstance(rows, int):
            return super().__getitem__(rows)
        places = self._places(rows)
        if not places:
            return torch.zeros(0, *self.shape[1:])
        return torch.stack([self._crop(self.boxes[self.rows[place]]) for place in places])

    def _keep(self, rows: Sequence[int]) -> None:
        super()._keep(rows)
        self.rows = [self.rows[row] for row in rows]
        self.groups = self.groups[list(rows)]

    def identity(self) -> Iterable[bytes]:
        """What tells this set of pictures from another: the zip's own directory, and which crops."""
        with zipfile.ZipFile(self.path) as archive:
            sums = ",".join(f"{item.filename}:{item.CRC}" for item in archive.infolist())
        yield sums.encode()
        yield repr(self.rows).encode()

    def embeddings(self) -> Tensor | None:
        """(N, D) float32 that travel along, stored in half precision; None where they are not of these very crops."""
        if not self._known:
            return None
        with rebuilding(self.path, EMBEDDINGS):
            x = load(self._read(EMBEDDINGS))["embeddings"].float()
            if x.ndim != 2 or len(x) != len(self.boxes) or not x.isfinite().all():
                raise TypeError(f"embeddings {tuple(x.shape)} of {len(self.boxes)} crops, all finite")
            return x[self.rows]

    def terms(self) -> str:
        """The table of sources, authors and licences, as CSV."""
        return self._read(TERMS).decode()

    def _read_about(self) -> dict[str, Any]:
        with rebuilding(self.path, ABOUT):
            about: Any = json.loads(self._read(ABOUT))
        where = f"reference {str(self.path)!r}"
        check_schema(about, {"photographs": [str], "crops": [[int]], "size?": int, "embedder?": str}, where, ABOUT)
        for row, box in enumerate(about["crops"]):
            if len(box) != 4 or not 0 <= box[0] < len(about["photographs"]) or min(*box[1:3], box[3] - 1) < 0:
                raise ValueError(
                    f"{where}: {ABOUT}.crops[{row}] is {box}; expected a photograph, left, top and side. Copy it again."
                )
        if not about["crops"]:
            raise ValueError(f"{where}: {ABOUT}.crops is empty; expected crops of photographs. Copy the file again.")
        return about

    def _crop(self, box: list[int]) -> Tensor:
        photograph, left, top, side = box
        name = self.about["photographs"][photograph]
        try:
            whole = _decode(self._read(name))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(
                f"reference {str(self.path)!r}: {name!r} is no picture ({error}). Copy it again."
            ) from error
        if max(left + side - whole.shape[1], top + side - whole.shape[0]) > 0:
            raise ValueError(f"reference {str(self.path)!r}: crop {box} lies outside of {name!r}. Copy the file again.")
        part = Image.fromarray(whole).resize(
            (self.size, self.size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
        )
        return torch.from_numpy(np.array(part)).permute(2, 0, 1).float() / 255

    def _read(self, name: str) -> bytes:
        try:
            return _member(str(self.path), self.path.stat().st_mtime_ns, name)
        except (KeyError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(
                f"reference {str(self.path)!r} cannot be read ({error}); expected a whole set of reference "
                "photographs. Copy it again, or reinstall vislens_interp."
            ) from error


@lru_cache(DECODED)
def _member(path: str, changed: int, name: str) -> bytes:
    return _archive(path, changed, os.getpid()).read(name)


@lru_cache(2)
def _archive(path: str, changed: int, process: int) -> zipfile.ZipFile:
    """An open zip: its directory is read once. A forked process opens its own, for a place in a file is shared."""
    return zipfile.ZipFile(path)


@lru_cache(DECODED)
def _decode(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGB"))


def _names(photographs: list[str], boxes: list[list[int]]) -> list[str]:
    seen: dict[int, int] = {}
    names = []
    for box in boxes:
        seen[box[0]] = seen.get(box[0], -1) + 1
        names.append(f"{Path(photographs[box[0]]).stem}-{seen[box[0]]}")
    return names


def crop_boxes(width: int, height: int, generator: torch.Generator) -> list[list[int]]:
    """Squares (left, top, side) of a photograph, each at a random place; of the largest, the middle."""
    boxes = []
    for share in CROPS:
        side = max(1, round(share * min(width, height)))
        room = torch.rand(2, generator=generator) if share < 1 else torch.tensor([0.5, 0.5])
        left, top = (room * torch.tensor([width - side, height - side])).round().int().tolist()
        boxes.append([left, top, side])
    return boxes


def write_reference(
    path: Path,
    photographs: Sequence[Path],
    terms: str,
    embedder: nn.Module,
    *,
    size: int = 224,
    seed: int = 0,
    limit: int = 12_000_000,
) -> Path:
    """Write photographs, compressed, the places of their crops, and the crops' embeddings.

    Args:
        photographs: Their files, whose names they keep.
        terms: CSV of sources, authors and licences.
        embedder: Images to embeddings (N, D).
        size: Side in pixels at which the crops are embedded.
        seed: Of the places of the crops.
        limit: Largest size in bytes; the quality is lowered until it is met.

    Raises:
        ValueError: Two files have one name without its suffix, or even the lowest quality does not fit.
    """
    names = [f"photographs/{Path(file).stem}.webp" for file in photographs]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(
            f"photographs holds several files of the name {Path(repeated[0]).stem!r}; expected a name of its own for "
            "each, without folder and suffix. Rename them."
        )
    pictures = []
    for file in photographs:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
            upright.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            pictures.append(upright)
    room = limit - 2 * len(pictures) * len(CROPS) * getattr(embedder, "dim", 1024) - 300 * len(pictures)
    for quality in QUALITIES:
        files = [_encode(picture, quality) for picture in pictures]
        if sum(map(len, files)) <= room:
            break
    else:
        raise ValueError(
            f"photographs holds {len(pictures)} pictures, which do not fit into limit={limit} bytes; expected fewer. "
            "Leave some out, or raise the limit."
        )
    generator = torch.Generator().manual_seed(seed)
    about = {
        "what": "crops of free photographs; licences.csv says whose they are, and on which terms",
        "photographs": names,
        "crops": [
            [row, *box]
            for row, picture in enumerate(pictures)
            for box in crop_boxes(picture.width, picture.height, generator)
        ],
        "quality": quality,
        "size": size,
        "embedder": fingerprint(embedder.state_dict()),
    }
    entries = {TERMS: terms.encode(), **dict(zip(names, files, strict=True))}

    def write(temporary: Path, known: dict[str, bytes]) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name, content in (known | entries).items():
                # The same bytes every time.
                archive.writestr(zipfile.ZipInfo(name, date_time=(2026, 1, 1, 0, 0, 0)), content)

    said = json.dumps(about).encode()

    def fill(temporary: Path) -> None:
        write(temporary, {ABOUT: said})
        crops = ReferencePhotographs(temporary, size)  # as they will be read
        with torch.no_grad():
            x = torch.cat([embedder(part) for part in crops.split(60)]).half().cpu().contiguous()
        write(temporary, {ABOUT: said, EMBEDDINGS: save({"embeddings": x})})

    return write_atomically(path, fill)


def _encode(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=6)
    return buffer.getvalue()
