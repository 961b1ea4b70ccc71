"""Figures of rows of pictures, and figures small enough to be committed."""

import io
from collections.abc import Collection, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from benchmarks.common import package as vl

FIGURE_BYTES = 400_000


def empty(width: float, height: float) -> Figure:
    """A figure without axes, of so many inches."""
    page = Figure(figsize=(width, height), dpi=110)
    FigureCanvasAgg(page)
    return page


def sheet(
    rows: Sequence[tuple[str, Tensor, Sequence[str]]],
    bold: Collection[int] = (),
    *,
    heads: Sequence[str] = (),
    title: str = "",
) -> Figure:
    """A figure of rows of as many pictures each: what the row is, images (N, 3, H, W), and a note below each of them.

    ``bold`` are rows that begin something new; ``heads`` stand above the columns.
    """
    pictures = len(rows[0][1])
    page = empty(1.05 * pictures + 1.6, 1.2 * len(rows))
    axes = page.subplots(len(rows), pictures, squeeze=False)
    for index, (label, shown, notes) in enumerate(rows):
        for column in range(pictures):
            axis = axes[index][column]
            axis.imshow(shown[column].permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(notes[column], fontsize=8, labelpad=1)
        weight = "bold" if index in bold else "normal"
        axes[index][0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8, fontweight=weight)
    for axis, text in zip(axes[0], heads, strict=False):
        axis.set_title(text, fontsize=8, loc="left")
    page.suptitle(title, fontsize=10, y=1.0, va="top")
    page.tight_layout(pad=0.4, rect=(0, 0, 1, 1 - (0.25 if title else 0.0) / (1.2 * len(rows))))  # an inch's quarter
    return page


def save_small(page: Figure, path: Path, limit: int = FIGURE_BYTES) -> None:
    """Write a figure as WebP, of less quality until it is small enough."""
    drawn = io.BytesIO()
    page.savefig(drawn, format="png")
    picture = Image.open(drawn).convert("RGB")
    for quality in (90, 80, 70, 60, 45, 30):
        packed = io.BytesIO()
        picture.save(packed, "WEBP", quality=quality, method=6)
        if packed.tell() <= limit:
            vl.write_bytes(path, packed.getvalue())
            return
    raise ValueError(f"limit={limit} bytes; expected {packed.tell()} at least for this figure. Show fewer pictures.")
