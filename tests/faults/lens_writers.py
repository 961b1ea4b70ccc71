"""What is written of lenses and what they make, of encoders and of simulated recordings, as ``writers`` has it."""

import io
import json
import sys
import tempfile
from argparse import Namespace
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import nn

sys.path += [str(Path(__file__).parent.parent / neighbour) for neighbour in ("lens", "report")]
from page_reader import GOOD, make_result
from small_networks import Bare, pictures, small_network

from vislens_interp import Comparison, FeatureLens, LensResult, Preprocess
from vislens_interp.brain.backbone import Backbone
from vislens_interp.brain.dataset import BrainDataset
from vislens_interp.brain.encoder import InSilicoEncoder
from vislens_interp.brain.simulate import simulate_algonauts
from vislens_interp.cli import verbs
from vislens_interp.config import Config
from vislens_interp.evaluation import stream
from vislens_interp.evaluation.words import WordReadout
from vislens_interp.files import recover
from vislens_interp.images import to_pil
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.methods import METHODS
from vislens_interp.report.contact_sheet import ContactRow, ContactSheet
from vislens_interp.results.background import TopImages


class Flat(Bare):
    """x is the picture around grey, 8 px wide: quick."""

    name, size, shape = "flat", 8, (192,)
    defaults = Config.of(fit={"w_consistency": 0.0}, strength=0.0, shuffles=1)

    def encode(self, images):
        return images.flatten(1) - 0.5

    def render(self, x):
        return (x + 0.5).unflatten(1, (3, 8, 8)).clamp(0, 1)

    def decode(self, x, *, init_image, strength, seeds):
        return self.render(x)

    def vae(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return EmbeddingVAE(192, latent_dim=12)


def contents(folder):
    """Every file below a folder that is not hidden, by its path in it, with its bytes."""
    found = ((path.relative_to(folder), path) for path in folder.rglob("*") if path.is_file())
    return {
        str(name): path.read_bytes() for name, path in found if not any(part.startswith(".") for part in name.parts)
    }


def small(count, seed=0):
    return nn.functional.interpolate(pictures(count, seed), size=8)


@cache
def network():
    made = small_network()
    made.stem[0] = nn.Conv2d(3, 8, 3)
    made.preprocess = Preprocess(8, [0.5], [0.5])
    return made.eval()


@cache
def lens(version):
    made = FeatureLens(network(), "conv", 2, backend=Flat(), seed=version)
    return made.fit(small(220), epochs=1, shuffles=1)


def write_lens(folder, version):
    lens(version).save(folder / "lens.safetensors")


def lens_version(folder):
    path = folder / "lens.safetensors"
    if not path.exists():
        return None
    weights = FeatureLens.load(path, network(), backend=Flat()).landscape_.vae.state_dict()
    (same,) = [
        version
        for version in (0, 1)
        if all(torch.equal(value, weights[name]) for name, value in lens(version).landscape_.vae.state_dict().items())
    ]
    return same


@cache
def result(version):
    return make_result(count=2 + version)


def write_result(folder, version):
    result(version).save(folder / "result")


def result_version(folder):
    place = folder / "result"
    recover(place)
    if not place.exists():
        return None
    found = LensResult.load(place)
    made = result(len(found) - 2)
    assert all(torch.equal((made.images[key] * 255).round(), found.images[key] * 255) for key in made.images)
    assert all(torch.equal(made.responses[key], found.responses[key]) for key in made.responses)
    for name in ("report.html", "manifest.csv", "figure.png", "reference.csv"):
        assert (place / name).stat().st_size > 100
    return len(found) - 2


@cache
def inputs():
    """Seven pictures in files."""
    folder = Path(tempfile.mkdtemp(prefix="inputs"))
    for row, picture in enumerate(to_pil(small(7, seed=4))):
        picture.save(folder / f"{row}.png")
    return folder


def streamed(out):
    """Three parts."""
    with patch.object(stream, "AT_ONCE", 3):
        return lens(0).visualize(inputs(), alphas=[0.5], strength=0, out=out)


@cache
def whole_stream():
    out = Path(tempfile.mkdtemp(prefix="streamed")) / "out"
    streamed(out)
    return contents(out)


def write_stream(folder, version):
    streamed(folder / "out")


def stream_version(folder):
    place = folder / "out"
    recover(place)
    if not place.exists():
        return None
    assert contents(place) == whole_stream()
    assert len(LensResult.load(place)) == 7
    return 0


@cache
def audited(version):
    judge = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())
    own = lens.__wrapped__(0)  # for a lens keeps its audits, and says so in its results
    return own.audit(small(40, seed=9), ["natural_images", "random_images"], judge=judge, seed=version)


