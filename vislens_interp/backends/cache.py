"""Embeddings and responses of many images, computed once and kept on disk."""

import contextlib
import hashlib
import os
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vislens_interp.files import clear_leftovers, fingerprint, write_atomically
from vislens_interp.images import SUFFIXES, check_images, list_images, load_images, resize
from vislens_interp.progress import tqdm

Compute = Callable[[Tensor], Tensor]

KEY_BYTES = 16
CHECK_BYTES = 8
_KEY = np.dtype([("high", ">u8"), ("low", ">u8")])
_LEFTOVER_SECONDS = 24 * 3600
"""Age from which a temporary file is no living writer's."""


def weights_fingerprint(model: nn.Module, **settings: object) -> str:
    """A short hash of what decides a model's outputs: its weights, and settings that are not among them.

    Args:
        model: The network.
        settings: Anything else that matters and prints the same each time: image size, preprocessing, layer, unit.

    Returns:
        Sixteen hexadecimal digits.
    """
    said = _fingerprint(model) + repr(sorted(settings.items()))
    return hashlib.sha256(said.encode()).hexdigest()[:16]


_fingerprints: WeakKeyDictionary[nn.Module, tuple[str, str]] = WeakKeyDictionary()
"""What was seen of a model's weights, and their fingerprint."""


