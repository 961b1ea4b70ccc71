"""Every method on the same unit, inputs, noise seeds and scorer: fitted, run, kept, and scored."""

import hashlib
import inspect
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vislens_interp.evaluation.checks import check_method, check_reference, warn_of_overlap
from vislens_interp.evaluation.comparison import ONE_UNIT, Comparison, Key
from vislens_interp.evaluation.scorer import Scorer
from vislens_interp.evaluation.transfer import Transfer
from vislens_interp.files import check_writable, fingerprint, load_state, save_state
from vislens_interp.images import ImageSource, image_keys, load_images
from vislens_interp.landscape.prior import SENSES, Sense
from vislens_interp.methods import METHODS, method_by_name
from vislens_interp.methods.base import Method
from vislens_interp.methods.controls import Unedited
from vislens_interp.methods.embedding_edit import EmbeddingEdit
from vislens_interp.methods.landscape import LandscapeEdit, LandscapeMethod
from vislens_interp.methods.optimization import LandscapeOptimization
from vislens_interp.metrics.angle import edit_angle
from vislens_interp.progress import tqdm
from vislens_interp.random_state import check_seed
from vislens_interp.reference import ReferenceSet, embed
from vislens_interp.schema import check_finite, check_schema
from vislens_interp.targets.memory import PeakMemory
from vislens_interp.validation import check_functions, check_several, check_shares, check_word

if TYPE_CHECKING:
    from vislens_interp.lens import FeatureLens

KIND = "comparison part"
PART = {
    "identity": str,
    "images": {str: Tensor},
    "costs": {str: {str: float}},
    "angles": {str: Tensor},
    "landscape?": str,
    "responses?": Tensor,
}
"""What the file of a method and a seed holds."""
ROUNDING = 1e-3
"""SDs by which responses of one target to the same images may differ: another machine or number of threads."""
MIN_NATURAL = 20
"""Natural images that judge a comparison, at least: a percentile of fewer says little."""
DEFAULT_METHODS = ("edit", "ridge_pattern", "difference_of_means", "shuffled", "unedited")


