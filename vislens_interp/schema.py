"""What a file that is loaded has to hold: kinds of values, field by field; an error names the field."""

import json
import sys
from collections.abc import Mapping
from numbers import Real
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

import torch
from torch import Tensor

Spec = Any  # a type, None, a frozenset, a tuple of specs, [spec], {str: spec} or {name: spec}
LARGEST = sys.float_info.max
DEEPEST = 40
"""Levels of lists and dictionaries in a free value, such as a setting; ours have fewer than ten."""
_NAMES = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false", dict: "a dictionary"}
_NAMES |= {Real: "a number"}
HISTORY = [{str: Real}]
"""Rows of numbers, NaN among them: what a fit writes down every epoch."""


def read_document(folder: Path, name: str, kind: str, version: int | None, writer: str) -> dict[str, Any]:
    """What a JSON file in a saved folder holds; its fields are still to be checked.

    Args:
        kind: Its field ``kind``.
        version: The newest ``format_version`` that can be read; None where its other fields are not.
        writer: What writes such folders, for the messages.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON, of another kind, or of a newer version.
    """
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"folder={str(folder)!r} holds no {name}; expected a folder of {writer}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{str(path)!r} is truncated or no JSON ({error}). Restore a copy, or make it again."
        ) from error
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise ValueError(f"{str(path)!r} was not written by vislens_interp; expected a folder of {writer}.")
    written = content.get("format_version")
    if version is not None and isinstance(written, int) and written > version:
        raise ValueError(
            f"folder={str(folder)!r} has format version {written}, newer than this library reads ({version})."
            " Upgrade vislens_interp."
        )
    return content


def check_schema(value: object, spec: Spec, where: str, name: str = "") -> None:
    """Raise ValueError, with the name of the field, where a value is not of the kind that is expected.

    Args:
        value: What a file holds.
        spec: ``str``, ``int``, ``float`` (finite), ``bool``, any other class; ``object`` for a free value of limited
            depth; None; a frozenset of values; a tuple of alternatives; ``[spec]`` for a list; ``{str: spec}`` for a
            dictionary by any names; ``{"name": spec, "other?": spec}`` for one with these fields, of which the second
            may be absent.
        where: The file, for the message.
        name: The field, for the message.

    >>> check_schema({"unit": "16", "seeds": [1, "2"]}, {"unit": str, "seeds": [int]}, "'result.json'")
    Traceback (most recent call last):
    ValueError: 'result.json': seeds[1] is '2'; expected a whole number. Restore a copy, or make it again.
    """
    fitting = [one for one in (spec if isinstance(spec, tuple) else (spec,)) if _is_kind(value, one)]
    if not fitting:
        _refuse(value, spec, where, name)
    spec = fitting[0]
    if isinstance(spec, list) and isinstance(value, list):
        for index, item in enumerate(value):
            check_schema(item, spec[0], where, f"{name}[{index}]")
    elif isinstance(spec, dict) and isinstance(value, dict):
        _check_fields(value, spec, where, name)
    elif spec is object:
        level, depth = [value], 0
        while level:
            depth += 1
            if depth > DEEPEST:
                raise ValueError(
                    f"{where}: {name} is nested more than {DEEPEST} levels deep; expected few. Restore a copy, or make"
                    " it again."
                )
            level = [item for one in level for item in _inside(one)]


def check_finite(value: object, where: str, name: str = "") -> None:
    """Raise ValueError, with the name of the field, where a tensor in nested dictionaries and lists is not finite."""
    if isinstance(value, Tensor):
        if not value.isfinite().all():
            raise ValueError(f"{where}: {name} holds NaN or infinity. Restore a copy, or make it again.")
    elif isinstance(value, (Mapping, list)):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            check_finite(item, where, f"{name}.{key}" if name else str(key))


def check_tensors(value: Mapping[str, Any] | None, like: Mapping[str, Tensor], where: str, name: str) -> None:
    """Raise ValueError, with the name of the field, where tensors are not those of a network or optimiser.

    Args:
        value: What a file holds in the place of ``like``.
        like: Such tensors by name, as a ``state_dict`` has them: names and shapes count.
        where, name: The file and the field, for the message.
    """
    check_schema(value, dict.fromkeys(like, Tensor), where, name)
    assert value is not None  # or the schema would not fit
    for key, tensor in value.items():
        if key not in like:
            raise ValueError(f"{where}: {name}.{key} is unknown; expected {list(like)}. Restore a copy.")
        if tensor.shape != like[key].shape or tensor.is_complex():
            raise ValueError(
                f"{where}: {name}.{key} has shape {tuple(tensor.shape)}; expected {tuple(like[key].shape)}. Restore a"
                " copy, or make it again."
            )


