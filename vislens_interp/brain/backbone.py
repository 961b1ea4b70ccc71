"""What an in-silico encoder reads: the outputs of all layers of a frozen network, as tokens on a coarse grid."""

import copy
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d

from vislens_interp import zoo
from vislens_interp.backends.cache import RowCache, weights_fingerprint
from vislens_interp.brain.responses import as_names
from vislens_interp.files import fingerprint
from vislens_interp.images import ImageFiles, check_shape
from vislens_interp.preprocess import (
    Preprocess,
    as_preprocess,
    describe_preprocess,
    preprocess_for,
    preprocess_size,
)
from vislens_interp.progress import tqdm
from vislens_interp.targets.inspect import LayerInfo, list_units
from vislens_interp.validation import check_counts, closest

DINOV2 = "vit_base_patch14_dinov2.lvd142m"
"""The paper's backbone, by timm's name; 346 MB, which timm downloads."""

GRID = 6
BATCH = 32
_HEADS = {"classifier", "head", "heads", "fc", "head_drop", "global_pool"}


class Backbone(nn.Module):
    """A frozen network whose layers are read: images in [0, 1] to tokens, (N, tokens, channels) for each layer.

    Maps are averaged on a grid of at most ``grid`` x ``grid`` positions, and so are a transformer's patches; tokens
    before the patches are kept.

    Args:
        network: The network, which is copied and never changed; ``"zoo:NAME"``; or timm's name of one, whose weights
            timm finds.
        layers: Dotted names of the layers; None: the blocks, which are the children, with weights, of the network's
            outermost ``Sequential`` and ``ModuleList``, heads left out.
        preprocess: As for :class:`~vislens_interp.targets.target.LayerTarget`; None asks the network.

    Attributes:
        layers, shapes: Names of the layers, in the order of the pass, and (tokens, channels) of each.
        size: Side in pixels of what the network sees.

    Raises:
        KeyError, ValueError: There is no such network, no layer can be read, or not one that was named.

    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))
    >>> Backbone(network, preprocess=Preprocess(16, [0.5], [0.5]), grid=2).shapes
    [(4, 4), (4, 5)]
    """

    def __init__(
        self,
        network: nn.Module | str,
        layers: Sequence[str] | None = None,
        *,
        preprocess: object = None,
        grid: int = GRID,
    ) -> None:
        super().__init__()
        check_counts(grid=grid)
        self.source = network if isinstance(network, str) else type(network).__name__
        if isinstance(network, str):
            network = _by_name(network)
        self.prepare = preprocess_for(network) if preprocess is None else as_preprocess(preprocess)
        size = preprocess_size(self.prepare)
        if size is None:
            raise ValueError(
                f"preprocess of {self.source} does not say a size; expected the side in pixels of its input. Pass "
                "preprocess=Preprocess(size, mean, std)."
            )
        self.size, self.grid = size, grid
        known = {info.name: info for info in list_units(network, preprocess=self.prepare)}
        names = _blocks(network, known) if layers is None else as_names(layers, "layers")
        for name in names:
            if name not in known or known[name].layout is None:
                why = "not there" if name not in known else "of unknown layout"
                raise ValueError(
                    f"layers: {name!r} of {self.source} is {why}; expected layers such as "
                    f"{', '.join(list(known)[1:4])}. list_units(network) shows all."
                )
        if not names:
            raise ValueError(
                f"layers=None, and {self.source} has no Sequential or ModuleList of layers that can be read; expected "
                "names. Pass layers=[...]; list_units(network) shows all."
            )
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.layers = names
        self._infos = [known[name] for name in names]
        with torch.no_grad():
            tokens = self(torch.zeros(1, 3, size, size, device=self.device))
        self.shapes = [(one.shape[1], one.shape[2]) for one in tokens]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(iter([*self.network.parameters(), *self.network.buffers(), torch.empty(0)])).device

    def train(self, mode: bool = True) -> Self:
        """It stays in evaluation mode, whatever it is a part of."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) in [0, 1] to (N, tokens, channels) of each layer; gradients flow to the images."""
        check_shape(images)
        seen: dict[str, Tensor] = {}
        with ExitStack() as hooks:
            for info in self._infos:
                hook = self.network.get_submodule(info.name).register_forward_hook(
                    # Read at once: a ReLU(inplace=True) further on would overwrite it.
                    lambda module, args, output, info=info: seen.update({info.name: _tokens(output, info, self.grid)})
                )
                hooks.callback(hook.remove)
            self.network(self.prepare(images.to(self.device)))
        return [seen[name] for name in self.layers]

    def read(
        self, images: Tensor | ImageFiles, *, cache: str | Path | None = None, progress: bool = False
    ) -> "Features":
        """All layers of many images, computed once and kept in memory, or in the folder ``cache`` by image content.

        Args:
            images: (N, 3, H, W) in [0, 1], or files.
            cache: Folder that later runs read; None keeps them in memory.
        """
        if cache is not None:
            size = None if isinstance(images, Tensor) else images.size
            key = self.key() if size is None else f"{self.key()}-{size}"
            store = RowCache(cache, "backbone", key, rows_per_file=256)
            source = images if isinstance(images, Tensor) else images.paths
            rows = store.rows(source, self._rows, size=size, batch_size=BATCH, progress=progress)
            return Features(rows.tensor(), self.shapes)
        parts = tqdm(images.split(BATCH), desc="features", unit="batch", disable=not progress)
        with torch.no_grad():
            return Features(torch.cat([self._rows(part) for part in parts]), self.shapes)

    def _rows(self, images: Tensor) -> Tensor:
        """Every layer of an image in one row, in half precision: what features are kept in."""
        layers = self(images)
        rows = torch.cat([tokens.flatten(1) for tokens in layers], 1).half().cpu()
        if not rows.isfinite().all():
            wrong = [name for name, one in zip(self.layers, layers, strict=True) if not one.half().isfinite().all()]
            raise ValueError(
                f"layers: {', '.join(map(repr, wrong))} of {self.source} give NaN or more than 65,504, the largest "
                "number that features are kept with; expected less. Pass layers= without them."
            )
        return rows

    def fingerprint(self) -> str:
        """A short hash of the network's weights."""
        return fingerprint(self.network.state_dict())

    def key(self) -> str:
        """A short hash of all that decides the features."""
        said = describe_preprocess(self.prepare)
        if not isinstance(self.prepare, Preprocess):  # two may have one name: by what it makes of a picture
            picture = torch.rand(1, 3, self.size, self.size, generator=torch.Generator().manual_seed(0))
            said += f" {fingerprint({'made': self.prepare(picture.to(self.device))})}"
        return weights_fingerprint(self.network, layers=self.layers, grid=self.grid, preprocess=said)


