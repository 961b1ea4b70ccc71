"""The embedding backend, by name and through a lens, whole, on the tiny checkpoints."""

import copy
import shutil

import pytest
import torch
from checkpoints import DIM, TINY_CLIP, adapter_state, write_adapter, write_hub_cache
from PIL import Image
from torch import nn

import vislens_interp.backends.cache as cache_module
import vislens_interp.backends.embedding as embedding
from vislens_interp import FeatureLens
from vislens_interp.backends.base import get_backend
from vislens_interp.backends.embedding import PAPER, EmbeddingBackend
from vislens_interp.backends.weights import IP_ADAPTER, OPENCLIP, SD15
from vislens_interp.files import fingerprint
from vislens_interp.images import ImageFiles, load_images, to_pil
from vislens_interp.preprocess import Preprocess

# What is edited here is what was fitted on, for speed.
pytestmark = pytest.mark.filterwarnings("ignore:.*images to edit are among")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_by_name_from_the_hubs_cache(cache, tiny, sd15):
    write_hub_cache(cache, tiny)
    backend = get_backend("sd15", "cpu")
    assert backend.name == "sd15"
    assert backend.generator.num_inference_steps == 50
    assert backend.generator.guidance_scale == 7.5
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(backend.encode(pictures), sd15.encode(pictures))


def test_by_name_without_weights_all_that_is_missing_is_said(cache):
    with pytest.raises(FileNotFoundError) as raised:
        get_backend("sd15")
    said = str(raised.value)
    for repository in (SD15, IP_ADAPTER, OPENCLIP):
        assert repository.repo_id in said
    for name in ("unet/config.json", "tokenizer/vocab.json", "ip-adapter_sd15.safetensors", "open_clip_model"):
        assert name in said
    assert "Run `vislens download sd15`" in said


def test_only_what_is_missing_is_said(cache, tiny):
    write_hub_cache(cache, tiny)
    (adapter,) = cache.rglob("ip-adapter_sd15.safetensors")
    adapter.unlink()
    adapter.with_suffix(".bin").unlink()
    with pytest.raises(FileNotFoundError, match="^adapter='h94/IP-Adapter' lacks models/ip-adapter_sd15.safetensors"):
        get_backend("sd15")


def test_an_adapter_for_another_embedder(tiny, tmp_path, sd15):
    path = write_adapter(tmp_path, adapter_state(sd15.generator.unet, 1280), "ip-adapter_sd15")
    with pytest.raises(ValueError, match=f"takes 1280-d embeddings .*bigG.*, but the embedder makes {DIM}"):
        embedding.sd15(model=tiny.model, adapter=path, clip=tiny.clip)


def test_embedder_and_generator_have_to_agree(sd15):
    class Other:
        dim, size, device = 7, 8, torch.device("cpu")

        def __call__(self, images):
            return images.flatten(1)[:, :7]

    with pytest.raises(ValueError, match=f"embedder makes 7-d embeddings, but the generator takes {DIM}; expected the"):
        EmbeddingBackend(Other(), sd15.generator, name="mine")


def test_shape_and_size_are_the_checkpoints(sd15, textless):
    assert sd15.shape == textless.shape == (TINY_CLIP["embed_dim"],)
    assert (sd15.size, textless.size) == (32, 16)
    assert not sd15.differentiable
    assert type(sd15.generator) is type(textless.generator)


def test_render_is_a_generation_from_the_papers_seed(sd15):
    x = sd15.encode(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(sd15.render(x), sd15.decode(x, init_image=None, strength=1.0, seeds=[42, 42]))


def test_the_papers_recipe():
    """Table S3, column NSD & ImageNet; Algorithm 2."""
    assert (PAPER.fit.epochs, PAPER.fit.batch_size, PAPER.fit.lr) == (150, 128, 1e-4)
    assert (PAPER.fit.lr_step, PAPER.fit.lr_gamma, PAPER.fit.clip) == (10, 0.9, 1.0)
    assert PAPER.edit.interpolation == "slerp"
    assert PAPER.edit.keep_norm
    assert PAPER.edit.strength == 1
    assert not PAPER.prior.closed_form_init
    assert PAPER.prior.block_dim is None


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 5, stride=2), nn.Tanh(), nn.Conv2d(4, 3, 3))
    model.__dict__["preprocess"] = Preprocess(32, [0.5], [0.25])  # carried, no layer of the Sequential
    return model.eval()


