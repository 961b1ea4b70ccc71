"""Figures of results. Drawn with matplotlib's objects alone, so that nobody's pyplot state is touched."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from vislens_interp.frames import figure_class
from vislens_interp.report import render
from vislens_interp.report.charts import number
from vislens_interp.report.render import evidence_text, measured
from vislens_interp.tables import display_name, display_text, shortened
from vislens_interp.validation import check_counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vislens_interp.report.contact_sheet import ContactSheet
    from vislens_interp.results.result import LensResult

# Okabe and Ito's colours, which colour-blind people tell apart.
COLOURS = {
    "inputs": "#222222",
    "unedited": "#7a7a7a",
    "increase": "#d55e00",
    "decrease": "#0072b2",
    "custom": "#009e73",
}
LABELS = {**render.LABELS, "unedited": "unedited,\nα = 0"}
WARNING = "#b00020"
DPI = 150

# Everything below is in inches.
_MARGIN = 0.2
_LABEL = 1.15
_PICTURE = 1.2
_SMALL = 0.72
_COLUMN = 1.36
LINE = 0.17
_PLOT = 3.3
_PLOT_GAP = 0.85
_FOOTNOTE = "Each picture: response in SDs from the mean of the reference set"
_CHANGED = "; below it Δr, the change against the {} of the same image and seed. ✗: not the wanted way."
_SHOWN = ". Preferred and suppressed ones come from the reference set; they are no versions of the inputs."


def result_figure(result: "LensResult", max_images: int = 8) -> "Figure":
    """Inputs, unedited, preferred and suppressed images with their responses, and the evidence.

    Args:
        result: What to draw.
        max_images: The first so many are drawn; the plot beside them shows the responses of all.

    Returns:
        A figure with a canvas of its own; ``.savefig(path)`` writes it.

    Raises:
        ValueError: ``max_images`` is below 1.
    """
    check_counts(max_images=max_images)
    shown = min(max_images, len(result))
    keys = render.shown_keys(result)
    heights = [_SMALL if key == "unedited" else _PICTURE for key in keys]
    texts = [LINE if key == "inputs" else 2 * LINE for key in keys]
    rows = sum(heights) + sum(texts) + 0.2 * len(keys)
    width = _MARGIN + _LABEL + shown * _COLUMN + _PLOT_GAP + _PLOT + _MARGIN
    inside = width - 2 * _MARGIN

    subtitle = result.recipe
    subtitle += f"; {shown} of {len(result)} images shown" if shown < len(result) else ""
    head = [(line, 13, True, "#000000") for line in wrap(result.title, inside, 13)]
    head += [(line, 9, False, "#333333") for line in wrap(subtitle, inside, 9)]
    for key, said in result.words.items():
        line = f"{LABELS[key]}: {said}"
        head += [(line, 9, False, COLOURS[key]) for line in wrap(line, inside, 9)]
    start = "unedited picture (α = 0)" if "unedited" in keys else "input, which α = 0 gives back,"
    below = _SHOWN if result.settings.get("shows_reference") else _CHANGED.format(start)
    warning = wrap(_warning(result), inside - 0.3, 10.5, bold=True)
    foot = wrap(str(result.evidence or "Evidence: none was gathered."), inside, 9)
    foot += wrap(f"{_FOOTNOTE}{below}", inside, 8)

    head_height = sum(size / 72 * 1.4 for _, size, _, _ in head)
    banner_height = len(warning) * 0.2 + 0.16 if warning else 0.0
    top = 0.12 + head_height + 0.08 + banner_height + (0.1 if warning else 0)
    height = top + 0.24 + rows + 0.1 + len(foot) * LINE + 0.12
    page = PageFigure(width, height)

    y = 0.12
    for line, size, bold, colour in head:
        page.text(_MARGIN, y, line, fontsize=size, bold=bold, color=colour)
        y += size / 72 * 1.4
    if warning:
        banner = page.axes(_MARGIN, y + 0.08, inside, banner_height)
        banner.set(xticks=[], yticks=[], facecolor=WARNING)
        banner.text(
            0.5,
            0.5,
            "\n".join(warning),
            color="white",
            fontsize=10.5,
            fontweight="bold",
            parse_math=False,
            ha="center",
            va="center",
            transform=banner.transAxes,
        )

    for column in range(shown):
        left = _MARGIN + _LABEL + column * _COLUMN
        name = display_name(result.names[column], 20)
        page.text(left + _PICTURE / 2, top + 0.06, name, fontsize=7.5, color="#555555", ha="center")
    y = top + 0.24
    for key, size, text in zip(keys, heights, texts, strict=True):
        points = 9 if key == "unedited" else 11
        page.text(_MARGIN, y + size / 2, LABELS[key], fontsize=points, bold=True, color=COLOURS[key], va="center")
        for column in range(shown):
            left = _MARGIN + _LABEL + column * _COLUMN
            draw_picture(page, result.images[key][column], left + (_PICTURE - size) / 2, y, size, COLOURS[key])
            _caption(page, result, key, column, left + _PICTURE / 2, y + size + 0.06)
        y += size + text + 0.2

    plot = page.axes(width - _MARGIN - _PLOT, top + 0.24, _PLOT, rows - 0.55)
    _dots(plot, result)
    page.lines(_MARGIN, height - 0.12 - len(foot) * LINE, foot)
    return page.figure


class PageFigure:
    """A figure on which things are placed in inches from the upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        self.width, self.height = width, height
        self.figure = figure_class()(figsize=(width, height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, width: float, height: float) -> "Axes":
        bottom = self.height - top - height
        return self.figure.add_axes(
            (left / self.width, bottom / self.height, width / self.width, height / self.height), facecolor="white"
        )

    def text(
        self,
        left: float,
        top: float,
        text: str,
        *,
        bold: bool = False,
        va: Literal["top", "center"] = "top",
        **style: Any,
    ) -> None:
        self.figure.text(
            left / self.width,
            1 - top / self.height,
            display_text(text),
            fontweight="bold" if bold else None,
            va=va,
            parse_math=False,  # a file's name may hold dollar signs
            **style,
        )

    def lines(self, left: float, top: float, lines: Sequence[str]) -> None:
        """Lines of a footnote, one below another."""
        for row, line in enumerate(lines):
            self.text(left, top + row * LINE, line, fontsize=8.5, color="#222222")


def draw_picture(page: PageFigure, image: Tensor, left: float, top: float, size: float, colour: str) -> None:
    """A picture (3, H, W) in a frame, ``size`` inches on its longer side."""
    axes = page.axes(left, top, size, size)
    # Small images keep their pixels; large ones are averaged down rather than sampled.
    interpolation = "nearest" if max(image.shape[-2:]) <= size * DPI else "antialiased"
    axes.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation=interpolation)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=1.5)


