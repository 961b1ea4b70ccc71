"""Reading one's own images, and the views of them."""

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from vislens_interp.training.data import pixels, read_images, read_splits, views


def write(folder, names, size=(8, 8)):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*size, 3), len(name) * 9 % 256, dtype=np.uint8)).save(path)


def test_parts_in_zips(tmp_path):
    write(tmp_path / "all", ["train/cat/1.png", "train/dog/2.png", "train/dog/3.png", "val/dog/a.png"])
    for archive, names in (("train_0", ["train/cat/1.png", "train/dog/2.png"]), ("train_1", ["train/dog/3.png"])):
        with zipfile.ZipFile(tmp_path / f"{archive}.zip", "w") as file:
            for name in names:
                file.write(tmp_path / "all" / name, name)
    with zipfile.ZipFile(tmp_path / "val.zip", "w") as file:
        file.write(tmp_path / "all/val/dog/a.png", "val/dog/a.png")
    splits = read_splits(tmp_path, 16)
    assert splits.train.shape == (3, 3, 16, 16)
    assert splits.train_labels.tolist() == [0, 1, 1]
    assert splits.validation_labels.tolist() == [1]  # by its name, though it is the only class there
    assert splits.classes == ["cat", "dog"]
    assert splits.describe() == "3 images of 2 classes to train on, 1 held out (val.zip)"


def test_an_image_folder_without_a_division(tmp_path):
    write(tmp_path, [f"{label}/{index}.png" for label in ("cell", "wall") for index in range(10)])
    splits = read_splits(tmp_path, 8)
    assert (len(splits.train), len(splits.validation)) == (18, 2)
    assert splits.validation_labels.tolist() == [0, 1]
    assert splits.train_labels.bincount().tolist() == [9, 9]


def test_a_photograph_is_turned_upright(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    exif = picture.getexif()
    exif[0x0112] = 6  # held upright, its sensor lay on its side
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    images, _, _ = read_images(tmp_path, 8)
    assert np.array_equal(images[0].permute(1, 2, 0), picture)


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such zip or folder of images"):
        read_splits(tmp_path / "nothing", 8)
    write(tmp_path / "few", [f"{index}.png" for index in range(4)])
    with pytest.raises(ValueError, match="holds 4 images; expected at least 10"):
        read_splits(tmp_path / "few", 8)
    write(tmp_path / "odd", ["train/cat/1.png", "val/cow/1.png"])
    with pytest.raises(ValueError, match="held-out class 'cow' has no training images"):
        read_splits(tmp_path / "odd", 8)


def test_the_real_set(data):
    splits = read_splits(data / "tiny_imagenet", 64)
    assert splits.train.shape == (40_000, 3, 64, 64)
    assert splits.train_labels.bincount().tolist() == [200] * 200
    assert splits.validation_labels.bincount().tolist() == [20] * 200


def test_views_of_an_even_image_are_that_image():
    flat = torch.full((8, 3, 16, 16), 100, dtype=torch.uint8)
    seen = views(flat, torch.Generator().manual_seed(0), jitter=0.0, gray=0.5)
    torch.testing.assert_close(seen, pixels(flat), atol=1e-5, rtol=0)


def test_views_stay_pixels_and_repeat():
    images = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8)
    seen = views(images, torch.Generator().manual_seed(1))
    assert 0 <= seen.min() <= seen.max() <= 1
    assert torch.equal(seen, views(images, torch.Generator().manual_seed(1)))
    assert not torch.equal(seen, views(images, torch.Generator().manual_seed(2)))
    colourless = views(images, torch.Generator().manual_seed(1), gray=1.0)
    torch.testing.assert_close(colourless[:, 0], colourless[:, 1])


def test_a_view_is_a_crop():
    """A horizontal ramp, cropped: still a ramp, less steep, within the range of the whole; half of them mirrored."""
    ramp = torch.linspace(0, 255, 64).round().to(torch.uint8).expand(200, 3, 64, 64)
    seen = views(ramp, torch.Generator().manual_seed(0), min_scale=0.2, jitter=0.0, gray=0.0)
    slope = seen[:, 0, 32, 48] - seen[:, 0, 32, 16]
    assert 0.35 < (slope > 0).float().mean() < 0.65
    steepness = slope.abs() * 2
    assert steepness.max() <= 1.02
    assert steepness.min() >= (0.2 * 0.74) ** 0.5 - 0.05  # the narrowest crop: a fifth of the area, 3:4
    torch.testing.assert_close(seen[:, 0, 10], seen[:, 0, 50], atol=1e-4, rtol=0)
