"""BrainACTIV's direction: planted ones are found, and each published step is what it says."""

import math

import pytest
import torch

from vislens_interp.config import Config
from vislens_interp.math import LOO_PENALTIES, angle_between, ridge_loo
from vislens_interp.methods.directions import RidgeDirection
from vislens_interp.targets.target import Target

DIM = 48


class Pixels:
    """x is the picture of 4 x 4 pixels itself, moved away from grey."""

    name, size, shape = "pixels", 4, (DIM,)
    device, defaults, differentiable = torch.device("cpu"), Config.of(), True

    def encode(self, images):
        return images.flatten(1) * 8 - 4

    def render(self, x):
        return ((x + 4) / 8).unflatten(1, (3, 4, 4)).clamp(0, 1)

    def decode(self, x, *, init_image, strength, seeds):
        assert len(seeds) == len(init_image)
        return self.render(x)

    def reference_images(self):
        return None

    def vae(self):
        raise AssertionError("a direction is found without a VAE")

    def feature_extractor(self):
        return None


class Planted(Target):
    """Two units that read one direction each of the normalised embedding, and noise."""

    names = ("first", "second")
    differentiable = False

    def __init__(self, noise=0.0):
        self.filters = torch.linalg.qr(torch.randn(DIM, 2, generator=torch.Generator().manual_seed(7))).Q
        self.noise = noise

    def __call__(self, images):
        x = Pixels().encode(images)
        read = x / x.norm(dim=1, keepdim=True) @ self.filters
        return read + self.noise * torch.randn(read.shape, generator=torch.Generator().manual_seed(1))


def pictures(count=1500, seed=0):
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=["closed_form", "ridge_cv"])
def fitted(request):
    return RidgeDirection(request.param).fit(Planted(0.02), Pixels(), pictures())


def test_planted_directions_are_found(fitted):
    cosines = (fitted.directions_ * Planted().filters.T).sum(1)
    assert (cosines > 0.97).all()
    torch.testing.assert_close(fitted.directions_.norm(dim=1), torch.ones(2))


def test_the_closed_form_is_the_published_formula():
    method = RidgeDirection("closed_form").fit(Planted(0.1), Pixels(), pictures())
    x = Pixels().encode(pictures()).double().numpy()
    import numpy as np

    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    responses = Planted(0.1).responses(pictures()).double().numpy()
    weights = (np.linalg.inv(x.T @ x + 10 * np.eye(DIM)) @ x.T @ responses).T
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    np.testing.assert_allclose(method.directions_.numpy(), weights, atol=1e-5)
    assert method.penalties_.tolist() == [10.0, 10.0]


