"""Ceilings against their closed form: with signal SD s and noise SD 1, r2 = s² / (s² + mean(1 / n))."""

import re

import pytest
import torch

from vislens_interp.brain import BrainDataset
from vislens_interp.brain.noise_ceiling import noise_ceiling

SNR = torch.tensor([0.3, 0.7, 1.5])


def responses(count=3000, repetitions=4, seed=0):
    draw = torch.Generator().manual_seed(seed)
    signal = torch.randn(count, 1, 3, generator=draw) * SNR
    return signal + torch.randn(count, repetitions, 3, generator=draw)


def closed_form(counts):
    return SNR**2 / (SNR**2 + (1 / counts).mean(0))


@pytest.mark.parametrize("form", ["split_half", "ncsnr"])
@pytest.mark.parametrize("repetitions", [2, 3, 4, 7])
def test_closed_form(form, repetitions):
    found = noise_ceiling(responses(repetitions=repetitions), ["a", "b", "c"], form, draws=10)
    expected = closed_form(torch.full((1, 3), float(repetitions)))
    assert torch.allclose(found.r2, expected, atol=0.04)
    assert torch.allclose(found.ncsnr, SNR, rtol=0.12)
    assert torch.allclose(found.r, found.r2.sqrt())
    assert found.images.tolist() == [3000] * 3


@pytest.mark.parametrize("form", ["split_half", "ncsnr"])
def test_unequal_repetitions(form):
    values = responses(repetitions=5)
    present = torch.arange(5)[None] < torch.arange(3000)[:, None] % 5 + 1  # one to five repetitions
    values[~present] = torch.nan
    counts = present.sum(1)[:, None].expand(-1, 3).float()
    found = noise_ceiling(values, ["a", "b", "c"], form, draws=10)
    assert torch.allclose(found.r2, closed_form(counts), atol=0.05)
    assert found.images.tolist() == [2400] * 3


def test_units_do_not_matter():
    values = responses(300)
    for form in ("split_half", "ncsnr"):
        plain, scaled = (noise_ceiling(v, ["a", "b", "c"], form, draws=3) for v in (values, 50 * values + 700))
        assert torch.allclose(plain.r2, scaled.r2, atol=1e-4)


def test_extremes():
    signal = torch.randn(200, 1, 1, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1)
    noise = torch.randn(4000, 4, 1, generator=torch.Generator().manual_seed(1))
    for form in ("split_half", "ncsnr"):
        assert noise_ceiling(signal, ["a"], form).r2.item() == pytest.approx(1, abs=1e-6)
        assert noise_ceiling(noise, ["a"], form).r2.item() < 0.05
        assert noise_ceiling(torch.ones(5, 2, 1), ["a"], form).r2.item() == 0


def test_a_perfect_model_reaches_it_and_no_more():
    values = responses(4000)
    draw = torch.Generator().manual_seed(0)
    signal = torch.randn(4000, 1, 3, generator=draw)[:, 0]  # what responses() drew first
    mean = values.mean(1)
    r = torch.stack([torch.corrcoef(torch.stack([mean[:, k], signal[:, k]]))[0, 1] for k in range(3)])
    assert torch.allclose(r, noise_ceiling(values, ["a", "b", "c"]).r, atol=0.03)


def test_it_repeats_itself_and_the_data_set_passes_it_on():
    data = BrainDataset.from_arrays(torch.rand(50, 3, 2, 2), responses(50), targets=["a", "b", "c"])
    one, two = data.noise_ceiling(draws=5, seed=1), data.noise_ceiling(draws=5, seed=1)
    assert torch.equal(one.r2, two.r2)
    assert one.form == "split_half"
    assert not torch.equal(one.r2, data.noise_ceiling(draws=5, seed=2).r2)
    assert str(data.noise_ceiling("ncsnr")).endswith("(largest R, ncsnr)")


def test_p_is_that_of_an_analysis_of_variance():
    from scipy.stats import f_oneway

    values = 3 + torch.randn(20, 4, 3, generator=torch.Generator().manual_seed(3))
    values[:, :, 1] += torch.linspace(-0.5, 0.5, 20)[:, None]
    values[0, 1:, 0] = values[4, 0, 1] = torch.nan
    values[7, :, 2] = torch.nan
    for form in ("split_half", "ncsnr"):
        found = noise_ceiling(values, ["a", "b", "c"], form, draws=2)
        for column, p in enumerate(found.p.tolist()):
            groups = [row[~row.isnan()].double().numpy() for row in values[:, :, column]]
            assert p == pytest.approx(f_oneway(*(group for group in groups if len(group))).pvalue, rel=1e-4)
        assert torch.equal(found.above_chance, found.p < 0.05)


def test_noise_is_above_chance_one_time_in_twenty_whatever_its_ceiling():
    noise = torch.randn(60, 4, 2000, generator=torch.Generator().manual_seed(0))
    found = noise_ceiling(noise, [str(column) for column in range(2000)], "ncsnr")
    assert (found.r > 0.2).float().mean() > 0.3  # what a reader would take for a signal
    assert found.above_chance.float().mean().item() == pytest.approx(0.05, abs=0.015)
    for still in (torch.ones(5, 2, 1), torch.full((7, 3, 1), 0.1)):
        assert noise_ceiling(still, ["a"]).p.item() == 1
    signal = torch.randn(9, 1, 1, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1)
    assert noise_ceiling(signal, ["a"]).p.item() == 0


def test_what_is_not_above_chance_is_said():
    draw = torch.Generator().manual_seed(1)
    values = torch.randn(50, 4, 2, generator=draw)
    values[:, :, 0] += 2 * torch.randn(50, 1, generator=draw)
    data = BrainDataset.from_arrays(torch.rand(50, 3, 2, 2), values, targets=["signal", "noise"])
    assert data.noise_ceiling().above_chance.tolist() == [True, False]
    assert re.search(r"noise 0\.\d\d \(not above chance, p = 0\.\d\d\) \(largest R", str(data.noise_ceiling()))
    assert "(median), 1 of 2 targets above chance)" in repr(data)
    assert "noise ceiling not above chance (F test, p >= 0.05): noise" in data.summary().splitlines()
    assert repr(data.select("noise")).endswith(", not above chance)")
    assert repr(data.select("signal")).endswith(", above chance)")
    assert "chance (F" not in data.select("signal").summary()


def test_errors():
    with pytest.raises(ValueError, match="form='half' is unknown; expected 'split_half' or 'ncsnr'"):
        noise_ceiling(responses(5), ["a", "b", "c"], "half")
    with pytest.raises(ValueError, match="draws=0; expected at least 1"):
        noise_ceiling(responses(5), ["a", "b", "c"], draws=0)
    averaged = BrainDataset.from_arrays(torch.rand(5, 3, 2, 2), responses(5)[:, 0], targets=["a", "b", "c"])
    with pytest.raises(ValueError, match="target 'a' has 0 images with two repetitions or more"):
        averaged.noise_ceiling()
