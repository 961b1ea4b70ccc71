"""What the recipes write together is a backend: embedder, autoencoder, generator, adapter."""

import copy
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from vislens_interp.backends.embedders import Embedder
from vislens_interp.backends.embedding import EmbeddingBackend
from vislens_interp.backends.stable_diffusion import StableDiffusionGenerator
from vislens_interp.images import check_images
from vislens_interp.training import autoencoder64, embedder64, generator64
from vislens_interp.training.data import pixels, read_splits
from vislens_interp.zoo.embedder import Embedder64

# Four levels, so that latents are 8 x 8 and a step is cheap; everything else as the recipes have it.
SMALL_AUTOENCODER = autoencoder64.AUTOENCODER | {"block_out_channels": (16, 16, 16, 16)}
SMALL_UNET = generator64.UNET | {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "norm_num_groups": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 32,
}


def train_generator(pictures, out, name, steps):
    return generator64.run(
        pictures,
        out / "checkpoints" / name,
        batch_size=16,
        steps=steps,
        lr=3e-3,
        ema_decay=0.98,
        sampling_steps=10,
        settings=SMALL_UNET,
    )


@pytest.fixture(scope="module")
def out(pictures, tmp_path_factory):
    """Embedder, autoencoder and generator, each of a few steps, one after the other as a person would."""
    out = tmp_path_factory.mktemp("out")
    embedder, _ = embedder64.run(pictures, out / "checkpoints/embedder64", batch_size=4, steps=3)
    embedder64.save(embedder, out / "embedder64")
    autoencoder, _ = autoencoder64.run(
        pictures, out / "checkpoints/autoencoder64", batch_size=4, steps=20, settings=SMALL_AUTOENCODER
    )
    autoencoder64.save(autoencoder, out / "autoencoder64")
    generator, progress = train_generator(pictures, out, "generator64", 20)
    generator64.save(generator, out / "generator64")
    (out / "history.json").write_text(json.dumps(progress.history))
    return out


@pytest.fixture(scope="module")
def images(pictures):
    return pixels(read_splits(pictures, 64).train)


def load(out, **options):
    folder = out / "generator64"
    return StableDiffusionGenerator.load(folder, folder / "adapter.safetensors", prompt=None, **options)


def embedder(out):
    return Embedder64.load(out / "embedder64.safetensors")


def distances(made, known):
    return (made[:, None] - known[None]).square().flatten(2).mean(2)


def test_it_is_a_backend(out, images):
    backend = EmbeddingBackend(embedder(out), load(out, guidance=1.5, steps=3), name="trained")
    assert isinstance(backend.embedder, Embedder)
    assert (backend.size, backend.shape) == (64, (512,))
    x = backend.encode(images)
    made = check_images(backend.decode(x, init_image=images, strength=0.7, seeds=[1, 2, 3, 4]))
    assert made.shape == images.shape
    alone = backend.decode(x[2:3], init_image=None, strength=1.0, seeds=[42])
    torch.testing.assert_close(alone, backend.render(x)[2:3], atol=1e-4, rtol=0)


def test_training_and_sampling_ask_the_network_the_same(out, images):
    """One step from pure noise: there the velocity that is trained for is minus the latent, and so is what is drawn."""
    x = embedder(out)(images)
    generator = load(out, guidance=1.0, steps=1)
    made = generator(x, seeds=[5, 6, 7, 8])
    noise = torch.stack([torch.randn(12, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6, 7, 8)])
    schedule, last = generator64.scheduler(), torch.full((4,), 999)
    clean = torch.rand(noise.shape)
    torch.testing.assert_close(schedule.add_noise(clean, noise, last), noise, atol=1e-3, rtol=0)
    torch.testing.assert_close(schedule.get_velocity(clean, noise, last), -clean, atol=1e-3, rtol=0)
    with torch.no_grad():
        velocity = generator.unet(
            noise,
            last,
            encoder_hidden_states=torch.zeros(4, 1, 32),
            added_cond_kwargs={"image_embeds": [x[:, None]]},
        ).sample
        expected = (generator.vae.decode(-velocity).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(made, expected, atol=2e-3, rtol=0)


@pytest.mark.slow
def test_four_pictures_come_back_by_their_embeddings(pictures, images, out):
    """Trained and sampled alike: schedule, velocities, latents, zero text token and adapter all have to agree."""
    model, progress = train_generator(pictures, out, "by_heart", 600)
    vae = model.autoencoder
    made = model.generator(guidance=1.5, steps=20)(embedder(out)(images), seeds=[7, 8, 9, 10])
    known = (vae.decode(vae.encode(2 * images - 1).latent_dist.mode()).sample / 2 + 0.5).clamp(0, 1)
    apart, others = distances(made, known), distances(known, known)
    assert torch.equal(apart.argmin(1), torch.arange(4))
    assert apart.diagonal().max() < 0.3 * others[~torch.eye(4, dtype=torch.bool)].min()
    assert progress.history[-1]["velocity_error"] < 0.2


def test_the_trained_adapter_is_what_tells_them_apart(images, out):
    x = embedder(out)(images)
    one, *others = load(out, guidance=1.0, steps=2, adapter_scale=0.0)(x, seeds=[7] * 4)
    assert all(torch.allclose(other, one, atol=1e-5) for other in others)
    one, *others = load(out, guidance=1.0, steps=2)(x, seeds=[7] * 4)
    assert all((other - one).abs().max() > 1e-3 for other in others)


def test_figures_of_the_history(out):
    last = json.loads((out / "history.json").read_text())[-1]
    assert {"step", "velocity_error", "retrieval_of_4", "test_velocity_error", "test_retrieval_of_4"} <= last.keys()
    assert 0 < last["velocity_error"] < 3
    assert 0 <= last["retrieval_of_4"] <= 1


def test_what_is_written(out):
    files = {str(path.relative_to(out)) for path in (out / "generator64").rglob("*.*") if path.is_file()}
    assert files == {
        f"generator64/{name}"
        for name in (
            "adapter.safetensors",
            "model_index.json",
            "scheduler/scheduler_config.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
        )
    }
    for path in out.glob("generator64/**/*.json"):  # weights travel; where they were made does not
        assert str(out) not in path.read_text(encoding="utf-8")
    schedule = json.loads((out / "generator64/scheduler/scheduler_config.json").read_text())
    assert schedule["prediction_type"] == "v_prediction"
    assert schedule["rescale_betas_zero_snr"]
    assert schedule["timestep_spacing"] == "trailing"
    assert generator64.scheduler().alphas_cumprod[-1] < 1e-7
    for path in out.glob("generator64/**/*.safetensors"):
        assert {weight.dtype for weight in load_file(path).values()} == {torch.float16}


def test_diffusers_reads_the_folder(out):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        out / "generator64", text_encoder=None, tokenizer=None, low_cpu_mem_usage=False
    )
    assert pipeline.vae_scale_factor == 8
    assert pipeline.unet.config.sample_size == 8


