"""The recipe of the map generator: it runs, goes on where it was, and what it writes loads again."""

import numpy as np
import pytest
import torch
from PIL import Image

from vislens_interp.training.__main__ import main
from vislens_interp.zoo.map_generator import MapGenerator


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("maps")
    (place / "images").mkdir()
    draw = np.random.default_rng(0)
    for row in range(24):
        coarse = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((64, 64), Image.Resampling.BICUBIC).save(place / "images" / f"{row:02d}.png")
    words = ["map_generator", "--data", str(place / "images"), "--out", str(place / "out"), "--steps", "3"]
    words += ["--set", "batch_size=4", "--set", "evaluate_every=2"]
    assert main([*words, "--minutes", "0.0001"]) == 0
    assert main(words) == 0
    return place / "out"


def test_what_it_writes_draws_pictures_of_any_level(trained):
    network = MapGenerator.load(trained / "map_generator.safetensors")
    x, drawing = torch.randn(2, network.dim), torch.rand(2, 3, 64, 64)
    alone = torch.full((2,), network.levels)
    made = network(x, drawing, alone)
    assert made.shape == drawing.shape
    torch.testing.assert_close(made, network(x, 1 - drawing, alone))  # without maps the drawing is not read
    assert not torch.allclose(network(x, drawing, torch.tensor([1, 1])), made)
    assert (trained / "map_generator.md").is_file()


def test_a_damaged_or_absent_file_is_named(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file; expected trained weights"):
        MapGenerator.load(tmp_path / "none.safetensors")
    whole = (trained / "map_generator.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half.safetensors': a MapGenerator cannot be restored .* Restore a copy"):
        MapGenerator.load(tmp_path / "half.safetensors")
