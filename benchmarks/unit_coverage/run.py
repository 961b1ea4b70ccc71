"""Is a unit that a tool reads the unit that was meant? Every named layer of a hundred architectures, random units."""

import itertools
import json
import sys
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from tqdm import tqdm

from benchmarks.common.script import once, parser, provenance
from benchmarks.unit_coverage.layouts import ARCHITECTURES, Architecture
from benchmarks.unit_coverage.readers import READERS, ROWS, Reader
from benchmarks.unit_coverage.report import CHOOSABLE, report
from vislens_interp.files import write_text


@dataclass
class Truth:
    """What a layer's output is, and its units' values by hand."""

    kind: str
    calls: int = 0
    shape: tuple[int, ...] = ()  # of its (first) tensor, which has `place` in a tuple; None is a plain tensor
    layout: str = ""  # the declared one, for this rank
    place: int | None = None
    units: list[int] = field(default_factory=lambda: [0])  # chosen at random
    # Hand values (N, K) by call; several where several are right.
    values: list[list[Tensor]] = field(default_factory=list)
    # Why no unit exists for somebody who says nothing but layer and number; `""` where one does.
    missing: str = "never called"
    parameters: str = ""  # whether the layer's own parameters prove the declared layout
    scale: float = 0.0  # largest absolute value of the output


MISSING = {
    "heads": "attention weights",
    "split": "channels divided over heads",
    "open": "token mixing: two meanings",
    "none": "no images in it",
    "folded": "images share an axis",
}


def find_tensor(output: object) -> tuple[int | None, Tensor | None]:
    """A layer's tensor, or the first one in a tuple or list, and its place there."""
    if isinstance(output, Tensor):
        return None, output
    parts = enumerate(output) if isinstance(output, (tuple, list)) else ()
    return next(((place, one) for place, one in parts if isinstance(one, Tensor)), (None, None))


def pick_layout(declared: str, rank: int) -> tuple[list[str], str]:
    """The declared layouts of a rank, and the word in front of them; the table may not have thought of this rank."""
    words = declared.split()
    word = words.pop(0) if words[0] in MISSING else ""
    fitting = [layout for layout in words if len(layout) == rank]
    if not fitting and word != "none":
        raise ValueError(f"the table declares {declared!r}, which has no layout of {rank} axes")
    return fitting, word


def by_hand(tensor: Tensor, axis: int, units: list[int], rows: int = ROWS) -> Tensor:
    """Means of some units over all other axes but that of the images, (N, K); folded images are unfolded."""
    values = tensor.movedim(axis, -1)[..., units].double()
    values = values.flatten(1, -2).mean(1) if values.ndim > 2 else values
    return values.view(rows, -1, len(units)).mean(1) if len(values) != rows else values


def own_parameters(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, axis: int) -> str:
    """Change one output unit's own parameters: does the declared axis move there, and nowhere else?"""
    if not isinstance(module, (nn.Linear, _ConvNd, _BatchNorm, nn.LayerNorm, nn.GroupNorm)):
        return ""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    parameter = bias if isinstance(bias, Tensor) else weight
    if not isinstance(parameter, Tensor) or (isinstance(module, nn.LayerNorm) and parameter.ndim != 1):
        return ""
    if len(parameter) != output.shape[axis]:
        return "contradicted"
    unit = len(parameter) // 2
    kept = parameter.data[unit].clone()
    before = module.forward(*inputs)
    parameter.data[unit] = kept + 10 if parameter is bias else -kept - 1
    after = module.forward(*inputs)
    parameter.data[unit] = kept
    moved = (after - before).movedim(axis, 0).flatten(1).abs().amax(1) > 0
    if not moved.any():
        return ""
    return "proven" if moved[unit] and moved.sum() == 1 else "contradicted"


