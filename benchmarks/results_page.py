"""All results in one fixed form (``results.json``), as one page (``RESULTS.md``), and the README's table from it.

Nothing is typed and nothing is dated here: the same files always make the same page, which a test holds against the one
that is committed. ``results.json``:

    {"schema": 1, "quick": false, "benchmarks": [one of each of the suite:
        {"name": ..., "state": "measured" | "not run" | "failed", "why": sentence or null,
         "commands": [...], "page": path or null,
         "sources": [{"command", "commit", "dirty", "device", "cpus", "threads", "torch", "python", "seed", "date"}],
         "aims": [{"what", "met": true | false | null}],
         "measures": [{"what", "value", "unit", "sample", "low", "high", "spread", "direction"}],
         "tables": [{"title", "columns", "rows"}]}]}

Sources, aims and measures come from a benchmark's JSON, tables from the Markdown that it wrote with it.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from findings import Measure
from provenance import provenance_line
from suite import Benchmark

SCHEMA = 1
BEGIN = "<!-- headline: written by `python benchmarks/run_all.py --gather`, do not edit -->"
END = "<!-- /headline -->"
SOURCE = ("command", "commit", "dirty", "device", "cpus", "threads", "torch", "python", "seed", "date")
FAILS, HOLDS = "**What fails its own aim, first.**", "**What holds.**"


def gather(
    suite: Sequence[Benchmark],
    folders: dict[str, Path],
    beside: Path,
    *,
    quick: bool = False,
    not_run: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Read what the benchmarks wrote.

    Args:
        suite: The benchmarks, in the order of the page.
        folders: Where each benchmark's JSON and Markdown are, by name; those without files there were not run.
        beside: Folder of the page that is to come, from which files are named.
        quick: The files come from quick runs, whose figures mean nothing: no aim is judged.
        not_run: Why a benchmark was not run or failed, by name; "failed" is its first word if it began.

    Returns:
        JSON values in the form above.
    """
    found = []
    for one in suite:
        file = folders.get(one.name, Path()) / f"{one.file}.json"
        why = (not_run or {}).get(one.name)
        entry: dict[str, Any] = {"name": one.name, "state": "measured", "why": why}
        entry["commands"] = [f"python benchmarks/{command}" for command in one.commands]
        entry |= {"page": None, "sources": [], "aims": [], "measures": [], "tables": []}
        if why is not None or one.name not in folders or not file.is_file():
            failed = why is not None and why.startswith("failed")
            entry |= {"state": "failed" if failed else "not run", "why": why or f"{file.name} is not there"}
        else:
            try:
                entry |= read(one, file, beside, quick=quick)
            except (ImportError, LookupError, OSError, TypeError, ValueError) as error:
                entry |= {"state": "failed", "why": f"failed to be read: {type(error).__name__}: {error}"}
        found.append(entry)
    return {"schema": SCHEMA, "quick": quick, "benchmarks": found}


def read(one: Benchmark, file: Path, beside: Path, *, quick: bool) -> dict[str, Any]:
    """What one benchmark's files hold.

    Raises:
        ValueError: The Markdown is of another run than the JSON.
    """
    numbers = json.loads(file.read_text(encoding="utf-8"))
    says, sources, written = one.read(numbers), sources_of(numbers), file.with_suffix(".md")
    text = written.read_text(encoding="utf-8")
    if sources and not any(provenance_line(source) in text for source in sources):
        raise ValueError(
            f"{written.name} holds the line of no run in {file.name}; expected both from one run. Copy both files, or "
            "run the benchmark's report again."
        )
    return {
        "page": Path(os.path.relpath(written, beside)).as_posix(),
        "sources": sources,
        "aims": [] if quick else [asdict(aim) for aim in says.aims],
        "measures": [asdict(measure) for measure in says.measures],
        "tables": tables_of(text),
    }


def sources_of(value: Any) -> list[dict[str, Any]]:
    """Every different provenance that a file holds at any depth, without what a benchmark added to it."""
    found: list[dict[str, Any]] = []
    if isinstance(value, dict):
        if set(SOURCE) <= set(value):
            return [{key: value[key] for key in SOURCE}]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            found += [source for source in sources_of(item) if source not in found]
    return found


def tables_of(text: str) -> list[dict[str, Any]]:
    """The tables of a Markdown page, each under the nearest heading above it."""
    found, title, rows = [], "", []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().removeprefix("|"))[:-1]])
            continue
        if len(rows) > 1:
            found.append({"title": title, "columns": rows[0], "rows": rows[2:]})
        rows = []
        if line.startswith("#"):
            title = line.lstrip("#").strip()
    return found


