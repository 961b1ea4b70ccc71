"""The embedded backend whole: its files, its reference set, optimisation, and other people's networks."""

import shutil

import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import interpolate

from vislens_interp import FeatureLens, zoo
from vislens_interp.backends.base import DEFAULT_BACKEND, get_backend
from vislens_interp.backends.embedded import FILES, embedded
from vislens_interp.backends.embedding import EmbeddingBackend
from vislens_interp.backends.reference_archive import ReferenceArchive, write_reference
from vislens_interp.backends.stable_diffusion import StableDiffusionGenerator
from vislens_interp.preprocess import Preprocess
from vislens_interp.targets.target import Target
from vislens_interp.zoo.embedder import Embedder64

shipped = pytest.mark.skipif(
    not all((zoo.WEIGHTS / name).is_file() for name in FILES), reason="the embedded backend's weights are not here yet"
)


def pictures(count, seed=1):
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return interpolate(coarse, size=64, mode="bilinear")


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), nn.Tanh(), nn.Conv2d(4, 3, 3))
    model.__dict__["preprocess"] = Preprocess(64, [0.5], [0.25])  # carried, no layer of the Sequential
    return model.eval()


@pytest.fixture(scope="module")
def lens(network, own):
    return FeatureLens(network, "2", unit=1, backend=own).fit(epochs=2, shuffles=1)


# Files


def test_it_is_the_same_classes_as_the_path_to_512_pixels(own, sd15):
    assert type(own) is type(sd15) is EmbeddingBackend
    assert type(own.generator) is type(sd15.generator) is StableDiffusionGenerator
    assert (own.name, own.size, own.shape) == ("embedded", 64, (512,))
    assert own.differentiable


def test_a_folder_gives_its_name(own_folder):
    assert embedded(folder=own_folder).name == own_folder.name


def test_as_shipped(own_folder, own, tmp_path, monkeypatch):
    """From ``zoo/weights`` by name, checked; a file that is missing or damaged is named."""
    import hashlib
    import json

    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(own_folder / name, tmp_path / name)
    sums = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in FILES}
    (tmp_path / "checksums.json").write_text(json.dumps(sums))
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    zoo.weights.cache_clear()
    try:
        backend = get_backend("embedded")
        assert backend.name == "embedded"
        assert torch.equal(backend.reference_images(), own.reference_images())
        images = pictures(2)
        assert torch.equal(backend.encode(images), own.encode(images))
        del backend  # while somebody uses it, its name gives the same one again
        zoo.weights.cache_clear()
        damaged = tmp_path / "generator64/adapter.safetensors"
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
        with pytest.raises(ValueError, match="adapter.safetensors' is damaged: .* Reinstall vislens_interp"):
            get_backend("embedded")
        damaged.unlink()
        with pytest.raises(FileNotFoundError, match="'generator64/adapter.safetensors' is not in this .* reinstall"):
            get_backend("embedded")
    finally:
        zoo.weights.cache_clear()


def test_a_folder_that_lacks_files(own_folder, tmp_path):
    shutil.copytree(own_folder, tmp_path / "mine")
    (tmp_path / "mine/reference64.zip").unlink()
    backend = embedded(folder=tmp_path / "mine")
    assert backend.reference_images() is None
    x = torch.randn(500, 512, generator=torch.Generator().manual_seed(0))
    vae = backend.vae()
    with torch.no_grad():
        assert ((vae.decode(vae.encode(x)[0]) - x) ** 2).mean() < 0.05
    (tmp_path / "mine/embedder64.safetensors").unlink()
    (tmp_path / "mine/generator64/unet/config.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks embedder64.safetensors, generator64/unet/config.json; .* Train them: python -m"
    ):
        embedded(folder=tmp_path / "mine")


@shipped
def test_the_shipped_one():
    backend = get_backend("embedded")
    assert len(backend.reference_images()) >= 1000
    x = backend.encode(backend.reference_images())
    assert x.std() > 0.5
    assert (zoo.WEIGHTS / "reference64.zip").stat().st_size <= 6_000_000


def test_the_default_is_there(network):
    assert DEFAULT_BACKEND == "embedded"
    assert all((zoo.WEIGHTS / name).is_file() for name in FILES)
    assert FeatureLens(network, "2", unit=1).backend.name == DEFAULT_BACKEND


# The reference set


def test_the_embeddings_that_travel_are_those_of_the_pictures(own):
    images = own.reference_images()
    kept = own.encode(images)
    assert kept.shape == (len(images), 512)
    torch.testing.assert_close(own.encode(images.clone()), kept, atol=5e-3, rtol=1e-3)  # half precision
    assert not torch.equal(own.encode(images.clone()), kept)


