"""One scorer for every picture of the comparison with other tools, whoever painted it."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.judges import channel_means, load_judge, load_squeezenet, nearest, seen_by
from benchmarks.common.networks import NETWORKS
from benchmarks.common.script import read
from benchmarks.peers.inside import job as peers_job
from benchmarks.peers.paint import cells
from benchmarks.peers.plan import LAYERS, OWN, WAYS, Photographs, Unit, cell_name

Features = Callable[[Tensor], Tensor]
Pair = tuple[str, int, int]  # layer, unit and seed
Row = dict[str, Any]  # A picture: `way`, `setting`, `layer`, `unit`, `seed`, what it cost, and its measures


def judge(bench: Photographs, weights: Path | None) -> tuple[str, Features]:
    """A network that is not the target, by name: images (N, 3, S, S) in [0, 1] to features (N, D) on the CPU."""
    if weights is not None and (weights / "vit_tiny64.safetensors").is_file():
        name, network = "vit_tiny64 (our own training on Tiny ImageNet, 64 px)", NETWORKS["vit_tiny64"]
        return name, partial(seen_by, network.build(bench.data, weights))
    return "a third party's ResNet-20 (CIFAR-10, 32 px)", partial(seen_by, load_judge(bench.data))


def find_cells(bench: Photographs, passes: int, units: Iterable[Unit], seeds: Iterable[int]) -> list[Row]:
    """All pictures that are done, of these units and seeds, with what is known of how they were made."""
    keys = [(name, setting) for name in WAYS for setting in (f"equal{passes}", "default")]
    keys += [(name, "own") for name in OWN]
    found = []
    for unit, seed, (way, setting) in itertools.product(units, seeds, keys):
        path = cells(bench.out) / f"{cell_name(way, setting, unit, seed)}.json"
        if path.is_file():
            kept = {"way": way, "setting": setting.rstrip("0123456789"), "picture": path.with_suffix(".png")}
            found.append({**read(path), **kept})
    return found


class Scorer:
    """Measures pictures against the held-out photographs, by features of a network that is not the target."""

    def __init__(self, bench: Photographs, features: Features) -> None:
        self.bench, self.features = bench, features
        self.photographs = features(bench.test)
        self.centre = self.photographs.mean(0)

    def score(self, rows: list[Row]) -> list[Row]:
        """The rows with their measures, and ``features`` and ``pixels``."""
        pictures = torch.stack([peers_job.read_picture(row["picture"]) for row in rows])
        responses, features = channel_means(self.bench.network, self.bench.layers, pictures), self.features(pictures)
        contrast, ranks = vl.relative_contrast(pictures), self._ranks(rows, pictures)
        near = self.near(features)
        transfers = {layer: self._transfer(layer, rows) for layer in dict.fromkeys(row["layer"] for row in rows)}
        scored = []
        for index, row in enumerate(rows):
            layer, unit = row["layer"], row["unit"]
            units, transfer = transfers[layer]
            place = units.index(unit)
            raw, natural = responses[layer][index, unit], self.bench.natural["test"][layer][:, unit]
            scored.append(
                {
                    **row,
                    **response_measures(raw, natural),
                    "near": float(near[index]),
                    "contrast": float(contrast[index]),
                    **({} if ranks is None else {"rank": ranks[index]}),
                    "transfer": float(transfer.standardised(pictures[[index]])[0, place]),
                    "transfer_worth": float(transfer.correlation_[place]),
                    "features": features[index],
                    "pixels": pictures[index],
                }
            )
        return scored

    @torch.no_grad()
    def _ranks(self, rows: list[Row], pictures: Tensor) -> list[int] | None:
        """Place of each picture's class among SqueezeNet's scores, from 1; None where units are no classes."""
        if self.bench.name == "squeezenet":
            return None
        other = load_squeezenet(self.bench.data)
        scores = torch.cat([other(other.preprocess(part)) for part in pictures.split(25)])
        wanted = torch.tensor([row["unit"] for row in rows])[:, None]
        return ((scores > scores.gather(1, wanted)).sum(1) + 1).tolist()

    def _transfer(self, layer: str, rows: list[Row]) -> tuple[list[int], vl.Transfer]:
        """What the other network knows of a layer's units that were painted for, learnt from tuning photographs."""
        units = sorted({row["unit"] for row in rows if row["layer"] == layer})
        known = self.bench.natural["tuning"][layer][:, units]
        return units, vl.Transfer(self.features).fit(self.bench.tuning, known)

    def near(self, features: Tensor) -> Tensor:
        """Mean cosine of each picture with its five nearest held-out photographs, around their mean: (N,)."""
        return nearest(features - self.centre, self.photographs - self.centre).mean(1)

    def of_set(self, rows: list[Row]) -> dict[str, float | None]:
        """What only several pictures have: spectrum, kernel distance, and how unlike one unit's pictures are."""
        features = torch.stack([row["features"] for row in rows])
        by_unit: dict[tuple[str, int], list[Tensor]] = {}
        for row in rows:
            by_unit.setdefault((row["layer"], row["unit"]), []).append(row["features"] - self.centre)
        spreads = [vl.diversity(torch.stack(part)) for part in by_unit.values() if len(part) > 1]
        return {
            "spectrum": vl.spectrum_distance(torch.stack([row["pixels"] for row in rows]), self.bench.test),
            "kernel": vl.kernel_distance(features, self.photographs) if len(rows) > 1 else None,
            "diversity": float(np.mean(spreads)) if spreads else None,
        }


