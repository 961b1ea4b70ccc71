"""Pictures of many units in full batches, and the WebP sheet that shows those of one unit."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vislens_interp.backends.closed_loop import ClosedLoopGenerator
from vislens_interp.images import resize
from vislens_interp.landscape.prior import SENSES, SIGN

CHUNK = 16
"""Pictures changed together; of any units, inputs and senses."""
CELL = 112
"""Side in pixels of a picture on a sheet."""
QUALITY = 75
"""Of WebP: a sheet of 20 pictures then takes about 40 kB."""


def paint(loop: ClosedLoopGenerator, inputs: Tensor, directions: Tensor) -> Tensor:
    """Inputs moved up and down every unit's read-out, in batches that mix units.

    Args:
        loop: The generator that changes a picture until its embedding scores higher.
        inputs: (n, 3, S, S).
        directions: (U, E) gradient of each unit's predicted response, in SDs, with respect to the embedding.

    Returns:
        (U, 2, n, 3, S, S) on the CPU: for each unit what increases it, then what decreases it.
    """
    units, count = len(directions), len(inputs)
    signs = torch.tensor([SIGN[sense] for sense in SENSES])
    wanted = (signs[None, :, None] * directions[:, None, :].cpu()).repeat_interleave(count, dim=1).flatten(0, 1)
    wanted = wanted.to(loop.device)

    def score(seen: Tensor, rows: Tensor) -> Tensor:
        return (loop.read(seen) * wanted[rows]).sum(1)

    starts = inputs.repeat(units * len(signs), 1, 1, 1)
    chunk = max(1, min(CHUNK, len(starts)))  # chunks are filled up
    made = loop.ascend(starts, score, share=1.0, strength=0.0, chunk=chunk).cpu()
    return made.unflatten(0, (units, len(signs), count))


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
