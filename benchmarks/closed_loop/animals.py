"""Animals to run experiments on: published networks of V4 neurons, whose rates answer with Poisson spikes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.script import save_array
from benchmarks.common.v4_sessions import SIZE, Session, load_session
from benchmarks.v4_preferred_images.run import BATCH, load_neurons, take_turns

GRID = 3  # cells to a side of the embedding: a V4 neuron looks at one place of a picture


def reported_neurons() -> list[tuple[str, int]]:
    """(session, neuron), the two sessions in turns."""
    return take_turns(load_neurons())


@dataclass
class Animal:
    """One neuron before a gallery of photographs."""

    rates: np.ndarray  # (N,) expected spike counts to the gallery
    seed: int  # of the spikes; each method gets an animal of its own

    @cached_property
    def draw(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def show(self, rows: Sequence[int]) -> np.ndarray:
        """Poisson counts to photographs of the gallery."""
        return self.draw.poisson(self.rates[np.asarray(rows, int)]).astype(float)

    def standard(self, rates: np.ndarray) -> np.ndarray:
        """Rates in SDs over the gallery's."""
        return (rates - self.rates.mean()) / self.rates.std()


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
                save_array(path, torch.cat([big(part) for part in session.images.split(64)]).numpy())
            self._galleries[name] = session, torch.from_numpy(np.load(path))
        return self._galleries[name]

    def animal(self, name: str, neuron: int, seed: int) -> Animal:
        """A neuron; its network's outputs to the gallery, read once, are brought to the mean counts by a line."""
        session, _ = self.gallery(name)
        path = self.out / f"outputs-{name}-{neuron}.npy"
        if not path.is_file():
            began = time.monotonic()
            networks = self.data / "macaque_v4" / name / "compact_models.safetensors"
            save_array(path, _outputs(networks, neuron, session.images))
            print(f"{path.name}: {time.monotonic() - began:.0f} s", flush=True)
        outputs = np.load(path)
        slope, offset = np.polyfit(outputs, session.responses[:, neuron].double().numpy(), 1)
        return Animal(np.maximum(float(slope) * outputs + float(offset), 0.05), seed)


@torch.no_grad()
def _outputs(file: Path, neuron: int, images: Tensor) -> np.ndarray:
    network: Any = vl.v4_encoder(file, [neuron])
    network.encoder.to(memory_format=torch.channels_last)  # two thirds of the time
    parts = vl.resize(images, SIZE).split(BATCH)
    answers = [network(part.contiguous(memory_format=torch.channels_last)) for part in parts]
    return torch.cat(answers)[:, 0].double().numpy()
