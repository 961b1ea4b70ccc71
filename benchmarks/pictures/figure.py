"""Six test units of EfficientNet-Lite2 on free photographs: prototypes, what an edit does, evidence and words.

    python -m benchmarks.pictures.figure --out runs/pictures

The units are the first two test units of each layer, drawn and not chosen; the photographs are held out from every
fit, in the public domain or under CC0, evenly taken. The folder is that of ``run --part edits``, which read the layers.
"""

import csv
import textwrap
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import package as vl
from benchmarks.common.edit_methods import SIGN
from benchmarks.common.figures import save_small, sheet
from benchmarks.common.script import parser, shuffled_half
from benchmarks.pictures.run import LAYERS, embedded_reference, layer_width, networks, reference_responses

SHOWN, PROTOTYPES, UNITS, WORDS = 2, 3, 2, 3
FREE = ("CC0", "LicenseRef-public-domain")


def free_photographs(reference: vl.ReferenceSet) -> list[bool]:
    """Whether each photograph of the reference set is in the public domain or under CC0."""
    photographs: Any = reference.images
    return [row["licence"].startswith(FREE) for row in csv.DictReader(photographs.terms().splitlines())]


def prototypes(column: Tensor, reference: vl.ReferenceSet, free: list[bool], count: int) -> tuple[Tensor, Tensor]:
    """Of the free photographs those that tell most of a unit: rows (count,) of preferred and of suppressed ones."""
    rows = torch.tensor([row for row, group in enumerate(reference.groups.tolist()) if free[group]])
    alike = vl.likeness(vl.get_backend("embedded"), reference)[rows]
    preferred, suppressed = vl.prototype_rows(alike, column[rows], reference.groups[rows], count)
    return rows[preferred], rows[suppressed]


def whole_photographs(rows: list[int], reference: vl.ReferenceSet, free: list[bool], count: int) -> list[int]:
    """Of these crops the whole free photographs, so many, evenly taken."""
    whole = [row for row in rows if reference.names[row].endswith("-0") and free[int(reference.groups[row])]]
    return whole[:: max(1, len(whole) // count)][:count]


def unit_row(
    net: nn.Module,
    layer: str,
    unit: int,
    column: Tensor,
    reference: vl.ReferenceSet,
    free: list[bool],
    seed: int,
) -> tuple[str, Tensor, list[str]]:
    """A unit's suppressed prototypes, photographs between their edits down and up, and its preferred prototypes."""
    target, backend = vl.LayerTarget(net, layer, unit), vl.get_backend("embedded")
    method: Any = vl.method_by_name("edit").fit(target, backend, reference.with_responses(column))
    images = reference.images[whole_photographs(method.landscape_.held_out.tolist(), reference, free, SHOWN)]
    before = target.responses(images)[:, 0]
    preferred, suppressed = (reference.images[rows] for rows in prototypes(column[:, 0], reference, free, PROTOTYPES))
    shown, notes = [suppressed], ["suppressed"] * PROTOTYPES
    made = {way: method.generate(images, {0: way}, seeds=[seed] * SHOWN).images for way in SIGN}
    change = {way: (target.responses(pictures)[:, 0] - before) / column.std() for way, pictures in made.items()}
    for k in range(SHOWN):
        shown.append(torch.stack([made["decrease"][k], images[k], made["increase"][k]]))
        notes += [f"{change['decrease'][k]:+.1f} SD", "photograph", f"{change['increase'][k]:+.1f} SD"]
    notes += ["preferred"] * PROTOTYPES
    return f"{layer}: {unit}\n{said_of(method)}", torch.cat([*shown, preferred]), notes


def said_of(method: vl.LandscapeEdit) -> str:
    """Evidence and words of a fitted unit, in short lines."""
    (evidence,) = method.evidence_.values()
    words = vl.edit_words(method, {0: "increase"})
    lines = [f"{'weak' if evidence.weak else 'good'} evidence:"]
    lines += [f"r {evidence.correlation:.2f}, p {evidence.p_value:.3f}"]
    for name, row in (("up", words.rising), ("down", words.falling)):
        lines += textwrap.wrap(f"{name}: {', '.join(one.word for one in row[:WORDS])}", 30) if row else []
    return "\n".join(lines if words else [*lines, "no words"])


def main() -> None:
    args = parser(__doc__, "--out", "--seed").parse_args()
    net = networks()["lite2"]
    reference = embedded_reference()
    free = free_photographs(reference)
    layers = LAYERS["lite2"]
    responses = reference_responses(args.out / "edits", "lite2", net, list(layers.values()), reference)
    rows = []
    for layer, read in zip(layers.values(), responses, strict=True):
        for unit in shuffled_half(layer_width(net, layer), args.seed + 2, 1)[:UNITS].tolist():
            column = read[:, unit : unit + 1].float()
            rows.append(unit_row(net, layer, unit, column, reference, free, args.seed))
    drawn = (
        f"units drawn with seed {args.seed + 2}; outside: prototypes; up and down: words that rise and fall with edits"
    )
    save_small(sheet(rows, title=drawn), args.out / "units.webp")
    print(args.out / "units.webp")


if __name__ == "__main__":
    main()
