"""Kills, full disks and pairs of processes over every public writer: a few rounds here, hundreds behind ``slow``."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import harness
import pytest
from atlas_writers import ATLAS_WRITERS
from brain_writers import BRAIN_WRITERS
from lens_writers import LENS_WRITERS
from recipe_writers import RECIPE_WRITERS
from writers import WRITERS

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")
HARNESS = Path(__file__).with_name("harness.py")
OTHERS = {"lens": LENS_WRITERS, "brain": BRAIN_WRITERS, "atlas": ATLAS_WRITERS, "recipe": RECIPE_WRITERS}
FILES = [name for name in WRITERS if not any(name in others for others in OTHERS.values())]
QUICK = ["folder", "audit", "preference map", "trials"]


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


@pytest.mark.end_to_end
@pytest.mark.parametrize("part", OTHERS)
def test_kills_of_what_the_library_makes(part):
    names = list(OTHERS[part])
    assert total(run("kill", len(names), "--writers", *names), "killed") >= len(names) // 2


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in WRITERS if name not in QUICK)]
)
def test_a_kill_before_every_change_of_the_disk(name, tmp_path):
    assert harness.kill_at_every_change(name, tmp_path) == []


@pytest.mark.end_to_end
def test_largest_files():
    assert total(run("full", 26, "--writers", *FILES), "OSError") >= 20


@pytest.mark.skipif(not can_mount(), reason="needs root to mount a small file system")
def test_full_disks_of_what_is_mapped():
    """A write through a map of a sparse file would end in SIGBUS."""
    assert total(run("full", 8, "--writers", "trials", "layer table", tmpfs=True), "OSError") == 8


@pytest.mark.end_to_end
def test_pairs():
    counts = run("pair", len(FILES), "--writers", *FILES)
    assert total(counts, "both") >= 8
    assert total(counts, "both") + total(counts, "one refused") == len(FILES)


@pytest.mark.slow
def test_many_kills():
    assert total(run("kill", 8 * len(WRITERS), "--seed", "1"), "killed") >= 200


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="needs root to mount a small file system")
def test_many_full_disks():
    assert total(run("full", 2 * len(WRITERS), "--seed", "1", tmpfs=True), "OSError") >= 50


@pytest.mark.slow
def test_many_pairs():
    run("pair", len(WRITERS), "--seed", "1")
