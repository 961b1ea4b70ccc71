"""How long the next block takes: 24 pictures at 64 px, by design and by the trials that there are.

Every photograph of the history is shown twice, so that 600 trials are 300 pictures.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from benchmarks.closed_loop.animals import GRID, Laboratory, reported_neurons
from benchmarks.closed_loop.report import DESIGNS, NEURON, PICTURES, REGION, SIDE, TRIALS
from benchmarks.common import package as vl
from benchmarks.common.script import provenance, save_cell

GALLERY = 1000  # photographs, the first of each set
TUNING = vl.Tuning("mixture", ("fine 0°", "blue"))  # of the simulated region

Answers = Callable[[list[int]], np.ndarray]
T = TypeVar("T")


def neuron(lab: Laboratory, seed: int) -> tuple[Tensor, Any, Answers]:
    """Photographs of the first reported neuron's session, a backend that sees places, and Poisson counts."""
    name, number = reported_neurons()[0]
    animal = lab.animal(name, number, seed)
    photographs = vl.resize(lab.gallery(name)[0].images[:GALLERY], SIDE)
    return photographs, vl.get_backend("embedded", size=SIDE, grid=GRID), animal.show


def region(seed: int) -> tuple[Tensor, Any, Answers]:
    """The backend's reference photographs, and responses with as much noise as signal."""
    backend: Any = vl.get_backend("embedded", size=SIDE)
    photographs = backend.reference_images()[:GALLERY]
    truth = vl.plant_tuning({"region": TUNING}, photographs, 1.0).responses[:, 0].numpy()
    draw = np.random.default_rng(seed)
    return photographs, backend, lambda rows: truth[rows] + draw.normal(size=len(rows))


def timings(
    photographs: Tensor, backend: vl.Backend, answers: Answers, folder: str, seed: int
) -> Iterator[dict[str, Any]]:
    """Seconds and CPU seconds, opening the experiment first; blocks that are timed are not answered."""
    experiment, said = timed(lambda: vl.Experiment(photographs, backend, ["target"], folder, seed=seed))
    yield said | {"what": "open", "pictures": len(photographs)}
    place = {name: row for row, name in enumerate(experiment.names)}
    told = 0
    for trials in TRIALS:
        while told < trials:
            block = experiment.ask(TRIALS[0] // 2, "mixed" if told else "explore", made=0.0, repetitions=2)
            responses = answers([place[trial.source] for trial in block.trials])
            told += experiment.tell({one.trial_id: value for one, value in zip(block.trials, responses, strict=True)})
        for design in DESIGNS:
            _, said = timed(lambda design=design: experiment.ask(PICTURES, design))
            yield said | {"what": design, "trials": trials}


def timed(work: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """What it gives, its seconds, those of all threads, and how many processes wanted a core at its end."""
    began, cpu = time.monotonic(), time.process_time()
    found = work()
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    return found, {"seconds": round(seconds, 4), "cpu": round(cpu, 4), "load": round(os.getloadavg()[0], 1)}


def measure(data: Path, out: Path, seed: int) -> None:
    """A file for the neuron and one for the region."""
    works = {NEURON: lambda: neuron(Laboratory(data, out), seed), REGION: lambda: region(seed)}
    for name, made in works.items():
        with tempfile.TemporaryDirectory() as folder:
            rows = []
            for row in timings(*made(), folder, seed):
                print(name, row, flush=True)
                rows.append(row)
        save_cell(out / f"speed-{name.split()[-1]}.json", {"name": name, "rows": rows}, provenance(seed=seed))
