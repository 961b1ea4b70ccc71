"""Whether what drives a unit would also be seen by a second network, which had no part in making the pictures."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from vislens_interp.landscape.prior import Direction, ResponseScaler
from vislens_interp.landscape.start import ridge
from vislens_interp.metrics.response import signed_change


@dataclass(frozen=True)
class SecondNetwork:
    """A unit's response as a second network's features predict it.

    Args:
        weights: (D,) of the features, for responses in SDs.
        mean: (D,) mean features of the images that it was learnt on.

    Source: an encoding model as in Sec. 4.2 and Table 2 (held-out subject), with a network in the subject's place.
    """

    weights: Tensor
    mean: Tensor

    @classmethod
    def fit(cls, features: Tensor, responses: Tensor) -> Self:
        """Ridge regression from natural images' features in the second network to the unit's responses.

        Args:
            features: (N, D) of natural images.
            responses: (N,) of the unit to the same images.

        Raises:
            ValueError: The numbers of images differ, or the unit never varies.

        The penalty is the one with the smallest generalised cross-validation error.
        """
        if features.ndim != 2 or responses.shape != (len(features),):
            raise ValueError(
                f"features has shape {tuple(features.shape)} and responses {tuple(responses.shape)}; expected (N, D) "
                "and (N,), a row for each image. Pool the features, and pass one unit's responses."
            )
        scaler = ResponseScaler.fit(responses[:, None])
        mean = features.double().mean(0)
        weights = ridge(features.double() - mean, scaler.standardise(responses[:, None].double()))
        return cls(weights[:, 0], mean)

    def predict(self, features: Tensor) -> Tensor:
        """Features (N, D) to responses (N,) in SDs of the unit, float64."""
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise ValueError(
                f"features has shape {tuple(features.shape)}; expected (N, {len(self.mean)}), of the network and layer "
                "that this was fitted with. Pool them in the same way."
            )
        return (features.double() - self.mean) @ self.weights


def transfer(reader: SecondNetwork, edited: Tensor, unedited: Tensor, direction: Direction) -> Tensor:
    """Signed change that the second network sees, in SDs of the unit as it predicts it.

    Args:
        reader: Fitted on natural images; how well it predicts held-out ones bounds what can transfer.
        edited: (N, D) its features of generated pictures.
        unedited: (N, D) of the α = 0 pictures of the same inputs.
        direction: What was asked for.

    Returns:
        (N,), positive where it went the wanted way.

    >>> import torch
    >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    >>> reader = SecondNetwork.fit(x, x[:, 0])
    >>> step = torch.tensor([[2.0, 0.0, 0.0]]) * x[:, 0].std()
    >>> round(transfer(reader, x[:1] + step, x[:1], "increase").item(), 2)
    2.0
    """
    return signed_change(reader.predict(edited) - reader.predict(unedited), direction)
