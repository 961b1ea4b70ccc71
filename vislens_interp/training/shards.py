"""Checkpoints in parts of a limited size, for machines that give back small files only."""

import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor

from vislens_interp.files import load_state, locked, save_state, write_bytes

_PART = re.compile(r"(?P<digest>[0-9a-f]{12})-(?P<number>\d{2})of(?P<count>\d{2})\.part")


def write_shards(checkpoint: str | Path, mib: float, *, half: bool = False) -> list[Path]:
    """Write a checkpoint once more, in parts beside it.

    Args:
        checkpoint: ``checkpoint.safetensors`` of :func:`~vislens_interp.training.loop.train`; it stays.
        mib: Size of a part at most, in MiB.
        half: Store weights as float16 and the optimiser's moments as bfloat16. A run that goes on from there is no
            longer the same to the bit; its weights lose what shipped weights lose as well.

    Returns:
        The parts, ``<SHA-256's start>-01of07.part`` and on; those of earlier calls are removed.

    Raises:
        ValueError: ``mib`` is not above 0, or there would be more than 99 parts.
    """
    if mib <= 0:
        raise ValueError(f"mib={mib} must be above 0: the size of a part in MiB; 16 is usual.")
    checkpoint = Path(checkpoint)
    with locked(checkpoint):
        source = checkpoint
        if half:
            state = load_state(checkpoint, "checkpoint")
            state |= {name: _cast(state[name], torch.float16) for name in ("model", "average")}
            state["optimizer"] = _cast(state["optimizer"], torch.bfloat16)
            source = save_state(checkpoint.with_suffix(".half"), "checkpoint", state)
        content = source.read_bytes()
        if half:
            source.unlink()
        step = max(1, int(mib * 2**20))
        count = -(-len(content) // step)
        if count > 99:
            raise ValueError(
                f"mib={mib} cuts {len(content) >> 20} MiB into {count} parts; expected at most 99. Use more."
            )
        digest = hashlib.sha256(content).hexdigest()[:12]
        before = _parts(checkpoint.parent)
        paths = []
        for number in range(count):
            path = checkpoint.parent / f"{digest}-{number + 1:02d}of{count:02d}.part"
            paths.append(write_bytes(path, content[number * step : (number + 1) * step]))
        for old in set(before) - set(paths):
            old.unlink()
    return paths


def restore(checkpoint: str | Path) -> bool:
    """Put a checkpoint together from the parts in its folder, where it is not there itself.

    Returns:
        Whether it was put together.

    Raises:
        ValueError: Parts are missing, damaged, or of more than one checkpoint.
    """
    checkpoint = Path(checkpoint)
    parts = _parts(checkpoint.parent)
    if checkpoint.exists() or not parts:
        return False
    digests = {name["digest"] for name in parts.values()}
    if len(digests) > 1:
        raise ValueError(
            f"folder {str(checkpoint.parent)!r} holds parts of {len(digests)} checkpoints ({', '.join(sorted(digests))}"
            "); expected one. Delete the older parts."
        )
    first = next(iter(parts.values()))
    digest, count = first["digest"], int(first["count"])
    missing = sorted(set(range(1, count + 1)) - {int(name["number"]) for name in parts.values()})
    if missing:
        raise ValueError(
            f"folder {str(checkpoint.parent)!r} lacks parts {missing} of {count} of checkpoint {digest}; expected all. "
            "Copy them there too."
        )
    content = b"".join(path.read_bytes() for path in parts)
    if hashlib.sha256(content).hexdigest()[:12] != digest:
        raise ValueError(
            f"parts of checkpoint {digest} in {str(checkpoint.parent)!r} are damaged: their SHA-256 is another one. "
            "Copy them again."
        )
    write_bytes(checkpoint, content)
    return True


def _parts(folder: Path) -> dict[Path, re.Match[str]]:
    """Parts in the order of their names, with what these say."""
    return {path: name for path in sorted(folder.glob("*.part")) if (name := _PART.fullmatch(path.name))}


def _cast(value: object, dtype: torch.dtype) -> object:
    if isinstance(value, Tensor):
        # Counters are exact or they are wrong: Adam's steps are tensors of one number.
        return value.to(dtype) if value.is_floating_point() and value.ndim else value
    if isinstance(value, dict):
        return {key: _cast(item, dtype) for key, item in value.items()}
    return [_cast(item, dtype) for item in value] if isinstance(value, list) else value
