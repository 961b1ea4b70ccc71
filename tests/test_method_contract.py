"""What every method owes: ours and the baselines, on one small backend."""

import pytest
import torch
from torch import nn

from vislens_interp.backends.base import Defaults
from vislens_interp.baselines.centroids import Centroids
from vislens_interp.baselines.controls import Shuffled, Unedited
from vislens_interp.baselines.difference_of_means import DifferenceOfMeans
from vislens_interp.baselines.natural_images import NaturalImages
from vislens_interp.baselines.ridge_direction import RidgeDirection
from vislens_interp.baselines.ridge_pattern import RidgePattern
from vislens_interp.images import Preprocess, check_images
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.method import LandscapeMethod
from vislens_interp.targets.target import LayerTarget

SIZE, COUNT = 6, 240

METHODS = {
    "edit": lambda: LandscapeMethod("edit", shuffles=0, epochs=2, w_kld=0.03, block_dim=1),
    "edit, exact fit": lambda: LandscapeMethod("edit", shuffles=0, solver="alternating", organise=False, w_kld=1.0),
    "optimize": lambda: LandscapeMethod(
        "optimize", shuffles=0, epochs=1, w_kld=0.03, block_dim=1, optimize_steps=9, optimize_chunk=4, optimize_lr=0.1
    ),
    "ridge, closed form": lambda: RidgeDirection("closed_form", penalty=0.1),
    "edit, residual": lambda: LandscapeMethod("edit", shuffles=0, epochs=2, w_kld=0.03, block_dim=1, residual=True),
    "edit, fading": lambda: LandscapeMethod(
        "edit", shuffles=0, solver="alternating", organise=False, w_kld=1.0, residual="fade"
    ),
    "ridge, cross-validated": lambda: RidgeDirection("ridge_cv"),
    "ridge by angle": lambda: RidgeDirection("ridge_cv", angle=30.0),
    "ridge pattern": lambda: RidgePattern(angle=30.0),
    "difference of means": lambda: DifferenceOfMeans(),
    "twin": lambda: Centroids(),
    "twin, slerp": lambda: Centroids(interpolation="slerp", angle=20.0),
    "natural images": lambda: NaturalImages(),
    "shuffled": lambda: Shuffled(DifferenceOfMeans()),
    "unedited": lambda: Unedited(),
}


class Flat:
    """x is the picture itself, around grey; decoding adds noise of each image's seed, as much as the strength says."""

    name, size, shape = "flat", SIZE, (3 * SIZE * SIZE,)
    device, differentiable = torch.device("cpu"), True
    defaults = Defaults(strength=0.05)

    def encode(self, images):
        return images.flatten(1) - 0.5

    def render(self, x):
        return (x + 0.5).unflatten(1, (3, SIZE, SIZE)).clamp(0, 1)

    def decode(self, x, *, reference, strength, seeds):
        noise = [torch.randn(self.shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return self.render(x + 0.01 * strength * torch.stack(noise))

    def reference(self):
        return None

    def vae(self):
        """Trained in closed form: the principal components of pictures like those of the tests."""
        x = self.encode(pictures(500, seed=9))
        *_, components = torch.linalg.svd(x - x.mean(0), full_matrices=False)
        with torch.random.fork_rng(devices=[]):
            vae = EmbeddingVAE(*self.shape, latent_dim=12)
        with torch.no_grad():
            vae.fc_encode.weight.copy_(torch.cat([components[:12], torch.zeros(12, *self.shape)]))
            vae.fc_encode.bias.copy_(torch.cat([-components[:12] @ x.mean(0), torch.full((12,), -4.0)]))
            vae.fc_decode.weight.copy_(components[:12].T)
            vae.fc_decode.bias.copy_(x.mean(0))
        return vae

    def perception(self):
        return None


def pictures(count=COUNT, seed=0):
    coarse = torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=SIZE, mode="bilinear")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Dropout(0.5), nn.Conv2d(4, 3, 3, padding=1))
    model.__dict__["preprocess"] = Preprocess(SIZE, [0.5], [0.5])  # carried, no layer of the Sequential
    return model.train()


