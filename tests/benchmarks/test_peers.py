"""The comparison with other tools, without them: jobs, arithmetic on made-up cells, and ours on a small data folder."""

import json
import math
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.common.figures import FIGURE_BYTES
from benchmarks.common.judges import CifarResNet, channel_means
from benchmarks.common.networks import load_units
from benchmarks.peers import environments as peers_environments
from benchmarks.peers import report as peers_report
from benchmarks.peers import run as peers
from benchmarks.peers.environments import PEERS, interpreter
from benchmarks.peers.inside import job as peers_job
from benchmarks.peers.paint import INSIDE, SPECTRUM, cells, controls, jobs_of, run_landscape, run_peer, save_spectrum
from benchmarks.peers.plan import (
    BEST,
    CROPS,
    INPUT,
    LANDSCAPE,
    LAYERS,
    RIVALS,
    WAYS,
    WHOLE,
    Photographs,
    Unit,
    cell_name,
)
from benchmarks.peers.report import TENTH, checks, measures, shown
from benchmarks.peers.scores import complete, difference, find_cells, grid, response_measures, versions
from vislens_interp import zoo
from vislens_interp.methods.natural_spectrum import natural_spectrum
from vislens_interp.metrics.bootstrap import interval
from vislens_interp.targets.target import LayerTarget

