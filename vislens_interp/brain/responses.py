"""Pictures and responses as people have them, brought to (image, repetition, target), and what is refused."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from vislens_interp.images import ImageFiles, PathLike, check_images, holds_files, load_images
from vislens_interp.pairing import Table, for_torch, order_doubt, paired_responses
from vislens_interp.validation import check_several, closest, shapes

Images: TypeAlias = Tensor | ImageFiles
Pictures: TypeAlias = Images | np.ndarray | PathLike | Sequence[PathLike]
NamedPictures: TypeAlias = Pictures | Mapping[str, PathLike]
"""Pictures, or files by what trials call them."""
NamedResponses: TypeAlias = Tensor | np.ndarray | Mapping[str, Tensor | ArrayLike] | Table
"""Responses in the order of the pictures, or by the pictures' names, also as the index of pandas' DataFrame."""
Rows: TypeAlias = Sequence[int] | slice | Tensor | np.ndarray
CHUNK_NUMBERS = 1 << 24
"""Responses that are looked at together."""


def open_pictures(images: Pictures, size: int | None) -> tuple[Images, list[str] | None]:
    """Pictures and their names; None for those in memory. With a size, files stay on the disk.

    Raises:
        TypeError, ValueError: They are neither images in [0, 1] nor files, or files cannot be read.
    """
    if isinstance(images, (Tensor, np.ndarray)):
        images = for_torch(images) if isinstance(images, np.ndarray) else images
        return load_images(check_images(torch.as_tensor(images)), size=size)[0], None
    if isinstance(images, ImageFiles):
        return images, images.names
    if not holds_files(images):
        raise TypeError(
            f"images is a {type(images).__name__}; expected a folder, paths, ImageFiles, (N, 3, H, W) in [0, 1] or, to "
            "readers, a mapping from names to files."
        )
    if size is None:
        return load_images(images)
    files = ImageFiles(images, size)
    return files, files.names


def refuse_missing_files(images: Images) -> None:
    """Raise FileNotFoundError for files that are not there, before the others are worked on for hours."""
    missing = [path for path in images.paths if not path.is_file()] if isinstance(images, ImageFiles) else []
    if missing:
        raise FileNotFoundError(
            f"images: {len(missing)} of {len(images)} files are not there, such as {str(missing[0])!r}; expected all. "
            "Mend the paths, or leave these pictures and their responses out."
        )


def names_of(images: Images) -> list[str]:
    """The names of files; numbers for pictures in memory."""
    return images.names if isinstance(images, ImageFiles) else [f"image_{row:05d}" for row in range(len(images))]


def as_numbers(responses: Tensor | np.ndarray) -> Tensor:
    """A float32 tensor of them, in memory."""
    if not isinstance(responses, (Tensor, np.ndarray)):
        raise TypeError(
            f"responses is a {type(responses).__name__}; expected a tensor or an array, (N, K) or (N, R, K)."
        )
    if isinstance(responses, np.ndarray):
        if responses.dtype.kind not in "fiu":
            raise TypeError(f"responses has type {responses.dtype}; expected numbers, with NaN where one is absent.")
        if isinstance(responses, np.ma.MaskedArray):
            responses = np.ma.filled(responses.astype(float), np.nan)
        responses = for_torch(responses)
    return torch.as_tensor(responses).detach().cpu().float()


def in_order_of(targets: Sequence[str], table: Any) -> Any:
    """A DataFrame with its columns in the order of the targets, which are their names; as it came if none of them is.

    ValueError where some targets are names of columns, and others are not.
    """
    given = list(getattr(table, "columns", ()))
    columns = {} if given == list(range(len(given))) else {str(name): name for name in given}  # pandas' own numbers
    unknown = [name for name in targets if name not in columns]
    if unknown and len(unknown) < len(targets):
        raise ValueError(
            f"responses has the columns {', '.join(list(columns)[:8])}, and none of them is target {unknown[0]!r}, as "
            "others are; expected one for each. Mend targets, or pass responses.to_numpy() for columns in their order."
        )
    return table if unknown or not columns else table[[columns[name] for name in targets]]


def as_responses(responses: NamedResponses, names: Sequence[str]) -> Tensor:
    """(N, R, K) float32, in the order of the images' N names where they come by name."""
    if isinstance(responses, (Mapping, Table)):
        values = paired_responses(responses, names)
    else:
        values = as_numbers(responses)
    if values.ndim == 2:
        return values[:, None]
    if values.ndim != 3:
        raise ValueError(
            f"{shapes(responses=values)}; expected (N, K) or (N, R, K). For one target pass responses[:, None]."
        )
    return values


def refuse_doubtful_order(names: Sequence[str]) -> None:
    """Raise ValueError for responses by position to a folder's images, where counting gives another order than text."""
    if doubt := order_doubt(names):
        raise ValueError(
            f"{doubt} Expected an order that somebody chose. Pass to BrainDataset.from_arrays names= in the order of "
            "the responses, responses as a mapping from names of images, or images as a list of paths in their order."
        )


