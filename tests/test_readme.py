"""What README and the pages say works: their Python runs, their commands and options exist, and so do their links."""

import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import torch

from vislens_interp.backends.base import get_backend
from vislens_interp.images import to_pil

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "benchmarks").glob("*/README.md"))]
LINKED = [
    *PAGES,
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "RESULTS.md",
    ROOT / "benchmarks/README.md",
]
RUN_ELSEWHERE = {"training.md", "sd15_runbook.md"}
"""Pages whose Python needs weights that have to be trained or downloaded first."""


def given(page):
    """Names that a page takes from another one."""
    if page.name != "logging.md":
        return {}
    from page_reader import make_result

    return {"result": make_result()}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return [body for found, body in BLOCK.findall(page.read_text(encoding="utf-8")) if found == language]


def commands(page: Path) -> list[list[str]]:
    """The shell commands of a page, one list of words each, split at ``&&``."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
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
    """A current folder with what the code finds in it: ``photos/``, four smooth pictures."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=48, mode="bilinear").clamp(0, 1)
    (tmp_path / "photos").mkdir()
    for index, image in enumerate(to_pil(smooth)):
        image.save(tmp_path / "photos" / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def few_photographs(monkeypatch):
    """The embedded backend learns from every tenth of its photographs, so that a lens is fitted in seconds."""
    backend = get_backend("embedded")
    photographs = backend.reference_images()
    monkeypatch.setattr(backend, "_reference", photographs.at(range(0, len(photographs), 10)))


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=named(page), marks=[] if page == PAGES[0] else pytest.mark.end_to_end)
        for page in PAGES
        if blocks(page, "python") and page.name not in RUN_ELSEWHERE
    ],
)
@pytest.mark.filterwarnings("default:boolean values for 'standardize':FutureWarning")  # nilearn's, of its own calls
def test_python_runs(page, photos, few_photographs):
    run(page, photos)


@pytest.mark.slow
def test_readme_runs_on_all_photographs(photos):
    run(README, photos)


def run(page, photos):
    namespace: dict[str, object] = {"__name__": "page", **given(page)}
    for number, code in enumerate(blocks(page, "python")):
        exec(compile(code, f"{named(page)}, Python block {number + 1}", "exec"), namespace)
    if page == README:
        assert (photos / "unit17.png").stat().st_size > 1000
        assert any((photos / "unit17").iterdir())


@pytest.mark.parametrize(
    ("page", "words"),
    [(page, words) for page in PAGES for words in commands(page) if page.name not in RUN_ELSEWHERE],
    ids=lambda value: named(value) if isinstance(value, Path) else " ".join(value),
)
def test_commands_exist(page, words):
    if words[0].startswith(("P=", "$P")):  # a benchmark's own shorthand
        words = shlex.split(words[0].removeprefix("P=")) if words[0].startswith("P=") else ["true"]
    if words[0] == "vislens":
        usage, options = help_of("vislens", words[1]), words[2:]
    elif words[:3] == ["python", "-m", "vislens_interp.training"]:
        usage, options = help_of("training"), words[3:]
    elif words[:2] == ["python", "-m"] and words[2].startswith("benchmarks."):
        usage, options = (ROOT / f"{words[2].replace('.', '/')}.py").read_text(encoding="utf-8"), words[3:]
    elif words[:2] == ["pip", "install"]:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for extra in re.findall(r"\[(.+?)\]", " ".join(words)):
            assert set(extra.split(",")) <= set(project["optional-dependencies"])
        return
    else:
        known = words[0] in {"export", ".", "pytest", "true"} or words[:3] == ["python", "-m", "venv"]
        assert known or (ROOT / words[0]).is_file(), f"{words[0]!r} is neither a file of ours nor a known command"
        return
    for option in (word.strip("[]").split("=")[0] for word in options if word.strip("[]").startswith("--")):
        assert re.search(rf"{re.escape(option)}\b", usage), f"{option} is no option of {' '.join(words[:3])}"


@pytest.mark.parametrize("page", LINKED, ids=named)
def test_files_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_pages_are_short():
    """A reader finds what is there at once; the rest has pages of its own."""
    limits = {"README.md": 8_000, "ARCHITECTURE.md": 10_000, "RESULTS.md": 15_000}
    sizes = {name: (ROOT / name).stat().st_size for name in limits}
    assert {name: size for name, size in sizes.items() if size > limits[name]} == {}
