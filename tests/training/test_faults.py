"""Hostile data and numbers: one line that names the picture, and no weights that nothing was learned by."""

import io
import json
import struct
import zipfile

import numpy as np
import pytest
import torch
from interruptions import Clock
from PIL import Image
from torch import nn

from vislens_interp.files import load_state, locked, save_state
from vislens_interp.training import loop
from vislens_interp.training.__main__ import main
from vislens_interp.training.data import read_images
from vislens_interp.training.loop import train


def png(seed=0, size=(36, 32)):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def bomb(width, height):
    """A PNG of a few bytes that says that it is as large."""
    header = struct.pack(">II", width, height)
    content = png()
    start = content.index(b"IHDR") + 4
    changed = content[:start] + header + content[start + 8 :]
    body = changed[start - 4 : start + 13]
    import zlib

    return changed[: start + 13] + struct.pack(">I", zlib.crc32(body)) + changed[start + 17 :]


def pack(path, entries, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def patched(path, offset, value):
    """A field of the first entry, in both of its headers, at this offset of the local one."""
    content = bytearray(path.read_bytes())
    content[offset : offset + 2] = struct.pack("<H", value)
    place = content.index(b"PK\x01\x02") + offset + 2
    content[place : place + 2] = struct.pack("<H", value)
    path.write_bytes(content)
    return path


def archives(folder):
    good = {"cat/0.png": png(0), "dog/1.png": png(1)}
    content = pack(folder / "cut.zip", {"cat/0.png": png(size=(60, 60))}, zipfile.ZIP_STORED).read_bytes()
    place = content.index(b"IDAT") + 40
    (folder / "crc.zip").write_bytes(content[:place] + bytes(20) + content[place + 20 :])
    (folder / "cut.zip").write_bytes(content[:-30])
    return {
        "picture": (pack(folder / "picture.zip", {**good, "cat/bad.png": b"no picture"}), "cat/bad.png"),
        "truncated": (pack(folder / "truncated.zip", {**good, "cat/bad.png": png()[:200]}), "cat/bad.png"),
        "bomb": (pack(folder / "bomb.zip", {**good, "cat/bad.png": bomb(60_000, 60_000)}), "cat/bad.png"),
        "large": (pack(folder / "large.zip", {**good, "cat/bad.png": bomb(12_000, 10_000)}), "cat/bad.png"),
        "password": (patched(pack(folder / "password.zip", good), 6, 1), "cat/0.png"),
        "method": (patched(pack(folder / "method.zip", good), 8, 97), "cat/0.png"),
        "checksum": (folder / "crc.zip", "cat/0.png"),
        "cut": (folder / "cut.zip", "cannot be read as a zip"),
        "none": (pack(folder / "none.zip", {"notes.txt": "none"}), "holds no images"),
    }


@pytest.mark.parametrize(
    "name", ["picture", "truncated", "bomb", "large", "password", "method", "checksum", "cut", "none"]
)
def test_data_that_cannot_be_read_is_named(name, tmp_path):
    path, said = archives(tmp_path)[name]
    with pytest.raises((ValueError, FileNotFoundError), match=f"data='{path}'.*{said}"):
        read_images(path, 32)


def test_an_entry_that_unpacks_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr("vislens_interp.training.data.LARGEST_FILE", 10_000)
    path = pack(tmp_path / "zeros.zip", {"cat/0.png": bytes(20_000)})
    with pytest.raises(ValueError, match=r"'cat/0.png' cannot be read .*it unpacks to 0 MB"):
        read_images(path, 32)


def test_what_a_mac_leaves_in_a_zip_is_no_image(tmp_path):
    entries = {"cat/0.png": png(), "__MACOSX/cat/._0.png": b"resource fork", "cat/._0.png": b"resource fork"}
    assert len(read_images(pack(tmp_path / "mac.zip", entries), 32)[0]) == 1


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for split in ("train", "test"):
        pack(root / f"{split}.zip", {f"{label}/{row}.png": png(row) for label in "ab" for row in range(4)})
    return root


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "nan"], "--minutes nan must be a number above 0"),
        (["--minutes", "0"], "--minutes 0 must be a number above 0"),
        (["--minutes", "inf"], "--minutes inf must be a number above 0"),
        (["--set", "batch_size=0"], "--set batch_size=0: batch_size must be at least 1, and finite; 128 is"),
        (["--set", "epochs=-1"], "--set epochs=-1: epochs must be at least 1"),
        (["--set", "lr=nan"], "--set lr=nan: lr must be above 0, and finite"),
        (["--set", "lr=0"], "--set lr=0: lr must be above 0, and finite"),
        (["--device", "xpu"], "device='xpu' is unknown; expected cpu, cuda, cuda:N or mps"),
        (["--device", "meta"], "device='meta' is unknown"),
        (["--seed", "-1"], "--seed=-1; expected a whole number from 0 to 4294967295"),
        (["--seed", str(2**63)], "expected a whole number from 0"),
        (["--shard-mib", "nan"], "--shard-mib nan must be above 0"),
    ],
)
def test_numbers_that_make_no_sense(arguments, message, data, tmp_path, capsys):
    command = ["cifar10_convnet", "--data", str(data), "--out", str(tmp_path / "out"), "--steps", "1", *arguments]
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_step_at_least(data, tmp_path, capsys):
    command = ["cifar10_convnet", "--data", str(data), "--out", str(tmp_path / "out"), "--steps", "5"]
    assert main([*command, "--minutes", "1e-9", "--set", "batch_size=4"]) == 0
    assert json.loads((tmp_path / "out/cifar10_convnet.json").read_text())["step"] == 1


