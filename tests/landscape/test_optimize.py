import pytest
import torch
from torch import nn

from vislens_interp.config import OptimizeConfig
from vislens_interp.landscape.optimize import Reading, optimize

SLOPE = torch.tensor([1.0, -0.5, 0.3, 0.0, 2.0])
BLOCK = torch.tensor([True, True, False, False, False])


def linear(latent, rows):
    return Reading(latent @ SLOPE)


@pytest.fixture
def start():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3, 5, generator=generator)
    goal = torch.where(BLOCK, torch.ones(5), z)
    return z, {"goal": goal, "sigma": torch.full((3, 5), 0.3), "block": BLOCK}


def run(z, given, look=linear, **settings):
    chosen = {"lr": 0.02, "steps": 600, "w_kld": 1.0, "chunk": 4} | settings
    return optimize(z, look, OptimizeConfig(**chosen), **given)


def test_standard_prior_finds_the_known_optimum(start):
    z, given = start  # the maximiser of a.z - w |z|^2 / 2
    found = run(z, given, prior="standard", w_kld=2.0)
    torch.testing.assert_close(found.latents, (SLOPE / 2).expand(3, 5), atol=1e-3, rtol=0)


def test_structured_prior_finds_the_known_optimum(start):
    z, given = start  # a.z - w |z - goal|^2 / (2 s^2), s of the block or of the anchor
    found = run(z, given, sigma_prior=0.5, anchor_sigma=0.7, move="all", w_kld=1.0)
    width = torch.where(BLOCK, 0.5, 0.7)
    torch.testing.assert_close(found.latents, given["goal"] + SLOPE * width**2, atol=1e-3, rtol=0)


def test_quadratic_response_finds_the_known_optimum(start):
    z, given = start
    peak = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.0])
    found = run(z, given, lambda latent, rows: Reading(-((latent - peak) ** 2).sum(1)), prior="standard", w_kld=1.0)
    torch.testing.assert_close(found.latents, (2 * peak / 3).expand(3, 5), atol=1e-3, rtol=0)


def test_a_block_moves_alone(start):
    z, given = start
    found = run(z, given, sigma_prior=0.5, move="block", w_kld=1.0)
    assert torch.equal(found.latents[:, ~BLOCK], z[:, ~BLOCK])
    expected = given["goal"][:, BLOCK] + SLOPE[BLOCK] * 0.25
    torch.testing.assert_close(found.latents[:, BLOCK], expected, atol=1e-3, rtol=0)


def test_other_units_blocks_stay(start):
    z, given = start
    others = torch.tensor([False, False, True, False, False])
    found = run(z, given | {"others": others}, sigma_prior=0.5, anchor_sigma=0.7, move="all")
    assert torch.equal(found.latents[:, others], z[:, others])
    assert (found.latents - z)[:, 4].abs().min() > 0.1
    both = run(z, given | {"others": others | BLOCK}, sigma_prior=0.5, move="all")
    assert (both.latents - z)[:, BLOCK].abs().min() > 0.01  # what is the edit's own is not another's


def test_noise_wakes_a_silent_unit_without_a_prior(start):
    z, given = start

    def rectified(latent, rows):
        return Reading((latent @ SLOPE - z[rows] @ SLOPE - 0.5).relu())

    settings = {"prior": "standard", "w_kld": 0.0, "steps": 200}
    assert torch.equal(run(z, given, rectified, **settings).latents, z)
    woken = run(z, given, rectified, noise=2.0, **settings)
    assert (rectified(woken.latents, torch.arange(3)).response > 0.5).all()


def test_under_noise_the_mean_round_a_latent_counts_not_the_latent_alone(start):
    z, given = start

    def narrow_and_wide(latent, rows):
        narrow = torch.exp(-((latent[:, 0] - z[rows, 0] - 0.5) ** 2) / (2 * 0.05**2))
        wide = 0.8 * torch.exp(-((latent[:, 0] - z[rows, 0] + 0.5) ** 2) / (2 * 0.4**2))
        return Reading(narrow + wide)

    given = given | {"sigma": torch.full((3, 5), 0.3)}
    beside = z + torch.tensor([0.4, 0, 0, 0, 0])
    settings = {"prior": "standard", "w_kld": 0.0, "steps": 600}

    def from_beside(latent, rows):
        return narrow_and_wide(latent, rows)

    sharp = run(beside, given, from_beside, **settings).latents - z
    broad = run(beside, given, from_beside, noise=1.0, **settings).latents - z
    torch.testing.assert_close(sharp[:, 0], torch.full((3,), 0.5), atol=0.02, rtol=0)
    torch.testing.assert_close(broad[:, 0], torch.full((3,), -0.5), atol=0.15, rtol=0)


