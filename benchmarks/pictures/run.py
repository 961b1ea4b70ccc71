"""Can a reader name what the embedded backend draws, and do its edits move units that it never asks?

Judges have no part in making the pictures: EfficientNet-Lite0 embeds and judges nothing; Lite2 names, and judges the
realism of SqueezeNet's edits; SqueezeNet judges the realism of Lite2's. Tuning photographs and images stand at even
places of the sorted lists, test ones at odd places. Every unit's record is a file of its own, so that a run resumes.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from safetensors.torch import load_file
from timm.data import ImageNetInfo
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.common import package as vl
from benchmarks.common.edit_methods import SIGN
from benchmarks.common.judges import channel_means, data_folder
from benchmarks.common.photographs import listed, photographs, read_zip
from benchmarks.common.script import parse, parser, provenance, read, save_tensors, shuffled, shuffled_half
from benchmarks.common.v4_sessions import load_session
from benchmarks.pictures.report import PROTOTYPES_ROOM, ROOM, write
from vislens_interp.backends.embedded import INPUT, NETWORK
from vislens_interp.copies import top_rows

LAYERS = {
    "lite2": {"early": "blocks.1", "middle": "blocks.3", "deep": "blocks.5"},
    "squeezenet": {"early": "features.4", "middle": "features.7", "deep": "features.12"},
}
METHODS: dict[str, tuple[str, float | None, str]] = {
    "edit": ("edit", None, "inputs"),
    "edit, alpha 0.3": ("edit", 0.3, "inputs"),
    "ridge_direction": ("ridge_direction", None, "inputs"),
    "shuffled": ("shuffled", None, "inputs"),
    "natural, edited": ("edit", None, "natural"),
    "prototypes, edited": ("edit", None, "prototypes"),
    "other prototypes, edited": ("edit", None, "other prototypes"),
    "prototypes, shuffled": ("shuffled", None, "prototypes"),
    "other prototypes, shuffled": ("shuffled", None, "other prototypes"),
}
"""Method, weight of the edit (None is its own), and what it starts from, at strength 0.

"natural" are the crops of the reference set that drive a unit most (and, to decrease, least), "prototypes" those that
were chosen for what their likeness tells (method ``prototypes``), "other prototypes" those of the other side."""
DEFAULT = {
    "default": ("prototypes, edited", "other prototypes, edited"),
    "default, shuffled": ("prototypes, shuffled", "other prototypes, shuffled"),
}
"""What ``visualize()`` moves without inputs, prototypes of both sides either way, is made of these."""
UNEDITED = ("natural", "prototypes")
READ = ("edit", "prototypes, edited")
"""What readers are shown, beside photographs."""
JUDGE = {"lite2": "squeezenet", "squeezenet": "lite2"}
PHOTOS, UNITS, INPUTS = 4, 8, 96
"""Photographs that are edited for each unit, units of each layer, and photographs that may be edited."""


def embedded_reference() -> vl.ReferenceSet:
    reference = vl.ReferenceSet.of_backend(vl.get_backend("embedded"))
    assert reference is not None
    return reference


def networks() -> dict[str, nn.Module]:
    """The two judges, with their preprocessing."""
    return {"lite2": vl.zoo.load("efficientnet_lite2"), "squeezenet": vl.zoo.load("squeezenet1_0")}


def tiny(data: Path, part: str, count: int, *, parity: int | None = None, seed: int = 0) -> tuple[Tensor, list[str]]:
    """A random draw of 64-pixel images (N, 3, 64, 64) uint8, and their WordNet ids."""
    path = data / "tiny_imagenet" / f"{part}.zip"
    names = listed(path) if parity is None else listed(path)[parity::2]
    order = shuffled(len(names), seed)[:count].sort().values
    names = [names[row] for row in order]
    return read_zip(path, names), [name.split("/")[-2] for name in names]


def inputs_and_others(data: Path, parity: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Photographs (N, 3, 224, 224) that may be edited, others that no method is given, and the classes of these."""
    images, classes = photographs(data, parity)
    order = shuffled(len(images), seed + 1)
    inputs, others = (images[rows].float() / 255 for rows in (order[:INPUTS], order[INPUTS:]))
    return inputs, others, classes[order[INPUTS:]]


