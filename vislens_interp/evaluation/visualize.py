"""Visualisation: images moved for a unit, measured again, and put beside what supports them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Unpack

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from vislens_interp.backends.base import Backend
from vislens_interp.evaluation.checks import Choices, check_words, learned_from, validate_unfitted, warn_of_overlap
from vislens_interp.evaluation.compare import describe_method
from vislens_interp.evaluation.words import WordReadout, edit_words
from vislens_interp.images import ImageSource, image_keys, load_images
from vislens_interp.landscape.prior import SENSES, ResponseScaler, Sense, UnitSenses
from vislens_interp.methods.base import Generated, Method
from vislens_interp.methods.cma_es import EmbeddingSearch
from vislens_interp.methods.landscape import LandscapeMethod
from vislens_interp.methods.prototypes import has_prototypes, likeness, prototype_rows
from vislens_interp.random_state import check_seeds
from vislens_interp.reference import embed
from vislens_interp.results.background import Background
from vislens_interp.results.result import LensResult, Pictures
from vislens_interp.schema import check_finite, check_schema, check_tensors
from vislens_interp.targets.target import Target

if TYPE_CHECKING:
    from vislens_interp.lens import FeatureLens

PAPER_SEED = 42
SHOWN = 8
"""Inputs where none are given."""


@dataclass(frozen=True, eq=False)
class Part:
    """What was made of some inputs.

    Args:
        images: For ``"inputs"``, ``"unedited"`` and each direction (n, 3, S, S).
        importance: For some of these (n, S, S).
        numbers: ``responses`` (key to (n, K)), ``similarity`` (key to (n,)), ``latents`` (key to (n, latent_dim)),
            ``changes`` (signed weight, as text, to (n, K)) and ``in_force``: alpha and strength.
    """

    images: dict[str, Tensor]
    importance: dict[str, Tensor]
    numbers: dict[str, Any]


class Drawing:
    """One visualisation of a fitted lens: what is made of inputs, and the result of all that was made.

    Args: as for ``FeatureLens.visualize``, and ``inputs``, for the record: how they were ``chosen`` (see
        :func:`default_inputs`, or "given"), and from how many of them the fit had ``learned``.
    """

    def __init__(
        self,
        lens: "FeatureLens",
        direction: UnitSenses,
        *,
        words: WordReadout | None,
        inputs: dict[str, str | int],
        **choices: Unpack[Choices],
    ) -> None:
        self.lens, self.direction, self.words = lens, direction, words
        self.method, self.mode = choices["method"], choices["mode"]
        self.judge, self.alphas = choices["judge"], [float(weight) for weight in choices["alphas"]]
        self.inputs = inputs
        self.moves: dict[str, dict[int, Sense]] = {"unedited": {}, **lens.moves(direction)}
        self.maker = lens.maker(self.method, self.mode)
        given = {"alpha": choices["alpha"], "strength": choices["strength"]}
        self.given = {key: value for key, value in given.items() if value is not None}
        self.reader, self.scaler, self.judged = _reader(lens, self.judge)
        # Now: many inputs push the reference images' x out of the backend's memory.
        reference = lens.reference_set
        self._likeness = likeness(lens.backend, reference) if has_prototypes(reference) else None

    def seeds(self, seeds: int | Sequence[int], count: int) -> int | list[int]:
        """As they were given; of a method that shows reference images, one seed for all picks a different one each."""
        if isinstance(seeds, int):
            return list(range(count)) if self.maker.shows_reference else seeds
        return list(seeds)

    def part(self, pictures: Tensor, seeds: Sequence[int]) -> Part:
        """Move some inputs (n, 3, S, S) and read what came out; each has a noise seed."""
        made = {key: self.maker.generate(pictures, one, seeds=seeds, **self.given) for key, one in self.moves.items()}
        shown = {"inputs": pictures, **{key: one.images for key, one in made.items()}}
        responses: dict[str, Tensor] = {}
        for key, value in shown.items():  # at strength 0 an unedited picture is the input itself, which was read
            same = key == "unedited" and value.shape == pictures.shape and torch.equal(value.cpu(), pictures.cpu())
            responses[key] = responses["inputs"] if same else self._read(value)
        in_force = list(made.values())[-1].settings_in_force
        numbers = {
            "responses": responses,
            "similarity": _similarity(self.lens.backend, shown),
            "latents": {key: _latents(self.lens, self.maker, one) for key, one in made.items()},
            "changes": self._doses(pictures, seeds, responses, in_force["alpha"]),
            "in_force": in_force,
        }
        importance = {key: one.importance for key, one in made.items() if one.importance is not None}
        return Part(shown, importance, numbers)

    def check(self, numbers: dict[str, Any], count: int, where: str) -> None:
        """Raise ValueError, with file and field, where numbers are not such as :meth:`part` makes of so many inputs."""
        check_schema(numbers, {"in_force": {"alpha": (float, None), "strength": (float, None)}}, where)
        shown, units = ["inputs", *self.moves], torch.empty(count, len(self.lens.target.names))
        codes = torch.empty(count, self.lens.landscape_.latents.shape[1])
        like = {
            "responses": dict.fromkeys(shown, units),
            "similarity": {} if self.lens.backend.feature_extractor() is None else dict.fromkeys(shown, units[:, 0]),
            "latents": dict.fromkeys(self.moves, codes),
        }
        for name, tensors in like.items():
            check_tensors(numbers.get(name), tensors, where, name)
        check_finite(numbers["latents"], where, "latents")
        alpha, changes = numbers["in_force"]["alpha"], numbers.get("changes")
        if self.method != "edit":
            check_tensors(changes, {}, where, "changes")
            return
        signs = [-1 if key == "decrease" else 1 for key in list(self.moves)[1:]]
        weights = {"0.0", *(str(sign * float(one)) for sign in signs for one in {*self.alphas, alpha} if one)}
        if isinstance(changes, dict) and set(changes) != weights:
            raise ValueError(
                f"{where}: changes holds the weights {list(changes)}, and in_force.alpha is {alpha}; expected "
                f"{sorted(weights)}. Restore a copy, or make it again."
            )
        check_tensors(changes, dict.fromkeys(weights, units), where, "changes")

    def _read(self, images: Tensor) -> Tensor:
        """Raw responses (N, K)."""
        return self.reader.responses(images.to(self.reader.device))

    def _changes(self, responses: Tensor, unedited: Tensor) -> Tensor:
        """Changes (N, K) of raw responses against those to the unedited pictures, in SDs."""
        return self.scaler.standardise(responses) - self.scaler.standardise(unedited)

    def _doses(
        self, pictures: Tensor, seeds: Sequence[int], responses: dict[str, Tensor], weight: float | None
    ) -> dict[str, Tensor]:
        """Signed weights of an edit to what they changed, (n, K) in SDs."""
        if self.method != "edit":
            return {}
        changes = {"0.0": torch.zeros_like(responses["unedited"])}
        for key, one in list(self.moves.items())[1:]:
            sign = -1 if key == "decrease" else 1
            if weight:
                changes[str(sign * float(weight))] = self._changes(responses[key], responses["unedited"])
            for other in set(self.alphas) - {weight}:
                dosed = self.maker.generate(pictures, one, seeds=seeds, **{**self.given, "alpha": other})
                changes[str(sign * other)] = self._changes(self._read(dosed.images), responses["unedited"])
        return changes

    def settings(self, in_force: Mapping[str, float | None], seeds: int | list[int]) -> dict[str, Any]:
        """How pictures are made, as JSON values: what is in force, not what was asked for."""
        lens, backend, ours = self.lens, self.lens.backend, _ours(self.lens, self.maker)
        described = self.maker if isinstance(self.maker, LandscapeMethod) and ours else lens.fitted_method
        target, method = lens.target.describe(), self.method
        judge = target.get("judge") if self.judge is None else _describe_judge(lens, self.judge)  # what was recorded
        # An ascent asks the target, whatever was measured.
        ascends = self.maker.needs_gradients or isinstance(self.maker, EmbeddingSearch)
        if judge is None and lens.reference_set.measured and not ascends:
            judge = f"{target.get('model', type(lens.target).__name__)} itself; responses that were given guided them"
        direction = self.direction
        return {
            "method": method if isinstance(method, str) else type(method).__name__,
            **({} if ours else {"baseline": describe_method(self.maker)}),
            "alpha": in_force["alpha"],
            "strength": in_force["strength"],
            "seeds": seeds,
            **({"shows_reference": True} if self.maker.shows_reference else {}),
            "mode": self.mode,
            "inputs": self.inputs,
            "alphas": self.alphas,
            "direction": (
                {lens.target.names[lens.index(unit)]: sense for unit, sense in direction.items()}
                if isinstance(direction, Mapping)
                else direction
            ),
            "backend": backend.name,
            "reference_set": lens.reference_set.kind,
            "similarity_network": getattr(backend, "feature_extractor_name", f"{backend.name} feature extractor"),
            "target": target,
            "audit": {unit: {name: one.verdict(name) for name in one.methods} for unit, one in lens.audits_.items()},
            "settings": described.describe(),
            **({} if judge is None else {"judge": judge}),
        }

    def _prototypes(self, unit: int) -> dict[Sense, Tensor]:
        """Rows of the reference set that tell most of a unit; none of a set that is small, or not at hand."""
        if self._likeness is None:
            return {}
        values = (self.lens.landscape_.responses if self.judged is None else self.judged)[:, unit]
        rows = prototype_rows(self._likeness, values, self.lens.reference_set.groups)
        return dict(zip(SENSES, rows, strict=True))

    def result(
        self,
        images: Mapping[str, Pictures],
        importance: Mapping[str, Pictures],
        numbers: dict[str, Any],
        names: list[str],
        seeds: int | list[int],
    ) -> LensResult:
        """The result of all inputs, for each unit; ``numbers`` as :class:`Part` says, of all inputs."""
        lens, reference = self.lens, self.lens.reference_set
        settings = self.settings(numbers["in_force"], seeds)
        said = {
            key: edit_words(lens.fitted_method, one, readout=self.words)
            for key, one in self.moves.items()
            if _ours(lens, self.maker) and numbers["in_force"]["alpha"] != 0  # where it goes nowhere there are none
        }
        return LensResult.joined(
            [
                LensResult(
                    unit=name,
                    layer=settings["target"].get("layer", ""),
                    model=settings["target"].get("model", type(lens.target).__name__),
                    images=dict(images),
                    responses={key: value[:, unit] for key, value in numbers["responses"].items()},
                    response_mean=self.scaler.mean[unit].item(),
                    response_std=self.scaler.std[unit].item(),
                    similarity=numbers["similarity"],
                    importance=dict(importance),
                    evidence=lens.evidence_.get(name),
                    words={key: found for key, found in said.items() if found is not None},
                    names=names,
                    settings=settings,
                    background=Background.of(
                        lens.landscape_,
                        unit,
                        numbers["latents"],
                        responses=None if self.judged is None else self.judged[:, unit],
                        pictures=reference.images if reference.has_images else None,
                        names=reference.names if reference.has_images else None,
                        groups=reference.groups if reference.has_images else None,
                        prototypes=self._prototypes(unit),
                        changes={float(weight): one[:, unit] for weight, one in numbers["changes"].items()},
                    ),
                )
                for unit, name in enumerate(lens.target.names)
            ]
        )


def visualize(
    lens: "FeatureLens",
    images: ImageSource | None = None,
    direction: UnitSenses = "both",
    *,
    seeds: int | Sequence[int] = PAPER_SEED,
    words: WordReadout | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    progress: bool = False,
    **choices: Unpack[Choices],
) -> LensResult:
    """Move images towards what a lens's unit prefers; arguments as for ``FeatureLens.visualize``."""
    seeds = check_seeds(seeds)
    lens.validate(direction, **choices)
    validate_unfitted(lens, choices["method"])
    check_words(lens, choices["method"], words)
    if images is None:
        pictures, names, chosen = default_inputs(lens, progress=progress)
    else:
        pictures, names = load_images(images, size=lens.backend.size, on_error=on_error)
        chosen = "given"
    seed_list(seeds, len(pictures))
    keys = image_keys(pictures)
    if images is not None:
        lens.fit_if_needed(pictures, progress=progress)
    inputs: dict[str, str | int] = {"chosen": chosen, "learned": learned_from(lens.reference_set, keys)}
    drawing = Drawing(lens, direction, words=words, inputs=inputs, **choices)
    if images is not None:
        warn_of_overlap(lens.reference_set, keys)
    drawn = drawing.seeds(seeds, len(pictures))
    part = drawing.part(pictures, seed_list(drawn, len(pictures)))
    return drawing.result(part.images, part.importance, part.numbers, names, drawn)


