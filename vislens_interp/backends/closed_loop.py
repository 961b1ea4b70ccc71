"""Pictures whose embedding, read from the picture again, lies where it should: the photo backend's generator."""

from collections.abc import Callable
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from vislens_interp.backends.adjustments import Adjustments
from vislens_interp.backends.base import check_generation
from vislens_interp.backends.depth_embedder import DepthEmbedder
from vislens_interp.backends.pyramid_decoder import PyramidDecoder
from vislens_interp.images import COLOURS_SQRT, resize
from vislens_interp.math import full_chunks
from vislens_interp.validation import check_counts, check_positive
from vislens_interp.zoo.map_generator import MapGenerator

STEPS, LR, CHANGE = 7, 0.26, 0.1
"""Of an edit: Adam steps, their size, and the root mean square of the change of pixels at most, chosen on tuning units
(docs/design/diary.md)."""
CONTRAST_SHARE = 0.4
"""The change of pixels is at most this share of the picture's own contrast (its standard deviation over places), so
that a plain picture stays one."""
DRAW_STEPS, DRAW_LR = 150, 0.1
"""Of a picture that is drawn from its embedding alone."""
EXPONENT = 1.0
"""Amplitudes of a picture from its embedding alone fall with this power of the frequency, as photographs' do."""
MARGIN = 8
"""Pixels of the embedder's input by which a picture is shifted between steps, at most: what holds at one place only
is not climbed."""
CHUNK = 4
"""Pictures changed together. A chunk is filled up, so that a picture's bits do not depend on what comes with it; on a
CPU a picture of eight costs as much as one of four."""
SEED = 20_000


class LoopOptions(TypedDict, total=False):
    """Keyword arguments of :class:`ClosedLoopGenerator`, which says what each of them means."""

    network: MapGenerator | None
    steps: int
    lr: float
    change: float
    draw_steps: int


