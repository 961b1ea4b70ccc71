"""Animals to run experiments on: published networks of V4 neurons, whose rates answer with Poisson spikes."""

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.v4_sessions import NEURONS, SIZE, TEST_SESSIONS, Session, load_session
from benchmarks.v4_preferred_images.run import BATCH, load_neurons, take_turns
from benchmarks.v4_recorded.run import neuron_order

GRID = 3
"""Cells to a side of the embedding: a V4 neuron looks at one place of a picture."""
TUNED = 3
"""Neurons of each session on which settings are chosen; none of them is on the list of those that are reported."""


def reported_neurons() -> list[tuple[str, int]]:
    """(session, neuron), the two sessions in turns."""
    return take_turns(load_neurons())


def tuning_neurons() -> list[tuple[str, int]]:
    listed = load_neurons()
    empty = torch.empty(0)
    orders = {name: neuron_order(Session(name, empty, torch.empty(0, NEURONS[name]), 0)) for name in TEST_SESSIONS}
    return take_turns(
        {name: [one for one in order if one not in listed[name]][:TUNED] for name, order in orders.items()}
    )


@dataclass
class Animal:
    """One neuron before a gallery of photographs.

    Args:
        network: Its published network.
        line: Slope and offset from the network's output to the mean spike counts that were recorded.
        rates: (N,) expected spike counts to the gallery.
        seed: Of the spikes; each method gets an animal of its own.
    """

    network: Any
    line: tuple[float, float]
    rates: np.ndarray
    seed: int

    @cached_property
    def draw(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def rates_of(self, images: Tensor) -> np.ndarray:
        """(n,) expected spike counts to other pictures."""
        return _rates(_outputs(self.network, images), self.line)

    def spikes(self, rates: np.ndarray) -> np.ndarray:
        """One Poisson count for each rate."""
        return self.draw.poisson(rates).astype(float)

    def show(self, rows: Any) -> np.ndarray:
        """Counts to photographs of the gallery."""
        return self.spikes(self.rates[np.asarray(rows, int)])

    def standard(self, rates: np.ndarray) -> np.ndarray:
        """Rates in SDs over the gallery's."""
        return (rates - self.rates.mean()) / self.rates.std()


@torch.no_grad()
def _outputs(network: Any, images: Tensor) -> np.ndarray:
    parts = vl.resize(images, SIZE).split(BATCH)
    answers = [network(part.contiguous(memory_format=torch.channels_last)) for part in parts]
    return torch.cat(answers)[:, 0].double().numpy()


def _rates(outputs: np.ndarray, line: tuple[float, float]) -> np.ndarray:
    return np.maximum(line[0] * outputs + line[1], 0.05)


class Laboratory:
    """The galleries of both sessions, their embeddings, and animals; what is computed once stays in ``out``."""

    def __init__(self, data: Path, out: Path) -> None:
        self.data, self.out = data, out
        self._galleries: dict[str, tuple[Session, Tensor]] = {}

    @cached_property
    def backend(self) -> Any:
        return vl.get_backend("embedded", grid=GRID)

    def gallery(self, name: str) -> tuple[Session, Tensor]:
        """A session, whose photographs are the gallery, and their (N, D) embeddings."""
        if name not in self._galleries:
            session = load_session(self.data, name)
            path = self.out / f"embeddings-{name}.npy"
            if not path.is_file():
                big = lambda part: self.backend.encode(vl.resize(part, self.backend.size)).detach()  # noqa: E731
                _save(path, torch.cat([big(part) for part in session.images.split(64)]).numpy())
            self._galleries[name] = session, torch.from_numpy(np.load(path))
        return self._galleries[name]

    def animal(self, name: str, neuron: int, seed: int) -> Animal:
        """A neuron; its network's outputs to the gallery are computed once."""
        session, _ = self.gallery(name)
        network = vl.v4_encoder(self.data / "macaque_v4" / name / "compact_models.safetensors", [neuron])
        network.encoder.to(memory_format=torch.channels_last)  # two thirds of the time
        path = self.out / f"outputs-{name}-{neuron}.npy"
        if not path.is_file():
            began = time.monotonic()
            _save(path, _outputs(network, session.images))
            print(f"{path.name}: {time.monotonic() - began:.0f} s", flush=True)
        outputs = np.load(path)
        slope, offset = np.polyfit(outputs, session.responses[:, neuron].double().numpy(), 1)
        line = float(slope), float(offset)
        return Animal(network, line, _rates(outputs, line), seed)


def _save(path: Path, array: np.ndarray) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, array)

    vl.write_atomically(path, write)
