"""Preferred and suppressed pictures of single V4 neurons: the paper's Table 1 and Figure 3B, in form, on recordings.

    P="python -m benchmarks.v4_preferred_images.run"
    $P neurons                                                     # draws neurons.json, before any fit
    $P judges --data $VISLENS_DATA --out runs/v4                   # our encoders of all halves; needs no generator
    $P pictures --data $VISLENS_DATA --out runs/v4 [--share 0/2] [--only-session 201025]
    $P report --out runs/v4
    $P figure --data $VISLENS_DATA --out runs/v4
    $P pictures --tune ..., $P report --tune ...                   # the two tuning sessions, our encoder alone judges

README.md says what is measured, and how.
"""

import argparse
import json
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.bench import Recorded, Remembered, rounded, seen_by
from benchmarks.common.edit_methods import (
    JOB_ANGLE,
    JOB_METHODS,
    METHODS,
    NATURAL,
    OURS,
    SIGN,
    VARIANT_METHODS,
    set_angle,
)
from benchmarks.common.figures import save_small, sheet
from benchmarks.common.judged_edits import NATURAL_IMAGES, Eyes, judged_edits
from benchmarks.common.judges import load_judge
from benchmarks.common.provenance import RESULTS, provenance
from benchmarks.common.v4_sessions import NEURONS, SIZE, TEST_SESSIONS, TUNING_SESSIONS, Session, load_session
from benchmarks.paper_table_1.run import refuse_other_settings
from benchmarks.v4_encoder.report import OURS as RIDGE
from benchmarks.v4_encoder.report import correlations
from benchmarks.v4_encoder.run import WAYS
from benchmarks.v4_preferred_images.report import ENCODER, PUBLISHED, RANDOM, report
from benchmarks.v4_recorded.run import neuron_order

LIST = Path(__file__).with_name("neurons.json")
PAGE = RESULTS / "v4_preferred_images"
COUNTS = {"201025": 30, "210225": 18}
"""Neurons of each test session on the list."""
TUNED = 4
"""Neurons of each tuning session."""
IMAGES = 12
"""Photographs of each half that are edited."""
SECONDS = (0.1, 0.2)
"""A picture takes on one core, about."""
BATCH = 16
FIGURE_NEURONS, FIGURE_PICTURES = 4, 6


def draw_neurons() -> dict[str, list[int]]:
    """The list: of each test session, the first in the fixed random order of v4_recorded."""
    nothing = torch.empty(0)
    return {
        name: neuron_order(Session(name, nothing, torch.empty(0, NEURONS[name]), 0))[:count]
        for name, count in COUNTS.items()
    }


def load_neurons() -> dict[str, list[int]]:
    return json.loads(LIST.read_text(encoding="utf-8"))


def take_turns(neurons: dict[str, list[int]]) -> list[tuple[str, int]]:
    """(session, neuron) in the order of the work: any beginning of it holds the sessions in proportion."""
    places = [
        ((place + 0.5) / len(listed), name, neuron)
        for name, listed in neurons.items()
        for place, neuron in enumerate(listed)
    ]
    return [(name, neuron) for _, name, neuron in sorted(places)]


def our_encoder(data: Path, session: Session, number: int, out: Path, device: str) -> vl.InSilicoEncoder:
    """The judge that learnt from one half, all neurons at once; made once and kept."""
    way = WAYS[RIDGE]
    backbone = way.backbone(data).to(device)
    path = out / f"judge-{session.name}-{number}.safetensors"
    if path.is_file():
        return vl.InSilicoEncoder.load(path, backbone)
    rows, others = session.halves()[number], session.halves()[1 - number]
    dataset = vl.BrainDataset.from_arrays(session.images, session.responses, targets=session.neurons)
    features = backbone.read(session.images, cache=out / "cache", progress=True)
    encoder = vl.InSilicoEncoder(backbone, force=True, name=f"{session.name}, half {number}", **way.encoder)
    encoder.fit(dataset, rows=rows, held_out=others, features=features)
    encoder.save(path)
    return encoder


@torch.no_grad()
def predicted(encoder: Any, images: Tensor) -> Tensor:
    """Predictions (N, K), on the CPU, for pictures of any size, which are seen at the size of the recordings."""
    return torch.cat([encoder(vl.resize(part, SIZE)).float().cpu() for part in images.split(BATCH)])


