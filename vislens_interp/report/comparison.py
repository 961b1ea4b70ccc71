"""Figures of a comparison: what the methods made, and how they score."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vislens_interp.report.charts import number
from vislens_interp.report.figures import COLOURS as OF_KEYS
from vislens_interp.report.figures import LABELS, LINE, PageFigure, draw_picture, wrap
from vislens_interp.tables import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {**OF_KEYS, "both": OF_KEYS["custom"]}
NAMES = {"increase": LABELS["increase"], "decrease": LABELS["decrease"], "both": "both together"}
COSTS = ("forward", "backward", "seconds", "fit_seconds", "memory")
_NAME = 1.95
_MARGIN = 0.2
_SIZE = 0.78
_STEP = 0.86
_PANEL = 2.35
_GAP = 0.35
_ROW = 0.3


def scores_figure(
    rows: Sequence[Mapping[str, object]],
    methods: Sequence[str],
    labels: Mapping[str, str],
    *,
    title: str,
    notes: Sequence[str] = (),
) -> "Figure":
    """A panel for each measure: a dot and its interval for each method and direction.

    Args:
        rows: Of a comparison's table.
        methods: From top to bottom.
        labels: Measure to what stands under its panel, in the panels' order.
        title: Above all.
        notes: Below all.

    Returns:
        A figure with a canvas of its own.

    Raises:
        ValueError: There is nothing to draw.
    """
    if not rows or not labels:
        raise ValueError("rows or labels is empty; expected at least one score. Name a measure that was measured.")
    columns = min(4, len(labels))
    lines = -(-len(labels) // columns)
    panel_height = _ROW * len(methods) + 0.15
    width = _MARGIN + _NAME + columns * (_PANEL + _GAP) + _MARGIN
    said = [line for note in notes for line in wrap(note, width - 2 * _MARGIN, 8.5)]
    head = 0.75
    height = head + lines * (panel_height + 0.8) + 0.1 + LINE * len(said) + 0.1
    page = PageFigure(width, height)
    page.text(_MARGIN, 0.12, title, fontsize=13, bold=True)
    directions = [way for way in NAMES if any(row["direction"] == way for row in rows if row["measure"] in labels)]
    for index, way in enumerate(directions):
        left = _MARGIN + _NAME + 1.4 * index
        page.text(left, 0.45, f"● {NAMES[way]}", fontsize=9.5, color=COLOURS[way], bold=True)
    for index, (measure, label) in enumerate(labels.items()):
        left = _MARGIN + _NAME + (index % columns) * (_PANEL + _GAP)
        axes = page.axes(left, head + (index // columns) * (panel_height + 0.8), _PANEL, panel_height)
        _panel(axes, [row for row in rows if row["measure"] == measure], methods, directions)
        axes.set_xlabel("\n".join(wrap(label, _PANEL + 0.1, 8.5)), fontsize=8.5)
        names = [shortened(name, 26) for name in methods] if index % columns == 0 else [""] * len(methods)
        axes.set_yticks(range(len(methods)), names, fontsize=9, parse_math=False)
    page.lines(_MARGIN, height - 0.1 - LINE * len(said), said)
    return page.figure


def _panel(axes: "Axes", rows: list[Mapping[str, Any]], methods: Sequence[str], directions: Sequence[str]) -> None:
    for row in rows:
        place = methods.index(row["method"]) + 0.22 * (directions.index(row["direction"]) - (len(directions) - 1) / 2)
        colour = COLOURS[row["direction"]]
        axes.plot([row["ci_low"], row["ci_high"]], [place, place], color=colour, lw=2, alpha=0.55, zorder=2)
        axes.plot([row["mean"]], [place], "o", ms=5, mew=0, color=colour, zorder=3)
    least = min((row["ci_low"] for row in rows), default=0.0)
    if rows and rows[0]["measure"] in COSTS and least > 0:
        axes.set_xscale("log")  # they differ by orders of magnitude
    elif least < 0:
        axes.axvline(0, color="#555555", lw=0.8, ls="--", zorder=0)
    if rows and rows[0]["measure"].startswith("predictivity"):
        axes.axvline(50, color="#555555", lw=0.8, ls="--", zorder=0)
    for place in range(len(methods)):
        axes.axhline(place, color="#e6e6e6", lw=0.7, zorder=0)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def pictures_figure(
    pictures: Mapping[str | tuple[str, str], Tensor],
    methods: Sequence[str],
    directions: Sequence[str],
    changes: Mapping[tuple[str, str], Sequence[float]],
    *,
    title: str,
    notes: Sequence[str] = (),
) -> "Figure":
    """Inputs on top, then a row for each method, with its preferred and its suppressed pictures side by side.

    Args:
        pictures: ``"inputs"`` and (method, direction) to (N, 3, S, S).
        methods: From top to bottom.
        directions: From left to right.
        changes: (method, direction) to each picture's signed change in SDs, positive the wanted way.
        title: Above all.
        notes: Below all.

    Returns:
        A figure with a canvas of its own.
    """
    count = len(pictures["inputs"])
    block = count * _STEP + 0.3
    width = max(_MARGIN + _NAME + block * len(directions) + _MARGIN, 7.0)
    step = _SIZE + LINE + 0.12
    said = [line for note in notes for line in wrap(note, width - 2 * _MARGIN, 8.5)]
    lines = wrap(title, width - 2 * _MARGIN, 13)
    head = 0.55 + 0.25 * len(lines)
    height = head + step * (len(methods) + 1) + LINE * len(said) + 0.2
    page = PageFigure(width, height)
    page.text(_MARGIN, 0.12, "\n".join(lines), fontsize=13, bold=True)
    page.text(_MARGIN, head + _SIZE / 2, "input", fontsize=10, bold=True, va="center")
    for index, way in enumerate(directions):
        left = _MARGIN + _NAME + index * block
        page.text(left, head - 0.3, NAMES[way], fontsize=11, bold=True, color=COLOURS[way])
        for column, image in enumerate(pictures["inputs"]):
            draw_picture(page, image, left + column * _STEP, head, _SIZE, COLOURS["inputs"])
        for line, method in enumerate(methods):
            top = head + step * (line + 1)
            if index == 0:
                name = "\n".join(wrap(method.replace("_", " "), _NAME - 0.1, 10, bold=True))
                page.text(_MARGIN, top + _SIZE / 2, name, fontsize=10, bold=True, va="center")
            for column, image in enumerate(pictures.get((method, way), [])):
                at = left + column * _STEP
                draw_picture(page, image, at, top, _SIZE, COLOURS[way])
                change = changes[method, way][column]
                drawn = change if way == "increase" else -change
                text = f"{number(drawn)}{' ✗' if change < 0 else ''}"
                page.text(at + _SIZE / 2, top + _SIZE + 0.03, text, fontsize=8, ha="center")
    page.lines(_MARGIN, height - 0.1 - LINE * len(said), said)
    return page.figure
