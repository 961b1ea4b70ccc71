import json

import numpy as np
import pytest
import torch
from interruptions import Clock, same
from PIL import Image
from safetensors.torch import load_file

from vislens_interp.backends.refiner import DDPMRefiner
from vislens_interp.training import cifar10_convnet, cifar10_cvae, cifar10_ddpm, loop
from vislens_interp.training.__main__ import RECIPES, main
from vislens_interp.zoo.convnet import ConvNet

STEPS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An ImageFolder of noise: smaller than one batch, and not of the size that the recipes want."""
    root = tmp_path_factory.mktemp("noise")
    noise = np.random.default_rng(0)
    for split, count in (("train", 5), ("test", 3)):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for index in range(count):
                pixels = noise.integers(0, 256, (36, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{index}.png")
    return root


def train(name, folder, out, **options):
    recipe = {"cifar10_convnet": cifar10_convnet, "cifar10_cvae": cifar10_cvae, "cifar10_ddpm": cifar10_ddpm}[name]
    torch.manual_seed(torch.seed() % 2**31)  # a new process starts from any state
    return recipe.run(folder, out, batch_size=6, steps=STEPS, **options)


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("cifar10")])
def test_resumed_run_equals_an_uninterrupted_one(name, folder, tmp_path, monkeypatch):
    whole, progress = train(name, folder, tmp_path / "whole")
    assert progress.step == STEPS
    assert all(np.isfinite(value) for value in progress.history[-1].values())
    assert not whole.training

    with monkeypatch.context() as killed:  # in the second step, after its update and before its checkpoint
        killed.setattr(loop, "time", Clock(interrupt_at=5))
        with pytest.raises(KeyboardInterrupt):
            train(name, folder, tmp_path / "parts")
    parts, progress = train(name, folder, tmp_path / "parts")
    assert progress.step == STEPS
    assert same(whole, parts)


def test_minutes_end_a_call_and_not_the_run(folder, tmp_path, monkeypatch):
    with monkeypatch.context() as short:
        short.setattr(loop, "time", Clock())
        _, progress = train("cifar10_convnet", folder, tmp_path / "parts", minutes=3)
    assert progress.step == 1
    parts, progress = train("cifar10_convnet", folder, tmp_path / "parts", minutes=3)
    assert progress.step == STEPS
    whole, _ = train("cifar10_convnet", folder, tmp_path / "whole")
    assert same(whole, parts)
    assert not same(whole, train("cifar10_convnet", folder, tmp_path / "other", seed=1)[0])


def test_command_writes_weights_and_history(folder, tmp_path, capsys):
    arguments = ["cifar10_convnet", "--data", str(folder), "--out", str(tmp_path), "--steps", "2", "--grayscale"]
    assert main(arguments) == 0
    assert "cifar10_convnet.safetensors: 2 steps" in capsys.readouterr().out
    model = ConvNet(num_classes=2)
    model.load_state_dict(load_file(tmp_path / "cifar10_convnet.safetensors"))
    record = json.loads((tmp_path / "cifar10_convnet.json").read_text())
    assert record["step"] == 2
    assert record["options"]["grayscale"]
    assert 0 <= record["history"][-1]["test_accuracy"] <= 1

    written = (tmp_path / "cifar10_convnet.safetensors").read_bytes()
    assert main(arguments) == 0  # done already: nothing is trained, the same weights are written
    assert (tmp_path / "cifar10_convnet.safetensors").read_bytes() == written
    capsys.readouterr()
    assert main([*arguments, "--seed", "1"]) == 1  # another run, which must not be taken for this one
    assert "belongs to a run with {'seed': 0" in capsys.readouterr().err


def test_trained_ddpm_refines(folder, tmp_path):
    model, _ = train("cifar10_ddpm", folder, tmp_path / "run")
    assert cifar10_ddpm.save(model, tmp_path / "ddpm") == tmp_path / "ddpm"
    assert sorted(path.name for path in (tmp_path / "ddpm").iterdir()) == ["scheduler", "unet"]
    weights = load_file(tmp_path / "ddpm" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    assert next(model.parameters()).dtype == torch.float32
    cifar10_ddpm.save(model, tmp_path / "ddpm")  # over the old one

    refiner = DDPMRefiner(tmp_path / "ddpm", steps=4)
    images = torch.rand(2, 3, 32, 32)
    refined = refiner(images, strength=0.5, seeds=[0, 1])
    assert refined.shape == images.shape
    assert torch.isfinite(refined).all()
    assert torch.equal(refiner(images, strength=0, seeds=[0, 1]), images)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["cifar100"], 2, r"error: recipe 'cifar100' is unknown; expected one of cifar10_convnet, cifar10_cvae, "),
        (["cifar10_convnet", "--steps", "0"], 2, "error: --steps 0 must be at least 1."),
        (["cifar10_convnet", "--device", "cuda:99"], 2, "error: device='cuda:99' is not available: PyTorch "),
        (["cifar10_cvae", "--grayscale"], 2, "error: --grayscale: recipe 'cifar10_cvae' has colour images only."),
        (["decoder", "--minutes", "5"], 2, "error: --minutes 5: recipe 'decoder' keeps no checkpoint. Leave it out."),
        (["cifar10_cvae", "--terms", "CC0"], 2, "error: --terms: recipe 'cifar10_cvae' writes no model card."),
        (["words", "--seed", "0"], 2, "error: --seed 0: recipe 'words' draws nothing at random. Leave it out."),
        (["decoder", "--shard-mib", "16"], 2, "error: --shard-mib 16: recipe 'decoder' keeps no checkpoint."),
        (
            ["cifar10_cvae", "--shard-half"],
            2,
            "error: --shard-half is of the parts that --shard-mib makes; expected both.",
        ),
        (["cifar10_convnet"], 1, "no such zip or folder of images."),
    ],
)
def test_errors_in_one_line(arguments, code, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = [*arguments, "--data", str(tmp_path / "nothing"), "--out", str(tmp_path / "out")]
    try:
        found = main(arguments)
    except SystemExit as stop:
        found = stop.code
    assert found == code
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
