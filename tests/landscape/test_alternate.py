"""The exact rounds of the linear VAE: known optima, descent, and the same minimum that gradient steps look for."""

import math
from dataclasses import replace

import pytest
import torch

from vislens_interp.config import FitConfig
from vislens_interp.landscape.alternate import Alternating
from vislens_interp.landscape.fit import fit_landscape, split_rows
from vislens_interp.landscape.prior import ActivationPrior, ResponseScaler, kl_divergence
from vislens_interp.landscape.vae import BottleneckCVAE, EmbeddingVAE

EXACT = FitConfig(solver="alternating", epochs=100, w_kld=0.3, tolerance=5e-3)
PRIORS = {
    "one block": ActivationPrior(8, [(0, 8)]),
    "a block and the rest": ActivationPrior(8, [(0, 3)]),
    "one dimension": ActivationPrior(8, [(2, 3)]),
    "two units": ActivationPrior(8, [(0, 3), (4, 7)]),
    "modes": ActivationPrior(8, [(0, 8)], modes=2),
}


def planted(units=1):
    """400 embeddings with a few strong factors, and units that read one factor each."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(400, 4, generator=generator)
    x = factors @ torch.randn(4, 12, generator=generator) + 0.1 * torch.randn(400, 12, generator=generator)
    return x, 3 + 0.5 * factors[:, :units]


def start(seed=0):
    torch.manual_seed(seed)
    return EmbeddingVAE(12, 8)


def same(first, second):
    weights = zip(first.vae.state_dict().values(), second.vae.state_dict().values(), strict=True)
    histories = [[{k: v for k, v in row.items() if k != "seconds"} for row in one.history] for one in (first, second)]
    return all(torch.equal(one, two) for one, two in weights) and histories[0] == histories[1]


def expected_loss(vae, x, mean, sigma, settings):
    """Eq. 4 in expectation over the noise, written out once more."""
    code, log_variance = vae.encode(x)
    recon = ((vae.decode(code) - x) ** 2).sum(1) + log_variance.exp() @ (vae.fc_decode.weight**2).sum(0)
    kld = kl_divergence(code, log_variance, mean, sigma)
    return (settings.w_recon * recon + settings.w_kld * kld).mean()


def problem(prior, settings=EXACT):
    """What the solver is given, in double precision."""
    x, responses = planted(units=len(prior.blocks))
    training, _ = split_rows(len(x), settings)
    standard = ResponseScaler.fit(responses).standardise(responses)[training]
    modes = torch.arange(len(training))[:, None].expand_as(standard) % prior.modes
    mean, sigma = prior.parameters(standard, modes)
    vae = start().double()
    x, mean, sigma = (part.double() for part in (x[training], mean, sigma))
    return (
        vae,
        x,
        mean,
        sigma,
        Alternating(vae, x, mean, sigma, prior.blocks, settings.w_recon, settings.w_kld, shrink=False),
    )


@pytest.mark.parametrize("name", PRIORS)
def test_every_round_lowers_the_loss_that_it_says(name):
    vae, x, mean, sigma, solver = problem(PRIORS[name])
    losses = []
    for number in range(12):
        said = solver.round(first=number == 0)
        losses.append(said["loss"])
        assert said["loss"] == pytest.approx(expected_loss(vae, x, mean, sigma, EXACT).item(), rel=1e-4)
        assert said["loss"] == pytest.approx(EXACT.w_recon * said["recon"] + EXACT.w_kld * said["kld"])
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("name", PRIORS)
def test_the_gradient_vanishes_at_the_end(name):
    vae, x, mean, sigma, solver = problem(PRIORS[name])
    sizes = []
    for number in range(301):
        solver.round(first=number == 0)
        if number in (0, 300):
            vae.requires_grad_(True).zero_grad()
            expected_loss(vae, x, mean, sigma, EXACT).backward()
            sizes.append(torch.cat([parameter.grad.flatten() for parameter in vae.parameters()]).norm().item())
            vae.requires_grad_(False)
    assert sizes[-1] < 0.03 * sizes[0]  # along flat valleys the last of it goes slowly


def test_without_pull_it_is_probabilistic_pca():
    """A known optimum: under N(0, 1) a linear VAE keeps the components whose variance exceeds the noise's (Tipping and
    Bishop 1999; Lucas et al. 2019), here w_kld / (2 w_recon), and loses that much of each."""
    generator = torch.Generator().manual_seed(1)
    spread = torch.tensor([9.0, 4.0, 1.0, 0.2, 0.1], dtype=torch.float64)
    x = torch.linalg.qr(torch.randn(600, 5, generator=generator).double()).Q * 600**0.5
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T, correction=0))).T * spread.sqrt()
    vae = EmbeddingVAE(5).double()
    prior = ActivationPrior(5, [])
    mean, sigma = prior.parameters(torch.zeros(600, 0, dtype=torch.float64))
    solver = Alternating(vae, x, mean, sigma, [], 1.0, 0.8)
    for number in range(300):
        said = solver.round(first=number == 0)
    noise = 0.4
    kept = [value for value in spread.tolist() if value > noise]
    assert said["recon"] == pytest.approx(len(kept) * noise + 0.3, rel=1e-3)
    # At the posterior's mean, without its noise, a component is only shrunk.
    shrunk = sum(noise**2 / value for value in kept) + 0.3
    assert ((vae.decode(vae.encode(x)[0]) - x) ** 2).sum(1).mean().item() == pytest.approx(shrunk, rel=1e-3)
    assert said["kld"] == pytest.approx(sum(math.log(value / noise) / 2 for value in kept), rel=1e-3)


@pytest.mark.parametrize("name", ["one block", "a block and the rest", "two units"])
def test_validation_loss_is_no_higher_than_adams(name):
    prior = PRIORS[name]
    x, responses = planted(units=len(prior.blocks))
    paper = FitConfig(epochs=100, lr=1e-2, w_kld=0.3)  # a rate at which Adam settles on so few steps
    best = [
        min(row["validation_loss"] for row in fit_landscape(start(), x, responses, prior, one).history)
        for one in (paper, replace(EXACT, tolerance=1e-3))
    ]
    assert best[1] <= best[0]


def test_it_stops_where_it_settles():
    x, responses = planted()
    prior = PRIORS["one block"]
    short = fit_landscape(start(), x, responses, prior, EXACT)
    long = fit_landscape(start(), x, responses, prior, replace(EXACT, tolerance=0.0, epochs=25))
    assert len(short.history) < 25 == len(long.history)
    pairs = list(zip(short.history, long.history, strict=False))
    assert all(one["loss"] == two["loss"] for one, two in pairs)
    assert pairs[-2][0]["loss"] - pairs[-1][0]["loss"] < EXACT.tolerance * pairs[-1][0]["loss"]


def test_same_bits_each_time_and_after_an_interruption(tmp_path, monkeypatch):
    x, responses = planted()
    prior, settings = PRIORS["a block and the rest"], replace(EXACT, tolerance=0.0, epochs=6)
    whole = fit_landscape(start(), x, responses, prior, settings)
    assert same(whole, fit_landscape(start(), x, responses, prior, settings))
    checkpoint = tmp_path / "fit.safetensors"
    go_on = Alternating.round
    monkeypatch.setattr(Alternating, "round", interrupted_after(3))
    with pytest.raises(KeyboardInterrupt):
        fit_landscape(start(), x, responses, prior, settings, checkpoint=checkpoint)
    monkeypatch.setattr(Alternating, "round", go_on)
    assert checkpoint.exists()
    assert same(whole, fit_landscape(start(seed=5), x, responses, prior, settings, checkpoint=checkpoint))
    assert not checkpoint.exists()


def interrupted_after(rounds):
    """The real method, until a keyboard interrupt comes."""
    real, done = Alternating.round, []

    def method(self, first):
        done.append(first)
        if len(done) > rounds:
            raise KeyboardInterrupt
        return real(self, first)

    return method


def test_embeddings_without_full_rank():
    x, responses = planted()
    x = torch.cat([x, x[:, :3], torch.zeros(len(x), 2)], 1)
    torch.manual_seed(0)
    landscape = fit_landscape(EmbeddingVAE(17), x, responses, ActivationPrior(17, [(0, 17)]), EXACT)
    losses = [row["loss"] for row in landscape.history]
    assert losses == sorted(losses, reverse=True)
    assert torch.isfinite(landscape.latents).all()


def test_what_it_cannot_solve():
    x, responses = planted()
    prior = PRIORS["one block"]
    with pytest.raises(ValueError, match="solver='alternating' with w_consistency=1.0: .* Pass w_consistency=0"):
        FitConfig(solver="alternating", w_consistency=1.0)
    with pytest.raises(ValueError, match="solver='newton' is unknown; expected 'adam' or 'alternating'"):
        FitConfig(solver="newton")
    with pytest.raises(ValueError, match="tolerance=-1 must not be negative"):
        FitConfig(tolerance=-1)
    with pytest.raises(ValueError, match="needs both above 0. Use solver='adam'"):
        fit_landscape(start(), x, responses, prior, replace(EXACT, w_kld=0.0))
    with pytest.raises(ValueError, match="given a BottleneckCVAE; expected an EmbeddingVAE.* Use solver='adam'"):
        fit_landscape(BottleneckCVAE(8, image_size=8, width=2), torch.rand(400, 3, 8, 8), responses, prior, EXACT)


def test_responses_that_x_does_not_tell_are_not_learned_by_heart():
    """Sixty dimensions, 200 images and responses of pure noise: only the shrunk fit knows that there is nothing."""
    generator = torch.Generator().manual_seed(0)
    x, responses = torch.randn(200, 60, generator=generator), torch.randn(200, 1, generator=generator)
    mean, sigma = ActivationPrior(60, [(0, 60)]).parameters(responses)
    spread = {}
    for shrink in (False, True):
        torch.manual_seed(0)
        vae = EmbeddingVAE(60)
        solver = Alternating(vae, x, mean, sigma, [(0, 60)], 1.0, 3.0, shrink=shrink)
        for number in range(4):
            solver.round(first=number == 0)
        axis = vae.encode(x)[0].mean(1)
        spread[shrink] = torch.corrcoef(torch.stack([axis, responses[:, 0]]))[0, 1].item()
    assert spread[False] > 0.4
    assert abs(spread[True]) < 0.5 * spread[False]