@torch.no_grad()
def scores(net: nn.Module, images: Tensor, classes: Tensor | slice = slice(None)) -> Tensor:
    preprocess: Any = net.preprocess
    return torch.cat([net(preprocess(part)) for part in images.split(20)])[:, classes]


def tiny_classes(data: Path, words: list[str]) -> tuple[Tensor, Tensor]:
    """ImageNet's numbers of Tiny ImageNet's 200 classes, and the place of each word among them."""
    info = ImageNetInfo("imagenet-1k").label_names()
    known = sorted(read(data / "tiny_imagenet" / "classes.json"))
    return torch.tensor([info.index(word) for word in known]), torch.tensor([known.index(word) for word in words])


def eight_bits(images: Tensor) -> Tensor:
    return (images * 255).round() / 255


@torch.no_grad()
def features(name: str, net: nn.Module, images: Tensor) -> Tensor:
    """Pooled last features, (N, D)."""
    network: Any = net
    last = network.forward_features if name == "lite2" else network.features
    return torch.cat([last(network.preprocess(part)).mean((2, 3)) for part in images.split(20)])


def interval(values: Tensor) -> list[float]:
    """95 % bootstrap interval of the mean over the first axis: units, or images where there are no units."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, len(values), (2000, len(values)), generator=generator)
    low, high = values[rows].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return [values.mean().item(), low, high]


def share(hits: Tensor) -> list[float]:
    return interval(hits.double())


def named(data: Path, nets: dict[str, nn.Module], seed: int) -> dict[str, Any]:
    """Unedited pictures: how many does a network name?"""
    images, labels = photographs(data, 1)
    photos = images.float() / 255
    loop = vl.get_backend("embedded").closed_loop
    found: dict[str, Any] = {"photographs": len(photos)}
    found["originals"] = {name: share(scores(net, photos).argmax(1) == labels) for name, net in nets.items()}
    for strength in (0.0, 0.2, 0.4, 0.6):
        made = eight_bits(loop.reconstruct(photos, strength))
        psnr = -10 * (made - photos).square().mean((1, 2, 3)).log10()
        found[f"strength {strength}" if strength else "all maps"] = {
            "psnr": interval(psnr),
            **{name: share(scores(net, made).argmax(1) == labels) for name, net in nets.items()},
        }
    small, words = tiny(data, "val", 1000, parity=1, seed=seed)
    classes, wanted = tiny_classes(data, words)
    x = small.float() / 255
    at64 = vl.get_backend("embedded", size=64).closed_loop
    found["64 px"] = {"images": len(x), "originals": share(scores(nets["lite2"], x, classes).argmax(1) == wanted)}
    for strength in (0.0, 0.2):
        seen = scores(nets["lite2"], eight_bits(at64.reconstruct(x, strength)), classes)
        found["64 px"][f"strength {strength}" if strength else "all maps"] = share(seen.argmax(1) == wanted)
    return found


def alone(data: Path, nets: dict[str, nn.Module], seed: int, count: int = 96) -> dict[str, Any]:
    """Pictures from the channel means alone, at 64 px: no input image, no trained generator."""
    loop = vl.get_backend("embedded", size=64).closed_loop
    images, words = tiny(data, "val", count, parity=1, seed=seed)
    classes, wanted = tiny_classes(data, words)
    x = images.float() / 255
    with torch.no_grad():
        asked = loop.embedder(x)
    made = loop.draw(asked, list(range(len(x))))
    ranks = scores(nets["lite2"], made, classes).argsort(1, descending=True) == wanted[:, None]
    place = ranks.float().argmax(1)
    return {
        "images": count,
        "originals": share(scores(nets["lite2"], x, classes).argmax(1) == wanted),
        "named": share(place == 0),
        "top 5": share(place < 5),
    }


def read_out(x: Tensor, y: Tensor, held_out: Tensor, truth: Tensor) -> list[float]:
    """Correlation of a ridge read-out's predictions with held-out responses: mean over units, its ends, and median."""
    weights = vl.ridge_gcv(x - x.mean(0), y - y.mean(0))
    r = vl.pearson((held_out - x.mean(0)) @ weights, truth)[truth.std(0) > 0]
    return [*interval(r), r.median().item()]


