"""``vislens atlas`` end to end on the shipped network."""

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_layer import clouds
from test_store import contents

from vislens_interp.atlas import Atlas, SparseFeatures, open_atlas
from vislens_interp.cli import main
from vislens_interp.cli.arguments import parse_units
from vislens_interp.models import load_model

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
    assert "zoo:cifar10_convnet, layer conv1: 4 of 32 units, " in said
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


@pytest.fixture(scope="module")
def of_latents(folder, tmp_path_factory):
    """An atlas of a dictionary's latents, on the same photographs."""
    place, generator = tmp_path_factory.mktemp("latents"), torch.Generator().manual_seed(0)
    encoder = torch.randn(32, 40, generator=generator)
    SparseFeatures(encoder, torch.zeros(40), kind="topk", k=4, decoder=encoder.T).save(place / "sae")
    words = ["--sae", str(place / "sae"), "--pool", "max", "--images", str(folder), "--workers", "1"]
    assert main([*COMMAND, *words, "--out", str(place / "atlas")]) == 0
    return place


def test_a_dictionary_s_latents_are_an_atlas_and_workers_read_its_folder(of_latents, folder):
    store = open_atlas(of_latents / "atlas")
    assert "zoo:cifar10_convnet, layer conv1, 40 latents: 4 of 40 units" in store.describe()
    assert store.manifest["origin"]["sae"] == str(of_latents / "sae")
    features = SparseFeatures.load(of_latents / "sae")
    one = Atlas(features.target(load_model("zoo:cifar10_convnet"), "conv1", pool="max"), images=str(folder))
    one.fit(inputs=1).save(of_latents / "one", units=range(4))
    sheets = [path for path in contents(of_latents / "one") if path.startswith(("sheets/", "shards/"))]
    here, there = contents(of_latents / "one"), contents(of_latents / "atlas")
    assert len(sheets) > 3  # a dead latent has no sheet
    assert all(here[path] == there[path] for path in sheets)


def test_two_atlases_are_compared_from_the_shell(made, of_latents, capsys):
    other = of_latents / "atlas"
    assert main(["atlas", "compare", str(made), str(other), "--limit", "2"]) == 0
    said = capsys.readouterr().out
    assert said.count("\tr ") == 2
    assert f"vislens atlas serve {made}" in said
    assert main(["atlas", "compare", str(made), str(other), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pairs"] == open_atlas(made).most_alike(open_atlas(other))
    assert all(Path(page).is_file() for page in found["pages"])
    assert main(["atlas", "compare", str(made), str(made)]) == 1
    line = capsys.readouterr().err
    assert "is the atlas itself; expected another one" in line
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["query", "{made}", "0", "--limit", "0"], "limit=0; expected a whole number of at least 1"),
        (["query", "{made}", "0", "--limit", "-1"], "limit=-1; expected a whole number of at least 1"),
        (["compare", "{made}", "{made}", "--limit", "-1"], "limit=-1; expected a whole number of at least 1"),
        (["serve", "{made}", "--port", "65536"], "port=65536; expected a whole number from 0 to 65535"),
        (["serve", "{made}", "--port", "-1"], "port=-1; expected a whole number from 0 to 65535"),
    ],
)
def test_numbers_that_cannot_be_are_refused(words, line, made, capsys):
    assert main(["atlas", *(word.format(made=made) for word in words)]) == 1
    assert line in capsys.readouterr().err


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
        (["atlas", "--model", "zoo:cifar10_convnet", "--units", "99", "--out", "{out}"], "units=[99], but the layer"),
        (
            ["atlas", "--model", "zoo:cifar10_convnet", "--layer", "conv1", "--by", "sparsity", "--out", "{out}"],
            "--by sparsity is the order in which --top N takes units",
        ),
        (
            ["atlas", "--model", "zoo:cifar10_convnet", "--layer", "conv1", "--workers", "-1", "--out", "{out}"],
            "workers=-1; expected a whole number of at least 0",
        ),
        (["atlas", "serve", "{out}"], "holds no atlas; expected one that vislens atlas wrote"),
        (["atlas", "query", "{out}", "dog"], "holds no atlas; expected one that vislens atlas wrote"),
        (["atlas", "compare", "{out}", "{out}"], "holds no atlas; expected one that vislens atlas wrote"),
        (["atlas", "--model", "zoo:cifar10_convnet", "--sae", "{out}", "--out", "{out}"], "lacks cfg.json"),
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


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--units", "0-99"], "but the layer has units 0 to 31"),
        (["--top", "0"], "top=0 must be at least 1"),
        (["--backend", "cifar10"], "backend 'cifar10' cannot change pictures in a closed loop"),
        ([], "holds other files (first: 'thesis.txt') and no atlas"),
    ],
)
def test_what_the_run_would_refuse_is_refused_before_the_fit(words, line, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    out = tmp_path / "out" if words else tmp_path
    command = ["atlas", "--model", "zoo:cifar10_convnet", "--layer", "conv1", "--out", str(out), "--quiet"]
    assert main([*command, *words]) == 1
    assert line in capsys.readouterr().err
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}, "something was written first"
