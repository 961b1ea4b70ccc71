"""Whether pictures explain a unit: from them alone, which of two natural images drives it more?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vislens_interp.metrics.similarity import unit_features
from vislens_interp.validation import check_finite, shapes


@dataclass(frozen=True)
class Predictivity:
    """How often the pictures tell right.

    Args:
        accuracy, pairs: Share of pairs told right, 0 to 1 (chance is 0.5, a tie of similarities counts half); pairs
            asked.
        gap: Mean difference of a pair's responses, in SDs of the natural images': how easy the pairs were.
    """

    accuracy: float
    pairs: int
    gap: float


def predictivity(
    preferred: Tensor | None,
    suppressed: Tensor | None,
    natural: Tensor,
    responses: Tensor,
    *,
    extreme: float | None = None,
) -> Predictivity:
    """Two-alternative forced choice between natural images, by similarity to what was made for the unit.

    An image's score is its mean cosine to the preferred pictures minus that to the suppressed ones, and of two images
    the one with the larger score is said to drive the unit more. Every pair is asked, none is drawn. Pairs whose
    responses are equal have no answer and are left out: of a unit that is mostly silent, most.

    Args:
        preferred, suppressed: (P, F) and (S, F) features of preferred and suppressed pictures; None leaves one of them
            out.
        natural: (N, F) features of natural images that had no part in fit and pictures. Top-k natural images in the
            place of ``preferred`` are the bar, and must not be among these.
        responses: (N,) the unit's responses to them.
        extreme: Difficulty. None asks all pairs; 0.1 pairs of one of the tenth that drives the unit most and one of the
            tenth that does least; from 0 (easy) to 0.5 (upper against lower half).

    Returns:
        Accuracy, number of pairs and how far apart they were; exactly 0.5 where the pictures say nothing.

    Raises:
        ValueError: Shapes do not fit, both sets are None, ``extreme`` is out of range, or no pair has an answer.

    Source: the task and its difficulty, Borowski et al. 2021, "Exemplary natural images explain CNN activations better
    than state-of-the-art feature visualization", and Zimmermann et al. 2021, where people chose. Similarity in an
    embedding takes the person's place, as in Zimmermann et al. 2024 ("Measuring mechanistic interpretability at scale
    without humans"), whose final score takes DreamSim, the mean over the nine most and least activating images, and
    20 tasks a unit. The embedding must be neither the landscape's nor the target's own, in which the answer lies.

    >>> natural = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> predictivity(natural[:1], natural[2:], natural, torch.tensor([3.0, 2.0, 1.0])).accuracy
    1.0
    """
    if preferred is None and suppressed is None:
        raise ValueError("preferred and suppressed are both None; expected pictures to go by. Pass at least one.")
    if natural.ndim != 2 or responses.shape != (len(natural),):
        raise ValueError(f"{shapes(natural=natural, responses=responses)}; expected (N, F) and (N,), of one unit.")
    if extreme is not None and not 0 < extreme <= 0.5:
        raise ValueError(f"extreme={extreme} must lie in (0, 0.5], or be None for all pairs.")
    check_finite(responses=responses)
    directions = _rows(natural, "natural", natural.shape[1])
    score = torch.zeros(len(natural), dtype=torch.float64)
    for name, pictures, sign in (("preferred", preferred, 1.0), ("suppressed", suppressed, -1.0)):
        if pictures is not None:
            score += sign * (directions @ _rows(pictures, name, natural.shape[1]).mean(0))
    answers = responses.detach().double().cpu()
    high = low = torch.arange(len(answers))
    if extreme is not None:
        count = max(1, int(extreme * len(answers)))
        order = answers.argsort(descending=True, stable=True)
        high, low = order[:count], order[-count:]
    right = asked = gap = 0.0
    for rows in high.split(256):  # pairs of 256 images with all others at a time: their number grows as a square
        apart = answers[rows, None] - answers[low][None]
        told = (score[rows, None] - score[low][None]).round(decimals=12)
        counts = apart > 0
        right += (counts * ((told > 0).double() + 0.5 * (told == 0))).sum().item()
        asked += counts.sum().item()
        gap += apart[counts].sum().item()
    if asked == 0:
        raise ValueError(
            f"responses has no pair of images that differ, among {len(answers)}. Give more natural images."
        )
    return Predictivity(right / asked, int(asked), gap / asked / answers.std().item())


def _rows(features: Tensor, name: str, dim: int) -> Tensor:
    """Features (N, F) with rows of length 1, in float64."""
    if features.ndim != 2 or features.shape[1] != dim or len(features) == 0:
        raise ValueError(
            f"{shapes(**{name: features})}; expected (N, {dim}), N at least 1, of the network that gave natural's."
        )
    return unit_features(features.detach().double().cpu(), name)
