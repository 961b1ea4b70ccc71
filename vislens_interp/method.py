"""The paper's method in the form that every method has: fit to a target, then generate."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor

from vislens_interp.backends.base import Backend
from vislens_interp.landscape.edit import alpha_for_angle, interpolate, keep_norm
from vislens_interp.landscape.evidence import Evidence, evidence
from vislens_interp.landscape.fit import FitSettings, fit_landscape, split_rows
from vislens_interp.landscape.hold import hold
from vislens_interp.landscape.kinds import check_kinds
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.near import near_goal
from vislens_interp.landscape.optimize import Look, Optimized, OptimizeSettings, Reading, optimize
from vislens_interp.landscape.prior import ActivationPrior, Direction, ResponseScaler, equal_blocks
from vislens_interp.landscape.start import organise
from vislens_interp.landscape.uphill import REACH, Surface
from vislens_interp.targets.cost import counted
from vislens_interp.targets.sight import LayerSight
from vislens_interp.targets.target import Target

Technique = Literal["edit", "optimize"]
Directions = Mapping[int, Direction]
"""Position of a unit in the target to the wanted direction; empty is the α = 0 control."""


RENDERED = 16
"""Pictures rendered at a time where a refinement starts from them."""

SILENT = 1e-6
"""SDs above the worst response of the reference set up to which a unit counts as silent."""


class Method(Protocol):
    """What makes preferred images: ours, and every baseline."""

    def fit(self, target: Target, backend: Backend, images: Tensor, responses: Tensor | None = None) -> Self:
        """Learn from reference images (N, 3, H, W) and their responses (N, K), read from the target if None."""
        ...

    def generate(self, images: Tensor, directions: Directions, *, seeds: list[int]) -> Tensor:
        """Move images (N, 3, H, W) in these directions; one noise seed an image.

        Afterwards ``cost_``, a :class:`~vislens_interp.targets.cost.Cost`, says what it took.
        """
        ...


@dataclass(frozen=True)
class PriorSettings:
    """The shape of the activation prior; see :class:`~vislens_interp.landscape.prior.ActivationPrior`.

    Args:
        block_dim: Latent dimensions of each unit; None shares all among the units.
        reach: SDs of the predicted response at which the prior means lie, where the fit starts in closed form.
        isolation: Several units: how much an edit for one avoids the others' responses, where the fit starts.
        organise: Start in closed form: each block's axis is the ridge prediction of its unit (``landscape/start.py``).
        gradients: That start uses the target's gradients where there are any, which a generator makes expensive.
    """

    block_dim: int | None = None
    modes: int = 1
    lam: float = 1.0
    eps: float = 0.1
    sigma_min: float = 0.1
    sigma_max: float = 1.0
    reach: float = 4.0
    isolation: float = 0.0
    organise: bool = True
    gradients: bool = True

    def __post_init__(self) -> None:
        if self.reach <= 0:
            raise ValueError(f"reach={self.reach} must be greater than 0: a negative one would turn the axis round.")
        if self.isolation < 0:
            raise ValueError(f"isolation={self.isolation} must not be negative; 0 leaves other units alone.")

    def build(self, latent_dim: int, units: int) -> ActivationPrior:
        """The prior of ``units`` units over a latent."""
        return ActivationPrior(
            latent_dim,
            equal_blocks(latent_dim, units, self.block_dim),
            self.modes,
            self.lam,
            self.eps,
            self.sigma_min,
            self.sigma_max,
        )


@dataclass(frozen=True)
class EditSettings:
    """How latents are edited.

    Args:
        alpha: Weight of the prior mean, 0 to 1.
        interpolation: ``"lerp"`` or ``"slerp"``.
        angle: Edit by angle in degrees instead: every image is turned so far, as far as its goal allows. An embedding's
            angle is measured from the image's own; that of pixels from the unedited decoding, beside whose own distance
            an edit is small.
        hold: Several units: Gauss-Newton steps after the edit that bring the others' responses back, picture by
            picture, where there are gradients.
        keep_norm: Give every decoded x the length of the image's own x, edited or not: for embeddings.
        residual: What becomes of x - decode(z), the part of an embedding that the VAE cannot give back: lost if False;
            added again if True, so that x changes by decode(z′) - decode(z) alone; ``"fade"``: the less of it, the
            further the latent has gone to its goal. Then α = 0 is the image itself and α = 1 the decoded goal, and no
            edit angle is spent on reconstruction. For embeddings.
        driven: Dimensions of the latent that are no unit's go along, to the mean code of the reference images that
            drive the unit that way, each weighted by its response (in SDs) to this power: what strongly driven images
            have in common beyond what a linear prediction sees, and other things upwards than downwards. 0, the
            paper's, keeps the image's own. ``benchmarks/v4_recorded/run.py`` compares.
        goal: Where an edit leads: ``"mean"``, the prior mean, the paper's; ``"near"``, each image's own mean of the
            preferred reference images near it, for units with unlike preferences (``landscape/near.py``). The whole
            latent then moves, not the unit's block alone. ``"uphill"``: no one place; small steps up the landscape,
            each within what the reference images around differ in (``landscape/uphill.py``), as far as ``angle``, or
            60 degrees for an alpha of 1. For embeddings; α = 0 is the image itself.
    """

    alpha: float = 1.0
    interpolation: Literal["lerp", "slerp"] = "lerp"
    angle: float | None = None
    hold: int = 0
    keep_norm: bool = False
    residual: bool | Literal["fade"] = False
    driven: float = 0.0
    goal: Literal["mean", "near", "uphill"] = "mean"

    def __post_init__(self) -> None:
        if self.driven < 0:
            raise ValueError(f"driven={self.driven} must not be negative: a power of the response; 0 is none.")
        if self.goal not in ("mean", "near", "uphill"):
            raise ValueError(
                f"goal={self.goal!r} is unknown; expected 'mean', 'near' or 'uphill'. 'mean' is the paper's."
            )
        if self.interpolation not in ("lerp", "slerp"):
            raise ValueError(f"interpolation={self.interpolation!r} is unknown; expected 'lerp' or 'slerp'.")
        if self.residual not in (True, False, "fade"):
            raise ValueError(f"residual={self.residual!r} is unknown; expected True, False or 'fade'.")
        if self.driven and self.goal != "mean":
            raise ValueError(
                f"driven={self.driven} belongs to goal='mean'; {self.goal!r} moves the whole latent. Leave one out."
            )
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha} must lie in [0, 1]: 0 keeps the image, 1 is the goal.")
        if self.angle is not None and not 0 <= self.angle <= 180:
            raise ValueError(f"angle={self.angle} must lie between 0 and 180 degrees, or be None.")
        if self.hold > 0 and self.goal == "uphill":
            raise ValueError(f"hold={self.hold} goes with the goals 'mean' and 'near'; 'uphill' holds no other unit.")
        if self.hold < 0:
            raise ValueError(f"hold={self.hold} must not be negative; 0 leaves the other units to the landscape.")


class LandscapeMethod:
    """Edit or optimise latents in a landscape that the unit's responses organise (Algorithms 2 and 3).

    Args:
        technique: ``"edit"`` or ``"optimize"``.
        settings: Any argument of FitSettings, PriorSettings, EditSettings (without prefix) and OptimizeSettings
            (``optimize_lr=``, ...); what is not given comes from the backend's measured defaults.
        shuffles: Fits on permuted responses behind the evidence; None is the backend's default.
        seed: Of the fit.

    Attributes (after ``fit``):
        landscape_: The fitted landscape.
        shuffled_: The landscapes fitted on permuted responses.
        evidence_: Unit name to evidence.
        surface_: The height that edits with ``goal="uphill"`` climb; of a loaded landscape, after the first of them.
    """

    def __init__(
        self, technique: Technique = "edit", *, shuffles: int | None = None, seed: int = 0, **settings: Any
    ) -> None:
        if technique not in ("edit", "optimize"):
            raise ValueError(f"technique={technique!r} is unknown; expected 'edit' or 'optimize'.")
        for name in settings:
            if name not in _KNOWN:
                near = difflib.get_close_matches(name, _KNOWN, 3)
                raise TypeError(
                    f"{name}= is no setting of the landscape. "
                    + (f"Closest: {', '.join(near)}." if near else f"Known: {', '.join(sorted(_KNOWN))}.")
                )
        for kind in (FitSettings, PriorSettings, EditSettings):
            check_kinds(kind, settings)
        optimize_ = {
            name.removeprefix("optimize_"): value for name, value in settings.items() if name.startswith("optimize_")
        }
        check_kinds(OptimizeSettings, optimize_, "optimize_")
        self.technique: Technique = technique
        self.shuffles = shuffles
        self.seed = seed
        self.settings = settings

    def fit(
        self,
        target: Target,
        backend: Backend,
        images: Tensor,
        responses: Tensor | None = None,
        *,
        progress: bool = False,
        checkpoint: Any = None,
    ) -> Self:
        """Organise the backend's latents by the responses to the reference images.

        Args:
            target: Read for responses if None are given, and for the consistency loss where it has gradients.
            backend: Carries images to x and back.
            images: (N, 3, H, W) reference images.
            responses: (N, K) measured responses instead of the target's.
            progress: Show a bar.
            checkpoint: File that an interrupted fit goes on from.

        Returns:
            Itself.
        """
        self.bind(target, backend)
        x = backend.encode(images)
        if responses is None:
            responses = target.responses(images, progress=progress)
        if responses.shape != (len(images), len(target.names)):
            raise ValueError(
                f"responses has shape {tuple(responses.shape)}; expected ({len(images)}, {len(target.names)}): a row "
                "for each image and a column for each unit."
            )
        scaler = ResponseScaler.fit(responses, target.names)
        shuffles = backend.defaults.shuffles if self.shuffles is None else self.shuffles
        self.landscape_ = self._fit(x, responses, scaler, progress, checkpoint)
        generator = torch.Generator().manual_seed(self.seed + 1)
        self.shuffled_ = [
            self._fit(x, responses[torch.randperm(len(x), generator=generator)], scaler, False, None)
            for _ in range(shuffles)
        ]
        found = evidence(self.landscape_, x, self.shuffled_, seed=self.seed)
        for item in found:
            if item.unit in target.doubts:
                item.reasons.append(target.doubts[item.unit])
        self.evidence_: dict[str, Evidence] = {item.unit: item for item in found}
        if self._climbs(self._edit()):
            self._learn_surface()  # now: it is no part of what a picture costs
        return self

    def refuse(self, target: Target, backend: Backend) -> None:
        """Raise ValueError where the technique cannot work, before anything is computed."""
        if self.technique == "optimize":
            refuse_without_gradients(target, backend)

    def bind(self, target: Target, backend: Backend) -> Self:
        """Take target and backend without fitting, for a landscape that was loaded.

        Raises:
            ValueError: A setting is out of its range: said before a fit, not by the first picture after it.
        """
        self.target, self.backend = target, backend
        self.describe()
        return self

    def _fit(self, x: Tensor, responses: Tensor, scaler: ResponseScaler, progress: bool, checkpoint: Any) -> Landscape:
        backend = self.backend
        settings = replace(self._settings(FitSettings, backend.defaults.fit), seed=self.seed)
        shape: PriorSettings = self._settings(PriorSettings, backend.defaults.prior)
        vae = backend.vae()
        if shape.modes > 1 and "block_dim" not in self.settings and shape.block_dim is not None:
            # Several means need room beside the common axis; one dimension, enough for one mean, has none.
            shape = replace(shape, block_dim=max(shape.block_dim, 2 * shape.modes))
        prior = shape.build(vae.latent_dim, responses.shape[1])
        differentiable = self.target.differentiable and backend.differentiable and shape.gradients
        if shape.organise:
            training, _ = split_rows(len(x), settings)  # the evidence is read from what the start has not seen either
            organise(
                vae,
                x[training],
                scaler.standardise(responses[training]),
                prior,
                reach=shape.reach,
                isolation=shape.isolation,
                respond=self._respond_to_x(scaler) if differentiable else None,
            )
        return fit_landscape(
            vae,
            x,
            responses,
            prior,
            settings,
            names=self.target.names,
            scaler=scaler,
            consistency=self._see(x) if settings.w_consistency > 0 else None,
            checkpoint=checkpoint,
            progress=progress,
        )

    def _see(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """What the consistency loss compares: the target's layer, as maps and as responses, or another network's."""
        target, backend = self.target, self.backend
        if not (target.differentiable and backend.differentiable):
            perception = backend.perception()
            if perception is None:
                raise ValueError(
                    f"w_consistency needs a target with gradients or a backend with a network of its own; "
                    f"{backend.name!r} has none. Pass w_consistency=0."
                )
            return perception

        sight = LayerSight(target, backend.render(x[:: max(1, len(x) // 512)][:512]))
        return lambda part: sight(backend.render(part))

    def _respond_to_x(self, scaler: ResponseScaler) -> Callable[[Tensor], Tensor]:
        return lambda x: scaler.standardise(self.target(self.backend.render(x)).float())

    def latents(
        self, images: Tensor, directions: Directions, *, alpha: float | None = None, mode: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Latents before and after the edit or the optimisation, (N, latent_dim) each; no image is made yet."""
        return self._latents(self.backend.encode(images), directions, alpha, mode)

    def _latents(
        self, x: Tensor, directions: Directions, alpha: float | None, mode: int | None
    ) -> tuple[Tensor, Tensor]:
        z, sigma = self.landscape_.encode(x)
        if not directions:
            return z, z
        edit = self._edit()
        if self._climbs(edit):
            return z, self.landscape_.encode(self._climb(x, directions, alpha, mode, edit))[0]
        goal = self._goal(z, directions, mode, edit)
        if self.technique == "edit":
            weight: Tensor | float = edit.alpha if alpha is None else alpha
            if edit.angle is not None and alpha is None:
                weight, _ = alpha_for_angle(
                    z,
                    goal,
                    edit.angle,
                    interpolation=edit.interpolation,
                    decode=lambda latent: self._decode(x, z, latent, edit, goal),
                    start=x if x.ndim == 2 else None,
                )
            moved = interpolate(z, goal, weight, edit.interpolation)
            differentiable = self.target.differentiable and self.backend.differentiable
            if edit.hold and differentiable and len(directions) < len(self.landscape_.names):
                respond_to_x = self._respond_to_x(self.landscape_.scaler)

                def respond(latent: Tensor, rows: Tensor) -> Tensor:
                    rows = rows.to(z.device)
                    left = _residual_left(x[rows], z[rows], latent, edit, goal[rows])
                    decoded = self.landscape_.vae.decode(latent)
                    return respond_to_x(self._restore(x[rows], z[rows], decoded, edit, left))

                moved = hold(
                    moved,
                    z,
                    respond,
                    list(directions),
                    steps=edit.hold,
                    spread=self.landscape_.latents.std(0).to(z),
                )
            return z, moved
        self.optimized_ = self.optimize(z, sigma, goal, directions, x=x)
        return z, self.optimized_.latents

    def take_surface(self, other: "LandscapeMethod") -> None:
        """Climb what another method of the same landscape has learnt, if it has: learning is no part of a picture."""
        if getattr(other, "_surface_of", None) is self.landscape_:
            self._surface_of, self.surface_ = self.landscape_, other.surface_

    def _climbs(self, edit: EditSettings) -> bool:
        return self.technique == "edit" and edit.goal == "uphill"

    def _climb(
        self, x: Tensor, directions: Directions, alpha: float | None, mode: int | None, edit: EditSettings
    ) -> Tensor:
        """Embeddings after a walk up the landscape."""
        if mode is not None:
            raise ValueError(f"mode={mode} names a prior mean, to which goal='uphill' does not lead. Leave it out.")
        if getattr(self, "_surface_of", None) is not self.landscape_:
            self._learn_surface()
        share = edit.alpha if alpha is None else alpha
        if not 0 <= share <= 1:
            raise ValueError(f"alpha={share} must lie in [0, 1]: 0 keeps the image, 1 is the whole walk.")
        degrees = share * REACH if edit.angle is None or alpha is not None else edit.angle
        return self.surface_.climb(x, directions, degrees)

    def _learn_surface(self) -> None:
        self._surface_of, self.surface_ = self.landscape_, Surface(self.landscape_, seed=self.seed)

    def _goal(self, z: Tensor, directions: Directions, mode: int | None, edit: EditSettings) -> Tensor:
        if self.technique == "optimize":
            return self.landscape_.goal(z, dict(directions), mode)
        if edit.goal == "near":
            if mode is not None:
                raise ValueError(f"mode={mode} names a prior mean, to which goal='near' does not lead. Leave it out.")
            return near_goal(self.landscape_, z, directions)
        return self.landscape_.goal(z, dict(directions), mode, driven=edit.driven)

    def _decode(self, x: Tensor, before: Tensor, after: Tensor, edit: EditSettings, goal: Tensor | None) -> Tensor:
        """The x of latents ``after``, on the way to ``goal``, for images x whose own latents are ``before``."""
        left = _residual_left(x, before, after, edit, goal)
        return self._restore(x, before, self.landscape_.decode(after), edit, left)

    def _restore(
        self, x: Tensor, before: Tensor, decoded: Tensor, edit: EditSettings, left: Tensor | float = 1.0
    ) -> Tensor:
        """Add what a decoding lost of x, as far as the settings say; gradients flow to ``decoded``."""
        if edit.residual:
            decoded = decoded + left * (x - self.landscape_.decode(before))
        return keep_norm(decoded, x) if edit.keep_norm else decoded

    def embeddings(
        self, x: Tensor, directions: Directions, *, alpha: float | None = None, mode: int | None = None
    ) -> Tensor:
        """The x (N, ...) that pictures are made of, moved in these directions."""
        edit = self._edit()
        if self._climbs(edit):
            return self._climb(x, directions, alpha, mode, edit) if directions else x
        before, after = self._latents(x, directions, alpha, mode)
        leads = self.technique == "edit" and directions
        goal = self._goal(before, directions, mode, edit) if leads else None
        return self._decode(x, before, after, edit, goal)

    def optimize(
        self,
        z: Tensor,
        sigma: Tensor,
        goal: Tensor,
        directions: Directions,
        *,
        x: Tensor | None = None,
        trace: Callable[[int, Tensor], None] | None = None,
    ) -> Optimized:
        """Algorithm 3 from latents ``z``, all (N, latent_dim); the edit's ``residual`` and ``keep_norm`` need ``x``.

        Without the images' own ``x`` (N, ...) the bare decoding is optimised.
        """
        refuse_without_gradients(self.target, self.backend)
        settings: OptimizeSettings = self._settings(OptimizeSettings, self.backend.defaults.optimize, "optimize_")
        landscape, units = self.landscape_, list(directions)
        return optimize(
            z,
            self._look(z, x, directions, settings),
            settings,
            goal=goal,
            sigma=sigma,
            block=landscape.mask(units),
            others=landscape.mask([unit for unit in range(len(landscape.names)) if unit not in directions]),
            spread=landscape.latents.std(0),
            sensitivity=self._sensitivity(z, units) if settings.scale == "response" else None,
            seed=self.seed,
            trace=trace,
        )

    def _look(self, z: Tensor, x: Tensor | None, directions: Directions, settings: OptimizeSettings) -> Look:
        """What an optimisation sees of latents on their way from ``z``, the codes of ``x``."""
        landscape, target, backend, edit = self.landscape_, self.target, self.backend, self._edit()
        units = list(directions)
        signs = torch.tensor([1.0 if way == "increase" else -1.0 for way in directions.values()]).to(z)
        # The worst that any reference image got: a rectified unit's floor, below which nothing points anywhere.
        worst = (landscape.scaler.standardise(landscape.responses)[:, units].to(z) * signs).min(0).values
        sight, start, scale = None, z, 0.0
        if settings.w_consistency > 0:
            if x is None:
                raise ValueError(f"x is None; w_consistency={settings.w_consistency} needs the images' own x.")
            with torch.no_grad():
                known = landscape.decode(self._some_latents(z))
                sight = LayerSight(target, backend.render(known), without=units)
                start = torch.cat([sight(backend.render(x[rows]))[:count] for rows, count in _filled(len(x))])
                scale = (known.flatten(1).var(0).sum() / sight.variance.clamp_min(1e-12)).item()

        def look(latent: Tensor, rows: Tensor) -> Reading:
            rows = rows.to(z.device)
            decoded = landscape.vae.decode(latent)
            pictures = backend.render(decoded if x is None else self._restore(x[rows], z[rows], decoded, edit))
            if sight is None:
                responses, change = target(pictures), None
            else:
                responses, layer = target.with_features(pictures)
                change = scale * ((sight.of(layer) - start[rows]) ** 2).sum(1)
            signed = landscape.scaler.standardise(responses.float())[:, units] * signs
            silent = (signed.detach() <= worst + SILENT).all(1) if settings.w_silent > 0 else None
            return Reading(signed.sum(1), change, silent)

        return look

    def _some_latents(self, z: Tensor, count: int = 256) -> Tensor:
        """Codes of some reference images, evenly taken, beside ``z``."""
        latents = self.landscape_.latents
        return latents[:: max(1, len(latents) // count)][:count].to(z)

    def _sensitivity(self, z: Tensor, units: list[int]) -> Tensor:
        """(D,) RMS of the gradient of these units' responses in each latent dimension, over some reference images."""
        respond_to_x = self._respond_to_x(self.landscape_.scaler)
        total = torch.zeros_like(z[0])
        known = self._some_latents(z)
        for part in known.split(RENDERED):
            latent = part.clone().requires_grad_(True)
            responses = respond_to_x(self.landscape_.vae.decode(latent))
            for unit in units:
                (gradient,) = torch.autograd.grad(responses[:, unit].sum(), latent, retain_graph=True)
                total += (gradient**2).sum(0)
        return (total / len(known)).sqrt()

    @counted
    def generate(
        self,
        images: Tensor,
        directions: Directions,
        *,
        seeds: list[int],
        alpha: float | None = None,
        strength: float | None = None,
        mode: int | None = None,
    ) -> Tensor:
        """Images at the backend's size, moved in these directions; (N, 3, S, S) in [0, 1].

        An edit is refined from the image itself, an optimisation from the picture that was optimised (Table S2's form).
        """
        x = self.embeddings(self.backend.encode(images), directions, alpha=alpha, mode=mode)
        strength = self.backend.defaults.strength_of(self.technique) if strength is None else strength
        start = images
        if self.technique == "optimize":
            with torch.no_grad():
                start = torch.cat([self.backend.render(part) for part in x.split(RENDERED)])
        return self.backend.decode(x, reference=start, strength=strength, seeds=seeds).cpu()

    def _edit(self) -> EditSettings:
        """The edit's settings, without what the backend's defaults say of another goal than the one asked for."""
        defaults, given = dict(self.backend.defaults.edit), self.settings
        if "goal" not in given and (given.get("modes", 1) > 1 or given.get("driven") or given.get("hold")):
            defaults["goal"] = "mean"  # these are settings of the way to a prior mean
        if given.get("goal", defaults.get("goal", "mean")) != "mean":
            defaults["driven"] = 0.0
        if given.get("goal") == "uphill":
            defaults["hold"] = 0
        return self._settings(EditSettings, defaults)

    def _settings(self, kind: type, defaults: dict[str, Any], prefix: str = "") -> Any:
        names = {field.name for field in fields(kind)}
        given = {name.removeprefix(prefix): value for name, value in self.settings.items() if name.startswith(prefix)}
        return kind(**{**defaults, **{name: value for name, value in given.items() if name in names}})

    def describe(self) -> dict[str, Any]:
        """Every setting in force, as JSON values."""
        defaults = self.backend.defaults
        return {
            "technique": self.technique,
            "seed": self.seed,
            "fit": asdict(self._settings(FitSettings, defaults.fit)) | {"seed": self.seed},
            "prior": asdict(self._settings(PriorSettings, defaults.prior)),
            "edit": asdict(self._edit()),
            "optimize": asdict(self._settings(OptimizeSettings, defaults.optimize, "optimize_")),
        }


def _filled(count: int) -> list[tuple[Tensor, int]]:
    """Rows 0..count-1 in chunks of one size, the last filled up with its last row, and how many of each are its own."""
    chunks = torch.arange(count).split(RENDERED)
    return [(torch.cat([rows, rows[-1:].expand(RENDERED - len(rows))]), len(rows)) for rows in chunks]


def _residual_left(x: Tensor, before: Tensor, after: Tensor, edit: EditSettings, goal: Tensor | None) -> Tensor | float:
    """How much of what a decoding loses is added again, for latents ``after`` on the way to ``goal``."""
    if edit.residual != "fade" or goal is None:
        return 1.0
    way = goal - before
    gone = ((after - before) * way).sum(1) / (way**2).sum(1).clamp_min(1e-12)  # α, where the edit is a lerp
    return (1 - gone.clamp(0, 1)).view(-1, *[1] * (x.ndim - 1))


def refuse_without_gradients(target: Target, backend: Backend, method: str = "optimize") -> None:
    """Raise ValueError where ``method="optimize"``, or another that optimises latents, cannot work."""
    if not (target.differentiable and backend.differentiable):
        which = "target" if not target.differentiable else f"backend {backend.name!r}"
        raise ValueError(
            f"method={method!r} needs gradients from the image to the response, and this {which} has none. "
            "Use method='edit'."
        )


_KNOWN = {
    field.name for kind in (FitSettings, PriorSettings, EditSettings) for field in fields(kind) if field.name != "seed"
} | {f"optimize_{field.name}" for field in fields(OptimizeSettings)}
