"""The mean of images that drive a unit minus the mean of those that silence it, as a direction of embeddings."""

from torch import Tensor

from vislens_interp.baselines.embedding_edit import DirectionEdit, unit_rows


class DifferenceOfMeans(DirectionEdit):
    """Turn an embedding along mean(x | r > t) - mean(x | r < -t), r in SDs: a unit's *pattern* by counting alone.

    Args:
        threshold: t, in SDs of the response; 0 divides the images in two. Where fewer than two images lie beyond it on
            a side, the two extreme ones are taken.
        alpha: Place on the arc, 0 the image, 1 the direction.
        angle: Degrees to turn by instead of ``alpha``.
        strength: SDEdit strength γ; None is the backend's.

    Source: the concept vectors of Larsen et al. 2016, "Autoencoding beyond pixels", Sec. 4.3 (mean with minus mean
    without an attribute, added at weight 1). Deviations: a response takes the attribute's place; slerp instead of a
    sum, so that the edit angle is what is set.
    """

    def __init__(
        self,
        threshold: float = 0.0,
        *,
        alpha: float = 0.75,
        angle: float | None = None,
        strength: float | None = None,
    ) -> None:
        super().__init__(alpha=alpha, angle=angle, strength=strength)
        if threshold < 0:
            raise ValueError(f"threshold={threshold} must not be negative: SDs on both sides of the mean response.")
        self.threshold = threshold

    def learn(self, x: Tensor, responses: Tensor, standard: Tensor) -> None:
        self.directions_ = unit_rows((self._means(x, standard) - self._means(x, -standard)).T.contiguous())

    def _means(self, x: Tensor, standard: Tensor) -> Tensor:
        """Mean embedding (D, K) of the images that drive each unit beyond the threshold."""
        least = standard.topk(2, dim=0).values[1]  # of two images, at any rate
        chosen = ((standard > self.threshold) | (standard >= least)).to(x)
        return x.T @ (chosen / chosen.sum(0))
