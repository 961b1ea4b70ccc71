import math

import pytest
import torch

from vislens_interp.metrics import edit_angle


def test_known_angles():
    degrees = torch.tensor([0.0, 1e-3, 30.0, 90.0, 180.0])
    turned = torch.stack([degrees.deg2rad().cos(), degrees.deg2rad().sin()], 1)
    start = torch.tensor([[1.0, 0.0]]).expand(5, 2)
    torch.testing.assert_close(edit_angle(start, 3 * turned), degrees, atol=1e-4, rtol=1e-5)


def test_lengths_and_rotations_play_no_part():
    a, b = torch.randn(2, 4, 3, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(edit_angle(5 * a, b / 9), edit_angle(a, b))
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1))).Q
    torch.testing.assert_close(edit_angle(a.flatten(1) @ turn, b.flatten(1) @ turn), edit_angle(a, b))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.ones(2, 3), torch.ones(3, 3), r"original has shape \(2, 3\) and edited \(3, 3\)"),
        (torch.ones(1, 2), torch.tensor([[math.inf, 0.0]]), "edited holds values"),
        (torch.zeros(1, 2), torch.ones(1, 2), "original is all zero"),
    ],
)
def test_edit_angle_refuses(a, b, message):
    with pytest.raises(ValueError, match=message):
        edit_angle(a, b)
