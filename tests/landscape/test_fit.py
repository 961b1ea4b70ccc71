import copy
import shutil

import pytest
import torch

from vislens_interp.config import FitConfig
from vislens_interp.files import save_state
from vislens_interp.landscape.fit import fit_landscape, split_rows
from vislens_interp.landscape.prior import ActivationPrior
from vislens_interp.landscape.vae import BottleneckCVAE, EmbeddingVAE

QUICK = {"epochs": 15, "lr": 1e-2, "w_kld": 0.3, "batch_size": 64}


def planted(count=400, units=1, seed=0):
    """Embeddings with a few strong factors, and units that read one factor each."""
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(count, 4, generator=generator)
    x = factors @ torch.randn(4, 12, generator=generator) + 0.1 * torch.randn(count, 12, generator=generator)
    return x, 3 + 0.5 * factors[:, :units]


def start(seed=0):
    torch.manual_seed(seed)
    return EmbeddingVAE(12, 8)


PRIOR = ActivationPrior(8, [(0, 4)])


def axis_correlation(landscape, responses, unit=0):
    rows = landscape.held_out
    pair = torch.stack([landscape.axis(unit, landscape.latents[rows]), responses[rows, unit]])
    return torch.corrcoef(pair)[0, 1].item()


@pytest.fixture(scope="module")
def fitted():
    x, responses = planted()
    return fit_landscape(start(), x, responses, PRIOR, FitConfig(**QUICK), names=["planted"])


def test_a_planted_unit_organises_the_latent(fitted):
    _, responses = planted()
    assert axis_correlation(fitted, responses) > 0.8


def test_shuffled_responses_do_not():
    x, responses = planted()
    shuffled = responses[torch.randperm(len(x), generator=torch.Generator().manual_seed(3))]
    landscape = fit_landscape(start(), x, shuffled, PRIOR, FitConfig(**QUICK))
    assert abs(axis_correlation(landscape, responses)) < 0.4


def test_losses_go_down(fitted):
    history = fitted.history
    assert [row["epoch"] for row in history] == list(range(1, 16))
    for name in ("loss", "recon", "validation_loss"):
        assert history[-1][name] < 0.7 * history[0][name]
    assert history[0]["loss"] == pytest.approx(history[0]["recon"] + 0.3 * history[0]["kld"], rel=1e-4)


def test_what_a_landscape_says_of_its_fit(fitted):
    x, responses = planted()
    assert fitted.names == ["planted"]
    assert fitted.settings == FitConfig(**QUICK).__dict__
    assert len(fitted.held_out) == 40
    assert torch.equal(fitted.responses, responses)
    assert torch.equal(fitted.latents, fitted.encode(x)[0])
    assert not fitted.vae.training
    assert not any(parameter.requires_grad for parameter in fitted.vae.parameters())


def test_held_out_images_are_never_trained_on():
    x, responses = planted()
    settings = FitConfig(epochs=1)
    training, held_out = split_rows(len(x), settings)
    assert sorted([*training.tolist(), *held_out.tolist()]) == list(range(400))
    other, answers = x.clone(), responses.clone()
    other[held_out] += 1
    answers[held_out] = answers[held_out].flip(0)  # the same mean and SD
    first, second = (
        fit_landscape(start(), images, read, PRIOR, settings) for images, read in ((x, responses), (other, answers))
    )
    assert torch.equal(first.held_out, held_out)
    for one, two in zip(first.vae.parameters(), second.vae.parameters(), strict=True):
        torch.testing.assert_close(one, two)


def same(first, second):
    weights = zip(first.vae.state_dict().values(), second.vae.state_dict().values(), strict=True)
    histories = [[{k: v for k, v in row.items() if k != "seconds"} for row in one.history] for one in (first, second)]
    return (
        all(torch.equal(one, two) for one, two in weights)
        and torch.equal(first.latents, second.latents)
        and histories[0] == histories[1]
    )


def test_same_seed_is_bit_identical_and_the_global_generator_is_left_alone(fitted):
    x, responses = planted()
    torch.manual_seed(99)
    before = torch.get_rng_state()
    vae = start()
    torch.set_rng_state(before)
    again = fit_landscape(vae, x, responses, PRIOR, FitConfig(**QUICK))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(fitted, again)
    other = fit_landscape(start(), x, responses, PRIOR, FitConfig(**QUICK, seed=1))
    assert not same(fitted, other)


