"""Cells: a file for each part of a benchmark, in which single rows can be made anew."""

import json
from pathlib import Path
from typing import Any

from vislens_interp.files import write_text


def save_cell(path: Path, found: Any, said: dict[str, Any]) -> None:
    write_text(path, json.dumps({"provenance": said, "found": found}))


def to_redo(path: Path, labels: list[str], said: dict[str, Any]) -> list[str]:
    """Of these methods, those whose rows in a finished cell are of another commit than this one."""
    cell = json.loads(path.read_text())
    made = dict.fromkeys(labels, cell["provenance"]) | cell.get("redone", {})
    return [label for label in labels if made[label]["commit"] != said["commit"]]


def rows_of(found: Any) -> list[dict[str, Any]]:
    """What a cell says of each method."""
    return found["methods"] if isinstance(found, dict) else found


def redo(path: Path, found: Any, labels: list[str], said: dict[str, Any]) -> None:
    """Put the rows of some methods, run anew, in a finished cell, which says so; all else in it stays."""
    cell = json.loads(path.read_text())
    old, new = cell["found"], found
    if isinstance(old, dict) and old["zero"] != new["zero"]:
        raise ValueError(f"--redo: {path.name} has other α = 0 answers than this run; delete it to run it whole.")
    old, new = rows_of(old), rows_of(new)
    old[:] = [row for row in new if row["method"] in labels] + [row for row in old if row["method"] not in labels]
    write_text(path, json.dumps({**cell, "redone": {**cell.get("redone", {}), **dict.fromkeys(labels, said)}}))