def _fingerprint(model: nn.Module) -> str:
    """The fingerprint of all weights; not computed again where versions and a sample of them have not changed."""
    state = model.state_dict(keep_vars=True)
    samples = [tensor.detach().flatten()[:: max(1, tensor.numel() // 16)].double().cpu() for tensor in state.values()]
    versions = [(name, 0 if tensor.is_inference() else tensor._version) for name, tensor in state.items()]
    seen = hashlib.sha256(torch.cat(samples).numpy().tobytes() if samples else b"").hexdigest() + repr(versions)
    if (known := _fingerprints.get(model)) is None or known[0] != seen:
        _fingerprints[model] = known = (seen, fingerprint(model.state_dict()))
    return known[1]


@dataclass(frozen=True, eq=False)
class _File:
    """One file of :class:`Shards`: n keys, rows and hashes, and which rows are as they were written."""

    path: Path
    keys: Tensor
    values: Tensor
    checks: Tensor
    whole: np.ndarray


class Shards:
    """Rows under 128-bit keys, in files that are written once, whole, and never changed.

    Any number of processes may read and write one folder at a time, without locks: each writes files of its own, under
    a temporary name that is then changed, so that a file is there whole or not at all. Two writers may both store a row
    that neither had; as a key says what it was computed from, the two are the same, and one is read. A process that is
    killed loses what it had not flushed yet. Each row has a hash of its content and key beside it.

    Args:
        folder: Where the files are; made if absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        clear_leftovers(folder)
        for path in folder.glob(".*.tmp"):  # of 0.1.0, whose names do not say who wrote them
            with contextlib.suppress(FileNotFoundError):  # another writer has given it its name
                if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                    path.unlink()
        self._files: list[_File] = []
        self._seen: set[str] = set()
        # Sorted keys and where their rows are, in parts of which each is at least twice as long as the next: a new file
        # is merged with what is about as long, so that n files cost n log n and not n times all keys.
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        self.refresh()

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of a row, the same in every file."""
        return tuple(self._files[0].values.shape[1:])

    def __len__(self) -> int:
        if len(self._parts) > 1:
            self._parts = [_merged(self._parts)]
        return len(self._parts[0][0]) if self._parts else 0

    def refresh(self) -> None:
        """Take in files that others have written since."""
        for name in sorted(entry.name for entry in os.scandir(self.folder) if entry.name.endswith(".safetensors")):
            if name not in self._seen and not name.startswith("."):
                self._take_in(self.folder / name)

    def _take_in(self, path: Path) -> None:
        self._seen.add(path.name)
        try:
            with safe_open(path, framework="pt") as file:
                # Views of the mapped file: rows are read from the disk where they are asked for.
                keys, values, checks = (file.get_tensor(name) for name in ("keys", "values", "checks"))
            self._check_shapes(keys, values, checks)
        except (SafetensorError, OSError, ValueError) as error:
            self._say_damaged(path, error)
            return
        self._files.append(_File(path, keys, values, checks, np.ones(len(keys), bool)))
        self._parts.append(_merged([self._index(len(self._files) - 1)]))
        while len(self._parts) > 1 and len(self._parts[-2][0]) < 2 * len(self._parts[-1][0]):
            self._parts[-2:] = [_merged(self._parts[-2:])]

    def _check_shapes(self, keys: Tensor, values: Tensor, checks: Tensor) -> None:
        wanted = [(len(values), KEY_BYTES), (len(values), CHECK_BYTES)] if values.ndim > 0 else []
        if [tuple(keys.shape), tuple(checks.shape)] != wanted or {keys.dtype, checks.dtype} != {torch.uint8}:
            raise ValueError(f"keys {tuple(keys.shape)} and checks {tuple(checks.shape)} do not go with its rows")
        known = self._files[0].values if self._files else values
        if values.shape[1:] != known.shape[1:] or values.dtype != known.dtype:
            raise ValueError(f"rows are {tuple(values.shape[1:])}, {values.dtype}, and those of other files are not")

    @staticmethod
    def _say_damaged(path: Path, error: object) -> None:
        warnings.warn(f"{path} cannot be read ({error}); its rows will be computed again. Delete it.", stacklevel=4)

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        """Where rows are, (n, 2): the number of the file and the row in it; -1 where there is none."""
        wanted = np.frombuffer(b"".join(keys), _KEY)
        place = np.full((len(wanted), 2), -1, np.int64)
        for known, places in self._parts:
            if len(known) and len(wanted):
                at = np.searchsorted(known, wanted).clip(max=len(known) - 1)
                there = (known[at] == wanted) & (place[:, 0] < 0)
                place[there] = places[at[there]]
        return place

    def find_whole(self, keys: Sequence[bytes]) -> np.ndarray:
        """As :meth:`find`, of rows that are as they were written; others are left out from now on, with a warning."""
        while True:
            place = self.find(keys)
            known = np.flatnonzero(place[:, 0] >= 0)
            if not len(known):
                return place
            found = _hashes([keys[row] for row in known.tolist()], self.read(place[known]))
            written = _gathered([file.checks for file in self._files], place[known])
            damaged = place[known][(found != written).any(1).numpy()].tolist()
            if not damaged:
                return place
            for number in sorted({shard for shard, _ in damaged}):
                self._say_damaged(self._files[number].path, "a row is not what was written")
            for shard, row in damaged:
                self._files[shard].whole[row] = False
            # All of them anew: another file may hold the same key.
            self._parts = [_merged([self._index(number) for number in range(len(self._files))])]

    def _index(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys of a file's rows that are whole, and where these are."""
        file = self._files[number]
        rows = np.flatnonzero(file.whole)
        return file.keys.numpy().view(_KEY)[rows, 0], np.stack([np.full(len(rows), number), rows], 1)

    def read(self, place: np.ndarray) -> Tensor:
        """The rows at these places, in their order: (n, ...), copied from the files."""
        return _gathered([file.values for file in self._files], place)

    def write(self, keys: Sequence[bytes], values: Tensor) -> None:
        """Store rows, in one file."""
        packed = torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).reshape(len(keys), KEY_BYTES)
        values = values.detach().cpu().contiguous()
        tensors = {"keys": packed, "values": values, "checks": _hashes(keys, values)}
        path = self.folder / f"{uuid.uuid4().hex}.safetensors"
        write_atomically(path, lambda temporary: save_file(tensors, temporary))
        self._take_in(path)


def _merged(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Keys of several parts, sorted and each once, and where their rows are."""
    keys, places = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((keys["low"], keys["high"]))
    keys, places = keys[order], places[order]
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    return keys[first], places[first]


def _gathered(parts: Sequence[Tensor], place: np.ndarray) -> Tensor:
    """Rows of several tensors, at (number of the tensor, row in it), (n, 2)."""
    first = parts[place[0, 0]]
    rows = torch.empty(len(place), *first.shape[1:], dtype=first.dtype)
    for number in np.unique(place[:, 0]).tolist():
        here = np.flatnonzero(place[:, 0] == number)
        rows[torch.from_numpy(here)] = parts[number][torch.from_numpy(place[here, 1])]
    return rows


def _hashes(keys: Sequence[bytes], values: Tensor) -> Tensor:
    """A hash of each row and its key, which tells a row that was changed or swapped with another: (n, CHECK_BYTES)."""
    rows = values.contiguous().reshape(len(values), -1).view(torch.uint8).numpy()
    hashes = b"".join(
        hashlib.blake2b(row.tobytes(), digest_size=CHECK_BYTES, key=key).digest()
        for key, row in zip(keys, rows, strict=True)
    )
    return torch.frombuffer(bytearray(hashes), dtype=torch.uint8).reshape(len(keys), CHECK_BYTES)


class CachedRows:
    """One row an image, on disk: read by index, or all at once.

    Attributes:
        names: A name for each image.
        shape: Shape of one row.

    >>> import tempfile
    >>> rows = RowCache(tempfile.mkdtemp(), "means", "no weights").rows(
    ...     torch.rand(5, 3, 8, 8), lambda images: images.mean((2, 3))
    ... )
    >>> len(rows), rows.shape, rows[2:4].shape
    (5, (3,), torch.Size([2, 3]))
    """

    def __init__(self, shards: Shards, place: np.ndarray, names: list[str]) -> None:
        self._shards, self._place, self.names = shards, place, names
        self.shape = shards.row_shape

    def __len__(self) -> int:
        return len(self._place)

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> Tensor:
        """Some rows, (n, *shape), by slice, positions or a mask."""
        picked = self._place[rows if isinstance(rows, slice) else torch.as_tensor(rows, device="cpu").numpy()]
        if picked.ndim != 2:
            raise TypeError(f"rows={rows!r} is one position; expected a slice or several, such as [{rows}].")
        return self._shards.read(picked) if len(picked) else self._shards.read(self._place[:1])[:0]

    def tensor(self) -> Tensor:
        """All rows in memory, (N, *shape)."""
        return self[:]


class RowCache:
    """What is computed from images, one row each: every image once, whatever folder or tensor it comes in.

    A row is found by a hash of the image's content (a file's bytes, a tensor's pixels) in a folder named by a hash of
    what computes it, so that renamed, moved, repeated and added images cost nothing, and other weights never meet
    these rows. A file whose path, size and modification time are known is not read again.

    ImageNet's 1.28 M images take 5.2 GB of disk for 1,024 float32 values an image (2.6 GB if ``compute`` gives
    float16), 31 MB of keys and hashes, about 65 MB of memory for the index, and some seconds to check; rows stay on
    disk until they are asked for. Written every 4,096 rows that is 313 files; every minute of a slow computation, more.
    Reading 140 GB of JPEGs once for their hashes takes what the disk takes (12 minutes at 200 MB/s); a second run looks
    at names and times alone.

    Args:
        folder: Where caches are kept; several share one.
        name: What the rows are, such as ``"embeddings"``.
        fingerprint: Hash of what computes them, see :func:`weights_fingerprint`.
        rows_per_file: Rows that are gathered before they are written.
        seconds_per_file: Seconds after which they are written anyway: what a kill can cost.

    Raises:
        ValueError: ``name`` or ``fingerprint`` cannot name a folder.
    """

    def __init__(
        self,
        folder: str | Path,
        name: str,
        fingerprint: str,
        *,
        rows_per_file: int = 4096,
        seconds_per_file: float = 60.0,
    ) -> None:
        for argument, value in (("name", name), ("fingerprint", fingerprint)):
            if not value or value.startswith(".") or "/" in value or "\\" in value:
                raise ValueError(
                    f"{argument}={value!r} cannot name a folder; expected letters, digits, '-', '_', such as "
                    "name='embeddings' and weights_fingerprint(model)."
                )
        self.rows_per_file, self.seconds_per_file = rows_per_file, seconds_per_file
        self.shards = Shards(Path(folder) / f"{name}-{fingerprint}")
        self.contents = Shards(Path(folder) / "file-contents")
        self._stamped: dict[bytes, bytes] = {}
        """Paths, sizes and times to contents, of files that were read since the last flush."""

    def rows(
        self,
        source: Tensor | str | Path | Sequence[str | Path],
        compute: Compute,
        *,
        size: int | None = None,
        batch_size: int = 64,
        on_error: Literal["raise", "skip"] = "raise",
        progress: bool = False,
    ) -> CachedRows:
        """The rows of a set of images; what is not there yet is computed and stored.

        Args:
            source: (N, 3, H, W) in [0, 1], a folder (read recursively, in sorted order), or paths of files.
            compute: Images (n, 3, size, size) to rows (n, ...), such as ``backend.encode`` or ``target.responses``.
            size: Pixels of the square that ``compute`` takes; None leaves images as they are. It has to be part of the
                fingerprint.
            batch_size: Images a call of ``compute``.
            on_error: ``"skip"`` leaves unreadable files out, with a warning that names them.
            progress: Show a bar.

        Raises:
            FileNotFoundError: Nothing is at that path.
            ValueError: There are no images, one cannot be read, or ``compute`` gives rows of another count or shape.
        """
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error={on_error!r}; expected 'raise' or 'skip'.")
        items, names = _list(source)
        self.shards.refresh()
        keys: list[bytes] = []
        failed: list[int] = []
        waiting: list[tuple[bytes, Tensor]] = []
        flushed = time.monotonic()
        bar = tqdm(total=len(items), desc="rows", unit="image", disable=not progress)
        for start in range(0, len(items), batch_size):
            part = items[start : start + batch_size]
            found = [_tensor_key(item) for item in part] if isinstance(part, Tensor) else self._file_keys(part)
            missing = self._missing(found, {key for key, _ in waiting})
            if missing:
                wanted = part[missing] if isinstance(part, Tensor) else [part[row] for row in missing]
                images, read = _read(wanted, size, on_error)
                failed += [start + row for place, row in enumerate(missing) if place not in read]
                if read:
                    with torch.no_grad():
                        made = compute(images).detach().cpu()
                    self._check(made, len(read), waiting)
                    waiting += [(found[missing[place]], value) for place, value in zip(read, made, strict=True)]
            keys += found
            many = max(len(waiting), len(self._stamped)) >= self.rows_per_file
            if many or time.monotonic() - flushed > self.seconds_per_file:
                self._flush(waiting)
                flushed = time.monotonic()
            bar.update(len(part))
        bar.close()
        self._flush(waiting)
        if failed:
            listed = ", ".join(names[row] for row in failed)
            warnings.warn(f"{len(failed)} files in source cannot be read: {listed}. Going on without.", stacklevel=2)
        place = self.shards.find(keys)
        # By place and not by who failed: what another process stored is as good.
        kept = np.flatnonzero(place[:, 0] >= 0)
        if not len(kept):
            raise ValueError(f"source holds {len(items)} images, none of which can be read. Mend or replace them.")
        return CachedRows(self.shards, place[kept], [names[row] for row in kept])

    def _missing(self, keys: list[bytes], waiting: set[bytes]) -> list[int]:
        """Positions of the keys that are neither stored nor computed, each key once."""
        rows: list[int] = []
        for row, place in enumerate(self.shards.find_whole(keys)):
            if place[0] < 0 and keys[row] not in waiting:
                waiting.add(keys[row])
                rows.append(row)
        return rows

    def _check(self, made: Tensor, count: int, waiting: list[tuple[bytes, Tensor]]) -> None:
        files = self.shards._files
        known = waiting[0][1] if waiting else (files[0].values[0] if files else made[0])
        if made.ndim < 2 or len(made) != count or made[0].shape != known.shape or made.dtype != known.dtype:
            raise ValueError(
                f"compute gave shape {tuple(made.shape)} ({made.dtype}) for {count} images; expected "
                f"({count}, {', '.join(map(str, known.shape))}) ({known.dtype}), one row an image, as it is stored."
                " Give another fingerprint to what computes other rows."
            )

    def _flush(self, waiting: list[tuple[bytes, Tensor]]) -> None:
        if waiting:
            self.shards.write([key for key, _ in waiting], torch.stack([value for _, value in waiting]))
            waiting.clear()
        if self._stamped:
            values = torch.frombuffer(bytearray(b"".join(self._stamped.values())), dtype=torch.uint8)
            self.contents.write(list(self._stamped), values.reshape(-1, KEY_BYTES))
            self._stamped.clear()
        self.shards.refresh()

    def _file_keys(self, paths: Sequence[Path]) -> list[bytes]:
        """Hashes of files' contents, read only where path, size and time are new."""
        stats = [path.stat() for path in paths]
        stamps = [
            _hash(f"{os.path.abspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}".encode("utf-8", "surrogateescape"))
            for path, stat in zip(paths, stats, strict=True)
        ]
        place = self.contents.find_whole(stamps)
        keys = [self._stamped.get(stamp, b"") for stamp in stamps]
        known = np.flatnonzero(place[:, 0] >= 0)
        if len(known):
            for row, value in zip(known, self.contents.read(place[known]), strict=True):
                keys[row] = value.numpy().tobytes()
        for row, key in enumerate(keys):
            if not key:
                keys[row] = self._stamped[stamps[row]] = _hash(paths[row].read_bytes())
        return keys


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=KEY_BYTES).digest()


def _tensor_key(image: Tensor) -> bytes:
    image = image.detach().float().cpu().contiguous()
    return _hash(repr(tuple(image.shape)).encode() + image.numpy().tobytes())


def _list(source: Tensor | str | Path | Sequence[str | Path]) -> tuple[Tensor | list[Path], list[str]]:
    if isinstance(source, Tensor):
        return check_images(source), [f"image_{row:05d}" for row in range(len(source))]
    if isinstance(source, (str, Path)):
        folder = Path(source)
        if not folder.exists():
            raise FileNotFoundError(f"source={str(source)!r}: nothing is there; expected a folder of images or a file.")
        paths = [folder] if folder.is_file() else list_images(folder)[0]
        names = [path.name if folder.is_file() else path.relative_to(folder).as_posix() for path in paths]
    else:
        paths = [Path(path) for path in source]
        names = [str(path) for path in paths]
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"source holds {str(path)!r}, which is no file; expected paths of image files.")
    if not paths:
        raise ValueError(
            f"source={str(source)!r} holds no images; expected files ending in {', '.join(sorted(SUFFIXES))}."
        )
    return paths, names


def _read(items: Tensor | list[Path], size: int | None, on_error: Literal["raise", "skip"]) -> tuple[Tensor, list[int]]:
    """Images of one batch, and the positions of those that could be read."""
    everything = list(range(len(items)))
    if isinstance(items, Tensor):
        images = items.float()
        return (images if size is None else resize(images, size)), everything
    try:
        return load_images(items, size=size)[0], everything
    except ValueError:
        if on_error == "raise":
            raise
    images, read = [], []
    for row, item in enumerate(items):
        with contextlib.suppress(ValueError):
            images.append(load_images(item, size=size)[0])
            read.append(row)
    return torch.cat(images) if images else torch.zeros(0), read
