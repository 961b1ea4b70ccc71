"""An embedding of all depths: the channel means of several layers of one network."""

import copy
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vislens_interp.backends.fusion import fused
from vislens_interp.files import fingerprint, load_state, rebuilding, save_state
from vislens_interp.images import check_shape
from vislens_interp.preprocess import Preprocess, preprocess_for
from vislens_interp.targets.inspect import list_units
from vislens_interp.targets.layout import Arrangement
from vislens_interp.validation import check_counts

STATISTICS = "embedding statistics"
LONGEST = 2.0
"""An embedding is at most so many times as long as one of standard deviation 1 in every dimension."""
COMPONENTS, GRID_WEIGHT = 512, 0.7
"""Of a grid: principal components that are kept, and their length against the channel means'. Chosen on two tuning
sessions of V4 neurons (190925, 190929): 256 components predict them a little less, weights of 0.5 and 1 alike."""


class DepthEmbedder(nn.Module):
    """Carries images to the channel means of several layers, each channel standardised on reference images.

    A last-layer embedding, CLIP's too, knows little of what early and middle units respond to. Channel means of all
    depths predict units of all depths. Every layer counts equally: a channel's variance is one over the number of the
    layer's channels, scaled so that the mean variance of a dimension is 1.

    With a ``grid`` an embedding says where as well: principal components of what differs between ``grid`` x ``grid``
    cells follow the means. Neurons with small receptive fields are predicted better by it; units that are pooled over
    positions are not.

    Args:
        model: The network. It is copied, so that its own mode, hooks and gradients stay as they are.
        layers: Dotted names of layers whose output is a map or tokens, in whatever order of axes: one pass finds where
            images and channels are. A layer for which it cannot is taken as (N, C, H, W) or (N, L, C). None takes the
            seven stages ``blocks.0`` to ``blocks.6`` of a network of EfficientNet's form.
        preprocess: From RGB in [0, 1] to what the network takes; None asks the model. Its ``size`` is replaced.
        size: Side in pixels of what the network sees.
        batch_size: Images at a time.
        grid: Cells to a side, or None. The maps between the first and the last layer's that have so many positions to
            a side are cut into cells.
        components: Principal components of the cells that are kept.

    Attributes:
        channels: Channels of each layer.
        dim: Dimensions of an embedding: the sum of the channels, and of the components where there is a grid.

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
    cell_mean: Tensor
    cell_basis: Tensor
    cell_variance: Tensor

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str] | None = None,
        *,
        preprocess: Preprocess | None = None,
        size: int = 128,
        batch_size: int = 32,
        grid: int | None = None,
        components: int = COMPONENTS,
    ) -> None:
        super().__init__()
        check_counts(batch_size=batch_size)
        if grid is not None and (grid < 2 or components < 1):
            raise ValueError(
                f"grid={grid}, components={components}; expected at least 2 cells to a side and 1 component. Leave "
                "grid out for channel means alone."
            )
        given = preprocess_for(model) if preprocess is None else preprocess
        self.preprocess = given.at_size(size)
        self.network = copy.deepcopy(model).eval().requires_grad_(False)
        self._folded: tuple[list[tuple[int, int]], nn.Module] | None = None
        self.size, self.batch_size = size, batch_size
        self.layers = tuple(layers) if layers is not None else _stages(self.network)
        known = [] if layers is None else list_units(self.network, preprocess=self.preprocess)
        self._arrangements = {info.name: info.arrangement for info in known if info.arrangement is not None}
        with torch.no_grad():
            maps = self.maps(torch.zeros(1, 3, size, size), layers=self.layers)
        self.channels = tuple(item.shape[1] for item in maps)
        means = sum(self.channels)
        self.register_buffer("mean", torch.full((means,), torch.nan))
        self.register_buffer("scale", torch.full((means,), torch.nan))
        self.grid, self.components, self.dim = grid, 0 if grid is None else components, means
        self.grid_layers: list[int] = []
        if grid is not None:
            inner = range(1, len(maps) - 1)
            self.grid_layers = [index for index in inner if min(maps[index].shape[2:]) >= grid]
            if not self.grid_layers:
                raise ValueError(
                    f"grid={grid}, but no layer between the first and the last has a map of so many positions to a "
                    "side; expected one at least. Choose other layers, or leave grid out."
                )
            cells = sum(item.shape[1] for item in self._cells(maps))
            if cells < components:
                raise ValueError(
                    f"grid={grid} has {cells} values in layers of at least {grid} positions to a side; "
                    f"expected as many as components={components}. Choose a finer grid, other layers or fewer "
                    "components."
                )
            self.dim += components
            self.register_buffer("cell_mean", torch.zeros(cells))
            self.register_buffer("cell_basis", torch.zeros(cells, components))
            self.register_buffer("cell_variance", torch.zeros(components))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.mean.device

    def maps(self, images: Tensor, *, size: int | None = None, layers: Sequence[str] | None = None) -> list[Tensor]:
        """The layers' outputs, (N, C, H, W) each; tokens become (N, C, L, 1).

        Args:
            images: (N, 3, H, W) in [0, 1].
            size: Side in pixels at which the network sees them; None is the embedder's.
            layers: Names of other layers of the network; None takes the embedder's.

        Raises:
            KeyError: A layer is not in the network.
        """
        network = self._fast() if layers is None else self.network
        layers = self.layers if layers is None else layers
        check_shape(images)
        pixels = (self.preprocess if size is None else self.preprocess.at_size(size))(images)
        return self._read(network, pixels, layers)

    def _read(self, network: nn.Module, pixels: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """Outputs of layers of the network, or of its copy, as maps."""
        seen: dict[str, object] = {}

        def keep(module: nn.Module, args: tuple[object, ...], output: object, *, name: str) -> None:
            seen[name] = output

        modules = dict(network.named_modules())
        for name in layers:
            if name not in modules:
                raise KeyError(
                    f"layers names {name!r}, which {type(self.network).__name__} does not have; expected dotted names "
                    "of its modules. list_units(model) shows them."
                )
        handles = [modules[name].register_forward_hook(partial(keep, name=name)) for name in layers]
        try:
            network(pixels.contiguous(memory_format=torch.channels_last))
        finally:
            for handle in handles:
                handle.remove()
        return [_as_map(seen[name], name, self._arrangements.get(name)) for name in layers]

    def _fast(self) -> nn.Module:
        """The network with its batch norms folded into convolutions, made anew when its weights have changed."""
        weights = [*self.network.parameters(), *self.network.buffers()]
        state = [(weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights]
        if self._folded is None or self._folded[0] != state:
            draw = torch.Generator().manual_seed(0)
            example = torch.rand(2, 3, self.size, self.size, generator=draw).to(self.mean)
            with torch.inference_mode(False), torch.no_grad():  # gradients have to pass it later
                pixels = self.preprocess(example)
                copied = fused(self.network, lambda network: self._read(network, pixels, self.layers), self.layers)
            # In a tuple, it is no submodule, whose weights would be saved as well.
            self._folded = state, self.network if copied is None else copied
        return self._folded[1]

    def standardise(self, images: Tensor) -> Self:
        """Take means and standard deviations of the channels from these reference images, and a grid's components.

        Raises:
            ValueError: There are fewer than 2, or with a grid no more than components.
        """
        if len(images) < 2:
            raise ValueError(f"images holds {len(images)} image(s); expected at least 2 to standardise with.")
        if len(images) <= self.components:
            raise ValueError(
                f"images holds {len(images)} image(s); expected more than the {self.components} components of the "
                "grid. Give more images, or a smaller components=."
            )
        means, cells = [], []
        with torch.no_grad():
            for part in self._parts(images):
                maps = self.maps(part)
                means.append(_means(maps))
                cells.append([] if self.grid is None else self._cells(maps))
        values = torch.cat(means)
        if self.grid is not None:
            self._set_components([torch.cat(layer).double() for layer in zip(*cells, strict=True)], values.std(0))
        std = values.std(0)
        length = self.variances()[: len(self.mean)].sqrt().to(std)
        # A channel that never varies has nothing to say; it must not divide by nothing.
        weight = torch.where(std > 1e-6 * std.median(), length / std.clamp_min(1e-30), 0.0)
        self.mean, self.scale = values.mean(0).to(self.device), weight.to(self.device)
        return self

    def _parts(self, images: Tensor) -> Sequence[Tensor]:
        return images.to(self.device).split(self.batch_size)

    def _cells(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Deviations (N, C * cells) of each map's cells from their mean; maps between the first and the last."""
        pooled = [F.adaptive_avg_pool2d(maps[index], self.grid or 1) for index in self.grid_layers]
        return [(item - item.mean((2, 3), keepdim=True)).flatten(1).float() for item in pooled]

    def _set_components(self, layers: Sequence[Tensor], std: Tensor) -> None:
        """Principal components of deviations (N, C * cells) of cells, with channels standardised, layers alike.

        A channel's cells are divided by their own standard deviation, which is of the mean and of the deviations.
        """
        squares = (self.grid or 1) ** 2
        deviations = [std.double().split(self.channels)[index] for index in self.grid_layers]
        weights = []
        for cells, deviation in zip(layers, deviations, strict=True):
            spread = (deviation.square() + cells.var(0).unflatten(0, (-1, squares)).mean(1)).sqrt()
            weight = torch.where(spread > 1e-6 * spread.median(), cells.shape[1] ** -0.5 / spread, 0.0)
            weights.append(weight.repeat_interleave(squares))
        cells, weight = torch.cat(list(layers), 1), torch.cat(weights)
        centre = cells.mean(0)
        _, values, basis = torch.linalg.svd((cells - centre) * weight, full_matrices=False)
        basis, variances = basis[: self.components], values[: self.components].square() / (len(cells) - 1)
        basis = basis * basis.gather(1, basis.abs().argmax(1, keepdim=True)).sign()  # the same on every machine
        length = GRID_WEIGHT * (len(self.mean) / variances.sum()).sqrt()
        self.cell_mean = centre.to(self.cell_mean)
        self.cell_basis = (weight[:, None] * basis.T * length).to(self.cell_basis)
        self.cell_variance = (variances * length**2).to(self.cell_variance)

    def variances(self) -> Tensor:
        """(dim,) of an embedding's dimensions over the reference images: 1 of each mean on average, then the grid's."""
        share = torch.cat([torch.full((count,), 1 / count) for count in self.channels]) / len(self.channels)
        means = (share * len(share)).to(self.device)
        return means if self.grid is None else torch.cat([means, self.cell_variance])

    def forward(self, images: Tensor, *, size: int | None = None) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] to embeddings (N, dim), float32; gradients flow to the images.

        Args:
            size: Side in pixels at which the network sees them; None is the embedder's, which it is standardised for.
        """
        if bool(self.mean.isnan().any()):
            raise ValueError("this DepthEmbedder has no statistics yet; call standardise(reference images) first.")
        return torch.cat([self.from_maps(self.maps(part, size=size)) for part in self._parts(images)])

    def from_maps(self, maps: Sequence[Tensor]) -> Tensor:
        """Embeddings (N, dim) of what :meth:`maps` gave."""
        means = _limited((_means(maps) - self.mean) * self.scale, len(self.mean))
        if self.grid is None:
            return means
        cells = (torch.cat(self._cells(maps), 1) - self.cell_mean) @ self.cell_basis
        return torch.cat([means, _limited(cells, GRID_WEIGHT**2 * len(self.mean))], 1)

    def last_layers(self, x: Tensor, count: int = 2) -> Tensor:
        """Of embeddings (N, dim) what the last layers gave, (N, D): what pictures show, rather than how."""
        means = sum(self.channels)
        return x[:, means - sum(self.channels[-count:]) : means]

    def save_statistics(self, path: str | Path) -> Path:
        """Write what :meth:`standardise` learned, with layers, size and a fingerprint of the network's weights."""
        learned = {name: getattr(self, name).cpu() for name in self._learned()}
        if self.grid is not None:
            learned["cell_basis"] = learned["cell_basis"].half()
        return save_state(path, STATISTICS, {**self._identity(), **learned})

    def _learned(self) -> tuple[str, ...]:
        return ("mean", "scale") if self.grid is None else ("mean", "scale", "cell_mean", "cell_basis", "cell_variance")

    def load_statistics(self, path: str | Path) -> Self:
        """Read what :meth:`save_statistics` wrote.

        Raises:
            ValueError: It belongs to another network, other layers or another size.
        """
        state = load_state(path, STATISTICS)
        for name, value in self._identity().items():
            if type(state.get(name)) is not type(value) or state[name] != value:
                raise ValueError(
                    f"{name} of the statistics in {str(path)!r} is {state.get(name)!r}; expected {value!r}, this "
                    "embedder's. Call standardise with reference images instead."
                )
        with rebuilding(path, ", ".join(self._learned())):
            learned = {name: state[name].to(getattr(self, name)) for name in self._learned()}
            for name, value in learned.items():
                if value.shape != getattr(self, name).shape or not value.isfinite().all():
                    raise TypeError(f"{name} {tuple(value.shape)} of {self.dim} finite dimensions")
        for name, value in learned.items():
            setattr(self, name, value)
        return self

    def _identity(self) -> dict[str, Any]:
        weights = fingerprint(self.network.state_dict())
        identity = {"layers": list(self.layers), "size": self.size, "weights": weights}
        return identity if self.grid is None else {**identity, "grid": self.grid, "components": self.components}