def test_a_reference_set_of_another_embedder(own_folder, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        other = Embedder64().eval()
    with pytest.raises(ValueError, match="was embedded by another network than this embedder .* Make the reference"):
        ReferenceArchive(own_folder / "reference64.zip", other)


def test_a_damaged_reference_set(own_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file; expected a synthetic reference set. Make it: python"):
        ReferenceArchive(tmp_path / "absent.zip")
    whole = (own_folder / "reference64.zip").read_bytes()
    path = tmp_path / "reference64.zip"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read .*; expected a whole reference set. Copy it again"):
        ReferenceArchive(path)


def test_it_is_small_enough_or_refused(own, tmp_path):
    images = torch.rand(20, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    large = write_reference(tmp_path / "large.zip", images, own.embedder)
    small = write_reference(tmp_path / "small.zip", images, own.embedder, limit=80_000)
    assert small.stat().st_size <= 80_000 < large.stat().st_size
    assert ReferenceArchive(small).about["what"].startswith("synthetic reference")
    with pytest.raises(ValueError, match="20 pictures, which do not fit into limit=30000 bytes; expected fewer"):
        write_reference(tmp_path / "none.zip", images, own.embedder, limit=30_000)


def test_one_image_is_enough_to_start(lens, own):
    assert lens.reference_set.kind == "synthetic reference"
    result = lens.visualize(pictures(1))
    assert result.images["increase"].shape == (1, 3, 64, 64)
    assert result.settings["reference_set"] == "synthetic reference"
    assert lens.reference_set.held_out(2)[1][0].startswith("synthetic-")


def test_fitted_and_edited_images_that_overlap(lens, own, network, tmp_path):
    held_out = lens.landscape_.held_out.tolist()
    learned = [row for row in range(len(own.reference_images())) if row not in held_out][:2]
    both = torch.cat([own.reference_images()[learned], pictures(1)])
    with pytest.warns(UserWarning, match=r"2 of 3 images to edit are among those .* \(synthetic reference\)"):
        lens.visualize(both, "increase", alpha=0.1)
    loaded = FeatureLens.load(lens.save(tmp_path / "lens.safetensors"), network, backend=own)
    with pytest.warns(UserWarning, match="2 of 3 images to edit"):
        loaded.visualize(both, "increase", alpha=0.1)
    lens.visualize(own.reference_images()[held_out[:1]], "increase")  # no warning: the suite turns warnings into errors


def test_synthetic_pictures_are_never_called_natural(lens):
    with pytest.raises(
        ValueError, match="shows reference images as natural ones, and those of this lens are synthetic"
    ):
        lens.visualize(pictures(1), method="natural_images")


# Optimisation


def test_a_few_steps_are_a_generation_without_guidance(own, own_folder):
    x = own.encode(pictures(2))
    plain = embedded(folder=own_folder, guidance=1.0, steps=3)
    made = own.generator.few_steps(x, steps=3, seeds=[1, 2])
    torch.testing.assert_close(made, plain.generator(x, seeds=[1, 2]), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="steps=0 must be at least 1; 2 to 4 are usual"):
        own.generator.few_steps(x, steps=0, seeds=[1, 2])


def test_the_gradient_is_that_of_a_small_step(own):
    x = own.encode(pictures(1)).requires_grad_()
    weights = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    value = (own.render(x) * weights).sum()
    (gradient,) = torch.autograd.grad(value, x)
    step = gradient / gradient.norm() * 0.001
    with torch.no_grad():
        ahead, behind = ((own.render(x + sign * step) * weights).sum() for sign in (1, -1))
    assert (ahead - behind).item() == pytest.approx(2 * 0.001 * gradient.norm().item(), rel=0.02)


def test_optimisation_moves_what_is_rendered(lens, own):
    images = pictures(2)
    method = lens.maker("optimize")
    x = own.encode(images)
    moved = method.embeddings(x, {0: "increase"})
    torch.testing.assert_close(moved.norm(dim=1), x.norm(dim=1))  # the length is the image's own all along
    with torch.no_grad():
        before, after = (lens.target(own.render(part))[:, 0] for part in (method.embeddings(x, {}), moved))
    assert (after > before).all()
    found = method.optimized_
    assert found.responses[0].tolist() == pytest.approx(
        lens.landscape_.scaler.standardise(before[:, None])[:, 0].tolist(), abs=1e-3
    )
    result = lens.visualize(images, "increase", method="optimize")
    assert result.settings["strength"] == own.defaults.optimize_strength
    start = own.render(moved).detach()
    made = own.decode(moved, init_image=start, strength=own.defaults.optimize_strength, seeds=[42] * 2)
    torch.testing.assert_close(result.images["increase"], made, atol=1e-3, rtol=0)


def test_optimisation_needs_a_target_with_gradients(own):
    class Brightness(Target):
        names = ("all",)
        differentiable = False

        def __call__(self, images):
            return images.mean((1, 2, 3))[:, None].detach()

    with pytest.raises(ValueError, match="method='optimize' needs gradients .* this target has none. Use"):
        FeatureLens(Brightness(), backend=own).visualize(pictures(1), method="optimize")


# Other people's networks


def check_any_network(name, layer, own):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False)
    lens = FeatureLens(model, layer, 3, backend=own)
    side = model.pretrained_cfg["input_size"][1]
    assert "resize to" in str(lens)
    assert side > own.size
    result = lens.visualize(pictures(1))
    assert result.images["increase"].shape == (1, 3, 64, 64)
    assert result.response_change["increase"].isfinite().all()
    assert not model.training or model.training == lens.target.model.training


EARLY = {"resnet50": "maxpool", "vit_tiny_patch16_224": "blocks.0", "convnext_tiny": "stem"}
DEEP = {"resnet50": "layer3.2", "vit_base_patch16_224": "blocks.8", "convnext_base": "stages.2"}


@pytest.mark.parametrize("name", EARLY)
def test_any_timm_network_and_one_image(name, own):
    check_any_network(name, EARLY[name], own)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
def test_deep_layers_of_large_networks(name, own):
    check_any_network(name, DEEP[name], own)
