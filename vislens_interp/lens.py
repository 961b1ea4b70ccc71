"""FeatureLens: point at a unit, fit its landscape once, and move images through it."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Literal, Self, Unpack

import torch
from torch import Tensor, nn

import vislens_interp.backends.embedded
import vislens_interp.backends.embedding
import vislens_interp.backends.pixel  # noqa: F401 (each registers its backend)
from vislens_interp.backends.base import DEFAULT_BACKEND, Backend, get_backend, on_device
from vislens_interp.config import MIN_IMAGES, Config, Overrides
from vislens_interp.copies import top_rows
from vislens_interp.evaluation.checks import OURS, validate_visualize, warn_of_other_units
from vislens_interp.evaluation.compare import build, compare, fit_beside
from vislens_interp.evaluation.contact_sheet import contact_sheet
from vislens_interp.evaluation.stream import stream
from vislens_interp.evaluation.visualize import PAPER_SEED, default_inputs, visualize
from vislens_interp.evaluation.words import WordReadout
from vislens_interp.files import check_writable
from vislens_interp.images import ImageFiles, ImageSource, load_images
from vislens_interp.landscape.evidence import Evidence
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import SENSES, Sense, UnitSenses
from vislens_interp.landscape.sample import sample_latents
from vislens_interp.methods.base import Method
from vislens_interp.methods.landscape import LandscapeEdit
from vislens_interp.models import device_beside
from vislens_interp.pairing import Responses
from vislens_interp.random_state import NOISE_SEEDS, check_seed
from vislens_interp.reference import ReferenceSet
from vislens_interp.report.render import render
from vislens_interp.results import lens_file
from vislens_interp.results.background import TopImages
from vislens_interp.results.result import LensResult
from vislens_interp.targets.attribution import METHODS, Attribution, attribute
from vislens_interp.targets.pooling import pool_text
from vislens_interp.targets.reading import Reading, check_reading
from vislens_interp.targets.selectors import OneUnit, Unit, unit_name
from vislens_interp.targets.subset import UnitsOf
from vislens_interp.targets.target import LayerTarget, Target
from vislens_interp.validation import check_counts, check_shares, check_word

if TYPE_CHECKING:
    from vislens_interp.audit import AuditResult


class LoadArguments(Reading, total=False):
    """What :meth:`FeatureLens.load` takes for the constructor."""

    layer: str | nn.Module | None
    unit: Unit | None
    backend: str | Backend
    seed: int


class FeatureLens:
    """A lens on one unit of a vision model: the images that it prefers, and those that silence it.

    Args:
        model: The network, or a :class:`~vislens_interp.targets.Target`. It is never changed or moved, see :meth:`to`.
        layer: Dotted name of a layer, the module itself, or None for the model's own output.
        unit: A channel or feature (int), or its label; a tuple or callable with the meaning of Captum's neuron
            selectors; ``MeanOf([...])``, ``Direction(vector)`` or ``Head(k)``; or a list of units, which share one
            latent, a block each. None: the model's only output. Of a target: the name of one of its units, or a list.
        backend: Name of a backend, or a backend: what carries images to latents and back. Lenses that name the same
            one share it.
        seed: Of the fit.
        reading: How the layer is read: ``pool=``, ``token=``, ``layout=``, ``output=``, ``call=``, ``preprocess=``,
            ``labels=``, ``batch_size=``, ``image_size=``, ``forward_args=``; see
            :class:`~vislens_interp.targets.LayerTarget`.

    Attributes (after ``fit``):
        reference_set: What it was fitted on.
        fit_seconds_: Seconds that the fit took.
        audits_: Unit name to its last audit; reports of the lens say which tests were passed.

    Raises:
        ValueError, TypeError, KeyError: An argument does not fit the model; the message says how.

    >>> from vislens_interp import FeatureLens, zoo
    >>> lens = FeatureLens(zoo.load("cifar10_convnet"), "conv3", unit=16, backend="cifar10")
    >>> print(str(lens).splitlines()[0])
    ConvNet, layer conv3, unit 16 (mean over the map), backend cifar10
    """

    def __init__(
        self,
        model: nn.Module | Target,
        layer: str | nn.Module | None = None,
        unit: Unit | None = None,
        *,
        backend: str | Backend = DEFAULT_BACKEND,
        seed: int = 0,
        **reading: Unpack[Reading],
    ) -> None:
        check_reading(reading, "layer", "unit", "backend", "seed")
        if isinstance(model, Target):
            said = {"layer": layer, **reading, "pool": reading.get("pool", "mean")}
            given = [name for name, value in said.items() if value is not None and (name, value) != ("pool", "mean")]
            if given:
                raise ValueError(
                    f"{', '.join(given)}: the model is a {type(model).__name__}, which says itself what it reads;"
                    " expected a network. Leave them out."
                )
            self.target: Target = model if unit is None else UnitsOf.named(model, unit)
        else:
            self.target = LayerTarget(model, layer, 0 if unit is None else unit, **reading)
            if unit is None and self.target.shape != (1,):
                names = list(self.target.labels or [])[:8]
                known = f"It has {', '.join(map(repr, names))}." if names else "list_units(model) shows all."
                raise ValueError(
                    f"unit=None, but layer {self.target.layer!r} has shape {self.target.shape} for one image; say "
                    f"which unit. {known}"
                )
        self.backend = get_backend(backend, self.target.device)
        self.seed = check_seed(seed)
        self.method_: LandscapeEdit | None = None
        self.fit_seconds_: float | None = None
        self._reference: ReferenceSet | None = None
        self._loaded = False  # and nobody has asked for its reference images yet
        self._methods: dict[str, Method] = {}
        self.audits_: dict[str, AuditResult] = {}

    def fit(
        self,
        images: ImageSource | ReferenceSet | None = None,
        responses: Responses | None = None,
        *,
        on_error: Literal["raise", "skip"] = "raise",
        progress: bool = False,
        checkpoint: str | Path | None = None,
        config: Config | None = None,
        **overrides: Unpack[Overrides],
    ) -> Self:
        """Organise the backend's latents by the unit's responses to reference images.

        Args:
            images: At least 200 reference images: a tensor, PIL images, paths, a folder, or the ``reference_set`` of
                another lens. None takes the backend's own one. Of a backend of embeddings, files stay on
                the disk, where they must remain: they are read for the embeddings, for the responses, and when they are
                shown. The same images are embedded once for all lenses on a backend.
            responses: Measured responses, (N,) or (N, K), instead of the model's, or a mapping or table of them by the
                images' names: see :func:`~vislens_interp.pairing.paired_responses`. Pictures are still read by the
                model, in SDs of these: a model that was fitted to them says what they would be, another needs
                ``judge=``.
            on_error: ``"skip"`` leaves unreadable files of a folder out, with a warning that names them.
            progress: Show progress bars.
            checkpoint: File that an interrupted fit goes on from when called again.
            config: Every setting; None starts from the backend's measured defaults.
            overrides: Settings by keyword: ``modes=2, w_consistency=0, epochs=10, alpha=0.5,
                optimize={"steps": 100}``, ... (:class:`~vislens_interp.config.Overrides`).

        Returns:
            The lens; ``evidence_`` says what the fit is worth.
        """
        if checkpoint is not None:
            check_writable(checkpoint)
        method = LandscapeEdit(config, **{"seed": self.seed, **overrides})  # refuses settings before images are read
        reference = ReferenceSet.for_fit(self.backend, images, responses, on_error=on_error)
        warn_of_other_units(self.target, reference)
        start = time.perf_counter()
        method.fit(self.target, self.backend, reference, progress=progress, checkpoint=checkpoint)
        self.fit_seconds_ = time.perf_counter() - start
        fitted = method.landscape_
        reference = reference.with_responses(fitted.responses, measured=reference.measured)
        self.method_, self._reference, self._loaded = method, reference.with_held_out(fitted.held_out), False
        self._methods, self.audits_ = {}, {}
        return self

    @property
    def fitted_method(self) -> LandscapeEdit:
        """The method that was fitted, with its landscape."""
        if self.method_ is None:
            raise ValueError("this lens is not fitted; call fit() or visualize() first.")
        return self.method_

    @property
    def reference_set(self) -> ReferenceSet:
        """The images that the lens was fitted on, with names, responses and what was held out.

        Of a loaded lens that was fitted on the backend's own reference set they are opened again; images that were
        given are not in the file.
        """
        if self._reference is None:
            raise ValueError("this lens is not fitted; call fit() or visualize() first.")
        if self._loaded:
            self._loaded = False
            self._reference = lens_file.reopened(self._reference, self.backend, self.landscape_)
        return self._reference

    @property
    def landscape_(self) -> Landscape:
        """The fitted landscape."""
        return self.fitted_method.landscape_

    @property
    def evidence_(self) -> dict[str, Evidence]:
        """Unit name to what supports its pictures."""
        return self.fitted_method.evidence_

    def validate(
        self,
        direction: UnitSenses = "both",
        *,
        method: str | Method = "edit",
        alpha: float | None = None,
        strength: float | None = None,
        judge: Target | None = None,
        mode: int | None = None,
        alphas: Sequence[float] = (),
    ) -> None:
        """Raise now what :meth:`visualize` would raise of these arguments: before a fit that takes minutes."""
        validate_visualize(
            self, direction, method=method, alpha=alpha, strength=strength, judge=judge, mode=mode, alphas=alphas
        )

    def visualize(
        self,
        images: ImageSource | None = None,
        direction: UnitSenses = "both",
        *,
        method: str | Method = "edit",
        alpha: float | None = None,
        strength: float | None = None,
        seeds: int | Sequence[int] = PAPER_SEED,
        judge: Target | None = None,
        mode: int | None = None,
        alphas: Sequence[float] = (),
        words: WordReadout | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        progress: bool = False,
        out: str | Path | None = None,
    ) -> LensResult:
        """Move images towards what the unit prefers, or away from it, and read the unit again.

        An unfitted lens is fitted first: on the backend's reference set, or on these images if there are 200 of them.

        Args:
            images: A tensor, PIL images, paths or a folder. None takes eight reference images that say most of the
                unit, four that drive it and four that do not (``"prototypes"``); of a lens on more than four units,
                eight that the fit never saw.
            direction: ``"increase"``, ``"decrease"``, ``"both"``, or unit to sense, for a lens on several.
            method: ``"edit"`` moves a latent to the prior mean (Algorithm 2); ``"optimize"`` runs Adam on it
                (Algorithm 3). Or what they are compared with, fitted on the same images and responses: any name of
                :data:`vislens_interp.METHODS`, such as ``"ridge_direction"`` (BrainACTIV), ``"maco"`` or
                ``"unedited"``; or one of them with settings of its own, such as ``RidgePattern(angle=40)``.
            alpha: Weight of the edit, 0 to 1; None is the measured default. Refused by methods that have none.
            strength: SDEdit strength of the refinement: 0 is the bare decoding. Refused by methods that have none.
            seeds: Noise seed of every image, or one an image. Methods that show reference images take them in their
                order, unless there is one an image.
            judge: Another target to read the responses instead of the lens's own: as many units, in the same order.
            mode: Which of several prior means; None takes the nearest to each image.
            alphas: Further weights in (0, 1] for the dose-response; each makes every picture once more.
            words: What reads words from embeddings, such as ``WordReadout.of_clip(...)``; None takes the ImageNet
                classes that travel with the embedded backend. Refused by other methods than our own two.
            on_error: ``"skip"`` leaves unreadable files of a folder out, with a warning that names them.
            progress: Show progress bars.
            out: A folder for the result, for any number of inputs: pictures are written a part at a time and the result
                holds their files. After a kill the same call goes on; until all is there the parts lie in
                ``out.unfinished``. None keeps all in memory, 3 MB for a picture of 512 pixels.

        Returns:
            The result; of a lens on several units that of the first, ``result.of_unit(name)`` gives the others.
        """
        work = visualize if out is None else partial(stream, out=out)
        return work(
            self,
            images,
            direction=direction,
            method=method,
            alpha=alpha,
            strength=strength,
            seeds=seeds,
            judge=judge,
            mode=mode,
            alphas=alphas,
            words=words,
            on_error=on_error,
            progress=progress,
        )

    compare = compare
    contact_sheet = contact_sheet

    def audit(
        self,
        images: ImageSource | None = None,
        methods: Sequence[str | Method] | Mapping[str, str | Method] | None = None,
        *,
        full: bool = False,
        unit: OneUnit | str | None = None,
        judge: Callable[[Tensor], Tensor] | None = None,
        seed: int = 0,
    ) -> "AuditResult":
        """Test whether pictures of a unit are to be believed; :func:`vislens_interp.audit.audit` explains all of it.

        Args:
            images: Photographs that the fit has not seen; None takes those that it held out.
            methods: What is tested; None takes the lens's own edits, top natural images and a control.
            full: Run all tests.
            unit: Which unit of a lens on several.
            judge: A network that judges, as images (N, 3, S, S) to features.
            seed: Of noise, permutations and the bootstrap.
        """
        from vislens_interp.audit.run import AUDITED, audit  # here: it loads networks that judge

        tested = AUDITED if methods is None else methods
        found = audit(self, images, tested, full=full, unit=unit, judge=judge, seed=seed)
        self.audits_[found.unit] = found
        return found

    def sample(
        self,
        count: int = 8,
        direction: UnitSenses = "increase",
        *,
        strength: float | None = None,
        seed: int = PAPER_SEED,
    ) -> Tensor:
        """Pictures (count, 3, S, S) drawn from the prior itself, with no input image; picture k uses ``seed + k``."""
        check_seed(seed, below=NOISE_SEEDS)
        check_counts(count=count)
        check_shares(strength=strength)
        wanted = self.moves(direction)
        if len(wanted) != 1:
            raise ValueError(f"direction={direction!r} is two; sample 'increase' and 'decrease' one after the other.")
        self.fit_if_needed()
        z = sample_latents(self.landscape_, count, *wanted.values(), seed=seed).to(self.backend.device)
        strength = self.fitted_method.config.edit.strength if strength is None else strength
        seeds = [seed + row for row in range(count)]
        return self.backend.decode(self.landscape_.decode(z), init_image=None, strength=strength, seeds=seeds).cpu()

    def top_images(
        self, count: int = 10, images: ImageSource | None = None, *, unit: OneUnit | str | None = None
    ) -> TopImages:
        """The images that drive the unit most: the reality check beside every generated picture.

        Args:
            count: How many, one of each photograph: crops and copies are shown once.
            images: Where to look; files are read a part at a time. None looks among the images of the fit, with the
                responses that the landscape was fitted on, which may have been measured.
            unit: Which unit of a lens on several.
        """
        check_counts(count=count)
        place = self.index(unit)
        if images is None:
            reference, responses = self.reference_set, self.landscape_.responses
        else:
            reference = ReferenceSet.open(images, self.backend.size, stream=True)
            responses = reference.read_by(self.target)
        column = responses[:, place]
        rows = top_rows(column.cpu(), reference.groups, count)
        return TopImages(reference.images[rows], column[rows], [reference.names[row] for row in rows])

    def attribute(
        self,
        images: ImageSource | None = None,
        *,
        unit: OneUnit | str | None = None,
        method: str = "NeuronIntegratedGradients",
        **settings: object,
    ) -> Attribution:
        """Where in images a unit looks, computed by Captum, which draws it too; needs no fit for images that are given.

        Args:
            images: A tensor, PIL images, paths or a folder, such as a result's ``images["increase"]``; None takes
                those of :meth:`visualize`.
            unit: Which unit of a lens on several.
            method: ``"NeuronIntegratedGradients"``, ``"NeuronGradient"`` or ``"NeuronFeatureAblation"``.
            settings: For Captum's ``attribute``: ``n_steps=``, ``baselines=``, ``feature_mask=``, ...
        """
        check_word("method", method, METHODS)
        place = self.index(unit)
        if images is None:
            pictures, _, _ = default_inputs(self)
        else:
            pictures, _ = load_images(images, size=self.backend.size)
        return attribute(self.target, pictures, place, method=method, **settings)

    def to(self, device: str | torch.device) -> Self:
        """Compute on another device: the backend's networks, the fitted landscape and what it learned go there.

        The model is yours, and no lens moves it: call ``model.to(device)`` first. Images stay where they are.

        Args:
            device: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.

        Raises:
            TypeError: It is no device: networks keep their types.
            ValueError: There is no such device, the model is on another, or the backend was not made by its name.
        """
        wanted = device_beside(self.target.device if isinstance(self.target, LayerTarget) else None, device)
        if self.backend.device != wanted:
            self.backend = on_device(self.backend, wanted)
            if self.method_ is not None:
                self.method_.move(self.backend)
            self._methods = {}
        return self

    def __repr__(self) -> str:
        described = self.target.describe()
        # A neuron at its place and a function of the whole output are not pooled.
        pooled = not all(isinstance(unit, tuple | FunctionType) for unit in getattr(self.target, "units", [0]))
        said = pool_text(described) if pooled else ""
        pool = f" ({said})" if said else ""
        layer = f"layer {described['layer']}" if described.get("layer") else "output"
        units = ", ".join(self.target.names)
        lines = [
            f"{described['model']}, {layer}, unit {units}{pool}, backend {self.backend.name}",
            f"preprocessing: {described.get('preprocess', 'none')}",
        ]
        known = self._reference  # of a loaded lens no images are read for this
        if self.method_ is None or known is None:
            return "\n".join([*lines, "not fitted yet"])
        lines.append(f"fitted on {len(self.landscape_.latents)} images ({known.kind})")
        if known.pairing is not None:
            lines.append(f"images and their responses: {known.pairing}")
        return "\n".join([*lines, *(str(item) for item in self.evidence_.values())])

    def _repr_html_(self) -> str:
        title, *lines = repr(self).splitlines()
        weak = self.method_ is not None and any(item.weak for item in self.evidence_.values())
        return render("notebook.html", title=title, lines=lines, weak=weak, columns=[], rows=[])

    def maker(self, method: str | Method, mode: int | None = None) -> Method:
        """What generates: in the lens's own landscape, or another method fitted on what that was fitted on."""
        ours = self.fitted_method
        if method in OURS:
            return ours if (method, mode) == ("edit", None) else build(method, ours, mode=mode)
        if not isinstance(method, str):  # its settings may have changed since
            return fit_beside(method, ours, self.reference_set)
        if method not in self._methods:
            self._methods[method] = fit_beside(method, ours, self.reference_set)
        return self._methods[method]

    def save(self, path: str | Path) -> Path:
        """Write the fitted lens, without the model and without images, to one file."""
        return lens_file.save(path, self.target, self.backend.name, self.seed, self.fitted_method, self.reference_set)

    @classmethod
    def load(cls, path: str | Path, model: nn.Module | Target, **arguments: Unpack[LoadArguments]) -> "FeatureLens":
        """Read what :meth:`save` wrote, now or with 0.1.0, for the same model.

        Args:
            path: The file.
            model: The model that the lens was fitted for; its weights are compared.
            arguments: For the constructor, where the file cannot hold them: ``preprocess=``, ``backend=``, ``unit=`` of
                units that are no numbers, ``labels=`` where units were named by them.

        Raises:
            ValueError: The file is damaged or not a lens, or the model is another one.
        """
        saved = lens_file.read(path)
        reading = {} if isinstance(model, Target) else lens_file.reading(saved, path, arguments)
        backend = lens_file.backend_of(saved, path, arguments)
        named = {"seed": saved["seed"], **reading, **arguments, "backend": backend}
        try:
            lens = cls(model, **named)
        except (ValueError, TypeError, KeyError) as error:
            kind, given = saved["target"].get("model"), type(model).__name__
            if not isinstance(model, nn.Module) or kind in (None, given):
                raise
            raise ValueError(
                f"model is a {given}, and the lens in {str(path)!r} was saved for a {kind} ({error.args[0]}); expected "
                "that model. Pass it, or fit again."
            ) from error
        lens_file.check_same_target(saved, path, lens.target, network=isinstance(model, nn.Module))
        lens.method_, lens._reference = lens_file.restore(saved, path, lens.target, lens.backend)
        lens._loaded = True
        return lens

    def fit_if_needed(self, images: Tensor | ImageFiles | None = None, *, progress: bool = False) -> None:
        """Fit an unfitted lens: on the backend's reference set, or on these images if there are enough of them."""
        if self.method_ is not None:
            return
        if self.backend.reference_images() is not None:
            self.fit(progress=progress)
        elif images is not None and len(images) >= MIN_IMAGES:
            self.fit(ReferenceSet(images), progress=progress)
        else:
            given = "none" if images is None else str(len(images))
            raise ValueError(
                f"this lens is not fitted, backend {self.backend.name!r} has no reference set, and {given} images were "
                f"given, of which {MIN_IMAGES} are needed. Call fit(images) first."
            )

    def index(self, unit: OneUnit | str | None) -> int:
        """Position of a unit in the target; None is the only one."""
        if unit is None:
            if len(self.target.names) > 1:
                raise ValueError(f"unit=None, but the lens points at {', '.join(self.target.names)}; say which.")
            return 0
        name = unit if isinstance(unit, str) else unit_name(unit)
        if name not in self.target.names:
            raise KeyError(f"unit {unit!r} is not in this lens; it points at {', '.join(self.target.names)}.")
        return self.target.names.index(name)

    def moves(self, direction: UnitSenses) -> dict[str, dict[int, Sense]]:
        """Key of a result's pictures to what is wanted of each unit."""
        if isinstance(direction, Mapping):
            for unit, sense in direction.items():
                if sense not in SENSES:
                    raise ValueError(f"direction[{unit!r}]={sense!r} is unknown; expected one of {list(SENSES)}.")
            if not direction:
                raise ValueError("direction={} names no unit; give at least one, as {17: 'increase'}.")
            return {"custom": {self.index(unit): sense for unit, sense in direction.items()}}
        if direction not in (*SENSES, "both"):
            raise ValueError(f"direction={direction!r} is unknown; expected 'increase', 'decrease', 'both' or a dict.")
        units = range(len(self.target.names))
        return {sense: dict.fromkeys(units, sense) for sense in SENSES if direction in (sense, "both")}
