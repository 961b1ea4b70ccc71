"""Every method on one unit: the same images, seeds and scorers, and what each picture cost."""

import contextlib
import copy
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from vislens_interp.baselines import METHODS
from vislens_interp.baselines import method as method_by_name
from vislens_interp.comparison import Comparison
from vislens_interp.files import fingerprint, load_state, save_state, write_text
from vislens_interp.images import image_keys, load_images
from vislens_interp.landscape.edit import angle_between
from vislens_interp.landscape.prior import DIRECTIONS, Direction
from vislens_interp.method import LandscapeMethod, Method
from vislens_interp.metrics import (
    SecondNetwork,
    cosine_similarity,
    diversity,
    kernel_distance,
    percentile_among,
    predictivity,
    signed_change,
    spectrum_distance,
    transfer,
)

if TYPE_CHECKING:
    from vislens_interp.lens import FeatureLens

Features = Callable[[Tensor], Tensor]
"""Images (N, 3, S, S) in [0, 1] to features (N, D)."""

OURS = ("edit", "optimize")
MOST_NATURAL = 500
"""Held-out natural images that judge; all pairs of them are asked."""
SHOWN = 6
"""Pictures of each method, direction and seed that are kept for the figure."""


def compare(
    lens: "FeatureLens",
    images: Any,
    methods: Sequence[str | Method] | Mapping[str, str | Method],
    seeds: Sequence[int] = (0, 1, 2),
    *,
    folder: str | Path | None = None,
    angle: float | None = None,
    features: Features | None = None,
    second: Features | None = None,
    progress: bool = False,
) -> Comparison:
    """See :meth:`vislens_interp.lens.FeatureLens.compare`."""
    chosen = _labelled(methods)
    seed_list = _checked_seeds(seeds)
    pictures, names = lens.example_images() if images is None else load_images(images, size=lens.backend.size)
    bench = _Bench(lens, pictures, names, features, second)
    if angle is None:
        angle = bench.own_angle()
    elif not 0 < angle <= 180:
        raise ValueError(f"angle={angle} must lie above 0 and up to 180: degrees by which every edit turns.")
    plan = bench.describe(chosen, angle)
    where = None if folder is None else _open_folder(Path(folder), plan)
    parts: dict[tuple[str, int], dict[str, Any]] = {}
    bar = tqdm(total=len(chosen) * len(seed_list), desc="compare", unit="method x seed", disable=not progress)
    for label, one in chosen.items():
        fitted: Any = None
        for seed in seed_list:
            file = None if where is None else where / f"{_slug(label)}-seed{seed}.safetensors"
            if file is not None and file.is_file():
                parts[label, seed] = load_state(file, "comparison part")
            else:
                if fitted is None:
                    fitted, seconds, matched = bench.fit(one, angle)
                parts[label, seed] = bench.measure(fitted, seed) | {"fit_seconds": seconds, "matched": matched}
                if file is not None:
                    save_state(file, "comparison part", parts[label, seed])
            bar.update()
    bar.close()
    return Comparison.of_parts(parts, list(chosen), seed_list, list(lens.target.names), plan)


