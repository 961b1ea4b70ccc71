"""Responses of a layer: of some units in one call; of all in one pass, also streamed to a table on the disk."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from vislens_interp.files import FORMAT_VERSION, allocate, check_writable, fingerprint, locked, write_text, writing
from vislens_interp.images import ImageSource, check_images, load_images
from vislens_interp.preprocess import as_preprocess, preprocess_for, preprocess_size
from vislens_interp.progress import tqdm
from vislens_interp.schema import check_schema
from vislens_interp.targets.probe import prepared
from vislens_interp.targets.reading import Reading, check_reading
from vislens_interp.targets.selectors import Unit, plain_units
from vislens_interp.targets.target import LayerTarget

_KIND = "layer table"
_TENSOR = "responses"
_LENGTH = 8  # bytes of a safetensors file that say how long its header is


@dataclass(frozen=True)
class LayerTable:
    """Responses of all units of a layer to a set of images.

    Args:
        responses: (N, K), float32. Rows are read from the file when they are looked at; what is written into the tensor
            stays in memory.
        target: What was read: model, layer, pool, layout, preprocessing and a fingerprint of the weights.
        path: The file; None for a table that was made in memory.
    """

    responses: Tensor = field(repr=False)
    target: dict[str, Any]
    path: Path | None = None

    @property
    def n_units(self) -> int:
        """Units, numbered from 0."""
        return self.responses.shape[1]


def all_units(model: nn.Module, layer: str | nn.Module | None, **reading: Unpack[Reading]) -> LayerTarget:
    """A target on every unit of a layer, in their order.

    Args:
        model: The network; left as it was.
        layer: Dotted name, module, or None for the model's own output.
        reading: For :class:`~vislens_interp.targets.LayerTarget`: ``pool=``, ``layout=``, ``preprocess=``, ...

    Raises:
        ValueError, TypeError: As :class:`~vislens_interp.targets.LayerTarget`; also where the channels of the layer are
            not known.

    >>> from vislens_interp.preprocess import Preprocess
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3))
    >>> all_units(model, "0", preprocess=Preprocess(8, [0], [1])).names
    ['0', '1', '2', '3']
    """
    if "unit" in reading:
        raise ValueError(f"unit={reading['unit']!r}, but all units are read; leave it out, or use LayerTarget.")
    first = LayerTarget(model, layer, 0, **reading)
    return first.at(list(range(first.n_units or 1)))


def pictures_for(model: nn.Module, images: ImageSource, reading: Reading) -> Tensor:
    """Images (N, 3, H, W) that a layer is to be read on.

    Args:
        model: The network.
        images: A tensor, used as it is; or PIL images, paths, a folder or a data set, see
            :func:`~vislens_interp.images.load_images`, brought to the size that the network takes.
        reading: Keyword arguments of :class:`LayerTarget`.
    """
    check_reading(reading, "layer", "unit", "images")
    if isinstance(images, Tensor):
        return check_images(images)
    given = reading.get("preprocess")
    preprocess = preprocess_for(model) if given is None else as_preprocess(given)
    return load_images(images, size=preprocess_size(preprocess) or reading.get("image_size"))[0]


def read_responses(
    model: nn.Module,
    layer: str | nn.Module | None,
    unit: Unit,
    images: ImageSource,
    **reading: Unpack[Reading],
) -> Tensor:
    """Responses of a unit to images: :class:`LayerTarget` in one call.

    Args:
        model: The network; left as it was.
        layer: Dotted name, module, or None for the model's own output.
        unit: A unit or a list of them.
        images: (N, 3, H, W) in [0, 1], or what :func:`pictures_for` takes.
        reading: Keyword arguments of :class:`LayerTarget`.

    Returns:
        float32 on the CPU: (N,) for one unit, (N, K) for a list.

    Raises:
        ValueError, TypeError: As :class:`LayerTarget` and :meth:`Target.responses`.

    >>> from vislens_interp.preprocess import Preprocess
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    >>> read_responses(model, "1", 2, torch.rand(5, 3, 8, 8), preprocess=Preprocess(8, [0.5], [0.5])).shape
    torch.Size([5])
    """
    images = pictures_for(model, images, reading)
    reading.setdefault("image_size", min(images.shape[-2:]))
    target = LayerTarget(model, layer, unit, **reading)
    responses = target.responses(images)
    return responses if isinstance(plain_units(unit), list) else responses[:, 0]


def read_layer(
    model: nn.Module,
    layer: str | nn.Module | None,
    images: ImageSource,
    path: str | os.PathLike[str] | None = None,
    *,
    progress: bool = False,
    **reading: Unpack[Reading],
) -> LayerTable:
    """Responses of all units of a layer, in one pass over the images.

    With ``path`` every batch goes to a hidden file beside it, which is renamed when the last row is written: the table
    is whole or absent. Called again after an interruption, with the same model, layer, images and arguments, it goes
    on where it was; a finished table of these is opened. Of several processes with one path, one works and the others
    wait.

    Args:
        model: The network; left as it was.
        layer: Dotted name, module, or None for the model's own output.
        images: (N, 3, H, W) in [0, 1], or what :func:`pictures_for` takes.
        path: File of the table, a safetensors file; None keeps it in memory.
        progress: Show a progress bar.
        reading: For :class:`~vislens_interp.targets.LayerTarget`: ``pool=``, ``layout=``, ``preprocess=``,
            ``batch_size=``, ...

    Returns:
        The table, (N, K).

    Raises:
        ValueError, TypeError: As :class:`~vislens_interp.targets.LayerTarget`.
        OSError: The file cannot be written, or the disk is too small for it: said before the pass.

    >>> from vislens_interp.preprocess import Preprocess
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3))
    >>> read_layer(model, "0", torch.rand(5, 3, 8, 8), preprocess=Preprocess(8, [0], [1])).responses.shape
    torch.Size([5, 4])
    """
    images = pictures_for(model, images, reading)
    reading.setdefault("image_size", min(images.shape[-2:]))
    target = all_units(model, layer, **reading)
    described = target.describe()
    if path is None:
        return LayerTable(target.responses(images, progress=progress), described)
    path = Path(path)
    key = hashlib.sha256(f"{json.dumps(described)} {_digest(images)}{_unsaid(target, images)}".encode()).hexdigest()[
        :16
    ]
    shape = (len(images), len(target.names))
    header = _header(shape, described, key)
    check_writable(path, len(header) + 4 * shape[0] * shape[1])
    with locked(path), writing(path):
        if not _holds(path, key):  # another process may have finished while this one waited
            _stream(target, images, path, header, key, progress=progress)
    return open_table(path)


def _stream(target: LayerTarget, images: Tensor, path: Path, header: bytes, key: str, *, progress: bool) -> None:
    """Batch by batch into a hidden file beside ``path``, which gets its name at the end."""
    file, notes = path.parent / f".{path.name}.partial", path.parent / f".{path.name}.partial.json"
    row = 4 * len(target.names)
    size = len(header) + row * len(images)
    done = _rows_done(notes, key, file, size, len(images))
    if done == 0:
        try:
            with file.open("wb") as empty:
                allocate(empty, size)
                empty.seek(0)
                empty.write(header)
        except OSError:
            file.unlink(missing_ok=True)
            raise
    title = f"units of {target.layer or 'the output'}"
    batches = range(done, len(images), target.batch_size)
    with file.open("r+b") as table:
        for start in tqdm(batches, desc=title, unit="batch", disable=not progress):
            end = min(start + target.batch_size, len(images))
            responses = target.responses(images[start:end]).numpy().astype(np.float32, copy=False)
            table.seek(len(header) + row * start)
            table.write(responses.tobytes())
            table.flush()
            os.fsync(table.fileno())  # before the note that says so
            write_text(notes, json.dumps({"key": key, "rows": end}))
    os.replace(file, path)
    notes.unlink(missing_ok=True)


def open_table(path: str | os.PathLike[str]) -> LayerTable:
    """Map a table that :func:`read_layer` wrote into memory.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path={str(path)!r}: no such file; expected a {_KIND}. read_layer writes one.")
    state, shape, offset = _read_header(path)
    # Copy on write: torch wants memory that may be written to, and the file has to stay as it is.
    mapped = np.memmap(path, np.float32, "c", offset=offset, shape=shape)
    return LayerTable(torch.from_numpy(mapped), json.loads(state["target"]), path)


