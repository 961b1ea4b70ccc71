"""A Gaussian process from embeddings to responses: what it expects of a picture, and how sure it is."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from vislens_interp.brain.readers.trials import refuse_without

COMPONENTS = 20
"""Principal components of the gallery's embeddings that the process sees."""
CANDIDATES = 800
"""Pictures of the gallery that are looked at for one block: a posterior's samples cost their cube."""
NOISE, LEARN_FROM = 0.5, 10
"""Share of the responses' variance that is taken for noise before there are as many responses as the second number."""


class Surrogate:
    """Responses of each target as a Gaussian process of principal components, by scikit-learn.

    The kernel is linear and radial, with white noise; its few numbers maximise the likelihood.

    Args:
        gallery: (M, D) embeddings whose principal components are taken.
        seed: Of the samples.

    Source: Rasmussen and Williams 2006, ch. 2 and 5; Thompson 1933 for choosing by samples of the posterior.
    """

    def __init__(self, gallery: np.ndarray, seed: int = 0) -> None:
        refuse_without("sklearn", "brain", "Experiment")
        from sklearn.decomposition import PCA

        count = max(1, min(COMPONENTS, len(gallery) - 1, gallery.shape[1]))
        self.components = PCA(count, svd_solver="full" if len(gallery) < 2000 else "randomized", random_state=0)
        self.components.fit(gallery)
        self.scale = float(np.sqrt(self.components.explained_variance_.sum())) or 1.0
        self.seed = seed
        self.processes: list[Any] = []
        self.moments: list[tuple[float, float]] = []

    def reduced(self, embeddings: np.ndarray) -> np.ndarray:
        """(N, C) components, scaled so that pictures lie about 1 apart."""
        return self.components.transform(embeddings) / self.scale

    def fit(self, embeddings: np.ndarray, responses: np.ndarray) -> "Surrogate":
        """Learn from (N, D) embeddings and (N, K) mean responses, NaN where there are none.

        A target with fewer than three responses keeps the prior.
        """
        x = self.reduced(embeddings) if len(embeddings) else np.zeros((0, self.components.n_components_))
        self.processes, self.moments = [], []
        for column in responses.T:
            there = np.isfinite(column)
            mean, spread = 0.0, 1.0
            if there.sum() >= 3:
                mean, spread = float(column[there].mean()), float(column[there].std()) or 1.0
                process = _fitted(x[there], (column[there] - mean) / spread, self.seed)
            else:
                process = _process(_signal(), NOISE, self.seed)
            self.processes.append(process)
            self.moments.append((mean, spread))
        return self

    def predict(self, embeddings: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
        """Expected mean responses and the SD of that expectation, (N,) each, in the responses' own unit."""
        mean, spread = self.moments[target]
        expected, unsure = self.processes[target].predict(self.reduced(embeddings), return_std=True)
        # Before a fit scikit-learn drops the axis of a single picture.
        return np.atleast_1d(expected) * spread + mean, np.atleast_1d(unsure) * spread

    def covariance(self, embeddings: np.ndarray, target: int) -> np.ndarray:
        """(N, N) of the expectations, standardised."""
        return self.processes[target].predict(self.reduced(embeddings), return_cov=True)[1]

    def samples(self, embeddings: np.ndarray, target: int, count: int, seed: int) -> np.ndarray:
        """(N, count) functions that the responses may follow, standardised."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "covariance is not")  # rounding, where pictures are alike
            return self.processes[target].sample_y(self.reduced(embeddings), count, random_state=seed)

    def direction(self, embeddings: np.ndarray, values: np.ndarray) -> np.ndarray:
        """(D,) unit vector along which values of these embeddings rise, by ridge regression on the components."""
        from sklearn.linear_model import Ridge

        weights = Ridge(alpha=1.0).fit(self.reduced(embeddings), values).coef_
        vector = weights @ self.components.components_
        return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _signal() -> Any:
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct

    linear = ConstantKernel(0.3, (1e-3, 10)) * DotProduct(1.0, "fixed")
    return linear + ConstantKernel(0.5, (1e-3, 10)) * RBF(1.0, (0.2, 5.0))


def _process(signal: Any, noise: float, seed: int) -> Any:
    """A process of the signal alone: what it expects and draws has no noise of single responses in it."""
    from sklearn.gaussian_process import GaussianProcessRegressor

    return GaussianProcessRegressor(signal, alpha=noise, optimizer=None, random_state=seed)


def _fitted(x: np.ndarray, y: np.ndarray, seed: int) -> Any:
    """A process with the kernel and the noise that make (N,) standardised responses likeliest."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import WhiteKernel

    signal, noise = _signal(), NOISE
    if len(y) >= LEARN_FROM:
        kernel = signal + WhiteKernel(noise, (1e-2, 2.0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a bound that is reached is no mistake
            learnt = GaussianProcessRegressor(kernel, random_state=seed).fit(x, y).kernel_
        signal, noise = learnt.k1, float(learnt.k2.noise_level)
    return _process(signal, noise, seed).fit(x, y)


def spread_out(covariance: np.ndarray, count: int, taken: Sequence[int] = ()) -> list[int]:
    """Pictures that leave the least unknown together: each one the least certain after those before it.

    Source: pivoted Cholesky decomposition, the greedy rule for experiments of largest information.
    """
    left = covariance.copy()
    chosen: list[int] = []
    closed = set(taken)
    for _ in range(count):
        order = np.argsort(-np.diag(left), kind="stable")
        best = next((int(row) for row in order if int(row) not in closed), None)
        if best is None:
            break
        chosen.append(best)
        closed.add(best)
        column = left[:, best]
        left = left - np.outer(column, column) / max(float(column[best]), 1e-12)
    return chosen
