"""A block of trials as a folder: pictures, PsychoPy's conditions, a BIDS template of events, and a manifest."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vislens_interp.files import load_state, rebuilding, save_state, write_folder, write_text
from vislens_interp.images import check_images, load_images, resize, to_pil
from vislens_interp.schema import check_finite, check_inside, check_schema, read_document
from vislens_interp.tables import csv_text
from vislens_interp.validation import check_counts, check_positive, check_switches

KIND = "vislens_interp block"
MANIFEST, EMBEDDINGS, PICTURES = "manifest.json", "embeddings.safetensors", "stimuli"


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

    def __post_init__(self) -> None:
        check_counts(size_px=self.size_px)
        check_positive(size_deg=self.size_deg, duration=self.duration, gap=self.gap)


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
        expected, unsure: For its target (the first one for controls) the mean response that was expected before it was
            shown, and the SD of that expectation.
    """

    trial_id: str
    stimulus: str
    kind: str
    target: str
    design: str
    source: str
    trigger: int
    expected: float
    unsure: float


TRIAL: dict[str, Any] = {item.name: item.type for item in fields(Trial)}
SCHEMA = {"number": int, "sha256": {str: str}, "trials": [TRIAL]}
"""What is read of a manifest."""


@dataclass(frozen=True, eq=False)
class Block:
    """What :meth:`~vislens_interp.brain.experiment.experiment.Experiment.ask` gives.

    Args:
        number, folder: From 1; where it lies on the disk.
        trials, stimuli: In the order in which they are to be shown; M names of pictures.
        images: (M, 3, S, S), in the order of ``stimuli``; without pixels where they were not read.
        embeddings: (M, *shape) of them.
    """

    number: int
    folder: Path
    trials: list[Trial]
    stimuli: list[str]
    images: Tensor
    embeddings: Tensor

    def __len__(self) -> int:
        return len(self.trials)

    def __repr__(self) -> str:
        return f"Block({self.number}, {len(self)} trials of {len(self.stimuli)} pictures, {str(self.folder)!r})"

    @property
    def shown(self) -> Tensor:
        """(N, 3, S, S): the picture of each trial."""
        place = {name: row for row, name in enumerate(self.stimuli)}
        return self.images[[place[trial.stimulus] for trial in self.trials]]


def ordered(stimuli: Sequence[str], controls: Sequence[str], repetitions: int, seed: int) -> list[str]:
    """Every stimulus ``repetitions`` times in random order: none twice in a row, if others are left; controls evenly.

    >>> ordered(["a", "b"], [], 2, seed=0) in (["a", "b", "a", "b"], ["b", "a", "b", "a"])
    True
    """
    draw = np.random.default_rng(seed)
    others = [name for name in stimuli if name not in set(controls)]
    order: list[str] = []
    for _ in range(200):  # random orders, until one has no picture twice in a row
        order, extra = ([part[row] for _ in range(repetitions) for row in draw.permutation(len(part))]
                        for part in (others, list(controls)))  # fmt: skip
        step = (len(order) + len(extra)) / max(len(extra), 1)
        for number, name in enumerate(extra):
            order.insert(int((number + draw.random()) * step), name)
        if all(first != second for first, second in pairwise(order)):
            break
    return order


def write_block(
    folder: Path,
    display: Display,
    trials: list[Trial],
    images: Mapping[str, Tensor],
    embeddings: Mapping[str, object],
    said: Mapping[str, object],
) -> None:
    """Write a block whole or not at all: (3, S, S) by stimulus, ``embeddings["shown"]`` of them, and the rest."""
    rows = [
        [one.trial_id, f"{PICTURES}/{one.stimulus}.png", one.trigger, one.kind, *asdict(display).values()]
        for one in trials
    ]
    conditions = csv_text(["trial_id", "image", "trigger", "kind", *asdict(display)], rows)
    lines = [["n/a", display.duration, one.kind, f"{one.stimulus}.png", one.trial_id, one.trigger] for one in trials]
    events = csv_text(["onset", "duration", "trial_type", "stim_file", "trial_id", "trigger"], lines, delimiter="\t")

    def fill(temporary: Path) -> None:
        (temporary / PICTURES).mkdir()
        hashes = {}
        for name, image in images.items():
            path = temporary / PICTURES / f"{name}.png"
            to_pil(resize(image[None], display.size_px))[0].save(path)
            hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        write_text(temporary / "conditions.csv", conditions)
        write_text(temporary / "events.tsv", events)
        save_state(temporary / EMBEDDINGS, "block", embeddings)
        manifest = {"kind": KIND, "display": asdict(display), **said}
        manifest |= {"sha256": hashes, "trials": [asdict(one) for one in trials]}
        write_text(temporary / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))

    write_folder(folder, fill, replace=False)


def read_block(folder: str | os.PathLike[str], *, pictures: bool = True) -> Block:
    """A block from its folder, its pictures only if wanted; FileNotFoundError, ValueError where a file is not whole."""
    check_switches(pictures=pictures)
    folder = Path(folder)
    path = folder / MANIFEST
    said = read_document(folder, MANIFEST, KIND, None, "Experiment.ask()")
    with rebuilding(path, "the block"):
        check_schema(said, SCHEMA, repr(str(path)))
        number, hashes = said["number"], said["sha256"]
        trials = [Trial(**{name: one[name] for name in TRIAL}) for one in said["trials"]]
        if strange := {one.stimulus for one in trials} ^ set(hashes):
            raise ValueError(f"trials show {min(strange)!r} or sha256 names it, not both")
        if len({one.trial_id for one in trials}) < len(trials) or number < 1:
            raise ValueError("a trial_id of trials comes twice, or number is below 1")
        files = [check_inside(folder, f"{PICTURES}/{name}.png", repr(str(path)), "sha256") for name in hashes]
    images = torch.zeros(len(hashes), 3, 0, 0)
    if pictures:
        for file, written in zip(files, hashes.values(), strict=True):
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != written:
                raise ValueError(f"{str(file)!r} is missing or was changed; expected the picture as it was written.")
        images = check_images(load_images(files)[0])
    with rebuilding(path := folder / EMBEDDINGS, "the block"):
        kept = load_state(path, "block")
        check_schema(kept, {"shown": Tensor, "goals": {str: Tensor}}, repr(str(path)))
        check_finite(kept, repr(str(path)))
        embeddings = kept["shown"]
        if embeddings.shape[:1] != (len(hashes),):
            raise ValueError(
                f"shown has shape {tuple(embeddings.shape)}; expected an embedding of {len(hashes)} pictures"
            )
    return Block(number, folder, trials, list(hashes), images, embeddings)
