"""What every method owes: ours and the baselines, on one small backend, or on a tiny diffusion model."""

import pytest
import torch
from torch import nn

from vislens_interp.backends.embedding import EmbeddingBackend
from vislens_interp.config import Config
from vislens_interp.images import check_images
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.methods import METHODS as REGISTERED
from vislens_interp.methods.activation_maximization import ActivationMaximization
from vislens_interp.methods.caricature import Caricature
from vislens_interp.methods.cma_es import EmbeddingSearch
from vislens_interp.methods.controls import Noise, Shuffled, Unedited
from vislens_interp.methods.deepdream import DeepDream
from vislens_interp.methods.directions import Centroids, DifferenceOfMeans, RidgeDirection, RidgePattern
from vislens_interp.methods.feature_accentuation import FeatureAccentuation
from vislens_interp.methods.guided_diffusion import GuidedDiffusion
from vislens_interp.methods.landscape import LandscapeEdit, LandscapeMethod
from vislens_interp.methods.maco import MACO
from vislens_interp.methods.natural_images import NaturalImages, RandomImages
from vislens_interp.methods.optimization import LandscapeOptimization
from vislens_interp.methods.prototypes import EditedPrototypes, Prototypes
from vislens_interp.methods.standard_vae import StandardVAE
from vislens_interp.preprocess import Preprocess
from vislens_interp.targets.callable import CallableTarget
from vislens_interp.targets.target import LayerTarget

SIZE, COUNT = 6, 240

METHODS = {
    "edit": lambda: LandscapeEdit(shuffles=0, epochs=2, w_kld=0.03, block_dim=1),
    "edit, exact fit": lambda: LandscapeEdit(shuffles=0, solver="alternating", closed_form_init=False, w_kld=1.0),
    "optimize": lambda: LandscapeOptimization(
        shuffles=0, epochs=1, w_kld=0.03, block_dim=1, optimize={"steps": 9, "chunk": 4, "lr": 0.1}
    ),
    "ridge, closed form": lambda: RidgeDirection("closed_form", penalty=0.1),
    "edit, residual": lambda: LandscapeEdit(shuffles=0, epochs=2, w_kld=0.03, block_dim=1, residual=True),
    "edit, fading": lambda: LandscapeEdit(
        shuffles=0, solver="alternating", closed_form_init=False, w_kld=1.0, residual="fade"
    ),
    "edit, near": lambda: LandscapeEdit(
        shuffles=0, epochs=1, w_kld=0.03, block_dim=1, goal="local_mean", residual="fade"
    ),
    "edit, uphill": lambda: LandscapeEdit(shuffles=0, epochs=1, w_kld=0.03, block_dim=1, goal="surrogate_ascent"),
    "ridge, cross-validated": lambda: RidgeDirection("ridge_cv"),
    "ridge by angle": lambda: RidgeDirection("ridge_cv", angle=30.0),
    "ridge pattern": lambda: RidgePattern(angle=30.0),
    "difference of means": lambda: DifferenceOfMeans(),
    "twin": lambda: Centroids(),
    "twin, slerp": lambda: Centroids(interpolation="slerp", angle=20.0),
    "natural images": lambda: NaturalImages(),
    "prototypes": lambda: Prototypes(5),
    "edited prototypes": lambda: EditedPrototypes(DifferenceOfMeans()),
    "shuffled": lambda: Shuffled(DifferenceOfMeans()),
    "unedited": lambda: Unedited(),
    "random images": lambda: RandomImages(),
    "noise": lambda: Noise(),
    "standard VAE": lambda: StandardVAE(epochs=1, w_kld=0.03, optimize={"steps": 9, "chunk": 4, "lr": 0.1}),
    "CMA-ES": lambda: EmbeddingSearch(generations=3, components=8),
    "activation maximisation": lambda: ActivationMaximization(steps=6, lr=0.1, chunk=4),
    "activation maximisation, pixels": lambda: ActivationMaximization("pixel", steps=6, lr=0.2, chunk=4),
    "caricature": lambda: Caricature(["0"], steps=3, lr=0.1, chunk=4),
    "DeepDream": lambda: DeepDream(iterations=3, octaves=2, step_size=0.02, chunk=4),
    "MACO": lambda: MACO(steps=8, crops=3, lr=0.3, chunk=4),
    "accentuation": lambda: FeatureAccentuation(steps=5, crops=2, box=(0.7, 1.0), regularization=0.1, chunk=4),
    "accentuation, free": lambda: FeatureAccentuation(steps=4, crops=2, box=(0.7, 1.0), regularization=0, chunk=4),
    "guided diffusion": lambda: GuidedDiffusion(steps=2, scale=5.0, condition="image"),
}
CONTROLS = (Shuffled, Unedited, RandomImages, Noise, Caricature)
"""They know nothing of the unit."""
CLIMBERS = (ActivationMaximization, DeepDream, MACO, FeatureAccentuation, GuidedDiffusion, LandscapeOptimization)
"""They follow the target's gradient, whatever was measured."""


