"""A result on the disk: pictures, tables, a figure and a page in one folder, written whole or not at all."""

import csv
import json
import math
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vislens_interp.config import migrate
from vislens_interp.files import write_text
from vislens_interp.images import load_images, to_pil
from vislens_interp.landscape.evidence import Evidence
from vislens_interp.results.background import Background, TopImages
from vislens_interp.results.result import LensResult, json_values

KIND = "vislens_interp result"
FORMAT_VERSION = 2
COLUMNS = (
    "file",
    "name",
    "key",
    "response",
    "response_sd",
    "response_change",
    "response_change_from_input",
    "similarity",
    "seed",
)
REFERENCE_COLUMNS = ("name", "response", "response_sd", "axis_1", "axis_2")
_LEFT_BY_FILE_BROWSERS = {".DS_Store", "Thumbs.db", "desktop.ini"}


def save_result(result: LensResult, folder: str | os.PathLike[str]) -> Path:
    """Write images, ``report.html``, figure, ``manifest.csv`` and ``result.json`` into a folder, all or none.

    Everything is written beside the folder first and renamed when it is whole. An earlier result of ours there is
    replaced; it survives a full disk or a kill.

    Args:
        folder: A new or empty folder, or one that holds an earlier result and nothing else.

    Returns:
        The folder.

    Raises:
        ValueError: The folder holds something else.
        OSError: It cannot be written; what was there before is still there.
    """
    folder = check_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:8]
    temporary = folder.parent / f".{folder.name}.{mark}.tmp"
    temporary.mkdir()  # not tempfile: its folders can be read by their owner alone
    try:
        _write(result, temporary)
        if folder.exists():
            earlier = folder.parent / f".{folder.name}.{mark}.old"
            os.rename(folder, earlier)
            try:
                os.rename(temporary, folder)
            except BaseException:  # an interrupt too
                os.rename(earlier, folder)
                raise
            shutil.rmtree(earlier, ignore_errors=True)
        else:
            os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def load_result(folder: str | os.PathLike[str]) -> LensResult:
    """Read what :func:`save_result` wrote.

    Numbers come back as they were. Images come back from PNGs, rounded to 8 bits: up to 1/510 off.

    Raises:
        FileNotFoundError: There is no such folder, it holds no result, or one of its images is missing.
        ValueError: ``result.json`` is truncated, not ours, or newer than this library.
    """
    folder = Path(folder)
    content = _read(folder)
    if content["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"folder={str(folder)!r} has format version {content['format_version']}, newer than this library reads"
            f" ({FORMAT_VERSION}). Upgrade vislens_interp."
        )
    evidence = content["evidence"]
    if evidence is not None:
        evidence = Evidence(**{key: value for key, value in evidence.items() if key != "weak"})
    return LensResult(
        unit=content["unit"],
        layer=content["layer"],
        model=content["model"],
        images={key: load_images([folder / file for file in files])[0] for key, files in content["images"].items()},
        responses={key: _tensor(values) for key, values in content["responses"].items()},
        response_mean=content["response_mean"],
        response_std=content["response_std"],
        similarity={key: _tensor(values) for key, values in content["similarity"].items()},
        evidence=evidence,
        names=content["names"],
        settings=_migrated(content["settings"]) if content["format_version"] < 2 else content["settings"],
        background=_read_background(folder, content),
    )


