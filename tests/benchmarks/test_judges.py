import zipfile

import pytest
import torch
from torch.nn.functional import interpolate

from benchmarks.common.judges import CifarResNet, data_folder, load_judge, load_squeezenet
from vislens_interp.training.data import pixels, read_images


def test_shapes_and_size_of_a_resnet20():
    network = CifarResNet().eval()
    assert sum(p.numel() for p in network.parameters()) == 269_722  # He et al.'s 0.27 million
    assert network.features(torch.rand(5, 3, 32, 32)).shape == (5, 64)


def test_a_shortcut_takes_every_second_pixel_and_adds_zero_channels():
    block = CifarResNet().eval().layer2[0]
    torch.nn.init.zeros_(block.bn2.weight)  # what is left is the shortcut
    x = torch.rand(2, 16, 8, 8)
    y = block(x)
    assert y.shape == (2, 32, 4, 4)
    torch.testing.assert_close(y[:, 8:24], interpolate(x, scale_factor=0.5, mode="nearest"))
    assert y[:, :8].abs().sum() == y[:, 24:].abs().sum() == 0


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere' is no folder.*Pass --data DIR or set"):
        data_folder(tmp_path / "nowhere")


@pytest.mark.data
def test_accuracy_on_every_tenth_test_image(data):
    images, labels, _ = read_images(data / "cifar10" / "test.zip", 32)
    judge = load_judge(data)
    classes = judge.linear(judge.features(pixels(images[::10]))).argmax(1)  # in the alphabetical order of their names
    accuracy = (classes == labels[::10]).double().mean().item()
    assert accuracy == pytest.approx(0.81, abs=0.04)


@pytest.mark.data
def test_squeezenet_knows_a_few_photographs(data):
    photos = data / "photos" / "imagenet500.zip"
    images, _, _ = read_images(photos, 224)
    with zipfile.ZipFile(photos) as archive:
        names = sorted(archive.namelist())[:40]  # each starts with its class number
    numbers = torch.tensor([int(name.rpartition("/")[2][:4]) for name in names])
    network = load_squeezenet(data)
    with torch.no_grad():
        top5 = network(network.preprocess(pixels(images[:40]))).topk(5).indices
    assert (top5 == numbers[:, None]).any(1).double().mean() > 0.6  # 0.83 of all 500
