"""``vislens atlas`` end to end on the shipped network."""

import json
import signal
import subprocess
import sys
import urllib.request

import pytest
from PIL import Image
from small_layer import clouds
from test_store import contents

from vislens_interp.atlas import open_atlas
from vislens_interp.cli import main
from vislens_interp.cli.arguments import parse_units

UNITS = "0-3"
COMMAND = ["atlas", "--model", "zoo:cifar10_convnet", "--layer", "conv1", "--inputs", "1", "--units", UNITS, "--quiet"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs for the command: 200 small pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for row, picture in enumerate((clouds(200, side=48, seed=5) * 255).byte().permute(0, 2, 3, 1).numpy()):
        Image.fromarray(picture).save(folder / f"{row:03d}.png")
    return folder


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "atlas"
    assert main([*COMMAND, "--images", str(folder), "--out", str(out)]) == 0
    return out


def test_the_command_writes_an_atlas_and_goes_on(made, folder, capsys):
    store = open_atlas(made)
    assert store.table(["unit"])["unit"].to_pylist() == [0, 1, 2, 3]
    before = contents(made)
    words = [word for word in COMMAND if word != "--quiet"]
    assert main([*words, "--images", str(folder), "--out", str(made)]) == 0
    said = capsys.readouterr().out
    assert "ConvNet, layer conv1: 4 of 32 units, " in said
    assert f"vislens atlas serve {made}" in said
    assert contents(made) == before


def test_it_takes_more_units_into_the_same_folder(made, folder):
    kept = {path: data for path, data in contents(made).items() if path.startswith("shards/")}
    words = [*COMMAND[: COMMAND.index("--units")], "--top", "2", "--by", "sparsity", "--quiet"]
    assert main([*words, "--images", str(folder), "--out", str(made)]) == 0
    assert len(open_atlas(made).table(["unit"])) == 2
    assert main([*COMMAND, "--images", str(folder), "--out", str(made)]) == 0
    assert kept.items() <= contents(made).items()


def test_a_query_prints_units(made, capsys):
    name = open_atlas(made).table(["top_images"])["top_images"][2].as_py()[0]
    assert main(["atlas", "query", str(made), name]) == 0
    assert "unit 2\t" in capsys.readouterr().out
    assert main(["atlas", "query", str(made), name, "--json"]) == 0
    assert 2 in [row["unit"] for row in json.loads(capsys.readouterr().out)["units"]]
    assert main(["atlas", "query", str(made), "walrus"]) == 0
    assert "no unit holds 'walrus'" in capsys.readouterr().err


def test_serve_shows_the_site(made):
    command = [sys.executable, "-m", "vislens_interp", "atlas", "serve", str(made), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().split()[0]
        with urllib.request.urlopen(f"{address}unit/2.html", timeout=30) as answer:
            assert b"Unit 2" in answer.read()
    finally:
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said == "vislens: interrupted\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["atlas", "--layer", "conv1"], "vislens atlas needs --model and --out"),
        (["atlas", "--model", "zoo:cifar10_convnet", "--layer", "conv9", "--out", "{out}"], "layer 'conv9'"),
        (["atlas", "serve", "{out}"], "holds no atlas; expected one that vislens atlas wrote"),
        (["atlas", "query", "{out}", "dog"], "holds no atlas; expected one that vislens atlas wrote"),
    ],
)
def test_an_error_is_one_line(words, line, tmp_path, capsys):
    assert main([word.format(out=tmp_path / "out") for word in words]) == 1
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


def test_units_from_a_shell(capsys):
    assert parse_units("3,7, 10-12") == [3, 7, 10, 11, 12]
    assert main(["atlas", "--model", "zoo:x", "--out", "x", "--units", "5-2"]) == 2
    assert "'5-2' is no list of units; expected one such as 0-511 or 3,7,20-29" in capsys.readouterr().err
