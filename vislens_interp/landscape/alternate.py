"""The embedding landscape's fit without gradient steps: each part of a linear VAE in turn has a best solution."""

import math

import torch
from torch import Tensor

from vislens_interp.landscape.vae import EmbeddingVAE

_JITTER = 1e-6
"""Share of the mean variance that is added to every dimension, for embeddings whose covariance has no inverse."""

_CG_STEPS, _CG_TOLERANCE = 10, 1e-7

_PENALTIES = torch.logspace(-5, 3, 33, dtype=torch.float64)
"""Ridge penalties to choose from, in mean variances of an embedding's dimensions."""


class Alternating:
    """Rounds of exact solutions for the linear VAE under an activation prior, on all training images at once.

    With encoder mean A x + a, log variance B x + b and decoder W z + c, the loss of Eq. 4 is, in expectation over the
    posterior's noise and with d = 1/sigma_prior² for each image and dimension,

        w_recon (‖x - W mean - c‖² + Σ_j v_j ‖W_j‖²) + w_kld Σ_j [v_j d_j - log(v_j d_j) - 1 + d_j (mean_j - m_j)²] / 2

    and one round lowers it in three steps, none of which can raise it:

    1. *Variance.* v_j p_j - log v_j with p_j = d_j + 2 w_recon ‖W_j‖² / w_kld is convex in B and b: a regression with
       gamma-distributed errors and a log link, whose expected curvature is XᵀX. Outside the blocks p_j is the same for
       all images and v_j = 1 / p_j; inside, one scoring step, kept for a dimension if it helped.
    2. *Encoder mean.* Quadratic: w_recon WᵀW A S + w_kld/2 Σ_g P_g A S_g = right side, where S = Σ x xᵀ, S_g = Σ d x xᵀ
       with the weights of block g, and P_g picks its rows. With one block, diagonalising S and S_g together and WᵀW
       solves it; with several, that is the preconditioner of a few conjugate gradient steps.
    3. *Decoder.* Ridge regression of x on the means, with the summed posterior variance of a dimension as its penalty.

    Exact solutions would fit a few thousand responses too well, so a response enters by what of it ridge regression
    finds in x: the pull towards the prior means by m's prediction, and B with a penalty, each chosen by leave-one-out
    errors. Everything works in double precision.

    Args:
        vae: Where to start; its weights are replaced after every round. Only the decoder matters.
        x, mean, sigma: (N, dim) training embeddings; (N, latent_dim) prior means, and sigmas: the same for all
            dimensions of a block, 1 outside.
        blocks: (start, stop) of each unit's dimensions.
        shrink: Whether responses enter by their ridge predictions; without it the training loss itself goes down.

    Raises:
        ValueError: The VAE is not linear, or a weight is 0, so that there is nothing to balance.

    Source: Eq. 3 and 4; the steps are ours. Linear VAEs have such: Lucas et al. 2019, "Don't Blame the ELBO!".
    """

    def __init__(
        self,
        vae: EmbeddingVAE,
        x: Tensor,
        mean: Tensor,
        sigma: Tensor,
        blocks: list[tuple[int, int]],
        w_recon: float,
        w_kld: float,
        *,
        shrink: bool = True,
    ) -> None:
        if not isinstance(vae, EmbeddingVAE):
            raise ValueError(
                f"solver='alternating' was given a {type(vae).__name__}; expected an EmbeddingVAE, whose two linear "
                "layers it solves for. Use solver='adam'."
            )
        if w_recon <= 0 or w_kld <= 0:
            raise ValueError(
                f"w_recon={w_recon}, w_kld={w_kld}: solver='alternating' needs both above 0. Use solver='adam'."
            )
        self.vae, self.w_recon, self.half = vae, w_recon, w_kld / 2
        count = len(x)
        self.centre = x.mean(0)
        self.x = torch.cat([x - self.centre, x.new_ones(count, 1)], 1)
        inside = {row for start, stop in blocks for row in range(start, stop)}
        outside = [row for row in range(vae.latent_dim) if row not in inside]
        self.rows = [torch.arange(start, stop, device=x.device) for start, stop in blocks]
        self.outside = torch.tensor(outside, dtype=torch.int64, device=x.device)
        precision = sigma**-2
        self.weights = [precision[:, start] for start, _ in blocks]
        self.scatter = _scatter(self.x)
        jitter = _JITTER * self.scatter.diagonal()[:-1].mean().clamp_min(1e-12)
        self.scatter.diagonal()[:-1] += jitter
        self.scatters = [_scatter(self.x, weight) for weight in self.weights]
        for scatter in self.scatters:
            scatter.diagonal()[:-1] += jitter
        self.true_pull = ((mean * precision).T @ self.x).double()
        self.pull = self.true_pull.clone()
        # What no weight of the VAE changes.
        self.constant = ((sigma.log() - 0.5).double().sum() + (mean**2 * precision).double().sum() / 2).item()
        self.penalties: list[float] = []
        for rows, weight, scatter in zip(self.rows, self.weights, self.scatters, strict=True):
            self.penalties.append(_ridge(self.x[:, :-1], weight.log(), torch.ones_like(weight))[0] if shrink else 0.0)
            if shrink:
                # Weighted by d; what modes add to the block's axis is shrunk as the axis is.
                penalty, spectrum, basis = _ridge(self.x[:, :-1], mean[:, rows].mean(1), weight)
                total, sums, pull = scatter[-1, -1], scatter[-1, :-1], self.true_pull[rows]
                constant = pull[:, -1:] / total
                slope = ((pull[:, :-1] - constant * sums) @ basis / (spectrum + penalty)) @ basis.T
                self.pull[rows] = torch.cat([slope, constant - (slope @ sums)[:, None] / total], 1) @ scatter
        # The bias is the ones column, which is orthogonal to the centred others: a penalty may leave it alone.
        self.penalised = torch.ones(self.x.shape[1], dtype=x.dtype, device=x.device)
        self.penalised[-1] = 0
        self.factors = [
            torch.linalg.cholesky(self.scatter + (penalty * self.penalised.double()).diag()).to(x.dtype)
            for penalty in self.penalties
        ]
        shares = [len(rows) / vae.latent_dim for rows in self.rows]
        average = self.scatter * (len(self.outside) / vae.latent_dim)
        for share, scatter in zip(shares, self.scatters, strict=True):
            average = average + share * scatter
        self.ratios, self.axes = _diagonalise(self.scatter, average)

    @torch.no_grad()
    def round(self, first: bool) -> dict[str, float]:
        """One round, after which the VAE's weights are new; ``first`` starts the variances afresh.

        Returns:
            The mean loss over the training images and its terms, exact in expectation: no noise is drawn.
        """
        vae, count, size = self.vae, len(self.x), self.vae.latent_dim
        # All is read from the VAE, in its own precision, so that a fit that was interrupted goes on with the same bits.
        weight = vae.fc_decode.weight.double()
        bias = vae.fc_decode.bias.double() - self.centre.double()
        variance, log_sum, drawn = self._fit_variance(weight, first)
        mean = self._fit_mean(weight, bias, first)
        # The decoder, with its bias as one more column.
        codes = torch.cat([mean, torch.zeros_like(mean[:1])])
        codes[-1, -1] = 1
        cross = codes @ self.scatter[:, :-1]
        spread = codes @ self.scatter @ codes.T
        spread[:-1, :-1].diagonal().add_(variance)
        solution = torch.cholesky_solve(cross, torch.linalg.cholesky(spread)).T
        with_noise = (self.scatter[:-1, :-1].trace() - 2 * (solution.T * cross).sum()) + (
            (solution @ spread) * solution
        ).sum()
        kld = self.constant + (drawn - log_sum) / 2 - (mean * self.true_pull).sum().item()
        for rows, scatter in [*zip(self.rows, self.scatters, strict=True), (self.outside, self.scatter)]:
            kld += ((mean[rows] @ scatter) * mean[rows]).sum().item() / 2
        vae.fc_encode.weight[:size] = mean[:, :-1].to(vae.fc_encode.weight)
        vae.fc_encode.bias[:size] = (mean[:, -1] - mean[:, :-1] @ self.centre.double()).to(vae.fc_encode.bias)
        vae.fc_decode.weight.copy_(solution[:, :-1])
        vae.fc_decode.bias.copy_(solution[:, -1] + self.centre.double())
        recon, kld = with_noise.item() / count, kld / count
        return {"loss": self.w_recon * recon + 2 * self.half * kld, "recon": recon, "kld": kld}

    def _fit_variance(self, weight: Tensor, first: bool) -> tuple[Tensor, float, float]:
        """Fit the log variances; the sum of the variances over images (latent_dim,), of their logs, and of v d."""
        layer, size = self.vae.fc_encode, self.vae.latent_dim
        noise = self.w_recon / self.half * (weight**2).sum(0)
        total = torch.zeros_like(noise)
        count, log_sum, drawn = len(self.x), 0.0, 0.0
        if len(self.outside):
            fitted = -(1 + noise[self.outside]).log()
            layer.weight[size + self.outside] = 0
            layer.bias[size + self.outside] = fitted.to(layer.bias)
            total[self.outside] = count * fitted.exp()
            log_sum += count * fitted.sum().item()
            drawn += count * fitted.exp().sum().item()
        for rows, weights, factor, penalty in zip(self.rows, self.weights, self.factors, self.penalties, strict=True):
            decay = penalty * self.penalised
            precision = weights[:, None] + noise[rows].to(weights)
            if first:  # the least squares solution is near
                target = -precision.log()
                fitted = torch.cholesky_solve(self.x.T @ target, factor).T
            else:
                own = layer.weight[size + rows]
                fitted = torch.cat([own, (layer.bias[size + rows] + own @ self.centre)[:, None]], 1)
            log_variance = self.x @ fitted.T
            variance = log_variance.exp()
            for _ in range(3 if first else 1):
                slope = self.x.T @ (1 - variance * precision) - (decay * fitted).T
                step = torch.cholesky_solve(slope, factor).T
                tried = log_variance + self.x @ step.T
                tried_variance = tried.exp()
                change = (tried_variance * precision - tried).sum(0) - (variance * precision - log_variance).sum(0)
                better = change + (decay * ((fitted + step) ** 2 - fitted**2)).sum(1) / 2 < 0
                fitted = torch.where(better[:, None], fitted + step, fitted)
                log_variance = torch.where(better, tried, log_variance)
                variance = torch.where(better, tried_variance, variance)
            layer.weight[size + rows] = fitted[:, :-1]
            layer.bias[size + rows] = fitted[:, -1] - fitted[:, :-1] @ self.centre
            total[rows] = variance.double().sum(0)
            log_sum += log_variance.double().sum().item()
            drawn += (variance.double().sum(1) * weights).sum().item()
        return total, log_sum, drawn

    def _fit_mean(self, weight: Tensor, bias: Tensor, first: bool) -> Tensor:
        """The best encoder mean for this decoder, or a better one: (latent_dim, dim + 1), for centred x and a bias."""
        gram = weight.T @ weight
        right = self.w_recon * weight.T @ (self.scatter[:-1] - bias[:, None] * self.scatter[-1])
        right = right + self.half * self.pull
        spectrum, basis = torch.linalg.eigh(gram)
        divisor = self.w_recon * spectrum.clamp_min(0)[:, None] * self.ratios + self.half

        def precondition(residual: Tensor) -> Tensor:
            return basis @ ((basis.T @ residual @ self.axes) / divisor) @ self.axes.T

        def apply(mean: Tensor) -> Tensor:
            image = self.w_recon * gram @ (mean @ self.scatter)
            for rows, scatter in [*zip(self.rows, self.scatters, strict=True), (self.outside, self.scatter)]:
                image[rows] += self.half * mean[rows] @ scatter
            return image

        if first or len(self.rows) + (len(self.outside) > 0) == 1:
            mean = precondition(right)  # with one block that is it
        else:
            layer, size = self.vae.fc_encode, self.vae.latent_dim
            own = layer.weight[:size].double()
            mean = torch.cat([own, (layer.bias[:size].double() + own @ self.centre.double())[:, None]], 1)
        residual = right - apply(mean)
        goal = _CG_TOLERANCE * right.norm()
        ready = precondition(residual)
        direction, slope = ready, (residual * ready).sum()
        for _ in range(_CG_STEPS):
            if residual.norm() <= goal:
                break
            image = apply(direction)
            length = slope / (direction * image).sum()
            mean, residual = mean + length * direction, residual - length * image
            ready = precondition(residual)
            slope, before = (residual * ready).sum(), slope
            direction = ready + slope / before * direction
        return mean


