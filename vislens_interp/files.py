"""How everything is written: safetensors with a JSON header, to a temporary name first, then renamed."""

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT_VERSION = 1


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], None]) -> Path:
    """Call ``write(temporary)`` and rename the result to ``path``; the old file stays whole until then.

    Args:
        path: The file to write; its folder is made if absent.
        write: Writes one file at the path that it is given.

    Returns:
        ``path``.

    Raises:
        OSError: The disk is full or the folder cannot be written; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write ``text`` as UTF-8, whole or not at all."""
    return write_atomically(path, lambda temporary: _dump(temporary, text))


def _dump(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def save_state(path: str | os.PathLike[str], kind: str, state: dict[str, Any]) -> Path:
    """Save a nested dictionary of tensors and JSON values as one safetensors file.

    Args:
        path: The file to write.
        kind: What the file holds, checked by :func:`load_state`: ``"landscape"``, ``"checkpoint"``, ...
        state: Nested dictionaries and lists with tensors, numbers, strings, booleans and None as leaves.

    Returns:
        ``path``.
    """
    tensors: dict[str, Tensor] = {}
    layout = _flatten(state, "", tensors)
    header = {"vislens_interp": json.dumps({"kind": kind, "version": FORMAT_VERSION, "state": layout})}
    # safetensors refuses memory shared between tensors (tied weights, views), hence the clones.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=header))


def load_state(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """Read what :func:`save_state` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is truncated, was not written by this library, holds another kind, or is newer than it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path={str(path)!r}: no such file; expected a saved {kind}.")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("vislens_interp", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise ValueError(
            f"path={str(path)!r} cannot be read as a safetensors file ({error}); it is truncated or not a saved {kind}."
            " Save it again, or restore a copy."
        ) from error
    if header is None:
        raise ValueError(
            f"path={str(path)!r} was not written by vislens_interp (its header is absent); expected a saved {kind}."
        )
    if header["version"] > FORMAT_VERSION:
        raise ValueError(
            f"path={str(path)!r} has format version {header['version']}, newer than this library reads"
            f" ({FORMAT_VERSION}). Upgrade vislens_interp."
        )
    if header["kind"] != kind:
        raise ValueError(f"path={str(path)!r} holds a {header['kind']}, expected a {kind}.")
    return _unflatten(header["state"], tensors)


def _flatten(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"$tensor": name}
    if isinstance(value, dict):
        items = [[key, _flatten(item, f"{name}.{key}" if name else str(key), tensors)] for key, item in value.items()]
        return {"$dict": items}  # a list of pairs, because JSON would turn integer keys (Adam's state) into strings
    if isinstance(value, (list, tuple)):
        return [_flatten(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Integral):  # NumPy's numbers among them
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"state[{name!r}] is a {type(value).__name__}; expected tensors and JSON values.")


def _unflatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if "$tensor" in value:
            return tensors[value["$tensor"]]
        return {key: _unflatten(item, tensors) for key, item in value["$dict"]}
    if isinstance(value, list):
        return [_unflatten(item, tensors) for item in value]
    return value


def fingerprint(state: dict[str, Tensor]) -> str:
    """A short hash of a model's weights, the same on every device: names, shapes, types and values.

    Args:
        state: A ``state_dict``.

    Returns:
        Sixteen hexadecimal digits.
    """
    import hashlib

    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def write_folder(folder: str | os.PathLike[str], fill: Callable[[Path], Any]) -> Path:
    """Call ``fill(temporary)`` and put the folder that it fills in the place of ``folder``, whole or not at all.

    Raises:
        OSError: The disk is full or the place cannot be written; what was there before is still there.
    """
    folder = Path(os.path.abspath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    recover(folder)
    mark = os.urandom(4).hex()
    temporary, earlier = (folder.with_name(f".{folder.name}.{mark}.{end}") for end in ("tmp", "old"))
    temporary.mkdir()  # not tempfile: its folders can be read by their owner alone
    lock = _lock(temporary)
    try:
        fill(temporary)
        if folder.exists():
            os.rename(folder, earlier)
            try:
                os.rename(temporary, folder)
            except BaseException:  # an interrupt too
                os.rename(earlier, folder)
                raise
            shutil.rmtree(earlier, ignore_errors=True)
        else:
            os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if lock is not None:
            os.close(lock)
    return folder


def recover(folder: str | os.PathLike[str]) -> bool:
    """Finish what a killed :func:`write_folder` left and remove its leftovers; whether the folder was put back."""
    folder = Path(os.path.abspath(folder))
    before = folder.exists()
    for end in ("old", "tmp"):
        for left in folder.parent.glob(f".{glob.escape(folder.name)}.????????.{end}"):
            new = left.with_suffix(".tmp")  # whole, where the earlier folder has stepped aside
            lock = _lock(new if new.exists() else left)
            if lock is not None:
                if end == "old" and not folder.exists():
                    os.rename(new if new.exists() else left, folder)
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)
    return not before and folder.exists()


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Raise now the OSError that writing ``path`` would raise after long work; nothing is left behind."""
    path = Path(path)
    place = Path(os.path.abspath(path)).parent
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=place):
            return path
    except OSError as error:
        raise type(error)(
            error.errno, f"path={str(path)!r} cannot be written: {error.strerror}; name another"
        ) from error


def _lock(folder: Path) -> int | None:
    """A lock on a folder, which ends with the process; None where another holds it, or there are no such locks."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):  # Windows
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle
