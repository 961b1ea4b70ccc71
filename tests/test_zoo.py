import hashlib
import json
import shutil

import pytest
import torch
from torch import nn

from vislens_interp import zoo
from vislens_interp.preprocess import Preprocess, preprocess_for


def test_convnet_is_the_papers():
    model = zoo.ConvNet()
    shapes = [tuple(m.weight.shape) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert shapes == [(32, 3, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3), (256, 2048), (10, 256)]
    assert [name for name, _ in model.named_children()] == ["conv1", "conv2", "conv3", "flatten", "fc1", "fc2"]
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_it_loads_ready_and_leaves_the_generator():
    before = torch.get_rng_state()
    model = zoo.load("cifar10_convnet")
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert isinstance(model.preprocess, Preprocess)
    assert preprocess_for(model) is model.preprocess
    assert model.preprocess.describe() == "resize to 32, mean (0.5, 0.5, 0.5), std (0.5, 0.5, 0.5)"
    again = zoo.load("cifar10_convnet")
    images = model.preprocess(torch.rand(2, 3, 32, 32))
    assert torch.equal(model(images), again(images))
    assert again is not model


def test_every_name_loads():
    for name in zoo.available():
        assert isinstance(zoo.load(name), nn.Module)


def test_unknown_name():
    with pytest.raises(KeyError, match=r"name='resnet50' is not in the zoo; expected one of \['cifar10_convnet'"):
        zoo.load("resnet50")
    with pytest.raises(KeyError, match="expected one of .* Closest: squeezenet1_0"):
        zoo.load("squeezenet")


@pytest.fixture
def installation(tmp_path, monkeypatch):
    """A copy of the shipped ConvNet, to be damaged."""
    for name in ("checksums.json", "cifar10_convnet.safetensors"):
        shutil.copy(zoo.WEIGHTS / name, tmp_path / name)
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    zoo.weights.cache_clear()
    yield tmp_path
    zoo.weights.cache_clear()


def test_a_whole_copy_loads(installation):
    assert zoo.weights("cifar10_convnet.safetensors").parent == installation
    zoo.load("cifar10_convnet")


def test_damaged_weights(installation):
    path = installation / "cifar10_convnet.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"is damaged: its SHA-256 starts .*Reinstall vislens_interp"):
        zoo.load("cifar10_convnet")


def test_missing_weights(installation):
    (installation / "cifar10_convnet.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"'cifar10_convnet.safetensors' is not in this .*reinstall"):
        zoo.load("cifar10_convnet")
    with pytest.raises(FileNotFoundError, match="'unheard_of.safetensors' does not come with this version.*Train it"):
        zoo.weights("unheard_of.safetensors")


def test_every_shipped_file_is_whole():
    names = json.loads((zoo.WEIGHTS / "checksums.json").read_text(encoding="utf-8"))
    assert "cifar10_convnet.safetensors" in names
    for name in names:
        assert zoo.weights(name).is_file()
    data = {path.relative_to(zoo.WEIGHTS).as_posix() for path in zoo.WEIGHTS.rglob("*") if path.is_file()}
    assert {
        name for name in data if not name.startswith("LICENSE") and not name.endswith((".md", "checksums.json"))
    } == set(names)


def test_vit_tiny64(installation):
    """As its recipe writes it; the number of classes is the file's."""
    from vislens_interp.training import vit_tiny64

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trained = vit_tiny64.build(7).eval()
    path = vit_tiny64.save(trained, installation / "vit_tiny64")
    sums = json.loads((installation / "checksums.json").read_text())
    (installation / "checksums.json").write_text(
        json.dumps(sums | {path.name: hashlib.sha256(path.read_bytes()).hexdigest()})
    )
    assert zoo.available() == [
        "cifar10_convnet",
        "efficientnet_lite0",
        "efficientnet_lite2",
        "squeezenet1_0",
        "vit_tiny64",
    ]
    before = torch.get_rng_state()
    model = zoo.load("vit_tiny64")
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = trained(vit_tiny64.standardisation(trained)(images))
        torch.testing.assert_close(model(model.preprocess(images)), expected, atol=0.02, rtol=0)
    assert model.preprocess.size == 64
