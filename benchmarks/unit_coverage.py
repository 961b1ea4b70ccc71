"""Is a unit that a tool reads the unit that was meant? Every named layer of a hundred architectures, random units.

    python benchmarks/unit_coverage.py --out DIR [--reader vislens_interp|lucent] [--only NAME ...]

Two truths that know nothing of the tool. A person declared in ``unit_layouts.py`` where each layer has its units: the
reading must be the mean, by hand, over the other axes of what the layer returned. And a hook changes one unit of the
layer's output in one image: that reading must move by as much as was added, and no other may move. The declarations are
tested themselves: where a layer is a convolution, a linear layer or a normalisation, one of its own parameters is
changed, and what moves has to be the declared unit.

An architecture's cells are written as they are done, and a second run goes on with those that are missing. Readers have
different needs, so that ``lucent`` may be run in an environment of its own (``pip install torch-lucent timm``); any run
writes the table of all cells that the folder holds.
"""

import argparse
import json
import re
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from provenance import provenance, provenance_line
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from tqdm import tqdm
from unit_layouts import ARCHITECTURES, Architecture

from vislens_interp.files import write_text

ROWS = 4
"""The first image three times (as it is, its first unit changed, its second unit changed), then another one."""

Read = Callable[[Tensor], Tensor]


class Reader(Protocol):
    """A tool that reads units.

    Attributes:
        changes: Whether its passes see an output that is changed.
        note: For the table.
    """

    changes: bool
    note: str

    def version(self) -> str: ...

    def open(self, model: nn.Module, size: int) -> None:
        """Get to know the network."""

    def prepare(self, layer: str, units: list[int], **told: Any) -> Read:
        """What reads these units from images, (N, K); raises where it refuses. ``told``: what its refusal asked for."""
        ...

    def close(self) -> None:
        """Leave the network."""


class VislensReader:
    """This library, a target for each layer, told nothing but layer and unit.

    Args:
        each: Let every target trace the network itself. Otherwise one trace of all layers is handed to all of them: the
            same function on the same two images, but once a network instead of once a layer.
    """

    changes = True
    note = (
        "One trace of all layers serves the targets of a network (`--each` traces anew for every layer, as a user"
        " would: the same result, several times the cost)."
    )

    def __init__(self, *, each: bool = False) -> None:
        self.each = each

    def version(self) -> str:
        import vislens_interp

        return vislens_interp.__version__

    def open(self, model: nn.Module, size: int) -> None:
        import vislens_interp.targets.target as target

        self.model, self.size = model, size
        self.module, self.survey = target, target.survey
        seen: dict[str, Any] = {}
        traced: list[Tensor] = []

        def once(model: nn.Module, names: Any, inputs: Tensor, **settings: Any) -> dict[str, Any]:
            if not settings.get("keep") or settings.get("before"):
                return self.survey(model, names, inputs, **settings)
            if not traced:
                seen.update(self.survey(model, [name for name, _ in model.named_modules()], inputs, **settings))
                traced.append(inputs.detach().clone())
            if not traced[0].equal(inputs):
                return self.survey(model, names, inputs, **settings)
            return {name: seen[name] for name in names}

        if not self.each:
            target.survey = once

    def prepare(self, layer: str, units: list[int], **told: Any) -> Read:
        from vislens_interp.preprocess import Preprocess
        from vislens_interp.targets import LayerTarget

        target = LayerTarget(
            self.model,
            layer or None,
            list(units),
            preprocess=Preprocess(None, [0.5], [0.5]),
            image_size=self.size,
            **told,
        )
        return lambda images: target.responses(images)

    def close(self) -> None:
        self.module.survey = self.survey


