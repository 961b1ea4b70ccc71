"""Other units brought back after an edit: known answers with linear and rectified units."""

import pytest
import torch
from torch import Tensor

from vislens_interp.config import EditConfig
from vislens_interp.landscape.cross_talk import reduce_cross_talk


@pytest.fixture
def linear() -> Tensor:
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def latents() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(70, 6, generator=generator)  # more than one part of 64
    return start, start + torch.randn(70, 6, generator=generator)


def test_others_return_and_the_target_stays(linear, latents):
    start, edited = latents
    held = reduce_cross_talk(edited, start, lambda z, rows: z @ linear, [0], steps=3, spread=torch.ones(6))
    before, after, now = (z @ linear for z in (start, edited, held))
    assert (after - before)[:, 1:].abs().mean() > 1
    torch.testing.assert_close(now[:, 1:], before[:, 1:], atol=2e-2, rtol=0)
    torch.testing.assert_close(now[:, 0], after[:, 0], atol=2e-2, rtol=0)


def test_the_move_is_the_shortest_in_spreads(linear, latents):
    start, edited = latents
    spread = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    held = reduce_cross_talk(edited, start, lambda z, rows: z @ linear, [0], steps=1, spread=spread)
    torch.testing.assert_close(held[:, 5], edited[:, 5])  # a dimension without spread stays
    move = (held - edited)[:, :5]
    span = torch.linalg.qr(linear[:5]).Q  # the shortest move lies in the span of the gradients
    torch.testing.assert_close(move, move @ span @ span.T, atol=1e-4, rtol=0)


def test_a_unit_at_its_floor_is_left_alone(linear, latents):
    start, edited = latents
    held = reduce_cross_talk(
        edited, start, lambda z, rows: (z @ linear - 100).relu(), [0], steps=2, spread=torch.ones(6)
    )
    torch.testing.assert_close(held, edited)


def test_no_steps_return_the_edit(linear, latents):
    start, edited = latents
    assert reduce_cross_talk(edited, start, lambda z, rows: z @ linear, [0], steps=0, spread=torch.ones(6)).equal(
        edited
    )


def test_a_negative_number_of_steps_is_refused():
    with pytest.raises(ValueError, match="cross_talk_steps=-1 must not be negative"):
        EditConfig(cross_talk_steps=-1)