def default_inputs(lens: "FeatureLens", *, progress: bool = False) -> tuple[Tensor, list[str], str]:
    """Photographs of the reference set that say most of a lens's units, and their names; the lens is fitted first.

    Of one unit four prototypes that drive it, then four that do not; up to four units share the eight. Of more units,
    or where there are no prototypes, eight photographs that the fit never saw.

    Returns:
        Pictures, names, and ``"prototypes"`` or ``"held out"``.
    """
    lens.fit_if_needed(progress=progress)
    reference, units = lens.reference_set, len(lens.target.names)
    count = SHOWN // (2 * units)
    if not count or not has_prototypes(reference):
        return *reference.held_out(SHOWN), "held out"
    responses, like = lens.landscape_.responses, likeness(lens.backend, reference)
    sides = [prototype_rows(like, responses[:, unit], reference.groups, count) for unit in range(units)]
    rows = list(dict.fromkeys(torch.cat([one[half] for half in (0, 1) for one in sides]).tolist()))
    return reference.images[rows], [reference.names[row] for row in rows], "prototypes"


def seed_list(seeds: int | Sequence[int], count: int) -> list[int]:
    """One noise seed an image."""
    if isinstance(seeds, int):
        return [seeds] * count
    if len(seeds) != count:
        raise ValueError(f"seeds has {len(seeds)} entries for {count} images; give one for all or one an image.")
    return [int(seed) for seed in seeds]


