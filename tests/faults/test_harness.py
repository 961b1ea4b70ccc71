"""Kills, full disks and pairs of processes over every public writer: a few rounds here, hundreds behind ``slow``."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
from lens_writers import LENS_WRITERS
from writers import WRITERS

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")
HARNESS = Path(__file__).with_name("harness.py")
FILES = [name for name in WRITERS if name not in LENS_WRITERS]


def run(fault, rounds, *arguments, tmpfs=False):
    command = [sys.executable, str(HARNESS), fault, "--rounds", str(rounds), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if tmpfs:
        command, environment["FAULTS_TMPFS"] = ["unshare", "-m", *command], "1"
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["failures"] == [], done.stderr
    return outcome["counts"]


def total(counts, word):
    return sum(one.get(word, 0) for one in counts.values())


def can_mount():
    """Whether a small file system can be made: in a namespace of its own, as root."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        return False
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_kills():
    assert total(run("kill", 26, "--writers", *FILES), "killed") >= 20


def test_kills_of_lenses_and_what_they_make():
    assert total(run("kill", len(LENS_WRITERS), "--writers", *LENS_WRITERS), "killed") >= len(LENS_WRITERS) // 2


def test_largest_files():
    assert total(run("full", 26, "--writers", *FILES), "OSError") >= 20


def test_pairs():
    counts = run("pair", len(FILES), "--writers", *FILES)
    assert total(counts, "both") >= 8
    assert total(counts, "both") + total(counts, "one refused") == len(FILES)


@pytest.mark.slow
def test_many_kills():
    assert total(run("kill", 210, "--seed", "1"), "killed") >= 200


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="needs root to mount a small file system")
def test_many_full_disks():
    assert total(run("full", 63, "--seed", "1", tmpfs=True), "OSError") >= 50


@pytest.mark.slow
def test_many_pairs():
    run("pair", 42, "--seed", "1")
