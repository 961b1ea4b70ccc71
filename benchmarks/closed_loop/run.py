"""Simulated closed-loop experiments: published V4 networks answer with Poisson spikes, budgets up to 240 trials."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.closed_loop.report import BUDGETS, LOOP, METHODS, report
from benchmarks.common import package as vl
from benchmarks.common.cells import publish, read, refuse_other_settings, save_cell
from benchmarks.common.command import parser
from benchmarks.common.provenance import RESULTS, provenance
from benchmarks.common.v4_sessions import load_session
from benchmarks.v4_preferred_images.run import load_neurons, predicted, take_turns
from benchmarks.v4_recorded.run import KnownEmbeddings, embed

BLOCK, NAMED = 24, 9
"""Trials of a block; photographs of the preferred set."""
NEURONS = 20


class Animal:
    """One neuron: rates of all photographs, and Poisson counts.

    Args:
        rates: (N,) expected spike counts.
        x: (N, D) embeddings.
    """

    def __init__(self, rates: np.ndarray, x: np.ndarray, seed: int) -> None:
        self.rates, self.x, self.draw = rates, x, np.random.default_rng(seed)

    def show(self, rows: Any) -> np.ndarray:
        return self.draw.poisson(self.rates[np.asarray(rows, int)]).astype(float)

    def score(self, order: np.ndarray) -> list[float]:
        """True rates of the photograph that is named first, and of the first nine, in SDs over all photographs."""
        standard = (self.rates - self.rates.mean()) / self.rates.std()
        return [float(standard[order[0]]), float(standard[order[:NAMED]].mean())]


def ridge_order(x: np.ndarray, rows: list[int], counts: np.ndarray) -> np.ndarray:
    """All photographs, the highest prediction first."""
    at, answers = torch.from_numpy(x[rows]).double(), torch.from_numpy(counts)[:, None].double()
    weights, _ = vl.ridge_loo(at, answers)
    return np.argsort(-(x @ weights[:, 0].numpy()), kind="stable")


def mean_order(rows: list[int], counts: np.ndarray) -> np.ndarray:
    """Photographs that were shown, the highest mean first, each drawn to the mean of all by one trial."""
    total, shown = np.bincount(rows, counts), np.bincount(rows)
    seen = np.flatnonzero(shown)
    means = (total[seen] + counts.mean()) / (shown[seen] + 1)
    return seen[np.argsort(-means, kind="stable")]


def random_photographs(animal: Animal, seed: int) -> dict[int, list[float]]:
    rows = np.random.default_rng(seed).permutation(len(animal.rates)).tolist()[: max(BUDGETS)]
    counts = animal.show(rows)
    return {budget: animal.score(mean_order(rows[:budget], counts[:budget])) for budget in BUDGETS}


def offline_ridge(animal: Animal, seed: int) -> dict[int, list[float]]:
    rows = np.random.default_rng(seed).permutation(len(animal.rates)).tolist()[: max(BUDGETS)]
    counts = animal.show(rows)
    return {budget: animal.score(ridge_order(animal.x, rows[:budget], counts[:budget])) for budget in BUDGETS}


def looped(
    animal: Animal, seed: int, following: Callable[[list[int], np.ndarray], np.ndarray]
) -> dict[int, list[float]]:
    """Blocks of which half follows an order of photographs, and half is drawn at random among those not shown."""
    draw = np.random.default_rng(seed)
    rows = draw.permutation(len(animal.rates))[:BLOCK].tolist()
    counts = animal.show(rows)
    found = {}
    while True:
        order = following(rows, counts)
        if len(rows) in BUDGETS:
            found[len(rows)] = animal.score(order)
        if len(rows) >= max(BUDGETS):
            return found
        chosen = order[: BLOCK // 2].tolist()
        others = draw.permutation(np.setdiff1d(np.arange(len(animal.rates)), [*rows, *chosen]))
        chosen += others[: BLOCK - len(chosen)].tolist()
        rows, counts = rows + chosen, np.concatenate([counts, animal.show(chosen)])


def best_so_far(animal: Animal, seed: int) -> dict[int, list[float]]:
    return looped(animal, seed, mean_order)


def ridge_loop(animal: Animal, seed: int) -> dict[int, list[float]]:
    def fresh(rows: list[int], counts: np.ndarray) -> np.ndarray:
        return ridge_order(animal.x, rows, counts)

    return looped(animal, seed, fresh)


def cma_es(animal: Animal, seed: int) -> dict[int, list[float]]:
    """Points in the first ten principal components, each shown as its nearest photograph."""
    from cmaes import CMA

    centred = animal.x - animal.x.mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    z = centred @ directions[:10].T
    z = z / z.std(0)
    search = CMA(np.zeros(10), 1.0, seed=seed, population_size=BLOCK)
    rows: list[int] = []
    counts, found = np.zeros(0), {}
    while len(rows) < max(BUDGETS):
        points = [search.ask() for _ in range(BLOCK)]
        nearest = [int(((z - point) ** 2).sum(1).argmin()) for point in points]
        answers = animal.show(nearest)
        search.tell([(point, -answer) for point, answer in zip(points, answers, strict=True)])
        rows, counts = rows + nearest, np.concatenate([counts, answers])
        if len(rows) in BUDGETS:
            found[len(rows)] = animal.score(mean_order(rows, counts))
    return found


def closed_loop(animal: Animal, seed: int, images: Tensor, folder: Path) -> dict[int, list[float]]:
    """The package's Experiment, photographs alone, every setting its default but the share of made pictures."""
    embedder = KnownEmbeddings(images, torch.from_numpy(animal.x).float())
    embedder_of = Lookup(embedder, images)
    backend = vl.RetrievalBackend(embedder_of, images)
    shutil.rmtree(folder, ignore_errors=True)
    display = vl.Display(size_px=images.shape[-1], size_deg=4.0)
    experiment = vl.Experiment(images, backend, ["neuron"], folder, display=display, seed=seed)
    place = {name: row for row, name in enumerate(experiment.names)}
    found, trials = {}, 0
    while trials < max(BUDGETS):
        block = experiment.ask(BLOCK, "explore" if trials == 0 else "mixed", made=0.0)
        answers = animal.show([place[trial.source] for trial in block.trials])
        experiment.tell({trial.trial_id: answer for trial, answer in zip(block.trials, answers, strict=True)})
        trials += len(block)
        if trials in BUDGETS:
            experiment.fit()
            found[trials] = animal.score(np.argsort(-experiment.predict(images)[0].numpy(), kind="stable"))
    shutil.rmtree(folder)
    return found


