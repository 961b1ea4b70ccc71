"""JSON files of benchmarks: cells, which a run writes one after the other and goes on from, and pages of results."""

import json
from pathlib import Path
from typing import Any

from vislens_interp.files import write_text


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_all(folder: Path, pattern: str) -> list[Any]:
    """What the files of a pattern hold, in the order of their names."""
    return [read(path) for path in sorted(folder.glob(pattern))]


def save_cell(path: Path, found: Any, said: dict[str, Any]) -> None:
    write_text(path, json.dumps({"provenance": said, "found": found}))


def publish(stem: Path, text: str, numbers: Any) -> None:
    """``STEM.md`` and ``STEM.json``; the page is printed too."""
    write_text(stem.with_suffix(".md"), text)
    write_text(stem.with_suffix(".json"), json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    print(text)


def refuse_other_settings(out: Path, settings: dict[str, Any]) -> None:
    """Raise ValueError if ``out`` was begun with other settings; its first run writes them there."""
    path = out / "settings.json"
    if not path.is_file():
        write_text(path, json.dumps(settings))
        return
    before = read(path)
    changed = [f"{key}={before.get(key)!r}, now {now!r}" for key, now in settings.items() if before.get(key) != now]
    if changed:
        raise ValueError(
            f"--out {out} was begun with {'; '.join(changed)}; expected the same settings. Take another folder."
        )
