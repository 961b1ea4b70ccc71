"""Ascent of a linear unit, whose best picture is known."""

import pytest
import torch
from torch import nn

from vislens_interp.methods.activation_maximization import ActivationMaximization
from vislens_interp.methods.deepdream import DeepDream
from vislens_interp.methods.feature_accentuation import FeatureAccentuation
from vislens_interp.methods.fourier import decorrelate, recorrelate, to_logits, to_spectrum
from vislens_interp.methods.maco import MACO, signal_of
from vislens_interp.methods.natural_spectrum import natural_spectrum
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
    assert generated.cost.forward == generated.cost.backward == 2 * (1 + 100)  # one look at whether there is a gradient


def test_a_chunk_is_filled_up(linear_unit, pixels, pictures, weight):
    method = ActivationMaximization(steps=3, chunk=4)
    generated = made(method, linear_unit(weight), pixels(), pictures, count=5)
    assert generated.cost.forward == 8 * (1 + 3)


def test_a_silent_unit_is_woken_with_more_contrast(pixels, pictures, weight):
    """Behind its ReLU a unit of the first grey picture has no gradient; only the silent rows are drawn again."""
    linear = nn.Linear(weight.numel(), 1)
    with torch.no_grad():
        linear.weight.copy_((weight / weight.norm()).flatten()[None])
        linear.bias.fill_(-0.5 * linear.weight.sum() - 0.05)
    model = nn.Sequential(nn.Flatten(), linear, nn.ReLU())
    target = LayerTarget(model, "2", [0], preprocess=Preprocess(8, [0], [1]))
    assert (target.responses(pictures(60)) > 0).any()
    method = ActivationMaximization("pixel", robust=False, steps=30, chunk=4).fit(target, pixels(), pictures(60))
    images, seeds = pictures(4), [1, 2, 3, 4]
    assert (target.responses(method.generate(images, {}, seeds=seeds).images) == 0).all()
    generated = method.generate(images, {0: "increase"}, seeds=seeds)
    assert (target.responses(generated.images) > 0).all()
    assert 4 * 32 < generated.cost.forward < 4 * 40
    alone = method.generate(images[2:3], {0: "increase"}, seeds=[3]).images
    torch.testing.assert_close(alone, generated.images[2:3], atol=1e-5, rtol=0)


def test_fourier_favours_low_frequencies_and_correlated_colours(linear_unit, pixels, pictures):
    size = 32
    weight = torch.randn(3, size, size, generator=torch.Generator().manual_seed(2))
    plain, coloured = (
        made(
            ActivationMaximization("fourier", decorrelate=colours, robust=False, steps=40, chunk=2),
            target,
            pixels(size),
            pictures,
        )
        for colours in (False, True)
        for target in [linear_unit(weight)]
    )
    rough = made(
        ActivationMaximization("pixel", robust=False, steps=40, chunk=2), linear_unit(weight), pixels(size), pictures
    )

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
    method = ActivationMaximization()
    assert (method.steps, method.lr, method.decay_power, method.robust, method.decorrelate) == (
        512,
        0.05,
        1,
        True,
        True,
    )
    assert not ActivationMaximization("pixel").decorrelate


def test_no_direction_is_noise_of_the_seed(linear_unit, pixels, pictures, weight):
    method = ActivationMaximization(steps=2).fit(linear_unit(weight), pixels(), pictures(60))
    start = method.generate(pictures(2), {}, seeds=[1, 2]).images
    assert (start - 0.5).abs().max() < 0.1
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


def test_accentuation_shrinks_amplitudes_only(linear_unit, pixels, pictures, smooth):
    images = 0.1 + 0.8 * pictures(2, seed=3)
    method = FeatureAccentuation(steps=10, crops=2, box=(0.9, 1.0), regularization=0, chunk=2)
    method.fit(linear_unit(smooth), pixels(), pictures(60))
    found = method.generate(images, {0: "increase"}, seeds=[1, 2]).images
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
    with pytest.raises(ValueError, match=r"regularization=1.0 holds the layer .* Function has no features. Pass regul"):
        FeatureAccentuation().fit(Function(), pixels(), pictures(60))
    FeatureAccentuation(regularization=0).fit(Function(), pixels(), pictures(60))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ActivationMaximization("wavelet"), "parametrization='wavelet' is unknown; expected 'fourier' or"),
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