def compare(
    lens: "FeatureLens",
    images: ImageSource | None = None,
    methods: Sequence[str | Method] | Mapping[str, str | Method] = DEFAULT_METHODS,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    direction: Literal["increase", "decrease", "both"] = "both",
    angle: float | None = None,
    strength: float | None = None,
    natural: ImageSource | None = None,
    embedding: Callable[[Tensor], Tensor] | None = None,
    second: Callable[[Tensor], Tensor] | None = None,
    folder: str | Path | None = None,
    progress: bool = False,
) -> Comparison:
    """Run several methods on the same images, noise seeds and scorer, and say how sure the scores are.

    Every method learns from the reference images and responses that the landscape learned from; what it held out
    judges. Each image and repetition has a noise seed of its own, the same for all methods. Fits are not repeated.

    Args:
        lens: Whose units; it is fitted first if it is not.
        images: Images to move, which the fit has not seen; None takes eight of the held-out reference pictures.
        methods: Names, or methods; a mapping of label to either gives them other labels.
        seeds: Repetitions of the generation.
        direction: Which way; each of a lens's units is moved alone.
        angle: Edit angle in degrees at which methods are matched that have one, those given by name. A comparison
            at unequal angles is one of how far was gone.
        strength: SDEdit strength of all that have one; None is each method's own.
        natural: Natural images that judge: percentile, realism, predictivity. None takes the held-out reference
            pictures, on which the fit of the landscape may have been stopped.
        embedding: Images (N, 3, S, S) in [0, 1] to (N, ...) features, for similarity, realism, diversity and
            predictivity: of a network that is neither the landscape's nor the target's. None takes the backend's
            feature extractor, unless the landscape was fitted in it.
        second: Likewise, of a second network to which changes are transferred.
        folder: Every finished method and seed is kept here, and read instead of made when called again, also with
            another number of threads: a fit then differs by rounding, and a note says so.
        progress: Show a bar.

    Returns:
        A table with intervals, costs and figures; a unit a row where the lens has several.

    Raises:
        ValueError: A method cannot work here, too few images are left to judge, they were learned from, or the
            folder holds parts of another comparison.
        TypeError: A method is none.
    """
    named, repetitions = check_comparison(lens, methods, seeds, direction=direction, angle=angle, strength=strength)
    check_functions(embedding=embedding, second=second)
    if folder is not None:
        check_writable(Path(folder) / "part")
    inputs, judges = (None if one is None else load_images(one, size=lens.backend.size)[0] for one in (images, natural))
    if judges is not None:
        _enough(judges)
    lens.fit_if_needed(progress=progress)
    ours, reference = lens.fitted_method, lens.reference_set
    if not reference.has_images:
        raise ValueError(
            "this lens holds no reference images, as a loaded one, and methods are fitted on them; expected a lens "
            "that was fitted here. Call fit first."
        )
    makers = {label: build(method, ours, angle) for label, method in named.items()}
    inputs = reference.held_out(8)[0] if inputs is None else inputs
    judges = _judges(lens, inputs, judges)
    if reference.synthetic:
        makers = {f"{label} (synthetic)" if one.shows_reference else label: one for label, one in makers.items()}
    features, notes = _features(lens, embedding)
    for name, item in lens.evidence_.items():
        if item.weak:
            notes.append(f"WEAK EVIDENCE for unit {name}, doubt its pictures: {'; '.join(item.reasons)}.")
    transfer = None
    if second is not None:
        learned = reference.learned()
        assert learned.responses is not None  # a fitted lens has them
        transfer = Transfer(second).fit(learned.images, learned.responses)
        listed = ", ".join(f"{value:.2f}" for value in transfer.correlation_.tolist())
        notes.append(f"The second network predicts natural responses with a correlation of {listed}.")
    if reference.synthetic:
        notes.append("The reference pictures are synthetic, and so are the natural images that judge, unless given.")
    if angle is not None:
        other = [label for label, maker in makers.items() if angle_of(maker) != angle]
        notes.append(f"Edits are matched at {angle:g}°" + (f", except: {', '.join(other)}." if other else "."))
    ways: list[Sense] = [sense for sense in SENSES if direction in (sense, "both")]
    run = Run(lens, makers, inputs, ways, strength=strength, folder=None if folder is None else Path(folder))
    scorer = Scorer(lens.target, lens.landscape_.scaler, inputs, judges, features=features, transfer=transfer)
    if images is not None:
        warn_of_overlap(lens.reference_set, image_keys(inputs))
    comparison = collect(run, scorer, repetitions, progress=progress)
    comparison.notes.extend(notes + run.notes)
    return comparison


def check_comparison(
    lens: "FeatureLens",
    methods: Sequence[str | Method] | Mapping[str, str | Method],
    seeds: Sequence[int],
    *,
    direction: str = "both",
    angle: float | None = None,
    strength: float | None = None,
) -> tuple[dict[str, str | Method], list[int]]:
    """Label to method, and repetitions; what :func:`compare` would raise of them is raised now, before a fit."""
    named = name_methods(methods)
    check_several("seeds", seeds, f"[{seeds}]")
    repetitions = [check_seed(seed, "seeds") for seed in seeds]
    if not repetitions or len(set(repetitions)) < len(repetitions):
        raise ValueError(f"seeds={repetitions}; expected different numbers from 0, at least one. Pass (0, 1, 2).")
    check_word("direction", direction, (*SENSES, "both"))
    check_shares(strength=strength)
    if angle is not None and not 0 <= angle <= 180:
        raise ValueError(f"angle={angle} must lie in [0, 180]: the degrees by which an edit turns.")
    for method in named.values():
        (method_by_name(method) if isinstance(method, str) else method).validate(lens.target, lens.backend)
    return named, repetitions


def _judges(lens: "FeatureLens", inputs: Tensor, natural: Tensor | None) -> Tensor:
    """Natural images that judge: those given, or the held-out reference images that are not moved."""
    if natural is None:
        moved = set(image_keys(inputs))
        judges = lens.reference_set.held_out()[0]
        return _enough(judges[[row for row, key in enumerate(image_keys(judges)) if key not in moved]])
    if known := lens.reference_set.learned_count(natural):
        raise ValueError(
            f"natural holds {known} images that the methods learn from; expected images that they have not "
            "seen. Leave those out."
        )
    return natural


