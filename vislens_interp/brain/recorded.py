"""Recorded responses as a target: what a brain answered to these very pictures, and to no others."""

from typing import Any

import torch
from torch import Tensor

from vislens_interp.images import check_images, check_shape, image_keys
from vislens_interp.targets.target import Target
from vislens_interp.validation import shapes


class RecordedResponses(Target):
    """Looks up what was recorded to a picture, found by its pixels: a judge with no model in it.

    With :class:`~vislens_interp.backends.retrieval.RetrievalBackend` every picture that a lens makes is one of the
    gallery, to which there is a recording.

    Args:
        images: (N, 3, H, W) in [0, 1], the pictures that were shown. Copies of one picture are averaged.
        responses: (N, K) recorded, without NaN.

    Raises:
        ValueError: Counts differ or a response is missing; or, when it is asked, a picture was never shown.

    >>> shown = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
    >>> RecordedResponses(shown, torch.tensor([[2.0], [7.0]]), ["neuron"])(shown[1:])
    tensor([[7.]])
    """

    differentiable = False

    def __init__(
        self, images: Tensor, responses: Tensor, names: list[str], *, name: str = "recorded responses"
    ) -> None:
        check_images(images)
        wanted = (len(images), len(names))
        if responses.shape != wanted:
            raise ValueError(
                f"{shapes(responses=responses)} for {len(images)} images and {len(names)} names; expected {wanted}."
            )
        if not responses.isfinite().all():
            raise ValueError(
                f"responses are NaN or infinite for {int((~responses.isfinite()).any(1).sum())} images; expected a "
                "recording to each. Leave those images out."
            )
        self.names, self.name, self.size = list(names), name, images.shape[-1]
        found: dict[str, list[Tensor]] = {}
        for key, row in zip(image_keys(images), responses.float(), strict=True):
            found.setdefault(key, []).append(row)
        self._known = {key: torch.stack(rows).mean(0) for key, rows in found.items()}

    def __call__(self, images: Tensor) -> Tensor:
        check_shape(images)
        keys = image_keys(images)
        if unknown := sum(key not in self._known for key in keys):
            raise ValueError(
                f"images: {unknown} of {len(images)} were never shown, so that nothing was recorded to them; expected "
                "pictures of the recordings, pixel by pixel. Use a retrieval backend on these pictures, or an "
                "in-silico encoder."
            )
        return torch.stack([self._known[key] for key in keys])

    def describe(self) -> dict[str, Any]:
        """What a saved result says of its target, as JSON values."""
        return {"model": self.name, "units": list(self.names), "judge": f"{self.name}, without a model"}