def headline(results: dict[str, Any]) -> list[str]:
    """The measures of every benchmark as one Markdown table, with the benchmark's page behind its name."""
    lines = ["| what | result | measured on | benchmark |", "|---|---|---|---|"]
    for entry in results["benchmarks"]:
        grouped: dict[tuple[str, str], list[Measure]] = {}
        for fields in entry["measures"]:
            measure = Measure(**fields)
            grouped.setdefault((measure.what, measure.sample), []).append(measure)
        name = f"[{entry['name']}]({entry['page']})" if entry["page"] else entry["name"]
        for (what, sample), members in grouped.items():
            result = "; ".join(f"{one.direction} {one}".strip() for one in members)
            lines.append(f"| {what} | {result} | {sample} | {name} |")
    spreads = sorted({one["spread"] for entry in results["benchmarks"] for one in entry["measures"] if one["spread"]})
    return [*lines, "", f"In brackets: {'; '.join(spreads)}."] if spreads else lines


def put_headline(text: str, results: dict[str, Any]) -> str:
    """A page with the headline table between its two marker comments; everything else stays.

    Raises:
        ValueError: The markers are not there, once each and in order, or the results are of a quick run.
    """
    if results["schema"] != SCHEMA or results["quick"]:
        raise ValueError(
            f"results (schema={results['schema']}, quick={results['quick']}) cannot head a page; expected a whole run "
            f"in schema {SCHEMA}. Gather the committed results: run_all.py --gather."
        )
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(
            f"text holds {text.count(BEGIN)} and {text.count(END)} markers of the headline table; expected one of "
            f"each, in this order. Put {BEGIN!r} and {END!r} on lines of their own where the table belongs."
        )
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return "\n".join([before + BEGIN, "", *headline(results), "", END + after])


def page(results: dict[str, Any], folders: dict[str, Path]) -> str:
    """The whole page: what fails, what is open, what was not run, what holds; then every benchmark's own page.

    Args:
        results: What :func:`gather` found.
        folders: The same folders.
    """
    entries = results["benchmarks"]
    judged = [(entry["name"], aim["what"], aim["met"]) for entry in entries for aim in entry["aims"]]
    unmet, still_open, held = (
        [f"- {name}: {what}" for name, what, met in judged if met is value] for value in (False, None, True)
    )
    broken = [f"- {entry['name']}: {entry['why']}" for entry in entries if entry["state"] == "failed"]
    missing = [f"- {entry['name']}: {entry['why']}" for entry in entries if entry["state"] == "not run"]
    lines = ["# Results" + (" (quick run: it works, and measures nothing)" if results["quick"] else ""), ""]
    if results["quick"]:
        lines += ["**What failed to run, first.**", "", *(broken or ["- Nothing."]), ""]
    else:
        lines += [FAILS, "", *(broken + unmet or ["- Nothing of what was asked."]), ""]
        lines += ["**What is open.**", "", *still_open, ""] if still_open else []
    lines += ["**Not run.**", "", *missing, ""] if missing else []
    lines += [HOLDS, "", *held, ""] if held else []
    lines += [] if results["quick"] else ["## At a glance", "", *headline(results), ""]
    lines += ["## Where the figures come from", ""]
    for entry in entries:
        lines += [f"- {entry['name']}: {provenance_line(source)}" for source in entry["sources"]]
    for one in entries:
        if one["page"] is None:
            continue
        text = (folders[one["name"]] / Path(one["page"]).name).read_text(encoding="utf-8")
        lines += ["", f"## {one['name']}", ""]
        lines += [f"The benchmark's own page, [{one['page']}]({one['page']}):", "", *moved(demoted(text), one["page"])]
    return "\n".join(lines).rstrip() + "\n"


def moved(lines: list[str], page: str) -> list[str]:
    """The lines of a page with its figures' places as they are seen from the other one."""
    folder = Path(page).parent
    return [
        re.sub(r"(!\[[^]]*\]\()([^)/:]+\))", lambda found: f"{found[1]}{(folder / found[2]).as_posix()}", line)
        for line in lines
    ]


def demoted(text: str) -> list[str]:
    """The lines of a page two levels down, so that it stands within another one."""
    fenced, lines = False, []
    for line in text.strip().splitlines():
        fenced ^= line.startswith("```")
        lines.append(f"##{line}" if line.startswith("#") and not fenced else line)
    return lines
