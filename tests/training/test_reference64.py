"""The synthetic reference set: statistics, resumption, what is kept, and the whole recipe on a tiny generator."""

import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cosine_similarity

sys.path.insert(0, str(Path(__file__).parents[1]))

from vislens_interp.backends.reference_archive import ReferenceArchive
from vislens_interp.training import reference64
from vislens_interp.training.__main__ import main
from vislens_interp.zoo.embedder import Embedder64

SETTINGS = {"count": 60, "kept": 0.5, "sampling_steps": 1, "guidance": 1.0}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    from checkpoints import write_embedded

    return write_embedded(tmp_path_factory.mktemp("embedded"), pictures=20)


def test_statistics_are_means_and_differences():
    x = torch.tensor([[0.0, 1.0], [2.0, 3.0], [10.0, 0.0]])
    means, residuals = reference64.statistics(x, torch.tensor([4, 4, 7]))
    assert means.tolist() == [[1.0, 2.0], [10.0, 0.0]]
    assert residuals.tolist() == [[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]]


def test_wanted_embeddings_have_the_training_images_statistics():
    generator = torch.Generator().manual_seed(0)
    means = torch.tensor([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    residuals = torch.randn(50, 3, generator=generator) @ torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0, 0, 0.1]])
    drawn = torch.stack([reference64._wanted(row, means, residuals, 1.0, 0) for row in range(4000)])
    for label in (0, 1):
        own = drawn[label::2]
        torch.testing.assert_close(own.mean(0), means[label], atol=0.1, rtol=0)
        torch.testing.assert_close(own.T.cov(), residuals.T @ residuals / 50, atol=0.12, rtol=0)
    assert torch.equal(reference64._wanted(3, means, residuals, 0.0, 0), means[1])


def test_the_nearest_of_each_class_are_kept():
    cosines = torch.tensor([0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.6, 0.4])  # class 0 always nearer than class 1
    assert reference64.best(cosines, 2, 0.5).tolist() == [0, 2, 5, 7]
    assert reference64.best(cosines[:1], 2, 0.5).tolist() == [0]


def test_an_interrupted_run_ends_alike(pictures, weights, tmp_path):
    whole, progress = reference64.run(pictures, tmp_path / "whole", weights=weights, **SETTINGS)
    assert progress.step == len(whole.images) == 60
    _, part = reference64.run(pictures, tmp_path / "parts", weights=weights, minutes=1e-9, **SETTINGS | {"count": 40})
    assert 0 < part.step < 60
    parts, again = reference64.run(pictures, tmp_path / "parts", weights=weights, **SETTINGS)
    assert torch.equal(parts.images, whole.images)
    assert again.history == progress.history


def test_the_recipe_writes_a_reference_set_and_its_card(pictures, weights, tmp_path, capsys):
    command = ["reference64", "--data", str(pictures), "--out", str(tmp_path), "--weights", str(weights)]
    command += [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    assert main(command) == 0
    embedder = Embedder64.load(weights / "embedder64.safetensors")
    made = ReferenceArchive(tmp_path / "reference64.zip", embedder)
    assert len(made) == len(made.images) == 60
    assert (tmp_path / "reference64.zip").stat().st_size <= 6_000_000
    with torch.no_grad():
        assert cosine_similarity(embedder(made.images), made.embeddings).min() > 0.999
    with zipfile.ZipFile(tmp_path / "reference64.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".webp")]
    assert len(names) == 60
    assert all(name.startswith("synthetic/") for name in names)
    card = (tmp_path / "reference64.md").read_text()
    assert "synthetic reference set" in card
    assert "None of them is a photograph" in card
    assert "parameters" not in card
    assert "cosine wanted obtained" in card


def test_wrong_use(pictures, weights, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["reference64", "--data", str(pictures), "--out", str(tmp_path), "--steps", "5"])
    assert "--steps 5: recipe 'reference64' takes no optimiser steps. Leave it out" in capsys.readouterr().err
    assert main(["reference64", "--data", str(pictures), "--out", str(tmp_path)]) == 1
    assert "embedder64.safetensors': no such file" in capsys.readouterr().err


def test_shipping(weights, tmp_path, monkeypatch):
    from vislens_interp import zoo
    from vislens_interp.backends.embedded import FILES
    from vislens_interp.training import ship

    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path / "zoo")
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo/checksums.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="lacks the model cards embedder64.md, generator64.md, reference64.md"):
        ship.ship(weights)
    for name in ("embedder64", "generator64", "reference64"):
        (weights / f"{name}.md").write_text("# card\n")
    assert ship.ship(weights) == list(FILES)
    zoo.weights.cache_clear()
    try:
        assert all(zoo.weights(name).is_file() for name in FILES)
        assert (tmp_path / "zoo/generator64.md").is_file()
    finally:
        zoo.weights.cache_clear()
    monkeypatch.setattr(ship, "LIMIT", 1000)
    with pytest.raises(ValueError, match="brings the weights to .* bytes; expected 1,000 at most"):
        ship.ship(weights)
    with pytest.raises(FileNotFoundError, match="holds none of embedder64.safetensors, .* Run them first"):
        ship.ship(tmp_path / "nothing")


def test_another_generator_than_the_run_began_with(pictures, weights, tmp_path):
    options = SETTINGS | {"count": 5}
    reference64.run(pictures, tmp_path / "run", weights=weights, **options)
    other = tmp_path / "other"
    shutil.copytree(weights, other)
    path = other / "generator64/unet/diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["conv_out.bias"] += 1
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="belongs to a run with another generator64; expected those that it began"):
        reference64.run(pictures, tmp_path / "run", weights=other, **options)