def test_leave_one_out_is_what_leaving_one_out_gives():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(30, 5, generator=generator).double() + 2
    responses = x[:, :2] @ torch.tensor([[1.0, 0.0], [0.5, 0.0]]).double() + torch.randn(30, 2, generator=generator)
    weights, chosen, residuals = ridge_loo(x, responses)
    assert LOO_PENALTIES.tolist() == pytest.approx([10 ** (-1 + 0.5 * step) for step in range(13)])
    best = []
    for column in range(2):
        errors = []
        for penalty in LOO_PENALTIES.tolist():
            left_out = []
            for row in range(30):
                keep = torch.arange(30) != row
                own, bias = _ridge(x[keep], responses[keep, column], penalty)
                left_out.append((responses[row, column] - x[row] @ own - bias).item())
            errors.append(left_out)
        least = torch.tensor(errors).square().sum(1).argmin()
        best.append(LOO_PENALTIES[least].item())
        torch.testing.assert_close(residuals[:, column], torch.tensor(errors[least]).double(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(weights[:, column], _ridge(x, responses[:, column], best[-1])[0])
    assert chosen.tolist() == best
    assert chosen[1] > chosen[0]  # there is nothing to learn of the second


def _ridge(x, response, penalty):
    """With a bias that is not penalised, solved as one system."""
    rows = torch.cat([x, torch.ones(len(x), 1).double()], 1)
    gram = rows.T @ rows + penalty * torch.diag(torch.tensor([1.0] * x.shape[1] + [0.0]).double())
    solution = torch.linalg.solve(gram, rows.T @ response)
    return solution[:-1], solution[-1]


def test_images_move_both_ways(fitted):
    images, target = pictures(40, seed=5), Planted()
    control = target(fitted.generate(images, {}, seeds=[0] * 40).images)
    assert torch.allclose(control, target(images), atol=1e-5)
    for unit in (0, 1):
        up, down = (
            target(fitted.generate(images, {unit: way}, seeds=[0] * 40).images) for way in ("increase", "decrease")
        )
        assert (up[:, unit] > control[:, unit]).all()
        assert (down[:, unit] < control[:, unit]).all()


def test_projection_is_the_published_one(fitted):
    goal = fitted.towards({0: "increase"})
    natural = Pixels().encode(pictures()).double()
    unit = natural / natural.norm(dim=1, keepdim=True)
    scores = torch.exp(unit @ fitted.directions_[0].double() / 0.01)  # fits into float64
    scores = scores / scores.sum()
    wanted = (scores * natural.norm(dim=1)).sum() * (scores[:, None] * unit).sum(0)
    torch.testing.assert_close(goal.double(), wanted / wanted.norm(), atol=1e-4, rtol=0)
    assert torch.equal(fitted.towards({0: "increase"}), goal)
    assert goal @ fitted.towards({0: "decrease"}) > -0.99  # projected apart, not mirrored


def test_projection_survives_cosines_that_overflow_the_exponential():
    method = RidgeDirection("closed_form").fit(Planted(), Pixels(), pictures())
    natural = method.directions_[:1] * 5
    method = RidgeDirection("closed_form", natural=torch.cat([natural, -natural])).fit(Planted(), Pixels(), pictures())
    goal = method.towards({0: "increase"})
    assert math.exp(80) < float("inf")
    assert torch.tensor(1 / 0.01).exp() == float("inf")
    torch.testing.assert_close(goal, method.directions_[0], atol=1e-4, rtol=0)


def test_without_projection_it_is_the_direction_itself():
    method = RidgeDirection("closed_form", project=False).fit(Planted(), Pixels(), pictures())
    torch.testing.assert_close(method.towards({1: "decrease"}), -method.directions_[1])
    both = method.directions_.sum(0)
    torch.testing.assert_close(method.towards({0: "increase", 1: "increase"}), both / both.norm())


@pytest.mark.parametrize("degrees", [0.0, 0.01, 1.0, 30.0, 90.0, 179.0, 179.99])
def test_lengths_and_angles_are_kept_from_0_to_180_degrees(degrees):
    """The released slerp returns a vector of length about 1 within 1.8 degrees of 0 and 180."""
    method = RidgeDirection("closed_form", project=False).fit(Planted(), Pixels(), pictures())
    goal = method.towards({0: "increase"}).double()
    other = torch.linalg.qr(torch.stack([goal, torch.ones(DIM).double()], 1)).Q[:, 1]
    turn = math.radians(degrees)
    x = (20 * (math.cos(turn) * goal + math.sin(turn) * other))[None]
    method.directions_ = method.directions_.double()
    for alpha in (0.0, 0.25, 0.75, 1.0):
        moved = method.embeddings(x, {0: "increase"}, alpha=alpha)
        assert moved.norm().item() == pytest.approx(20, rel=1e-6)
        if degrees < 179.95:  # nearly opposite, the arc is a line through the middle
            assert angle_between(moved, x).item() == pytest.approx(alpha * degrees, abs=0.01)


def test_presets():
    method = RidgeDirection()
    assert (method.variant, method.alpha, method.strength, method.temperature) == ("ridge_cv", 0.75, 0.6, 0.01)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"variant": "lasso"}, "variant='lasso' is unknown; expected 'closed_form' or 'ridge_cv'"),
        ({"alpha": 1.5}, r"alpha=1.5 must lie in \[0, 1\]"),
        ({"strength": -1}, r"strength=-1 must lie in \[0, 1\]"),
        ({"penalty": 0}, "penalty=0 must be greater than 0"),
        ({"temperature": 0}, "temperature=0 must be greater than 0"),
    ],
)
def test_impossible_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        RidgeDirection(**wrong)


def test_bad_data():
    with pytest.raises(ValueError, match=r"responses has shape \(9, 2\); expected \(300, 2\): a row"):
        RidgeDirection().fit(Planted(), Pixels(), pictures(300), torch.rand(9, 2))
    with pytest.raises(ValueError, match="unit 'second' never varies"):
        RidgeDirection().fit(Planted(), Pixels(), pictures(300), torch.rand(300, 2) * torch.tensor([1, 0]))
    with pytest.raises(ValueError, match=r"natural has shape \(5, 7\); expected \(M, 48\)"):
        RidgeDirection(natural=torch.rand(5, 7)).fit(Planted(), Pixels(), pictures(300))
