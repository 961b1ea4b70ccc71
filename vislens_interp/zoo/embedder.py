"""The small embedder: a compact network of timm's whose standardised 512-d output is the embedding."""

from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from vislens_interp.images import check_shape
from vislens_interp.preprocess import Preprocess

BATCH = 256
GRID = 2
"""Rows and columns of places whose features make an embedding: what is above and what below is part of a look."""
LONGEST = 2.0
"""An embedding is at most so many times as long as one of standard deviation 1 in every dimension. A handful of
pictures unlike any training image would otherwise be tens of times as long, and decide every mean they enter."""


class Embedder64(nn.Module):
    """Carries images to embeddings whose dimensions have mean 0 and variance 1 over the training images.

    A ResNet-10: timm's ResNet-18 with one block a stage, a fifth of its time on a processor. Its last maps are pooled
    to 2 x 2 places. The last layer is a batch norm without parameters: directions that few images use count as much as
    others, and the cosine of two embeddings is their centred cosine.

    Args:
        dim: Dimensions of an embedding.
        size: Side in pixels of what the network sees.
    """

    def __init__(self, *, dim: int = 512, size: int = 64) -> None:
        super().__init__()
        import timm

        self.backbone: Any = timm.create_model("resnet18", layers=(1, 1, 1, 1), num_classes=0, global_pool="")
        self.head = nn.Linear(GRID**2 * self.backbone.num_features, dim, bias=False)
        self.standardise = nn.BatchNorm1d(dim, affine=False)
        self.preprocess = Preprocess(size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        self.dim, self.size = dim, size

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read trained weights, in evaluation mode and without gradients to them.

        Args:
            path: What the recipe ``embedder64`` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged, or holds another network.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"embedder {str(path)!r}: no such file; expected trained weights. Train them first: "
                "python -m vislens_interp.training embedder64 --data DIR --out DIR"
            )
        with torch.random.fork_rng(devices=[]):  # fresh weights, replaced at once
            embedder = cls()
        try:
            embedder.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(
                f"embedder {str(path)!r} cannot be read ({str(error).splitlines()[0]}); expected the weights of this "
                "architecture, whole. Train or copy it again."
            ) from error
        return embedder.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.head.weight.device

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] to un-normalised embeddings (N, dim), float32; gradients flow to the images."""
        check_shape(images)
        # In training the batch belongs together; afterwards an embedding depends on its image alone.
        parts = (images,) if self.training else images.split(BATCH)
        return torch.cat([self._embed(part) for part in parts])

    def _embed(self, images: Tensor) -> Tensor:
        x = self.standardise(self.features(images))
        return x if self.training else x * (LONGEST * self.dim**0.5 / x.norm(dim=1, keepdim=True)).clamp_max(1)

    def features(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] to embeddings (N, dim) as they are before they are standardised."""
        images = self.preprocess(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        return self.head(adaptive_avg_pool2d(self.backbone(images), GRID).flatten(1)).float()

    def maps(self, images: Tensor) -> list[Tensor]:
        """The network's first three stages of maps, (N, C, H, W) each: what looks alike has like maps."""
        seen = self.preprocess(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        return self.backbone.forward_intermediates(seen, indices=[0, 1, 2], intermediates_only=True, stop_early=True)
