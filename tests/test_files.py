import json
import os
import re
import subprocess
import sys
import threading
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from vislens_interp import files
from vislens_interp.files import (
    allocate,
    check_writable,
    clear_leftovers,
    fingerprint,
    load_state,
    load_state_if_there,
    locked,
    recover,
    remove_folder,
    save_state,
    write_atomically,
    write_folder,
    write_text,
)


def test_round_trip(tmp_path):
    weight = torch.randn(3, 4)
    state = {
        "weights": {"a.weight": weight, "view": weight[:, 1:], "tied": weight, "half": torch.ones(2).bfloat16()},
        "adam": {0: {"step": torch.tensor(3.0)}, 1: {"step": torch.tensor(4.0)}},
        "units": [17, "42", None, True, 0.5, [torch.zeros(0)]],
    }
    assert save_state(tmp_path / "new" / "state.safetensors", "landscape", state) == tmp_path / "new/state.safetensors"
    loaded = load_state(tmp_path / "new" / "state.safetensors", "landscape")
    for name, tensor in state["weights"].items():
        assert torch.equal(loaded["weights"][name], tensor)
        assert loaded["weights"][name].dtype == tensor.dtype
    assert list(loaded["adam"]) == [0, 1]
    assert loaded["adam"][1]["step"].item() == 4.0
    assert loaded["units"][:5] == [17, "42", None, True, 0.5]
    assert loaded["units"][5][0].shape == (0,)


