"""Optimisation in the latents of a standard VAE: the paper's rival, which knows a unit by its gradient alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch

from vislens_interp.backends.base import Backend
from vislens_interp.config import resolve
from vislens_interp.landscape.fit import fit_landscape
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import ActivationPrior, ResponseScaler
from vislens_interp.methods.optimization import LandscapeOptimization
from vislens_interp.reference import ReferenceSet
from vislens_interp.targets.target import Target

ALGORITHM_3: Mapping[str, Any] = {
    "prior": "standard",
    "scale": "latent",
    "noise": 0.0,
    "w_silent": 0.0,
    "w_consistency": 0.0,
}
"""Settings of an optimisation: what a backend's defaults, measured for our own, must not add to the rival's."""


class StandardVAE(LandscapeOptimization):
    """Algorithm 3 in a VAE that was trained under N(0, 1): Adam on latents, pulled towards N(0, 1), all of them free.

    Same VAE, losses, epochs, optimiser and generator as the landscape's; only the responses play no part in the fit.

    Args:
        config, overrides: As ``LandscapeOptimization``. The published run is ``optimize={"steps": 10_000, "lr": 0.1,
            "w_kld": 0.001}``.

    Attributes (after ``fit``):
        landscape_: The VAE and the reference set in it; its blocks organise nothing.

    Source: Vis-Lens, Sec. 4.3.3 and Table 3 ("standard latent optimisation"). Deviation: Algorithm 3's, responses in
    SDs.
    """

    label = "standard_vae"

    def bind(self, target: Target, backend: Backend) -> Self:
        super().bind(target, backend)
        self._config = resolve(self._given or backend.defaults, {"optimize": ALGORITHM_3}, self._overrides)
        return self

    def _fit(self, reference: ReferenceSet, *, progress: bool, checkpoint: Path | None) -> None:
        """Train the backend's VAE on under N(0, 1); responses only set the scale."""
        x, responses = reference.embeddings(self.backend), reference.responses
        assert responses is not None  # the scale uses responses
        vae, fit = self.backend.vae(), self.config.fit
        fitted = fit_landscape(
            vae,
            x,
            torch.empty(len(x), 0),
            ActivationPrior(vae.latent_dim, []),
            fit,
            scaler=ResponseScaler(torch.empty(0), torch.empty(0)),
            consistency=self._consistency_features(x) if fit.w_consistency > 0 else None,
            checkpoint=checkpoint,
            progress=progress,
        )
        # One-dimensional blocks that organise nothing, so that units can be named; the standard prior ignores them.
        prior = ActivationPrior(vae.latent_dim, [(unit, unit + 1) for unit in range(responses.shape[1])])
        self.landscape_ = Landscape(
            fitted.vae, prior, self.scaler_, list(self.target.names), fitted.latents, responses, fitted.held_out
        )
