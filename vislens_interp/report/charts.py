"""Charts of the report as inline SVG: drawn by hand, so that they take their colours from the page's colour scheme."""

import math
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

import torch
from torch import Tensor

from vislens_interp.tables import display_text

WIDTH, HEIGHT = 380, 270
"""As wide as a phone, so that text keeps its size there."""
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 38
STEPS = 9
"""Colours of the landscape, from suppressed to preferred; the page's style names them h0 to h8."""
LINES = 40
"""Single images drawn behind a mean."""


def number(value: float | Tensor) -> str:
    """Two decimals with a sign, and a minus that is as wide as the plus."""
    return f"{float(value):+.2f}".replace("-", "−")


def histogram(
    reference: Tensor, marked: Mapping[str, Tensor], labels: Mapping[str, str], *, title: str, description: str
) -> str:
    """How often the reference images have which response, and below it where the shown images lie.

    Args:
        reference: (R,) responses in SDs.
        marked: Key to (N,) responses in SDs; the key is the class of its marks.
        labels: Key to what is written beside its marks.
        title: What a screen reader calls the chart.
        description: What it says of it.
    """
    reference = reference[reference.isfinite()]
    every = torch.cat([reference, *(value[value.isfinite()] for value in marked.values())])
    low, high = _padded(every.min().item(), every.max().item())
    rail = 16
    plot = _Plot(low, high, 0, 1, height=HEIGHT + rail * len(marked), bottom=BOTTOM + rail * len(marked), left=86)
    bins = min(40, max(8, int(len(reference) ** 0.5)))
    first, last = reference.min().item(), max(reference.max().item(), reference.min().item() + 1e-6)
    counts = torch.histc(reference.float(), bins, first, last)
    plot.y_range = (0.0, counts.max().item() * 1.05)
    plot.axes("response, SDs of the reference set", "reference images", whole=True)
    step = (last - first) / bins
    for index, count in enumerate(counts.tolist()):
        if count:
            x, y = plot.x(first + index * step), plot.y(count)
            width = plot.x(first + (index + 1) * step) - x
            plot.add("rect", "bar", x=x, y=y, width=width, height=plot.y(0) - y)
    plot.line("zero", plot.x(0), TOP, plot.x(0), plot.y(0))
    for row, (key, values) in enumerate(marked.items()):
        y = plot.y(0) + BOTTOM + rail * row + 6
        plot.add("text", f"{key} label", labels[key], x=plot.left - 8, y=y + 4, text_anchor="end")
        plot.line("grid", plot.left, y, WIDTH - RIGHT, y)
        values = values[values.isfinite()]
        for value in values.tolist():
            plot.add("circle", f"{key} dot", cx=plot.x(value), cy=y, r=3.5)
        if len(values) > 1:
            x = plot.x(values.mean().item())
            plot.line(f"{key} mean", x, y - 7, x, y + 7)
    return plot.svg(title, description)


def dose_response(alphas: Sequence[float], changes: Tensor, *, title: str, description: str) -> str:
    """The change of the response against the weight of the edit: every image, their mean and one SD about it.

    Args:
        alphas: A signed weights, ascending.
        changes: (A, N) in SDs, against α = 0.
        title: What a screen reader calls the chart.
        description: What it says of it.
    """
    changes = changes.double()
    mean = changes.mean(1)
    spread = changes.std(1) if changes.shape[1] > 1 else torch.zeros_like(mean)
    low = min(changes.min().item(), (mean - spread).min().item(), 0.0)
    high = max(changes.max().item(), (mean + spread).max().item(), 0.0)
    low, high = _padded(low, high)
    plot = _Plot(min(alphas) - 0.05, max(alphas) + 0.05, low, high)
    plot.axes("α (negative: towards the suppressed mean)" if min(alphas) < 0 else "α", "response change, SDs")
    plot.line("zero", plot.left, plot.y(0), WIDTH - RIGHT, plot.y(0))
    plot.line("zero", plot.x(0), TOP, plot.x(0), plot.bottom)
    across = [plot.x(alpha) for alpha in alphas]
    if changes.shape[1] > 1:
        edge = [*(mean + spread).tolist(), *(mean - spread).tolist()[::-1]]
        plot.add("polygon", "band", points=_points(plot, across + across[::-1], edge))
        for column in changes.T[:LINES].tolist():
            plot.add("polyline", "one", points=_points(plot, across, column))
    plot.add("polyline", "average", points=_points(plot, across, mean.tolist()))
    for x, y in zip(across, mean.tolist(), strict=True):
        plot.add("circle", "averages", cx=x, cy=plot.y(y), r=4)
    return plot.svg(title, description)