def response_measures(raw: Tensor, natural: Tensor) -> dict[str, Any]:
    """A response (a number) in SDs of natural ones (M,) around their mean, its percentile, and whether it is none."""
    scaler = vl.ResponseScaler.fit(natural[:, None], ["unit"])
    return {
        "response": float(scaler.standardise(raw.view(1, 1))[0, 0]),
        "percentile": float(vl.percentile_among(raw.view(1), natural)[0]),
        "silent": bool(raw == 0),
    }


def complete(rows: list[Row], ways: Iterable[str]) -> list[Pair]:
    """(layer, unit, seed) that every one of the ways has, of those seeds that all units of the first seed have."""
    held = [{(row["layer"], row["unit"], row["seed"]) for row in rows if row["way"] == way} for way in ways]
    common = set.intersection(*held) if held else set()
    seeds = sorted({seed for *_, seed in common})
    units = {(layer, unit) for layer, unit, seed in common if seeds and seed == seeds[0]}
    full = [seed for seed in seeds if {(layer, unit) for layer, unit, other in common if other == seed} >= units]
    ordered = sorted(units, key=lambda one: ((*LAYERS, "classifier").index(one[0]), one[1]))
    return [(layer, unit, seed) for layer, unit in ordered for seed in full]


def grid(rows: list[Row], way: str, measure: str, pairs: list[Pair]) -> np.ndarray:
    """A measure of one way as (units, seeds)."""
    values = {(row["layer"], row["unit"], row["seed"]): row[measure] for row in rows if row["way"] == way}
    units = list(dict.fromkeys((layer, unit) for layer, unit, _ in pairs))
    seeds = list(dict.fromkeys(seed for *_, seed in pairs))
    return np.array([[values[layer, unit, seed] for seed in seeds] for layer, unit in units], dtype=float)


def difference(rows: list[Row], a: str, b: str, measure: str, pairs: list[Pair]) -> vl.Interval:
    """Interval of a measure's difference, a - b, on the same units and seeds."""
    return vl.paired_difference(grid(rows, a, measure, pairs), grid(rows, b, measure, pairs))


def versions(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """Place to package to the versions that painted."""
    seen: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        place = WAYS[row["way"]].place if row["way"] in WAYS else "ours"
        for package, number in row.get("versions", {}).items():
            kept = seen.setdefault(place, {}).setdefault(package, [])
            if number not in kept:
                kept.append(number)
    return seen
