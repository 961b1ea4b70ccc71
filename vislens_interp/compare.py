"""Every method on the same unit, inputs, noise seeds and scorer: fitted, run, kept, and scored."""

import hashlib
import inspect
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vislens_interp.backends.base import Backend
from vislens_interp.baselines import METHODS
from vislens_interp.baselines import method as method_by_name
from vislens_interp.comparison import ONE_UNIT, Comparison
from vislens_interp.files import fingerprint, load_state, save_state
from vislens_interp.images import image_keys
from vislens_interp.landscape.prior import Direction
from vislens_interp.method import LandscapeMethod
from vislens_interp.metrics.angle import edit_angle
from vislens_interp.metrics.scorer import Scorer
from vislens_interp.targets.memory import PeakMemory
from vislens_interp.targets.target import Target

OURS = ("edit", "optimize")
KIND = "comparison part"


def name_methods(methods: Sequence[Any] | Mapping[str, Any]) -> dict[str, Any]:
    """Label to method, from names and methods, or from a mapping as it is.

    Raises:
        TypeError: Something is neither a name nor a method.
        ValueError: There are none, or two of one label.
    """
    if isinstance(methods, str):
        raise TypeError(f"methods={methods!r} is text; expected several methods. Pass [{methods!r}].")
    if isinstance(methods, Mapping):
        named = [(str(label), method) for label, method in methods.items()]
    else:
        named = [(one if isinstance(one, str) else type(one).__name__, one) for one in methods]
    if not named:
        raise ValueError("methods is empty; expected at least one, such as ['edit', 'ridge_pattern', 'unedited'].")
    found: dict[str, Any] = {}
    for label, method in named:
        if not isinstance(method, str) and not (hasattr(method, "fit") and hasattr(method, "generate")):
            raise TypeError(
                f"methods holds a {type(method).__name__}; expected names, or objects with fit and generate such as "
                "RidgePattern()."
            )
        if label in found:
            raise ValueError(
                f"methods holds {label!r} twice; expected different labels. Pass a dict of label to method, such as "
                "{'ridge, 40°': RidgePattern(angle=40)}."
            )
        found[label] = method
    return found


def build(method: Any, ours: LandscapeMethod, angle: float | None) -> Any:
    """The method of a name, at this edit angle where it has one; the lens's own landscape is not fitted again."""
    if not isinstance(method, str):
        return method
    turned = {} if angle is None else {"angle": angle}
    if method in OURS:
        settings = {**ours.settings, **(turned if method == "edit" else {})}
        mine = LandscapeMethod(method, shuffles=ours.shuffles, seed=ours.seed, **settings)  # pyright: ignore[reportArgumentType]
        mine.bind(ours.target, ours.backend)
        mine.landscape_, mine.shuffled_, mine.evidence_ = ours.landscape_, ours.shuffled_, ours.evidence_
        mine.take_surface(ours)
        return mine
    if method == "shuffled":
        return method_by_name(method, **{"seed": ours.seed, **ours.settings, **turned})
    if method in METHODS and "angle" not in inspect.signature(METHODS[method].load()).parameters:
        turned = {}
    return method_by_name(method, **turned)


def angle_of(maker: Any) -> float | None:
    """The edit angle that a method is set to; None where it has none."""
    inner = getattr(maker, "method", maker)
    if isinstance(inner, LandscapeMethod):
        return inner.settings.get("angle") if inner.technique == "edit" else None
    return getattr(inner, "angle", None)


def is_edit(maker: Any) -> bool:
    """Whether a method's edited x costs nothing to compute again: neither search nor optimisation is behind it."""
    from vislens_interp.baselines.controls import Unedited
    from vislens_interp.baselines.embedding_edit import EmbeddingEdit

    inner = getattr(maker, "method", maker)
    return isinstance(inner, (EmbeddingEdit, Unedited)) or (
        isinstance(inner, LandscapeMethod) and inner.technique == "edit"
    )