def test_taking_apart_is_the_inverse_of_loading():
    torch.manual_seed(0)
    whole = generator64.build(SMALL_UNET, dim=24).eval()
    plain, adapter = generator64.take_apart(whole)
    again = copy.deepcopy(plain)
    again._load_ip_adapter_weights([adapter], low_cpu_mem_usage=False)
    state = whole.state_dict()
    assert state.keys() == again.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


def test_every_weight_of_the_adapter_is_trained():
    torch.manual_seed(0)
    unet = generator64.build(SMALL_UNET, dim=24)
    x = torch.randn(2, 1, 24)
    made = unet(
        torch.randn(2, 12, 8, 8),
        torch.tensor([10, 900]),
        encoder_hidden_states=torch.zeros(2, 1, 32),
        added_cond_kwargs={"image_embeds": [x]},
    ).sample
    made.square().mean().backward()
    ours = {name: weight for name, weight in unet.named_parameters() if "_ip." in name or "encoder_hid_proj" in name}
    _, adapter = generator64.take_apart(unet)
    assert len(ours) == sum(len(part) for part in adapter.values())
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in ours.values())


def test_twenty_million_parameters_in_all():
    with torch.device("meta"):
        autoencoder = autoencoder64.build()
    unet = generator64.build()
    count = sum(weight.numel() for network in (unet, autoencoder) for weight in network.parameters())
    assert 2e6 < count < 20e6


def test_an_autoencoder_begins_at_the_principal_components_of_patches():
    torch.manual_seed(0)
    network = autoencoder64.build()
    images = 2 * torch.nn.functional.interpolate(torch.rand(40, 3, 24, 24), size=64, mode="bilinear") - 1
    network.fit_components(images)
    latents = network.encode(images).latent_dist.mode()
    std = latents.std((0, 2, 3))
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(12), atol=1e-3, rtol=0)
    assert std[0].item() == pytest.approx(1, abs=1e-3)
    assert (std.diff() < 1e-4).all()
    # What is lost is what the other 36 components hold, no matter how latents are scaled.
    patches = torch.nn.functional.pixel_unshuffle(images, 4).movedim(1, -1).flatten(0, 2)
    variances = torch.linalg.eigvalsh(patches.T.cov(correction=0))
    with torch.no_grad():
        lost = (network.decode(latents).sample - images).square().mean()
    torch.testing.assert_close(lost, variances[:-12].sum() / 48, rtol=1e-3, atol=1e-7)
    assert torch.equal(network.encode(images).latent_dist.sample(), latents)  # a code is certain


def test_another_embedder_than_the_run_began_with(pictures, out, tmp_path):
    shutil.copytree(out, tmp_path / "out")
    torch.manual_seed(5)
    embedder64.save(Embedder64(), tmp_path / "out/embedder64")
    with pytest.raises(ValueError, match="belongs to a run with another embedder64; expected those that it began with"):
        generator64.run(pictures, tmp_path / "out/checkpoints/generator64", steps=300, settings=SMALL_UNET)


def test_what_comes_first_is_named(pictures, out, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"embedder .*: no such file; .*[.]training embedder64"):
        generator64.run(pictures, tmp_path / "checkpoints/generator64")
    with pytest.raises(FileNotFoundError, match=r"autoencoder .*: no config.json there; .*[.]training autoencoder64"):
        autoencoder64.load(tmp_path)
    (tmp_path / "embedder64.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"embedder .* cannot be read .* Train or copy it again"):
        Embedder64.load(tmp_path / "embedder64.safetensors")
