"""The V4 benchmarks on small made-up sessions: splits, judging, and reports that say what is true."""

import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.common import v4_sessions as v4_data
from benchmarks.common.script import provenance
from benchmarks.v4_encoder import report as encoder_report
from benchmarks.v4_encoder import run as v4_encoder
from benchmarks.v4_recorded import methods
from benchmarks.v4_recorded import report as recorded_report
from benchmarks.v4_recorded import run as v4_recorded
from vislens_interp.brain.backbone import Backbone
from vislens_interp.preprocess import Preprocess


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two sessions of 440 pictures, one shown twice; two neurons that like red and bottom-up brightness."""
    folder = tmp_path_factory.mktemp("v4")
    draw = np.random.default_rng(0)
    for name in v4_data.TEST_SESSIONS:
        place = folder / "macaque_v4" / name
        place.mkdir(parents=True)
        coarse = draw.integers(0, 256, (440, 4, 4, 3), dtype=np.uint8)
        coarse[7] = coarse[3]
        with zipfile.ZipFile(place / "images.zip", "w") as archive:
            for row, picture in enumerate(coarse):
                file = folder / "picture.png"
                Image.fromarray(picture).resize((112, 112), Image.Resampling.BICUBIC).save(file)
                archive.write(file, f"image{row:04d}.png")
        red, below = coarse[..., 0].mean((1, 2)), coarse[:, 2:].mean((1, 2, 3)) - coarse[:, :2].mean((1, 2, 3))
        np.save(place / "responses.npy", np.stack([red, below]) + draw.normal(size=(2, 440)) * 3)
    return folder


def test_copies_are_one_picture_and_splits_are_fixed(data):
    session = v4_data.load_session(data, "201025")
    assert len(session.images) == 439
    assert session.copies == 1
    raw = np.load(data / "macaque_v4" / "201025" / "responses.npy")
    torch.testing.assert_close(session.responses[3], torch.from_numpy(raw[:, [3, 7]].mean(1)).float())
    rows, held_out = session.split()
    assert len(held_out) == 88
    assert sorted([*rows.tolist(), *held_out.tolist()]) == list(range(439))
    first, second = session.halves()
    assert not set(first.tolist()) & set(second.tolist())
    assert torch.equal(v4_data.load_session(data, "201025").split()[1], held_out)


@pytest.fixture
def small(monkeypatch):
    """A backbone of one layer in the place of SqueezeNet."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, padding=1))
    network.__dict__["preprocess"] = Preprocess(16, [0.5], [0.5])
    monkeypatch.setattr(v4_encoder, "load_squeezenet", lambda data: network)
    monkeypatch.setattr(v4_recorded, "load_squeezenet", lambda data: network)
    return network


def test_encoders_are_compared_on_held_out_pictures(data, small, tmp_path, monkeypatch):
    monkeypatch.setattr(encoder_report, "DRAWS", 50)
    for label in (encoder_report.OURS, encoder_report.EMBEDDING, encoder_report.PIXELS):
        found = v4_encoder.cell(label, data, v4_data.load_session(data, "201025"), tmp_path)
        encoder_report.cell_path(tmp_path, "201025", label).write_text(json.dumps({"found": found}))
        assert found["held_out"] == 88
        assert found["neurons"][0]["r"] > 0.9  # redness is in the mean of every channel
    said = provenance(seed=0)
    text, kept = encoder_report.report(data, tmp_path, said)
    assert "Aim, median held-out R over all 2 neurons of 201025 at least 0.50" in text
    ours = kept["sessions"]["201025"][encoder_report.OURS]
    low, high = ours["median_r"][1:]
    assert low <= ours["median_r"][0] <= high
    assert ours["median_r"][0] == pytest.approx(np.median(list(ours["r"].values())), abs=1e-3)
    embedding = kept["sessions"]["201025"][encoder_report.EMBEDDING]
    assert embedding["r"]["neuron1"] < ours["r"]["neuron1"] - 0.3  # a mean over positions does not know where


def test_recordings_judge_edits(data, small, tmp_path, monkeypatch):
    for module in (v4_recorded, recorded_report):
        monkeypatch.setattr(module, "ANGLES", (25.0, 60.0))
    monkeypatch.setattr(v4_recorded, "EDITED", 20)
    monkeypatch.setattr(v4_recorded, "LATENT_DIM", 8)
    kept = (methods.OURS, methods.MEANS, methods.RANDOM)
    for module in (v4_recorded, recorded_report):
        monkeypatch.setattr(module, "METHODS", {label: methods.METHODS[label] for label in kept})
    said = provenance(seed=0)
    v4_recorded.run(data, tmp_path, said, tune=False, neurons=None, sessions=["201025"])
    paths = sorted(tmp_path.glob("neuron-*.json"))
    assert [path.name for path in paths] == ["neuron-201025-0.json", "neuron-201025-1.json"]
    cells = [json.loads(paths[0].read_text())]
    for way in methods.SIGN:
        change = [
            recorded_report.table_of(cells, label, way, 60.0, "change")[0] for label in (methods.OURS, methods.MEANS)
        ]
        assert min(change) > 0.3
    text, numbers = recorded_report.report(tmp_path, said, tune=False)
    assert text.index("**Ours loses in ") < text.index("| ours minus |") < text.index("## Increase")
    assert numbers["neurons"] == {"201025": [0, 1]}
    before = paths[0].stat().st_mtime_ns
    v4_recorded.run(data, tmp_path, said, tune=False, neurons=None, sessions=["201025"])
    assert paths[0].stat().st_mtime_ns == before


def test_a_lookup_is_by_the_very_pictures():
    images, x = torch.rand(6, 3, 4, 4), torch.rand(6, 5)
    known = v4_recorded.KnownEmbeddings(images, x)
    part = known.part(images, torch.tensor([4, 1]))
    assert torch.equal(known(part), x[[4, 1]])
    assert torch.equal(known(images), x)


def test_what_loses_is_said_first():
    rng = np.random.default_rng(0)
    changes = {}
    for label in (methods.OURS, *methods.RIVALS):
        for way in methods.SIGN:
            for angle in methods.ANGLES:
                shift = 1.0 if label == methods.PATTERN else 0.0
                changes[label, way, angle] = rng.normal(size=30) * 0.1 + shift
    lines = recorded_report.verdict(changes, list(methods.METHODS))
    assert lines[0].startswith("**Ours loses in 10 of 40 comparisons** (paired, SDs), wins in ")
    assert [line.split(" | ")[0][2:] for line in lines[4:12] if line.count("**") == 10] == [methods.PATTERN] * 2
    assert sum(line.count("**") for line in lines[2:]) == 20


def test_pixels_are_the_picture_itself():
    images = torch.rand(2, 3, 112, 112)
    (tokens,) = Backbone(v4_encoder.pixels_only(), ["0"], grid=28)(images)
    expected = torch.nn.functional.avg_pool2d(images * 2 - 1, 4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens, expected)