def _read_header(path: Path) -> tuple[dict[str, Any], tuple[int, int], int]:
    """What the header says, the table's shape, and the byte at which it starts."""
    actual = path.stat().st_size
    with path.open("rb") as file:
        try:
            length = int.from_bytes(file.read(_LENGTH), "little")
            header = json.loads(file.read(min(length, actual)))
            said = json.loads(header["__metadata__"]["vislens_interp"])
            check_schema(said, {"version": int, "kind": str, "state": {"$dict": [[object]]}}, "header")
            check_schema(header, {_TENSOR: {"shape": [int], "dtype": frozenset({"F32"})}}, "header")
            if any(len(pair) != 2 or not isinstance(pair[0], str) for pair in said["state"]["$dict"]):
                raise ValueError("state is not made of names and values")
            state, version, kind = dict(said["state"]["$dict"]), said["version"], said["kind"]
            if kind == _KIND:
                check_schema(state, {"target": str, "key?": str}, "header", "state")
                check_schema(_json(state["target"]), dict, "header", "state.target")
            rows, units = header[_TENSOR]["shape"]
            if min(rows, units) < 1:
                raise ValueError(f"the shape is ({rows}, {units})")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise ValueError(
                f"path={str(path)!r} is not a {_KIND} of vislens_interp ({type(error).__name__}: {error}); expected a"
                " file that read_layer wrote. Read the layer again, or restore a copy."
            ) from error
    if version > FORMAT_VERSION or kind != _KIND:
        raise ValueError(
            f"path={str(path)!r} holds a {kind} of format version {version}; expected a {_KIND} of version"
            f" {FORMAT_VERSION} at most. Upgrade vislens_interp, or pass another file."
        )
    expected = _LENGTH + length + 4 * rows * units
    if actual != expected:
        raise ValueError(
            f"path={str(path)!r} has {actual} bytes; expected {expected} for {rows} images and {units} units. It is"
            " truncated: read the layer again, or restore a copy."
        )
    return state, (rows, units), _LENGTH + length


