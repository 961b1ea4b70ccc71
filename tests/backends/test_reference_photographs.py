"""Reference photographs in their zip: crops, groups, terms, embeddings that travel, and damage."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vislens_interp.backends.reference_photographs import CROPS, ReferencePhotographs, crop_boxes, write_reference
from vislens_interp.reference import ReferenceSet, content_key

TERMS = "file,licence\na.png,CC0-1.0\nb.png,CC-BY-4.0\n"


class Means(nn.Module):
    """Mean colour of an image."""

    dim = 3

    def __init__(self, scale=1.0):
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, images):
        return images.mean((2, 3)) * self.scale


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    draw = np.random.default_rng(0)
    for name, size in (("a", (90, 60)), ("b", (50, 80))):
        coarse = Image.fromarray(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    return [folder / "a.png", folder / "b.png"]


@pytest.fixture(scope="module")
def path(files, tmp_path_factory):
    return write_reference(tmp_path_factory.mktemp("zip") / "reference.zip", files, TERMS, Means(), size=32)


def test_crops_lie_in_the_photograph_and_the_first_is_its_middle():
    boxes = crop_boxes(90, 60, torch.Generator().manual_seed(0))
    assert boxes[0] == [15, 0, 60]
    assert [side for _, _, side in boxes] == [round(share * 60) for share in CROPS]
    assert all(0 <= left <= 90 - side and 0 <= top <= 60 - side for left, top, side in boxes)


def test_crops_are_read_from_the_zip(path, files):
    crops = ReferencePhotographs(path, 32)
    assert crops.shape == (2 * len(CROPS), 3, 32, 32)
    assert crops.names[:2] == ["a-0", "a-1"]
    assert crops.groups.tolist() == [0] * len(CROPS) + [1] * len(CROPS)
    with Image.open(files[0]) as image:
        middle = image.crop((15, 0, 75, 60)).resize((32, 32), Image.Resampling.BICUBIC)
    whole = torch.from_numpy(np.array(middle)).permute(2, 0, 1) / 255
    assert (crops[:1][0] - whole).abs().mean() < 0.03  # WebP
    assert torch.equal(crops[[7]], crops[:][7:8])
    assert torch.equal(crops[-1], crops[:][-1])
    assert crops.terms() == TERMS


def test_a_part_is_a_set_of_its_own(path):
    crops = ReferencePhotographs(path, 32)
    part = crops.at([7, 1])
    assert (len(part), part.names, part.groups.tolist()) == (2, ["b-1", "a-1"], [1, 0])
    assert torch.equal(part[:], crops[[7, 1]])
    assert content_key(part) != content_key(crops)
    assert content_key(crops.at(range(len(crops)))) == content_key(crops)


def test_embeddings_travel_with_these_very_crops_alone(path):
    crops = ReferencePhotographs(path, 32, Means())
    torch.testing.assert_close(crops.embeddings(), Means()(crops[:]), atol=1e-3, rtol=0)
    torch.testing.assert_close(crops.at([3]).embeddings(), crops.embeddings()[3:4])
    assert ReferencePhotographs(path, 32, Means(2.0)).embeddings() is None
    assert ReferencePhotographs(path, 64, Means()).embeddings() is None
    assert ReferencePhotographs(path, 32).embeddings() is None


def test_crops_of_one_photograph_stay_together(path):
    reference = ReferenceSet(ReferencePhotographs(path, 32), origin="photographs")
    assert reference.kind == "reference photographs"
    assert reference.groups.tolist() == [0] * len(CROPS) + [1] * len(CROPS)
    assert reference.at([8, 9, 0]).groups.tolist() == [0, 0, 1]


def test_a_photograph_is_turned_upright(files, tmp_path):
    with Image.open(files[0]) as image:
        exif = image.getexif()
        exif[0x0112] = 6  # held upright, its sensor lay on its side
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    turned = write_reference(tmp_path / "turned.zip", [tmp_path / "a.png"], TERMS, Means(), size=32)
    upright = write_reference(tmp_path / "upright.zip", files[:1], TERMS, Means(), size=32)
    assert torch.equal(ReferencePhotographs(turned, 32)[:], ReferencePhotographs(upright, 32)[:])


def test_it_is_small_enough_or_refused(files, tmp_path):
    with pytest.raises(ValueError, match=r"2 pictures, which do not fit into limit=1000 bytes; expected fewer"):
        write_reference(tmp_path / "none.zip", files, TERMS, Means(), size=32, limit=1000)


def test_two_photographs_of_one_name_are_refused(files, tmp_path):
    with pytest.raises(ValueError, match="several files of the name 'a'; expected a name of its own for each"):
        write_reference(tmp_path / "none.zip", [*files, tmp_path / "other" / "a.jpg"], TERMS, Means(), size=32)


def test_a_damaged_or_absent_set_is_named(path, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file; expected a set of reference photographs"):
        ReferencePhotographs(tmp_path / "none.zip", 32)
    (tmp_path / "half.zip").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"half.zip' cannot be read .* Copy it again, or reinstall"):
        ReferencePhotographs(tmp_path / "half.zip", 32)
