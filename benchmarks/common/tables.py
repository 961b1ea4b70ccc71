"""Markdown that every report writes: tables, numbers with intervals, what fails first, and pages from templates."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def table(rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lines of a Markdown table and an empty one; the first row is the head."""
    head, *lines = list(rows)
    shown = [f"| {' | '.join(map(str, row))} |" for row in (head, *lines)]
    return [shown[0], "|---" * len(head) + "|", *shown[1:], ""]


def table_text(rows: Iterable[Sequence[Any]]) -> str:
    """The same as one text, without the empty line."""
    return "\n".join(table(rows)[:-1])


def fill(module: str, name: str, **fields: Any) -> str:
    """A template beside a module, its ``{field}`` replaced by the fields, lists of lines among them."""
    text = Path(module).with_name(f"{name}.md").read_text(encoding="utf-8")
    lines = {key: "\n".join(map(str, value)) for key, value in fields.items() if isinstance(value, list)}
    return text.format_map(fields | lines)


def fill_lines(module: str, name: str, **fields: Any) -> list[str]:
    """The same as lines, for a part of a page."""
    return fill(module, name, **fields).rstrip("\n").split("\n")


def signed(value: Any, digits: int = 2) -> str:
    """A mean with the ends of its interval, from an interval or from three numbers."""
    mean, low, high = value if isinstance(value, Sequence) else (value.mean, value.low, value.high)
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def ends(value: Any) -> dict[str, float]:
    """An interval as JSON holds it."""
    return {"mean": value.mean, "low": value.low, "high": value.high}


def over_units(values: Any) -> Any:
    """Mean and bootstrap interval of one number a unit."""
    from vislens_interp.metrics.bootstrap import interval  # not above: a tool's own environment lacks what it needs

    return interval(values, levels=("unit",))


def verdict(checks: Mapping[str, bool | None], left_out: Iterable[str] = ()) -> list[str]:
    """What was wanted and is not seen, first; then what is open; then what holds.

    Args:
        checks: Sentence to whether it holds; None where noise leaves it open.
        left_out: Further list items under what fails.
    """
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


def against_rivals(differences: Iterable[tuple[str, Sequence[float]]], counted: str = "") -> list[str]:
    """Where ours wins, ties or loses, losses first: sentences, and the mean and ends of ours minus a rival's."""
    found: dict[str, list[str]] = {"Ours loses": [], "Neither way": [], "Ours wins": []}
    for text, (mean, low, high) in differences:
        title = "Neither way" if low <= 0 <= high else "Ours wins" if mean > 0 else "Ours loses"
        found[title].append(f"- {text}")
    total = sum(map(len, found.values()))
    lines: list[str] = []
    for title, items in found.items():
        lines += [f"**{title}** in {len(items)} of {total} comparisons{counted}:", *(items or ["- none"]), ""]
    return lines


def angles_table(labels: Iterable[str], angles: Sequence[float], cell: Any, *columns: str) -> list[str]:
    """Methods by edit angles; ``cell(label)`` gives a row's cells."""
    head = ["method", *(f"{angle:.0f}°" for angle in angles), *columns]
    return table([head, *([label, *cell(label)] for label in labels)])[:-1]