class Flat:
    """x is the picture itself, around grey; decoding adds noise of each image's seed, as much as the strength says."""

    name, size, shape = "flat", SIZE, (3 * SIZE * SIZE,)
    device, differentiable = torch.device("cpu"), True
    defaults = Config.of(strength=0.05)

    def encode(self, images):
        return images.flatten(1) - 0.5

    def render(self, x):
        return (x + 0.5).unflatten(1, (3, SIZE, SIZE)).clamp(0, 1)

    def decode(self, x, *, init_image, strength, seeds):
        noise = [torch.randn(self.shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return self.render(x + 0.01 * strength * torch.stack(noise))

    def reference_images(self):
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

    def feature_extractor(self):
        return None


def pictures(count=COUNT, seed=0):
    coarse = torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=SIZE, mode="bilinear")


class Pooled:
    """Embeds a picture as its colours on a grid of 2 x 2, twice."""

    dim, size, device = 24, 8, torch.device("cpu")

    def __call__(self, images):
        return (nn.functional.adaptive_avg_pool2d(images, 2) - 0.5).flatten(1).repeat(1, 2)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Dropout(0.5), nn.Conv2d(4, 3, 3, padding=1))
    model.__dict__["preprocess"] = Preprocess(SIZE, [0.5], [0.5])  # carried, no layer of the Sequential
    return model.train()


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory):
    """A tiny Stable Diffusion without text, untrained, at 16 px."""
    from checkpoints import adapter_state, write_stable_diffusion

    from vislens_interp.backends.diffusion.generator import StableDiffusionGenerator

    folder = tmp_path_factory.mktemp("diffusion")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        adapter = adapter_state(write_stable_diffusion(folder, text=False), Pooled.dim)
    generator = StableDiffusionGenerator.load(
        folder, adapter, prompt=None, guidance_scale=1.0, num_inference_steps=4, size=16, batch_size=6
    )
    return EmbeddingBackend(Pooled(), generator, name="diffusion")


@pytest.fixture(scope="module", params=METHODS)
def setting(request):
    """How a method is built, and the backend that it works on."""
    name = request.param
    return METHODS[name], request.getfixturevalue("diffusion") if "diffusion" in name else Flat()


@pytest.fixture(scope="module")
def build(setting):
    return setting[0]


@pytest.fixture(scope="module")
def backend(setting):
    return setting[1]


@pytest.fixture(scope="module")
def method(build, backend, network):
    """Fitted on both units, without a trace in the network or the random state."""
    torch.manual_seed(3)
    before = snapshot(network)
    made = build()
    assert made.fit(LayerTarget(network, "3", [0, 2]), backend, pictures()) is made
    assert_untouched(network, before)
    return made


def snapshot(network):
    return torch.get_rng_state(), {name: value.clone() for name, value in network.state_dict().items()}


def assert_untouched(network, before):
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(torch.equal(value, before[1][name]) for name, value in network.state_dict().items())
    for module in network.modules():
        assert module.training
        assert [*module._forward_hooks, *module._forward_pre_hooks, *module._backward_hooks] == []
    for weight in network.parameters():
        assert weight.requires_grad
        assert weight.grad is None


def test_every_registered_method_is_here():
    made = {type(build()) for build in METHODS.values()}
    assert {type(entry.load()(**entry.preset)) for entry in REGISTERED.values()} == made


def test_pixels_come_out(method, backend, network):
    before = snapshot(network)
    made = check_images(method.generate(pictures(5, seed=1), {0: "increase"}, seeds=[1] * 5).images)
    assert made.shape == (5, 3, backend.size, backend.size)
    assert made.dtype == torch.float32
    assert not made.requires_grad
    assert_untouched(network, before)


def test_its_cost_is_counted(method):
    cost = method.generate(pictures(2, seed=1), {0: "increase"}, seeds=[1] * 2).cost
    assert cost.seconds > 0
    climbs = isinstance(method, CLIMBERS)
    assert (cost.backward > 0) == climbs
    assert cost.forward >= cost.backward
    assert (cost.forward > 0) == (climbs or isinstance(method, EmbeddingSearch))


def test_the_two_directions_part(method, network):
    if isinstance(method, CONTROLS):
        pytest.skip("a control knows nothing of the unit")
    images, target = pictures(24, seed=1), LayerTarget(network, "3", [0, 2])
    for unit in (0, 1):
        read = {
            way: target.responses(method.generate(images, {unit: way}, seeds=[1] * 24).images)[:, unit].mean().item()
            for way in ("increase", "decrease")
        }
        assert read["increase"] > read["decrease"]


