"""Six test units of EfficientNet-Lite2 on free photographs: what drives each, and what an edit does. For the README.

    python -m benchmarks.pictures.figure --out runs/pictures

The units are the first two test units of each layer, drawn and not chosen; the photographs are held out from every
fit, in the public domain or under CC0, evenly taken. The folder is that of ``run --part edits``, which read the layers.
"""

import argparse
import csv
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from benchmarks.pictures.run import LAYERS, layer_width, networks, reference_responses
from vislens_interp.backends.base import get_backend
from vislens_interp.backends.reference_photographs import ReferencePhotographs
from vislens_interp.methods import method_by_name
from vislens_interp.reference import ReferenceSet
from vislens_interp.targets.target import LayerTarget

SHOWN, TOP, UNITS = 3, 3, 2
FREE = ("CC0", "LicenseRef-public-domain")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    net = networks()["lite2"]
    backend = get_backend("embedded")
    reference = ReferenceSet.of_backend(backend)
    assert reference is not None
    assert isinstance(reference.images, ReferencePhotographs)
    terms = list(csv.DictReader(reference.images.terms().splitlines()))
    layers = LAYERS["lite2"]
    responses = reference_responses(args.out / "edits", "lite2", net, list(layers.values()), reference)
    columns = TOP + 3 * SHOWN
    figure, axes = plt.subplots(UNITS * len(layers), columns, figsize=(1.3 * columns, 1.5 * UNITS * len(layers)))
    for number, (layer, read) in enumerate(zip(layers.values(), responses, strict=True)):
        order = torch.randperm(layer_width(net, layer), generator=torch.Generator().manual_seed(args.seed + 2))
        for place, unit in enumerate(order[len(order) // 2 :][:UNITS].tolist()):
            row = axes[UNITS * number + place]
            column = read[:, unit : unit + 1].float()
            target = LayerTarget(net, layer, unit)
            method = method_by_name("edit").fit(target, backend, reference.with_responses(column))
            evidence = method.evidence_[target.names[0]]
            free = [
                crop
                for crop in method.landscape_.held_out.tolist()
                if reference.names[crop].endswith("-0")
                and terms[int(reference.groups[crop])]["licence"].startswith(FREE)
            ]
            rows = free[:: max(1, len(free) // SHOWN)][:SHOWN]
            images = reference.images[rows]
            before = target.responses(images)[:, 0]
            top: list[int] = []
            for crop in column[:, 0].argsort(descending=True).tolist():
                group = int(reference.groups[crop])
                known = {int(reference.groups[one]) for one in top}
                if len(top) < TOP and group not in known and terms[group]["licence"].startswith(FREE):
                    top.append(crop)
            for axis, picture in zip(row[:TOP], reference.images[top], strict=True):
                _show(axis, picture, "")
            for sense, offset in (("decrease", 0), ("increase", 2)):
                made = method.generate(images, {0: sense}, seeds=[args.seed] * SHOWN).images
                change = (target.responses(made)[:, 0] - before) / column.std()
                for k in range(SHOWN):
                    _show(row[TOP + 3 * k + offset], made[k], f"{change[k]:+.1f} SD")
            for k in range(SHOWN):
                _show(row[TOP + 3 * k + 1], images[k], "photograph")
            row[0].set_title(f"{layer}: {unit}, r {evidence.correlation:.2f}", fontsize=7, loc="left")
            row[1].set_title("", fontsize=7)
    figure.tight_layout(pad=0.3)
    figure.savefig(args.out / "units.webp", dpi=130, pil_kwargs={"quality": 85})
    print(args.out / "units.webp")


def _show(axis: plt.Axes, picture: torch.Tensor, title: str) -> None:
    axis.imshow(picture.permute(1, 2, 0).clamp(0, 1).numpy())
    axis.set_title(title, fontsize=7)
    axis.axis("off")


if __name__ == "__main__":
    main()
