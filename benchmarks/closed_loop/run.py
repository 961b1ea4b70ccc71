"""Simulated closed-loop experiments: published networks of V4 neurons answer with Poisson spikes, up to 600 trials."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.closed_loop import report as page
from benchmarks.closed_loop.animals import Animal, Laboratory, reported_neurons
from benchmarks.closed_loop.report import BUDGETS, LANDSCAPE_BUDGETS
from benchmarks.closed_loop.speed import measure
from benchmarks.common import package as vl
from benchmarks.common.edit_methods import Recorded
from benchmarks.common.script import RESULTS, once, parse, parser, provenance, publish, read_all, refuse_other_settings

BLOCKS = (20,) * 6 + (60,) * 8  # trials of each block: small ones while little is known
CONTROLS = 0.25  # of a block, photographs drawn at random: the Experiment's default, and every loop's
NAMED = 9  # photographs of the preferred set
GENERATION, DIMENSIONS = 20, 10  # of CMA-ES: photographs of a generation, principal components

Order = Callable[[list[int], np.ndarray], np.ndarray]
Scores = dict[int, list[float]]


def score(animal: Animal, order: np.ndarray) -> list[float]:
    """True rates of the photograph that is named first, and of the first nine, in SDs over the gallery."""
    named = animal.standard(animal.rates)[order[:NAMED]]
    return [float(named[0]), float(named.mean())]


def by_mean(rows: list[int], counts: np.ndarray) -> np.ndarray:
    """Photographs that were shown, the highest mean first, each drawn to the mean of all as by one more trial."""
    total, shown = np.bincount(rows, counts), np.bincount(rows)
    seen = np.flatnonzero(shown)
    means = (total[seen] + counts.mean()) / (shown[seen] + 1)
    return seen[np.argsort(-means, kind="stable")]


class Trials:
    """Trials of an animal before a session's photographs, and methods that choose these."""

    def __init__(self, images: Tensor, x: Tensor) -> None:
        self.images = images
        self.x = ((x - x.mean(0)) / x.std(0).clamp_min(1e-6)).double()
        self.backend = vl.RetrievalBackend(Lookup(images, self.x.float()), images)

    def of(self, animal: Animal, seed: int) -> "Trials":
        """Of another animal, before any trial."""
        self.animal, self.seed, self.draw = animal, seed, np.random.default_rng(seed)
        self.rows: list[int] = []
        self.counts, self.found = np.zeros(0), Scores()
        return self

    def show(self, rows: list[int], order: Order) -> np.ndarray:
        """The animal's counts; where a budget is reached, what is named then is scored."""
        answers = self.animal.show(rows)
        self.rows, self.counts = self.rows + rows, np.concatenate([self.counts, answers])
        if len(self.rows) in BUDGETS:
            self.found[len(self.rows)] = score(self.animal, order(self.rows, self.counts))
        return answers

    def by_ridge(self, rows: list[int], counts: np.ndarray) -> np.ndarray:
        """All photographs, the highest prediction of a ridge regression first."""
        weights, *_ = vl.ridge_loo(self.x[rows], torch.from_numpy(counts)[:, None])
        return np.argsort(-(self.x @ weights[:, 0]).numpy(), kind="stable")

    def by_landscape(self, rows: list[int], counts: np.ndarray) -> np.ndarray:
        """All photographs, the highest prediction of a landscape's surrogate first."""
        method = vl.LandscapeEdit(shuffles=0, goal="surrogate_ascent")
        responses = torch.from_numpy(counts)[:, None].float()
        method.fit(Recorded(["neuron"]), self.backend, self.images[rows], responses)
        with torch.no_grad():
            predicted = method.surrogate_(self.x.float())[:, 0]  # type: ignore[misc]
        return np.argsort(-predicted.numpy(), kind="stable")

    def offline(self, order: Order, budgets: tuple[int, ...] = ()) -> Scores:
        """Photographs at random, and one fit at the end of each budget."""
        rows = self.draw.permutation(len(self.x))[: max(BUDGETS)].tolist()
        counts = self.animal.show(rows)
        return {budget: score(self.animal, order(rows[:budget], counts[:budget])) for budget in budgets or BUDGETS}

    def looped(self, order: Order, share: float, *, again: bool) -> Scores:
        """Blocks of which a share follows an order, ``again`` or only what was not shown; the rest is random."""
        for size in BLOCKS:
            shown = set(self.rows)
            new = [row for row in self.draw.permutation(len(self.x)).tolist() if row not in shown]
            best = order(self.rows, self.counts).tolist() if self.rows else []
            chosen = [row for row in best if again or row not in shown][: round(size * share)]
            chosen += [row for row in new if row not in set(chosen)][: size - len(chosen)]
            self.show(chosen, order)
        return self.found

    def cma_es(self) -> Scores:
        """Points in the first principal components, each shown as its nearest photograph."""
        from cmaes import CMA

        _, _, directions = torch.linalg.svd(self.x, full_matrices=False)
        z = self.x @ directions[:DIMENSIONS].T
        z = (z / z.std(0)).numpy()
        search = CMA(np.zeros(DIMENSIONS), 1.0, seed=self.seed, population_size=GENERATION)
        while len(self.rows) < max(BUDGETS):
            points = [search.ask() for _ in range(GENERATION)]
            answers = self.show([int(((z - point) ** 2).sum(1).argmin()) for point in points], by_mean)
            search.tell([(point, -answer) for point, answer in zip(points, answers, strict=True)])
        return self.found

    def experiment(self) -> Scores:
        """The package's Experiment with its defaults, photographs alone."""
        with tempfile.TemporaryDirectory() as folder:
            display = vl.Display(size_px=self.images.shape[-1], size_deg=4.0)
            experiment = vl.Experiment(self.images, self.backend, ["neuron"], folder, display=display, seed=self.seed)
            place = {name: row for row, name in enumerate(experiment.names)}
            trials = 0
            for size in BLOCKS:
                block = experiment.ask(size, "mixed" if trials else "explore", made=0.0, controls=CONTROLS)
                answers = self.animal.show([place[trial.source] for trial in block.trials])
                experiment.tell({trial.trial_id: answer for trial, answer in zip(block.trials, answers, strict=True)})
                trials += size
                if trials in BUDGETS:
                    expected, _ = experiment.fit().predict(self.images)
                    self.found[trials] = score(self.animal, np.argsort(-expected.numpy(), kind="stable"))
        return self.found


