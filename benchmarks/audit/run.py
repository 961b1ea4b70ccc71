"""Are pictures of a unit to be believed? The audit of test units, of units that were fooled, and of our own evidence.

Every unit's record is a file of its own, so that a run goes on where it stopped; ``--report`` writes the page from what
is there. Units and photographs are the test ones of ``benchmarks.pictures``.
"""

import functools
import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.audit.report import write
from benchmarks.common import package as vl
from benchmarks.common.judges import channel_means, data_folder
from benchmarks.common.photographs import listed, read_zip
from benchmarks.common.script import once, parse, parser, provenance, read, save_tensors, shuffled_half
from benchmarks.pictures.run import INPUTS, inputs_and_others, reference_responses
from vislens_interp.audit.fooling import agreement, fool
from vislens_interp.audit.full import identification, interpretability, permuted, transfer
from vislens_interp.audit.material import Material, axis, independent_judge
from vislens_interp.audit.paths import paths
from vislens_interp.audit.prediction import EXTREMES, prediction
from vislens_interp.audit.result import Row
from vislens_interp.landscape.prior import SENSES

NETWORKS = {"squeezenet": "squeezenet1_0", "lite2": "efficientnet_lite2", "convnet": "cifar10_convnet"}
LAYERS = {
    "squeezenet": ("features.4", "features.7", "features.12"),
    "lite2": ("blocks.1", "blocks.3", "blocks.5"),
    "convnet": ("conv3",),
}
AUDITED = ("squeezenet", "lite2")
"""Real networks, each judged by the other; the ConvNet, for which ascents are cheap, is there for fooled units."""
THINNED, PICTURES, UNITS = 3, 8, 8
"""One of so many crops of the reference photographs is learnt from; pictures each way; units of each layer."""
FURTHER, RANDOM_UNITS = 16, 4
"""Units of each layer beyond those that are audited whose landscapes are judged; units of random networks."""
FOOLED = ("convnet", "squeezenet", "convnet", "lite2", "convnet")
"""Networks of which a unit is fooled, in their order; of the ConvNet the next one, see :func:`fooled_unit`."""
ASCENT = {"convnet": (32, 64, 8), "squeezenet": (128, 24, 4), "lite2": (128, 24, 4)}
"""Side in pixels, steps, and pictures each way of ascents."""
ASCENTS = {
    "convnet": ("activation_maximization", "pixel_maximization"),
    "squeezenet": ("activation_maximization",),
    "lite2": ("activation_maximization",),
}
METHODS = ("edit", "natural_images", "random_images", "prototypes", "edited_prototypes")
"""Our edit, the bar, and a control that has to fail; photographs chosen for what they tell, and edits of these."""
CALIBRATED = ("edit", "prototypes", "edited_prototypes")
"""Pictures of a landscape that evidence is compared with: what a page of results shows."""
THREADS = 2  # of an audit that is timed


class Place(NamedTuple):
    """A unit, and a number that says which photographs are edited."""

    network: str
    layer: str
    unit: int
    number: int


