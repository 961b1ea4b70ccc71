"""What is written of lenses, results, comparisons, sheets, encoders and simulated recordings, as ``writers`` has it."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path += [str(Path(__file__).parent.parent / neighbour) for neighbour in ("lens", "report")]
from page_reader import GOOD, make_result
from small_networks import Bare, pictures, small_network

from vislens_interp import Comparison, FeatureLens, LensResult, Preprocess
from vislens_interp.brain.backbone import Backbone
from vislens_interp.brain.dataset import BrainDataset
from vislens_interp.brain.encoder import InSilicoEncoder
from vislens_interp.brain.simulate import simulate_algonauts
from vislens_interp.config import Config
from vislens_interp.files import recover
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


@cache
def sheet(version):
    images = small(8, seed=version)
    row = ContactRow(
        unit="2",
        evidence=GOOD,
        top=TopImages(images, torch.arange(8.0), [f"{number}.png" for number in range(8)]),
        images=dict.fromkeys(("increase", "decrease"), images[:3]),
        response_change=dict.fromkeys(("increase", "decrease"), torch.ones(3)),
    )
    return ContactSheet(f"Sheet {version}", images[:3], images[:3], ["a", "b", "c"], [row] * 4, {}, {})


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
    "comparison": (write_comparison, comparison_version, True),
    "comparison tables": (write_tables, tables_version, False),
    "contact sheet": (write_sheet, sheet_version, False),
    "encoder": (write_encoder, encoder_version, False),
    "training of an encoder": (write_readouts, readouts_version, True),
    "simulated recordings": (lambda folder, version: write_recordings(folder, 0), recordings_version, True),
}
