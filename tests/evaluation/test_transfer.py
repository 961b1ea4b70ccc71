import pytest
import torch

from vislens_interp.evaluation.transfer import Transfer
from vislens_interp.images import ImageFiles, to_pil


def pictures(count, seed=0):
    return torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def colours(images):
    """(N, 3) means, and nothing else of a picture."""
    return images.mean((2, 3))


def test_a_linear_unit_transfers_exactly():
    images, other = pictures(100), pictures(50, seed=1)
    unit = 5 * images.mean((2, 3))[:, :1] + 2
    transfer = Transfer(colours, penalties=(1e-8,)).fit(images, unit)
    assert transfer.correlation_.item() == pytest.approx(1, abs=1e-5)
    expected = (5 * other.mean((2, 3))[:, :1] + 2 - unit.mean()) / unit.std()
    torch.testing.assert_close(transfer.standardised(other), expected, atol=1e-3, rtol=1e-3)


def test_pictures_in_files_are_read_a_part_at_a_time(tmp_path, monkeypatch):
    for row, picture in enumerate(to_pil(pictures(70))):
        picture.save(tmp_path / f"{row:02d}.png")
    files, parts = ImageFiles(tmp_path, 4), []
    read = ImageFiles.__getitem__
    monkeypatch.setattr(ImageFiles, "__getitem__", lambda self, rows: (parts.append(rows), read(self, rows))[1])
    unit = 5 * files[:].mean((2, 3))[:, :1]
    parts.clear()
    assert Transfer(colours, penalties=(1e-8,)).fit(files, unit).correlation_.item() == pytest.approx(1, abs=1e-5)
    assert parts == [slice(0, 64), slice(64, 128)]


def test_what_the_second_network_does_not_see_does_not_transfer():
    """A checkerboard drives the first network's unit and leaves colours' means, and so the prediction, alone."""
    images = pictures(100)
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)

    def unit(x):
        return (x.mean((1, 2, 3)) + (x * board).mean((1, 2, 3)))[:, None]

    transfer = Transfer(colours).fit(images, unit(images))
    attacked = images + 0.5 * board
    assert (unit(attacked) - unit(images)).min() > 0.4
    torch.testing.assert_close(transfer.standardised(attacked), transfer.standardised(images), atol=1e-5, rtol=0)


def test_the_correlation_is_that_of_leaving_each_image_out():
    images = pictures(24)
    responses = torch.randn(24, 1, generator=torch.Generator().manual_seed(2))
    transfer = Transfer(lambda x: x.flatten(1)[:, :6], penalties=(0.5,)).fit(images, responses)
    x = images.flatten(1)[:, :6].double()
    y = (responses[:, 0].double() - responses.mean()) / responses.std()
    penalty = 0.5 * (torch.linalg.svdvals(x - x.mean(0)) ** 2).mean()
    predicted = []
    for row in range(24):
        rest = torch.arange(24) != row
        a, b = x[rest] - x[rest].mean(0), y[rest] - y[rest].mean()
        weight = torch.linalg.solve(a.T @ a + penalty * torch.eye(6).double(), a.T @ b)
        predicted.append((x[row] - x[rest].mean(0)) @ weight + y[rest].mean())
    expected = torch.corrcoef(torch.stack([torch.stack(predicted), y]))[0, 1]
    assert transfer.correlation_.item() == pytest.approx(expected.item(), abs=1e-4)


def test_noise_is_not_predicted_and_each_unit_has_a_penalty():
    images = pictures(200)
    noise = torch.randn(200, generator=torch.Generator().manual_seed(3))
    transfer = Transfer(lambda x: x.flatten(1)).fit(images, torch.stack([noise, images.mean((1, 2, 3))], 1))
    assert abs(transfer.correlation_[0]) < 0.3
    assert transfer.correlation_[1] > 0.95
    assert transfer.penalty_[0] > transfer.penalty_[1]


def test_transfer_refuses():
    with pytest.raises(ValueError, match=r"shape \(19, 1\) for 19 images.*at least 20"):
        Transfer(colours).fit(pictures(19), torch.rand(19, 1))
    with pytest.raises(ValueError, match=r"expected \(N, K\)"):
        Transfer(colours).fit(pictures(20), torch.rand(20))
    with pytest.raises(ValueError, match="penalties=.* must be greater than 0"):
        Transfer(colours, penalties=(0.0,))
