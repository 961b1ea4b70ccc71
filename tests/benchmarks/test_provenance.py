import json
import subprocess

import pytest
import torch

from benchmarks.common.script import ROOT, command_line, commit, provenance, provenance_line


def test_says_where_a_figure_comes_from():
    source = provenance(seed=3)
    assert json.loads(json.dumps(source)) == source
    assert source["torch"] == torch.__version__
    assert source["cpus"] >= 1
    line = provenance_line(source)
    assert "seed 3" in line
    assert line.count("\n") == 0


def test_uncommitted_changes_are_said(tmp_path):
    def git(*words):
        who = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    git("init", "--quiet")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "--quiet", "--message=one")
    clean = commit(tmp_path)
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "file").write_text("two")
    assert commit(tmp_path) == clean | {"dirty": True}


def test_outside_of_a_repository(tmp_path):
    assert commit(tmp_path) == {"commit": None, "dirty": None}
    assert "no repository" in provenance_line(provenance(seed=None) | commit(tmp_path))


def test_the_command_holds_no_path_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("VISLENS_DATA", str(tmp_path))
    words = [
        str(ROOT / "benchmarks" / "speed" / "run.py"),
        "--data",
        f"{tmp_path}/cifar10",
        f"--out={ROOT}/runs/a b",
        "--quick",
    ]
    assert command_line(words) == "python -m benchmarks.speed.run --data $VISLENS_DATA/cifar10 --out='runs/a b' --quick"


@pytest.mark.parametrize("known", [True, False])
def test_a_path_elsewhere_leaves_its_last_name(known, monkeypatch, tmp_path):
    """Whether or not the environment says where the data is."""
    monkeypatch.setenv("VISLENS_DATA", str(tmp_path)) if known else monkeypatch.delenv("VISLENS_DATA", raising=False)
    words = [str(ROOT / "benchmarks" / "speed" / "run.py"), "--data", str(tmp_path), "--out=/elsewhere/far/runs"]
    for data in ([*words[1:3]], [f"--data={tmp_path}"]):
        said = command_line([words[0], *data, words[3], "/some/where/model.pt"])
        assert said.replace("--data=", "--data ") == (
            "python -m benchmarks.speed.run --data $VISLENS_DATA --out=runs model.pt"
        )
