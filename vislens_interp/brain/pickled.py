"""Dictionaries that others wrote with pickle, read without running anything that is in them."""

import ast
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MAGIC = b"\x93NUMPY"
PLAIN = frozenset("fiubUS")
"""Kinds of dtype whose bytes are values: floats, integers, truth values, text. Objects are lists here."""
OPCODES = 10_000_000
"""Steps that a pickle may take; the published files take some thousands, a step takes a microsecond."""
VALUES = 20_000_000
"""Values that lists within lists may unfold to: a list may hold another one twice, which holds a third one twice."""
GROWTH = 8
"""Bytes that a pickle may make of each of its own."""


class RefusedPickleError(ValueError):
    """A pickle asks for something that is neither an array nor a plain Python value."""


def read_pickled(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a dictionary of arrays and plain values from an ``.npy`` file of one object, or from a bare pickle.

    Unpickling runs whatever functions a file names. Here the names that NumPy's own pickles use stand for small
    objects of this module, which check what they are given and build arrays by ``numpy.frombuffer``; NumPy's
    ``__setstate__``, which trusts its input, is never reached. Every other name is refused before anything is called.
    Steps, bytes and the values that shared lists unfold to are bounded, so that no small file takes all memory.

    Args:
        path: The file.

    Returns:
        The dictionary; values are arrays (read-only), numbers, text, truth values, None, lists, tuples, dictionaries.

    Raises:
        FileNotFoundError: There is no such file.
        RefusedPickleError: The file asks for anything else (a ValueError).
        ValueError: It is damaged, or holds no dictionary.
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
            found, _ = _Plain().of(_Reader(file, path.stat().st_size).load())
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


_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    OverflowError,
    MemoryError,
    RecursionError,
    SyntaxError,
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

    __slots__ = ("_make", "_spend")

    def __init__(self, make: Callable[..., object], spend: Callable[[int], None]) -> None:
        self._make, self._spend = make, spend

    def __call__(self, *given: object) -> object:
        self._spend(sum(len(item) for item in given if isinstance(item, (str, bytes, bytearray))))
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
        _, order, *fields = state[:5]
        if fields != [None, None, None] or order not in ("<", ">", "|", "="):
            raise RefusedPickleError("asks for a dtype with fields")
        if order != "|" and self.dtype.kind != "O":
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array under construction."""

    __slots__ = ("value",)

    def __init__(self, *_: object) -> None:
        self.value: np.ndarray | list[object] | None = None

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _filled(data, dtype, shape, "F" if fortran else "C")


def _filled(data: object, dtype: object, shape: object, order: object) -> np.ndarray | list[object]:
    """An array of these bytes; a list, where the file holds objects."""
    if not isinstance(dtype, _Dtype):
        raise RefusedPickleError("makes an array without a dtype")
    if dtype.dtype.kind == "O":
        if not isinstance(data, list):
            raise RefusedPickleError("makes an array of objects out of bytes")
        return data
    if not isinstance(data, (bytes, bytearray)) or not isinstance(shape, (tuple, list)):
        raise RefusedPickleError(f"makes an array out of a {type(data).__name__} and a {type(shape).__name__}")
    values = np.frombuffer(memoryview(data).toreadonly(), dtype.dtype)
    return values.reshape(tuple(shape), order="F" if order == "F" else "C")


def _from_buffer(data: object, dtype: object, shape: object, order: object, *_: object) -> _Array:
    array = _Array()
    array.value = _filled(data, dtype, shape, order)
    return array


def _scalar(dtype: object, data: object) -> object:
    value = _filled(data, dtype, (), "C")
    return value.item() if isinstance(value, np.ndarray) else value


def _encoded(text: object, encoding: object = None) -> bytes:
    """What pickles of before protocol 3 use for bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedPickleError(f"asks for the encoding {encoding!r}")
    return text.encode("latin1")


_MAKERS: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encoded,
}
for _core in ("numpy.core", "numpy._core"):
    _MAKERS[f"{_core}.multiarray", "_reconstruct"] = _Array
    _MAKERS[f"{_core}.multiarray", "scalar"] = _scalar
    _MAKERS[f"{_core}.numeric", "_frombuffer"] = _from_buffer


class _File:
    """A file that is never asked for more than it holds: a length in a pickle may be anything."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.readline = file.readline

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, self._size - self._file.tell()))


class _Counted(dict[int, Callable[..., None]]):
    """Functions of the opcodes, which ends when too many were asked for."""

    steps = 0

    def __getitem__(self, opcode: int) -> Callable[..., None]:
        self.steps += 1
        if self.steps > OPCODES:
            raise RefusedPickleError(f"takes more than {OPCODES:,} steps")
        return super().__getitem__(opcode)


class _Reader(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """The reader in Python: the one in C takes memory for the largest number in the file, and hashes any key."""

    stack: list[object]
    load_setitem: Callable[..., None]
    load_setitems: Callable[..., None]

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(_File(file, size), encoding="latin1")
        self._left = GROWTH * size
        self._known = {place: _Name(make, self._spend) for place, make in _MAKERS.items()}
        self.dispatch = _Counted(pickle._Unpickler.dispatch)  # pyright: ignore[reportAttributeAccessIssue]
        self.dispatch.update(
            {
                pickle.SETITEM[0]: _Reader._set_item,
                pickle.SETITEMS[0]: _Reader._set_items,
                **{opcode[0]: _Reader._refuse_set for opcode in (pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET)},
            }
        )

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise RefusedPickleError(f"makes more than {GROWTH} times its own bytes")

    def _refuse_set(self) -> None:
        raise RefusedPickleError("holds a set")

    def _set_item(self) -> None:
        _check_keys(self.stack[-2:-1])
        self.load_setitem()

    def _set_items(self) -> None:
        _check_keys(self.stack[::2])
        self.load_setitems()

    def find_class(self, module: str, name: str) -> _Name:
        if (module, name) not in self._known:
            raise RefusedPickleError(f"asks for {module}.{name}")
        return self._known[module, name]

    def persistent_load(self, pid: object) -> object:
        raise RefusedPickleError("asks for something outside of the file")


def _check_keys(keys: list[object]) -> None:
    """Plain keys alone: the hash of tuples within tuples takes as long as they unfold."""
    for key in keys:
        if not (key is None or isinstance(key, (bool, int, float, str, bytes))):
            raise RefusedPickleError(f"has a {type(key).__name__} as a key")


class _Plain:
    """Values with finished arrays in place of those under construction; what is shared is gone through once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, int]] = {}
        self._open: set[int] = set()

    def of(self, value: object) -> tuple[object, int]:
        """The value, and how many values it unfolds to."""
        if isinstance(value, _Array):
            return self.of(value.value) if isinstance(value.value, list) else (value.value, 1)
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            return value, 1
        if not isinstance(value, (dict, list, tuple)):
            raise RefusedPickleError(f"holds a {type(value).__name__}")
        key = id(value)
        if key in self._known:
            return self._known[key]
        if key in self._open:
            raise RefusedPickleError(f"holds a {type(value).__name__} within itself")
        self._open.add(key)
        parts = [self.of(item) for item in (value.values() if isinstance(value, dict) else value)]
        items = [item for item, _ in parts]
        size = 1 + sum(count for _, count in parts)
        if size > VALUES:
            raise RefusedPickleError(f"holds lists that unfold to more than {VALUES:,} values")
        self._known[key] = (
            dict(zip(value, items, strict=True)) if isinstance(value, dict) else type(value)(items),
            size,
        )
        return self._known[key]
