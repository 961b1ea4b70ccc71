"""FeatureLens: point at a unit, fit its landscape once, and move images through it."""

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

import vislens_interp.backends.embedded
import vislens_interp.backends.embedding
import vislens_interp.backends.pixel  # noqa: F401 (each registers its backend)
from vislens_interp.backends.base import DEFAULT_BACKEND, Backend, get_backend
from vislens_interp.backends.embedding import FILES_AT_ONCE, EmbeddingBackend
from vislens_interp.baselines import method as method_by_name
from vislens_interp.compare import Run, angle_of, build, collect, describe_method, name_methods
from vislens_interp.comparison import Comparison
from vislens_interp.files import load_state, save_state
from vislens_interp.images import ImageFiles, holds_files, image_keys, load_images
from vislens_interp.landscape.evidence import Evidence
from vislens_interp.landscape.fit import MIN_IMAGES
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import DIRECTIONS, Direction, ResponseScaler, check_mode
from vislens_interp.landscape.sample import sample_latents
from vislens_interp.method import LandscapeMethod, Method
from vislens_interp.metrics.response import pearson
from vislens_interp.metrics.scorer import Scorer
from vislens_interp.metrics.transfer import Transfer
from vislens_interp.pairing import paired_responses, pairing_text
from vislens_interp.report.background import Background, TopImages
from vislens_interp.report.contact_sheet import ContactRow, ContactSheet
from vislens_interp.result import LensResult, Sweep, versions
from vislens_interp.targets.attribution import Attribution, attribute
from vislens_interp.targets.capture import Output
from vislens_interp.targets.layout import Layout
from vislens_interp.targets.selectors import Pool, unit_name
from vislens_interp.targets.subset import UnitsOf
from vislens_interp.targets.target import LayerTarget, Target

PAPER_SEED = 42

OURS = ("edit", "optimize")
MEASURED = ", measured responses"
"""How the kind of a reference set ends whose responses were given."""
COMPARED = 256
"""Reference images on which a network is compared with measured responses."""
ALIKE, TIMES = 0.1, 10
"""A lower correlation, or spreads further apart: the network does not speak for what was measured."""
MIN_NATURAL = 20
"""Natural images that judge a comparison, at least: a percentile of fewer says little."""


