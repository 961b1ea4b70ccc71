"""The work behind ``Atlas.save``: shards of units, made here or by the workers of an executor, then one table."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor

from vislens_interp.atlas.fitted import AtlasFit
from vislens_interp.atlas.pictures import paint, sheet, thumbnails
from vislens_interp.atlas.sparse import units_of
from vislens_interp.atlas.store import (
    FIT,
    MANIFEST,
    READING,
    SHARDS,
    SHEETS,
    TABLE,
    AtlasStore,
    arrow,
    read_manifest,
    shard_is_whole,
    short_hash,
    write_arrow,
    write_manifest,
    write_table,
)
from vislens_interp.backends.base import Backend, get_backend
from vislens_interp.backends.closed_loop import ClosedLoopGenerator
from vislens_interp.files import check_writable, clear_leftovers, locked, write_bytes
from vislens_interp.landscape.prior import SENSES
from vislens_interp.memory import keep_freed_memory
from vislens_interp.models import load_model
from vislens_interp.progress import tqdm
from vislens_interp.streams import say
from vislens_interp.targets.target import Target

BYTES_A_UNIT = 60_000
"""What a unit takes on the disk, about."""
HALF = 0.5
"""Share of the change of pixels at which the dose-response is measured between input and picture."""
LOOK_SECONDS = 0.05
"""Between two looks at the work of an executor."""
ATTEMPTS = 2
"""How often an executor is asked for a shard before this process makes it."""


@dataclass(frozen=True)
class RunSettings:
    """What a run writes.

    Args:
        units: That get a row, in order.
        shard: Units that are made and written together.
        site: Whether the site is written too.
        origin: How a worker builds model and backend; None where only this process can.
        edit_size: Side in pixels at which the embedder sees pictures that are edited; None is the backend's own.
    """

    units: list[int]
    shard: int = 16
    site: bool = True
    origin: dict[str, Any] | None = None
    edit_size: int | None = None


def run(
    fit: AtlasFit,
    settings: RunSettings,
    folder: Path,
    target: Target,
    backend: Backend,
    *,
    executor: Executor | None = None,
    progress: bool = False,
) -> AtlasStore:
    """Make what is missing of an atlas, and return it; see :meth:`Atlas.save`."""
    arrow()
    if executor is not None and settings.origin is None:
        raise ValueError(
            "executor= needs a model, layer and backend by name, such as Atlas('zoo:efficientnet_lite2', 'blocks.4'),"
            " which its workers build again; this atlas was given a network or an object. Pass names, or no executor."
        )
    check_pictures(backend, bool(fit.inputs), settings.edit_size)
    check_writable(folder / MANIFEST, BYTES_A_UNIT * len(settings.units))
    with locked(folder / "atlas", wait=False):
        shards = _plan(fit, settings, folder)
        missing = [number for number, (name, _) in enumerate(shards) if not shard_is_whole(folder, name)]
        maker = ShardMaker(folder, fit, target, backend, settings.edit_size)
        with tqdm(total=len(settings.units), desc="units", unit="unit", disable=not progress) as bar:
            bar.update(len(settings.units) - sum(len(shards[number][1]) for number in missing))
            for number in _made(maker, missing, shards, executor):
                bar.update(len(shards[number][1]))
        _join(folder, [name for name, _ in shards])
        clear_leftovers(folder)
        if settings.site:
            from vislens_interp.atlas.site import write_site

            write_site(AtlasStore.open(folder))
    return AtlasStore.open(folder)


def check_pictures(backend: Backend, pictures: bool, edit_size: int | None) -> None:
    """Raise ValueError where the backend cannot make an atlas's pictures, or there are none to edit at a size."""
    if pictures:
        loop_of(backend, edit_size)
    elif edit_size is not None:
        raise ValueError(f"edit_size={edit_size} of an atlas without pictures (inputs=0) has no effect. Leave it out.")


