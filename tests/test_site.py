"""The site: it builds without a warning, describes every public name, and explains messages that there are."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zlib
from pathlib import Path

import pytest
from PIL import Image

import vislens_interp

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vislens_interp"
SYMPTOMS = re.findall(r"^### `(.+)`$", (ROOT / "docs/symptoms.md").read_text(encoding="utf-8"), re.MULTILINE)

FACTS = ("sd15_runbook.md", "faults.md", "gallery.md")
"""Pages whose figures are published facts, or are written with the page: by tests/faults/count.py and the gallery."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site without the notebooks' outputs, built once; a warning is an error."""
    out = tmp_path_factory.mktemp("site")
    environment = {name: value for name, value in os.environ.items() if name != "VISLENS_NOTEBOOKS"}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-q",
            "-W",
            "--keep-going",
            "-c",
            "docs",
            "-d",
            out / "tree",
            ".",
            out / "html",
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


def described(site):
    """Every name that the API reference describes, from Sphinx's inventory."""
    data = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    return {line.split(" ", 1)[0] for line in zlib.decompress(data).decode().splitlines() if " py:" in line}


def public_names():
    """Names of every ``__all__`` of the package, by the path by which they are imported."""
    for path in sorted(PACKAGE.rglob("__init__.py")):
        module = ".".join(path.parent.relative_to(ROOT).parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                yield from ((module, name) for name in ast.literal_eval(node.value))


@pytest.mark.end_to_end
def test_every_public_name_is_described(site):
    names = described(site)
    missing = []
    for module, name in public_names():
        places = {f"{module}.{name}", f"vislens_interp.{name}"}  # described there, and linked
        if name in vislens_interp._MODULES:
            places.add(f"vislens_interp.{vislens_interp._MODULES[name]}.{name}")
        if not places & names and not (PACKAGE / name).is_dir():  # a module has a page
            missing.append(f"{module}.{name}")
    assert missing == []


@pytest.mark.end_to_end
def test_methods_are_described_with_their_settings(site):
    names = described(site)
    for entry in vislens_interp.METHODS.values():
        assert f"vislens_interp.{entry.module}.{entry.attribute}" in names


@pytest.mark.end_to_end
def test_no_page_loads_anything_from_elsewhere(site):
    """It is read offline: scripts, styles, pictures and fonts are its own."""
    loaded = re.compile(r"<(?:script|img|link|iframe|source)\b[^>]*?(?:src|href)=\"(https?:)?//")
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 50
    assert [str(page.relative_to(site)) for page in pages if loaded.search(page.read_text(encoding="utf-8"))] == []


@pytest.mark.end_to_end
def test_figures_come_from_the_results(site):
    page = (site / "docs/choosing.html").read_text(encoding="utf-8")
    assert "torch-lucent, 96 passes: response" in page
    assert re.search(r"increase \+\d+\.\d\d SD \[", page)


def messages():
    """Texts of every error, warning and reason in the package, with "…" for what is filled in."""

    def text(node):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.JoinedStr):
            return "".join("…" if isinstance(part, ast.FormattedValue) else part.value for part in node.values)
        return f"{text(node.left)}{text(node.right)}" if isinstance(node, ast.BinOp) else "…"

    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.JoinedStr, ast.BinOp, ast.Constant)):
                yield re.sub("…+", "…", text(node))


@pytest.fixture(scope="module")
def known():
    return set(messages())


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_a_message_that_is_explained_is_still_said(symptom, known):
    parts = [part.strip() for part in re.split("…+", symptom) if part.strip()]
    pattern = re.compile(".*".join(re.escape(part) for part in parts), re.DOTALL)
    assert any(pattern.search(message) for message in known), f"nothing in the package says {symptom!r} any more"


def test_versions_agree():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert vislens_interp.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert version in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## ", 2)[1].splitlines()[0]


def test_symptoms_are_many_and_each_once():
    assert len(SYMPTOMS) >= 60
    assert len(set(SYMPTOMS)) == len(SYMPTOMS)


def test_the_gallery_shows_every_unit_with_its_settings():
    text = (ROOT / "docs/gallery.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[Unit (\d+)\]\((gallery/[\w-]+)-\1\.webp\)", text)
    assert len(shown) == len(set(shown)) == int(text.split(" units, drawn at random")[0].split()[-1])
    weak = 0
    for unit, stem in shown:
        with Image.open(ROOT / f"docs/{stem}-{unit}.webp") as picture:
            assert min(picture.size) > 200
        known = json.loads((ROOT / f"docs/{stem}.json").read_text(encoding="utf-8"))["units"][unit]
        assert known["settings"]["method"] == "edit"
        weak += known["weak"]
    assert weak == text.count("**Weak evidence**")
    pictures = {path.name for path in (ROOT / "docs/gallery").glob("*.webp")}
    assert pictures == {f"{stem.removeprefix('gallery/')}-{unit}.webp" for unit, stem in shown}


def measured_text():
    """All that was measured: pages of results, and cards of weights."""
    places = [ROOT / "RESULTS.md", *(ROOT / "benchmarks/results").glob("*.md"), *(PACKAGE / "zoo/weights").glob("*.md")]
    return "\n".join(path.read_text(encoding="utf-8") for path in places)


def decimals(text):
    """Numbers with a decimal point outside of code and links."""
    text = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", text, flags=re.DOTALL)
    return set(re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\.\d)", text))


@pytest.mark.parametrize(
    "page",
    [page for page in ["README.md", *(path.name for path in (ROOT / "docs").glob("*.md"))] if page not in FACTS],
)
def test_every_figure_in_the_pages_was_measured(page):
    path = ROOT / page if page == "README.md" else ROOT / "docs" / page
    known = measured_text()
    stated = decimals(path.read_text(encoding="utf-8"))
    assert [one for one in sorted(stated) if one not in known and f"{float(one) / 100:.3f}" not in known] == []
