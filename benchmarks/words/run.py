"""Words of edits whose truth is known: class scores of EfficientNet-Lite2, and the classes that drive its channels.

    python -m benchmarks.words.run --data DIR --out DIR [--tune]

Images, classes and units that tune are others than those that test: even and odd files, two halves of a fixed shuffle
of the classes and of each layer's units.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.judges import data_folder
from benchmarks.common.photographs import listed, photographs, read_zip
from benchmarks.common.script import parse, parser, provenance, publish, save_tensors, shuffled, shuffled_half
from benchmarks.pictures.run import interval, tiny_classes
from benchmarks.words.report import findings_of, page

PER_CLASS = 2  # images of each of Tiny ImageNet's 200 classes
CLASSES, UNITS = 100, 24  # class scores, and channels of each layer, that are looked at
FIRST = 5  # words among which the right class should be
DRIVING = 10  # held-out classes with the largest mean response: what the words should find
LAYERS = ("blocks.3", "blocks.5")
TARGET = "efficientnet_lite2"


def images_of(data: Path, parity: int) -> tuple[Tensor, Tensor]:
    """Photographs (N, 3, 224, 224) uint8 of one parity, those of Tiny ImageNet enlarged, and ImageNet's numbers."""
    photos, classes = photographs(data, parity)
    path, by_class = data / "tiny_imagenet" / "val.zip", {}
    for name in listed(path)[parity::2]:
        by_class.setdefault(name.split("/")[-2], []).append(name)
    names = [name for word in sorted(by_class) for name in by_class[word][:PER_CLASS]]
    numbers, places = tiny_classes(data, [name.split("/")[-2] for name in names])
    small = vl.resize(read_zip(path, names).float() / 255, 224).clamp(0, 1)
    return torch.cat([photos, (small * 255).round().byte()]), torch.cat([classes, numbers[places]])


def read_all(images: Tensor, file: Path) -> dict[str, Tensor]:
    """Embeddings, class scores and channel means of the target's layers, read once and kept in a file."""
    if not file.is_file():
        network, backend = vl.zoo.load(TARGET).to(memory_format=torch.channels_last), vl.get_backend("embedded")
        parts: dict[str, list[Tensor]] = {"x": [], "scores": [], **{layer: [] for layer in LAYERS}}
        means: dict[str, Tensor] = {}
        for layer in LAYERS:
            network.get_submodule(layer).register_forward_hook(
                lambda module, given, output, layer=layer: means.__setitem__(layer, output.mean((2, 3)))
            )
        for part in images.split(32):
            pixels = part.float() / 255
            with torch.no_grad():
                scores = network(network.preprocess(pixels).contiguous(memory_format=torch.channels_last))
            found = {"x": backend.encode(pixels), "scores": scores, **means}
            for key, value in found.items():
                parts[key].append(value)
        save_tensors(file, {key: torch.cat(value) for key, value in parts.items()})
    return load_file(file)


def axes_of(x: Tensor, response: Tensor, seed: int, cache: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """A unit's axis (1, D) in its landscape, and those in the shuffled ones (S, D)."""
    backend = vl.get_backend("embedded")
    target = vl.CallableTarget(lambda images: images.mean((1, 2, 3)), names=["unit"])
    if "reference" not in cache:
        cache["reference"] = vl.ReferenceSet(torch.zeros(len(x), 3, 1, 1))
        cache["reference"].embeddings = lambda backend: x
        cache["reference"]._groups = [torch.arange(len(x))]
    method = vl.LandscapeEdit(goal="mean", seed=seed)
    method.fit(target, backend, cache["reference"].with_responses(response[:, None]))
    return method.landscape_.axes(), method.shuffled_axes[:, 0]


def class_scores(found: dict[str, Tensor], classes: list[int], seed: int) -> dict[str, Any]:
    """Rank of the right word among all, for each class score, and in its shuffled landscapes."""
    readout, cache, ranks, chances = vl.readout_of(vl.get_backend("embedded")), {}, [], []
    for number in classes:
        real, chance = axes_of(found["x"], found["scores"][:, number], seed, cache)
        scores = readout.scores(torch.cat([real, chance]), found["x"])
        rank = (scores > scores[:, [number]]).sum(1) + 1
        ranks.append(rank[0].item())
        chances.append((rank[1:] <= FIRST).double().mean().item())
    right = torch.tensor(ranks) <= FIRST
    return {
        "classes": len(classes),
        "right": interval(right.double()),
        "first": interval((torch.tensor(ranks) == 1).double()),
        "shuffled": interval(torch.tensor(chances)),
        "ranks": ranks,
    }


def channels(found: dict[str, Tensor], numbers: Tensor, held_out: list[int], layer: str, units: list[int], seed: int):
    """How well words of a channel predict which classes drive it, of classes that its fit has not seen."""
    readout, cache = vl.readout_of(vl.get_backend("embedded")), {}
    seen = ~torch.isin(numbers, torch.tensor(held_out))
    x, rows, once = found["x"][seen], [], torch.ones(1, len(held_out), dtype=torch.float64)
    for unit in units:
        response = found[layer][:, unit]
        real, chance = axes_of(x, response[seen], seed, cache)
        scores = readout.scores(torch.cat([real, chance]), x)[:, held_out]
        truth = torch.stack([response[numbers == number].mean() for number in held_out])
        wanted = torch.zeros(len(held_out), dtype=torch.bool)
        wanted[truth.topk(DRIVING).indices] = True
        precision = [vl.average_precision(row, wanted, once).item() for row in scores]
        r = vl.pearson(scores.T.double(), truth[:, None].double().expand(-1, len(scores))).tolist()
        rows.append([precision[0], sum(precision[1:]) / len(chance), r[0], sum(r[1:]) / len(chance)])
    table = torch.tensor(rows).double()
    names = ("AUPRC", "AUPRC, shuffled", "correlation", "correlation, shuffled")
    gap = {"AUPRC above shuffled": interval(table[:, 0] - table[:, 1])}
    return {"units": len(units), **{name: interval(table[:, at]) for at, name in enumerate(names)}, **gap}


def main() -> None:
    command = parser(__doc__, "--data", "--out", "--seed", "--threads")
    command.add_argument("--tune", action="store_true", help="on tuning images, classes and units")
    args = parse(command)
    data, parity = data_folder(args.data), 0 if args.tune else 1
    images, numbers = images_of(data, parity)
    found = read_all(images, args.out / f"responses-{parity}.safetensors")
    held = torch.unique(numbers)
    order = held[shuffled(len(held), 11)].tolist()
    half = set(shuffled_half(1000, 12, parity).tolist())
    classes = [number for number in order if number in half][:CLASSES]
    measures: dict[str, Any] = {"images": len(images), "class scores": class_scores(found, classes, args.seed)}
    print(json.dumps(measures), flush=True)
    small = torch.unique(numbers[len(photographs(data, parity)[1]) :])
    held_out = small[shuffled(len(small), 13)][:100].tolist()
    for layer in LAYERS:
        units = shuffled_half(found[layer].shape[1], 14, parity)[:UNITS].tolist()
        measures[layer] = channels(found, numbers, held_out, layer, units, args.seed)
        print(layer, json.dumps(measures[layer]), flush=True)
    name = "words-tuning" if args.tune else "words"
    source = provenance(seed=args.seed)
    found_aims = {"provenance": source, "measures_of": measures, **findings_of(measures)}
    publish(args.out / name, page(measures, source), found_aims)


if __name__ == "__main__":
    main()
