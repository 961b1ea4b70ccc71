"""Facts of the generator, on tiny checkpoints in the published layouts."""

import json
import math
import shutil

import pytest
import torch
from checkpoints import DIM, ZERO_SNR, adapter_state, single_file, write_stable_diffusion
from safetensors.torch import load_file, save_file

from vislens_interp.backends.diffusion.generator import NEGATIVE_PROMPT, PROMPT, StableDiffusionGenerator
from vislens_interp.images import resize


@pytest.fixture(scope="module")
def generator(sd15):
    return sd15.generator


@pytest.fixture(scope="module")
def fifty(tiny):
    """Fifty steps, without guidance and text to be quick."""
    return StableDiffusionGenerator.load(tiny.model, tiny.adapter, prompt=None, guidance_scale=1)


def count_steps(generator, **arguments):
    calls = []
    hook = generator.unet.register_forward_hook(lambda *_: calls.append(1))
    try:
        generator(torch.ones(1, DIM), seeds=[1], **arguments)
    finally:
        hook.remove()
    return len(calls)


# --- what strength means


def test_strength_1_does_not_depend_on_the_references_pixels_at_all(generator, embeddings, pictures):
    arguments = {"strength": 1.0, "seeds": [1, 2, 3]}
    without = generator(embeddings, **arguments)
    for reference in (pictures, 1 - pictures, torch.zeros(3, 3, 8, 100)):
        assert torch.equal(generator(embeddings, init_image=reference, **arguments), without)


def test_below_strength_1_it_does(generator, embeddings, pictures):
    one, other = (generator(embeddings, init_image=x, strength=0.99, seeds=[1] * 3) for x in (pictures, 1 - pictures))
    assert not torch.equal(one, other)  # all steps are taken, and SD1.5's noisiest latent still holds the image


def test_strength_0_returns_the_reference(generator, embeddings, pictures):
    assert torch.equal(generator(embeddings, init_image=pictures, strength=0, seeds=[1] * 3), pictures)
    wide = torch.rand(3, 3, 40, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(generator(embeddings, init_image=wide, strength=0, seeds=[1] * 3), resize(wide, 32))


@pytest.mark.parametrize(
    ("strength", "steps"), [(1e-6, 1), (0.01, 1), (0.02, 1), (0.29, 14), (0.58, 29), (0.6, 30), (0.999, 50)]
)
def test_steps_are_rounded_and_never_none(fifty, strength, steps):
    """The library takes none at 0.01 and then fails, and 28 of 50 at 0.58."""
    assert max(1, round(strength * 50)) == steps
    pipeline = fifty.image_to_image
    pipeline.scheduler.set_timesteps(50)
    times, count = pipeline.get_timesteps(50, strength, torch.device("cpu"))
    assert times.tolist() == list(range(981, 0, -20))[-steps:]
    assert count == steps


@pytest.mark.parametrize(("strength", "steps"), [(0.01, 1), (0.15, 8), (1, 50)])
def test_so_many_steps_are_taken(fifty, strength, steps):
    reference = None if strength == 1 else torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert count_steps(fifty, init_image=reference, strength=strength) == steps


def test_published_timesteps(fifty, generator):
    fifty.text_to_image.scheduler.set_timesteps(50)
    assert fifty.text_to_image.scheduler.timesteps.tolist() == list(range(981, 0, -20))
    assert type(generator.text_to_image.scheduler).__name__ == "DDIMScheduler"  # the file says PNDM
    assert not generator.text_to_image.scheduler.config.clip_sample
    assert generator.text_to_image.scheduler.config.prediction_type == "epsilon"
    assert generator.text_to_image.safety_checker is None


def test_the_reference_is_encoded_by_the_posteriors_mode(fifty, pictures):
    scheduler = fifty.text_to_image.scheduler
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)]
    time = torch.tensor([501, 501, 501])
    with torch.no_grad():
        latents = fifty.image_to_image.prepare_latents(
            2 * pictures - 1, time, 3, 1, torch.float32, torch.device("cpu"), generators
        )
        clean = torch.cat([fifty.vae.encode(2 * image[None] - 1).latent_dist.mean for image in pictures]) * 0.18215
    noise = torch.stack([torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2, 3)])
    share = scheduler.alphas_cumprod[501]
    torch.testing.assert_close(latents, share.sqrt() * clean + (1 - share).sqrt() * noise, atol=1e-6, rtol=0)


