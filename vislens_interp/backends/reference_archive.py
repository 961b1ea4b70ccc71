"""A backend's own reference pictures and their embeddings, in one zip: synthetic, whatever made them."""

import io
import json
import zipfile
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load, save
from torch import Tensor, nn

from vislens_interp.files import fingerprint, write_atomically

EMBEDDINGS, ABOUT = "embeddings.safetensors", "about.json"
LABEL = "synthetic reference"
QUALITIES = (90, 80, 70, 60, 50, 40)
"""Of WebP; the best at which the set is small enough."""


class ReferenceArchive:
    """Synthetic pictures and the embeddings of exactly these pictures, read when they are asked for.

    Args:
        path: What :func:`write_reference` wrote.
        embedder: The network that reads a person's images; the embeddings have to be its own. None does not look.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, no reference set, or another network's.
    """

    def __init__(self, path: str | Path, embedder: nn.Module | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(
                f"reference {str(self.path)!r}: no such file; expected a synthetic reference set. Make it: "
                "python -m vislens_interp.training reference64 --data DIR --out DIR"
            )
        self.about = json.loads(self._read(ABOUT))
        if embedder is not None and self.about["embedder"] != fingerprint(embedder.state_dict()):
            raise ValueError(
                f"reference {str(self.path)!r} was embedded by another network than this embedder (its fingerprint is "
                f"{self.about['embedder']}); expected its own. Make the reference set again."
            )

    def __len__(self) -> int:
        return int(self.about["pictures"])

    @cached_property
    def images(self) -> Tensor:
        """(N, 3, S, S) in [0, 1]."""
        names = [f"synthetic/{row:05d}.webp" for row in range(len(self))]
        with zipfile.ZipFile(self.path) as archive:
            try:
                pictures = [_decode(archive.read(name)) for name in names]
            except (KeyError, OSError, zipfile.BadZipFile, zlib.error) as error:
                raise self._damaged(error) from error
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous().float() / 255

    @cached_property
    def embeddings(self) -> Tensor:
        """(N, D) float32, stored in half precision."""
        found = load(self._read(EMBEDDINGS))["embeddings"].float()
        if len(found) != len(self):
            raise self._damaged(ValueError(f"{len(found)} embeddings for {len(self)} pictures"))
        return found

    def known(self, images: Tensor) -> Tensor | None:
        """The embeddings of ``images`` if they are this very set, which then need not be computed; else None."""
        return self.embeddings if images is vars(self).get("images") else None

    def _read(self, name: str) -> bytes:
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(name)
        except (KeyError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> ValueError:
        return ValueError(
            f"reference {str(self.path)!r} cannot be read ({error}); expected a whole reference set. Copy it again, or "
            "make it again: python -m vislens_interp.training reference64"
        )


def write_reference(path: Path, images: Tensor, embedder: nn.Module, *, limit: int = 6_000_000) -> Path:
    """Write pictures, compressed, and the embeddings of what comes out of the compression.

    Args:
        path: The zip.
        images: (N, 3, S, S) in [0, 1], synthetic ones.
        embedder: Images to embeddings (N, D).
        limit: Largest size in bytes; the quality is lowered until it is met.

    Raises:
        ValueError: Even the lowest quality does not fit.
    """
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    room = limit - len(images) * 300  # names and places in the zip
    for quality in QUALITIES:
        files = [_encode(picture, quality) for picture in pixels]
        seen = torch.from_numpy(np.stack([_decode(file) for file in files])).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            embeddings = embedder(seen).half().cpu().contiguous()
        if sum(map(len, files)) + 2 * embeddings.numel() <= room:
            break
    else:
        raise ValueError(
            f"images holds {len(images)} pictures, which do not fit into limit={limit} bytes; expected fewer. Lower "
            "the count, or raise the limit."
        )
    about = {
        "what": f"{LABEL}: pictures that a generator made, none of them a photograph",
        "pictures": len(images),
        "quality": quality,
        "embedder": fingerprint(embedder.state_dict()),
    }
    entries = {ABOUT: json.dumps(about, indent=1).encode(), EMBEDDINGS: save({"embeddings": embeddings})}
    entries |= {f"synthetic/{row:05d}.webp": file for row, file in enumerate(files)}

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for name, content in entries.items():
                # The same bytes every time.
                archive.writestr(zipfile.ZipInfo(name, date_time=(2026, 1, 1, 0, 0, 0)), content)

    return write_atomically(path, write)


def _encode(picture: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def _decode(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGB"))
