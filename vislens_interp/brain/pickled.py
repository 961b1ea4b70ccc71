"""Dictionaries that others wrote with pickle, read without running anything that is in them."""

import ast
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

import numpy as np

MAGIC = b"\x93NUMPY"
PLAIN = frozenset("fiubUS")
"""Kinds of dtype whose bytes are values: floats, integers, truth values, text. Objects are lists here."""


class RefusedPickleError(ValueError):
    """A pickle asks for something that is neither an array nor a plain Python value."""


def read_pickled(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a dictionary of arrays and plain values from an ``.npy`` file of one object, or from a bare pickle.

    Unpickling runs whatever functions a file names. Here the names that NumPy's own pickles use stand for small
    objects of this module, which check what they are given and build read-only arrays by ``numpy.frombuffer``; NumPy's
    ``__setstate__``, which trusts its input, is never reached. Every other name is refused before anything is called.

    Raises:
        FileNotFoundError, ValueError: There is no such file; it is damaged, or holds no dictionary.
        RefusedPickleError: The file asks for anything else (a ValueError).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path={str(path)!r}: no such file; expected a pickled dictionary.")
    with path.open("rb") as file:
        try:
            if file.read(len(MAGIC)) == MAGIC:
                _skip_header(file, path)
            else:
                file.seek(0)
            found = _plain(_Reader(file).load())
        except RefusedPickleError as error:
            raise RefusedPickleError(
                f"path={str(path)!r} {error}; expected NumPy arrays and plain Python values alone. Nothing in it was "
                "run. Do not open it with numpy.load(allow_pickle=True); get the file again from where it was "
                "published."
            ) from error
        except _DAMAGE as error:
            raise ValueError(
                f"path={str(path)!r} cannot be read ({type(error).__name__}: {error}); expected a whole pickled "
                "dictionary. Get the file again from where it was published."
            ) from error
    # numpy.save wraps a dictionary into an array of one object.
    while isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, dict):
        raise ValueError(f"path={str(path)!r} holds a {type(found).__name__}; expected a dictionary.")
    return found


_DAMAGE = (  # what unpickling and building arrays raise
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError, OverflowError),
    *(MemoryError, RecursionError, SyntaxError),
)


def _skip_header(file: BinaryIO, path: Path) -> None:
    """Move past an ``.npy`` header that announces objects."""
    major = file.read(2)[0]
    length = int.from_bytes(file.read(2 if major == 1 else 4), "little")
    header = ast.literal_eval(file.read(min(length, 10_000)).decode("latin1"))
    if header["descr"] != "|O":
        raise ValueError(f"an array of {header['descr']}, {header['shape']}, in place of a dictionary")


class _Name:
    """What a name in the file stands for: callable, and closed to everything else that a pickle can do to it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., object]) -> None:
        self._make = make

    def __call__(self, *given: object) -> object:
        return self._make(*given)

    def __setstate__(self, state: object) -> None:
        raise RefusedPickleError("sets the state of a function")


class _Dtype:
    """A dtype under construction."""

    __slots__ = ("dtype",)

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not code or code[0] not in PLAIN | {"O"} or not code[1:].isdigit():
            raise RefusedPickleError(f"asks for the dtype {code!r}")
        self.dtype = np.dtype("O") if code[0] == "O" else np.dtype(code)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _, order, subarray, names, fields = state[:5]
        if (subarray, names, fields) != (None, None, None) or order not in ("<", ">", "|", "="):
            raise RefusedPickleError("asks for a dtype with fields")
        if order != "|" and self.dtype.kind != "O":
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array under construction."""

    __slots__ = ("value",)

    def __init__(self, *_: object) -> None:
        self.value: np.ndarray | list[object] = []

    def __setstate__(self, state: tuple[object, tuple[int, ...], object, object, object]) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _filled(shape, dtype, "F" if fortran else "C", data)

    @classmethod
    def from_buffer(cls, data: object, dtype: object, shape: tuple[int, ...], order: object, *_: object) -> Self:
        array = cls()
        array.value = _filled(shape, dtype, "F" if order == "F" else "C", data)
        return array


def _filled(shape: tuple[int, ...], dtype: object, order: Literal["C", "F"], data: object) -> np.ndarray | list[object]:
    """An array of these bytes; a list, where the file holds objects."""
    if not isinstance(dtype, _Dtype):
        raise RefusedPickleError("makes an array without a dtype")
    if dtype.dtype.kind == "O":
        if not isinstance(data, list):
            raise RefusedPickleError("makes an array of objects out of bytes")
        return data
    if not isinstance(data, (bytes, bytearray)):
        raise RefusedPickleError(f"makes an array out of a {type(data).__name__}")
    return np.frombuffer(bytes(data), dtype.dtype).reshape(tuple(shape), order=order)


def _scalar(dtype: object, data: object) -> object:
    array = _filled((), dtype, "C", data)
    if not isinstance(array, np.ndarray):
        raise RefusedPickleError("makes a number out of objects")
    return array.item()


def _encoded(text: object, encoding: object = None) -> bytes:
    """What pickles of before protocol 3 use for bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedPickleError(f"asks for the encoding {encoding!r}")
    return text.encode("latin1")


_MAKERS: dict[str, Callable[..., object]] = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _encoded,
    **{
        f"numpy.{core}.{name}": maker
        for core in ("core", "_core")
        for name, maker in (
            ("multiarray._reconstruct", _Array),
            ("multiarray.scalar", _scalar),
            ("numeric._frombuffer", _Array.from_buffer),
        )
    },
}
"""The names that NumPy's own pickles use."""


class _Reader(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")
        self._known = {name: _Name(maker) for name, maker in _MAKERS.items()}

    def find_class(self, module: str, name: str) -> _Name:
        if f"{module}.{name}" not in self._known:
            raise RefusedPickleError(f"asks for {module}.{name}")
        return self._known[f"{module}.{name}"]

    def persistent_load(self, pid: object) -> object:
        raise RefusedPickleError("asks for something outside of the file")


def _plain(value: object) -> object:
    """The value with finished arrays in place of those under construction."""
    if isinstance(value, _Array):
        return _plain(value.value) if isinstance(value.value, list) else value.value
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return value
    raise RefusedPickleError(f"holds a {type(value).__name__}")
