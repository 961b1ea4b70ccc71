"""Do an atlas's pages say what its units like? Pairs of photographs that it never saw, for somebody to judge.

    python -m benchmarks.atlas.run --choices runs/atlas DIR --out runs/choices
    python -m benchmarks.atlas.run --score --out runs/choices

``--choices`` draws ten units and for each three pairs of photographs: one of the tenth that drives the unit most, one
of the tenth that drives it least, A or B by chance. It writes a sheet a unit, and the answers into ``key.json``. Read a
unit's page, then its sheet, and write which of each pair drives it more into ``guesses.json``:
``{"17": ["A", "B", "A"]}``. ``--score`` counts.
"""

import json
import random
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from benchmarks.common import package as vl
from benchmarks.common.script import read

UNITS, PAIRS, SHARE, SIDE, GAP = 10, 3, 0.1, 224, 30


def make(atlas: Path, images: Path, out: Path, seed: int) -> None:
    manifest = vl.read_manifest(atlas)
    origin = manifest["origin"]
    target = vl.units_of(
        vl.load_model(origin["model"], origin["weights"]), origin["layer"], origin.get("sae"), **origin["reading"]
    )
    photographs, _ = vl.load_images(images, size=SIDE)
    responses = torch.cat([target.responses(part) for part in photographs.split(64)])
    known = [unit for _, units in manifest["shards"] for unit in units]
    draw, key = random.Random(seed), {}
    for unit in sorted(draw.sample(known, min(UNITS, len(known)))):
        order = responses[:, unit].argsort(descending=True, stable=True).tolist()
        count = max(1, int(SHARE * len(order)))
        page = Image.new("RGB", (2 * SIDE + GAP, PAIRS * (SIDE + GAP)), "white")
        pen, key[str(unit)] = ImageDraw.Draw(page), []
        for pair in range(PAIRS):
            rows = [draw.choice(order[:count]), draw.choice(order[-count:])]
            answer = draw.choice("AB")
            for place, row in enumerate(rows if answer == "A" else rows[::-1]):
                pixels = (photographs[row] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
                corner = (place * (SIDE + GAP), pair * (SIDE + GAP) + GAP)
                page.paste(Image.fromarray(pixels), corner)
                pen.text((corner[0], corner[1] - 14), f"unit {unit}, pair {pair + 1}, {'AB'[place]}", fill="black")
            key[str(unit)].append(answer)
        vl.write_atomically(out / f"{unit}.png", lambda path, page=page: page.save(path, "PNG"))
    vl.write_text(out / "key.json", json.dumps(key))
    print(f"{len(key)} sheets in {out}; write guesses.json there")


def score(out: Path) -> None:
    key, guesses = read(out / "key.json"), read(out / "guesses.json")
    right = {unit: sum(a == b for a, b in zip(guesses[unit], key[unit], strict=True)) for unit in key}
    print(f"{sum(right.values())} of {sum(map(len, key.values()))} pairs; right by unit: {right}")
