"""The closed loop: pictures out, responses back, state on the disk after every call."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vislens_interp.backends.base import Backend, get_backend
from vislens_interp.brain.dataset import BrainDataset
from vislens_interp.brain.experiment.answers import Answers, Told, load_answers, merge, read_answers, save_answers
from vislens_interp.brain.experiment.blocks import (
    EMBEDDINGS,
    MANIFEST,
    Block,
    Display,
    Trial,
    ordered,
    read_block,
    write_block,
)
from vislens_interp.brain.experiment.status import Means, Status, StopRule, status
from vislens_interp.brain.experiment.surrogate import Surrogate
from vislens_interp.brain.responses import check_known, check_targets, names_of, repeated
from vislens_interp.files import clear_leftovers, locked, write_text
from vislens_interp.images import ImageFiles, check_images, image_keys, resize
from vislens_interp.schema import read_document
from vislens_interp.tables import display_text
from vislens_interp.validation import check_counts, check_shares, check_switches, check_word

Design = Literal["explore", "exploit", "mixed", "contrast"]
DESIGNS = ("explore", "exploit", "mixed", "contrast")
KIND, SETTINGS = "vislens_interp experiment", "experiment.json"
TRIGGERS = 255
"""Of an eight-bit port; 0 is rest."""
CANDIDATES = 2000
"""Pictures of the gallery, drawn at random, that are looked at for one block."""
ANGLE = 30.0
"""Degrees by which a made picture's embedding is turned along the direction of larger responses."""


@dataclass
class Pick:
    """A picture of the next block, of a row of the gallery or made from it, and then the (D,) embedding wanted."""

    row: int
    kind: str
    target: str
    goal: np.ndarray | None = None


