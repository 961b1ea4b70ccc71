"""Markdown that every report writes: tables, numbers with intervals, and what fails first."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines of a Markdown table and an empty one; the first row is the head."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return [lines[0], "|---" * len(rows[0]) + "|", *lines[1:], ""]


def signed(value: Any, digits: int = 2) -> str:
    """A mean with the ends of its interval, from an object or a mapping with ``mean``, ``low`` and ``high``."""
    if isinstance(value, Mapping):
        mean, low, high = value["mean"], value["low"], value["high"]
    elif isinstance(value, Sequence):
        mean, low, high = value
    else:
        mean, low, high = value.mean, value.low, value.high
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def ends(value: Any) -> dict[str, float]:
    """An interval as JSON holds it."""
    return {"mean": value.mean, "low": value.low, "high": value.high}


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