def by_image(trials: Tensor, shown: Sequence[int] | Tensor | np.ndarray, count: int) -> Tensor:
    """Trials (T, K) as (N, R, K), NaN where an image was shown less often than another."""
    given = shown.cpu() if isinstance(shown, Tensor) else shown
    numbers = np.asarray(given)
    if numbers.dtype.kind not in "iuf" or (numbers != np.floor(numbers)).any():
        raise TypeError(f"shown={given!r:.80}; expected positions in images ({count}), whole numbers, one a trial.")
    rows = torch.as_tensor(np.require(numbers, requirements="W")).long()  # torch warns of those of pandas otherwise
    if trials.ndim != 2 or rows.shape != (len(trials),):
        raise ValueError(f"{shapes(responses=trials, shown=rows)}; expected (T, K) and (T,), a row for each trial.")
    if len(rows) == 0 or int(rows.min()) < 0 or int(rows.max()) >= count:
        raise ValueError(f"shown names images outside 0 to {count - 1}; expected positions in images ({count}).")
    repetition, most = repetitions(rows, count)
    responses = torch.full((count, most, trials.shape[1]), torch.nan)
    responses[rows, repetition] = trials
    return responses


def repetitions(rows: Tensor, count: int) -> tuple[Tensor, int]:
    """How often the image of each trial (T,) was shown before it, and the largest number of trials of one image."""
    counts = torch.bincount(rows, minlength=count)
    order = rows.argsort(stable=True)
    first = counts.cumsum(0) - counts
    before = torch.empty_like(rows)
    before[order] = torch.arange(len(rows)) - first[rows[order]]
    return before, int(counts.max())


def places_of(rows: Rows, count: int, argument: str = "rows") -> list[int]:
    """Positions from 0 to ``count`` - 1, at least one.

    Args:
        rows: Positions, also from the end, a slice, or a mask of ``count`` truth values.
        count: Of the images.
        argument: What a caller names ``rows``.

    Raises:
        TypeError, ValueError: They are nothing of this kind, there is no such row, or nothing is left.

    >>> places_of([-1, 0], 3), places_of(np.array([False, True, True]), 3)
    ([2, 0], [1, 2])
    """
    given = range(count)[rows] if isinstance(rows, slice) else rows.cpu() if isinstance(rows, Tensor) else rows
    numbers = np.asarray(given)
    if numbers.ndim != 1 or (numbers.dtype.kind not in "biu" and numbers.size):
        raise TypeError(
            f"{argument}={given!r:.80}; expected positions (whole numbers), a slice, or a mask of {count} truth "
            "values. Pass [0] for the first image alone."
        )
    if numbers.dtype.kind == "b":
        if len(numbers) != count:
            raise ValueError(f"{argument} is a mask of shape {numbers.shape}; expected ({count},), one value an image.")
        numbers = numbers.nonzero()[0]
    for row in numbers.tolist():
        if not -count <= row < count:
            raise ValueError(f"{argument} holds {row}; expected rows of {count} images, 0 to {count - 1}.")
    if not numbers.size:
        raise ValueError(f"{argument} is empty; expected at least one image. Ask for a larger part.")
    return (numbers % count).tolist()


def row_parts(responses: Tensor) -> tuple[Tensor, ...]:
    """(N, R, K) in parts of a few rows: what is looked at all at once would be several times as much memory."""
    return responses.split(max(1, CHUNK_NUMBERS // max(1, responses.shape[1] * responses.shape[2])))


def repeated(names: Sequence[str]) -> list[str]:
    """Names that come more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def as_names(names: Sequence[str], argument: str = "names") -> list[str]:
    """Names as text; TypeError for one string or number."""
    check_several(argument, names, f"[{names!r}]")
    return [str(name) for name in names]


def check_known(what: str, name: str, known: Collection[str], where: str, remark: str = "") -> None:
    """Raise KeyError, with near names, for a name that is not among those that ``where`` has."""
    if name not in known:
        raise KeyError(f"{what} {name!r} is not in {where}. {closest(str(name), known, cutoff=0.4)}{remark}")


def check_targets(targets: Sequence[str]) -> list[str]:
    """Refuse no names, and names that come twice."""
    names = as_names(targets, "targets")
    twice = repeated(names)
    if twice or not names:
        raise ValueError(
            f"targets={names[:20]} "
            + (f"has {', '.join(twice)} more than once" if twice else "is empty")
            + "; expected names, each once. Name a target for each column of responses."
        )
    return names


def check_responses(responses: Tensor, count: int, targets: list[str]) -> None:
    """Refuse what is not (N, R, K) of ``count`` images and these targets, or says nothing of one of them."""
    shape = tuple(responses.shape)
    if len(shape) != 3:
        raise ValueError(
            f"responses has shape {shape}; expected (N, R, K): image, repetition, target. BrainDataset.from_arrays "
            "takes (N, K) too."
        )
    if shape[0] != count:
        turned = "Turn its axes round: images come first." if count in shape else ""
        raise ValueError(
            f"images and responses have unequal counts: {count} images, responses of shape {shape}; expected a row for "
            f"each image. {turned or 'BrainDataset.from_trials takes trials and which image each showed.'}"
        )
    if shape[2] != len(targets):
        raise ValueError(
            f"responses has shape {shape}, {shape[2]} columns, for {len(targets)} targets; expected one column each."
        )
    seen = torch.zeros(shape[2], dtype=torch.bool)
    for part in row_parts(responses):
        if part.isinf().any():
            raise ValueError(
                "responses holds infinite values; expected numbers, with NaN where one is absent. Mend them."
            )
        seen |= (~part.isnan()).any(1).any(0)
    empty = [name for name, there in zip(targets, seen.tolist(), strict=True) if not there]
    if empty:
        raise ValueError(
            f"responses: every value of target {', '.join(map(repr, empty[:5]))} is NaN in these {count} images "
            f"({len(empty)} of {len(targets)} targets); expected at least one number. Leave them out: by "
            "dataset.select of the others, or by a reader's regions=, picks= or where=."
        )