class Run:
    """One comparison: methods are fitted on what the landscape learned from, and make pictures of the same inputs.

    Args:
        ours: The fitted landscape's method.
        methods: Label to what :func:`build` made.
        inputs: (N, 3, S, S) images to move.
        learned: Makes the images (M, 3, S, S) and responses (M, K) that every method learns from.
        directions: ``"increase"``, ``"decrease"`` or both.
        strength: SDEdit strength of every generation; None is each method's own.
        folder: Where each finished method and seed is kept, or None.
    """

    def __init__(
        self,
        ours: LandscapeMethod,
        methods: dict[str, Any],
        inputs: Tensor,
        learned: Callable[[], tuple[Tensor, Tensor]],
        directions: Sequence[Direction],
        *,
        fit_seconds: float | None,
        strength: float | None,
        folder: Path | None,
    ) -> None:
        self.ours, self.methods, self.inputs, self.directions = ours, methods, inputs, list(directions)
        self.target: Target = ours.target
        self.backend: Backend = ours.backend
        self.learned, self.fit_seconds, self.strength, self.folder = learned, fit_seconds, strength, folder
        self._fitted: dict[str, float | None] = {}
        self._common = {
            "target": self.target.describe(),
            "backend": self.backend.name,
            "landscape": fingerprint(ours.landscape_.vae.state_dict()),
            "images": image_keys(inputs),
            "directions": self.directions,
            "strength": strength,
            "defaults": asdict(self.backend.defaults),  # what a method is not told, it takes from here
        }
        self._said = {label: describe_method(maker) for label, maker in methods.items()}  # before a fit adds to them

    def part(self, label: str, seed: int) -> dict[str, Any]:
        """What a method made with one seed, from the folder if it is there."""
        identity = json.dumps({**self._common, "method": self._said[label], "seed": seed}, sort_keys=True, default=str)
        path = None
        if self.folder is not None:
            # Labels may differ in what no file's name can hold; their hash tells those apart.
            stem = re.sub(r"[^A-Za-z0-9_-]+", "_", label)[:60]
            mark = hashlib.sha256(label.encode()).hexdigest()[:6]
            path = self.folder / f"{stem}-{mark}-seed{seed}.safetensors"
            if path.exists():
                return self._read(path, identity)
        part = self._make(label, seed)
        if path is not None:
            save_state(path, KIND, {"identity": identity, **part})
        return part

    def _read(self, path: Path, identity: str) -> dict[str, Any]:
        kept = load_state(path, KIND)
        was, now = json.loads(kept.pop("identity")), json.loads(identity)
        for name in now:
            if was.get(name) != now[name]:
                raise ValueError(
                    f"folder holds {path.name!r} of another comparison: its {name} was {_short(was.get(name))}, and is "
                    f"{_short(now[name])} now; expected parts of this one. Name another folder, or delete that file."
                )
        return kept

    def _make(self, label: str, seed: int) -> dict[str, Any]:
        maker = self.methods[label]
        fit_seconds = self._fit(label)
        # A seed of its own for each image and repetition: methods that only read the seed show several pictures, too.
        seeds = [seed * len(self.inputs) + row for row in range(len(self.inputs))]
        # Kept in 8 bits, as a file would, and scored from them: a resumed comparison scores what another one does.
        made = {"unedited": _to_8_bits(maker.generate(self.inputs, {}, seeds=seeds, strength=self.strength))}
        costs: dict[str, dict[str, float]] = {}
        angles: dict[str, Tensor] = {}
        for unit in range(len(self.target.names)):
            for way in self.directions:
                key = f"{unit}/{way}"
                with PeakMemory(self.backend.device) as memory:
                    images = maker.generate(self.inputs, {unit: way}, seeds=seeds, strength=self.strength)
                made[key] = _to_8_bits(images)
                spent, count = maker.cost_, len(self.inputs)
                costs[key] = {
                    "forward": spent.forward / count,
                    "backward": spent.backward / count,
                    "seconds": spent.seconds / count,
                }
                if fit_seconds is not None:
                    costs[key]["fit_seconds"] = fit_seconds
                if memory.mebibytes is not None:
                    costs[key]["memory"] = memory.mebibytes
                if is_edit(maker):
                    angles[key] = self._angles(maker, unit, way)
        return {"images": made, "costs": costs, "angles": angles}

    def _fit(self, label: str) -> float | None:
        """Seconds of the fit, once for all seeds; the lens's own is not repeated."""
        if label not in self._fitted:
            maker = self.methods[label]
            if getattr(maker, "landscape_", None) is self.ours.landscape_:
                self._fitted[label] = self.fit_seconds
            else:
                images, responses = self.learned()
                start = time.perf_counter()
                maker.fit(self.target, self.backend, images, responses)
                self._fitted[label] = time.perf_counter() - start
        return self._fitted[label]

    @torch.no_grad()
    def _angles(self, maker: Any, unit: int, way: Direction) -> Tensor:
        """Degrees (N,) that each x has turned: an embedding from the image's own, pixels from the unedited decoding."""
        x = self.backend.encode(self.inputs)
        edited = maker.embeddings(x, {unit: way})
        return edit_angle(x if x.ndim == 2 else maker.embeddings(x, {}), edited).cpu()


