import numpy as np
import pytest
import torch
from torch import nn

from vislens_interp.brain.outside import OutsideEncoder
from vislens_interp.lens import FeatureLens


class Sums(nn.Module):
    """Red, green and blue of a picture, as it is given; noisy in training."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))
        self.dropout = nn.Dropout(0.5)
        self.seen = None

    def forward(self, images):
        self.seen = images.detach()
        return self.dropout(images.mean((2, 3)) @ self.weight)


COLOURS = ["red", "green", "blue"]


def pictures(count=4, size=8):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_what_it_takes_is_as_declared():
    model = Sums()
    encoder = OutsideEncoder(model, COLOURS, size=4, input_range=(-1, 1), mean=[0.5], std=[2.0])
    white, black = torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    encoder(white)
    assert model.seen.shape == (1, 3, 4, 4)
    torch.testing.assert_close(model.seen, torch.full((1, 3, 4, 4), 0.25))
    encoder(black)
    torch.testing.assert_close(model.seen, torch.full((1, 3, 4, 4), -0.75))


def test_gradients_flow_and_the_module_is_left_as_it_was():
    model = Sums().train()
    encoder = OutsideEncoder(model, COLOURS, size=None, targets=["blue"])
    images = pictures().requires_grad_()
    state = torch.get_rng_state()
    encoder(images).sum().backward()
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert model.weight.requires_grad
    assert model.weight.grad is None
    torch.testing.assert_close(images.grad[:, 2], torch.full((4, 8, 8), 1 / 64))  # no dropout
    assert images.grad[:, :2].abs().max() == 0


def berg(images):
    """EEG as BERG gives it: the picture's mean (0 to 255), plus the repetition, times the channel, at each time."""
    assert images.dtype == np.uint8
    assert images.shape[1:] == (3, 8, 8)
    mean = images.mean((1, 2, 3))[:, None, None, None]
    repetition, channel, time = np.ogrid[0:4, 1:3, 0:5]
    return (mean + repetition) * channel + 1000 * (time == 0)


def test_repetitions_are_averaged_and_channel_and_window_chosen():
    eeg = OutsideEncoder(
        berg,
        ["Oz", "POz"],
        size=8,
        input_range=(0, 255),
        output="NRCT",
        times=[-0.1, 0.0, 0.1, 0.2, 0.3],
        window=(0.0, 0.2),
        targets=["POz", "Oz"],
        numpy=True,
    )
    assert not eeg.differentiable
    assert eeg.names == ["POz", "Oz"]
    read = eeg.responses(torch.full((2, 3, 16, 16), 100 / 255))
    torch.testing.assert_close(read, torch.tensor([[203.0, 101.5], [203.0, 101.5]]))
    whole = OutsideEncoder(
        berg, ["Oz", "POz"], size=8, input_range=(0, 255), output="NRCT", times=[0.1 * t for t in range(5)], numpy=True
    )
    assert whole.responses(torch.full((1, 3, 8, 8), 100 / 255))[0, 0] == pytest.approx(101.5 + 200)


def test_both_ends_of_a_window_of_times_in_single_precision():
    answer = torch.arange(5.0)[None, None]
    times = np.arange(0, 0.5, 0.1).astype(np.float32)
    eeg = OutsideEncoder(lambda images: answer, ["Oz"], size=8, output="NCT", times=times, window=(0.1, 0.2))
    assert eeg.responses(torch.zeros(1, 3, 8, 8)).tolist() == [[1.5]]


def test_counts_are_averaged():
    counts = torch.tensor([[[1], [2]]])
    spikes = OutsideEncoder(lambda images: counts, ["unit"], size=8, output="NRC")
    assert spikes.responses(torch.zeros(1, 3, 8, 8)).tolist() == [[1.5]]


def test_one_channel_without_an_axis():
    bright = OutsideEncoder(lambda images: images.mean((1, 2, 3)), ["mean"], size=None, output="N", gradients=True)
    images = pictures().requires_grad_()
    assert bright(images).shape == (4, 1)
    assert bright(images).requires_grad


def test_a_lens_edits_without_gradients_and_is_saved_by_name(tmp_path):
    def dark(images):
        return -images.mean((1, 2, 3))

    lens = FeatureLens(OutsideEncoder(dark, ["dark"], size=None, output="N", numpy=True), backend="cifar10")
    lens.fit(lens.backend.reference_images()[:300], epochs=1, shuffles=1)
    result = lens.visualize(lens.backend.reference_images()[300:306], strength=0)
    assert result.response_change["increase"].mean() > 0 > result.response_change["decrease"].mean()
    with pytest.raises(ValueError, match="the lens's target is a OutsideEncoder without a name; .* Pass name= to"):
        lens.save(tmp_path / "lens.safetensors")
    with pytest.raises(ValueError, match="needs gradients"):
        lens.visualize(lens.backend.reference_images()[300:306], method="optimize")


def test_what_is_said_of_it():
    said = OutsideEncoder(Sums(), COLOURS, size=4, targets=["red"]).describe()
    assert said["model"] == "Sums"
    assert said["units"] == ["red"]
    assert said["input"]["range"] == [0.0, 1.0]
    assert len(said["fingerprint"]) == 16


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"channels": "red"}, TypeError, "channels='red' is a str; expected a sequence"),
        ({"output": "CN"}, ValueError, "output='CN'; expected N and then any of R, C and T"),
        ({"output": "N"}, ValueError, "has no axis of channels, but channels names 3"),
        ({"input_range": (1, 0)}, ValueError, r"input_range=\(1, 0\); expected \(black, white\)"),
        ({"output": "NCT"}, ValueError, "expected times, in seconds, exactly where output has a T"),
        ({"window": (0, 1)}, ValueError, r"window=\(0, 1\), but output='NC' has no times"),
        (
            {"output": "NCT", "times": [0.0, 0.1], "window": (1, 2)},
            ValueError,
            r"window=\(1, 2\) holds none of the times, which go from 0 to 0.1 s",
        ),
        ({"targets": ["pink"]}, KeyError, "targets=.*pink.* are none of the channels; expected some of red"),
        ({"targets": []}, ValueError, r"targets=\[\]; expected at least one of the channels, each once"),
        ({"targets": ["red", "red"]}, ValueError, "targets=.*; expected at least one of the channels, each once"),
        ({"std": [0.0]}, ValueError, r"std=\[0.0\]; expected 3 numbers, one a colour .*, each above 0"),
        ({"numpy": True, "gradients": True}, ValueError, "no gradient passes through an array"),
        ({"encoder": 3}, TypeError, "encoder is a int; expected a torch module or a function"),
    ],
)
def test_declarations_that_do_not_fit(arguments, error, message):
    with pytest.raises(error, match=message):
        OutsideEncoder(**{"encoder": Sums(), "channels": COLOURS, "size": 4, **arguments})


def test_another_shape_than_declared():
    encoder = OutsideEncoder(Sums(), ["red", "green"], size=4)
    with pytest.raises(
        ValueError, match=r"encoder gave shape \(4, 3\) for 4 images; expected \(4, 2\), as output='NC'"
    ):
        encoder(pictures())
