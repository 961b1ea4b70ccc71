"""An embedding of all depths, the closed-form decoder of its maps, and the closed loop over both."""

import pytest
import torch
from torch import nn

from vislens_interp.backends.closed_loop import CONTRAST_SHARE, ClosedLoopGenerator
from vislens_interp.backends.depth_embedder import DepthEmbedder
from vislens_interp.backends.pyramid_decoder import PyramidDecoder
from vislens_interp.preprocess import Preprocess

SIDE = 64


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.fine = nn.Conv2d(3, 12, 2, stride=2)
            self.coarse = nn.Sequential(nn.Conv2d(12, 16, 2, stride=2), nn.ReLU())
            self.tokens = nn.Linear(16, 6)

    def forward(self, x):
        x = self.coarse(self.fine(x))
        return self.tokens(x.flatten(2).mT).mean(1)


def _images(count, seed=0, side=SIDE):
    rough = torch.rand(count, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(rough, (side, side), mode="bilinear").clamp(0, 1)


@pytest.fixture(scope="module")
def embedder():
    net = DepthEmbedder(_Net(), ["fine", "coarse", "tokens"], preprocess=Preprocess(SIDE, [0.5], [0.25]), size=SIDE)
    return net.standardise(_images(64))


@pytest.fixture(scope="module")
def decoder(embedder):
    return PyramidDecoder(embedder, ["fine", "coarse"]).fit(_images(200, 1))


def test_embeddings_are_the_channel_means_standardised_with_layers_weighted_equally(embedder):
    images = _images(64)
    x = embedder(images)
    net = _Net()
    net.load_state_dict(embedder.network.state_dict())
    with torch.no_grad():
        fine = net.fine((images - 0.5) / 0.25)
        coarse = net.coarse(fine)
        means = [fine.mean((2, 3)), coarse.mean((2, 3)), net.tokens(coarse.flatten(2).mT).mean(1)]
    whole = x.norm(dim=1) < 1.9 * embedder.dim**0.5  # rows that the limit of length leaves as they are
    assert whole.sum() > 50
    parts = x.split(embedder.channels, 1)
    for part, mean in zip(parts, means, strict=True):
        alive = mean.std(0) > 1e-4
        wanted = (mean - mean.mean(0)) / mean.std(0)
        share = (embedder.dim / 3 / part.shape[1]) ** 0.5
        torch.testing.assert_close(part[whole][:, alive], (share * wanted)[whole][:, alive], atol=2e-3, rtol=2e-3)


def test_the_network_given_stays_as_it_was():
    net = _Net().train()
    DepthEmbedder(net, ["fine"], preprocess=Preprocess(8, [0.5], [0.5]), size=8)
    assert net.training
    assert all(weight.requires_grad for weight in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())


def test_hooks_leave_when_the_network_raises(embedder):
    with pytest.raises(RuntimeError):
        embedder.maps(torch.zeros(1, 3, 1, 1), size=1)  # smaller than the kernel
    assert not any(module._forward_hooks for module in embedder.network.modules())


def test_gradients_reach_the_images(embedder):
    images = _images(2).requires_grad_(True)
    embedder(images).square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_statistics_are_saved_and_belong_to_one_network(embedder, tmp_path):
    path = embedder.save_statistics(tmp_path / "statistics.safetensors")
    again = DepthEmbedder(
        embedder.network, ["fine", "coarse", "tokens"], preprocess=Preprocess(SIDE, [0.5], [0.25]), size=SIDE
    ).load_statistics(path)
    assert torch.equal(again(_images(3)), embedder(_images(3)))
    other = DepthEmbedder(embedder.network, ["fine"], preprocess=Preprocess(SIDE, [0.5], [0.25]), size=SIDE)
    with pytest.raises(ValueError, match="layers of the statistics"):
        other.load_statistics(path)


class _Maps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.layers = nn.ModuleList([nn.Conv2d(3, 6, 4, 4), nn.Conv2d(6, 8, 2, 2), nn.Conv2d(8, 4, 2, 2)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).relu()
        return x


def _gridded(grid=2, components=20):
    names = ["layers.0", "layers.1", "layers.2"]
    preprocess = Preprocess(SIDE, [0.5], [0.25])
    return DepthEmbedder(_Maps(), names, preprocess=preprocess, size=SIDE, grid=grid, components=components)


def test_a_grid_says_where_and_channel_means_do_not():
    images = _images(80, 4)
    plain = DepthEmbedder(
        _Maps(), ["layers.0", "layers.1", "layers.2"], preprocess=Preprocess(SIDE, [0.5], [0.25]), size=SIDE
    ).standardise(images)
    embedder = _gridded().standardise(images)
    x = embedder(images)
    assert x.shape == (80, embedder.dim) == (80, plain.dim + 20)
    assert torch.equal(x[:, : plain.dim], plain(images))
    turned = images.roll(SIDE // 2, 3)  # the same cells, elsewhere
    moved = embedder(turned) - x
    assert moved[:, plain.dim :].norm() > 4 * moved[:, : plain.dim].norm()


def test_a_grids_part_is_the_principal_components_of_deviations_of_cells():
    images = _images(80, 4)
    embedder = _gridded().standardise(images)
    x = embedder(images)[:, embedder.dim - 20 :]
    torch.testing.assert_close(x.mean(0), torch.zeros(20), atol=1e-3, rtol=0)
    covariance = x.T.cov()
    torch.testing.assert_close(covariance.diag(), embedder.cell_variance, rtol=1e-2, atol=1e-3)
    assert (covariance - covariance.diag().diag()).abs().max() < 0.01 * covariance.max()
    with torch.no_grad():
        middle = embedder.maps(images)[1]
    cells = nn.functional.adaptive_avg_pool2d(middle, 2)
    deviations = (cells - cells.mean((2, 3), keepdim=True)).flatten(1)
    known = x @ torch.linalg.lstsq(x, deviations - deviations.mean(0)).solution + deviations.mean(0)
    assert ((known - deviations).square().sum() / (deviations - deviations.mean(0)).square().sum()) < 0.1


def test_a_grid_is_saved_and_belongs_to_one_number_of_cells(tmp_path):
    embedder = _gridded().standardise(_images(80, 4))
    path = embedder.save_statistics(tmp_path / "grid.safetensors")
    torch.testing.assert_close(
        _gridded().load_statistics(path)(_images(5)), embedder(_images(5)), atol=0.02, rtol=0.01
    )  # the basis is kept in half precision
    with pytest.raises(ValueError, match="grid of the statistics"):
        _gridded(grid=4).load_statistics(path)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: _gridded(grid=1), ValueError, "grid=1"),
        (lambda: _gridded(grid=9), ValueError, "grid=9, but no layer"),
        (lambda: _gridded(components=33), ValueError, "grid=2 has 32 values"),
        (lambda: _gridded().standardise(_images(20)), ValueError, "more than the 20 components"),
        (lambda: DepthEmbedder(_Net(), ["no"], preprocess=Preprocess(8, [0.5], [0.5])), KeyError, "layers names 'no'"),
        (lambda: _gridded().maps(_images(1), layers=["no"]), KeyError, "layers names 'no', which _Maps does not have"),
        (lambda: DepthEmbedder(_Net(), None, preprocess=Preprocess(8, [0.5], [0.5])), ValueError, "layers=None"),
        (
            lambda: DepthEmbedder(_Net(), ["fine"], preprocess=Preprocess(8, [0.5], [0.5]), batch_size=0),
            ValueError,
            "batch_size=0",
        ),
        (
            lambda: DepthEmbedder(_Net(), ["fine"], preprocess=Preprocess(8, [0.5], [0.5]), size=8)(_images(1)),
            ValueError,
            "no statistics",
        ),
        (
            lambda: DepthEmbedder(_Net(), ["fine"], preprocess=Preprocess(8, [0.5], [0.5])).standardise(_images(1)),
            ValueError,
            "at least 2",
        ),
    ],
)
def test_bad_input_of_an_embedder_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_an_invertible_map_is_decoded_exactly_and_fewer_levels_less(decoder):
    images = _images(8, 2)
    errors = [
        (decoder(decoder.maps(images), SIDE, dropped=dropped) - images).square().mean().item() for dropped in (0, 1)
    ]
    assert errors[0] < 1e-5
    assert errors[0] < errors[1] < images.var().item()


