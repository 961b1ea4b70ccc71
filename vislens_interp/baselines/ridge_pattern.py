"""The pattern that belongs to a ridge filter: how embeddings change where the filter's prediction does."""

from torch import Tensor

from vislens_interp.baselines.embedding_edit import DirectionEdit, unit_rows
from vislens_interp.baselines.ridge_direction import ridge_cv


class RidgePattern(DirectionEdit):
    """Turn an embedding along cov(x, ŝ) = Σ_x w, where ŝ = wᵀx is a ridge prediction of the unit's response.

    The filter w says how to read the response out of an embedding and is free to be large where embeddings hardly
    vary; its pattern says how embeddings differ where the response does. With Gaussian embeddings and a linear
    response it is the likeliest way to any change of the response.

    Args:
        alpha: Place on the arc, 0 the image, 1 the direction.
        angle: Degrees to turn by instead of ``alpha``.
        strength: SDEdit strength γ; None is the backend's.

    Attributes (after ``fit``):
        directions_: (K, D) unit vectors of increase.
        penalties_: (K,) ridge penalties, each by its leave-one-out error.

    Source: Haufe et al. 2014, NeuroImage 87, Eq. 6 and 7: A = Σ_x W Σ_ŝ⁻¹, for one unit at a time, of which the
    direction is kept. It publishes no default for the ridge; the penalty is chosen as by BrainACTIV's ``RidgeCV``.
    """

    def learn(self, x: Tensor, responses: Tensor, standard: Tensor) -> None:
        centred = x.double() - x.double().mean(0)
        weights, self.penalties_ = ridge_cv(centred, standard.double())
        self.directions_ = unit_rows((centred.T @ (centred @ weights)).T).to(x.dtype).to(x.device)
