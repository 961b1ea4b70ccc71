from dataclasses import replace

import pytest
import torch

from vislens_interp.landscape.evidence import Evidence, evidence
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import ActivationPrior, ResponseScaler
from vislens_interp.landscape.vae import EmbeddingVAE


def identity(size):
    """A VAE that keeps everything."""
    vae = EmbeddingVAE(size)
    with torch.no_grad():
        vae.fc_encode.weight.copy_(torch.cat([torch.eye(size), torch.zeros(size, size)]))
        vae.fc_encode.bias.zero_()
        vae.fc_decode.weight.copy_(torch.eye(size))
        vae.fc_decode.bias.zero_()
    return vae


def landscape(x, responses):
    return Landscape.describe(
        identity(4),
        ActivationPrior(4, [(0, 1), (1, 2)]),
        ResponseScaler.fit(responses),
        ["known", "unknown"],
        x,
        responses,
        held_out=torch.arange(0, len(x), 4),
    )


@pytest.fixture(scope="module")
def weighed():
    """The first unit is planted on the first axis, the second is noise; shuffled controls have random axes."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(400, 4, generator=generator)
    noise = torch.randn(400, 2, generator=generator)
    responses = torch.stack([x[:, 0] + 0.5 * noise[:, 0], noise[:, 1]], 1)
    controls = [landscape(torch.randn(400, 4, generator=generator), responses) for _ in range(2)]
    one = landscape(x, responses)
    return one, x, responses, evidence(one, x, controls)


def test_a_planted_unit_is_known_and_noise_is_weak(weighed):
    one, x, responses, (known, unknown) = weighed
    assert not known.weak
    assert known.reasons == []
    rows = one.held_out
    expected = torch.corrcoef(torch.stack([x[rows, 0], responses[rows, 0]]))[0, 1].item()
    assert known.correlation == pytest.approx(expected, abs=1e-5)
    assert "good evidence" in str(known)
    assert unknown.weak
    assert "WEAK EVIDENCE" in str(unknown)
    assert any("held-out correlation" in reason or "p = " in reason for reason in unknown.reasons)


def test_p_values_are_bounded(weighed):
    *_, (known, unknown) = weighed
    assert known.p_value == pytest.approx(1 / 1001)
    assert 0.05 < unknown.p_value <= 1


def test_counts(weighed):
    _, _, responses, (known, _) = weighed
    assert (known.images, known.held_out, known.shuffles) == (400, 100, 2)
    standard = (responses[:, 0] - responses[:, 0].mean()) / responses[:, 0].std()
    assert known.strong_images == int((standard.abs() >= 1).sum())
    assert known.reconstruction == pytest.approx(1)


def test_reconstruction_is_the_share_of_variance(weighed):
    one, x, responses, _ = weighed
    lossy = landscape(x, responses)
    with torch.no_grad():
        lossy.vae.fc_decode.weight[3, 3] = 0  # one of four dimensions is lost
    kept = evidence(lossy, x, [])[0].reconstruction
    held = x[one.held_out]
    lost = held[:, 3].square().sum() / (held - held.mean(0)).square().sum()
    assert kept == pytest.approx(1 - lost.item(), abs=1e-5)


def test_no_control_is_weak(weighed):
    one, x, _, _ = weighed
    known = evidence(one, x, [])[0]
    assert known.p_value == 1
    assert known.reasons == ["no shuffled control was fitted"]


@pytest.mark.parametrize(("shuffles", "said"), [(0, "p not tested, 0 shuffled fits"), (1, "1 shuffled fit,")])
def test_a_p_that_nothing_was_permuted_for_is_not_shown(weighed, shuffles, said):
    assert said in str(replace(weighed[3][0], shuffles=shuffles))


def test_few_strong_images_are_weak():
    generator = torch.Generator().manual_seed(0)
    x = 0.01 * torch.randn(400, 4, generator=generator)
    x[:15, 0] = 5.0  # all that drives the unit
    order = torch.randperm(400, generator=generator)
    x = x[order]
    one = landscape(x, x[:, :2].clone())
    control = landscape(torch.randn(400, 4, generator=generator), x[:, :2].clone())
    found = evidence(one, x, [control])[0]
    assert found.strong_images == 15
    assert "only 15 images drive it strongly" in found.reasons


def test_an_axis_that_never_varies_is_weak(weighed):
    _, x, responses, _ = weighed
    flat = landscape(x * torch.tensor([0.0, 1, 1, 1]), responses)
    found = evidence(flat, x, [flat])[0]
    assert found.correlation == 0
    assert found.p_value == 1
    assert found.weak


def test_same_seed_same_evidence(weighed):
    one, x, responses, _ = weighed
    control = landscape(x.flip(0), responses)
    assert evidence(one, x, [control], seed=3) == evidence(one, x, [control], seed=3)


def test_json_values():
    found = Evidence("16", 0.5, 0.001, 2, 0.8, 300, 1000, 100, ["why"]).to_dict()
    assert found["weak"] is True
    assert found["reasons"] == ["why"]
    assert Evidence(**{key: value for key, value in found.items() if key != "weak"}).unit == "16"
