import pytest
import torch


def smooth(count, side=32, seed=0):
    """Coloured clouds: pictures that differ in orientation, colour and place."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=draw)
    return torch.nn.functional.interpolate(coarse, size=side, mode="bicubic").clamp(0, 1)


@pytest.fixture(scope="session")
def clouds():
    return smooth(300)


@pytest.fixture(scope="session")
def correlate():
    def correlation(first, second):
        """Pearson's r of each column, (K,)."""
        first, second = first - first.mean(0), second - second.mean(0)
        return (first * second).sum(0) / (first.norm(dim=0) * second.norm(dim=0))

    return correlation
