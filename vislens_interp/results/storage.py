"""A result on the disk: pictures, tables, a figure and a page in one folder, written whole or not at all."""

import hashlib
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vislens_interp.config import migrate
from vislens_interp.files import check_writable, recover, write_folder, write_text
from vislens_interp.images import ImageFiles, load_images, to_pil
from vislens_interp.results.background import BACKGROUND, EVIDENCE, Background, TopImages, read_evidence
from vislens_interp.results.result import LensResult, Pictures, json_values
from vislens_interp.results.words import WORDS, Words
from vislens_interp.schema import check_inside, check_schema, read_document
from vislens_interp.tables import Value, csv_text, read_csv

KIND = "vislens_interp result"
FORMAT_VERSION = 3
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
WORD_COLUMNS = ("key", "word", "rank", "score", "margin")
REFERENCE_COLUMNS = ("name", "response", "response_sd", "axis_1", "axis_2")
_LEFT_BY_FILE_BROWSERS = {".DS_Store", "Thumbs.db", "desktop.ini"}
_COLUMN = [(float, None)]
_SETTINGS = {
    "alpha?": (float, None),
    "strength?": (float, None),
    "judge?": (str, None),
    "similarity_network?": (str, None),
    "reference_set?": str,
    "direction?": (str, {str: str}, None),
    "audit?": {str: {str: str}},
    "settings?": ({"edit?": (dict, None)}, None),
}
SCHEMA = {
    "format_version": int,
    "unit": str,
    "layer": str,
    "model": str,
    "response_mean": float,
    "response_std": float,
    "evidence": (EVIDENCE, None),
    "settings": _SETTINGS,
    "names": [str],
    "images": {str: [str]},
    "responses": {str: _COLUMN},
    "similarity": {str: _COLUMN},
    "importance?": {str: [str]},
    "words?": {str: WORDS},
    "background?": ({**BACKGROUND, "images": {str: [str]}}, None),  # results of earlier versions have none
}


def save_result(
    result: LensResult, folder: str | os.PathLike[str], place: Callable[[str, Path], object] = shutil.copyfile
) -> Path:
    """Write a result as :meth:`LensResult.save` says; ``place`` puts pictures there that lie in files."""
    return write_folder(check_folder(folder), lambda temporary: _write(result, temporary, place))


def load_result(folder: str | os.PathLike[str]) -> LensResult:
    """Read a result as :meth:`LensResult.load` says."""
    folder = Path(folder)
    if not folder.exists():
        recover(folder)
    content = _read(folder, FORMAT_VERSION)
    where = repr(str(folder / "result.json"))
    check_schema(content, SCHEMA, where)
    check_schema(content["settings"], object, where, "settings")
    if content["format_version"] < 3:
        content = _migrated(content)
    evidence, behind = content["evidence"], content.get("background")

    def pictures(field: str) -> dict[str, Any]:
        kept = content.get(field, {})
        return {key: _pictures(folder, files, where, f"{field}[{key!r}]") for key, files in kept.items()}

    try:
        return LensResult(
            unit=content["unit"],
            layer=content["layer"],
            model=content["model"],
            images=pictures("images"),
            responses={key: _tensor(values) for key, values in content["responses"].items()},
            response_mean=content["response_mean"],
            response_std=content["response_std"],
            similarity={key: _tensor(values) for key, values in content["similarity"].items()},
            importance={key: grey[:, 0] for key, grey in pictures("importance").items()},
            evidence=None if evidence is None else read_evidence(evidence),
            names=content["names"],
            settings=content["settings"],
            background=None if behind is None else _read_background(folder, behind, content["format_version"], where),
            words={key: Words.from_dict(kept) for key, kept in content.get("words", {}).items()},
        )
    except ValueError as error:
        raise error if where in str(error) else ValueError(f"{where}: {error}") from error


