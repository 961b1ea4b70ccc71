"""A fitted lens as one file, without the model and without images."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vislens_interp.backends.base import Backend
from vislens_interp.config import Config, migrate, resolve
from vislens_interp.files import load_state, save_state
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.surrogate import ResponseSurrogate
from vislens_interp.methods.landscape import LandscapeEdit
from vislens_interp.reference import ReferenceSet
from vislens_interp.results.background import EVIDENCE, read_evidence
from vislens_interp.schema import check_schema
from vislens_interp.targets.target import Target

KIND = "lens"
_ORIGINS = frozenset({"given", "synthetic", "photographs"})
SCHEMA = {
    "landscape": {
        "vae": {"kind": str, "config": dict, "channels_last": bool, "weights": {str: Tensor}},
        "prior": dict,
        "scaler": dict,
        "names": [str],
        "latents": Tensor,
        "responses": Tensor,
        "held_out": Tensor,
    },
    "surrogate?": (dict, None),
    "evidence": [EVIDENCE],
    "shuffled_axes?": Tensor,
    "config?": {str: {str: object}},
    "settings?": {str: object},
    "seed": int,
    "origin": _ORIGINS,
    "measured": bool,
    "learned?": [str],
    "backend": str,
    "target": {
        "layer?": (str, None),
        "units": [str],
        "channels?": list,
        "pool?": (str, None),
        "preprocess?": (str, None),
        "fingerprint?": (str, None),
    },
}
_DAMAGE = (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError, ArithmeticError)
"""What rebuilding raises of a file that was changed; RecursionError is a RuntimeError."""


def save(
    path: str | Path, target: Target, backend: str, seed: int, method: LandscapeEdit, reference: ReferenceSet
) -> Path:
    """Write a fitted lens: its landscape, what was learned beside it, and what it has to be loaded for."""
    described = target.describe()
    if "fingerprint" not in described and getattr(target, "name", "") is None:
        kind = type(target).__name__
        raise ValueError(
            f"the lens's target is a {kind} without a name; expected one, by which a loaded lens knows its function"
            f" again. Pass name= to {kind}."
        )
    state = {
        "landscape": method.landscape_.state(),
        "surrogate": None if method.surrogate_ is None else method.surrogate_.state(),
        "evidence": [item.to_dict() for item in method.evidence_.values()],
        "shuffled_axes": method.shuffled_axes,
        "config": method.config.to_dict(),
        "seed": seed,
        "origin": reference.origin,
        "measured": reference.measured,
        "learned": sorted(reference.learned_keys),
        "backend": backend,
        "target": described,
    }
    return save_state(path, KIND, state)


def load_changed(path: str | Path, kind: str) -> dict[str, Any]:
    """:func:`~vislens_interp.files.load_state`, whose header may have been edited; ValueError if so."""
    try:
        state = load_state(path, kind)
    except _DAMAGE as error:
        if str(path) in str(error):
            raise
        raise ValueError(
            f"path={str(path)!r}: its header was changed ({type(error).__name__}: {error}). Restore a copy, or make it"
            " again."
        ) from error
    check_schema(state, dict, f"path={str(path)!r}")
    return state


def read(path: str | Path) -> dict[str, Any]:
    """What :func:`save` wrote; of 0.1.0 with the kind of reference set by today's names.

    Raises:
        ValueError: It was changed since: the message names the field.
    """
    saved = load_changed(path, KIND)
    kind, where = saved.pop("reference_kind", None), f"path={str(path)!r}"
    if isinstance(kind, str):
        saved |= {"synthetic": kind.startswith("synthetic"), "measured": kind.endswith("measured responses")}
    if "synthetic" in saved:
        saved["origin"] = "synthetic" if saved.pop("synthetic") else "given"
    check_schema(saved, SCHEMA, where)
    check_schema(saved["target"], object, where, "target")
    landscape = saved["landscape"]
    rows, units = len(landscape["latents"]), len(landscape["names"])
    if not rows or landscape["latents"].ndim != 2 or landscape["responses"].shape != (rows, units):
        raise ValueError(
            f"{where}: landscape.responses has shape {tuple(landscape['responses'].shape)}; expected ({rows}, {units}),"
            " a row for each of landscape.latents and a column for each of landscape.names. Restore a copy, or fit"
            " again."
        )
    for name in ("latents", "responses"):
        if not landscape[name].isfinite().all():
            raise ValueError(f"{where}: landscape.{name} holds NaN or infinity. Restore a copy, or fit again.")
    if saved["target"]["units"] != landscape["names"]:
        raise ValueError(
            f"{where}: target.units is {saved['target']['units']}; expected landscape.names, {landscape['names']}."
            " Restore a copy, or fit again."
        )
    return saved


def reading(saved: Mapping[str, Any], path: str | Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Reading arguments of a saved lens on a network, where the file holds them.

    Raises:
        ValueError: Its units are no numbers, and are not given.
    """
    described = saved["target"]
    check_schema(described, {"layer": (str, None), "pool": str}, f"path={str(path)!r}", "target")
    arguments = {"layer": described["layer"] or None, "pool": described["pool"], "call": described.get("call")}
    arguments["layout"] = described.get("declared_layout")
    output = described.get("output")
    arguments["output"] = tuple(output) if isinstance(output, list) else output
    if "unit" not in given:
        names = described["units"]
        numbers = [int(name) for name in names if name.lstrip("-").isdigit()]
        if len(numbers) != len(names) or "channels" in described:  # a label may look like a number
            raise ValueError(
                f"path={str(path)!r} holds the units {names}; pass the same ones as unit=, and labels= if that "
                "is where their names come from."
            )
        arguments["unit"] = numbers if len(numbers) > 1 else numbers[0]
    return arguments