class _Bench:
    """What is the same for every method: images, the pool of natural ones, and who judges."""

    def __init__(
        self,
        lens: "FeatureLens",
        pictures: Tensor,
        names: list[str],
        features: Features | None,
        second: Features | None,
    ) -> None:
        self.lens, self.pictures, self.names = lens, pictures, names
        fitted = lens._fitted()
        if lens._reference is None:
            raise ValueError(
                "this lens was loaded without reference images, on which methods are fitted; call fit(images) first."
            )
        reference, responses = lens._reference[0], fitted.landscape_.responses
        held_out = fitted.landscape_.held_out
        training = torch.ones(len(responses), dtype=torch.bool)
        training[held_out] = False
        # Every method learns from the very images that the landscape learned from.
        self.training = training.nonzero()[:, 0]
        self.reference, self.responses = reference[self.training], responses[self.training]
        pool = reference[held_out[:MOST_NATURAL]]
        edited = set(image_keys(pictures))
        fresh = [row for row, key in enumerate(image_keys(pool)) if key not in edited]
        if len(fresh) < 2:
            raise ValueError(
                f"images holds all but {len(fresh)} of the {len(pool)} reference images that the fit held out, and at "
                "least 2 others are needed to judge by. Compare on fewer images, or fit on more."
            )
        self.natural = pool[fresh]
        self.natural_responses = responses[held_out[:MOST_NATURAL]][fresh]
        self.natural_keys = image_keys(self.natural)
        self.scaler = fitted.landscape_.scaler
        self.features, self.second = features, second
        self.natural_features = self._see(features, self.natural)
        self.input_features = self._see(features, pictures)
        self.readers: list[SecondNetwork] = []
        if second is not None:
            seen = self._see(second, self.natural)
            assert seen is not None
            self.readers = [SecondNetwork.fit(seen, column) for column in self.natural_responses.T]

    @staticmethod
    @torch.no_grad()
    def _see(network: Features | None, images: Tensor) -> Tensor | None:
        if network is None:
            return None
        found = torch.cat([network(part).flatten(1).detach().cpu().float() for part in images.split(64)])
        if len(found) != len(images):
            raise ValueError(
                f"features= or second= gave {len(found)} rows for {len(images)} images; expected (N, ...), a row for "
                "each. Pool positions inside it."
            )
        return found

    def own_angle(self) -> float:
        """Degrees by which the lens's own edit turns these images, mean over directions and units."""
        ours = self.lens._fitted()
        technique, ours.technique = ours.technique, "edit"
        try:
            x = self.lens.backend.encode(self.pictures)
            start = ours.embeddings(x, {})
            angles = [
                angle_between(ours.embeddings(x, {unit: way}), start).mean()
                for unit in range(len(self.lens.target.names))
                for way in DIRECTIONS
            ]
        finally:
            ours.technique = technique
        return max(torch.stack(angles).mean().item(), 1e-3)

    def fit(self, method: str | Method, angle: float) -> tuple[Any, float, bool]:
        """The fitted method, the seconds that it took, and whether its edit angle was set to ``angle``."""
        ours = self.lens._fitted()
        if isinstance(method, str) and method in OURS:
            made = copy.copy(ours)
            made.technique = method  # pyright: ignore[reportAttributeAccessIssue] (one of the two)
            history = ours.landscape_.history
            if method == "edit":
                made.settings = {**ours.settings, "angle": angle}
            return made, float(history[-1]["seconds"]) if history else 0.0, method == "edit"
        made: Any = method
        if isinstance(method, str):
            settings = {"seed": ours.seed, **ours.settings} if method == "shuffled" else {}
            made = method_by_name(method, **settings)
        else:
            made = copy.deepcopy(method)  # the caller's own stays as it was
        if getattr(made, "shows_reference", False) and (self.lens.reference_kind_ or "").startswith("synthetic"):
            raise ValueError(
                f"methods holds {method!r}, which shows reference images as natural ones, and those of this lens are "
                "synthetic. Fit on photographs first, or leave it out."
            )
        matched, editor = False, getattr(made, "method", made)
        if isinstance(editor, LandscapeMethod):
            if editor.technique == "edit":
                editor.settings, matched = {**editor.settings, "angle": angle}, True
        elif hasattr(editor, "angle"):
            editor.angle, matched = angle, True
        started = time.perf_counter()
        made.fit(self.lens.target, self.lens.backend, self.reference, self.responses)
        return made, time.perf_counter() - started, matched

    def measure(self, method: Any, seed: int) -> dict[str, Any]:
        """All measures of all units with pictures of one seed: {"scores", "cost", "pictures"}."""
        count = len(self.pictures)
        seeds = [seed * 10_000 + row for row in range(count)]
        memory = _PeakMemory(self.lens.backend.device)
        unedited = method.generate(self.pictures, {}, seeds=seeds)
        scores: dict[str, dict[str, list[Tensor]]] = {}
        spent: dict[str, dict[str, list[Tensor]]] = {}
        shown: dict[str, list[Tensor]] = {way: [] for way in DIRECTIONS}
        for unit in range(len(self.lens.target.names)):
            made: dict[str, Tensor] = {}
            for way in DIRECTIONS:
                memory.reset()
                started = time.perf_counter()
                made[way] = method.generate(self.pictures, {unit: way}, seeds=seeds)
                seconds = time.perf_counter() - started
                cost = getattr(method, "cost_", None)
                row = {"seconds": seconds / count, "memory": memory.peak()}
                if cost is not None:
                    row |= {"forward": cost.forward / count, "backward": cost.backward / count}
                for name, value in row.items():
                    if value is not None:
                        spent.setdefault(way, {}).setdefault(name, []).append(torch.tensor([value]))
                for name, value in self._score(unit, way, made[way], unedited).items():
                    scores.setdefault(way, {}).setdefault(name, []).append(value)
                shown[way].append(made[way][:SHOWN])
            value = self._predictivity(unit, made)
            if value is not None:
                scores.setdefault("both", {}).setdefault("predictivity", []).append(torch.tensor([value]))
        stack = {way: {name: torch.stack(rows).double() for name, rows in one.items()} for way, one in scores.items()}
        costs = {way: {name: torch.stack(rows).double() for name, rows in one.items()} for way, one in spent.items()}
        kept = {way: (torch.stack(rows) * 255).round().to(torch.uint8) for way, rows in shown.items()}
        inputs = (self.pictures[:SHOWN].cpu() * 255).round().to(torch.uint8)
        return {"scores": stack, "cost": costs, "pictures": kept, "inputs": inputs}

    def _score(self, unit: int, way: Direction, made: Tensor, unedited: Tensor) -> dict[str, Tensor]:
        """Measures of one direction: (images,) each, or (1,) where a measure belongs to the whole set."""
        target, backend = self.lens.target, self.lens.backend
        read, start, given = (
            self.scaler.standardise(target.responses(part.to(target.device)))[:, unit].cpu()
            for part in (made, unedited, self.pictures)
        )
        natural = self.scaler.standardise(self.natural_responses)[:, unit]
        change = signed_change(read - start, way)
        share = percentile_among(read, natural)
        found = {
            "response_change": change,
            "response_change_from_input": signed_change(read - given, way),
            "right_way": (change > 0).double(),
            "percentile": share if way == "increase" else 1 - share,
            "edit_angle": angle_between(backend.encode(made), backend.encode(self.pictures)).cpu(),
            "spectrum_distance": torch.tensor([spectrum_distance(made, self.natural)]),
        }
        features = self._see(self.features, made)
        if features is not None and self.natural_features is not None and self.input_features is not None:
            found["similarity"] = cosine_similarity(features, self.input_features)
            if len(made) > 1:
                found["diversity"] = torch.tensor([diversity(features)])
                found["kernel_distance"] = torch.tensor([kernel_distance(features, self.natural_features)])
        if self.readers:
            edited, plain = self._see(self.second, made), self._see(self.second, unedited)
            assert edited is not None
            assert plain is not None
            found["transfer"] = transfer(self.readers[unit], edited, plain, way)
        return found

    def _predictivity(self, unit: int, made: dict[str, Tensor]) -> float | None:
        if self.features is None or self.natural_features is None:
            return None
        shown = {key for part in made.values() for key in image_keys(part)}
        rows = [row for row, key in enumerate(self.natural_keys) if key not in shown]  # nobody is asked for itself
        preferred, suppressed = (self._see(self.features, made[way]) for way in DIRECTIONS)
        assert preferred is not None
        return predictivity(
            preferred, suppressed, self.natural_features[rows], self.natural_responses[rows, unit]
        ).accuracy

    def describe(self, chosen: Mapping[str, str | Method], angle: float) -> dict[str, Any]:
        """What an interrupted comparison must share with the one that goes on, as JSON values."""
        return {
            "methods": {label: one if isinstance(one, str) else _spelled(one) for label, one in chosen.items()},
            "images": hashlib.sha256("".join(image_keys(self.pictures)).encode()).hexdigest()[:16],
            "count": len(self.pictures),
            "units": list(self.lens.target.names),
            "target": self.lens._target_description(),
            "backend": self.lens.backend.name,
            "reference_set": self.lens.reference_kind_,
            "landscape": fingerprint(self.lens.landscape_.vae.state_dict()),
            "angle": round(angle, 4),
            "natural": len(self.natural),
            "features": self.features is not None,
            "second": self.second is not None,
        }


