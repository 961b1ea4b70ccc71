import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vislens_interp.landscape.edit import alpha_for_angle, interpolate
from vislens_interp.math import angle_between, keep_norm

BOTH = pytest.mark.parametrize("interpolation", ["lerp", "slerp"])


@BOTH
def test_ends(interpolation):
    z, goal = torch.randn(2, 20, 5)
    torch.testing.assert_close(interpolate(z, goal, 0.0, interpolation), z)
    torch.testing.assert_close(interpolate(z, goal, 1.0, interpolation), goal)
    torch.testing.assert_close(interpolate(z, goal[0], 1.0, interpolation), goal[0].expand(20, 5))


def test_lerp_is_the_papers():
    z, goal = torch.randn(2, 20, 5)
    torch.testing.assert_close(interpolate(z, goal, 0.3), 0.3 * goal + 0.7 * z)


def test_slerp_of_a_right_angle_is_the_great_circle():
    z, goal = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    turned = interpolate(z, goal, 1 / 3, "slerp")
    norm = 2 + 2 / 3
    expected = torch.tensor([[norm * math.cos(math.pi / 6), norm * math.sin(math.pi / 6)]])
    torch.testing.assert_close(turned, expected)


@given(st.floats(0.01, 179.9), st.floats(0, 1), st.floats(0.1, 10))
@settings(max_examples=80, deadline=None)
def test_slerp_turns_evenly_and_keeps_the_norm_in_line(degrees, alpha, length):
    angle = math.radians(degrees)
    z = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    goal = length * torch.tensor([[math.cos(angle), math.sin(angle), 0.0]], dtype=torch.float64)
    turned = interpolate(z, goal, alpha, "slerp")
    assert turned.norm().item() == pytest.approx(1 + alpha * (length - 1), rel=2e-6)
    assert angle_between(turned, z).item() == pytest.approx(alpha * degrees, abs=0.05)


@pytest.mark.parametrize(
    ("z", "goal", "middle"),
    [
        ([1.0, 1.0], [3.0, 3.0], [2.0, 2.0]),  # 0°
        ([1.0, 1.0], [-3.0, -3.0], [-1.0, -1.0]),  # 180°
        ([0.0, 0.0], [2.0, 0.0], [1.0, 0.0]),
        ([2.0, 0.0], [0.0, 0.0], [1.0, 0.0]),
        ([0.0, 0.0], [0.0, 0.0], [0.0, 0.0]),
    ],
    ids=["0°", "180°", "zero start", "zero goal", "both zero"],
)
def test_slerp_is_lerp_where_the_great_circle_is_undefined(z, goal, middle):
    found = interpolate(torch.tensor([z]), torch.tensor([goal]), 0.5, "slerp")
    torch.testing.assert_close(found, torch.tensor([middle]))


@BOTH
def test_a_weight_for_each_image(interpolation):
    z, goal = torch.randn(2, 3, 5)
    alphas = torch.tensor([0.0, 0.25, 1.0])
    together = interpolate(z, goal, alphas, interpolation)
    for row, alpha in enumerate(alphas.tolist()):
        alone = interpolate(z[row : row + 1], goal[row : row + 1], alpha, interpolation)
        torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize("alpha", [-0.1, 1.5, math.nan, torch.tensor([0.5, 2.0])], ids=str)
def test_alpha_outside_its_range(alpha):
    with pytest.raises(ValueError, match=r"alpha=.* must lie in \[0, 1\]: 0 keeps the latent"):
        interpolate(torch.randn(2, 3), torch.randn(3), alpha)


def test_unknown_interpolation():
    with pytest.raises(ValueError, match="interpolation='spline' is unknown; expected 'lerp' or 'slerp'"):
        interpolate(torch.randn(2, 3), torch.randn(3), 0.5, "spline")  # type: ignore[arg-type]


def test_lengths_are_kept_and_directions_too():
    x, reference = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    kept = keep_norm(x, reference)
    torch.testing.assert_close(kept.norm(dim=1), reference.norm(dim=1))
    torch.testing.assert_close(angle_between(kept, x), torch.zeros(5), atol=0.05, rtol=0)
    assert torch.equal(keep_norm(torch.zeros(1, 8), reference[:1]), torch.zeros(1, 8))


def test_angles():
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    b = torch.tensor([[5.0, 0.0], [0.0, 0.1], [-2.0, 0.0], [1.0, 1e-5]])
    torch.testing.assert_close(angle_between(a, b), torch.tensor([0.0, 90.0, 180.0, math.degrees(1e-5)]))


@BOTH
@pytest.mark.parametrize("decode", [None, lambda z: torch.tanh(z) @ torch.ones(6, 6).triu()], ids=["latent", "decoded"])
def test_alpha_for_angle_reaches_the_angle_or_saturates(interpolation, decode):
    torch.manual_seed(0)
    z, goal = torch.randn(2, 40, 6)
    alpha, reached = alpha_for_angle(z, goal, 30.0, interpolation=interpolation, decode=decode)
    measure = decode or (lambda latent: latent)
    possible = angle_between(measure(goal), measure(z))
    near = possible <= 30
    assert near.any() or decode is None
    assert (~near).sum() > 10
    torch.testing.assert_close(reached[~near], torch.full_like(reached[~near], 30.0), atol=0.05, rtol=0)
    assert (alpha[near] == 1).all()
    torch.testing.assert_close(reached[near], possible[near], atol=1e-3, rtol=0)
    torch.testing.assert_close(
        angle_between(measure(interpolate(z, goal, alpha, interpolation)), measure(z)), reached, atol=1e-3, rtol=0
    )


def test_angle_zero_keeps_the_latent():
    alpha, reached = alpha_for_angle(torch.randn(5, 4), torch.ones(4), 0.0)
    assert alpha.max() < 1e-5
    assert reached.max() < 0.01


@pytest.mark.parametrize("degrees", [-1, 181, math.nan])
def test_angle_outside_its_range(degrees):
    with pytest.raises(ValueError, match=r"degrees=.* must lie between 0 and 180"):
        alpha_for_angle(torch.randn(2, 3), torch.ones(3), degrees)