def test_what_is_no_value_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"state\['fit.function'\] is a builtin_function_or_method; expected tensors"):
        save_state(tmp_path / "state", "landscape", {"fit": {"function": len}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_truncated_file(tmp_path, keep):
    path = save_state(tmp_path / "state", "landscape", {"weight": torch.randn(50)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="cannot be read as a safetensors file.*truncated"):
        load_state(path, "landscape")


def test_newer_version(tmp_path, monkeypatch):
    with monkeypatch.context() as later:
        later.setattr(files, "FORMAT_VERSION", files.FORMAT_VERSION + 1)
        path = save_state(tmp_path / "state", "landscape", {})
    with pytest.raises(ValueError, match="format version 2, newer than this library reads.*Upgrade"):
        load_state(path, "landscape")


def test_other_kind(tmp_path):
    path = save_state(tmp_path / "state", "checkpoint", {})
    with pytest.raises(ValueError, match="holds a checkpoint, expected a landscape"):
        load_state(path, "landscape")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_not_ours(tmp_path, metadata):
    save_file({"weight": torch.zeros(2)}, tmp_path / "state", metadata=metadata)
    with pytest.raises(ValueError, match="was not written by vislens_interp"):
        load_state(tmp_path / "state", "landscape")


def test_header_that_is_no_json(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "state", metadata={"vislens_interp": "{"})
    with pytest.raises(ValueError, match="cannot be read"):
        load_state(tmp_path / "state", "landscape")


def test_absent_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file; expected a saved landscape"):
        load_state(tmp_path / "state", "landscape")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failing_write_leaves_the_old_file_whole(tmp_path, error):
    path = write_text(tmp_path / "result.json", json.dumps({"old": True}))

    def half_write(temporary):
        temporary.write_text('{"new": tr')
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, half_write)
    assert json.loads(path.read_text()) == {"old": True}
    assert list(tmp_path.iterdir()) == [path]


def test_written_files_have_ordinary_permissions(tmp_path):
    (tmp_path / "plain").touch()
    path = write_text(tmp_path / "result.txt", "α")
    assert path.read_text(encoding="utf-8") == "α"
    state = save_state(tmp_path / "state.safetensors", "landscape", {"weight": torch.ones(1)})
    folder = write_folder(tmp_path / "folder", lambda temporary: save_file({"a": torch.ones(1)}, temporary / "a"))
    for written in (path, state, folder / "a"):  # safetensors itself makes files that only the owner reads
        assert os.stat(written).st_mode == os.stat(tmp_path / "plain").st_mode


def test_fingerprint_knows_names_shapes_types_and_values():
    weight = torch.arange(4.0)
    base = fingerprint({"a": weight, "b": torch.zeros(())})
    assert base == fingerprint({"b": torch.zeros(()), "a": weight.clone()})
    assert len(base) == 16
    others = [
        {"c": weight, "b": torch.zeros(())},
        {"a": weight.view(2, 2), "b": torch.zeros(())},
        {"a": weight.double(), "b": torch.zeros(())},
        {"a": weight + 1, "b": torch.zeros(())},
        {"a": weight},
    ]
    assert len({base, *map(fingerprint, others)}) == 6
    assert fingerprint({"a": torch.arange(6.0).view(2, 3).T}) == fingerprint(
        {"a": torch.arange(6.0).view(2, 3).T.contiguous()}
    )


def put(path, text):
    path.write_text(text)


def fill(version):
    return lambda place: [put(place / name, version) for name in ("a", "b")]


def test_a_folder_is_replaced_whole(tmp_path):
    folder = write_folder(tmp_path / "made", fill("old"))
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a": "old", "b": "old"}
    write_folder(folder, lambda place: put(place / "c", "new"))
    assert [path.name for path in folder.iterdir()] == ["c"]
    with pytest.raises(FileExistsError, match="is there already; expected a new one. Name another"):
        write_folder(folder, fill("other"), replace=False)

    def half(place):
        put(place / "a", "half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(folder, half)
    assert [path.name for path in folder.iterdir()] == ["c"]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


DEAD = f"{files._HOST}-{2**22 + 1}-0123abcd"  # above Linux's largest number of a process


@pytest.mark.parametrize("name", ["made", "m" * 200])
@pytest.mark.parametrize("whole", [True, False])
def test_an_interrupted_exchange_of_folders_is_finished(tmp_path, whole, name):
    for kind, version in (("old", "old"), *([("tmp", "new")] if whole else [])):
        place = tmp_path / f".{files._stem(tmp_path / name)}.{DEAD}.{kind}"
        place.mkdir()
        fill(version)(place)
    write_text(tmp_path / "other", "x")  # whoever comes first
    assert recover(tmp_path / name) == (len(name) > 160)
    assert (tmp_path / name / "a").read_text() == ("new" if whole else "old")
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "other"]
    assert not recover(tmp_path / name)


def test_leftovers_of_dead_writers_are_removed_and_others_stay(tmp_path):
    ours = [f".state.{DEAD}.tmp", f".out.{DEAD}.tmp"]
    others = [
        f".state.{files._HOST}-{os.getppid()}-0123abcd.tmp",
        ".state.0123456-1-0123abcd.tmp",
        ".state.x.tmp",
        ".a",
    ]
    others.append(f".state.{'0' * 6 if files._HOST != '0' * 6 else '1' * 6}-1-0123abcd.tmp")  # another machine's
    for name in (*ours, *others):
        (tmp_path / name).write_text("half")
    write_text(tmp_path / "state", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"state", *others}
    os.utime(tmp_path / others[-1], (0, 0))
    files.clear_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"state", *others[:-1]}


def test_a_probe_that_a_kill_left_goes_with_the_next_check(tmp_path):
    (tmp_path / f".part.{DEAD}.tmp").mkdir()
    check_writable(tmp_path / "new" / "part")
    assert list(tmp_path.iterdir()) == []


def test_a_kill_never_leaves_half_of_a_folder_that_is_removed(tmp_path, monkeypatch):
    fill("old")(write_folder(tmp_path / "made", lambda temporary: None))
    with monkeypatch.context() as killed:
        killed.setattr(files, "_remove", lambda path: None)
        remove_folder(tmp_path / "made")
    (left,) = tmp_path.iterdir()
    assert files._LEFTOVER.fullmatch(left.name)
    clear_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_names_that_a_temporary_name_would_make_too_long(tmp_path):
    for name in ("a" * 250, "ä" * 125, "with\nnewline", "-"):
        assert write_text(tmp_path / name, name).read_text(encoding="utf-8") == name
        with locked(tmp_path / name):
            pass
    assert len(list(tmp_path.iterdir())) == 4


def test_a_lock_is_held_once_and_leaves_nothing(tmp_path):
    order = []

    def second():
        with locked(tmp_path / "x"):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked(tmp_path / "x"):
        message = "is being written by another process; expected to write it alone"
        with pytest.raises(BlockingIOError, match=message), locked(tmp_path / "x", wait=False):
            pass
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_found_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "out", tmp_path / "file" / "a" / "b"):
        with pytest.raises(OSError, match=r"cannot be written: Not a directory. Mend that, or name another place"):
            check_writable(path)
        with pytest.raises(OSError, match=r"cannot be written: (Not a directory|File exists). Mend that, or name"):
            write_text(path, "text")
    with pytest.raises(OSError, match=r"needs 1,000,000,000,000.0 MB and .* MB are free there. Make room"):
        check_writable(tmp_path / "new" / "out", 10**18)
    assert check_writable(tmp_path / "new" / "out", 1) == tmp_path / "new" / "out"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits a process")
