"""How well responses are predicted: correlation and explained variance a target, and whether that is above chance."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from vislens_interp.math import pearson
from vislens_interp.validation import shapes

CHANCE_P = 0.05
"""One-sided, for each target by itself: of targets that cannot be predicted, so many pass."""


@dataclass(frozen=True)
class Predictivity:
    """What held-out images say of one target's predictions.

    Args:
        r: Pearson correlation of predicted and recorded responses over images.
        r2: Share of the recorded responses' variance that is explained; negative where the mean predicts better, 0
            where they never vary.
        p_value: One-sided, of a correlation as large if the two had nothing to do with each other (t-test with n - 2
            degrees of freedom).
        images: n, held-out images with a recorded response.
        ceiling: The correlation that a perfect prediction would have, for the responses' own noise; None if not known.
    """

    target: str
    r: float
    r2: float
    p_value: float
    images: int
    ceiling: float | None = None

    @property
    def doubt(self) -> str | None:
        """Why pictures made for this target cannot be trusted; None where nothing speaks against them."""
        if self.p_value < CHANCE_P:
            return None
        return (
            f"its encoder does not predict it above chance (held-out R = {self.r:.2f}, p = {self.p_value:.2f} by "
            f"t-test, {self.images} images)"
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def predictivity(
    predicted: Tensor, recorded: Tensor, names: list[str], ceilings: list[float | None] | None = None
) -> list[Predictivity]:
    """Compare predictions (N, K) with recordings (N, K), NaN where nothing was recorded, target by target.

    Args:
        ceilings: K noise ceilings, as correlations; ``names`` are the targets'.

    Raises:
        ValueError: The shapes differ, or a target has fewer than three responses.

    >>> import torch
    >>> recorded = torch.tensor([[1.0], [2.0], [4.0], [5.0]])
    >>> found = predictivity(2 * recorded + 1, recorded, ["a"])[0]
    >>> round(found.r, 3), found.images, found.doubt
    (1.0, 4, None)
    """
    if predicted.shape != recorded.shape or predicted.shape[1] != len(names):
        raise ValueError(
            f"{shapes(predicted=predicted, recorded=recorded)} for {len(names)} names; expected one a column."
        )
    found = []
    for column, name in enumerate(names):
        there = recorded[:, column].isfinite()
        truth, guess = recorded[there, column].double(), predicted[there, column].double()
        if len(truth) < 3:
            raise ValueError(
                f"recorded holds {len(truth)} responses of target {name!r}; expected at least 3. Hold more images out."
            )
        r = pearson(guess, truth).item()
        varies = len(truth.unique()) > 1
        r2 = 1 - ((truth - guess) ** 2).mean().item() / truth.var(correction=0).item() if varies else 0.0
        ceiling = None if ceilings is None else ceilings[column]
        found.append(Predictivity(name, r, r2, _chance(r, len(truth)), len(truth), ceiling))
    return found


def _chance(r: float, count: int) -> float:
    """One-sided p of a Pearson correlation r of ``count`` pairs."""
    from scipy.stats import t

    if abs(r) >= 1:
        return 0.0 if r > 0 else 1.0
    return float(t.sf(r * ((count - 2) / (1 - r * r)) ** 0.5, count - 2))
