"""The tests of benchmarks import the folder `benchmarks`, which is no part of the installed package."""

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[2]))


@pytest.fixture(scope="session")
def places(tmp_path_factory):
    """Small folders of images, of untrained judges, and of what the recipes save, untrained too."""
    data, weights = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("weights")
    draw = np.random.default_rng(0)
    import torchvision

    from benchmarks.common.judges import CifarResNet
    from vislens_interp.training import autoencoder64, embedder64, generator64
    from vislens_interp.training.data import read_images
    from vislens_interp.zoo.embedder import Embedder64

    autoencoder = autoencoder64.AUTOENCODER | {"block_out_channels": (16, 16, 16, 16)}
    unet = generator64.UNET | {
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "norm_num_groups": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
    }
    for name, count in (("train_0", 120), ("train_1", 120), ("val", 96)):
        (data / "tiny_imagenet").mkdir(exist_ok=True)
        with zipfile.ZipFile(data / "tiny_imagenet" / f"{name}.zip", "w") as archive:
            for index in range(count):
                coarse = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                file = data / "picture.png"
                Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(file)
                archive.write(file, f"{name}/class{index % 3}/{index:03d}.png")
    (data / "networks").mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, network in (
            ("imagenet_squeezenet1_0", torchvision.models.squeezenet1_0()),
            ("cifar10_resnet20", CifarResNet()),
        ):
            save_file(network.state_dict(), data / "networks" / f"{name}.safetensors")
        images = torch.cat([read_images(data / "tiny_imagenet" / f"train_{part}.zip", 64)[0] for part in (0, 1)])
        embedder64.save(embedder64.settle(Embedder64(), images), weights / "embedder64")
        model = generator64.Generator64(generator64.build(unet), autoencoder64.build(autoencoder))
        generator64.save(model.eval(), weights / "generator64")
    return data, weights