def _migrated(content: dict[str, Any]) -> dict[str, Any]:
    """What an earlier version wrote, by today's names."""
    content = {**content}
    for field in ("images", "responses", "similarity"):
        content[field] = {("inputs" if key == "reference" else key): value for key, value in content[field].items()}
    if content["format_version"] < 2:
        settings = {("alphas" if name == "doses" else name): value for name, value in content["settings"].items()}
        if isinstance(settings.get("settings"), dict):
            settings["settings"] = migrate(settings["settings"])
        content["settings"] = settings
    return content


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Refuse a folder that :meth:`LensResult.save` would refuse, before hours are spent on what to put there.

    Args:
        folder: Where a result is to go.

    Returns:
        Its absolute path.

    Raises:
        ValueError: It is a file, the current folder, or holds something that is no earlier result of ours.
        OSError: It cannot be written.
    """
    given, folder = str(folder), Path(folder).resolve()
    check_writable(folder)
    if not folder.exists() and not recover(folder):
        return folder
    if not folder.is_dir():
        raise ValueError(f"folder={given!r} is a file; expected a folder. Name another one.")
    if folder == Path.cwd():
        raise ValueError(f"folder={given!r} is the current folder, which is replaced as a whole. Name one inside it.")
    ours = _written_by_us(folder)
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        own = name in ours and path.is_file() and ours[name] in (None, _digest(path))
        if not (own or path.name in _LEFT_BY_FILE_BROWSERS) and (path.is_symlink() or not path.is_dir()):
            raise ValueError(
                f"folder={given!r} holds {name!r}, not written by an earlier result; expected a new or empty folder, or"
                " an earlier result, which is replaced. Name another one, or move this file."
            )
    return folder


def _written_by_us(folder: Path) -> dict[str, str | None]:
    """Files of an earlier result under names that we give, with what they held, which results before version 3 lack."""
    try:
        listed = _read(folder, None).get("files")
    except (OSError, ValueError):
        return {}
    if not isinstance(listed, (dict, list)):
        return {}
    files = listed.items() if isinstance(listed, dict) else [(file, None) for file in listed]
    return {file: digest for file, digest in files if isinstance(file, str) and _OUR_NAMES.fullmatch(file)}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


_OUR_NAMES = re.compile(
    r"images/\w+/\d{5,}(_[\w-]+)?\.png|figure\.png|report\.html|(manifest|reference|words)\.csv|result\.json"
)


def _write(result: LensResult, folder: Path, place: Callable[[str, Path], object]) -> None:
    files = {key: write_pictures(folder, key, images, result.names, place) for key, images in result.images.items()}
    used = {
        key: write_pictures(folder, f"importance_{key}", as_pictures(value), result.names, place)
        for key, value in result.importance.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the font lacks a sign of a name, or its script
        result.figure().savefig(folder / "figure.png")
    write_text(folder / "report.html", result.html())
    write_text(folder / "manifest.csv", csv_text(COLUMNS, _rows(result, files), digits=7))
    if result.words:
        rows = ([key, one.word, one.rank, one.score, one.margin] for key, said in result.words.items() for one in said)
        write_text(folder / "words.csv", csv_text(WORD_COLUMNS, rows, digits=4))
    behind, shown = result.background, {}
    if behind is not None:
        for key, row in behind.galleries.items():
            shown[key] = write_pictures(folder, f"reference_{key}", row.images, row.names)
        rows = _reference_rows(behind, result.response_mean, result.response_std)
        # nine digits bring a float32 back
        write_text(folder / "reference.csv", csv_text(REFERENCE_COLUMNS, rows, digits=9))
    content = {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "model": result.model,
        "layer": result.layer,
        "unit": result.unit,
        "response_mean": result.response_mean,
        "response_std": result.response_std,
        "evidence": None if result.evidence is None else result.evidence.to_dict(),
        "words": {key: said.to_dict() for key, said in result.words.items()},
        "statistics": result.statistics(),
        "settings": result.settings,
        "names": result.names,
        "images": files,
        "responses": {key: value.tolist() for key, value in result.responses.items()},
        "similarity": {key: value.tolist() for key, value in result.similarity.items()},
        "importance": used,
        "background": None if behind is None else {**behind.numbers(), "images": shown},
        "files": {
            **{file.relative_to(folder).as_posix(): _digest(file) for file in sorted(folder.rglob("*.*"))},
            "result.json": None,  # whose own digest nobody can write into it
        },
    }
    text = json.dumps(json_values(content, "result"), indent=1, ensure_ascii=False) + "\n"
    write_text(folder / "result.json", text)  # last, so that a folder with a result.json is a whole result


def as_pictures(importance: Pictures) -> Pictures:
    """Importance (N, H, W) as grey pictures."""
    return importance if isinstance(importance, ImageFiles) else importance[:, None].expand(-1, 3, -1, -1)


def picture_files(key: str, names: Sequence[str], first: int = 0) -> list[str]:
    """Names that every file system takes, with enough of the inputs' names in them to find these."""
    stems = [re.sub(r"[^A-Za-z0-9_-]+", "_", os.path.splitext(name)[0]).strip("_")[-60:] for name in names]
    return [f"images/{key}/{row:05d}{f'_{stem}' if stem else ''}.png" for row, stem in enumerate(stems, first)]