class _PeakMemory:
    """Peak memory since the last reset in MB: the device's, or on Linux the process's; None where nobody counts."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def reset(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        with contextlib.suppress(OSError):  # the peak is then that of the whole run
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def peak(self) -> float | None:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e6
        status = Path("/proc/self/status")
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii")) if status.is_file() else None
        return None if found is None else int(found.group(1)) * 1024 / 1e6


def _labelled(methods: Any) -> dict[str, str | Method]:
    """Label to name or method."""
    if isinstance(methods, str) or not isinstance(methods, (Sequence, Mapping)):
        raise TypeError(
            f"methods is a {type(methods).__name__}; expected a list of names and methods, or label to method. Pass "
            "['edit', 'ridge_pattern']."
        )
    if isinstance(methods, Mapping):
        pairs = [(str(label), one) for label, one in methods.items()]
    else:
        pairs = [(one if isinstance(one, str) else type(one).__name__, one) for one in methods]
    labels = [label for label, _ in pairs]
    if not labels or len({_slug(label) for label in labels}) < len(labels):
        raise ValueError(
            f"methods names {labels}; expected at least one, each once. Give labels: {{'at 20': RidgePattern(), ...}}."
        )
    for label, one in pairs:
        if isinstance(one, str) and one not in METHODS:
            method_by_name(one)  # says what is near
        if not isinstance(one, str) and not (hasattr(one, "fit") and hasattr(one, "generate")):
            raise TypeError(
                f"methods[{label!r}] is a {type(one).__name__}; expected a name, or an object with fit and generate "
                "such as RidgePattern()."
            )
    return dict(pairs)


def _checked_seeds(seeds: Any) -> list[int]:
    if isinstance(seeds, int) or len(list(seeds)) == 0 or len(set(seeds)) < len(list(seeds)):
        raise ValueError(f"seeds={seeds!r}; expected at least one whole number, each once. Pass (0, 1, 2).")
    return [int(seed) for seed in seeds]


def _open_folder(folder: Path, plan: dict[str, Any]) -> Path:
    """The folder of finished parts, after a check that they belong to this comparison."""
    file = folder / "comparison.json"
    now = json.loads(json.dumps(plan))
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        kept, asked = before.pop("methods"), now.pop("methods")
        unlike = [key for key in now if before.get(key) != now[key]]
        unlike += [f"method {label!r}" for label in asked if label in kept and kept[label] != asked[label]]
        if unlike:
            raise ValueError(
                f"folder={str(folder)!r} holds another comparison: {', '.join(unlike)} differ. Pass a new folder, or "
                "compare as before."
            )
        now["methods"] = {**kept, **asked}
    elif folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"folder={str(folder)!r} holds something else; expected a new or empty one. Pass another.")
    write_text(file, json.dumps(now, indent=1))
    return folder


def _spelled(method: Any) -> str:
    settings = {name: value for name, value in sorted(vars(method).items()) if not name.endswith("_")}
    plain = {name: value for name, value in settings.items() if isinstance(value, (int, float, str, bool, dict))}
    return f"{type(method).__name__}({json.dumps(plain, default=str)})"


def _slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", label).strip("_").lower() or "method"
