"""Files of every kind, changed in one place: each field deleted, of another type or shape, NaN, or a path outside.

``python tests/faults/edits.py --rounds 40 --record edits.jsonl`` does it forty times to each kind, and prints what
happened as JSON: the file was used, or refused in one line that names it and the field. Nothing else is allowed.
"""

import argparse
import copy
import csv
import itertools
import json
import random
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.append(str(Path(__file__).parent))
import torch
from atlas_writers import atlas, decoder, embedder, fresh
from brain_writers import experiment, go_on, simulated_rates
from harness import counted, earlier
from lens_writers import (
    COMPARED,
    Flat,
    audited,
    backbone,
    compared,
    encoder,
    fitted_encoder,
    lens,
    network,
    readout,
    result,
    small,
    streamed,
)
from safetensors.torch import load_file, save_file
from torch import Tensor
from writers import (
    Means,
    export,
    fill_cache,
    fit,
    map_generator,
    photographs,
    read,
    trained,
)

from vislens_interp import FeatureLens, LensResult
from vislens_interp.atlas import open_atlas
from vislens_interp.atlas.store import schema, write_arrow
from vislens_interp.backends.pyramid_decoder import PyramidDecoder
from vislens_interp.backends.reference_photographs import ReferencePhotographs, write_reference
from vislens_interp.brain import read_block
from vislens_interp.brain.encoder import InSilicoEncoder
from vislens_interp.brain.stimuli import load_stimuli
from vislens_interp.evaluation import stream
from vislens_interp.evaluation.words import WordReadout
from vislens_interp.files import load_state, save_state
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.targets.whole_layer import open_table
from vislens_interp.zoo.map_generator import MapGenerator

DELETE = object()
SAID = {"data": ["images"], "said": ["header"], "identity": ["a run with"], "kind": ["written by", "holds a"]}
"""Words for fields that nobody sees."""
STIMULI = "stimuli/stimuli.tsv"
OUTSIDE = "../../../../etc/passwd"
NUMBERS = [True, -1, 2**70, 0.5, float("nan"), float("inf")]
PLAIN = [DELETE, DELETE, None, *NUMBERS, "x", "", OUTSIDE, [], [[]], {}, {"a": 1}]


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Args:
        make: Writes one, whole, into a folder.
        parts: What it holds, as nested dictionaries and lists, by name.
        put: Writes it with other parts.
        use: Reads it as a user does, and does with it what it is for.
        tensors: Whether it can hold a tensor in any place.
    """

    make: Callable[[Path], object]
    parts: Callable[[Path], dict[str, Any]]
    put: Callable[[Path, dict[str, Any]], object]
    use: Callable[[Path], object]
    tensors: bool = False


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything in nested dictionaries and lists, at most the first three of each list."""
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*at, key))


def others(value: object, draw: random.Random, tensors: bool) -> object:
    """Something else for a field; tensors too, where a file can hold them anywhere."""
    if isinstance(value, Tensor) and draw.random() < 0.6:
        nothing = value.clone() if value.dtype.is_floating_point else value.float()
        nothing.flatten()[:1] = torch.nan
        nothing = nothing if nothing.numel() else torch.zeros(3)
        return draw.choice([nothing, value[None], value.flatten()[:-1], torch.zeros(0), torch.full_like(value, 99)])
    if tensors and draw.random() < 0.1:
        return draw.choice([torch.zeros(0), torch.full((3,), torch.nan)])
    if isinstance(value, dict) and draw.random() < 0.2:
        return {**value, "unknown": draw.choice(PLAIN[2:])}
    return draw.choice(PLAIN)


def changed(whole: dict[str, Any], draw: random.Random, tensors: bool) -> tuple[dict[str, Any], tuple[Any, ...], str]:
    """A copy with one place changed, the place, and what was done there."""
    first = draw.choice(list(whole))  # parts alike, however many fields one has
    at = draw.choice([place for place in places(whole) if place[0] == first])
    made = copy.deepcopy(whole)
    inner = made
    for key in at[:-1]:
        inner = inner[key]
    other = others(inner[at[-1]], draw, tensors)
    if other is DELETE:
        del inner[at[-1]]
        return made, at, "deleted"
    inner[at[-1]] = other
    return made, at, f"a tensor {tuple(other.shape)}" if isinstance(other, Tensor) else repr(other)[:60]