class LucentReader:
    """torch-lucent's ``objectives.channel``: hooks on every layer, dots of names written as underscores.

    One pass serves all cells, as it was written for, so that its values are compared but no output is changed.
    """

    changes = False
    note = (
        "In an environment of its own: `python -m venv ENV; ENV/bin/pip install torch-lucent timm`, then this script"
        " with `ENV/bin/python -W ignore`. It asks for kornia 0.4.1 or older (of 2020) and takes the newest torch;"
        " nothing had to be changed to run it. `objectives.channel(layer, n)` is axis 1, whatever that is: in (images,"
        " tokens, features) it is a token, and where there are fewer tokens than n an IndexError. It keeps what a layer"
        " returned without copying it, so that an activation or an addition in place behind it overwrites the reading"
        " (most of the wrong cells of convolution networks). Names have underscores for dots; the model's own output is"
        " `labels`, its last module. Values of one pass are compared; no output is changed, which could only find more."
    )

    def version(self) -> str:
        from importlib.metadata import version

        return f"{version('torch-lucent')} with kornia {version('kornia')}"

    def open(self, model: nn.Module, size: int) -> None:
        from lucent.optvis.render import hook_model

        before = {id(hook) for module in model.modules() for hook in module._forward_hooks.values()}
        self.model = model
        self.images: Tensor | None = None
        self.layers = hook_model(model, lambda: self.images)
        self.hooks = [
            (module, key)
            for module in model.modules()
            for key, hook in module._forward_hooks.items()
            if id(hook) not in before
        ]

    def prepare(self, layer: str, units: list[int], **told: Any) -> Read:
        from lucent.optvis.objectives import channel

        name = layer.replace(".", "_") or "labels"

        def read(images: Tensor) -> Tensor:
            with torch.no_grad():
                if self.images is not images:
                    self.model((images - 0.5) / 0.5)
                    self.images = images
                return torch.tensor(
                    [[-float(channel(name, unit, batch=row)(self.layers)) for unit in units] for row in range(ROWS)]
                )

        return read

    def close(self) -> None:
        for module, key in self.hooks:  # it never removes them
            del module._forward_hooks[key]


READERS = {"vislens_interp": VislensReader, "lucent": LucentReader}


# ---- what is true ---------------------------------------------------------------------------------------------------


@dataclass
class Truth:
    """What a layer's output is, and its units' values by hand.

    Args:
        kind: Class of the module.
        calls: How often a pass calls it.
        shape: Of its (first) tensor.
        layout: The declared one, for this rank.
        place: Where the tensor is in a tuple; None for a plain tensor.
        units: Chosen at random; 0 where no unit exists.
        values: Hand values (N, K) by call; several where several are right.
        missing: Why no unit exists for somebody who says nothing but layer and number; ``""`` where one does.
        parameters: Whether the layer's own parameters prove the declared layout.
        scale: Largest absolute value of the output.
    """

    kind: str
    calls: int = 0
    shape: tuple[int, ...] = ()
    layout: str = ""
    place: int | None = None
    units: list[int] = field(default_factory=lambda: [0])
    values: list[list[Tensor]] = field(default_factory=list)
    missing: str = "never called"
    parameters: str = ""
    scale: float = 0.0


MISSING = {
    "heads": "attention weights",
    "split": "channels divided over heads",
    "open": "token mixing: two meanings",
    "none": "no images in it",
    "folded": "images share an axis",
}


def find_tensor(output: Any) -> tuple[int | None, Tensor | None]:
    """A layer's tensor, or the first one in a tuple or list, and its place there."""
    if isinstance(output, Tensor):
        return None, output
    if isinstance(output, (tuple, list)):
        for place, one in enumerate(output):
            if isinstance(one, Tensor):
                return place, one
    return None, None


def pick_layout(declared: str, rank: int) -> tuple[list[str], str]:
    """The declared layouts of a rank, and the word in front of them.

    Raises:
        ValueError: The person who made the table did not think of this rank.
    """
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


def own_parameters(module: nn.Module, inputs: Any, output: Tensor, axis: int) -> str:
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


