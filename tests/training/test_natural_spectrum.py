"""The amplitudes of photographs are measured on what tunes, written with a card, and ship."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from vislens_interp import zoo
from vislens_interp.files import load_state
from vislens_interp.methods.natural_spectrum import FILE, KIND, measure
from vislens_interp.training import natural_spectrum, ship


def write_zip(path, count, size, seed):
    generator = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    images = generator.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    with zipfile.ZipFile(path, "w") as archive:
        for number, image in enumerate(images):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "PNG")
            archive.writestr(f"photos/{number:04d}.png", file.getvalue())
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def test_it_is_the_mean_over_what_may_be_looked_at(tmp_path, monkeypatch, capsys):
    small = write_zip(tmp_path / "data/tiny_imagenet/train_0.zip", 7, 64, 0)
    large = write_zip(tmp_path / "data/photos/imagenet500.zip", 5, 224, 1)
    monkeypatch.setattr(natural_spectrum, "AT_ONCE", 3)
    assert natural_spectrum.main([str(tmp_path / "data"), "--out", str(tmp_path)]) == 0
    sizes = load_state(tmp_path / FILE, KIND)["sizes"]
    for side, images in (("64", small), ("224", large[::2])):
        expected = measure(images)
        torch.testing.assert_close(sizes[side]["amplitude"].float(), expected.amplitude, atol=1e-2, rtol=1e-2)
        torch.testing.assert_close(sizes[side]["mean"], expected.mean, atol=1e-4, rtol=1e-4)
    card = (tmp_path / "natural_spectrum.md").read_text(encoding="utf-8")
    assert "7 photographs of `tiny_imagenet/train_0.zip`, at 64 px; 3 photographs of `photos/imagenet500.zip`" in card
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/checksums.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path / "weights")
    assert ship.ship(tmp_path) == [FILE]
    assert list(json.loads((tmp_path / "weights/checksums.json").read_text(encoding="utf-8"))) == [FILE]
    assert natural_spectrum.main([str(tmp_path / "nowhere"), "--out", str(tmp_path)]) == 1
    assert "no such zip or folder" in capsys.readouterr().err


@pytest.mark.data
def test_what_ships_is_what_the_photographs_give(data):
    """A tenth of the photographs already comes near, at every band of frequencies."""
    spectrum, count = natural_spectrum.measure_file(data / "photos/imagenet500.zip", 224, slice(0, None, 20))
    shipped = load_state(zoo.weights(FILE), KIND)["sizes"]["224"]["amplitude"].float()
    assert count == 25
    ratio = (spectrum.amplitude.sum((1, 2)) / shipped.sum((1, 2))).log().abs()
    assert ratio.max() < 0.25