def test_a_linear_unit_goes_both_ways(build, backend):
    """A direction is a sign: up is above, and down below, what no direction gives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 1))
    coarse = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():  # smooth, as what these pictures can show
        linear[1].weight.copy_(nn.functional.interpolate(coarse, size=SIZE, mode="bilinear").flatten(1))
    target = LayerTarget(linear, "1", [0], preprocess=Preprocess(SIZE, [0.5], [0.5]))
    method = build().fit(target, backend, pictures())
    if isinstance(method, CONTROLS):
        pytest.skip("a control knows nothing of the unit")
    images = pictures(12, seed=1)
    directions = {"increase": {0: "increase"}, "none": {}, "decrease": {0: "decrease"}}
    read = {
        name: target.responses(method.generate(images, wanted, seeds=list(range(12))).images).mean().item()
        for name, wanted in directions.items()
    }
    assert read["decrease"] < read["none"] < read["increase"]


def test_both_units_at_once(method):
    images = pictures(4, seed=1)
    both, one = (
        method.generate(images, wanted, seeds=[1] * 4).images
        for wanted in ({0: "increase", 1: "decrease"}, {0: "increase"})
    )
    assert ((both - one).abs().max() > 1e-4) != isinstance(method, (Unedited, RandomImages, Noise, Caricature))


def test_no_direction_is_a_control_that_ignores_alpha(method):
    images = pictures(4, seed=1)
    control = method.generate(images, {}, seeds=[1] * 4).images
    assert torch.equal(control, method.generate(images, {}, seeds=[1] * 4).images)
    if method.uses_alpha:
        assert torch.equal(control, method.generate(images, {}, seeds=[1] * 4, alpha=0.3).images)
        assert method.generate(images, {}, seeds=[1] * 4, alpha=0.3).settings_in_force["alpha"] == 0.0


def test_only_what_has_an_effect_is_taken_and_reported(method):
    images, seeds = pictures(2, seed=1), [1] * 2
    own = method.generate(images, {0: "increase"}, seeds=seeds).settings_in_force
    for argument in ("alpha", "strength"):
        if getattr(method, f"uses_{argument}"):
            given = method.generate(images, {0: "increase"}, seeds=seeds, **{argument: 0.25}).settings_in_force
            assert given == {**own, argument: 0.25}
        else:
            assert own[argument] is None
            with pytest.raises(ValueError, match=f"{argument}=0.25 has no effect on method"):
                method.generate(images, {0: "increase"}, seeds=seeds, **{argument: 0.25})
    with pytest.raises(ValueError, match="seeds has 1 entries for 2 images; expected one an image"):
        method.generate(images, {}, seeds=[1])


def test_repeatable_and_seeded(method):
    images = pictures(4, seed=1)
    first = method.generate(images, {0: "decrease"}, seeds=[1, 2, 3, 4]).images
    assert torch.equal(first, method.generate(images, {0: "decrease"}, seeds=[1, 2, 3, 4]).images)
    other = method.generate(images, {0: "decrease"}, seeds=[9, 2, 3, 4]).images
    assert not torch.equal(first[0], other[0])
    assert torch.equal(first[1:], other[1:])


def test_an_image_does_not_depend_on_its_batch(method):
    images = pictures(6, seed=1)
    together = method.generate(images, {0: "increase"}, seeds=list(range(6))).images
    alone = torch.cat([method.generate(images[[row]], {0: "increase"}, seeds=[row]).images for row in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_fitting_again_gives_the_same(method, build, backend, network):
    again = build().fit(LayerTarget(network, "3", [0, 2]), backend, pictures())
    images = pictures(3, seed=1)
    first, second = (one.generate(images, {1: "increase"}, seeds=[1] * 3).images for one in (method, again))
    assert torch.equal(first, second)


def test_measured_responses(build, backend, network):
    target, images = LayerTarget(network, "3", [0, 2]), pictures()
    brightness = torch.stack([images.mean((1, 2, 3)), images[:, 0].mean((1, 2))], 1)
    method = build()
    with pytest.raises(ValueError, match=r"responses has shape \(240, 1\); expected \(240, 2\): a row for each image"):
        build().fit(target, backend, images, brightness[:, :1])
    if isinstance(method, (*CLIMBERS, EmbeddingSearch)):
        pytest.skip("it asks the target, whatever was measured")
    method.fit(target, backend, images, brightness)
    if isinstance(method, CONTROLS):
        return
    up, down = (
        method.generate(pictures(20, seed=1), {0: way}, seeds=[1] * 20).images.mean().item()
        for way in ("increase", "decrease")
    )
    assert up > down


def test_gradients_or_a_reason_before_any_work(build, backend):
    """A target without gradients is refused before it is asked for anything, or it does."""

    def answer(images):
        asked.append(len(images))
        return images.mean((1, 2, 3))

    asked, method = [], build()
    target = CallableTarget(answer)
    if isinstance(method, CLIMBERS):
        with pytest.raises(ValueError, match="needs gradients from the .* this target has none. Use "):
            method.fit(target, backend, pictures())
        assert asked == []
        return
    if isinstance(method, LandscapeMethod):
        pytest.skip("the landscape's own tests have targets without gradients")
    method.fit(target, backend, pictures())
    assert method.generate(pictures(2, seed=1), {0: "increase"}, seeds=[1, 2]).images.shape[0] == 2
