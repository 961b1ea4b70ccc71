"""Stable Diffusion XL on tiny checkpoints in the published layout: the same properties as of 1.5."""

import shutil

import pytest
import torch
from checkpoints import (
    DIM,
    SCHEDULER_XL,
    TINY_VAE_XL,
    UNET_XL,
    VAE_XL,
    adapter_state,
    lora_state,
    write_adapter,
    write_hub_cache,
)
from safetensors.torch import save_file

from vislens_interp.backends.diffusion.sdxl import StableDiffusionXLGenerator
from vislens_interp.backends.diffusion.speedups import SAMPLERS_XL
from vislens_interp.backends.embedding import sdxl as build_sdxl
from vislens_interp.backends.weights import HYPER_SDXL, IP_ADAPTER_SDXL, OPENCLIP, SDXL, SDXL_VAE, sdxl_repositories


@pytest.fixture(scope="module")
def fast(tiny_xl, sdxl):
    """With the LoRA for eight steps."""
    pytest.importorskip("peft", reason="LoRAs are read by peft: pip install 'vislens_interp[speedup]'")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        lora = lora_state(sdxl.generator.unet)
    return StableDiffusionXLGenerator.load(
        tiny_xl.model, tiny_xl.adapter, vae=tiny_xl.vae, speedup="hyper-sd", speedup_weights=lora
    )


@pytest.fixture(params=["none", "hyper-sd"])
def generator(request, sdxl, fast):
    return sdxl.generator if request.param == "none" else fast


def test_strength_0_returns_the_input(generator, embeddings, pictures):
    assert torch.equal(generator(embeddings, init_image=pictures, strength=0, seeds=[1] * 3), pictures)


def test_strength_1_knows_nothing_of_the_input(generator, embeddings, pictures):
    without = generator(embeddings, seeds=[1, 2, 3])
    assert torch.equal(generator(embeddings, init_image=pictures, strength=1, seeds=[1, 2, 3]), without)
    below = generator(embeddings, init_image=pictures, strength=0.9, seeds=[1, 2, 3])
    assert not torch.equal(below, without)
    assert without.std() > 0.02


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_picture_does_not_depend_on_its_batch(generator, embeddings, pictures, strength):
    """diffusers' issue 9813: embeddings of one picture of a batch reached the others without a word."""
    seeds = [3, 1, 4]
    together = generator(embeddings, init_image=pictures, strength=strength, seeds=seeds)
    for row, seed in enumerate(seeds):
        one = slice(row, row + 1)
        alone = generator(embeddings[one], init_image=pictures[one], strength=strength, seeds=[seed])
        torch.testing.assert_close(alone, together[one], atol=1e-3, rtol=0)  # rounding, through deeper blocks
    changed = embeddings.clone()
    changed[1] = -2 * changed[1]
    difference = generator(changed, init_image=pictures, strength=strength, seeds=seeds) - together
    assert difference.abs().amax((1, 2, 3))[[0, 2]].max() == 0
    assert difference[1].abs().max() > 0.01