def landscape(
    positions: Tensor,
    responses: Tensor,
    means: Mapping[str, Tensor],
    moves: Mapping[str, Tensor],
    *,
    title: str,
    description: str,
) -> str:
    """The landscape from above: two latent axes, the mean response of the images at each place as colour.

    Args:
        positions: (R, 2) the reference latents.
        responses: (R,) their responses in SDs.
        means: Direction to (modes, 2): where the prior means lie.
        moves: ``"unedited"`` and directions to (N, 2): arrows go from the first to the others.
        title: What a screen reader calls the chart.
        description: What it says of it.

    Source: Figure 1, its height as colour.
    """
    usable = responses.isfinite()
    positions, responses = positions[usable], responses[usable]
    placed = torch.cat([positions, *means.values(), *moves.values()])
    left, right = _padded(placed[:, 0].min().item(), placed[:, 0].max().item())
    # A few far outliers would press all others together.
    height = torch.cat([positions[:, 1].quantile(torch.tensor([0.005, 0.995])), placed[len(positions) :, 1]])
    low, high = _padded(height.min().item(), height.max().item())
    legend = 38
    plot = _Plot(left, right, low, high, height=HEIGHT + 60 + legend, bottom=BOTTOM + legend)
    cells = _cells(plot, positions, responses)
    sizes = torch.tensor([abs(value) for _, _, value in cells] or [0.5])
    limit = max(0.5, sizes.quantile(0.95).item())  # a few strong places would leave all others pale
    paths = [""] * STEPS
    radius = _RADIUS
    for x, y, value in cells:
        step = min(STEPS - 1, max(0, round((value / limit + 1) / 2 * (STEPS - 1))))
        w, h = radius * math.sqrt(3) / 2, radius / 2
        paths[step] += f"M{x:.1f} {y - radius:.1f}l{w:.1f} {h:.1f}v{radius:.1f}l{-w:.1f} {h:.1f}l{-w:.1f} {-h:.1f}"
        paths[step] += f"v{-radius:.1f}z"
    for step, path in enumerate(paths):
        if path:
            plot.add("path", f"h{step}", d=path)
    plot.axes("the unit's axis: suppressed left, preferred right", "main other direction, SDs", grid=False)
    start = moves.get("unedited", torch.zeros(0, 2))
    for key, ends in moves.items():
        if key != "unedited":
            for (x0, y0), (x1, y1) in zip(start.tolist()[:LINES], ends.tolist()[:LINES], strict=True):
                plot.arrow(key, plot.x(x0), plot.y(y0), plot.x(x1), plot.y(y1))
    for x, y in start.tolist()[:LINES]:
        plot.add("circle", "start", cx=plot.x(x), cy=plot.y(y), r=3)
    for places in means.values():
        for mode, (x, y) in enumerate(places.tolist()):
            plot.cross(plot.x(x), plot.y(y), str(mode + 1) if len(places) > 1 else "")
    _colour_scale(plot, limit)
    return plot.svg(title, description)


def _colour_scale(plot: "_Plot", limit: float) -> None:
    side = 20
    first = (WIDTH - STEPS * side) / 2
    y = plot.height - 28
    for step in range(STEPS):
        plot.add("rect", f"h{step}", x=first + step * side, y=y, width=side, height=10)
    for step, text in ((0, f"≤ {number(-limit)}"), ((STEPS - 1) / 2, "0"), (STEPS - 1, f"≥ {number(limit)}")):
        plot.add("text", "tick", text, x=first + (step + 0.5) * side, y=y + 22, text_anchor="middle")
    plot.add("text", "tick", "mean response", x=first - 8, y=y + 9, text_anchor="end")
    plot.add("text", "tick", "SDs", x=first + STEPS * side + 8, y=y + 9)


_RADIUS = 7.5


def _cells(plot: "_Plot", positions: Tensor, responses: Tensor) -> list[tuple[float, float, float]]:
    """Hexagons that hold at least one reference image: centre in pixels, and mean response."""
    wide, tall = _RADIUS * math.sqrt(3), _RADIUS * 1.5
    found: dict[tuple[int, int], list[float]] = {}
    for (a, b), response in zip(positions.tolist(), responses.tolist(), strict=True):
        x, y = plot.x(a) - plot.left, plot.y(b) - TOP
        if 0 <= y <= plot.bottom - TOP:
            # The nearest centre is on one of the two rows about the point.
            rows = (math.floor(y / tall), math.floor(y / tall) + 1)
            near = [(row, round(x / wide - (row % 2) / 2)) for row in rows]
            best = min(near, key=lambda at: (x - (at[1] + at[0] % 2 / 2) * wide) ** 2 + (y - at[0] * tall) ** 2)
            found.setdefault(best, []).append(response)
    return [
        (plot.left + (column + row % 2 / 2) * wide, TOP + row * tall, sum(values) / len(values))
        for (row, column), values in sorted(found.items())
    ]


