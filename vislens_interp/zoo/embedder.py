"""The small embedder: a compact network of timm's whose standardised 512-d output is the embedding."""

from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vislens_interp.images import Preprocess, check_shape

BATCH = 256
RESNET18: dict[str, Any] = {"channels": (48, 96, 192, 384), "block_args": {"attn_layer": "se"}}
"""A ResNet-18 of three quarters of its width, with squeeze and excitation: 6.5 M parameters with the head."""


class Embedder64(nn.Module):
    """Carries images to embeddings whose dimensions have mean 0 and variance 1 over the training images.

    Args:
        architecture: timm's name of the network. The first pooling of a ResNet is left out: at 64 pixels it would
            throw away what the first layers see.
        dim: Dimensions of an embedding.
        size: Side in pixels of what the network sees.
        options: For ``timm.create_model``; None is :data:`RESNET18` for ``resnet18``, else nothing.

    The last layer is a batch norm without parameters. So directions that few images use count as much as others, and
    the cosine of two embeddings is their centred cosine.
    """

    def __init__(
        self,
        architecture: str = "resnet18",
        *,
        dim: int = 512,
        size: int = 64,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        import timm

        if options is None:
            options = RESNET18 if architecture == "resnet18" else {}
        self.backbone: Any = timm.create_model(architecture, num_classes=0, **options)
        if hasattr(self.backbone, "maxpool"):
            self.backbone.maxpool = nn.Identity()
        self.head = nn.Linear(self.backbone.num_features, dim, bias=False)
        self.standardise = nn.BatchNorm1d(dim, affine=False)
        self.preprocess = Preprocess(size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        self.dim, self.size = dim, size

    @classmethod
    def load(cls, path: str | Path, **options: Any) -> Self:
        """Read trained weights, in evaluation mode and without gradients to them.

        Args:
            path: What the recipe ``embedder64`` wrote.
            options: For the constructor.

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
            embedder = cls(**options)
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
        images = self.preprocess(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        return self.standardise(self.head(self.backbone(images)).float())

    def maps(self, images: Tensor) -> list[Tensor]:
        """The network's first three stages of maps, (N, C, H, W) each: what looks alike has like maps."""
        seen = self.preprocess(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        return self.backbone.forward_intermediates(seen, indices=[0, 1, 2], intermediates_only=True, stop_early=True)
