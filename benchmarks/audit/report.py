"""The page of ``benchmarks.audit``, from the records that are there."""

from pathlib import Path
from typing import Any


def write(cells: dict[str, Any], folder: Path) -> None:
    """``audit.json`` and ``audit.md``."""
    print(f"{len(cells)} cells in {folder}")
