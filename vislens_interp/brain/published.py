"""Files as others published them: found, or an error that says what is missing and where it comes from."""

import os
from pathlib import Path

import numpy as np


def find_subject(folder: str | os.PathLike[str], names: list[str], source: str) -> Path:
    """The folder of a subject: one of these below ``folder``, or ``folder`` itself if it has such a name.

    Raises:
        FileNotFoundError: There is none.
    """
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
    """An array that stays on the disk until it is asked for.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no plain array.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r}: no such file; expected an array. It comes from {source}.")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{str(path)!r} cannot be read as an array ({error}); expected numbers. Get it again from {source}."
        ) from error


def refuse_missing(paths: list[Path], source: str) -> None:
    """Raise FileNotFoundError if one of these pictures is not there."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} pictures are missing, such as {str(missing[0])!r}; expected a file for "
            f"each row of responses. They come from {source}."
        )