class _Plot:
    """A rectangle with axes, and what is drawn in it, in pixels of the SVG."""

    def __init__(
        self,
        x0: float,
        x1: float,
        y0: float,
        y1: float,
        *,
        height: int = HEIGHT,
        left: int = LEFT,
        bottom: int = BOTTOM,
    ) -> None:
        self.x_range, self.y_range = (x0, x1), (y0, y1)
        self.height, self.left = height, left
        self.bottom = height - bottom
        self.root = ElementTree.Element("svg", {"class": "chart", "viewBox": f"0 0 {WIDTH} {height}", "role": "img"})

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (WIDTH - RIGHT - self.left)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * (self.bottom - TOP)

    def add(self, tag: str, kind: str, text: str = "", **attributes: str | float) -> None:
        """A shape of a class of the page's style sheet; ElementTree escapes what is written in it."""
        written = {name.replace("_", "-"): value for name, value in attributes.items()}
        written = {name: f"{value:.1f}" if isinstance(value, float) else str(value) for name, value in written.items()}
        ElementTree.SubElement(self.root, tag, {"class": kind, **written}).text = display_text(text) or None

    def line(self, kind: str, x0: float, y0: float, x1: float, y1: float) -> None:
        self.add("line", kind, x1=x0, y1=y0, x2=x1, y2=y1)

    def arrow(self, kind: str, x0: float, y0: float, x1: float, y1: float) -> None:
        length = math.hypot(x1 - x0, y1 - y0)
        if not length >= 1:
            return
        a, b = (x1 - x0) / length, (y1 - y0) / length
        size = min(6.0, length)
        wings = [(x1 - size * a + sign * size / 2 * -b, y1 - size * b + sign * size / 2 * a) for sign in (1, -1)]
        self.line(f"{kind} arrow", x0, y0, x1, y1)
        self.add("polygon", f"{kind} head", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in [(x1, y1), *wings]))

    def cross(self, x: float, y: float, text: str) -> None:
        """Where a prior mean lies, with a rim, so that it is seen on every colour."""
        size = 7
        for kind in ("rim", "cross"):
            self.add("path", kind, d=f"M{x - size:.1f} {y:.1f}h{2 * size}M{x:.1f} {y - size:.1f}v{2 * size}")
        if text:
            self.add("text", "modelabel", text, x=x + 8, y=y - 6)

    def axes(self, x_label: str, y_label: str, *, whole: bool = False, grid: bool = True) -> None:
        for value in _ticks(*self.x_range):
            self.add("text", "tick", _tick(value), x=self.x(value), y=self.bottom + 14, text_anchor="middle")
        for value in _ticks(*self.y_range):
            if whole and value != int(value):
                continue
            y = self.y(value)
            if grid:
                self.line("grid", self.left, y, WIDTH - RIGHT, y)
            self.add("text", "tick", _tick(value), x=self.left - 5, y=y + 4, text_anchor="end")
        middle = (self.left + WIDTH - RIGHT) / 2
        self.add("text", "label", x_label, x=middle, y=self.bottom + 30, text_anchor="middle")
        turn = f"translate({self.left - 32} {(TOP + self.bottom) / 2:.1f}) rotate(-90)"
        self.add("text", "label", y_label, transform=turn, text_anchor="middle")
        self.line("edge", self.left, self.bottom, WIDTH - RIGHT, self.bottom)

    def svg(self, title: str, description: str) -> str:
        self.root.set("aria-label", display_text(f"{title}. {description}"))
        return ElementTree.tostring(self.root, encoding="unicode")


def _points(plot: _Plot, across: list[float], values: list[float]) -> str:
    return " ".join(f"{x:.1f},{plot.y(y):.1f}" for x, y in zip(across, values, strict=True) if math.isfinite(y))


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = 0.06 * (high - low) or 0.5
    return low - pad, high + pad


def _ticks(low: float, high: float) -> list[float]:
    """About five round values between two."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _tick(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")
