"""Are pictures of a unit to be believed? The audit of test units, of units that were fooled, and of our own evidence.

Every unit's record is a file of its own, so that a run goes on where it stopped; ``--report`` writes the page from what
is there. Units and photographs are the test ones of ``benchmarks.pictures``.
"""

import itertools
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.audit.report import write
from benchmarks.common import package as vl
from benchmarks.common.cells import read
from benchmarks.common.command import parser
from benchmarks.common.judges import channel_means, data_folder
from benchmarks.common.photographs import listed, photographs, read_zip
from benchmarks.common.provenance import provenance
from benchmarks.pictures.run import INPUTS, reference_responses, save_features
from vislens_interp.audit.fooling import agreement, fool
from vislens_interp.audit.full import identification, interpretability, transfer
from vislens_interp.audit.material import Material, axis, independent_judge
from vislens_interp.audit.paths import paths
from vislens_interp.audit.prediction import prediction

LAYERS = {"squeezenet": ("features.4", "features.7", "features.12"), "convnet": ("conv2", "conv3")}
THINNED, PICTURES, UNITS = 3, 8, 8
"""One of so many crops of the reference photographs is learnt from; pictures each way; units of each layer."""
JUDGE_PIXELS, ASCENT_PIXELS, STEPS = 128, 32, 64
"""Side at which judges see pictures; side and steps of ascents, which are run on the network for 32 px alone."""
FOOLED, TRAJECTORY = 3, (1, 16, 64)
"""Units that are fooled; steps of the ascents that the detector learns from."""
ASCENTS = ("activation_maximization", "pixel_maximization")
SHUFFLED = "edit, responses shuffled"
KINDS = ("unit", "shuffled", "fooled")


class Bench:
    """Networks, the reference set with what is known of it, photographs, and judges that look at nothing twice."""

    def __init__(self, data: Path, out: Path, seed: int) -> None:
        self.out, self.seed, self.data = out, seed, data
        self.nets: dict[str, Any] = {
            "squeezenet": vl.zoo.load("squeezenet1_0"),
            "convnet": vl.zoo.load("cifar10_convnet"),
        }
        self.backend: Any = vl.get_backend("embedded")
        whole: Any = vl.ReferenceSet.of_backend(self.backend)
        self.reference = whole.at(range(0, len(whole), THINNED))
        real = photographs(data, 1)[0].float() / 255
        order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed + 1))
        self.inputs, self.others = real[order[:INPUTS]], real[order[INPUTS:]]
        self.stored = {
            name: dict(
                zip(layers, reference_responses(out, name, self.nets[name], list(layers), self.reference), strict=True)
            )
            for name, layers in LAYERS.items()
        }
        self.natural = {name: self._natural(name) for name in LAYERS}
        self.judges = {name: independent_judge(self._target(name), JUDGE_PIXELS) for name in LAYERS}
        self.seen: dict[str, Tensor] = {}

    def _natural(self, name: str) -> dict[str, Tensor]:
        path = self.out / f"others-{name}.safetensors"
        if not path.is_file():
            save_features(path, channel_means(self.nets[name], list(LAYERS[name]), self.others))
        return load_file(path)

    def _target(self, name: str, unit: int = 0, layer: str | None = None) -> vl.LayerTarget:
        return vl.LayerTarget(self.nets[name], layer or LAYERS[name][0], unit)

    def lens(self, name: str, layer: str, unit: int) -> vl.FeatureLens:
        """A lens fitted on the thinned reference set, whose responses are known."""
        lens = vl.FeatureLens(self._target(name, unit, layer))
        found = lens.target.whole_layer()
        assert found is not None
        self.reference._layers[found[2]] = self.stored[name][layer].float()
        return lens.fit(self.reference)

    def material(self, lens: vl.FeatureLens, name: str, number: int, natural: Tensor | None) -> Material:
        """What the tests of a unit need; ``natural`` (N, C) are the layer's responses to the photographs, if known."""
        rows = torch.arange(number * PICTURES, (number + 1) * PICTURES) % INPUTS
        groups = torch.arange(len(self.others))
        judge, _ = self.judges[name]
        made = Material(lens, 0, self.inputs[rows], self.others, groups, judge, self.seed)
        if natural is not None:
            made.__dict__["layer"] = (natural.double(), lens.target.units[0])
        if name not in self.seen:
            self.seen[name] = made.features
        made.__dict__["features"] = self.seen[name]
        return made


