"""Controls: what a method makes of responses that mean nothing, and what generation does without an edit."""

from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor

from vislens_interp.backends.base import draw_noise
from vislens_interp.config import Config, Overrides
from vislens_interp.copies import permuted_rows
from vislens_interp.images import resize
from vislens_interp.methods.base import Directions, Method, Wrapper
from vislens_interp.methods.embedding_edit import decode
from vislens_interp.methods.landscape import LandscapeEdit
from vislens_interp.reference import ReferenceSet
from vislens_interp.validation import check_shares


class Shuffled(Wrapper):
    """Another method, fitted on responses that were dealt out to the wrong images.

    What it changes, any edit of that size changes: a method has to beat it. With ``LandscapeEdit`` it is the
    shuffled-response landscape.

    Args:
        seed: Of the permutation, the same for all units, so that what units have in common is kept.

    Source: permutation control, Vis-Lens does not report one.
    """

    def __init__(self, method: Method, *, seed: int = 0) -> None:
        super().__init__(method)
        self.seed = seed

    def _fit(self, reference: ReferenceSet, *, progress: bool, checkpoint: Path | None) -> None:
        responses = reference.responses
        assert responses is not None  # what is shuffled
        order = permuted_rows(reference.groups, torch.Generator().manual_seed(self.seed))
        shuffled = reference.with_responses(responses[order.to(responses.device)], measured=True)
        self.method.fit(self.target, self.backend, shuffled, progress=progress)

    def embeddings(self, x: Tensor, directions: Directions, **settings: object) -> Tensor:
        """As the method's."""
        return self.method.embeddings(x, directions, **settings)  # pyright: ignore[reportAttributeAccessIssue]

    def _generate(
        self, images: Tensor, directions: Directions, seeds: list[int], alpha: float | None, strength: float | None
    ) -> tuple[Tensor, None]:
        return super()._generate(images, directions, seeds, alpha, strength)[0], None


def shuffled_landscape(config: Config | None = None, **overrides: Unpack[Overrides]) -> Shuffled:
    """The landscape of these settings (:class:`~vislens_interp.methods.landscape.LandscapeEdit`), shuffled.

    Args:
        config, overrides: As ``LandscapeEdit``; ``seed`` is the fit's, the permutation's is the next one.
    """
    method = LandscapeEdit(config, **{"shuffles": 0, **overrides})
    seed = overrides.get("seed", 0 if config is None else config.fit.seed)
    return Shuffled(method, seed=seed + 1)


class Unedited(Method):
    """α = 0: the image's own embedding through the same generator, whatever the direction.

    Everything that generation does by itself is in here; a response change is counted from it.

    Args:
        strength: SDEdit strength γ; None is the backend's.
    """

    uses_strength = True
    uses_responses = False

    def __init__(self, *, strength: float | None = None) -> None:
        check_shares(strength=strength)
        self.strength = strength

    def embeddings(self, x: Tensor, directions: Directions) -> Tensor:
        """The embeddings as they are."""
        return x

    def _generate(
        self, images: Tensor, directions: Directions, seeds: list[int], alpha: float | None, strength: float | None
    ) -> tuple[Tensor, None]:
        return decode(self.backend, self.encode(images), images, strength, seeds), None


class Noise(Method):
    """White noise with the mean and the SD of the reference images' channels, whatever image, unit and direction.

    Responses of the unit to images without content; a control. No direction gives the image itself.

    Attributes (after ``fit``):
        mean_, std_: (3,) each, of the reference images' pixels.
    """

    uses_responses = False

    def _fit(self, reference: ReferenceSet, *, progress: bool, checkpoint: Path | None) -> None:
        count, total, squares = 0, torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        for part in reference.parts():  # files are read as they come
            part = part.double().cpu()
            count += part[:, 0].numel()
            total += part.sum((0, 2, 3))
            squares += (part**2).sum((0, 2, 3))
        self.mean_ = total / count
        self.std_ = (squares / count - self.mean_**2).clamp_min(0).sqrt()

    def _generate(
        self, images: Tensor, directions: Directions, seeds: list[int], alpha: float | None, strength: float | None
    ) -> tuple[Tensor, None]:
        if not directions:
            return resize(images.float(), self.backend.size), None
        size = self.backend.size
        drawn = draw_noise((torch.Generator().manual_seed(seed) for seed in seeds), (3, size, size))
        mean, std = (one.float()[:, None, None] for one in (self.mean_, self.std_))
        return (mean + std * drawn).clamp(0, 1), None
