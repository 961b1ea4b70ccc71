"""A block of trials as a folder: pictures, PsychoPy's conditions, a BIDS template of events, and a manifest."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vislens_interp.files import write_folder, write_text
from vislens_interp.images import check_images, load_images, resize, to_pil
from vislens_interp.tables import csv_text

MANIFEST = "manifest.json"
CONTROL = "control"
TRIGGERS = 255
"""Of an eight-bit port; 0 is rest."""


@dataclass(frozen=True)
class Display:
    """How large and how long a picture is shown.

    Args:
        size_px, size_deg: Side of the square in pixels of the files, and in degrees of visual angle.
        duration, gap: Seconds that it is on, and from its end to the next onset.
    """

    size_px: int = 512
    size_deg: float = 8.0
    duration: float = 0.25
    gap: float = 0.75


@dataclass(frozen=True)
class Trial:
    """One presentation.

    Args:
        trial_id: Unique in the experiment: ``"b001-t003"``, the third trial of the first block.
        stimulus: The picture's file without its suffix; several trials may show it.
        kind: ``"natural"``, ``"made"`` or ``"control"`` (a natural picture drawn at random).
        target: What it was chosen for; empty for controls.
        design: The rule that chose it.
        source: The gallery's picture that it is, or was made from.
        trigger: 1 to 255, by the place in the block.
        expected, unsure: Mean response that the surrogate expected before it was shown, and that expectation's SD.
    """

    trial_id: str
    stimulus: str
    kind: str
    target: str
    design: str
    source: str
    trigger: int
    expected: float | None = None
    unsure: float | None = None


@dataclass(frozen=True, eq=False)
class Block:
    """What :meth:`Experiment.ask` gives: the trials in their order, and the pictures by the name of their stimulus.

    Args:
        number: From 1.
        folder: Where it lies on the disk.
        trials: In the order in which they are to be shown.
        images: (M, 3, S, S), one a stimulus, in the order of ``stimuli``.
        embeddings: (M, D) of them.
    """

    number: int
    folder: Path
    trials: list[Trial]
    stimuli: list[str]
    images: Tensor
    embeddings: Tensor

    def __len__(self) -> int:
        return len(self.trials)


def ordered(stimuli: Sequence[str], controls: Sequence[str], repetitions: int, seed: int) -> list[str]:
    """Every stimulus ``repetitions`` times in random order: no picture twice in a row, controls spread evenly.

    >>> ordered(["a", "b"], [], 2, seed=0) in (["a", "b", "a", "b"], ["b", "a", "b", "a"])
    True
    """
    draw = np.random.default_rng(seed)
    others = [name for name in stimuli if name not in set(controls)]
    best: list[str] = []
    for _ in range(200):
        rounds = [
            [*draw.permutation(np.array(part, dtype=object))] for part in (others, controls) for _ in range(repetitions)
        ]
        main = [name for part in rounds[:repetitions] for name in part]
        extra = [name for part in rounds[repetitions:] for name in part]
        best = list(main)
        if extra:
            step = (len(main) + len(extra)) / len(extra)
            places = [
                min(int(number * step + draw.random() * step), len(main) + number) for number in range(len(extra))
            ]
            for place, name in zip(places, extra, strict=True):
                best.insert(place, name)
        if all(first != second for first, second in pairwise(best)) or len(set(best)) == 1:
            return [str(name) for name in best]
    return [str(name) for name in best]


def write_block(
    folder: Path,
    number: int,
    display: Display,
    trials: list[Trial],
    images: dict[str, Tensor],
    embeddings: Tensor,
    said: dict[str, Any],
) -> None:
    """Write a block whole or not at all; FileExistsError if it is there."""

    def fill(temporary: Path) -> None:
        place = temporary / "stimuli"
        place.mkdir()
        hashes = {}
        for name, image in images.items():
            path = place / f"{name}.png"
            to_pil(resize(image[None], display.size_px))[0].save(path)
            hashes[f"{name}.png"] = hashlib.sha256(path.read_bytes()).hexdigest()
        columns = ["trial_id", "image", "trigger", "kind", "size_px", "size_deg", "duration", "gap"]
        rows = [
            [one.trial_id, f"stimuli/{one.stimulus}.png", one.trigger, one.kind, *asdict(display).values()]
            for one in trials
        ]
        write_text(temporary / "conditions.csv", csv_text(columns, rows))
        head = ["onset", "duration", "trial_type", "stim_file", "trial_id", "trigger"]
        lines = [
            ["n/a", f"{display.duration:g}", one.kind, f"{one.stimulus}.png", one.trial_id, str(one.trigger)]
            for one in trials
        ]
        write_text(temporary / "events.tsv", "".join("\t".join(line) + "\n" for line in [head, *lines]))
        np.save(temporary / "embeddings.npy", embeddings.cpu().numpy())
        manifest = {
            "kind": "vislens_interp block",
            "number": number,
            "display": asdict(display),
            "files": hashes,
            "stimuli": list(images),
            "trials": [asdict(one) for one in trials],
            **said,
        }
        write_text(temporary / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))

    write_folder(folder, fill, replace=False)


def read_block(folder: str | os.PathLike[str], *, pictures: bool = True) -> Block:
    """A block from its folder.

    Raises:
        FileNotFoundError, ValueError: It lacks a file, or a picture is not the one that was written.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r} holds no {MANIFEST}; expected a block that Experiment.ask wrote.")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        trials = [Trial(**one) for one in said["trials"]]
        stimuli, number, files = list(said["stimuli"]), int(said["number"]), dict(said["files"])
        embeddings = torch.from_numpy(np.load(folder / "embeddings.npy"))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(
            f"{str(path)!r} cannot be read as a block ({type(error).__name__}: {error}); expected what Experiment.ask "
            "wrote. Restore a copy."
        ) from error
    images = torch.zeros(len(stimuli), 3, 1, 1)
    if pictures:
        for name, written in files.items():
            file = folder / "stimuli" / name
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != written:
                raise ValueError(f"{str(file)!r} is missing or was changed; expected the picture as it was written.")
        images = check_images(load_images([folder / "stimuli" / f"{name}.png" for name in stimuli])[0])
    return Block(number, folder, trials, stimuli, images, embeddings)
