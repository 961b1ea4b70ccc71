import copy

import pytest
import torch

from vislens_interp.copies import permuted_rows
from vislens_interp.landscape.closed_form_init import Codes, closed_form_init, shuffled_axes
from vislens_interp.landscape.prior import ActivationPrior, ResponseScaler
from vislens_interp.landscape.vae import BottleneckCVAE, EmbeddingVAE
from vislens_interp.math import GCV_PENALTIES, ridge_gcv


def pictures(count):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 3, 3, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=8, mode="bilinear")


@pytest.fixture(params=["cvae", "embedding"])
def made(request):
    """A VAE, what it encodes, and standardised responses of two units to it."""
    torch.manual_seed(0)
    if request.param == "cvae":
        vae, x = BottleneckCVAE(10, image_size=8, width=4), pictures(300)
    else:
        vae, x = EmbeddingVAE(12, 10), torch.randn(300, 12) @ torch.randn(12, 12)
    filters = torch.randn(x[0].numel(), 2)
    responses = x.flatten(1) @ filters
    responses = responses + 0.5 * responses.std(0) * torch.randn(300, 2)
    return vae, x, ResponseScaler.fit(responses).standardise(responses)


def latents(vae, x):
    with torch.no_grad():
        return vae.encode(x)[0]


@pytest.mark.parametrize("blocks", [[(0, 1), (1, 2)], [(0, 3), (3, 6)], [(2, 4), (7, 10)]], ids=str)
def test_what_is_decoded_stays_the_same(made, blocks):
    vae, x, responses = made
    before = vae.decode(latents(vae, x))
    closed_form_init(vae, x, responses, ActivationPrior(10, blocks))
    torch.testing.assert_close(vae.decode(latents(vae, x)), before, atol=1e-4, rtol=0)


