"""The folder of an atlas: a Parquet table with a row a unit, and how it is opened and searched."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vislens_interp.files import rebuilding, write_bytes, write_text
from vislens_interp.schema import check_inside, check_schema
from vislens_interp.tables import display_text
from vislens_interp.validation import check_whole, missing_library

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FORMAT = 2
"""Since 2 every unit has inputs of its own, which a sheet shows after the top images."""
KIND = "vislens_interp atlas"
MANIFEST, TABLE, FIT, READING = "atlas.json", "units.parquet", "fit.safetensors", "reading"
SHARDS, SHEETS, COMPARISONS = "shards", "sheets", "compare"
SCHEMA = {
    "fit": {"key": str, "units": int},
    "shards": [{"name": str, "units": [int]}],
    "origin": (
        {"model": str, "weights": (str, None), "layer": (str, None), "backend": str, "sae?": str, "reading": dict},
        None,
    ),
}
"""What is read of a manifest, beside its kind and its format."""
COMPARISON = {"other": str, "title": str, "key": str, "pairs": list}
"""What is read of a comparison: the other atlas's folder as it lies to this file, its name, key, and pairs of units."""

FILLED = (
    "unit",
    "name",
    "state",
    "passes",
    "reasons",
    "neighbours",
    "likeness",
    "top_images",
    "top_responses",
    "words",
)
"""Columns of the table that every unit has."""


def short_hash(value: object) -> str:
    """Sixteen hexadecimal digits of JSON values, the same for the same values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def arrow() -> Any:
    """pyarrow, with its Parquet module loaded.

    Raises:
        ImportError: It is not installed; the message says how.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_library("an atlas is kept by pyarrow", "atlas") from error
    return pyarrow


def schema() -> "pa.Schema":
    """Columns of the table; what a unit has not is null."""
    pa = arrow()
    floats, numbers, words = pa.list_(pa.float32()), pa.list_(pa.int32()), pa.list_(pa.string())
    return pa.schema(
        [
            ("unit", pa.int32()),  # channel of the layer
            ("name", pa.string()),
            ("state", pa.string()),  # alive, dead, constant, not finite
            ("passes", pa.bool_()),  # no reason to doubt, and q at most 0.05
            ("reasons", words),  # why pictures should be doubted
            ("correlation", pa.float32()),  # held out
            ("p_value", pa.float32()),
            ("q_value", pa.float32()),
            ("strong_images", pa.int32()),
            ("sparsity", pa.float32()),
            ("selectivity", pa.float32()),
            ("mean", pa.float32()),  # raw responses
            ("sd", pa.float32()),
            ("duplicate_of", pa.int32()),
            ("neighbours", numbers),
            ("likeness", floats),  # correlation with each neighbour
            ("map_x", pa.float32()),
            ("map_y", pa.float32()),
            ("top_images", words),
            ("top_responses", floats),  # SDs from the reference mean
            ("words", words),
            ("inputs", words),  # photographs that edits start from
            ("input_responses", floats),  # SDs from the reference mean
            ("increase", floats),  # change of each picture, in SDs
            ("decrease", floats),
            ("doses", floats),  # share of the pictures' change of pixels; below 0 towards decrease
            ("dose_response", floats),  # mean change in SDs
            ("sheet", pa.string()),
            ("error", pa.string()),  # why a unit has no pictures
        ]
    )


def write_table(path: Path, rows: Sequence[Mapping[str, object]], about: Mapping[str, object]) -> Path:
    """Write rows as Parquet; the same rows give the same bytes."""
    pa = arrow()
    table = pa.Table.from_pylist(list(rows), schema=schema())
    return write_arrow(path, table.replace_schema_metadata({"vislens_interp": json.dumps(about, sort_keys=True)}))


def write_arrow(path: Path, table: "pa.Table") -> Path:
    """Write a table, whole or not at all."""
    buffer = io.BytesIO()
    arrow().parquet.write_table(table, buffer, compression="zstd")
    return write_bytes(path, buffer.getvalue())


