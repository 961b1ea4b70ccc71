"""A fitted lens as one file, without the model and without images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from vislens_interp.backends.base import Backend, backend_names
from vislens_interp.config import Config, migrate, resolve
from vislens_interp.files import load_state, rebuilding, save_state
from vislens_interp.landscape.landscape import Landscape, check_state
from vislens_interp.landscape.surrogate import ResponseSurrogate
from vislens_interp.methods.landscape import LandscapeEdit
from vislens_interp.random_state import check_seed
from vislens_interp.reference import Origin, ReferenceSet
from vislens_interp.results.background import EVIDENCE, read_evidence
from vislens_interp.schema import check_finite, check_schema
from vislens_interp.targets.target import Target

KIND = "lens"
SCHEMA = {
    "landscape": dict,
    "surrogate?": (dict, None),
    "evidence": [EVIDENCE],
    "shuffled_axes?": Tensor,
    "config?": {str: {str: object}},
    "settings?": {str: object},
    "seed": int,
    "origin": frozenset(get_args(Origin)),
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


def read(path: str | Path) -> dict[str, Any]:
    """What :func:`save` wrote; of 0.1.0 with the kind of reference set by today's names.

    Raises:
        ValueError: It was changed since: the message names the field.
    """
    saved = load_state(path, KIND)
    kind, where = saved.pop("reference_kind", None), f"path={str(path)!r}"
    if isinstance(kind, str):
        saved |= {"synthetic": kind.startswith("synthetic"), "measured": kind.endswith("measured responses")}
    if "synthetic" in saved:
        saved["origin"] = "synthetic" if saved.pop("synthetic") else "given"
    check_schema(saved, SCHEMA, where)
    check_seed(saved["seed"], f"{where}: seed")
    check_schema(saved["target"], object, where, "target")
    landscape = saved["landscape"]
    check_state(landscape, where, "landscape")
    check_finite(saved.get("surrogate"), where, "surrogate")
    if saved["target"]["units"] != landscape["names"]:
        raise ValueError(
            f"{where}: target.units is {saved['target']['units']}; expected landscape.names, {landscape['names']}."
            " Restore a copy, or fit again."
        )
    return saved


def backend_of(saved: Mapping[str, Any], path: str | Path, given: Mapping[str, Any]) -> "str | Backend":
    """The backend that was given, or the name of the saved lens's.

    Raises:
        ValueError: Nobody registered a backend of that name.
    """
    if "backend" not in given and saved["backend"] not in backend_names():
        raise ValueError(
            f"path={str(path)!r} is of backend {saved['backend']!r}, which is unknown; expected one of"
            f" {backend_names()}. Import what registers it, or pass the backend as backend=."
        )
    return given.get("backend", saved["backend"])


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
    with rebuilding(path, "config" if "config" in saved else "settings"):
        if "config" in saved:
            config = Config.from_dict(saved["config"])
        else:  # 0.1.0 kept only what was not the backend's default
            config = resolve(backend.defaults, migrate(saved["settings"]), {"seed": saved["seed"]})
    method = LandscapeEdit(config).bind(target, backend)
    with rebuilding(path, "landscape"):
        method.landscape_ = Landscape.from_state(saved["landscape"])
    if method.landscape_.vae.shape != backend.shape:
        raise ValueError(
            f"backend={backend.name!r} has x of shape {backend.shape}, and this lens was fitted on x of shape "
            f"{method.landscape_.vae.shape}; expected the same. A lens that 0.1.0 fitted on its 64-pixel backend "
            "'embedded' has to be fitted again on today's."
        )
    method.landscape_.vae.to(backend.device)
    with rebuilding(path, "landscape"):  # its parts fit together
        method.landscape_.decode(method.landscape_.latents[:1].to(backend.device))
        method.landscape_.latents[method.landscape_.held_out]
        for unit in range(len(method.landscape_.names)):
            method.landscape_.goal(method.landscape_.latents[:1], {unit: "increase"})
    if saved.get("surrogate") is not None:
        with rebuilding(path, "surrogate"):
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


def reopened(known: ReferenceSet, backend: Backend, landscape: Landscape) -> ReferenceSet:
    """The backend's own reference set, if a loaded lens was fitted on just these images; else what is known of others.

    Args:
        known: The keys of the images that the lens learned from.
        backend: The lens's.
        landscape: Which says what was held out, and the responses.
    """
    own = None if known.origin == "given" else ReferenceSet.of_backend(backend)
    if own is None or len(own) != len(landscape.responses):
        return known
    own = own.with_held_out(landscape.held_out)
    if own.learned_keys != known.learned_keys:
        return known
    return own.with_responses(landscape.responses, measured=known.measured)


def _plain(value: object) -> object:
    """Tuples as the lists that a file makes of them."""
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