# --- what is generated


def written_out(generator, embedding, seed, alphas, times, previous, prediction):
    """DDIM with classifier-free guidance from pure noise, one image, in a few lines."""
    unet, guidance = generator.unet, generator.guidance_scale
    positive, negative = generator._text
    side = generator.size // 2
    x = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(seed))
    for time, before in zip(times, previous, strict=True):

        def predict(text, condition, x=x, time=time):
            return unet(x, time, text, added_cond_kwargs={"image_embeds": [condition[:, None]]}).sample

        towards, away = predict(positive, embedding), predict(negative, torch.zeros_like(embedding))
        out = away + guidance * (towards - away)
        a, b = alphas[time] ** 0.5, (1 - alphas[time]) ** 0.5
        clean, noise = ((x - b * out) / a, out) if prediction == "epsilon" else (a * x - b * out, a * out + b * x)
        x = before**0.5 * clean + (1 - before) ** 0.5 * noise
    return (generator.vae.decode(x / 0.18215).sample / 2 + 0.5).clamp(0, 1)


def test_a_generation_written_out(generator, embeddings):
    """Guidance leads from the negative prompt and the zero embedding to the prompt and the image's own embedding."""
    alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
    times = [751, 501, 251, 1]
    with torch.no_grad():
        expected = written_out(generator, embeddings[:1], 5, alphas, times, [*alphas[times[1:]], alphas[0]], "epsilon")
    made = generator(embeddings[:1], seeds=[5])
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=0)
    assert made.std() > 0.05