@dataclass(frozen=True)
class Side:
    """One half to learn from, photographs of the other to edit, and the encoder that learnt from the other.

    Args:
        session: The session.
        learnt: Rows to learn from.
        chosen: Rows to edit, of the other half.
        fitted: (n, 3, 64, 64), the photographs to learn from as the backend sees them.
        pictures: Those to edit.
        natural: Features of the other half's other photographs.
        encoder: Our judge.
        answers: Its predictions for the photographs to learn from, which it has not seen: (n, neurons).
    """

    session: Session
    learnt: Tensor
    chosen: Tensor
    fitted: Tensor
    pictures: Tensor
    natural: Tensor
    encoder: vl.InSilicoEncoder
    answers: Tensor


class Sessions:
    """The backend, and both sides of each session; what is read once is kept."""

    def __init__(
        self, data: Path, out: Path, *, weights: Path | None, images: int = IMAGES, device: str = "cpu"
    ) -> None:
        self.data, self.out, self.images, self.device = data, out, images, device
        self.backend: Any = vl.get_backend("embedded", device, folder=weights)
        network = self.backend.embedder
        self.weights = {"embedder": vl.fingerprint(network.state_dict())}
        self.backend.embedder = Remembered(network)
        self.looker = load_judge(data).to(device)
        self.sides = cache(self._sides)

    def settings(self, angle: float) -> dict[str, Any]:
        """What pictures of one folder have in common."""
        generator, defaults = self.backend.generator, self.backend.defaults
        said = {"angle": angle, "images": self.images, "steps": generator.steps, "change": generator.change}
        said |= {"strength": defaults.edit.strength, **defaults.to_dict()}
        return json.loads(json.dumps(said | self.weights))

    def _sides(self, name: str) -> list[Side]:
        session = load_session(self.data, name)
        small = vl.resize(session.images, self.backend.size)
        return [self._side(session, small, number) for number in (0, 1)]

    def _side(self, session: Session, small: Tensor, number: int) -> Side:
        learnt, other = session.halves()[number], session.halves()[1 - number]
        order = torch.randperm(len(other), generator=torch.Generator().manual_seed(int(session.name)))
        chosen, rest = other[order[: self.images]], other[order[self.images :]]
        encoder = our_encoder(self.data, session, 1 - number, self.out, self.device)
        store = vl.RowCache(self.out / "cache", f"judge-{session.name}", vl.weights_fingerprint(encoder))
        answers = store.rows(
            session.images[learnt], lambda part: predicted(encoder, part), batch_size=BATCH, progress=True
        )
        fitted, pictures = small[learnt], small[chosen]
        embedder = self.backend.embedder
        embedder.known += [(images, embedder(images)) for images in (fitted, pictures)]
        natural = seen_by(self.looker, small[rest])
        return Side(session, learnt, chosen, fitted, pictures, natural, encoder, answers.tensor())

    def judges(self, side: Side, neuron: int) -> tuple[Eyes, dict[str, float]]:
        """Who judges a neuron, each in SDs of its own answers to the photographs learnt from; and how well, there.

        Returns:
            The judges, and each one's correlation with the recordings on the half that the method learns from.
        """
        readers: dict[str, Any] = {}
        file = self.data / "macaque_v4" / side.session.name / "compact_models.safetensors"
        if file.is_file():  # the tuning sessions have none
            published = vl.v4_encoder(file, [neuron])
            published.encoder.to(self.device)  # type: ignore[union-attr]
            readers[PUBLISHED] = published
        readers[ENCODER] = lambda images: side.encoder(images)[:, [neuron]]
        known = {ENCODER: side.answers[:, [neuron]]}
        if PUBLISHED in readers:
            known[PUBLISHED] = predicted(readers[PUBLISHED], side.session.images[side.learnt])
        scalers = {judge: vl.ResponseScaler.fit(values, [judge]) for judge, values in known.items()}
        recorded = side.session.responses[side.learnt][:, [neuron]].double().numpy()
        r = {judge: float(correlations(values.double().numpy(), recorded)[0]) for judge, values in known.items()}
        eyes = Eyes(
            lambda made: {
                judge: scalers[judge].standardise(predicted(reader, made))[:, 0] for judge, reader in readers.items()
            },
            lambda made: seen_by(self.looker, made),
            side.natural,
        )
        return eyes, r


