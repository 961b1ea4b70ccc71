import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from benchmarks.common.script import ROOT
from benchmarks.speed import report as speed_report
from benchmarks.speed import run as speed
from benchmarks.speed.report import hooks_lines, same_loss_lines, units_lines
from benchmarks.speed.run import QUICK, Reading, ValidationLoss, in_turn, plain_loop, ratio, units
from vislens_interp import zoo
from vislens_interp.backends.pixel import PixelBackend
from vislens_interp.methods.landscape import LandscapeEdit
from vislens_interp.targets import LayerTarget


def test_works_take_turns():
    order = []
    works = {name: (lambda name=name: order.append(name)) for name in "ABC"}
    seconds = in_turn(works, 3, torch.device("cpu"), "turns")
    assert "".join(order) == "ABC" + "ABC" + "BCA" + "CAB"  # a round that does not count, then three that do
    assert [len(values) for values in seconds.values()] == [3, 3, 3]


def test_ratios_are_taken_within_rounds():
    found = ratio({"a": [2.0, 20.0, 6.0], "b": [1.0, 10.0, 2.0]}, "a", "b")
    assert found == {"median": 2, "quartile_1": 2, "quartile_3": 2.5, "rounds": 3}


@pytest.fixture(scope="module")
def fitted():
    images = torch.rand(200, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    backend = PixelBackend()
    target = LayerTarget(zoo.load("cifar10_convnet"), "conv3", 16)
    method = LandscapeEdit(shuffles=0, epochs=1).fit(target, backend, images)
    return ValidationLoss(method.landscape_, target, images), method.landscape_


def test_the_yardstick_is_the_loss_of_the_fit(fitted):
    """Written out twice, from the library's history and here: they agree but for the images that scale a term."""
    loss, landscape = fitted
    found, said = loss.score(landscape.vae, landscape.held_out), landscape.history[-1]
    assert found["recon"] == pytest.approx(said["validation_recon"], rel=1e-4)
    assert found["kld"] == pytest.approx(loss.w_kld * said["validation_kld"], rel=1e-4)
    assert found["consistency"] == pytest.approx(said["validation_consistency"], rel=0.05)


def test_the_plain_loop_stops_at_its_goal_or_at_its_budget(fitted):
    loss, landscape = fitted
    rows = torch.arange(64)
    at_once = plain_loop(loss, rows, landscape.held_out, float("inf"), QUICK, 0)
    assert [row["step"] for row in at_once] == [0]
    never = plain_loop(loss, rows, landscape.held_out, 0.0, replace(QUICK, budget=0.3, check_every=1000), 0)
    assert never[-1]["seconds"] >= 0.3
    assert never[-1]["loss"] > 0
    assert len(never) == 2


def test_what_was_not_reached_is_said():
    found = {
        "training_images": 9,
        "held_out": 1,
        "w_kld": 0.1,
        "w_consistency": 1.0,
        "ours_seconds": 2.0,
        "ours_loss": 5.0,
        "ours_terms": {"loss": 5.0},
        "shipped_terms": {"loss": 7.0},
        "organised_terms": {"loss": 6.0},
        "plain_seconds": None,
        "plain_seconds_spent": 30.0,
        "plain_steps": 8,
        "plain_loss": 50.0,
        "plain_loss_at_our_time": None,
        "ratio": None,
        "ratio_at_least": 15.0,
    }
    text = "\n".join(same_loss_lines(found))
    assert "not reached in 30 s" in text
    assert "Ratio: more than 15.0" in text


@pytest.mark.parametrize(
    ("again", "full", "verdict"),
    [(1.0, 1.01, "within the limit"), (1.0, 1.2, "OVER THE LIMIT: full"), (1.1, 1.01, "TOO NOISY TO SAY")],
)
def test_hooks_are_judged(again, full, verdict):
    values = {"bare again": again, "full": full, "late": 1.0, "target": 1.0, "early": 0.25}
    found = {
        "network": "Net",
        "batch": 2,
        "side": 8,
        "layers": {"early": "conv1"},
        "bare_seconds": 0.001,
        "ratios": {k: {"median": v, "quartile_1": v, "quartile_3": v, "rounds": 4} for k, v in values.items()},
    }
    last = hooks_lines([found])[-1]
    assert verdict in last
    assert "saves 75%" in last


def test_units_are_timed_against_their_own_path():
    convnet = zoo.load("cifar10_convnet")
    reading = Reading("ConvNet", convnet, 32, "fc2", "conv1", ("conv1", "conv2", "conv3"))
    found = units(reading, torch.device("cpu"), 2, 4)
    assert (found["layer"], found["units"]) == ("conv3", 128)
    assert all(one["median"] > 0 for one in found["ratios"].values())
    wrong = replace(reading, path=("conv1", "conv2"))
    assert units(wrong, torch.device("cpu"), 1, 4)["layer"] == "conv2"
    with pytest.raises(ValueError, match="is not what a pass of ConvNet runs through"):
        units(replace(reading, path=("conv1", "conv2", "conv2.1", "conv3")), torch.device("cpu"), 1, 4)


@pytest.mark.parametrize(
    ("again", "one", "every", "verdict"),
    [
        (1.0, 1.01, 1.1, "within the limits"),
        (1.0, 1.2, 1.1, "OVER THE LIMIT: one."),
        (1.0, 1.0, 1.3, "OVER THE LIMIT: all."),
        (1.1, 1.0, 1.0, "TOO NOISY TO SAY"),
    ],
)
def test_units_are_judged(again, one, every, verdict):
    values = {"bare again": again, "one": one, "all": every}
    found = {
        "network": "Net",
        "batch": 2,
        "side": 8,
        "layer": "conv1",
        "units": 3,
        "bare_seconds": 0.001,
        "ratios": {k: {"median": v, "quartile_1": v, "quartile_3": v, "rounds": 4} for k, v in values.items()},
    }
    assert any(verdict in line for line in units_lines([found]))


@pytest.mark.slow
@pytest.mark.data
def test_the_quick_run_writes_its_figures(data, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.run", "--data", str(data), "--out", str(tmp_path), "--quick"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert {"provenance", "end_to_end", "same_loss", "hooks", "units"} <= set(found)
    assert (tmp_path / "speed.md").read_text(encoding="utf-8") == done.stdout.removesuffix("\n")


def test_an_earlier_commit_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(speed, "BEFORE", "0" * 40)
    with pytest.raises(subprocess.CalledProcessError, match=f"archive.*{'0' * 40}.*returned non-zero exit status 128"):
        speed.lens_units(300, 1, 1)


def test_parts_that_are_not_run_stay_as_they_were(tmp_path, monkeypatch):
    ratios = dict.fromkeys(("again", "full", "late", "target", "early"), 1.0)
    kept = {"provenance": {"old": True}, "size": {}, "quick": False, "hooks": ["earlier"], "end_to_end": ratios}
    (tmp_path / "speed.json").write_text(json.dumps(kept), encoding="utf-8")
    monkeypatch.setattr(speed, "units", lambda *_: ["now"])
    monkeypatch.setattr(speed, "provenance", lambda **_: {"threads": 4})
    monkeypatch.setattr(speed, "readings", lambda: [SimpleNamespace(path="file", large=False)] * 2)
    monkeypatch.setattr(speed_report, "provenance_line", lambda source: "earlier" if "old" in source else "now")
    monkeypatch.setattr(speed_report, "PARTS", {part: lambda found, part=part: [f"## {part}"] for part in speed.PARTS})
    monkeypatch.setattr(speed.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(speed.vl, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(sys, "argv", ["speed.py", "--out", str(tmp_path), "--only", "d"])
    speed.main()
    found = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert found["hooks"] == ["earlier"]
    assert found["units"] == [["now"]] * 2
    assert found["sources"]["hooks"] == found["sources"]["end_to_end"] == {"old": True}
    assert found["sources"]["units"] == {"threads": 1}  # whatever the process had before
    text = (tmp_path / "speed.md").read_text(encoding="utf-8").split("\n\n")
    assert text[1:] == ["## end_to_end", "earlier", "## hooks", "earlier", "## units", "now\n"]
