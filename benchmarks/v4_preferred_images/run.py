"""Preferred and suppressed pictures of single V4 neurons: the paper's Table 1 and Figure 3B, in form, on recordings."""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.common import package as vl
from benchmarks.common.edit_methods import JOB_ANGLE, JOB_METHODS, METHODS, NATURAL, OURS, SIGN, Recorded, set_angle
from benchmarks.common.figures import save_small, sheet
from benchmarks.common.judges import load_judge, seen_by
from benchmarks.common.script import (
    RESULTS,
    once,
    parser,
    provenance,
    publish,
    read,
    refuse_other_settings,
    rounded,
    shuffled,
)
from benchmarks.common.v4_sessions import NEURONS, SIZE, TEST_SESSIONS, TUNING_SESSIONS, Session, load_session
from benchmarks.v4_encoder.report import OURS as RIDGE
from benchmarks.v4_encoder.report import correlations
from benchmarks.v4_encoder.run import WAYS
from benchmarks.v4_preferred_images.judging import NATURAL_IMAGES, Eyes, judged_edits
from benchmarks.v4_preferred_images.report import ENCODER, PUBLISHED, RANDOM, report
from benchmarks.v4_recorded.run import neuron_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIST = Path(__file__).with_name("neurons.json")
PAGE = RESULTS / "v4_preferred_images"
COUNTS = {"201025": 30, "210225": 18}  # neurons of each test session on the list
TUNED = 4  # neurons of each tuning session
IMAGES = 4  # photographs of each half that are edited
GRID = 3  # cells to a side of the embedding, chosen on tuning sessions (docs/design/diary.md)
BATCH = 16
FIGURE_NEURONS, FIGURE_PICTURES = 4, 6


def draw_neurons() -> dict[str, list[int]]:
    """How the list was drawn, before any fit: of each test session, the first in v4_recorded's fixed random order."""
    return {name: neuron_order(NEURONS[name])[:count] for name, count in COUNTS.items()}


def load_neurons() -> dict[str, list[int]]:
    return read(LIST)


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
    build, readout = WAYS[RIDGE]
    backbone = build(data).to(device)
    path = out / f"judge-{session.name}-{number}.safetensors"
    if path.is_file():
        return vl.InSilicoEncoder.load(path, backbone)
    rows, others = session.sides(number)
    dataset = vl.BrainDataset.from_arrays(session.images, session.responses, targets=session.neurons)
    features = backbone.read(session.images, cache=out / "cache", progress=True)
    encoder = vl.InSilicoEncoder(backbone, readout, force=True, name=f"{session.name}, half {number}")
    encoder.fit(dataset, rows=rows, held_out=others, features=features)
    encoder.save(path)
    return encoder


@torch.no_grad()
def predicted(encoder: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Predictions (N, K), on the CPU, for pictures of any size, which are seen at the size of the recordings."""
    return torch.cat([encoder(vl.resize(part, SIZE)).float().cpu() for part in images.split(BATCH)])


@dataclass(frozen=True)
class Side:
    """One half to learn from, photographs of the other to edit, and the encoder that learnt from the other."""

    session: Session
    learnt: Tensor  # rows to learn from
    chosen: Tensor  # rows to edit, of the other half
    fitted: Tensor  # (n, 3, S, S), the photographs to learn from as the backend sees them; `pictures` are those to edit
    pictures: Tensor
    natural: Tensor  # features of the other half's other photographs
    # Our judge; `answers` are its predictions for the photographs to learn from: (n, neurons).
    encoder: vl.InSilicoEncoder
    answers: Tensor


class Sessions:
    """The backend, and both sides of each session; what is read once is kept."""

    def __init__(self, data: Path, out: Path, images: int, device: str) -> None:
        self.data, self.out, self.images, self.device = data, out, images, device
        self.backend: Any = vl.get_backend("embedded", device, cache=out / "cache", grid=GRID)
        self.looker = load_judge(data).to(device)
        self.sides = cache(self._sides)

    def settings(self, angle: float) -> dict[str, Any]:
        """What pictures of one folder have in common."""
        generator, defaults = self.backend.generator, self.backend.defaults
        said = {"angle": angle, "grid": GRID, "images": self.images, "steps": generator.steps}
        said |= {"change": generator.change, "strength": defaults.edit.strength, **defaults.to_dict()}
        return json.loads(json.dumps(said | {"embedder": vl.fingerprint(self.backend.embedder.state_dict())}))

    def _sides(self, name: str) -> list[Side]:
        session = load_session(self.data, name)
        small = vl.resize(session.images, self.backend.size)
        return [self._side(session, small, number) for number in (0, 1)]

    def _side(self, session: Session, small: Tensor, number: int) -> Side:
        learnt, other = session.sides(number)
        order = shuffled(len(other), int(session.name))
        chosen, rest = other[order[: self.images]], other[order[self.images :]]
        encoder = our_encoder(self.data, session, 1 - number, self.out, self.device)
        store = vl.RowCache(self.out / "cache", f"judge-{session.name}", vl.weights_fingerprint(encoder))
        see = lambda part: predicted(encoder, part)  # noqa: E731
        answers = store.rows(session.images[learnt], see, batch_size=BATCH, progress=True).tensor()
        natural = seen_by(self.looker, small[rest])
        return Side(session, learnt, chosen, small[learnt], small[chosen], natural, encoder, answers)

    def judges(self, side: Side, neuron: int) -> tuple[Eyes, dict[str, float]]:
        """Who judges a neuron, each in SDs of its own answers to the photographs that the method learns from.

        Beside the judges stands each one's correlation with the recordings of those photographs.
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

        def answers(made: Tensor) -> dict[str, Tensor]:
            seen = {judge: predicted(reader, made) for judge, reader in readers.items()}
            return {judge: scalers[judge].standardise(values)[:, 0] for judge, values in seen.items()}

        return Eyes(answers, lambda made: seen_by(self.looker, made), side.natural), r


def methods_of(labels: list[str]) -> dict[str, Any]:
    """Unfitted methods. Ours fits shuffled landscapes too, as a lens does it: they tell how good the evidence is."""
    made = {label: METHODS[label]() for label in labels}
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
    bench: Sessions, work: list[tuple[str, int]], labels: list[str], angle: float, said: dict[str, Any], *, tune: bool
) -> None:
    """Every cell that is not there yet."""
    settings = bench.settings(angle)
    refuse_other_settings(bench.out, settings)
    about = {"provenance": said, "settings": settings}
    for name, neuron in work:
        make = lambda name=name, neuron=neuron: about | cell(bench, name, neuron, labels, angle)  # noqa: E731
        once(cell_path(bench.out, name, neuron, tune), make)


