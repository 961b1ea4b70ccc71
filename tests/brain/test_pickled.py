"""A hostile file in place of a published one runs nothing, whatever it tries."""

import io
import os
import pathlib
import pickle
import struct
import subprocess
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vislens_interp.brain.pickled import RefusedPickleError, read_pickled

PLAIN = {
    "preprocessed_eeg_data": np.random.default_rng(0).standard_normal((3, 2, 4, 5)),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "swapped": np.arange(3, dtype=">i4"),
    "single": np.arange(3, dtype=np.float32),
    "truth": np.array([True, False]),
    "text": np.array(["Oz", "PO7"]),
    "objects": np.array(["Pz", "P3"], dtype=object),
    "ch_names": ["Pz", "P3"],
    "scalar": np.float64(2.5),
    "nested": {0: "Unknown", 1: ("a", None, 1.5)},
}


def npy(value):
    buffer = io.BytesIO()
    np.save(buffer, np.array(value, dtype=object), allow_pickle=True)
    return buffer.getvalue()


def npy_of(pickled):
    """An ``.npy`` file of one object whose pickle is this."""
    whole = npy({})
    return whole[: whole.index(b"\n") + 1] + pickled


def write(tmp_path, content):
    path = tmp_path / "preprocessed_eeg_training.npy"
    path.write_bytes(content)
    return path


def same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, np.ndarray) and value.dtype != object:
            assert found[key].dtype == value.dtype
            assert np.array_equal(found[key], value)
        else:
            assert found[key] == (value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_numpy_writes_is_read(tmp_path, protocol):
    same(read_pickled(write(tmp_path, pickle.dumps(PLAIN, protocol))), PLAIN)
    same(read_pickled(write(tmp_path, npy_of(pickle.dumps(np.array(PLAIN, dtype=object), protocol)))), PLAIN)


def test_what_numpy_1_wrote_is_read(tmp_path):
    """The published files were written when NumPy's names had no underscore."""
    content = pickle.dumps(PLAIN, 3).replace(b"numpy._core.", b"numpy.core.")
    assert b"numpy.core.multiarray" in content
    same(read_pickled(write(tmp_path, content)), PLAIN)
    same(read_pickled(write(tmp_path, npy(PLAIN))), PLAIN)


class Calls:
    """Calls ``function(*given)`` when it is unpickled."""

    def __init__(self, function, *given):
        self.what = function, given

    def __reduce__(self):
        return self.what


def text_global(module, name, argument):
    """By the opcodes of protocol 0: call ``module.name(argument)``."""
    return f"c{module}\n{name}\n(V{argument}\ntR.".encode()


def dotted(module, name):
    """By protocol 4's STACK_GLOBAL, which follows dots into attributes."""
    names = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name))
    return b"\x80\x04" + names + b"\x93."


def attacks(marker):
    touch = f"open({str(marker)!r}, 'w').close()"
    shell = f"touch {marker}"
    return {
        "os.system": pickle.dumps(Calls(os.system, shell)),
        "subprocess": pickle.dumps(Calls(subprocess.check_call, ["touch", str(marker)])),
        "eval": pickle.dumps({"times": [Calls(eval, touch)]}),
        "exec in text": text_global("builtins", "exec", touch),
        "python 2's exec": text_global("__builtin__", "eval", touch),
        "open": pickle.dumps(Calls(open, str(marker), "w")),
        "getattr": text_global("builtins", "getattr", "x"),
        "import": text_global("builtins", "__import__", "os"),
        "a path": pickle.dumps(pathlib.PurePosixPath("x")),
        "inst": b"(V" + touch.encode() + b"\nibuiltins\nexec\n.",
        "obj": b"(cbuiltins\nexec\nV" + touch.encode() + b"\no.",
        "newobj": b"\x80\x02cbuiltins\nbytearray\n(K\x08t\x81.",
        "numpy runs text": text_global("numpy.testing._private.utils", "runstring", touch),
        "numpy writes": text_global("numpy", "savetxt", str(marker)),
        "numpy loads": text_global("numpy", "load", str(marker)),
        "numpy memory": text_global("numpy", "memmap", str(marker)),
        "numpy from file": text_global("numpy._core.multiarray", "fromfile", str(marker)),
        "numpy frompyfunc": text_global("numpy", "frompyfunc", "x"),
        "numpy's os": dotted("numpy.lib._npyio_impl", "os.system"),
        "dots below a known name": dotted("numpy", "ndarray.tofile"),
        "dots to globals": dotted("numpy._core.multiarray", "_reconstruct.__globals__"),
        "this module's own names": dotted("vislens_interp.brain.pickled", "os.system"),
        "copyreg": text_global("copyreg", "_reconstructor", "x"),
        "partial": text_global("functools", "partial", "x"),
        "torch": text_global("torch.serialization", "load", str(marker)),
        "persistent id": b"Vsomewhere\nQ.",
        "state of a function": b"c_codecs\nencode\n}V__call__\nVx\nsb.",
        "codec": b"c_codecs\nencode\n(Vx\nVidna\ntR.",
        "codec of bytes": b"c_codecs\nencode\n(C\x01aVzlib_codec\ntR.",
    }