def state(name: str, kind: str, make: Callable[[Path], object], use: Callable[[Path], object]) -> Kind:
    """A file that ``save_state`` wrote."""
    return Kind(
        make,
        lambda folder: load_state(folder / name, kind),
        lambda folder, parts: save_state(folder / name, kind, parts),
        use,
        tensors=True,
    )


def stopped(module: str, work: Callable[[], object]) -> None:
    """Do it until its first checkpoint is saved."""
    where = sys.modules[module]
    save = where.save_state

    def stop(*arguments: object) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    where.save_state = stop
    try:
        work()
    except KeyboardInterrupt:
        pass
    finally:
        where.save_state = save


def use_lens(folder: Path) -> object:
    return FeatureLens.load(folder / "lens", network(), backend=Flat()).visualize(small(2, seed=1), strength=0).html()


def use_landscape(folder: Path) -> object:
    found = Landscape.load(folder / "landscape")
    return found.decode(found.goal(found.latents[:2], {0: "increase"}))


def parts_of_json(file: str) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: json.loads((folder / file).read_text(encoding="utf-8"))


def put_json(file: str) -> Callable[[Path, dict[str, Any]], object]:
    return lambda folder, parts: (folder / file).write_text(json.dumps(parts), encoding="utf-8")


def parts_of_zip(folder: Path) -> dict[str, Any]:
    with zipfile.ZipFile(folder / "reference.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return {name: json.loads(content) if name.endswith(".json") else content for name, content in members.items()}


def put_zip(folder: Path, parts: dict[str, Any]) -> None:
    with zipfile.ZipFile(folder / "reference.zip", "w") as archive:
        for name, content in parts.items():
            archive.writestr(str(name), content if isinstance(content, bytes) else json.dumps(content))


def use_zip(folder: Path) -> object:
    found = ReferencePhotographs(folder / "reference.zip", 32, Means())
    return found[:], found.embeddings(), found.terms()


def shard_of(folder: Path) -> Path:
    return sorted((folder / "cache").rglob("*.safetensors"))[0]


def put_table(folder: Path, parts: dict[str, Any]) -> None:
    path = folder / "layer"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = dict(parts["header"]) if isinstance(parts.get("header"), dict) else parts.get("header")
    said = parts.get("said")
    if isinstance(said, dict) and isinstance(said.get("state"), dict):
        said = {**said, "state": {"$dict": [list(pair) for pair in said["state"].items()]}}
    if isinstance(header, dict) and "said" in parts:
        header["__metadata__"] = {"vislens_interp": json.dumps(said)}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def parts_of_table(folder: Path) -> dict[str, Any]:
    content = (folder / "layer").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    said = json.loads(header.pop("__metadata__")["vislens_interp"])
    return {"said": {**said, "state": dict(said["state"]["$dict"])}, "header": header}


def parts_of_stimuli(folder: Path) -> dict[str, Any]:
    """Its table, by column."""
    with (folder / STIMULI).open(newline="", encoding="utf-8") as file:
        columns, *rows = csv.reader(file, delimiter="\t")
    return {name: [row[place] for row in rows] for place, name in enumerate(columns)}


def put_stimuli(folder: Path, parts: dict[str, Any]) -> None:
    cells = [value if isinstance(value, list) else [value] for value in parts.values()]
    with (folder / STIMULI).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t").writerows([list(parts), *itertools.zip_longest(*cells, fillvalue="")])


def parts_of_generator(folder: Path) -> dict[str, Any]:
    return load_file(folder / "generator.safetensors")


def use_comparison(folder: Path) -> object:
    return compared(folder / "parts").to_csv()


def part_of_comparison(folder: Path) -> str:
    (path,) = (folder / "parts").glob(f"{COMPARED[0]}-*-seed0.safetensors")
    return str(path.relative_to(folder))


def make_result(folder: Path) -> None:
    result(0).save(folder / "result")


def stop_stream(folder: Path) -> None:
    """All parts of a streamed run, and no result."""
    with suppress(KeyboardInterrupt), patch.object(stream, "save_result", side_effect=KeyboardInterrupt):
        streamed(folder / "out")


def use_stream(folder: Path) -> object:
    streamed(folder / "out")
    return LensResult.load(folder / "out").html()


def use_experiment(folder: Path) -> object:
    """Go on: everything is read, and another block is asked for and told."""
    found = experiment(folder / "session")
    block = found.ask(6)
    found.tell(simulated_rates(block))
    return str(found.status()), [read_block(path) for path in (folder / "session").glob("block_*")]


def of_experiment(file: str) -> Kind:
    """A JSON file of an experiment."""
    path = f"session/{file}"
    return Kind(lambda folder: go_on(folder / "session"), parts_of_json(path), put_json(path), use_experiment)


def use_atlas(folder: Path) -> object:
    """Look it up, and make again what is lost."""
    found = open_atlas(folder / "atlas")
    shown = found.query("cloud"), found._repr_html_(), found.to_pandas(), found.most_alike(found)
    for path in (folder / "atlas/shards").iterdir():
        path.unlink()
    return shown, atlas(folder / "atlas")


def parts_of_atlas_table(folder: Path) -> dict[str, Any]:
    return open_atlas(folder / "atlas").table().to_pydict()


def put_atlas_table(folder: Path, parts: dict[str, Any]) -> None:
    """Columns of the types that they have, or of text where they hold something else."""
    import pyarrow

    types = {one.name: one.type for one in schema()}
    columns = {name: value if isinstance(value, list) else [value] for name, value in parts.items()}
    rows, made = max(map(len, columns.values())), {}
    for name, values in columns.items():
        values = values + [None] * (rows - len(values))
        try:
            made[name] = pyarrow.array(values, types.get(name))
        except (pyarrow.ArrowException, OverflowError):
            made[name] = pyarrow.array([str(value) for value in values])
    write_arrow(folder / "atlas/units.parquet", pyarrow.table(made))


BLOCK, UNFINISHED = "session/block_001", "out.unfinished/0000000/numbers.safetensors"
KINDS: dict[str, Kind] = {
    "lens": state("lens", "lens", lambda folder: lens(0).save(folder / "lens"), use_lens),
    "landscape": state(
        "landscape", "landscape", lambda folder: lens(0).landscape_.save(folder / "landscape"), use_landscape
    ),
    "result": Kind(
        make_result,
        parts_of_json("result/result.json"),
        put_json("result/result.json"),
        lambda folder: LensResult.load(folder / "result").html(),
    ),
    "comparison": Kind(
        lambda folder: compared(folder / "parts"),
        lambda folder: load_state(folder / part_of_comparison(folder), "comparison part"),
        lambda folder, parts: save_state(folder / part_of_comparison(folder), "comparison part", parts),
        use_comparison,
        tensors=True,
    ),
    "fit checkpoint": state(
        "fit",
        "fit checkpoint",
        lambda folder: stopped("vislens_interp.landscape.fit", lambda: fit(folder / "fit")),
        lambda folder: fit(folder / "fit"),
    ),
    "training checkpoint": state(
        "checkpoint.safetensors",
        "checkpoint",
        lambda folder: stopped("vislens_interp.training.loop", lambda: trained(folder)),
        trained,
    ),
    "encoder": state(
        "encoder",
        "in-silico encoder",
        lambda folder: encoder(0).save(folder / "encoder"),
        lambda folder: InSilicoEncoder.load(folder / "encoder", backbone())(small(2)),
    ),
    "encoder checkpoint": state(
        "member0.safetensors",
        "readout checkpoint",
        lambda folder: stopped("vislens_interp.brain.readouts", lambda: fitted_encoder(folder)),
        fitted_encoder,
    ),
    "reference set": Kind(
        lambda folder: write_reference(folder / "reference.zip", photographs(), "file,licence\n", Means(), size=32),
        parts_of_zip,
        put_zip,
        use_zip,
    ),
    "cache": Kind(
        lambda folder: fill_cache(folder, 0),
        lambda folder: load_file(shard_of(folder)),
        lambda folder, parts: save_file(
            {name: value if isinstance(value, Tensor) else torch.zeros(2) for name, value in parts.items()},
            shard_of(folder),
        ),
        lambda folder: fill_cache(folder, 0),
    ),
    "layer table": Kind(
        lambda folder: read(0, folder / "layer"),
        parts_of_table,
        put_table,
        lambda folder: open_table(folder / "layer").responses.sum(),
    ),
    "stimuli": Kind(
        lambda folder: export(folder, 0),
        parts_of_stimuli,
        put_stimuli,
        lambda folder: load_stimuli(folder / "stimuli"),
    ),
    "generator": Kind(
        lambda folder: map_generator(0).save(folder / "generator.safetensors"),
        parts_of_generator,
        lambda folder, parts: save_file(
            {name: value for name, value in parts.items() if isinstance(value, Tensor)},
            folder / "generator.safetensors",
            metadata=_metadata(folder / "generator.safetensors"),
        ),
        lambda folder: MapGenerator.load(folder / "generator.safetensors"),
    ),
    "streamed run": Kind(
        stop_stream, parts_of_json("out.unfinished/run.json"), put_json("out.unfinished/run.json"), use_stream
    ),
    "part of a streamed run": state(UNFINISHED, "numbers of a part", stop_stream, use_stream),
    "audit": Kind(
        lambda folder: audited(0).save(folder / "audit"),
        parts_of_json("audit/audit.json"),
        put_json("audit/audit.json"),
        lambda folder: audited(1).save(folder / "audit"),
    ),
    "experiment": of_experiment("experiment.json"),
    "responses": of_experiment("responses.json"),
    "block": of_experiment("block_001/manifest.json"),
    "embeddings of a block": state(
        f"{BLOCK}/embeddings.safetensors", "block", lambda folder: go_on(folder / "session"), use_experiment
    ),
    "atlas": Kind(
        lambda folder: atlas(folder / "atlas"),
        parts_of_json("atlas/atlas.json"),
        put_json("atlas/atlas.json"),
        use_atlas,
    ),
    "atlas table": Kind(lambda folder: atlas(folder / "atlas"), parts_of_atlas_table, put_atlas_table, use_atlas),
    "atlas fit": state("atlas/fit.safetensors", "atlas fit", lambda folder: atlas(folder / "atlas"), use_atlas),
    "embedder": state(
        "statistics",
        "embedding statistics",
        lambda folder: embedder(0).save_statistics(folder / "statistics"),
        lambda folder: fresh().load_statistics(folder / "statistics")(small(2)),
    ),
    "decoder": state(
        "decoder",
        "pyramid decoder",
        lambda folder: decoder(0).save(folder / "decoder"),
        lambda folder: draw_with(PyramidDecoder.load(folder / "decoder", embedder(0))),
    ),
    "words": state(
        "words",
        "word read-out",
        lambda folder: readout(0).save(folder / "words"),
        lambda folder: WordReadout.load(folder / "words").scores(torch.ones(1, 500), torch.rand(20, 500)),
    ),
}


def draw_with(found: PyramidDecoder) -> Tensor:
    return found(found.maps(small(2).repeat(1, 1, 8, 8)), 64)


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


@cache
def original(name: str) -> tuple[Path, dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="edited"))
    KINDS[name].make(folder)
    return folder, KINDS[name].parts(folder)


