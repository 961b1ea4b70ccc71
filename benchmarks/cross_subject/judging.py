"""How cross_subject's cells are judged, and how sure that is.

One population has one landscape, so that there are no units to draw but those that judge. Two things are drawn: the
judge's neurons (which of an animal's neurons were recorded is chance), then the gallery's pictures, all neurons
together, for they saw the same ones; at large angles most edits become the same few pictures, and an interval that
ignored this would be too narrow. Pictures get weights of a Bayesian bootstrap, which never leaves all of an edit's
pictures out. Who else might have been the other animal no draw can say: there are two.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.script import read, read_all
from benchmarks.common.tables import signed
from benchmarks.cross_subject.subjects import ANIMALS, LEVELS, REGIONS, SIMULATED, VIEWS, animal_pair, subject_pair
from benchmarks.v4_recorded.methods import ANGLES, SIGN

DRAWS = 1000
Floats = NDArray[np.float64]
Key = tuple[str, str, float]  # method, direction, angle


@dataclass(frozen=True)
class Measured:
    """A value and what it is in each draw; ``ends`` are the value and its 95 % interval, in four digits."""

    value: float
    draws: Floats

    @property
    def ends(self) -> list[float]:
        low, high = np.quantile(self.draws, [0.025, 0.975])
        return [round(float(number), 4) for number in (self.value, low, high)]

    def __sub__(self, other: "Measured") -> "Measured":
        return Measured(self.value - other.value, self.draws - other.draws)

    def __mul__(self, sign: int) -> "Measured":
        return Measured(sign * self.value, sign * self.draws)

    def __str__(self) -> str:
        return signed(self.ends)


def mean(parts: Iterable[Measured]) -> Measured:
    """Of measures that are all kept: sessions, halves, angles."""
    parts = list(parts)
    return Measured(float(np.mean([part.value for part in parts])), np.mean([part.draws for part in parts], axis=0))


def drawn_mean(units: Sequence[Measured]) -> Measured:
    """Of units that were drawn from more than were measured: these are drawn again first."""
    chosen = np.random.default_rng(3).integers(len(units), size=(DRAWS, len(units)))
    draws = np.stack([unit.draws for unit in units])[chosen, np.arange(DRAWS)[:, None]].mean(1)
    return Measured(float(np.mean([unit.value for unit in units])), draws)


class Judge:
    """Responses to one gallery, (pictures, neurons), and draws of both that are the same for whatever is judged.

    Of the cells of ``gallery_cell`` and, where it has been run, of ``encoder_cell``. The number of the subject seeds
    the draws of its neurons; its half's seeds those of its pictures.
    """

    def __init__(self, cell: dict[str, Any], encoder: dict[str, Any] | None, place: int, half: int) -> None:
        self.encoder, self.position = encoder, {row: number for number, row in enumerate(cell["rows"])}
        held = cell | {"encoder": encoder["encoder"]} if encoder else cell
        self.views = {view: np.array(held[view]) for view in VIEWS if view in held}
        self.sd = {"recorded": cell["population_sd"], "encoder": encoder["population_sd"] if encoder else None}
        pictures, neurons = self.views["recorded"].shape
        self.pictures = np.random.default_rng([place, half]).exponential(size=(DRAWS, pictures))
        self.neurons = np.random.default_rng([place]).multinomial(neurons, [1 / neurons] * neurons, size=DRAWS)

    def weights(self, tally: dict[str, list[int]]) -> Floats:
        """Share of each picture of the gallery in what edits became."""
        weights = np.zeros(len(self.position))
        weights[[self.position[row] for row in tally["rows"]]] = tally["counts"]
        return weights / weights.sum()

    def population(self, view: str, after: Floats, before: Floats) -> list[Measured]:
        """Change of the neurons' mean, in its SDs, for each row of ``after`` (edits, pictures)."""
        responses = self.views[view] / self.sd[view]
        drawn = responses @ self.neurons.T / responses.shape[1]
        return self._changes(responses.mean(1), drawn.T, after, before)

    def column(self, view: str, number: int, after: Floats, before: Floats) -> list[Measured]:
        """Change of one target, in SDs (of its predictions, where an encoder judges)."""
        responses = self.views[view][:, number]
        responses = responses / responses.std() if view == "encoder" else responses
        return self._changes(responses, responses[None], after, before)

    def by_neuron(self, after: Floats, before: Floats) -> Floats:
        """Recorded change of every neuron, (edits, neurons), in its own SDs."""
        return (after - before) @ self.views["recorded"]

    def _changes(self, responses: Floats, drawn: Floats, after: Floats, before: Floats) -> list[Measured]:
        weights = np.vstack([after, before])
        levels = (self.pictures * drawn) @ weights.T / (self.pictures @ weights.T)
        values = weights @ responses
        return [Measured(value - values[-1], levels[:, row] - levels[:, -1]) for row, value in enumerate(values[:-1])]


