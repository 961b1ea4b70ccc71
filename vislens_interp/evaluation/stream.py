"""Visualisation of any number of inputs: pictures are written as they are made, memory is flat, a kill costs a part."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import torch
from torch import Tensor

from vislens_interp.evaluation.checks import Choices, check_words, learned_from, validate_unfitted, warn_of_overlap
from vislens_interp.evaluation.visualize import PAPER_SEED, Drawing, Part, default_inputs, seed_list
from vislens_interp.evaluation.words import WordReadout
from vislens_interp.files import (
    check_writable,
    clear_leftovers,
    fingerprint,
    load_state,
    locked,
    rebuilding,
    remove_folder,
    save_state,
    write_folder,
    write_text,
)
from vislens_interp.images import ImageFiles, ImageSource, image_keys
from vislens_interp.landscape.prior import UnitSenses
from vislens_interp.memory import in_batches
from vislens_interp.progress import tqdm
from vislens_interp.random_state import check_seeds
from vislens_interp.reference import ReferenceSet
from vislens_interp.results.result import LensResult, json_values
from vislens_interp.results.storage import as_pictures, check_folder, picture_files, save_result, write_pictures
from vislens_interp.schema import check_schema

if TYPE_CHECKING:
    from vislens_interp.lens import FeatureLens

KIND, UNFINISHED = "numbers of a part", "vislens_interp unfinished"
AT_ONCE, VALUES = 64, 100_000_000
"""Inputs of a part: at most so many, and with the pictures made of them at most so many values, 400 MB."""


def stream(
    lens: "FeatureLens",
    images: ImageSource | None,
    out: str | os.PathLike[str],
    direction: UnitSenses = "both",
    *,
    seeds: int | Sequence[int] = PAPER_SEED,
    words: WordReadout | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    progress: bool = False,
    fit: Callable[[], object] | None = None,
    describe: Callable[[LensResult], object] | None = None,
    **choices: Unpack[Choices],
) -> LensResult:
    """Visualise into a folder, some inputs at a time; arguments as for ``FeatureLens.visualize``, and two more.

    Args:
        fit: Called after the inputs were read once, so that none that is damaged is found after a fit.
        describe: Called with the result before it is written, to add to its settings.
    """
    seeds = check_seeds(seeds)
    lens.validate(direction, **choices)
    if fit is None:
        validate_unfitted(lens, choices["method"])
    check_words(lens, choices["method"], words)
    out = check_folder(out)
    if images is None:
        if fit is not None:
            fit()
            fit = None
        pictures, names, chosen = default_inputs(lens, progress=progress)
        source = ReferenceSet(pictures, names)
    else:
        chosen = "given"
        source = ReferenceSet.open(images, lens.backend.size, stream=True, on_error=on_error)
    seed_list(seeds, len(source))
    keys = [key for part in source.parts() for key in image_keys(part)]
    if fit is not None:
        fit()
    lens.fit_if_needed(source.images, progress=progress)
    inputs: dict[str, str | int] = {"chosen": chosen, "learned": learned_from(lens.reference_set, keys)}
    drawing = Drawing(lens, direction, words=words, inputs=inputs, **choices)
    warn_of_overlap(lens.reference_set, [] if images is None else keys)
    with locked(work := out.with_name(f"{out.name}.unfinished")):
        run = _Run(drawing, source, drawing.seeds(seeds, len(source)), work)
        run.start(keys)
        run.draw(progress)
        result = run.result()
        if describe is not None:
            describe(result)
        save_result(result, out, _link)
        for one in map(result.of_unit, result.units):
            one.images = {key: _files(out, key, source.names) for key in one.images}
            one.importance = {key: _files(out, f"importance_{key}", source.names) for key in one.importance}
        remove_folder(work)
    return result


@dataclass(frozen=True, eq=False)
class _Run:
    """One visualisation, its inputs, and the folder where its parts are kept until all are there."""

    drawing: Drawing
    source: ReferenceSet
    seeds: int | list[int]
    work: Path

    @property
    def size(self) -> int:
        """Inputs of a part, the same in every run, so that a resumed one draws the same batches."""
        values = 3 * self.drawing.lens.backend.size**2
        return max(1, min(AT_ONCE, VALUES // (values * (len(self.drawing.moves) + 1))))

    def folder(self, start: int) -> Path:
        return self.work / f"{start:07d}"

    def start(self, keys: Sequence[str]) -> None:
        """Say in the folder whose parts it holds, or make sure that they are this run's.

        Raises:
            ValueError: It holds parts of another run, or something else.
        """
        fitted = self.drawing.lens.landscape_
        generator = getattr(self.drawing.lens.backend, "generator", None)
        parts = {"latents": fitted.latents, "responses": fitted.responses}
        wanted = {
            "kind": UNFINISHED,
            "inputs": hashlib.sha256("\n".join([*self.source.names, *keys]).encode()).hexdigest(),
            "fit": fingerprint({name: value.detach().cpu() for name, value in parts.items()}),
            "given": self.drawing.given,
            "settings": self.drawing.settings({"alpha": None, "strength": None}, self.seeds),
            "at_once": self.size,
        }
        wanted = json_values(wanted, "run")
        path = self.work / "run.json"
        clear_leftovers(self.work)
        if not path.exists():
            if self.work.exists() and any(self.work.iterdir()):
                raise ValueError(
                    f"{str(self.work)!r} is where unfinished work goes, and holds something else; expected nothing."
                    " Move it away, or name another folder for the result."
                )
            check_writable(path)
            write_text(path, json.dumps({**wanted, "batch_size": getattr(generator, "batch_size", None)}, indent=1))
            return
        with rebuilding(path, "unfinished work"):
            known = json.loads(path.read_text(encoding="utf-8"))
            check_schema(known, {**dict.fromkeys(wanted, object), "batch_size": (int, None)}, repr(str(path)))
        if other := [name for name in wanted if known.get(name) != wanted[name]]:
            raise ValueError(
                f"{str(self.work)!r} holds unfinished work of another run (other {', '.join(other)}); expected the same"
                " arguments, to go on. Remove it to start anew, or name another folder for the result."
            )
        if generator is not None and known["batch_size"] is not None:  # chosen by the memory that was left then
            generator.batch_size = known["batch_size"]

    def draw(self, progress: bool) -> None:
        """Draw every part that is not there."""
        seeds, at_once = seed_list(self.seeds, len(self.source)), self.size
        left = [start for start in range(0, len(self.source), self.size) if not self.folder(start).exists()]
        done = len(self.source) - sum(min(self.size, len(self.source) - start) for start in left)
        with tqdm(total=len(self.source), initial=done, desc="visualize", unit="image", disable=not progress) as bar:
            for start in left:
                pictures = self.source.images[start : start + self.size]

                def work(rows: slice, pictures: Tensor = pictures, start: int = start) -> Part:
                    own = seeds[start + rows.start : start + rows.stop]
                    return self.drawing.part(pictures[rows], own)

                drawn, at_once = in_batches(work, len(pictures), at_once, "inputs")
                names = self.source.names[start : start + self.size]
                write_folder(self.folder(start), partial(_fill, part=_joined(drawn), names=names, first=start))
                bar.update(len(pictures))

    def result(self) -> LensResult:
        """What all parts give together; its pictures are the files of the parts."""
        starts = range(0, len(self.source), self.size)
        parts, names = [self._numbers(start) for start in starts], list(self.source.names)
        with rebuilding(self.work, "unfinished work"):
            numbers = _joined_numbers(parts)

        def opened(key: str) -> ImageFiles:
            files = ((start, picture_files(key, names[start : start + self.size], start)) for start in starts)
            return _opened([self.folder(start) / file for start, of_part in files for file in of_part])

        pictures = {key: opened(key) for key in ["inputs", *self.drawing.moves]}
        used = [path.name for path in (self.folder(0) / "images").glob("importance_*")]
        importance = {key.removeprefix("importance_"): opened(key) for key in used}
        return self.drawing.result(pictures, importance, numbers, names, self.seeds)

    def _numbers(self, start: int) -> dict[str, Any]:
        """The numbers of a part; ValueError where it holds other ones than this run makes."""
        path = self.folder(start) / "numbers.safetensors"
        numbers = load_state(path, KIND)
        self.drawing.check(numbers, min(self.size, len(self.source) - start), repr(str(path)))
        return numbers


def _fill(folder: Path, *, part: Part, names: list[str], first: int) -> None:
    """Write a part's pictures and numbers into a folder."""
    for key, images in part.images.items():
        write_pictures(folder, key, images, names, first=first)
    for key, value in part.importance.items():
        write_pictures(folder, f"importance_{key}", as_pictures(value), names, first=first)
    save_state(folder / "numbers.safetensors", KIND, part.numbers)


def _joined(parts: Sequence[Part]) -> Part:
    """Several batches of a part as one."""
    if len(parts) == 1:
        return parts[0]
    return Part(
        {key: torch.cat([part.images[key].cpu() for part in parts]) for key in parts[0].images},
        {key: torch.cat([part.importance[key] for part in parts]) for key in parts[0].importance},
        _joined_numbers([part.numbers for part in parts]),
    )


def _joined_numbers(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: values
        if name == "in_force"
        else {key: torch.cat([part[name][key].cpu() for part in parts]) for key in values}
        for name, values in parts[0].items()
    }


def _opened(paths: Sequence[Path]) -> ImageFiles:
    """Pictures of one size in files."""
    from PIL import Image

    with Image.open(paths[0]) as picture:
        return ImageFiles(list(paths), picture.width)


def _files(out: Path, key: str, names: Sequence[str]) -> ImageFiles:
    return _opened([out / file for file in picture_files(key, names)])


def _link(source: str, target: Path) -> None:
    """A second name for a file, so that no picture is copied; a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
