"""The closed loop: pictures out, responses back, state on the disk after every call."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vislens_interp.backends.base import Backend, get_backend
from vislens_interp.brain.dataset import BrainDataset
from vislens_interp.brain.experiment.answers import load_answers, merge, read_answers, save_answers
from vislens_interp.brain.experiment.blocks import (
    CONTROL,
    MANIFEST,
    TRIGGERS,
    Block,
    Display,
    Trial,
    ordered,
    read_block,
    write_block,
)
from vislens_interp.brain.experiment.surrogate import CANDIDATES, Surrogate, spread_out
from vislens_interp.brain.responses import check_targets
from vislens_interp.files import clear_leftovers, locked, write_text
from vislens_interp.images import ImageFiles, check_images, image_keys, resize
from vislens_interp.math import pearson
from vislens_interp.validation import check_counts, check_shares, check_word

Design = Literal["explore", "exploit", "mixed", "contrast"]
DESIGNS = ("explore", "exploit", "mixed", "contrast")
SETTINGS = "experiment.json"
ANGLE = 30.0
"""Degrees by which a made picture's embedding is turned along the direction of larger responses."""


@dataclass(frozen=True)
class StopRule:
    """When an experiment has seen enough.

    Args:
        trials: Answered trials at most.
        patience: Blocks in a row that may pass without a better picture ...
        gain: ... by this many SDs of all mean responses, before it stops; at least four blocks are always run.
    """

    trials: int = 600
    patience: int = 3
    gain: float = 0.1


@dataclass(frozen=True)
class Status:
    """Where an experiment stands.

    Args:
        blocks, trials, answered: Blocks and trials asked for, and trials with a response of every target.
        pending: Trial ids that lack one.
        best: For each target the stimulus with the highest mean response, that mean, and its trials.
        r: For each target Pearson's r of what was expected of pictures before they were shown and what came back; NaN
            below three pictures.
        stop: Why it may stop, or None.
    """

    blocks: int
    trials: int
    answered: int
    pending: tuple[str, ...]
    best: dict[str, tuple[str, float, int]]
    r: dict[str, float]
    stop: str | None

    def __str__(self) -> str:
        lines = [f"{self.blocks} blocks, {self.answered} of {self.trials} trials answered"]
        for name, (stimulus, mean, count) in self.best.items():
            said = f"{name}: best {stimulus} with {mean:.3g} in {count} trials"
            lines.append(f"{said}, expected against seen r = {self.r[name]:.2f}")
        return "\n".join([*lines, f"stop: {self.stop}" if self.stop else "go on"])


