"""Read-outs of all units of a layer at once: one factorisation of the embeddings serves every unit and control."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import false_discovery_control
from torch import Tensor

from vislens_interp.copies import means, permuted_rows
from vislens_interp.landscape.evidence import DRAWS, FEW_STRONG, WEAK_CORRELATION, WEAK_P
from vislens_interp.landscape.modes import STRONG
from vislens_interp.math import pearson, ridge_gcv
from vislens_interp.progress import tqdm

UNITS_AT_ONCE = 256
"""Columns of a product; 10,000 units never need more memory than these."""
FALSE_DISCOVERIES = 0.05
"""Largest q-value that passes: of the units that pass, so many may be noise."""


@dataclass(frozen=True)
class Readouts:
    """Linear read-outs of K units from latents of D dimensions, and what supports each.

    Args:
        filters: (D, K), float32: ``(latent - centre) @ filters`` is the position on each unit's axis, the prior's
            ±1 at ``axis_scale_sd`` SDs of the predicted response.
        centre: (D,), float32.
        correlation: (K,) Pearson correlation of that position with the response over held-out images.
        p_value, q_value: (K,) by permutation, and after Benjamini and Hochberg over these K units.
        strong_images: (K,) distinct images at least one SD from the mean.
        held_out: Distinct held-out images.
        draws: Of the permutation null of each unit.
    """

    filters: Tensor
    centre: Tensor
    correlation: Tensor
    p_value: Tensor
    q_value: Tensor
    strong_images: Tensor
    held_out: int
    draws: int

    def reasons(self, unit: int) -> list[str]:
        """Why pictures of a unit should be doubted, by the thresholds of a lens and the false-discovery rate."""
        found = []
        correlation, p, q = (float(part[unit]) for part in (self.correlation, self.p_value, self.q_value))
        if correlation < WEAK_CORRELATION:
            found.append(f"held-out correlation {correlation:.2f} is below {WEAK_CORRELATION}")
        if p > WEAK_P:
            found.append(f"p = {p:.2f} against shuffled responses")
        elif q > FALSE_DISCOVERIES:
            found.append(f"q = {q:.2f} among {len(self.q_value)} units")
        if (strong := int(self.strong_images[unit])) < FEW_STRONG:
            found.append(f"only {strong} images drive it strongly")
        return found


@torch.no_grad()
def fit_readouts(
    latents: Tensor,
    standard: Tensor,
    groups: Tensor,
    training: Tensor,
    held_out: Tensor,
    *,
    axis_scale_sd: float = 4.0,
    shuffles: int = 2,
    draws: int = DRAWS,
    seed: int = 0,
    progress: bool = False,
) -> Readouts:
    """Fit all units: what a lens fits for one unit before its VAE is trained, for every column of the responses.

    The singular vectors of the latents are computed once (:func:`~vislens_interp.math.ridge_gcv` keeps them). Each
    unit's penalty, its axis, and those of its shuffled controls are products with them. Controls and permutations
    are those that a lens with this seed draws, so that one unit here and a lens on it have the same null.

    Args:
        latents: (N, D) of the reference set.
        standard: (N, K) responses in SDs; no column is constant.
        groups: (N,) which images are copies of one another, or crops of one photograph.
        training, held_out: Rows of the latents; no group is in both.
        axis_scale_sd: SDs of the predicted response at which an axis is ±1.
        shuffles: Controls of each unit, at least one.
        draws: Permutations in each unit's null, shared among its controls; p is at least 1 / (1 + draws).
        seed: Of controls and permutations.
        progress: Show a progress bar.

    Raises:
        ValueError: There is no control, or no permutation.

    >>> latents = torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
    >>> rows = torch.arange(300)
    >>> found = fit_readouts(latents, latents[:, :2], rows, rows[:250], rows[250:], draws=200)
    >>> (found.correlation > 0.99).tolist(), found.filters.shape
    ([True, True], torch.Size([5, 2]))
    """
    check_null(shuffles, draws)
    controls = torch.Generator().manual_seed(seed + 1)
    shuffled = [permuted_rows(groups, controls) for _ in range(shuffles)]
    codes = latents.double().cpu()
    centre = codes[training].mean(0)
    learned = codes[training] - centre
    asked = groups[held_out]
    held = codes[held_out] - centre
    distinct = len(asked.unique())
    permutations = torch.Generator().manual_seed(seed)
    each = max(1, draws // shuffles)
    orders = [[torch.randperm(distinct, generator=permutations) for _ in range(each)] for _ in shuffled]

    def axes(responses: Tensor) -> Tensor:
        filters = ridge_gcv(learned, (responses - responses.mean(0)).double())
        return filters / (axis_scale_sd * (learned @ filters).std(0)).clamp_min(1e-300)

    filters, correlations, p_values, strong = [], [], [], []
    parts = standard.float().split(UNITS_AT_ONCE, dim=1)
    for part in tqdm(parts, desc="read-outs", unit="part", disable=not progress or len(parts) == 1):
        weights = axes(part[training])
        truth = means(part[held_out], asked)
        correlation = pearson(means((held @ weights).float(), asked), truth)
        reached = torch.zeros(part.shape[1], dtype=torch.int64)
        scaled = _unit_columns(truth)
        for rows, drawn in zip(shuffled, orders, strict=True):
            control = _unit_columns(means((held @ axes(part[rows][training])).float(), asked))
            for order in drawn:
                reached += (control * scaled[order]).sum(0) >= correlation
        filters.append(weights.float())
        correlations.append(correlation.double())
        p_values.append((1 + reached.double()) / (1 + each * shuffles))
        strong.append((means(part, groups).abs() >= STRONG).sum(0))
    p_value = torch.cat(p_values)
    return Readouts(
        filters=torch.cat(filters, 1),
        centre=centre.float(),
        correlation=torch.cat(correlations),
        p_value=p_value,
        q_value=torch.from_numpy(np.asarray(false_discovery_control(p_value.numpy(), method="bh"))),
        strong_images=torch.cat(strong),
        held_out=distinct,
        draws=each * shuffles,
    )


def check_null(shuffles: int, draws: int) -> None:
    """Raise ValueError where there is no control, or no permutation of it."""
    if shuffles < 1 or draws < shuffles:
        raise ValueError(f"shuffles={shuffles}, draws={draws}; expected 1 <= shuffles <= draws for a p-value.")


def _unit_columns(values: Tensor) -> Tensor:
    """Columns (N, K) without their means, of length 1; a constant one is all zeros, as its correlation is."""
    values = values - values.mean(0)
    return values / values.norm(dim=0).clamp_min(1e-30)
