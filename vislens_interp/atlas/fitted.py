"""What an atlas knows of a layer once it is fitted, as one file that workers and later runs read."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vislens_interp.atlas.population import Population
from vislens_interp.atlas.readout import Readouts
from vislens_interp.files import load_state, save_state

KIND = "atlas fit"


def short_hash(value: Any) -> str:
    """Sixteen hexadecimal digits of JSON values, the same for the same values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class AtlasFit:
    """All numbers of K units that need no picture.

    Args:
        key: Hash of what the fit depends on: weights, layer, reference images, backend, settings, version.
        about: The same in JSON values: ``target``, ``backend``, ``reference``, ``settings``, ``version``.
        names: Of the K units.
        readouts: Of the units that are alive, in their order.
        population: Of all K units.
        directions: (A, E) of the units that are alive: what one more of each dimension of the embedding adds to the
            predicted response, in SDs. (A, 0) for a backend whose latents are no linear function of embeddings.
        mean, std: (K,) of the raw responses over the reference images.
        responses: (N, K) raw.
        places: (K, 2) on the map of the layer, from 0 to 1; NaN for units that are not alive.
        top_rows: (K, T) rows of the reference images that drive each unit most, one a photograph; -1 where there are
            fewer.
        image_names: Of the N reference images.
        words: K lists, empty where there are none.
        inputs: (n, 3, S, S) what is edited.
        input_names: Of them.
        input_responses: (n, K) raw.
        thumbnails: (M, CELL, CELL, 3) uint8 of the reference images in ``thumbnail_rows`` (M,), sorted.
    """

    key: str
    about: dict[str, Any]
    names: list[str]
    readouts: Readouts
    population: Population
    directions: Tensor
    mean: Tensor
    std: Tensor
    responses: Tensor
    places: Tensor
    top_rows: Tensor
    image_names: list[str]
    words: list[list[str]]
    inputs: Tensor
    input_names: list[str]
    input_responses: Tensor
    thumbnails: Tensor
    thumbnail_rows: Tensor

    @cached_property
    def column_of(self) -> dict[int, int]:
        """Unit to its column in ``readouts`` and row in ``directions``, for units that are alive."""
        return {unit: column for column, unit in enumerate(self.population.alive.tolist())}

    def standard(self, responses: Tensor, unit: int) -> Tensor:
        """Raw responses of a unit in SDs from the reference mean."""
        return (responses - self.mean[unit]) / self.std[unit]

    def cells(self, rows: list[int]) -> Tensor:
        """Thumbnails of these reference images."""
        return self.thumbnails[torch.searchsorted(self.thumbnail_rows, torch.tensor(rows, dtype=torch.int64))]

    def save(self, path: Path) -> Path:
        """Write everything as one safetensors file."""
        state = {item.name: getattr(self, item.name) for item in fields(self)}
        state["readouts"], state["population"] = asdict(self.readouts), asdict(self.population)
        return save_state(path, KIND, state)

    @classmethod
    def load(cls, path: Path, key: str | None = None) -> "AtlasFit":
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError, ValueError: As :func:`~vislens_interp.files.load_state`; or it is of another ``key``.
        """
        state = load_state(path, KIND)
        if key is not None and state.get("key") != key:
            raise ValueError(
                f"path={str(path)!r} holds the fit {state.get('key')}, expected {key}: another model, layer, reference"
                " set, backend or setting. Name another folder."
            )
        try:
            state["readouts"], state["population"] = Readouts(**state["readouts"]), Population(**state["population"])
            return cls(**state)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"path={str(path)!r} is no atlas fit of this version ({type(error).__name__}: {error}). Fit it again in"
                " another folder."
            ) from error
