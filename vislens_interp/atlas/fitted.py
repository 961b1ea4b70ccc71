"""What an atlas knows of a layer once it is fitted, as one file that workers and later runs read."""

from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vislens_interp.atlas.pictures import CELL, decode_jpeg, encode_jpeg
from vislens_interp.atlas.population import STATES, Population
from vislens_interp.atlas.readout import Readouts
from vislens_interp.atlas.store import short_hash
from vislens_interp.files import load_state, rebuilding, save_state
from vislens_interp.schema import check_finite, check_schema

KIND = "atlas fit"
NUMBERS = ("strong_images", "duplicate_of", "neighbours", "top_rows", "input_rows", "thumbnail_rows", "thumbnails")
"""Tensors of whole numbers."""


SCHEMA = {
    **dict.fromkeys(("directions", "mean", "std", "responses", "places", "top_rows"), Tensor),
    **dict.fromkeys(("input_rows", "input_responses", "thumbnails", "thumbnail_rows"), Tensor),
    "inputs": [Tensor],
    **{name: [str] for name in ("names", "image_names", "input_names")},
    "key": str,
    "about": dict,
    "words": [[str]],
    "readouts": {item.name: item.type for item in fields(Readouts)},
    "population": {item.name: item.type for item in fields(Population)} | {"state": [frozenset(STATES)]},
}


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
        inputs: M photographs that edits start from, as JPEG files; see :meth:`pictures`.
        input_names: Of them.
        input_responses: (M, K) raw.
        input_rows: (K, n) which of them are a unit's; -1 for units that are not alive.
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
    inputs: list[Tensor]
    input_names: list[str]
    input_responses: Tensor
    input_rows: Tensor
    thumbnails: Tensor
    thumbnail_rows: Tensor

    @cached_property
    def column_of(self) -> dict[int, int]:
        """Unit to its column in ``readouts`` and row in ``directions``, for units that are alive."""
        return {unit: column for column, unit in enumerate(self.population.alive.tolist())}

    def standard(self, responses: Tensor, unit: int) -> Tensor:
        """Raw responses of a unit in SDs from the reference mean."""
        return (responses - self.mean[unit]) / self.std[unit]

    def pictures(self, units: list[int]) -> Tensor:
        """What edits of these units, which are alive, start from: (U, n, 3, S, S)."""
        rows = self.input_rows[units]
        used = rows.flatten().tolist()
        files, names = [self.inputs[row] for row in used], [self.input_names[row] for row in used]
        return decode_jpeg(files, names).unflatten(0, rows.shape)

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
        with rebuilding(path, "the fit, or about, of which its key is a hash,"):
            _migrate(state)
            _check(state, repr(str(path)))
            parts = {"readouts": Readouts, "population": Population}
            known = {name: kind(**{key: state[name][key] for key in SCHEMA[name]}) for name, kind in parts.items()}
            return cls(**{item.name: known.get(item.name, state[item.name]) for item in fields(cls)})


def _migrate(state: dict[str, Any]) -> None:
    """Make a fit of format 1, whose units share their inputs, (n, 3, S, S), one of today."""
    if "input_rows" in state:
        return
    check_schema(state, {"inputs": Tensor, "population": {"state": [str]}}, "inputs")
    alive = torch.tensor([one == "alive" for one in state["population"]["state"]])
    state["input_rows"] = torch.where(alive[:, None], torch.arange(len(state["inputs"])), -1)
    state["inputs"] = encode_jpeg(state["inputs"])


def _check(state: dict[str, Any], where: str) -> None:
    """Raise ValueError, with the field, where a fit's parts do not go together."""
    check_schema(state, SCHEMA, where)
    if state["key"] != short_hash(state["about"]):
        raise ValueError(f"{where}: about or key was changed, which is its hash. Restore a copy, or make it again.")
    units, images, inputs = (len(state[name]) for name in ("names", "image_names", "input_names"))
    alive, thumbnails = state["population"]["state"].count("alive"), len(state["thumbnail_rows"])
    axes = len(state["readouts"]["centre"])
    shapes = {
        "readouts": dict.fromkeys(("correlation", "p_value", "q_value", "strong_images"), (alive,))
        | {"filters": (axes, alive), "centre": (axes,)},
        "population": dict.fromkeys(("sparsity", "selectivity", "duplicate_of"), (units,))
        | dict.fromkeys(("neighbours", "likeness"), (units, *state["population"]["neighbours"].shape[-1:])),
        "": dict.fromkeys(("mean", "std"), (units,))
        | {"directions": (alive, *state["directions"].shape[-1:]), "responses": (images, units), "places": (units, 2)}
        | {"input_rows": (units, *state["input_rows"].shape[-1:]), "input_responses": (inputs, units)}
        | {"top_rows": (units, *state["top_rows"].shape[-1:]), "thumbnail_rows": (thumbnails,)}
        | {"thumbnails": (thumbnails, CELL, CELL, 3)},
    }
    for part, expected in shapes.items():
        for name, shape in expected.items():
            full, found = f"{part}.{name}".strip("."), (state[part] if part else state)[name]
            if found.shape != shape or found.is_floating_point() != (name not in NUMBERS):
                raise ValueError(
                    f"{where}: {full} has shape {tuple(found.shape)} and type {found.dtype}; expected {shape} of "
                    f"{'whole numbers' if name in NUMBERS else 'numbers'}, of {units} names, {images} image_names and "
                    f"{inputs} input_names. Restore a copy, or make it again."
                )
    for name, found in (("words", state["words"]), ("population.state", state["population"]["state"])):
        if len(found) != units:
            raise ValueError(f"{where}: {name} has {len(found)} entries; expected {units}, one for each of names.")
    for name in ("readouts", "directions", "input_responses"):
        check_finite(state[name], where, name)
    rows, top = state["thumbnail_rows"], state["top_rows"]
    if not torch.equal(rows, top[top >= 0].unique()) or (images and top.max() >= images):
        raise ValueError(f"{where}: top_rows and thumbnail_rows do not go together. Restore a copy, or make it again.")
    used = state["input_rows"][[one == "alive" for one in state["population"]["state"]]]
    if len(state["inputs"]) != inputs or (used.numel() and not 0 <= used.min() <= used.max() < inputs):
        raise ValueError(f"{where}: inputs, input_names and input_rows do not go together. Restore a copy.")
    for name in ("duplicate_of", "neighbours"):
        found = state["population"][name]
        if not ((found >= -1) & (found < units)).all():
            raise ValueError(f"{where}: population.{name} names a unit outside -1 to {units - 1}. Restore a copy.")
