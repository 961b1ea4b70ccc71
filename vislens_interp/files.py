"""How everything is written: to a temporary name first, then renamed; one lock, one check of the place, one header."""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from numbers import Integral, Real
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT_VERSION = 1
LONGEST_STEM = 160
"""Bytes of a file's name that its temporary name repeats; file systems take 255 in all."""
_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
_LEFTOVER = re.compile(
    r"\.(?P<stem>.+)\.(?P<mark>(?P<host>[0-9a-f]{6})-(?P<pid>\d+)-[0-9a-f]{8})\.(?P<kind>tmp|old)", re.S
)
_LOCK = ".vislens-lock"
_HASHED = re.compile("[0-9a-f]{32}")
"""A stem that stands for a longer name."""
_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up", errno.EFBIG: "the file is too large"}
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
_DAMAGE = (ArithmeticError, AttributeError, LookupError, RuntimeError, SafetensorError, TypeError, ValueError)
"""What rebuilding from a changed file raises; RecursionError is a RuntimeError."""
_STALE_SECONDS = 7 * 24 * 3600
"""Age from which a leftover is no living writer's where its process cannot be seen."""
_active: set[str] = set()
"""Marks of what this process is writing."""
_swept: set[tuple[int, Path]] = set()
"""Folders that this process has looked through for leftovers."""

_LOOK_SECONDS = 0.1
"""Between two looks at a lock that another process holds."""

PathLike = str | os.PathLike[str]


def write_atomically(path: PathLike, write: Callable[[Path], object]) -> Path:
    """Call ``write(temporary)`` and rename the result to ``path``; the old file stays whole until then.

    What an earlier call left behind because its process was killed is removed.

    Args:
        path: The file to write; its folder is made if absent.
        write: Writes one file at the path that it is given.

    Returns:
        ``path``.

    Raises:
        OSError: The disk is full or the folder cannot be written; nothing is left behind.
    """
    path = Path(path)
    with _temporary(path) as (folder, _):
        folder.mkdir()  # a writer may have temporary files of its own, as safetensors does, which a kill leaves too
        temporary = folder / "whole"
        write(temporary)
        temporary.chmod(folder.stat().st_mode & 0o666)  # safetensors lets only the owner read its files
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    return path


def write_text(path: PathLike, text: str) -> Path:
    """Write ``text`` as UTF-8, whole or not at all; what a name holds that is no UTF-8 is escaped, as JSON does."""
    return write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: PathLike, content: bytes) -> Path:
    """Write ``content``, whole or not at all."""
    return write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_folder(folder: PathLike, fill: Callable[[Path], object], *, replace: bool = True) -> Path:
    """Call ``fill(temporary)`` and put the folder that it fills in the place of ``folder``.

    An earlier folder steps aside by a rename and is removed when the new one has its name. A process that is killed
    between those two renames leaves both under hidden names; the next :func:`write_folder` or :func:`recover` beside
    them finishes the exchange.

    Args:
        folder: The folder to write; what is in it is removed, so that callers check first whose it is.
        fill: Writes files and folders below the empty folder that it is given.
        replace: Whether a folder that is there is replaced.

    Returns:
        ``folder``.

    Raises:
        OSError: The disk is full or the place cannot be written; what was there before is still there.
        FileExistsError: The folder is there, and ``replace`` is False.
    """
    folder = Path(os.path.abspath(folder))
    with _temporary(folder) as (temporary, earlier):
        temporary.mkdir()
        fill(temporary)
        for path in [*temporary.rglob("*"), temporary]:
            if path.is_file():
                path.chmod(temporary.stat().st_mode & 0o666)
            _sync(path)
        with locked(folder):
            if folder.exists():
                if not replace:
                    raise FileExistsError(f"folder={str(folder)!r} is there already; expected a new one. Name another.")
                os.rename(folder, earlier)
                try:
                    os.rename(temporary, folder)
                except BaseException:  # an interrupt too
                    os.rename(earlier, folder)
                    raise
                shutil.rmtree(earlier, ignore_errors=True)
            else:
                os.rename(temporary, folder)
            _sync(folder.parent)
    return folder


