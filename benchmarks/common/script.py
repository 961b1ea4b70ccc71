"""What every benchmark does: its command line, cells that a run goes on from, its page, where figures come from."""

import argparse
import io
import itertools
import json
import os
import platform
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from vislens_interp.files import write_atomically, write_bytes, write_text

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


def read(path: Path) -> Any:
    """What a file of JSON or TOML holds."""
    text = path.read_text(encoding="utf-8")
    return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)


def read_all(folder: Path, pattern: str) -> list[Any]:
    """What the files of a pattern hold, in the order of their names."""
    return [read(path) for path in sorted(folder.glob(pattern))]


def save_cell(path: Path, found: object, said: dict[str, Any]) -> None:
    write_text(path, json.dumps({"provenance": said, "found": found}))


def once(path: Path, make: Callable[[], object], said: dict[str, Any] | None = None) -> None:
    """Unless the file is there, write what ``make`` gives, with its provenance ``said``, and say how long it took."""
    if path.exists():
        return
    began, cpu = time.monotonic(), time.process_time()
    found = make()
    write_text(path, json.dumps(found if said is None else {"provenance": said, "found": found}))
    print(f"{path.stem}: {time.monotonic() - began:.0f} s, CPU {time.process_time() - cpu:.1f} s", flush=True)


def rounded(values: Any, digits: int = 4) -> Any:
    """An array, or lists in lists, as lists whose floating-point numbers are rounded."""
    if isinstance(values, Tensor | np.ndarray):
        values = values.tolist()
    if isinstance(values, list):
        return [rounded(one, digits) for one in values]
    return round(values, digits) if isinstance(values, float) else values


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all."""
    kept = {name: value.contiguous() for name, value in tensors.items()}
    write_atomically(path, lambda temporary: save_file(kept, temporary))


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a NumPy file, whole or not at all."""
    packed = io.BytesIO()
    np.save(packed, array)
    write_bytes(path, packed.getvalue())


def publish(stem: Path, text: str, numbers: object) -> None:
    """``STEM.md`` and ``STEM.json``; the page is printed too."""
    write_text(stem.with_suffix(".md"), text)
    write_text(stem.with_suffix(".json"), json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    print(text)


def refuse_other_settings(out: Path, settings: dict[str, Any]) -> None:
    """Raise ValueError if ``out`` was begun with other settings; its first run writes them there."""
    path = out / "settings.json"
    if not path.is_file():
        write_text(path, json.dumps(settings))
        return
    before = read(path)
    changed = [f"{key}={before.get(key)!r}, now {now!r}" for key, now in settings.items() if before.get(key) != now]
    if changed:
        raise ValueError(
            f"--out {out} was begun with {'; '.join(changed)}; expected the same settings. Take another folder."
        )


def shuffled(count: int, seed: int) -> Tensor:
    """Rows 0 to ``count - 1`` in the order that a seed gives them."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def shuffled_half(count: int, seed: int, parity: int) -> Tensor:
    """The first half of this order, on which settings are tuned (``parity`` 0), or the second, which tests (1)."""
    order = shuffled(count, seed)
    return order[count // 2 :] if parity else order[: count // 2]


def share(text: str) -> tuple[int, int]:
    """``"0/2"`` as (0, 2): the first of two processes."""
    first, _, count = text.partition("/")
    if not (first.isdigit() and count.isdigit() and int(first) < int(count)):
        raise argparse.ArgumentTypeError(f"{text}: expected I/N with I from 0 to N - 1, such as 0/2")
    return int(first), int(count)


ARGUMENTS: dict[str, dict[str, Any]] = {
    "--data": {"type": Path, "help": "the folder of real files (docs/data.md)"},
    "--out": {"type": Path, "required": True, "help": "folder of cells and results; a run goes on there"},
    "--weights": {"type": Path, "help": "folder of networks that the recipes of docs/training.md wrote"},
    "--device": {"default": "cpu", "help": "cpu (default), cuda, ..."},
    "--seed": {"type": int, "default": 0},
    "--threads": {"type": int, "default": 1},
    "--share": {"type": share, "default": (0, 1), "help": "I/N: every N-th part, for N processes"},
    "--quick": {"action": "store_true", "help": "everything tiny: shows that it runs, measures nothing"},
}


def parser(about: str | None, *names: str, parts: tuple[str, ...] = (), needed: str = "") -> argparse.ArgumentParser:
    """A parser of some of :data:`ARGUMENTS`; ``parts`` are choices of a first word, ``needed`` must be given."""
    epilog = "README.md beside the module says what is measured, and how to run it."
    formatter = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(description=about, epilog=epilog, formatter_class=formatter)
    if parts:
        made.add_argument("part", choices=parts)
    for name in names:
        made.add_argument(name, **ARGUMENTS[name] | ({"required": True} if name in needed.split() else {}))
    return made


def parse(command: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; ``--out`` is made, ``--threads`` are set, and every part but ``report`` has its ``--data``."""
    args = command.parse_args(argv)
    if getattr(args, "part", "report") != "report" and args.data is None:
        command.error(f"{args.part} needs --data, the folder of real files (docs/data.md)")
    if hasattr(args, "out") and getattr(args, "part", None) != "report":
        args.out.mkdir(parents=True, exist_ok=True)
    if hasattr(args, "threads"):
        torch.set_num_threads(args.threads)
    return args
