"""Which response belongs to which image: by name where names are given, checked where they are not."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor


@runtime_checkable
class Table(Protocol):
    """What pandas' Series and DataFrame offer: rows by name."""

    index: Iterable[object]

    def to_numpy(self) -> np.ndarray: ...


Responses: TypeAlias = Tensor | ArrayLike | Mapping[str, Tensor | ArrayLike] | Table
"""What may be given as responses, see :func:`paired_responses`."""


def paired_responses(responses: Responses, names: Sequence[str], *, sorted_by_name: bool = False) -> Tensor:
    """Responses in the order of the images.

    Args:
        responses: (N,) or (N, K): a tensor, an array or nested lists in the images' order; or a mapping from the name
            of an image to its response, or pandas' Series or DataFrame with the names as its index. A name is a path as
            ``load_images`` gives it, or the file's name, or that without its suffix, if only one image has it.
        names: N names of the images, in their order.
        sorted_by_name: Whether the order of the images is that of their names, which nobody chose: then responses
            without names are warned of where numbers in the names say another order.

    Returns:
        (N, K), float32; without names as many rows as came, which a fit compares with its images.

    Raises:
        ValueError: An image has no response among those with names, or a table names one twice.
        TypeError: ``responses`` holds no numbers.

    >>> paired_responses({"b": 2.0, "a": 1.0}, ["a.png", "b.png"]).flatten().tolist()
    [1.0, 2.0]
    """
    named = by_name(responses)
    if named is not None:
        values = _values([named[key] for key in _keys(named, names)])
    else:
        values = _values(responses)
        if sorted_by_name and len(values) == len(names) and (doubt := order_doubt(names)):
            warnings.warn(
                f"{doubt} If the responses are in the order of the numbers they are paired wrongly: pass a mapping from"
                " names of images to responses, or paths in their order.",
                stacklevel=3,
            )
    return values


def sorted_by_name(source: object) -> bool:
    """Whether images come from a whole folder, in the order of their names as text, which nobody chose."""
    return isinstance(source, (str, os.PathLike)) or getattr(source, "sorted_by_name", False)


def order_doubt(names: Sequence[str]) -> str | None:
    """Why responses without names may belong to other images, where these are in the order of their names as text.

    None where counting by the numbers in the names gives the same order.

    >>> order_doubt(["1.png", "2.png", "10.png"]) is None
    True
    """
    natural = sorted(names, key=lambda name: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", name)])
    if natural == list(names):
        return None
    place = next(row for row, name in enumerate(names) if name != natural[row])
    return (
        f"responses has no names, and the images are in the order of their names as text: {names[place]!r} is number"
        f" {place}, where counting would have {natural[place]!r}."
    )


def pairing_text(responses: Tensor, names: Sequence[str]) -> str:
    """The first and the last image with their responses, for a summary.

    >>> pairing_text(torch.tensor([[1.0], [2.5]]), ["a.png", "b.png"])
    "first 'a.png' with 1, last 'b.png' with 2.5"
    """
    first, last = (", ".join(f"{value:.4g}" for value in responses[row, :3].tolist()) for row in (0, -1))
    return f"first {names[0]!r} with {first}, last {names[-1]!r} with {last}"


def by_name(responses: Responses) -> dict[str, Tensor | ArrayLike] | None:
    """Responses by the names of their images; None where they have none, as a table that pandas numbered."""
    if isinstance(responses, Mapping):
        return {str(key): value for key, value in responses.items()}
    if not isinstance(responses, Table) or callable(responses.index):  # a method of pyarrow's
        return None
    keys = list(responses.index)
    if all(isinstance(key, int) or hasattr(key, "__index__") for key in keys) and keys == list(range(len(keys))):
        return None  # pandas' own row numbers
    if twice := [key for key, count in Counter(map(str, keys)).items() if count > 1]:
        raise ValueError(
            f"responses names {len(twice)} images more than once, such as {twice[0]!r}; expected one row an image."
            " Average repeats first, in pandas by responses.groupby(level=0).mean()."
        )
    return dict(zip(map(str, keys), responses.to_numpy(), strict=True))


def for_torch(array: np.ndarray) -> np.ndarray:
    """The same numbers, where torch does not take them: in another byte order, with steps backwards, or too long.

    >>> torch.from_numpy(for_torch(np.array([1.0, 2.0], ">f4")[::-1])).tolist()
    [2.0, 1.0]
    """
    kind = np.dtype(np.float64) if array.dtype == np.longdouble else array.dtype.newbyteorder("=")
    return np.ascontiguousarray(array, kind) if kind != array.dtype or min(array.strides, default=0) < 0 else array


def _keys(named: Mapping[str, object], names: Sequence[str]) -> list[str]:
    """The key of each image: its whole name, the file's, or that without suffix."""
    forms = [
        lambda name: name,
        lambda name: PurePosixPath(name).name,
        lambda name: PurePosixPath(name).stem,
        lambda name: str(PurePosixPath(name).with_suffix("")),
    ]
    for form in forms:
        keys = [form(name) for name in names]
        if len(set(keys)) == len(keys) and all(key in named for key in keys):
            unused = [key for key in named if key not in set(keys)]
            if unused:
                warnings.warn(
                    f"responses has {len(unused)} names that belong to no image, such as {unused[0]!r}; they are left"
                    " out.",
                    stacklevel=4,
                )
            return keys
    missing = [name for name in names if not any(form(name) in named for form in forms)]
    example = f"{missing[0]!r} has none" if missing else "names without folders or suffixes are not unique"
    raise ValueError(
        f"responses names {len(named)} images such as {next(iter(named), None)!r}, and of the {len(names)} images"
        f" {example} ({len(missing)} have none); expected a response for each. Use the images' names, such as"
        f" {names[0]!r}."
    )


def _values(responses: Responses | Sequence[Tensor | ArrayLike]) -> Tensor:
    if isinstance(responses, Table) and not callable(responses.index):
        responses = responses.to_numpy()
    if isinstance(responses, np.ndarray):  # torch warns of arrays that it may not write to, and of arrays in a list
        responses = np.require(for_torch(responses), requirements="W")
    elif isinstance(responses, (list, tuple)):
        responses = [row.tolist() if isinstance(row, np.ndarray) else row for row in responses]
    try:
        values = torch.as_tensor(responses, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        try:
            rows = responses if isinstance(responses, Iterable) else []
            values = torch.stack([torch.as_tensor(row, dtype=torch.float32) for row in rows])
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"responses is a {type(responses).__name__} that holds no numbers of one length ({error}); expected"
                " (N,) or (N, K). Pass a tensor, an array, or a mapping from names of images to responses."
            ) from error
    return values[:, None] if values.ndim == 1 else values