def embedding(data: Path, nets: dict[str, nn.Module], seed: int) -> dict[str, Any]:
    """Median held-out correlation of a ridge read-out with all units of SqueezeNet; both see 64-px images at 128 px."""
    learn = tiny(data, "train_0", 3000, seed=seed)[0].float() / 255
    test = tiny(data, "val", 1000, parity=1, seed=seed)[0].float() / 255
    embedder = vl.DepthEmbedder(vl.zoo.load(NETWORK), size=INPUT).standardise(learn)
    with torch.no_grad():
        x, held = embedder(learn).double(), embedder(test).double()
    network = vl.zoo.load("squeezenet1_0")
    network.preprocess = network.preprocess.at_size(INPUT)
    layers = LAYERS["squeezenet"]
    learned, tested = (channel_means(network, list(layers.values()), part) for part in (learn, test))
    return {
        depth: read_out(x, learned[layer].double(), held, tested[layer].double()) for depth, layer in layers.items()
    }


def v4(data: Path, nets: dict[str, nn.Module], seed: int) -> dict[str, Any]:
    """Held-out correlation of a ridge read-out with single V4 neurons, whose fields are small."""
    session = load_session(data, "201025")
    rows, held_out = session.split()
    y = session.responses.double()
    found: dict[str, Any] = {"neurons": y.shape[1], "learnt": len(rows), "held out": len(held_out)}
    for label, options in (("channel means", {}), ("with a grid", {"grid": 3})):
        embedder = vl.get_backend("embedded", **options).closed_loop.embedder
        with torch.no_grad():
            x = embedder(session.images).double()
        found[label] = read_out(x[rows], y[rows], x[held_out], y[held_out])
    return found


PARTS = {"named": named, "embedding": embedding, "v4": v4, "alone": alone}  # beside the edits


def edits(
    data: Path, nets: dict[str, Any], seed: int, out: Path, parity: int, units: int, split: tuple[int, int]
) -> dict[str, Any]:
    """Signed changes of units' responses, in SDs over the reference photographs, and what a third network sees.

    Lenses are fitted on the backend's own reference photographs. Every unit gets other photographs to edit, in turn, so
    that a group's pictures together are compared with photographs that nobody edits.
    """
    backend, reference = vl.get_backend("embedded"), embedded_reference()
    inputs, others, _ = inputs_and_others(data, parity, seed)
    save_tensors(out / "others.safetensors", {name: features(name, net, others) for name, net in nets.items()})
    work: list[tuple[str, str, int]] = []
    for name, layers in LAYERS.items():
        for depth, layer in layers.items():
            chosen = shuffled_half(layer_width(nets[name], layer), seed + 2, parity)[:units]
            work += [(name, depth, unit) for unit in chosen.tolist()]
    for number, (name, depth, unit) in enumerate(work):
        file = out / f"{name}-{depth}-{unit}.json"
        record = read(file) if file.is_file() else {"network": name, "layer": LAYERS[name][depth], "methods": {}}
        if record["methods"].keys() == METHODS.keys() or number % split[1] != split[0]:
            continue
        layers = LAYERS[name]
        responses = reference_responses(out, name, nets[name], list(layers.values()), reference)
        fitted = reference.with_responses(responses[list(layers).index(depth)][:, unit : unit + 1].float())
        rows = torch.arange(number * PHOTOS, (number + 1) * PHOTOS) % INPUTS
        record |= {"depth": depth, "unit": unit, "rows": rows.tolist()}
        edit_unit(record, nets, backend, fitted, inputs[rows], seed, file)
        vl.write_text(file, json.dumps(record))
        means = {
            label: [round(float(np.mean(cell["change"])), 2) for cell in row.values()]
            for label, row in record["methods"].items()
        }
        print(file.name, means, flush=True)
    found = summarise(out)
    for name, distances in natural_matches(out, nets, inputs, others).items():
        found[f"{name}: kernel distance"] |= {f"natural {sense}": value for sense, value in distances.items()}
    return found | {"predictivity": told(out, nets, others, reference)}