def test_the_given_vae_is_not_changed(fitted):
    x, responses = planted()
    warm = copy.deepcopy(fitted.vae).train()
    before = copy.deepcopy(warm.state_dict())
    fit_landscape(warm, x, responses, PRIOR, FitConfig(epochs=1, lr=0.1))
    assert all(torch.equal(value, before[name]) for name, value in warm.state_dict().items())
    assert warm.training
    assert not any(parameter.requires_grad for parameter in warm.parameters())


def test_a_warm_start_starts_where_it_left_off(fitted):
    x, responses = planted()
    row = fit_landscape(fitted.vae, x, responses, PRIOR, FitConfig(**(QUICK | {"epochs": 1, "lr": 1e-6}))).history[0]
    best = min(entry["validation_loss"] for entry in fitted.history)
    assert row["validation_loss"] == pytest.approx(best, rel=1e-3)


class Interrupted:
    """Features that a keyboard interrupt meets after so many calls."""

    def __init__(self, calls):
        self.calls = calls

    def __call__(self, x):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return x[:, ::2] * 2


@pytest.mark.parametrize("calls", [22, 40])
def test_interrupted_and_resumed_is_uninterrupted(tmp_path, calls):
    x, responses = planted()
    settings = FitConfig(**(QUICK | {"epochs": 6, "lr_step": 2}), w_consistency=0.5)
    whole = fit_landscape(start(), x, responses, PRIOR, settings, consistency=Interrupted(10_000))
    assert "consistency" in whole.history[0]
    checkpoint = tmp_path / "fit.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit_landscape(start(), x, responses, PRIOR, settings, consistency=Interrupted(calls), checkpoint=checkpoint)
    assert checkpoint.exists()
    resumed = fit_landscape(
        start(seed=5), x, responses, PRIOR, settings, consistency=Interrupted(10_000), checkpoint=checkpoint
    )
    assert same(whole, resumed)
    assert not checkpoint.exists()


@pytest.mark.parametrize("solver", ["adam", "alternating"])
def test_interrupted_after_its_last_epoch_a_fit_is_over(tmp_path, solver):
    x, responses = planted()
    settings = FitConfig(epochs=40, lr=0.3, patience=3, solver=solver, w_consistency=0)
    checkpoint, kept = tmp_path / "fit.safetensors", tmp_path / "kept.safetensors"

    def keep(path, kind, state):
        return shutil.copy(save_state(path, kind, state), kept)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vislens_interp.landscape.fit.save_state", keep)
        whole = fit_landscape(start(), x, responses, PRIOR, settings, checkpoint=checkpoint)
    assert len(whole.history) < 40
    resumed = fit_landscape(start(), x, responses, PRIOR, settings, checkpoint=kept)
    assert resumed.history == whole.history
    assert same(whole, resumed)


def test_checkpoint_of_another_fit_is_refused(tmp_path):
    x, responses = planted()
    checkpoint = tmp_path / "fit.safetensors"
    settings = FitConfig(epochs=3, w_consistency=0.5)
    with pytest.raises(KeyboardInterrupt):
        fit_landscape(start(), x, responses, PRIOR, settings, consistency=Interrupted(10), checkpoint=checkpoint)
    with pytest.raises(ValueError, match=r"checkpoint='.*' belongs to a fit with other settings; delete it"):
        fit_landscape(start(), x, responses, PRIOR, FitConfig(epochs=4), checkpoint=checkpoint)
    with pytest.raises(ValueError, match="belongs to a fit of other images, responses or prior; delete it"):
        fit_landscape(
            start(), x, responses.flip(0), PRIOR, settings, consistency=Interrupted(99), checkpoint=checkpoint
        )
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    with pytest.raises(ValueError, match="truncated or not a saved fit checkpoint"):
        fit_landscape(start(), x, responses, PRIOR, settings, consistency=Interrupted(99), checkpoint=checkpoint)