def _reader(lens: "FeatureLens", judge: Target | None) -> tuple[Target, ResponseScaler, Tensor | None]:
    """What reads the pictures, in which scale, and a judge's responses (R, K) to the reference set."""
    if judge is None:
        return lens.target, lens.landscape_.scaler, None
    responses = lens.reference_set.read_by(judge)
    return judge, ResponseScaler.fit(responses, judge.names), responses


def _ours(lens: "FeatureLens", maker: Method) -> bool:
    """Whether a method works in the lens's own landscape."""
    return isinstance(maker, LandscapeMethod) and maker.landscape_ is lens.landscape_


def _latents(lens: "FeatureLens", maker: Method, made: Generated) -> Tensor:
    """Where pictures lie in the lens's landscape; those of another method are encoded."""
    if made.latents is not None and _ours(lens, maker):
        return made.latents
    return lens.landscape_.encode(lens.backend.encode(made.images))[0]


def _similarity(backend: Backend, shown: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cosine to the inputs in the backend's own network, (N,) for every key; empty where it has none."""
    extractor = backend.feature_extractor()
    if extractor is None:
        return {}
    with torch.no_grad():
        embedded = {
            key: embed(backend, value) if key == "inputs" else backend.encode(value) for key, value in shown.items()
        }
        features = {key: extractor(x).flatten(1).cpu() for key, x in embedded.items()}
    return {key: cosine_similarity(value, features["inputs"]) for key, value in features.items()}


def _describe_judge(lens: "FeatureLens", judge: Target) -> str:
    """Who judged, in a line, and whether it guided the pictures too."""
    described, own = judge.describe(), lens.target.describe()
    model = f"{described['model']} ({described['name']})" if "name" in described else described["model"]
    line = f"{', '.join(judge.names)} of {model}"
    if described.get("fingerprint") is not None and described["fingerprint"] == own.get("fingerprint"):
        line += ", the network that guided them"
    return line