def loop_of(backend: Backend, edit_size: int | None = None) -> ClosedLoopGenerator:
    """The backend's generator for pictures in batches.

    Raises:
        ValueError: It has none, or cannot edit at this size.
    """
    loop = getattr(backend, "closed_loop", None)
    if loop is None:
        raise ValueError(
            f"backend {backend.name!r} cannot change pictures in a closed loop, which the pictures of an atlas need; "
            "expected one like 'embedded'. Pass inputs=0 to fit() for an atlas without pictures."
        )
    if edit_size is not None and not loop.embedder.size <= edit_size <= loop.size:
        raise ValueError(
            f"edit_size={edit_size}; expected {loop.embedder.size} to {loop.size} pixels, the sides of what the "
            "embedder reads and of the pictures. Leave it out for the backend's own."
        )
    return loop


def _plan(fit: AtlasFit, settings: RunSettings, folder: Path) -> list[tuple[str, list[int]]]:
    """Write the fit and what the folder is to hold; shards' file names and units."""
    shards = []
    for start in range(0, len(settings.units), settings.shard):
        units = settings.units[start : start + settings.shard]
        shards.append((f"{units[0]:06d}-{short_hash([fit.key, units])}", units))
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder)
        earlier = manifest["fit"]
        if earlier["key"] != fit.key:
            about = earlier.get("target", {})
            raise ValueError(
                f"folder={str(folder)!r} holds an atlas of {about.get('model')}, layer {about.get('layer')}, with other"
                f" weights, images or settings ({earlier['key']}, not {fit.key}). Name another folder."
            )
        if manifest.get("edit_size") != settings.edit_size:  # what is there was edited at another size
            for path in (folder / SHARDS).glob("*.parquet"):
                path.unlink()
    refuse_other_files(folder)
    if not (folder / FIT).is_file():
        fit.save(folder / FIT)
    write_manifest(
        folder,
        {
            "fit": {"key": fit.key, **fit.about},
            "shards": [{"name": name, "units": units} for name, units in shards],
            "origin": settings.origin,
            "edit_size": settings.edit_size,
        },
    )
    return [(f"{name}.parquet", units) for name, units in shards]


def refuse_other_files(folder: Path) -> None:
    """Raise if a folder without an atlas holds files that are none of an atlas."""
    if (folder / MANIFEST).is_file() or not folder.is_dir():
        return
    if others := sorted(path.name for path in folder.iterdir() if not _ours(path.name)):
        raise ValueError(
            f"folder={str(folder)!r} holds other files (first: {others[0]!r}) and no atlas; expected an empty or a new"
            " folder. Name another one."
        )


def _ours(name: str) -> bool:
    return name in (FIT, READING) or name.startswith(".")


def _made(
    maker: "ShardMaker", missing: list[int], shards: list[tuple[str, list[int]]], executor: Executor | None
) -> Iterator[int]:
    """Make the missing shards; their numbers as each is done."""
    left, threads = dict.fromkeys(missing, 0), torch.get_num_threads()
    while left and executor is not None:
        waiting: dict[Any, int] = {}
        try:
            for number in left:
                call = uuid4().hex  # Dask hands out the outcome of an earlier call with the same arguments
                waiting[executor.submit(run_shard, os.path.abspath(maker.folder), number, threads, call)] = number
        except RuntimeError as error:  # a pool whose worker died takes no more
            say(f"warning: the executor takes no more work ({error}); this process goes on alone")
            executor = None
        for future, number in _finished(waiting):
            try:
                future.result()
                if not shard_is_whole(maker.folder, shards[number][0]):
                    raise FileNotFoundError(f"nothing of it in {str(maker.folder)!r}, which every worker has to see")
            except (Exception, CancelledError) as error:  # noqa: BLE001 (whatever a worker died of)
                left[number] += 1
                reason = f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]
                say(f"warning: a worker failed at shard {number} ({reason}); it is tried again")
            else:
                del left[number]
                yield number
        if any(tries >= ATTEMPTS for tries in left.values()):
            executor = None
    for number in left:
        name, units = shards[number]
        maker.make(name, units)
        yield number