def test_velocities_and_zero_terminal_snr_written_out(textless, embeddings):
    generator = textless.generator
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    root = torch.cumprod(1 - betas, 0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])  # Lin et al. 2023: the last step is pure noise
    times = [999, 799, 599, 399, 199]
    with torch.no_grad():
        expected = written_out(
            generator, embeddings[:1], 5, root**2, times, [*root[times[1:]] ** 2, torch.tensor(1.0)], "v_prediction"
        )
    torch.testing.assert_close(generator(embeddings[:1], seeds=[5]), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_one_embedding_does_not_leak_into_another_image(generator, embeddings, pictures, strength):
    arguments = {"init_image": pictures, "strength": strength, "seeds": [1, 2, 3]}
    before = generator(embeddings, **arguments)
    for row in range(3):
        changed = embeddings.clone()
        changed[row] = -2 * changed[row]
        difference = (generator(changed, **arguments) - before).abs().amax((1, 2, 3))
        assert difference[row] > 0.01
        difference[row] = 0
        assert torch.equal(difference, torch.zeros(3))


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_batch_equals_its_images_alone(generator, embeddings, pictures, strength):
    seeds = [3, 1, 4]
    together = generator(embeddings, init_image=pictures, strength=strength, seeds=seeds)
    for row, seed in enumerate(seeds):
        one = slice(row, row + 1)
        alone = generator(embeddings[one], init_image=pictures[one], strength=strength, seeds=[seed])
        torch.testing.assert_close(alone, together[one], atol=1e-4, rtol=0)


def test_negatives_are_zeros_and_come_first(generator, embeddings):
    prepare = generator.text_to_image.prepare_ip_adapter_image_embeds
    (both,) = prepare(None, [embeddings[:, None]], torch.device("cpu"), 3, True)
    assert torch.equal(both, torch.cat([torch.zeros(3, 1, DIM), embeddings[:, None]]))
    (alone,) = prepare(None, [embeddings[:, None]], torch.device("cpu"), 3, False)
    assert torch.equal(alone, embeddings[:, None])
    with pytest.raises(ValueError, match="3 embeddings were given for 2 images; expected one each"):
        prepare(None, [embeddings[:, None]], torch.device("cpu"), 2, True)
    with pytest.raises(ValueError, match="must hold one tensor"):
        prepare([], None, torch.device("cpu"), 3, True)


def test_prompts(tiny, generator, embeddings):
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(tiny.model, subfolder="tokenizer")
    encoder = CLIPTextModel.from_pretrained(tiny.model, subfolder="text_encoder").eval()
    assert (PROMPT, NEGATIVE_PROMPT) == (
        "best quality, high quality",
        "monochrome, lowres, bad anatomy, worst quality, low quality",
    )
    for text, states in zip((PROMPT, NEGATIVE_PROMPT), generator._text, strict=True):
        ids = tokenizer(text, padding="max_length", max_length=77, return_tensors="pt").input_ids
        with torch.no_grad():
            torch.testing.assert_close(states, encoder(ids).last_hidden_state, atol=1e-5, rtol=0)
    other = StableDiffusionGenerator.load(
        tiny.model, tiny.adapter, prompt="a quay", negative_prompt="", num_inference_steps=4
    )
    assert not torch.equal(other(embeddings, seeds=[1] * 3), generator(embeddings, seeds=[1] * 3))


def test_adapter_scale_and_guidance_matter(tiny, embeddings):
    def make(**options):
        return StableDiffusionGenerator.load(tiny.model, tiny.adapter, num_inference_steps=2, **options)(
            embeddings, seeds=[1] * 3
        )

    usual = make()
    assert not torch.equal(make(guidance_scale=1), usual)
    deaf = make(adapter_scale=0)
    torch.testing.assert_close(deaf[0], deaf[1], atol=1e-5, rtol=0)  # same seed and prompt; the embedding is not heard
    assert (usual[0] - usual[1]).abs().max() > 0.01


# --- pixels on the border of [0, 1], and numbers that are none


@pytest.mark.parametrize("strength", [0.0, 0.02, 0.5, 0.99])
@pytest.mark.parametrize("value", [-1e-8, -5e-5, 1 + 5e-5])
def test_a_pixel_within_the_tolerance_is_one_of_the_border(generator, embeddings, pictures, strength, value):
    """diffusers takes a batch with a negative value for one in [-1, 1], and changed every picture of it."""
    border, beyond = pictures.clone(), pictures.clone()
    border[1, 0, 3, 4], beyond[1, 0, 3, 4] = min(max(value, 0.0), 1.0), value
    one, other = (
        generator(embeddings, init_image=images, strength=strength, seeds=[1, 2, 3]) for images in (border, beyond)
    )
    assert torch.equal(one, other)


def test_pictures_that_are_no_numbers_are_refused(tiny, embeddings):
    made = StableDiffusionGenerator.load(tiny.model, tiny.adapter, prompt=None, num_inference_steps=1)
    with torch.no_grad():
        made.vae.decoder.conv_in.weight.fill_(math.inf)  # as the published VAE may leave float16's range
    with pytest.raises(ValueError, match=r"pictures 0, 1, 2 of 3 hold NaN in torch.float32; .*dtype=torch.bfloat16"):
        made(embeddings, seeds=[1] * 3)
    embeddings[1, 0] = math.nan
    with pytest.raises(ValueError, match="embeddings has NaN or infinite values in 1 of 3 rows; expected finite"):
        made(embeddings, seeds=[1] * 3)


# --- loading


def test_a_vae_with_the_names_of_today(tiny, tmp_path, generator, embeddings):
    shutil.copytree(tiny.model, tmp_path / "sd")
    path = tmp_path / "sd/vae/diffusion_pytorch_model.safetensors"
    assert any(".attentions.0.query." in name for name in load_file(path))  # the published file
    state = generator.vae.state_dict()
    assert any(".attentions.0.to_q." in name for name in state)
    save_file(state, path, metadata={"format": "pt"})
    loaded = StableDiffusionGenerator.load(tmp_path / "sd", tiny.adapter, num_inference_steps=4)
    assert torch.equal(loaded(embeddings, seeds=[1] * 3), generator(embeddings, seeds=[1] * 3))


def test_single_file_and_bin_make_the_same_images(tiny, tmp_path, generator, embeddings):
    path = single_file(tiny.model, tmp_path / "v1-5-pruned-emaonly.safetensors")
    loaded = StableDiffusionGenerator.load(
        path, tiny.adapter.with_suffix(".bin"), config=tiny.model, num_inference_steps=4
    )
    assert torch.equal(loaded(embeddings, seeds=[1] * 3), generator(embeddings, seeds=[1] * 3))
    without_text = StableDiffusionGenerator.load(path, tiny.adapter, config=tiny.model, prompt=None)
    assert torch.equal(without_text.unet.conv_in.weight, generator.unet.conv_in.weight)


def test_half_precision_files_alone(tiny, tmp_path, generator, embeddings):
    """What ``vislens download sd15`` fetches: the fp16 variants, which load as float32 too."""
    shutil.copytree(tiny.model, tmp_path / "sd")
    for part, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        path = tmp_path / "sd" / part / f"{stem}.safetensors"
        state = {name: value.half() if value.is_floating_point() else value for name, value in load_file(path).items()}
        save_file(state, path.with_name(f"{stem}.fp16.safetensors"), metadata={"format": "pt"})
        path.unlink()
    loaded = StableDiffusionGenerator.load(tmp_path / "sd", tiny.adapter, num_inference_steps=4)
    assert loaded.unet.dtype == loaded.vae.dtype == torch.float32
    torch.testing.assert_close(
        loaded(embeddings, seeds=[1] * 3), generator(embeddings, seeds=[1] * 3), atol=0.05, rtol=0
    )


def test_loading_leaves_the_global_generator_and_what_libraries_print(tiny, capfd):
    from diffusers.utils import logging

    before, verbosity = torch.get_rng_state(), logging.get_verbosity()
    StableDiffusionGenerator.load(tiny.model, tiny.adapter)
    assert torch.equal(torch.get_rng_state(), before)
    assert logging.get_verbosity() == verbosity
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_the_textless_model_takes_no_prompt(textless, tmp_path):
    write_stable_diffusion(tmp_path, scheduler=ZERO_SNR, text=False)
    unet, adapter = textless.generator.unet, adapter_state(textless.generator.unet, DIM)
    with pytest.raises(ValueError, match="prompt='a cat' needs a text encoder and a tokenizer.* Pass prompt=None"):
        StableDiffusionGenerator(unet, textless.generator.vae, ZERO_SNR, adapter, prompt="a cat")
    with pytest.raises(FileNotFoundError, match="lacks text_encoder/config.json, tokenizer"):
        StableDiffusionGenerator.load(tmp_path, adapter)


def test_scheduler_settings_can_be_replaced(tiny):
    made = StableDiffusionGenerator.load(
        tiny.model, tiny.adapter, prompt=None, scheduler={"timestep_spacing": "trailing", "clip_sample": True}
    )
    made.text_to_image.scheduler.set_timesteps(50)
    assert made.text_to_image.scheduler.timesteps[:2].tolist() == [999, 979]
    assert not made.text_to_image.scheduler.config.clip_sample  # latents are not bounded


@pytest.fixture
def damaged_folder(tiny, tmp_path):
    shutil.copytree(tiny.model, tmp_path / "sd")
    return tmp_path / "sd"


@pytest.mark.parametrize(
    "file",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "unet/config.json",
        "tokenizer/vocab.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_truncated_files(damaged_folder, tiny, file):
    whole = (damaged_folder / file).read_bytes()
    (damaged_folder / file).write_bytes(whole[: len(whole) // 2])
    part = file.partition("/")[0]
    with pytest.raises(ValueError, match=f"model=.*{part}.* cannot be loaded .*truncated.*vislens download sd15"):
        StableDiffusionGenerator.load(damaged_folder, tiny.adapter)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_a_file_lacks_are_not_left_random(damaged_folder, tiny, part):
    (path,) = (damaged_folder / part).glob("*.safetensors")
    state = load_file(path)
    lost = next(name for name in sorted(state) if name.endswith("weight"))
    del state[lost]
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"model=.*{part}' lacks 1 weights .*; expected those of .*download sd15"):
        StableDiffusionGenerator.load(damaged_folder, tiny.adapter)


def test_a_single_file_that_lacks_weights(tiny, tmp_path):
    path = single_file(tiny.model, tmp_path / "v1-5.safetensors")
    whole = path.read_bytes()
    state = load_file(path)
    del state["model.diffusion_model.middle_block.1.norm.weight"]
    save_file(state, path)
    with pytest.raises(ValueError, match=r"holds 207 of the 208 weights of the unet \(model.diffusion_model.\*\)"):
        StableDiffusionGenerator.load(path, tiny.adapter, config=tiny.model)
    path.write_bytes(whole[:1000])
    with pytest.raises(ValueError, match="v1-5.safetensors' cannot be loaded .*truncated"):
        StableDiffusionGenerator.load(path, tiny.adapter, config=tiny.model)


def test_weights_of_another_shape(damaged_folder, tiny):
    config = json.loads((damaged_folder / "unet/config.json").read_text())
    config["cross_attention_dim"] = 32
    (damaged_folder / "unet/config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="model=.*unet' cannot be loaded .*made for something else"):
        StableDiffusionGenerator.load(damaged_folder, tiny.adapter)


def test_too_little_memory_while_loading(damaged_folder, tiny):
    config = json.loads((damaged_folder / "unet/config.json").read_text())
    config["block_out_channels"] = [2**22, 2**23]  # more than 128 TiB, which no system addresses
    (damaged_folder / "unet/config.json").write_text(json.dumps(config))
    with pytest.raises(MemoryError, match="model=.* does not fit into memory .*; SD1.5 takes 5 GB while it loads"):
        StableDiffusionGenerator.load(damaged_folder, tiny.adapter)


# --- options and refusals


def test_arguments_by_their_old_names(tiny):
    with (
        pytest.warns(FutureWarning, match="steps= is called num_inference_steps= now"),
        pytest.warns(FutureWarning, match="guidance= is called guidance_scale= now"),
    ):
        made = StableDiffusionGenerator.load(tiny.model, tiny.adapter, prompt=None, steps=3, guidance=2.0)
    assert (made.num_inference_steps, made.guidance_scale) == (3, 2.0)
    with pytest.raises(TypeError, match="steps= and num_inference_steps= are one argument; .* Leave steps= out"):
        StableDiffusionGenerator.load(tiny.model, tiny.adapter, prompt=None, steps=3, num_inference_steps=3)


def test_a_missing_adapter_is_seen(tiny, embeddings):
    """diffusers would ignore the embeddings without a word."""
    generator = StableDiffusionGenerator.load(tiny.model, tiny.adapter, prompt=None, num_inference_steps=1)
    generator.text_to_image.unload_ip_adapter()
    with pytest.raises(ValueError, match="the UNet has 0 image projections, .* would ignore embeddings"):
        generator(embeddings, seeds=[1] * 3)


def test_slicing_tiling_and_layout_make_the_same_images(tiny, generator, embeddings):
    options = {"vae_slicing": True, "vae_tiling": True, "channels_last": True, "batch_size": 2}
    made = StableDiffusionGenerator.load(tiny.model, tiny.adapter, num_inference_steps=4, **options)
    assert made.vae.use_slicing
    assert made.vae.use_tiling
    assert made.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    # Nothing is larger than a tile here, so that tiles change nothing.
    torch.testing.assert_close(made(embeddings, seeds=[1] * 3), generator(embeddings, seeds=[1] * 3), atol=1e-4, rtol=0)


def test_bfloat16_gives_float32_images_nearby(tiny, generator, embeddings):
    half = StableDiffusionGenerator.load(tiny.model, tiny.adapter, num_inference_steps=4, dtype=torch.bfloat16)
    assert half.unet.dtype == half.vae.dtype == torch.bfloat16
    made = half(embeddings, seeds=[1] * 3)
    assert made.dtype == torch.float32
    usual = generator(embeddings, seeds=[1] * 3)
    assert (made - usual).abs().mean() < 0.1 * (usual - usual.mean()).abs().mean()


@pytest.mark.slow
def test_compiled_it_makes_the_same_images(tiny, generator, embeddings):
    compiled = StableDiffusionGenerator.load(tiny.model, tiny.adapter, num_inference_steps=4, compile=True)
    torch.testing.assert_close(
        compiled(embeddings, seeds=[1] * 3), generator(embeddings, seeds=[1] * 3), atol=1e-3, rtol=0
    )


def test_a_bar_over_the_images(tiny, embeddings, capsys):
    StableDiffusionGenerator.load(tiny.model, tiny.adapter, prompt=None, num_inference_steps=1, progress=True)(
        embeddings, seeds=[1] * 3
    )
    assert "3/3" in capsys.readouterr().err


def test_offload_needs_a_gpu_and_accelerate(tiny):
    def load(**options):
        return StableDiffusionGenerator.load(tiny.model, tiny.adapter, prompt=None, **options)

    with pytest.raises(ValueError, match="offload='model' moves weights off a GPU, but device='cpu'. Leave it out"):
        load(offload="model")
    with pytest.raises(ValueError, match="offload='disk' is unknown; expected 'model', 'sequential' or None"):
        load(offload="disk")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps=0 must be at least 1"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"guidance_scale": 0.5}, "guidance_scale=0.5 must be at least 1, which is none"),
        ({"size": 20}, "size=20 must be a multiple of 8"),
        ({"embedding_dim": 1024}, f"adapter takes {DIM}-d embeddings, but the embedder makes 1024"),
    ],
)
def test_wrong_options(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        StableDiffusionGenerator.load(tiny.model, tiny.adapter, prompt=None, **options)


def test_rgba_is_refused(generator, embeddings):
    """diffusers takes four channels for latents."""
    with pytest.raises(ValueError, match=r"init_image has 4 channels .*expected 3, RGB. RGBA images: flatten"):
        generator(embeddings, init_image=torch.rand(3, 4, 32, 32), strength=0.5, seeds=[1] * 3)


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan])
def test_strength_out_of_range(generator, embeddings, strength):
    with pytest.raises(ValueError, match=r"strength=.* must lie in \[0, 1\]: 0 keeps the image, 1 ignores its"):
        generator(embeddings, strength=strength, seeds=[1] * 3)


def test_wrong_inputs(generator, embeddings, pictures):
    with pytest.raises(
        ValueError, match=r"embeddings has shape \(3, 7\); expected \(N, 24\), what the generator takes"
    ):
        generator(embeddings[:, :7], seeds=[1] * 3)
    with pytest.raises(ValueError, match="strength=0.5 starts from an image, and init_image=None. Pass one"):
        generator(embeddings, strength=0.5, seeds=[1] * 3)
    with pytest.raises(ValueError, match="init_image has 2 images for 3 embeddings; expected one each"):
        generator(embeddings, init_image=pictures[:2], strength=0.5, seeds=[1] * 3)


def test_too_little_memory_while_generating(tiny):
    generator = StableDiffusionGenerator.load(tiny.model, tiny.adapter, prompt=None, size=2**23, batch_size=4)
    with pytest.raises(MemoryError, match="memory ran out on cpu at size=8388608, batch_size=4.* Lower batch_size"):
        generator(torch.ones(1, DIM), seeds=[1])
