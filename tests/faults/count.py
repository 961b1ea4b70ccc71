"""All counts behind docs/faults.md, and the table in it.

``python tests/faults/count.py --out runs/faults`` does what is missing there (an hour of one core), and writes the
table. Every round has its seed in the record; a second run goes on where the first was. The small disks need root.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
import torch
from edits import KINDS as FILES
from harness import earlier
from writers import WRITERS

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "faults.md"
BEGIN, END = "<!-- counts: written by tests/faults/count.py -->", "<!-- end of counts -->"
ROUNDS = {"kill": 8 * len(WRITERS), "full": 2 * len(WRITERS), "pair": len(WRITERS), "edit": 21, "name": 300}
LABELS = {
    "kill": "SIGKILL at a random moment, or before a random change of the disk",
    "full": "small disk (tmpfs), full at a random byte",
    "pair": "two processes on one path",
    "edit": "one field changed in a file",
    "name": "hostile name, in every field",
}
WANTED = {
    "kill": "lost, half-written, left behind, or other bits after going on",
    "full": "anything but an `OSError`; the earlier version lost",
    "pair": "neither succeeded, or a mixture",
    "edit": "another exception, or a message without file or field",
    "name": "another exception, or a tag, handler or request in a page",
}
QUIET = ("finished first", "enough room")


def commands(out: Path, seed: int) -> dict[str, list[str]]:
    made = {}
    for fault in ("kill", "full", "pair"):
        made[fault] = [str(HERE / "harness.py"), fault, "--rounds", str(ROUNDS[fault])]
    made["edit"] = [str(HERE / "edits.py"), "--rounds", str(ROUNDS["edit"])]
    made["name"] = [str(HERE / "hostile.py"), "--rounds", str(ROUNDS["name"])]
    return {
        fault: [sys.executable, *command, "--seed", str(seed), "--record", str(out / f"{fault}.jsonl")]
        for fault, command in made.items()
    } | {"scale": [sys.executable, str(HERE / "scale.py"), "--record", str(out / "scale.json")]}


def work(out: Path, seed: int) -> None:
    """Do what is missing."""
    out.mkdir(parents=True, exist_ok=True)
    for fault, command in commands(out, seed).items():
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if fault == "full":
            command, environment["FAULTS_TMPFS"] = ["unshare", "-m", *command], "1"
        print(" ".join(command), file=sys.stderr)
        subprocess.run(command, env=environment, check=False)


def spelled(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()) or "—"


def line(fault: str, rounds: list[dict[str, Any]]) -> str:
    outcomes = Counter(str(one["outcome"]) for one in rounds if "outcome" in one)
    met = sum(count for outcome, count in outcomes.items() if outcome not in QUIET)
    failed = sum("failure" in one for one in rounds)
    return f"| {LABELS[fault]} | {len(rounds)} | {met} | {spelled(outcomes)} | {failed} |"


def by_writer(records: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines = ["| writer | killed | full disk met | pairs | failed |", "|---|---|---|---|---|"]
    for name in WRITERS:
        cells, failed = [], 0
        for fault in ("kill", "full", "pair"):
            own = [one for one in records[fault] if one["writer"] == name]
            failed += sum("failure" in one for one in own)
            cells.append(sum("outcome" in one and one["outcome"] not in QUIET for one in own))
        lines.append(f"| {name} | {' | '.join(map(str, cells))} | {failed} |")
    return lines


def by_kind(rounds: list[dict[str, Any]]) -> list[str]:
    lines = ["| file | changed | used | refused in a line | failed |", "|---|---|---|---|---|"]
    for name in FILES:
        own = [one for one in rounds if one["writer"] == name]
        counts = Counter(str(one.get("outcome", "failed")) for one in own)
        lines.append(f"| {name} | {len(own)} | {counts['used']} | {counts['refused']} | {counts['failed']} |")
    return lines


def scale_lines(found: dict[str, Any]) -> list[str]:
    lines = []
    if memory := found.get("memory"):
        held = {int(number): mib for number, mib in memory["mib"].items()}
        first, last = min(held), max(held)
        lines.append(
            f"- Memory of one process that fits, draws, saves and forgets lenses on networks of their own: "
            f"{held[first]:.0f} MiB after {first}, {held[last]:.0f} MiB after {last} ({memory['growth']:+.1f} MiB)."
        )
    if cache := found.get("cache"):
        steps = "; ".join(f"{int(n):,}: {a} + {b} s" for n, (a, b) in cache["fill_and_find"].items())
        lines.append(
            f"- Cache of embeddings, CPU seconds to fill and to find again, by images: {steps}. An image of the largest"
            f" costs {cache['seconds_an_image_last_over_first']} times one of the smallest."
        )
    if figures := found.get("figures"):
        said = "all alike" if not figures["differ"] else f"different: {', '.join(figures['differ'])}"
        lines.append(
            f"- {figures['files']} files and figures, made by {figures['processes']} processes with other hash seeds: "
            f"{said}."
        )
    return lines


def page(out: Path, seed: int) -> str:
    """The generated part."""
    records = {fault: earlier(out / f"{fault}.jsonl") for fault in LABELS}
    scale = json.loads((out / "scale.json").read_text()) if (out / "scale.json").exists() else {}
    browser = sum(bool(one.get("browser")) for one in records["name"])
    lines = ["| fault | rounds | met it at work | outcomes | failed |", "|---|---|---|---|---|"]
    lines += [line(fault, rounds) for fault, rounds in records.items()]
    lines += ["", "What would count as failed:", ""]
    lines += [f"- {LABELS[fault]}: {text}." for fault, text in WANTED.items()]
    lines += [
        "",
        f"Pages of {browser} of the {len(records['name'])} names were loaded in chromium, without the pages' own",
    ]
    lines += ["policy and with a report of it: no request, no report, no handler, no tag but the templates'.", ""]
    lines += [*by_writer(records), "", *by_kind(records["edit"]), "", *scale_lines(scale)]
    commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=False)
    about = f"torch {torch.__version__} · Python {platform.python_version()} · {platform.system()}"
    about = f"page written at commit {commit.stdout.strip()} · seed {seed} · {about}"
    lines += ["", f"`python tests/faults/count.py --out runs/faults` · {about}"]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--only-page", action="store_true", help="of what is there")
    args = parser.parse_args()
    if not args.only_page:
        work(args.out, args.seed)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{page(args.out, args.seed)}\n\n{END}{after}", encoding="utf-8")
    failed = [one for fault in LABELS for one in earlier(args.out / f"{fault}.jsonl") if "failure" in one]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