def _finished(waiting: dict[Future[int], int]) -> Iterator[tuple[Future[int], int]]:
    """Futures as they end, with their shards; asked for ``done()``, which jobs of a queue know too."""
    left = dict(waiting)
    while left:
        ended = [future for future in left if future.done()]
        for future in ended:
            yield future, left.pop(future)
        if not ended:
            time.sleep(LOOK_SECONDS)


def run_shard(folder: str, number: int, threads: int | None = None, call: str = "") -> int:
    """Make one shard of an atlas from its files alone: what an executor's worker calls.

    Args:
        folder: The atlas, where model, backend, fit and plan are written down.
        number: Of the shard in its plan.
        threads: How many this process may use; the bits of pictures depend on it. None leaves them as they are.
        call: Different for every call.

    Returns:
        ``number``.
    """
    keep_freed_memory()
    manifest = read_manifest(Path(folder))
    name, units = manifest["shards"][number]
    path = f"{name}.parquet"
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads or before)
        if not shard_is_whole(Path(folder), path):
            _maker(folder, manifest["fit"]["key"], manifest.get("edit_size")).make(path, units)
    finally:
        torch.set_num_threads(before)
    return number


@lru_cache(maxsize=1)
def _maker(folder: str, key: str, edit_size: int | None) -> "ShardMaker":
    """A worker's own model, backend and fit, read once."""
    origin = read_manifest(Path(folder))["origin"]
    model = load_model(origin["model"], origin["weights"], origin.get("seed", 0))
    target = units_of(model, origin["layer"], origin.get("sae"), **origin["reading"])
    fit, backend = AtlasFit.load(Path(folder) / FIT, key), get_backend(origin["backend"])
    return ShardMaker(Path(folder), fit, target, backend, edit_size)


class ShardMaker:
    """Makes shards: sheets first, then the table that names them.

    Args:
        folder: Of the atlas.
        fit: Its numbers.
        target: All units of the layer.
        backend: Whose generator makes pictures.
        edit_size: Side in pixels at which the embedder sees them meanwhile; None is the backend's own.
    """

    def __init__(
        self, folder: Path, fit: AtlasFit, target: Target, backend: Backend, edit_size: int | None = None
    ) -> None:
        self.folder, self.fit, self.target, self.backend, self.edit_size = folder, fit, target, backend, edit_size

    def make(self, name: str, units: list[int]) -> Path:
        """Write the shard of these units; one that fails is recorded and left without pictures."""
        errors: dict[int, str] = {}
        alive = [unit for unit in units if unit in self.fit.column_of]
        try:
            pictures = self._pictures(alive)
        except (ValueError, ArithmeticError, RuntimeError):  # one of them: find out which
            pictures = {}
            for unit in alive:
                try:
                    pictures |= self._pictures([unit])
                except (ValueError, ArithmeticError, RuntimeError) as error:
                    errors[unit] = f"{type(error).__name__}: {error}"
        rows = []
        for unit in units:
            row = unit_row(self.fit, unit) | {"error": errors.get(unit)}
            if unit in self.fit.column_of:
                row |= self._sheet(unit, pictures.get(unit))
            rows.append(row)
        return write_table(self.folder / SHARDS / name, rows, {"fit": self.fit.key, "units": units})

    def _pictures(self, units: list[int]) -> dict[int, Tensor]:
        """Pictures (2, n, 3, S, S) of each unit, all made in the same batches."""
        if not self.fit.inputs or not units:
            return {}
        columns = [self.fit.column_of[unit] for unit in units]
        directions = self.fit.directions[columns]
        if bad := [unit for unit, row in zip(units, directions, strict=True) if not bool(row.isfinite().all())]:
            raise ValueError(f"unit {bad[0]}: its read-out is not finite")
        made = paint(loop_of(self.backend), self.fit.pictures(units), directions, side=self.edit_size)
        return dict(zip(units, made, strict=True))

    def _sheet(self, unit: int, pictures: Tensor | None) -> dict[str, Any]:
        """Write a unit's sheet; the columns that belong to it."""
        top = [row for row in self.fit.top_rows[unit].tolist() if row >= 0]
        cells = [self.fit.cells(top)]
        columns: dict[str, Any] = {}
        if pictures is not None:
            inputs = self.fit.pictures([unit])[0]
            cells += [thumbnails(part) for part in (inputs, *pictures)]
            columns = self._changes(unit, inputs, pictures)
        path = f"{SHEETS}/{unit}.webp"
        width = max(self.fit.top_rows.shape[1], self.fit.input_rows.shape[1])
        write_bytes(self.folder / path, sheet(cells, width))
        return {**columns, "sheet": path}

    def _changes(self, unit: int, inputs: Tensor, pictures: Tensor) -> dict[str, Any]:
        """How far pictures (2, n, 3, S, S) and those half-way move the unit, in SDs, measured by the network."""
        rows = self.fit.input_rows[unit]
        halves = inputs + HALF * (pictures - inputs)
        seen = torch.cat([pictures, halves]).flatten(0, 1)
        responses = self.target.responses(seen)[:, unit].unflatten(0, (2, 2, len(inputs)))
        start = self.fit.standard(self.fit.input_responses[rows, unit], unit)
        whole, half = self.fit.standard(responses, unit) - start
        up, down = SENSES.index("increase"), SENSES.index("decrease")
        means = [whole[down], half[down], torch.zeros(1), half[up], whole[up]]
        return {
            "inputs": [self.fit.input_names[row] for row in rows.tolist()],
            "input_responses": start.tolist(),
            "increase": whole[up].tolist(),
            "decrease": whole[down].tolist(),
            "doses": [-1.0, -HALF, 0.0, HALF, 1.0],
            "dose_response": [part.mean().item() for part in means],
        }