def words(at: tuple[Any, ...]) -> set[str]:
    """What a message may call a place: its own name, or that of something around it."""
    names = [key for key in at if isinstance(key, str)]
    return {word for key in names for word in (key, key.rsplit(".", 1)[-1], *SAID.get(key, [])) if word}


def edit(name: str, seed: str) -> dict[str, object]:
    """Change one place of one kind of file, and use it."""
    folder, whole = original(name)
    kind, draw = KINDS[name], random.Random(seed)
    made, at, done = changed(whole, draw, kind.tensors)
    one: dict[str, object] = {"writer": name, "seed": seed, "at": [str(key) for key in at], "done": done}
    with tempfile.TemporaryDirectory(prefix="edited") as temporary:
        place = Path(temporary) / "files"
        shutil.copytree(folder, place)
        kind.put(place, made)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kind.use(place)
            one["outcome"] = "used"
        except (ValueError, OSError) as error:
            text = str(error)
            one["message"] = text.replace(str(place), "")
            files = [str(place), *(path.name for path in place.rglob("*") if path.is_file())]
            if not any(file in text for file in files):
                one["failure"] = f"{type(error).__name__} does not name the file: {text}"
            elif "\n" in text:
                one["failure"] = f"more than one line: {text}"
            elif not any(word in text for word in words(at)):
                one["failure"] = f"the field is not named: {text}"
            else:
                one["outcome"] = "refused"
        except Exception as error:  # noqa: BLE001 (what is looked for)
            one["failure"] = f"{type(error).__name__}: {error}"
    return one


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="changes of each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--record", type=Path, help="a file of rounds; a second run goes on with it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rounds = earlier(args.record)
    for name in args.kinds:
        for number in range(sum(one["writer"] == name for one in rounds), args.rounds):
            one = edit(name, f"{args.seed} {name} {number}")
            rounds.append(one)
            if args.record is not None:
                with args.record.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(one) + "\n")
    failures = [one for one in rounds if "failure" in one]
    for one in failures:
        print(f"seed {one['seed']!r}, {one['at']} {one['done']}: {one['failure']}", file=sys.stderr)
    print(json.dumps({"rounds": len(rounds), "counts": counted(rounds), "failures": len(failures)}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
