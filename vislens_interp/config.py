"""Every setting of a landscape in one frozen object: how it is fitted, what its prior is, how latents are moved."""

import types
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, Literal, Self, TypedDict, Union, Unpack, get_args, get_origin, get_type_hints

from vislens_interp.validation import check_not_negative, check_positive, check_shares, check_word, closest

DEFAULT_BACKEND = "embedded"
"""What a lens, ``vislens visualize`` and ``vislens demo`` use where no backend is named; the one place that says so."""

MIN_IMAGES = 200
"""Reference images of a fit, at least: a landscape of fewer is noise."""


class _Section:
    """A group of settings whose values have the annotated types; numbers of NumPy are numbers."""

    def __post_init__(self) -> None:
        _check_types(type(self), vars(self))
        self._check()

    def _check(self) -> None:
        """Raise ValueError for a value out of its range."""

    def _of(self, *names: str) -> dict[str, float]:
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class FitConfig(_Section):
    """The recipe of a fit.

    Args:
        solver: ``"adam"`` is the paper's: batches, noise and gradient steps. ``"alternating"`` solves for each part of
            an EmbeddingVAE in turn (``landscape/alternate.py``): the same loss, below Adam's after a round or two
            (benchmarks/sd15_speed.py), without batches, noise, lr, clip or consistency. A lower loss is not a better
            edit: on simulated embeddings Adam's landscape moved responses further (2.3 SD to 1.8 SD at α = 1).
        epochs: Passes over the training part; 150 in Table S3 for CIFAR-10. For ``"alternating"``, rounds at most.
        batch_size, lr, clip: Images a step, Adam's learning rate, largest gradient norm; 128, 1e-4, 1.0 in Table S3.
        lr_step, lr_gamma: Epochs between two cuts of the learning rate, and their factor; 10 and 0.9 in Table S3.
        w_recon, w_kld: Weights of the squared error, summed over the values of x, and of the KLD, summed over latent
            dimensions. The paper does not give the latter.
        w_consistency: Weight of the squared error in a network's features, as a share of the features' variance and
            scaled to the variance of x, so that 1 weighs the two unexplained shares alike. 0 is the paper.
        validation: Share of the images held out of the fit, for early stopping and for the evidence.
        patience: Epochs without a better validation loss before the fit stops; None runs all epochs.
        tolerance: ``"alternating"`` stops when a round changes the training loss by less than this share of it.
        bf16: Compute the losses in bfloat16 where the device multiplies in it (``precision.py``); weights stay float32.
        shuffles: Further fits, on permuted responses, for the evidence.
        seed: Of the split, the batches and the posterior noise.

    Source: Eq. 4 and Table S3. Deviation: Eq. 4's sum of squares, not Algorithm 1's mean, which is 1,024 times smaller.
    """

    solver: Literal["adam", "alternating"] = "adam"
    epochs: int = 150
    batch_size: int = 128
    lr: float = 1e-4
    lr_step: int = 10
    lr_gamma: float = 0.9
    clip: float = 1.0
    w_recon: float = 1.0
    w_kld: float = 0.1
    w_consistency: float = 0.0
    validation: float = 0.1
    patience: int | None = None
    tolerance: float = 1e-2
    bf16: bool = False
    shuffles: int = 2
    seed: int = 0

    def _check(self) -> None:
        check_word("solver", self.solver, ("adam", "alternating"))
        check_positive(**self._of("epochs", "batch_size", "lr", "lr_step", "lr_gamma", "clip"))
        check_not_negative(**self._of("w_recon", "w_kld", "w_consistency", "tolerance", "shuffles"))
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed={self.seed}; expected a whole number from 0 to {2**32 - 1}, such as 0.")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation={self.validation} must lie between 0 and 1: the share of images held out.")
        if self.solver == "alternating" and self.w_consistency > 0:
            raise ValueError(
                f"solver='alternating' with w_consistency={self.w_consistency}: a consistency loss has no closed form."
                " Pass w_consistency=0, or solver='adam'."
            )
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience={self.patience} must be at least 1, or None to run all epochs.")


