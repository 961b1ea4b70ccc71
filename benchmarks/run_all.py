"""Every benchmark by one command, and one page of all their results.

    python -m benchmarks.run_all --gather                         # RESULTS.md from the results that are there
    python -m benchmarks.run_all --out runs/quick --quick         # all that have a quick run; for CI
    python -m benchmarks.run_all --out runs/all [--only NAME ...] # everything; hours; goes on where it stopped

Each benchmark runs in processes of its own with its own folder below ``--out`` and goes on there after an interruption;
one that fails does not stop the others. One that has ended with this command at this commit is not run again. A run
writes ``RESULTS.md`` and ``results.json`` into ``--out``. The committed results change by ``--publish``, which copies
what was measured to ``benchmarks/results/``, by ``--gather``, which makes the pages from there, and by the benchmarks
that are ``published`` in ``suite.py``: their reports always write there.

What a benchmark needs and is not given (``--data``, ``--weights``, ``--pixel-vae``) is listed with the benchmark as not
run. A new benchmark is one entry in ``suite.py``.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.common.results_page import LIST, full_list, gather, page
from benchmarks.common.script import RESULTS, ROOT, command_line, commit, parser, read
from benchmarks.suite import SUITE, Benchmark, CannotRunError
from vislens_interp.files import write_text


def run(one: Benchmark, commands: list[list[str]], folder: Path) -> str | None:
    """Run a benchmark's commands, one after the other, unless they have ended at this commit before.

    ``folder`` gets ``log.txt`` and ``run.json`` (commands, commit, seconds by the clock and of the CPUs). Returns None,
    or why it failed, with the last line of its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record, log, state = folder / "run.json", folder / "log.txt", commit(ROOT)
    key = {"commands": [command_line(words[1:]) for words in commands], **state}
    if record.is_file() and state["dirty"] is False:
        before = read(record)
        if {name: before[name] for name in key} == key:
            print(f"{one.name}: ended before, {before['seconds']:.0f} s", flush=True)
            return None
    began, cpu_began = time.monotonic(), cpu_seconds()
    for words, shown in zip(commands, key["commands"], strict=True):
        print(f"{one.name}: {shown}", flush=True)
        with log.open("a", encoding="utf-8") as file:
            code = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, check=False).returncode
        if code:
            said = log.read_text(encoding="utf-8").strip().splitlines() or ["nothing was printed"]
            return f"failed with exit status {code}: {said[-1]}"
    seconds, cpu = time.monotonic() - began, cpu_seconds() - cpu_began
    print(f"{one.name}: {seconds:.0f} s, {cpu:.0f} CPU s", flush=True)
    write_text(record, json.dumps({**key, "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)}))
    return None


def cpu_seconds() -> float:
    """What the processes that have ended took of the processors: on a busy machine the clock says little."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_suite(
    suite: tuple[Benchmark, ...], out: Path, *, quick: bool, values: dict[str, Path | str | None]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Run all of them in folders of their own, with what stands for ``{data}`` and the others in their commands.

    Returns where the files of each are, and why those that did not run or failed did so; both by name.
    """
    folders, not_run = {}, {}
    for one in suite:
        folders[one.name] = RESULTS if one.published else out / one.name
        try:
            commands = one.prepare(quick=quick, values={**values, "out": out / one.name})
        except CannotRunError as why:
            not_run[one.name] = str(why)
            continue
        failure = run(one, commands, out / one.name)
        if failure is not None:
            not_run[one.name] = failure
            print(f"{one.name}: {failure}", flush=True)
    return folders, not_run


def write_results(results: dict[str, Any], folder: Path, page_file: Path) -> None:
    """``results.json`` and the list of all aims into ``folder``, and the page."""
    write_text(folder / "results.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / LIST, full_list(results))
    write_text(page_file, page(results, Path(os.path.relpath(folder, page_file.parent))))


def publish(results: dict[str, Any], suite: tuple[Benchmark, ...], folders: dict[str, Path]) -> None:
    """Copy the files of what was measured, figures too, to the committed results."""
    measured = {entry["name"] for entry in results["benchmarks"] if entry["state"] == "measured"}
    for one in suite:
        if one.name in measured and not one.published:
            folder = folders[one.name]
            figures = sorted([*folder.glob("*.png"), *folder.glob("*.webp")])
            for file in [folder / f"{one.name}.json", folder / f"{one.name}.md", *figures]:
                if file.is_file():
                    shutil.copy(file, RESULTS / file.name)


def gather_committed() -> None:
    """Make ``results.json``, RESULTS.md and the list of all aims from the committed results."""
    write_results(gather(SUITE, {one.name: RESULTS for one in SUITE}, ROOT), RESULTS, ROOT / "RESULTS.md")


def main(argv: list[str] | None = None) -> int:
    """Run or gather; 1 if a benchmark failed."""
    command = parser(__doc__, "--data", "--weights", "--device", "--quick")
    command.add_argument("--out", type=Path, help="folder below which each benchmark has its own")
    command.add_argument("--only", nargs="+", choices=[one.name for one in SUITE], help="these benchmarks alone")
    command.add_argument("--pixel-vae", type=Path, help="standard CVAE trained with w_consistency=0, for table3")
    command.add_argument("--nsd", type=Path, help="the Natural Scenes Dataset, for paper_table_1")
    command.add_argument("--publish", action="store_true", help="copy what was measured to benchmarks/results, gather")
    command.add_argument("--gather", action="store_true", help="RESULTS.md from benchmarks/results, nothing is run")
    args = command.parse_args(argv)
    if args.gather == (args.out is not None):
        command.error("give either --out DIR, to run, or --gather, to read what has been run")
    if args.publish and (args.quick or args.gather):
        command.error("--publish is for a whole run: a quick one measures nothing")
    if args.gather:
        gather_committed()
        return 0
    suite = tuple(one for one in SUITE if args.only is None or one.name in args.only)
    data = args.data or os.environ.get("VISLENS_DATA")
    paths = {"data": data, "weights": args.weights, "pixel_vae": args.pixel_vae, "nsd": args.nsd}
    there = {name: None if path is None else Path(path).resolve() for name, path in paths.items()}
    values = {name: path if path is not None and path.exists() else None for name, path in there.items()}
    out = args.out.resolve()
    folders, not_run = run_suite(suite, out, quick=args.quick, values={**values, "device": args.device})
    results = gather(suite, folders, out, quick=args.quick, not_run=not_run)
    write_results(results, out, out / "RESULTS.md")
    if args.publish:
        publish(results, suite, folders)
        gather_committed()
    print(f"{out / 'RESULTS.md'}; {cpu_seconds():.0f} CPU s in all")
    return 1 if any(entry["state"] == "failed" for entry in results["benchmarks"]) else 0


if __name__ == "__main__":
    sys.exit(main())