class Features:
    """Tokens of every layer for N images, kept in half precision, given in single.

    Args:
        rows: (N, sum of tokens x channels).
        shapes: (tokens, channels) of each layer.
    """

    def __init__(self, rows: Tensor, shapes: list[tuple[int, int]]) -> None:
        self.rows, self.shapes = rows, shapes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: Tensor) -> list[Tensor]:
        """(n, tokens, channels) of each layer, for some images."""
        return [self.layer(number, places) for number in range(len(self.shapes))]

    def layer(self, number: int, places: Tensor | None = None) -> Tensor:
        """(n, tokens, channels) of one layer; all images if ``places`` is None."""
        start = sum(tokens * channels for tokens, channels in self.shapes[:number])
        tokens, channels = self.shapes[number]
        rows = self.rows[:, start : start + tokens * channels]
        rows = rows if places is None else rows[places]
        return rows.float().unflatten(1, (tokens, channels))


def _by_name(name: str) -> nn.Module:
    """``"zoo:NAME"``, or what timm calls so, with its weights."""
    if name.startswith("zoo:"):
        return zoo.load(name.removeprefix("zoo:"))
    import timm

    if ":" not in name and not timm.is_model(name.split(".")[0]):  # timm also takes hf-hub:NAME and the like
        known = [f"zoo:{one}" for one in zoo.available()] + timm.list_models()
        remedy = closest(name, known, otherwise=None) or "timm.list_models() shows all."
        raise ValueError(f"backbone={name!r} is unknown; expected timm's name of a network, or zoo:NAME. {remedy}")
    return timm.create_model(name, pretrained=True)


def _blocks(network: nn.Module, known: dict[str, LayerInfo]) -> list[str]:
    """Children, with weights and of known layout, of the outermost containers."""
    found: list[str] = []

    def visit(module: nn.Module, name: str) -> None:
        for child_name, child in module.named_children():
            path = f"{name}.{child_name}".lstrip(".")
            if child_name in _HEADS:
                continue
            if isinstance(module, (nn.Sequential, nn.ModuleList)):
                info = known.get(path)
                if info is not None and info.layout is not None and next(child.parameters(), None) is not None:
                    found.append(path)
            elif not name or isinstance(child, (nn.Sequential, nn.ModuleList)):
                visit(child, path)

    visit(network, "")
    return found


def _tokens(output: Tensor | Iterable[object], info: LayerInfo, grid: int) -> Tensor:
    """A layer's output, of the layout that was established, as (N, tokens, channels)."""
    if not isinstance(output, Tensor):
        output = next(part for part in output if isinstance(part, Tensor))
    assert info.arrangement is not None  # a layer of unknown layout is refused
    output = info.arrangement.arrange(output)
    if info.layout == "NC":
        return output[:, None]
    if info.layout == "NCL":
        return adaptive_avg_pool1d(output, min(grid * grid, output.shape[2])).transpose(1, 2)
    if info.layout == "NLC":
        prefix = info.prefix or 0
        patches = output[:, prefix:].transpose(1, 2)
        side = round(patches.shape[2] ** 0.5)
        if side * side != patches.shape[2]:
            return torch.cat([output[:, :prefix], adaptive_avg_pool1d(patches, min(grid**2, patches.shape[2])).mT], 1)
        return torch.cat([output[:, :prefix], _grid(patches.unflatten(2, (side, side)), grid)], 1)
    return _grid(output if info.layout == "NCHW" else output.permute(0, 3, 1, 2), grid)


def _grid(maps: Tensor, grid: int) -> Tensor:
    height, width = maps.shape[2:]
    return adaptive_avg_pool2d(maps, (min(grid, height), min(grid, width))).flatten(2).transpose(1, 2)
