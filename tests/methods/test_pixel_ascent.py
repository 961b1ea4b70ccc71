"""Ascent of a linear unit, whose best picture is known."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from vislens_interp.methods.activation_maximization import ActivationMaximization
from vislens_interp.methods.caricature import Caricature
from vislens_interp.methods.controls import Noise
from vislens_interp.methods.deepdream import DeepDream
from vislens_interp.methods.feature_accentuation import FeatureAccentuation
from vislens_interp.methods.fourier import decorrelate, recorrelate, to_logits, to_spectrum
from vislens_interp.methods.maco import MACO, signal_of
from vislens_interp.methods.natural_spectrum import natural_spectrum, relative_contrast
from vislens_interp.methods.open_gates import OpenGates
from vislens_interp.methods.pixel_ascent import minimise
from vislens_interp.metrics import amplitude_profile
from vislens_interp.preprocess import Preprocess
from vislens_interp.targets.target import LayerTarget, Target


@pytest.fixture(scope="module")
def weight():
    return torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def smooth():
    """A filter that prefers bright left halves, in every colour."""
    return torch.linspace(1, -1, 8).expand(3, 8, 8).contiguous()


def made(method, target, backend, pictures, direction="increase", count=2):
    images = pictures(count, backend.size, seed=3)
    method.fit(target, backend, pictures(60, backend.size))
    return method.generate(images, {0: direction}, seeds=list(range(count)))


@pytest.mark.parametrize("direction", ["increase", "decrease"])
def test_pixels_find_the_filters_signs(linear_unit, pixels, pictures, weight, direction):
    method = ActivationMaximization("pixel", robust=False, steps=100, chunk=2)
    generated = made(method, linear_unit(weight), pixels(), pictures, direction)
    found = generated.images
    want = weight if direction == "increase" else -weight
    assert ((found - 0.5).sign() == want.sign()).all()
    assert (found - 0.5).abs().min() > 0.3  # Adam takes every pixel as far, however small its weight
    assert generated.cost.forward == generated.cost.backward == 2 * 100


def test_a_chunk_is_filled_up(linear_unit, pixels, pictures, weight):
    method = ActivationMaximization(steps=3, chunk=4)
    generated = made(method, linear_unit(weight), pixels(), pictures, count=5)
    assert generated.cost.forward == 8 * 3


def test_a_silent_unit_is_woken_without_more_passes(pixels, pictures, weight):
    """Behind its ReLU a unit of the first grey picture has no gradient; it gets the one of its input."""
    linear = nn.Linear(weight.numel(), 1)
    with torch.no_grad():
        linear.weight.copy_((weight / weight.norm()).flatten()[None])
        linear.bias.fill_(-0.5 * linear.weight.sum() - 0.05)
    model = nn.Sequential(nn.Flatten(), linear, nn.ReLU())
    target = LayerTarget(model, "2", [0], preprocess=Preprocess(8, [0], [1]))
    assert (target.responses(pictures(60)) > 0).any()
    method = ActivationMaximization("pixel", robust=False, steps=30, chunk=4).fit(target, pixels(), pictures(60))
    images, seeds = pictures(4), [1, 2, 3, 4]
    assert (target.responses(method.generate(images, {}, seeds=seeds).images) == 0).any()
    generated = method.generate(images, {0: "increase"}, seeds=seeds)
    assert (target.responses(generated.images) > 0).all()
    assert generated.cost.forward == 4 * 30
    alone = method.generate(images[2:3], {0: "increase"}, seeds=[3]).images
    torch.testing.assert_close(alone, generated.images[2:3], atol=1e-5, rtol=0)


@pytest.mark.parametrize("gate", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(inplace=True), nn.Hardtanh(0, 1)])
def test_open_gates_change_no_value_and_no_gradient_that_is_there(gate):
    layer = nn.Conv2d(3, 4, 3)
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5
    x[1] = 0  # with this bias the second picture is silent
    with torch.no_grad():
        layer.bias.fill_(-0.1)
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(1)))
    x.requires_grad_()
    closed = gate(layer(x))
    with OpenGates():
        opened = gate(layer(x))
        flat = functional.relu(layer(x).flatten(1), inplace=gate.__class__ is nn.ReLU)
    assert torch.equal(closed, opened)
    assert torch.equal(flat, layer(x).flatten(1).relu())
    (shut,), (wide,) = (torch.autograd.grad(-one.sum(), x, retain_graph=True) for one in (closed, opened))
    torch.testing.assert_close(shut[0], wide[0])
    assert (shut[1] == 0).all()
    assert (wide[1] != 0).any()
    (down,) = torch.autograd.grad(opened.sum(), x)  # a silent unit is not silenced further
    assert (down[1] == 0).all()


def test_the_rate_falls_to_nothing():
    place = torch.zeros(1, 2, requires_grad=True)
    seen = []

    def loss():
        seen.append(place.detach().clone())
        return place.sum(1)

    minimise([place], torch.optim.SGD([place], lr=1.0), loss, 4)
    moves = -torch.stack([*seen[1:], place.detach()])[:, 0, 0].diff(prepend=torch.zeros(1))
    torch.testing.assert_close(moves, torch.tensor([(1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]))


def test_maximisation_never_ends_in_saturated_confetti(linear_unit, pixels, pictures):
    """A unit that likes noise, climbed far too fast: contrast stays near photographs', where nothing else bounds it."""
    size = 64
    target = linear_unit(torch.randn(3, size, size, generator=torch.Generator().manual_seed(2)))
    found = {
        name: relative_contrast(
            made(ActivationMaximization(**settings, steps=15, lr=2.0, chunk=2), target, pixels(size), pictures).images
        ).max()
        for name, settings in {
            "default": {},
            "open": {"contrast": None},
            "lucid's": {"parametrization": "fourier"},
        }.items()
    }
    assert found["default"] < 1.1 * ActivationMaximization().contrast
    assert min(found["open"], found["lucid's"]) > 3


