"""DeepDream: an image in which a unit is fed what it sees, coarse scales first."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vislens_interp.methods.pixel_ascent import ImageAscent, Wanted
from vislens_interp.validation import check_counts, check_number, check_positive


class DeepDream(ImageAscent):
    """Add detail to an image by normalised gradient steps, octave by octave, each finer than the last.

    At each octave the detail so far is enlarged and steps of g / mean|g| are taken at that resolution, the picture
    shifted at random before each.

    Args:
        iterations, octaves: Steps an octave, 10 in the release; octaves, 4.
        octave_scale: How much finer an octave is than the last; 1.4 in the release.
        step_size: Mean change of a pixel in a step, in [0, 1]; 1.5 / 255 in the release.
        jitter: Largest shift, as a share of the side; 32 pixels in the release, of the 224 that its network takes.

    Source: Mordvintsev, Olah and Tyka 2015, "Inceptionism", and ``dream.ipynb`` of google/deepdream (``make_step``,
    ``deepdream``). Deviations: a unit's response in the place of the squared length of a layer's output; the target
    sees every octave enlarged to the picture's size, for a target takes one size, so that octaves are the scales at
    which detail is added, not those at which it is looked for; to decrease, the response is descended.
    """

    def __init__(
        self,
        *,
        iterations: int = 10,
        octaves: int = 4,
        octave_scale: float = 1.4,
        step_size: float = 1.5 / 255,
        jitter: float = 32 / 224,
        chunk: int = 2,
    ) -> None:
        check_counts(iterations=iterations, octaves=octaves)
        check_positive(step_size=step_size, octave_scale=octave_scale)
        super().__init__(steps=iterations * octaves, chunk=chunk)
        if octave_scale <= 1:
            raise ValueError(f"octave_scale={octave_scale} must be greater than 1: each octave is finer than the last.")
        check_number("jitter", jitter)
        if not 0 <= jitter < 1:
            raise ValueError(f"jitter={jitter} must lie in [0, 1): a share of the picture's side.")
        self.iterations, self.octaves, self.octave_scale = iterations, octaves, octave_scale
        self.step_size, self.jitter = step_size, jitter

    def ascend(self, images: Tensor, directions: Wanted, generators: list[torch.Generator]) -> tuple[Tensor, None]:
        full = images.shape[-1]
        sizes = [max(1, round(full / self.octave_scale**octave)) for octave in range(self.octaves)]
        detail = torch.zeros_like(images[..., :1, :1])
        for size in reversed(sizes):
            base, detail = _to(images, size), _to(detail, size)
            for _ in range(self.iterations):
                picture = (base + detail).detach().requires_grad_()
                seen = self._shifted(_to(picture, full), generators)
                (gradient,) = torch.autograd.grad(self.wanted(seen, directions).sum(), picture)
                length = gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-12)
                detail = (picture.detach() + self.step_size * gradient / length).clamp(0, 1) - base
        return images + detail, None

    def _shifted(self, pictures: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Each picture moved round its borders by a shift of its own."""
        most = round(self.jitter * pictures.shape[-1])
        shifts = [torch.randint(-most, most + 1, (2,), generator=one).tolist() for one in generators]
        return torch.stack([one.roll(shift, (-2, -1)) for one, shift in zip(pictures, shifts, strict=True)])


def _to(pictures: Tensor, size: int) -> Tensor:
    """Resize to a square of this side; gradients flow."""
    if pictures.shape[-1] == size:
        return pictures
    smaller = size < pictures.shape[-1]
    return interpolate(pictures, (size, size), mode="bilinear", align_corners=False, antialias=smaller)