def check_same_target(saved: Mapping[str, Any], path: str | Path, target: Target, *, network: bool) -> None:
    """Raise ValueError where a target is not the one that the saved lens was fitted for."""
    now, described = target.describe(), saved["target"]
    names = ("layer", "units", "channels", "pool", "layout", "output", "call")
    # A preprocessing that can only say where it lies in memory cannot be compared.
    known = all(side.get("preprocess") and " at 0x" not in side["preprocess"] for side in (now, described))
    names = (*names, *(("preprocess",) if known else ()), *(() if network else ("model",)))
    for name in names:
        if _plain(now.get(name)) != _plain(described.get(name)):
            raise ValueError(
                f"{name}={now.get(name)!r}, but the lens in {str(path)!r} was fitted with {described.get(name)!r}; "
                "pass that, or fit again."
            )
    if now.get("fingerprint") != described.get("fingerprint"):
        raise ValueError(
            f"model's weights (fingerprint {now.get('fingerprint')}) are not those that the lens in {str(path)!r} "
            f"was fitted for ({described.get('fingerprint')}); pass that model, or fit again."
        )


def restore(
    saved: Mapping[str, Any], path: str | Path, target: Target, backend: Backend
) -> tuple[LandscapeEdit, ReferenceSet]:
    """The fitted method, and what is known of its reference set."""
    with _part(path, "config" if "config" in saved else "settings"):
        if "config" in saved:
            config = Config.from_dict(saved["config"])
        else:  # 0.1.0 kept only what was not the backend's default
            config = resolve(backend.defaults, migrate(saved["settings"]), {"seed": saved["seed"]})
    method = LandscapeEdit(config).bind(target, backend)
    with _part(path, "landscape"):
        method.landscape_ = Landscape.from_state(saved["landscape"])
    if method.landscape_.vae.shape != backend.shape:
        raise ValueError(
            f"backend={backend.name!r} has x of shape {backend.shape}, and this lens was fitted on x of shape "
            f"{method.landscape_.vae.shape}; expected the same. A lens that 0.1.0 fitted on its 64-pixel backend "
            "'embedded' has to be fitted again on today's."
        )
    method.landscape_.vae.to(backend.device)
    with _part(path, "landscape"):  # its parts fit together
        method.landscape_.decode(method.landscape_.latents[:1].to(backend.device))
        method.landscape_.latents[method.landscape_.held_out]
        for unit in range(len(method.landscape_.names)):
            method.landscape_.goal(method.landscape_.latents[:1], {unit: "increase"})
    if saved.get("surrogate") is not None:
        with _part(path, "surrogate"):
            method.surrogate_ = ResponseSurrogate(method.landscape_, state=saved["surrogate"])
    axes, units = saved.get("shuffled_axes"), len(method.landscape_.names)
    if axes is not None and axes.numel():
        fits = axes.shape[1:] == (units, *backend.shape) and axes.dtype == torch.float32
        if not fits or not axes.isfinite().all():
            raise ValueError(
                f"path={str(path)!r}: shuffled_axes has shape {tuple(axes.shape)}; expected finite numbers, (shuffles, "
                f"{units}, {', '.join(map(str, backend.shape))}). Restore a copy, or fit again."
            )
        method.shuffled_axes = axes.clone()
    method.evidence_ = {item.unit: item for item in map(read_evidence, saved["evidence"])}
    reference = ReferenceSet.without_images(
        saved.get("learned", []), measured=saved["measured"], origin=saved["origin"]
    )
    return method, reference


@contextmanager
def _part(path: str | Path, field: str) -> Iterator[None]:
    """Name the field of a file that cannot be rebuilt."""
    try:
        yield
    except _DAMAGE as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"path={str(path)!r}: {field} cannot be restored ({reason[:300]}). Restore a copy, or fit again."
        ) from error


def _plain(value: object) -> object:
    """Tuples as the lists that a file makes of them."""
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