def truths(architecture: Architecture, model: nn.Module, inputs: Tensor, seed: int) -> dict[str, Truth]:
    """One pass with a hook on every layer."""
    found = {name: Truth(type(module).__name__) for name, module in model.named_modules()}
    busy = [False]

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if busy[0]:
                return
            truth = found[name]
            truth.calls += 1
            if truth.calls > 1 and truth.missing == "no tensor":
                return
            place, tensor = find_tensor(output)
            if tensor is None:
                truth.missing = "no tensor"
                return
            try:
                layouts, word = pick_layout(architecture.declared(name), tensor.ndim)
            except ValueError as error:
                raise ValueError(
                    f"{architecture.key}, layer {name!r} of shape {tuple(tensor.shape)}: {error}"
                ) from error
            unfolded = tensor.shape[0] != ROWS
            if unfolded and word not in ("folded", "none"):
                raise ValueError(f"{architecture.key}, layer {name!r} of shape {tuple(tensor.shape)} is not {layouts}")
            if truth.calls == 1:
                truth.shape, truth.place, truth.scale = tuple(tensor.shape), place, tensor.abs().max().item()
                truth.missing = MISSING.get(word, "") if word != "folded" or unfolded else ""
                truth.missing = truth.missing or ("in a tuple" if place is not None else "")
                if not layouts:
                    return
                truth.layout = layouts[0]
                if "C" not in truth.layout:  # of one window or of many
                    truth.missing = MISSING["heads"]
                axis = layouts[0].index("C" if "C" in layouts[0] else "H")
                size = tensor.shape[axis]
                generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {architecture.key} {name}".encode()))
                truth.units = torch.randperm(size, generator=generator)[:2].tolist()
                if word == "open":
                    truth.units = [0]
                busy[0] = True
                truth.parameters = own_parameters(module, args, tensor, axis) if place is None and not word else ""
                busy[0] = False
            elif truth.layout and truth.missing in CHOOSABLE:
                truth.missing = "called several times"
            axes = [layout.index("C" if "C" in layout else "H") for layout in layouts]
            # A later call may have fewer units; then no hand value, and nobody may read the unit from it.
            fits = all(tensor.shape[axis] > max(truth.units) for axis in axes) and tensor.shape[0] % ROWS == 0
            truth.values.append([by_hand(tensor, axis, truth.units) for axis in axes] if fits else [])

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


# ---- what a tool says -----------------------------------------------------------------------------------------------


@contextmanager
def changed(module: nn.Module, truth: Truth, call: int) -> Iterator[Tensor]:
    """Inside, the layer's output has the first unit raised in the second image and the second unit in the third."""
    step = 1 + truth.scale
    count = [0]
    axis = truth.layout.index("C")

    def raise_units(module: nn.Module, args: Any, output: Any) -> Any:
        count[0] += 1
        if count[0] != call + 1:
            return None
        tensor = output if truth.place is None else output[truth.place]
        tensor = tensor.clone()
        rows = len(tensor) // ROWS  # windows of an image, one after the other
        for row, unit in enumerate(truth.units, start=1):
            tensor.select(axis, unit)[row * rows : (row + 1) * rows] += step
        if truth.place is None:
            return tensor
        parts = list(output)
        parts[truth.place] = tensor
        return type(output)(parts)

    hook = module.register_forward_hook(raise_units, prepend=True)  # before the tool's
    expected = torch.zeros(ROWS, len(truth.units), dtype=torch.double)
    for row in range(len(truth.units)):
        expected[row + 1, row] = step
    try:
        yield expected
    finally:
        hook.remove()


def judge(values: Tensor, truth: Truth, expected: Tensor, call: int) -> list[str]:
    """Of each unit: right, or wrong and how."""
    # Of what the layer gives, in the images where nothing was changed; of the change, where something was.
    tolerance = 1e-6 + 1e-4 * torch.tensor([truth.scale, *[1 + truth.scale] * (ROWS - 2), truth.scale])
    outcomes = []
    for column in range(len(truth.units)):
        fits = [
            bool(((values[:, column].double() - hand[:, column] - expected[:, column]).abs() <= tolerance).all())
            for hand in (truth.values[call] if len(truth.values) > call else [])
        ]
        if any(fits):
            outcomes.append("right")
        elif truth.missing:
            outcomes.append(f"wrong: read where there is none ({truth.missing})")
        else:
            if len(truth.values) <= call or not truth.values[call]:
                outcomes.append("wrong: read from a call that has no such unit")
                continue
            apart = (values[:, column].double() - truth.values[call][0][:, column]).abs() > tolerance
            outcomes.append(f"wrong: {'another value' if apart[0] or apart[-1] else 'moves with another unit'}")
    return outcomes


def remedy(message: str, truth: Truth) -> tuple[dict[str, Any], int]:
    """What a refusal asks to be told, answered from the declarations; and which call is then read."""
    told: dict[str, Any] = {}
    call = 0
    if "call=" in message and truth.calls > 1:
        call = truth.calls - 1
        told["call"] = call
    if "output=" in message and truth.place is not None:
        told["output"] = truth.place
    if "layout=" in message and truth.layout in ("NCHW", "NHWC", "NLC", "NCL", "NC"):
        told["layout"] = truth.layout
    return told, call