def _enough(natural: Tensor) -> Tensor:
    if len(natural) < MIN_NATURAL:
        raise ValueError(
            f"natural has {len(natural)} images to judge by; expected at least {MIN_NATURAL}, none of them to be "
            "moved. Pass more."
        )
    return natural


def _features(
    lens: "FeatureLens", embedding: Callable[[Tensor], Tensor] | None
) -> tuple[Callable[[Tensor], Tensor] | None, list[str]]:
    """Features in which pictures are compared, and what a reader has to know of them."""
    if embedding is not None:
        return embedding, []
    extractor, backend = lens.backend.feature_extractor(), lens.backend
    missing = "similarity, realism, diversity and predictivity are left out. Pass embedding= to have them."
    if extractor is None:
        return None, [f"Backend {backend.name!r} has no network of its own besides the landscape's: {missing}"]
    inside = not (lens.target.differentiable and backend.differentiable)
    if inside and lens.fitted_method.config.fit.w_consistency > 0:
        return None, [f"The landscape was fitted in the backend's own network: {missing}"]
    name = getattr(backend, "feature_extractor_name", f"{backend.name} feature extractor")
    return lambda pictures: extractor(backend.encode(pictures)), [f"Pictures are compared in {name}."]


def name_methods(methods: Sequence[str | Method] | Mapping[str, str | Method]) -> dict[str, str | Method]:
    """Label to method, from names and methods, or from a mapping as it is.

    Raises:
        TypeError: Something is neither a name nor a method.
        ValueError: There are none, or two of one label.
    """
    check_several("methods", methods, f"[{methods!r}]")
    if isinstance(methods, Mapping):
        named = [(str(label), method) for label, method in methods.items()]
    else:
        named = [(one if isinstance(one, str) else type(one).__name__, one) for one in methods]
    if not named:
        raise ValueError("methods is empty; expected at least one, such as ['edit', 'ridge_pattern', 'unedited'].")
    labelled: dict[str, str | Method] = {}
    for label, method in named:
        check_method(method, "methods holds")
        if isinstance(method, str):
            method_by_name(method)
        if label in labelled:
            raise ValueError(
                f"methods holds {label!r} twice; expected different labels. Pass a dict of label to method, such as "
                "{'ridge, 40°': RidgePattern(angle=40)}."
            )
        labelled[label] = method
    return labelled


def build(
    method: str | Method, ours: LandscapeMethod, angle: float | None = None, *, mode: int | None = None
) -> Method:
    """The method of a name, at this edit angle where it has one; the lens's own landscape is not fitted again."""
    if not isinstance(method, str):
        return method
    turned: dict[str, Any] = {} if angle is None else {"angle": angle}
    if method == "edit":
        if mode is not None:
            turned["mode"] = mode
        return LandscapeEdit(ours.config, **turned).share(ours)
    if method == "optimize":
        config = ours.config if mode is None else ours.config.replace(goal="mean", mode=mode)
        return LandscapeOptimization(config).share(ours)
    if method == "edited_prototypes":
        return method_by_name(method, method=LandscapeEdit(ours.config, shuffles=0, **turned))
    if method == "shuffled":  # a control of this very landscape takes its settings
        return method_by_name(method, config=ours.config, **turned)
    if method in METHODS and "angle" not in inspect.signature(METHODS[method].load()).parameters:
        turned = {}
    return method_by_name(method, **turned)


def fit_beside(method: str | Method, ours: LandscapeMethod, reference: ReferenceSet) -> Method:
    """Another method, fitted on what a lens's landscape was fitted on."""
    maker = build(method, ours)
    check_reference(method, maker, reference)
    # A landscape holds images out by itself; what does not must not see those that ours held out.
    itself = isinstance(getattr(maker, "method", maker), LandscapeMethod)
    return maker.fit(ours.target, ours.backend, reference if itself else reference.learned())


def angle_of(maker: Method) -> float | None:
    """The edit angle that a method is set to; None where it has none."""
    inner = getattr(maker, "method", maker)  # what a control or a benchmark wraps
    return getattr(inner, "angle", None)