@pytest.fixture(scope="module")
def pictures():
    coarse = torch.rand(220, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, size=36, mode="bilinear")


@pytest.fixture(scope="module")
def lens(network, pictures, sd15):
    return FeatureLens(network, "2", unit=1, backend=sd15).fit(pictures, epochs=8, lr=1e-3, shuffles=1)


def test_a_lens_runs_whole(lens, pictures, sd15):
    result = lens.visualize(pictures[:3])
    assert set(result.images) == {"inputs", "unedited", "increase", "decrease"}
    for made in result.images.values():
        assert made.shape == (3, 3, 32, 32)
    assert result.response_change["increase"].isfinite().all()
    assert not torch.equal(result.images["increase"], result.images["decrease"])
    assert result.settings["backend"] == "sd15"
    assert result.settings["strength"] == 1.0
    assert result.settings["alpha"] == 0.75
    assert result.settings["settings"]["edit"]["keep_norm"] is True
    assert result.settings["settings"]["fit"]["batch_size"] == 128
    assert lens.reference_set.kind == "given images"
    assert lens.evidence_["1"].correlation is not None
    assert lens.landscape_.vae.config == {"dim": DIM, "latent_dim": DIM}


def test_the_same_pictures_by_hand(lens, pictures, sd15):
    """Algorithm 2: embed, encode, slerp, decode, keep the length, generate."""
    from vislens_interp.images import resize
    from vislens_interp.landscape.edit import interpolate

    images = resize(pictures[:2], 32)
    result = lens.visualize(pictures[:2], "increase")
    x = sd15.encode(images)
    z, _ = lens.landscape_.vae.encode(x)
    edited = lens.landscape_.vae.decode(interpolate(z, torch.ones_like(z), 0.75, "slerp"))
    edited = edited * (x.norm(dim=1) / edited.norm(dim=1))[:, None]
    torch.testing.assert_close(edited.norm(dim=1), x.norm(dim=1))
    made = sd15.decode(edited, init_image=None, strength=1.0, seeds=[42, 42])
    torch.testing.assert_close(result.images["increase"], made, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    """The same pictures as files, which are what they are to 8 bits."""
    folder = tmp_path_factory.mktemp("reference")
    for row, picture in enumerate(to_pil(pictures)):
        picture.save(folder / f"{row:03d}.png")
    return folder


class Counting:
    """An embedder that notes how many pictures came at once."""

    def __init__(self, embedder):
        self.embedder, self.counts = embedder, []
        self.dim, self.size, self.device = embedder.dim, embedder.size, embedder.device

    def __call__(self, images):
        self.counts.append(len(images))
        return self.embedder(images)


def test_reference_files_stay_on_the_disk_and_make_the_same_lens(network, folder, sd15):
    """At 512 pixels 9,000 of them would take 28 GB."""
    embedder = Counting(sd15.embedder)
    backend = EmbeddingBackend(embedder, sd15.generator, name="counting")
    settings = {"epochs": 2, "lr": 1e-3, "shuffles": 1}
    lens = FeatureLens(network, "2", unit=1, backend=backend).fit(folder, **settings)
    assert isinstance(lens.reference_set.images, ImageFiles)
    assert embedder.counts == [64, 64, 64, 28]
    assert lens.reference_set.kind == "given images"
    other = FeatureLens(network, "2", unit=1, backend=sd15).fit(load_images(folder, size=32)[0], **settings)
    torch.testing.assert_close(lens.landscape_.responses, other.landscape_.responses)
    torch.testing.assert_close(lens.landscape_.latents, other.landscape_.latents)
    assert torch.equal(lens.landscape_.held_out, other.landscape_.held_out)
    one, two = (each.top_images(3) for each in (lens, other))
    assert torch.equal(one.images, two.images)
    assert one.names == [f"{int(name[-5:]):03d}.png" for name in two.names]
    shown, names = lens.reference_set.held_out(2)
    assert shown.shape == (2, 3, 32, 32)
    assert len(set(names) & {f"{row:03d}.png" for row in lens.landscape_.held_out.tolist()}) == 2
    judged = lens.visualize(shown, "increase", judge=lens.target)
    assert judged.response_mean == pytest.approx(lens.landscape_.scaler.mean.item(), rel=1e-5)


class CountingModule(nn.Module):
    """An embedder with weights, which notes how many pictures came."""

    def __init__(self, embedder):
        super().__init__()
        self.embedder, self.count = embedder, 0
        self.dim, self.size, self.device = embedder.dim, embedder.size, embedder.device
        self.preprocess, self.embed_files = embedder.preprocess, embedder.embed_files

    def forward(self, images):
        self.count += len(images)
        return self.embedder(images)


def test_with_a_cache_no_picture_is_embedded_twice(network, folder, pictures, sd15, tmp_path):
    files = ImageFiles(folder, sd15.size)
    for round_, count in enumerate((len(files) + 3, 0)):  # a second process finds the first one's rows
        embedder = CountingModule(sd15.embedder)
        backend = EmbeddingBackend(embedder, sd15.generator, name="counting", cache=tmp_path / "cache")
        torch.testing.assert_close(backend.encode(files), sd15.encode(files), atol=1e-5, rtol=0)
        FeatureLens(network, "2", unit=1, backend=backend).fit(folder, epochs=1, shuffles=1)
        torch.testing.assert_close(backend.encode(pictures[:3]), sd15.encode(pictures[:3]), atol=1e-5, rtol=0)
        assert embedder.count == count, round_
    wanted = pictures[:2].clone().requires_grad_()
    backend.encode(wanted).sum().backward()  # what needs gradients is computed
    assert wanted.grad.abs().sum() > 0
    assert embedder.count == 2
    with torch.no_grad():
        next(embedder.parameters()).mul_(1.5)
    backend.encode(pictures[:3])  # other weights, other rows
    assert embedder.count == 5
    with torch.no_grad():
        next(embedder.parameters()).div_(1.5)  # they are the session's


def test_files_are_embedded_as_open_clip_reads_them(sd15, tmp_path):
    """Not over the size of the backend's pictures, which moved pixels by up to 78 of 255 levels."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for row, shape in enumerate([(61, 47), (50, 129), (33, 33)]):
        pixels = (torch.rand(3, *shape, generator=generator) * 255).byte()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{row}.png")
    expected, _ = sd15.embedder.embed_files(folder)
    cached = EmbeddingBackend(sd15.embedder, sd15.generator, name="cached", cache=tmp_path / "cache")
    for backend in (sd15, cached):
        torch.testing.assert_close(backend.encode(ImageFiles(folder, sd15.size)), expected, atol=1e-5, rtol=0)
    over = sd15.encode(load_images(folder, size=sd15.size)[0])
    assert (over - expected).abs().max() > 1e-3  # what it was


def test_a_cache_reads_the_weights_once(sd15, tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setattr(cache_module, "fingerprint", lambda state: hashed.append(1) or fingerprint(state))
    embedder = CountingModule(copy.deepcopy(sd15.embedder))
    backend = EmbeddingBackend(embedder, sd15.generator, name="counting", cache=tmp_path)
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    for _ in range(3):
        first = backend.encode(pictures)
    assert len(hashed) == 1
    assert embedder.count == 2
    next(embedder.parameters()).data.mul_(1.5)  # which no version counts
    assert not torch.equal(backend.encode(pictures), first)
    assert len(hashed) == 2
    assert embedder.count == 4


def test_a_cache_needs_weights_to_tell_apart(sd15, tmp_path):
    with pytest.raises(TypeError, match="cache=.* a hash of the embedder's weights, and a Counting is no nn.Mod"):
        EmbeddingBackend(Counting(sd15.embedder), sd15.generator, name="counting", cache=tmp_path)


def test_by_name_a_lens_runs_whole(cache, tiny, network, folder):
    """As a person types it, with fifty steps, from the hub's cache."""
    write_hub_cache(cache, tiny)
    lens = FeatureLens(network, "2", unit=1, backend="sd15")
    lens.fit(folder, epochs=1, shuffles=1)
    result = lens.visualize(folder / "007.png", "increase")
    assert result.names == ["007.png"]
    assert result.images["increase"].shape == (1, 3, 32, 32)
    assert result.response_change["increase"].isfinite().all()


def test_the_readmes_command_runs_whole(cache, tiny, folder, tmp_path, capsys):
    from vislens_interp.cli import main

    write_hub_cache(cache, tiny)
    (tmp_path / "photos").mkdir()
    shutil.copy(folder / "003.png", tmp_path / "photos")
    model = ["--model", "zoo:cifar10_convnet", "--layer", "conv3", "--unit", "16", "--backend", "sd15"]
    paths = ["--reference", str(folder), "--images", str(tmp_path / "photos"), "--out", str(tmp_path / "unit16")]
    cache = ["--cache", str(tmp_path / "cache")]
    assert main(["visualize", *model, *paths, *cache, "--direction", "increase"]) == 0, capsys.readouterr().err
    assert (tmp_path / "unit16" / "result.json").is_file()
    assert list((tmp_path / "cache").glob("embeddings-*/*.safetensors"))
    model[-1] = "cifar10"
    assert main(["visualize", *model, *paths, *cache]) == 1
    assert "cache is for embedded, sd15 and sdxl, not 'cifar10'. Leave it out." in capsys.readouterr().err


def test_measured_responses_to_files(network, folder, sd15):
    responses = torch.randn(220, generator=torch.Generator().manual_seed(0))
    lens = FeatureLens(network, "2", unit=1, backend=sd15)
    with pytest.warns(UserWarning, match="unit 1 of the network, .* over 220 reference images"):  # it saw the files
        lens.fit(folder, responses, epochs=1, shuffles=1)
    assert torch.equal(lens.landscape_.responses[:, 0], responses)
    assert lens.reference_set.kind == "given images, measured responses"


def test_strength_0_shows_the_reference(lens, pictures):
    result = lens.visualize(pictures[:2], "increase", strength=0.0)
    assert torch.equal(result.images["increase"], result.images["inputs"])


def test_dose_and_response(lens, pictures):
    alphas, changes = lens.visualize(pictures[:2], alphas=[1.0]).dose_response
    assert alphas == [-1.0, -0.75, 0.0, 0.75, 1.0]
    assert torch.equal(changes[2], torch.zeros(2))
    assert not torch.equal(changes[0], changes[4])


def test_samples_need_no_image(lens):
    made = lens.sample(2)
    assert made.shape == (2, 3, 32, 32)
    torch.testing.assert_close(lens.sample(1), made[:1], atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="strength=0.5 starts from an image, and init_image=None"):
        lens.sample(1, strength=0.5)


def test_a_saved_lens_makes_the_same_pictures(lens, network, pictures, sd15, tmp_path):
    lens.save(tmp_path / "lens.safetensors")
    loaded = FeatureLens.load(tmp_path / "lens.safetensors", network, backend=sd15)
    one, other = (each.visualize(pictures[:1], "increase").images["increase"] for each in (lens, loaded))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_optimisation_is_refused_with_the_reason(lens, pictures):
    with pytest.raises(ValueError, match="needs gradients .* this backend 'sd15' has none. Use method='edit'"):
        lens.visualize(pictures[:1], method="optimize")


def test_a_consistency_loss_is_refused_with_the_reason(network, pictures, sd15):
    with pytest.raises(ValueError, match="w_consistency needs .*'sd15' has none. Pass w_consistency=0"):
        FeatureLens(network, "2", unit=1, backend=sd15).fit(pictures, w_consistency=1.0)


def test_too_few_images_to_fit_on(network, pictures, sd15):
    with pytest.raises(ValueError, match="backend 'sd15' has no reference set, and 3 images were given"):
        FeatureLens(network, "2", unit=1, backend=sd15).visualize(pictures[:3])


def test_a_backend_with_its_own_reference_set_fits_itself(network, textless):
    lens = FeatureLens(network, "2", unit=0, backend=textless)
    lens.fit(epochs=1, shuffles=1)
    assert lens.reference_set.kind == "synthetic reference"
    assert lens.visualize(direction="decrease").images["decrease"].shape[1:] == (3, 16, 16)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sd15", "Run `vislens download sd15`"),
        ("sd21", "backend='sd21' is unknown; expected one of ['cifar10', 'embedded', 'sd15', 'sdxl']"),
    ],
)
def test_from_the_shell(cache, tmp_path, capsys, name, message):
    from vislens_interp.cli import main

    model = ["--model", "zoo:cifar10_convnet", "--layer", "conv3", "--unit", "16", "--backend", name]
    assert main(["visualize", *model, "--images", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("vislens: error: ")
    assert message in said
    assert not (tmp_path / "out").exists()
