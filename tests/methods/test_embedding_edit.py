"""Baselines that move embeddings: planted patterns are found, edits turn by the angle that was asked for."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from vislens_interp.config import Config
from vislens_interp.math import angle_between
from vislens_interp.methods.controls import Shuffled, Unedited
from vislens_interp.methods.directions import Centroids, DifferenceOfMeans, RidgeDirection, RidgePattern
from vislens_interp.methods.natural_images import NaturalImages
from vislens_interp.targets.target import Target

DIM = 48
SCALES = torch.logspace(0.5, -1, DIM)


class Correlated:
    """x is a fixed mixture of the picture's pixels, so that a filter and its pattern point different ways."""

    name, size, shape = "correlated", 4, (DIM,)
    device, defaults, differentiable = torch.device("cpu"), Config.of(), True
    mixture = torch.linalg.qr(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(3))).Q * SCALES

    def encode(self, images):
        return (images.flatten(1) - 0.5) @ self.mixture.T

    def render(self, x):
        return (x @ torch.linalg.inv(self.mixture).T + 0.5).unflatten(1, (3, 4, 4)).clamp(0, 1)

    def decode(self, x, *, init_image, strength, seeds):
        return self.render(x)

    def reference_images(self):
        return None

    def vae(self):
        raise AssertionError("needs no VAE")

    def feature_extractor(self):
        return None


class Linear(Target):
    """Two units that read one direction each of x, at an angle to its long axes."""

    names = ("first", "second")
    differentiable = False
    filters = torch.randn(DIM, 2, generator=torch.Generator().manual_seed(7))

    def __call__(self, images):
        return Correlated().encode(images) @ self.filters


def pictures(count=1500, seed=0):
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def pattern():
    covariance = Correlated.mixture @ Correlated.mixture.T / 12  # of uniform pixels
    return (covariance @ Linear.filters).T


@pytest.mark.parametrize("method", [RidgePattern(), DifferenceOfMeans(), DifferenceOfMeans(1.0)])
def test_patterns_are_found_where_the_filter_points_elsewhere(method):
    method.fit(Linear(), Correlated(), pictures(4000))
    assert (cosine_similarity(Linear.filters.T, pattern()) < 0.8).all()
    assert (cosine_similarity(method.directions_, pattern()) > 0.97).all()


def test_the_twin_is_its_formula():
    method = Centroids().fit(Linear(), Correlated(), pictures())
    x = Correlated().encode(pictures())
    r = Linear().responses(pictures())
    r = (r - r.mean(0)) / r.std(0)
    up = sum(r[i, 1] ** 2 * x[i] for i in range(len(x)) if r[i, 1] > 0) / sum(v**2 for v in r[:, 1] if v > 0)
    torch.testing.assert_close(method.centroids_["increase"][1], up, atol=1e-4, rtol=1e-4)
    half = method.embeddings(x[:3], {1: "increase"}, alpha=0.5)
    torch.testing.assert_close(half, (x[:3] + up) / 2 * (x[:3].norm(dim=1) / ((x[:3] + up) / 2).norm(dim=1))[:, None])


@pytest.mark.parametrize("build", [RidgePattern, RidgeDirection, DifferenceOfMeans, Centroids])
def test_every_embedding_turns_by_the_angle(build):
    method = build(angle=25.0).fit(Linear(), Correlated(), pictures())
    x = Correlated().encode(pictures(8, seed=1))
    moved = method.embeddings(x, {0: "increase"})
    torch.testing.assert_close(angle_between(moved, x), torch.full((8,), 25.0), atol=0.1, rtol=0)
    torch.testing.assert_close(moved.norm(dim=1), x.norm(dim=1))
    assert torch.equal(method.embeddings(x, {}), x)
    assert torch.equal(method.embeddings(x, {0: "increase"}, alpha=0.0), x) or build is not Centroids
    assert (Linear.filters[:, 0] @ (moved - x).T > 0).all()


def test_an_angle_beyond_the_goal_stops_there():
    method = Centroids(angle=180.0).fit(Linear(), Correlated(), pictures())
    x = Correlated().encode(pictures(4, seed=1))
    moved = method.embeddings(x, {0: "decrease"})
    goal = method.centroids_["decrease"][:1].expand_as(x)
    torch.testing.assert_close(angle_between(moved, goal), torch.zeros(4), atol=0.05, rtol=0)


def test_natural_images_are_the_best_by_rank():
    method = NaturalImages(3).fit(Linear(), Correlated(), pictures())
    order = Linear().responses(pictures())[:, 0].argsort(descending=True)
    shown = method.generate(pictures(4, seed=1), {0: "increase"}, seeds=[0, 1, 2, 3]).images
    assert torch.equal(shown, pictures()[order[[0, 1, 2, 0]]])
    worst = method.generate(pictures(1, seed=1), {0: "decrease"}, seeds=[0]).images
    assert torch.equal(worst, pictures()[order[[-1]]])
    twice = NaturalImages(2).fit(Linear(), Correlated(), pictures()[torch.cat([order[:1], order])])
    assert twice.rows({0: "increase"}).tolist() == [0, 2]  # a copy is shown once


def test_controls():
    unedited = Unedited().fit(Linear(), Correlated(), pictures())
    images = pictures(3, seed=1)
    torch.testing.assert_close(
        unedited.generate(images, {0: "increase"}, seeds=[1] * 3).images, images, atol=1e-4, rtol=0
    )
    shuffled = Shuffled(RidgePattern(), seed=5).fit(Linear(), Correlated(), pictures())
    cosines = cosine_similarity(shuffled.method.directions_, pattern())
    assert (cosines.abs() < 0.9).all()
    again = Shuffled(RidgePattern(), seed=5).fit(Linear(), Correlated(), pictures())
    assert torch.equal(again.method.directions_, shuffled.method.directions_)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: RidgePattern(angle=200.0), ValueError, r"angle=200.0 must lie in \[0, 180\]: the degrees"),
        (lambda: RidgePattern(alpha=1.5), ValueError, r"alpha=1.5 must lie in \[0, 1\]"),
        (lambda: Centroids(strength=-1.0), ValueError, r"strength=-1.0 must lie in \[0, 1\]"),
        (lambda: Centroids(interpolation="arc"), ValueError, "interpolation='arc' is unknown; expected 'lerp' or"),
        (lambda: DifferenceOfMeans(-1.0), ValueError, "threshold=-1.0 must not be negative"),
        (lambda: NaturalImages(0), ValueError, "count=0 must be at least 1"),
        (lambda: Unedited(strength=2.0), ValueError, r"strength=2.0 must lie in \[0, 1\]"),
        (lambda: Shuffled(3), TypeError, "method is a int; expected a Method such as LandscapeEdit"),
        (
            lambda: NaturalImages(10).fit(Linear(), Correlated(), pictures(5)),
            ValueError,
            "images holds 5 images; expected at least count=10",
        ),
        (
            lambda: (
                NaturalImages()
                .fit(Linear(), Correlated(), pictures())
                .generate(pictures(2), {0: "increase"}, seeds=[1])
                .images
            ),
            ValueError,
            "seeds has 1 entries for 2 images; expected one an image",
        ),
    ],
)
def test_what_is_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()
