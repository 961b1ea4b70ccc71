"""The command under streams that are closed or know no α, and signals at any moment. Processes are real ones."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vislens_interp import zoo
from vislens_interp.cli import main

MODEL = ["--model", "zoo:cifar10_convnet"]
UNITS = ["units", *MODEL]
shipped = pytest.mark.skipif(
    not (zoo.WEIGHTS / "checksums.json").is_file(), reason="the weights of the zoo are not in this checkout"
)
posix = pytest.mark.skipif(os.name == "nt", reason="needs signals and a shell")


def vislens(*arguments, shell="", timeout=300, **environment):
    """The command as a shell runs it; ``shell`` goes behind it."""
    command = " ".join(["exec", sys.executable, "-m", "vislens_interp", *map(str, arguments), shell])
    return subprocess.run(
        command,
        shell=True,
        capture_output=True,
        timeout=timeout,
        env={**os.environ, "COLUMNS": "100", "PYTHONUNBUFFERED": "", **environment},
        check=False,
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number, values in enumerate(np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)):
        Image.fromarray(values).resize((40, 36), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def visualize(pictures, out, *more):
    return ["visualize", *MODEL, "--layer", "conv3", "--unit", "16", "--backend", "cifar10", "--images", pictures,
            "--method", "noise", "--direction", "increase", "--strength", "0", "--out", out, *more]  # fmt: skip


def test_exit_codes_are_said():
    text = " ".join(vislens("--help").stdout.decode().split())
    assert "0 success 1 an error, said in one line on stderr; or nobody reads the output 2 wrong usage" in text
    assert "129, 130, 143 hung up, interrupted (Ctrl-C), terminated" in text


@posix
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_summaries_in_any_encoding(encoding):
    """The code that prints a summary, with a summary that holds letters which the encoding lacks."""
    code = """if True:
        import sys
        from vislens_interp.streams import usable_streams
        with usable_streams():
            print("against α = 0, r² ≥ 0.5 ± 1 SD, 40°, 東京 \\udcff")
    """
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding, "surrogateescape")
    assert text.startswith("against " + ("α" if encoding == "utf-8" else "alpha") + " = 0, r")
    assert "0.5" in text
    assert "\\udcff" in text
    assert ("東京" if encoding == "utf-8" else r"\u6771\u4eac") in text


@shipped
@posix
@pytest.mark.parametrize("command", [["--help"], pytest.param(UNITS, marks=pytest.mark.slow)], ids=["help", "units"])
@pytest.mark.parametrize("shell", ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(command, shell):
    done = vislens(*command, shell=shell)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert bool(done.stdout) == (">&-" not in shell.replace("2>&-", ""))


@shipped
@posix
@pytest.mark.parametrize("command", [["--help"], pytest.param(UNITS, marks=pytest.mark.slow)], ids=["help", "units"])
def test_output_that_nobody_takes(command):
    for shell, code in (("| true", None), ("> /dev/full", 1), ("2> /dev/full", 0)):
        done = vislens(*command, shell=shell)
        assert b"Traceback" not in done.stderr
        assert b"Exception" not in done.stderr
        assert code is None or done.returncode == code


@shipped
@pytest.mark.slow
def test_json_and_quiet():
    done = vislens(*UNITS, "--json")
    layers = json.loads(done.stdout)["layers"]
    (layer,) = (one for one in layers if one["name"] == "conv3")
    assert (layer["kind"], layer["n_units"], layer["shape"][0]) == ("Sequential", 128, 128)
    random_weights = vislens("units", "--model", "timm:test_resnet", "--quiet")
    assert random_weights.stderr == b""
    assert random_weights.stdout.startswith(b"layer")


@shipped
@posix
@pytest.mark.parametrize("waits", [1, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_at_any_moment(name, waits):
    """From the first import to the end: one line at most, and the code of the signal."""
    word = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}[name]
    number = getattr(signal, name)
    draw, outcomes = random.Random(name), []
    for wait in [0.3, *(draw.uniform(0.05, 4) for _ in range(waits - 1))]:
        process = subprocess.Popen(
            [sys.executable, "-c", READY, *UNITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        process.stdout.readline()  # the handlers are there
        time.sleep(wait)
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
        if process.returncode != 0:
            assert process.returncode == 128 + number
            assert err == f"vislens: {word}\n"
        outcomes.append(process.returncode)
    assert 128 + number in outcomes


READY = """if True:
    import signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)  # under nohup, or behind a shell's &, they are ignored
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    from vislens_interp import cli
    from vislens_interp.cli import arguments
    parse = arguments.build_parser
    def build_parser():
        print("ready", flush=True)
        return parse()
    arguments.build_parser = build_parser
    sys.exit(cli.main(sys.argv[1:]))
"""


@posix
def test_a_signal_while_a_file_is_written_leaves_nothing(tmp_path):
    code = """if True:
        import sys, time
        from pathlib import Path
        from vislens_interp import cli, files
        from vislens_interp.cli import verbs
        def units(args):
            def slow(temporary):
                temporary.write_text("half")
                print("ready", flush=True)
                time.sleep(60)
            files.write_atomically(Path(sys.argv[1]) / "x", slow)
        verbs.units = units
        sys.exit(cli.main(["units", "--model", "m"]))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    assert len(list(tmp_path.iterdir())) == 1
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (143, "vislens: terminated\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["demo", "visualize", "compare"])
def test_a_place_that_cannot_be_written_is_said_first(command, tmp_path, capsys):
    (tmp_path / "file").touch()
    more = [] if command == "demo" else [*MODEL, "--unit", "1", "--images", "x"]
    assert main([command, *more, "--out", str(tmp_path / "file" / "out")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"vislens: error: .*cannot be written: Not a directory.*\n", err)


@shipped
@pytest.mark.slow
def test_a_run_does_not_read_its_own_output(pictures, tmp_path):
    photos = Path(tmp_path / "photos")
    photos.mkdir()
    for path in pictures.iterdir():
        (photos / path.name).write_bytes(path.read_bytes())
    for number in range(3):
        done = vislens(*visualize(photos, photos / "out", "--json"))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["names"] == ["0.png", "1.png", "2.png"]
        assert (b"1 folders with our own results such as out" in done.stderr) == (number > 0)
    assert vislens(*visualize(photos, tmp_path / "quiet", "--quiet")).stderr == b""
