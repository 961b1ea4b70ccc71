"""What is written by recipes and their command, and by ``vislens accept``, as ``writers`` has it."""

import io
import json
import sys
import tempfile
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

sys.path.append(str(Path(__file__).parent))
from safetensors.torch import load_file

from vislens_interp.files import load_state, recover
from vislens_interp.methods.natural_spectrum import FILE, KIND
from vislens_interp.training import cifar10_convnet
from vislens_interp.training.__main__ import main as train_command


@cache
def pictures(count, size):
    draw = np.random.default_rng(size)
    return [Image.fromarray(draw.integers(0, 256, (size, size, 3), dtype=np.uint8)) for _ in range(count)]


@cache
def training_data():
    """A folder of noise in two classes, which the recipes at 32 px read."""
    root = Path(tempfile.mkdtemp(prefix="noise"))
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for number, picture in enumerate(pictures(4, 32)):
                picture.save(root / split / label / f"{number}.png")
    return root


def commanded(out):
    """``python -m vislens_interp.training``, two steps, with a checkpoint in parts; the weights."""
    words = ["cifar10_convnet", "--data", str(training_data()), "--out", str(out), "--steps", "2", "--shard-mib", "0.2"]
    said = io.StringIO()
    about = patch.object(cifar10_convnet, "ABOUT", "A network of this test.", create=True)  # for a card
    with about, redirect_stdout(io.StringIO()), redirect_stderr(said):
        code = train_command(words)
    if code:
        raise OSError(said.getvalue())
    return load_file(out / "cifar10_convnet.safetensors")


@cache
def whole_command():
    return commanded(Path(tempfile.mkdtemp(prefix="trained")))


def same_weights(found):
    return all(torch.equal(value, found[name]) for name, value in whole_command().items())


def write_command(folder, version):
    """Once more without the checkpoint, which its parts give back."""
    commanded(folder / "out")
    (folder / "out/checkpoints/cifar10_convnet/checkpoint.safetensors").unlink(missing_ok=True)
    assert same_weights(commanded(folder / "out"))


def command_version(folder):
    """Of the model card, which is written last."""
    out = folder / "out"
    if not (out / "cifar10_convnet.md").exists():
        return None
    assert "A network of this test." in (out / "cifar10_convnet.md").read_text(encoding="utf-8")
    assert json.loads((out / "cifar10_convnet.json").read_text(encoding="utf-8"))["step"] == 2
    assert same_weights(load_file(out / "cifar10_convnet.safetensors"))
    return 0


@cache
def denoiser(version):
    from diffusers import UNet2DModel

    torch.manual_seed(version)
    return UNet2DModel(8, 12, 12, block_out_channels=(8, 8), down_block_types=("DownBlock2D",) * 2,
                       up_block_types=("UpBlock2D",) * 2, layers_per_block=1, norm_num_groups=4)  # fmt: skip


def write_denoiser(folder, version):
    from vislens_interp.training.cifar10_ddpm import save

    save(denoiser(version), folder / "denoiser")


def denoiser_version(folder):
    from vislens_interp.backends.refiner import DDPMRefiner

    recover(folder / "denoiser")
    if not (folder / "denoiser").exists():
        return None
    found = DDPMRefiner(folder / "denoiser").unet.conv_in.weight
    (same,) = [one for one in (0, 1) if torch.equal(found, denoiser(one).conv_in.weight.half().float())]
    return same


def write_samples(folder, version):
    from vislens_interp.training.cifar10_reference import run

    with redirect_stderr(io.StringIO()):
        run(folder, count=1, seed=version)


@cache
def samples(version):
    folder = Path(tempfile.mkdtemp(prefix="samples"))
    write_samples(folder, version)
    return (folder / "cifar10_reference.zip").read_bytes()


def samples_version(folder):
    path = folder / "cifar10_reference.zip"
    if not path.exists():
        return None
    (same,) = [one for one in (0, 1) if samples(one) == path.read_bytes()]
    return same


@cache
def photographs():
    """A folder with the two zips that the spectrum is measured on."""
    root = Path(tempfile.mkdtemp(prefix="photographs"))
    for name, size in (("tiny_imagenet/train_0.zip", 64), ("photos/imagenet500.zip", 224)):
        (root / name).parent.mkdir()
        with zipfile.ZipFile(root / name, "w") as archive:
            for number, picture in enumerate(pictures(2, size)):
                file = io.BytesIO()
                picture.save(file, "PNG")
                archive.writestr(f"photos/{number}.png", file.getvalue())
    return root


def write_spectrum(folder, version):
    from vislens_interp.training.natural_spectrum import main

    said = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        code = main([str(photographs()), "--out", str(folder)])
    if code:
        raise OSError(said.getvalue())


@cache
def spectrum():
    folder = Path(tempfile.mkdtemp(prefix="spectrum"))
    write_spectrum(folder, 0)
    return (folder / FILE).read_bytes()


def spectrum_version(folder):
    """Of the card, which is written last."""
    if (folder / FILE).exists():
        load_state(folder / FILE, KIND)
        assert (folder / FILE).read_bytes() == spectrum()
    return 0 if (folder / "natural_spectrum.md").exists() else None


@cache
def archive(version):
    path = Path(tempfile.mkdtemp(prefix="archive")) / "reference.zip"
    path.write_bytes(bytes([version]) * 30_000)
    return path


def write_put(folder, version):
    """The last step of the recipe ``reference``."""
    from vislens_interp.training.reference import save

    save(archive(version), folder / "reference")


def put_version(folder):
    from vislens_interp.backends.embedded import REFERENCE

    path = folder / REFERENCE
    if not path.exists():
        return None
    (same,) = [one for one in (0, 1) if archive(one).read_bytes() == path.read_bytes()]
    return same


def write_acceptance(folder, version):
    from vislens_interp.backends.diffusion.acceptance import Finding, write_report

    findings = [Finding("passed", f"check {version}", "found", "expected", "failure")] * 300
    backend = SimpleNamespace(device=torch.device("cpu"), generator=None)
    write_report(findings, backend, folder / "accept")


def acceptance_version(folder):
    """Of the table, which is written last."""
    path = folder / "accept/accept.md"
    if not path.exists():
        return None
    found = path.read_text(encoding="utf-8")
    json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    (same,) = [version for version in (0, 1) if found.count(f"check {version}") == 300]
    return same


RECIPE_WRITERS = {
    "training command": (write_command, command_version, True),
    "denoiser": (write_denoiser, denoiser_version, False),
    "samples": (write_samples, samples_version, False),
    "spectrum": (write_spectrum, spectrum_version, True),
    "reference set put": (write_put, put_version, False),
    "acceptance report": (write_acceptance, acceptance_version, False),
}