class Bench:
    """Networks, the reference set with what is known of it, photographs, and judges that look at nothing twice.

    ``parity`` 1 takes test photographs and units, 0 tuning ones.
    """

    def __init__(self, data: Path, out: Path, seed: int, parity: int = 1) -> None:
        self.out, self.seed, self.data, self.parity = out, seed, data, parity
        self.nets: dict[str, Any] = {name: vl.zoo.load(stored) for name, stored in NETWORKS.items()}
        for name in AUDITED:
            names = [layer for layer, one in self.nets[name].named_modules() if isinstance(one, nn.Conv2d | nn.Linear)]
            self.nets[random_name(name)] = permuted(self.nets[name], names, seed)
        self.backend: Any = vl.get_backend("embedded")
        whole: Any = vl.ReferenceSet.of_backend(self.backend)
        self.reference = whole.at(range(0, len(whole), THINNED))
        self.inputs, self.others, self.labels = inputs_and_others(data, parity, seed)
        self.seen: dict[str, Tensor] = {}

    @functools.cache  # noqa: B019 - one bench a process
    def stored(self, name: str) -> dict[str, Tensor]:
        """Responses of all units of a network's layers to the reference photographs."""
        layers = layers_of(name)
        read_once = reference_responses(self.out, name, self.nets[name], list(layers), self.reference)
        return dict(zip(layers, read_once, strict=True))

    @functools.cache  # noqa: B019
    def natural(self, name: str) -> dict[str, Tensor]:
        """The same to the photographs that judge."""
        path = self.out / f"others_{name}.safetensors"
        if not path.is_file():
            save_tensors(path, channel_means(self.nets[name], list(layers_of(name)), self.others))
        return load_file(path)

    @functools.cache  # noqa: B019
    def judge(self, name: str) -> Any:
        return independent_judge(vl.LayerTarget(self.nets[name], layers_of(name)[0], 0), self.backend.size)[0]

    def units(self, name: str, layer: str) -> list[int]:
        """Units of a layer that answer anything: the first half of a fixed shuffle tunes, the second half tests."""
        spread = self.stored(name)[layer].std(0)
        half = shuffled_half(len(spread), self.seed + 2, self.parity)
        return [unit for unit in half.tolist() if spread[unit] > 0]

    def lens(self, place: Place) -> vl.FeatureLens:
        """A lens fitted on the thinned reference set, whose responses are known."""
        lens = vl.FeatureLens(vl.LayerTarget(self.nets[place.network], place.layer, place.unit))
        found = lens.target.whole_layer()
        assert found is not None
        self.reference._layers[found[2]] = self.stored(place.network)[place.layer].float()
        return lens.fit(self.reference)

    def material(self, lens: vl.FeatureLens, place: Place, *, natural: bool = True, count: int = PICTURES) -> Material:
        """What the tests of a unit need; unless ``natural``, the photographs are shown to the lens's own network."""
        rows = torch.arange(place.number * PICTURES, place.number * PICTURES + count) % INPUTS
        groups = torch.arange(len(self.others))
        made = Material(lens, 0, self.inputs[rows], self.others, groups, self.judge(place.network), self.seed)
        if natural:
            made.__dict__["layer"] = (self.natural(place.network)[place.layer].double(), lens.target.units[0])
        judge = AUDITED[place.network.startswith("squeezenet")]
        if judge not in self.seen:
            self.seen[judge] = made.features
        made.__dict__["features"] = self.seen[judge]
        return made

    def of(self, place: Place) -> tuple[vl.FeatureLens, Material]:
        lens = self.lens(place)
        return lens, self.material(lens, place)


def random_name(name: str) -> str:
    return f"{name}_random"


def layers_of(name: str) -> tuple[str, ...]:
    return LAYERS[name.removesuffix("_random")]


def dicts(rows: list[Row]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]


def tested(material: Material, label: str, maker: vl.Method) -> list[dict[str, Any]]:
    """The rows of one method: every test that needs no further fit and asks the network nothing."""
    rows = prediction(material, label, maker)
    for test in (transfer, identification, interpretability):
        rows += test(material, label, maker)
    return dicts(rows)


def evidence_of(method: vl.LandscapeEdit | vl.FeatureLens, place: Place) -> dict[str, Any]:
    return method.evidence_[str(place.unit)].to_dict()


def unit_cell(bench: Bench, place: Place) -> dict[str, Any]:
    """Every method but ascents on a test unit, and the evidence of its landscape; the pictures are kept."""
    lens, material = bench.of(place)
    seconds, rows = {}, []
    for label in METHODS:
        started = time.process_time()
        rows += tested(material, label, lens.maker(label))
        seconds[label] = time.process_time() - started
    kept = {
        f"{label} {sense}": (pictures * 255).round().byte()
        for label, made in material.pictures.items()
        for sense, pictures in made.items()
    }
    save_tensors(pictures_file(bench, place), kept)
    return {"rows": rows, "evidence": evidence_of(lens, place), "seconds": seconds}


def pictures_file(bench: Bench, place: Place) -> Path:
    return bench.out / f"pictures_{place.network}_{place.layer}_{place.unit}.safetensors"


def paths_cell(bench: Bench, place: Place) -> dict[str, Any]:
    """How the pictures of a unit cell travel through the network."""
    lens, material = bench.of(place)
    kept = load_file(pictures_file(bench, place))
    for label in METHODS:
        material.pictures[label] = {sense: kept[f"{label} {sense}"].float() / 255 for sense in SENSES}
    return {"rows": dicts([row for label in METHODS for row in paths(material, label, lens.maker(label))])}


def ascent_cell(bench: Bench, place: Place) -> dict[str, Any]:
    """Pictures of an ascent, of which fewer are made: each takes longer than all edits of a unit."""
    (side, steps, count), label = ASCENT[place.network], ASCENTS[place.network][0]
    lens = bench.lens(place)
    material = bench.material(lens, place, count=count)
    started = time.process_time()
    maker = lens.maker(vl.method_by_name(label, size=side, steps=steps))
    rows = tested(material, label, maker) + dicts(paths(material, label, maker))
    return {"rows": rows, "seconds": {label: time.process_time() - started}}


