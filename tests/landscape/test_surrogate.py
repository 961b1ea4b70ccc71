import pytest
import torch
from torch import nn

from vislens_interp.config import FitConfig
from vislens_interp.files import load_state, save_state
from vislens_interp.landscape import surrogate as written_out
from vislens_interp.landscape.fit import fit_landscape
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import ActivationPrior, equal_blocks
from vislens_interp.landscape.surrogate import ResponseSurrogate
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.math import angle_between

DIM = 12


def landscape_of(respond, count=600) -> tuple[Landscape, torch.Tensor]:
    """Embeddings that vary in eight of twelve dimensions, and the landscape of a response to them."""
    x = torch.randn(count, DIM, generator=torch.Generator().manual_seed(0))
    x[:, 8:] = 3.0
    vae = EmbeddingVAE.principal(x.mean(0), x.T.cov(correction=0), 8, 0.01)
    prior = ActivationPrior(8, equal_blocks(8, 1))
    settings = FitConfig(epochs=1, w_consistency=0.0)
    return fit_landscape(vae, x, respond(x)[:, None], prior, settings, names=["unit"]), x


@pytest.fixture(scope="module")
def either() -> tuple[Landscape, torch.Tensor]:
    """A unit of two unlike preferences."""
    return landscape_of(lambda x: x[:, 0].abs().clamp_min(1.0))


def test_each_image_ascends_to_the_preference_that_is_near(either):
    landscape, _ = either
    x = torch.randn(40, DIM, generator=torch.Generator().manual_seed(1))
    x[:, 8:] = 3.0
    x[:, 0] = torch.tensor([1.5, -1.5]).repeat(20)
    there = ResponseSurrogate(landscape).ascend(x, {0: "increase"}, 25.0)
    assert (there[0::2, 0] > x[0::2, 0]).float().mean() > 0.9
    assert (there[1::2, 0] < x[1::2, 0]).float().mean() > 0.9
    away = ResponseSurrogate(landscape).ascend(x, {0: "decrease"}, 15.0)
    assert (away[:, 0].abs() < x[:, 0].abs()).float().mean() > 0.9


def test_so_many_degrees_and_no_other_length(either):
    landscape, x = either
    surrogate = ResponseSurrogate(landscape)
    for degrees in (5.0, 20.0, 31.0):
        there = surrogate.ascend(x[:30], {0: "increase"}, degrees)
        assert torch.allclose(angle_between(there, x[:30]), torch.tensor(degrees), atol=0.05)
        assert torch.allclose(there.norm(dim=1), x[:30].norm(dim=1), rtol=1e-5)
    assert torch.equal(surrogate.ascend(x[:30], {0: "increase"}, 0.0), x[:30])


def test_a_step_stays_within_what_images_differ_in(either):
    landscape, x = either
    there = ResponseSurrogate(landscape).ascend(x[:30], {0: "increase"}, 10.0)
    # The constant dimensions shrink by the turn alone, all of them alike.
    assert torch.allclose(there[:, 8:], there[:, 8:9].expand(-1, 4), atol=1e-2)


def test_a_step_goes_along_covariance_times_gradient(either):
    landscape, x = either
    surrogate = ResponseSurrogate(landscape)
    here = x[:3].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(surrogate(here).sum(), here)
    direction = surrogate.step_direction(x[:3], {0: "increase"})
    for row in range(3):
        near = (surrogate.known - x[row]).norm(dim=1).argsort()[:300]
        assert torch.allclose(direction[row], surrogate.known[near].T.cov(correction=0) @ gradient[row], atol=1e-4)


def test_the_same_surrogate_from_the_same_seed_and_no_state_left_behind(either):
    landscape, x = either
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same = ResponseSurrogate(landscape, seed=3), ResponseSurrogate(landscape, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one(x[:5]), same(x[:5]))


def test_held_out_images_are_not_learnt_from(either):
    landscape, _ = either
    changed = landscape.responses.clone()
    changed[landscape.held_out] = 100.0
    other = Landscape(**{**vars(landscape), "responses": changed})
    assert torch.equal(
        ResponseSurrogate(landscape)(landscape.latents.new_ones(2, DIM)), ResponseSurrogate(other)(torch.ones(2, DIM))
    )


def test_an_image_alone_ascends_as_in_a_batch(either):
    landscape, x = either
    surrogate = ResponseSurrogate(landscape)
    together = surrogate.ascend(x[:70], {0: "increase"}, 20.0)
    assert torch.allclose(surrogate.ascend(x[66:67], {0: "increase"}, 20.0), together[66:67], atol=1e-4)
    assert surrogate.ascend(x[:0], {0: "increase"}, 20.0).shape == (0, DIM)


def test_degrees_out_of_range(either):
    with pytest.raises(ValueError, match="degrees=181 must lie between 0 and 180"):
        ResponseSurrogate(either[0]).ascend(either[1][:2], {0: "increase"}, 181)


