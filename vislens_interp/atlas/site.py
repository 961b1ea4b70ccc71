"""The site of an atlas: a page a unit, an index with search, filters and a map; static files that need no network."""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from vislens_interp.atlas.pictures import CELL
from vislens_interp.atlas.store import TABLE, AtlasStore
from vislens_interp.files import write_folder, write_text
from vislens_interp.landscape.calibration import operating_point
from vislens_interp.report.charts import number
from vislens_interp.report.render import escaping_environment
from vislens_interp.targets.pooling import pool_text

if TYPE_CHECKING:
    from jinja2 import Environment

UNITS_A_FILE = 1000
"""Units in one of the index's files, so that the first are there before the last are read."""
ASSETS = ("atlas.css", "index.js", "unit.js", "map.js", "data.js", "compare.js")
PAGES, SITE = "unit", "site"
ON_A_CARD = 3
"""Photographs of a unit on its card; the index's search knows the names of so many top images, too."""
TOP, INPUTS = 0, 1
"""Lines of a sheet."""


@cache
def environment() -> "Environment":
    """That of the site, with its filters."""
    made = escaping_environment("vislens_interp.atlas")
    made.filters |= {"two": two, "signed": number, "operating_point": operating_point}
    made.filters["stem"] = lambda name: Path(name).name
    return made


def two(value: float | None) -> str:
    """Two decimals, or a dash."""
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def write_site(store: AtlasStore) -> Path:
    """Write the site of a finished atlas into its folder, and return the index."""
    rows = store.table().to_pylist()
    about = describe(store, rows)
    columns = sheet_columns(store.folder, rows)
    by_unit = {row["unit"]: row for row in rows}
    page = environment().get_template("unit.html")

    def pages(folder: Path) -> None:
        for place, row in enumerate(rows):
            text = page.render(
                row=row,
                about=about,
                columns=columns,
                before=rows[place - 1]["unit"] if place else None,
                after=rows[place + 1]["unit"] if place + 1 < len(rows) else None,
                neighbours=[
                    (by_unit[unit], alike)
                    for unit, alike in zip(row["neighbours"], row["likeness"], strict=True)
                    if unit in by_unit
                ],
                chart=dose_chart(row),
                sheet_rows=sheet_rows,
                on_card=lambda other: on_card(other, about["driving"]),
                root="../",
            )
            write_text(folder / f"{row['unit']}.html", text)

    def assets(folder: Path) -> None:
        for name in ASSETS:
            write_text(folder / name, (files("vislens_interp.atlas") / "assets" / name).read_text(encoding="utf-8"))
        parts = []
        for start in range(0, len(rows), UNITS_A_FILE):
            parts.append(f"units-{start:06d}.json")
            entries = [_entry(row, about["driving"]) for row in rows[start : start + UNITS_A_FILE]]
            write_text(folder / parts[-1], json.dumps(entries, separators=(",", ":"), allow_nan=False))
        content = {"parts": parts, "units": len(rows), "columns": columns, "key": store.manifest["fit"]["key"]}
        write_text(folder / "index.json", json.dumps(content, sort_keys=True))

    write_folder(store.folder / PAGES, pages)
    write_folder(store.folder / SITE, assets)
    return write_index(store, about)


def write_index(store: AtlasStore, about: Mapping[str, object]) -> Path:
    """Write the page with search and map, which links the comparisons with other atlases."""
    others = {name: content["title"] for name, content in store.comparisons().items()}
    text = environment().get_template("index.html").render(about=about, table=TABLE, others=others, root="")
    return write_text(store.folder / "index.html", text)


def check_site(store: AtlasStore) -> None:
    """Raise FileNotFoundError where an atlas has no site."""
    if not (store.folder / "index.html").is_file():
        raise FileNotFoundError(
            f"folder={str(store.folder)!r} holds an atlas without a site; write it: vislens atlas with the same"
            " arguments, or Atlas.save(..., site=True)."
        )


def describe(store: AtlasStore, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What every page says of the atlas."""
    fit = store.manifest["fit"]
    target, reference, settings = fit["target"], fit["reference"], fit["settings"]
    return {
        "title": store.title,
        "summary": store.counts(),
        "units": len(rows),
        "dead": [row["unit"] for row in rows if row["state"] != "alive"],
        "duplicates": [(row["unit"], row["duplicate_of"]) for row in rows if row["duplicate_of"] is not None],
        "reference": f"{reference['images']:,} images ({reference['kind']})",
        "pool": pool_text(target),
        "fingerprint": target.get("fingerprint"),
        "backend": fit["backend"]["name"],
        "version": fit["version"],
        # Of each unit's inputs, how many are prototypes that drive it; the others are those that do not.
        "driving": (settings["inputs"] + 1) // 2 if settings.get("prototypes") else 0,
    }


def dose_chart(row: dict[str, Any]) -> dict[str, Any] | None:
    """Coordinates of a unit's dose-response in a box of 300 x 140, or None."""
    doses, values = row["doses"], row["dose_response"]
    if not values or not all(math.isfinite(value) for value in values):
        return None
    most = max(1e-6, *(abs(value) for value in values))
    points = [
        (150 + 125 * dose, 70 - 48 * value / most, dose, value) for dose, value in zip(doses, values, strict=True)
    ]
    return {"points": points, "line": " ".join(f"{x:.1f},{y:.1f}" for x, y, *_ in points)}


def sheet_rows(row: Mapping[str, object]) -> int:
    """Rows of a unit's sheet: top images, and inputs with edits both ways where they were made."""
    return 0 if row["sheet"] is None else 1 if row["increase"] is None else 4


def sheet_columns(folder: Path, rows: Sequence[Mapping[str, Any]]) -> int:
    """Cells beside one another on the sheets of an atlas, all of one width: also where a unit's pictures failed."""
    for path in (row["sheet"] for row in rows if row["sheet"] is not None):
        with suppress(OSError), Image.open(folder / path) as opened:  # a damaged one says nothing
            return opened.width // CELL
    return 1


def on_card(row: Mapping[str, Any], driving: int) -> tuple[int, list[str]]:
    """Line of a unit's sheet whose first photographs its card shows, and their names: prototypes if there are three."""
    line, names = (INPUTS, row["inputs"]) if driving >= ON_A_CARD and row["inputs"] else (TOP, row["top_images"])
    return line, [Path(name).name for name in names[:ON_A_CARD]]


def _entry(row: dict[str, Any], driving: int) -> list[Any]:
    """A unit in the index's files: as short as it can be, in the order that data.js reads."""
    top = [Path(name).name for name in row["top_images"][:ON_A_CARD]]
    numbers = [row[name] for name in ("correlation", "q_value", "sparsity", "selectivity", "map_x", "map_y")]
    return [
        row["unit"],
        "" if row["name"] == str(row["unit"]) else row["name"],
        {"alive": 0, "dead": 1, "constant": 2}.get(row["state"], 3),
        int(row["passes"]),
        *(None if value is None or not math.isfinite(value) else round(value, 4) for value in numbers),
        -1 if row["duplicate_of"] is None else row["duplicate_of"],
        row["words"],
        top,
        sheet_rows(row),
        *on_card(row, driving),
    ]
