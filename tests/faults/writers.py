"""Every public writer: what it writes in two versions, and how a reader tells a whole outcome from half of one."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from atlas_writers import ATLAS_WRITERS
from brain_writers import BRAIN_WRITERS
from lens_writers import LENS_WRITERS
from PIL import Image
from recipe_writers import RECIPE_WRITERS
from torch import nn

from vislens_interp.backends.cache import RowCache
from vislens_interp.backends.reference_photographs import ReferencePhotographs, write_reference
from vislens_interp.brain.stimuli import export_stimuli, load_stimuli
from vislens_interp.config import FitConfig
from vislens_interp.files import load_state, recover, save_state, write_bytes, write_folder, write_text
from vislens_interp.landscape.fit import fit_landscape
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import ActivationPrior
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.preprocess import Preprocess
from vislens_interp.results.result import LensResult
from vislens_interp.targets.whole_layer import open_table, read_layer
from vislens_interp.training.loop import save_half, train
from vislens_interp.training.shards import write_shards
from vislens_interp.zoo.map_generator import MapGenerator

LINES = 20_000


@dataclass(frozen=True)
class Writer:
    """One public way to write.

    Args:
        write: Writes version 0 or 1 into a folder.
        version: Which version a folder holds, read as a user would; None for nothing. Raises for anything else.
        resumes: It is called again to go on, and comes to the same bits; both versions are then the same.
    """

    write: Callable[[Path, int], object]
    version: Callable[[Path], int | None]
    resumes: bool = False


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def which(found: object, made: Callable[[int], object]) -> int:
    """The version that was found; an error where it is neither."""
    for number in (0, 1):
        expected = made(number)
        if torch.equal(found, expected) if isinstance(found, torch.Tensor) else found == expected:
            return number
    raise AssertionError("what was read is neither the old nor the new version")


# --- files and folders


def text_of(version: int) -> str:
    return f"line {version}\n" * LINES


def text_version(folder: Path) -> int | None:
    path = folder / "text.md"
    return which(path.read_text(encoding="utf-8"), text_of) if path.exists() else None


def table_of(version: int) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([[row, version, "α"] for row in range(LINES)])
    return buffer.getvalue()


def table_version(folder: Path) -> int | None:
    path = folder / "scores.csv"
    return which(path.read_bytes().decode(), table_of) if path.exists() else None


@cache
def weights_of(version: int) -> torch.Tensor:
    return torch.rand(300, 300, generator=generator(version))


def state_version(folder: Path) -> int | None:
    path = folder / "state.safetensors"
    return which(load_state(path, "landscape")["weights"], weights_of) if path.exists() else None


def fill_folder(temporary: Path, version: int) -> None:
    (temporary / "below").mkdir()
    for number in range(6):
        (temporary / "below" / f"{number}.bin").write_bytes(bytes([version]) * 20_000)


def folder_version(folder: Path) -> int | None:
    place = folder / "made"
    recover(place)
    if not place.exists():
        return None
    contents = [(place / "below" / f"{number}.bin").read_bytes() for number in range(6)]
    assert len(set(contents)) == 1
    return which(contents[0], lambda version: bytes([version]) * 20_000)


# --- what the library makes


class Means(nn.Module):
    """An embedder of a few numbers: quick, and with a state to fingerprint."""

    dim = 12

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1) * self.scale


@cache
def layer_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU()).eval()


@cache
def layer_images(version: int) -> torch.Tensor:
    return torch.rand(60, 3, 12, 12, generator=generator(version))


def read(version: int, path: Path | None) -> torch.Tensor:
    return read_layer(
        layer_model(), "0", layer_images(version), path, preprocess=Preprocess(12, [0.5], [0.5]), batch_size=4
    ).responses


@cache
def responses_of(version: int) -> torch.Tensor:
    return read(version, None)


def layer_version(folder: Path) -> int | None:
    path = folder / "layer.safetensors"
    if not path.exists():
        return None
    found = open_table(path).responses.clone()
    return which(found, responses_of)


def result_of(version: int) -> LensResult:
    keys = ("inputs", "unedited", "increase", "decrease")
    draw = generator(version)
    images = {key: torch.rand(3, 3, 8, 8, generator=draw) for key in keys}
    return LensResult(
        unit="17",
        layer="conv3",
        model="ConvNet",
        images=images,
        responses={key: torch.arange(3.0) + place + version for place, key in enumerate(keys)},
        response_mean=float(version),
        response_std=1.0,
        similarity={},
        names=["a", "b", "c"],
        settings={"alpha": 0.5, "seeds": [1, 2, 3]},
    )


def stimuli_version(folder: Path) -> int | None:
    place = folder / "stimuli"
    recover(place)
    if not place.exists():
        return None
    found = load_stimuli(place)
    assert len(found) == 12
    rows = [row["predicted_response"] for row in found.rows if row["predicted_response"] is not None]
    return which(
        sorted(rows),
        lambda version: sorted(
            r for k in ("increase", "decrease") for r in result_of(version).standardised[k].tolist()
        ),
    )


def export(folder: Path, version: int) -> None:
    try:
        export_stimuli(result_of(version), folder / "stimuli", size=8)
    except ValueError as error:  # an earlier call, or another process a moment ago
        if "is there already" not in str(error):
            raise


@cache
def photographs() -> list[Path]:
    import tempfile

    place = Path(tempfile.mkdtemp(prefix="photographs"))
    paths = [place / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        values = np.random.default_rng(number).integers(0, 256, (64, 80, 3), dtype=np.uint8)
        Image.fromarray(values).save(path)
    return paths


def reference_version(folder: Path) -> int | None:
    path = folder / "reference.zip"
    if not path.exists():
        return None
    found = ReferencePhotographs(path, 32)
    assert len(found[:]) == len(found)
    import zipfile

    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert any(name.endswith(".safetensors") for name in archive.namelist())
        return which(archive.read("licences.csv").decode(), lambda version: f"file,licence\n{version}\n")


@cache
def map_generator(version: int) -> MapGenerator:
    torch.manual_seed(version)
    return MapGenerator(8, levels=2, width=32, depth=1, heads=2).eval()


def generator_version(folder: Path) -> int | None:
    path = folder / "generator.safetensors"
    if not path.exists():
        return None
    found = MapGenerator.load(path).patches.weight.half()
    return which(found, lambda version: map_generator(version).patches.weight.detach().half())


def half_version(folder: Path) -> int | None:
    path = folder / "half.safetensors"
    if not path.exists():
        return None
    from safetensors.torch import load_file

    return which(
        load_file(path)["patches.weight"], lambda version: map_generator(version).patches.weight.detach().half()
    )


# --- what goes on where it was


@cache
def cached_images() -> torch.Tensor:
    return torch.rand(40, 3, 4, 4, generator=generator(5))


def fill_cache(folder: Path, version: int) -> None:
    rows = RowCache(folder / "cache", "rows", "f" * 16, rows_per_file=6).rows(
        cached_images(), lambda part: part.flatten(1), batch_size=3
    )
    assert torch.equal(rows.tensor(), cached_images().flatten(1))


def cache_version(folder: Path) -> int | None:
    if not (folder / "cache").exists():
        return None
    fill_cache(folder, 0)
    return 0


@cache
def fit_arguments() -> tuple[torch.Tensor, torch.Tensor]:
    draw = generator(0)
    factors = torch.randn(240, 4, generator=draw)
    x = factors @ torch.randn(4, 12, generator=draw) + 0.1 * torch.randn(240, 12, generator=draw)
    return x, factors[:, :1]


def fit(checkpoint: Path | None) -> Landscape:
    torch.manual_seed(0)
    settings = FitConfig(epochs=5, lr=1e-2, batch_size=64)
    return fit_landscape(
        EmbeddingVAE(12, 8), *fit_arguments(), ActivationPrior(8, [(0, 4)]), settings, checkpoint=checkpoint
    )


@cache
def whole_fit() -> dict[str, torch.Tensor]:
    return fit(None).vae.state_dict()


def write_fit(folder: Path, version: int) -> None:
    found = fit(folder / "fit.safetensors")
    assert all(torch.equal(value, found.vae.state_dict()[name]) for name, value in whole_fit().items())
    found.save(folder / "landscape.safetensors")


def fit_version(folder: Path) -> int | None:
    path = folder / "landscape.safetensors"
    if not path.exists():
        return None
    found = Landscape.load(path).vae.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in whole_fit().items())
    return 0


def trained(out: Path) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    data = torch.rand(50, 6, generator=generator(1))

    def loss(step: int, draw: torch.Generator) -> torch.Tensor:
        rows = torch.randint(0, len(data), (8,), generator=draw)
        return (model(data[rows]) - data[rows].sum(1, keepdim=True)).square().mean()

    average, progress = train(model, loss, out=out, steps=12, lr=1e-2, seed=0, checkpoint_seconds=0.0, data=[data])
    assert progress.step == 12
    return average.state_dict()


@cache
def whole_training() -> dict[str, torch.Tensor]:
    import tempfile

    return trained(Path(tempfile.mkdtemp(prefix="training")))


def write_training(folder: Path, version: int) -> None:
    found = trained(folder / "training")
    assert all(torch.equal(value, found[name]) for name, value in whole_training().items())
    write_text(folder / "trained.json", json.dumps({name: value.tolist() for name, value in found.items()}))


def training_version(folder: Path) -> int | None:
    checkpoint = folder / "training/checkpoint.safetensors"
    if checkpoint.exists():
        load_state(checkpoint, "checkpoint")
    path = folder / "trained.json"
    return None if not path.exists() else len(json.loads(path.read_text(encoding="utf-8"))) - 4


@cache
def checkpoint_of(version: int) -> bytes:
    import tempfile

    path = save_state(Path(tempfile.mkdtemp(prefix="shards")) / "c", "checkpoint", {"weights": weights_of(version)})
    return path.read_bytes()


def shard(folder: Path, version: int) -> None:
    place = folder / "shards/checkpoint.safetensors"
    write_bytes(place, checkpoint_of(version))
    write_shards(place, 0.05)


def shards_version(folder: Path) -> int | None:
    place = folder / "shards/checkpoint.safetensors"
    if not place.exists():
        return None
    return which(place.read_bytes(), checkpoint_of)


WRITERS = {
    "text": Writer(lambda f, v: write_text(f / "text.md", text_of(v)), text_version),
    "table": Writer(lambda f, v: write_text(f / "scores.csv", table_of(v)), table_version),
    "state": Writer(
        lambda f, v: save_state(f / "state.safetensors", "landscape", {"weights": weights_of(v)}), state_version
    ),
    "folder": Writer(lambda f, v: write_folder(f / "made", lambda place: fill_folder(place, v)), folder_version),
    "layer table": Writer(lambda f, v: read(v, f / "layer.safetensors"), layer_version),
    "stimuli": Writer(lambda f, v: export(f, 0), stimuli_version, resumes=True),
    "reference set": Writer(
        lambda f, v: write_reference(f / "reference.zip", photographs(), f"file,licence\n{v}\n", Means(), size=32),
        reference_version,
    ),
    "generator": Writer(lambda f, v: map_generator(v).save(f / "generator.safetensors"), generator_version),
    "half weights": Writer(lambda f, v: save_half(map_generator(v), f / "half"), half_version),
    "cache": Writer(fill_cache, cache_version, resumes=True),
    "fit": Writer(write_fit, fit_version, resumes=True),
    "training": Writer(write_training, training_version, resumes=True),
    "shards": Writer(shard, shards_version),
    **{name: Writer(*parts) for name, parts in (LENS_WRITERS | BRAIN_WRITERS | ATLAS_WRITERS | RECIPE_WRITERS).items()},
}