class Hooks:
    """What one pass shows of every layer, noted in ``found`` by hooks; an error where the declarations do not fit."""

    def __init__(self, architecture: Architecture, model: nn.Module, seed: int) -> None:
        self.architecture, self.seed, self.busy = architecture, seed, False
        self.found = {name: Truth(type(module).__name__) for name, module in model.named_modules()}

    def note(self, name: str, module: nn.Module, args: tuple[Tensor, ...], output: object) -> None:
        if self.busy:  # in a layer that is tried out
            return
        truth = self.found[name]
        truth.calls += 1
        if truth.calls > 1 and truth.missing == "no tensor":
            return
        place, tensor = find_tensor(output)
        if tensor is None:
            truth.missing = "no tensor"
            return
        about = f"{self.architecture.key}, layer {name!r} of shape {tuple(tensor.shape)}"
        try:
            layouts, word = pick_layout(self.architecture.declared(name), tensor.ndim)
        except ValueError as error:
            raise ValueError(f"{about}: {error}") from error
        unfolded = tensor.shape[0] != ROWS
        if unfolded and word not in ("folded", "none"):
            raise ValueError(f"{about} is not {layouts}")
        axes = [layout.index("C" if "C" in layout else "H") for layout in layouts]
        if truth.calls == 1:
            truth.shape, truth.place, truth.scale = tuple(tensor.shape), place, tensor.abs().max().item()
            truth.missing = MISSING.get(word, "") if word != "folded" or unfolded else ""
            truth.missing = truth.missing or ("in a tuple" if place is not None else "")
            if not layouts:
                return
            truth.layout = layouts[0]
            if "C" not in truth.layout:  # of one window or of many
                truth.missing = MISSING["heads"]
            draw = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {self.architecture.key} {name}".encode()))
            truth.units = [0] if word == "open" else torch.randperm(tensor.shape[axes[0]], generator=draw)[:2].tolist()
            if place is None and not word:
                self.busy = True
                truth.parameters = own_parameters(module, args, tensor, axes[0])
                self.busy = False
        elif truth.layout and truth.missing in CHOOSABLE:
            truth.missing = "called several times"
        # A later call may have fewer units; then no hand value, and nobody may read the unit from it.
        fits = all(tensor.shape[axis] > max(truth.units) for axis in axes) and tensor.shape[0] % ROWS == 0
        truth.values.append([by_hand(tensor, axis, truth.units) for axis in axes] if fits else [])


@torch.no_grad()
def truths(architecture: Architecture, model: nn.Module, inputs: Tensor, seed: int) -> dict[str, Truth]:
    """One pass with a hook on every layer."""
    seen = Hooks(architecture, model, seed)
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            hooks.callback(module.register_forward_hook(partial(seen.note, name)).remove)
        model(inputs)
    return seen.found


@contextmanager
def changed(module: nn.Module, truth: Truth, call: int) -> Iterator[Tensor]:
    """Inside, the layer's output has the first unit raised in the second image and the second unit in the third."""
    step, calls, axis = 1 + truth.scale, itertools.count(), truth.layout.index("C")

    def raise_units(module: nn.Module, args: object, output: "Tensor | list[Any] | tuple[Any, ...]") -> object:
        if next(calls) != call:
            return None
        parts = [output] if isinstance(output, Tensor) else list(output)
        tensor = parts[truth.place or 0] = parts[truth.place or 0].clone()
        rows = len(tensor) // ROWS  # windows of an image, one after the other
        for row, unit in enumerate(truth.units, start=1):
            tensor.select(axis, unit)[row * rows : (row + 1) * rows] += step
        return tensor if isinstance(output, Tensor) else type(output)(parts)

    expected = torch.zeros(ROWS, len(truth.units), dtype=torch.double)
    expected[1:].fill_diagonal_(step)
    with module.register_forward_hook(raise_units, prepend=True):  # before the tool's
        yield expected


def judge(values: Tensor, truth: Truth, expected: Tensor, call: int) -> list[str]:
    """Of each unit: right, or wrong and how."""
    # Of what the layer gives, in the images where nothing was changed; of the change, where something was.
    tolerance = 1e-6 + 1e-4 * torch.tensor([truth.scale, *[1 + truth.scale] * (ROWS - 2), truth.scale])
    hands, outcomes = truth.values[call] if len(truth.values) > call else [], []
    for column in range(len(truth.units)):
        apart = [(values - hand)[:, column].double() for hand in hands]
        if any(((one - expected[:, column]).abs() <= tolerance).all() for one in apart):
            outcomes.append("right")
        elif truth.missing:
            outcomes.append(f"wrong: read where there is none ({truth.missing})")
        elif not hands:
            outcomes.append("wrong: read from a call that has no such unit")
        else:
            first = apart[0].abs() > tolerance
            outcomes.append(f"wrong: {'another value' if first[0] or first[-1] else 'moves with another unit'}")
    return outcomes