class Results:
    """Everything judged: populations by who learnt and who judged, groups of neurons, simulated regions."""

    def __init__(self, out: Path) -> None:
        self.judges = {}
        names = [*ANIMALS, *SIMULATED]
        for path in sorted(out.glob("judge-*.json")):
            name, half = path.stem.split("-")[1:]
            seen = out / f"encoder-{name}-{half}.json"
            encoder = read(seen)["found"] if seen.exists() else None
            self.judges[name, int(half)] = Judge(read(path)["found"], encoder, names.index(name), int(half))
        found: dict[str, dict[Any, list[Any]]] = {
            name: defaultdict(list) for name in ("populations", "groups", "regions", "neurons", "shorts")
        }
        self.sessions: set[str] = set()
        self.cells = self.excluded = 0
        for stored in read_all(out, "source-*.json"):
            cell = stored["found"]
            self.cells += 1
            self.sessions |= {cell["source"]} & set(ANIMALS)
            self.excluded += cell["excluded"] * (cell["unit"] == "population")
            self._judge(cell, found)
        self.populations = {key: mean(parts) for key, parts in found["populations"].items()}
        self.groups = _units({key: mean(parts) for key, parts in found["groups"].items()})
        self.regions = _units({key: mean(parts) for key, parts in found["regions"].items()})
        self.shorts = {key: float(np.mean(parts)) for key, parts in found["shorts"].items()}
        self.neurons: dict[Any, list[float]] = defaultdict(list)
        for (pair, key, _), parts in found["neurons"].items():
            self.neurons[pair, key].extend(np.mean(parts, axis=0).tolist())

    def _judge(self, cell: dict[str, Any], found: dict[str, dict[Any, list[Any]]]) -> None:
        """What all judges say of one cell's edits."""
        source, half, unit = cell["source"], cell["half"], cell["unit"]
        before, *edits = cell["edits"]
        keys: list[Key] = [(edit["method"], edit["direction"], edit["angle"]) for edit in edits]
        signs = np.array([SIGN[edit["direction"]] for edit in edits])
        region, whole = unit in REGIONS, unit == "population"
        kind = "regions" if region else "populations" if whole else "groups"
        last = () if whole else (unit,) if region else ((source, unit),)
        for name in before["judges"]:
            judge = self.judges[name, half]
            zero = judge.weights(before["judges"][name])
            after = np.stack([judge.weights(edit["judges"][name]) for edit in edits])
            pair = subject_pair(source, name) if region else animal_pair(source, name)
            for view in judge.views:
                if region:
                    changes = judge.column(view, list(REGIONS).index(unit), after, zero)
                else:
                    changes = judge.population(view, after, zero)
                for key, sign, one in zip(keys, signs, changes, strict=True):
                    found[kind][pair, view, key, *last].append(one * sign)
            if whole:
                for key, row in zip(keys, signs[:, None] * judge.by_neuron(after, zero), strict=True):
                    found["neurons"][pair, key, name].append(row)
        for key, edit in zip(keys, edits, strict=True) if whole else ():
            found["shorts"][key].append(edit["short"])

    def pairs(self) -> list[tuple[str, str, str]]:
        """Who learnt, who judged, and how they differ; by judge."""
        return sorted({key[0] for key in self.populations}, key=lambda pair: (pair[1], LEVELS.index(pair[2])))

    def levels(self) -> list[str]:
        """Kinds of judges that there are so far."""
        return [level for level in LEVELS if any(pair[2] == level for pair in self.pairs())]

    def over_animals(self, level: str, key: Key) -> Measured:
        """By recorded responses, as :meth:`over_angles`."""
        return mean(self.populations[pair, "recorded", key] for pair in self.pairs() if pair[2] == level)

    def over_angles(self, level: str, method: str, way: str) -> Measured:
        return mean(self.over_animals(level, (method, way, angle)) for angle in ANGLES)


def _units(found: dict[Any, Measured]) -> dict[Any, list[Measured]]:
    """Those that differ in the last part of their key, together."""
    together: dict[Any, list[Measured]] = defaultdict(list)
    for key, one in found.items():
        together[key[:-1]].append(one)
    return dict(together)