def write_manifest(folder: Path, content: Mapping[str, object]) -> Path:
    """Write what the folder says of itself."""
    return write_text(
        folder / MANIFEST, json.dumps({"kind": KIND, "format": FORMAT, **content}, indent=1, sort_keys=True)
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the folder says of itself.

    Raises:
        FileNotFoundError: There is no atlas.
        ValueError: The file is damaged, or newer than this version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"folder={str(folder)!r} holds no atlas; expected one that vislens atlas wrote.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        check_schema(content, {"kind": frozenset({KIND}), "format": int}, MANIFEST)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"path={str(path)!r} is damaged ({type(error).__name__}: {error}). Write the atlas again with the arguments"
            " of its first run: finished shards are kept."
        ) from error
    if content["format"] > FORMAT:
        raise ValueError(
            f"path={str(path)!r} is a {KIND} of format {content['format']}; expected a {KIND} of format {FORMAT} at"
            " most. Upgrade vislens_interp, or name another folder."
        )
    with rebuilding(path, "the atlas"):
        check_schema(content, SCHEMA, repr(str(path)))
        about = dict(content["fit"])
        if about.pop("key") != short_hash(about):
            raise ValueError("fit was changed, of which its key is a hash")
        for shard in content["shards"]:
            check_inside(folder / SHARDS, f"{shard['name']}.parquet", repr(str(path)), "shards")
            if not 0 <= min(shard["units"], default=-1) <= max(shard["units"]) < about["units"]:
                raise ValueError(f"shards has units {shard['units']}; expected some of 0 to {about['units'] - 1}")
    return {**content, "shards": [(shard["name"], shard["units"]) for shard in content["shards"]]}


