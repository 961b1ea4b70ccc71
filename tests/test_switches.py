"""A switch of a public function is True or False: the word "no" would mean yes."""

import dataclasses
import importlib
import inspect
import pkgutil

import pytest

import vislens_interp

HARMLESS = {"progress"}
"""Switches that change no result and nothing on a disk."""


def public_objects():
    """Names that the package and its parts offer, each object once."""
    found = {}
    for part in pkgutil.walk_packages(vislens_interp.__path__, "vislens_interp."):
        if part.name.endswith("__main__") or not part.ispkg:
            continue
        module = importlib.import_module(part.name)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if inspect.isfunction(value) or inspect.isclass(value):
                found[value.__module__, value.__qualname__] = value
    for name in vislens_interp._MODULES:
        value = getattr(vislens_interp, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            found[value.__module__, value.__qualname__] = value
    return found


def calls(value):
    """A public function itself, or a class's own public methods: name and function."""
    if inspect.isfunction(value):
        yield value.__qualname__, value
        return
    for name, method in vars(value).items():
        method = getattr(value, name) if isinstance(method, classmethod | staticmethod) else method
        written = not (name == "__init__" and dataclasses.is_dataclass(value))
        if (
            (inspect.isfunction(method) or inspect.ismethod(method))
            and written
            and (name == "__init__" or not name.startswith("_"))
        ):
            yield f"{value.__qualname__}.{name}", method


SWITCHES = [
    pytest.param(function, parameter.name, id=f"{module}.{name}-{parameter.name}")
    for (module, _), value in sorted(public_objects().items())
    for name, function in calls(value)
    for parameter in inspect.signature(function).parameters.values()
    if name != "Backbone.train"  # torch's own
    if parameter.annotation in (bool, "bool", bool | None, "bool | None") and parameter.name not in HARMLESS
]


def test_there_are_switches():
    assert len(SWITCHES) >= 15


@pytest.mark.parametrize(("function", "switch"), SWITCHES)
def test_a_switch_is_true_or_false(function, switch):
    needed = {
        name: None
        for name, one in inspect.signature(function).parameters.items()
        if one.default is one.empty and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }
    with pytest.raises(TypeError, match=f"{switch}='no' is a str; expected True or False"):
        function(**{**needed, switch: "no"})