@dataclass(frozen=True)
class PriorConfig(_Section):
    """The shape of the activation prior; see :class:`~vislens_interp.landscape.prior.ActivationPrior`.

    Args:
        block_dim: Latent dimensions of each unit; None shares all among the units.
        modes: Number of prior means in each direction; 1 is the paper.
        lam, eps: λ and ε of the prior's width λ / (|r| + ε), in SDs of the response.
        sigma_min, sigma_max: Smallest and largest width.
        axis_scale_sd: SDs of the predicted response at which the prior means lie, with ``closed_form_init``.
        cross_talk_penalty: Several units: how much an edit for one avoids the others' responses, with
            ``closed_form_init``.
        closed_form_init: Start the fit in closed form: each block's axis is the ridge prediction of its unit
            (``landscape/closed_form_init.py``).
        gradients: That start uses the target's gradients where there are any, which a generator makes expensive.
    """

    block_dim: int | None = None
    modes: int = 1
    lam: float = 1.0
    eps: float = 0.1
    sigma_min: float = 0.1
    sigma_max: float = 1.0
    axis_scale_sd: float = 4.0
    cross_talk_penalty: float = 0.0
    closed_form_init: bool = True
    gradients: bool = True

    def _check(self) -> None:
        check_positive(axis_scale_sd=self.axis_scale_sd)
        check_not_negative(cross_talk_penalty=self.cross_talk_penalty)


@dataclass(frozen=True)
class EditConfig(_Section):
    """How latents are edited.

    Args:
        alpha: Weight of the goal, 0 (the image) to 1 (the goal).
        angle: Edit by angle in degrees instead: every image is turned so far, as far as its goal allows. An embedding's
            angle is measured from the image's own; that of pixels from the unedited decoding.
        cross_talk_steps: Several units: Gauss-Newton steps after the edit that bring the others' responses back,
            picture by picture, where there are gradients.
        keep_norm: Give every decoded x the length of the image's own x, edited or not: for embeddings.
        residual: What becomes of x - decode(z), the part of an embedding that the VAE cannot give back: lost if False;
            added again if True; ``"fade"``: the less of it, the further the latent has gone to its goal, so that α = 0
            is the image itself and α = 1 the decoded goal. For embeddings.
        top_activating_power: Dimensions that are no unit's go along, to the mean code of the reference images that
            drive the unit that way, each weighted by its response (in SDs) to this power. 0, the paper's, keeps the
            image's own. ``benchmarks/v4_recorded`` compares.
        goal: Where an edit leads. ``"mean"``: the prior mean, the paper's. ``"local_mean"``: each image's own mean of
            the preferred reference images near it, for units with unlike preferences (``landscape/local_mean.py``); the
            whole latent then moves. ``"surrogate_ascent"``: small steps up the gradient of a network that predicts the
            response (``landscape/surrogate.py``), as far as ``angle``, or 60 degrees for an alpha of 1. For embeddings.
        mode: Which of several prior means; None takes the one nearest to each image. For ``goal="mean"``.
        strength: SDEdit strength of the refinement: 0 is the bare decoding, 1 ignores the image.
    """

    alpha: float = 1.0
    interpolation: Literal["lerp", "slerp"] = "lerp"
    angle: float | None = None
    cross_talk_steps: int = 0
    keep_norm: bool = False
    residual: bool | Literal["fade"] = False
    top_activating_power: float = 0.0
    goal: Literal["mean", "local_mean", "surrogate_ascent"] = "mean"
    mode: int | None = None
    strength: float = 1.0

    def _check(self) -> None:
        check_word("goal", self.goal, ("mean", "local_mean", "surrogate_ascent"), " 'mean' is the paper's.")
        check_word("interpolation", self.interpolation, ("lerp", "slerp"))
        if self.residual not in (True, False, "fade"):
            raise ValueError(f"residual={self.residual!r} is unknown; expected True, False or 'fade'.")
        check_not_negative(**self._of("top_activating_power", "cross_talk_steps"))
        if self.top_activating_power and self.goal != "mean":
            raise ValueError(
                f"top_activating_power={self.top_activating_power} belongs to goal='mean'; {self.goal!r} moves the "
                "whole latent. Leave one out."
            )
        check_shares(": 0 keeps the image, 1 is the goal.", alpha=self.alpha)
        check_shares(": 0 is the bare decoding, 1 ignores the image.", strength=self.strength)
        if self.angle is not None and not 0 <= self.angle <= 180:
            raise ValueError(f"angle={self.angle} must lie between 0 and 180 degrees, or be None.")
        if self.cross_talk_steps > 0 and self.goal == "surrogate_ascent":
            raise ValueError(
                f"cross_talk_steps={self.cross_talk_steps} goes with the goals 'mean' and 'local_mean';"
                " 'surrogate_ascent' holds no other unit."
            )
        if self.mode is not None and self.goal != "mean":
            raise ValueError(
                f"mode={self.mode} names a prior mean, to which goal={self.goal!r} does not lead. Leave it out."
            )