def test_noise_depends_on_its_seed_and_not_on_the_batch(start):
    z, given = start
    settings = {"noise": 1.0, "steps": 20, "chunk": 2}
    found = run(z, given | {"seed": 1}, **settings)
    again, other = (run(z, given | {"seed": seed}, **settings) for seed in (1, 2))
    assert torch.equal(found.responses, again.responses)
    assert not torch.equal(found.responses, other.responses)
    last = {name: value[2:] if name in ("goal", "sigma") else value for name, value in given.items()}
    torch.testing.assert_close(run(z[2:], last | {"seed": 1}, **settings).latents, found.latents[2:], atol=0, rtol=0)


def test_a_lucky_draw_of_the_noise_is_not_kept(start):
    z, given = start
    found = run(z, given, prior="standard", w_kld=2.0, noise=1.0)
    torch.testing.assert_close(found.latents, (SLOPE / 2).expand(3, 5), atol=2e-2, rtol=0)


@pytest.mark.parametrize("patience", [None, 5])
def test_a_first_draw_that_silences_a_unit_is_not_where_it_stops(patience):
    """A rectified unit that is awake; for some seeds the very first draw puts it to sleep."""
    generator = torch.Generator().manual_seed(0)
    z, weights = torch.randn(60, 16, generator=generator), torch.randn(16, generator=generator)
    z = z[(z @ weights > 0.5) & (z @ weights < 4)]
    given = {"goal": z, "sigma": torch.full_like(z, 0.5), "block": torch.ones(16, dtype=torch.bool)}

    def down(latent, rows):
        return Reading(-(latent @ weights).relu())

    for seed in range(6):
        settings = {"prior": "standard", "noise": 2.0, "lr": 0.2, "steps": 50, "w_kld": 1e-4, "patience": patience}
        found = run(z, given | {"seed": seed}, down, **settings)
        assert ((found.latents - z).norm(dim=1) > 0.1).all()
        assert (found.latents @ weights < z @ weights).all()


def test_a_step_is_as_long_as_the_spread(start):
    z, given = start
    spread = torch.tensor([0.1, 1.0, 2.0, 0.5, 0.0])
    found = run(z, given | {"spread": spread}, prior="standard", scale="spread", lr=0.01, steps=1, w_kld=0.01)
    torch.testing.assert_close((found.latents - z).abs(), (0.01 * spread).expand(3, 5), atol=1e-5, rtol=0)
    long = run(z, given | {"spread": spread}, prior="standard", scale="spread", lr=0.01, steps=4000, w_kld=2.0)
    torch.testing.assert_close(long.latents[:, :4], (SLOPE / 2)[:4].expand(3, 4), atol=2e-2, rtol=0)


@pytest.mark.parametrize(("scale", "name"), [("spread", "spread"), ("response", "sensitivity")])
def test_what_a_scale_needs_is_asked_for(start, scale, name):
    z, given = start
    with pytest.raises(ValueError, match=f"{name} is None; scale='{scale}' needs"):
        run(z, given, scale=scale)


def test_steps_by_response_are_as_long_as_the_posterior_and_go_where_the_unit_answers(start):
    z, given = start
    sigma = torch.tensor([[0.1, 0.2, 0.4, 0.2, 0.2]]).expand(3, 5)
    sensitivity = torch.tensor([1.0, 1.0, 1.0, 0.0, 4.0])
    given = given | {"sigma": sigma, "sensitivity": sensitivity}
    found = run(z, given, prior="standard", scale="response", lr=0.01, steps=1, w_kld=0.01)
    moved = (found.latents - z).abs()
    torch.testing.assert_close(moved.norm(dim=1), 0.01 * sigma.norm(dim=1), atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[:, 4] / moved[:, 1], torch.full((3,), 2.0), atol=1e-3, rtol=0)  # √4
    torch.testing.assert_close(moved[:, 2] / moved[:, 0], torch.full((3,), 8.0), atol=1e-2, rtol=0)  # 4^1.5
    assert (moved[:, 3] == 0).all()