def try_layer(reader: Reader, model: nn.Module, name: str, truth: Truth, images: Tensor) -> dict[str, Any]:
    """One layer's cells."""
    can_change = reader.changes and "C" in truth.layout and truth.missing in CHOOSABLE
    module = model.get_submodule(name)
    cell: dict[str, Any] = {}

    def attempt(wanted: int, **told: Any) -> tuple[list[str], str]:
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


CHOOSABLE = ("", "in a tuple", "called several times", "images share an axis")
"""A unit exists: at once, when it is said which tensor or which call is meant, or when windows are put together."""


def cover(architecture: Architecture, reader: Reader, seed: int) -> dict[str, Any]:
    """All cells of one architecture."""
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


# ---- the table ------------------------------------------------------------------------------------------------------


def tally(records: list[dict[str, Any]]) -> Counter[str]:
    """Counts over the cells of some architectures."""
    counts: Counter[str] = Counter(architectures=len(records))
    for record in records:
        for cell in record["cells"]:
            counts["layers"] += 1
            counts[f"parameters {cell['parameters']}"] += 1
            plain = cell["missing"] == ""
            choosable = cell["missing"] in CHOOSABLE
            last = cell.get("outcomes_when_told", cell["outcomes"])
            for outcome, final in zip(cell["outcomes"], last, strict=True):
                word = outcome.partition(":")[0]
                counts["cells"] += 1
                counts[f"{'unit' if plain else 'no unit'} {word}"] += 1
                counts["wrong"] += word == "wrong" or final.startswith("wrong")
                if choosable:
                    counts["choosable"] += 1
                    counts["choosable right"] += final == "right"
    return counts


def share(part: int, whole: int) -> str:
    """A percentage, rounded down so that 100 % means all."""
    return "—" if whole == 0 else f"{int(1000 * part / whole) / 10:.1f} %"


def reason(message: str) -> str:
    """A refusal without its names and numbers, so that the same ones can be counted."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", message.split("\n")[0])
    text = re.sub(r"\([\d, ]*\)|\[[^\]]*\]", "(…)", text)
    text = re.sub(r"\b\d+\b", "n", text)
    text = re.sub(r" (of|in one pass of) [A-Z]\w+", r" \1 …", text)
    return text[:110]


def family_rows(records: list[dict[str, Any]]) -> list[str]:
    """Table by family, and in total."""
    families = sorted({record["family"] for record in records}, key=str.lower)
    lines = [
        "| family | nets | layers | units | right | share | refused | wrong (anywhere) | right when told | share |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for family in [*families, None]:
        counts = tally([one for one in records if family is None or one["family"] == family])
        units = sum(counts[f"unit {word}"] for word in ("right", "refused", "wrong"))
        cells = (
            "**all**" if family is None else family,
            counts["architectures"],
            counts["layers"],
            units,
            counts["unit right"],
            share(counts["unit right"], units),
            counts["unit refused"],
            counts["wrong"],
            f"{counts['choosable right']} of {counts['choosable']}",
            share(counts["choosable right"], counts["choosable"]),
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def listed(records: list[dict[str, Any]], wanted: Callable[[dict[str, Any], str], str | None], most: int) -> list[str]:
    """Reasons, how often, in how many architectures, and one place where to see it."""
    counts: Counter[str] = Counter()
    places: dict[str, str] = {}
    where: dict[str, set[str]] = {}
    for record in records:
        for cell in record["cells"]:
            for outcome in cell["outcomes"]:
                text = wanted(cell, outcome)
                if text:
                    counts[text] += 1
                    places.setdefault(text, f"`{record['architecture']}` `{cell['layer']}`")
                    where.setdefault(text, set()).add(record["architecture"])
    lines = [
        f"| {text.replace('|', '/')} | {count} | {len(where[text])} | {places[text]} |"
        for text, count in counts.most_common(most)
    ]
    return ["| what | cells | architectures | for example |", "|---|---|---|---|", *lines] if lines else ["None."]


def section(name: str, held: dict[str, Any]) -> list[str]:
    """The markdown of one reader."""
    records = held["records"]
    counts = tally(records)
    units = sum(counts[f"unit {word}"] for word in ("right", "refused", "wrong"))
    seconds = sum(record["cpu_seconds"] for record in records)
    summary = (
        f"{counts['architectures']} architectures, {counts['layers']} named layers, {counts['cells']} cells. Of "
        f"{units} cells where a unit exists, **{share(counts['unit right'], units)} right**, "
        f"{counts['unit refused']} refused, {counts['unit wrong']} wrong. Wrong anywhere, counting cells in which "
        f"there is no unit or it has to be said which: **{counts['wrong']}**. {seconds / 60:.1f} CPU minutes."
    )
    return [
        f"## {name} {held['version']}",
        "",
        summary,
        "",
        held["note"],
        "",
        *family_rows(records),
        "",
        "Refused although a unit exists:",
        "",
        *listed(
            records,
            lambda cell, outcome: reason(cell["message"]) if outcome == "refused" and not cell["missing"] else None,
            12,
        ),
        "",
        "Wrong:",
        "",
        *listed(records, lambda cell, outcome: outcome[7:] if outcome.startswith("wrong") else None, 12),
        "",
        "Cells without a unit (unless it is said which is meant), and what came:",
        "",
        *listed(
            records,
            lambda cell, outcome: f"{cell['missing']}: {outcome.partition(':')[0]}" if cell["missing"] else None,
            30,
        ),
        "",
        provenance_line(held["provenance"]),
    ]


INTRODUCTION = """# Reading units: coverage