class Experiment:
    """Chooses pictures for the next block of an experiment from what earlier blocks gave.

    Blocks and responses lie in ``folder`` and nowhere else: after a kill, or in another process, an experiment on the
    same folder goes on where it was. Each block is a folder of its own, ``block_001`` and so on, with ``stimuli/``,
    PsychoPy's ``conditions.csv``, a template ``events.tsv`` of BIDS, and a manifest.

    Args:
        dataset_or_prior: What is known before: a :class:`~vislens_interp.brain.dataset.BrainDataset` whose images are
            the gallery and whose mean responses are learnt from, or pictures alone: (M, 3, H, W) or ImageFiles.
        backend: Embeds pictures and makes new ones; a name or an object.
        targets: What responses are of; None takes those of the data set.
        folder: New, or that of an earlier experiment with the same settings.
        display: Size and time of pictures.
        stop_rule: When :meth:`status` says stop.
        seed: Of everything that is drawn.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: The folder is of an experiment with other settings, or targets do not fit the data set.

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
        self.backend = get_backend(backend)
        self.folder = Path(folder)
        self.display, self.stop_rule, self.seed = display or Display(), stop_rule or StopRule(), seed
        known = None
        if isinstance(dataset_or_prior, BrainDataset):
            data = dataset_or_prior if targets is None else dataset_or_prior.select(targets)
            gallery, self.names, targets = data.images, data.names, data.targets
            known = data.mean_responses().double().numpy()
        else:
            gallery = dataset_or_prior
            self.names = (
                gallery.names
                if isinstance(gallery, ImageFiles)
                else [f"image_{row:05d}" for row in range(len(gallery))]
            )
        if targets is None:
            raise ValueError("targets is None for pictures without responses; expected names of what will be recorded.")
        self.targets = check_targets(targets)
        if len(gallery) < 8:
            raise ValueError(f"dataset_or_prior holds {len(gallery)} pictures; expected at least 8 to choose from.")
        self.gallery = gallery if isinstance(gallery, ImageFiles) else check_images(gallery)
        self._x = self._embed(self.gallery)
        self._known = known if known is not None else np.full((len(gallery), len(self.targets)), np.nan)
        self._surrogate = Surrogate(self._x.flatten(1).double().numpy(), seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / SETTINGS):
            clear_leftovers(self.folder)
            self._check_settings()
        self.fit()

    # What is on the disk

    def _check_settings(self) -> None:
        # Of pixels and names, because the last bits of embeddings differ from machine to machine.
        pictures = self.names if isinstance(self.gallery, ImageFiles) else image_keys(self.gallery)
        known = np.nan_to_num(self._known.astype(np.float32), nan=-1e30)
        content = hashlib.sha256("\n".join(pictures).encode("utf-8", "replace") + known.tobytes()).hexdigest()[:16]
        said = {
            "kind": "vislens_interp experiment",
            "targets": self.targets,
            "backend": self.backend.name,
            "seed": self.seed,
            "display": asdict(self.display),
            "gallery": content,
        }
        path = self.folder / SETTINGS
        if not path.is_file():
            write_text(path, json.dumps(said, indent=1, ensure_ascii=False))
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            other = [key for key in said if before.get(key) != said[key]]
        except (ValueError, AttributeError) as error:
            raise ValueError(
                f"{str(path)!r} cannot be read ({error}); expected an experiment. Restore a copy."
            ) from error
        if other:
            key = other[0]
            raise ValueError(
                f"folder={str(self.folder)!r} is of an experiment with another {key} ({before.get(key)!r}, now "
                f"{said[key]!r}); expected the same. Name another folder."
            )

    def blocks(self, *, pictures: bool = False) -> list[Block]:
        """All blocks that were asked for, the first one first."""
        found = sorted(path.parent for path in self.folder.glob(f"block_*/{MANIFEST}"))
        return [read_block(path, pictures=pictures) for path in found]

    @property
    def responses(self) -> dict[str, list[float]]:
        """What was told so far: (K,) numbers by trial id, NaN where absent."""
        return load_answers(self.folder)

    # The four verbs

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
            repetitions: Trials of each picture; no picture comes twice in a row, if there are others.
            controls: Share of n that are natural pictures drawn at random.
            made: Share of the others that are made by the backend, from natural ones; the rest are natural.
            target: What to choose for; None takes the targets in turn.

        Raises:
            KeyError, ValueError: A number, a design or a target is none, or too few pictures are left.
        """
        check_counts(n=n, repetitions=repetitions)
        check_word("design", design, DESIGNS)
        check_shares(controls=controls, made=made)
        if target is not None and target not in self.targets:
            raise KeyError(f"target {target!r} is not in this experiment; it has {', '.join(self.targets)}.")
        with locked(self.folder / "ask"):
            blocks = self.blocks()
            number = len(blocks) + 1
            seed = int.from_bytes(hashlib.sha256(f"{self.seed} {number}".encode()).digest()[:4], "big")
            self.fit()
            chosen = self._chosen(n, design, controls, made, target, seed, blocks)
            return self._written(number, chosen, design, repetitions, seed)

    def tell(self, responses: Any, *, trial_column: str = "trial_id", replace: bool = False, **given: Any) -> int:
        """Take responses to trials, in any order and number; telling the same again changes nothing.

        Args:
            responses: See :func:`~vislens_interp.brain.experiment.answers.read_answers`: a mapping from trial ids, a
                table, MNE's epochs (with ``windows=``) or an NWB file (with ``window=``).
            trial_column: The column of trial ids.
            replace: Whether another response takes the place of an earlier one, instead of an error.

        Returns:
            The number of responses that are new.

        Raises:
            KeyError, TypeError, ValueError: A trial was never asked for or has another response already, or what
                ``read_answers`` refuses.
        """
        told = read_answers(responses, self.targets, trial_column, **given)
        with locked(self.folder / "responses"):
            trials = [trial.trial_id for block in self.blocks() for trial in block.trials]
            merged, new = merge(self.responses, told, trials, replace=replace)
            if new:
                save_answers(self.folder, merged)
        return new

    def fit(self) -> "Experiment":
        """Learn from everything that is on the disk, and from the data set; gives the experiment."""
        stimuli, means, _ = self._stimulus_means()
        x = torch.cat([self._x.flatten(1), *[block.embeddings.flatten(1) for block in self.blocks()]]).double().numpy()
        rows = np.concatenate([self._known, means]) if stimuli else self._known
        seen = np.isfinite(rows).any(1)
        self._surrogate.fit(x[seen], rows[seen])
        return self

    def status(self) -> Status:
        """Where the experiment stands, from what is on the disk."""
        blocks, answers = self.blocks(), self.responses
        trials = [trial for block in blocks for trial in block.trials]
        whole = [one.trial_id for one in trials if not any(map(math.isnan, answers.get(one.trial_id, [math.nan])))]
        stimuli, means, counts = self._stimulus_means()
        best, r = {}, {}
        expected = {one.stimulus: one.expected for one in trials}
        for column, name in enumerate(self.targets):
            values = means[:, column] if stimuli else np.zeros(0)
            if np.isfinite(values).any():
                row = int(np.nanargmax(values))
                best[name] = (stimuli[row], float(values[row]), int(counts[row, column]))
            pairs = [
                (expected[one], value)
                for one, value in zip(stimuli, values, strict=False)
                if expected.get(one) is not None and np.isfinite(value) and self._target_of(one, trials) == name
            ]
            r[name] = float(pearson(*torch.tensor(pairs, dtype=torch.float64).T)) if len(pairs) > 2 else math.nan
        answered = set(whole)
        pending = tuple(one.trial_id for one in trials if one.trial_id not in answered)
        return Status(len(blocks), len(trials), len(whole), pending, best, r, self._stop(blocks, len(whole)))

    def predict(self, images: Tensor, target: str | None = None) -> tuple[Tensor, Tensor]:
        """Expected mean responses to pictures (N, 3, H, W), and how unsure that is (SD): (N,) each."""
        column = self.targets.index(target) if target is not None else 0
        expected = self._surrogate.predict(self._embed(images).flatten(1).double().numpy(), column)
        return torch.from_numpy(expected[0]), torch.from_numpy(expected[1])

    # How pictures are chosen

    def _chosen(
        self, n: int, design: str, controls: float, made: float, target: str | None, seed: int, blocks: list[Block]
    ) -> list[dict[str, Any]]:
        """Pictures of a block, each with its image, kind, source, target and expectation."""
        draw = np.random.default_rng(seed)
        shown = {trial.source for block in blocks for trial in block.trials if trial.kind != "made"}
        left = np.array([row for row, name in enumerate(self.names) if name not in shown])
        if len(left) < n:
            raise ValueError(
                f"n={n}, and {len(left)} of {len(self.names)} pictures were not shown yet; expected as many. Ask for "
                "fewer, or give a larger gallery."
            )
        random = round(n * controls)
        rows = draw.permutation(left)
        control, pool = rows[:random], np.sort(rows[random:][:CANDIDATES])
        wanted = n - random
        of = [self.targets[place % len(self.targets)] if target is None else target for place in range(wanted)]
        picks: list[dict[str, Any]] = []
        for name in dict.fromkeys(of):
            picks += self._picks(pool, name, of.count(name), design, made, seed, {pick["row"] for pick in picks})
        picks += [{"row": int(row), "kind": CONTROL, "target": "", "x": None} for row in control]
        images, embeddings = self._pictures(picks, seed)
        for pick, image, x in zip(picks, images, embeddings, strict=True):
            column = self.targets.index(pick["target"] or self.targets[0])
            expected, unsure = self._surrogate.predict(x.flatten()[None].double().numpy(), column)
            pick |= {"image": image, "embedding": x, "source": self.names[pick["row"]]}
            pick |= {"expected": float(expected[0]), "unsure": float(unsure[0])}
        return picks

    def _picks(
        self, pool: np.ndarray, target: str, count: int, design: str, made: float, seed: int, taken: set[int]
    ) -> list[dict[str, Any]]:
        """Rows of the gallery for one target, and where a picture is made from one the embedding that it shall have."""
        column = self.targets.index(target)
        x = self._x.flatten(1).double().numpy()[pool]
        closed = [place for place, row in enumerate(pool) if int(row) in taken]
        if design == "explore":
            places = spread_out(self._surrogate.covariance(x, column), count, closed)
            ways = self._surrogate.samples(x, column, count, seed + column)
        else:
            ways = self._surrogate.samples(x, column, count, seed + column)
            if design == "exploit":
                ways = np.repeat(self._surrogate.predict(x, column)[0][:, None], count, 1)
            if design == "contrast":
                ways = ways * np.where(np.arange(count) % 2 == 0, 1.0, -1.0)
            places = []
            for way in ways.T:
                order = np.argsort(-way, kind="stable")
                places.append(next(int(place) for place in order if place not in closed))
                closed.append(places[-1])
        many = round(count * made)
        picks = []
        for number, (place, way) in enumerate(zip(places, ways.T, strict=True)):
            goal = None
            if (number + 1) * many // count > number * many // count:  # made ones spread evenly among the picks
                goal = _turned(x[place], self._surrogate.direction(x, way), ANGLE)
            picks.append(
                {"row": int(pool[place]), "kind": "natural" if goal is None else "made", "target": target, "x": goal}
            )
        return picks

    def _pictures(self, picks: list[dict[str, Any]], seed: int) -> tuple[Tensor, Tensor]:
        """(n, 3, S, S) pictures and (n, *shape) embeddings, of what is shown and not of what was meant."""
        rows = [pick["row"] for pick in picks]
        images = self._sized(self.gallery[rows])
        embeddings = self._x[rows].clone()
        made = [place for place, pick in enumerate(picks) if pick["x"] is not None]
        if made:
            goals = np.stack([picks[place]["x"] for place in made])
            x = torch.from_numpy(goals).float().view(-1, *self.backend.shape).to(self.backend.device)
            drawn = self.backend.decode(
                x,
                init_image=images[made].to(self.backend.device),
                strength=self.backend.defaults.edit.strength,
                seeds=[(seed + place) % 2**31 for place in made],
            )
            images[made] = drawn.detach().cpu().float().clamp(0, 1)
            embeddings[made] = self._embed(images[made])
        return images, embeddings

    def _written(self, number: int, picks: list[dict[str, Any]], design: str, repetitions: int, seed: int) -> Block:
        names = [f"s{number:03d}-{place + 1:03d}" for place in range(len(picks))]
        controls = [name for name, pick in zip(names, picks, strict=True) if pick["kind"] == CONTROL]
        by_name = dict(zip(names, picks, strict=True))
        trials = [
            Trial(
                f"b{number:03d}-t{place + 1:03d}",
                name,
                by_name[name]["kind"],
                by_name[name]["target"],
                design,
                by_name[name]["source"],
                place % TRIGGERS + 1,
                by_name[name]["expected"],
                by_name[name]["unsure"],
            )
            for place, name in enumerate(ordered(names, controls, repetitions, seed))
        ]
        folder = self.folder / f"block_{number:03d}"
        images = {name: by_name[name]["image"] for name in names}
        embeddings = torch.stack([by_name[name]["embedding"] for name in names])
        said = {
            "backend": self.backend.name,
            "strength": self.backend.defaults.edit.strength,
            "angle": ANGLE,
            "seed": seed,
            "targets": self.targets,
            "surrogate": [str(getattr(one, "kernel_", one)) for one in self._surrogate.processes],
        }
        write_block(folder, number, self.display, trials, images, embeddings, said)
        return read_block(folder)

    # Small parts

    def _sized(self, images: Tensor) -> Tensor:
        return resize(images, self.backend.size)

    def _embed(self, images: Tensor | ImageFiles) -> Tensor:
        with torch.no_grad():
            return torch.cat(
                [self.backend.encode(self._sized(part)).detach().cpu().float() for part in images.split(64)]
            )

    def _stimulus_means(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Stimuli of all blocks, (M, K) mean responses, NaN without any, and (M, K) counts."""
        blocks, answers = self.blocks(), self.responses
        stimuli = [name for block in blocks for name in block.stimuli]
        place = {name: row for row, name in enumerate(stimuli)}
        total, counts = (np.zeros((len(stimuli), len(self.targets))) for _ in range(2))
        for block in blocks:
            for trial in block.trials:
                values = np.array(answers.get(trial.trial_id, [np.nan] * len(self.targets)))
                there = np.isfinite(values)
                total[place[trial.stimulus]] += np.where(there, values, 0.0)
                counts[place[trial.stimulus]] += there
        return stimuli, np.where(counts > 0, total / np.maximum(counts, 1), np.nan), counts

    def _target_of(self, stimulus: str, trials: list[Trial]) -> str:
        return next((one.target or self.targets[0] for one in trials if one.stimulus == stimulus), "")

    def _stop(self, blocks: list[Block], answered: int) -> str | None:
        rule = self.stop_rule
        if answered >= rule.trials:
            return f"{answered} trials are answered, of a budget of {rule.trials}"
        stimuli, means, _ = self._stimulus_means()
        heard = {name for name, row in zip(stimuli, means, strict=True) if np.isfinite(row).any()}
        blocks = [block for block in blocks if heard.intersection(block.stimuli)]
        if len(blocks) < max(4, rule.patience + 1) or not np.isfinite(means).any():
            return None
        spread = np.nanstd(means, 0)
        recent = {name for block in blocks[-rule.patience :] for name in block.stimuli}
        new = np.array([name in recent for name in stimuli])
        if not np.isfinite(means[new]).any(0).all() or not np.isfinite(means[~new]).any(0).all():
            return None
        gained = (np.nanmax(means[new], 0) - np.nanmax(means[~new], 0)) / np.where(spread > 0, spread, 1.0)
        if (gained < rule.gain).all():
            return f"no better picture in {rule.patience} blocks (by {rule.gain:g} SD)"
        return None


def simulated(block: Block, respond: Callable[[Tensor], Tensor], seed: int = 0) -> dict[str, list[float]]:
    """Poisson responses of a model to a block's trials, for trying an experiment out.

    Args:
        respond: Pictures (N, 3, S, S) to rates (N, K), none below 0.
        seed: Of the counts.
    """
    rates = respond(block.images).double().clamp_min(0)
    draw = torch.Generator().manual_seed(seed)
    place = {name: row for row, name in enumerate(block.stimuli)}
    rows = torch.stack([rates[place[trial.stimulus]] for trial in block.trials])
    counts = torch.poisson(rows, generator=draw)
    return {trial.trial_id: row.tolist() for trial, row in zip(block.trials, counts, strict=True)}


def _turned(x: np.ndarray, direction: np.ndarray, degrees: float) -> np.ndarray:
    """An embedding turned towards a direction, with its length."""
    length = float(np.linalg.norm(x))
    unit = x / max(length, 1e-12)
    across = direction - unit * float(unit @ direction)
    across = across / max(float(np.linalg.norm(across)), 1e-12)
    angle = math.radians(degrees)
    return length * (math.cos(angle) * unit + math.sin(angle) * across)