def _migrated(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a result of 0.1.0, by today's names."""
    migrated = {("alphas" if name == "doses" else name): value for name, value in settings.items()}
    if isinstance(migrated.get("settings"), dict):
        migrated["settings"] = migrate(migrated["settings"])
    return migrated


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Refuse a folder that :meth:`LensResult.save` would refuse, before hours are spent on what to put there.

    Args:
        folder: Where a result is to go.

    Returns:
        Its absolute path.

    Raises:
        ValueError: It is a file, the current folder, or holds something that is no earlier result of ours.
    """
    given, folder = str(folder), Path(folder).resolve()
    if not folder.exists():
        return folder
    if not folder.is_dir():
        raise ValueError(f"folder={given!r} is a file; expected a folder. Name another one.")
    if folder == Path.cwd():
        raise ValueError(f"folder={given!r} is the current folder, which is replaced as a whole. Name one inside it.")
    try:
        ours = set(_read(folder)["files"])
    except (OSError, ValueError):
        ours = set()
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        own = name in ours or path.name in _LEFT_BY_FILE_BROWSERS
        if not own and (path.is_symlink() or not path.is_dir()):
            raise ValueError(
                f"folder={given!r} holds {name!r}, not written by an earlier result; expected a new or empty folder, or"
                " an earlier result, which is replaced. Name another one, or move this file."
            )
    return folder


def _write(result: LensResult, folder: Path) -> None:
    files = {key: [_file_name(key, row, name) for row, name in enumerate(result.names)] for key in result.images}
    for key, images in result.images.items():
        (folder / "images" / key).mkdir(parents=True)
        for file, picture in zip(files[key], to_pil(images), strict=True):
            picture.save(folder / file)
    result.figure().savefig(folder / "figure.png")
    (folder / "report.html").write_text(result.html(), encoding="utf-8")
    behind = result.background
    shown = {} if behind is None else _write_background(folder, behind, result.response_mean, result.response_std)
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_rows(result, files))
    pictures = [file for row in [*files.values(), *shown.values()] for file in row]
    tables = ["manifest.csv"] if behind is None else ["manifest.csv", "reference.csv"]
    content = {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "model": result.model,
        "layer": result.layer,
        "unit": result.unit,
        "response_mean": result.response_mean,
        "response_std": result.response_std,
        "evidence": None if result.evidence is None else result.evidence.to_dict(),
        "statistics": result.statistics(),
        "settings": result.settings,
        "names": result.names,
        "images": files,
        "responses": {key: value.tolist() for key, value in result.responses.items()},
        "similarity": {key: value.tolist() for key, value in result.similarity.items()},
        "background": None if behind is None else {**behind.numbers(), "images": shown},
        "files": [*pictures, "figure.png", "report.html", *tables, "result.json"],
    }
    # Last, so that a folder with a result.json is a whole result.
    write_text(folder / "result.json", json.dumps(json_values(content, "result"), indent=1, ensure_ascii=False) + "\n")


def _rows(result: LensResult, files: dict[str, list[str]]) -> list[list[str]]:
    seeds = result.settings.get("seeds")
    columns = (
        result.responses,
        result.standardised,
        result.response_change,
        result.response_change_from_input,
        result.similarity,
    )
    rows = []
    for row, name in enumerate(result.names):
        seed = seeds[row] if isinstance(seeds, list) else seeds
        for key in result.images:
            values = ["" if key not in column else f"{column[key][row].item():.7g}" for column in columns]
            made = key != "reference" and seed is not None
            rows.append([files[key][row], name, key, *values, str(seed) if made else ""])
    return rows


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    if not path.is_file():
        raise FileNotFoundError(f"folder={str(folder)!r} holds no result.json; expected a folder of LensResult.save().")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{str(path)!r} is truncated or no JSON ({error}). Restore a copy, or make it again."
        ) from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise ValueError(f"{str(path)!r} was not written by vislens_interp; expected a folder of LensResult.save().")
    return content


def _write_background(folder: Path, behind: Background, mean: float, std: float) -> dict[str, list[str]]:
    """``reference.csv`` and the galleries' pictures; returns the names of their files."""
    names = behind.names or [""] * len(behind.responses)
    with (folder / "reference.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(REFERENCE_COLUMNS)
        for name, response, place in zip(names, behind.responses.tolist(), behind.positions.tolist(), strict=True):
            numbers = (response, (response - mean) / std, *place)
            writer.writerow([name, *(f"{value:.9g}" for value in numbers)])  # nine digits bring a float32 back
    files = {}
    for key, row in behind.galleries.items():
        files[key] = [_file_name(f"reference_{key}", index, name) for index, name in enumerate(row.names)]
        (folder / "images" / f"reference_{key}").mkdir(parents=True)
        for file, picture in zip(files[key], to_pil(row.images) if files[key] else [], strict=True):
            picture.save(folder / file)
    return files


def _read_background(folder: Path, content: dict[str, Any]) -> Background | None:
    said = content.get("background")  # results of earlier versions have none
    if said is None:
        return None
    with (folder / "reference.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = {name: torch.tensor([float(row[name]) for row in rows]) for name in REFERENCE_COLUMNS[1:]}
    names = [row["name"] for row in rows]
    galleries = {
        key: TopImages(
            load_images([folder / file for file in files])[0] if files else torch.zeros(0, 3, 1, 1),
            _tensor(said["galleries"][key]["responses"]),
            said["galleries"][key]["names"],
        )
        for key, files in said["images"].items()
    }
    return Background(
        responses=columns["response"],
        positions=torch.stack([columns["axis_1"], columns["axis_2"]], 1),
        names=names if any(names) else [],
        means={key: torch.tensor(value) for key, value in said["means"].items()},
        moves={key: torch.tensor(value) for key, value in said["moves"].items()},
        galleries=galleries,
        alphas=said["alphas"],
        changes=torch.stack([_tensor(row) for row in said["changes"]]) if said["changes"] else torch.zeros(0, 0),
    )


def _file_name(key: str, row: int, name: str) -> str:
    """A path of a picture that every file system takes, with enough of the input's name in it to find it."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", os.path.splitext(name)[0]).strip("_")[-60:]
    return f"images/{key}/{row:05d}{f'_{stem}' if stem else ''}.png"


def _tensor(values: list[float | None]) -> Tensor:
    return torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float32)
