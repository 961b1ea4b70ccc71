"""Feature maps back to pixels in closed form: the picture that the maps of a network's layers still hold."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from vislens_interp.backends.depth_embedder import DepthEmbedder
from vislens_interp.files import fingerprint, load_state, rebuilding, save_state
from vislens_interp.images import check_images
from vislens_interp.schema import check_finite, check_schema, check_tensors

KIND = "pyramid decoder"
LARGEST_PATCH = 8
NEIGHBOURHOOD = 3
"""Places whose features of the finest map draw one patch, each way."""
RIDGE = 1e-5
"""Ridge penalty, relative to the mean square of a feature. Held-out photographs lose up to 1.6 dB against 1e-6, which
fails on a few smooth images."""
PROBE = 64
"""Side in pixels of the blank image that says how large each layer's maps are."""
POSITIONS = 200_000
"""Most positions that a fit reads; more are thinned out evenly."""


class PyramidDecoder:
    """Linear maps from a network's feature maps to patches of pixels, one for each number of levels that is kept.

    The finest maps hold the photograph, coarser ones its layout only. How many of the finest are left out is therefore
    how little of the photograph is kept: ``dropped=0`` draws from all maps, ``dropped=1`` without the finest, and so
    on. Each is a ridge regression, solved once, for pictures of any size.

    Args:
        embedder: Whose maps are decoded.
        layers: Names of its network's layers to decode from, the finest first; None takes the embedder's deepest of
            each size, and the stem ``bn1`` if there is one: of EfficientNet-Lite0 the stem and stages 0, 1, 2, 4 and 6.

    Attributes:
        weights: For each number of dropped levels, (features + 1, 3 · patch²), after :meth:`fit` or :meth:`load`.
        patches: Side in pixels of the patches that each of them draws.

    Raises:
        ValueError: The layers are not in the order of their maps' size.

    Source: ours.

    >>> from torch import nn
    >>> from vislens_interp.preprocess import Preprocess
    >>> net = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 8, 2, stride=2))
    >>> embedder = DepthEmbedder(net, ["0", "1"], preprocess=Preprocess(32, [0.5], [0.5]), size=32)
    >>> decoder = PyramidDecoder(embedder).fit(torch.rand(40, 3, 32, 32))
    >>> image = torch.rand(1, 3, 32, 32)
    >>> bool((decoder(decoder.maps(image), 32) - image).abs().max() < 1e-3)  # an invertible layer keeps everything
    True
    """

    def __init__(self, embedder: DepthEmbedder, layers: Sequence[str] | None = None) -> None:
        self.embedder = embedder
        self.layers = tuple(_levels(embedder) if layers is None else layers)
        with torch.no_grad():
            maps = embedder.maps(torch.zeros(1, 3, PROBE, PROBE), size=PROBE, layers=self.layers)
        strides = [max(1, PROBE // item.shape[-1]) for item in maps]
        if strides != sorted(strides):
            raise ValueError(f"layers={self.layers} have strides {strides}; expected the finest map first.")
        self.patches = [min(LARGEST_PATCH, 2 * stride) for stride in strides]
        self.weights: list[Tensor] = []

    @property
    def levels(self) -> int:
        """Number of maps it decodes from; at most one fewer can be dropped."""
        return len(self.layers)

    def maps(self, images: Tensor) -> list[Tensor]:
        """The maps that it decodes from, the finest first, of images (N, 3, S, S) seen at their own size."""
        return self.embedder.maps(images.to(self.embedder.device), size=images.shape[-1], layers=self.layers)

    @torch.no_grad()
    def fit(self, images: Tensor, *, batch_size: int = 10) -> Self:
        """Solve for all numbers of dropped levels.

        Args:
            images: (N, 3, S, S) in [0, 1]: photographs of the domain; 200 are enough.
            batch_size: Images at a time.

        Raises:
            ValueError: The side is not a multiple of 32, or an image is not valid.
        """
        check_images(images)
        size = images.shape[-1]
        if size % 32 or images.shape[-2] != size:
            raise ValueError(
                f"images has shape {tuple(images.shape)}; expected squares whose side is a multiple of 32. Resize "
                "them with load_images(folder, size=224)."
            )
        sums: list[Any] = [(0, 0)] * self.levels
        for part in images.split(batch_size):
            maps = self.maps(part)
            for dropped, patch in enumerate(self.patches):
                side = size // patch
                every = max(1, round(side**2 * len(images) / POSITIONS))
                while math.gcd(every, side) > 1:  # else whole columns would never be read
                    every += 1
                features = self._features(maps, size, dropped).flatten(2)[:, :, ::every]
                features = F.pad(features.transpose(0, 1).flatten(1), (0, 0, 0, 1), value=1.0)  # the last row: offsets
                wanted = F.pixel_unshuffle(part.to(features), patch).flatten(2)[:, :, ::every]
                wanted = wanted.transpose(0, 1).flatten(1)
                gram, cross = sums[dropped]
                sums[dropped] = gram + (features @ features.T).double(), cross + (features @ wanted.T).double()
        self.weights = []
        for gram, cross in sums:
            penalty = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
            self.weights.append(torch.linalg.solve(gram + penalty, cross).float())
        return self

    def __call__(self, maps: Sequence[Tensor], size: int, *, dropped: int = 0) -> Tensor:
        """Maps of :meth:`maps` to pictures (N, 3, size, size), not clamped; gradients flow to the maps.

        Args:
            maps: The finest first.
            size: Side in pixels, as of the images that the maps were read from.
            dropped: How many of the finest levels are left out, 0 to ``levels - 1``.
        """
        if not self.weights:
            raise ValueError("this PyramidDecoder is not fitted; call fit(images) or load(path, embedder).")
        if not 0 <= dropped < self.levels:
            raise ValueError(f"dropped={dropped}; expected 0 to {self.levels - 1}, so that a level is left.")
        weights = self.weights[dropped].to(maps[0])
        features = self._features(maps, size, dropped)
        drawn = F.conv2d(features, weights[:-1].T[..., None, None], weights[-1])
        return F.pixel_shuffle(drawn, self.patches[dropped])

    def _features(self, maps: Sequence[Tensor], size: int, dropped: int) -> Tensor:
        """Features of the levels that are kept at every patch: (N, F, size / patch, size / patch)."""
        side = size // self.patches[dropped]
        parts = []
        for level in maps[dropped:]:
            item = level.contiguous()
            if item.shape[-1] > side:
                item = F.pixel_unshuffle(item, item.shape[-1] // side)
            elif item.shape[-1] < side:
                item = F.interpolate(item, (side, side), mode="bilinear", align_corners=False)
            if not parts:
                margin = NEIGHBOURHOOD // 2
                padded = F.pad(item, [margin] * 4, mode="replicate")
                item = F.unfold(padded, NEIGHBOURHOOD).unflatten(2, (side, side))
            parts.append(item)
        return torch.cat(parts, 1)

    def save(self, path: str | Path) -> Path:
        """Write the weights in half precision, with the layers and a fingerprint of the network."""
        state = {
            "layers": list(self.layers),
            "network": fingerprint(self.embedder.network.state_dict()),
            "weights": {str(index): value.half().cpu() for index, value in enumerate(self.weights)},
        }
        return save_state(path, KIND, state)

    @classmethod
    def load(cls, path: str | Path, embedder: DepthEmbedder) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: It was fitted to another network's maps.
        """
        state = load_state(path, KIND)
        network = fingerprint(embedder.network.state_dict())
        if state.get("network") != network:
            raise ValueError(
                f"decoder {str(path)!r} was fitted to another network (fingerprint {state.get('network')}) than the "
                f"embedder's ({network}); expected the same. Fit it again: PyramidDecoder(embedder).fit(images)."
            )
        where = f"path={str(path)!r}"
        check_schema(state, {"layers": [str], "weights": {str: Tensor}}, where)
        check_finite(state, where)
        with rebuilding(path, "layers or weights"):
            decoder = cls(embedder, state["layers"])
            check_tensors(state["weights"], decoder._like(), f"{where}: of these layers", "weights")
            decoder.weights = [state["weights"][str(index)].float() for index in range(decoder.levels)]
        return decoder

    def _like(self) -> dict[str, Tensor]:
        """Tensors of the shapes of its weights, by the number of dropped levels."""
        with torch.no_grad():
            maps = self.maps(torch.zeros(1, 3, PROBE, PROBE))
            counts = [self._features(maps, PROBE, dropped).shape[1] for dropped in range(self.levels)]
        return {
            str(dropped): torch.empty(count + 1, 3 * self.patches[dropped] ** 2) for dropped, count in enumerate(counts)
        }


def _levels(embedder: DepthEmbedder) -> list[str]:
    """The network's stem where it is of EfficientNet's form, and one of the embedder's layers for each size of map."""
    with torch.no_grad():
        sides = [item.shape[-1] for item in embedder.maps(torch.zeros(1, 3, PROBE, PROBE), size=PROBE)]
    deepest = dict(zip(sides, embedder.layers, strict=True))
    return [*(["bn1"] if hasattr(embedder.network, "bn1") else []), *(deepest[side] for side in sorted(deepest)[::-1])]
