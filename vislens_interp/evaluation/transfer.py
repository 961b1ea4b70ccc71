"""Whether what was made for one network also drives another: the unit as a second network predicts it."""

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

from vislens_interp.images import ImageFiles
from vislens_interp.landscape.prior import ResponseScaler
from vislens_interp.math import pearson, ridge_loo

PENALTIES = tuple(10.0**power for power in range(-4, 5))


class Transfer:
    """A second network's prediction of the units' responses: ridge on its features, fitted on natural images.

    A unit of one network has no counterpart in another; a linear read-out that predicts it on natural images is one.
    What moves only the first network (an adversarial pattern) leaves the prediction where it was.

    Args:
        features: Images (N, 3, H, W) in [0, 1] to (N, ...) features of a network that had no part in making them.
        penalties: Ridge penalties, in units of the features' mean squared singular value; the one of the least
            leave-one-out error is taken for each unit.

    Attributes (after ``fit``):
        correlation_: (K,) of leave-one-out predictions with the responses: a transfer is worth no more than this.
        penalty_: (K,) chosen.

    Source: transfer of preferred images to a second network, as in Ponce et al. 2019 and Walker et al. 2019 from a
    model to neurons; leave-one-out errors are :func:`~vislens_interp.math.ridge_loo`'s. The read-out is ours.
    """

    def __init__(self, features: Callable[[Tensor], Tensor], *, penalties: Sequence[float] = PENALTIES) -> None:
        if not penalties or min(penalties) <= 0:
            raise ValueError(f"penalties={tuple(penalties)} must be greater than 0, at least one of them.")
        self.features, self.penalties = features, tuple(penalties)

    def fit(self, images: Tensor | ImageFiles, responses: Tensor) -> Self:
        """Fit the read-outs.

        Args:
            images: (N, 3, H, W) natural images, in memory or in files, at least 20; none of those that judge.
            responses: (N, K) responses of the first network's units.

        Raises:
            ValueError: The shapes do not fit, there are too few images, or a unit never varies.
        """
        if responses.ndim != 2 or len(responses) != len(images) or len(images) < 20:
            raise ValueError(
                f"responses has shape {tuple(responses.shape)} for {len(images)} images; expected (N, K), a row an "
                "image, of at least 20. Give more natural images."
            )
        self.scaler_ = ResponseScaler.fit(responses, [str(unit) for unit in range(responses.shape[1])])
        wanted = self.scaler_.standardise(responses).double().cpu()
        x = self._read(images)
        self.mean_, self.offset_ = x.mean(0), wanted.mean(0)
        scale = ((x - self.mean_).square().sum() / min(x.shape)).clamp_min(1e-12)  # the mean squared singular value
        penalties = torch.tensor(self.penalties, dtype=torch.float64) * scale
        self.weight_, chosen, errors = ridge_loo(x, wanted, penalties)
        self.penalty_ = (chosen / scale).float()
        self.correlation_ = pearson(wanted - errors, wanted).float()
        return self

    def standardised(self, images: Tensor) -> Tensor:
        """What the second network predicts for images (N, 3, H, W), in SDs of the first one's units: (N, K)."""
        return ((self._read(images) - self.mean_) @ self.weight_ + self.offset_).float()

    @torch.no_grad()
    def _read(self, images: Tensor | ImageFiles) -> Tensor:
        parts = [self.features(part).detach().flatten(1).double().cpu() for part in images.split(64)]
        return torch.cat(parts)