def test_the_command_names_the_bad_picture_in_one_line(tmp_path, capsys):
    pack(tmp_path / "train.zip", {"a/0.png": png(), "b/1.png": b"none"})
    assert main(["cifar10_convnet", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--steps", "1"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "'b/1.png' cannot be read" in error


def run(out, *, seed=0, steps=6, value=0.0, lr=1e-2, **options):
    torch.manual_seed(0)
    model, rows = nn.Linear(3, 1), torch.full((4, 3), value)
    return train(
        model,
        lambda step, draw: (model(rows) - 1).square().mean(),
        out=out,
        steps=steps,
        lr=lr,
        seed=seed,
        data=[rows],
        **options,
    )


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 1}, "belongs to a run with seed 0, not 1"),
        ({"value": 1.0}, "belongs to a run with data '"),
        ({"lr": 0.02}, "belongs to a run with lr 0.01, not 0.02"),
        ({"settings": {"batch_size": 3}}, "belongs to a run with batch_size None, not 3"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(other, message, tmp_path, monkeypatch):
    with monkeypatch.context() as short:
        short.setattr(loop, "time", Clock())
        run(tmp_path, minutes=3)
    with pytest.raises(ValueError, match=message + ".*; pass that, or another folder"):
        run(tmp_path, **other)
    assert run(tmp_path)[1].step == 6


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path):
    run(tmp_path, minutes=1e-9)
    path = tmp_path / "checkpoint.safetensors"
    state = load_state(path, "checkpoint")
    assert state.pop("identity")["seed"] == 0
    save_state(path, "checkpoint", state)
    assert run(tmp_path)[1].step == 6


def test_two_runs_in_one_folder(tmp_path):
    with locked(tmp_path / "checkpoint.safetensors"), pytest.raises(BlockingIOError, match="by another process"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"minutes": float("nan")}, "minutes=nan must be a number above 0"),
        ({"minutes": -1}, "minutes=-1 must be a number above 0"),
        ({"steps": 0}, "steps=0 and lr=0.01 must be above 0"),
        ({"lr": float("nan")}, "lr=nan must be above 0"),
        ({"seed": 1.5}, "seed=1.5; expected a whole number from 0"),
    ],
)
def test_numbers_of_the_loop(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="the loss is nan at step 6, and nothing is written"):
        run(tmp_path, value=float("nan"))
    assert list(tmp_path.iterdir()) == []