FIRST, SECOND = Unit("features.4", 3), Unit("features.12", 5)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Photographs of coarse noise and untrained networks."""
    from torchvision.models import squeezenet1_0

    folder = tmp_path_factory.mktemp("peers")
    for name in ("photos", "networks"):
        (folder / name).mkdir()
    draw = np.random.default_rng(0)
    with zipfile.ZipFile(folder / "photos" / "imagenet500.zip", "w") as archive:
        for row in range(44):
            coarse = draw.integers(0, 256, (5, 5, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((224, 224), Image.Resampling.BICUBIC).save(folder / "picture.png")
            archive.write(folder / "picture.png", f"{row:03d}.png")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, network in (("imagenet_squeezenet1_0", squeezenet1_0()), ("cifar10_resnet20", CifarResNet())):
            save_file(network.state_dict(), folder / "networks" / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def bench(data, tmp_path_factory):
    return Photographs(data, tmp_path_factory.mktemp("out"))


# ---- in a tool's environment ----------------------------------------------------------------------------------------


def look_twice(network, job):
    """A tool that shows the network two pictures and gives a grey one, twice as large as asked."""
    network.features(torch.rand(2, 3, 64, 64))
    return torch.full((3, 2 * job["size"], 2 * job["size"]), 0.2)


def job_file(folder, bench, names):
    jobs = [
        {"cell": name, "method": "m", "layer": "features.4", "unit": 1, "seed": 0, "size": 8, "settings": {"steps": 1}}
        for name in names
    ]
    path = folder / "jobs.json"
    path.write_text(json.dumps({"network": str(bench.weights), "cells": str(folder / "cells"), "jobs": jobs}))
    return [*("script.py", str(path))]


def test_a_job_leaves_a_picture_and_its_cost_and_is_done_once(bench, tmp_path):
    argv = job_file(tmp_path, bench, ["one"])
    assert peers_job.run(look_twice, ("numpy",), argv) == 1
    said = json.loads((tmp_path / "cells" / "one.json").read_text())
    assert said["forward"] == 2
    assert said["made_at"] == 16
    assert said["versions"]["numpy"] == np.__version__
    assert said["settings"] == {"steps": 1}
    picture = peers_job.read_picture(tmp_path / "cells" / "one.png")
    torch.testing.assert_close(picture, torch.full((3, 8, 8), 51 / 255))
    assert sorted(path.name for path in (tmp_path / "cells").iterdir()) == ["one.json", "one.png"]
    assert peers_job.run(look_twice, (), job_file(tmp_path, bench, ["one", "two"])) == 1


def test_a_picture_without_its_cost_is_painted_again(bench, tmp_path):
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "one.png").write_bytes(b"half")
    assert peers_job.run(look_twice, (), job_file(tmp_path, bench, ["one"])) == 1
    assert peers_job.read_picture(tmp_path / "cells" / "one.png").shape == (3, 8, 8)


@pytest.mark.parametrize("words", [[], ["absent.json"], ["a", "b"]])
def test_a_runner_wants_one_file_of_jobs(words):
    with pytest.raises(SystemExit, match="script.py: expected one argument, a file of jobs; got"):
        peers_job.run(look_twice, (), ["script.py", *words])


def test_seeds_fix_every_generator():
    drawn = []
    for _ in range(2):
        peers_job.seed_all(3)
        drawn.append((torch.rand(1).item(), np.random.rand()))  # noqa: NPY002
    assert drawn[0] == drawn[1]


def test_an_environment_that_is_there_is_not_made_again(tmp_path):
    place = tmp_path / "lucent"
    place.mkdir()
    (place / "installed.txt").write_text("\n".join(PEERS["lucent"]["requirements"]) + "\n")
    assert interpreter(tmp_path, "lucent") == place / "bin" / "python"
    assert sorted(path.name for path in place.iterdir()) == ["installed.txt"]


def test_an_environment_that_cannot_be_made_says_why():
    with pytest.raises(
        RuntimeError, match=r"of 'horama' could not be made \(no route\); expected .* horama==.* --only"
    ):
        peers_environments._call("horama", [sys.executable, "-c", "print('no route'); raise SystemExit(2)"])


def test_every_requirement_is_pinned_and_every_script_is_there():
    for peer in PEERS.values():
        assert all("==" in one for one in peer["requirements"])
        assert (INSIDE / peer["script"]).is_file()
    assert {way.place for way in WAYS.values()} == {*PEERS, "ours"}


def test_a_tool_that_fails_says_its_last_line(bench, tmp_path):
    place = tmp_path / "lucent" / "bin"
    place.mkdir(parents=True)
    (place.parent / "installed.txt").write_text("\n".join(PEERS["lucent"]["requirements"]) + "\n")
    (place / "python").symlink_to(sys.executable)
    broken = [{"cell": "broken-0", "method": "render_vis"}]
    with pytest.raises(RuntimeError, match=r"lucent ended with exit status 1 \(.*\); expected 1 pictures. See"):
        run_peer(bench, "lucent", broken, tmp_path)


def test_horama_is_given_our_spectrum(tmp_path):
    save_spectrum(tmp_path / SPECTRUM)
    assert np.array_equal(np.load(tmp_path / SPECTRUM), natural_spectrum(224).amplitude.numpy())


# ---- the plan -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(WAYS))
def test_no_way_may_look_more_often_than_another(name):
    settings = WAYS[name].equal(96)
    looks = {
        "lucent": lambda: settings["steps"],
        "horama": lambda: settings["total_steps"] * CROPS,
        "dreamlens": lambda: settings["steps"] * settings.get("crops", 1) * (2 if "accent" in name else 1),
        "ours": lambda: settings["steps"] * settings.get("crops", 1) * (2 if name == "accentuation" else 1),
    }[WAYS[name].place]()
    assert looks == 96
    assert settings.get("image_size", 224) == settings.get("width", 224) == 224


def test_rivals_do_the_same_and_horama_crops_as_ours():
    for ours, rivals in RIVALS.items():
        assert {WAYS[way].kind for way in rivals} == {WAYS[ours].kind}
    assert {way for rivals in RIVALS.values() for way in rivals} == {
        name for name, way in WAYS.items() if way.place != "ours"
    }
    low, high = WHOLE
    assert [high, 2 * high - low] == pytest.approx([0.8, 1.0])  # the sides that horama draws from for (low, high)


def test_responses_of_a_pass_are_those_of_a_target(bench):
    images = bench.test[:2]
    for layer, found in channel_means(bench.network, LAYERS, images).items():
        torch.testing.assert_close(found[:, [1, 7]], LayerTarget(bench.network, layer, [1, 7]).responses(images))
    assert all(not bench.network.get_submodule(layer)._forward_hooks for layer in LAYERS)


def test_every_tool_gives_lite_what_it_learnt_on():
    """Its scores are those of its own preprocessing, though it is given ImageNet's normalisation."""
    network = peers_job.load_network(zoo.weights("efficientnet_lite2.safetensors"))
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values)[:, None, None] for values in (peers_job.MEAN, peers_job.STD))
    own = zoo.load("efficientnet_lite2")
    with torch.no_grad():
        want = own((images - 127 / 255) / (128 / 255))
        torch.testing.assert_close(network((images - mean) / std), want, atol=1e-3, rtol=1e-3)
        whole = peers_job.to_layer(network, "classifier")
        torch.testing.assert_close(whole((images - mean) / std), want, atol=1e-3, rtol=1e-3)


