"""Copies of a picture lie on one side of every split, are permuted together and count once."""

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vislens_interp.copies import first_rows, means, permuted_rows, picture_groups, row_groups, split_groups
from vislens_interp.images import load_images, to_pil


def photographs(count, side=48, seed=0):
    """Smooth pictures, unlike one another."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    fine = 0.1 * torch.rand(count, 3, side, side, generator=generator)
    return (torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1) * 0.9 + fine).clamp(0, 1)


def recompressed(picture, quality):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


CHANGES = {
    "identical": lambda picture: picture,
    "resized": lambda picture: picture.resize((31, 31), Image.Resampling.BICUBIC).resize(picture.size),
    "recompressed": lambda picture: recompressed(picture, 60),
    "both": lambda picture: recompressed(picture.resize((64, 64)), 75).resize(picture.size),
}


@pytest.mark.parametrize("change", CHANGES)
def test_planted_copies_are_found_and_nothing_else(change):
    pictures = to_pil(photographs(120))
    copies = [CHANGES[change](pictures[row]) for row in range(0, 120, 3)]
    images, _ = load_images([*pictures, *copies, *copies])
    groups = picture_groups(images)
    assert groups.tolist() == [*range(120), *range(0, 120, 3), *range(0, 120, 3)]


def test_rows_without_pictures():
    x = torch.randn(500, 64, generator=torch.Generator().manual_seed(0))
    copies = x[:50] + 1e-3 * torch.randn(50, 64, generator=torch.Generator().manual_seed(1))
    assert row_groups(torch.cat([x, x[:20], copies])).tolist() == [*range(500), *range(20), *range(50)]
    few = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))  # few dimensions: neighbours are no copies
    assert len(row_groups(few).unique()) == 400
    assert row_groups(torch.zeros(3, 4)).tolist() == [0, 0, 0]


@settings(derandomize=True, deadline=None, max_examples=40)
@given(groups=st.lists(st.integers(0, 12), min_size=4, max_size=40), share=st.floats(0.05, 0.6), seed=st.integers(0, 9))
def test_no_group_on_both_sides(groups, share, seed):
    numbers = {value: number for number, value in enumerate(dict.fromkeys(groups))}
    tensor = torch.tensor([numbers[value] for value in groups])
    wanted = max(1, round(share * len(groups)))
    training, held_out = split_groups(tensor, wanted, seed=seed)
    assert sorted([*training.tolist(), *held_out.tolist()]) == list(range(len(groups)))
    assert not set(tensor[training].tolist()) & set(tensor[held_out].tolist())
    assert len(held_out) >= wanted
    rows = permuted_rows(tensor, torch.Generator().manual_seed(seed))
    for group in tensor.unique():
        assert len(rows[tensor == group].unique()) == 1
    assert sorted(rows[first_rows(tensor)].tolist()) == first_rows(tensor).tolist()


def test_without_copies_nothing_changes():
    groups = torch.arange(50)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(3))
    training, held_out = split_groups(groups, 10, seed=3)
    assert torch.equal(held_out, order[:10].sort().values)
    assert torch.equal(training, order[10:].sort().values)
    expected = torch.randperm(50, generator=torch.Generator().manual_seed(4))
    assert torch.equal(permuted_rows(groups, torch.Generator().manual_seed(4)), expected)
    values = torch.rand(50, 2)
    assert torch.equal(means(values, groups), values)
    assert means(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([7, 7, 2])).tolist() == [5, 2]


@pytest.mark.parametrize("copies", [1, 4])
def test_planted_copies_do_not_turn_noise_into_evidence(copies):
    """Ridge on embeddings that remember every picture: with copies on both sides of a split it would know the noise."""
    from vislens_interp.targets.ranking import predictability

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 150, generator=generator)
    x = torch.cat([x] * (1 + copies))
    noise = torch.randn(200, 40, generator=generator).repeat(1 + copies, 1)
    found = predictability(noise, x, seed=1)
    assert found.abs().mean() < 0.25
    known = predictability(x[:, :5] + 0.2 * noise[:, :5], x, seed=1)
    assert known.mean() > 0.4
