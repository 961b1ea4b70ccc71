"""Tables of the units that a tool reads right, refuses, or reads wrong."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common.findings import Aim, Findings, Measure
from benchmarks.common.script import RESULTS, provenance_line, publish, read
from benchmarks.common.tables import fill, table_text
from benchmarks.unit_coverage.layouts import ARCHITECTURES
from benchmarks.unit_coverage.readers import READERS

CHOOSABLE = ("", "in a tuple", "called several times", "images share an axis")
"""A unit exists: at once, when it is said which tensor or which call is meant, or when windows are put together."""


def tally(records: list[dict[str, Any]]) -> Counter[str]:
    """Counts over the cells of some architectures."""
    counts: Counter[str] = Counter(architectures=len(records))
    for cell in (cell for record in records for cell in record["cells"]):
        counts["layers"] += 1
        counts[f"parameters {cell['parameters']}"] += 1
        kind = "no unit" if cell["missing"] else "unit"
        last = cell.get("outcomes_when_told", cell["outcomes"])
        for outcome, final in zip(cell["outcomes"], last, strict=True):
            word = outcome.partition(":")[0]
            counts["cells"] += 1
            counts[f"{kind} {word}"] += 1
            counts["wrong"] += word == "wrong" or final.startswith("wrong")
            if cell["missing"] in CHOOSABLE:
                counts["choosable"] += 1
                counts["choosable right"] += final == "right"
    return counts


def units_of(counts: Counter[str]) -> int:
    return sum(counts[f"unit {word}"] for word in ("right", "refused", "wrong"))


def share(part: int, whole: int) -> str:
    """A percentage, rounded down so that 100 % means all."""
    return "—" if whole == 0 else f"{int(1000 * part / whole) / 10:.1f} %"


def reason(message: str) -> str:
    """A refusal without its names and numbers, so that the same ones can be counted."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", message.split("\n")[0])
    text = re.sub(r"\([\d, ]*\)|\[[^\]]*\]", "(…)", text)
    text = re.sub(r"\b\d+\b", "n", text)
    return re.sub(r" (of|in one pass of) [A-Z]\w+", r" \1 …", text)[:110]


def family_rows(records: list[dict[str, Any]]) -> str:
    """Table by family, and in total."""
    head = ["family", "nets", "layers", "units", "right", "share", "refused", "wrong (anywhere)", "right when told"]
    rows: list[list[Any]] = [[*head, "share"]]
    for family in [*sorted({record["family"] for record in records}, key=str.lower), "**all**"]:
        counts = tally([one for one in records if family in ("**all**", one["family"])])
        units, right, told = units_of(counts), counts["unit right"], counts["choosable right"]
        row = [family, counts["architectures"], counts["layers"], units, right, share(right, units)]
        row += [counts["unit refused"], counts["wrong"], f"{told} of {counts['choosable']}"]
        rows.append([*row, share(told, counts["choosable"])])
    return table_text(rows)


def listed(records: list[dict[str, Any]], wanted: Callable[[dict[str, Any], str], str | None], most: int = 12) -> str:
    """Reasons, how often, in how many architectures, and one place where to see it."""
    counts: Counter[str] = Counter()
    places: dict[str, list[str]] = {}
    for record in records:
        for cell in record["cells"]:
            for text in filter(None, (wanted(cell, outcome) for outcome in cell["outcomes"])):
                counts[text] += 1
                places.setdefault(text, []).append(f"`{record['architecture']}` `{cell['layer']}`")
    rows = [
        (text.replace("|", "/"), count, len({place.split()[0] for place in places[text]}), places[text][0])
        for text, count in counts.most_common(most)
    ]
    return table_text([("what", "cells", "architectures", "for example"), *rows]) if rows else "None."


def section(name: str, held: dict[str, Any]) -> str:
    records = held["records"]
    counts = tally(records)
    missed = lambda cell, out: reason(cell["message"]) if out == "refused" and not cell["missing"] else None  # noqa: E731
    return fill(
        __file__,
        "section",
        reader=name,
        held=held,
        counts=counts,
        units=units_of(counts),
        share=share(counts["unit right"], units_of(counts)),
        minutes=sum(record["cpu_seconds"] for record in records) / 60,
        families=family_rows(records),
        refusals=listed(records, missed),
        errors=listed(records, lambda cell, out: out[7:] if out.startswith("wrong") else None),
        others=listed(records, lambda cell, out: cell["missing"] and f"{cell['missing']}: {out.partition(':')[0]}", 30),
        source=provenance_line(held["provenance"]),
    ).rstrip("\n")


def published(name: str) -> tuple[str, dict[str, Any]] | None:
    """Section and numbers of a reader as they stand in the results, with their own source; None if it is not there."""
    page, numbers = (RESULTS / f"unit_coverage.{kind}" for kind in ("md", "json"))
    if not page.is_file() or name not in (known := read(numbers)):
        return None
    found = re.search(
        rf"^## {re.escape(name)} .*?(?=^## |\Z)", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return None if found is None else (found[0].rstrip("\n"), known[name])


def report(folder: Path) -> str:
    """Write ``unit_coverage.md`` and ``.json``: all that the folder holds, and of other readers what was published."""
    sections: list[str] = []
    summary: dict[str, Any] = {}
    for name in READERS:
        about = folder / "cells" / name / "about.json"
        if not about.is_file():
            if kept := published(name):
                sections.append(kept[0])
                summary[name] = kept[1]
            continue
        files = [path for one in ARCHITECTURES if (path := about.with_name(f"{one.key}.json")).is_file()]
        held = read(about) | {"records": [read(path) for path in files]}
        if len(files) < len(ARCHITECTURES):
            sections.append(f"({name}: {len(files)} of {len(ARCHITECTURES)} architectures so far.)")
        sections.append(section(name, held))
        about_each = {
            record["architecture"]: {**{key: record[key] for key in ("family", "settings", "size")}, **tally([record])}
            for record in held["records"]
        }
        summary[name] = {key: held[key] for key in ("version", "provenance")}
        summary[name] |= {"total": dict(tally(held["records"])), "architectures": about_each}
    total = Counter(next(iter(summary.values()))["total"])
    declared = f"The declarations, tested by the layers' own parameters: {total['parameters proven']} layers proven, "
    declared += f"{total['parameters contradicted']} contradicted."
    text = fill(__file__, "page", sections="\n\n".join([declared, *sections]))
    publish(folder / "unit_coverage", text, summary)
    return text


def findings(numbers: dict[str, Any]) -> Findings:
    """Units that are read right: at least 95 % of those that exist, and no wrong number anywhere."""
    aims, measures = [], []
    for reader, held in numbers.items():
        total = Counter(held["total"])
        count = units_of(total)
        right = total["unit right"] / count
        sample = f"{count:,} units, {total['architectures']} architectures"
        measures.append(Measure(f"units that {reader} {held['version']} reads right", right, "share", sample))
        if reader == "vislens_interp":
            aims.append(Aim(f"{measures[-1]} of {sample}, are read right (wanted: 95 %).", right >= 0.95))
            aims.append(Aim(f"{total['wrong']} readings are wrong (wanted: none).", total["wrong"] == 0))
    return Findings(tuple(aims), tuple(measures))
