"""Tables of the units that a tool reads right, refuses, or reads wrong."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common.findings import Aim, Findings, Measure
from benchmarks.common.provenance import provenance_line
from benchmarks.unit_coverage.layouts import ARCHITECTURES
from benchmarks.unit_coverage.readers import READERS
from vislens_interp.files import write_text

CHOOSABLE = ("", "in a tuple", "called several times", "images share an axis")
"""A unit exists: at once, when it is said which tensor or which call is meant, or when windows are put together."""


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
error asks for is passed. The declarations are a person's (`unit_coverage/layouts.py`); many networks have fewer blocks
than published (also there), the same kinds of layers."""


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


def findings(numbers: dict[str, Any]) -> Findings:
    """Units that are read right: at least 95 % of those that exist, and no wrong number anywhere."""
    aims, measures = [], []
    for reader, held in numbers.items():
        total = held["total"]
        cells = {word: total.get(f"unit {word}", 0) for word in ("right", "refused", "wrong")}
        count = sum(cells.values())
        share = cells["right"] / count
        sample = f"{count:,} units, {total['architectures']} architectures"
        measures.append(Measure(f"units that {reader} {held['version']} reads right", share, "share", sample))
        if reader == "vislens_interp":
            wrong = total.get("wrong", 0)
            aims.append(Aim(f"{measures[-1]} of {sample}, are read right (wanted: 95 %).", share >= 0.95))
            aims.append(Aim(f"{wrong} readings are wrong (wanted: none).", wrong == 0))
    return Findings(tuple(aims), tuple(measures))
