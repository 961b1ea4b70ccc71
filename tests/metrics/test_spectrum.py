import math

import pytest
import torch

from vislens_interp.metrics import amplitude_profile, spectrum_distance


def pictures(count=4, size=16, seed=0):
    return 0.25 + 0.5 * torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def wave(frequency, size=16, amplitude=0.4):
    return (0.5 + amplitude * (2 * math.pi * frequency * torch.arange(size) / size).sin()).expand(1, 3, size, size)


@pytest.mark.parametrize("size", [16, 15])
def test_a_wave_is_in_its_own_ring(size):
    profile = amplitude_profile(wave(3, size))
    assert len(profile) == size // 2
    assert profile.argmax() == 2  # ring 3
    others = torch.cat([profile[:2], profile[3:]])
    assert (others < -70).all()  # as good as nothing: SMALLEST_AMPLITUDE is -80 dB


def test_white_noise_is_flat_at_its_own_sd():
    noise = 0.1 * torch.randn(400, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(amplitude_profile(noise), torch.full((8,), -20.0).double(), atol=0.2, rtol=0)


def test_contrast_is_decibels():
    x = pictures()
    assert spectrum_distance(x, 0.5 + 0.5 * (x - 0.5)) == pytest.approx(20 * math.log10(2), abs=0.02)
    assert spectrum_distance(0.5 + 0.5 * (x - 0.5), x) == pytest.approx(20 * math.log10(2), abs=0.02)


@pytest.mark.parametrize(
    "change", [lambda x: x, lambda x: x.roll((3, 5), (2, 3)), lambda x: x.flip(2), lambda x: x + 0.1]
)
def test_phase_brightness_and_place_play_no_part(change):
    assert spectrum_distance(pictures(), change(pictures())) == pytest.approx(0, abs=1e-5)


def test_order_and_number_play_no_part():
    x = pictures()
    assert spectrum_distance(x, torch.cat([x, x]).flip(0)) == pytest.approx(0, abs=1e-5)


def test_blur_is_farther_than_another_draw():
    x = pictures(32)
    blurred = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    assert spectrum_distance(x, blurred) > 10 * spectrum_distance(x, pictures(32, seed=1))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16), r"images_a has shape \(2, 3, 8, 8\).*one size"),
        (torch.rand(2, 3, 8, 6), torch.rand(2, 3, 8, 6), r"expected \(N, C, S, S\), square"),
        (torch.rand(0, 3, 8, 8), torch.rand(2, 3, 8, 8), "at least one of 4 pixels"),
        (torch.full((1, 3, 8, 8), math.nan), torch.rand(2, 3, 8, 8), "NaN or infinite"),
    ],
)
def test_spectrum_refuses(a, b, message):
    with pytest.raises(ValueError, match=message):
        spectrum_distance(a, b)