@pytest.mark.parametrize("write", ["write_text(path, 'x' * 10**6)", "save_state(path, 'k', {'x': torch.rand(10**6)})"])
def test_a_full_disk_is_an_os_error(tmp_path, write):
    code = f"""if True:
        import resource, signal, sys, torch
        from vislens_interp.files import save_state, write_text
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        path = sys.argv[1]
        try:
            {write}
        except OSError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True, check=True)
    assert "cannot be written: the file is too large. Make room, or name another place" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_allocated_file_has_its_size(tmp_path):
    with (tmp_path / "x").open("wb") as file:
        allocate(file, 2_000_000)
    assert (tmp_path / "x").stat().st_size == 2_000_000
    assert os.stat(tmp_path / "x").st_blocks * 512 >= 2_000_000


def write_header(path, header):
    save_file({"w": torch.zeros(2)}, path, metadata={"vislens_interp": json.dumps(header)})


STATE = {"$dict": [["w", {"$tensor": "w"}], ["n", 3]]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([], "list indices must be"),
        (3, "not subscriptable"),
        ({"kind": "lens", "state": STATE}, "KeyError: 'version'"),
        ({"kind": "lens", "version": "new", "state": STATE}, "invalid literal"),
        ({"kind": "lens", "version": 1}, "KeyError: 'state'"),
        ({"kind": "lens", "version": 1, "state": {"$tensor": "v"}}, "state is the tensor 'v', which the file does not"),
        ({"kind": "lens", "version": 1, "state": {"w": 3}}, "state is a dictionary without a list of pairs"),
        ({"kind": "lens", "version": 1, "state": {"$dict": [["w"]]}}, "without a list of pairs"),
        ({"kind": "lens", "version": 1, "state": {"$dict": [[["w"], 1]]}}, "unhashable"),
        ({"kind": "lens", "version": 1, "state": [STATE]}, "a state that is a list; expected version 1 and a dict"),
        ({"kind": "lens", "version": 0, "state": STATE}, "holds format version 0"),
    ],
)
def test_edited_headers(tmp_path, header, message):
    write_header(tmp_path / "x", header)
    with pytest.raises(ValueError, match=re.escape(message)):
        load_state(tmp_path / "x", "lens")


def test_nesting_without_an_end(tmp_path):
    deep = "[" * 50_000 + "]" * 50_000
    header = f'{{"kind": "lens", "version": 1, "state": {deep}}}'
    save_file({"w": torch.zeros(2)}, tmp_path / "x", metadata={"vislens_interp": header})
    with pytest.raises(ValueError, match="cannot be read|was not written by save_state"):
        load_state(tmp_path / "x", "lens")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_edited_files_are_read_or_refused_in_one_kind(tmp_path, data):
    """Bytes changed anywhere, and JSON values put in the place of others."""
    path = save_state(tmp_path / "x", "lens", {"w": torch.arange(3.0), "names": ["a", "b"], "n": {"k": 1}})
    if data.draw(st.booleans()):
        content = bytearray(path.read_bytes())
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
            content[place] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
    else:
        leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("w")
        values = st.recursive(
            leaves,
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["$dict", "$tensor", "kind", "state", "version", "w"]), inner, max_size=3
                )
            ),
            max_leaves=6,
        )
        header = {"kind": "lens", "version": 1, "state": data.draw(values)}
        for key in data.draw(st.lists(st.sampled_from(list(header)), max_size=2)):
            header[key] = data.draw(values)
        write_header(path, header)
    try:
        message = f"path= {type(load_state(path, 'lens')).__name__}"
    except ValueError as error:
        message = str(error)
    assert message == "path= dict" or message.startswith(f"path={str(path)!r}")


def test_a_lock_that_a_kill_left_goes_and_one_that_is_held_stays(tmp_path):
    left = tmp_path / ".gone.vislens-lock"
    left.touch()
    with locked(tmp_path / "held"):
        clear_leftovers(tmp_path)
        assert os.listdir(tmp_path) == [".held.vislens-lock"]
    (tmp_path / ".other.lock").touch()  # of another program
    clear_leftovers(tmp_path)
    assert os.listdir(tmp_path) == [".other.lock"]


@pytest.mark.parametrize("happens", ["replaced", "removed"])
def test_a_file_that_another_process_changes_while_it_is_read(tmp_path, monkeypatch, happens):
    """safetensors opens a file twice by its name; both halves have to be of one version."""
    path, opened = save_state(tmp_path / "state", "thing", {"a": torch.zeros(3)}), []

    def meanwhile(name, framework):
        opened.append(name)
        file = safe_open(name, framework=framework)
        if len(opened) == 1 and happens == "removed":
            path.unlink()
        elif len(opened) == 1:
            save_state(path, "thing", {"a": torch.ones(3)})
        return file

    monkeypatch.setattr(files, "safe_open", meanwhile)
    if happens == "replaced":
        assert torch.equal(load_state(path, "thing")["a"], torch.ones(3))
        assert len(opened) == 2
    else:
        assert load_state_if_there(path, "thing") is None
