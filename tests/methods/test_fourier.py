"""Pictures and their parameters: what goes in comes back, and real pictures have the phases that they can have."""

import pytest
import torch

from vislens_interp.methods import fourier
from vislens_interp.methods.natural_spectrum import NaturalSpectrum, at_size, measure, natural_spectrum
from vislens_interp.metrics import amplitude_profile


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [8, 9])
def test_spectrum_and_colours_round_trip(size):
    signal = noise(2, 3, size, size)
    spectrum = fourier.to_spectrum(signal)
    assert spectrum.shape == (2, 3, size, size // 2 + 1)
    torch.testing.assert_close(fourier.to_signal(spectrum, size), signal)
    torch.testing.assert_close(fourier.recorrelate(fourier.decorrelate(signal)), signal, atol=1e-4, rtol=1e-4)
    pixels = signal.sigmoid().clamp(0.01, 0.99)
    torch.testing.assert_close(fourier.to_logits(pixels).sigmoid(), pixels)


def test_white_channels_get_the_colours_of_photographs():
    colours = fourier.recorrelate(noise(1, 3, 200, 200)).flatten(2)[0]
    torch.testing.assert_close(colours.cov(), fourier.COLOURS @ fourier.COLOURS.T, atol=0.01, rtol=0)
    assert fourier.COLOURS.norm(dim=0).max() == pytest.approx(1.0)


def test_a_wave_lies_at_its_frequency():
    wave = torch.cos(2 * torch.pi * 3 * torch.arange(16) / 16).expand(1, 3, 16, 16)  # 3 cycles along a row
    found = fourier.to_spectrum(wave)[0, 0].abs()
    assert found.argmax() == 3
    assert fourier.frequencies(16).flatten()[3] == pytest.approx(3 / 16)
    assert fourier.decay(16, 1.0)[0, 0] == 16  # the mean is divided by no less than one cycle a picture
    assert fourier.decay(16, 2.0)[3, 4] == pytest.approx((16 / 5) ** 2)


@pytest.mark.parametrize("size", [6, 7])
def test_odd_phases_are_those_of_real_pictures(size):
    phase = noise(3, size, size // 2 + 1)
    spectrum = torch.polar(torch.ones_like(phase), fourier.odd(phase))
    back = fourier.to_spectrum(fourier.to_signal(spectrum, size))
    torch.testing.assert_close(back, spectrum)
    assert not torch.allclose(
        fourier.to_spectrum(fourier.to_signal(torch.polar(torch.ones_like(phase), phase), size)).abs(),
        torch.ones_like(phase),
    )
    real = fourier.to_spectrum(noise(1, 3, size, size)).angle()
    turned = fourier.odd(real) - real  # a real picture's are odd already, but for π at its mean and at the edges
    torch.testing.assert_close(turned.sin()[..., 1:-1], torch.zeros_like(real)[..., 1:-1])


def test_amplitudes_of_known_pictures_are_measured():
    size = 16
    frequency = fourier.frequencies(size).clamp_min(1 / size)
    phase = noise(400, 3, size, size // 2 + 1)
    channels = fourier.to_signal(torch.polar(0.2 / frequency.expand_as(phase), fourier.odd(torch.pi * phase)), size)
    channels = channels - channels.mean((2, 3), keepdim=True) + torch.tensor([0.3, -0.1, 0.2])[:, None, None]
    found = measure(torch.sigmoid(fourier.recorrelate(channels)))
    torch.testing.assert_close(found.mean, torch.tensor([0.3, -0.1, 0.2]), atol=0.02, rtol=0)
    expected = 0.2 / frequency
    expected[0, 0] = 0
    torch.testing.assert_close(found.amplitude, expected.expand(3, -1, -1), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("size", [11, 16, 40])
def test_one_over_f_stays_one_over_f_at_other_sizes(size):
    def law(side):
        found = 1 / fourier.frequencies(side).clamp_min(1e-9).expand(3, -1, -1).clone()
        found[:, 0, 0] = 0
        return found

    torch.testing.assert_close(at_size(law(16), size), law(size), atol=1e-3, rtol=1e-3)
    assert torch.equal(at_size(law(16), 16), law(16))


@pytest.mark.parametrize("size", [6, 32, 64, 100, 224, 300])
def test_the_shipped_spectrum_falls_with_frequency(size):
    spectrum = natural_spectrum(size)
    assert isinstance(spectrum, NaturalSpectrum)
    assert spectrum.amplitude.shape == (3, size, size // 2 + 1)
    assert spectrum.amplitude[:, 0, 0].tolist() == [0, 0, 0]
    frequency = fourier.frequencies(size)
    middle, high = (spectrum.amplitude[:, (frequency > low) & (frequency < low + 0.1)].mean(1) for low in (0.1, 0.4))
    assert (middle > 1.5 * high).all()
    assert middle.max() < 2 * middle.min()  # colours are decorrelated: no channel is more than the others


@pytest.mark.parametrize("size", [16, 17])
def test_rings_get_the_amplitudes_that_were_asked_for(size):
    """Against the profile of the metric, which counts whole spectra in double precision."""
    images, other = 0.5 + 0.02 * noise(2, 3, size, size), 0.5 + 0.03 * noise(2, 3, size, size, seed=1)
    made = fourier.with_ring_amplitudes(images, fourier.ring_amplitudes(fourier.to_spectrum(other)))
    for one, like in zip(made, other, strict=True):
        torch.testing.assert_close(amplitude_profile(one[None]), amplitude_profile(like[None]), atol=1e-3, rtol=0)
    torch.testing.assert_close(made.mean((2, 3)), images.mean((2, 3)))
    assert (
        fourier.with_ring_amplitudes(images, 100 * torch.ones(2, size)[:, : fourier.rings(size).max() + 1]).max() <= 1
    )
