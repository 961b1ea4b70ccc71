"""Pictures that the default generator makes from one animal's landscape, judged by encoders of both animals.

Nobody recorded responses to pictures that were made, so that encoders alone can judge these. They are few, for each
takes a quarter of a second of a core: of every session one half, and intervals over pictures.
"""

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.cells import read_all, save_cell
from benchmarks.common.edit_methods import Recorded
from benchmarks.common.tables import signed, table
from benchmarks.cross_subject.judging import LEVELS, animal_pair
from benchmarks.cross_subject.subjects import Subject
from benchmarks.v4_recorded.methods import BRAINACTIV, METHODS, OURS, RANDOM, SIGN

SIDE, PICTURES, SEED = 128, 16, 0
"""Pixels of what is made, and how many pictures of each judge's gallery are edited."""
COMPARED = (OURS, BRAINACTIV, RANDOM)


def judged_by(subject: Subject, backbone: vl.Backbone, features: vl.Features) -> Any:
    """Pictures (N, 3, S, S) to the population response that an encoder predicts, in SDs over its gallery: (N,)."""
    session = subject.session
    learnt, gallery = session.halves()
    dataset = vl.BrainDataset.from_arrays(session.images, session.responses, targets=subject.targets)
    encoder = vl.InSilicoEncoder(backbone, force=True)
    encoder.fit(dataset, rows=learnt, held_out=gallery, features=features)
    _, mean, std = subject.standard(learnt)

    @torch.no_grad()
    def population(images: Tensor) -> Tensor:
        return ((encoder(images) - mean) / std).mean(1)

    spread = population(session.images[gallery[:200]]).std(correction=0)
    return lambda images: population(images) / spread


def made_cells(subjects: list[Subject], backbone: vl.Backbone, features: Any, out: Path, said: dict[str, Any]) -> None:
    """A file a source, which learns from the first half of its pictures; the second ones are edited."""
    todo = [subject for subject in subjects if not (out / f"made-{subject.name}.json").exists()]
    if not todo:
        return
    backend = vl.get_backend("embedded", size=SIDE, cache=out / "cache")
    judges = {subject.name: judged_by(subject, backbone, features[subject.name]) for subject in subjects}
    for source in todo:
        began = time.monotonic()
        learnt = source.session.halves()[0]
        population = source.standard(learnt)[0][learnt].mean(1, keepdim=True)
        photographs = vl.resize(source.session.images[learnt], SIDE)
        rows = []
        for label in COMPARED:
            method = METHODS[label]().fit(Recorded(["population"]), backend, photographs, population)
            for subject in subjects:
                inputs = vl.resize(subject.session.images[subject.session.halves()[1][:PICTURES]], SIDE)
                before = judges[subject.name](inputs)
                for way, sign in SIGN.items():
                    made = method.generate(inputs, {0: way}, seeds=[SEED] * len(inputs)).images.clamp(0, 1)
                    change = sign * (judges[subject.name](made) - before)
                    one = {"method": label, "judge": subject.name, "direction": way}
                    rows.append(one | {"change": [round(value, 4) for value in change.tolist()]})
        save_cell(out / f"made-{source.name}.json", {"source": source.name, "rows": rows}, said)
        print(f"made-{source.name}: {time.monotonic() - began:.0f} s", flush=True)


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
    """A table a direction."""
    if not found:
        return []
    text = (
        f"The landscape of each session edits {PICTURES} photographs of each judge's gallery through the backend "
        f"`embedded` at {SIDE} px, every method with its defaults. An encoder of the judge's other half reads them: "
        "change against the unedited photograph, in SDs of its predictions over 200 pictures of its gallery, with a "
        "95 % interval over pictures, the sessions kept. The encoder's network (SqueezeNet) has no part in the making."
    )
    lines = ["## Pictures made by the default generator, judged by encoders", "", text, ""]
    for way in SIGN:
        rows = [[label, *(signed(found[pair][label][way]) for pair in found)] for label in COMPARED]
        lines += table([[way, *found], *rows])
    return [*lines, ""]
