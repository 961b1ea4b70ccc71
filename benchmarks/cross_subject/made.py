"""Pictures that the default generator makes from one animal's landscape, judged by encoders of both animals.

Nobody recorded responses to pictures that were made, so that encoders alone can judge these. They are few, for each
takes a quarter of a second of a core: of every session one half, and intervals over pictures.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.edit_methods import Recorded
from benchmarks.common.script import once, read_all
from benchmarks.common.tables import fill, signed, table
from benchmarks.cross_subject.subjects import LEVELS, Subject, animal_pair
from benchmarks.v4_recorded.methods import BRAINACTIV, METHODS, OURS, RANDOM, SIGN

SIDE, PICTURES, SEED = 128, 16, 0  # pixels of what is made, and how many pictures of each judge's gallery are edited
COMPARED = (OURS, BRAINACTIV, RANDOM)


def judged_by(subject: Subject, backbone: vl.Backbone, features: vl.Features) -> Callable[[Tensor], Tensor]:
    """Pictures (N, 3, S, S) to the population response that an encoder predicts, in SDs over its gallery: (N,)."""
    (learnt, gallery), encoder = subject.sides(0), subject.encoder(0, backbone, features)
    _, mean, std = subject.standard(learnt)

    @torch.no_grad()
    def population(images: Tensor) -> Tensor:
        return ((encoder(images) - mean) / std).mean(1)

    spread = population(subject.session.images[gallery[:200]]).std(correction=0)
    return lambda images: population(images) / spread


def made_cells(
    subjects: list[Subject], backbone: vl.Backbone, features: dict[str, vl.Features], out: Path, said: dict[str, Any]
) -> None:
    """A file a source, which learns from the first half of its pictures; the second ones are edited."""
    todo = [subject for subject in subjects if not (out / f"made-{subject.name}.json").exists()]
    if not todo:
        return
    backend = vl.get_backend("embedded", size=SIDE, cache=out / "cache")
    judges = {subject.name: judged_by(subject, backbone, features[subject.name]) for subject in subjects}

    def cell(source: Subject) -> dict[str, Any]:
        learnt = source.sides(0)[0]
        population = source.standard(learnt)[0][learnt].mean(1, keepdim=True)
        photographs = vl.resize(source.session.images[learnt], SIDE)
        rows = []
        for label in COMPARED:
            method = METHODS[label]().fit(Recorded(["population"]), backend, photographs, population)
            for subject in subjects:
                inputs = vl.resize(subject.session.images[subject.sides(0)[1][:PICTURES]], SIDE)
                before = judges[subject.name](inputs)
                for way, sign in SIGN.items():
                    made = method.generate(inputs, {0: way}, seeds=[SEED] * len(inputs)).images.clamp(0, 1)
                    change = sign * (judges[subject.name](made) - before)
                    one = {"method": label, "judge": subject.name, "direction": way}
                    rows.append(one | {"change": [round(value, 4) for value in change.tolist()]})
        return {"source": source.name, "rows": rows}

    for source in todo:
        once(out / f"made-{source.name}.json", partial(cell, source), said)


def made_numbers(out: Path) -> dict[str, Any]:
    """Mean and ends by who learnt and who judged, method and direction; sessions are kept, pictures drawn."""
    changes: dict[tuple[Any, str, str], list[list[float]]] = defaultdict(list)
    for cell in read_all(out, "made-*.json"):
        for row in cell["found"]["rows"]:
            pair = animal_pair(cell["found"]["source"], row["judge"])
            changes[pair, row["method"], row["direction"]].append(row["change"])
    found: dict[str, Any] = {}
    for (source, judge, level), method, way in sorted(changes, key=lambda key: (key[0][1], LEVELS.index(key[0][2]))):
        one = vl.interval(np.array(changes[(source, judge, level), method, way]), levels=("image",), same_images=True)
        ends = [round(float(value), 4) for value in (one.mean, one.low, one.high)]
        found.setdefault(f"{source} to {judge}, {level}", {}).setdefault(method, {})[way] = ends
    return found


def made_lines(found: dict[str, Any]) -> list[str]:
    """A text with a table a direction, or nothing."""
    if not found:
        return []
    tables: list[str] = []
    for way in SIGN:
        rows = [[label, *(signed(found[pair][label][way]) for pair in found)] for label in COMPARED]
        tables += table([[way, *found], *rows])
    return [fill(__file__, "made", pictures=PICTURES, side=SIDE, tables=tables)]
