"""Imports point one way, and importing the package loads nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vislens_interp

PACKAGE = Path(vislens_interp.__file__).parent
NAME = PACKAGE.name

# From the bottom up; a room imports from lower levels only, and from itself.
LEVELS = [
    {"validation"},
    {
        "config",
        "copies",
        "files",
        "images",
        "math",
        "memory",
        "pairing",
        "precision",
        "progress",
        "random_state",
        "schema",
        "streams",
        "tables",
    },
    {"frames", "preprocess"},
    {"zoo"},
    {"targets", "landscape", "backends", "reference", "models"},
    {"brain", "methods", "metrics"},
    {"results", "report"},
    {"evaluation", "lens", "download", "atlas", "audit"},
    {"doctor"},
    {"training", "cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
# What one room may take from its neighbour on the same level.
NEIGHBOURS = {
    ("backends", "landscape"),
    ("backends", "targets"),
    ("results", "report"),
    ("lens", "evaluation"),
    ("atlas", "evaluation"),
    ("audit", "evaluation"),
    ("lens", "audit"),
}
LEAVES = {"training", "cli"}  # nothing imports them
HEAVY = ["diffusers", "open_clip", "lightly", "matplotlib", "torchmetrics", "captum", "timm", "cmaes"]


def imported_rooms(source: str, module: str, *, is_package: bool) -> list[tuple[str, int, bool]]:
    """Rooms of the package that a module imports, at any depth of its code: (room, line, only for type checking).

    The package itself, as in ``from vislens_interp import FeatureLens``, is the room ``""``.
    """
    tree = ast.parse(source)
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test).endswith("TYPE_CHECKING")
        for statement in branch.body
        for node in ast.walk(statement)
    }
    parents = module.split(".") if is_package else module.split(".")[:-1]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == NAME and parts[1:] != ["__version__"]:
                room = parts[1] if len(parts) > 1 and is_room(parts[1]) else ""
                found.append((room, node.lineno, id(node) in typing_only))
    return found


def is_room(name: str) -> bool:
    return name in LEVEL or (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()


def complaint(importer: str, imported: str, typing_only: bool) -> str | None:
    """Why a room may not import another, or None if it may."""
    if importer == imported:
        return None
    if importer == "__main__":
        return None if imported == "cli" else "imports more than cli, which it only starts"
    if imported == "":
        return None if importer == "cli" else "imports the package's public names, which import it"
    if imported in LEAVES:
        return f"imports {imported}, which nothing may import"
    if importer == "":
        return None
    if importer == "zoo" and imported not in {"images", "files", "preprocess"}:
        return f"imports {imported}, but the zoo takes nothing of ours except images and how they are prepared"
    if LEVEL[imported] < LEVEL[importer] or (importer, imported) in NEIGHBOURS:
        return None
    if LEVEL[imported] == LEVEL[importer] and typing_only:  # a type to annotate with is no dependency when it runs
        return None
    return f"imports {imported}, which stands {'beside' if LEVEL[imported] == LEVEL[importer] else 'above'} it"


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def complaints_of(path: Path) -> list[str]:
    module = ".".join([NAME, *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
    imports = imported_rooms(path.read_text(encoding="utf-8"), module, is_package=path.name == "__init__.py")
    return [
        f"{path.relative_to(PACKAGE.parent)}:{line} {why}"
        for imported, line, typing_only in imports
        if (why := complaint(room_of(path), imported, typing_only))
    ]


def test_every_module_has_a_level():
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"", "__main__"}
    assert rooms <= set(LEVEL), "give the new room a level here and in ARCHITECTURE.md"


def test_imports_point_one_way():
    complaints = [line for path in sorted(PACKAGE.rglob("*.py")) for line in complaints_of(path)]
    assert not complaints, "\n".join(complaints)


def test_no_room_without_a_name():
    assert [path for path in PACKAGE.rglob("*.py") if path.stem in {"utils", "util", "common", "helpers", "misc"}] == []


@pytest.mark.parametrize(
    ("importer", "statement", "why"),
    [
        ("landscape", "from vislens_interp.targets import LayerTarget", "beside"),
        ("landscape", "import vislens_interp.backends.base", "beside"),
        ("landscape", "def later():\n    from ..lens import FeatureLens", "above"),
        ("landscape", "from vislens_interp import report", "above"),
        ("landscape", "if TYPE_CHECKING:\n    from vislens_interp.results.result import LensResult", "above"),
        ("images", "from vislens_interp import files", "beside"),
        ("zoo", "from vislens_interp.targets import list_units", "except images"),
        ("cli", "from vislens_interp.training import loop", "nothing may import"),
        ("lens", "from vislens_interp import FeatureLens", "public names"),
        ("targets", "from vislens_interp.landscape import fit", "beside"),
    ],
)
def test_wrong_imports_are_seen(importer, statement, why):
    ((imported, _, typing_only),) = imported_rooms(statement, f"{NAME}.{importer}.part", is_package=False)
    assert why in str(complaint(importer, imported, typing_only))


@pytest.mark.parametrize(
    ("importer", "statement"),
    [
        ("landscape", "from vislens_interp.files import load_state"),
        ("backends", "from vislens_interp.landscape.vae import VAE"),
        ("backends", "from vislens_interp import zoo"),
        ("report", "if TYPE_CHECKING:\n    from vislens_interp.results.result import LensResult"),
        ("results", "def figure(self):\n    from vislens_interp.report.figures import draw"),
        ("lens", "from . import images"),
        ("results", "from vislens_interp import __version__"),
    ],
)
def test_right_imports_pass(importer, statement):
    module = f"{NAME}.{importer}" if (PACKAGE / f"{importer}.py").exists() else f"{NAME}.{importer}.part"
    if statement.startswith("from . "):
        module = f"{NAME}.{importer}"
    for imported, _, typing_only in imported_rooms(statement, module, is_package=False):
        assert complaint(importer, imported, typing_only) is None


def test_files_and_functions_stay_short():
    """600 lines a file, 80 a function without its docstring."""
    too_long = []
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        too_long += [path.name] if source.count("\n") > 600 else []
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body
                too_long += [f"{path.name}: {node.name}"] if body[-1].end_lineno - body[0].lineno >= 80 else []
    assert too_long == []


def test_import_is_light():
    code = f"import sys, vislens_interp; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