def landscape_cell(bench: Bench, place: Place) -> dict[str, Any]:
    """A landscape's evidence, and what its pictures predict."""
    lens, material = bench.of(place)
    rows = [row for label in CALIBRATED for row in prediction(material, label, lens.maker(label))]
    return {"rows": dicts(rows), "evidence": evidence_of(lens, place)}


def shuffled_cell(bench: Bench, place: Place) -> dict[str, Any]:
    """The same of the same unit with its responses dealt out to the wrong photographs."""
    lens, material = bench.of(place)
    landscape = vl.LandscapeEdit()
    edited = vl.EditedPrototypes(landscape)
    control = lens.maker(vl.Shuffled(edited, seed=1 + place.number))
    makers = dict(zip(CALIBRATED, (landscape, edited.prototypes, control), strict=True))
    rows = [row for label, maker in makers.items() for row in prediction(material, label, maker)]
    return {"rows": dicts(rows), "evidence": evidence_of(landscape, place)}


def whole_cell(bench: Bench, place: Place) -> dict[str, Any]:
    """Seconds that ``lens.audit()`` takes on two threads, of a lens that was fitted as it is by default."""
    lens = vl.FeatureLens(bench.nets[place.network], place.layer, place.unit).fit()
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    started, cpu = time.perf_counter(), time.process_time()
    lens.audit()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    torch.set_num_threads(before)
    return {"seconds": seconds, "cpu": cpu, "threads": THREADS, "load": os.getloadavg()[0]}


