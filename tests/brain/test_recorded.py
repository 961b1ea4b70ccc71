import pytest
import torch

from vislens_interp.backends.retrieval import NetworkEmbedder, RetrievalBackend
from vislens_interp.brain.recorded import RecordedResponses
from vislens_interp.lens import FeatureLens
from vislens_interp.preprocess import Preprocess


def pictures(count, seed=0):
    coarse = torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=8, mode="bilinear")


def test_a_recording_judges_a_lens_without_a_model():
    images = pictures(500)
    noise = torch.randn(500, generator=torch.Generator().manual_seed(1))
    responses = (images[:, 0].mean((1, 2)) * 20 + noise)[:, None]
    target = RecordedResponses(images, responses, ["neuron"])
    network = torch.nn.Conv2d(3, 3, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.eye(3)[:, :, None, None])
    backend = RetrievalBackend(NetworkEmbedder(network, Preprocess(8, [0.5], [0.5])), images[250:])
    lens = FeatureLens(target, backend=backend).fit(images[:250], shuffles=1)
    result = lens.visualize(images[250:290])
    assert result.share_right_way["increase"] > 0.8
    assert result.share_right_way["decrease"] > 0.8
    assert "judged by recorded responses, without a model" in result.summary()


def test_copies_are_averaged():
    images = pictures(3)[[0, 1, 2, 0]]
    target = RecordedResponses(images, torch.tensor([[1.0], [2.0], [3.0], [5.0]]), ["a"])
    assert target(images[[0, 2]]).tolist() == [[3.0], [3.0]]


def test_errors():
    images = pictures(3)
    with pytest.raises(ValueError, match=r"responses has shape \(3, 1\) for 3 images and 2 names; expected \(3, 2\)"):
        RecordedResponses(images, torch.ones(3, 1), ["a", "b"])
    with pytest.raises(ValueError, match="responses are NaN or infinite for 1 images; expected a recording to each"):
        RecordedResponses(images, torch.tensor([[1.0], [torch.nan], [2.0]]), ["a"])
    target = RecordedResponses(images, torch.ones(3, 1), ["a"])
    with pytest.raises(ValueError, match="images: 1 of 2 were never shown, so that nothing was recorded to them"):
        target(torch.stack([images[0], images[0].flip(1)]))