A cell is a unit, drawn at random, of a named layer of a network with random weights. *Right*: the mean by hand over the
declared axes, in two images, and it moves when that unit of the layer's output is changed and with nothing else.
*Refused*: an error. *Wrong*: a number that is not this. A unit exists where a pass calls the layer once and it gives a
tensor with an axis for the images and one for the units; *right when told* adds what is given in tuples, by layers that
are called several times and by those that fold windows into the images, and what is right once the argument that the
error asks for is passed. The declarations are a person's (`benchmarks/unit_layouts.py`); many networks have fewer
blocks than published (also there), the same kinds of layers."""


def report(folder: Path) -> str:
    """The table of everything that the folder holds; writes ``unit_coverage.md`` and ``unit_coverage.json``."""
    sections: list[str] = []
    summary: dict[str, Any] = {}
    for name in READERS:
        about = folder / "cells" / name / "about.json"
        if not about.is_file():
            continue
        keys = [architecture.key for architecture in ARCHITECTURES]
        files = [path for key in keys if (path := about.parent / f"{key}.json").is_file()]
        held = json.loads(about.read_text(encoding="utf-8"))
        held["records"] = [json.loads(path.read_text(encoding="utf-8")) for path in files]
        if len(files) < len(keys):
            sections.append(f"({name}: {len(files)} of {len(keys)} architectures so far.)")
        proof = tally(held["records"])
        if not sections or not sections[0].startswith("The declarations, tested"):
            sections.insert(
                0,
                f"The declarations, tested by the layers' own parameters: {proof['parameters proven']} layers proven, "
                f"{proof['parameters contradicted']} contradicted.",
            )
        sections.append("\n".join(section(name, held)))
        summary[name] = {
            "version": held["version"],
            "provenance": held["provenance"],
            "total": dict(tally(held["records"])),
            "architectures": {
                record["architecture"]: {
                    "family": record["family"],
                    "settings": record["settings"],
                    "size": record["size"],
                    **tally([record]),
                }
                for record in held["records"]
            },
        }
    text = "\n\n".join([INTRODUCTION, *sections]) + "\n"
    write_text(folder / "unit_coverage.md", text)
    write_text(folder / "unit_coverage.json", json.dumps(summary, indent=1))
    return text


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the cells and the table")
    parser.add_argument("--reader", choices=list(READERS), default="vislens_interp")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="architectures whose name contains one of these")
    parser.add_argument("--again", action="store_true", help="also those that are there already")
    parser.add_argument("--each", action="store_true", help="trace the network anew for every layer, as a user would")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")  # of a hundred networks' constructors
    chosen = [one for one in ARCHITECTURES if not args.only or any(part in one.key for part in args.only)]
    reader: Reader = VislensReader(each=args.each) if args.reader == "vislens_interp" else LucentReader()
    folder = args.out / "cells" / args.reader
    about = {"version": reader.version(), "note": reader.note, "provenance": provenance(seed=args.seed)}
    write_text(folder / "about.json", json.dumps(about))
    for architecture in tqdm(chosen, desc=args.reader, file=sys.stderr):
        path = folder / f"{architecture.key}.json"
        if path.is_file() and not args.again:
            continue
        write_text(path, json.dumps(cover(architecture, reader, args.seed)))
    print(report(args.out))


if __name__ == "__main__":
    main()
