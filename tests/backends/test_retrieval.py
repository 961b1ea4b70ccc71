import pytest
import torch
from torch import nn

from vislens_interp.backends.retrieval import NetworkEmbedder, RetrievalBackend, Retrieved
from vislens_interp.images import ImageFiles, to_pil
from vislens_interp.lens import FeatureLens
from vislens_interp.preprocess import Preprocess
from vislens_interp.targets.callable import CallableTarget

COLOURS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]])


class Colour:
    """An embedder whose embedding is the mean colour."""

    dim, size, device = 3, 8, torch.device("cpu")

    def __call__(self, images):
        return images.mean((2, 3))


class Centred(Colour):
    """The same around grey, so that cosines tell colours apart."""

    def __call__(self, images):
        return images.mean((2, 3)) - 0.5


def plain(colours):
    return torch.as_tensor(colours).float()[:, :, None, None].expand(-1, 3, 8, 8).contiguous()


@pytest.fixture
def backend():
    return RetrievalBackend(Colour(), plain(COLOURS))


def test_the_nearest_natural_image_comes_out(backend):
    x = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.2, 2.0]])
    assert backend.retrieve(x).rows.tolist() == [[0], [2]]
    made = backend.decode(x, init_image=None, strength=1.0, seeds=[0, 0])
    assert torch.equal(made, plain(COLOURS[[0, 2]]))
    assert torch.equal(backend.render(x), made)


def test_all_of_k_and_which_the_seed_shows():
    backend = RetrievalBackend(Colour(), plain(COLOURS), count=2)
    x = torch.tensor([[1.0, 0.3, 0.0]])
    found = backend.retrieve(x)
    assert found.rows.tolist() == [[0, 3]]
    torch.testing.assert_close(found.cosine[0, 0], x[0, 0] / x[0].norm())
    assert backend.retrieve(x, count=4).rows.shape == (1, 4)
    shown = [backend.decode(x, init_image=None, strength=1.0, seeds=[seed])[0] for seed in (4, 5)]
    assert torch.equal(torch.stack(shown), plain(COLOURS[[0, 3]]))


def test_an_image_is_not_its_own_neighbour(backend):
    own = plain(COLOURS[[0, 3]])
    found = backend.retrieve(backend.encode(own), inputs=own)
    assert found.rows[0, 0] == 3
    assert found.rows[1, 0] in (0, 1)
    assert backend.retrieve(backend.encode(own)).rows[:, 0].tolist() == [0, 3]
    both = RetrievalBackend(Colour(), plain(COLOURS), leave_out_own=False)
    assert both.retrieve(both.encode(own), inputs=own).rows[:, 0].tolist() == [0, 3]


def test_recorded_responses_judge_without_a_model():
    recorded = torch.tensor([[1.0, 5.0], [2.0, torch.nan], [6.0, 7.0]])
    found = Retrieved(torch.tensor([[0, 2], [1, 2], [1, 1]]), torch.ones(3, 2))
    judged = found.responses(recorded)
    assert judged[:, 0].tolist() == [3.5, 4.0, 2.0]
    assert judged[:2, 1].tolist() == [6.0, 7.0]
    assert judged[2, 1].isnan()
    with pytest.raises(ValueError, match=r"recorded has shape \(2, 2\), but row 2 of the gallery was retrieved"):
        found.responses(recorded[:2])


def test_files_stay_files(tmp_path):
    for row, picture in enumerate(to_pil(plain(COLOURS))):
        picture.save(tmp_path / f"{row}.png")
    backend = RetrievalBackend(Colour(), ImageFiles(tmp_path, 8))
    assert torch.equal(backend.render(COLOURS[[4]]), plain(COLOURS[[4]]))
    own = plain(COLOURS[[0]])
    assert backend.retrieve(backend.encode(own), inputs=own).rows.tolist() == [[3]]


def test_a_lens_finds_what_a_unit_prefers():
    generator = torch.Generator().manual_seed(0)
    pictures = plain(torch.rand(700, 3, generator=generator))
    lens = FeatureLens(
        CallableTarget(lambda images: images[:, 0].mean((1, 2)) - images[:, 2].mean((1, 2)), ["warm"]),
        backend=RetrievalBackend(Centred(), pictures[300:]),
    )
    lens.fit(pictures[:300], shuffles=1)
    result = lens.visualize(pictures[300:330])
    assert result.response_change["increase"].mean() > 0.5
    assert result.response_change["decrease"].mean() < -0.5
    assert len(result.images["increase"].mean((2, 3)).unique(dim=0)) > 5  # not all become one
    with pytest.raises(ValueError, match="needs gradients"):
        lens.visualize(pictures[300:330], method="optimize")


def test_any_network_is_an_embedder():
    network = nn.Conv2d(3, 4, 3)
    embedder = NetworkEmbedder(network, Preprocess(8, [0.5], [0.5]))
    images = torch.rand(50, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    raw = embedder(images)
    torch.testing.assert_close(raw, network(embedder.preprocess(images)).mean((2, 3)))
    x = embedder.standardise_on(images)(images)
    torch.testing.assert_close(x.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(0), torch.ones(4))
    torch.testing.assert_close(embedder.standardise_on(images)(images), x)
    with torch.no_grad():
        network.weight[1], network.bias[1] = 0.0, 3.0
    assert embedder.standardise_on(images)(images)[:, 1].abs().max() == 0
    with pytest.raises(ValueError, match="preprocess has no size"):
        NetworkEmbedder(network, Preprocess(None, [0.5], [0.5]))
    with pytest.raises(ValueError, match=r"network gives \(1, 3, 64\); expected features"):
        NetworkEmbedder(nn.Flatten(2), Preprocess(8, [0.5], [0.5]))


def test_an_embedder_that_learns_leaves_no_graph():
    class Learning(Colour):
        scale = torch.ones(3, requires_grad=True)

        def __call__(self, images):
            return images.mean((2, 3)) * self.scale

    with torch.enable_grad():
        assert not RetrievalBackend(Learning(), plain(COLOURS)).encode(plain(COLOURS)).requires_grad


def test_errors():
    with pytest.raises(ValueError, match="count=5 for a gallery of 5 images; expected from 1 to 4"):
        RetrievalBackend(Colour(), plain(COLOURS), count=5)
    with pytest.raises(ValueError, match=r"gallery has shape \(5, 3, 8, 6\); expected square images"):
        RetrievalBackend(Colour(), plain(COLOURS)[..., :6])