@dataclass(frozen=True)
class OptimizeConfig(_Section):
    """How latents are optimised.

    Args:
        steps, lr: Adam's steps and learning rate; 10,000 and 0.1 in the paper.
        w_kld: Weight of the KLD; 0.001 in the paper, where the response is raw. Here it is in SDs.
        w_silent: Further weight of the KLD for a picture whose units answer no better than to any reference image: a
            rectified unit has no gradient there, and the prior leads to where it has one. 0 is the paper.
        w_consistency: Weight of the squared error between what the target's layer, without the units themselves, sees
            of the picture and of the input image; scaled as in the fit. 0 is the paper. Source: feature accentuation
            (Hamblin et al. 2024), which regularises ascent in pixels likewise.
        noise: Responses are read under noise of so many posterior widths, drawn anew at each step: the mean over
            pictures round the latent is improved, so that a change lasts when a refinement alters the picture. 0 is the
            paper. Source: transformation robustness (Olah et al. 2017), of the posterior instead of crops and jitter.
        prior_mean_scale: Where the structured prior's mean lies for an optimisation, which uses it as a direction, in
            multiples of the landscape's: 1 is the paper.
        prior: ``"structured"`` pulls towards the unit's prior mean, ``"standard"`` towards N(0, 1).
        sigma_prior: Width of the structured prior; 0.1 in the paper, which pulls 100 times harder than N(0, 1) does.
        move: Which dimensions the structured prior lets go: ``"block"``, the unit's own (Sec. 4.3.3), or ``"all"`` but
            the blocks of other units, those outside blocks then held to the image's own code. The standard prior moves
            all.
        anchor_sigma: Width of that hold.
        scale: What ``lr`` is measured in, dimension by dimension: ``"latent"`` units, as in the paper; the ``"spread"``
            over the reference set; or ``"response"``, the width of the image's own posterior times the square root of
            what a step so wide does to the units (the RMS of their gradient over reference images), all in all as long
            as that width. Adam steps equally far in every dimension, and dimensions are not equal.
        patience: An image stops after so many steps without a lower loss (under noise: a lower running mean of it);
            None runs all steps.
        chunk: Images optimised together; chunks are always filled up (:func:`~vislens_interp.math.full_chunks`).
        strength: SDEdit strength of the refinement, which starts from the optimised picture; None is the edit's.

    Source: Algorithm 3 and its configuration.
    """

    steps: int = 200
    lr: float = 0.1
    w_kld: float = 0.001
    w_silent: float = 0.0
    w_consistency: float = 0.0
    noise: float = 0.0
    prior_mean_scale: float = 1.0
    prior: Literal["structured", "standard"] = "structured"
    sigma_prior: float = 0.1
    move: Literal["block", "all"] = "block"
    anchor_sigma: float = 1.0
    scale: Literal["latent", "spread", "response"] = "latent"
    patience: int | None = None
    chunk: int = 50
    strength: float | None = None

    def _check(self) -> None:
        check_positive(**self._of("steps", "lr", "prior_mean_scale", "sigma_prior", "anchor_sigma", "chunk"))
        check_not_negative(**self._of("w_kld", "w_silent", "w_consistency", "noise"))
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience={self.patience} must be at least 1, or None to run all steps.")
        check_word("prior", self.prior, ("structured", "standard"))
        check_word("move", self.move, ("block", "all"))
        check_word("scale", self.scale, ("latent", "spread", "response"))
        check_shares(": 0 is the bare decoding, 1 ignores the image.", strength=self.strength)


class Overrides(TypedDict, total=False):
    """Settings by keyword: those of the fit, the prior and the edit by their own names, or whole sections.

    A section is a mapping of the settings to change, or a whole ``FitConfig``, ``PriorConfig``, ... An optimisation's
    settings come as ``optimize={"steps": 100}``, because some of their names are the fit's too.
    """

    fit: Mapping[str, object] | FitConfig
    prior: Mapping[str, object] | PriorConfig
    edit: Mapping[str, object] | EditConfig
    optimize: Mapping[str, object] | OptimizeConfig
    solver: Literal["adam", "alternating"]
    epochs: int
    batch_size: int
    lr: float
    lr_step: int
    lr_gamma: float
    clip: float
    w_recon: float
    w_kld: float
    w_consistency: float
    validation: float
    patience: int | None
    tolerance: float
    bf16: bool
    shuffles: int
    seed: int
    block_dim: int | None
    modes: int
    lam: float
    eps: float
    sigma_min: float
    sigma_max: float
    axis_scale_sd: float
    cross_talk_penalty: float
    closed_form_init: bool
    gradients: bool
    alpha: float
    interpolation: Literal["lerp", "slerp"]
    angle: float | None
    cross_talk_steps: int
    keep_norm: bool
    residual: bool | Literal["fade"]
    top_activating_power: float
    goal: Literal["mean", "local_mean", "surrogate_ascent"]
    mode: int | None
    strength: float