def test_a_generation_written_out(sdxl, embeddings):
    """DDIM with guidance on pure noise; text, pooled text, sizes and embedding of both halves by hand."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    generator = sdxl.generator
    pipeline = generator.text_to_image
    assert isinstance(pipeline.text_encoder, CLIPTextModel)
    assert isinstance(pipeline.text_encoder_2, CLIPTextModelWithProjection)
    halves = []
    with torch.no_grad():
        for text in (generator.prompt, generator.negative_prompt):
            states = []
            for encoder, tokenizer in (
                (pipeline.text_encoder, pipeline.tokenizer),
                (pipeline.text_encoder_2, pipeline.tokenizer_2),
            ):
                assert isinstance(tokenizer, CLIPTokenizer)
                ids = tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
                made = encoder(ids.input_ids, output_hidden_states=True)
                states.append(made.hidden_states[-2])
            halves.append((torch.cat(states, -1), made.text_embeds))
        alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
        x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(5))
        sizes = torch.tensor([[32.0, 32, 0, 0, 32, 32]])
        for time, before in zip([751, 501, 251, 1], [*alphas[[501, 251, 1]], alphas[0]], strict=True):
            towards, away = (
                generator.unet(
                    x,
                    time,
                    states,
                    added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes, "image_embeds": [image[:, None]]},
                ).sample
                for (states, pooled), image in zip(
                    halves, (embeddings[:1], torch.zeros_like(embeddings[:1])), strict=True
                )
            )
            noise = away + 5.0 * (towards - away)
            clean = (x - (1 - alphas[time]) ** 0.5 * noise) / alphas[time] ** 0.5
            x = before**0.5 * clean + (1 - before) ** 0.5 * noise
        expected = (generator.vae.decode(x / 0.13025).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(generator(embeddings[:1], seeds=[5]), expected, atol=1e-4, rtol=0)


def test_what_sd15_does_not_have(sdxl, sd15, fast, embeddings):
    generator = sdxl.generator
    assert (sdxl.name, sdxl.size, sdxl.shape) == ("sdxl", 32, sd15.shape)
    pictures = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        sdxl.encode(pictures), sd15.encode(pictures), atol=1e-4, rtol=1e-4
    )  # landscapes serve both
    assert (generator.guidance_scale, SAMPLERS_XL[None].num_inference_steps) == (5.0, 50)
    assert generator.vae.config.scaling_factor == 0.13025
    assert generator.text_to_image.watermark is None
    fast.text_to_image.scheduler.set_timesteps(8)
    assert fast.text_to_image.scheduler.timesteps.tolist() == [999, 874, 749, 624, 499, 374, 249, 124]
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        one = generator.predict_noise(noise, embeddings[:2, None], torch.tensor(501))
    assert one.shape == noise.shape


def test_without_text(tiny_xl, embeddings):
    made = StableDiffusionXLGenerator.load(
        tiny_xl.model, tiny_xl.adapter, vae=tiny_xl.vae, prompt=None, num_inference_steps=2
    )
    pictures = made(embeddings, seeds=[1] * 3)
    assert (pictures[0] - pictures[1]).abs().max() > 0.01


def test_by_name_from_the_hubs_cache(tiny_xl, sdxl, tmp_path, monkeypatch, embeddings):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"model='stabilityai/stable-diff.*vae='madebyollin.*download sdxl"
    ) as error:
        build_sdxl()
    assert "text_encoder_2/model.fp16.safetensors" in str(error.value)
    assert "sdxl_models/ip-adapter_sdxl_vit-h.safetensors" in str(error.value)
    assert "download sd15" not in str(error.value)
    commits = {one.repo_id: one.revision for one in (SDXL, SDXL_VAE, IP_ADAPTER_SDXL, OPENCLIP)}
    write_hub_cache(tmp_path, tiny_xl, commits)
    made = build_sdxl(num_inference_steps=4)
    assert torch.equal(made.generator(embeddings, seeds=[1] * 3), sdxl.generator(embeddings, seeds=[1] * 3))


def test_adapters_of_another_kind(tiny, tiny_xl, tmp_path):
    def load(adapter):
        return StableDiffusionXLGenerator.load(tiny_xl.model, adapter, vae=tiny_xl.vae, prompt=None)

    use = "Use sdxl_models/ip-adapter_sdxl_vit-h.safetensors"
    for name, why in (
        ("ip-adapter_sdxl.safetensors", "takes the 1,280-d embedding of ViT-bigG/14"),
        ("ip-adapter-plus_sdxl_vit-h.safetensors", "takes CLIP's patch tokens"),
        ("ip-adapter_sd15.safetensors", "is made for Stable Diffusion 1.5"),
    ):
        with pytest.raises(ValueError, match=rf"adapter='{name}' {why}.*{use}"):
            load(tmp_path / name)
    with pytest.raises(ValueError, match=rf"adapter makes tokens of 16 values, but the UNet attends to 32.*{use}"):
        load(shutil.copy(tiny.adapter, tmp_path / "mine.safetensors"))


def test_what_is_refused(tiny_xl, tmp_path):
    from vislens_interp.backends.diffusion.speedups import sampler_of

    with pytest.raises(ValueError, match="speedup='lcm' is unknown; expected None or 'hyper-sd'"):
        sampler_of("lcm", None, None, SAMPLERS_XL)
    single = tmp_path / "sd_xl_base_1.0.safetensors"
    save_file({"a": torch.zeros(1)}, single)
    with pytest.raises(ValueError, match=r"is a single file, which is read of Stable Diffusion 1.5 alone"):
        StableDiffusionXLGenerator.load(single)
    stock = shutil.copytree(tiny_xl.vae, tmp_path / "vae")
    path = stock / "config.json"
    path.write_text(path.read_text().replace('"force_upcast": false', '"force_upcast": true'))
    assert TINY_VAE_XL["force_upcast"] is False
    with pytest.raises(ValueError, match=r"vae leaves float16's range, .*Leave vae out, which is madebyollin"):
        StableDiffusionXLGenerator.load(tiny_xl.model, tiny_xl.adapter, vae=stock, dtype=torch.float16)
    with pytest.raises(ValueError, match="precision='fp32' of sdxl is not fetched; expected 'fp16'"):
        sdxl_repositories("fp32")
    with pytest.raises(ValueError, match="speedup='lcm' of sdxl is unknown; expected 'hyper-sd' or None"):
        sdxl_repositories(speedup="lcm")


def test_the_published_architecture():
    """Names, shapes and counts of the published files, on the meta device."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.device("meta"):
        unet, vae = UNet2DConditionModel.from_config(UNET_XL), AutoencoderKL.from_config(VAE_XL)
        state = unet.state_dict()
        adapter = adapter_state(unet, 1024)
        lora = lora_state(unet, rank=64)
    assert len(state) == 1680
    values = sum(value.numel() for value in state.values())
    assert SDXL.files[-1].size == pytest.approx(2 * values, rel=1e-4)
    assert SDXL_VAE.size == pytest.approx(4 * sum(value.numel() for value in vae.state_dict().values()), rel=1e-3)
    tensors = [value for part in adapter.values() for value in part.values()]
    assert (len(tensors), sum(value.numel() for value in tensors)) == (144, 349_188_096)
    assert IP_ADAPTER_SDXL.size == pytest.approx(2 * 349_188_096, rel=1e-4)
    assert list(adapter["ip_adapter"])[-1] == "139.to_v_ip.weight"
    values = sum(value.numel() for name, value in lora.items() if not name.endswith("alpha"))
    assert len(lora) == 2364
    assert HYPER_SDXL.size == pytest.approx(4 * values, rel=1e-3)
    assert SCHEDULER_XL["timestep_spacing"] == "leading"


def test_a_changed_adapter_is_not_the_same(tiny_xl, sdxl, tmp_path, embeddings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        path = write_adapter(tmp_path, adapter_state(sdxl.generator.unet, DIM), "mine")
    made = StableDiffusionXLGenerator.load(tiny_xl.model, path, vae=tiny_xl.vae, num_inference_steps=4)
    assert (made(embeddings, seeds=[1] * 3) - sdxl.generator(embeddings, seeds=[1] * 3)).abs().max() > 0.01
