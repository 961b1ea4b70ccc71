"""The tests of benchmarks import the folder `benchmarks`, which is no part of the installed package."""

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file


@pytest.fixture(scope="session")
def places(tmp_path_factory):
    """Small folders of images and of untrained judges, and an empty one for networks that were trained."""
    data, weights = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("weights")
    draw = np.random.default_rng(0)
    import torchvision

    from benchmarks.common.judges import CifarResNet

    for name, count in (("train_0", 120), ("train_1", 120), ("val", 96)):
        (data / "tiny_imagenet").mkdir(exist_ok=True)
        with zipfile.ZipFile(data / "tiny_imagenet" / f"{name}.zip", "w") as archive:
            for index in range(count):
                coarse = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                file = data / "picture.png"
                Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(file)
                archive.write(file, f"{name}/class{index % 3}/{index:03d}.png")
    (data / "photos").mkdir()
    with zipfile.ZipFile(data / "photos" / "imagenet500.zip", "w") as archive:
        for index in range(60):
            coarse = draw.integers(0, 256, (7, 7, 3), dtype=np.uint8)
            file = data / "picture.png"
            Image.fromarray(coarse).resize((224, 224), Image.Resampling.BICUBIC).save(file)
            archive.write(file, f"{index:03d}_0.png")
    (data / "networks").mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, network in (
            ("imagenet_squeezenet1_0", torchvision.models.squeezenet1_0()),
            ("cifar10_resnet20", CifarResNet()),
        ):
            save_file(network.state_dict(), data / "networks" / f"{name}.safetensors")
    return data, weights