def methods_of(labels: list[str]) -> dict[str, Any]:
    """Unfitted methods. Ours fits shuffled landscapes too, as a lens does it: they tell how good the evidence is."""
    made = {label: (METHODS | VARIANT_METHODS)[label]() for label in labels}
    if OURS in made:
        made[OURS].override(shuffles=2)
    return made | {NATURAL: vl.NaturalImages(NATURAL_IMAGES), RANDOM: vl.RandomImages()}


def cell(bench: Sessions, name: str, neuron: int, labels: list[str], angle: float) -> dict[str, Any]:
    """One neuron: every method on both sides."""
    halves = []
    for number, side in enumerate(bench.sides(name)):
        eyes, r = bench.judges(side, neuron)
        methods = methods_of(labels)
        responses = side.session.responses[side.learnt][:, [neuron]]
        noise = [1000 * number + row for row in range(len(side.pictures))]
        reference = (side.fitted, responses)
        target = Recorded([f"neuron{neuron}"])
        about = f"{name} neuron {neuron}, half {number}"
        found = judged_edits(eyes, methods, target, bench.backend, reference, side.pictures, noise, angle, about)
        original = eyes.answers(side.session.images[side.chosen])
        said: dict[str, Any] = {"rows": side.chosen.tolist(), "judge_r": r}
        said["original"] = {judge: rounded(values) for judge, values in original.items()}
        if OURS in methods:  # read from the half that was learnt from, and from nothing else
            said["evidence"] = next(iter(methods[OURS].evidence_.values())).to_dict()
        halves.append(said | found)
    return {"session": name, "neuron": neuron, "angle": angle, "halves": halves}


def run(
    bench: Sessions, work: list[tuple[str, int]], labels: list[str], angle: float, said: Any, *, tune: bool
) -> None:
    """Every cell that is not there yet."""
    settings = bench.settings(angle)
    refuse_other_settings(bench.out, settings)
    todo = [
        (name, neuron, path) for name, neuron in work if not (path := cell_path(bench.out, name, neuron, tune)).exists()
    ]
    each = 2 * bench.images * (1 + 2 * len(labels))
    low, high = (seconds * each * len(todo) / 60 for seconds in SECONDS)
    print(
        f"{len(todo)} of {len(work)} neurons to do, {each} pictures each, {each * len(todo)} in all: "
        f"about {low:.0f} to {high:.0f} minutes of one core to draw them, and as much again for the judges.",
        flush=True,
    )
    began = time.monotonic()
    for done, (name, neuron, path) in enumerate(todo, 1):
        if path.exists():  # another process has been here
            continue
        found = cell(bench, name, neuron, labels, angle)
        vl.write_text(path, json.dumps({"provenance": said, "settings": settings, **found}))
        each = (time.monotonic() - began) / done
        print(f"{name} neuron {neuron}: done; {len(todo) - done} left, {each * (len(todo) - done) / 60:.0f} minutes")


def cell_path(out: Path, name: str, neuron: int, tune: bool) -> Path:
    return out / f"{'tuning-pictures' if tune else 'pictures'}-{name}-{neuron}.json"