def remove_folder(folder: PathLike) -> None:
    """Remove a folder; a process that is killed meanwhile leaves it whole, or under a name that the next one clears."""
    folder = Path(os.path.abspath(folder))
    with _temporary(folder) as (temporary, _):
        os.rename(folder, temporary)


def clear_leftovers(folder: PathLike) -> None:
    """Remove what killed writers left in a folder, and finish their exchanges of folders."""
    _sweep(Path(folder), again=True)


def recover(folder: PathLike) -> bool:
    """Finish what a killed :func:`write_folder` left, and remove other leftovers of dead processes beside the folder.

    Returns:
        Whether the folder was put back.
    """
    folder = Path(os.path.abspath(folder))
    before = folder.exists()
    _sweep(folder.parent, folder.name, again=True)
    return not before and folder.exists()


@contextmanager
def locked(path: PathLike, *, wait: bool = True) -> Iterator[None]:
    """Hold ``path`` against other processes and threads; the system lets it go when a process dies.

    Args:
        path: What is shared; the lock is a hidden file beside it.
        wait: Wait for who holds it, and say so, instead of an error.

    Raises:
        BlockingIOError: ``wait`` is False and another process or thread holds it (an OSError).
        OSError: The folder cannot be written.
    """
    path = Path(os.path.abspath(path))
    lock = path.parent / f".{_stem(path)}{_LOCK}"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _acquire(lock)
        if handle is None and not wait:
            time.sleep(_LOOK_SECONDS)  # who only looks whether a lock was left behind holds it for a moment
            handle = _acquire(lock)
        if handle is None and not wait:
            raise BlockingIOError(
                errno.EAGAIN,
                f"{str(path)!r} is being written by another process; expected to write it alone. Wait for that one, or "
                "name another path",
            )
        if handle is None:
            _note(f"waiting for another process that writes {str(path)!r}")
        while handle is None:
            time.sleep(_LOOK_SECONDS)
            handle = _acquire(lock)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file
            lock.unlink()
        os.close(handle)


def _acquire(lock: Path) -> int | None:
    """A handle that holds the lock, or None where another one does."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle)
            # Who held it may have removed the file since it was opened: then nobody else opens the one that is held.
            if os.path.samestat(os.fstat(handle), os.stat(lock)):
                return handle
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                return handle  # a file system without locks
            os.close(handle)
            if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                return None
            raise
        os.close(handle)


def _lock(handle: int) -> None:
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]


def check_writable(path: PathLike, size: int = 0) -> Path:
    """Raise now what writing ``path`` would raise after long work; nothing is left behind.

    Args:
        path: The file or folder that is to be written.
        size: Bytes that it will take, as far as known.

    Returns:
        ``path``.

    Raises:
        OSError: A folder on the way is a file or cannot be written, or there are fewer bytes free.
    """
    path = Path(path)
    place = Path(os.path.abspath(path)).parent
    while not place.exists() and place != place.parent:
        place = place.parent
    with writing(path):
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
        _sweep(place, path.name)  # an earlier probe, whose process was killed between the next two lines
        probe = place / f".{_stem(path)}.{_mark()}.tmp"
        probe.mkdir()
        probe.rmdir()
    free = shutil.disk_usage(place).free
    if free < size:
        raise OSError(
            errno.ENOSPC,
            f"path={str(path)!r} needs {size / 1e6:,.1f} MB and {free / 1e6:,.1f} MB are free there. Make room, or name"
            " another place",
        )
    return path


def allocate(file: BinaryIO, size: int) -> None:
    """Make a new file ``size`` bytes long with all its blocks on the disk: a write through a map then never fails.

    Raises:
        OSError: The disk is full.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
        else:
            return
    file.seek(0)
    block = bytes(1 << 20)
    for start in range(0, size, len(block)):
        file.write(block[: size - start])
    file.flush()