def test_a_unit_that_nothing_moves_takes_steps_of_the_posterior(start):
    z, given = start
    given = given | {"sensitivity": torch.zeros(5)}
    found = run(z, given, prior="standard", scale="response", lr=0.01, steps=1, w_kld=0.01)
    torch.testing.assert_close((found.latents - z).abs(), torch.full((3, 5), 0.01 * 0.3), atol=1e-5, rtol=0)
    assert torch.isfinite(found.responses).all()


def test_the_mean_may_lie_further_off(start):
    z, given = start
    found = run(z, given, sigma_prior=0.5, prior_mean_scale=3.0, steps=3000)
    expected = 3 * given["goal"][:, BLOCK] + SLOPE[BLOCK] * 0.25
    torch.testing.assert_close(found.latents[:, BLOCK], expected, atol=2e-3, rtol=0)
    assert torch.equal(found.latents[:, ~BLOCK], z[:, ~BLOCK])


def test_a_silent_picture_is_led_by_the_prior_until_it_answers(start):
    z, given = start

    def rectified(latent, rows):
        before = latent[:, 0] - 0.5
        return Reading(10 * before.relu(), silent=before <= 0)

    z = z.clone()
    z[:, 0] = -1.0
    stuck = run(z, given | {"goal": z}, rectified, w_kld=1e-6, w_silent=1.0, steps=200)
    assert (stuck.responses[-1] == 0).all()  # a prior that leads nowhere
    led = run(z, given, rectified, w_kld=1e-6, w_silent=1.0, prior_mean_scale=2.0, steps=200)
    assert (led.responses[-1] > 1).all()
    answering = given | {"goal": torch.where(BLOCK, -torch.ones(5), z)}  # a prior that pulls the other way
    z[:, 0] = 2.0
    up = run(z, answering, rectified, w_kld=1e-6, w_silent=1.0, steps=50)
    assert (up.latents[:, 0] > 2.0).all()  # is not listened to where the response speaks


def test_what_should_stay_is_held(start):
    z, given = start
    kept = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0])

    def held(latent, rows):
        return Reading(latent @ SLOPE, change=(((latent - z[rows]) * kept) ** 2).sum(1))

    found = run(z, given, held, prior="standard", w_kld=2.0, w_consistency=5.0)
    # a.z - |z|² - 5 k |z - z0|², dimension by dimension
    expected = (SLOPE / 2 + 5 * kept * z) / (1 + 5 * kept)
    torch.testing.assert_close(found.latents, expected, atol=2e-3, rtol=0)


def test_klds_are_those_of_torch(start):
    from torch.distributions import Normal, kl_divergence

    z, given = start
    sigma = given["sigma"]
    standard = kl_divergence(Normal(z, sigma), Normal(torch.zeros(5), torch.ones(5))).sum(1)
    torch.testing.assert_close(run(z, given, prior="standard", steps=1).klds[0], standard)
    width = torch.where(BLOCK, 0.1, 1.0)
    structured = kl_divergence(Normal(z, sigma), Normal(given["goal"], width))
    torch.testing.assert_close(run(z, given, move="all", steps=1).klds[0], structured.sum(1))
    torch.testing.assert_close(run(z, given, steps=1).klds[0], structured[:, BLOCK].sum(1))


def test_curves(start):
    z, given = start
    seen = []
    found = optimize(
        z, linear, OptimizeConfig(steps=7, chunk=2), **given, trace=lambda step, latent: seen.append((step, latent))
    )
    assert found.responses.shape == found.klds.shape == (8, 3)
    torch.testing.assert_close(found.responses[0], z @ SLOPE)
    assert found.latents.shape == (3, 5)
    assert found.steps.tolist() == [7, 7, 7]
    assert [step for step, _ in seen] == [*range(8), *range(8)]
    assert [len(latent) for _, latent in seen] == [2] * 8 + [1] * 8