def _caption(page: PageFigure, result: "LensResult", key: str, row: int, centre: float, top: float) -> None:
    said = measured(result, key, row)
    page.text(centre, top, f"{said['response']} SD", fontsize=8.5, color="#222222", ha="center")
    if said["from_input"]:
        change = f"{said['from_input']} from input"
        page.text(centre, top + LINE, change, fontsize=7.5, color=COLOURS[key], ha="center")
    elif said["change"]:
        text = f"Δr {said['change']}{' ✗' if said['wrong'] else ''}"
        colour = "#222222" if said["wrong"] else COLOURS[key]
        page.text(centre, top + LINE, text, fontsize=8.5, color=colour, bold=True, ha="center")


def _dots(axes: "Axes", result: "LensResult") -> None:
    """Every image's responses, joined from α = 0 to what was made of it; the inputs stand apart where they differ."""
    keys = [key for key in ("decrease", "unedited", "increase", "custom") if key in result.images]
    places = {key: index + 1.2 for index, key in enumerate(keys)}
    same = "unedited" not in render.shown_keys(result)
    labels = render.LABELS | ({"unedited": render.LABELS["inputs"]} if same else {})
    places |= {} if same else {"inputs": 0.0}
    values = {key: result.standardised[key].numpy() for key in places}
    fade = min(1.0, max(0.12, 6 / len(result)))
    joined = [] if result.settings.get("shows_reference") else keys
    for key in [key for key in joined if key != "unedited"]:
        for start, end in zip(values["unedited"], values[key], strict=True):
            axes.plot([places["unedited"], places[key]], [start, end], color="#999999", lw=0.8, alpha=fade, zorder=1)
    for key, place in places.items():
        axes.plot([place] * len(result), values[key], "o", ms=4.5, mew=0, color=COLOURS[key], alpha=max(fade, 0.4))
        mean = values[key].mean()
        axes.plot([place - 0.27, place + 0.27], [mean, mean], color=COLOURS[key], lw=3, zorder=3)
    axes.axhline(0, color="#555555", lw=0.8, ls="--", zorder=0)
    axes.set_xticks(
        list(places.values()),
        [f"{labels[key]}\n{number(values[key].mean())}" for key in places],
        fontsize=8,
    )
    for label, key in zip(axes.get_xticklabels(), places, strict=True):
        label.set(color=COLOURS[key], fontweight="bold")
    axes.set_xlim(min(places.values()) - 0.55, max(places.values()) + 0.55)
    axes.tick_params(axis="y", labelsize=8.5)
    axes.set_ylabel("response (SDs of the reference set)", fontsize=9)
    every = f"All {len(result)} images" if len(result) > 1 else "The one image"
    axes.set_title(f"{every}; bar and number: mean", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def contact_figure(sheet: "ContactSheet") -> "Figure":
    """Many units, a row each: name and evidence, top images, inputs with their preferred and suppressed versions.

    Args:
        sheet: What to draw.

    Returns:
        A figure with a canvas of its own.
    """
    label, gap, group = 2.0, 0.06, 0.3
    columns, shared = sheet.columns, sheet.shared
    left, starts, counts = _MARGIN + label, {}, {}
    for key in columns:
        starts[key], counts[key] = left, max(len(row.pictures[key]) for row in sheet.rows)
        left += counts[key] * (_SMALL + gap) + group
    width = max(left - group + _MARGIN, 6.0)
    row_height = _SMALL + (0.46 if any(row.words for row in sheet.rows) else 0.34)
    foot = wrap(sheet.legend, width - 2 * _MARGIN, 8.5)
    for unit, why in sheet.left_out.items():
        foot += wrap(f"Left out, {unit}: {why}", width - 2 * _MARGIN, 8.5)
    height = 0.95 + row_height * (len(sheet.rows) + shared) + LINE * len(foot) + 0.15
    page = PageFigure(width, height)
    page.text(_MARGIN, 0.12, sheet.title, fontsize=13, bold=True)
    kind = sheet.settings.get("reference_set", "a reference set that nobody named")
    page.text(_MARGIN, 0.4, f"fitted on: {kind}", fontsize=9, color="#333333")
    for key, start in starts.items():
        page.text(start, 0.7, columns[key], fontsize=9.5, bold=True, color=COLOURS.get(key, "#222222"))

    def strip(key: str, start: float, images: Tensor, texts: Sequence[str] = ()) -> None:
        """Pictures beside one another, with texts below them."""
        for column, image in enumerate(images):
            at = start + column * (_SMALL + gap)
            draw_picture(page, image, at, y, _SMALL, COLOURS.get(key, "#222222"))
            for text in texts[column : column + 1]:
                page.text(at + _SMALL / 2, y + _SMALL + 0.04, text, fontsize=7.5, ha="center")

    y = 0.95
    if shared:
        page.text(_MARGIN, y + _SMALL / 2, LABELS["unedited"], fontsize=9, color=COLOURS["unedited"], va="center")
        for key in [key for key in columns if key != "top"]:
            strip("unedited", starts[key], sheet.rows[0].unedited)
        y += row_height
    for row in sheet.rows:
        weak = row.evidence.weak
        page.text(_MARGIN, y, f"unit {shortened(row.unit, 20)}", fontsize=10, bold=True)
        said = wrap(f"{'WEAK: ' if weak else ''}{evidence_text(row.evidence)}", label - 0.1, 7.5)[:5]
        colour = WARNING if weak else "#333333"
        page.text(_MARGIN, y + 0.2, "\n".join(said), fontsize=7.5, color=colour, linespacing=1.25)
        for key, words in row.words.items():
            named = ", ".join(one.word for one in words.rising) or "no words"
            named = textwrap.shorten(display_text(named), 14 * counts[key], placeholder=" …")
            page.text(starts[key], y + _SMALL + 0.17, named, fontsize=7, color=COLOURS[key])
        for key, start in starts.items():
            strip(key, start, row.pictures[key], row.captions[key])
        y += row_height
    page.lines(_MARGIN, y, foot)
    return page.figure


def dose_response_figure(
    alphas: Sequence[float] | Tensor, changes: Tensor, *, title: str = "Dose-response"
) -> "Figure":
    """The change of the response against the edit weight: every image, their mean, and one SD about it.

    Args:
        alphas: A weights, in any order; the sign picks the prior mean, the size is the weight.
        changes: (A, N) changes against α = 0, in SDs.
        title: Above the plot.

    Returns:
        A figure with a canvas of its own.

    Raises:
        ValueError: The shapes do not fit.
    """
    x = torch.as_tensor(alphas, dtype=torch.float64).cpu()
    if x.ndim != 1 or changes.ndim != 2 or len(x) != len(changes) or changes.numel() == 0:
        raise ValueError(
            f"changes has shape {tuple(changes.shape)} for {x.numel()} alphas; expected ({x.numel()}, N), one row a"
            " weight and one column an image."
        )
    order = x.argsort()
    x, y = x[order], changes.detach().double().cpu()[order]
    mean = y.mean(1)
    page = PageFigure(5.6, 4.0)
    lines = wrap(title, 5.2, 11, bold=True)
    axes = page.axes(0.8, 0.2 + 0.2 * len(lines), 4.6, 3.25 - 0.2 * len(lines))
    axes.axhline(0, color="#555555", lw=0.8, ls="--", zorder=0)
    axes.axvline(0, color="#555555", lw=0.8, ls="--", zorder=0)
    fade = min(0.5, max(0.06, 5 / y.shape[1]))
    for column in y.T:
        axes.plot(x.numpy(), column.numpy(), color="#888888", lw=0.7, alpha=fade, zorder=1)
    if y.shape[1] > 1:
        spread = y.std(1)
        band = (x.numpy(), (mean - spread).numpy(), (mean + spread).numpy())
        axes.fill_between(*band, color=COLOURS["decrease"], alpha=0.18, lw=0, label="± 1 SD over images", zorder=2)
    axes.plot(x.numpy(), mean.numpy(), "o-", color=COLOURS["decrease"], lw=2, ms=5, label="mean", zorder=3)
    axes.set_xlabel("α (negative: towards the suppressed mean)", fontsize=9.5)
    axes.set_ylabel("response change (SDs, against α = 0)", fontsize=9.5)
    axes.set_title("\n".join(lines), fontsize=11, fontweight="bold", loc="left", parse_math=False)
    axes.tick_params(labelsize=8.5)
    axes.legend(fontsize=8.5, frameon=False, loc="best", title=f"{y.shape[1]} images", title_fontsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    return page.figure


def _warning(result: "LensResult") -> str:
    if result.evidence is None:
        return "NO EVIDENCE was gathered for this unit: doubt these pictures."
    if result.evidence.weak:
        return f"WEAK EVIDENCE, doubt these pictures: {'; '.join(result.evidence.reasons)}."
    return ""


def wrap(text: str, width: float, size: float, *, bold: bool = False) -> list[str]:
    """Lines that fit into ``width`` inches at a font size in points."""
    return textwrap.wrap(display_text(text), max(20, int(width * 72 / size / (0.66 if bold or size > 12 else 0.56))))