def _json(text: str) -> Any:
    """What a text says as JSON, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _holds(path: Path, key: str) -> bool:
    """Whether the file is the finished table of this model, layer, images and arguments."""
    try:
        return path.is_file() and _read_header(path)[0].get("key") == key
    except ValueError:
        return False


def _header(shape: tuple[int, int], target: Mapping[str, object], key: str) -> bytes:
    """The beginning of a safetensors file with one float32 tensor, as ``files.load_state`` reads it."""
    state = {"$dict": [[_TENSOR, {"$tensor": _TENSOR}], ["target", json.dumps(target)], ["key", key]]}
    header = {
        "__metadata__": {"vislens_interp": json.dumps({"kind": _KIND, "version": FORMAT_VERSION, "state": state})},
        _TENSOR: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 4 * shape[0] * shape[1]]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the tensor starts at a multiple of eight
    return len(text).to_bytes(_LENGTH, "little") + text


def _rows_done(notes: Path, key: str, file: Path, size: int, rows: int) -> int:
    try:
        said = json.loads(notes.read_text(encoding="utf-8"))
        done = said["rows"] if said["key"] == key and file.stat().st_size == size else 0
        return done if type(done) is int and 0 <= done <= rows else 0
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0  # nothing is there, or nothing of use: begin


def _unsaid(target: LayerTarget, images: Tensor) -> str:
    """What a target's description leaves out: further arguments of the pass, and a preprocessing that it only names.

    Functions are told apart by what they make of the first images.
    """
    named = not callable(getattr(target.preprocess, "describe", None))
    if not named and not target.forward_args:
        return ""
    inputs = prepared(target.preprocess, images[:8].to(target.device))
    said = [fingerprint({"inputs": inputs})] if named else []
    for name, value in sorted(target.forward_args.items()):
        if isinstance(value, nn.Module):
            value = fingerprint(value.state_dict())
        elif callable(value):
            value = value(inputs)
        said.append(f"{name}={fingerprint({name: value}) if isinstance(value, Tensor) else value!r}")
    return " ".join(["", *said])


def _digest(images: Tensor) -> str:
    digest = hashlib.sha256(f"{tuple(images.shape)} {images.dtype}".encode())
    for part in images.split(64):
        digest.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