def tested(material: Material, label: str, maker: vl.Method) -> list[dict[str, Any]]:
    """The rows of one method: every test that needs no further fit."""
    rows = prediction(material, label, maker)
    for test in (paths, transfer, identification, interpretability):
        rows += test(material, label, maker)
    return [asdict(row) for row in rows]


def ascent(name: str, **settings: Any) -> vl.Method:
    return vl.method_by_name(name, size=ASCENT_PIXELS, steps=STEPS, **settings)


def unit_cell(bench: Bench, name: str, layer: str, unit: int, number: int) -> dict[str, Any]:
    """All methods on a test unit, and the evidence of its landscape."""
    lens = bench.lens(name, layer, unit)
    material = bench.material(lens, name, number, bench.natural[name][layer])
    methods: dict[str, Any] = {"edit": "edit", "natural_images": "natural_images", "random_images": "random_images"}
    if name == "convnet":
        methods |= {one: ascent(one) for one in ASCENTS}
    seconds, rows = {}, []
    for label, given in methods.items():
        started = time.process_time()
        rows += tested(material, label, lens.maker(given))
        seconds[label] = time.process_time() - started
    return {"rows": rows, "evidence": lens.evidence_[str(unit)].to_dict(), "seconds": seconds}


def shuffled_cell(bench: Bench, name: str, layer: str, unit: int, number: int) -> dict[str, Any]:
    """The same unit with its responses dealt out to the wrong photographs: evidence, and what its pictures predict."""
    lens = bench.lens(name, layer, unit)
    material = bench.material(lens, name, number, bench.natural[name][layer])
    control = vl.Shuffled(vl.LandscapeEdit(), seed=1 + number)
    rows = [asdict(row) for row in prediction(material, SHUFFLED, lens.maker(control))]
    found: Any = control.method
    return {"rows": rows, "evidence": found.evidence_[str(unit)].to_dict()}


def fooled_cell(bench: Bench, unit: int, number: int) -> dict[str, Any]:
    """A unit of the ConvNet before and after it was fooled in both ways: responses, and pictures of every method."""
    name, layer = "convnet", "conv3"
    decoy = (unit + 1) % bench.stored[name][layer].shape[1]
    honest = bench.lens(name, layer, unit)
    learned = honest.reference_set.learned()
    photos = torch.cat([learned.images[row : row + 64] for row in range(0, len(learned), 64)])
    synthetic = []
    for one, steps in itertools.product(ASCENTS, TRAJECTORY):
        for target in (honest.target, honest.target.at(decoy)):
            maker = vl.method_by_name(one, size=ASCENT_PIXELS, steps=steps)
            maker.fit(target, bench.backend, learned_of(target, learned))
            synthetic.append(maker.generate(photos[:8], {0: "increase"}, seeds=range(100, 108)).images)
    first = bench.material(honest, name, number, bench.natural[name][layer])
    made = {label: first.make(label, honest.maker(given)) for label, given in compared().items()}
    column = honest.landscape_.responses[:, 0].double()
    found: dict[str, Any] = {}
    for construction in ("switch", "silent"):
        changed = fool(honest.target, photos, torch.cat(synthetic), construction=construction, decoy=decoy)
        fooled = vl.FeatureLens(changed).fit(bench.reference.without_responses())
        second = bench.material(fooled, name, number, None)
        methods: dict[str, Any] = {}
        for label, given in compared().items():
            before, after = made[label], second.make(label, fooled.maker(given))
            maker = honest.maker("edit")  # the pictures of both are there
            means = [honest.target.responses(one["increase"])[:, 0].double().mean() for one in (before, after)]
            methods[label] = {
                "rows": [asdict(row) for row in prediction(second, label, maker)],
                "honest rows": [asdict(row) for row in prediction(first, label, maker)],
                "likeness": (axis(first.seen(label, maker)) @ axis(second.seen(label, maker))).item(),
                "honest unit, SD": [((mean - column.mean()) / column.std()).item() for mean in means],
                "pixels": (before["increase"] - after["increase"]).abs().max().item(),
            }
        found[construction] = {
            "agreement": agreement(honest.target, changed, bench.others),
            "accuracy": [accuracy(net, bench.data) for net in (honest.target.model, changed.model)],
            "same landscape": torch.equal(honest.landscape_.responses, fooled.landscape_.responses),
            "methods": methods,
        }
    return found