def edit_unit(
    record: dict[str, Any],
    nets: dict[str, nn.Module],
    backend: vl.Backend,
    reference: vl.ReferenceSet,
    images: Tensor,
    seed: int,
    file: Path,
) -> None:
    """Add to a unit's record what is missing: what it answers, how far pixels went, and what the judge sees beside."""
    name = record["network"]
    target = vl.LayerTarget(nets[name], record["layer"], record["unit"])
    judge, column, features_file = JUDGE[name], reference.responses, file.with_suffix(".safetensors")
    assert column is not None
    sd = column.std()
    before = target.responses(images)[:, 0]
    seen = load_file(features_file) if features_file.is_file() else {"unedited": features(judge, nets[judge], images)}
    record["room"] = ((before.mean() - column.min()) / sd).item()
    prototypes = vl.Prototypes(PHOTOS).fit(target, backend, reference)
    record["reference rows"] = {
        sense: {
            "natural": top_rows(sign * column[:, 0], reference.groups, PHOTOS),
            "prototypes": prototypes.rows({0: sense}).tolist(),
        }
        for sense, sign in SIGN.items()
    }
    fitted: dict[str, Any] = {}
    for label, (kind, alpha, start) in METHODS.items():
        if label in record["methods"]:
            continue
        if kind not in fitted:
            fitted[kind] = vl.method_by_name(kind).fit(target, backend, reference)
        method = fitted[kind]
        if label == "edit":
            record["evidence"] = method.evidence_[target.names[0]].to_dict()
            kept = method.generate(images, {}, seeds=[seed] * len(images)).images
            record["alpha 0"] = ((target.responses(kept)[:, 0] - before) / sd).abs().mean().item()
        row: dict[str, Any] = {}
        for sense, sign in SIGN.items():
            starts, answers = images, before
            if start != "inputs":
                side = sense if start in UNEDITED else next(one for one in SIGN if one != sense)
                starts = reference.images[record["reference rows"][side][start.removeprefix("other ")]].float()
                answers = target.responses(starts)[:, 0]
            seeds = [seed] * len(starts)
            made = eight_bits(method.generate(starts, {0: sense}, seeds=seeds, alpha=alpha, strength=0.0).images)
            seen[f"{label} {sense}"] = features(judge, nets[judge], made)
            row[sense] = {
                "change": (sign * (target.responses(made)[:, 0] - answers) / sd).tolist(),
                "rms": (made - starts).square().mean((1, 2, 3)).sqrt().mean().item(),
            }
            if label in READ:
                torchvision.utils.save_image(row_of(made), row_file(file, label, sense))
        record["methods"][label] = row
    save_tensors(features_file, seen)


def row_of(pictures: Tensor) -> Tensor:
    """Pictures (N, 3, S, S) side by side at 112 pixels, as a reader sees them."""
    return torchvision.utils.make_grid(F.interpolate(pictures, (112, 112), mode="area"), len(pictures))


def row_file(file: Path, label: str, sense: str) -> Path:
    """Where the row of a unit's pictures is, beside its record."""
    return file.with_suffix(f".{label}.{sense}.png")