class Lookup:
    """Embeddings of known photographs by their pixels, in any batch."""

    def __init__(self, known: KnownEmbeddings, images: Tensor) -> None:
        self.dim, self.size, self.device = known.dim, known.size, known.device
        self.x = dict(zip(vl.image_keys(images), known.parts[0][1], strict=True))

    def __call__(self, images: Tensor) -> Tensor:
        return torch.stack([self.x[key] for key in vl.image_keys(images)])


RIVALS: dict[str, Callable[[Animal, int], dict[int, list[float]]]] = dict(
    zip(METHODS[1:], (random_photographs, best_so_far, offline_ridge, ridge_loop, cma_es), strict=True)
)


def animal_of(data: Path, session: Any, neuron: int, x: Tensor, seed: int) -> Animal:
    """The published network's outputs, as rates by a line through the recorded mean counts."""
    network = vl.v4_encoder(data / "macaque_v4" / session.name / "compact_models.safetensors", [neuron])
    said = predicted(network, session.images)[:, 0].double().numpy()
    slope, offset = np.polyfit(said, session.responses[:, neuron].double().numpy(), 1)
    standard = (x - x.mean(0)) / x.std(0).clamp_min(1e-6)
    return Animal(np.maximum(slope * said + offset, 0.05), standard.double().numpy(), seed)


def run(data: Path, out: Path, count: int, seed: int) -> None:
    work = take_turns(load_neurons())[:count]
    refuse_other_settings(out, {"seed": seed, "budgets": list(BUDGETS), "block": BLOCK})
    sessions = {name: load_session(data, name) for name in dict.fromkeys(name for name, _ in work)}
    x = {name: embed(data, session, out) for name, session in sessions.items()}
    for name, neuron in work:
        path = out / f"neuron-{name}-{neuron}.json"
        if path.is_file():
            continue
        started = time.time()
        scores = {}
        for place, label in enumerate(METHODS):
            animal = animal_of(data, sessions[name], neuron, x[name], seed + place)
            if label == LOOP:
                scores[label] = closed_loop(animal, seed, sessions[name].images, out / "experiment")
            else:
                scores[label] = RIVALS[label](animal, seed)
        standard = (animal.rates - animal.rates.mean()) / animal.rates.std()
        found = {"session": name, "neuron": neuron, "scores": scores, "seconds": time.time() - started}
        found |= {"best": float(standard.max()), "mean_count": float(animal.rates.mean()), "photographs": len(standard)}
        save_cell(path, found, provenance(seed=seed))
        print(f"{path.name}: {time.time() - started:.0f} s", flush=True)


def main() -> None:
    made = parser(__doc__, "--data", "--out", "--seed", "--threads", parts=("run", "report"))
    made.add_argument("--neurons", type=int, default=NEURONS)
    given = made.parse_args()
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.part == "run":
        run(given.data, given.out, given.neurons, given.seed)
        return
    text, numbers = report([read(path) for path in sorted(given.out.glob("neuron-*.json"))])
    publish(RESULTS / "closed_loop", text, json.loads(json.dumps(numbers)))


if __name__ == "__main__":
    main()