def cell_path(out: Path, name: str, neuron: int, tune: bool) -> Path:
    return out / f"{'tuning-pictures' if tune else 'pictures'}-{name}-{neuron}.json"


def figure(bench: Sessions, work: list[tuple[str, int]], angle: float) -> "Figure":
    """Figure 3B: of the first neurons of the list the first photographs; nothing is picked.

    Below each picture stands its Δr against α = 0, in SDs: the published network's / our encoder's.
    """
    rows: list[tuple[str, Tensor, list[str]]] = []
    for name, neuron in work:
        side = bench.sides(name)[0]
        eyes, _ = bench.judges(side, neuron)
        pictures = side.pictures[:FIGURE_PICTURES]
        noise, nothing = list(range(len(pictures))), [""] * len(pictures)
        reference = (side.fitted, side.session.responses[side.learnt][:, [neuron]])
        target = Recorded([f"neuron{neuron}"])
        method = METHODS[OURS]().fit(target, bench.backend, *reference)
        set_angle(method, angle)
        zero = vl.Unedited().fit(target, bench.backend, *reference).generate(pictures, {}, seeds=noise).images
        before = eyes.answers(zero)
        rows += [(f"{name}, neuron {neuron}\nphotograph", pictures, nothing), ("α = 0", zero, nothing)]
        for way, label in zip(SIGN, ("preferred", "suppressed"), strict=True):
            made = method.generate(pictures, {0: way}, seeds=noise).images
            after = eyes.answers(made)
            change = torch.stack([after[judge] - before[judge] for judge in after], 1)
            rows.append((label, made, [" / ".join(f"{value:+.1f}" for value in row) for row in change.tolist()]))
        print(f"figure: {name} neuron {neuron}", flush=True)
    return sheet(rows)


def parse(argv: list[str] | None) -> argparse.Namespace:
    names = ("--data", "--out", "--device", "--share", "--threads")
    command = parser(__doc__, *names, parts=("judges", "pictures", "report", "figure"))
    command.add_argument("--tune", action="store_true", help="the tuning sessions, which no result is told of")
    command.add_argument("--only-session", choices=(*TEST_SESSIONS, *TUNING_SESSIONS))
    command.add_argument("--images", type=int, default=IMAGES, help="photographs of each half that are edited")
    command.add_argument("--methods", nargs="+", choices=METHODS, help="with --tune")
    command.add_argument("--angle", type=float, help=f"with --tune: edit angle in degrees, otherwise {JOB_ANGLE:.0f}")
    args = command.parse_args(argv)
    if args.part != "report" and args.data is None:
        command.error(f"{args.part} needs --data")
    if args.tune and args.part == "figure":
        command.error("figure is of the neurons that are reported: leave --tune out")
    if not args.tune and (args.methods or args.angle):
        command.error("--methods and --angle belong to --tune: nothing is chosen on the neurons that are reported")
    return args


def work_of(args: argparse.Namespace) -> list[tuple[str, int]]:
    """What a command is about, before it is shared out."""
    if args.tune:
        counts = {name: load_session(args.data, name).responses.shape[1] for name in TUNING_SESSIONS}
        neurons = {name: neuron_order(count)[:TUNED] for name, count in counts.items()}
    else:
        neurons = load_neurons()
    if args.only_session is not None:
        if args.only_session not in neurons:
            raise SystemExit(f"--only-session {args.only_session}: expected one of {', '.join(neurons)}.")
        neurons = {args.only_session: neurons[args.only_session]}
    return take_turns(neurons)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    said = provenance(seed=[0, 1], device=args.device)
    if args.part == "report":
        place = args.out / "tuning_pictures" if args.tune else PAGE
        publish(place, *report(args.out, load_neurons(), said, tune=args.tune))
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
    bench = Sessions(args.data, args.out, args.images, args.device)
    angle = JOB_ANGLE if args.angle is None else args.angle
    if args.part == "figure":
        save_small(figure(bench, work[:FIGURE_NEURONS], angle), PAGE.with_suffix(".webp"))
        return
    first, count = args.share
    labels = list(dict.fromkeys([OURS, *(args.methods or JOB_METHODS)]))
    run(bench, work[first::count], labels, angle, said, tune=args.tune)


if __name__ == "__main__":
    main()