@pytest.mark.parametrize("name", attacks("marker"))
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "npy"])
def test_attacks_run_nothing(tmp_path, name, wrapped):
    marker = tmp_path / "marker"
    content = attacks(marker)[name]
    path = write(tmp_path, npy_of(content) if wrapped else content)
    with pytest.raises(RefusedPickleError, match="Nothing in it was run"):
        read_pickled(path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["os.system", "subprocess", "eval", "exec in text", "open", "inst", "obj"])
def test_the_attacks_are_real(tmp_path, name):
    """The same bytes do run when they are unpickled, so that the test above cannot pass by accident."""
    marker = tmp_path / "marker"
    content = attacks(marker)[name]
    found = pickle.loads(content)
    if hasattr(found, "close"):
        found.close()
    assert marker.exists()


def with_state(code, dtype_state, data):
    """``_reconstruct(ndarray, (0,), b"b")`` whose state names a tampered dtype."""
    push = lambda value: pickle.dumps(value, 3)[2:-1]  # noqa: E731
    dtype = b"cnumpy\ndtype\n" + push((code, False, True)) + b"R" + push(dtype_state) + b"b"
    start = b"\x80\x03cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + push((0,)) + push(b"b") + b"tR"
    return start + b"(K\x01" + push((1,)) + dtype + b"\x89" + push(data) + b"tb."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # Bytes taken for pointers to objects: numpy.ndarray.__setstate__ trusts the flags of a dtype that it is given.
        (with_state("O8", (3, "|", None, None, None, -1, -1, 0), struct.pack("<Q", 0xDEAD)), "array of objects out of"),
        (with_state("V8", (3, "|", None, ("a",), {"a": ("O8", 0)}, 8, 1, 0), b"\0" * 8), "asks for the dtype 'V8'"),
        (with_state("f8", (3, "<", ("f8", (3,)), None, None, 24, 8, 0), b"\0" * 24), "asks for a dtype with fields"),
        (with_state("f8", (3, "<", None, ("a",), {"a": 1}, 8, 8, 0), b"\0" * 8), "asks for a dtype with fields"),
        (with_state("f8,O", (3, "<", None, None, None, -1, -1, 0), b"\0" * 8), "asks for the dtype 'f8,O'"),
        (with_state("f8", (3, "<", None, None, None, -1, -1, 0), [1.0]), "makes an array out of a list"),
    ],
)
def test_tampered_arrays(tmp_path, content, message):
    with pytest.raises(RefusedPickleError, match=message):
        read_pickled(write(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle at all",
        npy(PLAIN)[:-300],
        b"\x93NUMPY\x01\x00v\x00{'descr'",
        with_state("f8", (3, "<", None, None, None, -1, -1, 0), b"\0" * 12),
        with_state("f8", None, b"\0" * 8),
        b"\x80\x04]\x94h\x00a.",  # a list within itself
        b"\x80\x03cnumpy\ndtype\n)\x81.",
    ],
)
def test_damage(tmp_path, content):
    with pytest.raises(ValueError, match="cannot be read|expected NumPy arrays"):
        read_pickled(write(tmp_path, content))


