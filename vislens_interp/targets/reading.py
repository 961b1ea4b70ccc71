"""The arguments that say how a layer is read, in one place for everything that hands them on."""

from collections.abc import Mapping
from typing import Any, TypedDict

from vislens_interp.preprocess import PreprocessLike
from vislens_interp.targets.capture import Output
from vislens_interp.targets.layout import Layout
from vislens_interp.targets.selectors import Labels, Pool


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
