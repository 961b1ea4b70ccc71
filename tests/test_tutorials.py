"""Every tutorial runs from beginning to end as a notebook, as its reader would run it.

With ``VISLENS_NOTEBOOKS=FOLDER`` what they showed goes into that jupyter-cache, from which the site takes it.
"""

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "docs/_site"))  # for extension.py, which reads notebooks
TUTORIALS = sorted((Path(__file__).parent.parent / "tutorials").glob("*.py"))


def test_there_are_tutorials():
    assert TUTORIALS


NEED_DATA = {"04_v4_neuron"}
"""Tutorials that read files of VISLENS_DATA."""


def keep(notebook, path):
    """Put an executed notebook into the cache of the site."""
    from jupyter_cache import get_cache
    from jupyter_cache.base import NbBundleIn

    bundle = NbBundleIn(notebook, uri=str(path))
    get_cache(os.environ["VISLENS_NOTEBOOKS"]).cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def text(notebook, stream):
    return "".join(one.text for one in outputs(notebook) if one.output_type == "stream" and one.name == stream)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.data if path.stem in NEED_DATA else ()) for path in TUTORIALS],
    ids=lambda path: path.stem,
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's libraries
def test_tutorial_runs(path, tmp_path, monkeypatch):
    from extension import notebook as read
    from nbclient import NotebookClient

    monkeypatch.setenv("VISLENS_TUTORIALS", str(tmp_path))
    for name in ("VISLENS_DATA", "VISLENS_NOTEBOOKS"):
        if name in os.environ:  # it may be relative to where pytest was started
            monkeypatch.setenv(name, str(Path(os.environ[name]).resolve()))
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # figures are shown in the notebook
    notebook = read(path.read_text(encoding="utf-8"))
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()

    assert str(tmp_path) in text(notebook, "stdout")
    assert "Warning" not in text(notebook, "stderr")
    made = [file for file in (tmp_path / path.stem).rglob("*.png") if file.stat().st_size > 0]
    assert made, "the tutorial leaves no figure"
    assert {entry.name for entry in tmp_path.iterdir()} == {path.stem}, "it writes outside its folder"
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook)), "no cell shows a figure"
    if "VISLENS_NOTEBOOKS" in os.environ:
        keep(notebook, path)


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_is_in_cells(path):
    source = path.read_text(encoding="utf-8")
    assert source.startswith("# %% [markdown]\n# # ")
    assert source.count("\n# %%\n") >= 2
