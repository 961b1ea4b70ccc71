"""Every tutorial runs from beginning to end, as its reader would run it."""

import os
import runpy
from pathlib import Path

import pytest

TUTORIALS = sorted((Path(__file__).parent.parent / "tutorials").glob("*.py"))


def test_there_are_tutorials():
    assert TUTORIALS


NEED_DATA = {"04_v4_neuron", "08_closed_loop"}
"""Tutorials that read files of VISLENS_DATA."""


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.data if path.stem in NEED_DATA else ()) for path in TUTORIALS],
    ids=lambda path: path.stem,
)
def test_tutorial_runs(path, tmp_path, monkeypatch, capsys):
    import matplotlib

    monkeypatch.setenv("VISLENS_TUTORIALS", str(tmp_path))
    if "VISLENS_DATA" in os.environ:  # it may be relative to where pytest was started
        monkeypatch.setenv("VISLENS_DATA", str(Path(os.environ["VISLENS_DATA"]).resolve()))
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    runpy.run_path(str(path), run_name="__main__")
    assert str(tmp_path) in capsys.readouterr().out
    made = [file for file in (tmp_path / path.stem).rglob("*.png") if file.stat().st_size > 0]
    assert made, "the tutorial leaves no figure"
    assert {entry.name for entry in tmp_path.iterdir()} == {path.stem}, "it writes outside its folder"


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_is_in_cells(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# %% [markdown]\n# # ")
    assert text.count("\n# %%\n") >= 2