def write_pictures(
    folder: Path,
    key: str,
    images: Pictures,
    names: Sequence[str],
    place: Callable[[str, Path], object] = shutil.copyfile,
    first: int = 0,
) -> list[str]:
    """PNGs below a folder; their paths in it. The first one is that of input number ``first``."""
    files = picture_files(key, names, first)
    (folder / "images" / key).mkdir(parents=True)
    if isinstance(images, ImageFiles):
        for path, file in zip(images.paths, files, strict=True):
            place(str(path), folder / file)
        return files
    for file, picture in zip(files, to_pil(images) if files else [], strict=True):
        picture.save(folder / file)
    return files


def _rows(result: LensResult, files: Mapping[str, Sequence[str]]) -> Iterator[list[Value]]:
    seeds = result.settings.get("seeds")
    columns = (
        result.responses,
        result.standardised,
        result.response_change,
        result.response_change_from_input,
        result.similarity,
    )
    for row, name in enumerate(result.names):
        seed = seeds[row] if isinstance(seeds, list) else seeds
        for key in result.images:
            values = [column[key][row].item() if key in column else None for column in columns]
            yield [files[key][row], name, key, *values, None if key == "inputs" else seed]


def _read(folder: Path, version: int | None) -> dict[str, Any]:
    return read_document(folder, "result.json", KIND, version, "LensResult.save()")


def _reference_rows(behind: Background, mean: float, std: float) -> Iterator[list[Value]]:
    names = behind.names or [""] * len(behind.responses)
    for name, response, place in zip(names, behind.responses.tolist(), behind.positions.tolist(), strict=True):
        yield [name, response, (response - mean) / std, *place]


def _read_background(folder: Path, kept: dict[str, Any], version: int, where: str) -> Background:
    rows = read_csv(folder / "reference.csv", REFERENCE_COLUMNS, escaped=version >= 3)
    try:
        columns = {name: _tensor([float(row[name]) for row in rows]) for name in REFERENCE_COLUMNS[1:]}
    except ValueError as error:
        raise ValueError(
            f"{str(folder / 'reference.csv')!r}: {error}; expected numbers in {list(REFERENCE_COLUMNS[1:])}. Restore a"
            " copy, or make it again."
        ) from error
    if len({len(row) for row in kept["changes"]}) > 1:
        raise ValueError("background.changes has rows of unequal length; expected a number an image in each.")
    names = [row["name"] for row in rows]
    galleries = {
        key: TopImages(
            _pictures(folder, kept["images"].get(key, []), where, f"images[{key!r}]"),
            _tensor(row["responses"]),
            row["names"],
        )
        for key, row in kept["galleries"].items()
    }
    return Background(
        responses=columns["response"],
        positions=torch.stack([columns["axis_1"], columns["axis_2"]], 1),
        names=names if any(names) else [],
        means={key: torch.tensor(value, dtype=torch.float64).float() for key, value in kept["means"].items()},
        moves={key: torch.tensor(value, dtype=torch.float64).float() for key, value in kept["moves"].items()},
        galleries=galleries,
        alphas=kept["alphas"],
        changes=torch.stack([_tensor(row) for row in kept["changes"]]) if kept["changes"] else torch.zeros(0, 0),
    )


def _pictures(folder: Path, files: Sequence[str], where: str, name: str) -> Tensor:
    paths = [check_inside(folder, file, where, name) for file in files]
    return load_images(paths)[0] if paths else torch.zeros(0, 3, 1, 1)


def _tensor(values: Sequence[float | None]) -> Tensor:
    # By way of float64, for torch refuses to read what is too large for float32.
    return torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float64).float()
