"""Images, responses, embedder, judges and backends, each made once a process."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.common import package as vl
from benchmarks.common.judges import CifarResNet
from benchmarks.common.networks import ALIVE, NETWORKS, TUNING_UNITS, load_units

REFERENCE_IMAGES = 4000
SIZE = 64
"""Pixels of the pictures that are made: what Tiny-ImageNet has."""
NEAREST = 5


class Remembered:
    """The embedder, which keeps what it made of the images that every fit and every edit begins with."""

    def __init__(self, embedder: Any) -> None:
        self.embedder, self.dim, self.size, self.device = embedder, embedder.dim, embedder.size, embedder.device
        self.known: list[tuple[Tensor, Tensor]] = []

    def __call__(self, images: Tensor) -> Tensor:
        for seen, x in self.known:
            if seen is images:
                return x
        with torch.no_grad():
            return self.embedder(images)


class Recorded(vl.Target):
    """Units whose responses are all known beforehand."""

    differentiable = False

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __call__(self, images: Tensor) -> Tensor:
        raise TypeError("these responses were read beforehand; pass them to fit.")


class Bench:
    """Images, embeddings, networks and their responses, each read once and kept below ``out/cache``."""

    def __init__(self, data: Path, weights: Path, out: Path, device: str = "cpu") -> None:
        self.data, self.weights, self.out, self.device = data, weights, out, torch.device(device)
        self.cache = out / "cache"
        self.reference, self.tuning, self.test = self._images()
        self.backend: Any = vl.get_backend("embedded", device=self.device, size=SIZE)
        self.embedder = self.backend.embedder = Remembered(self.backend.embedder)
        self.networks: dict[str, Any] = {}

    def _images(self) -> tuple[Tensor, Tensor, Tensor]:
        file = self.cache / "images.safetensors"
        if not file.is_file():
            self.cache.mkdir(parents=True, exist_ok=True)
            train = torch.cat([vl.read_images(self.imagenet / f"train_{part}.zip", SIZE)[0] for part in (0, 1)])
            rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:REFERENCE_IMAGES]
            held_out = vl.read_images(self.imagenet / "val.zip", 64)[0]
            tensors = {"reference": train[rows].contiguous(), "held_out": held_out.contiguous()}
            vl.write_atomically(file, lambda temporary: save_file(tensors, temporary))
        stored = load_file(file)
        # In one fixed order that is not the classes', so that the first few hundred are of all kinds.
        order = torch.randperm(len(stored["held_out"]) // 2, generator=torch.Generator().manual_seed(1))
        even, odd = stored["held_out"][0::2][order], stored["held_out"][1::2][order]
        return vl.pixels(stored["reference"]), vl.pixels(even), vl.pixels(odd)

    @property
    def imagenet(self) -> Path:
        return self.data / "tiny_imagenet"

    @cached_property
    def labels(self) -> dict[str, Tensor]:
        """Labels of the test images, in their order."""
        labels = vl.read_images(self.imagenet / "val.zip", 64)[1]
        order = torch.randperm(len(labels) // 2, generator=torch.Generator().manual_seed(1))
        return {"test": labels[1::2][order]}

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings from the cache; the embedder remembers them for this very tensor, and the last few others."""
        for seen, x in self.embedder.known:
            if seen is images:
                return x
        store = vl.RowCache(self.cache, "embeddings", vl.weights_fingerprint(self.embedder.embedder))
        x = store.rows(images, self.embedder, batch_size=100, progress=True).tensor().clone().to(self.device)
        self.embedder.known = [*self.embedder.known[-3:], (images, x)]
        return x

    def present(self) -> list[str]:
        """Networks whose weights are there."""
        return [
            name
            for name, network in NETWORKS.items()
            if network.file is None or (self.weights / network.file).is_file()
        ]

    def network(self, name: str) -> Any:
        if name not in self.networks:
            self.networks[name] = NETWORKS[name].build(self.data, self.weights).to(self.device)
        return self.networks[name]

    def target(self, name: str, layer: str, units: list[int]) -> vl.LayerTarget:
        return vl.LayerTarget(self.network(name), layer, units, batch_size=64)

    def responses(self, name: str, layer: str, images: Tensor) -> Tensor:
        """Responses of all candidates of a layer (N, C), in the order of the file."""
        candidates = load_units()[name][layer]
        target = self.target(name, layer, candidates)
        pixels_ = self.network(name).preprocess.size  # part of what a response is, and of no weight
        store = vl.RowCache(
            self.cache, f"{name}-{layer}-{pixels_}px", vl.weights_fingerprint(self.network(name), units=candidates)
        )
        return store.rows(images, target, batch_size=64, progress=True).tensor().clone()

    def units(self, name: str, layer: str, reference: Tensor, *, tune: bool, count: int) -> list[int]:
        """Columns of :meth:`responses` to use: tuning units, or test units, that are alive on the reference set."""
        first = min(TUNING_UNITS, reference.shape[1] // 2)
        columns = range(first) if tune else range(first, reference.shape[1])
        usual = reference.mode(0).values
        alive = ((reference != usual).double().mean(0) >= ALIVE) & (reference.std(0) > 1e-6)
        return [column for column in columns if alive[column]][:count]

    def judge(self, name: str) -> Any:
        """What sees similarity and realism for this target: ``features`` of a network that is not the target."""
        other = NETWORKS[name].judge
        if other not in self.networks:
            self.networks[other] = NETWORKS[other].build(self.data, self.weights).to(self.device)
        return self.networks[other]


def unit_rows(x: Tensor) -> Tensor:
    return normalize(x.float(), dim=1)


def nearest(x: Tensor, gallery: Tensor, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Cosines and rows, (N, 5) each, of the five embeddings of a gallery that are nearest to x.

    Args:
        x: (N, D).
        gallery: (M, D).
        own: (N,) rows that do not count, for they are the images that x was made from.
    """
    cosine = unit_rows(x) @ unit_rows(gallery).T
    if own is not None:
        cosine[torch.arange(len(x)), own] = -2.0
    found = cosine.topk(NEAREST, dim=1)
    return found.values, found.indices


def rounded(values: Tensor, digits: int = 4) -> list[float]:
    return [round(value, digits) for value in values.double().cpu().tolist()]


@torch.no_grad()
def seen_by(judge: Any, images: Tensor) -> Tensor:
    """Features (N, D), on the CPU, of a network that judges."""
    if isinstance(judge, CifarResNet):
        return judge.features(vl.resize(images, 32))
    device = next(judge.parameters()).device
    return torch.cat(
        [judge.features(judge.preprocess(part.to(device))).mean((2, 3)).cpu() for part in images.split(50)]
    )