def test_other_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file; expected a pickled dictionary"):
        read_pickled(tmp_path / "none.npy")
    with pytest.raises(ValueError, match="holds a str; expected a dictionary"):
        read_pickled(write(tmp_path, pickle.dumps("text")))
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    with pytest.raises(ValueError, match=r"an array of <f8, \(3,\), in place of a dictionary"):
        read_pickled(write(tmp_path, buffer.getvalue()))
    with pytest.raises(RefusedPickleError, match="holds a set"):
        read_pickled(write(tmp_path, pickle.dumps({"a": {1, 2}})))


def nested(levels, make):
    """Each level holds the one below twice: a file of some bytes, 2 ** levels values."""
    value = make()
    for _ in range(levels):
        value = make(value, value)
    return value


def listed(*items):
    return list(items)


def tupled(*items):
    return items


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("make", [listed, tupled])
def test_lists_that_unfold_without_an_end(tmp_path, protocol, make):
    path = write(tmp_path, pickle.dumps({"a": nested(40, make)}, protocol))
    start = time.process_time()
    with pytest.raises(RefusedPickleError, match="holds lists that unfold to more than 20,000,000 values"):
        read_pickled(path)
    assert time.process_time() - start < 2
    few = {"a": nested(10, make)}
    same(read_pickled(write(tmp_path, pickle.dumps(few, protocol))), few)


def text_of_bytes(count, calls):
    """One text, made into bytes again and again."""
    text = b"V" + b"x" * count + b"\n"
    make = b"c_codecs\nencode\n(h\x00Vlatin1\ntR"
    return b"\x80\x02}Va\n]" + text + b"q\x00" + b"0" + b"(" + make * calls + b"es."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02}" + pickle.dumps(nested(40, tupled), 2)[2:-1] + b"K\x01s.", "has a tuple as a key"),
        (b"\x80\x02}(" + pickle.dumps(nested(40, tupled), 2)[2:-1] + b"K\x01u.", "has a tuple as a key"),
        (b"\x80\x04\x8f(" + pickle.dumps(nested(40, tupled), 2)[2:-1] + b"\x90.", "holds a set"),
        (b"\x80\x04(" + pickle.dumps(nested(40, tupled), 2)[2:-1] + b"\x91.", "holds a set"),
        (b"\x80\x02]q\x00h\x00a.", "holds a list within itself"),
        (text_of_bytes(10_000, 1000), "makes more than 8 times its own bytes"),
        (b"\x80\x02]r\xff\xff\xff\xff.", "holds a list; expected a dictionary"),  # a memo of four billion places
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc.", "cannot be read"),  # bytes without an end
        (b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f].", "holds a list; expected a dictionary"),  # a frame without an end
        (b"\x80\x02\x8b\xff\xff\xff\x7fabc.", "cannot be read"),  # a number of two billion bytes
    ],
)
def test_small_files_that_ask_for_all_memory(tmp_path, content, message):
    start = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            read_pickled(write(tmp_path, content))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 2


def test_too_many_steps(tmp_path, monkeypatch):
    monkeypatch.setattr("vislens_interp.brain.pickled.OPCODES", 1000)
    with pytest.raises(RefusedPickleError, match="takes more than 1,000 steps"):
        read_pickled(write(tmp_path, pickle.dumps({"a": list(range(2000))})))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_are_read_or_refused(tmp_path, data):
    content = bytearray(pickle.dumps(PLAIN, data.draw(st.integers(0, pickle.HIGHEST_PROTOCOL))))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=5)):
        content[place] = data.draw(st.integers(0, 255))
    try:
        kind = type(read_pickled(write(tmp_path, bytes(content))))
    except ValueError:  # a RefusedPickleError is one
        kind = dict
    assert kind is dict
