"""Everything that writes goes through ``files``: read from the source, so that a new writer cannot be forgotten."""

import ast
from pathlib import Path

import vislens_interp

PACKAGE = Path(vislens_interp.__file__).parent
CALLS = {"save_file", "save_pretrained", "savefig", "savez", "copyfile", "copy2", "makedirs"}
OF_PATHS = {"write_text", "write_bytes"}
"""As methods; the functions of this name are those of ``files``."""
OF_LIBRARIES = {"replace": "os", "rename": "os", "renames": "os", "move": "shutil", "save": "np"}
INTO_A_TEMPORARY = {
    "files.py": {"write_bytes", "write_folder", "write_atomically", "_sweep", "save_state"},
    "results/storage.py": {"_write", "_write_background", "save_result"},
    "evaluation/stream.py": {"_link"},
    "streams.py": {"usable_streams"},  # to nowhere
    "targets/whole_layer.py": {"_stream"},
    "brain/stimuli.py": {"fill"},
    "brain/simulate.py": {"write"},
    "training/cifar10_ddpm.py": {"fill"},
}
"""Functions that write into what ``files`` gives them, or beside the file under its lock."""


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