def test_patience_stops_and_the_best_epoch_is_kept():
    x, responses = planted()
    settings = FitConfig(epochs=200, lr=0.3, lr_gamma=1.0, clip=100.0, patience=3)
    landscape = fit_landscape(start(), x, responses, PRIOR, settings)
    losses = [row["validation_loss"] for row in landscape.history]
    assert len(losses) < 200
    assert min(range(len(losses)), key=losses.__getitem__) == len(losses) - 4
    decoded = landscape.decode(landscape.latents[landscape.held_out])
    recon = ((decoded - x[landscape.held_out]) ** 2).sum(1).mean().item()
    assert recon == pytest.approx(landscape.history[-4]["validation_recon"], rel=1e-3)


def test_several_units_have_a_block_each():
    x, responses = planted(units=2)
    prior = ActivationPrior(8, [(0, 3), (3, 6)])
    landscape = fit_landscape(start(), x, responses, prior, FitConfig(**(QUICK | {"epochs": 40})), names=["a", "b"])
    rows = landscape.held_out
    table = torch.corrcoef(
        torch.cat([torch.stack([landscape.axis(u, landscape.latents[rows]) for u in (0, 1)]), responses[rows].T])
    )
    assert table[0, 2] > 0.6
    assert table[1, 3] > 0.6
    assert table[0, 3].abs() < 0.5
    assert table[1, 2].abs() < 0.5


def test_several_modes_fit():
    x, responses = planted()
    landscape = fit_landscape(start(), x, responses, ActivationPrior(8, [(0, 4)], modes=2), FitConfig(**QUICK))
    assert axis_correlation(landscape, responses) > 0.7


def test_images_fit():
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.interpolate(torch.rand(200, 3, 2, 2, generator=generator), size=8, mode="bilinear")
    torch.manual_seed(0)
    landscape = fit_landscape(
        BottleneckCVAE(6, image_size=8, width=4),
        x,
        x.mean((1, 2, 3))[:, None],
        ActivationPrior(6, [(0, 2)]),
        FitConfig(epochs=2, lr=1e-2),
    )
    assert landscape.decode(landscape.latents).shape == x.shape
    assert landscape.history[1]["recon"] < landscape.history[0]["recon"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs=0 must be greater than 0"),
        ({"batch_size": -1}, "batch_size=-1 must be greater than 0"),
        ({"lr": 0.0}, "lr=0.0 must be greater than 0"),
        ({"lr_step": 0}, "lr_step=0 must be greater than 0"),
        ({"lr_gamma": 0.0}, "lr_gamma=0.0 must be greater than 0"),
        ({"clip": 0}, "clip=0 must be greater than 0"),
        ({"w_recon": -1}, "w_recon=-1 must not be negative"),
        ({"w_kld": -0.5}, "w_kld=-0.5 must not be negative"),
        ({"w_consistency": -2}, "w_consistency=-2 must not be negative"),
        ({"validation": 0.0}, r"validation=0.0 must lie between 0 and 1"),
        ({"validation": 1.0}, r"validation=1.0 must lie between 0 and 1"),
        ({"patience": 0}, "patience=0 must be at least 1"),
    ],
    ids=str,
)
def test_impossible_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        FitConfig(**wrong)


def test_bad_data():
    x, responses = planted()
    settings = FitConfig(epochs=1)
    with pytest.raises(ValueError, match="responses has 399 rows for 400 images; expected one row an image"):
        fit_landscape(start(), x, responses[1:], PRIOR, settings)
    with pytest.raises(ValueError, match=r"images holds 199 images; .* at least 200 .*Give more"):
        fit_landscape(start(), x[:199], responses[:199], PRIOR, settings)
    with pytest.raises(ValueError, match=r"responses has shape \(400, 2\); expected \(N, 1\)"):
        fit_landscape(start(), x, responses.expand(-1, 2), PRIOR, settings)
    with pytest.raises(ValueError, match="unit 'dead' never varies"):
        fit_landscape(start(), x, responses * 0, PRIOR, settings, names=["dead"])
    with pytest.raises(ValueError, match="w_consistency=1.0 needs consistency="):
        fit_landscape(start(), x, responses, PRIOR, FitConfig(w_consistency=1.0))
    with pytest.raises(
        ValueError, match="gave a validation loss that is not finite in any epoch; .* Scale x, or lower lr"
    ):
        fit_landscape(start(), x * 1e20, responses, PRIOR, settings)
    responses[7] = torch.nan
    with pytest.raises(ValueError, match="responses holds 1 values that are NaN or infinite"):
        fit_landscape(start(), x, responses, PRIOR, settings)
