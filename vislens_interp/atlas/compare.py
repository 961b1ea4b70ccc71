"""Two atlases side by side: a page in each that names for every unit the most alike unit of the other."""

import json
import os
from pathlib import Path
from typing import Any

from vislens_interp.atlas.site import check_site, describe, environment, write_index
from vislens_interp.atlas.store import COMPARISONS, AtlasStore, short_hash
from vislens_interp.files import locked, write_text


def write_comparisons(one: AtlasStore, other: AtlasStore) -> tuple[list[Path], list[dict[str, Any]]]:
    """Write a page into the site of each of two atlases on the same reference images, and link it from their indices.

    The pages name each other's folder as it lies to theirs, so that the two have to stay where they are to each other.

    Args:
        one, other: Finished atlases with their sites.

    Returns:
        The pages in ``one`` and in ``other``, and what ``one.most_alike(other)`` gives.

    Raises:
        ValueError: They are the same folder, or were made from other reference images.
        FileNotFoundError: One of them has no site.
        BlockingIOError: Another process writes one of them.
    """
    if one.folder.resolve() == other.folder.resolve():
        raise ValueError(f"other={str(other.folder)!r} is the atlas itself; expected another one. Name its folder.")
    for store in (one, other):
        check_site(store)
    pairs = [one.most_alike(other), other.most_alike(one)]
    pages = [_write(one, other, pairs[0]), _write(other, one, pairs[1])]
    return pages, pairs[0]


def _write(ours: AtlasStore, theirs: AtlasStore, pairs: list[dict[str, Any]]) -> Path:
    """The page of one atlas, and its index again."""
    place = ours.folder / COMPARISONS
    there = os.path.relpath(theirs.folder.resolve(), place.resolve()).replace(os.sep, "/")
    name = f"{theirs.folder.resolve().name}-{short_hash(there)[:6]}"
    content = {
        "other": there,
        "title": theirs.title,
        "key": theirs.manifest["fit"]["key"],
        "pairs": [[row["unit"], row["other"], round(row["correlation"], 4)] for row in pairs],
    }
    about = describe(ours, ours.table().to_pylist())
    page = environment().get_template("compare.html")
    with locked(ours.folder / "atlas", wait=False):
        text = page.render(about=about, other=content["title"], there=there, name=name, root="../")
        write_text(place / f"{name}.json", json.dumps(content, separators=(",", ":"), allow_nan=False))
        path = write_text(place / f"{name}.html", text)
        write_index(ours, about)
    return path