def test_a_decoder_draws_other_sizes_than_it_was_fitted_to(decoder):
    images = _images(4, 3, side=96)
    drawn = decoder(decoder.maps(images), 96)
    assert drawn.shape == images.shape
    assert (drawn - images).square().mean() < 1e-4


def test_a_decoder_is_saved_and_belongs_to_one_network(decoder, tmp_path):
    path = decoder.save(tmp_path / "decoder.safetensors")
    again = PyramidDecoder.load(path, decoder.embedder)
    images = _images(2, 4)
    torch.testing.assert_close(again(again.maps(images), SIDE), decoder(decoder.maps(images), SIDE), atol=5e-3, rtol=0)
    other = DepthEmbedder(nn.Sequential(nn.Conv2d(3, 4, 2)), ["0"], preprocess=Preprocess(8, [0.5], [0.5]), size=8)
    with pytest.raises(ValueError, match="was fitted to another network"):
        PyramidDecoder.load(path, other)


def test_bad_input_of_a_decoder_is_named(embedder, decoder):
    with pytest.raises(ValueError, match="finest map first"):
        PyramidDecoder(embedder, ["coarse", "fine"])
    with pytest.raises(ValueError, match="multiple of 32"):
        PyramidDecoder(embedder, ["fine"]).fit(torch.rand(2, 3, 40, 40))
    with pytest.raises(ValueError, match="not fitted"):
        PyramidDecoder(embedder, ["fine"])([], 32)
    with pytest.raises(ValueError, match="dropped=2"):
        decoder(decoder.maps(_images(1)), SIDE, dropped=2)


