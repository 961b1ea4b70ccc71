"""Images, responses, networks and the backend of `ann_units`, each made once a process and kept on the disk."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.judges import seen_by
from benchmarks.common.networks import NETWORKS, TUNING_UNITS, alive, load_units
from benchmarks.common.photographs import photographs
from benchmarks.common.script import shuffled


class Bench:
    """Photographs, networks and their responses, each read once and kept below ``out/cache``.

    Methods learn from the reference photographs that ship; those at odd places of ``imagenet500`` are edited and judge.
    """

    def __init__(self, data: Path, weights: Path, out: Path, device: str = "cpu") -> None:
        self.data, self.weights, self.out, self.device = data, weights, out, torch.device(device)
        self.cache = out / "cache"
        self.backend: Any = vl.get_backend("embedded", device=self.device, cache=self.cache)
        self.reference_set: Any = vl.ReferenceSet.of_backend(self.backend)
        self.reference: Tensor = self.reference_set.images[:]
        # In one fixed order that is not the classes', so that the first few are of all kinds.
        test = photographs(data, 1)[0]
        self.test = vl.pixels(test[shuffled(len(test), 1)])
        self.networks: dict[str, Any] = {}

    def present(self) -> list[str]:
        """Networks whose weights are there."""
        return [name for name, one in NETWORKS.items() if one.file is None or (self.weights / one.file).is_file()]

    def network(self, name: str) -> Any:
        if name not in self.networks:
            self.networks[name] = NETWORKS[name].build(self.data, self.weights).to(self.device)
        return self.networks[name]

    def target(self, name: str, layer: str, units: list[int]) -> vl.LayerTarget:
        return vl.LayerTarget(self.network(name), layer, units, batch_size=64)

    def responses(self, name: str, layer: str, images: Tensor) -> Tensor:
        """Responses of all candidates of a layer (N, C), in the order of the file."""
        candidates, network = load_units()[name][layer], self.network(name)
        kind = f"{name}-{layer}-{network.preprocess.size}px"  # the size is part of what a response is, and of no weight
        store = vl.RowCache(self.cache, kind, vl.weights_fingerprint(network, units=candidates))
        target = self.target(name, layer, candidates)
        return store.rows(images, target, batch_size=64, progress=True).tensor().clone()

    def units(self, name: str, layer: str, count: int) -> list[int]:
        """Columns of :meth:`responses` to use: test units that are alive on the reference set."""
        reference = self.responses(name, layer, self.reference)
        usable = alive(reference) & (reference.std(0) > 1e-6)
        first = min(TUNING_UNITS, reference.shape[1] // 2)
        return [column for column in range(first, reference.shape[1]) if usable[column]][:count]


class Seen:
    """Pooled features of a network's last layer; those of the images that every cell shares are kept on the disk."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.network, self.cache, self.name = bench.network(name), bench.cache, name
        self.known: dict[str, Tensor] = {}

    def learn(self, images: Tensor) -> None:
        """Read these from the disk, or put them there."""
        store = vl.RowCache(self.cache, f"seen-{self.name}", vl.weights_fingerprint(self.network))
        rows = store.rows(images, partial(seen_by, self.network), batch_size=50, progress=True).tensor()
        self.known |= dict(zip(vl.image_keys(images), rows.clone(), strict=True))

    def __call__(self, images: Tensor) -> Tensor:
        keys = vl.image_keys(images)
        new = [row for row, key in enumerate(keys) if key not in self.known]
        found = dict(zip([keys[row] for row in new], seen_by(self.network, images[new]), strict=True)) if new else {}
        return torch.stack([found[key] if key in found else self.known[key] for key in keys])