@dataclass(frozen=True)
class AtlasStore:
    """A finished atlas in a folder.

    Args:
        folder: Where it is.
        manifest: What it says of itself.
    """

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> "AtlasStore":
        """Open a finished atlas.

        Raises:
            FileNotFoundError: There is none, or parts of it are gone; the message names the first and says what to do.
            ValueError: It is damaged.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        wanted = [TABLE, FIT, *(f"{SHARDS}/{name}.parquet" for name, _ in manifest["shards"])]
        named, missing = "", [name for name in wanted if not (folder / name).is_file()]
        if not missing:
            missing = [path for path in cls(folder, manifest)._sheets() if not (folder / path).is_file()]
            named = f" of the column sheet in {TABLE}"
        if missing:
            raise FileNotFoundError(
                f"folder={str(folder)!r} holds an atlas that lacks {len(missing)} files (first: {missing[0]}){named}:"
                " it is unfinished, or somebody deleted them. Run vislens atlas with the same arguments again; what is"
                " there is kept."
            )
        return cls(folder, manifest)

    def __repr__(self) -> str:
        units = sum(len(units) for _, units in self.manifest["shards"])
        return f"AtlasStore({str(self.folder)!r}, {self.title}, {units} units)"

    def _repr_html_(self) -> str:
        from vislens_interp.report.render import render

        names = ["unit", "passes", "correlation", "words"]
        rows = [row for row in self.table(names).to_pylist() if row["passes"]]
        best = sorted(rows, key=lambda row: (-row["correlation"], row["unit"]))[:10]
        cells = [
            {
                "name": f"unit {row['unit']}",
                "cells": [{"text": f"{row['correlation']:.2f}"}, {"text": ", ".join(row["words"])}],
            }
            for row in best
        ]
        lines = [
            f"vislens atlas serve {self.folder}",
            "the units with the best evidence:" if best else "no unit passes",
        ]
        columns = ["held-out r", "words"]
        return render("notebook.html", title=self.describe(), lines=lines, weak=False, columns=columns, rows=cells)

    def to_pandas(self) -> "pd.DataFrame":
        """The rows, one a unit, as pandas' data frame; the file itself is :attr:`path`."""
        return self.table().to_pandas()

    @property
    def path(self) -> Path:
        """The Parquet table, for DuckDB, pandas or polars."""
        return self.folder / TABLE

    def table(self, columns: Sequence[str] | None = None) -> "pa.Table":
        """The rows, one a unit; ValueError where the file lacks a column or holds something else in it."""
        try:
            found = arrow().parquet.read_table(self.path, columns=columns)
        except (OSError, ValueError) as error:  # pyarrow's own errors are of these types
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"path={str(self.path)!r} cannot be read as a table ({reason}). Run vislens atlas with the same"
                " arguments again."
            ) from error
        for one in schema():
            if columns is not None and one.name not in columns:
                continue
            if one.name.startswith("input") and self.manifest["format"] < 2:
                found = found.append_column(one, arrow().nulls(len(found), one.type))
            column = found[one.name] if one.name in found.column_names else None
            if column is None or column.type != one.type or (one.name in FILLED and _holds_null(column)):
                raise ValueError(
                    f"path={str(self.path)!r}: column {one.name} is missing, lacks values, or holds no {one.type}. Run"
                    " vislens atlas with the same arguments again."
                )
        return found

    def query(self, text: str, limit: int = 20) -> list[dict[str, Any]]:
        """Units whose number, name, words or top images hold every word of ``text``; what passes comes first.

        Args:
            text: Words with spaces between them, in any case.
            limit: Rows at most, 1 or more.
        """
        check_whole(1, limit=limit)
        asked = text.casefold().split()
        if not asked:
            raise ValueError(f"text={text!r} holds no word; expected one or several, such as 'dog'.")
        names = ["unit", "name", "state", "passes", "correlation", "q_value", "selectivity", "words", "top_images"]
        found = []
        for row in self.table(names).to_pylist():
            held = " ".join([str(row["unit"]), row["name"], *row["words"], *row["top_images"]]).casefold()
            if all(word in held for word in asked):
                in_words = all(word in " ".join(row["words"]).casefold() for word in asked)
                found.append((not in_words, not row["passes"], -(row["correlation"] or 0.0), row["unit"], row))
        return [row for *_, row in sorted(found, key=lambda item: item[:4])[:limit]]

    def most_alike(self, other: "AtlasStore") -> list[dict[str, Any]]:
        """For each unit the unit of another atlas whose responses to the same reference images are most alike.

        Args:
            other: Of another layer or another model, on the same reference images.

        Returns:
            A dictionary a unit that varies, ``unit``, ``other`` and ``correlation``, the most alike first.

        Raises:
            ValueError: The two were made from other reference images.
        """
        from vislens_interp.atlas.fitted import AtlasFit
        from vislens_interp.atlas.population import most_alike

        keys = [store.manifest["fit"]["reference"]["key"] for store in (self, other)]
        if keys[0] != keys[1]:
            raise ValueError(
                f"other={str(other.folder)!r} was made from other reference images than {str(self.folder)!r}; expected"
                " the same. Make one of them again with the images of the other."
            )
        one, another = (AtlasFit.load(store.folder / FIT).responses for store in (self, other))
        best, alike = most_alike(one, another)
        rows = [
            {"unit": unit, "other": int(best[unit]), "correlation": float(alike[unit])}
            for unit in self.table(["unit"])["unit"].to_pylist()
            if best[unit] >= 0
        ]
        # Correlations of 1 differ in their last bit from one processor to another.
        return sorted(rows, key=lambda row: (-round(row["correlation"], 6), row["unit"]))

    def comparisons(self) -> dict[str, dict[str, Any]]:
        """What ``vislens atlas compare`` wrote, by the names of its pages; what is damaged is left out."""
        found = {}
        for path in sorted((self.folder / COMPARISONS).glob("*.json")):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                check_schema(content, COMPARISON, repr(str(path)))
            except (OSError, ValueError, RecursionError):
                continue
            if path.with_suffix(".html").is_file() and "\0" not in content["other"]:
                found[path.stem] = content
        return found

    @property
    def title(self) -> str:
        """Model and layer, and how many latents it has where a dictionary was read."""
        target, origin = self.manifest["fit"]["target"], self.manifest["origin"]
        name = target.get("name") or (origin["model"] if origin else target.get("model"))
        dictionary = target.get("dictionary")
        latents = "" if dictionary is None else f", {dictionary['latents']} latents"
        return display_text(f"{name}, layer {target.get('layer') or '(output)'}{latents}")

    def describe(self) -> str:
        """The atlas in a line: what it is of, and its counts."""
        return f"{self.title}: {self.counts()}"

    def counts(self) -> str:
        """Units that pass, that are silent, doubled or failed, in words."""
        rows = self.table(["state", "passes", "duplicate_of", "error"]).to_pylist()
        count = {word: sum(row["state"] == word for row in rows) for word in ("dead", "constant", "not finite")}
        twins = sum(row["duplicate_of"] is not None for row in rows)
        failed = sum(row["error"] is not None for row in rows)
        passing = f"{sum(row['passes'] for row in rows)} with good evidence at a false-discovery rate of 5 %"
        silent = ", ".join(f"{number} {word}" for word, number in count.items() if number or word != "not finite")
        silent += f", {twins} duplicates"
        fitted = self.manifest["fit"]["units"]
        units = f"{len(rows)} units" if fitted == len(rows) else f"{len(rows)} of {fitted} units"
        return f"{units}, {passing}, {silent}" + (f", {failed} failed" if failed else "")

    def _sheets(self) -> list[str]:
        made = [path for path in self.table(["sheet"])["sheet"].to_pylist() if path is not None]
        for path in made:
            check_inside(self.folder, path, repr(str(self.path)), "sheet")
        return made


def _holds_null(column: "pa.ChunkedArray") -> bool:
    """Whether a column, or a list in it, lacks a value."""
    return bool(column.null_count or ("list" in str(column.type) and column.combine_chunks().flatten().null_count))


def shard_is_whole(folder: Path, name: str) -> bool:
    """Whether a shard's table can be read and all sheets that it names are there."""
    try:
        sheets = arrow().parquet.read_table(folder / SHARDS / name, columns=["sheet"])["sheet"].to_pylist()
    except (OSError, ValueError, KeyError):
        return False
    return all(path is None or (folder / path).is_file() for path in sheets)


def open_atlas(folder: str | Path) -> AtlasStore:
    """Open a finished atlas: ``AtlasStore.open``."""
    return AtlasStore.open(folder)
