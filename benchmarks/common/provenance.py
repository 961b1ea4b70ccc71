"""Where a benchmark's figures come from: command, code, machine, seed and date."""

import itertools
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def provenance(*, seed: int | Sequence[int] | None, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What is needed to judge a figure and to make it again, as JSON values.

    ``dirty`` says that tracked files differed from the commit; both are None outside of a repository.
    """
    return {
        "command": command_line(sys.argv),
        **commit(ROOT),
        "device": device_name(torch.device(device)),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "seed": seed if seed is None or isinstance(seed, int) else list(seed),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def provenance_line(source: dict[str, Any]) -> str:
    """One line for the foot of a table."""
    code = "no repository" if source["commit"] is None else f"commit {source['commit'][:10]}"
    return (
        f"`{source['command']}` · {code}{' + uncommitted changes' if source['dirty'] else ''} · {source['device']}, "
        f"{source['cpus']} CPUs, {source['threads']} threads · torch {source['torch']} · seed {source['seed']} · "
        f"{source['date']}"
    )


def command_line(argv: list[str]) -> str:
    """The command as somebody else could type it: no path of this machine stays in it.

    Paths below this repository, or below the data's folder, lose their beginning; of any other the last name is left.
    """
    places = [(str(ROOT), ".")]
    given = [after for word, after in itertools.pairwise(argv) if word == "--data"]
    given += [word.removeprefix("--data=") for word in argv if word.startswith("--data=")]
    if data := os.environ.get("VISLENS_DATA") or next(iter(given), None):
        places.insert(0, (os.path.abspath(data), "$VISLENS_DATA"))
    words = []
    if len(argv[0].split(os.sep)) > 1 and Path(argv[0]).is_relative_to(ROOT / "benchmarks"):  # run with -m
        argv = ["-m", ".".join(Path(argv[0]).relative_to(ROOT).with_suffix("").parts), *argv[1:]]
    for word in argv:
        flag, equals, value = word.partition("=") if word.startswith("--") and "=" in word else ("", "", word)
        # Only what looks like a path: a bare word might by chance name a file here.
        path = os.path.abspath(value) if os.sep in value else value
        for place, name in places:
            if path == place or path.startswith(place + os.sep):
                value = name + path[len(place) :]
                break
        else:
            value = os.path.basename(path) if os.path.isabs(value) else value
        value = value.removeprefix("./")
        words.append(f"{flag}{equals}{value if value.startswith('$VISLENS_DATA') else shlex.quote(value)}")
    return " ".join(["python", *words])


def commit(folder: Path) -> dict[str, Any]:
    """The commit that is checked out in ``folder``, and whether tracked files differ from it."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
        except OSError:  # no git on this machine
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def device_name(device: torch.device) -> str:
    """The accelerator's or the processor's model name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