def collect(run: Run, scorer: Scorer, labels: Sequence[str], seeds: Sequence[int], *, progress: bool) -> Comparison:
    """Make and score everything; what was made before is read."""
    names = list(run.target.names)
    values: dict[tuple[str, str, str], dict[tuple[int, int], Tensor]] = {}
    pictures: dict[str, dict[Any, Tensor]] = {name: {"reference": run.inputs[:SHOWN].cpu()} for name in names}
    for label, seed in tqdm([(m, s) for m in labels for s in seeds], desc="methods x seeds", disable=not progress):
        part = run.part(label, seed)
        images = {key: value.float() / 255 for key, value in part["images"].items()}
        for unit, name in enumerate(names):
            made = {way: images[f"{unit}/{way}"] for way in run.directions}
            found = scorer.score(unit, {"unedited": images["unedited"], **made})
            for way in run.directions:
                key = f"{unit}/{way}"
                found |= {(way, measure): torch.tensor([value]) for measure, value in part["costs"][key].items()}
                if key in part["angles"]:
                    found[way, "edit_angle"] = part["angles"][key]
                if seed == seeds[0]:
                    pictures[name][label, way] = made[way][:SHOWN]
            for (way, measure), value in found.items():
                values.setdefault((label, way, measure), {})[unit, seeds.index(seed)] = value.double()
    whole = len(names) * len(seeds)
    scores = {key: _stack(cells, len(names), len(seeds)) for key, cells in values.items() if len(cells) == whole}
    said = run.target.describe()
    where = " ".join(str(one) for one in (said.get("model"), said.get("layer")) if one)
    units = [f"{where} {name}".strip() for name in names]
    return Comparison(
        methods=list(labels),
        units=units,
        seeds=list(seeds),
        images=image_keys(run.inputs),
        scores=scores,
        pictures=dict(zip(units, pictures.values(), strict=True)),
        notes=_budgets(scores, labels) + ([ONE_UNIT] if len(units) == 1 else []),
        settings={**run._common, "methods": run._said, "seeds": list(seeds)},
    )


SHOWN = 4
"""Pictures of each method that the figure shows."""


def _budgets(scores: dict[tuple[str, str, str], Any], labels: Sequence[str]) -> list[str]:
    """Said where methods ask the target unequally often; nothing where they do not."""
    spent = {}
    for label in labels:
        passes = [
            np.mean([values.mean() for (m, _, k), values in scores.items() if (m, k) == (label, kind)])
            for kind in ("forward", "backward")
        ]
        spent[label] = (float(passes[0]), float(passes[1]))
    if len({(round(one, 3), round(other, 3)) for one, other in spent.values()}) == 1:
        return []
    listed = ", ".join(f"{label} {one:.0f} + {other:.0f}" for label, (one, other) in spent.items())
    return [f"Budgets are unequal. Passes through the target a picture, forward + backward: {listed}."]


def _stack(cells: dict[tuple[int, int], Tensor], units: int, seeds: int) -> Any:
    """(units, images or 1, seeds)."""
    rows = [torch.stack([cells[unit, seed] for seed in range(seeds)], 1) for unit in range(units)]
    return torch.stack(rows).numpy()


def _to_8_bits(images: Tensor) -> Tensor:
    return (images.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def describe_method(value: Any) -> Any:
    """Class and settings of a method that is not fitted yet, as JSON values."""
    if isinstance(value, LandscapeMethod):
        return [type(value).__name__, {"technique": value.technique, "seed": value.seed, **value.settings}]
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, Mapping):
        return {str(key): describe_method(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe_method(item) for item in value]
    if hasattr(value, "generate"):
        mine = {name: item for name, item in vars(value).items() if not name.endswith("_") and name[0] != "_"}
        return [
            type(value).__name__,
            {name: describe_method(item) for name, item in mine.items() if name not in _BOUND},
        ]
    return type(value).__name__


_BOUND = ("target", "backend")
"""What a method is bound to, not set to."""


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