class Lookup:
    """An embedder that knows its photographs, by their pixels."""

    def __init__(self, images: Tensor, x: Tensor) -> None:
        self.dim, self.size, self.device = x.shape[1], images.shape[-1], torch.device("cpu")
        self.known = dict(zip(vl.image_keys(images), x, strict=True))

    def __call__(self, images: Tensor) -> Tensor:
        return torch.stack([self.known[key] for key in vl.image_keys(images)])


METHODS: dict[str, Callable[[Trials], Scores]] = {
    page.LOOP: Trials.experiment,
    page.RANDOM: lambda trials: trials.offline(by_mean),
    page.SO_FAR: lambda trials: trials.looped(by_mean, 0.5, again=True),
    page.LANDSCAPE: lambda trials: trials.offline(trials.by_landscape, LANDSCAPE_BUDGETS),
    page.RIDGE: lambda trials: trials.offline(trials.by_ridge),
    page.RIDGE_LOOP: lambda trials: trials.looped(trials.by_ridge, 1 - CONTROLS, again=False),
    page.CMA_ES: Trials.cma_es,
}


def cell(lab: Laboratory, name: str, neuron: int, seed: int) -> dict[str, Any]:
    """Every method's scores, each on an animal with spikes of its own."""
    session, x = lab.gallery(name)
    trials, scores = Trials(session.images, x), {}
    for place, (label, run) in enumerate(METHODS.items()):
        began = time.process_time()
        scores[label] = run(trials.of(lab.animal(name, neuron, seed + place), seed))
        print(f"  {label}: {time.process_time() - began:.1f} s of CPU", flush=True)
    animal = lab.animal(name, neuron, seed)
    return {
        "session": name,
        "neuron": neuron,
        "photographs": len(animal.rates),
        "best": float(animal.standard(animal.rates).max()),
        "mean_count": float(animal.rates.mean()),
        "sd_count": float(animal.rates.std()),
        "scores": scores,
    }


def run(data: Path, out: Path, work: list[tuple[str, int]], seed: int) -> None:
    """A file a neuron; those that are there are skipped."""
    refuse_other_settings(out, {"seed": seed, "budgets": list(BUDGETS), "blocks": list(BLOCKS), "controls": CONTROLS})
    lab, said = Laboratory(data, out), provenance(seed=seed)
    for name, neuron in work:
        once(out / f"neuron-{name}-{neuron}.json", partial(cell, lab, name, neuron, seed), said)


def main() -> None:
    command = parser(__doc__, "--data", "--out", "--seed", "--threads", parts=("run", "speed", "report"))
    command.add_argument("--neurons", type=int, default=20, help="how many of the list")
    args = parse(command)
    if args.part == "report":
        cells, speeds = (read_all(args.out, f"{name}-*.json") for name in ("neuron", "speed"))
        publish(RESULTS / "closed_loop", *page.report(cells, speeds))
    elif args.part == "speed":
        measure(args.data, args.out, args.seed)
    else:
        run(args.data, args.out, reported_neurons()[: args.neurons], args.seed)


if __name__ == "__main__":
    main()