@pytest.fixture(scope="module")
def generator(embedder, decoder):
    return ClosedLoopGenerator(embedder, decoder, size=SIDE, draw_steps=40)


def _draw(generator, images, x, strength=0.0):
    return generator(x, init_image=images, strength=strength, seeds=[0] * len(x))


def test_an_unmoved_embedding_gives_the_image_or_what_is_kept_of_it(generator, embedder):
    images = _images(3, 5)
    assert torch.equal(_draw(generator, images, embedder(images)), images)
    assert torch.equal(_draw(generator, images, embedder(images), 0.6), generator.reconstruct(images, 0.6))


def test_the_picture_moves_where_the_embedding_is_asked_to_within_its_limit(generator, embedder):
    images = _images(5, 6)
    x = embedder(images)
    goal = x + x.norm(dim=1, keepdim=True) * nn.functional.normalize(embedder(_images(5, 7)) - x)
    made = _draw(generator, images, goal)
    direction = nn.functional.normalize(goal - x)
    start = images
    assert (((embedder(made) - embedder(start)) * direction).sum(1) > 0.2).all()
    changed = (made - start).square().mean((1, 2, 3)).sqrt()
    assert (changed <= generator.change + 1e-5).all()
    assert (changed > 0.2 * generator.change).all()


def test_a_plain_picture_is_changed_by_a_share_of_its_own_contrast(generator, embedder):
    plain = 0.5 + 0.1 * (_images(2, 8) - 0.5)
    for images in (plain, torch.full_like(plain, 0.4)):
        made = generator.ascend(images, lambda seen, rows: embedder(seen)[:, 0], share=1, strength=0.0)
        contrast = images.var((2, 3), unbiased=False).mean(1).sqrt()
        changed = (made - images).square().mean((1, 2, 3)).sqrt()
        assert (changed <= CONTRAST_SHARE * contrast + 1e-5).all()
        assert (changed >= 0.2 * CONTRAST_SHARE * contrast).all()


def test_half_the_way_is_half_the_limit(generator, embedder):
    images = _images(2, 8)
    made = generator.ascend(images, lambda seen, rows: embedder(seen)[:, 0], share=0.5, strength=0.0)
    assert ((made - images).square().mean((1, 2, 3)).sqrt() <= 0.5 * generator.change + 1e-5).all()


def test_a_picture_does_not_depend_on_its_batch(generator, embedder):
    images = _images(11, 9)
    x = embedder(images).roll(1, 0)
    together = _draw(generator, images, x)
    alone = torch.cat([_draw(generator, images[row : row + 1], x[row : row + 1]) for row in (0, 7, 10)])
    torch.testing.assert_close(together[[0, 7, 10]], alone, atol=1e-5, rtol=0)


def test_strength_keeps_fewer_maps_and_at_one_none(generator, embedder):
    images, x = _images(3, 10), embedder(_images(3, 10))
    errors = [(_draw(generator, images, x, strength) - images).square().mean() for strength in (0.0, 0.6)]
    assert errors[0] < errors[1]
    ignoring = _draw(generator, images, x, 1.0)
    assert torch.equal(ignoring, _draw(generator, images.flip(0), x, 1.0))


def test_a_picture_from_an_embedding_alone_comes_near_it(generator, embedder):
    x = embedder(_images(64)[:4])
    made = generator.draw(x, [0, 1, 2, 3])
    grey = embedder(torch.full((1, 3, SIDE, SIDE), 0.5))
    error, blank = (embedder(made) - x).square().mean(), (grey - x).square().mean()
    assert error < 0.5 * blank
    assert not torch.equal(generator.draw(x[:1], [5]), made[:1])


def test_bad_numbers_of_a_generator_are_named(embedder, decoder):
    with pytest.raises(ValueError, match="steps=0"):
        ClosedLoopGenerator(embedder, decoder, size=SIDE, steps=0)
    with pytest.raises(ValueError, match="size=65"):
        ClosedLoopGenerator(embedder, decoder, size=65)


@pytest.mark.parametrize("size", [16, None])
def test_the_networks_own_order_of_colours_is_kept(size):
    """What blue does to a network that takes blue first is what red does to the same network otherwise."""
    plain = Preprocess(16, [0.5], [0.5])
    swapped = Preprocess(16, [0.5], [0.5], colours=torch.eye(3).flip(0))
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    one, other = (DepthEmbedder(net, ["0"], preprocess=each, size=16) for each in (plain, swapped))
    assert torch.equal(one.maps(images.flip(1), size=size)[0], other.maps(images, size=size)[0])