def test_class_scores_are_drawn_once_and_read_as_they_are(data, tmp_path):
    bench = Photographs(data, tmp_path, "lite2")
    units = bench.units(4)
    assert bench.units(2) == units[:2]
    assert {unit.layer for unit in units} == {"classifier"}
    scores = torch.nn.Sequential()
    scores.add_module("classifier", torch.nn.Flatten())
    scores.preprocess = lambda images: images
    found = channel_means(scores, ("classifier",), torch.ones(2, 3, 2, 2))
    assert found["classifier"].shape == (2, 12)


def test_units_are_test_units_of_all_layers_in_turn(bench):
    drawn = load_units()["squeezenet"]
    units = bench.units(6)
    assert [unit.layer for unit in units] == [*LAYERS, *LAYERS]
    assert not any(unit.unit in drawn[unit.layer][:8] for unit in units)
    assert bench.units(3) == units[:3]
    with pytest.raises(ValueError, match="units=999, and .* answer to photographs; expected at most those. Ask for"):
        bench.units(999)


def test_jobs_of_a_place_name_cells_and_photographs(bench):
    jobs = jobs_of(bench, "horama", "equal", 96, [(FIRST, 0)], ["horama_maco", "horama_accentuation", "lucent"])
    assert [job["cell"] for job in jobs] == [
        "horama_maco-equal96-features.4-3-0",
        "horama_accentuation-equal96-features.4-3-0",
    ]
    assert jobs[0]["reference"] is None
    assert Path(jobs[1]["reference"]) == cells(bench.out).absolute() / f"{cell_name(INPUT, 'own', FIRST, 0)}.png"
    assert jobs_of(bench, "lucent", "default", 96, [(FIRST, 0)], ["lucent"])[0]["settings"] == WAYS["lucent"].default


def test_controls_are_photographs(bench):
    controls(bench, [(FIRST, 0), (FIRST, 1)])
    responses = bench.natural["tuning"]["features.4"][:, 3].sort(descending=True)
    for seed in (0, 1):
        found = peers_job.read_picture(cells(bench.out) / f"{cell_name(BEST, 'own', FIRST, seed)}.png")
        torch.testing.assert_close(found, bench.tuning[responses.indices[seed]])
    assert bench.start(FIRST, 0) != bench.start(FIRST, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--units", "0"], "--units 0: expected at least 1"), (["--passes", "11"], "--passes 11: expected at least 12")],
)
def test_what_the_command_refuses(words, message, capsys):
    with pytest.raises(SystemExit):
        peers.parse(["paint", "--data", "d", "--out", "o", *words])
    assert message in capsys.readouterr().err


# ---- the arithmetic -------------------------------------------------------------------------------------------------


def made_up(values):
    """Rows of the ways at features.4 units 3 and 5 and seeds 0 and 1: values[way] is (units, seeds)."""
    return [
        {"way": way, "layer": "features.4", "unit": unit, "seed": seed, "response": response, "contrast": 1.0}
        for way, table in values.items()
        for unit, row in zip((3, 5), table, strict=True)
        for seed, response in enumerate(row)
    ]


def test_only_what_all_ways_have_is_compared():
    rows = made_up({"maximization": [[1.0, 2.0], [3.0, 4.0]], "lucent": [[0.0, 0.0], [0.0, 0.0]]})
    both = [("features.4", 3, 0), ("features.4", 3, 1), ("features.4", 5, 0), ("features.4", 5, 1)]
    assert complete(rows, ["maximization", "lucent"]) == both
    late = [row for row in rows if (row["way"], row["unit"], row["seed"]) != ("lucent", 5, 1)]
    assert complete(late, ["maximization", "lucent"]) == [("features.4", 3, 0), ("features.4", 5, 0)]
    assert complete(rows, ["maximization", "maco"]) == []


def test_means_and_differences_are_over_the_same_pictures():
    rows = made_up({"maximization": [[1.0, 2.0], [3.0, 4.0]], "lucent": [[0.0, 1.0], [2.0, 3.0]]})
    pairs = complete(rows, ["maximization", "lucent"])
    assert grid(rows, "maximization", "response", pairs).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert interval(grid(rows, "maximization", "response", pairs)).mean == 2.5
    gap = difference(rows, "maximization", "lucent", "response", pairs)
    assert (gap.mean, gap.low, gap.high) == (1.0, 1.0, 1.0)