def write_audit(folder, version):
    audited(version).save(folder / "audit")


def audit_version(folder):
    place = folder / "audit"
    recover(place)
    if not place.exists():
        return None
    said = json.loads((place / "audit.json").read_text(encoding="utf-8"))
    (same,) = [version for version in (0, 1) if audited(version).to_dict() == said]
    assert (place / "audit.html").read_text(encoding="utf-8") == audited(same).html()
    return same


@cache
def readout(version):
    draw = torch.Generator().manual_seed(version)
    return WordReadout(["warm", "cold", "round"], torch.randn(500, 3, generator=draw), "an example")


def write_words(folder, version):
    readout(version).save(folder / "words.safetensors")


def words_version(folder):
    path = folder / "words.safetensors"
    if not path.exists():
        return None
    found = WordReadout.load(path)
    (same,) = [one for one in (0, 1) if torch.equal(found.weights, readout(one).weights.half().float())]
    return same


COMPARED = ["edit", "random_images", "unedited"]
TIMED = {"seconds", "fit_seconds", "memory"}


def compared(folder):
    return lens(0).compare(small(3, seed=1), COMPARED, (0, 1), folder=folder, strength=0)


@cache
def whole_comparison():
    return compared(None)


def same_comparison(found):
    whole = {key: value for key, value in whole_comparison().scores.items() if key[2] not in TIMED}
    assert whole.keys() == {key for key in found.scores if key[2] not in TIMED}
    assert all(np.array_equal(value, found.scores[key], equal_nan=True) for key, value in whole.items())


def write_comparison(folder, version):
    same_comparison(compared(folder / "parts"))


def comparison_version(folder):
    if not (folder / "parts").exists():
        return None
    write_comparison(folder, 0)
    return 0


@cache
def table(version):
    draw = np.random.default_rng(version)
    scores = {
        (method, way, "response_change"): draw.random((1, 3, 1))
        for method in sorted(METHODS)
        for way in ("increase", "decrease")
    }
    return Comparison(sorted(METHODS), ["2"], [0], ["a", "b", "c"], scores)


TABLES = {"to_csv": "table.csv", "to_markdown": "table.md", "to_latex": "table.tex"}


def write_tables(folder, version):
    for method, name in TABLES.items():
        getattr(table(version), method)(folder / name)


def tables_version(folder):
    """Of the last table, which is there only when the others are."""
    found = {}
    for method, name in TABLES.items():
        path = folder / name
        if path.exists():
            text = path.read_text(encoding="utf-8")
            (found[name],) = [version for version in (0, 1) if getattr(table(version), method)() == text]
    return found.get("table.tex")


def commanded(out):
    """``vislens compare``, with a small lens instead of one that its arguments describe; its scores without times."""
    given = {"reference": None, "angle": None, "strength": 0.0, "skip_bad": False, "quiet": True, "json": False}
    given |= {"images": sorted(inputs().iterdir())[:3], "methods": COMPARED, "noise_seeds": [0, 1]}
    with patch.object(verbs, "_aimed", lambda args: lens(0)), redirect_stdout(io.StringIO()):
        verbs.compare(Namespace(out=out, **given))
    return scores_of(out)


def scores_of(out):
    said = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    return [row for row in said["scores"] if row["measure"] not in TIMED]


@cache
def whole_command():
    return commanded(Path(tempfile.mkdtemp(prefix="compared")) / "out")


def write_command(folder, version):
    commanded(folder / "out")


def command_version(folder):
    """Of what is written last, when all else is there."""
    place = folder / "out"
    if not (place / "pictures.png").exists():
        return None
    assert scores_of(place) == whole_command()
    for name in ("scores.png", "pictures.png"):
        with Image.open(place / name) as picture:
            picture.load()
    return 0


TABULAR = {"result.parquet": result, "comparison.parquet": table}