def _means(maps: Sequence[Tensor]) -> Tensor:
    return torch.cat([item.mean((2, 3)) for item in maps], 1).float()


def _limited(x: Tensor, squared: float) -> Tensor:
    """Embeddings (N, D), none longer than LONGEST times the root of ``squared``."""
    return x * (LONGEST * math.sqrt(squared) / x.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1)


def _stages(network: nn.Module) -> tuple[str, ...]:
    blocks = getattr(network, "blocks", None)
    if not isinstance(blocks, nn.Sequential) or not hasattr(network, "conv_stem"):
        raise ValueError(
            f"layers=None, and {type(network).__name__} has no stages of EfficientNet's form; expected the names of "
            "the layers to embed with, early to late."
        )
    return tuple(f"blocks.{index}" for index in range(len(blocks)))


def _as_map(output: object, name: str, arrangement: Arrangement | None) -> Tensor:
    if isinstance(output, Tensor) and (arrangement is None or arrangement.folded == 1):
        output, layout = (output, None) if arrangement is None else (arrangement.arrange(output), arrangement.layout)
        if output.ndim == 4:
            return output.permute(0, 3, 1, 2) if layout == "NHWC" else output
        if output.ndim == 3:
            return (output if layout == "NCL" else output.transpose(1, 2))[..., None]
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    raise ValueError(
        f"layers: the output of {name!r} is {shape}; expected a map (N, C, H, W) or tokens (N, L, C) of whole images. "
        "Choose other layers."
    )
