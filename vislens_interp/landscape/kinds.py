"""Settings of the right kind: a word where a number belongs is refused by name, before anything is computed."""

import types
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def check_kinds(settings: type, given: Mapping[str, Any], prefix: str = "") -> None:
    """Raise TypeError where a value given for a settings dataclass is not of its field's kind.

    Args:
        settings: The dataclass.
        given: Field name to value; names that are no field of it are passed over.
        prefix: Put before a name in the message.

    Raises:
        TypeError: Names the setting, what came and what was expected.

    >>> from vislens_interp.landscape.fit import FitSettings
    >>> check_kinds(FitSettings, {"epochs": 3, "lr": 1})
    >>> check_kinds(FitSettings, {"epochs": 2.5})
    Traceback (most recent call last):
    TypeError: epochs=2.5 is a float; expected a whole number.
    """
    hints = get_type_hints(settings)
    for name, value in given.items():
        if name in hints and not _fits(value, hints[name]):
            kind = type(value).__name__
            article = "an" if kind[0] in "aeiou" else "a"
            raise TypeError(f"{prefix}{name}={value!r} is {article} {kind}; expected {_said(hints[name])}.")


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) is Literal:  # which word it may be, the settings say themselves
        return isinstance(value, str)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    return isinstance(value, hint)


def _said(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_said(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    return {float: "a number", int: "a whole number", bool: "True or False", types.NoneType: "None"}.get(
        hint, getattr(hint, "__name__", str(hint))
    )
