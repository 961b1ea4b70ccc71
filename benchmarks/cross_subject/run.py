"""Landscapes of one animal, judged by another: the paper's Table 2 in form, on macaque V4 and on simulated subjects."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.edit_methods import Recorded, set_angle
from benchmarks.common.judges import load_squeezenet
from benchmarks.common.script import RESULTS, once, parse, parser, provenance, publish, rounded, save_cell, shuffled
from benchmarks.common.v4_sessions import load_session
from benchmarks.cross_subject.made import made_cells
from benchmarks.cross_subject.report import report
from benchmarks.cross_subject.subjects import ANIMALS, PICTURES, SIMULATED, Subject, simulated_subjects
from benchmarks.v4_recorded.methods import ANGLES, BRAINACTIV, FADE, LANDSCAPE, MEANS, OURS, PATTERN, SIGN, TWIN
from benchmarks.v4_recorded.methods import METHODS as ALL_METHODS
from benchmarks.v4_recorded.report import EDITED, NEAREST
from benchmarks.v4_recorded.run import LATENT_DIM, KnownEmbeddings

TABLE_ANGLE = 55.0  # of the tables in the paper's form: what the retrieval backend ships with
GROUPS = 4
"""Disjoint random groups of a session's neurons, each a landscape of its own: how much the neurons at hand matter."""
METHODS = {label: build for label, build in ALL_METHODS.items() if label != FADE}
Unit = tuple[list[int], tuple[str, ...], tuple[float, ...]]
"""What a landscape is organised by: columns whose mean it is, the methods and the angles by which it is edited."""
GROUP_METHODS = (OURS, LANDSCAPE, TWIN, MEANS, PATTERN, BRAINACTIV)


def group_columns(neurons: int) -> list[list[int]]:
    order = shuffled(neurons, 2).tolist()
    return [sorted(order[place::GROUPS]) for place in range(GROUPS)]


def tally(rows: Tensor) -> dict[str, list[int]]:
    """How often each row was retrieved."""
    found, counts = rows.flatten().unique(return_counts=True)
    return {"rows": found.tolist(), "counts": counts.tolist()}


class Source:
    """Half of a session to learn from; of every judge, the other half to edit and to retrieve from."""

    def __init__(self, subject: Subject, half: int, judges: list[Subject]) -> None:
        learnt = subject.sides(half)[0]
        mean, std = subject.x[learnt].mean(0), subject.x[learnt].std(0).clamp_min(1e-6)
        x = (subject.x - mean) / std
        embedder = KnownEmbeddings(subject.session.images, x)
        self.subject, self.learnt = subject, learnt
        self.fitted = embedder.part(subject.session.images, learnt)
        seen = set(vl.image_keys(self.fitted))
        self.galleries: dict[str, tuple[Tensor, vl.RetrievalBackend]] = {}
        self.excluded: dict[str, int] = {}
        for judge in judges:
            rows = judge.sides(half)[1]
            new = torch.tensor([key not in seen for key in vl.image_keys(judge.session.images[rows])])
            self.excluded[judge.name] = int((~new).sum())
            rows = rows[new]
            gallery = judge.session.images[rows]
            embedder.parts.append((gallery, (judge.x[rows] - mean) / std))
            backend = vl.RetrievalBackend(
                embedder, gallery, count=NEAREST, start_from=x[learnt], latent_dim=LATENT_DIM, leave_out_own=False
            )
            self.galleries[judge.name] = (rows, backend)
        edited = [backend.embeddings[:EDITED] for _, backend in self.galleries.values()]
        self.x, self.parts = torch.cat(edited), [len(part) for part in edited]

    def edits(self, responses: Tensor, methods: dict[str, Callable[[], Any]], angles: tuple[float, ...]) -> list[Any]:
        """What pictures of every judge became, by method, direction and angle; the first entry is α = 0."""
        target = Recorded(["population"])
        first = next(iter(self.galleries.values()))[-1]
        rows = [{"method": "α = 0", "judges": self._became(self.x)}]
        for label, build in methods.items():
            method = build().fit(target, first, self.fitted, responses)
            for angle in angles:
                set_angle(method, angle)
                for way in SIGN:
                    moved = method.embeddings(self.x, {0: way})
                    short = (vl.angle_between(moved, self.x) < angle - 1).double().mean().item()
                    found = {"method": label, "direction": way, "angle": angle, "short": short}
                    rows.append(found | {"judges": self._became(moved)})
        return rows

    def _became(self, x: Tensor) -> dict[str, Any]:
        """What pictures of each judge became: its gallery's nearest ones, but for a picture itself."""
        found = {}
        for (name, (rows, backend)), part in zip(self.galleries.items(), x.split(self.parts), strict=True):
            near = backend.retrieve(part, count=NEAREST + 1).rows
            # The edited pictures are the gallery's first, each once: to hash them at every edit took half of the time.
            own = near == torch.arange(len(part))[:, None]
            chosen = own.int().argsort(dim=1, stable=True)[:, :NEAREST]
            found[name] = tally(rows[near.gather(1, chosen)])
        return found


def gallery_cell(subject: Subject, half: int) -> dict[str, Any]:
    """Of one gallery: what was recorded to it, each neuron in SDs over the other half, and the truth if it is known."""
    learnt, gallery = subject.sides(half)
    standard, _, _ = subject.standard(learnt)
    cell = {
        "rows": gallery.tolist(),
        "recorded": rounded(standard[gallery]),
        "population_sd": standard[learnt].mean(1).std(correction=0).item(),
    }
    return cell | ({} if subject.truth is None else {"truth": rounded(subject.truth[gallery])})


