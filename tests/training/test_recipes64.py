"""The recipes at 64 px: interrupted runs, the command, the card."""

import importlib
import json
import sys

import numpy as np
import pytest
import torch
from interruptions import Clock, same
from PIL import Image
from safetensors.torch import load_file

from vislens_interp.training import loop, simclr_resnet50, vit_tiny64
from vislens_interp.training.__main__ import main
from vislens_interp.training.data import TEST, TUNING, read_splits

STEPS = 2


def train(name, pictures, out):
    options = {"batch_size": 4, "steps": STEPS}
    torch.manual_seed(torch.seed() % 2**31)  # a new process starts from any state
    return importlib.import_module(f"vislens_interp.training.{name}").run(pictures, out, **options)


@pytest.mark.parametrize("name", ["vit_tiny64", "simclr_resnet50"])
def test_resumed_run_equals_an_uninterrupted_one(name, pictures, tmp_path, monkeypatch):
    whole, progress = train(name, pictures, tmp_path / "whole")
    assert progress.step == STEPS
    figures = progress.history[-1]
    assert all(np.isfinite(value) for value in figures.values())
    assert any(figure.startswith("test_") for figure in figures)
    assert progress.data == "4 images of 2 classes to train on, 8 held out (val)"
    assert not whole.training

    with monkeypatch.context() as killed:  # in the second step, after its update and before its checkpoint
        killed.setattr(loop, "time", Clock(interrupt_at=5))
        with pytest.raises(KeyboardInterrupt):
            train(name, pictures, tmp_path / "parts")
    parts, progress = train(name, pictures, tmp_path / "parts")
    assert progress.step == STEPS
    assert same(whole, parts)


def test_command_in_slices_through_shards(pictures, tmp_path, capsys, monkeypatch):
    """Two slices on two machines that exchange parts of the checkpoint, against one run."""
    command = ["vit_tiny64", "--data", str(pictures), "--steps", "2", "--set", "batch_size=4", "--out"]
    assert main([*command, str(tmp_path / "whole"), "--terms", "drawn by this test"]) == 0
    first = [*command, str(tmp_path / "first"), "--shard-mib", "16"]
    with monkeypatch.context() as short:
        short.setattr(loop, "time", Clock())
        assert main([*first, "--minutes", "3"]) == 0
    folder = tmp_path / "first/checkpoints/vit_tiny64"
    parts = sorted(folder.glob("*.part"))
    assert len(parts) > 5
    assert all(path.stat().st_size <= 16 * 2**20 for path in parts)

    other = tmp_path / "second/checkpoints/vit_tiny64"
    other.mkdir(parents=True)
    for path in [*parts, folder / "options.json"]:
        path.rename(other / path.name)
    assert main([*command, str(tmp_path / "second")]) == 0
    assert "vit_tiny64.safetensors: 2 steps" in capsys.readouterr().out
    one, two = (load_file(tmp_path / name / "vit_tiny64.safetensors") for name in ("whole", "second"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert {value.dtype for value in one.values() if value.is_floating_point()} == {torch.float16}

    card = (tmp_path / "whole/vit_tiny64.md").read_text()
    record = json.loads((tmp_path / "whole/vit_tiny64.json").read_text())
    assert "5.39 M parameters" in card
    assert "4 images of 2 classes to train on, 8 held out (val)" in card
    assert "drawn by this test" in card
    assert "threads of a CPU" in card
    assert "batch_size 4" in card
    assert "2 steps in" in card
    assert f"top1: {record['history'][-1]['top1']:.4g}" in card
    assert "not stated; pass --terms" in (tmp_path / "second/vit_tiny64.md").read_text()


def test_one_class_is_no_supervision(tmp_path):
    with pytest.raises(ValueError, match=r"has one class; expected at least two, one folder each"):
        vit_tiny64.run(one_class(tmp_path / "images"), tmp_path / "run")


def one_class(folder):
    """A folder of images alone, as a person has them."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    for index in range(20):
        Image.fromarray(noise.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / f"{index:02d}.png")
    return folder


def test_views_of_an_image_depend_on_their_seed_alone(pictures):
    from lightly.transforms import SimCLRTransform

    images = read_splits(pictures, 64).train
    views = simclr_resnet50.Views(images, SimCLRTransform(64, gaussian_blur=0.0))
    one, again, other = views[0, 5], views[0, 5], views[0, 6]
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[0], one[1])
    keys = simclr_resnet50._keys(3, 4, 2, seed=0)
    earlier = simclr_resnet50._keys(2, 4, 2, seed=0)
    next(earlier)
    assert next(keys) == next(earlier)


def test_halves_of_the_held_out_images_are_apart():
    rows = torch.arange(10)
    assert rows[TUNING].tolist() == [0, 2, 4, 6, 8]
    assert rows[TEST].tolist() == [1, 3, 5, 7, 9]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vit_tiny64", "--shard-mib", "0"], "error: --shard-mib 0 must be above 0: MiB a part; 16 is usual."),
        (
            ["vit_tiny64", "--set", "depth=3"],
            "error: --set depth=3: the recipe has no number 'depth'; expected one of epo",
        ),
        (["vit_tiny64", "--set", "batch_size=some"], "'some' is no int; expected one, as batch_size=256."),
        (["vit_tiny64", "--grayscale"], "error: --grayscale: recipe 'vit_tiny64' has colour images only."),
    ],
)
def test_errors_in_one_line(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([*arguments, "--data", str(tmp_path), "--out", str(tmp_path)])
    assert message in capsys.readouterr().err


def test_a_library_that_is_not_there(pictures, tmp_path, capsys, monkeypatch):
    for name in ("lightly", "lightly.loss", "lightly.models.modules"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["simclr_resnet50", "--data", str(pictures), "--out", str(tmp_path)]) == 1
    assert "Install it: pip install 'vislens_interp[train]'" in capsys.readouterr().err