def restore_optimizer(
    optimizer: torch.optim.Optimizer, saved: Mapping[str, Any] | None, where: str, name: str = "optimizer"
) -> None:
    """Moments and learning rates of a saved Adam; its other numbers are those of this call.

    Args:
        optimizer: Of the same parameters, in the same groups.
        saved: Its ``state_dict``, from a file.
        where, name: The file and the field, for the message.

    Raises:
        ValueError: It is of other parameters, or was changed.
    """
    own = optimizer.state_dict()["param_groups"]
    check_schema(saved, {"state": dict, "param_groups": [{"lr": float}]}, where, name)
    assert saved is not None  # or the schema would not fit
    state, groups = saved["state"], saved["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if len(groups) != len(own) or (state and set(state) != set(range(len(parameters)))):
        raise ValueError(
            f"{where}: {name} holds {len(groups)} param_groups and the state of {list(state)}; expected {len(own)} and"
            f" {len(parameters)} parameters. Restore a copy, or make it again."
        )
    for number, moments in state.items():
        like = {"step": torch.tensor(0.0), "exp_avg": parameters[number], "exp_avg_sq": parameters[number]}
        check_tensors(moments, like, where, f"{name}.state.{number}")
    rates = [{**group, "lr": one["lr"]} for group, one in zip(own, groups, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": rates})


def check_inside(folder: Path, file: str, where: str, name: str) -> Path:
    """The path of a file that is named in a folder's table of contents; ValueError if it leaves the folder."""
    parts = PurePosixPath(file), PureWindowsPath(file)
    outside = not file or "\0" in file or any(one.is_absolute() or one.drive or ".." in one.parts for one in parts)
    if outside or not (folder / file).resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{where}: {name} names {file!r}, outside the folder; expected files in it. Restore a copy.")
    return folder / file


def _check_fields(value: Mapping[str, Any], spec: Mapping[Any, Spec], where: str, name: str) -> None:
    if str in spec:
        for key, item in value.items():
            if not isinstance(key, str):
                _refuse(key, str, where, f"a key of {name}")
            check_schema(item, spec[str], where, f"{name}[{key!r}]")
        return
    for key, one in spec.items():
        field, optional = key.removesuffix("?"), key.endswith("?")
        full = f"{name}.{field}" if name else field
        if field in value:
            check_schema(value[field], one, where, full)
        elif not optional:
            raise ValueError(f"{where}: {full} is missing; expected {_said(one)}. Restore a copy, or make it again.")


def _inside(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, (list, tuple)) else []


def _is_kind(value: object, spec: Spec) -> bool:
    if spec is None:
        return value is None
    if isinstance(spec, list):
        return isinstance(value, list)
    if isinstance(spec, frozenset):
        return isinstance(value, str) and value in spec
    if isinstance(spec, dict):
        return isinstance(value, dict)
    if spec is float:
        largest = LARGEST if isinstance(value, float) else 2**63 - 1  # what a tensor takes
        return isinstance(value, (int, float)) and not isinstance(value, bool) and -largest <= value <= largest
    return isinstance(value, spec) and (spec is not int or not isinstance(value, bool))


def _refuse(value: object, spec: Spec, where: str, name: str) -> NoReturn:
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else f"a {type(value).__name__}"
    text = text if len(text) <= 80 else f"{text[:77]}..."
    raise ValueError(
        f"{where}: {name or 'the whole'} is {text}; expected {_said(spec)}. Restore a copy, or make it again."
    )


def _said(spec: Spec) -> str:
    if isinstance(spec, tuple):
        return " or ".join(_said(one) for one in spec)
    if spec is None:
        return "null"
    if isinstance(spec, frozenset):
        return f"one of {sorted(spec)}"
    if isinstance(spec, (list, dict)):
        return "a list" if isinstance(spec, list) else "a dictionary"
    return _NAMES.get(spec, getattr(spec, "__name__", str(spec)))
