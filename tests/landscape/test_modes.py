import numpy as np
import pytest
import torch

from vislens_interp.landscape.modes import assign_modes
from vislens_interp.landscape.prior import ActivationPrior
from vislens_interp.landscape.vae import EmbeddingVAE


@pytest.fixture(scope="module")
def two_preferences():
    """A unit that two unlike kinds of images drive: embeddings, responses, and the kind of each image."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.randint(0, 3, (300,), generator=generator)
    centres = torch.tensor([[5.0, 0, 0, 0], [0, 5.0, 0, 0], [0, 0, -5.0, 0]])
    x = centres[kind] + 0.3 * torch.randn(300, 4, generator=generator)
    responses = torch.where(kind == 2, -2.0, 2.0)[:, None]
    return x, responses, kind


def identity_vae():
    vae = EmbeddingVAE(4)
    with torch.no_grad():
        vae.fc_encode.weight.copy_(torch.cat([torch.eye(4), torch.zeros(4, 4)]))
        vae.fc_encode.bias.zero_()
    return vae


def test_modes_find_the_two_kinds(two_preferences):
    x, responses, kind = two_preferences
    modes = assign_modes(identity_vae(), x, responses, ActivationPrior(4, [(0, 4)], modes=2), seed=0)
    assert modes.shape == (300, 1)
    first, second = modes[kind == 0].unique(), modes[kind == 1].unique()
    assert len(first) == len(second) == 1
    assert first != second
    assert set(modes.unique().tolist()) <= {0, 1}


def test_one_mode_is_the_paper(two_preferences):
    x, responses, _ = two_preferences
    modes = assign_modes(identity_vae(), x, responses, ActivationPrior(4, [(0, 4)]), seed=0)
    assert torch.equal(modes, torch.zeros(300, 1, dtype=torch.int64))


def test_same_seed_same_modes_and_no_global_state(two_preferences):
    x, responses, _ = two_preferences
    prior = ActivationPrior(4, [(0, 4)], modes=3)
    before = np.random.get_state()[1].copy()  # noqa: NPY002 (that nobody draws from it is what is tested)
    first = assign_modes(identity_vae(), x, responses, prior, seed=5)
    assert torch.equal(first, assign_modes(identity_vae(), x, responses, prior, seed=5))
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_too_few_strong_images(two_preferences):
    x, responses, _ = two_preferences
    weak = responses.clone()
    weak[19:] *= 0.1
    with pytest.raises(ValueError, match=r"modes=2 needs at least 20 strongly .*Lower modes or give more images"):
        assign_modes(identity_vae(), x, weak, ActivationPrior(4, [(0, 4)], modes=2), seed=0)
