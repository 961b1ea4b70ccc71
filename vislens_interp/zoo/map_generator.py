"""The generator of the embedded backend: it draws what the kept feature maps do not hold."""

import math
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from vislens_interp.files import rebuilding, write_atomically

PATCH = 8
"""Side in pixels of the square that one token draws."""
DETAIL = 8
"""Channels that tokens paint at full resolution, before two convolutions that close the seams between them."""


class MapGenerator(nn.Module):
    """A transformer over patches: an embedding, and what a closed-form decoder draws of the kept maps, to a picture.

    One network serves all strengths: the number of dropped levels is one of its inputs, and at the last of them the
    drawing is empty, so that the picture comes from the embedding alone.

    Args:
        dim, levels: Dimensions of an embedding; levels that a decoder has: ``dropped`` lies between 0 and ``levels``.
        width, depth, heads: Of a token; number of blocks; of the attention.

    Source: ours; the shared modulation is PixArt-α's (Chen et al. 2023, Sec. 2.3).

    >>> net = MapGenerator(16, levels=3, width=32, depth=1, heads=2)
    >>> net(torch.randn(2, 16), torch.zeros(2, 3, 16, 16), torch.tensor([3, 1])).shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(self, dim: int, *, levels: int, width: int = 256, depth: int = 6, heads: int = 4) -> None:
        super().__init__()
        self.dim, self.levels, self.width, self.depth, self.heads = dim, levels, width, depth, heads
        self.patches = nn.Linear(3 * PATCH**2, width)
        self.level = nn.Embedding(levels + 1, width)
        self.condition = nn.Sequential(nn.Linear(dim, width), nn.SiLU(), nn.Linear(width, width))
        self.modulate = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.from_embedding = nn.Linear(dim, width * 16)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.paint = nn.Linear(width, DETAIL * PATCH**2)
        self.close = nn.Sequential(
            nn.Conv2d(DETAIL + 3, 24, 3, padding=1, padding_mode="replicate"),
            nn.GELU(),
            nn.Conv2d(24, 3, 3, padding=1, padding_mode="replicate"),
        )
        nn.init.zeros_(self.close[-1].weight)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self.close[-1].bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor, drawing: Tensor, dropped: Tensor) -> Tensor:
        """Pictures (N, 3, S, S), not clamped.

        Args:
            x: Embeddings (N, dim), of mean variance 1.
            drawing: (N, 3, S, S) what the closed-form decoder draws of the kept maps, in [0, 1]; S a multiple of 8.
            dropped: (N,) number of levels that are not in the drawing; where it is ``levels`` the drawing is not read.
        """
        kept = (dropped < self.levels).to(drawing)[:, None, None, None]
        drawing = kept * (drawing - 0.5)
        side = drawing.shape[-1] // PATCH
        tokens = self.patches(F.pixel_unshuffle(drawing, PATCH).flatten(2).mT)
        coarse = self.from_embedding(x).unflatten(1, (self.width, 4, 4))
        spread = F.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)
        tokens = tokens + spread.flatten(2).mT + _positions(side, self.width).to(tokens)
        modulation = self.modulate(self.condition(x) + self.level(dropped)).unflatten(1, (6, 1, self.width))
        for block in self.blocks:
            tokens = block(tokens, modulation)
        painted = F.pixel_shuffle(self.paint(self.norm(tokens)).mT.unflatten(2, (side, side)), PATCH)
        return drawing + 0.5 + painted[:, :3] * 0.1 + self.close(torch.cat([painted, drawing], 1))

    def save(self, path: str | Path) -> Path:
        """Write the weights in half precision."""
        state = {name: value.detach().half().cpu().contiguous() for name, value in self.state_dict().items()}
        shape = {name: str(getattr(self, name)) for name in ("dim", "levels", "width", "depth", "heads")}
        return write_atomically(Path(path), lambda temporary: save_file(state, temporary, metadata=shape))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote, in float32, for evaluation.

        Raises:
            FileNotFoundError, ValueError: There is no such file, it is damaged, or holds something else.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"generator {str(path)!r}: no such file; expected trained weights. Train them: "
                "python -m vislens_interp.training map_generator --data DIR --out DIR"
            )
        with rebuilding(path, "a MapGenerator"):
            with safe_open(str(path), "pt") as file:
                shape: dict[str, Any] = {name: int(value) for name, value in file.metadata().items()}
            with torch.random.fork_rng(devices=[]):  # fresh weights, replaced at once
                network = cls(shape.pop("dim"), **shape)
            state = load_file(path)
            if wrong := [name for name, value in state.items() if not value.isfinite().all()]:
                raise ValueError(f"{wrong[0]} holds NaN or infinity")
            network.load_state_dict(state)  # into float32
        return network.eval().requires_grad_(False)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.qkv, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.own = nn.Parameter(torch.zeros(6, 1, width))

    def forward(self, tokens: Tensor, modulation: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.own).unbind(1)
        q, k, v = self.qkv(self.norm1(tokens) * (1 + scale1) + shift1).unflatten(2, (3, self.heads, -1)).unbind(2)
        mixed = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        tokens = tokens + (1 + gate1) * self.join(mixed.transpose(1, 2).flatten(2))
        return tokens + (1 + gate2) * self.mlp(self.norm2(tokens) * (1 + scale2) + shift2)


def _positions(side: int, width: int) -> Tensor:
    """Sines and cosines of places in [0, 8], (side², width): the same place in a picture of any size."""
    places = (torch.arange(side) + 0.5) * 8 / side
    rates = torch.exp(torch.arange(width // 4) * (-math.log(100.0) / max(1, width // 4)))
    waves = places[:, None] * rates
    waves = torch.cat([waves.sin(), waves.cos()], 1)
    rows = waves[:, None].expand(side, side, -1)
    return torch.cat([rows, waves[None].expand(side, side, -1)], 2).flatten(0, 1)
