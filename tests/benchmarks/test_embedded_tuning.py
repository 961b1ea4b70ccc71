"""The tuning of the embedded backend: what its cells measure, and the whole of it on tiny networks."""

import json
import sys

import pytest
import torch

from benchmarks.common.networks import NETWORKS, Network
from benchmarks.embedded import tuning
from vislens_interp.backends.embedded import DEFAULTS


def run(places, out, *words):
    data, weights = places
    before = sys.argv, torch.get_num_threads()
    sys.argv = ["embedded_tuning.py", *words, "--data", str(data), "--weights", str(weights), "--out", str(out)]
    try:
        tuning.main()
    finally:
        sys.argv = before[0]
        torch.set_num_threads(before[1])


@pytest.fixture
def small(monkeypatch):
    """Two settings of each question, one network."""
    for name in ("LANDSCAPE", "EDITS"):
        monkeypatch.setattr(tuning, name, getattr(tuning, name)[:2])
    monkeypatch.setattr(tuning, "SAMPLING", [{"steps": 1, "guidance": 1.0}, {"steps": 2, "guidance": 2.0}])
    monkeypatch.setattr(tuning, "OPTIMIZE", [{"steps": 1, "render_steps": 1}])
    network = NETWORKS["cifar10_resnet20"]
    for name in set(NETWORKS) - {"cifar10_resnet20"}:
        monkeypatch.delitem(NETWORKS, name)
    monkeypatch.setitem(NETWORKS, "cifar10_resnet20", Network(network.build, {"layer1": 16, "layer2": 32}))


def test_it_runs_and_goes_on(places, tmp_path, small, capsys):
    words = ("--images", "2")
    run(places, tmp_path, *words)
    state = json.loads((tmp_path / "tuning.json").read_text())
    found = state["found"]
    assert {question: len(rows) for question, rows in found.items()} == {
        "landscape": 2,
        "sampling": 2,
        "edits": 2,
        "optimize": 1,
    }
    first = found["landscape"]["defaults"]
    assert first["cases"] == 4  # two layers, a unit each, both directions
    assert found["landscape"]["latent_dim 128"]["change"] != first["change"]
    assert found["sampling"]["steps 1, guidance 1.0"]["pictures"] == 8
    assert found["edits"]["alpha 0.5, strength 1.0"]["pictures"] == 4
    assert "## optimize" in (tmp_path / "tuning.md").read_text()
    said = capsys.readouterr().out
    assert "sampling steps 1" in said
    run(places, tmp_path, *words)
    assert json.loads((tmp_path / "tuning.json").read_text()) == state
    assert "sampling steps 1" not in capsys.readouterr().out
    with pytest.raises(SystemExit, match="was begun with --units 1 --images 2; pass those, or another --out"):
        run(places, tmp_path, "--images", "3")


def test_every_setting_is_one_that_exists():
    from vislens_interp.config import EditConfig
    from vislens_interp.methods.landscape import LandscapeEdit

    apart = {"latent_dim", "noise", "alpha", "strength", "render_steps"}
    for grid in (tuning.LANDSCAPE, tuning.EDITS, tuning.OPTIMIZE):
        for changed in grid:
            own = {key: value for key, value in changed.items() if key not in apart}
            LandscapeEdit(**({"optimize": own} if grid is tuning.OPTIMIZE else own))
    assert tuning.LANDSCAPE[0] == tuning.OPTIMIZE[0] == {}
    changed = {name for name, value in vars(DEFAULTS.edit).items() if value != getattr(EditConfig(), name)}
    assert changed <= {"alpha", "goal", "interpolation", "keep_norm", "residual"}


def test_labels_and_table():
    assert tuning.label({}) == "defaults"
    assert tuning.label({"steps": 6, "guidance": 1.5}) == "steps 6, guidance 1.5"
    text = tuning.table({"sampling": {"defaults": {"cosine": 0.51234, "pictures": 8}}})
    assert "| setting | cosine | pictures |" in text
    assert "| defaults | 0.512 | 8 |" in text
