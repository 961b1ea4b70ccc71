"""Kernel distance, amplitude spectrum, diversity and FID: closed forms, invariances, and what is refused."""

import math

import pytest
import torch

from vislens_interp.metrics import amplitude_spectrum, diversity, fid, frechet_distance, kernel_distance
from vislens_interp.metrics import spectrum_distance as distance


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(count, size=16, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_kernel_distance_is_that_of_torchmetrics():
    from torchmetrics.image.kid import poly_mmd

    a, b = draw(40, 6).double(), draw(30, 6, seed=1).double() + 0.3
    assert kernel_distance(a[:30], b) == pytest.approx(poly_mmd(a[:30], b).item(), rel=1e-9)


def test_kernel_distance_of_degree_one_is_the_squared_shift():
    x, shift = draw(4000, 3).double(), torch.tensor([3.0, 0.0, 4.0])
    unbiased = kernel_distance(x[:2000], x[2000:] + shift, degree=1)
    assert unbiased == pytest.approx(25 / 3, rel=0.03)


def test_kernel_distance_has_no_bias():
    values = [kernel_distance(draw(20, 4, seed=2 * s), draw(20, 4, seed=2 * s + 1)) for s in range(200)]
    mean, error = sum(values) / 200, torch.tensor(values).std().item() / 200**0.5
    assert abs(mean) < 4 * error
    assert min(values) < 0


def test_kernel_distance_refuses():
    with pytest.raises(ValueError, match="degree=0 must be at least 1.*Pass 3"):
        kernel_distance(draw(3, 2), draw(3, 2), degree=0)
    with pytest.raises(ValueError, match=r"features_a has shape \(3, 2\).*Flatten or pool"):
        kernel_distance(draw(3, 2), draw(3, 4))
    with pytest.raises(ValueError, match="features_b holds 1 images; expected at least 2"):
        kernel_distance(draw(3, 2), draw(1, 2))
    with pytest.raises(ValueError, match="features_a holds values that are NaN"):
        kernel_distance(draw(3, 2) * float("inf"), draw(3, 2))


def test_a_wave_stands_at_its_own_frequency():
    x = torch.arange(32) / 32
    wave = (0.5 + 0.25 * torch.sin(2 * math.pi * 5 * x)).expand(1, 3, 32, 32)
    spectrum = amplitude_spectrum(wave)
    assert spectrum.argmax().item() == 4  # five cycles a picture
    assert spectrum[torch.arange(16) != 4].max() < 1e-8
    assert torch.allclose(amplitude_spectrum(wave.transpose(2, 3)), spectrum)


def test_contrast_shifts_the_spectrum_by_its_logarithm():
    images = pictures(5)
    assert distance(images, images) == 0
    assert distance(images, 0.25 * images) == pytest.approx(math.log(4), rel=1e-6)
    assert distance(images, 0.5 * images + 0.3) == pytest.approx(math.log(2), rel=1e-4)  # brightness plays no part


def test_the_spectrum_does_not_see_where_things_are():
    images = pictures(4)
    assert distance(images, images.roll((3, 5), (2, 3))) < 1e-6
    assert distance(images, images[torch.tensor([2, 0, 3, 1])]) < 1e-9
    assert distance(images, images.flip(3)) < 1e-6


def test_blur_is_seen():
    images = pictures(6)
    blurred = torch.nn.functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    assert distance(images, blurred) > 0.5


def test_spectrum_refuses():
    with pytest.raises(ValueError, match=r"images has shape .*expected squares.*Resize or crop"):
        amplitude_spectrum(torch.rand(1, 3, 8, 6))
    with pytest.raises(ValueError, match=r"images_a has shape .*expected pictures of one size. Resize"):
        distance(pictures(1), pictures(1, 8))


def test_diversity_in_closed_form():
    assert diversity(torch.ones(4, 3)) == pytest.approx(0, abs=1e-6)
    assert diversity(torch.eye(5)) == 1
    assert diversity(torch.tensor([[1.0, 0], [-1.0, 0]])) == 2
    features = draw(6, 4)
    assert diversity(features[torch.randperm(6)] * 3) == pytest.approx(diversity(features), abs=1e-6)
    with pytest.raises(ValueError, match=r"features has shape \(1, 3\).*at least two pictures"):
        diversity(torch.ones(1, 3))


def test_fid_is_never_another_networks(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match="FID needs Inception-v3's own weights.*use frechet_distance"):
        fid(pictures(3), pictures(3))
    with pytest.raises(ValueError, match="generated holds 1 images; expected at least 2"):
        fid(pictures(3), pictures(1))


def test_fid_says_what_is_not_installed(tmp_path):
    from importlib.util import find_spec

    if find_spec("torch_fidelity"):
        pytest.skip("torch-fidelity is installed")
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"")
    with pytest.raises(ImportError, match="torch-fidelity is not installed.*pip install torch-fidelity"):
        fid(pictures(3), pictures(3), weights=weights)


def test_frechet_distance_is_that_of_torchmetrics():
    from torchmetrics.image.fid import _compute_fid

    a, b = draw(50, 4).double(), 2 * draw(60, 4, seed=1).double() + 1
    theirs = _compute_fid(a.mean(0), a.T.cov(), b.mean(0), b.T.cov()).item()
    assert frechet_distance(a, b) == pytest.approx(theirs, rel=1e-8)