@pytest.fixture(scope="module", params=METHODS)
def fitted(request, network):
    torch.manual_seed(3)
    before = torch.get_rng_state(), {name: value.clone() for name, value in network.state_dict().items()}
    method = METHODS[request.param]()
    assert method.fit(LayerTarget(network, "3", [0, 2]), Flat(), pictures()) is method
    assert torch.equal(torch.get_rng_state(), before[0])
    assert network.training
    assert all(torch.equal(value, before[1][name]) for name, value in network.state_dict().items())
    return method, METHODS[request.param]


def test_pixels_come_out(fitted):
    made = check_images(fitted[0].generate(pictures(5, seed=1), {0: "increase"}, seeds=[1] * 5))
    assert made.shape == (5, 3, SIZE, SIZE)
    assert not made.requires_grad


def test_the_two_directions_part(fitted, network):
    method, _ = fitted
    if isinstance(method, (Shuffled, Unedited)):
        pytest.skip("a control knows nothing of the unit")
    images, target = pictures(24, seed=1), LayerTarget(network, "3", [0, 2])
    for unit in (0, 1):
        read = {
            way: target.responses(method.generate(images, {unit: way}, seeds=[1] * 24))[:, unit].mean().item()
            for way in ("increase", "decrease")
        }
        assert read["increase"] > read["decrease"]


def test_both_units_at_once(fitted):
    method, _ = fitted
    images = pictures(4, seed=1)
    both, one = (
        method.generate(images, wanted, seeds=[1] * 4) for wanted in ({0: "increase", 1: "decrease"}, {0: "increase"})
    )
    assert (both - one).abs().max() > 1e-4 or isinstance(method, Unedited)


def test_no_direction_is_a_control_that_ignores_alpha(fitted):
    method, _ = fitted
    images = pictures(4, seed=1)
    control = method.generate(images, {}, seeds=[1] * 4)
    assert torch.equal(control, method.generate(images, {}, seeds=[1] * 4))
    assert torch.equal(control, method.generate(images, {}, seeds=[1] * 4, alpha=0.3))


def test_repeatable_and_seeded(fitted):
    method, _ = fitted
    images = pictures(4, seed=1)
    first = method.generate(images, {0: "decrease"}, seeds=[1, 2, 3, 4])
    assert torch.equal(first, method.generate(images, {0: "decrease"}, seeds=[1, 2, 3, 4]))
    other = method.generate(images, {0: "decrease"}, seeds=[9, 2, 3, 4])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(first[1:], other[1:])


def test_an_image_does_not_depend_on_its_batch(fitted):
    method, _ = fitted
    images = pictures(6, seed=1)
    together = method.generate(images, {0: "increase"}, seeds=list(range(6)))
    alone = torch.cat([method.generate(images[[row]], {0: "increase"}, seeds=[row]) for row in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_fitting_again_gives_the_same(fitted, network):
    method, build = fitted
    again = build().fit(LayerTarget(network, "3", [0, 2]), Flat(), pictures())
    images = pictures(3, seed=1)
    first, second = (one.generate(images, {1: "increase"}, seeds=[1] * 3) for one in (method, again))
    assert torch.equal(first, second)


def test_measured_responses(fitted, network):
    _, build = fitted
    target, images = LayerTarget(network, "3", [0, 2]), pictures()
    brightness = torch.stack([images.mean((1, 2, 3)), images[:, 0].mean((1, 2))], 1)
    method = build()
    if getattr(method, "technique", "") == "optimize":
        pytest.skip("optimisation follows the target's gradient, whatever was measured")
    method.fit(target, Flat(), images, brightness)
    with pytest.raises(ValueError, match=r"responses has shape \(240, 1\); expected \(240, 2\): a row for each image"):
        build().fit(target, Flat(), images, brightness[:, :1])
    if isinstance(method, (Shuffled, Unedited)):
        return
    up, down = (
        method.generate(pictures(20, seed=1), {0: way}, seeds=[1] * 20).mean().item()
        for way in ("increase", "decrease")
    )
    assert up > down