class FeatureLens:
    """A lens on one unit of a vision model: the images that it prefers, and those that silence it.

    Args:
        model: The network, or a :class:`~vislens_interp.targets.Target`. It is never changed or moved.
        layer: Dotted name of a layer, the module itself, or None for the model's own output.
        unit: A channel or feature (int), or its label; a tuple or callable with the meaning of Captum's neuron
            selectors; ``MeanOf([...])``, ``Direction(vector)`` or ``Head(k)``; or a list of units, which share one
            latent, a block each. None: the model's only output.
        pool: How a channel's positions become one response: ``"mean"``, ``"max"``, ``"center"``, and on tokens
            ``"cls"``, ``"token:k"`` or ``"patch_mean"``.
        token: Short for a pool: 3 for ``"token:3"``, ``"cls"`` for ``"cls"``.
        layout: Layout of the layer's output where it is not clear: ``"NCHW"``, ``"NHWC"``, ``"NLC"``, ``"LNC"``,
            ``"NCL"``, ``"NC"``.
        output: Which tensor of a layer that gives several: its place in a tuple, its name in a dict or dataclass.
        call: Which call of a layer that a pass calls several times, from 0.
        preprocess: From RGB in [0, 1] to what the model takes: ``Preprocess``, torchvision's weights or transforms, an
            image processor of transformers, or a function; None asks the model.
        labels: Names of the layer's channels, for ``unit=`` by name: a list, or torchvision's weights.
        backend: Name of a backend, or a backend: what carries images to latents and back.
        seed: Of the fit.

    Raises:
        ValueError, TypeError, KeyError: An argument does not fit the model; the message says how.

    >>> from vislens_interp import FeatureLens, zoo
    >>> lens = FeatureLens(zoo.load("cifar10_convnet"), "conv3", unit=16, backend="cifar10")
    >>> print(lens.summary().splitlines()[0])
    ConvNet, layer conv3, unit 16 (mean over the map), backend cifar10
    """

    def __init__(
        self,
        model: nn.Module | Target,
        layer: str | nn.Module | None = None,
        unit: Any = None,
        *,
        pool: Pool = "mean",
        token: int | str | None = None,
        layout: Layout | None = None,
        output: Output | None = None,
        call: int | None = None,
        preprocess: Any = None,
        labels: Any = None,
        backend: str | Backend = DEFAULT_BACKEND,
        seed: int = 0,
    ) -> None:
        if isinstance(model, Target):
            reading = {"layer": layer, "unit": unit, "token": token, "layout": layout, "output": output, "call": call}
            reading |= {"preprocess": preprocess, "labels": labels, "pool": None if pool == "mean" else pool}
            given = [name for name, value in reading.items() if value is not None]
            if given:
                raise ValueError(
                    f"{', '.join(given)}: the model is a {type(model).__name__}, which says itself what it reads;"
                    " expected"
                    " a network. Leave them out."
                )
            self.target: Target = model
        else:
            self.target = LayerTarget(
                model,
                layer,
                0 if unit is None else unit,
                pool=pool,
                token=token,
                layout=layout,
                output=output,
                call=call,
                preprocess=preprocess,
                labels=labels,
            )
            if unit is None and self.target.shape != (1,):
                raise ValueError(
                    f"unit=None, but layer {self.target.layer!r} has shape {self.target.shape} for one image; say "
                    "which unit. list_units(model) shows all."
                )
        self.backend = get_backend(backend, self.target.device)
        self.seed = seed
        self.method_: LandscapeMethod | None = None
        self.reference_kind_: str | None = None
        self.fit_seconds_: float | None = None
        self._reference: tuple[Any, list[str]] | None = None
        self._baselines: dict[str, Method] = {}
        self._learned: set[str] = set()
        self._pairing: str | None = None

    def fit(
        self,
        images: Any = None,
        responses: Any = None,
        *,
        on_error: Literal["raise", "skip"] = "raise",
        progress: bool = False,
        checkpoint: str | Path | None = None,
        **settings: Any,
    ) -> Self:
        """Organise the backend's latents by the unit's responses to reference images.

        Args:
            images: At least 200 reference images: a tensor, PIL images, paths or a folder. None takes the backend's own
                (synthetic) reference set. Of a backend of embeddings, files stay on the disk, where they must remain:
                they are read for the embeddings, for the responses, and when they are shown.
            responses: Measured responses, (N,) or (N, K), instead of the model's, or a mapping or table of them by the
                images' names: see :func:`~vislens_interp.pairing.paired_responses`. Pictures are still read by the
                model, in SDs of these: a model that was fitted to them says what they would be, another needs
                ``judge=``.
            on_error: ``"skip"`` leaves unreadable files of a folder out, with a warning that names them.
            progress: Show progress bars.
            checkpoint: File that an interrupted fit goes on from when called again.
            settings: Anything that :class:`~vislens_interp.method.LandscapeMethod` takes: ``modes=2, block_dim=8``,
                ``w_consistency=0``, ``epochs=10``, ``alpha=0.5``, ...

        Returns:
            The lens; ``evidence_`` says what the fit is worth.
        """
        if images is None:
            if responses is not None:
                raise ValueError("responses= were given without the images= that they belong to; pass both.")
            reference = self.backend.reference()
            if reference is None:
                raise ValueError(
                    f"images=None, and backend {self.backend.name!r} has no reference set of its own; pass at least "
                    f"{MIN_IMAGES} images."
                )
            pictures, names = reference, _synthetic_names(len(reference))
            kind = "synthetic reference"
        else:
            pictures, names = self._open(images, on_error)
            kind = "given images"
        measured = self._pairing = None
        if responses is not None:
            measured = paired_responses(responses, names, sorted_by_name=isinstance(images, (str, os.PathLike)))
            self._pairing = pairing_text(measured, names)
            kind += MEASURED
            self._warn_of_other_units(pictures, measured)
        elif isinstance(pictures, ImageFiles):
            measured = _responses(self.target, pictures, progress=progress)
        method = LandscapeMethod(seed=self.seed, **settings)
        checkpoint = None if checkpoint is None else Path(checkpoint)
        everything = cast(Any, pictures)  # a tensor, or files that only an embedding backend is given
        start = time.perf_counter()
        method.fit(self.target, self.backend, everything, measured, progress=progress, checkpoint=checkpoint)
        self.fit_seconds_ = time.perf_counter() - start
        self.method_, self.reference_kind_, self._reference = method, kind, (pictures, names)
        self._baselines = {}
        held_out = set(method.landscape_.held_out.tolist())
        learned = [row for row in range(len(pictures)) if row not in held_out]
        parts = [learned[row : row + FILES_AT_ONCE] for row in range(0, len(learned), FILES_AT_ONCE)]
        self._learned = {key for rows in parts for key in image_keys(pictures[rows])}
        return self

    @property
    def landscape_(self) -> Landscape:
        """The fitted landscape."""
        return self._fitted().landscape_

    @property
    def evidence_(self) -> dict[str, Evidence]:
        """Unit name to what supports its pictures."""
        return self._fitted().evidence_

    def check(
        self,
        direction: str | Mapping[Any, Direction] = "both",
        *,
        method: str | Method = "edit",
        alpha: float | None = None,
        strength: float | None = None,
        judge: Target | None = None,
        mode: int | None = None,
        doses: Sequence[float] = (),
    ) -> None:
        """Raise now what :meth:`visualize` would raise of these arguments: before a fit that takes minutes."""
        name_of = method if isinstance(method, str) else type(method).__name__
        chosen_method = method_by_name(method) if isinstance(method, str) else method
        if not isinstance(method, str) and not (hasattr(method, "fit") and hasattr(method, "generate")):
            raise TypeError(
                f"method is a {type(method).__name__}; expected a name, or an object with fit and generate such as "
                "RidgePattern()."
            )
        if mode is not None and method not in OURS:
            raise ValueError(f"mode={mode} names a mean of the landscape's prior, which {name_of!r} does not have.")
        if mode is not None:  # a lens that is fitted on its way gets the backend's number of means
            fitted = self.method_ is not None
            check_mode(mode, self.landscape_.prior.modes if fitted else self.backend.defaults.prior.get("modes", 1))
        if alpha is not None and method == "optimize":
            raise ValueError(
                f"alpha={alpha} belongs to method='edit'; 'optimize' goes where Adam leads. Leave alpha out."
            )
        for name, value in (("alpha", alpha), ("strength", strength)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name}={value} must lie in [0, 1].")
        if method != "edit" and len(doses) > 0:
            raise ValueError(f"doses={list(doses)} are weights of method='edit', not of {name_of!r}. Leave doses out.")
        if any(not 0 < dose <= 1 for dose in doses):
            raise ValueError(f"doses={list(doses)} must lie in (0, 1]; each direction is taken at every one of them.")
        if hasattr(chosen_method, "refuse"):
            cast(Any, chosen_method).refuse(self.target, self.backend)
        if judge is not None and len(judge.names) != len(self.target.names):
            raise ValueError(
                f"judge reads {len(judge.names)} units ({', '.join(judge.names)}); expected {len(self.target.names)}, "
                f"one for each of the lens's ({', '.join(self.target.names)}), in their order."
            )
        self._directions(direction)

    def visualize(
        self,
        images: Any = None,
        direction: str | Mapping[Any, Direction] = "both",
        *,
        method: str | Method = "edit",
        alpha: float | None = None,
        strength: float | None = None,
        seeds: int | Sequence[int] = PAPER_SEED,
        judge: Target | None = None,
        mode: int | None = None,
        doses: Sequence[float] = (),
        on_error: Literal["raise", "skip"] = "raise",
        progress: bool = False,
    ) -> Any:
        """Move images towards what the unit prefers, or away from it, and read the unit again.

        An unfitted lens is fitted first: on the backend's reference set, or on these images if there are 200 of them.

        Args:
            images: A tensor, PIL images, paths or a folder; None takes eight of the backend's reference pictures that
                the fit never saw.
            direction: ``"increase"``, ``"decrease"``, ``"both"``, or unit to direction, for a lens on several.
            method: ``"edit"`` moves a latent to the prior mean (Algorithm 2); ``"optimize"`` runs Adam on it
                (Algorithm 3). Or what they are compared with, fitted on the same images and responses: any name of
                :data:`vislens_interp.baselines.METHODS`, such as ``"ridge_direction"`` (BrainACTIV), ``"maco"`` or
                ``"unedited"``; or one of them with settings of its own, such as ``RidgePattern(angle=40)``.
            alpha: Weight of the edit, 0 to 1; None is the measured default.
            strength: SDEdit strength of the refinement: 0 is the bare decoding.
            seeds: Noise seed of every image, or one an image.
            judge: Another target to read the responses instead of the lens's own: as many units, in the same order.
            mode: Which of several prior means; None takes the nearest to each image.
            doses: Further weights in (0, 1] for the report's dose-response; each makes every picture once more.

        Returns:
            The result; for a lens on several units a result for each, the same pictures read by every unit.
        """
        self.check(direction, method=method, alpha=alpha, strength=strength, judge=judge, mode=mode, doses=doses)
        name_of = method if isinstance(method, str) else type(method).__name__
        wanted: dict[str, dict[int, Direction]] = {"unedited": {}, **self._directions(direction)}
        if images is None:
            self._fit_if_needed(None, progress)
            pictures, names = self.example_images()
            seed_list = _seed_list(seeds, len(pictures))
        else:
            pictures, names = load_images(images, size=self.backend.size, on_error=on_error)
            seed_list = _seed_list(seeds, len(pictures))
            self._fit_if_needed(pictures, progress)
            self._warn_of_overlap(pictures)
        fitted = self._fitted()
        maker: Any = self._method(method)
        chosen = {"mode": mode} if maker is fitted else {}
        made, latents = {"reference": pictures}, {}
        for key, moves in wanted.items():
            made[key] = maker.generate(pictures, moves, seeds=seed_list, alpha=alpha, strength=strength, **chosen)
            if maker is not fitted:  # where in the landscape a baseline's pictures lie
                latents[key] = self.landscape_.encode(self.backend.encode(made[key]))[0]
            elif method == "optimize" and moves:
                latents[key] = fitted.optimized_.latents
            else:
                latents[key] = fitted.latents(pictures, moves, alpha=alpha, mode=mode)[1]
        reader, scaler = self.target, self.landscape_.scaler
        judged = None
        if judge is not None:
            if self._reference is None:
                raise ValueError(
                    "judge= needs the reference images, which a loaded lens does not have; call fit first."
                )
            reader = judge
            judged = _responses(judge, self._reference[0])
            scaler = ResponseScaler.fit(judged, judge.names)
        read = {key: reader.responses(value.to(reader.device)) for key, value in made.items()}
        similarity = self._similarity(made)
        described = self._describe(maker, name_of, alpha, strength, seeds, direction, mode, doses)
        if judge is not None:
            described["judge"] = self._judge_said(judge)
        elif "judge" in described["target"]:  # no network: what was recorded
            described["judge"] = described["target"]["judge"]
        weight = described["alpha"] if method == "edit" else None
        points: dict[float, Tensor] = {0.0: torch.zeros_like(read["unedited"])}
        for key, moves in list(wanted.items())[1:]:
            sign = -1 if key == "decrease" else 1
            if weight:
                points[sign * weight] = scaler.standardise(read[key]) - scaler.standardise(read["unedited"])
            for dose in set(doses) - {weight}:
                dosed = fitted.generate(pictures, moves, seeds=seed_list, alpha=dose, strength=strength, mode=mode)
                responses = reader.responses(dosed.to(reader.device))
                points[sign * dose] = scaler.standardise(responses) - scaler.standardise(read["unedited"])
        shown, shown_names = (None, None) if self._reference is None else self._reference
        results = {
            name: LensResult(
                unit=name,
                layer=described["target"].get("layer", ""),
                model=described["target"].get("model", type(self.target).__name__),
                images=made,
                responses={key: value[:, unit] for key, value in read.items()},
                response_mean=scaler.mean[unit].item(),
                response_std=scaler.std[unit].item(),
                similarity=similarity,
                evidence=self.evidence_.get(name),
                names=names,
                settings=described,
                background=Background.of(
                    self.landscape_,
                    unit,
                    latents,
                    responses=None if judged is None else judged[:, unit],
                    pictures=shown,
                    names=shown_names,
                    doses={dose: change[:, unit] for dose, change in points.items()} if method == "edit" else None,
                ),
            )
            for unit, name in enumerate(self.target.names)
        }
        return results if len(results) > 1 else next(iter(results.values()))

    def compare(
        self,
        images: Any = None,
        methods: Sequence[str | Method] | Mapping[str, str | Method] = (
            "edit",
            "ridge_pattern",
            "difference_of_means",
            "shuffled",
            "unedited",
        ),
        seeds: Sequence[int] = (0, 1, 2),
        *,
        direction: Literal["increase", "decrease", "both"] = "both",
        angle: float | None = None,
        strength: float | None = None,
        natural: Any = None,
        embedding: Callable[[Tensor], Tensor] | None = None,
        second: Callable[[Tensor], Tensor] | None = None,
        folder: str | Path | None = None,
        progress: bool = False,
    ) -> Comparison:
        """Run several methods on the same images, noise seeds and scorer, and say how sure the scores are.

        Every method learns from the reference images and responses that the landscape learned from; what it held out
        judges. Each image and repetition has a noise seed of its own, the same for all methods. Fits are not repeated.

        Args:
            images: Images to move, which the fit has not seen; None takes eight of the held-out reference pictures.
            methods: Names, or objects with fit and generate; a mapping of label to either gives them other labels.
            seeds: Repetitions of the generation.
            direction: Which way; each of a lens's units is moved alone.
            angle: Edit angle in degrees at which methods are matched that have one, those given by name. A comparison
                at unequal angles is one of how far was gone.
            strength: SDEdit strength of all; None is the backend's.
            natural: Natural images that judge: percentile, realism, predictivity. None takes the held-out reference
                pictures, on which the fit of the landscape may have been stopped.
            embedding: Images (N, 3, S, S) in [0, 1] to (N, ...) features, for similarity, realism, diversity and
                predictivity: of a network that is neither the landscape's nor the target's. None takes the backend's
                perception, unless the landscape was fitted in it.
            second: Likewise, of a second network to which changes are transferred.
            folder: Every finished method and seed is kept here, and read instead of made when called again.
            progress: Show a bar.

        Returns:
            A table with intervals, costs and figures; a unit a row where the lens has several.

        Raises:
            ValueError: A method cannot work here, too few images are left to judge, they were learned from, or the
                folder holds parts of another comparison.
            TypeError: A method is none.
        """
        named, repetitions = name_methods(methods), [int(seed) for seed in seeds]
        if not repetitions or len(set(repetitions)) < len(repetitions) or min(repetitions) < 0:
            raise ValueError(f"seeds={list(seeds)}; expected different numbers from 0, at least one. Pass (0, 1, 2).")
        if not isinstance(direction, str) or direction not in (*DIRECTIONS, "both"):
            raise ValueError(f"direction={direction!r} is unknown; expected 'increase', 'decrease' or 'both'.")
        if strength is not None and not 0 <= strength <= 1:
            raise ValueError(f"strength={strength} must lie in [0, 1].")
        if angle is not None and not 0 <= angle <= 180:
            raise ValueError(f"angle={angle} must lie in [0, 180]: the degrees by which an edit turns.")
        self._fit_if_needed(None, progress)
        ours, reference = self._fitted(), self._reference
        if reference is None:
            raise ValueError(
                "this lens holds no reference images, as a loaded one, and methods are fitted on them; expected a lens "
                "that was fitted here. Call fit first."
            )
        makers = {label: build(method, ours, angle) for label, method in named.items()}
        for maker in makers.values():
            if hasattr(maker, "refuse"):
                maker.refuse(self.target, self.backend)
        if images is None:
            inputs = self.example_images()[0]
        else:
            inputs = load_images(images, size=self.backend.size)[0]
            self._warn_of_overlap(inputs)
        held_out = self.landscape_.held_out.tolist()
        if natural is None:
            taken = set(image_keys(inputs))
            judges = reference[0][held_out]
            judges = judges[[row for row, key in enumerate(image_keys(judges)) if key not in taken]]
        else:
            judges = load_images(natural, size=self.backend.size)[0]
            known = sum(key in self._learned for key in image_keys(judges))
            if known:
                raise ValueError(
                    f"natural holds {known} images that the methods learn from; expected images that they have not "
                    "seen. Leave those out."
                )
        if len(judges) < MIN_NATURAL:
            raise ValueError(
                f"natural has {len(judges)} images to judge by; expected at least {MIN_NATURAL}, none of them to be "
                "moved. Pass more."
            )
        synthetic = (self.reference_kind_ or "").startswith("synthetic")
        makers = {
            f"{label} (synthetic)" if synthetic and getattr(maker, "shows_reference", False) else label: maker
            for label, maker in makers.items()
        }
        seen, notes = self._seen(embedding)
        for name, item in self.evidence_.items():
            if item.weak:
                notes.append(f"WEAK EVIDENCE for unit {name}, doubt its pictures: {'; '.join(item.reasons)}.")
        transfer = None
        if second is not None:
            pictures, responses = self._learned_from()
            transfer = Transfer(second).fit(pictures[:], responses)
            listed = ", ".join(f"{value:.2f}" for value in transfer.correlation_.tolist())
            notes.append(f"The second network predicts natural responses with a correlation of {listed}.")
        if synthetic:
            notes.append(
                "The reference pictures are synthetic, and so are the natural images that judge, unless given."
            )
        if angle is not None:
            other = [label for label, maker in makers.items() if angle_of(maker) != angle]
            notes.append(f"Edits are matched at {angle:g}°" + (f", except: {', '.join(other)}." if other else "."))
        run = Run(
            ours,
            makers,
            inputs,
            self._learned_from,
            [way for way in DIRECTIONS if direction in (way, "both")],
            fit_seconds=self.fit_seconds_,
            strength=strength,
            folder=None if folder is None else Path(folder),
        )
        scorer = Scorer(self.target, self.landscape_.scaler, inputs, judges, features=seen, transfer=transfer)
        found = collect(run, scorer, list(makers), repetitions, progress=progress)
        found.notes.extend(notes)
        return found

    def sweep(
        self,
        images: Any = None,
        alphas: Sequence[float] = (-1.0, -0.5, 0.0, 0.5, 1.0),
        *,
        unit: Any = None,
        strength: float | None = None,
        seeds: int | Sequence[int] = PAPER_SEED,
    ) -> Sweep:
        """Dose and response: the unit's response change at signed weights; the sign picks the prior mean.

        Returns:
            Weights, changes in SDs against α = 0, and a figure.
        """
        if any(not -1 <= alpha <= 1 for alpha in alphas):
            raise ValueError(f"alphas={list(alphas)} must lie in [-1, 1]: the sign picks the prior mean.")
        if images is None:
            self._fit_if_needed(None, False)
            pictures, _ = self.example_images()
        else:
            pictures, _ = load_images(images, size=self.backend.size)
            self._fit_if_needed(pictures, False)
            self._warn_of_overlap(pictures)
        fitted, index = self._fitted(), self._index(unit)
        fitted.technique = "edit"
        seed_list = _seed_list(seeds, len(pictures))

        def respond(alpha: float) -> Tensor:
            moves: dict[int, Direction] = {index: "increase" if alpha > 0 else "decrease"} if alpha else {}
            made = fitted.generate(pictures, moves, seeds=seed_list, alpha=abs(alpha), strength=strength)
            return self.landscape_.scaler.standardise(self.target.responses(made))[:, index]

        start = respond(0.0)
        return Sweep(
            unit=self.target.names[index],
            alphas=[float(alpha) for alpha in alphas],
            response_change=torch.stack([respond(float(alpha)) - start for alpha in alphas]),
            evidence=self.evidence_.get(self.target.names[index]),
        )

    def sample(
        self,
        count: int = 8,
        direction: str | Mapping[Any, Direction] = "increase",
        *,
        strength: float | None = None,
        seed: int = PAPER_SEED,
    ) -> Tensor:
        """Pictures drawn from the prior itself, with no input image; picture k uses ``seed + k``.

        Returns:
            (count, 3, S, S) in [0, 1].
        """
        wanted = self._directions(direction)
        if len(wanted) != 1:
            raise ValueError(f"direction={direction!r} is two; sample 'increase' and 'decrease' one after the other.")
        self._fit_if_needed(None, False)
        (moves,) = wanted.values()
        z = sample_latents(self.landscape_, count, moves, seed=seed).to(self.backend.device)
        x = self.landscape_.decode(z)
        strength = self.backend.defaults.strength_of("edit") if strength is None else strength
        seeds = [seed + row for row in range(count)]
        return self.backend.decode(x, reference=None, strength=strength, seeds=seeds).cpu()

    def top_images(self, count: int = 10, images: Any = None, *, unit: Any = None) -> TopImages:
        """The images that drive the unit most: the reality check beside every generated picture.

        Args:
            count: How many.
            images: Where to look; None looks among the images that the lens was fitted on.
            unit: Which unit of a lens on several.
        """
        if images is None:
            if self._reference is None:
                raise ValueError("images=None, and this lens holds no reference images; pass the images to rank.")
            pictures, names = self._reference
        else:
            pictures, names = load_images(images, size=self.backend.size)
        index = self._index(unit)
        # Of the fit's images what the landscape was fitted on, which may have been measured.
        responses = (self.landscape_.responses if images is None else _responses(self.target, pictures))[:, index]
        order = responses.argsort(descending=True, stable=True)[:count]
        return TopImages(pictures[order], responses[order], [names[row] for row in order.tolist()])

    def attribute(
        self,
        images: Any = None,
        *,
        unit: Any = None,
        method: str = "NeuronIntegratedGradients",
        **settings: Any,
    ) -> Attribution:
        """Where in images a unit looks, computed and drawn by Captum; needs no fit for images that are given.

        Args:
            images: A tensor, PIL images, paths or a folder, such as a result's ``images["increase"]``; None takes
                reference pictures that the fit never saw.
            unit: Which unit of a lens on several.
            method: ``"NeuronIntegratedGradients"``, ``"NeuronGradient"`` or ``"NeuronFeatureAblation"``.
            settings: For Captum's ``attribute``: ``n_steps=``, ``baselines=``, ``feature_mask=``, ...

        Returns:
            What each pixel contributes; ``figure()`` shows it.
        """
        if images is None:
            pictures, _ = self.example_images()
        else:
            pictures, _ = load_images(images, size=self.backend.size)
        return attribute(self.target, pictures, self._index(unit), method=method, **settings)

    def example_images(self, count: int = 8) -> tuple[Tensor, list[str]]:
        """Reference pictures that the fit held out, and their names."""
        self._fit_if_needed(None, False)
        if self._reference is None:
            raise ValueError("this lens holds no reference images; pass images to edit.")
        rows = self.landscape_.held_out.tolist()[:count]
        return self._reference[0][rows], [self._reference[1][row] for row in rows]

    def summary(self) -> str:
        """What the lens points at, what it applies to images, and what its fit is worth."""
        said = self._target_description()
        pool = ""
        # A neuron at its place and a function of the whole output are not pooled.
        pooled = not all(isinstance(unit, tuple | FunctionType) for unit in getattr(self.target, "units", [0]))
        if pooled and len(said.get("shape", [])) > 1:
            over = "the map" if said["layout"] in ("NCHW", "NHWC", None) else "the positions"
            pool = f" ({said['pool']} over {over})" if said["pool"] in ("mean", "max") else f" ({said['pool']})"
        layer = f"layer {said['layer']}" if said.get("layer") else "output"
        units = ", ".join(self.target.names)
        lines = [
            f"{said['model']}, {layer}, unit {units}{pool}, backend {self.backend.name}",
            f"preprocessing: {said.get('preprocess', 'none')}",
        ]
        if self.method_ is None:
            return "\n".join([*lines, "not fitted yet"])
        size = len(self.landscape_.latents)
        lines.append(f"fitted on {size} images ({self.reference_kind_})")
        if self._pairing is not None:
            lines.append(f"images and their responses: {self._pairing}")
        return "\n".join([*lines, *(str(item) for item in self.evidence_.values())])

    def contact_sheet(
        self,
        units: Sequence[Any],
        images: Any = None,
        *,
        reference: Any = None,
        count: int = 3,
        top: int = 4,
        alpha: float | None = None,
        strength: float | None = None,
        seed: int = PAPER_SEED,
        progress: bool = False,
        **settings: Any,
    ) -> ContactSheet:
        """Many units of the lens's layer on one sheet: evidence, top images, preferred and suppressed pictures.

        The reference set is encoded once and read by the whole layer once. All units share one latent, a block each, in
        which they disturb one another a little; a lens of its own shows a unit better.

        Args:
            units: Units of the layer, or names of the units of a target. Unknown, dead and constant ones are listed.
            images: What to edit, the first ``count`` of it; None takes reference pictures that the fit holds out.
            reference: Reference images; None takes those of this lens's fit, else the backend's own.
            count: Inputs, edited in both directions for every unit.
            top: Top images of a unit.
            alpha: Weight of the edit; None is the measured default.
            strength: SDEdit strength of the refinement; None is the measured default.
            seed: Noise seed of every picture.
            progress: Show progress bars.
            settings: Of the fit, as for :meth:`fit`.

        Returns:
            The sheet: ``.figure()``, ``.html()``, ``.save("sheet.html")``, ``.rows``.

        Raises:
            ValueError: There are no reference images, or none of the units can be shown.
        """
        if count < 1 or top < 1:
            raise ValueError(f"count={count}, top={top}: expected at least 1 of each.")
        if reference is not None:
            pictures, names = load_images(reference, size=self.backend.size)
            kind = "given images"
        elif self._reference is not None:
            # Its units are read from the network, whatever was measured of the lens's own.
            (pictures, names), kind = self._reference, str(self.reference_kind_).removesuffix(MEASURED)
        elif (own := self.backend.reference()) is not None:
            pictures, names, kind = own, _synthetic_names(len(own)), "synthetic reference"
        else:
            raise ValueError(
                f"reference=None, this lens is not fitted, and backend {self.backend.name!r} has no reference set; "
                f"pass at least {MIN_IMAGES} images as reference=."
            )
        target, left_out = self._many(units)
        responses = torch.zeros(0) if target is None else _responses(target, pictures, progress=progress)
        alive = []
        for column, name in enumerate([] if target is None else target.names):
            try:
                ResponseScaler.fit(responses[:, [column]], [name])
                alive.append(column)
            except ValueError as error:  # dead, constant or not finite
                left_out[name] = str(error)
        if target is None or not alive:
            raise ValueError(f"units: none of {len(left_out)} can be shown. {' '.join(left_out.values())}")
        chosen, responses = UnitsOf(target, alive), responses[:, alive]
        fitted = LandscapeMethod(seed=self.seed, **settings)
        fitted.fit(chosen, self.backend, pictures, responses, progress=progress)
        scaler, held_out = fitted.landscape_.scaler, fitted.landscape_.held_out[:count]
        if images is None:
            inputs, input_names = pictures[held_out], [names[row] for row in held_out.tolist()]
        else:
            inputs, input_names = load_images(images, size=self.backend.size)
            inputs, input_names = inputs[:count], input_names[:count]

        def make(moves: dict[int, Direction]) -> Tensor:
            return fitted.generate(inputs, moves, seeds=[seed] * len(inputs), alpha=alpha, strength=strength)

        unedited = make({})
        start = scaler.standardise(chosen.responses(unedited))
        standard = scaler.standardise(responses)
        rows = []
        for unit, name in enumerate(tqdm(chosen.names, desc="units", disable=not progress)):
            made = {way: make({unit: way}) for way in DIRECTIONS}
            best = standard[:, unit].argsort(descending=True, stable=True)[:top]
            rows.append(
                ContactRow(
                    unit=name,
                    evidence=fitted.evidence_[name],
                    top=TopImages(pictures[best], standard[best, unit], [names[row] for row in best.tolist()]),
                    images=made,
                    response_change={
                        way: scaler.standardise(chosen.responses(value))[:, unit] - start[:, unit]
                        for way, value in made.items()
                    },
                )
            )
        described = fitted.describe()
        said = {name: value for name, value in self._target_description().items() if name != "units"}
        layer = f"layer {said['layer']}" if said.get("layer") else "output"
        return ContactSheet(
            title=f"{said['model']}, {layer}",
            inputs=inputs,
            unedited=unedited,
            names=input_names,
            rows=rows,
            left_out=left_out,
            settings={
                "units": chosen.names,
                "backend": self.backend.name,
                "reference_set": kind,
                "reference_images": len(pictures),
                "alpha": alpha,
                "strength": strength,
                "seed": seed,
                "target": said,
                "settings": described,
                "versions": versions(),
            },
        )

    def _many(self, units: Sequence[Any]) -> tuple[Target | None, dict[str, str]]:
        """One target that reads all of these units that there are, and why the others are not."""
        ours, left_out, known = self.target, {}, []
        unlike = {str(unit) if isinstance(unit, str) else unit_name(unit): unit for unit in units}
        if not isinstance(ours, LayerTarget):
            for name in unlike:
                if name in ours.names:
                    known.append(ours.names.index(name))
                else:
                    left_out[name] = f"unit {name!r} is not in this target; it has {', '.join(ours.names)}."
            return (UnitsOf(ours, known) if known else None), left_out

        def aim(chosen: list[Any]) -> LayerTarget:
            return LayerTarget(
                ours.model,
                ours.layer or None,
                chosen,
                pool=ours.pool,
                layout=ours.declared_layout,
                output=ours.output,
                call=ours.call,
                preprocess=ours.preprocess,
                labels=ours.labels,
                batch_size=ours.batch_size,
            )

        for name, unit in unlike.items():
            try:
                aim([unit])
                known.append(unit)
            except (ValueError, TypeError, KeyError) as error:
                left_out[name] = str(error.args[0])
        return (aim(known) if known else None), left_out

    def save(self, path: str | Path) -> Path:
        """Write the fitted lens, without the model and without images, to one file."""
        method = self._fitted()
        if "fingerprint" not in self._target_description() and getattr(self.target, "name", "") is None:
            kind = type(self.target).__name__
            raise ValueError(
                f"the lens's target is a {kind} without a name; expected one, by which a loaded lens knows its"
                f" function again. Pass name= to {kind}."
            )
        return save_state(
            path,
            "lens",
            {
                "landscape": method.landscape_.state(),
                "evidence": [item.to_dict() for item in method.evidence_.values()],
                "settings": method.settings,
                "seed": self.seed,
                "reference_kind": self.reference_kind_,
                "learned": sorted(self._learned),
                "backend": self.backend.name,
                "target": self._target_description(),
            },
        )

    @classmethod
    def load(cls, path: str | Path, model: nn.Module | Target, **arguments: Any) -> "FeatureLens":
        """Read what :meth:`save` wrote, for the same model.

        Args:
            path: The file.
            model: The model that the lens was fitted for; its weights are compared.
            arguments: For the constructor, where the file cannot hold them: ``preprocess=``, ``backend=``, ``unit=`` of
                units that are no numbers, ``labels=`` where units were named by them.

        Raises:
            ValueError: The file is damaged or not a lens, or the model is another one.
        """
        state = load_state(path, "lens")
        said = state["target"]
        if not isinstance(model, Target):
            names = said["units"]
            numbers = [int(name) for name in names if name.lstrip("-").isdigit()]
            if "unit" not in arguments:
                if len(numbers) != len(names) or "channels" in said:  # a label may look like a number
                    raise ValueError(
                        f"path={str(path)!r} holds the units {names}; pass the same ones as unit=, and labels= if that "
                        "is where their names come from."
                    )
                arguments["unit"] = numbers if len(numbers) > 1 else numbers[0]
            reading = {"layer": said["layer"] or None, "pool": said["pool"], "layout": said.get("declared_layout")}
            reading["output"] = tuple(said["output"]) if isinstance(said.get("output"), list) else said.get("output")
            arguments = {**reading, "call": said.get("call"), **arguments}
        lens = cls(model, backend=arguments.pop("backend", state["backend"]), seed=state["seed"], **arguments)
        now = lens._target_description()
        names = ("layer", "units", "channels", "pool", "layout", "output", "call")
        # A preprocessing that can only say where it lies in memory cannot be compared.
        known = all(side.get("preprocess") and " at 0x" not in side["preprocess"] for side in (now, said))
        names = (*names, *(("preprocess",) if known else ()), *(() if isinstance(model, nn.Module) else ("model",)))
        for name in names:
            if _plain(now.get(name)) != _plain(said.get(name)):
                raise ValueError(
                    f"{name}={now.get(name)!r}, but the lens in {str(path)!r} was fitted with {said.get(name)!r}; pass "
                    "that, or fit again."
                )
        if now.get("fingerprint") != said.get("fingerprint"):
            raise ValueError(
                f"model's weights (fingerprint {now.get('fingerprint')}) are not those that the lens in {str(path)!r} "
                f"was fitted for ({said.get('fingerprint')}); pass that model, or fit again."
            )
        method = LandscapeMethod(seed=state["seed"], **state["settings"]).bind(lens.target, lens.backend)
        method.landscape_ = Landscape.from_state(state["landscape"])
        method.landscape_.vae.to(lens.backend.device)
        method.shuffled_ = []
        items = [Evidence(**{k: v for k, v in item.items() if k != "weak"}) for item in state["evidence"]]
        method.evidence_ = {item.unit: item for item in items}
        lens.method_, lens.reference_kind_ = method, state["reference_kind"]
        lens._learned = set(state.get("learned", []))  # files of 0.1.0 have none
        return lens

    def _open(self, images: Any, on_error: Literal["raise", "skip"]) -> tuple[Any, list[str]]:
        """Reference pictures and names; files stay files where x is an embedding, for at 512 px they fill memory."""
        if isinstance(self.backend, EmbeddingBackend) and holds_files(images):
            files = ImageFiles(images, self.backend.size, on_error=on_error)
            return files, files.names
        return load_images(images, size=self.backend.size, on_error=on_error)

    def _fitted(self) -> LandscapeMethod:
        if self.method_ is None:
            raise ValueError("this lens is not fitted; call fit() or visualize() first.")
        return self.method_

    def _method(self, method: str | Method) -> Method:
        """What generates: the lens's own landscape, or a baseline fitted on what the landscape was fitted on."""
        ours = self._fitted()
        if method in OURS:
            ours.technique = method  # pyright: ignore[reportAttributeAccessIssue] (one of the two)
            return ours
        if isinstance(method, str) and method in self._baselines:
            return self._baselines[method]
        if self._reference is None:
            raise ValueError(
                f"method={method!r} is fitted on the reference images, which a loaded lens does not have; call fit "
                "first, or use 'edit'."
            )
        baseline: Any = method
        if isinstance(method, str):
            # A control of this very landscape takes its settings; everything else has its own.
            settings = {"seed": ours.seed, **ours.settings} if method == "shuffled" else {}
            baseline = method_by_name(method, **settings)
        if getattr(baseline, "shows_reference", False) and (self.reference_kind_ or "").startswith("synthetic"):
            raise ValueError(
                f"method={method!r} shows reference images as natural ones, and those of this lens are synthetic. Fit "
                "on photographs first, or look at top_images()."
            )
        # A landscape holds images out by itself; what does not must not see those that ours held out.
        itself = isinstance(getattr(baseline, "method", baseline), LandscapeMethod)
        known = (self._reference[0], self.landscape_.responses) if itself else self._learned_from()
        baseline.fit(self.target, self.backend, *known)
        if isinstance(method, str):
            self._baselines[method] = baseline
        return baseline

    def _learned_from(self) -> tuple[Any, Tensor]:
        """Reference pictures and responses that the landscape learned from; what is compared with it gets the same."""
        assert self._reference is not None  # who calls has looked
        pictures = self._reference[0]
        rows = sorted(set(range(len(self.landscape_.responses))) - set(self.landscape_.held_out.tolist()))
        chosen = pictures.at(rows) if isinstance(pictures, ImageFiles) else pictures[rows]
        return chosen, self.landscape_.responses[rows]

    def _fit_if_needed(self, images: Tensor | None, progress: bool) -> None:
        if self.method_ is not None:
            return
        if self.backend.reference() is not None:
            self.fit(progress=progress)
        elif images is not None and len(images) >= MIN_IMAGES:
            self.fit(images, progress=progress)
        else:
            given = "none" if images is None else str(len(images))
            raise ValueError(
                f"this lens is not fitted, backend {self.backend.name!r} has no reference set, and {given} images were "
                f"given, of which {MIN_IMAGES} are needed. Call fit(images) first."
            )

    def _warn_of_other_units(self, pictures: Any, measured: Tensor) -> None:
        """A network's pictures are read by the network, in SDs of what was measured: say so where they are no match."""
        if not isinstance(self.target, LayerTarget) or measured.shape != (len(pictures), len(self.target.names)):
            return  # an encoder was fitted to recordings; what does not fit is refused later
        if not measured.isfinite().all():
            return
        rows = torch.linspace(0, len(pictures) - 1, min(COMPARED, len(pictures))).long().tolist()
        some = pictures.at(rows) if isinstance(pictures, ImageFiles) else pictures[rows]
        own, given = _responses(self.target, some), measured[rows].cpu()
        for name, r, spread, wanted in zip(
            self.target.names, pearson(own, given).tolist(), own.std(0).tolist(), given.std(0).tolist(), strict=True
        ):
            if r < ALIKE or not wanted / TIMES < spread < wanted * TIMES:
                warnings.warn(
                    f"responses have a standard deviation of {wanted:.3g}, and unit {name} of the network, which reads "
                    f"the pictures, one of {spread:.3g} and a correlation of {r:.2f} with them over {len(rows)} "
                    "reference images: response changes in SDs of the measured responses mean little. Pass judge= to "
                    "visualize, or a target that was fitted to the measured responses.",
                    stacklevel=3,
                )

    def _warn_of_overlap(self, pictures: Tensor) -> None:
        count = sum(key in self._learned for key in image_keys(pictures))
        if count:
            warnings.warn(
                f"{count} of {len(pictures)} images to edit are among those that the landscape was fitted on "
                f"({self.reference_kind_}); their changes may be better than those of other images. Edit images that "
                "the fit has not seen, or fit on others.",
                stacklevel=3,
            )

    def _index(self, unit: Any) -> int:
        if unit is None:
            if len(self.target.names) > 1:
                raise ValueError(f"unit=None, but the lens points at {', '.join(self.target.names)}; say which.")
            return 0
        name = unit if isinstance(unit, str) else unit_name(unit)
        if name not in self.target.names:
            raise KeyError(f"unit {unit!r} is not in this lens; it points at {', '.join(self.target.names)}.")
        return self.target.names.index(name)

    def _directions(self, direction: str | Mapping[Any, Direction]) -> dict[str, dict[int, Direction]]:
        everything = range(len(self.target.names))
        if isinstance(direction, Mapping):
            for unit, way in direction.items():
                if way not in DIRECTIONS:
                    raise ValueError(f"direction[{unit!r}]={way!r} is unknown; expected one of {list(DIRECTIONS)}.")
            if not direction:
                raise ValueError("direction={} names no unit; give at least one, as {17: 'increase'}.")
            return {"custom": {self._index(unit): way for unit, way in direction.items()}}
        if direction not in (*DIRECTIONS, "both"):
            raise ValueError(f"direction={direction!r} is unknown; expected 'increase', 'decrease', 'both' or a dict.")
        found: dict[str, dict[int, Direction]] = {}
        for way in DIRECTIONS:
            if direction in (way, "both"):
                found[way] = dict.fromkeys(everything, way)
        return found

    def _similarity(self, made: dict[str, Tensor]) -> dict[str, Tensor]:
        perception = self.backend.perception()
        if perception is None:
            return {}
        with torch.no_grad():
            seen = {key: perception(self.backend.encode(value)).flatten(1).cpu() for key, value in made.items()}
        return {key: cosine_similarity(value, seen["reference"]) for key, value in seen.items()}

    def _target_description(self) -> dict[str, Any]:
        return self.target.describe()

    def _judge_said(self, judge: Target) -> str:
        """Who judged, in a line; its own maker is called that."""
        said, own = judge.describe(), self._target_description()
        model = f"{said['model']} ({said['name']})" if "name" in said else said["model"]
        line = f"{', '.join(judge.names)} of {model}"
        if said.get("fingerprint") is not None and said["fingerprint"] == own.get("fingerprint"):
            line += ", the network that guided them"
        return line

    def _seen(
        self, embedding: Callable[[Tensor], Tensor] | None
    ) -> tuple[Callable[[Tensor], Tensor] | None, list[str]]:
        """What a comparison compares pictures in, and what a reader has to know of it."""
        if embedding is not None:
            return embedding, []
        perception, backend = self.backend.perception(), self.backend
        missing = "similarity, realism, diversity and predictivity are left out. Pass embedding= to have them."
        if perception is None:
            return None, [f"Backend {backend.name!r} has no network of its own besides the landscape's: {missing}"]
        inside = not (self.target.differentiable and backend.differentiable)
        if inside and self._fitted().describe()["fit"]["w_consistency"] > 0:
            return None, [f"The landscape was fitted in the backend's own network: {missing}"]
        name = getattr(backend, "perception_name", f"{backend.name} perception")
        return lambda pictures: perception(backend.encode(pictures)), [f"Pictures are compared in {name}."]

    def _describe(
        self,
        maker: Any,
        method: str,
        alpha: float | None,
        strength: float | None,
        seeds: Any,
        direction: Any,
        mode: int | None,
        doses: Sequence[float],
    ) -> dict[str, Any]:
        described = self._fitted().describe()
        edit = described["edit"]
        baseline = maker is not self._fitted()
        if baseline:  # its own defaults are in force, not the backend's
            if alpha is None and getattr(maker, "angle", None) is None:
                alpha = getattr(maker, "alpha", None)
            strength = getattr(maker, "strength", None) if strength is None else strength
        kind = getattr(maker, "technique", method)  # a landscape by another name generates as its technique does
        return {
            "method": method,
            **({"baseline": describe_method(maker)} if baseline else {}),
            # By angle every image has a weight of its own; the angle is under "settings".
            "alpha": alpha if method != "edit" or alpha is not None or edit["angle"] is not None else edit["alpha"],
            "strength": self.backend.defaults.strength_of(kind) if strength is None else strength,
            "seeds": seeds if isinstance(seeds, int) else list(seeds),
            "mode": mode,
            "doses": list(doses),
            "direction": (
                {self.target.names[self._index(unit)]: way for unit, way in direction.items()}
                if isinstance(direction, Mapping)
                else direction
            ),
            "backend": self.backend.name,
            "reference_set": self.reference_kind_,
            "similarity_network": getattr(self.backend, "perception_name", f"{self.backend.name} perception"),
            "target": self._target_description(),
            "settings": described,
        }


def _responses(target: Target, pictures: Tensor | ImageFiles, *, progress: bool = False) -> Tensor:
    """Responses (N, K) to pictures in memory or in files."""
    if not isinstance(pictures, ImageFiles):
        return target.responses(pictures, progress=progress)
    with tqdm(total=len(pictures), desc="responses", unit="image", disable=not progress) as bar:
        found = []
        for part in pictures.split(FILES_AT_ONCE):
            found.append(target.responses(part))
            bar.update(len(part))
    return torch.cat(found)


def _synthetic_names(count: int) -> list[str]:
    return [f"synthetic-{row:04d}" for row in range(count)]


def _plain(value: Any) -> Any:
    """Tuples as the lists that a file makes of them."""
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _seed_list(seeds: int | Sequence[int], count: int) -> list[int]:
    if isinstance(seeds, int):
        return [seeds] * count
    if len(seeds) != count:
        raise ValueError(f"seeds has {len(seeds)} entries for {count} images; give one for all or one an image.")
    return [int(seed) for seed in seeds]