def remedy(message: str, truth: Truth) -> tuple[dict[str, Any], int]:
    """What a refusal asks to be told, answered from the declarations; and which call is then read."""
    told: dict[str, Any] = {}
    if "call=" in message and truth.calls > 1:
        told["call"] = truth.calls - 1
    if "output=" in message and truth.place is not None:
        told["output"] = truth.place
    if "layout=" in message and truth.layout in ("NCHW", "NHWC", "NLC", "NCL", "NC"):
        told["layout"] = truth.layout
    return told, told.get("call", 0)


def try_layer(reader: Reader, model: nn.Module, name: str, truth: Truth, images: Tensor) -> dict[str, Any]:
    can_change = reader.changes and "C" in truth.layout and truth.missing in CHOOSABLE
    module = model.get_submodule(name)
    cell: dict[str, Any] = {}

    def attempt(wanted: int, **told: int | str) -> tuple[list[str], str]:
        try:
            read = reader.prepare(name, truth.units, **told)
            if can_change:
                with changed(module, truth, wanted) as expected:
                    values = read(images)
            else:
                expected, values = torch.zeros(ROWS, len(truth.units), dtype=torch.double), read(images)
        except Exception as error:  # noqa: BLE001 (whatever a tool raises is its refusal)
            return ["refused"] * len(truth.units), f"{type(error).__name__}: {error}"
        if values.shape != expected.shape:
            return [f"wrong: gives shape {tuple(values.shape)} for {ROWS} images"] * len(truth.units), ""
        if "call" not in told and truth.calls > 1:
            return ["wrong: took one of several calls without a word"] * len(truth.units), ""
        return judge(values, truth, expected, wanted), ""

    cell["outcomes"], cell["message"] = attempt(0)
    if cell["message"]:
        told, call = remedy(cell["message"], truth)
        if told:
            cell["told"] = {key: value if isinstance(value, (int, str)) else str(value) for key, value in told.items()}
            again, cell["message_when_told"] = attempt(call, **told)
            # Most settings solve one problem and lead to the next.
            more, call = remedy(f"{cell['message']} {cell['message_when_told']}", truth)
            if cell["message_when_told"] and more != told:
                again, cell["message_when_told"] = attempt(call, **more)
            cell["outcomes_when_told"] = again
    return cell


def cover(architecture: Architecture, reader: Reader, seed: int) -> dict[str, Any]:
    start = time.process_time()
    torch.manual_seed(seed)
    model = architecture.build()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # zero by initialisation: units that are all the same prove nothing
                parameter.normal_(0, 0.1)
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    pair = torch.rand(2, 3, architecture.size, architecture.size, generator=generator)
    images = pair[[0] * (ROWS - 1) + [1]]
    found = truths(architecture, model, (images - 0.5) / 0.5, seed)
    reader.open(model, architecture.size)
    cells = []
    try:
        for name, truth in found.items():
            cell = try_layer(reader, model, name, truth, images)
            said = asdict(truth)
            del said["values"]
            cells.append({"layer": name, **said, **cell})
    finally:
        reader.close()
    return {
        "architecture": architecture.name,
        "family": architecture.family,
        "settings": {key: str(value) for key, value in architecture.settings.items()},
        "size": architecture.size,
        "cpu_seconds": time.process_time() - start,
        "cells": cells,
    }


def main() -> None:
    """Run what is missing, then write the table."""
    command = parser(__doc__, "--out", "--seed")
    command.add_argument("--reader", choices=list(READERS), default="vislens_interp")
    command.add_argument("--only", nargs="+", metavar="NAME", help="architectures whose name contains one of these")
    args = command.parse_args()
    warnings.filterwarnings("ignore")  # of a hundred networks' constructors
    chosen = [one for one in ARCHITECTURES if not args.only or any(part in one.key for part in args.only)]
    reader, folder = READERS[args.reader](), args.out / "cells" / args.reader
    about = {"version": reader.version(), "note": reader.note, "provenance": provenance(seed=args.seed)}
    write_text(folder / "about.json", json.dumps(about))
    for architecture in tqdm(chosen, desc=args.reader, file=sys.stderr):
        once(folder / f"{architecture.key}.json", partial(cover, architecture, reader, args.seed))
    report(args.out)


if __name__ == "__main__":
    main()
