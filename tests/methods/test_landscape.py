import pytest
import torch
from torch import nn

from vislens_interp import FeatureLens
from vislens_interp.config import Config, FitConfig
from vislens_interp.images import resize
from vislens_interp.landscape.fit import split_rows
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.math import angle_between
from vislens_interp.methods.landscape import LandscapeEdit
from vislens_interp.methods.optimization import LandscapeOptimization
from vislens_interp.preprocess import Preprocess
from vislens_interp.targets.layer_features import LayerFeatures
from vislens_interp.targets.target import LayerTarget, Target


class SmallPixels:
    """Pixels of 8-pixel images as one long x, without refinement, reference set or network of its own."""

    name = "small"
    size = 8
    shape = (192,)
    device = torch.device("cpu")
    defaults = Config.of(
        fit={"epochs": 2, "lr": 1e-4, "w_kld": 0.01},
        prior={"block_dim": 1},
        optimize={"steps": 15, "lr": 0.05, "move": "all", "chunk": 4},
        shuffles=1,
    )

    def __init__(self, differentiable=True):
        self.differentiable = differentiable

    def encode(self, images):
        return resize(images, 8).flatten(1)

    def render(self, x):
        return x.unflatten(1, (3, 8, 8)).clamp(0, 1)

    def decode(self, x, *, init_image, strength, seeds):
        return self.render(x)

    def reference_images(self):
        return None

    def vae(self):
        """The first principal components of the pictures below."""
        x = gradients(500, seed=9).flatten(1)
        *_, components = torch.linalg.svd(x - x.mean(0), full_matrices=False)
        with torch.random.fork_rng(devices=[]):
            vae = EmbeddingVAE(192, 12)
        with torch.no_grad():
            vae.fc_encode.weight.copy_(torch.cat([components[:12], torch.zeros(12, 192)]))
            vae.fc_encode.bias.copy_(torch.cat([-components[:12] @ x.mean(0), torch.full((12,), -4.0)]))
            vae.fc_decode.weight.copy_(components[:12].T)
            vae.fc_decode.bias.copy_(x.mean(0))
        return vae

    def feature_extractor(self):
        return None


class Redness(Target):
    """A target without gradients: how red the images are, and how green."""

    names = ("red", "green")
    differentiable = False

    def __call__(self, images):
        with torch.no_grad():
            return images[:, :2].mean((2, 3)) - images[:, 1:3].mean((2, 3))