def natural_matches(out: Path, nets: dict[str, Any], inputs: Tensor, others: Tensor) -> dict[str, dict[str, float]]:
    """Kernel distances of photographs that a unit answers as it answers the edited ones: what realism can be asked for.

    A unit's preferred photographs are no random draw of photographs either. For each edited picture the other
    photograph is taken to which the response is nearest; the distance is to the photographs that were to be edited.
    """
    seen = load_file(out / "others.safetensors")
    found: dict[str, dict[str, float]] = {}
    for name, layers in LAYERS.items():
        judge = JUDGE[name]
        real = features(judge, nets[judge], inputs)
        scale = real.std(0).clamp_min(1e-6)
        before, natural = (channel_means(nets[name], list(layers.values()), images) for images in (inputs, others))
        references = load_file(out / f"reference-{name}.safetensors")
        taken: dict[str, list[int]] = {sense: [] for sense in SIGN}
        for record in (read(path) for path in sorted(out.glob(f"{name}-*-*.json"))):
            layer, unit = record["layer"], record["unit"]
            sd = references[layer][:, unit].std().item()
            for sense, sign in SIGN.items():
                free = natural[layer][:, unit].double().clone()
                for row, change in zip(record["rows"], record["methods"]["edit"][sense]["change"], strict=True):
                    wanted = before[layer][row, unit].item() + sign * change * sd
                    taken[sense].append(int((free - wanted).abs().argmin()))
                    free[taken[sense][-1]] = torch.inf  # a photograph stands for one picture of a unit
        if taken["increase"]:
            found[name] = {
                sense: vl.kernel_distance(seen[judge][rows] / scale, real / scale) for sense, rows in taken.items()
            }
    return found


def told(out: Path, nets: dict[str, nn.Module], others: Tensor, reference: vl.ReferenceSet) -> dict[str, Any]:
    """Share of pairs of unedited photographs in which pictures tell which one drives a unit more.

    By the network that is neither the target nor the embedder. Top natural images are the crops of the reference set
    that drive a unit most and least, one a photograph, as many as there are edited pictures.
    """
    seen = load_file(out / "others.safetensors")
    found: dict[str, list[float]] = {label: [] for label in (*METHODS, *UNEDITED)}
    for name, layers in LAYERS.items():
        judge = JUDGE[name]
        responses = channel_means(nets[name], list(layers.values()), others)
        known: dict[int, Tensor] = {}
        for path in sorted(out.glob(f"{name}-*-*.json")):
            record, made = read(path), load_file(path.with_suffix(".safetensors"))
            made |= {
                f"{shown} {sense}": row_features(rows, judge, nets[judge], reference, known)
                for sense, sides in record["reference rows"].items()
                for shown, rows in sides.items()
            }
            answers = responses[record["layer"]][:, record["unit"]]
            for label, values in found.items():
                up, down = (made[f"{label} {sense}"] for sense in SIGN)
                values.append(vl.pairs_told(up, down, seen[judge], answers).accuracy)
    columns = {label: torch.tensor(values, dtype=torch.float64) for label, values in found.items()}
    gaps = {f"edit minus {label}": columns["edit"] - columns[label] for label in columns if label != "edit"}
    for shown in UNEDITED:
        gaps[f"{shown}, edited minus natural"] = columns[f"{shown}, edited"] - columns["natural"]
    gaps["prototypes minus natural"] = columns["prototypes"] - columns["natural"]
    return {label: interval(values) for label, values in (columns | gaps).items()}


def row_features(
    rows: list[int], judge: str, net: nn.Module, reference: vl.ReferenceSet, known: dict[int, Tensor]
) -> Tensor:
    """What a judge sees in these crops: (PHOTOS, D)."""
    for row in rows:
        if row not in known:
            known[row] = features(judge, net, reference.images[[row]])[0]
    return torch.stack([known[row] for row in rows])


def prototypes_room(out: Path, record: dict[str, Any]) -> float:
    """How far a unit's prototypes of both sides can fall on average, in SDs: to the least of the reference set."""
    stored = load_file(out / f"reference-{record['network']}.safetensors")
    column = stored[record["layer"]][:, record["unit"]]
    rows = [row for sides in record["reference rows"].values() for row in sides["prototypes"]]
    return ((column[rows].mean() - column.min()) / column.std()).item()


def layer_width(net: nn.Module, layer: str) -> int:
    return channel_means(net, [layer], torch.zeros(1, 3, 64, 64))[layer].shape[1]


