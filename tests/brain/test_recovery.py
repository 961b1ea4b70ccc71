"""Truth that was planted in one network, seen through another: an encoder comes near the ceiling of the noise."""

import pytest
import torch

from vislens_interp import zoo
from vislens_interp.backends.base import get_backend
from vislens_interp.brain import Backbone, BrainDataset, InSilicoEncoder, split_images
from vislens_interp.brain.planted import plant

REGIONS = ("OFA", "FFA-1", "PPA")  # one feature, a mixture of two unlike ones, a spatial one
REPETITIONS = 3


def recordings(count):
    import vislens_interp.backends.pixel  # noqa: F401 (it registers its backend)

    images = get_backend("cifar10").reference_images()[:count]
    truth = plant(REGIONS, images, 1.0)
    noise = torch.randn(count, REPETITIONS, len(REGIONS), generator=torch.Generator().manual_seed(0))
    data = BrainDataset.from_arrays(images, truth.responses[:, None] + noise, targets=truth.targets)
    ceilings = {name: share**0.5 for name, share in truth.ceiling(REPETITIONS).items()}
    return data, ceilings


def test_ridge_recovers_what_is_linear_in_a_network():
    data, ceilings = recordings(1200)
    encoder = InSilicoEncoder(Backbone(zoo.load("cifar10_convnet"), grid=4)).fit(data)
    found = {item.target: item for item in encoder.predictivity_}
    for name, item in found.items():
        assert item.ceiling == pytest.approx(ceilings[name], abs=0.03)  # estimated from the repetitions
    assert found["OFA"].r > ceilings["OFA"] - 0.1
    assert found["PPA"].r > ceilings["PPA"] - 0.1
    assert found["FFA-1"].r > ceilings["FFA-1"] - 0.2  # whichever of two is stronger is no linear function


@pytest.mark.slow
def test_transformers_recover_the_mixture_too():
    data, ceilings = recordings(2000)
    held_out, rows = split_images(data, 0.2)
    settings = {"width": 32, "epochs": 25, "lr": 2e-3, "dropout": 0.1}
    encoder = InSilicoEncoder(Backbone(zoo.load("cifar10_convnet"), grid=4), "transformer", **settings)
    encoder.fit(data, rows=rows, held_out=held_out)
    for item in encoder.predictivity_:
        assert item.r > ceilings[item.target] - 0.1
