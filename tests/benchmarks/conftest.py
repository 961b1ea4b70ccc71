"""The tests of benchmarks import the folder `benchmarks`, which is no part of the installed package."""

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file


@pytest.fixture(scope="session")
def write_zip():
    """Writes coarse pictures (N, h, w, 3) uint8, enlarged, as the files of a zip; pictures of noise by default."""

    def write(path, side, coarse=None, name="image{:04d}.png"):
        if coarse is None:
            coarse = np.random.default_rng(0).integers(0, 256, (44, 7, 7, 3), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for row, picture in enumerate(coarse):
                file = io.BytesIO()
                Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC).save(file, "PNG")
                archive.writestr(name.format(row), file.getvalue())

    return write


@pytest.fixture(scope="session")
def places(tmp_path_factory, write_zip):
    """Small folders of images and of untrained judges, and an empty one for networks that were trained."""
    data, weights = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("weights")
    import torchvision

    from benchmarks.common.judges import CifarResNet

    write_zip(data / "photos" / "imagenet500.zip", 224, name="{:03d}_0.png")
    (data / "networks").mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, network in (
            ("imagenet_squeezenet1_0", torchvision.models.squeezenet1_0()),
            ("cifar10_resnet20", CifarResNet()),
        ):
            save_file(network.state_dict(), data / "networks" / f"{name}.safetensors")
    return data, weights
