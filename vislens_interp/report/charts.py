"""Charts of the report as inline SVG: drawn by hand, so that they take their colours from the page's colour scheme."""

import math
from collections.abc import Mapping, Sequence
from html import escape

import torch
from torch import Tensor

WIDTH, HEIGHT = 380, 270
"""As wide as a phone, so that text keeps its size there."""
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 38
STEPS = 9
"""Colours of the landscape, from suppressed to preferred; the page's style names them h0 to h8."""
LINES = 40
"""Single images drawn behind a mean."""


def number(value: float) -> str:
    """Two decimals with a sign, and a minus that is as wide as the plus."""
    return f"{value:+.2f}".replace("-", "−")


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
            plot.add(f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{plot.y(0) - y:.1f}"/>')
    plot.add(_line("zero", plot.x(0), TOP, plot.x(0), plot.y(0)))
    for row, (key, values) in enumerate(marked.items()):
        y = plot.y(0) + BOTTOM + rail * row + 6
        plot.add(
            f'<text class="{key} label" x="{plot.left - 8}" y="{y + 4:.1f}" text-anchor="end">{labels[key]}</text>'
        )
        plot.add(_line("grid", plot.left, y, plot.width - RIGHT, y))
        values = values[values.isfinite()]
        for value in values.tolist():
            plot.add(f'<circle class="{key} dot" cx="{plot.x(value):.1f}" cy="{y:.1f}" r="3.5"/>')
        if len(values) > 1:
            x = plot.x(values.mean().item())
            plot.add(_line(f"{key} mean", x, y - 7, x, y + 7))
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
    plot.add(_line("zero", plot.left, plot.y(0), plot.width - RIGHT, plot.y(0)))
    plot.add(_line("zero", plot.x(0), TOP, plot.x(0), plot.bottom))
    across = [plot.x(alpha) for alpha in alphas]
    if changes.shape[1] > 1:
        edge = [*zip(across, (mean + spread).tolist(), strict=True)]
        edge += [*zip(across, (mean - spread).tolist(), strict=True)][::-1]
        plot.add(f'<polygon class="band" points="{" ".join(f"{x:.1f},{plot.y(y):.1f}" for x, y in edge)}"/>')
        for column in changes.T[:LINES].tolist():
            plot.add(f'<polyline class="one" points="{_points(plot, across, column)}"/>')
    plot.add(f'<polyline class="average" points="{_points(plot, across, mean.tolist())}"/>')
    for x, y in zip(across, mean.tolist(), strict=True):
        plot.add(f'<circle class="averages" cx="{x:.1f}" cy="{plot.y(y):.1f}" r="4"/>')
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
            plot.add(f'<path class="h{step}" d="{path}"/>')
    plot.axes("the unit's axis: suppressed left, preferred right", "main other direction, SDs", grid=False)
    start = moves.get("unedited", torch.zeros(0, 2))
    for key, ends in moves.items():
        if key != "unedited":
            for (x0, y0), (x1, y1) in zip(start.tolist()[:LINES], ends.tolist()[:LINES], strict=True):
                plot.add(_arrow(key, plot.x(x0), plot.y(y0), plot.x(x1), plot.y(y1)))
    for x, y in start.tolist()[:LINES]:
        plot.add(f'<circle class="start" cx="{plot.x(x):.1f}" cy="{plot.y(y):.1f}" r="3"/>')
    for places in means.values():
        for mode, (x, y) in enumerate(places.tolist()):
            plot.add(_cross(plot.x(x), plot.y(y), str(mode + 1) if len(places) > 1 else ""))
    side = 20
    first = (plot.width - STEPS * side) / 2
    y = plot.height - 28
    for step in range(STEPS):
        plot.add(f'<rect class="h{step}" x="{first + step * side:.1f}" y="{y}" width="{side}" height="10"/>')
    for step, text in ((0, f"≤ {number(-limit)}"), ((STEPS - 1) / 2, "0"), (STEPS - 1, f"≥ {number(limit)}")):
        x = first + (step + 0.5) * side
        plot.add(f'<text class="tick" x="{x:.1f}" y="{y + 22}" text-anchor="middle">{text}</text>')
    plot.add(f'<text class="tick" x="{first - 8:.1f}" y="{y + 9}" text-anchor="end">mean response</text>')
    plot.add(f'<text class="tick" x="{first + STEPS * side + 8:.1f}" y="{y + 9}">SDs</text>')
    return plot.svg(title, description)


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
        width: int = WIDTH,
        height: int = HEIGHT,
        left: int = LEFT,
        bottom: int = BOTTOM,
    ) -> None:
        self.x_range, self.y_range = (x0, x1), (y0, y1)
        self.width, self.height, self.left = width, height, left
        self.bottom = height - bottom
        self.parts: list[str] = []

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.width - RIGHT - self.left)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * (self.bottom - TOP)

    def add(self, part: str) -> None:
        self.parts.append(part)

    def axes(self, x_label: str, y_label: str, *, whole: bool = False, grid: bool = True) -> None:
        for value in _ticks(*self.x_range):
            x = self.x(value)
            self.add(
                f'<text class="tick" x="{x:.1f}" y="{self.bottom + 14}" text-anchor="middle">{_tick(value)}</text>'
            )
        for value in _ticks(*self.y_range):
            if whole and value != int(value):
                continue
            y = self.y(value)
            if grid:
                self.add(_line("grid", self.left, y, self.width - RIGHT, y))
            self.add(f'<text class="tick" x="{self.left - 5}" y="{y + 4:.1f}" text-anchor="end">{_tick(value)}</text>')
        middle = (self.left + self.width - RIGHT) / 2
        self.add(f'<text class="label" x="{middle:.1f}" y="{self.bottom + 30}" text-anchor="middle">{x_label}</text>')
        up = (TOP + self.bottom) / 2
        at = self.left - 32
        turn = f"translate({at} {up:.1f}) rotate(-90)"
        self.add(f'<text class="label" transform="{turn}" text-anchor="middle">{y_label}</text>')
        self.add(_line("edge", self.left, self.bottom, self.width - RIGHT, self.bottom))

    def svg(self, title: str, description: str) -> str:
        said = escape(f"{title}. {description}", quote=True)
        return (
            f'<svg class="chart" viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{said}">'
            f"{''.join(self.parts)}</svg>"
        )


