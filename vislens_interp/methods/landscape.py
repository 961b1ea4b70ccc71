"""The paper's method: a landscape that a unit's responses organise, and latents that are edited or optimised in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, Unpack

import torch
from torch import Tensor

from vislens_interp.backends.base import Backend
from vislens_interp.backends.closed_loop import ClosedLoopGenerator
from vislens_interp.config import Config, Overrides, resolve, sections_of
from vislens_interp.copies import permuted_rows, renumbered
from vislens_interp.landscape.closed_form_init import Codes, closed_form_init, shuffled_axes
from vislens_interp.landscape.cross_talk import reduce_cross_talk
from vislens_interp.landscape.edit import alpha_for_angle, interpolate
from vislens_interp.landscape.evidence import Evidence, evidence
from vislens_interp.landscape.fit import fit_landscape, split_rows
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.local_mean import local_mean_goal
from vislens_interp.landscape.prior import ActivationPrior, ResponseScaler, signed
from vislens_interp.landscape.surrogate import MAX_ROTATION_DEG, ResponseSurrogate
from vislens_interp.math import keep_norm
from vislens_interp.methods.base import Directions, Method
from vislens_interp.reference import ReferenceSet
from vislens_interp.targets.layer_features import LayerFeatures
from vislens_interp.targets.target import Target
from vislens_interp.validation import check_shares

SHUFFLED_AXES, AXES_AT_MOST = 100, 800
"""Axes of a unit for permuted responses in closed form, with which words are compared beside those of the shuffled
landscapes; a landscape of many units gets fewer, so many in all."""
CONSISTENCY_IMAGES = 512
"""Reference images, at most, on which the consistency loss is scaled."""


class LandscapeMethod(Method):
    """A landscape fitted for a target; :class:`LandscapeEdit` and ``LandscapeOptimization`` make pictures in it.

    Args:
        config: Every setting; None starts from the backend's measured defaults.
        overrides: Settings by keyword, see :class:`~vislens_interp.config.Overrides`.

    Attributes (after ``fit``):
        landscape_: The fitted landscape.
        shuffled_: The landscapes fitted on permuted responses.
        shuffled_axes: (S, K, *x) which way x moves along axes for permuted responses: those of the shuffled landscapes,
            and of embeddings a hundred in closed form.
        evidence_: Unit name to evidence.
        surrogate_: Predicts responses from embeddings, for ``goal="surrogate_ascent"``; None until it is needed.
    """

    uses_strength = True
    landscape_: Landscape

    def __init__(self, config: Config | None = None, **overrides: Unpack[Overrides]) -> None:
        resolve(Config() if config is None else config, overrides)  # what can never be right is refused at once
        self._given, self._overrides = config, dict(overrides)
        self._config: Config | None = None
        self.shuffled_: list[Landscape] = []
        self.shuffled_axes = torch.zeros(0)
        self.evidence_: dict[str, Evidence] = {}
        self.surrogate_: ResponseSurrogate | None = None
        self._groups: Tensor | None = None  # which reference images are copies

    @property
    def config(self) -> Config:
        """The settings in force, once a backend's defaults are known."""
        if self._config is None:
            raise ValueError("the method has no backend yet, whose defaults its settings start from; call fit first.")
        return self._config

    def override(self, **overrides: Unpack[Overrides]) -> Self:
        """Change settings: all of them before a fit, those of an edit or an optimisation also after it."""
        resolve(Config() if self._given is None else self._given, self._overrides, overrides)
        self._overrides = {**self._overrides, **overrides}
        if self._config is not None:
            self._config = resolve(self._config, overrides)
        return self

    def settings(self) -> dict[str, Any]:
        given = {} if self._given is None else {"config": self._given.to_dict()}
        return {**given, **self._overrides}

    def bind(self, target: Target, backend: Backend) -> Self:
        """Take target and backend without fitting; ValueError for a setting that its defaults exclude."""
        super().bind(target, backend)
        self._config = resolve(self._given or backend.defaults, self._overrides)
        return self

    def share(self, fitted: "LandscapeMethod") -> Self:
        """Take the target, backend and landscape of another method, with all that was learned beside it."""
        self.bind(fitted.target, fitted.backend)
        self.landscape_, self.shuffled_, self.evidence_ = fitted.landscape_, fitted.shuffled_, fitted.evidence_
        self.shuffled_axes = fitted.shuffled_axes
        self.surrogate_, self._groups = fitted.surrogate_, fitted._groups
        return self

    def _fit(self, reference: ReferenceSet, *, progress: bool, checkpoint: Path | None) -> None:
        x, responses = reference.embeddings(self.backend), reference.responses
        assert responses is not None  # a landscape uses responses
        groups = reference.groups
        fit, codes = self.config.fit, None
        training, _ = split_rows(len(x), fit, groups)
        if self.config.prior.closed_form_init:
            codes = Codes.of(self.backend.vae(), x[training])
        landscape = self._fit_one(x, responses, groups, codes, progress, checkpoint)
        generator = torch.Generator().manual_seed(fit.seed + 1)
        shuffled = [
            self._fit_one(x, responses[permuted_rows(groups, generator)], groups, codes, False, None)
            for _ in range(fit.shuffles)
        ]
        found = evidence(landscape, x, shuffled, groups=groups, seed=fit.seed)
        for item in found:
            if item.unit in self.target.doubts:
                item.reasons.append(self.target.doubts[item.unit])
        self.landscape_, self.shuffled_, self._groups = landscape, shuffled, groups
        self.shuffled_axes = torch.stack([one.axes() for one in shuffled]) if shuffled else torch.zeros(0)
        count = min(SHUFFLED_AXES, AXES_AT_MOST // len(self.target.names))
        if shuffled and codes is not None and x.ndim == 2 and count:
            rows = {"responses": responses[training], "groups": renumbered(groups[training])}
            many = shuffled_axes(self.backend.vae(), codes, **rows, count=count, seed=fit.seed + 1)
            self.shuffled_axes = torch.cat([self.shuffled_axes, many])
        self.evidence_ = {item.unit: item for item in found}
        self.surrogate_ = None
        if self.config.edit.goal == "surrogate_ascent":
            self.surrogate_ = ResponseSurrogate(landscape, x, groups=groups, seed=fit.seed)

    def _fit_one(
        self,
        x: Tensor,
        responses: Tensor,
        groups: Tensor,
        codes: Codes | None,
        progress: bool,
        checkpoint: Path | None,
    ) -> Landscape:
        backend, fit, shape, scaler = self.backend, self.config.fit, self.config.prior, self.scaler_
        vae = backend.vae()
        prior = ActivationPrior.of(shape, vae.latent_dim, responses.shape[1])
        differentiable = self._differentiable and shape.gradients
        if shape.closed_form_init:
            # The evidence is read from what the start has not seen either.
            training, _ = split_rows(len(x), fit, groups)
            closed_form_init(
                vae,
                x[training],
                scaler.standardise(responses[training]),
                prior,
                axis_scale_sd=shape.axis_scale_sd,
                cross_talk_penalty=shape.cross_talk_penalty,
                respond=self._respond_to_x(scaler) if differentiable else None,
                known=codes,
            )
        return fit_landscape(
            vae,
            x,
            responses,
            prior,
            fit,
            names=self.target.names,
            scaler=scaler,
            consistency=self._consistency_features(x) if fit.w_consistency > 0 else None,
            groups=groups,
            checkpoint=checkpoint,
            progress=progress,
        )

    def _consistency_features(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """What the consistency loss compares: the target's layer, as maps and as responses, or another network's."""
        target, backend = self.target, self.backend
        if not self._differentiable:
            extractor = backend.feature_extractor()
            if extractor is None:
                raise ValueError(
                    f"w_consistency needs a target with gradients or a backend with a network of its own; "
                    f"{backend.name!r} has none. Pass w_consistency=0."
                )
            return extractor
        some = x[:: max(1, len(x) // CONSISTENCY_IMAGES)][:CONSISTENCY_IMAGES]
        features = LayerFeatures(target, backend.render(some))
        return lambda part: features(backend.render(part))

    @property
    def _differentiable(self) -> bool:
        return self.target.differentiable and self.backend.differentiable

    def _respond_to_x(self, scaler: ResponseScaler) -> Callable[[Tensor], Tensor]:
        return lambda x: scaler.standardise(self.target(self.backend.render(x)).float())

    def surrogate(self) -> ResponseSurrogate:
        """The network that predicts responses from embeddings, trained when it is first needed."""
        if self.surrogate_ is None:
            self.surrogate_ = ResponseSurrogate(self.landscape_, groups=self._groups, seed=self.config.fit.seed)
        return self.surrogate_

    def move(self, backend: Backend) -> None:
        """Work with the same backend on another device."""
        self.backend = backend
        if hasattr(self, "landscape_"):
            for landscape in (self.landscape_, *self.shuffled_):
                landscape.vae.to(backend.device)
        if self.surrogate_ is not None:
            self.surrogate_ = ResponseSurrogate(self.landscape_, state=self.surrogate_.state())

    def restore(self, x: Tensor, before: Tensor, decoded: Tensor, left: Tensor | float = 1.0) -> Tensor:
        """Add what a decoding lost of x, as far as the settings say; gradients flow to ``decoded``.

        Args:
            x, before: (N, ...) of the images, and (N, latent_dim) their latents.
            decoded: (N, ...) decodings of latents after an edit.
            left: Share of the loss that is added again, one for all or (N, 1, ...).
        """
        edit = self.config.edit
        if edit.residual:
            decoded = decoded + left * (x - self.landscape_.decode(before))
        return keep_norm(decoded, x) if edit.keep_norm else decoded

    def describe(self) -> dict[str, Any]:
        """Every setting in force, as JSON values."""
        return self.config.to_dict()


class LandscapeEdit(LandscapeMethod):
    """Move latents of images towards a goal that the unit prefers (Algorithm 2).

    Args:
        config, overrides: As :class:`LandscapeMethod`, such as ``alpha=0.5, epochs=10``.

    >>> LandscapeEdit(goal="local_mean", epochs=3).settings()
    {'goal': 'local_mean', 'epochs': 3}
    """

    uses_alpha = True

    @property
    def angle(self) -> float | None:
        """The edit angle that it was set to; None where that is left to the backend, or where there is none."""
        given = None if self._given is None else self._given.edit.angle
        return sections_of(self._overrides)["edit"].get("angle", given)

    @property
    def own_alpha(self) -> float | None:
        edit = self.config.edit
        return edit.alpha if edit.angle is None else None

    def latents(self, images: Tensor, directions: Directions, *, alpha: float | None = None) -> tuple[Tensor, Tensor]:
        """Latents before and after the edit, (N, latent_dim) each; no image is made yet."""
        x = self.encode(images)
        before = self.landscape_.encode(x)[0]
        return before, self._edited(x, before, directions, alpha)[1]

    def embeddings(self, x: Tensor, directions: Directions, *, alpha: float | None = None) -> Tensor:
        """The x (N, ...) that pictures are made of, moved in these directions."""
        return self._edited(x, self.landscape_.encode(x)[0], directions, alpha)[0]

    def _generate(
        self, images: Tensor, directions: Directions, seeds: list[int], alpha: float | None, strength: float | None
    ) -> tuple[Tensor, Tensor]:
        assert strength is not None  # an edit uses it
        x = self.encode(images)
        loop = getattr(self.backend, "closed_loop", None)
        if loop is not None and directions and strength < 1 and self.config.edit.goal == "surrogate_ascent":
            pictures = self._in_closed_loop(loop, images, directions, alpha, strength)
            return pictures, self.landscape_.encode(self.encode(pictures))[0]
        edited, latents = self._edited(x, self.landscape_.encode(x)[0], directions, alpha)
        return self.backend.decode(edited, init_image=images, strength=strength, seeds=seeds), latents

    def _in_closed_loop(
        self, loop: ClosedLoopGenerator, images: Tensor, directions: Directions, alpha: float | None, strength: float
    ) -> Tensor:
        """Pictures of which the surrogate, reading them again at every step, predicts a higher (or lower) response."""
        surrogate = self.surrogate()
        angle = self.config.edit.angle
        share = alpha if alpha is not None else min(1.0, (angle or 0.0) / MAX_ROTATION_DEG)

        def score(seen: Tensor, rows: Tensor) -> Tensor:
            return signed(surrogate(loop.read(seen)), directions)

        return loop.ascend(images, score, share=share, strength=strength)

    def _edited(self, x: Tensor, before: Tensor, directions: Directions, alpha: float | None) -> tuple[Tensor, Tensor]:
        """Moved x (N, ...) and its latents (N, latent_dim); ``alpha`` None is the settings' own, or goes by angle."""
        edit = self.config.edit
        alpha = self.own_alpha if alpha is None else alpha
        check_shares(": 0 keeps the image, 1 is the goal.", alpha=alpha)
        if edit.goal == "surrogate_ascent":
            if not directions:
                return x, before
            degrees = edit.angle if alpha is None else alpha * MAX_ROTATION_DEG
            assert degrees is not None  # own_alpha is None where there is an angle
            moved = self.surrogate().ascend(x, directions, degrees)
            return moved, self.landscape_.encode(moved)[0]
        if not directions:
            return self._decode(x, before, before, None), before
        if edit.goal == "local_mean":
            goal = local_mean_goal(self.landscape_, before, directions)
        else:
            power = edit.top_activating_power
            goal = self.landscape_.goal(before, dict(directions), edit.mode, top_activating_power=power)
        weight: Tensor | float | None = alpha
        if weight is None:
            assert edit.angle is not None  # own_alpha is None only then
            weight, _ = alpha_for_angle(
                before,
                goal,
                edit.angle,
                interpolation=edit.interpolation,
                decode=lambda latent: self._decode(x, before, latent, goal),
                start=x if x.ndim == 2 else None,
            )
        moved = interpolate(before, goal, weight, edit.interpolation)
        if edit.cross_talk_steps and len(directions) < len(self.landscape_.names) and self._differentiable:
            moved = self._without_cross_talk(x, before, moved, goal, directions)
        return self._decode(x, before, moved, goal), moved

    def _without_cross_talk(
        self, x: Tensor, before: Tensor, moved: Tensor, goal: Tensor, directions: Directions
    ) -> Tensor:
        """Latents after the steps that bring the other units' responses back."""
        respond_to_x = self._respond_to_x(self.landscape_.scaler)

        def respond(latent: Tensor, rows: Tensor) -> Tensor:
            rows = rows.to(before.device)
            left = self._residual_left(x[rows], before[rows], latent, goal[rows])
            decoded = self.landscape_.vae.decode(latent)
            return respond_to_x(self.restore(x[rows], before[rows], decoded, left))

        return reduce_cross_talk(
            moved,
            before,
            respond,
            list(directions),
            steps=self.config.edit.cross_talk_steps,
            spread=self.landscape_.latents.std(0).to(before),
        )

    def _decode(self, x: Tensor, before: Tensor, after: Tensor, goal: Tensor | None) -> Tensor:
        """The x of latents ``after``, between ``before``, those of the images' own x, and ``goal``."""
        left = self._residual_left(x, before, after, goal)
        return self.restore(x, before, self.landscape_.decode(after), left)

    def _residual_left(self, x: Tensor, before: Tensor, after: Tensor, goal: Tensor | None) -> Tensor | float:
        """Share of what a decoding loses that is added again, for latents ``after`` between ``before`` and ``goal``."""
        if self.config.edit.residual != "fade" or goal is None:
            return 1.0
        path = goal - before
        gone = ((after - before) * path).sum(1) / (path**2).sum(1).clamp_min(1e-12)  # α, where the edit is a lerp
        return (1 - gone.clamp(0, 1)).view(-1, *[1] * (x.ndim - 1))


def validate_gradients(target: Target, backend: Backend, method: str) -> None:
    """Raise ValueError where latents cannot be optimised for want of gradients."""
    if not (target.differentiable and backend.differentiable):
        which = "target" if not target.differentiable else f"backend {backend.name!r}"
        raise ValueError(
            f"method={method!r} needs gradients from the image to the response, and this {which} has none. "
            "Use method='edit'."
        )
