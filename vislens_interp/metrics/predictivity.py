"""Predictivity: do a unit's pictures tell which of two natural images drives it more?"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

DIFFICULTIES = {"hard": (0.0, 1 / 3), "middle": (1 / 3, 2 / 3), "easy": (2 / 3, 1.0)}
"""Distance of a pair's two images in the ranking of their responses, from neighbours (0) to opposite ends (1)."""


@dataclass(frozen=True)
class Predictivity:
    """Share of pairs in which the image that looks more like the preferred pictures is the one that drives the unit.

    Args:
        accuracy: Over all pairs, 0 to 1; 0.5 is chance.
        by_difficulty: The same for hard, middle and easy pairs; None where there are none.
        extremes: The same for pairs of one image of the strongest tenth and one of the weakest, as people are asked.
        pairs: Number of pairs with an answer.
        ties: Pairs whose two images drive the unit alike, which have no answer and are left out.
    """

    accuracy: float
    by_difficulty: dict[str, float | None]
    extremes: float | None
    pairs: int
    ties: int

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__}


def predictivity(preferred: Tensor, suppressed: Tensor | None, natural: Tensor, responses: Tensor) -> Predictivity:
    """Two-alternative forced choice between held-out natural images, from generated pictures alone.

    Of two images that is chosen whose mean cosine to the preferred pictures, minus that to the suppressed ones, is
    larger. Features are centred on the natural images' mean first, which needs no response, so that what all images
    share decides nothing. Every pair is asked once, so that nothing is drawn at random. Where the choice itself is a
    tie it counts one half.

    Args:
        preferred: (P, D) features of pictures made to drive the unit, in an embedding in which nothing was made.
        suppressed: (Q, D) of pictures made to silence it; None judges by the preferred ones alone.
        natural: (M, D) of held-out natural images, M at least 2.
        responses: (M,) of the unit to these.

    Returns:
        Accuracy in all pairs, by difficulty (the distance of the two in the ranking of responses) and between the
        extreme tenths.

    Raises:
        ValueError: Shapes do not fit, a value is not finite, or all images drive the unit alike.

    Source: the task is that of Borowski et al. 2021 and Zimmermann et al. 2021, in which people chose; here an
    embedding does, as a stand-in that has no eyes. Their bar is that of natural top images,
    to be passed here in the same way.

    >>> natural = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    >>> predictivity(natural[:1], natural[2:3], natural, torch.tensor([3.0, 2.0, 1.0, 2.0])).accuracy
    1.0
    """
    groups = {"preferred": preferred, "natural": natural}
    groups |= {} if suppressed is None else {"suppressed": suppressed}
    for name, features in groups.items():
        if features.ndim != 2 or len(features) == 0 or features.shape[1] != natural.shape[-1]:
            raise ValueError(
                f"{name} has shape {tuple(features.shape)}; expected (N, {natural.shape[-1]}), features of at least "
                "one picture. Pool all of them in the same way."
            )
        if not torch.isfinite(features).all():
            raise ValueError(f"{name} holds values that are NaN or infinite; expected finite ones. Leave those out.")
    if responses.shape != (len(natural),) or not torch.isfinite(responses).all():
        raise ValueError(
            f"responses has shape {tuple(responses.shape)}; expected ({len(natural)},) finite values, one for each "
            "natural image. Pass one unit's."
        )
    centre = natural.double().mean(0)

    def directions(features: Tensor) -> Tensor:
        moved = features.double() - centre
        return moved / moved.norm(dim=1, keepdim=True).clamp_min(1e-12)

    known = directions(natural)
    score = known @ directions(preferred).mean(0)
    if suppressed is not None:
        score = score - known @ directions(suppressed).mean(0)
    score = torch.where(score.abs() < 1e-12, torch.zeros_like(score), score)  # what rounding leaves is a tie
    truth = responses.double()
    first, second = torch.triu_indices(len(truth), len(truth), 1)
    answer = torch.sign(truth[first] - truth[second])
    asked = answer != 0
    if not asked.any():
        raise ValueError(
            f"responses are all {truth[0].item():.4g}: no two of the {len(truth)} natural images can be told apart. "
            "Give images that drive the unit differently."
        )
    right = (torch.sign(score[first] - score[second]) * answer + 1) / 2
    rank = truth.argsort(stable=True).argsort(stable=True).double()
    apart = (rank[first] - rank[second]).abs() / (len(truth) - 1)
    tenth = max(1, len(truth) // 10)
    low, high = rank < tenth, rank >= len(truth) - tenth
    extreme = (low[first] & high[second]) | (high[first] & low[second])

    def share(chosen: Tensor) -> float | None:
        chosen = chosen & asked
        return right[chosen].mean().item() if chosen.any() else None

    return Predictivity(
        accuracy=right[asked].mean().item(),
        by_difficulty={name: share((apart > start) & (apart <= end)) for name, (start, end) in DIFFICULTIES.items()},
        extremes=share(extreme),
        pairs=int(asked.sum()),
        ties=int((~asked).sum()),
    )
