"""Files as others published them: found, or an error that says what is missing and where it comes from."""

import os
from pathlib import Path

import numpy as np


def find_subject(folder: str | os.PathLike[str], names: list[str], source: str) -> Path:
    """The folder of a subject: one of these below ``folder``, or ``folder`` itself; FileNotFoundError without one."""
    folder = Path(folder)
    for name in names:
        if (folder / name).is_dir():
            return folder / name
        if folder.name == name and folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"folder={str(folder)!r} has no {' or '.join(names)}; expected the subject's folder in it. It "
        f"comes from {source}."
    )


def read_array(path: Path, source: str) -> np.ndarray:
    """An array that stays on the disk until it is asked for; FileNotFoundError or ValueError if it is none."""
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r}: no such file; expected an array. It comes from {source}.")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{str(path)!r} cannot be read as an array ({error}); expected numbers. Get it again from {source}."
        ) from error


def find_files(folder: Path, pattern: str, named: str, what: str, source: str) -> list[Path]:
    """Files of a pattern, sorted; FileNotFoundError where there is none."""
    found = sorted(folder.glob(pattern))
    if not found:
        raise FileNotFoundError(f"{str(folder)!r} has no {named}; expected {what}. They come from {source}.")
    return found


def check_shape(name: str, array: np.ndarray, wanted: tuple[int, ...], what: str, source: str) -> None:
    """Raise ValueError for an array of another shape; ``what`` says why that one is expected."""
    if array.shape != wanted:
        raise ValueError(f"{name} has shape {array.shape}; expected {wanted}, {what}. Get it again from {source}.")


def refuse_missing(paths: list[Path], source: str) -> None:
    """Raise FileNotFoundError if one of these pictures is not there."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} pictures are missing, such as {str(missing[0])!r}; expected a file for "
            f"each row of responses. They come from {source}."
        )
