"""How sure a mean is, when units, images and seeds were all drawn from more than were measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vislens_interp.validation import check_switches, shapes

AXES = ("unit", "image", "seed")


@dataclass(frozen=True)
class Interval:
    """A mean and its percentile interval.

    Args:
        mean, low, high: Of all values, and the two ends.
        confidence, draws: Nominal coverage, 0 to 1, and bootstrap draws behind the ends.
    """

    mean: float
    low: float
    high: float
    confidence: float
    draws: int

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def interval(
    values: ArrayLike,
    *,
    levels: Sequence[str] = AXES,
    draws: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    same_images: bool = False,
) -> Interval:
    """Interval of the mean by a hierarchical bootstrap: units are drawn first, then images within, then seeds.

    Args:
        values: (units, images) or (units, images, seeds); (units,) if only units were measured.
        levels: What is drawn again; a level that is left out is kept as it was measured. ``("unit",)`` asks about other
            units with these very images.
        confidence: Nominal coverage, between 0 and 1.
        same_images: Image i is the same picture for every unit: then it is drawn for all units together, so that what
            is common to a picture does not average out as if each unit had seen pictures of its own.

    Returns:
        Mean and interval. Images drawn within drawn units count the images' noise twice: the interval is too wide
        where units do not differ (by √2 at most, √3 with seeds), and right where they do. Few units make it too
        narrow, by √((n - 1) / n).

    Raises:
        ValueError: An axis, a level or a number is out of range, or a value is not finite.

    Source: Davison and Hinkley 1997, Sec. 3.8; ``same_images``: Owen 2007, the pigeonhole bootstrap.

    >>> str(interval([[1.0, 1.0], [1.0, 1.0]]))
    '+1.00 [+1.00, +1.00]'
    """
    check_switches(same_images=same_images)
    array = _checked(values, levels, draws, confidence)
    return _intervals(array[..., None], levels, draws, seed, confidence, same_images)[0]


def intervals(
    values: ArrayLike,
    *,
    levels: Sequence[str] = AXES,
    draws: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    same_images: bool = False,
) -> list[Interval]:
    """:func:`interval` of many measures at once, (measures, units, images[, seeds]), under the same draws.

    >>> [str(one) for one in intervals([[[1.0, 1.0]], [[2.0, 2.0]]])]
    ['+1.00 [+1.00, +1.00]', '+2.00 [+2.00, +2.00]']
    """
    check_switches(same_images=same_images)
    array = np.asarray(values, dtype=np.float64)
    if array.ndim < 2 or array.size == 0:
        raise ValueError(
            f"{shapes(values=array)}; expected (measures, units, images) or (measures, units, images, seeds)."
        )
    _checked(array[0], levels, draws, confidence)
    if not np.isfinite(array).all():
        raise ValueError("values holds some that are NaN or infinite; expected finite ones. Leave those measures out.")
    return _intervals(np.moveaxis(array, 0, -1), levels, draws, seed, confidence, same_images)


def _intervals(
    array: NDArray[np.float64], levels: Sequence[str], draws: int, seed: int, confidence: float, same_images: bool
) -> list[Interval]:
    """Intervals of (units, ..., measures)."""
    drawn = [axis in levels for axis in AXES[: array.ndim - 1]]
    values = array.reshape(-1, array.shape[-1])
    places = np.arange(len(values)).reshape(array.shape[:-1])
    rng = np.random.default_rng(seed)
    means = np.empty((draws, values.shape[1]))
    for draw in range(draws):
        means[draw] = values[_resample(places, drawn, rng, same_images).ravel()].mean(0)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return [
        Interval(float(mean), float(one), float(other), confidence, draws)
        for mean, one, other in zip(values.mean(0), low, high, strict=True)
    ]


def paired_difference(
    values_a: ArrayLike,
    values_b: ArrayLike,
    *,
    levels: Sequence[str] = AXES,
    draws: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    same_images: bool = False,
) -> Interval:
    """Interval of the mean of ``values_a - values_b``, both measured on the same units, images and seeds.

    Args:
        values_a, values_b: As :func:`interval`, of one shape; the same place means the same unit, image and seed.

    Returns:
        Mean difference and interval; positive where ``values_a`` is larger.

    >>> paired_difference([[2.0, 5.0]], [[1.0, 4.0]]).excludes_zero
    True
    """
    a, b = np.asarray(values_a, dtype=np.float64), np.asarray(values_b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"{shapes(values_a=a, values_b=b)}; expected the same units, images and seeds in both.")
    return interval(a - b, levels=levels, draws=draws, seed=seed, confidence=confidence, same_images=same_images)


def _checked(values: ArrayLike, levels: Sequence[str], draws: int, confidence: float) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if not 1 <= array.ndim <= len(AXES) or array.size == 0:
        raise ValueError(
            f"{shapes(values=array)}; expected (units, images) or (units, images, seeds), none of them empty."
        )
    if wrong := int((~np.isfinite(array)).sum()):
        raise ValueError(
            f"values holds {wrong} that are NaN or infinite; expected finite ones. Leave those units or images out."
        )
    if isinstance(levels, str) or not levels or any(level not in AXES for level in levels):
        raise ValueError(
            f"levels={levels!r}; expected a tuple of at least one of {AXES}. Pass levels=('unit', 'image')."
        )
    if not set(levels) & set(AXES[: array.ndim]):
        raise ValueError(
            f"levels={levels!r}, and {shapes(values=array)}, of which nothing would be drawn again; expected at least "
            f"one of {AXES[: array.ndim]}."
        )
    if draws < 1:
        raise ValueError(f"draws={draws}; expected at least 1. 2000 give ends that are steady to two digits.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}; expected between 0 and 1. Pass 0.95 for a 95 % interval.")
    return array


def _resample(
    array: NDArray[np.intp], drawn: list[bool], rng: np.random.Generator, same_images: bool
) -> NDArray[np.intp]:
    """Places of one draw; each axis within what the axes before it have drawn."""
    for axis, again in enumerate(drawn):
        if not again:
            continue
        count = array.shape[axis]
        outer = (1, *array.shape[1:axis]) if same_images and axis > 0 else array.shape[:axis]
        index = rng.integers(count, size=(*outer, count))
        array = np.take_along_axis(array, index.reshape(*index.shape, *[1] * (array.ndim - axis - 1)), axis)
    return array
