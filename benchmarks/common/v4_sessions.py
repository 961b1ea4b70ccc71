"""Recordings of macaque V4 for the benchmarks: pictures, responses, and splits fixed before anything was fitted.

Every split is a permutation of a session's distinct pictures, in the order of their file names, seeded by the session's
number. Some sessions show a picture several times under several names: copies are one picture here, their responses
averaged, so that no split can hold a picture on both sides.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.script import shuffled

TEST_SESSIONS, TUNING_SESSIONS = ("201025", "210225"), ("190925", "190929")
"""What is reported; and what settings may be chosen on."""
NEURONS = {"201025": 89, "210225": 55, "190925": 36, "190929": 33}
SIZE = 112
HELD_OUT = 0.2  # share of the pictures that v4_encoder tests on


@dataclass(frozen=True)
class Session:
    name: str  # its date
    images: Tensor  # (N, 3, 112, 112) in [0, 1], distinct pictures
    responses: Tensor  # (N, neurons) spike counts, averaged over repetitions
    copies: int  # pictures that were shown under several names

    @property
    def neurons(self) -> list[str]:
        return [f"neuron{number}" for number in range(self.responses.shape[1])]

    def order(self) -> Tensor:
        return shuffled(len(self.images), int(self.name))

    def split(self) -> tuple[Tensor, Tensor]:
        """Rows to learn from, and held-out ones."""
        order, count = self.order(), round(HELD_OUT * len(self.images))
        return order[count:].sort().values, order[:count].sort().values

    def halves(self) -> tuple[Tensor, Tensor]:
        """Two halves of the pictures, to be swapped."""
        order = self.order()
        return order[::2].sort().values, order[1::2].sort().values

    def sides(self, half: int) -> tuple[Tensor, Tensor]:
        """Rows of one half, to learn from, and of the other one."""
        return self.halves()[half], self.halves()[1 - half]


def load_session(data: Path, name: str) -> Session:
    """Pictures in the order of their names, which is that of the responses' columns."""
    folder = data / "macaque_v4" / name
    images = vl.pixels(vl.read_images(folder / "images.zip", SIZE)[0])
    recorded = torch.from_numpy(np.load(folder / "responses.npy")).T.float()
    places: dict[str, list[int]] = {}
    for row, key in enumerate(vl.image_keys(images)):
        places.setdefault(key, []).append(row)
    firsts = torch.tensor([rows[0] for rows in places.values()])
    responses = torch.stack([recorded[rows].mean(0) for rows in places.values()])
    return Session(name, images[firsts], responses, sum(len(rows) > 1 for rows in places.values()))
