import json

import pytest
import torch
from safetensors.torch import save_file

from vislens_interp.files import save_state
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.prior import ActivationPrior, ResponseScaler
from vislens_interp.landscape.vae import EmbeddingVAE


@pytest.fixture
def landscape():
    torch.manual_seed(0)
    x, responses = torch.randn(600, 10), torch.randn(600, 2)
    return Landscape.describe(
        EmbeddingVAE(10, 8),
        ActivationPrior(8, [(0, 3), (3, 6)], modes=2),
        ResponseScaler.fit(responses),
        ["17", "42"],
        x,
        responses,
        held_out=torch.arange(60),
        history=[{"epoch": 1, "loss": 2.5}],
        settings={"epochs": 1, "patience": None},
    )


def test_a_goal_moves_only_the_blocks_that_are_asked_for(landscape):
    z = torch.randn(20, 8)
    goal = landscape.goal(z, {1: "decrease"}, mode=1)
    assert torch.equal(goal[:, [0, 1, 2, 6, 7]], z[:, [0, 1, 2, 6, 7]])
    assert torch.equal(goal[:, 3:6], landscape.prior.goal(1, "decrease", 1).expand(20, 3))
    assert torch.equal(landscape.mask([1]), torch.tensor([False] * 3 + [True] * 3 + [False] * 2))
    assert landscape.mask([0, 1]).sum() == 6
    assert torch.equal(landscape.goal(z, {}), z)


def test_each_image_goes_to_the_nearest_mean(landscape):
    means = torch.stack([landscape.prior.goal(0, "increase", mode) for mode in (0, 1)])
    z = torch.zeros(2, 8)
    z[:, :3] = means + 0.1
    assert torch.equal(landscape.goal(z, {0: "increase"})[:, :3], means)


def test_the_axis_is_one_at_the_papers_mean():
    prior = ActivationPrior(8, [(0, 3), (3, 6)])
    torch.manual_seed(0)
    x, responses = torch.randn(10, 4), torch.randn(10, 2)
    one = Landscape.describe(
        EmbeddingVAE(4, 8), prior, ResponseScaler.fit(responses), ["a", "b"], x, responses, held_out=torch.arange(2)
    )
    z = one.goal(torch.randn(5, 8), {0: "increase", 1: "decrease"})
    torch.testing.assert_close(one.axis(0, z), torch.ones(5))
    torch.testing.assert_close(one.axis(1, z), -torch.ones(5))


def test_coding_does_not_depend_on_the_batch(landscape):
    x = torch.randn(600, 10)
    mean, sigma = landscape.encode(x)
    alone, width = landscape.encode(x[577:578])
    torch.testing.assert_close(mean[577:578], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(sigma[577:578], width, atol=1e-5, rtol=0)
    torch.testing.assert_close(landscape.decode(mean)[577:578], landscape.decode(alone), atol=1e-5, rtol=0)


def test_save_and_load(landscape, tmp_path):
    again = Landscape.load(landscape.save(tmp_path / "one.safetensors"))
    x = torch.randn(5, 10)
    assert torch.equal(again.encode(x)[0], landscape.encode(x)[0])
    assert torch.equal(again.decode(again.latents[:5]), landscape.decode(landscape.latents[:5]))
    for name in ("latents", "responses", "held_out"):
        assert torch.equal(getattr(again, name), getattr(landscape, name))
    for name in ("prior", "names", "history", "settings"):
        assert getattr(again, name) == getattr(landscape, name)
    raw = torch.randn(5, 2)
    assert torch.equal(again.scaler.standardise(raw), landscape.scaler.standardise(raw))
    assert not again.vae.training
    assert not any(parameter.requires_grad for parameter in again.vae.parameters())


def test_files_that_are_no_landscape(landscape, tmp_path):
    path = landscape.save(tmp_path / "one.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="truncated or not a saved landscape"):
        Landscape.load(path)
    with pytest.raises(ValueError, match="holds a lens, expected a landscape"):
        Landscape.load(save_state(tmp_path / "lens.safetensors", "lens", {}))
    header = {"vislens_interp": json.dumps({"kind": "landscape", "version": 999, "state": {}})}
    save_file({"a": torch.ones(1)}, tmp_path / "new.safetensors", metadata=header)
    with pytest.raises(ValueError, match="format version 999, newer than this library reads"):
        Landscape.load(tmp_path / "new.safetensors")
    with pytest.raises(FileNotFoundError, match="no such file; expected a saved landscape"):
        Landscape.load(tmp_path / "absent.safetensors")
