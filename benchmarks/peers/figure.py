"""The figure of the comparison with other tools: every way a row, every unit a column, the first seed; none chosen."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from benchmarks.common import package as vl

SIDE, GAP, NAME, HEAD, LINE = 104, 6, 172, 58, 17
COLOURS, LARGEST = (256, 128, 64, 32), 380_000
"""Of the file's palette: the most with which it is no larger than so many bytes. Pictures of noise make it large."""


def draw(
    path: Path, title: str, units: Sequence[str], rows: Sequence[tuple[str, Sequence[Path], Sequence[float]]], note: str
) -> Path:
    """Write the figure as a PNG.

    Args:
        path: The file.
        title: Above all.
        units: Names of the columns.
        rows: Name, pictures and responses (SDs) of each way, a picture a unit.
        note: Below all.
    """
    bold, plain = ImageFont.load_default(14), ImageFont.load_default(12)
    step = SIDE + LINE + GAP
    width = NAME + len(units) * (SIDE + GAP) + GAP
    said = _wrap(note, plain, width - 2 * GAP)
    page = Image.new("RGB", (width, HEAD + len(rows) * step + LINE * len(said) + GAP), "white")
    pen = ImageDraw.Draw(page)
    pen.text((GAP, GAP), title, "black", ImageFont.load_default(16))
    for column, name in enumerate(units):
        pen.text((NAME + column * (SIDE + GAP) + SIDE / 2, HEAD - 18), name, "black", plain, anchor="ma")
    for line, (name, pictures, responses) in enumerate(rows):
        top = HEAD + line * step
        for offset, part in enumerate(_wrap(name, bold, NAME - 2 * GAP)):
            pen.text((GAP, top + SIDE / 2 - 16 + offset * LINE), part, "black", bold)
        for column, (picture, response) in enumerate(zip(pictures, responses, strict=True)):
            left = NAME + column * (SIDE + GAP)
            with Image.open(picture) as image:
                page.paste(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, top))
            pen.text((left + SIDE / 2, top + SIDE + 2), f"{response:+.1f} SD", "black", plain, anchor="ma")
    for line, part in enumerate(said):
        pen.text((GAP, HEAD + len(rows) * step + line * LINE), part, "black", plain)
    for colours in COLOURS:
        packed = io.BytesIO()
        page.quantize(colours, dither=Image.Dither.NONE).save(packed, format="PNG", optimize=True)
        if packed.tell() <= LARGEST:
            break
    return vl.write_atomically(path, lambda temporary: temporary.write_bytes(packed.getvalue()))


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