def compared() -> dict[str, Any]:
    """What is tried on fooled units."""
    return {"edit": "edit", "natural_images": "natural_images", **{one: ascent(one) for one in ASCENTS}}


def learned_of(target: vl.LayerTarget, learned: Any) -> Any:
    """The same images with another unit's responses."""
    return learned.with_responses(learned.without_responses().read_by(target))


@torch.no_grad()
def accuracy(net: Any, data: Path) -> float:
    """Share of 500 of CIFAR-10's test images that a network names, odd places of the sorted list."""
    path = data / "cifar10" / "test.zip"
    names = listed(path)[1::2]
    names = names[:: len(names) // 500][:500]
    kinds = sorted({one.split("/")[-2] for one in names})
    images = read_zip(path, names).float() / 255
    wanted = torch.tensor([kinds.index(one.split("/")[-2]) for one in names])
    return (net.eval()(net.preprocess(images)).argmax(1) == wanted).double().mean().item()


def work(bench: Bench, units: int) -> list[tuple[str, Any]]:
    """Names of cells and what computes them, in an order of which every beginning is balanced."""
    chosen: dict[tuple[str, str], list[int]] = {}
    for name, layers in LAYERS.items():
        for layer in layers:
            width = bench.stored[name][layer].shape[1]
            order = torch.randperm(width, generator=torch.Generator().manual_seed(bench.seed + 2))[width // 2 :]
            spread = bench.stored[name][layer].std(0)
            chosen[name, layer] = [unit for unit in order.tolist() if spread[unit] > 0][:units]
    cells: list[tuple[str, Any]] = []
    for place in range(units):
        if place < FOOLED:
            arguments = (chosen["convnet", "conv3"][place], place)
            cells.append((f"fooled-{arguments[0]}", lambda a=arguments: fooled_cell(bench, *a)))
        for number, ((name, layer), own) in enumerate(chosen.items()):
            arguments = (name, layer, own[place], place * len(chosen) + number)
            stem = f"{name}-{layer}-{own[place]}"
            cells.append((f"unit-{stem}", lambda a=arguments: unit_cell(bench, *a)))
            if (place + number) % 2 == 0:
                cells.append((f"shuffled-{stem}", lambda a=arguments: shuffled_cell(bench, *a)))
    return cells


def main() -> None:
    command = parser(__doc__, "--data", "--out", "--seed", "--threads")
    command.add_argument("--units", type=int, default=UNITS, help=f"of each layer (default: {UNITS})")
    command.add_argument("--only", choices=KINDS, action="append", help="kinds of cells (default: all)")
    command.add_argument("--report", action="store_true", help="write the page from the cells that are there")
    args = command.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.report:
        source = provenance(seed=args.seed)
        bench = Bench(data_folder(args.data), args.out, args.seed)
        for stem, compute in work(bench, args.units):
            path = args.out / f"{stem}.json"
            if path.is_file() or stem.partition("-")[0] not in (args.only or KINDS):
                continue
            started = time.time()
            found = compute()
            vl.write_text(path, json.dumps({"provenance": source, "found": found}))
            print(f"{stem}: {time.time() - started:.0f} s", flush=True)
    write({path.stem: read(path) for path in sorted(args.out.glob("*-*.json"))}, args.out)


if __name__ == "__main__":
    main()