def test_a_response_is_read_against_held_out_photographs():
    natural = torch.tensor([0.0, 0.0, 1.0, 3.0])
    found = response_measures(torch.tensor(4.0), natural)
    assert found["response"] == pytest.approx((4 - 1) / math.sqrt(2))
    assert found["percentile"] == 100
    assert not found["silent"]
    silent = response_measures(torch.tensor(0.0), natural)
    assert (silent["percentile"], silent["silent"]) == (25.0, True)


def test_versions_are_listed_by_place():
    rows = [{"way": "lucent", "versions": {"kornia": "0.4.1"}}, {"way": "lucent", "versions": {"kornia": "0.9"}}]
    assert versions([*rows, rows[0], {"way": BEST}]) == {"lucent": {"kornia": ["0.4.1", "0.9"]}}


def kept(responses, near, seconds):
    """A table as `table` makes it, with these figures of each way."""
    ways = {
        way: {
            "response": [responses[way]] * 3,
            **{measure: [near[way]] * 3 for measure in ("percentile", "near", "transfer", "contrast")},
            "cpu_seconds": seconds[way],
            "fit_cpu_seconds": 50.0,
            "forward": 96.0,
            "spectrum": 1.0,
            "kernel": None,
            "diversity": 0.5,
            "silent": 0,
        }
        for way in responses
    }
    return {"ways": ways, "pairs": [("features.4", 3, 0), ("features.4", 3, 1), ("features.4", 5, 0)]}


def test_checks_say_who_is_ahead_and_by_how_much():
    rows = made_up({"maximization": [[2.0, 2.0]] * 2, "lucent": [[3.0, 3.0]] * 2, LANDSCAPE: [[0.5, 0.5]] * 2})
    pairs = complete(rows, ["maximization", "lucent", LANDSCAPE])
    responses = {"maximization": 2.0, "lucent": 3.0, LANDSCAPE: 0.5}
    near = {"maximization": 0.2, "lucent": 0.1, LANDSCAPE: 0.6}
    found = checks(rows, kept(responses, near, {"maximization": 10.0, "lucent": 20.0, LANDSCAPE: 0.5}), pairs)
    assert list(found.values()) == [False, True, True, True, True, False, False]
    texts = list(found)
    assert "minus torch-lucent: response -1.00 [-1.00, -1.00] SD" in texts[0]
    assert "1.0 dB from photographs' spectrum, torch-lucent 1.0 (wanted: not above)" in texts[1]
    assert "100% of pictures reach half of the best tool's response" in texts[2]
    assert "the most contrasty has 1.0 times photographs' contrast (wanted: at most 2)" in texts[3]
    texts = texts[3:]
    assert f"costs 0.050 of the fastest ascent's time (ours, activation maximisation; wanted: {TENTH})" in texts[1]
    assert "pays from 6 pictures on" in texts[1]  # 50 s of a fit, 9.5 s saved by each
    assert "the strongest ascent (torch-lucent): response -2.50" in texts[2]
    assert "ours, activation maximisation is the most like photographs (0.20" in texts[3]
    slow = checks(rows, kept(responses, near, {"maximization": 10.0, "lucent": 20.0, LANDSCAPE: 11.0}), pairs)
    assert any("its fit never pays" in text for text in slow)


def test_noise_leaves_a_check_open():
    rows = made_up({"maco": [[0.0, 0.0], [2.0, 2.0]], "horama_maco": [[1.0, 1.0], [1.0, 1.0]]})
    held = kept({"maco": 1.0, "horama_maco": 1.0}, {"maco": 0.0, "horama_maco": 0.0}, {"maco": 1.0, "horama_maco": 1.0})
    rows[0]["contrast"] = 3.0
    found = checks(rows, held, complete(rows, ["maco", "horama_maco"]))
    assert list(found.values()) == [None, True, False, False]
    assert any("50% of pictures reach half" in text for text in found)


@pytest.mark.parametrize(("own", "most"), [(1.5, "2.0"), (3.0, "1.0")])
def test_an_edit_is_as_contrasty_as_its_photograph_allows(own, most):
    rows = made_up({way: [[1.0, 1.0]] * 2 for way in ("accentuation", "dreamlens_accentuation", INPUT)})
    for row in rows:
        row["contrast"] = {"accentuation": 3.0, INPUT: own}.get(row["way"], 1.0)
    each = {"accentuation": 1.0, "dreamlens_accentuation": 1.0}
    found = checks(rows, kept(each, each, each), complete(rows, [*each, INPUT]))
    assert found[
        "ours, accentuation: no picture is saturated confetti; the most contrasty has "
        f"{most} times the contrast of its photograph (wanted: at most 2)."
    ]