class ClosedLoopGenerator:
    """Embeddings to pictures, by changing a picture until the embedder reads from it what is wanted.

    At strength 0 it starts from the input image; above, from what a closed-form decoder draws of the image's feature
    maps, of ever fewer of the finest. Adam then adjusts the picture's local contrast and tint
    (:class:`~vislens_interp.backends.adjustments.Adjustments`), so that the embedding moves as asked; the change of
    pixels is held to a limit, which is lower for a picture of little contrast. Nobody asks the target, and no weight is
    trained. At strength 1 there is no input image: the picture is drawn from its embedding, starting from a trained
    generator's picture if there is one, else from noise.

    Args:
        embedder: Reads embeddings from pictures, with gradients.
        decoder: Draws the picture that an edit starts from.
        size: Side of the pictures in pixels, a multiple of 32.
        edit_size: Side in pixels at which the embedder sees a picture while it is edited; None is the embedder's own.
        network: Draws a first picture from an embedding at strength 1; None starts from noise.
        steps: Adam steps of an edit; ``lr`` their size.
        change: Largest root mean square of an edit's change of pixels; that of a picture whose own contrast is low is
            ``CONTRAST_SHARE`` of it.
        draw_steps: Adam steps of a picture at strength 1.

    Raises:
        ValueError: A number is out of its range.

    Source: ours; at strength 1 the parametrisation is Olah et al. 2017's. Ascending an embedding's surrogate near a
    picture is feature accentuation (Hamblin et al. 2024) of the embedder instead of the target.
    """

    def __init__(
        self,
        embedder: DepthEmbedder,
        decoder: PyramidDecoder,
        *,
        size: int = 224,
        edit_size: int | None = None,
        network: MapGenerator | None = None,
        steps: int = STEPS,
        lr: float = LR,
        change: float = CHANGE,
        draw_steps: int = DRAW_STEPS,
    ) -> None:
        check_positive(steps=steps, lr=lr, change=change, draw_steps=draw_steps)
        if edit_size is not None:
            check_counts(edit_size=edit_size)
        if size % 32:
            raise ValueError(f"size={size}; expected a multiple of 32, at which all maps have whole sizes.")
        self.embedder, self.decoder, self.network = embedder, decoder, network
        self.size, self.embedding_dim = size, embedder.dim
        self.edit_size = embedder.size if edit_size is None else edit_size
        self.steps, self.lr, self.change, self.draw_steps = steps, lr, change, draw_steps

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.embedder.device

    def __call__(self, x: Tensor, *, init_image: Tensor | None, strength: float, seeds: list[int]) -> Tensor:
        """Embeddings (N, D) to pictures (N, 3, S, S) in [0, 1].

        Below strength 1 the picture's embedding moves along x - E(init_image), as far as the limit of the change lets
        it: all of the limit where x is as far from it as E(init_image) is long, a turn by 60 degrees, and in
        proportion below.

        Args:
            init_image: (N, 3, S, S) that the pictures start from, or None.
            strength: 0 starts from ``init_image`` itself; above, fewer and fewer of its feature maps are kept; 1 none.
            seeds: One an image, for the noise at strength 1.

        Raises:
            ValueError: An argument is not of this form.
        """
        check_generation(x, self.embedding_dim, init_image, strength, seeds)
        if init_image is None or strength == 1:
            return self.draw(x, seeds)
        with torch.no_grad():
            here = self.embedder(init_image.to(self.device))
        step = x.to(here) - here
        far = step.norm(dim=1)
        share = (far / here.norm(dim=1).clamp_min(1e-12)).clamp_max(1)
        direction = step / far.clamp_min(1e-12)[:, None]

        def along(seen: Tensor, rows: Tensor) -> Tensor:
            return (self.read(seen) * direction[rows]).sum(1)

        return self.ascend(init_image, along, share=share, strength=strength)

    def reconstruct(self, images: Tensor, strength: float) -> Tensor:
        """What the decoder draws of images (N, 3, S, S) from the maps that ``strength`` below 1 keeps."""
        dropped = min(int(strength * self.decoder.levels), self.decoder.levels - 1)
        with torch.no_grad():
            parts = []
            for part in images.to(self.device).split(CHUNK):
                maps = self.decoder.maps(resize(part, self.size))
                parts.append(self.decoder(maps, self.size, dropped=dropped).clamp(0, 1))
        return torch.cat(parts)

    def ascend(
        self,
        images: Tensor,
        objective: Callable[[Tensor, Tensor], Tensor],
        *,
        share: Tensor | float,
        strength: float,
        side: int | None = None,
        steps: int | None = None,
        chunk: int = CHUNK,
    ) -> Tensor:
        """Pictures (N, 3, S, S) near ``images`` that score higher.

        Args:
            objective: Some pictures (n, 3, side, side), and their rows (n,), to one number each that is to rise. The
                pictures are shifted a little, differently at each step.
            share: How much of the largest change each picture may take, 0 to 1: one number, or (N,).
            strength: Below 1. 0 starts from the images, above it from what the decoder draws of the maps that it keeps.
            side: Side in pixels of what the objective sees; None is ``edit_size``.
            steps: Adam steps; None is those of an edit.
            chunk: Pictures changed together.
        """
        if strength == 0:
            starts = resize(images, self.size).float().to(self.device)
        else:
            starts = self.reconstruct(images, strength)
        share = torch.as_tensor(share, dtype=starts.dtype, device=starts.device).expand(len(starts))
        made = []
        for filled, own in full_chunks(len(starts), chunk):
            filled = filled.to(starts.device)
            rows = filled[:own]
            if not bool((share[rows] > 0).any()):
                made.append(starts[rows])
                continue
            climbed = self._climb(starts[filled], objective, filled, share[filled], side, steps or self.steps)
            made.append(climbed[:own])
        return torch.cat(made) if made else starts

    def read(self, seen: Tensor) -> Tensor:
        """Embeddings (n, D) of pictures as :meth:`ascend` shows them to an objective: at the size that they have."""
        return self.embedder(seen, size=seen.shape[-1])

    def _climb(
        self,
        starts: Tensor,
        objective: Callable[[Tensor, Tensor], Tensor],
        rows: Tensor,
        share: Tensor,
        side: int | None,
        steps: int,
    ) -> Tensor:
        adjustments = Adjustments(starts)
        optimizer = torch.optim.Adam(adjustments.parameters, self.lr, betas=(0.8, 0.99))
        contrast = starts.var((2, 3), unbiased=False).mean(1).sqrt()
        limit = ((CONTRAST_SHARE * contrast).clamp_max(self.change) * share)[:, None, None, None]

        def picture() -> Tensor:
            change = adjustments() - starts
            size = (change.square().mean((1, 2, 3), keepdim=True) + 1e-12).sqrt()
            return starts + change * (limit / size).clamp_max(1)

        with torch.enable_grad():
            for step in range(steps):
                score = objective(self._shifted(picture(), step, side or self.edit_size), rows)
                optimizer.zero_grad()
                (-score.sum()).backward()
                optimizer.step()
        return picture().detach().clamp(0, 1)

    def draw(self, x: Tensor, seeds: list[int]) -> Tensor:
        """Pictures (N, 3, S, S) from embeddings (N, D) alone."""
        made = []
        for filled, own in full_chunks(len(x), CHUNK):
            made.append(self._draw(x[filled].detach().to(self.device), [seeds[row] for row in filled])[:own])
        return torch.cat(made) if made else x.new_zeros(0, 3, self.size, self.size)

    def _draw(self, x: Tensor, seeds: list[int]) -> Tensor:
        side = min(self.embedder.size, self.size)
        noise = [torch.randn(3, side, side // 2 + 1, 2, generator=_generator(seed)) for seed in seeds]
        spectrum = (0.1 * torch.stack(noise)).to(x).requires_grad_(True)
        first = torch.full((len(x), 3, self.size, self.size), 0.5, device=x.device)
        if self.network is not None:
            dropped = torch.full((len(x),), self.network.levels, device=x.device)
            with torch.no_grad():
                first = self.network(x, first, dropped).clamp(0, 1)
        optimizer = torch.optim.Adam([spectrum], DRAW_LR)

        def picture() -> Tensor:
            return first + F.interpolate(_signal(spectrum, side), first.shape[-2:], mode="bicubic")

        with torch.enable_grad():
            for step in range(self.draw_steps):
                for group in optimizer.param_groups:
                    group["lr"] = DRAW_LR * min(1, (step + 1) / 10) * (1 if step < 0.6 * self.draw_steps else 0.3)
                drawn = picture()
                outside = (drawn - drawn.clamp(0, 1)).square().sum()
                seen = self.embedder(self._shifted(drawn, step, self.embedder.size))
                loss = (seen - x).square().sum() + outside
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return picture().detach().clamp(0, 1)

    def _shifted(self, pictures: Tensor, step: int, side: int) -> Tensor:
        """Pictures (N, 3, side, side), shifted a little and every other time mirrored, with gradients."""
        inside = pictures.clamp(0, 1)
        inside = inside + 0.1 * (pictures - inside)  # a colour beyond black or white keeps a way back
        seen = inside
        if seen.shape[-1] != side:
            seen = F.interpolate(inside, (side, side), mode="bilinear", antialias=True, align_corners=False)
        down, right = torch.randint(0, 2 * MARGIN + 1, (2,), generator=_generator(SEED + step)).tolist()
        seen = F.pad(seen, [MARGIN] * 4, mode="reflect")[:, :, down : down + side, right : right + side]
        return seen.flip(3) if step % 2 else seen


def _signal(spectrum: Tensor, side: int) -> Tensor:
    """Coefficients (N, 3, side, side // 2 + 1, 2) to a change of pixels (N, 3, side, side)."""
    rows, columns = torch.fft.fftfreq(side)[:, None] * side, torch.fft.rfftfreq(side)[None] * side
    weight = (rows**2 + columns**2).sqrt().clamp_min(1) ** -EXPONENT
    weight = (weight / weight.square().mean().sqrt()).to(spectrum)
    waves = torch.fft.irfft2(torch.view_as_complex(spectrum) * weight, s=(side, side), norm="ortho")
    return torch.einsum("rc,nchw->nrhw", COLOURS_SQRT.to(waves), waves)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