class Experiment:
    """Chooses pictures for the next block of an experiment from what earlier blocks gave.

    Blocks and responses lie in ``folder`` and nowhere else: after a kill, or in another process, an experiment on the
    same folder goes on where it was. Each block is a folder of its own, ``block_001`` and so on, with ``stimuli/``,
    PsychoPy's ``conditions.csv``, a template ``events.tsv`` of BIDS, and ``manifest.json`` with all that is needed to
    make its pictures again.

    Args:
        dataset_or_prior: What is known before: a :class:`~vislens_interp.brain.dataset.BrainDataset`, whose images are
            the gallery and whose responses are learnt from, so that those to come have to have the same unit; or
            pictures alone: (M, 3, H, W) in [0, 1] or ImageFiles.
        backend: Embeds pictures and makes new ones; a name or an object.
        targets: What responses are of; None takes those of the data set.
        folder: New, or that of an earlier experiment with the same settings.
        display: Size and time of pictures.
        stop_rule: When :meth:`status` says stop; not kept in the folder.
        seed: Of everything that is drawn.

    Raises:
        ImportError, ValueError: scikit-learn is not installed; the folder is of an experiment with other settings,
            there are no targets, or too few pictures.

    >>> import tempfile
    >>> from vislens_interp.backends.retrieval import NetworkEmbedder, RetrievalBackend
    >>> from vislens_interp.preprocess import Preprocess
    >>> photographs = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> colours = NetworkEmbedder(torch.nn.AvgPool2d(8), Preprocess(8, [0.0] * 3, [1.0] * 3))
    >>> exp = Experiment(photographs, RetrievalBackend(colours, photographs), ["V4"], tempfile.mkdtemp())
    >>> block = exp.ask(8, "explore")
    >>> [trial.trial_id for trial in block.trials[:2]], sorted(path.name for path in block.folder.iterdir())
    (['b001-t001', 'b001-t002'], ['conditions.csv', 'embeddings.safetensors', 'events.tsv', 'manifest.json', 'stimuli'])
    >>> exp.tell({"b001-t001": 12.0, "b001-t002": 7.0}), exp.tell({"b001-t001": 12.0})
    (2, 0)
    >>> len(exp.status().pending)
    6

    Source: the loop of MindPilot (ICLR 2026) in form: pictures, responses, a surrogate, new pictures.
    """

    def __init__(
        self,
        dataset_or_prior: BrainDataset | Tensor | ImageFiles,
        backend: str | Backend,
        targets: Sequence[str] | None = None,
        folder: str | os.PathLike[str] = "experiment",
        *,
        display: Display | None = None,
        stop_rule: StopRule | None = None,
        seed: int = 0,
    ) -> None:
        self.backend, self.folder, self.seed = get_backend(backend), Path(folder), seed
        self.display, self.stop_rule = display or Display(), stop_rule or StopRule()
        if isinstance(dataset_or_prior, BrainDataset):
            data = dataset_or_prior if targets is None else dataset_or_prior.select(targets)
            gallery, self.names, targets = data.images, data.names, data.targets
            self._known = data.mean_responses().double().numpy(), data.counts.double().numpy()
        elif targets is None:
            raise ValueError("targets is None for pictures without responses; expected names of what will be recorded.")
        else:
            gallery, shape = dataset_or_prior, (len(dataset_or_prior), len(check_targets(targets)))
            self.names = names_of(gallery)
            self._known = np.full(shape, np.nan), np.zeros(shape)
        self.targets = check_targets(targets)
        if twice := repeated(self.names):
            raise ValueError(
                f"dataset_or_prior names {twice[0]!r} more than once ({len(twice)} such names); expected each picture "
                "once, for its name says whether it was shown. Take one row of each, or give other names."
            )
        if len(gallery) < 8:
            raise ValueError(f"dataset_or_prior holds {len(gallery)} pictures; expected at least 8 to choose from.")
        self.gallery = gallery if isinstance(gallery, ImageFiles) else check_images(gallery)
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / SETTINGS):
            clear_leftovers(self.folder)
            self._check_settings()
        self._x = self._embed(self.gallery)
        self._surrogate = Surrogate(self._x.flatten(1).double().numpy())
        self.fit()

    def __repr__(self) -> str:
        return f"Experiment({str(self.folder)!r}, {len(self.gallery)} pictures, targets={self.targets})"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(display_text(repr(self)))}\n{escape(display_text(str(self.status())))}</pre>"

    def ask(
        self,
        n: int = 24,
        design: Design = "mixed",
        *,
        repetitions: int = 1,
        controls: float = 0.25,
        made: float = 0.5,
        target: str | None = None,
    ) -> Block:
        """Choose the next pictures, write them as a block, and give it.

        Args:
            n: Pictures, controls among them.
            design: ``"explore"``: what leaves the least unknown; ``"exploit"``: the highest expected responses;
                ``"mixed"``: the best under random draws from what the surrogate holds possible (Thompson sampling);
                ``"contrast"``: such draws, half of them for the highest and half for the lowest response.
            repetitions: Trials of each picture; none comes twice in a row, if there are others.
            controls: Share of n that are natural pictures drawn at random.
            made: Share of the others that are made by the backend, from natural ones; the rest are natural.
            target: What to choose for; None takes the targets in turn.

        Raises:
            KeyError, ValueError: There is no such target or design, a number is out of range, or too few pictures are
                left: a natural picture is shown in one block only.
        """
        check_counts(n=n, repetitions=repetitions)
        check_word("design", design, DESIGNS)
        check_shares(controls=controls, made=made)
        if target is not None:
            check_known("target", target, self.targets, "this experiment")
        with locked(self.folder / "ask"):
            blocks = self.blocks()
            number = len(blocks) + 1
            seed = int.from_bytes(hashlib.sha256(f"{self.seed} {number}".encode()).digest()[:4], "big")
            self.fit()
            picks = self._picks(n, design, controls, made, target, seed, blocks)
            return self._written(number, picks, design, repetitions, seed)

    def tell(self, responses: Told, *, trial_column: str = "trial_id", replace: bool = False, **reading: object) -> int:
        """Take responses to trials, in any order, and give how many are new: telling the same again changes nothing.

        Args:
            responses: A mapping from trial ids to a number (of the only target), to K numbers or to ``{target:
                number}``; a table (``.csv``, ``.tsv`` or a pandas DataFrame) with a column of trial ids and one for
                each target; MNE's epochs or their file, with trial ids in the metadata; or an NWB file with them in a
                table of presentations. NaN is no response, and never takes one away.
            trial_column: The column of trial ids.
            replace: Whether another response takes the place of an earlier one, instead of an error.
            **reading: For epochs what :func:`~vislens_interp.brain.readers.epochs.read_epochs` takes (``windows``), for
                NWB what :func:`~vislens_interp.brain.readers.nwb.read_nwb` takes (``window``, ``label``).

        Raises:
            FileNotFoundError, KeyError, TypeError, ValueError: There is no such file, it cannot be read, a trial was
                never asked for, or has another response already.
        """
        check_switches(replace=replace)
        with locked(self.folder / "responses"):
            trials = [trial.trial_id for block in self.blocks() for trial in block.trials]
            told = read_answers(responses, self.targets, trials, trial_column, reading)
            merged, new = merge(self.responses, told, trials, replace=replace)
            if new:
                save_answers(self.folder, merged)
        return new

    def fit(self) -> "Experiment":
        """Learn from everything that is on the disk, and from the data set; :meth:`ask` does it first."""
        blocks = self.blocks()
        found = Means.of(blocks, self.responses, len(self.targets))
        x = torch.cat([self._x.flatten(1), *[block.embeddings.flatten(1) for block in blocks]]).double().numpy()
        means, counts = self._known
        self._surrogate.fit(x, np.concatenate([means, found.means]), np.concatenate([counts, found.counts]))
        return self

    def status(self) -> Status:
        """Where the experiment stands, from what is on the disk."""
        return status(self.blocks(), self.responses, self.targets, self.stop_rule)

    def predict(self, images: Tensor, target: str | None = None) -> tuple[Tensor, Tensor]:
        """Expected mean responses to pictures (N, 3, H, W) at the last fit, and the SDs of that: (N,) each.

        ``target`` is the first one if None; KeyError with near names for an unknown one.
        """
        if target is not None:
            check_known("target", target, self.targets, "this experiment")
        column = 0 if target is None else self.targets.index(target)
        expected, unsure = self._surrogate.predict(self._embed(images).flatten(1).double().numpy(), column)
        return torch.from_numpy(expected), torch.from_numpy(unsure)

    def blocks(self, *, pictures: bool = False) -> list[Block]:
        """All blocks that were asked for, the first one first."""
        check_switches(pictures=pictures)
        found = sorted(path.parent for path in self.folder.glob(f"block_*/{MANIFEST}"))
        blocks, shape = [read_block(path, pictures=pictures) for path in found], tuple(self._x.shape[1:])
        for block in blocks:
            if block.embeddings.shape[1:] != shape:
                raise ValueError(
                    f"path={str(block.folder / EMBEDDINGS)!r}: shown has shape {tuple(block.embeddings.shape)}; "
                    f"expected {(len(block.stimuli), *shape)}, as this backend embeds. Restore a copy."
                )
        return blocks

    @property
    def responses(self) -> Answers:
        """What was told so far: (K,) numbers by trial id, NaN where absent."""
        return load_answers(self.folder, len(self.targets))

    def _check_settings(self) -> None:
        # Of pixels and names, because the last bits of embeddings differ from machine to machine.
        pictures = self.names if isinstance(self.gallery, ImageFiles) else image_keys(self.gallery)
        known = np.nan_to_num(self._known[0].astype(np.float32), nan=-1e30)
        content = hashlib.sha256("\n".join(pictures).encode("utf-8", "replace") + known.tobytes()).hexdigest()[:16]
        said = {"kind": KIND, "targets": self.targets, "backend": self.backend.name}
        said |= {"seed": self.seed, "display": asdict(self.display), "gallery": content}
        path = self.folder / SETTINGS
        if not path.is_file():
            write_text(path, json.dumps(said, indent=1, ensure_ascii=False))
            return
        before = read_document(self.folder, SETTINGS, KIND, None, "Experiment")
        for key, value in said.items():
            if before.get(key) != value:
                raise ValueError(
                    f"folder={str(self.folder)!r} is of an experiment with another {key} ({before.get(key)!r}, now "
                    f"{value!r}); expected the same. Name another folder."
                )

    def _picks(
        self, n: int, design: str, controls: float, made: float, target: str | None, seed: int, blocks: list[Block]
    ) -> list[Pick]:
        """The pictures of a block, controls last."""
        shown = {trial.source for block in blocks for trial in block.trials if trial.kind != "made"}
        free = [row for row, name in enumerate(self.names) if name not in shown]
        left = np.random.default_rng(seed).permutation(free)
        if len(left) < n:
            raise ValueError(
                f"n={n}, and {len(left)} of {len(self.names)} pictures were not shown yet; expected as many. Ask for "
                "fewer, or give a larger gallery."
            )
        random = round(n * controls)
        pool = left[random:][:CANDIDATES]
        x = self._x[pool].flatten(1).double().numpy()
        z = self._surrogate.components(x)
        picks: list[Pick] = []
        closed: list[int] = []
        targets = self.targets if target is None else [target]
        for place, name in enumerate(targets):
            count = len(range(place, n - random, len(targets)))
            column = self.targets.index(name)
            ways = self._surrogate.draws(column, count, seed + column)
            if design == "exploit":
                ways = np.repeat(self._surrogate.posterior(column).weights[:, None], count, 1)
            elif design == "contrast":
                ways[:, 1::2] *= -1
            elif design == "explore":
                chosen = self._surrogate.spread_out(x, column, count, closed)
            many = round(count * made)
            for number, way in enumerate(ways.T):
                values = z @ way
                values[closed] = -np.inf
                best = chosen[number] if design == "explore" else int(values.argmax())
                closed.append(best)
                goal = None
                if (number + 1) * many // count > number * many // count:  # made ones spread evenly among the picks
                    goal = turned(x[best], self._surrogate.direction(way), ANGLE)
                picks.append(Pick(int(pool[best]), "natural" if goal is None else "made", name, goal))
        return picks + [Pick(int(row), "control", "") for row in left[:random]]

    def _pictures(self, picks: list[Pick], seed: int) -> tuple[Tensor, Tensor]:
        """(n, 3, S, S) pictures and (n, *shape) embeddings, of what is shown and not of what was meant."""
        rows = [pick.row for pick in picks]
        images, embeddings = resize(self.gallery[rows], self.backend.size), self._x[rows].clone()
        made = [place for place, pick in enumerate(picks) if pick.goal is not None]
        if made:
            goals = torch.from_numpy(np.stack([pick.goal for pick in picks if pick.goal is not None])).float()
            drawn = self.backend.decode(
                goals.view(-1, *self.backend.shape).to(self.backend.device),
                init_image=images[made].to(self.backend.device),
                strength=self.backend.defaults.edit.strength,
                seeds=[seed + place for place in made],
            )
            images[made] = drawn.detach().cpu().float().clamp(0, 1)
            embeddings[made] = self._embed(images[made])
        return images, embeddings

    def _written(self, number: int, picks: list[Pick], design: str, repetitions: int, seed: int) -> Block:
        images, embeddings = self._pictures(picks, seed)
        flat = embeddings.flatten(1).double().numpy()
        used = {pick.target or self.targets[0] for pick in picks}
        expected = {name: np.stack(self._surrogate.predict(flat, self.targets.index(name)), 1) for name in used}
        place = {f"s{number:03d}-{row + 1:03d}": row for row in range(len(picks))}
        controls = [name for name, row in place.items() if picks[row].kind == "control"]
        trials = []
        for count, name in enumerate(ordered(list(place), controls, repetitions, seed)):
            pick, trial_id, trigger = picks[place[name]], f"b{number:03d}-t{count + 1:03d}", count % TRIGGERS + 1
            mean, unsure = expected[pick.target or self.targets[0]][place[name]].tolist()
            what = name, pick.kind, pick.target, design, self.names[pick.row]
            trials.append(Trial(trial_id, *what, trigger, mean, unsure))
        goals = {name: torch.from_numpy(goal) for name, row in place.items() if (goal := picks[row].goal) is not None}
        said = {"number": number, "backend": self.backend.name, "strength": self.backend.defaults.edit.strength}
        said |= {"angle": ANGLE, "seed": seed, "seeds": {name: seed + place[name] for name in goals}}
        folder = self.folder / f"block_{number:03d}"
        by_name, kept = dict(zip(place, images, strict=True)), {"shown": embeddings, "goals": goals}
        write_block(folder, self.display, trials, by_name, kept, said)
        return read_block(folder)

    @torch.no_grad()
    def _embed(self, images: Tensor | ImageFiles) -> Tensor:
        parts = (resize(part, self.backend.size) for part in images.split(64))
        return torch.cat([self.backend.encode(part).cpu().float() for part in parts])


def simulated(block: Block, respond: Callable[[Tensor], Tensor], seed: int = 0) -> dict[str, list[float]]:
    """Poisson counts for a block's trials, to try an experiment out; ``respond``: (N, 3, S, S) to rates (N, K)."""
    draw = torch.Generator().manual_seed(seed)
    counts = torch.poisson(respond(block.shown).double().clamp_min(0), generator=draw)
    return {trial.trial_id: row.tolist() for trial, row in zip(block.trials, counts, strict=True)}


def turned(x: np.ndarray, direction: np.ndarray, degrees: float) -> np.ndarray:
    """An embedding (D,) turned so far towards a direction (D,), with its length kept.

    >>> turned(np.array([2.0, 0.0]), np.array([0.0, 1.0]), 90.0).round(6).tolist()
    [0.0, 2.0]
    """
    length, angle = max(float(np.linalg.norm(x)), 1e-12), math.radians(degrees)
    across = direction - x * float(x @ direction) / length**2
    across = across / max(float(np.linalg.norm(across)), 1e-12)
    return math.cos(angle) * x + math.sin(angle) * length * across
