"""All results in one fixed form (``results.json``) and as two pages: ``RESULTS.md``, and the full list of aims.

Nothing is typed and nothing is dated here: the same files always make the same pages, which a test holds against those
that are committed. ``results.json``:

    {"schema": 2, "quick": false, "benchmarks": [one of each of the suite:
        {"name": ..., "state": "measured" | "not run" | "failed", "why": sentence or null,
         "commands": [...], "page": path or null,
         "sources": [{"command", "commit", "dirty", "device", "cpus", "threads", "torch", "python", "seed", "date"}],
         "aims": [{"what", "met": true | false | null}],
         "measures": [{"what", "value", "unit", "sample", "low", "high", "spread", "direction"}]}]}

The tables are on the page that a benchmark wrote with its JSON.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.common.findings import Measure
from benchmarks.common.script import provenance_line, read
from benchmarks.common.tables import table
from benchmarks.suite import Benchmark

SCHEMA = 2
SOURCE = ("command", "commit", "dirty", "device", "cpus", "threads", "torch", "python", "seed", "date")
FAILS, HOLDS = "**What fails its own aim, first.**", "**What holds.**"
UNASKED = "(not asked for"
LIST = "README.md"  # beside the benchmarks' own pages: every aim, and where the figures come from


def gather(
    suite: Sequence[Benchmark],
    folders: dict[str, Path],
    beside: Path,
    *,
    quick: bool = False,
    not_run: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Read what the benchmarks wrote into their ``folders``, in the form above.

    Files are named as seen from the folder ``beside``, that of the page. Of ``quick`` runs no aim is judged, for their
    figures mean nothing. ``not_run`` says why a benchmark was not run or failed, which is then its first word.
    """
    entries = []
    for one in suite:
        file = folders.get(one.name, Path()) / f"{one.name}.json"
        why = (not_run or {}).get(one.name)
        entry: dict[str, Any] = {"name": one.name, "state": "measured", "why": why, "commands": one.lines()}
        entry |= {"page": None, "sources": [], "aims": [], "measures": []}
        if why is not None or one.name not in folders or not file.is_file():
            failed = (why or "").startswith("failed")
            entry |= {"state": "failed" if failed else "not run", "why": why or f"{file.name} is not there"}
        else:
            try:
                entry |= read_one(one, file, beside, quick=quick)
            except (ImportError, LookupError, OSError, TypeError, ValueError) as error:
                entry |= {"state": "failed", "why": f"failed to be read: {type(error).__name__}: {error}"}
        entries.append(entry)
    return {"schema": SCHEMA, "quick": quick, "benchmarks": entries}


def read_one(one: Benchmark, file: Path, beside: Path, *, quick: bool) -> dict[str, Any]:
    """What one benchmark's files hold; a ValueError if the Markdown is of another run than the JSON."""
    numbers = read(file)
    findings, sources, written = one.findings(numbers), sources_of(numbers), file.with_suffix(".md")
    text = written.read_text(encoding="utf-8")
    if sources and not any(provenance_line(source) in text for source in sources):
        raise ValueError(
            f"{written.name} holds the line of no run in {file.name}; expected both from one run. Copy both files, or "
            "run the benchmark's report again."
        )
    return {
        "page": Path(os.path.relpath(written, beside)).as_posix(),
        "sources": sources,
        "aims": [] if quick else [asdict(aim) for aim in findings.aims],
        "measures": [asdict(measure) for measure in findings.measures],
    }


def sources_of(value: object) -> list[dict[str, Any]]:
    """Every different provenance that a file holds at any depth, without what a benchmark added to it."""
    if isinstance(value, dict) and set(SOURCE) <= set(value):
        return [{key: value[key] for key in SOURCE}]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    sources: list[dict[str, Any]] = []
    for item in items:
        sources += [source for source in sources_of(item) if source not in sources]
    return sources


def headline(results: dict[str, Any]) -> list[str]:
    """The measures of every benchmark as one Markdown table; what a response cost is on its own page alone."""
    rows = [("what", "result", "measured on", "benchmark")]
    for entry in results["benchmarks"]:
        grouped: dict[tuple[str, str], list[Measure]] = {}
        measures = [Measure(**fields) for fields in entry["measures"]]
        responses = any(one.unit == "SD" for one in measures)
        for measure in (one for one in measures if not (responses and one.unit == "s")):
            grouped.setdefault((measure.what, measure.sample), []).append(measure)
        for (what, sample), members in grouped.items():
            result = "; ".join(f"{one.direction} {one}".strip() for one in members)
            rows.append((what, result, sample, entry["name"]))
    spreads = sorted({one["spread"] for entry in results["benchmarks"] for one in entry["measures"] if one["spread"]})
    return [*table(rows), f"In brackets: {'; '.join(spreads)}."] if spreads else table(rows)[:-1]


def aims_of(results: dict[str, Any], met: bool | None, *, every: bool = True) -> list[str]:
    """A list item for each aim with this outcome; if not ``every``, comparisons that nobody asked for are counted."""
    lines = []
    for entry in results["benchmarks"]:
        sentences = [aim["what"] for aim in entry["aims"] if aim["met"] is met]
        asked = [what for what in sentences if every or UNASKED not in what]
        lines += [f"- {entry['name']}: {what}" for what in asked]
        if rest := len(sentences) - len(asked):
            lines.append(f"- {entry['name']}: {rest} comparisons that were not asked for; they are on its page.")
    return lines


def reasons(results: dict[str, Any], state: str) -> list[str]:
    """A list item for each benchmark in this state."""
    return [f"- {entry['name']}: {entry['why']}" for entry in results["benchmarks"] if entry["state"] == state]


def page(results: dict[str, Any], lists: Path = Path("benchmarks/results")) -> str:
    """What fails, what is open, what was not run; one table; where everything else is.

    ``lists`` is the folder of the full list, as seen from the page.
    """
    broken = reasons(results, "failed")
    if results["quick"]:
        lines = ["# Results (quick run: it works, and measures nothing)", ""]
        lines += ["**What failed to run, first.**", "", *(broken or ["- Nothing."]), ""]
    else:
        lines = ["# Results", "", FAILS, ""]
        lines += [*(broken + aims_of(results, False, every=False) or ["- Nothing of what was asked."]), ""]
        unsure = aims_of(results, None, every=False)
        lines += ["**What is open.**", "", *unsure, ""] if unsure else []
    missing = reasons(results, "not run")
    lines += ["**Not run.**", "", *missing, ""] if missing else []
    if not results["quick"]:
        lines += ["## At a glance", "", *headline(results), ""]
    lines += ["## Where to read on", "", "Each benchmark has a page with its tables and provenance:"]
    lines += [f"[{entry['name']}]({entry['page']})" for entry in results["benchmarks"] if entry["page"]]
    if held := len(aims_of(results, True)):
        lines += ["", f"The {held} aims that hold are listed in [{LIST}]({(lists / LIST).as_posix()})."]
    return "\n".join(lines).rstrip() + "\n"


def full_list(results: dict[str, Any]) -> str:
    """Every aim that fails, is open or holds, and where every figure comes from; it lies beside the pages."""
    lines = ["# Every aim and every source", ""]
    for title, met in ((FAILS, False), ("**What is open.**", None), (HOLDS, True)):
        if sentences := aims_of(results, met):
            lines += [title, "", *sentences, ""]
    lines += ["## Where the figures come from", ""]
    for entry in results["benchmarks"]:
        lines += [f"- {entry['name']}: {provenance_line(source)}" for source in entry["sources"]]
    return "\n".join(lines).rstrip() + "\n"