def reference_responses(
    out: Path, name: str, net: nn.Module, layers: list[str], reference: vl.ReferenceSet
) -> list[Tensor]:
    """Channel means of layers over the reference photographs, read once and kept in a file."""
    path = out / f"reference-{name}.safetensors"
    if not path.is_file():
        parts = [channel_means(net, layers, part) for part in reference.parts()]
        save_tensors(path, {layer: torch.cat([part[layer] for part in parts]).double() for layer in layers})
    stored = load_file(path)
    return [stored[layer] for layer in layers]


def summarise(out: Path) -> dict[str, Any]:
    """Means over units with intervals for each network and depth; distances of a network's pictures together."""
    records = {path: read(path) for path in sorted(out.glob("*-*-*.json"))}
    found: dict[str, Any] = {"units": len(records), "photographs a unit": PHOTOS}
    found["evidence good"] = share(torch.tensor([not record["evidence"]["weak"] for record in records.values()]))
    found["alpha 0, SD"] = interval(torch.tensor([record["alpha 0"] for record in records.values()]))
    change = lambda record, label, sense: np.mean(record["methods"][label][sense]["change"])  # noqa: E731
    others = load_file(out / "others.safetensors")
    for name, layers in LAYERS.items():
        own = {path: record for path, record in records.items() if record["network"] == name}
        if not own:
            continue
        for depth in layers:
            group = [record for record in own.values() if record["depth"] == depth]
            row: dict[str, Any] = {"units": len(group), ROOM: float(np.mean([r["room"] for r in group]))}
            row[PROTOTYPES_ROOM] = float(np.mean([prototypes_room(out, r) for r in group]))
            for label in METHODS:
                for sense in SIGN:
                    row[f"{label} {sense}"] = interval(torch.tensor([change(r, label, sense) for r in group]))
                    row[f"{label} {sense}, rms"] = float(np.mean([r["methods"][label][sense]["rms"] for r in group]))
            for label, both in DEFAULT.items():
                for sense in SIGN:
                    mean = [np.mean([change(r, one, sense) for one in both]) for r in group]
                    row[f"{label} {sense}"] = interval(torch.tensor(mean))
            found[f"{name} {depth}"] = row
        real = others[JUDGE[name]]
        scale = real.std(0).clamp_min(1e-6)
        stored = [load_file(path.with_suffix(".safetensors")) for path in own]
        found[f"{name}: kernel distance"] = {
            key: vl.kernel_distance(torch.cat([one[key] for one in stored]) / scale, real / scale) for key in stored[0]
        }
    for rival in ("ridge_direction", "shuffled"):
        gaps = [
            np.mean([change(record, "edit", sense) - change(record, rival, sense) for sense in SIGN])
            for record in records.values()
        ]
        found[f"edit minus {rival}, SD"] = interval(torch.tensor(gaps))
    return found


def main() -> None:
    command = parser(__doc__, "--data", "--out", "--seed", "--share")
    command.add_argument("--part", choices=(*PARTS, "edits"), action="append")
    command.add_argument("--units", type=int, default=UNITS)
    command.add_argument("--tune", action="store_true", help="edits on tuning photographs and tuning units")
    args = parse(command)
    data, nets = data_folder(args.data), networks()
    source = provenance(seed=args.seed)  # now: the code may change while it runs
    for part in args.part or (*PARTS, "edits"):
        if part == "edits":
            folder = args.out / ("edits-tuning" if args.tune else "edits")
            folder.mkdir(parents=True, exist_ok=True)
            figures = edits(data, nets, args.seed, folder, 0 if args.tune else 1, args.units, args.share)
            part = folder.name
        else:
            figures = PARTS[part](data, nets, args.seed)
        text = json.dumps({"provenance": source, "measures": figures}, indent=1)
        vl.write_text(args.out / f"part-{part}.json", text)
        print(part, text, flush=True)
    files = {part: args.out / f"part-{part}.json" for part in (*PARTS, "edits", "reader")}
    write({part: read(file) for part, file in files.items() if file.is_file()}, args.out)


if __name__ == "__main__":
    main()
