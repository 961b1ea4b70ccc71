"""How much a fitted landscape knows about its unit: held-out correlation, a shuffled control, what is kept."""

from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

import torch
from torch import Tensor

from vislens_interp.copies import means, row_groups
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.modes import STRONG
from vislens_interp.math import pearson
from vislens_interp.tables import display_text

DRAWS = 1000
WEAK_CORRELATION = 0.1
WEAK_P = 0.05
"""Of 360 fits on noise 22 were called good, 12 of 260 with planted copies; 0.02 would also lose 5 of 23 real units."""
FEW_STRONG = 20


@dataclass(frozen=True)
class Evidence:
    """What supports the pictures of one unit.

    Args:
        correlation: Pearson correlation, over held-out reference images, of position on the landscape's axis with the
            response.
        p_value: Share of a permutation null that reaches it: axes of ``shuffles`` fits on permuted responses, each
            correlated with many permutations of the held-out responses.
        reconstruction: Share of the held-out variance of x that decoding the latent keeps.
        strong_images: Distinct reference images whose response is at least one SD from the mean.
        images, held_out: Distinct images of the reference set: groups; those among them that were held out.
        copies: Further images of the set: copies of these, or crops of the same photographs, which count once.
    """

    unit: str
    correlation: float
    p_value: float
    shuffles: int
    reconstruction: float
    strong_images: int
    images: int
    held_out: int
    reasons: list[str] = field(default_factory=list)
    copies: int = 0

    @property
    def weak(self) -> bool:
        """Whether pictures of this unit should be doubted; ``reasons`` says why."""
        return bool(self.reasons)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "weak": self.weak}

    def _repr_html_(self) -> str:
        return f"<p>{escape(display_text(str(self)))}</p>"

    def __str__(self) -> str:
        verdict = f"WEAK EVIDENCE: {'; '.join(self.reasons)}" if self.weak else "good evidence"
        copies = f", {self.copies} copies or crops of these left out of every count" if self.copies else ""
        p = f"p = {self.p_value:.3f} by permutation" if self.shuffles else "p not tested"
        fits = f"{self.shuffles} shuffled fit{'s' * (self.shuffles != 1)}"
        return (
            f"unit {self.unit}: {verdict} (held-out r = {self.correlation:.2f}, {p}, {fits}, "
            f"{self.strong_images} of {self.images} images strong, "
            f"reconstruction keeps {self.reconstruction:.0%} of the variance{copies})"
        )


@torch.no_grad()
def evidence(
    landscape: Landscape, x: Tensor, shuffled: list[Landscape], *, groups: Tensor | None = None, seed: int = 0
) -> list[Evidence]:
    """Weigh each unit of a landscape: one Evidence a unit.

    Args:
        landscape, shuffled: The fit, and the same fit on permuted responses.
        x: The reference set that it was fitted on, (N, ...).
        groups: (N,) which images are copies of one another; None looks for rows of x that are all but identical.
    """
    rows = landscape.held_out
    groups = row_groups(x) if groups is None else groups
    asked = groups[rows]
    held = x[rows]
    decoded = landscape.decode(landscape.encode(held)[0])
    kept = 1 - ((decoded - held) ** 2).sum() / ((held - held.mean(0)) ** 2).sum()
    standard = landscape.scaler.standardise(landscape.responses)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for unit, name in enumerate(landscape.names):
        # A picture and its copies are one observation: of its axis, its response and the permutation.
        truth = means(standard[rows, unit], asked)
        correlation = pearson(means(landscape.axis(unit, landscape.latents[rows]), asked), truth).item()
        axes = [means(control.axis(unit, control.latents[rows]), asked) for control in shuffled]
        draws = range(max(1, DRAWS // max(1, len(shuffled))))
        null: list[float] = []
        for axis in axes:
            orders = torch.stack([torch.randperm(len(truth), generator=generator) for _ in draws], 1)
            null += pearson(axis[:, None].expand(-1, len(draws)), truth[orders]).tolist()
        p_value = (1 + sum(value >= correlation for value in null)) / (1 + len(null))
        strong = int((means(standard[:, unit], groups).abs() >= STRONG).sum())
        reasons = []
        if correlation < WEAK_CORRELATION:
            reasons.append(f"held-out correlation {correlation:.2f} is below {WEAK_CORRELATION}")
        if shuffled and p_value > WEAK_P:
            reasons.append(f"p = {p_value:.2f} against shuffled responses")
        if not shuffled:
            reasons.append("no shuffled control was fitted")
        if strong < FEW_STRONG:
            reasons.append(f"only {strong} images drive it strongly")
        found.append(
            Evidence(
                unit=name,
                correlation=correlation,
                p_value=p_value,
                shuffles=len(shuffled),
                reconstruction=kept.item(),
                strong_images=strong,
                images=len(groups.unique()),
                held_out=len(truth),
                reasons=reasons,
                copies=len(groups) - len(groups.unique()),
            )
        )
    return found