def _scatter(x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Σ weight x xᵀ, summed in double precision, which a covariance without full rank needs."""
    total = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for rows in torch.arange(len(x), device=x.device).split(2048):
        part = x[rows].double()
        total += part.T @ (part if weight is None else part * weight[rows, None])
    return total


def _diagonalise(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Axes P and ratios r with Pᵀ second P = 1 and Pᵀ first P = diag(r)."""
    factor = torch.linalg.cholesky(second)
    half = torch.linalg.solve_triangular(factor, first, upper=False)
    whitened = torch.linalg.solve_triangular(factor, half.T, upper=False)
    ratios, vectors = torch.linalg.eigh((whitened + whitened.T) / 2)
    return ratios, torch.linalg.solve_triangular(factor.T, vectors, upper=True)


def _ridge(x: Tensor, target: Tensor, weight: Tensor) -> tuple[float, Tensor, Tensor]:
    """The penalty under which ridge regression, with a free bias, best predicts images that it is not given.

    Leave-one-out errors are exact and count by their weight; generalised cross-validation would take all images for
    equally noisy, which weighted ones are not.

    Returns:
        The penalty, and eigenvalues and eigenvectors of the weighted scatter, for x (N, dim), target (N,), weight (N,).
    """
    total = weight.sum()
    x = x - weight @ x / total
    target = target - weight @ target / total
    spectrum, basis = torch.linalg.eigh(((x * weight[:, None]).T @ x).double())
    spectrum = spectrum.clamp_min(1e-9 * spectrum.mean())
    penalties = _PENALTIES.to(spectrum) * spectrum.mean()
    inverse = 1 / (spectrum[:, None] + penalties)
    scores = x @ basis.to(x)
    fitted = scores @ (((weight * target) @ scores)[:, None] * inverse.to(x))
    leverage = weight[:, None] * (scores**2 @ inverse.to(x) + 1 / total)
    errors = (weight[:, None] * ((target[:, None] - fitted) / (1 - leverage).clamp_min(1e-3)) ** 2).sum(0)
    return penalties[errors.argmin()].item(), spectrum, basis


def settled(history: list[dict[str, float]], tolerance: float) -> bool:
    """Whether the last round changed the training loss by less than this share of it."""
    if len(history) < 2:
        return False
    before, now = history[-2]["loss"], history[-1]["loss"]
    return math.isfinite(now) and abs(before - now) < tolerance * abs(now)
