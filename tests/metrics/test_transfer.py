import pytest
import torch

from vislens_interp.metrics import SecondNetwork, angle_between, monotonicity, percentile_among, transfer


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_linear_unit_transfers_whole():
    x = draw(300, 5)
    responses = x @ torch.tensor([1.0, 2.0, 0.0, 0.0, 0.0])
    reader = SecondNetwork.fit(x, responses)
    step = torch.zeros(1, 5)
    step[0, 1] = responses.std() / 2  # moves the response by one SD
    assert transfer(reader, x + step, x, "increase") == pytest.approx([1.0] * 300, abs=1e-2)
    assert transfer(reader, x + step, x, "decrease") == pytest.approx([-1.0] * 300, abs=1e-2)


def test_what_the_second_network_does_not_see_does_not_transfer():
    x = draw(500, 6)
    reader = SecondNetwork.fit(x[:, :5], x[:, 5])
    moved = x.clone()
    moved[:, 5] += 3
    assert transfer(reader, moved[:, :5], x[:, :5], "increase").abs().max() == 0


def test_transfer_refuses():
    with pytest.raises(ValueError, match=r"features has shape \(5, 2\) and responses \(4,\); expected"):
        SecondNetwork.fit(draw(5, 2), draw(4))
    with pytest.raises(ValueError, match="never varies"):
        SecondNetwork.fit(draw(5, 2), torch.ones(5))
    reader = SecondNetwork.fit(draw(50, 2), draw(50, seed=1))
    with pytest.raises(ValueError, match=r"features has shape \(3, 4\); expected \(N, 2\).*Pool"):
        reader.predict(draw(3, 4))


def test_percentiles_of_the_natural_images_themselves():
    natural = torch.arange(10.0)
    assert percentile_among(natural, natural).tolist() == pytest.approx([(rank + 0.5) / 10 for rank in range(10)])
    assert percentile_among(torch.tensor([[-1.0], [99.0]]), natural).tolist() == [[0.0], [1.0]]
    assert percentile_among(torch.tensor(1.0), torch.ones(7)).item() == 0.5
    with pytest.raises(ValueError, match=r"natural has shape \(0,\); expected \(M,\)"):
        percentile_among(natural, torch.empty(0))
    with pytest.raises(ValueError, match="responses holds NaN"):
        percentile_among(natural * float("nan"), natural)


def test_monotonicity_in_closed_form():
    rising = torch.arange(6.0)[:, None].expand(6, 3)
    assert monotonicity(rising).tolist() == [1.0] * 3
    assert monotonicity(-rising).tolist() == [-1.0] * 3
    assert monotonicity(torch.ones(4)).item() == 0
    assert monotonicity(rising.exp()).equal(monotonicity(rising))  # any rising function of the response
    with pytest.raises(ValueError, match=r"responses has shape \(1, 3\); expected \(A, ...\) at two or more"):
        monotonicity(rising[:1])
    with pytest.raises(ValueError, match="responses holds NaN"):
        monotonicity(rising * float("nan"))


def test_edit_angle():
    assert angle_between(torch.tensor([[1.0, 0]]), torch.tensor([[0, 5.0]])).item() == pytest.approx(90)
