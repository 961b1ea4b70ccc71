"""Many units side by side are the single fits, up to rounding."""

import copy

import pytest
import torch

from vislens_interp.config import FitConfig
from vislens_interp.landscape.fit import fit_landscape
from vislens_interp.landscape.fit_many import fit_many
from vislens_interp.landscape.prior import ActivationPrior
from vislens_interp.landscape.vae import BottleneckCVAE, EmbeddingVAE

SETTINGS = FitConfig(epochs=8, lr=1e-2, lr_step=3, w_kld=0.3, batch_size=64)


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(300, 4, generator=generator)
    x = factors @ torch.randn(4, 12, generator=generator) + 0.1 * torch.randn(300, 12, generator=generator)
    return x, 3 + 0.5 * factors[:, :3]


def start():
    torch.manual_seed(0)
    return EmbeddingVAE(12, 8)


def check(many, singles):
    for one, alone in zip(many, singles, strict=True):
        assert one.names == alone.names
        assert one.settings == alone.settings
        assert torch.equal(one.held_out, alone.held_out)
        assert torch.equal(one.responses, alone.responses)
        torch.testing.assert_close(one.scaler.mean, alone.scaler.mean)
        torch.testing.assert_close(one.latents, alone.latents, rtol=1e-3, atol=1e-4)
        for weight, single in zip(one.vae.parameters(), alone.vae.parameters(), strict=True):
            torch.testing.assert_close(weight, single, rtol=1e-3, atol=1e-4)
            assert not weight.requires_grad
        assert len(one.history) == len(alone.history)
        for row, expected in zip(one.history, alone.history, strict=True):
            assert row.keys() == expected.keys()
            assert {**row, "seconds": 0} == pytest.approx({**expected, "seconds": 0}, rel=1e-3)


@pytest.mark.parametrize(
    ("prior", "changes"),
    [
        (ActivationPrior(8, [(0, 8)]), {}),
        (ActivationPrior(8, [(0, 4)]), {"clip": 0.5, "seed": 3}),
        (ActivationPrior(8, [(0, 4)], modes=2), {}),
        (ActivationPrior(8, [(0, 8)]), {"epochs": 60, "lr": 0.1, "lr_gamma": 1.0, "clip": 100.0, "patience": 2}),
        (ActivationPrior(8, [(0, 8)]), {"solver": "alternating"}),
    ],
    ids=["whole latent", "block, clipped", "modes", "patience", "alternating"],
)
def test_equal_to_single_fits(data, prior, changes):
    x, responses = data
    settings = FitConfig(**{**SETTINGS.__dict__, **changes})
    vae = start()
    before = copy.deepcopy(vae.state_dict())
    many = fit_many(vae, x, responses, prior, settings, names=["a", "b", "c"])
    singles = [
        fit_landscape(vae, x, responses[:, [unit]], prior, settings, names=[name]) for unit, name in enumerate("abc")
    ]
    check(many, singles)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    if "patience" in changes:  # the units stopped at different epochs, which is what has to be right
        assert len({len(one.history) for one in many}) > 1


def test_images_too():
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.interpolate(torch.rand(200, 3, 2, 2, generator=generator), size=8, mode="bilinear")
    responses = x.mean((2, 3))[:, :2]
    torch.manual_seed(0)
    vae = BottleneckCVAE(6, image_size=8, width=4)
    prior, settings = ActivationPrior(6, [(0, 2)]), FitConfig(epochs=2, lr=1e-2)
    many = fit_many(vae, x, responses, prior, settings)
    check(many, [fit_landscape(vae, x, responses[:, [u]], prior, settings, names=[str(u)]) for u in (0, 1)])


def test_what_it_refuses(data):
    x, responses = data
    prior = ActivationPrior(8, [(0, 8)])
    with pytest.raises(ValueError, match="prior has 2 blocks; .* Use fit_landscape for several units"):
        fit_many(start(), x, responses, ActivationPrior(8, [(0, 4), (4, 8)]), SETTINGS)
    with pytest.raises(ValueError, match="w_consistency=1.0, bf16=False: fit_many has neither"):
        fit_many(start(), x, responses, prior, FitConfig(w_consistency=1.0))
    with pytest.raises(ValueError, match=r"responses has shape \(299, 3\) for 300 images"):
        fit_many(start(), x, responses[1:], prior, SETTINGS)
    with pytest.raises(ValueError, match="images holds 150 images; a landscape needs at least 200"):
        fit_many(start(), x[:150], responses[:150], prior, SETTINGS)
    with pytest.raises(ValueError, match="unit 'b' never varies"):
        fit_many(start(), x, responses * torch.tensor([1, 0, 1]), prior, SETTINGS, names=list("abc"))