def gradients(count, seed=0):
    """Smooth pictures whose colours vary from one to the next."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 2, 2, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=8, mode="bilinear")


@pytest.fixture(scope="session")
def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 4, 3, padding=1))
    model.__dict__["preprocess"] = Preprocess(8, [0.5], [0.5])  # carried, no layer of the Sequential
    return model.eval()


@pytest.fixture(scope="session")
def target(network):
    return LayerTarget(network, "2", [1, 2])


@pytest.fixture(scope="session")
def fitted(target):
    return LandscapeEdit(w_consistency=1.0).fit(target, SmallPixels(), gradients(240))


def test_edit_moves_the_response_both_ways(fitted, target):
    images = gradients(20, seed=1)
    made = {
        way: fitted.generate(images, {} if way == "none" else {0: way}, seeds=[0] * 20).images
        for way in ("none", "increase", "decrease")
    }
    change = {way: target.responses(made[way])[:, 0] - target.responses(made["none"])[:, 0] for way in made}
    assert (change["increase"] > 0).float().mean() > 0.8
    assert (change["decrease"] < 0).float().mean() > 0.8
    assert not fitted.evidence_["1"].reasons or fitted.evidence_["1"].correlation > 0.3


def test_optimisation_moves_it_too_and_keeps_its_curves(fitted, target):
    images = gradients(5, seed=1)
    method = LandscapeOptimization().bind(target, fitted.backend)
    method.landscape_ = fitted.landscape_
    _, z = method.latents(images, {0: "decrease"})
    assert method.optimized_.responses.shape == (16, 5)
    assert torch.equal(method.optimized_.latents, z)
    assert (method.optimized_.responses[-1] > method.optimized_.responses[0]).all()  # signed: up is what is wanted


def test_an_optimisation_can_hold_what_else_the_layer_sees(fitted, target):
    images = gradients(7, seed=1)
    change = {}
    for weight in (0.0, 1.0):
        method = LandscapeOptimization(optimize={"w_consistency": weight}).bind(target, fitted.backend)
        method.landscape_ = fitted.landscape_
        z, moved = method.latents(images, {0: "increase"})
        pictures = [fitted.backend.render(fitted.landscape_.decode(part)) for part in (z, moved)]
        with torch.no_grad():
            seen = [LayerFeatures(target, images, without=[0])(part) for part in (images, *pictures)]
        change[weight] = [((part - seen[0]) ** 2).sum(1).mean() for part in seen[1:]]
    assert (method.optimized_.responses[-1].mean() > method.optimized_.responses[0].mean()).all()
    assert change[1.0][1] < change[0.0][1]
    alone = method.latents(images[6:], {0: "increase"})[1]
    torch.testing.assert_close(alone, moved[6:], atol=1e-5, rtol=0)


def test_a_held_optimisation_needs_the_images(fitted, target):
    method = LandscapeOptimization(optimize={"w_consistency": 1.0}).bind(target, fitted.backend)
    method.landscape_ = fitted.landscape_
    z, sigma = fitted.landscape_.encode(fitted.backend.encode(gradients(3)))
    with pytest.raises(ValueError, match=r"x is None; w_consistency=1.0 needs the images' own x"):
        method.optimize(z, sigma, z, {0: "increase"})


def test_steps_by_response_are_measured_on_reference_images(fitted, target):
    method = LandscapeOptimization(optimize={"scale": "response", "lr": 0.5}).bind(target, fitted.backend)
    method.landscape_ = fitted.landscape_
    z, _ = method.latents(gradients(5, seed=1), {0: "increase"})
    assert (method.optimized_.responses[-1] > method.optimized_.responses[0]).all()
    latent = fitted.landscape_.latents[:256].clone().requires_grad_(True)
    response = fitted.landscape_.scaler.standardise(target(fitted.backend.render(fitted.landscape_.vae.decode(latent))))
    (gradient,) = torch.autograd.grad(response[:, 1].sum(), latent)
    torch.testing.assert_close(method.sensitivity(z, [1]), (gradient**2).mean(0).sqrt(), rtol=1e-4, atol=1e-6)


def test_lengths_are_kept_where_that_is_asked_for(fitted, target):
    """What is decoded then has the length of the image's own x, edited or not."""

    class Recording(SmallPixels):
        def decode(self, x, **arguments):
            self.decoded = x
            return super().decode(x, **arguments)

    backend, images = Recording(), gradients(6, seed=1)
    lengths = {}
    for keep in (False, True):
        method = LandscapeEdit(keep_norm=keep).bind(target, backend)
        method.landscape_ = fitted.landscape_
        for moves in ({}, {0: "increase"}):
            method.generate(images, moves, seeds=[0] * 6)
            lengths[keep, bool(moves)] = backend.decoded.norm(dim=1)
    own = backend.encode(images).norm(dim=1)
    for moved in (False, True):
        torch.testing.assert_close(lengths[True, moved], own)
        assert (lengths[False, moved] - own).abs().max() > 1e-3


def test_no_direction_is_the_reconstruction(fitted):
    images = gradients(3)
    x = fitted.backend.encode(images)
    expected = fitted.backend.render(fitted.landscape_.decode(fitted.landscape_.encode(x)[0]))
    assert torch.equal(fitted.generate(images, {}, seeds=[0] * 3).images, expected)
    assert torch.equal(fitted.generate(images, {0: "increase"}, seeds=[0] * 3, alpha=0.0).images, expected)


def ascending(fitted, target, **settings):
    method = LandscapeEdit(goal="surrogate_ascent", **settings).bind(target, fitted.backend)
    method.landscape_ = fitted.landscape_
    return method


def test_an_ascent_goes_so_many_degrees_from_the_image_itself(fitted, target):
    x = fitted.backend.encode(gradients(10, seed=1))
    method = ascending(fitted, target)
    assert torch.equal(method.embeddings(x, {}), x)
    assert torch.equal(method.embeddings(x, {0: "increase"}, alpha=0.0), x)
    for found, degrees in (
        (method.embeddings(x, {0: "increase"}, alpha=0.25), 15.0),
        (ascending(fitted, target, angle=8.0).embeddings(x, {0: "increase"}), 8.0),
        (ascending(fitted, target, alpha=0.1).embeddings(x, {0: "decrease"}), 6.0),
    ):
        torch.testing.assert_close(angle_between(found, x), torch.full((10,), degrees), atol=0.1, rtol=0)
    _, latents = method.latents(gradients(10, seed=1), {0: "increase"}, alpha=0.25)
    expected = fitted.landscape_.encode(method.embeddings(x, {0: "increase"}, alpha=0.25))[0]
    assert torch.equal(latents, expected)


