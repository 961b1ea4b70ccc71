"""The embedded backend as it ships: photographs in, photographs out, and a unit that it never asks moves."""

import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate

from vislens_interp import FeatureLens, zoo
from vislens_interp.backends.base import DEFAULT_BACKEND, get_backend
from vislens_interp.backends.closed_loop import ClosedLoopGenerator
from vislens_interp.backends.depth_embedder import DepthEmbedder
from vislens_interp.backends.embedded import FILES, GRID, REFERENCE, embedded
from vislens_interp.backends.reference_photographs import ReferencePhotographs
from vislens_interp.preprocess import Preprocess
from vislens_interp.targets import CallableTarget
from vislens_interp.training.__main__ import main

pytestmark = pytest.mark.skipif(
    not all((zoo.WEIGHTS / name).is_file() for name in FILES), reason="the embedded backend's weights are not here"
)


def _pictures(count, side, seed=0):
    """Clouds of colour at three scales: (N, 3, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    layers = [
        interpolate(torch.rand(count, 3, cells, cells, generator=generator), (side, side), mode="bicubic")
        for cells in (2, 6, 20)
    ]
    return (0.5 * layers[0] + 0.3 * layers[1] + 0.2 * layers[2]).clamp(0, 1)


@pytest.fixture(scope="module")
def backend():
    return get_backend("embedded", size=64)


def test_it_loads_offline_by_name(backend):
    assert (backend.name, backend.size, backend.shape, backend.differentiable) == ("embedded", 64, (784,), False)
    assert get_backend("embedded").size == 224
    assert DEFAULT_BACKEND == "embedded"


def test_an_unedited_picture_is_the_picture(backend):
    images = _pictures(4, 64)
    made = backend.decode(backend.encode(images), init_image=images, strength=0.0, seeds=[0] * 4)
    error = (made - images).square().mean((1, 2, 3))
    assert (-10 * error.log10() > 30).all()
    rougher = backend.decode(backend.encode(images), init_image=images, strength=0.5, seeds=[0] * 4)
    assert ((rougher - images).square().mean((1, 2, 3)) > error).all()


def test_an_edit_moves_a_unit_both_ways_and_keeps_the_picture(backend):
    warmth = CallableTarget(lambda images: (images[:, 0] - images[:, 2]).mean((1, 2)).sigmoid(), name="warmth")
    lens = FeatureLens(warmth, backend=backend).fit(_pictures(240, 64, seed=1), epochs=2, shuffles=0)
    images = _pictures(3, 64, seed=2)
    result = lens.visualize(images)
    assert (result.response_change["increase"] > 0.2).all()
    assert (result.response_change["decrease"] < -0.2).all()
    for sense in ("increase", "decrease"):
        made = result.images[sense]
        assert ((made - images).square().mean((1, 2, 3)).sqrt() < 0.12).all()


def test_a_folder_without_the_recipe_s_files_is_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"lacks embedded/statistics\.safetensors, embedded/decoder\.safetensors"
    ):
        embedded(folder=tmp_path)


def test_the_recipe_makes_a_backend_of_one_s_own_images(tmp_path):
    pictures = (_pictures(24, 64, seed=3) * 255).byte().permute(0, 2, 3, 1).numpy()
    (tmp_path / "images").mkdir()
    for row, picture in enumerate(np.asarray(pictures)):
        Image.fromarray(picture).save(tmp_path / "images" / f"{row:02d}.png")
    words = ["decoder", "--data", str(tmp_path / "images"), "--out", str(tmp_path / "mine"), "--set", "size=64"]
    assert main(words) == 0
    assert (tmp_path / "mine" / "decoder.md").is_file()
    own = embedded(folder=tmp_path / "mine", size=64)
    assert own.name == "mine"
    images = _pictures(2, 64, seed=4)
    made = own.decode(own.encode(images), init_image=images, strength=0.0, seeds=[0, 0])
    assert (made - images).square().mean() < 1e-2


def test_the_recipe_packs_photographs_with_their_terms_and_a_grid(tmp_path, monkeypatch):
    monkeypatch.setattr("vislens_interp.training.reference.COMPONENTS", 8)
    lines = ["file,author,licence"]
    for row, picture in enumerate(np.asarray((_pictures(3, 96, seed=5) * 255).byte().permute(0, 2, 3, 1).numpy())):
        Image.fromarray(picture).save(tmp_path / f"{row}.png")
        lines.append(f"{row}.png,me,CC0")
    (tmp_path / "licences.csv").write_text("\n".join(lines), encoding="utf-8")
    words = ["reference", "--data", str(tmp_path), "--out", str(tmp_path / "mine"), "--set", "size=64"]
    assert main(words) == 0
    crops = ReferencePhotographs(tmp_path / "mine" / REFERENCE, 64)
    assert len(crops.groups.unique()) == 3
    gridded = DepthEmbedder(zoo.load("efficientnet_lite0"), size=128, grid=3, components=8)
    gridded.load_statistics(tmp_path / "mine" / GRID)
    assert gridded(crops[:]).isfinite().all()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,author\n0.png,me", "has the columns file, author; expected file and licence among them. Add licence"),
        ("file,licence\n", "holds 0 rows below 2 columns"),
    ],
)
def test_a_table_of_terms_that_lacks_something(table, message, tmp_path, capsys):
    (tmp_path / "licences.csv").write_text(table, encoding="utf-8")
    assert main(["reference", "--data", str(tmp_path), "--out", str(tmp_path / "mine")]) == 1
    assert message in capsys.readouterr().err


def test_a_grid_knows_where_things_are(tmp_path):
    backend = get_backend("embedded", size=64, grid=3)
    left = torch.full((1, 3, 64, 64), 0.5)
    left[:, :, 20:44, 4:28] = _pictures(1, 24, seed=6)
    means, cells = (backend.encode(left) - backend.encode(left.roll(32, 3))).split([784, 512], 1)
    assert cells.norm() > means.norm()
    assert backend.vae().decode(torch.zeros(1, 512)).shape == (1, 1296)
    with pytest.raises(FileNotFoundError, match="grid.safetensors.*training reference"):
        embedded(folder=tmp_path, grid=3)
    with pytest.raises(ValueError, match="grid of the statistics"):
        embedded(grid=4)


def test_it_brings_photographs_and_their_embeddings():
    backend = get_backend("embedded")
    images = backend.reference_images()
    assert len(images) >= 2000
    assert len(images.groups.unique()) >= 300
    known = backend.encode(images)
    some = [0, 700, 1400]
    torch.testing.assert_close(known[some], backend.encode(images[some]), atol=0.02, rtol=0.01)  # half precision
    rows = images.terms().splitlines()
    assert rows[0].startswith("file,package,path,author,licence")
    assert (zoo.WEIGHTS / "embedded/reference.zip").stat().st_size <= 12_000_000


def test_a_cache_keeps_what_is_embedded_anew(backend, tmp_path):
    crops = backend.reference_images().at([0, 700])
    cached = embedded(size=64, cache=tmp_path)  # at another size than the embeddings that travel along
    torch.testing.assert_close(cached.encode(crops), backend.encode(crops))
    assert list(tmp_path.glob("embeddings-*/*.safetensors"))


def test_optimisation_moves_the_unit_further_than_the_edit(backend):
    warmth = CallableTarget(
        lambda images: (images[:, 0] - images[:, 2]).mean((1, 2)).sigmoid(), name="warmth", differentiable=True
    )
    lens = FeatureLens(warmth, backend=backend).fit(_pictures(240, 64, seed=1), shuffles=0)
    images = _pictures(2, 64, seed=2)
    edited, optimised = (lens.visualize(images, method=method) for method in ("edit", "optimize"))
    for sense, sign in (("increase", 1), ("decrease", -1)):
        assert (sign * optimised.response_change[sense] > 0.2).all()
        assert (sign * optimised.response_change[sense] > 0.7 * sign * edited.response_change[sense]).all()
        assert ((optimised.images[sense] - images).square().mean((1, 2, 3)).sqrt() < 0.12).all()


def test_one_image_is_enough_to_start(backend):
    network = nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), nn.Tanh(), nn.Conv2d(4, 3, 3))
    network.__dict__["preprocess"] = Preprocess(64, [0.5], [0.25])  # carried, no layer of the Sequential
    lens = FeatureLens(network.eval(), "2", unit=1, backend=backend)
    lens.fit(shuffles=1)
    result = lens.visualize(_pictures(1, 64))
    assert result.images["increase"].shape == (1, 3, 64, 64)
    assert result.settings["reference_set"] == "reference photographs"
    shown = lens.visualize(_pictures(1, 64), method="natural_images")
    assert shown.response_change["increase"] > shown.response_change["decrease"]


def test_as_shipped_files_are_checked(tmp_path, monkeypatch):
    for name in (*FILES, "checksums.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(zoo.WEIGHTS / name, tmp_path / name)
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    zoo.weights.cache_clear()
    try:
        damaged = tmp_path / "embedded/decoder.safetensors"
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
        with pytest.raises(ValueError, match=r"decoder.safetensors' is damaged: .* Reinstall vislens_interp"):
            embedded()
        damaged.unlink()
        with pytest.raises(FileNotFoundError, match=r"'embedded/decoder.safetensors' is not in this .* reinstall"):
            embedded()
    finally:
        zoo.weights.cache_clear()


EARLY = {"resnet50": "maxpool", "vit_tiny_patch16_224": "blocks.0", "convnext_tiny": "stem"}


@pytest.mark.slow
@pytest.mark.parametrize("name", EARLY)
def test_any_timm_network(name, backend):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False)
    lens = FeatureLens(model, EARLY[name], 3, backend=backend).fit(_pictures(220, 64, seed=1), shuffles=1)
    result = lens.visualize(_pictures(1, 64))
    assert result.response_change["increase"].isfinite().all()


@pytest.mark.parametrize("edit_size", [0, -3])
def test_a_size_without_pixels_is_refused(edit_size, backend):
    loop = backend.closed_loop
    with pytest.raises(ValueError, match=f"edit_size={edit_size} must be at least 1"):
        embedded(edit_size=edit_size)
    with pytest.raises(ValueError, match=f"edit_size={edit_size} must be at least 1"):
        ClosedLoopGenerator(loop.embedder, loop.decoder, edit_size=edit_size)
