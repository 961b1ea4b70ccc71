"""What each benchmark was meant to show and what it measured, read from the JSON that it wrote.

A benchmark whose JSON states its own ``checks`` (a sentence that holds the figures, and whether it is true) and
``measures`` (the fields of :class:`Measure`) needs no reader: :func:`stated` is the default. ``findings`` of a report
is for aims that compare a figure with a limit. What has not been measured is ``met=None``, never true.
"""

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.common.tables import Ends, three

BOOTSTRAP = "95 % bootstrap interval over units first"
NEURONS = "95 % bootstrap over neurons"
QUARTILES = "quartiles over rounds"


@dataclass(frozen=True)
class Aim:
    """One thing that was wanted: a sentence with the figure, and whether it was reached; None is open."""

    what: str
    met: bool | None


@dataclass(frozen=True)
class Measure:
    """One figure with its spread, for the table at the head of the page; measures of one ``what`` share a row."""

    what: str
    value: float
    unit: str  # `"SD"`, `"share"` (0 to 1), `"ratio"`, `"s"` or `""`
    sample: str  # how much it rests on, in words
    low: float | None = None  # lower end of the spread; None where there is none
    high: float | None = None
    spread: str = ""  # what the two ends are
    direction: str = ""  # `"increase"`, `"decrease"` or `""`

    def __str__(self) -> str:
        if self.unit == "share":
            percent = 100.0 if self.value >= 1 else min(round(100 * self.value, 1), 99.9)  # 100 % means all
            return f"{percent:.1f} %"
        sign, after = ("+", " SD") if self.unit == "SD" else ("", {"s": " s"}.get(self.unit, ""))
        shown = [f"{value:{sign}.2f}" for value in (self.value, self.low, self.high) if value is not None]
        return shown[0] + after + (f" [{shown[1]}, {shown[2]}]" if len(shown) == 3 else "")


def stated_measures(measures: list[Measure]) -> list[dict[str, Any]]:
    """As a file states them: what is left out is the default."""
    return [{key: value for key, value in asdict(one).items() if value not in (None, "")} for one in measures]


def measure(what: str, value: Ends, unit: str, sample: str, way: str = "", spread: str = NEURONS) -> Measure:
    """A measure of an interval, or of its three numbers."""
    mean, low, high = three(value)
    return Measure(what, mean, unit, sample, low, high, spread, way)


@dataclass(frozen=True)
class Findings:
    """Everything that one benchmark's JSON says about its aims."""

    aims: tuple[Aim, ...] = ()
    measures: tuple[Measure, ...] = ()


def stated(numbers: dict[str, Any]) -> Findings:
    """A file that says itself what held (``checks``) and what the figures are (``measures``)."""
    aims = tuple(Aim(text, met) for text, met in numbers.get("checks", {}).items())
    return Findings(aims, tuple(Measure(**one) for one in numbers.get("measures", ())))