def is_writing() -> bool:
    """Whether this process has a half-written file or folder, which an exception clears away and an exit would not."""
    return bool(_active)


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[Path, Path]]:
    """Names beside ``path`` for what is being written and for what steps aside; the first is gone afterwards."""
    parent = path.parent
    with writing(path):
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent, path.name)
        mark = _mark()
        temporary, earlier = (parent / f".{_stem(path)}.{mark}.{kind}" for kind in ("tmp", "old"))
        _active.add(mark)
        try:
            yield temporary, earlier
        finally:
            _remove(temporary)
            _active.discard(mark)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside, a full disk or a closed folder is an OSError that names the path, whoever met it."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise _os_error(path, int(number[1])) from error
    except OSError as error:
        ours = "cannot be written" in str(error) or not _is_near(error.filename, path)
        if ours or (error.errno not in _FULL and error.errno not in _CLOSED):
            raise
        raise _os_error(path, error.errno or 0) from error


def _is_near(culprit: str | bytes | None, path: Path) -> bool:
    """Whether an error is about the place of ``path``: below its folder, or on the way to it."""
    if culprit is None:
        return True
    place, parent = (Path(os.path.abspath(os.fsdecode(one))) for one in (culprit, path.parent))
    return place == parent or parent in place.parents or place in parent.parents


def _os_error(path: Path, number: int) -> OSError:
    reason = _FULL.get(number, os.strerror(number))
    remedy = "Make room" if number in _FULL else "Mend that"
    return OSError(number, f"path={str(path)!r} cannot be written: {reason}. {remedy}, or name another place")


def _stem(path: Path) -> str:
    name = path.name
    if len(os.fsencode(name)) <= LONGEST_STEM:
        return name
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:32]


def _mark() -> str:
    return f"{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _sweep(parent: Path, name: str | None = None, *, again: bool = False) -> None:
    """Remove what killed writers left in a folder, once a process; where they were between two renames, finish.

    Args:
        parent: The folder to look through.
        name: What is about to be written there: a stem may stand for a longer name, which only the caller knows.
        again: Also where this process has looked before.
    """
    if (os.getpid(), parent) in _swept and not again:
        return
    _swept.add((os.getpid(), parent))
    whole_names = {} if name is None else {_stem(Path(name)): name}
    with suppress(OSError):
        for entry in list(os.scandir(parent)):
            if entry.name.endswith(_LOCK):
                _remove_free(Path(entry.path))
            match = _LEFTOVER.fullmatch(entry.name)
            if match is None or match["mark"] in _active or _is_alive(entry, match["host"], int(match["pid"])):
                continue
            stem, mark = match["stem"], match["mark"]
            temporary, earlier = (parent / f".{stem}.{mark}.{kind}" for kind in ("tmp", "old"))
            if stem not in whole_names and _HASHED.fullmatch(stem) and earlier.exists():
                continue  # the writer of that folder knows its name
            folder = parent / whole_names.get(stem, stem)
            if match["kind"] == "old":
                # The earlier folder steps aside only when the new one is whole.
                for whole in (temporary, earlier):
                    with suppress(OSError):
                        if not folder.exists():
                            os.rename(whole, folder)
            elif earlier.exists() and not folder.exists():
                continue  # that entry finishes the exchange
            _remove(Path(entry.path))


def _remove_free(lock: Path) -> None:
    """Remove a lock that nobody holds: of a process that was killed with it."""
    handle = _acquire(lock)
    if handle is not None:
        with suppress(OSError):
            lock.unlink()
        os.close(handle)


def _is_alive(entry: "os.DirEntry[str]", host: str, pid: int) -> bool:
    """Whether who writes an entry may still be at work."""
    if host != _HOST or os.name == "nt":  # where asking for a process would end it
        return time.time() - entry.stat(follow_symlinks=False).st_mtime < _STALE_SECONDS
    if pid == os.getpid():
        return False  # of an earlier process of this number: ours are active
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    if path.is_dir() and os.name == "nt":
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EROFS):  # file systems that sync no folders
            raise
    finally:
        os.close(number)


