import math

import pytest
import torch

from vislens_interp.backends.refiner import DDPMRefiner


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A diffusers folder of a tiny untrained DDPM on 8-pixel images, in patches of 2 as the shipped one."""
    from diffusers import DDPMScheduler, UNet2DModel

    path = tmp_path_factory.mktemp("ddpm")
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=4,
        in_channels=12,
        out_channels=12,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=8,
    )
    unet.save_pretrained(path / "unet")
    DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction").save_pretrained(path / "scheduler")
    return path


@pytest.fixture(scope="module")
def refiner(folder):
    return DDPMRefiner(folder, steps=10)


@pytest.fixture
def images():
    return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_strength_0_returns_the_very_input(refiner, images):
    assert refiner(images, strength=0, seeds=[1] * 5) is images
    assert refiner(images, strength=0.0, seeds=[]) is images


def test_pixels_stay_pixels(refiner, images):
    refined = refiner(images, strength=0.3, seeds=[1] * 5)
    assert refined.shape == images.shape
    assert refined.min() >= 0
    assert refined.max() <= 1
    assert not refined.requires_grad


def test_strength_1_forgets_the_input(refiner, images):
    one, other = (refiner(x, strength=1, seeds=[1, 2, 3, 4, 5]) for x in (images, 1 - images))
    assert torch.equal(one, other)
    one, other = (refiner(x, strength=0.9, seeds=[1] * 5) for x in (images, 1 - images))
    assert not torch.equal(one, other)


def test_more_strength_changes_more(refiner, images):
    change = [(refiner(images, strength=s, seeds=[3] * 5) - images).abs().mean() for s in (0.1, 0.5, 1.0)]
    assert 0 < change[0] < change[1] < change[2]


def test_the_smallest_strength_still_takes_a_step(refiner, images):
    assert not torch.equal(refiner(images, strength=1e-3, seeds=[3] * 5), images)


def test_a_seed_for_each_image(refiner, images):
    same = images[:1].expand(3, -1, -1, -1)
    first, second, third = refiner(same, strength=0.5, seeds=[7, 8, 7])
    torch.testing.assert_close(first, third, atol=1e-6, rtol=0)
    assert (first - second).abs().max() > 0.01


def test_same_seed_is_bit_identical_and_the_global_generator_is_left_alone(refiner, images):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = refiner(images, strength=0.5, seeds=[7] * 5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(first, refiner(images, strength=0.5, seeds=[7] * 5))


def test_an_image_does_not_depend_on_its_batch(refiner, images):
    seeds = [3, 1, 4, 1, 5]
    together = refiner(images, strength=0.5, seeds=seeds)
    for row, seed in enumerate(seeds):
        alone = refiner(images[row : row + 1], strength=0.5, seeds=[seed])
        torch.testing.assert_close(alone, together[row : row + 1], atol=1e-5, rtol=0)


def test_it_is_frozen_and_knows_its_size(refiner):
    assert refiner.size == 8
    assert not refiner.unet.training
    assert not any(parameter.requires_grad for parameter in refiner.parameters())


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan])
def test_strength_out_of_range(refiner, images, strength):
    with pytest.raises(ValueError, match=r"strength=.* must lie in \[0, 1\]: 0 keeps the input, 1 ignores it"):
        refiner(images, strength=strength, seeds=[1] * 5)


def test_bad_seeds_and_steps(refiner, images, folder):
    with pytest.raises(ValueError, match="seeds has 2 entries for 5 images; expected one an image"):
        refiner(images, strength=0.5, seeds=[1, 2])
    with pytest.raises(ValueError, match="steps=0 must be at least 1"):
        DDPMRefiner(folder, steps=0)
