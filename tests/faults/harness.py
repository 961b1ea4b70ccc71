"""Kills, full disks and pairs of processes over every public writer; prints what happened as JSON.

``python tests/faults/harness.py kill --rounds 200 --record kill.jsonl``. Each round has a seed of its own, and
forks this process, which has imported and computed everything before, so that a round takes as long as the writer.
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
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).parent))
from writers import WRITERS, Writer

OS_ERROR, OTHER = 7, 9
"""Exit codes of a child: it raised OSError, or another exception."""
CHANGES = {"open", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}
"""Python's audit events of what changes the disk."""


class Pace(NamedTuple):
    """How long one write takes, in seconds, and how often it changes the disk."""

    seconds: float
    changes: int


def child(work: Callable[[], object]) -> int:
    """Fork; the child ends with 0, OS_ERROR or OTHER."""
    pid = os.fork()
    if pid:
        return pid
    code = 0
    try:
        torch.set_num_threads(1)  # a pool of threads does not come along: the child would wait for it for ever
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


def on_change(work: Callable[[], object]) -> None:
    """From here on, do it before each change of the disk: a file opened to write, a name made, moved or removed."""

    def hook(event: str, args: tuple[object, ...]) -> None:
        to_read = event == "open" and not int(str(args[2] or 0)) & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES and not to_read:
            work()

    sys.addaudithook(hook)


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


def measured(writer: Writer, folder: Path) -> Pace:
    def work() -> None:
        seen: list[int] = []
        on_change(lambda: seen.append(1))
        writer.write(folder, 0)
        folder.with_name("changes").write_text(str(len(seen)))

    start = time.monotonic()
    in_child(work)
    return Pace(time.monotonic() - start, int(folder.with_name("changes").read_text()))


MOST = 6
"""Rounds for each fault that is asked for: a writer may be done before it is killed, or have enough room."""


def injected(outcomes: "Counter[str]") -> int:
    """Rounds in which the fault met the writer at work; of pairs, all."""
    return sum(outcomes.values()) - outcomes["finished first"] - outcomes["enough room"]


def counted(rounds: list[dict[str, object]]) -> "defaultdict[object, Counter[str]]":
    """Outcomes by writer."""
    counts: defaultdict[object, Counter[str]] = defaultdict(Counter)
    for one in rounds:
        counts[one["writer"]][str(one.get("outcome", "failed"))] += 1
    return counts


def kill(name: str, writer: Writer, folder: Path, draw: random.Random, pace: Pace) -> str:
    """SIGKILL at a random moment, or before a random change of the disk, of a write over an earlier version or none."""
    over = draw.random() < 0.7
    if draw.random() < 0.5:
        return killed(writer, folder, over=over, change=draw.randrange(pace.changes))
    return killed(writer, folder, over=over, delay=0.8 * draw.random() * pace.seconds)


def killed(writer: Writer, folder: Path, *, over: bool, change: int | None = None, delay: float = 0.0) -> str:
    """SIGKILL before one of the changes of the disk, or after some seconds."""
    before = None
    if over and not writer.resumes:
        in_child(lambda: writer.write(folder, 0))
        before = 0
    left = iter(range(change or 0))

    def work() -> None:
        if change is not None:
            on_change(lambda: os.kill(os.getpid(), signal.SIGKILL) if next(left, None) is None else None)
        writer.write(folder, 1)

    pid = child(work)
    if change is None:
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
    code = ended(pid)
    if code not in (0, -signal.SIGKILL):
        raise AssertionError(f"the writer ended with {code} before it was killed")
    check(writer, folder, {before, 0, 1} if before is None else {before, 1})
    return "killed" if code else "finished first"


def kill_at_every_change(name: str, root: Path) -> list[str]:
    """What went wrong where a writer was killed before each of its changes of the disk in turn."""
    writer, failures = WRITERS[name], []
    for change in range(prepare(name, root).changes):
        folder = root / f"{change} {name}"
        folder.mkdir()
        try:
            killed(writer, folder, over=True, change=change)
        except AssertionError as error:
            failures.append(f"{name}, before change {change}: {error}")
        shutil.rmtree(folder)
    return failures


def full(name: str, writer: Writer, folder: Path, draw: random.Random, pace: Pace) -> str:
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


def pair(name: str, writer: Writer, folder: Path, draw: random.Random, pace: Pace) -> str:
    """Two processes on one path."""
    delay = draw.random() * pace.seconds
    first = child(lambda: writer.write(folder, 0))
    time.sleep(delay)
    second = child(lambda: writer.write(folder, 0 if draw.random() < 0.3 else 1))
    codes = [ended(first), ended(second)]
    if 0 not in codes or not set(codes) <= {0, OS_ERROR}:
        raise AssertionError(f"two processes ended with {codes}; expected success, or one refused by an OSError")
    check(writer, folder, {0, 1})
    return "both" if codes == [0, 0] else "one refused"


def prepare(name: str, root: Path) -> Pace:
    """Imports and expectations of a writer, once."""
    writer, warm, timed = WRITERS[name], root / f"warm {name}", root / f"timed {name}"
    warm.mkdir()
    writer.write(warm, 0)
    writer.write(warm, 1)
    writer.version(warm)
    timed.mkdir()
    return measured(writer, timed)


def earlier(record: Path | None) -> list[dict[str, object]]:
    """The rounds that a record holds; a line that a kill cut off is done again."""
    if record is None or not record.exists():
        return []
    lines = record.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fault", choices=("kill", "full", "pair"))
    parser.add_argument("--rounds", type=int, default=10, help="faults to inject, over all writers alike")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--writers", nargs="*", default=list(WRITERS))
    parser.add_argument("--record", type=Path, help="a file of rounds; a second run goes on with it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    inject = {"kill": kill, "full": full, "pair": pair}[args.fault]
    root = Path(tempfile.mkdtemp(prefix=f"faults-{args.fault}"))
    share = -(-args.rounds // len(args.writers))
    rounds = earlier(args.record)
    try:
        if os.environ.get("FAULTS_TMPFS"):
            (root / "disk").mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(root / "disk")], check=True)
        for name in args.writers:
            pace = None
            number = sum(one["writer"] == name for one in rounds)
            while number < MOST * share and injected(counted(rounds)[name]) < share:
                pace = prepare(name, root) if pace is None else pace
                seed = f"{args.seed} {args.fault} {name} {number}"
                folder = root / ("disk" if os.environ.get("FAULTS_TMPFS") else "") / f"{number} {name}"
                folder.mkdir()
                one: dict[str, object] = {"writer": name, "seed": seed}
                try:
                    one["outcome"] = inject(name, WRITERS[name], folder, random.Random(seed), pace)
                except AssertionError as error:
                    one["failure"] = str(error)
                rounds.append(one)
                if args.record is not None:
                    with args.record.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(one) + "\n")
                shutil.rmtree(folder, ignore_errors=True)
                number += 1
    finally:
        if os.environ.get("FAULTS_TMPFS"):
            subprocess.run(["umount", str(root / "disk")], check=False)
        shutil.rmtree(root, ignore_errors=True)
    failures = [f"seed {one['seed']!r}: {one['failure']}" for one in rounds if "failure" in one]
    print(json.dumps({"fault": args.fault, "rounds": len(rounds), "counts": counted(rounds), "failures": failures}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
