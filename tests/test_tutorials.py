"""Every tutorial runs from beginning to end as a notebook, as its reader would run it.

With ``VISLENS_NOTEBOOKS=FOLDER`` what they showed goes into that jupyter-cache, from which the site takes it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SITE = Path(__file__).parent.parent / "docs/_site"
sys.path.append(str(SITE))  # for extension.py, which reads notebooks
TUTORIALS = sorted((Path(__file__).parent.parent / "tutorials").glob("*.py"))


def test_there_are_tutorials():
    assert TUTORIALS


NEED_DATA = {"04_v4_neuron", "08_closed_loop"}
"""Tutorials that read files of VISLENS_DATA."""


def execute(notebook, folder):
    """Run its cells in a kernel that stands in a folder."""
    from nbclient import NotebookClient

    # Without times, which the cache would take for another notebook.
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=900, record_timing=False, resources=resources).execute()


def keep(notebook, path):
    """Put an executed notebook into the cache of the site, with the metadata by which the site looks for it."""
    from extension import notebook as read
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn

    notebook.metadata = read(path.read_text(encoding="utf-8")).metadata
    bundle = CacheBundleIn(notebook, uri=str(path))
    get_cache(os.environ["VISLENS_NOTEBOOKS"]).cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def text(notebook, stream):
    return "".join(one.text for one in outputs(notebook) if one.output_type == "stream" and one.name == stream)


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.data if path.stem in NEED_DATA else ()) for path in TUTORIALS],
    ids=lambda path: path.stem,
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's libraries
def test_tutorial_runs(path, tmp_path, monkeypatch):
    from extension import notebook as read

    monkeypatch.setenv("VISLENS_TUTORIALS", str(tmp_path))
    for name in ("VISLENS_DATA", "VISLENS_NOTEBOOKS"):
        if name in os.environ:  # it may be relative to where pytest was started
            monkeypatch.setenv(name, str(Path(os.environ[name]).resolve()))
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # figures are shown in the notebook
    notebook = read(path.read_text(encoding="utf-8"))
    execute(notebook, tmp_path)

    assert str(tmp_path) in text(notebook, "stdout")
    assert "Warning" not in text(notebook, "stderr")
    made = [file for file in (tmp_path / path.stem).rglob("*.png") if file.stat().st_size > 0]
    assert made, "the tutorial leaves no figure"
    assert {entry.name for entry in tmp_path.iterdir()} == {path.stem}, "it writes outside its folder"
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook)), "no cell shows a figure"
    if "VISLENS_NOTEBOOKS" in os.environ:
        keep(notebook, path)


CONF = """
import sys
sys.path.insert(0, {site!r})
extensions = ["myst_nb"]
exclude_patterns = ["conf.py"]
nb_custom_formats = {{".py": "extension.notebook"}}
nb_execution_mode, nb_execution_cache_path, nb_execution_raise_on_error = "cache", {cache!r}, True
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_site_takes_outputs_from_the_cache_and_runs_what_it_lacks(tmp_path, monkeypatch):
    from extension import notebook as read

    pages, ran = tmp_path / "pages", tmp_path / "ran.txt"
    pages.mkdir()
    monkeypatch.setenv("VISLENS_NOTEBOOKS", str(tmp_path / "cache"))
    for name in ("kept", "new"):
        code = f"with open({str(ran)!r}, 'a') as file:\n    file.write('{name} ')\nprint('shown', 'by', '{name}')\n"
        (pages / f"{name}.py").write_text(f"# %% [markdown]\n# # {name}\n\n# %%\n{code}")
    notebook = read((pages / "kept.py").read_text())
    execute(notebook, tmp_path)
    keep(notebook, pages / "kept.py")
    (pages / "conf.py").write_text(CONF.format(site=str(SITE), cache=str(tmp_path / "cache")))
    (pages / "index.md").write_text("# Pages\n\n```{toctree}\nkept\nnew\n```\n")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", str(pages), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ran.read_text() == "kept new "
    for name in ("kept", "new"):
        assert f"shown by {name}" in (tmp_path / f"html/{name}.html").read_text()


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_is_in_cells(path):
    source = path.read_text(encoding="utf-8")
    assert source.startswith("# %% [markdown]\n# # ")
    assert source.count("\n# %%\n") >= 2