def test_the_table_and_the_measures_hold_the_figures():
    held = kept({"lucent": 1.25, BEST: 3.0}, {"lucent": 0.1, BEST: 0.9}, {"lucent": 7.0, BEST: 1.0})
    head, _, lucent, _ = shown(held)
    assert head.count("|") == lucent.count("|")
    assert lucent.startswith("| torch-lucent | 1.25 [1.25, 1.25] | 0.10 [0.10, 0.10]")
    assert "| 1.0 | — | 0.50 | 96 | 7.0 (+ 50 fit) | 0 |" in lucent
    held["ways"]["lucent"]["recognised"] = held["ways"][BEST]["recognised"] = "1 first, 2 of 3 in five"
    assert shown(held)[2].endswith("| 0 | 1 first, 2 of 3 in five |")
    first = measures(held, 96)[0]
    assert (first["what"], first["value"], first["unit"]) == ("torch-lucent, 96 passes: response", 1.25, "SD")
    assert first["sample"] == "2 SqueezeNet units"


# ---- from end to end ------------------------------------------------------------------------------------------------


def test_ours_is_painted_scored_and_reported(data, bench, capsys, monkeypatch):
    words = ["--data", str(data), "--out", str(bench.out), "--units", "3", "--seeds", "2", "--passes", "12"]
    _ = bench.natural  # read once for all tests
    monkeypatch.setattr(sys, "argv", ["peers.py", *words])
    peers.main(["paint", *words, "--only", "maximization"])
    painted = cells(bench.out) / f"{cell_name('maximization', 'equal12', bench.units(1)[0], 0)}.png"
    before = painted.stat().st_mtime_ns
    peers.main(["paint", *words, "--only", "maximization"])
    assert painted.stat().st_mtime_ns == before
    capsys.readouterr()
    classes = kept({"maco": 1.25}, {"maco": 0.1}, {"maco": 7.0}) | {"pairs": [("classifier", 7, 0)]}
    classes["ways"]["maco"]["recognised"] = "1 first, 1 of 1 in five"
    (bench.out / "lite2").mkdir()
    said = {"passes": 12, "settings": {"equal": classes}, "checks": {"ours is ahead.": True}}
    (bench.out / "lite2" / "peers.json").write_text(json.dumps(said))
    peers.main(["report", *words])
    text = (bench.out / "peers.md").read_text(encoding="utf-8")
    assert text.strip() == capsys.readouterr().out.strip()
    assert "3 units" in text
    assert "Not run: torch-lucent; Horama, Fourier" in text
    assert "einops is used and not declared" in text
    assert "## Class scores of EfficientNet-Lite2, 12 passes\n\n1 pictures of classes 7." in text
    assert "| 0 | 1 first, 1 of 1 in five |" in text
    assert "- holds: EfficientNet-Lite2: ours is ahead." in text
    numbers = json.loads((bench.out / "peers.json").read_text(encoding="utf-8"))
    assert set(numbers["settings"]["equal"]["ways"]) == {"maximization", BEST, INPUT}
    rows = find_cells(bench, 12, bench.units(3), range(2))
    assert len(rows) == len(numbers["cells"]) == 18
    best = [row["percentile"] for row in numbers["cells"] if row["way"] == BEST]
    assert min(best) > 50
    assert 0 < (bench.out / "peers.webp").stat().st_size <= FIGURE_BYTES


def test_a_report_of_nothing_says_what_to_do(data, bench, tmp_path):
    empty = Photographs(data, tmp_path)
    with pytest.raises(ValueError, match="holds no picture; expected some. Run `paint` with this --out first"):
        peers_report.write(empty, 96, [FIRST], range(1), weights=None, said={})


@pytest.mark.slow
def test_the_landscape_edits_the_photograph(bench):
    run_landscape(bench, [(SECOND, 0)], "cifar10", 200, {"w_consistency": 0.0, "gradients": False})
    said = json.loads((cells(bench.out) / f"{cell_name(LANDSCAPE, 'own', SECOND, 0)}.json").read_text())
    assert said["painted_at"] == 32
    assert said["fit_forward"] >= 200
    assert peers_job.read_picture(cells(bench.out) / f"{cell_name(LANDSCAPE, 'own', SECOND, 0)}.png").shape[-1] == 224
