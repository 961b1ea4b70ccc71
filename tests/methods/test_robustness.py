"""Shifts, turns and crops do what they say, picture by picture."""

import pytest
import torch

from vislens_interp.methods.robustness import ANGLES, SCALES, crops, noise, wobble


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_the_published_transformations():
    assert list(SCALES) == pytest.approx([0.9, 0.92, 0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06, 1.08, 1.1])
    assert sorted(ANGLES)[::25] == [-10, 10]
    assert ANGLES.count(0) == 6


def test_a_wobbled_picture_is_moved_a_little_and_bordered_with_grey():
    size = 64
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    blob = torch.exp(-((rows - 31.5) ** 2 + (columns - 31.5) ** 2) / 50)
    pictures = (0.5 + 0.5 * blob).expand(200, 3, size, size)
    moved = wobble(pictures, generators(*range(200)))
    weight = (moved[:, 0] - 0.5).clamp_min(0)
    centre = torch.stack([(weight * one).sum((1, 2)) / weight.sum((1, 2)) for one in (rows, columns)], 1) - 31.5
    reach = size * (8 + 4) / 128 / 2  # half of both jitters
    assert centre.abs().max() < 1.2 * reach
    assert centre.std(0).min() > 0.2 * reach
    assert (moved[:, :, 0, 0] == 0.5).all()
    size_of_blob = weight.sum((1, 2)) / weight[:, 20:44, 20:44].amax((1, 2))
    assert size_of_blob.max() / size_of_blob.min() == pytest.approx((1.1 / 0.9) ** 2, rel=0.1)


def test_a_picture_is_transformed_by_its_own_generator():
    pictures = torch.rand(3, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    together = wobble(pictures, generators(1, 2, 3))
    torch.testing.assert_close(wobble(pictures[1:2], generators(2)), together[1:2])
    cut = crops(pictures, generators(1, 2, 3), count=4, box=(0.3, 0.6))
    torch.testing.assert_close(crops(pictures[2:], generators(3), count=4, box=(0.3, 0.6)), cut[8:])
    noisy = noise(cut, generators(1, 2, 3), 0.1)
    torch.testing.assert_close(noise(cut[4:8], generators(2), 0.1), noisy[4:8])
    assert (noisy - cut).std().item() == pytest.approx(0.1 * (1 + 1 / 12) ** 0.5, rel=0.1)


def test_crops_show_where_and_how_much_they_say():
    ramp = torch.linspace(0, 1, 65).expand(1, 3, 65, 65)  # a pixel's value is its place in the row
    cut = crops(ramp, generators(0), count=300, box=(0.25, 0.5))
    left, right = cut[:, 0, 32, 0], cut[:, 0, 32, -1]
    side = (right - left) * 64 / 65 * 65 / 64
    assert 0.24 < side.min() < 0.27
    assert 0.47 < side.max() < 0.51
    assert left.min() < 0.05
    assert right.max() > 0.95
    torch.testing.assert_close(crops(ramp, generators(0), count=2, box=(1.0, 1.0)), ramp.expand(2, -1, -1, -1))
    centred = crops(ramp, generators(0), count=300, box=(0.25, 0.25), spread=0.15)
    place = centred[:, 0, 32].mean(1)
    assert place.mean().item() == pytest.approx(0.5, abs=0.03)
    assert place.std().item() == pytest.approx(0.15, abs=0.03)
