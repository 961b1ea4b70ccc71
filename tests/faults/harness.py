"""Kills, full disks and pairs of processes over every public writer; prints what happened as JSON.

``python tests/faults/harness.py kill --rounds 200``. Each round forks this process, which has imported and computed
everything before, so that a round takes as long as the writer.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from writers import WRITERS, Writer

OS_ERROR, OTHER = 7, 9
"""Exit codes of a child: it raised OSError, or another exception."""


def child(work: Callable[[], object]) -> int:
    """Fork; the child ends with 0, OS_ERROR or OTHER."""
    pid = os.fork()
    if pid:
        return pid
    code = 0
    try:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        work()
    except OSError as error:
        code = OS_ERROR if str(error) else OTHER
    except BaseException:  # noqa: BLE001 (reported by the parent)
        traceback.print_exc()
        code = OTHER
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int:
    """Exit code of a child; negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def leftovers(folder: Path) -> list[str]:
    """Hidden files and folders that nothing goes on from."""
    return [path.name for path in folder.rglob(".*") if not path.name.endswith((".partial", ".partial.json"))]


def in_child(work: Callable[[], object]) -> None:
    """Do it in a fresh process, as the next run of a user is, and demand that it succeeds."""
    code = ended(child(work))
    if code != 0:
        raise AssertionError(f"the next run ended with {code}")


def check(writer: Writer, folder: Path, allowed: set[int | None]) -> None:
    """What lies there is whole, the next run succeeds, and leaves nothing hidden."""

    def work() -> None:
        found = writer.version(folder)
        if found not in allowed:
            raise AssertionError(f"version {found} lies there; expected one of {allowed}")
        writer.write(folder, 1)
        if writer.version(folder) != (0 if writer.resumes else 1):
            raise AssertionError("the next run did not write its version")
        if left := leftovers(folder):
            raise AssertionError(f"left behind: {left}")

    in_child(work)


def seconds(writer: Writer, folder: Path) -> float:
    start = time.monotonic()
    in_child(lambda: writer.write(folder, 0))
    return time.monotonic() - start


MOST = 6
"""Rounds for each fault that is asked for: a writer may be done before it is killed, or have enough room."""


def injected(outcomes: "Counter[str]") -> int:
    """Rounds in which the fault met the writer at work; of pairs, all."""
    return sum(outcomes.values()) - outcomes["finished first"] - outcomes["enough room"]


def kill(name: str, writer: Writer, folder: Path, draw: random.Random, took: float) -> str:
    """SIGKILL at a random moment of a write over an earlier version, or over none."""
    before = None
    if draw.random() < 0.7 and not writer.resumes:
        in_child(lambda: writer.write(folder, 0))
        before = 0
    pid = child(lambda: writer.write(folder, 1))
    time.sleep(0.8 * draw.random() * took)
    os.kill(pid, signal.SIGKILL)
    code = ended(pid)
    if code not in (0, -signal.SIGKILL):
        raise AssertionError(f"the writer ended with {code} before it was killed")
    check(writer, folder, {before, 0, 1} if before is None else {before, 1})
    return "killed" if code else "finished first"


def full(name: str, writer: Writer, folder: Path, draw: random.Random, took: float) -> str:
    """A disk, or the largest file, that is too small at a random point."""
    before = None
    if not writer.resumes:
        in_child(lambda: writer.write(folder, 0))
        before = 0
    room = int(10 ** draw.uniform(0, 5.3))
    tmpfs = os.environ.get("FAULTS_TMPFS")

    def work() -> None:
        if tmpfs is None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        writer.write(folder, 1)

    ballast = folder / "ballast"
    if tmpfs is not None:
        free = shutil.disk_usage(folder).free
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, free - room))
    code = ended(child(work))
    ballast.unlink(missing_ok=True)
    if code not in (0, OS_ERROR):
        raise AssertionError(f"a full disk ended the writer with {code}; expected an OSError")
    check(writer, folder, {before, 0, 1} if before is None or code == 0 else {before})
    return "OSError" if code else "enough room"


def pair(name: str, writer: Writer, folder: Path, draw: random.Random, took: float) -> str:
    """Two processes on one path."""
    delay = draw.random() * took
    first = child(lambda: writer.write(folder, 0))
    time.sleep(delay)
    second = child(lambda: writer.write(folder, 0 if draw.random() < 0.3 else 1))
    codes = [ended(first), ended(second)]
    if 0 not in codes or not set(codes) <= {0, OS_ERROR}:
        raise AssertionError(f"two processes ended with {codes}; expected success, or one refused by an OSError")
    check(writer, folder, {0, 1})
    return "both" if codes == [0, 0] else "one refused"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fault", choices=("kill", "full", "pair"))
    parser.add_argument("--rounds", type=int, default=10, help="faults to inject, over all writers alike")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--writers", nargs="*", default=list(WRITERS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(args.seed)
    inject = {"kill": kill, "full": full, "pair": pair}[args.fault]
    root = Path(tempfile.mkdtemp(prefix=f"faults-{args.fault}"))
    share = -(-args.rounds // len(args.writers))
    counts: dict[str, Counter[str]] = {name: Counter() for name in args.writers}
    failures: list[str] = []
    try:
        took: dict[str, float] = {}
        for name in args.writers:
            (root / f"warm {name}").mkdir()
            WRITERS[name].write(root / f"warm {name}", 0)  # imports and expectations, once
            WRITERS[name].write(root / f"warm {name}", 1)
            WRITERS[name].version(root / f"warm {name}")
            (root / f"timed {name}").mkdir()
            took[name] = seconds(WRITERS[name], root / f"timed {name}")
        if os.environ.get("FAULTS_TMPFS"):
            (root / "disk").mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(root / "disk")], check=True)
        number = 0
        while number < MOST * args.rounds and (waiting := [n for n in args.writers if injected(counts[n]) < share]):
            number += 1
            name = min(waiting, key=lambda one: injected(counts[one]))
            folder = root / ("disk" if os.environ.get("FAULTS_TMPFS") else "") / f"{number} {name}"
            folder.mkdir()
            try:
                counts[name][inject(name, WRITERS[name], folder, draw, took[name])] += 1
            except AssertionError as error:
                failures.append(f"round {number}, {name}: {error}")
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        if os.environ.get("FAULTS_TMPFS"):
            subprocess.run(["umount", str(root / "disk")], check=False)
        shutil.rmtree(root, ignore_errors=True)
    print(json.dumps({"fault": args.fault, "rounds": number, "counts": counts, "failures": failures}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
