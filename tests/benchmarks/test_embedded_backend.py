"""The benchmark of the embedded backend: what it measures on known answers, and all its parts on tiny networks."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.common.bench import Bench, EmbedderOnly, Remembered, nearest
from benchmarks.common.cells import rows_of, save_cell
from benchmarks.common.edit_methods import (
    BRAINACTIV,
    JOB_ANGLE,
    JOB_METHODS,
    MEANS,
    METHODS,
    OURS,
    PATTERN,
    SHUFFLED,
    set_angle,
)
from benchmarks.common.edit_tables import Edits
from benchmarks.common.judged_edits import spread_of
from benchmarks.common.networks import NETWORKS, TUNING_UNITS, Network, draw_units, load_units
from benchmarks.embedded import edits as embedded_edits
from benchmarks.embedded import run as embedded_backend
from benchmarks.embedded.figure import figure
from benchmarks.embedded.report import report
from vislens_interp.metrics.realism import kernel_distance
from vislens_interp.zoo.embedder import Embedder64


def test_the_units_are_those_that_were_drawn():
    assert load_units() == draw_units()
    for layers in load_units().values():
        for units in layers.values():
            assert len(set(units)) == len(units) > TUNING_UNITS


def test_tuning_and_test_units_are_apart_and_alive():
    reference = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    reference[:, 9] = 0
    reference[:195, 10] = 0  # answers to 2.5 %
    chosen = [Bench.units(None, "", "", reference, tune=tune, count=99) for tune in (True, False)]
    assert chosen == [list(range(8)), [8, 11, 12, 13, 14, 15]]


def test_the_five_nearest_leave_the_image_itself_out():
    angles = torch.deg2rad(torch.arange(0.0, 80.0, 10.0))
    gallery = torch.stack([angles.cos(), angles.sin()], 1) * torch.arange(1.0, 9.0)[:, None]
    cosine, rows = nearest(gallery[[0]], gallery, torch.tensor([0]))
    assert rows.tolist() == [[1, 2, 3, 4, 5]]
    torch.testing.assert_close(cosine[0], angles[1:6].cos())
    assert nearest(gallery[[0]], gallery)[1].tolist() == [[0, 1, 2, 3, 4]]


def test_the_kernel_distance_is_its_formula_and_unbiased():
    a, b = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    k = lambda p, q: (float(p @ q) / 2 + 1) ** 3  # noqa: E731
    own_a = k(a[0], a[1])
    own_b = (k(b[0], b[1]) + k(b[0], b[2]) + k(b[1], b[2])) / 3
    cross = np.mean([k(p, q) for p in a for q in b])
    assert kernel_distance(a, b) == pytest.approx(own_a + own_b - 2 * cross)
    draws = torch.randn(60, 2, 20, 6, generator=torch.Generator().manual_seed(0))
    alike = [kernel_distance(p, q) for p, q in draws]
    assert abs(np.mean(alike)) < 3 * np.std(alike) / 60**0.5
    assert kernel_distance(draws[0, 0], draws[0, 1] + 1) > max(alike)


def test_spread():
    same, apart = torch.ones(4, 3), torch.eye(3)
    assert spread_of(same, torch.zeros(3)) == pytest.approx(0, abs=1e-6)
    assert spread_of(apart, torch.zeros(3)) == pytest.approx(1)
    assert spread_of(apart, torch.full((3,), 1 / 3)) == pytest.approx(1.5)


def records(method, up, down, units=4, images=6):
    """A method that changes every picture of a unit by so much, and a little more from unit to unit."""
    return [
        {
            "method": method,
            "direction": way,
            "angle": 40.0,
            "unit": ("net", "layer", unit),
            "seed": 0,
            "change": [value + 0.01 * unit] * images,
            "natural": [0.5] * images,
            "reached": [40.0] * images,
        }
        for unit in range(units)
        for way, value in (("increase", up), ("decrease", down))
    ]


def test_methods_are_compared_on_what_all_of_them_have():
    edits = Edits([*records(OURS, 1.0, 0.5), *records(PATTERN, 0.8, 0.5, units=3)])
    assert len(edits.units) == 3
    one = edits.against(OURS, PATTERN, 40.0)
    assert [one.mean, one.low, one.high] == pytest.approx([0.1, 0.1, 0.1])
    assert edits.values(OURS, "increase", 40.0).shape == (3, 6, 1)


def test_the_right_way_is_above_the_control():
    edits = Edits([*records(OURS, 1.0, 0.1), *records(SHUFFLED, 0.5, 0.2)])
    assert edits.right(OURS, 40.0) == 1.0
    assert edits.right(OURS, 40.0, SHUFFLED) == 0.5
    half = Edits(records(OURS, 1.0, -0.015))  # of the units above the second, half of the directions less
    assert half.right(OURS, 40.0) == 0.75
    assert half.right(OURS, 40.0, only=np.array([True, True, False, False])) == 0.5


def test_evidence_is_the_correlation_of_the_fit():
    made = records(OURS, 1.0, 1.0)
    for record, value in zip(made, (0.5, 0.5, 0.05, 0.05, None, None, 0.2, 0.2), strict=True):
        record["correlation"] = value
    assert Edits(made).evident(OURS, 40.0).tolist() == [True, False, False, True]


def test_what_fails_is_said_first(tmp_path):
    made = [*records(OURS, 1.0, 0.5), *records(PATTERN, 1.5, 0.6), *records(BRAINACTIV, 0.2, 0.1)]
    made += records(SHUFFLED, 0.0, 0.0)
    for record in made:
        record["correlation"] = 0.5
        record["network"], record["layer"], record["unit"] = record["unit"]
    said = {"commit": "c" * 40, "dirty": False, "device": "a CPU", "command": "python x", "cpus": 2, "threads": 1}
    said |= {"torch": "2", "seed": 0, "date": "today"}
    save_cell(tmp_path / "retrieval-net-layer.json", made, said)
    text = report(tmp_path, said)
    failed, held = text.split("**What holds.**")
    assert "minus ridge pattern -0.300 SD [-0.300, -0.300]" in failed
    assert "minus BrainACTIV's ridge +0.600 SD" in held
    assert "100% of directions of the 4 units with evidence" in held
    assert "Cells were run at cccccccccc on a CPU" in text
    assert json.loads((tmp_path / "embedded.json").read_text())["retrieval"]["units"] == 4


def test_an_angle_is_set_for_every_method():
    for label, build in METHODS.items():
        method = build()
        set_angle(method, 33.0)
        inner = getattr(method, "method", method)
        assert inner.angle == 33.0, label


def run(places, out, *words):
    """The command, on one layer of the smallest network."""
    data, weights = places
    words = ["embedded_backend.py", *words, "--data", str(data), "--weights", str(weights), "--out", str(out)]
    threads, network = torch.get_num_threads(), NETWORKS["cifar10_resnet20"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        patch.setitem(NETWORKS, "cifar10_resnet20", Network(network.build, {"layer1": 16}))
        patch.setattr(embedded_edits, "ANGLES", (30.0, JOB_ANGLE))
        try:
            embedded_backend.main()
        finally:
            torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def done(places, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    networks = ["--networks", "cifar10_resnet20"]
    run(places, out, "retrieval", "--units", "1", "--images", "4", *networks)
    run(places, out, "retrieval", "--tune", "--units", "1", "--images", "4", *networks)
    run(places, out, "job", "--units", "1", "--images", "3", *networks)
    run(places, out, "quality", "--images", "20", "--bank", "100")
    run(places, out, "cost", "--stage", "embed")
    return out


def test_every_part_runs_and_is_reported(places, done, capsys):
    run(places, done, "report", "--tune")
    assert "ours, residual, 3 modes" in capsys.readouterr().out
    run(places, done, "report")
    text = capsys.readouterr().out
    for title in ("## Quality", "## Edits judged by natural images", "## The job", "## Cost"):
        assert title in text
    found = json.loads((done / "embedded.json").read_text())
    assert found["retrieval"]["units"] == 1
    assert found["job"]["pictures"] == 1 * 3 * 2 * len(JOB_METHODS)
    assert text.index("What fails, first") < text.index("What holds")


def test_edits_turn_as_far_as_was_asked(done):
    cells = json.loads((done / "retrieval-cifar10_resnet20-layer1.json").read_text())["found"]
    for cell in cells:
        if cell["method"] in (PATTERN, MEANS):
            assert cell["reached"] == pytest.approx([cell["angle"]] * 4, abs=0.2)
    tuned = json.loads((done / "tuning-cifar10_resnet20-layer1.json").read_text())["found"]
    assert {cell["unit"] for cell in cells}.isdisjoint({cell["unit"] for cell in tuned})


def test_what_is_done_is_not_done_again(places, done):
    files = sorted(done.glob("*.json"))
    before = {file: file.stat().st_mtime_ns for file in files if not file.name.startswith("embedded")}
    run(places, done, "retrieval", "--units", "1", "--images", "4", "--networks", "cifar10_resnet20")
    run(places, done, "quality", "--images", "20", "--bank", "100")
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_a_method_is_run_anew_in_finished_cells(places, done, tmp_path, capsys):
    shutil.copytree(done, tmp_path / "out")
    for part, count in (("retrieval", 4), ("job", 3)):
        (path,) = (tmp_path / "out").glob(f"{part}-*.json")
        cell = json.loads(path.read_text())
        kept = {row["method"]: 0 for row in rows_of(cell["found"])}
        old = json.loads(path.read_text())
        for row in rows_of(cell["found"]):
            row["seconds"] = -1.0
        cell["provenance"]["commit"] = "0" * 40
        path.write_text(json.dumps(cell))
        words = (
            part,
            "--units",
            "1",
            "--images",
            str(count),
            "--networks",
            "cifar10_resnet20",
            "--redo",
            OURS,
        )
        run(places, tmp_path / "out", *words)
        now = json.loads(path.read_text())
        assert {row["method"]: 0 for row in rows_of(now["found"])}.keys() == kept.keys()
        assert {row["method"] for row in rows_of(now["found"]) if row["seconds"] != -1.0} == {OURS}
        ours = [
            [row["change" + "s" * (part == "job")] for row in rows_of(one["found"]) if row["method"] == OURS]
            for one in (old, now)
        ]
        assert ours[0] == ours[1]
        written = path.stat().st_mtime_ns
        run(places, tmp_path / "out", *words)
        assert path.stat().st_mtime_ns == written
    run(places, tmp_path / "out", "report")
    assert f": {OURS}." in capsys.readouterr().out.split("Run anew at ")[1]


def test_an_empty_folder_is_nothing_to_report(tmp_path):
    with pytest.raises(SystemExit, match="nothing to report in .*: run quality, retrieval, job or cost first"):
        report(tmp_path, {})


def test_the_figure(places, tmp_path):
    pytest.importorskip("matplotlib")
    before = dict(NETWORKS)
    network = before["cifar10_resnet20"]
    NETWORKS.clear()
    NETWORKS["cifar10_resnet20"] = Network(network.build, {"layer1": 16})
    try:
        data, weights = places
        figure(Bench(data, weights, tmp_path), tmp_path / "figure.webp", pictures=2)
    finally:
        NETWORKS.update(before)
    with Image.open(tmp_path / "figure.webp") as drawn:
        assert drawn.size[1] > 400


def test_no_generator_is_said(places):
    backend = EmbedderOnly(Remembered(Embedder64.load(places[1] / "embedder64.safetensors")), torch.eye(3))
    with pytest.raises(ValueError, match="x cannot be rendered: --weights holds no generator64"):
        backend.decode(torch.zeros(1, 512), init_image=None, strength=1.0, seeds=[0])