def test_a_surrogate_is_trained_once_for_a_landscape(fitted, target):
    x = fitted.backend.encode(gradients(2, seed=1))
    first, second = ascending(fitted, target), ascending(fitted, target)
    assert first.surrogate_ is None
    first.embeddings(x, {0: "increase"}, alpha=0.25)
    second.share(first)
    assert second.surrogate_ is first.surrogate_ is not None
    assert torch.equal(*(one.embeddings(x, {0: "increase"}, alpha=0.25) for one in (first, second)))


def test_settings_of_another_goal(fitted, target):
    """Defaults that belong to a prior mean give way; what was asked for is refused where it cannot be."""

    class Ascending(SmallPixels):
        defaults = SmallPixels.defaults.replace(goal="surrogate_ascent")

    class Driven(SmallPixels):
        defaults = SmallPixels.defaults.replace(top_activating_power=2.0, cross_talk_steps=3)

    assert LandscapeEdit().bind(target, Ascending()).config.edit.goal == "surrogate_ascent"
    for asked in ({"modes": 2}, {"top_activating_power": 1.0}, {"cross_talk_steps": 1}):
        assert LandscapeEdit(**asked).bind(target, Ascending()).config.edit.goal == "mean"
    other = LandscapeEdit(goal="surrogate_ascent").bind(target, Driven()).config.edit
    assert (other.top_activating_power, other.cross_talk_steps) == (0.0, 0)
    x = fitted.backend.encode(gradients(2))
    with pytest.raises(ValueError, match="top_activating_power=2.0 belongs to goal='mean'; 'surrogate_ascent' moves"):
        ascending(fitted, target, top_activating_power=2.0)
    with pytest.raises(ValueError, match="mode=0 names a prior mean, to which goal='surrogate_ascent' does not"):
        ascending(fitted, target, mode=0)
    with pytest.raises(ValueError, match="cross_talk_steps=2 goes with the goals 'mean' and 'local_mean'"):
        ascending(fitted, target, cross_talk_steps=2)
    with pytest.raises(ValueError, match=r"alpha=1.5 must lie in \[0, 1\]"):
        ascending(fitted, target).embeddings(x, {0: "increase"}, alpha=1.5)


def test_a_unit_moves_its_own_block_alone(fitted):
    before, after = fitted.latents(gradients(4), {1: "increase"})
    outside = ~fitted.landscape_.mask([1])
    assert torch.equal(before[:, outside], after[:, outside])
    torch.testing.assert_close(after[:, 1], torch.ones(4))


def test_an_edit_does_not_depend_on_its_batch(fitted):
    images = gradients(51)
    together = fitted.generate(images, {0: "increase"}, seeds=[0] * 51).images
    for rows in ([50], [3, 50, 9]):
        torch.testing.assert_close(
            fitted.generate(images[rows], {0: "increase"}, seeds=[0] * len(rows)).images,
            together[rows],
            atol=1e-5,
            rtol=0,
        )


def test_edit_by_angle_is_counted_from_the_image_itself(target):
    backend = SmallPixels()
    method = LandscapeEdit(angle=6.0, shuffles=0, epochs=1, axis_scale_sd=1.0).fit(target, backend, gradients(240))
    x = backend.encode(gradients(10, seed=1))
    start = method.landscape_.encode(x)[0]
    furthest = method.landscape_.decode(method.landscape_.goal(start, {0: "increase"}))
    least, possible = (angle_between(other, x) for other in (method.landscape_.decode(start), furthest))
    turned = angle_between(method.embeddings(x, {0: "increase"}), x)
    assert (possible > least).all()
    torch.testing.assert_close(turned, torch.minimum(least.clamp(min=6.0), possible), atol=0.05, rtol=0)