def _note(text: str) -> None:
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            print(f"vislens_interp: {text}", file=sys.stderr, flush=True)


def save_state(path: str | os.PathLike[str], kind: str, state: Mapping[str, object]) -> Path:
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
        header, tensors = _read_at_once(path)
    except FileNotFoundError:
        raise
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
        raise ValueError(
            f"path={str(path)!r} cannot be read as a safetensors file ({error}); it is truncated or not a saved {kind}."
            " Save it again, or restore a copy."
        ) from error
    if header is None:
        raise ValueError(
            f"path={str(path)!r} was not written by vislens_interp (its header is absent); expected a saved {kind}."
        )
    try:
        version, found = int(header["version"]), str(header["kind"])
        state = _unflatten(header["state"], tensors, "state") if (version, found) == (FORMAT_VERSION, kind) else None
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"path={str(path)!r} has a header that was not written by save_state ({type(error).__name__}: {error});"
            f" expected a saved {kind}. Save it again, or restore a copy."
        ) from error
    if version > FORMAT_VERSION:
        raise ValueError(
            f"path={str(path)!r} has format version {version}, newer than this library reads ({FORMAT_VERSION})."
            " Upgrade vislens_interp."
        )
    if found != kind:
        raise ValueError(f"path={str(path)!r} holds a {found}, expected a {kind}.")
    if not isinstance(state, dict):
        raise ValueError(
            f"path={str(path)!r} holds format version {version} and a state that is a {type(state).__name__}; expected"
            f" version {FORMAT_VERSION} and a dictionary. Save it again, or restore a copy."
        )
    return state


def load_state_if_there(path: str | os.PathLike[str], kind: str) -> dict[str, Any] | None:
    """What :func:`load_state` reads; None without a file, also where another process removes it just then."""
    try:
        return load_state(path, kind)
    except FileNotFoundError:
        return None


def _read_at_once(path: Path) -> tuple[Any, dict[str, Tensor]]:
    """Header and tensors of one file, read again if another process replaced it meanwhile.

    safetensors opens a file twice by its name, so that one half could come from each version.
    """
    while True:
        before = _identity(path)
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get("vislens_interp", "null"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        except (RuntimeError, SafetensorError, ValueError, OSError) as error:
            if _identity(path) == before:
                raise OSError(str(error)) from error
        else:
            if _identity(path) == before:
                return header, tensors


def _identity(path: Path) -> tuple[int, int, int]:
    """What changes where a file is replaced."""
    known = path.stat()
    return known.st_ino, known.st_mtime_ns, known.st_size


@contextmanager
def rebuilding(path: PathLike, part: str) -> Iterator[None]:
    """Inside, what a changed file makes go wrong is a ValueError that names it and the part: fields, types, shapes.

    Raises:
        ValueError: Anything that rebuilding from a file raises; messages that name the file stay as they are.
    """
    try:
        yield
    except _DAMAGE as error:
        ours = isinstance(error, ValueError) and str(path) in str(error)
        if ours or isinstance(error, torch.OutOfMemoryError):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"path={str(path)!r}: {part} cannot be restored ({reason[:300]}). Restore a copy, or make it again."
        ) from error


def _flatten(value: object, name: str, tensors: dict[str, Tensor]) -> object:
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


def _unflatten(value: object, tensors: dict[str, Tensor], name: str) -> object:
    if isinstance(value, list):
        return [_unflatten(item, tensors, f"{name}[{place}]") for place, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        if value["$tensor"] not in tensors:
            raise ValueError(f"{name} is the tensor {value['$tensor']!r}, which the file does not hold")
        return tensors[value["$tensor"]]
    pairs = value.get("$dict")
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"{name} is a dictionary without a list of pairs")
    return {key: _unflatten(item, tensors, f"{name}[{key!r}]") for key, item in pairs}


def fingerprint(state: dict[str, Tensor]) -> str:
    """A short hash of a model's weights, the same on every device: names, shapes, types and values.

    Args:
        state: A ``state_dict``.

    Returns:
        Sixteen hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
