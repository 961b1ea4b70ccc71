"""Optimisation in the latents of a standard VAE: the paper's rival, which knows a unit by its gradient alone."""

from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from vislens_interp.backends.base import Backend
from vislens_interp.baselines.embedding_edit import read_responses
from vislens_interp.landscape.fit import FitSettings, fit_landscape
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import ActivationPrior, ResponseScaler
from vislens_interp.method import LandscapeMethod, refuse_without_gradients
from vislens_interp.targets.target import Target

ALGORITHM_3: dict[str, Any] = {
    "optimize_prior": "standard",
    "optimize_scale": "latent",
    "optimize_noise": 0.0,
    "optimize_w_silent": 0.0,
    "optimize_w_consistency": 0.0,
}
"""What a backend's defaults, measured for our own optimisation, must not add to the rival's."""


class StandardVAE(LandscapeMethod):
    """Algorithm 3 in a VAE that was trained under N(0, 1): Adam on latents, pulled towards N(0, 1), all of them free.

    Same VAE, losses, epochs, optimiser and generator as the landscape's; only the responses play no part in the fit.

    Args:
        seed: Of the fit.
        settings: Any of :class:`~vislens_interp.method.LandscapeMethod`; what is not given comes from the backend's
            measured defaults. The published run is ``optimize_steps=10_000, optimize_lr=0.1, optimize_w_kld=0.001``.

    Attributes (after ``fit``):
        landscape_: The VAE and the reference set in it; its blocks organise nothing.

    Source: Vis-Lens, Sec. 4.3.3 and Table 3 ("standard latent optimisation"). Deviation: Algorithm 3's, responses in
    SDs.
    """

    def __init__(self, *, seed: int = 0, **settings: Any) -> None:
        super().__init__("optimize", shuffles=0, seed=seed, **{**ALGORITHM_3, **settings})

    def refuse(self, target: Target, backend: Backend) -> None:
        """Raise ValueError where there are no gradients, before anything is computed."""
        refuse_without_gradients(target, backend, "standard_vae")

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
        """Train the backend's VAE on under N(0, 1); arguments as for every method, responses only set the scale."""
        self.refuse(target, backend)
        self.bind(target, backend)
        x = backend.encode(images)
        responses = read_responses(target, images, responses, progress=progress)
        scaler = ResponseScaler.fit(responses, list(target.names))
        settings = replace(self._settings(FitSettings, backend.defaults.fit), seed=self.seed)
        vae = backend.vae()
        fitted = fit_landscape(
            vae,
            x,
            torch.empty(len(x), 0),
            ActivationPrior(vae.latent_dim, []),
            settings,
            scaler=ResponseScaler(torch.empty(0), torch.empty(0)),
            consistency=self._see(x) if settings.w_consistency > 0 else None,
            checkpoint=checkpoint,
            progress=progress,
        )
        # One-dimensional blocks that organise nothing, so that units can be named; the standard prior ignores them.
        prior = ActivationPrior(vae.latent_dim, [(unit, unit + 1) for unit in range(responses.shape[1])])
        self.landscape_ = Landscape(
            fitted.vae, prior, scaler, list(target.names), fitted.latents, responses, fitted.held_out
        )
        self.shuffled_, self.evidence_ = [], {}  # of a landscape that knows nothing of the unit
        return self