@dataclass(frozen=True)
class Config:
    """Every setting of a landscape and of what is done in it.

    A lens starts from its backend's measured defaults (``backend.defaults``); keywords of ``lens.fit`` replace some of
    them, and ``lens.fit(config=...)`` all.

    >>> config = Config.of(epochs=3, goal="local_mean", optimize={"steps": 20})
    >>> config.fit.epochs, config.edit.goal, config.optimize.steps
    (3, 'local_mean', 20)
    """

    fit: FitConfig = field(default_factory=FitConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    edit: EditConfig = field(default_factory=EditConfig)
    optimize: OptimizeConfig = field(default_factory=OptimizeConfig)

    @classmethod
    def of(cls, **overrides: Unpack[Overrides]) -> "Config":
        """A config from keywords (:class:`Overrides`); what is not named has the plain default, mostly the paper's."""
        return resolve(cls(), overrides)

    def replace(self, **overrides: Unpack[Overrides]) -> "Config":
        """A copy with these settings changed (:class:`Overrides`)."""
        return resolve(self, overrides)

    @property
    def optimize_strength(self) -> float:
        """The strength after an optimisation: its own, or else the edit's."""
        return self.edit.strength if self.optimize.strength is None else self.optimize.strength

    def to_dict(self) -> dict[str, Any]:
        """Every setting as JSON values, a dictionary a section."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Mapping[str, object]]) -> Self:
        """What :meth:`to_dict` gave."""
        return cls(**{name: section(**saved[name]) for name, section in SECTIONS.items()})


SECTIONS: dict[str, type] = {"fit": FitConfig, "prior": PriorConfig, "edit": EditConfig, "optimize": OptimizeConfig}
_NAMES = {name: {one.name for one in fields(section)} for name, section in SECTIONS.items()}
_SECTION_OF = {setting: name for name in ("fit", "prior", "edit") for setting in _NAMES[name]}

RENAMED = {
    "prior": {"reach": "axis_scale_sd", "isolation": "cross_talk_penalty", "organise": "closed_form_init"},
    "edit": {"hold": "cross_talk_steps", "driven": "top_activating_power"},
    "optimize": {"reach": "prior_mean_scale"},
}
"""Settings of 0.1.0 by the names that they have now, section by section."""
RENAMED_GOALS = {"near": "local_mean", "uphill": "surrogate_ascent"}
"""Values of ``goal`` of 0.1.0, which still work, with a warning."""


def sections_of(overrides: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    """Overrides sorted into their sections: ``{"fit": {...}, "prior": {...}, "edit": {...}, "optimize": {...}}``.

    Raises:
        TypeError: A name is no setting, or a value has the wrong type.

    >>> sections_of({"epochs": 3, "optimize": {"lr": 0.5}})["optimize"]
    {'lr': 0.5}
    """
    sorted_: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for name, value in overrides.items():
        if name in SECTIONS:
            sorted_[name] |= _section_values(name, value)
        elif name in _SECTION_OF:
            sorted_[_SECTION_OF[name]][name] = value
        else:
            raise TypeError(f"{name}= is no setting of the landscape. {_remedy(name)}")
    for name, section in SECTIONS.items():
        _check_types(section, sorted_[name], "optimize." if name == "optimize" else "")
    goal = sorted_["edit"].get("goal")
    if goal in RENAMED_GOALS:
        warnings.warn(
            f"goal={goal!r} is called {RENAMED_GOALS[goal]!r} now; the old name goes with the next version.",
            FutureWarning,
            stacklevel=3,
        )
        sorted_["edit"]["goal"] = RENAMED_GOALS[goal]
    return sorted_


def resolve(defaults: Config, *overrides: Mapping[str, object]) -> Config:
    """The settings in force: ``defaults`` with these overrides, of which later ones win.

    A default that belongs to another goal than the one asked for gives way: ``modes``, ``top_activating_power`` and
    ``cross_talk_steps`` ask for ``goal="mean"``. Several modes widen a default ``block_dim``, because one dimension,
    enough for one mean, has no room for several.

    Args:
        defaults: What is not overridden, such as a backend's.
        overrides: :class:`Overrides`.

    Raises:
        TypeError: A name is no setting, or a value has the wrong type.
        ValueError: A value is out of its range, or two settings exclude one another.

    >>> resolve(Config.of(goal="surrogate_ascent"), {"modes": 2}).edit.goal
    'mean'
    """
    if not isinstance(defaults, Config):
        raise TypeError(
            f"config is a {type(defaults).__name__}; expected a Config. Pass Config.of(epochs=3), or epochs=3 alone."
        )
    given: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for part in overrides:
        for name, values in sections_of(part).items():
            given[name] |= values
    prior, edit = given["prior"], given["edit"]
    yields: dict[str, Any] = {}
    if "goal" not in edit and (
        prior.get("modes", 1) > 1 or edit.get("top_activating_power") or edit.get("cross_talk_steps")
    ):
        yields["goal"] = "mean"
    goal = edit.get("goal", yields.get("goal", defaults.edit.goal))
    if goal != "mean":
        yields["top_activating_power"] = 0.0
    if goal == "surrogate_ascent":
        yields["cross_talk_steps"] = 0
    modes, block_dim = prior.get("modes", defaults.prior.modes), defaults.prior.block_dim
    if modes > 1 and "block_dim" not in prior and block_dim is not None:
        prior["block_dim"] = max(block_dim, 2 * modes)
    given["edit"] = yields | edit
    return Config(**{name: replace(getattr(defaults, name), **values) for name, values in given.items()})


def migrate(saved: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    """Settings of an older file by today's names, sorted into sections; today's stay as they are.

    Files of 0.1.0 hold a lens's overrides flat, those of an optimisation with the prefix ``optimize_``, and a result's
    settings in sections.

    >>> migrate({"epochs": 3, "reach": 2.0, "optimize_reach": 1.5})["optimize"]
    {'prior_mean_scale': 1.5}
    """
    sorted_: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    old_section = {old: name for name in ("prior", "edit") for old in RENAMED[name]} | _SECTION_OF
    for name, value in saved.items():
        if name in SECTIONS and isinstance(value, Mapping):
            sorted_[name] |= value
        elif name.startswith("optimize_"):
            sorted_["optimize"][name.removeprefix("optimize_")] = value
        elif name in old_section:
            sorted_[old_section[name]][name] = value
    for section, names in RENAMED.items():
        sorted_[section] = {names.get(name, name): value for name, value in sorted_[section].items()}
    if "goal" in sorted_["edit"]:
        goal = sorted_["edit"]["goal"]
        sorted_["edit"]["goal"] = RENAMED_GOALS.get(goal, goal)
    return sorted_


def _section_values(name: str, value: object) -> dict[str, Any]:
    """The settings that a section was given, checked by name."""
    if isinstance(value, SECTIONS[name]):
        return dict(vars(value))
    if not isinstance(value, Mapping):
        raise TypeError(
            f"{name}={value!r} is a {type(value).__name__}; expected a mapping of settings, or a "
            f"{SECTIONS[name].__name__}."
        )
    for setting in value:
        if setting not in _NAMES[name]:
            raise TypeError(f"{name}[{setting!r}] is no setting of {name}. {_remedy(setting, name)}")
    return dict(value)


def _remedy(name: str, section: str | None = None) -> str:
    """What to write instead of an unknown name."""
    for part, renamed in RENAMED.items():
        if name in renamed and section in (None, part):
            return f"It is called {renamed[name]} now."
    inner = name.removeprefix("optimize_")
    if section is None and inner != name:
        return f"Pass optimize={{{RENAMED['optimize'].get(inner, inner)!r}: ...}}."
    return closest(name, sorted(_SECTION_OF if section is None else _NAMES[section]), limit=None)


def _check_types(section: type, values: Mapping[str, object], prefix: str = "") -> None:
    """Raise TypeError where a value is not of its field's type."""
    hints = get_type_hints(section)
    for name, value in values.items():
        if not _fits(value, hints[name]):
            kind = type(value).__name__
            article = "an" if kind[0] in "aeiou" else "a"
            raise TypeError(f"{prefix}{name}={value!r} is {article} {kind}; expected {_type_in_words(hints[name])}.")


def _fits(value: object, hint: object) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) is Literal:  # which word it may be, the section's own check says
        return isinstance(value, str)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    return isinstance(hint, type) and isinstance(value, hint)


def _type_in_words(hint: object) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_type_in_words(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    words = {float: "a number", int: "a whole number", bool: "True or False", types.NoneType: "None"}
    return words.get(hint, getattr(hint, "__name__", str(hint)))
