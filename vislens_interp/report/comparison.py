"""Figures of a comparison: what each method drew, and how each was scored."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from vislens_interp.report.figures import (
    _LINE,
    _MARGIN,
    _SMALL,
    COLOURS,
    LABELS,
    _Page,
    _picture,
    _shorten,
    _wrap,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vislens_interp.metrics import Interval

_NAMES = 1.9
_GAP = 0.06
_BLOCK = 0.35
_PANEL = 2.35
_ROW = 0.3
_ACROSS = 3
_OFFSETS = {"increase": -0.14, "decrease": 0.14, "both": 0.0}
_BOTH = "#222222"


def pictures_figure(inputs: Tensor, pictures: Mapping[str, Mapping[str, Tensor]], title: str) -> "Figure":
    """Inputs above, then a row for each method: preferred pictures on the left, suppressed ones on the right.

    Args:
        inputs: (n, 3, S, S) in [0, 1].
        pictures: Method, then direction, to the same shape, made from the inputs in their order.
        title: Above all.
    """
    count = len(inputs)
    block = count * (_SMALL + _GAP)
    ways = [way for way in ("increase", "decrease") if any(way in one for one in pictures.values())]
    width = _MARGIN + _NAMES + len(ways) * (block + _BLOCK) + _MARGIN
    lines = _wrap(title, width - 2 * _MARGIN, 12, bold=True)
    top = 0.15 + 0.24 * len(lines) + 0.3
    page = _Page(width, top + (len(pictures) + 1) * (_SMALL + 0.1) + 0.15)
    for row, line in enumerate(lines):
        page.text(_MARGIN, 0.15 + 0.24 * row, line, fontsize=12, fontweight="bold", va="top")
    starts = {way: _MARGIN + _NAMES + place * (block + _BLOCK) for place, way in enumerate(ways)}
    for way, left in starts.items():
        page.text(left, top - 0.24, LABELS[way], fontsize=10, fontweight="bold", color=COLOURS[way], va="top")
    rows = [("input", dict.fromkeys(ways, inputs)), *pictures.items()]
    for row, (method, made) in enumerate(rows):
        y = top + row * (_SMALL + 0.1)
        for number, line in enumerate(_label(method)):
            page.text(_MARGIN, y + _SMALL / 2 + (number - 0.5) * _LINE, line, fontsize=9, va="center")
        for way in ways:
            for column, image in enumerate(made.get(way, ())):
                colour = COLOURS["reference"] if method == "input" else COLOURS[way]
                _picture(page, image, starts[way] + column * (_SMALL + _GAP), y, _SMALL, colour)
    return page.figure


def scores_figure(
    methods: Sequence[str],
    points: Mapping[str, Mapping[tuple[str, str], "Interval"]],
    titles: Mapping[str, str],
    title: str,
    notes: Sequence[str],
) -> "Figure":
    """A panel for each measure: every method's mean and interval, in each direction.

    Args:
        methods: From the top down.
        points: Measure to (method, direction) to what was found.
        titles: Measure to what its panel is called.
        title: Above all.
        notes: Below all.
    """
    across = min(_ACROSS, len(points))
    down = -(-len(points) // across)
    tall = 0.25 + _ROW * len(methods)
    width = _MARGIN + _NAMES + across * (_PANEL + 0.25) + _MARGIN
    lines = _wrap(title, width - 2 * _MARGIN, 12, bold=True)
    foot = [line for note in notes for line in _wrap(note, width - 2 * _MARGIN, 8.5)]
    top = 0.15 + 0.24 * len(lines) + 0.55
    height = top + down * (tall + 0.7) + len(foot) * _LINE + 0.1
    page = _Page(width, height)
    for row, line in enumerate(lines):
        page.text(_MARGIN, 0.15 + 0.24 * row, line, fontsize=12, fontweight="bold", va="top")
    left = _MARGIN + _NAMES
    for way, text in (("increase", "● preferred"), ("decrease", "● suppressed"), ("both", "● both")):
        page.text(left, top - 0.5, text, fontsize=9, fontweight="bold", color=COLOURS.get(way, _BOTH), va="top")
        left += 1.15
    for number, (measure, found) in enumerate(points.items()):
        row, column = divmod(number, across)
        axes = page.axes(_MARGIN + _NAMES + column * (_PANEL + 0.25), top + row * (tall + 0.7), _PANEL, tall)
        for place, method in enumerate(methods):
            for way, offset in _OFFSETS.items():
                if (method, way) not in found:
                    continue
                own, colour = found[method, way], COLOURS.get(way, _BOTH)
                axes.plot([own.low, own.high], [place + offset] * 2, color=colour, lw=1.6, solid_capstyle="butt")
                axes.plot([own.mean], [place + offset], "o", ms=4.5, mew=0, color=colour)
        if measure == "seconds":
            axes.set_xscale("log")
        elif measure == "predictivity":
            axes.axvline(0.5, color="#555555", lw=0.8, ls="--", zorder=0)
        else:
            axes.axvline(0, color="#555555", lw=0.8, ls="--", zorder=0)
        axes.set_ylim(len(methods) - 0.5, -0.5)
        names = [_shorten(method, 26) for method in methods] if column == 0 else [""] * len(methods)
        axes.set_yticks(range(len(methods)), names, fontsize=8.5, parse_math=False)
        axes.tick_params(axis="x", labelsize=7.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", color="#e4e4e4", lw=0.6)
        axes.set_axisbelow(True)
        axes.set_title(titles[measure], fontsize=9, loc="left")
        axes.spines[["top", "right", "left"]].set_visible(False)
    for row, line in enumerate(foot):
        page.text(_MARGIN, height - 0.1 - (len(foot) - row) * _LINE, line, fontsize=8.5, color="#222222", va="top")
    return page.figure


def _label(method: str) -> list[str]:
    return _wrap(method.replace("_", " "), _NAMES - 0.1, 9)[:3]
