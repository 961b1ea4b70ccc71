"""Everything that writes goes through ``files``, and is in the harness: a new writer cannot be forgotten."""

import ast
import importlib
import itertools
import sys
from functools import wraps
from pathlib import Path

import pytest
from writers import WRITERS

import vislens_interp
from vislens_interp import files
from vislens_interp.images import list_images

PACKAGE = Path(vislens_interp.__file__).parent
CALLS = {"save_file", "save_pretrained", "savefig", "savez", "copyfile", "copy2", "makedirs"}
OF_PATHS = {"write_text", "write_bytes"}
"""As methods; the functions of this name are those of ``files``."""
OF_LIBRARIES = {"replace": "os", "rename": "os", "renames": "os", "move": "shutil", "save": "np"}
INTO_A_TEMPORARY = {
    "files.py": {"write_bytes", "write_folder", "remove_folder", "write_atomically", "_sweep", "save_state"},
    "results/storage.py": {"_write", "_write_background", "save_result"},
    "evaluation/stream.py": {"_link"},
    "streams.py": {"usable_streams"},  # to nowhere
    "targets/whole_layer.py": {"_stream"},
    "brain/stimuli.py": {"fill"},
    "brain/simulate.py": {"write"},
    "atlas/sparse.py": {"fill"},
    "brain/readers/trials.py": {"write"},
    "training/cifar10_ddpm.py": {"fill"},
}
"""Functions that write into what ``files`` gives them, or beside the file under its lock."""


OF_FILES = ("write_atomically", "write_bytes", "write_text", "write_folder", "save_state")
IN_NO_HARNESS = {
    ("training/map_generator.py", "_embedder_and_decoder"): "a recipe of minutes: its embedder and decoder",
    ("training/ship.py", "ship"): "a developer's command, which writes into the package",
}
"""Functions that write and that no entry of ``WRITERS`` reaches, and why."""
MEANT_TO_BE_READ = ("simulated recordings",)
"""Writers whose pictures are a data set, for users to read as images."""


def writes(node):
    """Whether a call may put something on the disk."""
    method = isinstance(node.func, ast.Attribute)
    name = node.func.attr if method else getattr(node.func, "id", "")
    if name == "open":
        words = [one.value for one in [*node.args, *(k.value for k in node.keywords)] if isinstance(one, ast.Constant)]
        return any(isinstance(word, str) and len(word) < 4 and set(word) & set("wxa+") for word in words)
    if name in OF_LIBRARIES:  # and not a method of text or of one of our classes
        return method and getattr(node.func.value, "id", "") == OF_LIBRARIES[name]
    return name in CALLS or (method and name in OF_PATHS)


def raw_writers(path):
    """(function, line) of each call that writes by itself, outside of a lambda or partial for ``files``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    given = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("write_atomically", "write_folder")
        for argument in node.args
        for inner in ast.walk(argument)
    }
    found = []

    def visit(node, function):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = node.name
        if isinstance(node, ast.Call) and id(node) not in given and writes(node):
            found.append((function, node.lineno))
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(tree, "")
    return found


def test_nothing_writes_by_itself():
    raw = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        allowed = INTO_A_TEMPORARY.get(name, set())
        raw += [f"{name}:{line} in {function}" for function, line in raw_writers(path) if function not in allowed]
    assert raw == [], "write through files.write_atomically or files.write_folder"


def test_the_walk_sees_what_it_looks_for(tmp_path):
    source = """
def wrong(path):
    path.open("w").write("x")
    path.write_text("x")
    os.replace("a", path)
    np.save(path, array)
    save_file(tensors, path)

def right(path):
    text.replace("a", "b")
    path.open("rb")
    write_text(path, "x")
    write_atomically(path, lambda temporary: save_file(tensors, temporary))
"""
    (tmp_path / "module.py").write_text(source)
    assert [function for function, _ in raw_writers(tmp_path / "module.py")] == ["wrong"] * 5


def callers():
    """(file, function) of everything outside of ``files`` that calls one of its writers."""
    found = set()

    def visit(node, name, function):
        if isinstance(node, ast.FunctionDef):
            function = node.name
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in OF_FILES:
            found.add((name, function))
        for child in ast.iter_child_nodes(node):
            visit(child, name, function)

    for path in PACKAGE.rglob("*.py"):
        if path.name != "files.py":
            visit(ast.parse(path.read_text(encoding="utf-8")), path.relative_to(PACKAGE).as_posix(), "")
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folders by the name of a writer, and who called a writer of ``files`` meanwhile."""
    reached, root = set(), tmp_path_factory.mktemp("written")

    def noting(write):
        @wraps(write)
        def noted(*arguments, **given):
            code = sys._getframe(1).f_code
            if code.co_filename.startswith(str(PACKAGE)):
                reached.add((Path(code.co_filename).relative_to(PACKAGE).as_posix(), code.co_name))
            return write(*arguments, **given)

        return noted

    with pytest.MonkeyPatch.context() as patched:
        paths = {name.removesuffix(".py").replace("/", ".") for name, _ in callers()}
        modules = [importlib.import_module(f"vislens_interp.{path}") for path in sorted(paths)]
        for module, write in itertools.product([*modules, files], OF_FILES):
            if hasattr(module, write):
                patched.setattr(module, write, noting(getattr(module, write)))
        for name, writer in WRITERS.items():
            (root / name).mkdir()
            writer.write(root / name, 0)
    return root, reached


def test_every_writer_is_in_the_harness(written):
    _, reached = written
    assert callers() - reached == set(IN_NO_HARNESS), "give tests/faults/writers.py an entry for it"


def test_folders_of_every_writer_are_not_read_as_images(written):
    """A second run must not read what the first one wrote."""
    root, _ = written
    for name in WRITERS:
        if name not in MEANT_TO_BE_READ:
            assert list_images(root / name)[0] == [], name
