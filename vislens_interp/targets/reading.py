"""The arguments that say how a layer is read, in one place for everything that hands them on."""

from collections.abc import Mapping
from typing import Any, TypedDict

from vislens_interp.preprocess import PreprocessLike
from vislens_interp.targets.capture import Output
from vislens_interp.targets.layout import Layout
from vislens_interp.targets.selectors import Labels, Pool
from vislens_interp.validation import closest


class Reading(TypedDict, total=False):
    """Keyword arguments of :class:`~vislens_interp.targets.LayerTarget`, which says what each of them means.

    A function that reads a layer takes ``**reading: Unpack[Reading]`` and hands them on.
    """

    pool: Pool
    token: int | str | None
    layout: Layout | None
    output: Output | None
    call: int | None
    preprocess: PreprocessLike | None
    labels: Labels | None
    batch_size: int | None
    image_size: int | None
    forward_args: Mapping[str, Any] | None


def check_reading(reading: Mapping[str, object], *own: str) -> None:
    """Raise TypeError, with near names, for what is none of these arguments and none of the function's ``own``."""
    known = [*own, *Reading.__annotations__]
    for name in reading:
        if name not in known:
            raise TypeError(f"{name}= is no argument here. {closest(name, known)}")
