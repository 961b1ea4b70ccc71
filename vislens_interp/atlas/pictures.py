"""Pictures of many units in full batches, what they start from, and the WebP sheet that shows those of one unit."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vislens_interp.backends.closed_loop import ClosedLoopGenerator
from vislens_interp.images import resize, to_pil
from vislens_interp.landscape.prior import SENSES, SIGN

CHUNK = 16
"""Pictures changed together; of any units, inputs and senses."""
CELL = 112
"""Side in pixels of a picture on a sheet."""
QUALITY = 75
"""Of WebP: a sheet of 26 pictures then takes about 50 kB."""
JPEG = {"quality": 95, "subsampling": 0}
"""How the photographs are kept that pictures start from: 40 kB each at 224 px, a fifth of what 8 bits would take."""


def paint(loop: ClosedLoopGenerator, inputs: Tensor, directions: Tensor, side: int | None = None) -> Tensor:
    """Every unit's inputs moved up and down its read-out, in batches that mix units.

    Args:
        loop: The generator that changes a picture until its embedding scores higher.
        inputs: (U, n, 3, S, S).
        directions: (U, E) gradient of each unit's predicted response, in SDs, with respect to the embedding.
        side: Side in pixels at which the embedder sees the pictures; None is the generator's own.

    Returns:
        (U, 2, n, 3, S, S) on the CPU: for each unit what increases it, then what decreases it.
    """
    units, count = inputs.shape[:2]
    signs = torch.tensor([SIGN[sense] for sense in SENSES])
    wanted = (signs[None, :, None] * directions[:, None, :].cpu()).repeat_interleave(count, dim=1).flatten(0, 1)
    wanted = wanted.to(loop.device)

    def score(seen: Tensor, rows: Tensor) -> Tensor:
        return (loop.read(seen) * wanted[rows]).sum(1)

    starts = inputs.repeat_interleave(len(signs), dim=0).flatten(0, 1)
    chunk = max(1, min(CHUNK, len(starts)))  # chunks are filled up
    made = loop.ascend(starts, score, share=1.0, strength=0.0, side=side, chunk=chunk).cpu()
    return made.unflatten(0, (units, len(signs), count))


def encode_jpeg(images: Tensor) -> list[Tensor]:
    """Pictures (N, 3, H, W) in [0, 1] as N JPEG files, the bytes of each as uint8."""
    files = []
    for image in to_pil(images) if len(images) else []:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", **JPEG)
        files.append(torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8))
    return files


def decode_jpeg(files: Sequence[Tensor], names: Sequence[str]) -> Tensor:
    """What :func:`encode_jpeg` made: (N, 3, H, W) in [0, 1]; ``names`` are those of the photographs.

    Raises:
        ValueError: One is no picture, or of another size than the first; the message names it.
    """
    pictures: list[np.ndarray] = []
    for file, name in zip(files, names, strict=True):
        try:
            pictures.append(np.asarray(Image.open(io.BytesIO(file.numpy().tobytes())).convert("RGB")))
        except (OSError, ValueError) as error:
            raise ValueError(f"inputs holds {name!r}, which is no picture ({error}). Restore a copy.") from error
        if pictures[-1].shape != pictures[0].shape:
            sizes = " and ".join(f"{one.shape[1]} x {one.shape[0]}" for one in (pictures[-1], pictures[0]))
            raise ValueError(f"inputs holds {name!r} of another size than {names[0]!r} ({sizes}). Restore a copy.")
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255


def thumbnails(images: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) in [0, 1] as cells of a sheet: (N, CELL, CELL, 3), uint8."""
    small = torch.cat([resize(part.float(), CELL).clamp(0, 1).cpu() for part in images.split(64)])
    return (small * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def sheet(rows: Sequence[Tensor], width: int) -> bytes:
    """A WebP file of rows of cells (n, CELL, CELL, 3), uint8, ``width`` cells wide; shorter rows end in white."""
    canvas = np.full((len(rows) * CELL, width * CELL, 3), 255, np.uint8)
    for number, row in enumerate(rows):
        if len(row):
            line = np.concatenate(list(row.numpy()), axis=1)
            canvas[number * CELL : (number + 1) * CELL, : line.shape[1]] = line
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()