def figure(bench: Sessions, work: list[tuple[str, int]], angle: float) -> Any:
    """Figure 3B: of the first neurons of the list the first photographs; nothing is picked.

    Below each picture stands its Δr against α = 0, in SDs: the published network's / our encoder's.
    """
    rows: list[tuple[str, Tensor, list[str]]] = []
    for name, neuron in work:
        side = bench.sides(name)[0]
        eyes, _ = bench.judges(side, neuron)
        pictures = side.pictures[:FIGURE_PICTURES]
        bench.backend.embedder.known.append((pictures, bench.backend.embedder(pictures)))
        noise = list(range(len(pictures)))
        reference = (side.fitted, side.session.responses[side.learnt][:, [neuron]])
        target = Recorded([f"neuron{neuron}"])
        method = METHODS[OURS]().fit(target, bench.backend, *reference)
        set_angle(method, angle)
        made = {
            "α = 0": vl.Unedited().fit(target, bench.backend, *reference).generate(pictures, {}, seeds=noise).images
        }
        for way, label in zip(SIGN, ("preferred", "suppressed"), strict=True):
            made[label] = method.generate(pictures, {0: way}, seeds=noise).images
        before = eyes.answers(made["α = 0"])
        rows.append((f"{name}, neuron {neuron}\nphotograph", pictures, [""] * len(pictures)))
        rows.append(("α = 0", made["α = 0"], [""] * len(pictures)))
        for label in ("preferred", "suppressed"):
            after = eyes.answers(made[label])
            change = torch.stack([after[judge] - before[judge] for judge in after], 1)
            notes = [" / ".join(f"{value:+.1f}" for value in values) for values in change.tolist()]
            rows.append((label, made[label], notes))
        print(f"figure: {name} neuron {neuron}", flush=True)
    return sheet(rows)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("neurons", "judges", "pictures", "report", "figure"))
    parser.add_argument("--data", type=Path)
    parser.add_argument(
        "--weights", type=Path, help="folder of an embedded backend of one's own; what ships by default"
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tune", action="store_true", help="the tuning sessions, which no result is told of")
    parser.add_argument("--all", action="store_true", help="every neuron of the test sessions, the list's first")
    parser.add_argument("--only-session", choices=(*TEST_SESSIONS, *TUNING_SESSIONS))
    parser.add_argument("--share", default="0/1", help="I/N: every N-th neuron from the I-th on, for N processes")
    parser.add_argument("--images", type=int, default=IMAGES, help="photographs of each half that are edited")
    parser.add_argument("--methods", nargs="+", choices=(*METHODS, *VARIANT_METHODS), help="with --tune")
    parser.add_argument("--angle", type=float, help=f"with --tune: edit angle in degrees, otherwise {JOB_ANGLE:.0f}")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    needed = {"neurons": (), "report": ("out",)}.get(args.part, ("data", "out"))
    if missing := [f"--{name}" for name in needed if getattr(args, name) is None]:
        parser.error(f"{args.part} needs {' and '.join(missing)}")
    if args.tune and args.part in ("neurons", "figure"):
        parser.error(f"{args.part} is of the neurons that are reported: leave --tune out")
    if not args.tune and (args.methods or args.angle):
        parser.error("--methods and --angle belong to --tune: nothing is chosen on the neurons that are reported")
    first, _, count = args.share.partition("/")
    if not (first.isdigit() and count.isdigit() and int(first) < int(count)):
        parser.error(f"--share {args.share}: expected I/N with I from 0 to N - 1, such as 0/2")
    args.share = (int(first), int(count))
    return args


def work_of(args: argparse.Namespace) -> list[tuple[str, int]]:
    """What a command is about, before it is shared out."""
    if args.tune or args.all:
        names = TUNING_SESSIONS if args.tune else TEST_SESSIONS
        count = TUNED if args.tune else None
        neurons = {name: neuron_order(load_session(args.data, name))[:count] for name in names}
    else:
        neurons = load_neurons()
    if args.only_session is not None:
        if args.only_session not in neurons:
            raise SystemExit(f"--only-session {args.only_session}: expected one of {', '.join(neurons)}.")
        neurons = {args.only_session: neurons[args.only_session]}
    listed = set() if args.tune else {(name, neuron) for name, some in load_neurons().items() for neuron in some}
    return sorted(take_turns(neurons), key=lambda one: one not in listed)  # stable: the list's first


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    if args.part == "neurons":
        vl.write_text(LIST, json.dumps(draw_neurons()) + "\n")
        return
    said = provenance(seed=[0, 1], device=args.device)
    if args.part == "report":
        text, kept = report(args.out, load_neurons(), said, tune=args.tune)
        place = args.out / "tuning_pictures" if args.tune else PAGE
        vl.write_text(place.with_suffix(".md"), text)
        vl.write_text(place.with_suffix(".json"), json.dumps(kept, indent=1) + "\n")
        print(text)
        return
    work = work_of(args)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.part == "judges":
        for name in dict.fromkeys(name for name, _ in work):
            for number in (0, 1):
                encoder = our_encoder(args.data, load_session(args.data, name), number, args.out, args.device)
                r = sorted(item.r for item in encoder.predictivity_)
                print(f"{name}, half {number}: median R {r[len(r) // 2]:.3f} on the other half", flush=True)
        return
    bench = Sessions(args.data, args.out, weights=args.weights, images=args.images, device=args.device)
    angle = JOB_ANGLE if args.angle is None else args.angle
    if args.part == "figure":
        save_small(figure(bench, work[:FIGURE_NEURONS], angle), PAGE.with_suffix(".webp"))
        return
    first, count = args.share
    labels = list(dict.fromkeys([OURS, *(args.methods or JOB_METHODS)]))
    run(bench, work[first::count], labels, angle, said, tune=args.tune)


if __name__ == "__main__":
    main()
