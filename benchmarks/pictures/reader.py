"""Does a reader who sees preferred and suppressed pictures know which photographs drive the unit?

    python -m benchmarks.pictures.reader --data "$VISLENS_DATA" --out runs/pictures                  # draws the sheets
    python -m benchmarks.pictures.reader --data "$VISLENS_DATA" --out runs/pictures --answers FILE   # counts

Of each unit (four of each network and depth, drawn at random) a reader sees four preferred pictures in the upper row
and four suppressed ones in the lower one, all of one kind: test photographs edited up and down, top natural images, a
unit's prototypes, or edits of these; then five pairs of photographs that nobody edited, one of the 15 % that
drive the unit most and one of the 15 % that drive it least. The reader says what differs, and which of each pair drives
the unit. Chance is one half. Every kind has a reader of its own, and all see the same pairs.
"""

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import torchvision

from benchmarks.common import package as vl
from benchmarks.common.edit_methods import SIGN
from benchmarks.common.judges import channel_means, data_folder
from benchmarks.common.script import parser, provenance, read
from benchmarks.pictures.run import (
    LAYERS,
    READ,
    UNEDITED,
    embedded_reference,
    inputs_and_others,
    interval,
    networks,
    row_file,
    row_of,
)

KINDS = (*READ, *UNEDITED)
UNITS, TRIALS, EXTREME, GAP, SEED = 4, 5, 0.15, 12, 8
"""Units a group, pairs a unit, share of the photographs at either end, white pixels between pictures, of the draws."""


def trials(folder: Path, data: Path) -> list[tuple[Path, list[tuple[int, int]], str]]:
    """Each unit's record, its pairs of photographs (left, right), and on which side the driving one is."""
    nets, rows = networks(), inputs_and_others(data, 1, 0)[1]
    layers = {name: list(depths.values()) for name, depths in LAYERS.items()}
    responses = {name: channel_means(net, layers[name], rows) for name, net in nets.items()}
    draw = random.Random(SEED)
    files = sorted(folder.glob("*-*-*.json"))
    draw.shuffle(files)
    groups: dict[tuple[str, str], list[tuple[Path, Any]]] = {}
    for file in files:
        record = read(file)
        chosen = groups.setdefault((record["network"], record["depth"]), [])
        if len(chosen) < UNITS:
            chosen.append((file, record))
    units = [unit for chosen in groups.values() for unit in chosen]
    draw.shuffle(units)
    found = []
    for file, record in units:
        order = responses[record["network"]][record["layer"]][:, record["unit"]].argsort().tolist()
        count = round(EXTREME * len(order))
        pairs, sides = [], ""
        for most, least in zip(draw.sample(order[-count:], TRIALS), draw.sample(order[:count], TRIALS), strict=True):
            sides += "L" if draw.random() < 0.5 else "R"
            pairs.append((most, least) if sides[-1] == "L" else (least, most))
        found.append((file, pairs, sides))
    return found


def draw_sheets(folder: Path, data: Path) -> None:
    """``NN-pictures.png`` of each unit in a folder of each kind, and ``NN-pairs.png``, which all kinds share."""
    photos, reference = inputs_and_others(data, 1, 0)[1], embedded_reference()
    out = folder.parent / "reader"
    for kind in KINDS:
        (out / kind).mkdir(parents=True, exist_ok=True)
    for number, (file, pairs, _) in enumerate(trials(folder, data)):
        shown = read(file)["reference rows"]
        for kind in KINDS:
            if kind in READ:
                rows = [torchvision.io.read_image(str(row_file(file, kind, sense))) / 255 for sense in SIGN]
            else:
                rows = [row_of(reference.images[shown[sense][kind]].float()) for sense in SIGN]
            white = torch.ones(3, GAP, rows[0].shape[2])
            sheet = torch.cat([rows[0], white, rows[1]], 1)
            torchvision.utils.save_image(sheet, out / kind / f"{number:02d}-pictures.png")
        grid = torchvision.utils.make_grid(photos[[row for pair in pairs for row in pair]], 2, GAP, pad_value=1)
        torchvision.utils.save_image(grid, out / f"{number:02d}-pairs.png")
    print(out)


def count(folder: Path, data: Path, answers: dict[str, Any]) -> dict[str, Any]:
    """Pairs that the reader got right: mean over units with its interval, by network and depth, and by confidence."""
    right: dict[str, list[int]] = defaultdict(list)
    for number, (file, _, sides) in enumerate(trials(folder, data)):
        answer = answers[str(number)]
        hits = sum(given == side for given, side in zip(answer["answers"], sides, strict=True))
        for key in ("all", "-".join(file.stem.split("-")[:2]), f"confidence {answer['sure']}"):
            right[key].append(hits)
    return {
        "reader": answers["reader"],
        "units": len(right["all"]),
        "pairs": TRIALS * len(right["all"]),
        "right": interval(torch.tensor(right["all"]).double() / TRIALS),
        "right, by unit": right["all"],
        "units with at least 4 of 5": sum(hits >= 4 for hits in right["all"]),
        "right, by group": {key: sum(hits) / TRIALS / len(hits) for key, hits in right.items() if key != "all"},
    }


def main() -> None:
    command = parser(__doc__, "--data", "--out")
    command.add_argument("--answers", type=Path, help="JSON of the reader; drawn sheets by default")
    args = command.parse_args()
    data, folder = data_folder(args.data), args.out / "edits"
    if args.answers is None:
        draw_sheets(folder, data)
        return
    found = {kind: count(folder, data, answers) for kind, answers in read(args.answers).items()}
    by_unit = {kind: torch.tensor(one["right, by unit"]).double() / TRIALS for kind, one in found.items()}
    for kind, one in found.items():
        if kind != "natural" and "natural" in found:
            one["minus natural"] = interval(by_unit[kind] - by_unit["natural"])
    vl.write_text(args.out / "part-reader.json", json.dumps({"provenance": provenance(seed=SEED), "measures": found}))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
