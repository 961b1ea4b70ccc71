"""One command for every benchmark, and one page of every table.

    python benchmarks/run_all.py --data $VISLENS_DATA --out runs/all [--quick] [--weights DIR] [--only NAME ...]
    python benchmarks/run_all.py --out runs/all --readme README.md     # the headline table, between its two marks

Each benchmark is its own program with its own folder below OUT, where what is finished stays: called again, it goes on.
One that fails or cannot run is named with the reason, and the others run. ``results.json`` has one form whatever ran
(:data:`SCHEMA`); ``RESULTS.md`` is made from it and from nothing else. ``--quick`` takes those that have a quick mode.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provenance import provenance, provenance_line

from vislens_interp.files import write_text

SCHEMA = {
    "schema": "int: version of this form, 1",
    "quick": "bool: tiny sizes that show that everything runs and measure nothing",
    "environment": "dict: command, commit, dirty, device, cpus, threads, torch, python, seed, date",
    "benchmarks": "list of name, status (done, failed, skipped), why, seconds, commands, table, results",
}
MARKS = ("<!-- results: begin (benchmarks/run_all.py) -->", "<!-- results: end -->")
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Benchmark:
    """One program.

    Args:
        name: Of its folder below OUT.
        full: Commands, each a script and its arguments; DATA, OUT and WEIGHTS are replaced.
        quick: The same in its quick mode; empty where it has none.
        files: Stem of the JSON and Markdown that it leaves in its folder.
    """

    name: str
    full: tuple[str, ...]
    quick: tuple[str, ...]
    files: str


BENCHMARKS = (
    Benchmark(
        "planted_units",
        ("planted_units.py --data DATA --out OUT",),
        ("planted_units.py --data DATA --out OUT --quick",),
        "planted_units",
    ),
    Benchmark("speed", ("speed.py --data DATA --out OUT",), ("speed.py --data DATA --out OUT --quick",), "speed"),
    Benchmark(
        "sd15_speed", ("sd15_speed.py --data DATA --out OUT",), ("sd15_speed.py --out OUT --quick",), "sd15_speed"
    ),
    Benchmark("unit_coverage", ("unit_coverage.py --out OUT",), (), "unit_coverage"),
    Benchmark(
        "cifar10_landscape",
        (
            "cifar10_landscape.py --data DATA --out OUT --pixel-vae WEIGHTS/cifar10_cvae.safetensors --tune",
            "cifar10_landscape.py --data DATA --out OUT --pixel-vae WEIGHTS/cifar10_cvae.safetensors",
            "cifar10_landscape.py --data DATA --out OUT --pixel-vae WEIGHTS/cifar10_cvae.safetensors --report",
        ),
        (),
        "table3",
    ),
    Benchmark(
        "embedded_backend",
        tuple(
            f"embedded_backend.py {part} --data DATA --weights WEIGHTS --out OUT"
            for part in ("quality", "retrieval", "job", "cost", "report")
        ),
        (),
        "embedded",
    ),
)


def run(one: Benchmark, args: argparse.Namespace) -> dict[str, Any]:
    """Run one benchmark in a process of its own, and gather what it left."""
    row: dict[str, Any] = {"name": one.name, "status": "done", "why": None, "seconds": 0.0, "commands": []}
    row |= {"table": "", "results": None}
    commands = one.quick if args.quick else one.full
    folder = args.out / one.name
    places = {"DATA": args.data, "OUT": folder, "WEIGHTS": args.weights}
    missing = [name for name, place in places.items() if place is None and any(name in each for each in commands)]
    if not commands:
        return row | {"status": "skipped", "why": "it has no quick mode"}
    if missing:
        flags = ", ".join(f"--{name.lower()}" for name in missing)
        return row | {"status": "skipped", "why": f"it needs {flags}"}
    started = time.monotonic()
    for each in commands:
        words = [re.sub("DATA|OUT|WEIGHTS", lambda found: str(places[found[0]]), word) for word in each.split()]
        row["commands"].append(f"python benchmarks/{each}")
        done = subprocess.run([sys.executable, str(HERE / words[0]), *words[1:]], capture_output=True, text=True)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            row |= {"status": "failed", "why": f"{each.split()[0]} ended with {done.returncode}: {last}"}
            break
    row["seconds"] = round(time.monotonic() - started, 1)
    return row | gathered(folder, one.files)


def gathered(folder: Path, files: str) -> dict[str, Any]:
    """The table and the results that a benchmark left in its folder."""
    table, results = folder / f"{files}.md", folder / f"{files}.json"
    return {
        "table": table.read_text(encoding="utf-8") if table.is_file() else "",
        "results": json.loads(results.read_text(encoding="utf-8")) if results.is_file() else None,
    }


def check(content: dict[str, Any]) -> None:
    """Raise ValueError where results are not in the form of :data:`SCHEMA`."""
    wanted = {"name", "status", "why", "seconds", "commands", "table", "results"}
    if set(content) != set(SCHEMA) or content["schema"] != 1:
        raise ValueError(f"results has the keys {sorted(content)}; expected {sorted(SCHEMA)} of schema 1. Run again.")
    for row in content["benchmarks"]:
        if set(row) != wanted or row["status"] not in ("done", "failed", "skipped"):
            raise ValueError(f"benchmark {row.get('name')!r} has {sorted(row)}; expected {sorted(wanted)}. Run again.")


def page(content: dict[str, Any]) -> str:
    """RESULTS.md: what did not run and what was lost first, then every table as its benchmark wrote it."""
    lines = ["# Results", ""]
    if content["quick"]:
        lines += ["**Quick run: everything is tiny. It shows that it runs and measures nothing.**", ""]
    for row in content["benchmarks"]:
        if row["status"] != "done":
            lines.append(f"- {row['name']} {row['status']}: {row['why']}.")
    lines += [f"- {text}" for text in losses(content)]
    lines += ["", "| benchmark | status | seconds |", "|---|---|---|"]
    lines += [f"| {row['name']} | {row['status']} | {row['seconds']:g} |" for row in content["benchmarks"]]
    lines += ["", provenance_line(content["environment"]), ""]
    for row in content["benchmarks"]:
        if row["table"]:
            lines += [re.sub("^#", "##", row["table"], flags=re.MULTILINE).rstrip(), ""]
    return "\n".join(lines)


def losses(content: dict[str, Any]) -> list[str]:
    """Sentences in which our method is not ahead, from every benchmark that passes verdicts."""
    found = []
    for row in content["benchmarks"]:
        verdicts = (row["results"] or {}).get("verdicts", []) if isinstance(row["results"], dict) else []
        found += [text for text in verdicts if " beats " not in text]
    return found


def headline(content: dict[str, Any]) -> str:
    """The README's table: planted units, true response at equal realism and of the nearest natural image."""
    from planted_methods import METHODS
    from planted_units import per_unit

    from vislens_interp.metrics import interval

    found = [row for row in content["benchmarks"] if row["name"] == "planted_units" and row["results"]]
    if not found or content["quick"]:
        raise ValueError(
            "results hold no full run of planted_units, of which the headline table is made. Run run_all.py without "
            "--quick first."
        )
    rows = found[0]["results"]["rows"]
    families = list(dict.fromkeys(row["family"] for row in rows))
    mixtures = [family for family in families if family.startswith("mixture")]
    columns = {
        "one linear preference": ("realism 0.9", ["linear"]),
        "two or three unlike preferences": ("realism 0.9", mixtures),
        "the same, nearest natural image": ("retrieval", mixtures),
    }
    lines = [f"| method | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for label in METHODS:
        cells = []
        for measure, chosen in columns.values():
            values = per_unit(rows, label, measure, family=chosen, direction=["increase"])
            cells.append(str(interval(values, levels=("unit",))) if values else "")
        if any(cells):
            lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", provenance_line(found[0]["results"]["provenance"])])


def replace_between(text: str, table: str) -> str:
    """``text`` with ``table`` between the two marks, whatever stood there.

    Raises:
        ValueError: The marks are not there once each, in their order.
    """
    begin, end = MARKS
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(
            f"the text has no one pair of marks; expected {begin} and {end}, each on a line of its own. Add them."
        )
    return f"{text[: text.index(begin)]}{begin}\n{table}\n{text[text.index(end) :]}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of real files; VISLENS_DATA if left out")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="what the recipes wrote, for benchmarks that need it")
    parser.add_argument("--quick", action="store_true", help="those with a quick mode, tiny")
    parser.add_argument("--only", nargs="+", choices=[one.name for one in BENCHMARKS])
    parser.add_argument(
        "--readme", type=Path, help="write the headline table of OUT/results.json into this file, and end"
    )
    args = parser.parse_args(argv)
    file = args.out / "results.json"
    if args.readme is not None:
        table = headline(json.loads(file.read_text(encoding="utf-8")))
        write_text(args.readme, replace_between(args.readme.read_text(encoding="utf-8"), table))
        return
    if args.data is None and os.environ.get("VISLENS_DATA"):
        args.data = Path(os.environ["VISLENS_DATA"])
    rows = []
    for one in BENCHMARKS:
        if args.only is None or one.name in args.only:
            rows.append(run(one, args))
            print(one.name, rows[-1]["status"], rows[-1]["why"] or "", f"{rows[-1]['seconds']:g} s", flush=True)
    content = {"schema": 1, "quick": args.quick, "environment": provenance(seed=None), "benchmarks": rows}
    check(content)
    write_text(file, json.dumps(content, indent=1))
    write_text(args.out / "RESULTS.md", page(content))


if __name__ == "__main__":
    main()