def test_what_the_vae_cannot_reconstruct(target):
    backend = SmallPixels()
    method = LandscapeEdit(shuffles=0, epochs=1, block_dim=None).fit(target, backend, gradients(240))
    x = backend.encode(torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(5)))  # noise: mostly lost
    decode, (z, _) = method.landscape_.decode, method.landscape_.encode(x)
    goal = method.landscape_.goal(z, {0: "increase"})

    def with_residual(residual):
        return LandscapeEdit(block_dim=None, residual=residual).share(method)

    def edited(alpha, residual):
        return with_residual(residual).embeddings(x, {0: "increase"}, alpha=alpha)

    torch.testing.assert_close(edited(0.0, False), decode(z))
    torch.testing.assert_close(edited(0.5, True), x + decode((z + goal) / 2) - decode(z))
    torch.testing.assert_close(edited(0.5, "fade"), (x + decode(goal)) / 2, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(edited(0.0, "fade"), x)
    torch.testing.assert_close(edited(1.0, "fade"), decode(goal), atol=1e-4, rtol=1e-4)
    for residual, unedited in ((False, decode(z)), (True, x), ("fade", x)):
        torch.testing.assert_close(with_residual(residual).embeddings(x, {}), unedited)


def test_the_start_and_the_fit_never_see_the_held_out_responses(target):
    images = gradients(240)
    responses = target.responses(images)
    _, held_out = split_rows(240, FitConfig())
    other = responses.clone()
    other[held_out] = responses[held_out].flip(0)  # the same mean and SD
    one, two = (LandscapeEdit(shuffles=0, epochs=1).fit(target, SmallPixels(), images, r) for r in (responses, other))
    assert torch.equal(one.landscape_.held_out, held_out)
    torch.testing.assert_close(one.landscape_.latents, two.landscape_.latents, atol=1e-4, rtol=1e-4)


def test_noise_is_weak(target):
    images, backend = gradients(240), SmallPixels()
    weak = []
    for seed in range(5):
        noise = torch.randn(240, 2, generator=torch.Generator().manual_seed(1000 + seed))
        found = LandscapeEdit(shuffles=1, epochs=1, seed=seed).fit(target, backend, images, noise).evidence_
        weak += [item.weak for item in found.values()]
    assert sum(weak) >= 8


def test_same_seed_is_bit_identical_and_the_global_generator_is_left_alone(target, fitted):
    before = torch.get_rng_state()
    again = LandscapeEdit(w_consistency=1.0).fit(target, SmallPixels(), gradients(240))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.landscape_.latents, fitted.landscape_.latents)
    assert again.evidence_ == fitted.evidence_
    other = LandscapeEdit(w_consistency=1.0, seed=1).fit(target, SmallPixels(), gradients(240))
    assert not torch.equal(other.landscape_.held_out, fitted.landscape_.held_out)


def test_an_interrupted_fit_goes_on(target, fitted, tmp_path):
    class Impatient(LayerTarget):
        left = 8

        def features(self, images):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return super().features(images)

    checkpoint = tmp_path / "fit.safetensors"
    images = gradients(240)
    arguments = {"w_consistency": 1.0}
    impatient = Impatient(target.model, "2", [1, 2])
    with pytest.raises(KeyboardInterrupt):
        LandscapeEdit(**arguments).fit(impatient, SmallPixels(), images, checkpoint=checkpoint)
    assert checkpoint.exists()
    again = LandscapeEdit(**arguments).fit(target, SmallPixels(), images, checkpoint=checkpoint)
    assert torch.equal(again.landscape_.latents, fitted.landscape_.latents)
    assert not checkpoint.exists()


def test_a_target_without_gradients_is_edited_and_not_optimised():
    images = gradients(240)
    method = LandscapeEdit(shuffles=0).fit(Redness(), SmallPixels(), images)
    assert method.generate(images[:2], {0: "increase"}, seeds=[0, 0]).images.shape == (2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"method='optimize' needs gradients .* this target has none. Use"):
        LandscapeOptimization(shuffles=0).fit(Redness(), SmallPixels(), images)
    with pytest.raises(ValueError, match=r"w_consistency needs a target with gradients .*'small' has none"):
        LandscapeEdit(w_consistency=1.0).fit(Redness(), SmallPixels(), images)


def test_a_backend_without_gradients_is_not_optimised(target):
    images = gradients(240)
    with pytest.raises(ValueError, match="this backend 'small' has none"):
        LandscapeOptimization(shuffles=0).fit(target, SmallPixels(differentiable=False), images)