def test_a_natural_picture_starts_with_the_amplitudes_of_photographs(linear_unit, pixels, pictures):
    size = 32
    target = linear_unit(torch.randn(3, size, size, generator=torch.Generator().manual_seed(2)))
    method = ActivationMaximization(steps=1, chunk=4).fit(target, pixels(size), pictures(60, size))
    channels = decorrelate(torch.logit(method.generate(pictures(16, size), {}, seeds=list(range(16))).images))
    natural = natural_spectrum(size)
    torch.testing.assert_close(channels.mean((0, 2, 3)), natural.mean, atol=1e-2, rtol=0.05)
    spread = channels.std((2, 3), correction=0).mean(0)
    ratio = spread / natural.contrast
    torch.testing.assert_close(ratio, ratio[:1].expand(3), atol=0.06, rtol=0.2)  # no colour stands out


def test_importance_is_where_the_unit_looks(linear_unit, pixels, pictures):
    size = 16
    weight = torch.randn(3, size, size, generator=torch.Generator().manual_seed(2))
    weight[:, :, size // 2 :] = 0
    for method in (
        ActivationMaximization(robust=False, steps=3, chunk=2),
        MACO(steps=3, crops=2, box=(1.0, 1.0), chunk=2),
        FeatureAccentuation(steps=3, crops=2, box=(1.0, 1.0), regularization=0, chunk=2),
    ):
        generated = made(method, linear_unit(weight), pixels(size), pictures, count=3)
        importance = generated.importance
        assert importance.shape == (3, size, size)
        assert 0 <= importance.min() < importance.max() == 1
        assert importance[..., : size // 2].mean() > 0.3
        assert importance[..., size // 2 :].max() < 1e-4
        assert method.generate(pictures(1, size), {}, seeds=[0]).importance is None


@pytest.fixture(scope="module")
def bumps():
    """A layer of two filters whose sum is the unit: two pictures can drive it by different channels."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 5, padding=2), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1), nn.Tanh())
    return model.eval()


def test_many_units_are_painted_in_one_batch(pixels, pictures):
    """A picture of its own unit is as if it were painted alone; other methods say that they cannot."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh())
    target = LayerTarget(model, "1", [0, 1, 2], preprocess=Preprocess(16, [0.5], [0.5]))
    images, seeds = 0.1 + 0.8 * pictures(3, 16, seed=3), [1, 2, 3]
    each = [{0: "increase"}, {2: "decrease"}, {1: "increase", 2: "increase"}]
    for method in (
        ActivationMaximization(steps=4, chunk=2),
        MACO(steps=3, crops=2, chunk=2),
        FeatureAccentuation(steps=3, crops=2, box=(0.8, 1.0), chunk=2),
        DeepDream(iterations=2, octaves=1, chunk=2),
    ):
        method.fit(target, pixels(16), pictures(60, 16))
        together = method.generate(images, each, seeds=seeds).images
        for row, wanted in enumerate(each):
            alone = method.generate(images[row : row + 1], wanted, seeds=seeds[row : row + 1]).images
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-4, rtol=0)
        with pytest.raises(ValueError, match="directions has 1 entries for 3 images; expected one an image"):
            method.generate(images, each[:1], seeds=seeds)
    noise = Noise().fit(target, pixels(16), pictures(60, 16))
    with pytest.raises(ValueError, match="directions is a list, and Noise moves all images alike; expected unit to s"):
        noise.generate(images, each, seeds=seeds)


def test_diverse_pictures_of_one_unit_differ(bumps, pixels, pictures):
    target = LayerTarget(bumps, "3", [1], preprocess=Preprocess(16, [0.5], [0.5]))

    def alike(weight):
        method = ActivationMaximization(steps=25, robust=False, lr=0.1, diversity=weight, chunk=2)
        generated = made(method, target, pixels(16), pictures, count=3)
        assert generated.cost.forward == 25 * (3 if weight else 4)  # with diversity, one chunk of all
        features = target.features(generated.images).flatten(2)
        rows = nn.functional.normalize((features @ features.transpose(1, 2)).flatten(1), dim=1)
        return ((rows @ rows.T).sum() - 3).item() / 6

    assert alike(2.0) < alike(0.0) - 0.02
    scores = LayerTarget(nn.Sequential(bumps, nn.Flatten()), "1", [1], preprocess=Preprocess(16, [0.5], [0.5]))
    made(MACO(steps=2, crops=2, diversity=1.0), scores, pixels(16), pictures)  # a layer without positions


def test_a_caricature_points_where_its_image_does_in_every_layer(bumps, pixels, pictures):
    target = LayerTarget(bumps, "3", [1], preprocess=Preprocess(16, [0.5], [0.5]))
    method = Caricature(["1", "3"], steps=40, lr=0.1, robust=False, chunk=2)
    images = pictures(2, 16, seed=3)
    method.fit(target, pixels(16), pictures(60, 16))
    before = method.generate(images, {}, seeds=[0, 1]).images
    generated = method.generate(images, {0: "increase"}, seeds=[0, 1])
    assert generated.cost.forward == 2 * 40 * 2 * 2
    assert generated.importance.shape == (2, 16, 16)
    for layer in ("1", "3"):
        reader = LayerTarget(bumps, layer, [0], preprocess=Preprocess(16, [0.5], [0.5]))
        start, after, own = (reader.features(one).flatten(1) for one in (before, generated.images, images))
        cosine = nn.functional.cosine_similarity
        assert (cosine(after, own) > cosine(start, own)).all()
        assert (cosine(after, own) > cosine(after, own.flip(0))).all()
    with pytest.raises(TypeError, match=r"layers='3' is one name; expected a list of them. Pass \['3'\]"):
        Caricature("3")
    with pytest.raises(ValueError, match="power=-1.0 must not be negative"):
        Caricature(power=-1.0)
    with pytest.raises(ValueError, match="layer 'nowhere' not found"):
        Caricature(["nowhere"]).fit(target, pixels(16), pictures(60, 16))
    with pytest.raises(ValueError, match="layer '3' is looked for in a network, and Function shows none; expected"):
        Caricature(["3"]).fit(Function(), pixels(), pictures(60))
    with pytest.raises(ValueError, match=r"layers=\(\) needs the layer .* has no features. Pass a network and a layer"):
        Caricature().fit(Function(), pixels(), pictures(60))


def test_accentuation_is_held_at_the_chosen_layer(bumps, pixels, pictures):
    target = LayerTarget(bumps, "3", [1], preprocess=Preprocess(16, [0.5], [0.5]))
    early = LayerTarget(bumps, "1", [0], preprocess=Preprocess(16, [0.5], [0.5]))
    images = 0.1 + 0.8 * pictures(2, 16, seed=3)
    moved = []
    for weight in (0.5, 8.0):
        method = FeatureAccentuation(steps=12, crops=2, box=(0.8, 1.0), layer="1", regularization=weight, chunk=2)
        generated = method.fit(target, pixels(16), pictures(60, 16)).generate(images, {0: "increase"}, seeds=[1, 2])
        moved.append((early.features(generated.images) - early.features(images)).flatten(1).norm(dim=1).mean().item())
        assert generated.cost.forward == 2 * 12 * 2 * 3  # the unit's layer, and the held one of both pictures
    assert moved[1] < moved[0]


def test_natural_pictures_of_512_pixels_have_the_contrast_of_photographs(linear_unit, pixels, pictures, weight):
    method = ActivationMaximization(steps=1, size=512, chunk=1)
    large = made(method, linear_unit(weight), pixels(8), pictures, count=1).images
    assert large.shape == (1, 3, 512, 512)
    assert relative_contrast(large) < method.contrast


@pytest.mark.parametrize("name", ["maximisation", "maco", "accentuation"])
def test_a_picture_may_have_another_size_than_the_backend(linear_unit, pixels, pictures, weight, name):
    method = {
        "maximisation": lambda: ActivationMaximization(steps=2, size=64, chunk=1),
        "maco": lambda: MACO(steps=2, crops=1, size=64, chunk=1),
        "accentuation": lambda: FeatureAccentuation(steps=2, crops=1, size=64, regularization=0, chunk=1),
    }[name]()
    generated = made(method, linear_unit(weight), pixels(8), pictures, count=1)
    assert generated.images.shape == (1, 3, 64, 64)
    assert generated.importance.shape == (1, 64, 64)


def test_fourier_favours_low_frequencies_and_correlated_colours(linear_unit, pixels, pictures):
    size = 32
    weight = torch.randn(3, size, size, generator=torch.Generator().manual_seed(2))
    plain, coloured = (
        made(
            ActivationMaximization("fourier", decorrelate=colours, robust=False, steps=40, chunk=2),
            target,
            pixels(size),
            pictures,
        ).images
        for colours in (False, True)
        for target in [linear_unit(weight)]
    )
    rough = made(
        ActivationMaximization("pixel", robust=False, steps=40, chunk=2), linear_unit(weight), pixels(size), pictures
    ).images

    def low(picture):  # the share of low frequencies, where the white filter has none to spare
        power = to_spectrum(picture - picture.mean((2, 3), keepdim=True)).abs() ** 2
        return (power[..., :4, :4].sum() / power.sum()).item()

    def grey(picture):
        channels = decorrelate(to_logits(picture))
        return (channels[:, 0].var() / channels[:, 1:].var()).item()

    assert low(plain) > 2 * low(rough)
    assert torch.corrcoef(coloured.transpose(0, 1).flatten(1))[0, 1] > 0.5
    assert torch.corrcoef(plain.transpose(0, 1).flatten(1))[0, 1] < 0.3


def test_the_start_is_lucids():
    method = ActivationMaximization("fourier")
    assert ActivationMaximization().parametrization == "natural"
    assert (method.steps, method.decay_power, method.robust, method.decorrelate) == (512, 1, True, True)
    assert not ActivationMaximization("pixel").decorrelate


def test_no_direction_is_noise_of_the_seed(linear_unit, pixels, pictures, weight):
    method = ActivationMaximization(steps=2).fit(linear_unit(weight), pixels(), pictures(60))
    start = method.generate(pictures(2), {}, seeds=[1, 2]).images
    assert relative_contrast(start).max() < 1
    assert not torch.equal(start[0], start[1])
    other = method.generate(pictures(2, seed=5), {}, seeds=[1, 2])
    assert torch.equal(start, other.images)
    assert other.cost.forward == 0


def test_dreams_move_by_the_step_and_the_octaves(linear_unit, pixels, pictures, smooth):
    """One octave: each step moves the mean pixel by the step size, along the filter."""
    method = DeepDream(iterations=3, octaves=1, step_size=0.01, jitter=0.0, chunk=2)
    images = 0.25 + 0.5 * pictures(2, seed=3)
    method.fit(linear_unit(smooth), pixels(), pictures(60))
    moved = method.generate(images, {0: "increase"}, seeds=[1, 2]).images - images
    torch.testing.assert_close(moved, (0.03 * smooth / smooth.abs().mean()).expand_as(moved), atol=1e-5, rtol=1e-4)
    assert torch.equal(method.generate(images, {}, seeds=[1, 2]).images, images)
    coarse = DeepDream(iterations=1, octaves=3, step_size=0.01, jitter=0.0, chunk=2)
    coarse.fit(linear_unit(smooth), pixels(), pictures(60))
    cost = coarse.generate(images, {0: "increase"}, seeds=[1, 2]).cost
    assert cost.forward == cost.backward == 2 * 3


def test_maco_keeps_natural_amplitudes_exactly(linear_unit, pixels, pictures):
    size = 16
    target = linear_unit(torch.randn(3, size, size, generator=torch.Generator().manual_seed(2)))
    method = MACO(steps=30, crops=2, lr=0.3, chunk=2).fit(target, pixels(size), pictures(60, size))
    images = pictures(2, size)
    before, after = (method.generate(images, wanted, seeds=[1, 2]).images for wanted in ({}, {0: "increase"}))
    assert (target.responses(after) > target.responses(before)).all()
    natural = natural_spectrum(size)
    for picture in (before, after):
        channels = decorrelate(torch.logit(picture.double()))
        torch.testing.assert_close(channels.mean((2, 3)), natural.mean.double().expand(2, 3), atol=1e-4, rtol=0)
        found = to_spectrum(channels - channels.mean((2, 3), keepdim=True)).abs()
        torch.testing.assert_close(found, natural.amplitude.double().expand_as(found), atol=1e-4, rtol=1e-4)
    phase = torch.randn(2, 3, size, size // 2 + 1, generator=torch.Generator().manual_seed(0))
    spread = signal_of(phase).std((2, 3))
    torch.testing.assert_close(spread, spread[:1].expand_as(spread))  # contrast is the amplitudes', whatever the phases


def test_macos_noise_is_horamas_where_the_network_sees_it():
    normalise = Preprocess(None, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    plain = torch.full((1, 3, 64, 64), 0.5)
    seen = normalise(MACO().look(plain, [torch.Generator().manual_seed(0)])) - normalise(plain)
    wanted = 0.05 * math.sqrt(1 + 1 / 12)  # Gaussian and uniform
    torch.testing.assert_close(seen.std((0, 2, 3)), torch.full((3,), wanted), atol=0, rtol=0.05)


def test_accentuation_starts_at_the_image_and_keeps_to_it(pixels, pictures):
    """Held harder, less is moved, in the layer that the unit is read from."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh())
    target = LayerTarget(model, "1", [2], preprocess=Preprocess(8, [0.5], [0.5]))
    images = 0.1 + 0.8 * pictures(2, seed=3)
    distance, gained = [], []
    for weight in (0.0, 0.5, 5.0):
        method = FeatureAccentuation(steps=15, crops=4, box=(0.5, 0.99), regularization=weight, chunk=2)
        method.fit(target, pixels(), pictures(60))
        assert torch.equal(method.generate(images, {}, seeds=[1, 2]).images, images)
        generated = method.generate(images, {0: "increase"}, seeds=[1, 2])
        found = generated.images
        distance.append(((target.features(found) - target.features(images)) ** 2).mean().item())
        gained.append((target.responses(found) - target.responses(images)).mean().item())
    assert distance[0] > distance[1] > distance[2]
    assert gained[0] > gained[1] > 0
    assert generated.cost.forward == 2 * 15 * 2 * 4  # of each picture and its reference, four crops
    assert generated.cost.backward == 2 * (15 + 2) * 4  # the balance at the start takes two gradients


@pytest.mark.parametrize("held", [True, False])
def test_accentuation_keeps_amplitudes(linear_unit, pixels, pictures, smooth, held):
    """Of pixels, ring by ring; or else of logits, which may only shrink."""
    images = 0.3 + 0.4 * pictures(2, seed=3)
    method = FeatureAccentuation(steps=10, crops=2, box=(0.9, 1.0), regularization=0, hold_spectrum=held, chunk=2)
    method.fit(linear_unit(smooth), pixels(), pictures(60))
    found = method.generate(images, {0: "increase"}, seeds=[1, 2]).images
    moved = max(
        (amplitude_profile(one[None]) - amplitude_profile(two[None])).abs().max()
        for one, two in zip(images, found, strict=True)
    )
    assert (moved < 0.1) == held
    if held:
        return
    middle = slice(1, -1)  # elsewhere the inverse transform has a say
    before, after = (to_spectrum(decorrelate(to_logits(one)))[..., middle].abs() for one in (images, found))
    assert (after <= before / torch.tensor(5.0).sigmoid() + 1e-3).all()
    assert recorrelate(images).shape == images.shape


class Function(Target):
    """Differentiable, without features."""

    names, differentiable = ["mean"], True

    def __call__(self, images):
        return images.mean((1, 2, 3))[:, None]


def test_accentuation_says_that_it_needs_features(pixels, pictures):
    with pytest.raises(ValueError, match=r"regularization=1.0 needs the layer .* Function has no features. Pass regul"):
        FeatureAccentuation().fit(Function(), pixels(), pictures(60))
    FeatureAccentuation(regularization=0).fit(Function(), pixels(), pictures(60))
    with pytest.raises(ValueError, match=r"diversity=1.0 needs the layer .* Pass diversity=0, or a network"):
        MACO(diversity=1.0).fit(Function(), pixels(), pictures(60))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ActivationMaximization("wavelet"), "parametrization='wavelet' is unknown; expected 'natural'"),
        (lambda: ActivationMaximization(contrast=0.0), "contrast=0.0 must be greater than 0"),
        (lambda: ActivationMaximization(diversity=-1.0), "diversity=-1.0 must not be negative"),
        (lambda: ActivationMaximization(size=0), "size=0 must be at least 1"),
        (lambda: ActivationMaximization(steps=0), "steps=0 must be at least 1"),
        (lambda: ActivationMaximization(lr=0), "lr=0 must be greater than 0"),
        (lambda: ActivationMaximization(chunk=0), "chunk=0 must be at least 1"),
        (lambda: DeepDream(octaves=0), "octaves=0 must be at least 1"),
        (lambda: DeepDream(octave_scale=1.0), "octave_scale=1.0 must be greater than 1: each octave is finer"),
        (lambda: DeepDream(jitter=1.0), r"jitter=1.0 must lie in \[0, 1\)"),
        (lambda: DeepDream(step_size=0.0), "step_size=0.0 must be greater than 0"),
        (lambda: MACO(box=(0.5, 1.5)), r"box=\(0.5, 1.5\) must be the smallest and the largest side of a crop"),
        (lambda: MACO(noise=-1.0), "noise=-1.0 must not be negative"),
        (lambda: MACO(crops=0), "crops=0 must be at least 1"),
        (lambda: FeatureAccentuation(layer="1", regularization=0), "layer='1' is held to nothing at regularization=0"),
        (lambda: FeatureAccentuation(regularization=-1.0), "regularization=-1.0 must not be negative"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_settings(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_seed_for_each_image(linear_unit, pixels, pictures, weight):
    method = DeepDream().fit(linear_unit(weight), pixels(), pictures(60))
    with pytest.raises(ValueError, match="seeds has 1 entries for 2 images; expected one an image"):
        method.generate(pictures(2), {0: "increase"}, seeds=[1])


@pytest.mark.parametrize(
    ("steps", "lr", "rate"), [(512, None, 0.05), (96, None, 0.08), (8, None, 0.08), (512, 0.2, 0.2)]
)
def test_more_steps_start_at_a_lower_rate(steps, lr, rate):
    assert ActivationMaximization(steps=steps, lr=lr).lr == pytest.approx(rate, abs=5e-4)