def write_parquet(folder, version):
    for name, made in TABULAR.items():
        made(version).to_parquet(folder / name)


def parquet_version(folder):
    """Of the last table, which is there only when the other is."""
    import pyarrow
    from pyarrow import parquet

    found = {}
    for name, made in TABULAR.items():
        if (folder / name).exists():
            rows = parquet.read_table(io.BytesIO((folder / name).read_bytes()))
            (found[name],) = [one for one in (0, 1) if rows.equals(pyarrow.table(dict(made(one).columns())))]
    return found.get("comparison.parquet")


@cache
def sheet(version):
    images = small(8, seed=version)
    row = ContactRow(
        unit="2",
        evidence=GOOD,
        top=TopImages(images, torch.arange(8.0), [f"{number}.png" for number in range(8)]),
        inputs=images[:3],
        unedited=images[:3],
        names=["a", "b", "c"],
        responses=dict.fromkeys(("inputs", "unedited"), torch.ones(3)),
        images=dict.fromkeys(("increase", "decrease"), images[:3]),
        response_change=dict.fromkeys(("increase", "decrease"), torch.ones(3)),
    )
    return ContactSheet(f"Sheet {version}", [row] * 4, {})


def write_sheet(folder, version):
    sheet(version).save(folder / "sheet.html")


def sheet_version(folder):
    path = folder / "sheet.html"
    if not path.exists():
        return None
    text = path.read_text(encoding="utf-8")
    (found,) = [version for version in (0, 1) if sheet(version).html() == text]
    return found


@cache
def recordings():
    images = small(60)
    responses = torch.stack([images[:, 0].mean((1, 2)), images[:, 1].mean((1, 2))], 1)
    trials = responses[:, None] + 0.01 * torch.randn(60, 2, 2, generator=torch.Generator().manual_seed(0))
    return BrainDataset.from_arrays(images, trials, targets=["red", "green"])


@cache
def backbone():
    return Backbone(network().stem, preprocess=Preprocess(8, [0.5], [0.5]), grid=2)


def fitted_encoder(checkpoint, seed=0):
    settings = {"epochs": 3, "width": 8, "heads": 1}
    made = InSilicoEncoder(backbone(), "transformer", seed=seed, force=True, seeds=2, **settings)
    return made.fit(recordings(), checkpoint=checkpoint)


@cache
def encoder(version):
    return fitted_encoder(None, version)


def same_encoder(found, version):
    expected = encoder(version).state_dict()
    return all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())


def write_encoder(folder, version):
    encoder(version).save(folder / "encoder.safetensors")


def encoder_version(folder):
    path = folder / "encoder.safetensors"
    if not path.exists():
        return None
    found = InSilicoEncoder.load(path, backbone())
    (same,) = [version for version in (0, 1) if same_encoder(found, version)]
    return same


def write_readouts(folder, version):
    found = fitted_encoder(folder / "members")
    assert same_encoder(found, 0), "a resumed training came to other bits"
    found.save(folder / "encoder.safetensors")


def readouts_version(folder):
    return encoder_version(folder)


def write_recordings(folder, version):
    simulate_algonauts(folder / "brain", small(3, seed=version), seed=version, rois=["V1"])


def recordings_version(folder):
    """Of what is written last, when all else is there."""
    path = folder / "brain/simulated.json"
    if not path.exists():
        return None
    for side in ("lh", "rh"):
        responses = np.load(folder / f"brain/subj01/training_split/training_fmri/{side}_training_fmri.npy")
        assert np.isfinite(responses).all()
    return 0


LENS_WRITERS = {
    "lens": (write_lens, lens_version, False),
    "result": (write_result, result_version, False),
    "streamed result": (write_stream, stream_version, True),
    "audit": (write_audit, audit_version, False),
    "words": (write_words, words_version, False),
    "comparison": (write_comparison, comparison_version, True),
    "vislens compare": (write_command, command_version, True),
    "comparison tables": (write_tables, tables_version, False),
    "Parquet tables": (write_parquet, parquet_version, False),
    "contact sheet": (write_sheet, sheet_version, False),
    "encoder": (write_encoder, encoder_version, False),
    "training of an encoder": (write_readouts, readouts_version, True),
    "simulated recordings": (lambda folder, version: write_recordings(folder, 0), recordings_version, True),
}
