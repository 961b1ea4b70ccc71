"""Checks of arguments that many functions share: one wording for each kind of mistake."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from numbers import Integral, Real
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the arguments of ``vislens`` are checked without them
    import numpy as np
    from torch import Tensor


def check_word(name: str, value: str | None, known: Collection[str | None], remark: str = "") -> None:
    """Raise ValueError for a word that is not one of these."""
    if value not in known:
        *first, last = map(repr, known)
        raise ValueError(f"{name}={value!r} is unknown; expected {', '.join(first)} or {last}.{remark}")


def check_number(name: str, value: object) -> None:
    """Raise TypeError for what is no number, such as a tensor of one."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{name}={value!r} is a {type(value).__name__}; expected a number. Pass float({name}) of a tensor."
        )


def check_several(name: str, value: object, remedy: str) -> None:
    """Raise TypeError for one thing, such as a number or a string, where several are expected."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}; expected a sequence. Pass {remedy}.")


def check_switches(**switches: object) -> None:
    """Raise TypeError for what is neither True nor False, such as the word "no"; None passes."""
    for name, value in switches.items():
        if value is not None and type(value).__name__ not in ("bool", "bool_"):  # NumPy's own as well
            raise TypeError(f"{name}={value!r} is a {type(value).__name__}; expected True or False.")


def check_functions(**functions: object) -> None:
    """Raise TypeError for what cannot be called, such as the name of a network; None passes."""
    for name, value in functions.items():
        if value is not None and not callable(value):
            raise TypeError(
                f"{name} is a {type(value).__name__}; expected a function of images (N, 3, S, S), such as a network."
            )


def array_remedy(array: object) -> str:
    """The whole line that makes images (N, 3, H, W) in [0, 1] of an array, as a sentence.

    >>> import numpy as np
    >>> array_remedy(np.zeros((5, 8, 8, 3), np.uint8))
    'For an array pass torch.from_numpy(array).permute(0, 3, 1, 2) / 255.'
    """
    shape = list(getattr(array, "shape", ()))
    kind = getattr(getattr(array, "dtype", None), "kind", "f")
    line = "torch.from_numpy(array)" + ("[None]" if len(shape) == 3 else "")
    if len(shape) in (3, 4) and shape[-1] == 3 != shape[-3]:
        line += ".permute(0, 3, 1, 2)"
    return f"For an array pass {line}{' / 255' if kind in 'iu' else ''}."


def check_counts(**counts: int) -> None:
    """Raise TypeError for what is no whole number, ValueError for one below 1."""
    for name, value in counts.items():
        if not isinstance(value, Integral):
            raise TypeError(f"{name}={value!r} is a {type(value).__name__}; expected a whole number of at least 1.")
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")


def check_whole(least: int, /, **values: object) -> None:
    """Raise ValueError for what is no whole number of at least ``least``."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}={value!r}; expected a whole number of at least {least}.")


def check_positive(**values: float) -> None:
    """Raise ValueError for a value that is not greater than 0, TypeError for what is no number."""
    for name, value in values.items():
        check_number(name, value)
        if not value > 0:  # NaN is not
            raise ValueError(f"{name}={value} must be greater than 0.")


def check_not_negative(**values: float) -> None:
    """Raise ValueError for a value below 0, TypeError for what is no number."""
    for name, value in values.items():
        check_number(name, value)
        if not value >= 0:
            raise ValueError(f"{name}={value} must not be negative.")


def check_shares(meaning: str = ".", /, **shares: float | None) -> None:
    """Raise ValueError for a value outside of [0, 1], TypeError for what is no number; None passes."""
    for name, value in shares.items():
        if value is None:
            continue
        check_number(name, value)
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value} must lie in [0, 1]{meaning}")


def check_finite(remedy: str = "Leave those images out.", /, **tensors: "Tensor") -> None:
    """Raise ValueError for a tensor with NaN or infinite values."""
    for name, values in tensors.items():
        if not values.isfinite().all():
            raise ValueError(f"{name} holds values that are NaN or infinite; expected finite ones. {remedy}")


def missing_library(need: str, extra: str) -> ImportError:
    """What to raise where an optional library is missing: ``need`` says who needs which, ``extra`` what brings it."""
    return ImportError(
        f"{need}, which is not installed; expected the extra {extra!r}. Install it: pip install"
        f" 'vislens_interp[{extra}]'"
    )


def closest(
    name: str, known: Collection[str], *, cutoff: float = 0.6, limit: int | None = 20, otherwise: str | None = "Known:"
) -> str:
    """A sentence with the names that are most like ``name``, or else with the first ``limit`` of them.

    >>> closest("epoch", ["epochs", "alpha"])
    'Closest: epochs.'
    """
    if near := get_close_matches(name, known, 3, cutoff):
        return f"Closest: {', '.join(near)}."
    return "" if otherwise is None else f"{otherwise} {', '.join(list(known)[:limit]) or 'none'}."


def shapes(**arrays: "Tensor | np.ndarray") -> str:
    """The beginning of a message: which argument has which shape.

    >>> import numpy as np
    >>> shapes(a=np.zeros((2, 3)), b=np.zeros(4))
    'a has shape (2, 3) and b (4,)'
    """
    first, *others = ((name, tuple(array.shape)) for name, array in arrays.items())
    return f"{first[0]} has shape {first[1]}" + "".join(f" and {name} {shape}" for name, shape in others)
