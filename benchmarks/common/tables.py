"""Markdown that every report writes: tables, numbers with intervals, what fails first, and pages from templates."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from vislens_interp.metrics.bootstrap import Interval

Ends: TypeAlias = "Interval | Sequence[float]"  # an interval, or its three numbers: mean, lower and upper end


def table(rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lines of a Markdown table and an empty one; the first row is the head."""
    head, *lines = list(rows)
    shown = [f"| {' | '.join(map(str, row))} |" for row in (head, *lines)]
    return [shown[0], "|---" * len(head) + "|", *shown[1:], ""]


def table_text(rows: Iterable[Sequence[Any]]) -> str:
    """The same as one text, without the empty line."""
    return "\n".join(table(rows)[:-1])


def fill(module: str, name: str, **fields: object) -> str:
    """A template beside a module, its ``{field}`` replaced by the fields, lists of lines among them."""
    text = Path(module).with_name(f"{name}.md").read_text(encoding="utf-8")
    lines = {key: "\n".join(map(str, value)) for key, value in fields.items() if isinstance(value, list)}
    return text.format_map(fields | lines)


def fill_lines(module: str, name: str, **fields: object) -> list[str]:
    """The same as lines, for a part of a page."""
    return fill(module, name, **fields).rstrip("\n").split("\n")


def three(value: Ends) -> Sequence[float]:
    return value if isinstance(value, Sequence) else (value.mean, value.low, value.high)


def signed(value: Ends, digits: int = 2) -> str:
    """A mean with the ends of its interval."""
    return bracketed(value, f"+.{digits}f")


def bracketed(value: Ends, form: str = ".2f") -> str:
    """The same in any format, without signs by default."""
    mean, low, high = three(value)
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def percent(value: Ends, digits: int = 0) -> str:
    """A share with the ends of its interval, in percent."""
    mean, low, high = (100 * one for one in three(value))
    return f"{mean:.{digits}f} % [{low:.{digits}f}, {high:.{digits}f}]"


def above(interval: Ends) -> bool | None:
    """Whether a difference is above zero; None where its interval holds zero."""
    _, low, high = three(interval)
    return None if low <= 0 <= high else low > 0


def not_below(interval: Ends) -> bool | None:
    """Whether a difference is not below zero; None where its interval holds numbers below and above."""
    _, low, high = three(interval)
    return True if low >= 0 else False if high < 0 else None


def ends(value: "Interval") -> dict[str, float]:
    """An interval as JSON holds it."""
    return {"mean": value.mean, "low": value.low, "high": value.high}


def over_units(values: ArrayLike) -> "Interval":
    """Mean and bootstrap interval of one number a unit."""
    from vislens_interp.metrics.bootstrap import interval  # not above: a tool's own environment lacks what it needs

    return interval(values, levels=("unit",))


def verdict(checks: Mapping[str, bool | None], left_out: Iterable[str] = ()) -> list[str]:
    """What was wanted and is not seen, first, with further list items; then what is open (None); then what holds."""
    failed, unsure, held = (
        [f"- {text}" for text, met in checks.items() if met is wanted] for wanted in (False, None, True)
    )
    lines = ["**What fails, first.**", "", *(failed or ["- Nothing of what was asked."]), *left_out, ""]
    lines += ["**What is open.**", "", *unsure, ""] if unsure else []
    return [*lines, "**What holds.**", "", *(held or ["- Nothing."]), ""]


def ran_at(sources: Iterable[Mapping[str, Any]]) -> str:
    """Commits and machines at which cells were run, each once."""
    sources = list(sources)
    commits = sorted({(one["commit"] or "none")[:10] + "+" * bool(one["dirty"]) for one in sources})
    return f"{', '.join(commits)} on {', '.join(sorted({one['device'] for one in sources}))}"


def against_rivals(differences: Mapping[tuple[str, str, float], Sequence[float]], counted: str = "") -> list[str]:
    """Ours minus each rival's: how often it loses, wins or neither, and a table with what it loses in bold.

    ``differences`` are mean and ends by rival, direction and edit angle; ``counted`` is said after their number.
    """
    lost = [key for key, (_, _, high) in differences.items() if high < 0]
    won = sum(low > 0 for _, low, _ in differences.values())
    shown = {key: f"**{signed(value)}**" if key in lost else signed(value) for key, value in differences.items()}
    rows = dict.fromkeys((rival, way) for rival, way, _ in differences)
    angles = list(dict.fromkeys(angle for *_, angle in differences))
    head = ["ours minus", "direction", *(f"{angle:.0f}°" for angle in angles)]
    text = f"**Ours loses in {len(lost)} of {len(differences)} comparisons**{counted}, wins in {won}, and "
    text += "in the others the interval holds 0. Losses are bold."
    return [text, "", *table([head, *([*row, *(shown[*row, angle] for angle in angles)] for row in rows)])]


def angles_table(
    labels: Iterable[str], angles: Sequence[float], cell: Callable[[str], Sequence[str]], *columns: str
) -> list[str]:
    """Methods by edit angles; ``cell(label)`` gives a row's cells."""
    head = ["method", *(f"{angle:.0f}°" for angle in angles), *columns]
    return table([head, *([label, *cell(label)] for label in labels)])[:-1]