def test_the_lowest_loss_is_kept(start):
    z, given = start
    found = run(z, given, prior="standard", lr=2.0, steps=25)
    losses = found.klds - found.responses
    kept = run(found.latents, given, prior="standard", steps=1)
    torch.testing.assert_close(kept.klds[0] - kept.responses[0], losses.min(0).values)


def test_patience_stops_an_image_alone(start):
    z, given = start
    flat = torch.tensor([0.0, 1.0, 1.0])  # the first image has nothing to gain

    def look(latent, rows):
        return Reading((latent @ SLOPE) * flat[rows])

    found = run(z, given, look, w_kld=0.0, patience=5, steps=40)
    assert found.steps.tolist() == [5, 40, 40]
    assert torch.equal(found.latents[0], z[0])
    assert (found.responses[5:, 0] == found.responses[5, 0]).all()
    assert (found.responses[1:, 1] > found.responses[:-1, 1]).all()
    alone = run(
        z[1:2], {k: v if k == "block" else v[1:2] for k, v in given.items()}, linear, w_kld=0.0, patience=5, steps=40
    )
    torch.testing.assert_close(found.latents[1:2], alone.latents, atol=1e-6, rtol=0)


def test_when_all_have_stopped_the_curves_go_on_level(start):
    z, given = start
    found = run(z, given, lambda latent, rows: Reading(latent.sum(1) * 0), w_kld=0.0, patience=3, steps=30)
    assert found.steps.tolist() == [3, 3, 3]
    assert found.responses.shape == (31, 3)


@pytest.mark.parametrize("move", ["block", "all"])
def test_an_image_does_not_depend_on_its_batch(move):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 1))
    z = torch.randn(51, 8)
    block = torch.arange(8) < 4
    settings = OptimizeConfig(steps=150, lr=0.1, move=move)

    def go(rows):
        part = z[rows]
        return optimize(
            part,
            lambda latent, _: Reading(network(latent)[:, 0]),
            settings,
            goal=torch.where(block, torch.ones(8), part),
            sigma=torch.full_like(part, 0.5),
            block=block,
        ).latents

    together = go(torch.arange(51))
    for rows in ([50], [0], [7, 50, 3]):
        torch.testing.assert_close(go(torch.tensor(rows)), together[rows], atol=1e-5, rtol=0)


def test_nothing_is_left_on_the_network_or_the_latents(start):
    z, given = start
    network = nn.Linear(5, 1)
    before = z.clone()
    found = run(z, given, lambda latent, rows: Reading(network(latent)[:, 0]), steps=3)
    assert torch.equal(z, before)
    assert not found.latents.requires_grad
    assert not found.responses.requires_grad
    assert network.weight.grad is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps=0 must be greater than 0"),
        ({"lr": -1.0}, "lr=-1.0 must be greater than 0"),
        ({"sigma_prior": 0.0}, "sigma_prior=0.0 must be greater than 0"),
        ({"anchor_sigma": 0.0}, "anchor_sigma=0.0 must be greater than 0"),
        ({"chunk": 0}, "chunk=0 must be greater than 0"),
        ({"w_kld": -0.1}, "w_kld=-0.1 must not be negative"),
        ({"w_silent": -0.1}, "w_silent=-0.1 must not be negative"),
        ({"noise": -1.0}, "noise=-1.0 must not be negative"),
        ({"w_consistency": -1.0}, "w_consistency=-1.0 must not be negative"),
        ({"prior_mean_scale": 0.0}, "prior_mean_scale=0.0 must be greater than 0"),
        ({"scale": "best"}, "scale='best' is unknown; expected 'latent', 'spread' or 'response'"),
        ({"prior": "flat"}, "prior='flat' is unknown; expected 'structured' or 'standard'"),
        ({"move": "some"}, "move='some' is unknown; expected 'block' or 'all'"),
        ({"patience": 0}, "patience=0 must be at least 1"),
    ],
    ids=str,
)
def test_impossible_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        OptimizeConfig(**wrong)