def test_the_weight_of_the_networks_is_what_held_out_images_support(either):
    assert ResponseSurrogate(either[0]).mlp_weight.item() > 0.8
    noise = torch.randn(600, generator=torch.Generator().manual_seed(2))
    landscape, _ = landscape_of(lambda x: x[:, 0] + x[:, 1] + 3 * noise)
    surrogate = ResponseSurrogate(landscape)
    x = torch.randn(200, DIM, generator=torch.Generator().manual_seed(3))
    x[:, 8:] = 3.0
    truth = landscape.scaler.standardise((x[:, 0] + x[:, 1])[:, None])
    blend, weight = (surrogate(x) - truth).square().mean(), surrogate.mlp_weight.item()
    assert weight < 1
    surrogate.mlp_weight = torch.ones(1)
    assert blend < (surrogate(x) - truth).square().mean()
    surrogate.mlp_weight = torch.zeros(1)
    linear = torch.stack(
        [member.linear((x - surrogate.centre) / surrogate.scale) for member in surrogate.members]
    ).mean(0)
    assert torch.allclose(surrogate(x), linear)


def test_copies_of_an_image_are_on_one_side_of_every_split():
    """Noise that is the same in all copies: networks that see a copy of what judges them would be believed."""
    noise = torch.randn(120, generator=torch.Generator().manual_seed(4)).repeat(5)
    x = torch.randn(120, DIM, generator=torch.Generator().manual_seed(5)).repeat(5, 1)
    vae = EmbeddingVAE.principal(x.mean(0), x.T.cov(correction=0), 8, 0.01)
    settings = FitConfig(epochs=1, w_consistency=0.0)
    groups = torch.arange(120).repeat(5)
    with pytest.raises(ValueError, match="of which 120 are distinct"):
        fit_landscape(vae, x, noise[:, None], ActivationPrior(8, equal_blocks(8, 1)), settings)
    landscape = fit_landscape(
        vae, x, noise[:, None], ActivationPrior(8, equal_blocks(8, 1)), settings, groups=torch.arange(600)
    )
    found = ResponseSurrogate(landscape, x), ResponseSurrogate(landscape, x, groups=groups)
    apart = ResponseSurrogate(landscape, x, groups=torch.arange(600))
    fresh = torch.randn(300, DIM, generator=torch.Generator().manual_seed(6))
    sizes = [surrogate(fresh).std().item() for surrogate in (*found, apart)]
    assert sizes[0] == sizes[1]
    assert sizes[0] < 0.8 * sizes[2]  # less is believed of noise


def test_what_was_learned_survives_a_file(either, tmp_path):
    landscape, x = either
    surrogate = ResponseSurrogate(landscape, seed=2)
    state = load_state(save_state(tmp_path / "surrogate", "surrogate", surrogate.state()), "surrogate")
    again = ResponseSurrogate(landscape, state=state)
    assert torch.equal(again(x[:9]), surrogate(x[:9]))
    moved = [one.ascend(x[:9], {0: "increase"}, 20.0) for one in (surrogate, again)]
    assert torch.equal(*moved)


def test_the_written_out_training_is_autograds_and_adamws(monkeypatch):
    monkeypatch.setattr(written_out, "EPOCHS", 3)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 20, generator=generator)
    responses = torch.stack([x[:, 0].abs(), x[:, 1:3].sum(1)], 1)
    held, rows = torch.arange(60), torch.arange(60, 300)
    draw = torch.Generator().manual_seed(1)
    found = written_out._train_network(x, responses, held, rows, draw, 2)

    draw = torch.Generator().manual_seed(1)
    torch.manual_seed(2)
    network = nn.Sequential(nn.Linear(20, 64), nn.GELU(), nn.Linear(64, 2))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.1)
    for _ in range(3):
        for part in rows[torch.randperm(len(rows), generator=draw)].split(128):
            blurred = x[part] + 0.3 * torch.randn(x[part].shape, generator=draw)
            optimizer.zero_grad()
            (network(blurred) - responses[part]).square().mean().backward()
            optimizer.step()
    for ours, theirs in zip(found.parameters(), network.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
        assert not ours.requires_grad


def test_crops_of_one_photograph_are_not_taken_for_many_photographs():
    """Six crops of each of 90 photographs, not one, make no longer ridge weights; by GCV they are twice as long."""
    draw = torch.Generator().manual_seed(0)
    photographs = torch.randn(90, 40, generator=draw)
    responses = photographs[:, :1] + 3 * torch.randn(90, 1, generator=draw)
    lengths = []
    for copies in (1, 6):
        x = photographs.repeat_interleave(copies, 0)
        x = x + 0.1 * torch.randn(x.shape, generator=draw)
        groups = torch.arange(90).repeat_interleave(copies)
        members, _ = written_out._train_members(x, responses.repeat_interleave(copies, 0), groups, seed=0)
        lengths.append(torch.stack([member.weights.norm() for member in members]).mean())
    assert lengths[1] < 1.5 * lengths[0]
