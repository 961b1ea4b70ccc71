"""What only a CUDA device can show: the same numbers there, and nothing left behind."""

import pytest
import torch

from vislens_interp import FeatureLens, zoo
from vislens_interp.backends.pixel import PixelBackend
from vislens_interp.methods import method_by_name
from vislens_interp.targets import LayerTarget

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:.*images to edit are among")]


def lens_on(device):
    lens = FeatureLens(zoo.load("cifar10_convnet").to(device), "conv3", unit=16, backend=PixelBackend(device))
    return lens.fit(epochs=1, shuffles=0)


def test_a_lens_on_the_gpu_agrees_with_the_cpu():
    pictures = PixelBackend().reference_images()[:8]
    results = {device: lens_on(device).visualize(pictures, seeds=1) for device in ("cpu", "cuda")}
    for key in ("unedited", "increase", "decrease"):
        here, there = (results[device].responses[key] for device in ("cpu", "cuda"))
        assert there.device.type == "cpu"
        # Convolutions round differently there (TF32), and a fit amplifies it.
        torch.testing.assert_close(here, there, atol=0.2 * results["cpu"].response_std, rtol=0)


def test_the_same_seed_gives_the_same_pictures_on_the_gpu():
    pictures = PixelBackend().reference_images()[:4]
    first, second = (lens_on("cuda").visualize(pictures, "increase").images["increase"] for _ in range(2))
    torch.testing.assert_close(first, second, atol=0, rtol=0)


def test_the_models_random_state_is_as_it_was():
    lens = lens_on("cuda")
    before = torch.cuda.get_rng_state()
    lens.visualize(PixelBackend().reference_images()[:2], strength=0)
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("activation_maximization", {"steps": 3}),
        ("pixel_maximization", {"steps": 3}),
        ("deepdream", {"iterations": 2, "octaves": 2}),
        ("maco", {"steps": 3, "crops": 2}),
        ("feature_accentuation", {"steps": 3, "crops": 2}),
        ("cma_es", {"generations": 2, "components": 8}),
        ("standard_vae", {"epochs": 1, "optimize": {"steps": 2}}),
        ("random_images", {}),
        ("prototypes", {}),
        ("edited_prototypes", {}),
        ("noise", {}),
    ],
)
def test_baselines_on_the_gpu_give_pictures_on_the_cpu(name, settings):
    backend = PixelBackend("cuda")
    target = LayerTarget(zoo.load("cifar10_convnet").to("cuda"), "conv3", [16])
    pictures = backend.reference_images()[:300]
    made = (
        method_by_name(name, **settings)
        .fit(target, backend, pictures)
        .generate(pictures[:2], {0: "increase"}, seeds=[1, 2])
        .images
    )
    assert made.device.type == "cpu"
    assert made.shape == (2, 3, 32, 32)


def test_a_fitted_lens_goes_to_the_gpu():
    model = zoo.load("cifar10_convnet")
    lens = FeatureLens(model, "conv3", unit=16, backend="cifar10").fit(epochs=1, shuffles=0)
    pictures = lens.backend.reference_images()[:4]
    here = lens.visualize(pictures, strength=0)
    with pytest.raises(ValueError, match="device='cuda', but the model is on 'cpu'; it is yours"):
        lens.to("cuda")
    model.to("cuda")
    there = lens.to("cuda").visualize(pictures, strength=0)
    assert lens.backend.device.type == "cuda"
    torch.testing.assert_close(here.images["increase"], there.images["increase"], atol=0.02, rtol=0)
    model.to("cpu")
    assert lens.to("cpu").backend.device.type == "cpu"
