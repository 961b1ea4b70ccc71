"""Searches without gradients find what was planted."""

import importlib.util

import pytest
import torch
from torch.nn.functional import cosine_similarity

from vislens_interp.backends.base import get_backend
from vislens_interp.methods import cma_es
from vislens_interp.methods.cma_es import EmbeddingSearch
from vislens_interp.methods.controls import Noise
from vislens_interp.methods.natural_images import RandomImages
from vislens_interp.methods.standard_vae import ALGORITHM_3, StandardVAE
from vislens_interp.reference import ReferenceSet
from vislens_interp.targets.callable import CallableTarget


class Embedded:
    """x is a vector of six numbers that a picture's first pixels show."""

    name, size, shape, device, differentiable = "embedded", 4, (6,), torch.device("cpu"), False

    def __init__(self):
        from vislens_interp.config import Config

        self.defaults = Config.of()

    def encode(self, images):
        return images.flatten(1)[:, :6] - 0.5

    def render(self, x):
        picture = torch.full((len(x), 48), 0.5)
        picture[:, :6] += x
        return picture.view(-1, 3, 4, 4)

    def decode(self, x, *, init_image, strength, seeds):
        return self.render(x)

    def reference_images(self):
        return None

    def vae(self):
        raise AssertionError("not needed")

    def feature_extractor(self):
        return None


@pytest.fixture(scope="module")
def reference():
    spread = torch.tensor([0.1, 0.1, 0.1, 0.1, 0.02, 0.02])
    x = spread * torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    return Embedded().render(x)


@pytest.mark.parametrize("way", ["increase", "decrease"])
def test_a_planted_direction_is_found_without_gradients(reference, way):
    planted = torch.tensor([1.0, -1.0, 0.5, 0.0, 0.0, 0.0])
    target = CallableTarget(lambda images: (images.flatten(1)[:, :6] - 0.5) @ planted, numpy=False)
    backend = Embedded()
    method = EmbeddingSearch(generations=30, components=6).fit(target, backend, reference)
    x = backend.encode(reference[:4])
    found = method.embeddings(x, {0: way}, seeds=[1, 2, 3, 4])
    torch.testing.assert_close(found.norm(dim=1), x.norm(dim=1))  # an embedding keeps its length
    want = planted if way == "increase" else -planted
    assert (cosine_similarity(found, want.expand_as(found)) > 0.95).all()
    alone = method.embeddings(x[2:3], {0: way}, seeds=[3])
    assert torch.equal(alone, found[2:3])
    cost = method.generate(reference[:2], {0: way}, seeds=[1, 2]).cost
    population = 4 + int(3 * torch.tensor(6.0).log())
    assert cost.forward == 2 * (1 + 30 * population)
    assert cost.backward == 0


def test_the_image_itself_is_a_candidate(reference):
    """Where nothing is better, nothing is moved."""
    backend = Embedded()
    best = backend.encode(reference[:1])
    target = CallableTarget(lambda images: -(images.flatten(1)[:, :6] - 0.5 - best).norm(dim=1))
    method = EmbeddingSearch(generations=3).fit(target, backend, reference)
    assert torch.equal(method.embeddings(best, {0: "increase"}, seeds=[0]), best)


@pytest.mark.parametrize(("rows", "count"), [([0, 1], 1), ([0, 0, 0], 0)])
def test_fewer_than_two_components_are_refused(reference, rows, count):
    target = CallableTarget(lambda images: images.mean((1, 2, 3)))
    responses = torch.arange(len(rows))[:, None].float()
    with pytest.raises(
        ValueError, match=f"images have {count} principal component.s.; expected at least 2, the fewest"
    ):
        EmbeddingSearch().fit(target, Embedded(), reference[rows], responses)


def test_the_extra_is_named_where_it_is_missing(reference, monkeypatch):
    monkeypatch.setattr(cma_es, "find_spec", lambda name: None)
    target = CallableTarget(lambda images: images.mean((1, 2, 3)))
    with pytest.raises(
        ImportError, match=r"needs the package cmaes, .* Install it: pip install 'vislens_interp\[search\]'"
    ):
        EmbeddingSearch().fit(target, Embedded(), reference)
    assert importlib.util.find_spec("cmaes")  # of the extra, which the tests have


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"generations": 0}, "generations=0 must be at least 1"),
        ({"components": 1}, "components=1 must be at least 2"),
        ({"population": 3}, "population=3 must be at least 4, or None"),
        ({"sigma": 0.0}, "sigma=0.0 must be greater than 0"),
        ({"strength": 2.0}, r"strength=2.0 must lie in \[0, 1\]"),
    ],
    ids=str,
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingSearch(**settings)


def test_random_images_know_nothing_of_the_unit():
    target = CallableTarget(lambda images: images.mean((1, 2, 3)))
    images = torch.rand(20, 3, 16, 16)
    known = ReferenceSet(images[torch.arange(40) // 2]).with_responses(torch.arange(40.0))  # each photograph twice
    method, other = (RandomImages(seed=seed).fit(target, Embedded(), known) for seed in (0, 1))
    rows = method.rows({0: "increase"})
    assert sorted((rows // 2).tolist()) == list(range(20))
    assert rows.tolist() != other.rows({0: "increase"}).tolist()
    assert not set(rows[:6].tolist()) & set(method.rows({0: "decrease"})[:6].tolist())
    dealt = known.with_responses(torch.arange(40.0).flip(0))
    assert torch.equal(RandomImages().fit(target, Embedded(), dealt).rows({0: "increase"}), rows)


def test_noise_has_the_reference_sets_mean_and_spread(pictures, pixels, linear_unit):
    images = 0.3 + 0.2 * pictures(80, 32)
    images[:, 0] += 0.2
    method = Noise().fit(linear_unit(torch.ones(3, 32, 32)), pixels(32), images)
    made = method.generate(images[:50], {0: "increase"}, seeds=list(range(50))).images
    torch.testing.assert_close(made.mean((0, 2, 3)), images.mean((0, 2, 3)), atol=0.002, rtol=0)
    torch.testing.assert_close(made.std((0, 2, 3)), images.std((0, 2, 3)), atol=0.002, rtol=0)
    neighbours = torch.corrcoef(torch.stack([made[:, 1, :, :-1].flatten(), made[:, 1, :, 1:].flatten()]))[0, 1]
    assert neighbours.abs() < 0.02  # white


def test_a_standard_vae_optimises_under_the_standard_prior():
    method = StandardVAE(epochs=3, seed=2)
    config = method.bind(CallableTarget(lambda images: images.mean((1, 2, 3))), get_backend("cifar10")).config
    assert (config.fit.seed, config.fit.epochs) == (2, 3)
    # Whatever of a backend's defaults is ours alone has to be taken back.
    assert {name: getattr(config.optimize, name) for name in ALGORITHM_3} == dict(ALGORITHM_3)
    assert ALGORITHM_3["prior"] == "standard"
    with pytest.raises(TypeError, match="epoch= is no setting of the landscape. Closest: epochs"):
        StandardVAE(epoch=3)