def encoder_cell(subject: Subject, half: int, backbone: vl.Backbone, features: vl.Features) -> dict[str, Any]:
    """What an encoder that learnt from one half predicts for the gallery, in the same SDs."""
    learnt, gallery = subject.sides(half)
    encoder = subject.encoder(half, backbone, features)
    with torch.no_grad():  # from the features that are there: the same as encoder(images), without the network again
        layers = [features[part] for part in gallery.split(64)]
        read = torch.cat([torch.stack([member(one) for member in encoder.members]).mean(0) for one in layers])
    predicted = read * encoder.scale + encoder.shift
    standard, mean, std = subject.standard(learnt)
    recorded, seen = standard[gallery].mean(1), (predicted - mean) / std
    return {
        "encoder": rounded(seen),
        "population_sd": seen.mean(1).std(correction=0).item(),
        "r": [item.r for item in vl.predictivity(predicted, subject.session.responses[gallery], subject.targets)],
        "population_r": torch.corrcoef(torch.stack([recorded, seen.mean(1)]))[0, 1].item(),
    }


def fit(data: Path, out: Path, said: dict[str, Any], names: list[str]) -> None:
    """Everything that is not there yet; what matters most comes first."""
    sessions = {name: load_session(data, name) for name in names}
    backbone = vl.Backbone(load_squeezenet(data))
    features = {
        name: backbone.read(session.images, cache=out / "cache", progress=True) for name, session in sessions.items()
    }
    x = {name: found.layer(len(backbone.layers) - 1).mean(1) for name, found in features.items()}
    real = [Subject(name, ANIMALS[name], session, x[name]) for name, session in sessions.items()]
    gallery_cells(real, out, said)
    edit_cells("population", real, out, said)
    made = simulated_subjects(sessions[PICTURES], x[PICTURES], out) if PICTURES in sessions else []
    gallery_cells(made, out, said)
    edit_cells("region", made, out, said)
    for subject in (*real, *made):
        for half in subject.halves:
            path = out / f"encoder-{subject.name}-{half}.json"
            once(path, partial(encoder_cell, subject, half, backbone, features[subject.session.name]), said)
    edit_cells("group", real, out, said)
    made_cells(real, backbone, features, out, said)


def gallery_cells(subjects: list[Subject], out: Path, said: dict[str, Any]) -> None:
    for subject in subjects:
        for half in subject.halves:
            once(out / f"judge-{subject.name}-{half}.json", partial(gallery_cell, subject, half), said)


def edit_cells(stage: str, subjects: list[Subject], out: Path, said: dict[str, Any]) -> None:
    """Of every subject and half, the units of one stage, judged by all of these subjects."""
    for subject in subjects:
        units = {unit: way for unit, way in units_of(subject).items() if unit.startswith(stage)}
        for half in subject.halves if units else ():
            judge_edits(subject, half, subjects, units, out, said)


def judge_edits(
    subject: Subject, half: int, judges: list[Subject], units: dict[str, Any], out: Path, said: dict[str, Any]
) -> None:
    """What pictures of all judges become, a file each; a landscape is fitted once for the judges that lack theirs."""
    source: Source | None = None
    for unit, (columns, methods, angles) in units.items():
        paths = {judge.name: out / f"source-{subject.name}-{half}-{unit}-{judge.name}.json" for judge in judges}
        absent = [judge for judge in judges if not paths[judge.name].exists()]
        if not absent:
            continue
        if source is None or list(source.galleries) != [judge.name for judge in absent]:
            source = Source(subject, half, absent)
        began = time.monotonic()
        population = subject.standard(source.learnt)[0][source.learnt][:, columns].mean(1, keepdim=True)
        edits = source.edits(population, {label: METHODS[label] for label in methods}, angles)
        seconds = (time.monotonic() - began) / len(absent)
        for judge in absent:
            found = {"source": subject.name, "half": half, "unit": unit, "excluded": source.excluded[judge.name]}
            found["edits"] = [edit | {"judges": {judge.name: edit["judges"][judge.name]}} for edit in edits]
            save_cell(paths[judge.name], found, said)
            print(f"{paths[judge.name].stem}: {seconds:.0f} s", flush=True)


def units_of(subject: Subject) -> dict[str, Unit]:
    """What landscapes are organised by; of simulated subjects the first alone is learnt from."""
    count = subject.session.responses.shape[1]
    if subject.simulated:
        learnt = subject.name == SIMULATED[0]
        return {f"region{place}": ([place], tuple(METHODS), ANGLES) for place in range(count) if learnt}
    found: dict[str, Unit] = {"population": (list(range(count)), tuple(METHODS), ANGLES)}
    for place, columns in enumerate(group_columns(count)):
        found[f"group{place}"] = (columns, GROUP_METHODS, (TABLE_ANGLE,))
    return found


def main() -> None:
    args = parse(parser(__doc__, "--data", "--out", "--threads", parts=("fit", "report")))
    said = provenance(seed=[0, 1, 2])
    if args.part == "report":
        publish(RESULTS / "cross_subject", *report(args.out, said, table_angle=TABLE_ANGLE))
    else:
        fit(args.data, args.out, said, list(ANIMALS))


if __name__ == "__main__":
    main()