def test_every_setting_is_said(fitted):
    said = LandscapeEdit(epochs=3, optimize={"lr": 0.5}, modes=2, alpha=0.25, seed=4).bind(
        fitted.target, fitted.backend
    )
    found = said.describe()
    assert found["fit"]["epochs"] == 3
    assert found["fit"]["seed"] == 4
    assert found["fit"]["lr"] == 1e-4
    assert (found["optimize"]["lr"], found["optimize"]["steps"]) == (0.5, 15)
    assert found["prior"]["modes"] == 2
    assert found["edit"]["alpha"] == 0.25


def test_bad_settings(target):
    with pytest.raises(TypeError, match=r"epoch= is no setting of the landscape. Closest: epochs"):
        LandscapeEdit(epoch=3)
    with pytest.raises(TypeError, match=r"qqqq= is no setting of the landscape. Known: alpha"):
        LandscapeEdit(qqqq=3)
    for given, said in (
        ({"optimize": {"w_consistency": "a lot"}}, "optimize.w_consistency='a lot' is a str; expected a number"),
        ({"epochs": True}, "epochs=True is a bool; expected a whole number"),
        ({"epochs": 2.5}, "epochs=2.5 is a float; expected a whole number"),
        ({"angle": [40]}, r"angle=\[40\] is a list; expected a number or None"),
        ({"residual": 2}, "residual=2 is an int; expected True or False or 'fade'"),
        ({"goal": None}, "goal=None is a NoneType; expected 'mean' or 'local_mean' or 'surrogate_ascent'"),
    ):
        with pytest.raises(TypeError, match=said):
            LandscapeEdit(**given)  # type: ignore[arg-type]
    for given, said in (
        ({"optimize": {"steps": 0}}, "steps=0 must be greater than 0"),
        ({"interpolation": "spline"}, "interpolation='spline' is unknown; expected 'lerp' or 'slerp'"),
        ({"residual": "faded"}, "residual='faded' is unknown; expected True, False or 'fade'"),
        ({"solver": "sgd"}, "solver='sgd' is unknown"),
        ({"alpha": 1.5}, r"alpha=1.5 must lie in \[0, 1\]"),
        ({"angle": 200.0}, "angle=200.0 must lie between 0 and 180"),
        ({"axis_scale_sd": -4.0}, "axis_scale_sd=-4.0 must be greater than 0"),
        ({"cross_talk_penalty": -1.0}, "cross_talk_penalty=-1.0 must not be negative"),
        (
            {"cross_talk_steps": 2, "goal": "surrogate_ascent"},
            "cross_talk_steps=2 goes with the goals 'mean' and 'local_mean'",
        ),
    ):
        with pytest.raises(ValueError, match=said):  # before the fit
            LandscapeEdit(**given)
    with pytest.raises(ValueError, match="modes=2 .*widen the block"):
        LandscapeEdit(modes=2, block_dim=1).fit(target, SmallPixels(), gradients(240))


def test_bad_data(target):
    images = gradients(240)
    for shape in [(240, 1), (239, 2), (240,), (2, 240)]:
        with pytest.raises(ValueError, match=r"responses has shape .*; expected \(240, 2\): a row for each image"):
            LandscapeEdit().fit(target, SmallPixels(), images, torch.randn(shape))
    with pytest.raises(ValueError, match="images holds 100 images; .* at least 200"):
        LandscapeEdit().fit(target, SmallPixels(), images[:100])
    with pytest.raises(ValueError, match="images holds 240 images that are all copies of one"):
        LandscapeEdit().fit(target, SmallPixels(), images[:1].expand(240, -1, -1, -1))


def _made_by(method, network):
    lens = FeatureLens(network, "1", unit=1, backend=SmallPixels(), preprocess=Preprocess(8, [0.5], [0.5]))
    return lens.fit(gradients(220, seed=1)).visualize(gradients(2, seed=2), method=method).images


@pytest.mark.parametrize("method", ["edit", "optimize", "pixel_maximization", "ridge_direction"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_same_pictures_where_no_gradients_are_recorded(mode, method):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh())
    before = _made_by(method, network)
    with mode():
        after = _made_by(method, network)
    for key, images in before.items():
        torch.testing.assert_close(after[key], images)
