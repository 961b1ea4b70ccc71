"""Where an experiment stands: means by picture, the best ones, what is pending, and whether to stop."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vislens_interp.brain.experiment.answers import Answers
from vislens_interp.brain.experiment.blocks import Block
from vislens_interp.math import pearson
from vislens_interp.validation import check_counts, check_not_negative


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

    def __post_init__(self) -> None:
        check_counts(trials=self.trials, patience=self.patience)
        check_not_negative(gain=self.gain)


@dataclass(frozen=True)
class Status:
    """Where an experiment stands.

    Args:
        blocks, trials, answered, pending: Numbers of blocks and trials asked for, and of trials with a response of
            every target; ids of those without.
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
            lines.append(f"{name}: best {stimulus} with {mean:.3g} in {count} trials, r = {self.r[name]:.2f}")
        return "\n".join([*lines, f"stop: {self.stop}" if self.stop else "go on"])


@dataclass(frozen=True)
class Means:
    """Of M pictures, in the order of the blocks, (M, K) mean responses, NaN without any, and their numbers."""

    stimuli: list[str]
    means: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, blocks: Sequence[Block], answers: Answers, targets: int) -> "Means":
        stimuli = [name for block in blocks for name in block.stimuli]
        place = {name: row for row, name in enumerate(stimuli)}
        total, counts = (np.zeros((len(stimuli), targets)) for _ in range(2))
        for trial in (trial for block in blocks for trial in block.trials):
            values = np.array(answers.get(trial.trial_id, [np.nan] * targets))
            total[place[trial.stimulus]] += np.nan_to_num(values)
            counts[place[trial.stimulus]] += np.isfinite(values)
        return cls(stimuli, np.where(counts > 0, total / np.maximum(counts, 1), np.nan), counts)


def status(blocks: Sequence[Block], answers: Answers, targets: Sequence[str], rule: StopRule) -> Status:
    """Of an experiment's blocks and responses."""
    found = Means.of(blocks, answers, len(targets))
    trials = [trial for block in blocks for trial in block.trials]
    pending = tuple(one.trial_id for one in trials if any(map(math.isnan, answers.get(one.trial_id, [math.nan]))))
    best, r = {}, {}
    expected = {one.stimulus: (one.target or targets[0], one.expected) for one in trials}
    for column, target in enumerate(targets):
        means = found.means[:, column]
        if np.isfinite(means).any():
            row = int(np.nanargmax(means))
            best[target] = found.stimuli[row], float(means[row]), int(found.counts[row, column])
        pairs = [
            (expected[name][1], mean)
            for name, mean in zip(found.stimuli, means, strict=True)
            if expected[name][0] == target and np.isfinite(mean)
        ]
        r[target] = float(pearson(*torch.tensor(pairs, dtype=torch.float64).T)) if len(pairs) > 2 else math.nan
    answered = len(trials) - len(pending)
    return Status(len(blocks), len(trials), answered, pending, best, r, _stop(blocks, found, answered, rule))


def _stop(blocks: Sequence[Block], found: Means, answered: int, rule: StopRule) -> str | None:
    if answered >= rule.trials:
        return f"{answered} trials are answered, of a budget of {rule.trials}"
    heard = {name for name, row in zip(found.stimuli, found.means, strict=True) if np.isfinite(row).any()}
    blocks = [block for block in blocks if heard.intersection(block.stimuli)]
    if len(blocks) < max(4, rule.patience + 1):
        return None
    late = {name for block in blocks[-rule.patience :] for name in block.stimuli}
    new = np.array([name in late for name in found.stimuli])
    if not all(np.isfinite(found.means[rows]).any(0).all() for rows in (new, ~new)):
        return None
    spread = np.nanstd(found.means, 0)
    gained = np.nanmax(found.means[new], 0) - np.nanmax(found.means[~new], 0)
    if (gained < rule.gain * np.where(spread > 0, spread, 1.0)).all():
        return f"no better picture in {rule.patience} blocks (by {rule.gain:g} SD)"
    return None
