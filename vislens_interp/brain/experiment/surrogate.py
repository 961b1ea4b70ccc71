"""Responses as a function of embeddings, and what is not known of it: Bayesian linear regression."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vislens_interp.brain.readers.trials import refuse_without

COMPONENTS = 100
"""Principal components of the gallery's embeddings that the regression sees."""
BELIEF = 0.1
"""Shape and rate of the Gamma priors of both precisions: a few responses alone never say that there is no signal."""
NOISE = 0.5
"""Variance of the noise, as a share of the responses', before there are three of them."""


@dataclass(frozen=True)
class Posterior:
    """Of one target: expected (C,) weights and their (C, C) covariance, variance of the noise, all in SDs of responses.

    ``level`` is the response at the gallery's centre, ``spread`` that SD.
    """

    weights: np.ndarray
    covariance: np.ndarray
    noise: float
    level: float
    spread: float

    @cached_property
    def root(self) -> np.ndarray:
        """(C, C), whose product with its transpose is the covariance."""
        values, vectors = np.linalg.eigh(self.covariance)
        return vectors * np.sqrt(np.maximum(values, 0.0))


class Surrogate:
    """Predicts responses of several targets, each by a linear function of principal components, with its uncertainty.

    Args:
        gallery: (M, D) embeddings whose principal components are taken.

    Source: Bayesian ridge regression, as scikit-learn has it (MacKay 1992; Tipping 2001). Number of components and
    priors were chosen on tuning neurons (benchmarks/closed_loop).
    """

    def __init__(self, gallery: np.ndarray) -> None:
        refuse_without("sklearn", "brain", "Experiment")
        from sklearn.decomposition import PCA

        count = max(1, min(COMPONENTS, len(gallery) - 1, gallery.shape[1]))
        self.pca = PCA(count, svd_solver="full" if len(gallery) < 500 else "randomized", random_state=0).fit(gallery)
        self.scale = float(np.sqrt(self.pca.explained_variance_.sum())) or 1.0
        self._posteriors: dict[int, Posterior] = {}

    def components(self, embeddings: np.ndarray) -> np.ndarray:
        """(N, C), scaled so that their variances over the gallery add up to 1."""
        return self.pca.transform(embeddings) / self.scale

    def fit(self, embeddings: np.ndarray, means: np.ndarray, counts: np.ndarray) -> "Surrogate":
        """Learn from (N, D) embeddings and (N, K) mean responses of (N, K) trials each, NaN where there are none."""
        self._z, self._means, self._counts = self.components(embeddings), means, counts
        self._posteriors.clear()
        return self

    def posterior(self, target: int) -> Posterior:
        """Of a target; the prior where there are fewer than three responses."""
        from sklearn.linear_model import BayesianRidge

        if target in self._posteriors:
            return self._posteriors[target]
        size = self._z.shape[1]
        y = self._means[:, target]
        there = np.isfinite(y)
        if there.sum() < 3:
            level = float(y[there].mean()) if there.any() else 0.0
            return Posterior(np.zeros(size), np.eye(size), NOISE, level, 1.0)
        y, counts = y[there], self._counts[there, target]
        spread = float(y.std()) or 1.0
        priors = dict.fromkeys(("alpha_1", "alpha_2", "lambda_1", "lambda_2"), BELIEF)
        fitted = BayesianRidge(**priors).fit(self._z[there], y / spread, sample_weight=counts / counts.mean())
        level = float(fitted.intercept_) * spread
        self._posteriors[target] = Posterior(fitted.coef_, fitted.sigma_, 1 / float(fitted.alpha_), level, spread)
        return self._posteriors[target]

    def predict(self, embeddings: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
        """Expected mean responses and the SD of that expectation, (N,) each, in the responses' own unit."""
        found, z = self.posterior(target), self.components(embeddings)
        unsure = np.linalg.norm(z @ found.root, axis=1)
        return z @ found.weights * found.spread + found.level, unsure * found.spread

    def draws(self, target: int, count: int, seed: int) -> np.ndarray:
        """(C, count) weights that may be the true ones, drawn from the posterior."""
        found = self.posterior(target)
        noise = np.random.default_rng(seed).normal(size=(len(found.weights), count))
        return found.weights[:, None] + found.root @ noise

    def direction(self, weights: np.ndarray) -> np.ndarray:
        """(D,) unit vector of embeddings along which responses of these (C,) weights rise."""
        vector = weights @ self.pca.components_
        return vector / max(float(np.linalg.norm(vector)), 1e-12)

    def spread_out(self, embeddings: np.ndarray, target: int, count: int, taken: Collection[int] = ()) -> list[int]:
        """Positions of embeddings whose responses leave the least unknown: each the least certain after those before.

        Source: the greedy rule for experiments of largest information (Krause et al. 2008).
        """
        found = self.posterior(target)
        parts = self.components(embeddings) @ found.root
        left = parts @ parts.T
        closed, chosen = list(taken), []
        for _ in range(min(count, len(left) - len(closed))):
            variances = np.diag(left).copy()
            variances[closed + chosen] = -np.inf
            best = int(variances.argmax())
            chosen.append(best)
            left = left - np.outer(left[:, best], left[best]) / (left[best, best] + found.noise)
        return chosen
