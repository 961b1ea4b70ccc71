"""How well a perfect model could do: the share of averaged responses that is not noise, from repetitions."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vislens_interp.brain.predictivity import CHANCE_P
from vislens_interp.math import pearson
from vislens_interp.validation import check_word

Form = Literal["split_half", "ncsnr"]
COLUMNS = 4096
"""Targets that are looked at together."""


@dataclass(frozen=True)
class NoiseCeiling:
    """The ceiling of each target, for responses averaged over their repetitions.

    Args:
        targets, images: K names; (K,) images with at least two repetitions, behind the estimate.
        r2: (K,) share of the averaged responses' variance that is signal, 0 to 1: the largest R² of a model with them.
        ncsnr: (K,) SD of the signal over SD of one repetition's noise (NSD's noise ceiling signal-to-noise ratio).
        form: ``"split_half"`` or ``"ncsnr"``, how it was estimated.
        p: (K,) probability of images that differ as much if a target told no image from another: the F test of a
            one-way analysis of variance, images as groups. Exact for normal noise of one variance. ``r`` is never below
            0, so that of pure noise it is often 0.3 or more: look at this first.
    """

    targets: tuple[str, ...]
    r2: Tensor
    ncsnr: Tensor
    form: Form
    images: Tensor
    p: Tensor

    @property
    def above_chance(self) -> Tensor:
        """(K,) whether p < 0.05, for each target by itself: of targets without a signal, one in twenty passes."""
        return self.p < CHANCE_P

    @property
    def r(self) -> Tensor:
        """(K,) the largest correlation of a model with the averaged responses, 0 to 1: √r2."""
        return self.r2.sqrt()

    def __str__(self) -> str:
        found = zip(self.targets, self.r.tolist(), self.p.tolist(), self.above_chance.tolist(), strict=True)
        doubts = (
            (name, value, "" if above else f" (not above chance, p = {p:.2f})") for name, value, p, above in found
        )
        return ", ".join(f"{name} {value:.2f}{doubt}" for name, value, doubt in doubts) + f" (largest R, {self.form})"


def noise_ceiling(
    responses: Tensor, targets: list[str], form: Form = "split_half", *, draws: int = 100, seed: int = 0
) -> NoiseCeiling:
    """Estimate each target's ceiling, for responses averaged over all their repetitions.

    ``"split_half"``: each image's repetitions are parted at random into two halves (one is left out where their number
    is odd), the halves' means are correlated over images, and the correlation, averaged over ``draws`` partings, is
    carried from half to all repetitions by Spearman and Brown's formula. ``"ncsnr"``: the noise variance is the mean
    over images of the variance among repetitions, the signal variance what is left of the variance of all single
    responses (none, if that is negative), and the ceiling signal / (signal + noise · mean(1 / repetitions)). Images
    with one repetition count in that mean.

    Args:
        responses: (N, R, K), NaN where absent; ``targets`` are K names.
        form: Which of the two; ``draws`` and ``seed`` belong to the first.

    Raises:
        ValueError: ``form`` is unknown, ``draws`` below 1, or a target has fewer than three images with two
            repetitions.

    Whether a target is above chance (``p``) is asked of the same repetitions, and is the same in both forms.

    Source: Spearman 1910 and Brown 1910; Allen et al. 2022 (NSD), Methods, "Noise ceiling estimation". Deviation: NSD
    takes a total variance of 1, because its betas are z-scored; here it is measured, so that other units do too.

    >>> signal = torch.tensor([-1.0, 0.0, 1.0, 2.0])
    >>> str(noise_ceiling(signal[:, None, None].expand(-1, 2, -1), ["V4"]))
    'V4 1.00 (largest R, split_half)'
    """
    check_word("form", form, ("split_half", "ncsnr"))
    if draws < 1:
        raise ValueError(f"draws={draws}; expected at least 1. 100 make the parting's chance small.")
    present = ~responses.isnan()
    counts = present.sum(1)
    repeated = (counts >= 2).sum(0)
    for name, images in zip(targets, repeated.tolist(), strict=True):
        if images < 3:
            raise ValueError(
                f"responses: target {name!r} has {images} images with two repetitions or more; expected at least 3 for "
                "a noise ceiling. Load the trials one by one (not averaged), or take a published ceiling."
            )
    if len(targets) > COLUMNS:  # in double precision all of them would fill the memory
        parts = [
            noise_ceiling(
                responses[..., start : start + COLUMNS], targets[start : start + COLUMNS], form, draws=draws, seed=seed
            )
            for start in range(0, len(targets), COLUMNS)
        ]
        fields = ("r2", "ncsnr", "images", "p")
        r2, ratio, images, p = (torch.cat([getattr(part, name) for part in parts]) for name in fields)
        return NoiseCeiling(tuple(targets), r2, ratio, form, images, p)
    values = responses.double()
    share = torch.where(counts > 0, 1 / counts.double(), torch.nan).nanmean(0)  # noise left in an average
    if form == "ncsnr":
        noise, signal = _variances(values, counts)
        ratio = (signal / noise).sqrt()
        r2 = signal / (signal + noise * share)
    else:
        r, halves = _split_half(values, draws, seed)
        # Spearman-Brown at a length of 1 / share repetitions, from halves of 1 / halves; at equal counts 2r / (1 + r).
        length = halves / share
        r = r.clamp(0, 1)
        r2 = length * r / (1 + (length - 1) * r)
        ratio = (r2 * share / (1 - r2)).sqrt()
    return NoiseCeiling(
        tuple(targets), r2.nan_to_num(0.0).float(), ratio.float(), form, repeated, _chance(values, counts)
    )


def _chance(values: Tensor, counts: Tensor) -> Tensor:
    """p (K,) of the F test that all images have one expected response; 1 for a target that never varies."""
    from scipy.stats import f

    images, trials = (counts > 0).sum(0), counts.sum(0)
    means, grand = values.nanmean(1), values.nanmean((0, 1))
    between = (counts * (means - grand) ** 2).nansum(0)
    within = ((values - means[:, None]) ** 2).nansum((0, 1))
    ratio = (between / (images - 1)) / (within / (trials - images))
    p = torch.from_numpy(f.sf(ratio.numpy(), (images - 1).numpy(), (trials - images).numpy()))
    varies = (between + within) / trials > 1e-24 * grand**2  # less is a rounding error
    return torch.where(varies, p, 1.0).float()


def _variances(values: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Variance of one repetition's noise, and of the signal; (K,) each."""
    centred = values - values.nanmean(1, keepdim=True)
    within = (centred**2).nansum(1) / (counts - 1).clamp_min(1)
    noise = torch.where(counts >= 2, within, torch.nan).nanmean(0)
    total = ((values - values.nanmean((0, 1))) ** 2).nanmean((0, 1))
    return noise, (total - noise).clamp_min(0)


def _split_half(values: Tensor, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """Mean correlation of random halves, and the noise left in a half's average; (K,) each."""
    generator = torch.Generator().manual_seed(seed)
    present = ~values.isnan()
    if (present == present[..., :1]).all():
        present = present[..., :1]  # one parting for all targets, which takes as much less time as there are targets
    half = present.sum(1, keepdim=True) // 2
    filled = values.nan_to_num(0.0)
    used = half[:, 0] > 0
    correlations = []
    for _ in range(draws):
        # A random order of each image's repetitions, absent ones last; the first halves against the second.
        order = torch.rand(present.shape, generator=generator).masked_fill(~present, 2).argsort(1).argsort(1)
        first = (filled * (order < half)).sum(1) / half[:, 0].clamp_min(1)
        second = (filled * ((order >= half) & (order < 2 * half))).sum(1) / half[:, 0].clamp_min(1)
        correlations.append(pearson(first, second, used.double()))
    left = torch.where(used, 1 / half[:, 0].double(), torch.nan).nanmean(0)
    return torch.stack(correlations).mean(0), left
