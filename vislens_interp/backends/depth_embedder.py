"""An embedding of all depths: the channel means of several layers of one network."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from vislens_interp.files import fingerprint, load_state, rebuilding, save_state
from vislens_interp.images import check_shape
from vislens_interp.preprocess import Preprocess, preprocess_for

STATISTICS = "embedding statistics"
LONGEST = 2.0
"""An embedding is at most so many times as long as one of standard deviation 1 in every dimension."""


class DepthEmbedder(nn.Module):
    """Carries images to the channel means of several layers, each channel standardised on reference images.

    A last-layer embedding, CLIP's too, knows little of what early and middle units respond to. Channel means of all
    depths predict units of all depths. Every layer counts equally: a channel's variance is one over the number of the
    layer's channels, scaled so that the mean variance of a dimension is 1.

    Args:
        model: The network. It is copied, so that its own mode, hooks and gradients stay as they are.
        layers: Dotted names of layers whose output is a map (N, C, H, W) or tokens (N, L, C). None takes the seven
            stages ``blocks.0`` to ``blocks.6`` of a network of EfficientNet's form.
        preprocess: From RGB in [0, 1] to what the network takes; None asks the model. Its ``size`` is replaced.
        size: Side in pixels of what the network sees.
        batch_size: Images at a time.

    Attributes:
        channels: Channels of each layer.
        dim: Dimensions of an embedding, their sum.

    Raises:
        KeyError: A layer is not in the network.
        ValueError: A layer's output is no map and no tokens, or there is nothing to standardise with.

    Source: ours (docs/design: what the embedding decides).

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3))
    >>> embedder = DepthEmbedder(net, ["1", "2"], preprocess=Preprocess(16, [0.5], [0.5]), size=16)
    >>> embedder.standardise(torch.rand(20, 3, 16, 16))(torch.rand(2, 3, 16, 16)).shape
    torch.Size([2, 12])
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str] | None = None,
        *,
        preprocess: Preprocess | None = None,
        size: int = 128,
        batch_size: int = 32,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}; expected at least 1 image at a time.")
        given = preprocess_for(model) if preprocess is None else preprocess
        self.preprocess = Preprocess(size, given.mean.flatten().tolist(), given.std.flatten().tolist())
        self.network = copy.deepcopy(model).eval().requires_grad_(False)
        self.size, self.batch_size = size, batch_size
        self.layers = tuple(layers) if layers is not None else _stages(self.network)
        modules = dict(self.network.named_modules())
        for name in self.layers:
            if name not in modules:
                raise KeyError(
                    f"layers names {name!r}, which {type(model).__name__} does not have; expected dotted names of its "
                    "modules. list_units(model) shows them."
                )
        with torch.no_grad():
            maps = self.maps(torch.zeros(1, 3, size, size))
        self.channels = tuple(item.shape[1] for item in maps)
        self.dim = sum(self.channels)
        self.register_buffer("mean", torch.full((self.dim,), torch.nan))
        self.register_buffer("scale", torch.full((self.dim,), torch.nan))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.mean.device

    def maps(self, images: Tensor, *, size: int | None = None, layers: Sequence[str] | None = None) -> list[Tensor]:
        """The layers' outputs, (N, C, H, W) each; tokens (N, L, C) become (N, C, L, 1).

        Args:
            images: (N, 3, H, W) in [0, 1].
            size: Side in pixels at which the network sees them; None is the embedder's.
            layers: Names of other layers of the network; None takes the embedder's.
        """
        layers = self.layers if layers is None else layers
        check_shape(images)
        seen: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                seen[name] = output

            return hook

        modules = dict(self.network.named_modules())
        handles = [modules[name].register_forward_hook(keep(name)) for name in layers]
        try:
            pixels = self.preprocess(images) if size is None else self._normalise(images, size)
            self.network(pixels.contiguous(memory_format=torch.channels_last))
        finally:
            for handle in handles:
                handle.remove()
        return [_as_map(seen[name], name) for name in layers]

    def _normalise(self, images: Tensor, size: int) -> Tensor:
        other = Preprocess(size, self.preprocess.mean.flatten().tolist(), self.preprocess.std.flatten().tolist())
        return other(images)

    def raw(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) to channel means (N, dim), before they are standardised."""
        parts = images.to(next(self.network.parameters()).device).split(self.batch_size)
        return torch.cat([torch.cat([item.mean((2, 3)) for item in self.maps(part)], 1) for part in parts]).float()

    def standardise(self, images: Tensor) -> Self:
        """Take means and standard deviations of the channels from these reference images, at least 2."""
        if len(images) < 2:
            raise ValueError(f"images holds {len(images)} image(s); expected at least 2 to standardise with.")
        with torch.no_grad():
            values = self.raw(images)
        return self.set_statistics(values.mean(0), values.std(0))

    def set_statistics(self, mean: Tensor, std: Tensor) -> Self:
        """Standardise with these means and standard deviations (dim,) of the channels."""
        share = torch.cat([torch.full((count,), 1 / count) for count in self.channels]) / len(self.channels)
        # A channel that never varies has nothing to say; it must not divide by nothing.
        weight = torch.where(std > 1e-6 * std.median(), (share * self.dim).sqrt() / std.clamp_min(1e-30), 0.0)
        self.mean, self.scale = mean.to(self.device), weight.to(self.device)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] to embeddings (N, dim), float32; gradients flow to the images."""
        if bool(self.mean.isnan().any()):
            raise ValueError("this DepthEmbedder has no statistics yet; call standardise(reference images) first.")
        return self._limit((self.raw(images) - self.mean) * self.scale)

    def from_maps(self, maps: Sequence[Tensor]) -> Tensor:
        """Embeddings (N, dim) of what :meth:`maps` gave."""
        means = torch.cat([item.mean((2, 3)) for item in maps], 1)
        return self._limit((means.float() - self.mean) * self.scale)

    def _limit(self, x: Tensor) -> Tensor:
        return x * (LONGEST * math.sqrt(self.dim) / x.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1)

    def save_statistics(self, path: str | Path) -> Path:
        """Write what :meth:`standardise` learned, with layers, size and a fingerprint of the network's weights."""
        return save_state(path, STATISTICS, {**self._identity(), "mean": self.mean.cpu(), "scale": self.scale.cpu()})

    def load_statistics(self, path: str | Path) -> Self:
        """Read what :meth:`save_statistics` wrote.

        Raises:
            ValueError: It belongs to another network, other layers or another size.
        """
        state = load_state(path, STATISTICS)
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise ValueError(
                    f"{name} of the statistics in {str(path)!r} is {state.get(name)!r}; expected {value!r}, this "
                    "embedder's. Call standardise with reference images instead."
                )
        with rebuilding(path, "mean or scale"):
            mean, scale = (state[name].to(self.mean) for name in ("mean", "scale"))
            if {mean.shape, scale.shape} != {self.mean.shape} or not (mean.isfinite() & scale.isfinite()).all():
                raise TypeError(f"mean {tuple(mean.shape)} and scale {tuple(scale.shape)} of {self.dim} finite numbers")
        self.mean, self.scale = mean, scale
        return self

    def _identity(self) -> dict[str, Any]:
        weights = fingerprint(self.network.state_dict())
        return {"layers": list(self.layers), "size": self.size, "weights": weights}


def _stages(network: nn.Module) -> tuple[str, ...]:
    blocks = getattr(network, "blocks", None)
    if not isinstance(blocks, nn.Sequential) or not hasattr(network, "conv_stem"):
        raise ValueError(
            f"layers=None, and {type(network).__name__} has no stages of EfficientNet's form; expected the names of "
            "the layers to embed with, early to late."
        )
    return tuple(f"blocks.{index}" for index in range(len(blocks)))


def _as_map(output: Any, name: str) -> Tensor:
    if isinstance(output, Tensor) and output.ndim == 4:
        return output
    if isinstance(output, Tensor) and output.ndim == 3:
        return output.transpose(1, 2)[..., None]
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise ValueError(
        f"layers: the output of {name!r} is {shape}; expected a map (N, C, H, W) or tokens (N, L, C). Choose other "
        "layers."
    )