@pytest.mark.parametrize("blocks", [[(0, 1), (1, 2)], [(0, 3), (3, 6)]], ids=str)
def test_axis_is_the_ridge_prediction(made, blocks):
    vae, x, responses = made
    codes = latents(vae, x).double()
    centred = responses.double() - responses.double().mean(0)
    predicted = (codes - codes.mean(0)) @ ridge_gcv(codes - codes.mean(0), centred)
    closed_form_init(vae, x, responses, ActivationPrior(10, blocks), axis_scale_sd=4.0)
    z = latents(vae, x)
    for unit, (start, stop) in enumerate(blocks):
        axis = z[:, start:stop].mean(1)
        expected = (predicted[:, unit] / (4 * predicted[:, unit].std())).float()
        torch.testing.assert_close(axis, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("blocks", [[(0, 1), (1, 2)], [(0, 3), (3, 6)]], ids=str)
def test_moving_one_block_leaves_the_other_units_prediction(made, blocks):
    vae, x, responses = made
    old = copy.deepcopy(vae)
    codes = latents(old, x).double()
    filters = ridge_gcv(codes - codes.mean(0), (responses - responses.mean(0)).double())
    closed_form_init(vae, x, responses, ActivationPrior(10, blocks))
    # The old code of a new one: what the first layer of the decoder says, before and after.
    weights = [vae.decoder[0] if isinstance(vae, BottleneckCVAE) else vae.fc_decode for vae in (old, vae)]
    columns = torch.linalg.lstsq(weights[0].weight.double(), weights[1].weight.double()).solution
    effect = (filters.T @ columns).detach()  # (units, latent_dim): what one step along each dimension predicts
    largest = effect.abs().max()
    for unit, (start, stop) in enumerate(blocks):
        own = effect[unit, start:stop]
        assert (own > 0.01 * largest).all()
        torch.testing.assert_close(own, own.mean().expand_as(own), atol=1e-4 * largest, rtol=1e-3)
        effect[unit, start:stop] = 0
    assert effect.abs().max() < 1e-4 * largest


def test_the_rest_is_ordered_by_gradients():
    torch.manual_seed(0)
    vae, x = EmbeddingVAE(10), torch.randn(300, 10)
    responses = torch.randn(300, 1)
    sight = torch.randn(10, 1)
    closed_form_init(vae, x, responses, ActivationPrior(10, [(0, 1)]), respond=lambda part: part @ sight)
    slope = (sight.T @ vae.fc_decode.weight.detach())[0]
    assert slope[1].abs() > 0.1
    assert slope[2:].abs().max() < 1e-3 * slope[1].abs()


def test_isolation_spares_the_other_unit():
    """Unit b answers to the square of what a's pattern drags along: a prediction cannot see it, a gradient can."""
    torch.manual_seed(0)
    x = torch.randn(2000, 6)
    x[:, 1] = 0.7 * x[:, 0] + 0.7 * x[:, 1]

    def respond(part):
        return torch.stack([part[:, 0], part[:, 2] + part[:, 1] ** 2], 1)

    responses = respond(x) - respond(x).mean(0)
    side, own, axis = {}, {}, {}
    for isolation in (0.0, 1.0, 100.0):
        vae = EmbeddingVAE(6)
        with torch.no_grad():
            vae.fc_encode.weight.copy_(torch.cat([torch.eye(6), torch.zeros(6, 6)]))
            vae.fc_encode.bias.zero_()
            vae.fc_decode.weight.copy_(torch.eye(6))
            vae.fc_decode.bias.zero_()
        prior = ActivationPrior(6, [(0, 1), (1, 2)])
        closed_form_init(vae, x, responses, prior, cross_talk_penalty=isolation, respond=respond)
        move = vae.fc_decode.weight[:, 0].detach()
        own[isolation], side[isolation] = move[0].item(), move[1].abs().item()
        axis[isolation] = latents(vae, x)[:, 0]
        torch.testing.assert_close(vae.decode(latents(vae, x)), x, atol=1e-3, rtol=0)
    assert side[100.0] < 0.1 * side[1.0] < 0.1 * side[0.0]
    assert own[100.0] == pytest.approx(own[0.0], rel=0.05)
    torch.testing.assert_close(axis[100.0], axis[0.0], atol=1e-3, rtol=0)


def test_one_unit_has_nobody_to_be_isolated_from(made):
    vae, x, responses = made
    prior = ActivationPrior(10, [(0, 1)])
    alone, isolated = copy.deepcopy(vae), copy.deepcopy(vae)
    for one, isolation in ((alone, 0.0), (isolated, 50.0)):
        closed_form_init(
            one, x, responses[:, :1], prior, cross_talk_penalty=isolation, respond=lambda part: part.flatten(1)[:, :1]
        )
    torch.testing.assert_close(latents(alone, x), latents(isolated, x), atol=0, rtol=0)


def test_organise_leaves_gradients_off_and_the_mode_evaluation():
    torch.manual_seed(0)
    vae, x = EmbeddingVAE(10), torch.randn(300, 10)
    closed_form_init(vae, x, torch.randn(300, 1), ActivationPrior(10, [(0, 2)]), respond=lambda part: part[:, :1])
    assert not vae.training
    assert all(parameter.grad is None for parameter in vae.parameters())


def test_ridge_recovers_a_planted_direction():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(500, 20, generator=generator, dtype=torch.float64)
    planted = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    responses = codes @ planted + 0.5 * torch.randn(500, 2, generator=generator, dtype=torch.float64)
    found = ridge_gcv(codes, responses)
    assert torch.cosine_similarity(found, planted, dim=0).min() > 0.99
    torch.testing.assert_close(found, planted, atol=0.1, rtol=0.1)


def test_ridge_is_shy_of_noise():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(100, 60, generator=generator, dtype=torch.float64)
    noise = torch.randn(100, 1, generator=generator, dtype=torch.float64)
    assert (codes @ ridge_gcv(codes, noise)).std() < 0.5 * (codes @ torch.linalg.lstsq(codes, noise).solution).std()


def test_ridge_minimises_the_gcv_score():
    generator = torch.Generator().manual_seed(1)
    codes = torch.randn(40, 10, generator=generator, dtype=torch.float64)
    responses = codes @ torch.randn(10, 1, generator=generator, dtype=torch.float64)
    responses = responses + 3 * torch.randn(40, 1, generator=generator, dtype=torch.float64)

    def solve(penalty):
        inverse = torch.linalg.inv(codes.T @ codes + penalty * torch.eye(10, dtype=torch.float64))
        hat = codes @ inverse @ codes.T
        score = ((responses - hat @ responses) ** 2).sum() / (40 - hat.trace()) ** 2
        return score.item(), inverse @ codes.T @ responses

    _, best = min((solve(penalty) for penalty in GCV_PENALTIES), key=lambda pair: pair[0])
    torch.testing.assert_close(ridge_gcv(codes, responses), best)


def test_shuffled_axes_are_those_of_landscapes_of_permuted_responses():
    torch.manual_seed(0)
    vae, x = EmbeddingVAE(12, 10), torch.randn(300, 12) @ torch.randn(12, 12)
    responses = x[:, :1] + torch.randn(300, 1)
    groups = torch.arange(300) // 2
    found = shuffled_axes(vae, Codes.of(vae, x), responses, groups, count=2, seed=3)
    assert found.shape == (2, 1, 12)
    generator = torch.Generator().manual_seed(3)
    for axis in found[:, 0]:
        one = copy.deepcopy(vae)
        closed_form_init(one, x, responses[permuted_rows(groups, generator)], ActivationPrior(10, [(0, 1)]))
        expected = one.fc_decode.weight[:, 0]
        assert torch.cosine_similarity(axis, expected, 0) > 0.9999
    assert torch.cosine_similarity(*found[:, 0], 0) < 0.99