def _line(kind: str, x0: float, y0: float, x1: float, y1: float) -> str:
    return f'<line class="{kind}" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>'


def _points(plot: _Plot, across: list[float], values: list[float]) -> str:
    return " ".join(f"{x:.1f},{plot.y(y):.1f}" for x, y in zip(across, values, strict=True) if math.isfinite(y))


def _arrow(key: str, x0: float, y0: float, x1: float, y1: float) -> str:
    length = math.hypot(x1 - x0, y1 - y0)
    if length < 1:
        return ""
    a, b = (x1 - x0) / length, (y1 - y0) / length
    size = min(6.0, length)
    wings = [(x1 - size * a + sign * size / 2 * -b, y1 - size * b + sign * size / 2 * a) for sign in (1, -1)]
    head = " ".join(f"{x:.1f},{y:.1f}" for x, y in [(x1, y1), *wings])
    return f'{_line(f"{key} arrow", x0, y0, x1, y1)}<polygon class="{key} head" points="{head}"/>'


def _cross(x: float, y: float, text: str) -> str:
    """Where a prior mean lies, with a rim, so that it is seen on every colour."""
    size = 7
    d = f"M{x - size:.1f} {y:.1f}h{2 * size}M{x:.1f} {y - size:.1f}v{2 * size}"
    label = f'<text class="modelabel" x="{x + 8:.1f}" y="{y - 6:.1f}">{text}</text>' if text else ""
    return f'<path class="rim" d="{d}"/><path class="cross" d="{d}"/>{label}'


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
