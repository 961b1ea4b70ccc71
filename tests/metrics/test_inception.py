from importlib.util import find_spec

import pytest
import torch

from vislens_interp.metrics import fid
from vislens_interp.metrics.inception import WEIGHTS


def test_without_weights_it_says_what_is_missing_and_downloads_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    images = torch.rand(2, 3, 8, 8)
    with pytest.raises(
        FileNotFoundError, match=f"no such file; expected {WEIGHTS}.*nothing is downloaded.*frechet_distance"
    ):
        fid(images, images)
    with pytest.raises(FileNotFoundError, match="elsewhere.pth"):
        fid(images, images, weights=tmp_path / "elsewhere.pth")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(find_spec("torch_fidelity") is not None, reason="torch-fidelity is installed here")
def test_without_torch_fidelity_it_says_how_to_install_it(tmp_path):
    path = tmp_path / WEIGHTS
    path.touch()
    with pytest.raises(ImportError, match=r"torch-fidelity.*not installed.*pip install 'torchmetrics\[image\]'"):
        fid(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8), weights=path)


@pytest.mark.skipif(
    find_spec("torch_fidelity") is None, reason="torch-fidelity is not installed: Inception comes from it"
)
def test_the_same_set_is_at_zero():
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    try:
        found = fid(images, images)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert found == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(1, 3, 8, 8), r"images_b has shape \(1, 3, 8, 8\).*at least two"),
        (torch.rand(2, 1, 8, 8), "images_b has shape"),
        (2 + torch.rand(2, 3, 8, 8), r"images_b holds pixels outside of \[0, 1\]"),
    ],
)
def test_fid_refuses(images, message):
    with pytest.raises(ValueError, match=message):
        fid(torch.rand(2, 3, 8, 8), images)
