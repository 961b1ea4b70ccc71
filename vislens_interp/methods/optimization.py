"""Adam on latents of a landscape (Algorithm 3), read through the backend by the target."""

from collections.abc import Callable

import torch
from torch import Tensor

from vislens_interp.backends.base import Backend
from vislens_interp.backends.closed_loop import ClosedLoopGenerator
from vislens_interp.config import OptimizeConfig
from vislens_interp.landscape.optimize import Optimized, Reader, Reading, optimize
from vislens_interp.landscape.prior import SIGN, signed
from vislens_interp.math import full_chunks
from vislens_interp.methods.base import Directions
from vislens_interp.methods.landscape import LandscapeMethod, validate_gradients
from vislens_interp.targets.layer_features import LayerFeatures
from vislens_interp.targets.target import Target

RENDERED = 16
"""Pictures rendered at a time where a refinement starts from them."""
SENSITIVITY_IMAGES = 256
"""Reference images over which the sensitivity of each latent dimension is averaged."""
SILENT = 1e-6
"""SDs above the worst response of the reference set up to which a unit counts as silent."""


class LandscapeOptimization(LandscapeMethod):
    """Optimise latents of images by the gradient of the unit's response (Algorithm 3).

    Args:
        config, overrides: As :class:`LandscapeMethod`, such as ``optimize={"steps": 100}``.

    Attributes (after ``generate``):
        optimized_: Curves and latents of the last optimisation.
    """

    label = "optimize"
    optimized_: Optimized

    def validate(self, target: Target, backend: Backend) -> None:
        if getattr(backend, "closed_loop", None) is None or not target.differentiable:
            validate_gradients(target, backend, self.label)

    @property
    def own_strength(self) -> float:
        return self.config.optimize_strength

    def latents(self, images: Tensor, directions: Directions) -> tuple[Tensor, Tensor]:
        """Latents before and after the optimisation, (N, latent_dim) each; no image is made yet."""
        return self._latents(self.encode(images), directions)

    def embeddings(self, x: Tensor, directions: Directions) -> Tensor:
        """The x (N, ...) that pictures are made of, optimised in these directions."""
        return self._optimized(x, directions)[0]

    def _latents(self, x: Tensor, directions: Directions) -> tuple[Tensor, Tensor]:
        z, sigma = self.landscape_.encode(x)
        if not directions:
            return z, z
        goal = self.landscape_.goal(z, dict(directions), self.config.edit.mode)
        self.optimized_ = self.optimize(z, sigma, goal, directions, x=x)
        return z, self.optimized_.latents

    def _optimized(self, x: Tensor, directions: Directions) -> tuple[Tensor, Tensor]:
        """Optimised x (N, ...), with what the decoding of the images' own latents lost, and its latents."""
        before, after = self._latents(x, directions)
        return self.restore(x, before, self.landscape_.decode(after)), after

    def _generate(
        self, images: Tensor, directions: Directions, seeds: list[int], alpha: float | None, strength: float | None
    ) -> tuple[Tensor, Tensor]:
        """Refined from the picture that was optimised (Table S2's form), not from the image."""
        assert strength is not None  # an optimisation uses it
        loop = getattr(self.backend, "closed_loop", None)
        if loop is not None and strength < 1:
            pictures = self._in_closed_loop(loop, images, directions, strength)
            return pictures, self.landscape_.encode(self.encode(pictures))[0]
        x, latents = self._optimized(self.encode(images), directions)
        with torch.no_grad():
            initial = torch.cat([self.backend.render(part) for part in x.split(RENDERED)])
        return self.backend.decode(x, init_image=initial, strength=strength, seeds=seeds), latents

    def _in_closed_loop(
        self, loop: ClosedLoopGenerator, images: Tensor, directions: Directions, strength: float
    ) -> Tensor:
        """Pictures whose own pixels follow the unit's gradient, while the prior pulls at their latents."""
        landscape, target, settings = self.landscape_, self.target, self.config.optimize
        z = landscape.encode(self.encode(images))[0]
        goal = z
        if directions:
            goal = settings.prior_mean_scale * landscape.goal(z, dict(directions), self.config.edit.mode)
        block = landscape.mask(list(directions)).to(z)

        def score(seen: Tensor, rows: Tensor) -> Tensor:
            wanted = signed(landscape.scaler.standardise(target(seen).float()), directions)
            if settings.w_kld > 0:
                latent = landscape.vae.encode(loop.embedder(seen))[0]
                if settings.prior == "standard":
                    off = latent.square().sum(1) / 2
                else:
                    off = ((latent - goal[rows]) ** 2 * block).sum(1) / (2 * settings.sigma_prior**2)
                wanted = wanted - settings.w_kld * off
            return wanted

        return loop.ascend(
            images,
            score,
            share=1.0 if directions else 0.0,
            strength=strength,
            side=self.backend.size,
            steps=settings.steps,
            chunk=settings.chunk,
        )

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
        validate_gradients(self.target, self.backend, "optimize")
        settings = self.config.optimize
        landscape, units = self.landscape_, list(directions)
        return optimize(
            z,
            self._reader(z, x, directions, settings),
            settings,
            goal=goal,
            sigma=sigma,
            block=landscape.mask(units),
            others=landscape.mask([unit for unit in range(len(landscape.names)) if unit not in directions]),
            spread=landscape.latents.std(0),
            sensitivity=self.sensitivity(z, units) if settings.scale == "response" else None,
            seed=self.config.fit.seed,
            trace=trace,
        )

    def _reader(self, z: Tensor, x: Tensor | None, directions: Directions, settings: OptimizeConfig) -> Reader:
        """Reads latents during an optimisation that started from ``z``, the codes of ``x``."""
        landscape, target, backend = self.landscape_, self.target, self.backend
        units = list(directions)
        signs = torch.tensor([SIGN[sense] for sense in directions.values()]).to(z)
        # The worst that any reference image got: a rectified unit's floor, below which nothing points anywhere.
        worst = (landscape.scaler.standardise(landscape.responses)[:, units].to(z) * signs).min(0).values
        features, initial, scale = None, z, 0.0
        if settings.w_consistency > 0:
            if x is None:
                raise ValueError(f"x is None; w_consistency={settings.w_consistency} needs the images' own x.")
            with torch.no_grad():
                known = landscape.decode(self._some_latents(z))
                features = LayerFeatures(target, backend.render(known), without=units)
                chunks = full_chunks(len(x), RENDERED)
                initial = torch.cat([features(backend.render(x[rows]))[:count] for rows, count in chunks])
                scale = (known.flatten(1).var(0).sum() / features.variance.clamp_min(1e-12)).item()

        def read(latent: Tensor, rows: Tensor) -> Reading:
            rows = rows.to(z.device)
            decoded = landscape.vae.decode(latent)
            pictures = backend.render(decoded if x is None else self.restore(x[rows], z[rows], decoded))
            if features is None:
                responses, change = target(pictures), None
            else:
                responses, layer = target.with_features(pictures)
                change = scale * ((features.of(layer) - initial[rows]) ** 2).sum(1)
            wanted = landscape.scaler.standardise(responses.float())[:, units] * signs
            silent = (wanted.detach() <= worst + SILENT).all(1) if settings.w_silent > 0 else None
            return Reading(wanted.sum(1), change, silent)

        return read

    def _some_latents(self, z: Tensor) -> Tensor:
        """Codes of some reference images, evenly taken, on the device of ``z``."""
        latents = self.landscape_.latents
        return latents[:: max(1, len(latents) // SENSITIVITY_IMAGES)][:SENSITIVITY_IMAGES].to(z)

    def sensitivity(self, z: Tensor, units: list[int]) -> Tensor:
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
