"""What the README says works: its Python runs, its commands name options that exist."""

import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import torch

from vislens_interp.images import to_pil

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [body for found, body in BLOCK.findall(README.read_text(encoding="utf-8")) if found == language]


def commands() -> list[list[str]]:
    """The shell commands of the README, one list of words each, split at ``&&``."""
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines for part in line.split("#")[0].split("&&")]
    return [shlex.split(part) for part in parts if part]


@cache
def help_of(*words: str) -> str:
    """What a command line of ours prints for ``--help``."""
    start = {
        "vislens": [sys.executable, "-c", "import sys; from vislens_interp.cli import main; sys.exit(main())"],
        "training": [sys.executable, "-m", "vislens_interp.training"],
    }
    done = subprocess.run([*start[words[0]], *words[1:], "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A current folder with what the README's code finds in it: ``photos/``, four smooth pictures."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=48, mode="bilinear").clamp(0, 1)
    (tmp_path / "photos").mkdir()
    for index, image in enumerate(to_pil(smooth)):
        image.save(tmp_path / "photos" / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_runs(photos):
    assert blocks("python"), "the README has no Python"
    namespace: dict[str, object] = {"__name__": "readme"}
    for number, code in enumerate(blocks("python")):
        exec(compile(code, f"README.md, Python block {number + 1}", "exec"), namespace)
    assert (photos / "unit16.png").stat().st_size > 1000
    assert any((photos / "unit16").iterdir())


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_exist(words):
    if words[0] == "vislens":
        usage, options = help_of("vislens", words[1]), words[2:]
    elif words[:3] == ["python", "-m", "vislens_interp.training"]:
        usage, options = help_of("training"), words[3:]
    elif words[:2] == ["pip", "install"]:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for extra in re.findall(r"\[(.+?)\]", " ".join(words)):
            assert set(extra.split(",")) <= set(project["optional-dependencies"])
        return
    else:
        known = words[0] in {"export", ".", "pytest"} or words[:3] == ["python", "-m", "venv"]
        assert known or (ROOT / words[0]).is_file(), f"{words[0]!r} is neither a file of ours nor a known command"
        return
    for option in (word.split("=")[0] for word in options if word.startswith("--")):
        assert re.search(rf"{re.escape(option)}\b", usage), f"{option} is no option of {' '.join(words[:2])}"


def test_files_that_are_named_exist():
    text = README.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)\)", text)
    assert [link for link in links if not (ROOT / link).exists()] == []