def fooled_cell(bench: Bench, place: Place) -> dict[str, Any]:
    """A unit before and after it was fooled in both ways: responses, and pictures of every method."""
    name, layer, unit, _ = place
    side, steps, count = ASCENT[name]
    decoy = (unit + 1) % bench.stored(name)[layer].shape[1]
    honest = vl.FeatureLens(vl.LayerTarget(bench.nets[name], layer, unit))
    honest.fit(bench.reference.without_responses())  # as the fooled one: other batches would change the last digits
    learned = honest.reference_set.learned()
    photos = torch.cat([learned.images[row : row + 64] for row in range(0, len(learned), 64)])
    synthetic = []
    for one, part in itertools.product(ASCENTS[name], (1, steps // 4, steps)):
        for target in (honest.target, honest.target.at(decoy)):
            maker = vl.method_by_name(one, size=side, steps=part)
            responses = learned.without_responses().read_by(target)
            maker.fit(target, bench.backend, learned.with_responses(responses))
            synthetic.append(maker.generate(photos[:count], {0: "increase"}, seeds=range(100, 100 + count)).images)
    first = bench.material(honest, place)
    compared = {label: label for label in METHODS[:2]}
    compared |= {one: vl.method_by_name(one, size=side, steps=steps) for one in ASCENTS[name]}

    def make(material: Material, lens: vl.FeatureLens) -> dict[str, Any]:
        fewer = bench.material(lens, place, natural=False, count=count)  # of ascents
        for label, given in compared.items():
            own = fewer if label in ASCENTS[name] else material
            material.pictures[label] = own.make(label, lens.maker(given))
        return material.pictures

    made = make(first, honest)
    column = honest.landscape_.responses[:, 0].double()
    before_fooling = accuracy(bench, name, honest.target.model)
    found: dict[str, Any] = {}
    for construction in ("switch", "silent"):
        changed = fool(honest.target, photos, torch.cat(synthetic), construction=construction, decoy=decoy)
        fooled = vl.FeatureLens(changed).fit(bench.reference.without_responses())
        second = bench.material(fooled, place, natural=False)
        make(second, fooled)
        methods: dict[str, Any] = {}
        for label in compared:
            before, after = made[label], second.pictures[label]
            maker = honest.maker("edit")  # the pictures of both are there
            means = [honest.target.responses(one["increase"])[:, 0].double().mean() for one in (before, after)]
            methods[label] = {
                "rows": dicts(prediction(second, label, maker)),
                "honest rows": dicts(prediction(first, label, maker)),
                "likeness": (axis(first.seen(label, maker)) @ axis(second.seen(label, maker))).item(),
                "honest unit, SD": [((mean - column.mean()) / column.std()).item() for mean in means],
                "pixels": (before["increase"] - after["increase"]).abs().max().item(),
            }
        found[construction] = {
            "agreement": agreement(honest.target, changed, bench.others),
            "accuracy": [before_fooling, accuracy(bench, name, changed.model)],
            "same landscape": torch.equal(honest.landscape_.responses, fooled.landscape_.responses),
            "methods": methods,
        }
    return found


def fooled_unit(bench: Bench, name: str, order: int) -> tuple[str, int] | None:
    """Layer and unit to be fooled.

    Of a real network the first audited one whose top photographs and edits tell extreme pairs: fooling cannot take from
    others what they do not have. Of the ConvNet, of which no unit is audited, the next of conv3.
    """
    if name not in AUDITED:
        return LAYERS[name][0], bench.units(name, LAYERS[name][0])[order]
    for place in range(UNITS):
        for layer in LAYERS[name]:
            unit = bench.units(name, layer)[place]
            path = bench.out / f"unit-{name}-{layer}-{unit}.json"
            rows = read(path)["found"]["rows"] if path.is_file() else []
            passed = {row["method"] for row in rows if row["test"] == EXTREMES and row["state"] == "passed"}
            if passed >= set(METHODS[:2]):
                return layer, unit
    return None


@torch.no_grad()
def accuracy(bench: Bench, name: str, net: nn.Module) -> float:
    """Share that a network names: of 500 of CIFAR-10's test images, odd ones of the sorted list, or of photographs."""
    if name != "convnet":
        images, wanted = bench.others, bench.labels
    else:
        path = bench.data / "cifar10" / "test.zip"
        names = listed(path)[1::2]
        names = names[:: len(names) // 500][:500]
        kinds = sorted({one.split("/")[-2] for one in names})
        images = read_zip(path, names).float() / 255
        wanted = torch.tensor([kinds.index(one.split("/")[-2]) for one in names])
    preprocess: Any = net.preprocess
    said = torch.cat([net.eval()(preprocess(part)).argmax(1) for part in images.split(25)])
    return (said == wanted).double().mean().item()


CELLS: dict[str, Callable[[Bench, Place], dict[str, Any]]] = {
    "unit": unit_cell,
    "shuffled": shuffled_cell,
    "fooled": fooled_cell,
    "whole": whole_cell,
    "paths": paths_cell,
    "ascent": ascent_cell,
    "landscape": landscape_cell,
    "random": landscape_cell,
}


def work(bench: Bench, units: int) -> Iterator[tuple[str, str, Place]]:
    """Stem, kind and place of cells, in an order of which every beginning is balanced over networks and layers."""
    layers = [(name, layer) for name in AUDITED for layer in LAYERS[name]]

    def turn(kind: str, row: int, half: int | None = None) -> Iterator[tuple[str, str, Place]]:
        for number, (name, layer) in enumerate(layers):
            net = random_name(name) if kind == "random" else name
            own = bench.units(net, layer)
            if row < len(own) and half in (None, (number + row) % 2):
                place = Place(net, layer, own[row], row * len(layers) + number)
                yield f"{kind}-{net}-{layer}-{place.unit}", kind, place

    for place in range(units):
        yield from turn("unit", place)
        yield from turn("paths", place)
        yield from turn("shuffled", place, half=0)
        if 0 < place <= len(FOOLED):
            name = FOOLED[place - 1]
            found = fooled_unit(bench, name, FOOLED[: place - 1].count(name))
            if found is not None:
                layer, unit = found
                yield f"fooled-{name}-{layer}-{unit}", "fooled", Place(name, layer, unit, place)
    yield from itertools.islice(turn("whole", 0), 1, None, len(LAYERS[AUDITED[0]]))
    for place in range(units):
        yield from turn("shuffled", place, half=1)
        yield from turn("landscape", units + place)
        if place < RANDOM_UNITS:
            yield from turn("random", place)
    for place in range(units):
        yield from turn("ascent", place)
    for place in range(2 * units, units + FURTHER):
        yield from turn("landscape", place)


def main() -> None:
    command = parser(__doc__, "--data", "--out", "--seed", "--threads")
    command.add_argument("--units", type=int, default=UNITS, help=f"of each layer (default: {UNITS})")
    command.add_argument("--only", choices=list(CELLS), action="append", help="kinds of cells (default: all)")
    command.add_argument("--report", action="store_true", help="write the page from the cells that are there")
    command.add_argument("--tune", action="store_true", help="tuning photographs and units, in a folder of their own")
    args = parse(command)
    out = args.out / "tuning" if args.tune else args.out  # photographs and their responses are other ones too
    if not args.report:
        source = provenance(seed=args.seed)
        out.mkdir(exist_ok=True)
        bench = Bench(data_folder(args.data), out, args.seed, parity=0 if args.tune else 1)
        for stem, kind, place in work(bench, args.units):
            if kind in (args.only or CELLS):
                once(out / f"{stem}.json", functools.partial(CELLS[kind], bench, place), source)
    write({path.stem: read(path) for path in sorted(out.glob("*-*.json"))}, out)


if __name__ == "__main__":
    main()