def unit_row(fit: AtlasFit, unit: int) -> dict[str, Any]:
    """What the table says of a unit without its pictures."""
    population = fit.population
    row: dict[str, Any] = {
        "unit": unit,
        "name": fit.names[unit],
        "state": population.state[unit],
        "passes": False,
        "reasons": [f"its response is {population.state[unit]}"],
        "words": fit.words[unit],
        "neighbours": [],
        "likeness": [],
        "top_images": [],
        "top_responses": [],
    }
    if unit not in fit.column_of:
        return row
    column, reads = fit.column_of[unit], fit.readouts
    top = [place for place in fit.top_rows[unit].tolist() if place >= 0]
    alike = zip(population.neighbours[unit].tolist(), population.likeness[unit].tolist(), strict=True)
    near = [(one, likeness) for one, likeness in alike if one >= 0]
    twin = int(population.duplicate_of[unit])
    reasons = reads.reasons(column)
    return row | {
        "passes": not reasons,
        "reasons": reasons,
        **{name: float(getattr(reads, name)[column]) for name in ("correlation", "p_value", "q_value")},
        "strong_images": int(reads.strong_images[column]),
        "sparsity": float(population.sparsity[unit]),
        "selectivity": float(population.selectivity[unit]),
        "mean": float(fit.mean[unit]),
        "sd": float(fit.std[unit]),
        "duplicate_of": None if twin < 0 else twin,
        "neighbours": [one for one, _ in near],
        "likeness": [likeness for _, likeness in near],
        "map_x": float(fit.places[unit, 0]),
        "map_y": float(fit.places[unit, 1]),
        "top_images": [fit.image_names[place] for place in top],
        "top_responses": fit.standard(fit.responses[top, unit], unit).tolist(),
    }


def _join(folder: Path, names: list[str]) -> None:
    """Write the table of all shards, in the order of the units."""
    pa = arrow()
    tables = [pa.parquet.read_table(folder / SHARDS / name) for name in names]
    whole = pa.concat_tables([table.replace_schema_metadata(None) for table in tables]).combine_chunks()
    about = (folder / MANIFEST).read_bytes()
    write_arrow(folder / TABLE, whole.replace_schema_metadata({"vislens_interp": about}))