def is_edit(maker: Method) -> TypeGuard[LandscapeEdit | EmbeddingEdit | Unedited]:
    """Whether a method's edited x costs nothing to compute again: neither search nor optimisation is behind it."""
    inner = getattr(maker, "method", maker)
    return not maker.shows_reference and isinstance(inner, (EmbeddingEdit, Unedited, LandscapeEdit))


class Run:
    """One comparison: methods are fitted on what the landscape learned from, and make pictures of the same inputs.

    Args:
        lens: Fitted; what it did not hold out is what every method learns from.
        methods: Label to what :func:`build` made.
        inputs: (N, 3, S, S) images to move.
        directions: ``"increase"``, ``"decrease"`` or both.
        strength: SDEdit strength of every generation; None is each method's own.
        folder: Where each finished method and seed is kept, or None.
    """

    def __init__(
        self,
        lens: "FeatureLens",
        methods: dict[str, Method],
        inputs: Tensor,
        directions: list[Sense],
        *,
        strength: float | None,
        folder: Path | None,
    ) -> None:
        self.ours, self.methods, self.inputs, self.directions = lens.fitted_method, methods, inputs, directions
        self.target, self.backend = self.ours.target, self.ours.backend
        self.learned = lens.reference_set.learned()
        self.fit_seconds, self.strength, self.folder = lens.fit_seconds_, strength, folder
        self.notes: list[str] = []
        self._fitted: dict[str, float | None] = {}
        landscape = self.ours.landscape_
        self._landscape = fingerprint(landscape.vae.state_dict())
        self._responses = landscape.scaler.standardise(landscape.responses).float().cpu()
        self._common = {
            "target": self.target.describe(),
            "backend": self.backend.name,
            # What the landscape was made from, not its weights: these differ in the last bits between machines.
            "config": self.ours.config.to_dict(),
            "learned": hashlib.sha256("".join(sorted(lens.reference_set.learned_keys)).encode()).hexdigest()[:16],
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
            kept = {"identity": identity, "landscape": self._landscape, "responses": self._responses, **part}
            save_state(path, KIND, kept)
        return part

    def _read(self, path: Path, identity: str) -> dict[str, Any]:
        kept, where = load_state(path, KIND), repr(str(path))
        check_schema(kept, PART, where)
        check_finite(kept["angles"], where, "angles")
        try:
            was: Any = json.loads(kept.pop("identity"))
        except (ValueError, RecursionError):
            was = None  # refused in the next line
        check_schema(was, dict, where, "identity")
        now = json.loads(identity)
        for name in now:
            if was.get(name) != now[name]:
                raise ValueError(
                    f"folder holds {path.name!r} of another comparison: its {name} was {_short(was.get(name))}, and is "
                    f"{_short(now[name])} now; expected parts of this one. Name another folder, or delete that file."
                )
        responses = kept.pop("responses", torch.zeros(0))
        if responses.shape != self._responses.shape or not torch.allclose(
            responses, self._responses, rtol=0, atol=ROUNDING, equal_nan=True
        ):
            raise ValueError(
                f"folder holds {path.name!r} of another comparison: the responses that its landscape was fitted on "
                "differ from today's; expected the same. Name another folder, or delete that file."
            )
        self._check_shapes(kept, where)
        if kept.pop("landscape", None) != self._landscape and not self.notes:
            self.notes.append(
                "Some pictures were made earlier, from a landscape of the same images, responses and settings that "
                "differs from today's by rounding: another machine or number of threads."
            )
        return kept

    def _check_shapes(self, kept: dict[str, Any], where: str) -> None:
        """Raise ValueError where a part lacks pictures or costs, or holds them in another shape."""
        keys = [f"{unit}/{way}" for unit in range(len(self.target.names)) for way in self.directions]
        for key in ["unedited", *keys]:
            images = kept["images"].get(key)
            if images is None or images.shape != self.inputs.shape or images.dtype != torch.uint8:
                raise ValueError(
                    f"{where}: images[{key!r}] is {None if images is None else tuple(images.shape)}; expected 8-bit "
                    f"pictures of shape {tuple(self.inputs.shape)}. Delete that file."
                )
        for key in keys:
            if key not in kept["costs"] or kept["angles"].get(key, self.inputs).shape[:1] != self.inputs.shape[:1]:
                raise ValueError(f"{where}: costs[{key!r}] or angles[{key!r}] is missing or short. Delete that file.")

    def _make(self, label: str, seed: int) -> dict[str, Any]:
        maker = self.methods[label]
        fit_seconds = self._fit(label)
        # A seed of its own for each image and repetition: methods that only read the seed show several pictures, too.
        seeds = [seed * len(self.inputs) + row for row in range(len(self.inputs))]
        # Kept in 8 bits, as a file would, and scored from them: a resumed comparison scores what another one does.
        strength = {} if self.strength is None or not maker.uses_strength else {"strength": self.strength}
        made = {"unedited": _to_8_bits(maker.generate(self.inputs, {}, seeds=seeds, **strength).images)}
        costs: dict[str, dict[str, float]] = {}
        angles: dict[str, Tensor] = {}
        for unit in range(len(self.target.names)):
            for way in self.directions:
                key = f"{unit}/{way}"
                with PeakMemory(self.backend.device) as memory:
                    generated = maker.generate(self.inputs, {unit: way}, seeds=seeds, **strength)
                made[key] = _to_8_bits(generated.images)
                spent, count = generated.cost, len(self.inputs)
                costs[key] = {name: getattr(spent, name) / count for name in ("forward", "backward", "seconds")}
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
                start = time.perf_counter()
                maker.fit(self.target, self.backend, self.learned)
                self._fitted[label] = time.perf_counter() - start
        return self._fitted[label]

    @torch.no_grad()
    def _angles(self, maker: "LandscapeEdit | EmbeddingEdit | Unedited", unit: int, way: Sense) -> Tensor:
        """Degrees (N,) that each x has turned: an embedding from the image's own, pixels from the unedited decoding."""
        x = embed(self.backend, self.inputs)
        edited = maker.embeddings(x, {unit: way})
        return edit_angle(x if x.ndim == 2 else maker.embeddings(x, {}), edited).cpu()


def collect(run: Run, scorer: Scorer, seeds: list[int], *, progress: bool) -> Comparison:
    """Make and score everything; what was made before is read."""
    names, labels = list(run.target.names), list(run.methods)
    scores: dict[Key, NDArray[np.float64]] = {}
    filled: Counter[Key] = Counter()
    pictures: dict[str, dict[str | tuple[str, str], Tensor]] = {
        name: {"inputs": run.inputs[:SHOWN].cpu()} for name in names
    }
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
                asked = (label, way, measure)
                cells = scores.setdefault(asked, np.empty((len(names), len(value), len(seeds))))
                cells[unit, :, seeds.index(seed)] = value.double().numpy()
                filled[asked] += 1
    scores = {key: values for key, values in scores.items() if filled[key] == len(names) * len(seeds)}
    said = run.target.describe()
    where = " ".join(str(one) for one in (said.get("model"), said.get("layer")) if one)
    units = [f"{where} {name}".strip() for name in names]
    return Comparison(
        methods=labels,
        units=units,
        seeds=seeds,
        images=image_keys(run.inputs),
        scores=scores,
        pictures=dict(zip(units, pictures.values(), strict=True)),
        notes=_budgets(scores, labels) + ([ONE_UNIT] if len(units) == 1 else []),
        settings={**run._common, "methods": run._said, "seeds": list(seeds)},
    )


SHOWN = 4
"""Pictures of each method that the figure shows."""


def _budgets(scores: Mapping[Key, NDArray[np.float64]], labels: Sequence[str]) -> list[str]:
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


def _to_8_bits(images: Tensor) -> Tensor:
    return (images.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def describe_method(value: object) -> Any:
    """Class and settings of a method that is not fitted yet, as JSON values."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, Mapping):
        return {str(key): describe_method(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe_method(item) for item in value]
    if isinstance(value, Method):
        return [type(value).__name__, {name: describe_method(item) for name, item in value.settings().items()}]
    return type(value).__name__


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
