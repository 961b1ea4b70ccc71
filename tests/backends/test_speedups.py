"""Few steps: LoRAs in the published layout, merged into the tiny UNet."""

import copy
import math

import pytest
import torch
from checkpoints import DIM, SCHEDULER, UNET, lora_state, write_hub_cache
from safetensors.torch import save_file
from torch import nn

from vislens_interp.backends.diffusion import speedups
from vislens_interp.backends.diffusion.generator import StableDiffusionGenerator
from vislens_interp.backends.diffusion.speedups import SAMPLERS, read_lora, sampler_of
from vislens_interp.backends.embedding import sd15 as build_sd15
from vislens_interp.backends.weights import HYPER_SD, LCM_LORA, sd15_repositories

pytest.importorskip("peft", reason="LoRAs are read by peft: pip install 'vislens_interp[speedup]'")
NAMES = ["hyper-sd", "lcm"]


@pytest.fixture(scope="module")
def plain(tiny):
    return StableDiffusionGenerator.load(tiny.model, tiny.adapter, num_inference_steps=8)


@pytest.fixture(scope="module")
def lora(plain):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return lora_state(plain.unet)


@pytest.fixture(scope="module")
def fast(tiny, lora, tmp_path_factory):
    """A generator for each speed-up, read from a file in the published layout."""
    made = {}
    for name in NAMES:
        path = tmp_path_factory.mktemp(name) / SAMPLERS[name].file
        save_file(lora, path)
        made[name] = StableDiffusionGenerator.load(tiny.model, tiny.adapter, speedup=name, speedup_weights=path)
    return made


# --- what is published


def test_the_published_layout_has_the_published_size():
    """278 modules of rank 64 with their alphas: 834 tensors, to the byte the file of LCM-LoRA."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        state = lora_state(UNet2DConditionModel.from_config(UNET), rank=64)
    assert len(state) == 834
    values = sum(value.numel() for name, value in state.items() if not name.endswith("alpha"))
    header = 8 + 116_544  # as it is published
    assert 2 * (values + 278) + header == LCM_LORA.size
    assert HYPER_SD.size == pytest.approx(4 * values, rel=1e-3)  # in float32


def test_steps_and_guidance_that_the_publishers_give(fast):
    assert (SAMPLERS[None].num_inference_steps, SAMPLERS[None].guidance_scale) == (50, 7.5)
    assert (fast["hyper-sd"].num_inference_steps, fast["hyper-sd"].guidance_scale) == (8, 5.0)
    assert (fast["lcm"].num_inference_steps, fast["lcm"].guidance_scale) == (8, 1.5)
    scheduler = fast["hyper-sd"].text_to_image.scheduler
    scheduler.set_timesteps(8)
    assert type(scheduler).__name__ == "DDIMScheduler"
    assert scheduler.timesteps.tolist() == [999, 874, 749, 624, 499, 374, 249, 124]  # trailing
    assert type(fast["lcm"].text_to_image.scheduler).__name__ == "LCMScheduler"
    for made in fast.values():
        assert made.image_to_image.scheduler is made.text_to_image.scheduler
        assert made.text_to_image.scheduler.config.beta_end == SCHEDULER["beta_end"]


# --- the merged weights


@pytest.mark.parametrize("peft", [False, True], ids=["kohya", "peft"])
def test_weights_are_the_old_ones_and_the_product(tiny, plain, peft):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        state = lora_state(plain.unet, peft=peft)
    random = torch.get_rng_state()
    made = StableDiffusionGenerator.load(tiny.model, tiny.adapter, speedup="hyper-sd", speedup_weights=state)
    assert torch.equal(torch.get_rng_state(), random)
    changed = 0
    before, after = dict(plain.unet.named_modules()), dict(made.unet.named_modules())
    assert before.keys() == after.keys()  # nothing of PEFT is left
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        factors = lora_state(plain.unet)
    for name, module in before.items():
        stem = f"lora_unet_{name.replace('.', '_')}"
        if f"{stem}.alpha" not in factors:
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                assert torch.equal(after[name].weight, module.weight)
            continue
        down, up = factors[f"{stem}.lora_down.weight"], factors[f"{stem}.lora_up.weight"]
        product = (up.flatten(1) @ down.flatten(1)).reshape(module.weight.shape) * 2 / 4  # alpha / rank
        torch.testing.assert_close(after[name].weight, module.weight + product, atol=1e-5, rtol=0)
        changed += 1
    assert changed == len(factors) // 3


def test_the_lora_changes_pictures_and_a_step_costs_the_same(fast, plain, embeddings):
    usual = plain(embeddings, seeds=[1] * 3)
    for made in fast.values():
        assert (made(embeddings, seeds=[1] * 3) - usual).abs().max() > 0.01
        assert sum(p.numel() for p in made.unet.parameters()) == sum(p.numel() for p in plain.unet.parameters())


# --- the properties of every generator


@pytest.fixture(params=["none", *NAMES])
def generator(request, fast, plain):
    return fast.get(request.param, plain)


def test_strength_0_returns_the_input(generator, embeddings, pictures):
    assert torch.equal(generator(embeddings, init_image=pictures, strength=0, seeds=[1] * 3), pictures)


def test_strength_1_knows_nothing_of_the_input(generator, embeddings, pictures):
    without = generator(embeddings, seeds=[1, 2, 3])
    assert torch.equal(generator(embeddings, init_image=pictures, strength=1, seeds=[1, 2, 3]), without)
    below = generator(embeddings, init_image=pictures, strength=0.9, seeds=[1, 2, 3])
    assert not torch.equal(below, without)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_picture_does_not_depend_on_its_batch(generator, embeddings, pictures, strength):
    seeds = [3, 1, 4]
    together = generator(embeddings, init_image=pictures, strength=strength, seeds=seeds)
    assert torch.equal(generator(embeddings, init_image=pictures, strength=strength, seeds=seeds), together)
    for row, seed in enumerate(seeds):
        one = slice(row, row + 1)
        alone = generator(embeddings[one], init_image=pictures[one], strength=strength, seeds=[seed])
        torch.testing.assert_close(alone, together[one], atol=2e-4, rtol=0)
    changed = embeddings.clone()
    changed[1] = -2 * changed[1]
    difference = generator(changed, init_image=pictures, strength=strength, seeds=seeds) - together
    assert difference.abs().amax((1, 2, 3))[[0, 2]].max() == 0
    assert difference[1].abs().max() > 0.01


@pytest.mark.parametrize(("strength", "steps"), [(0.01, 1), (0.5, 4), (0.99, 8), (1.0, 8)])
def test_so_many_steps_are_taken(generator, pictures, strength, steps):
    calls = []
    hook = generator.unet.register_forward_hook(lambda *_: calls.append(1))
    try:
        generator(torch.ones(1, DIM), init_image=pictures[:1], strength=strength, seeds=[1])
    finally:
        hook.remove()
    assert len(calls) == steps


# --- by name, and refusals


def test_by_name_from_the_hubs_cache(tiny, lora, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    write_hub_cache(tmp_path, tiny)
    with pytest.raises(
        FileNotFoundError, match="^speedup_weights='ByteDance/Hyper-SD' lacks Hyper-SD15-8steps-CFG-lora"
    ):
        build_sd15(speedup="hyper-sd")
    folder = tmp_path / "models--ByteDance--Hyper-SD" / "snapshots" / HYPER_SD.revision
    folder.mkdir(parents=True)
    save_file(lora, folder / SAMPLERS["hyper-sd"].file)
    backend = build_sd15(speedup="hyper-sd")
    assert backend.generator.speedup == "hyper-sd"
    assert backend.generator.num_inference_steps == 8
    assert read_lora("hyper-sd").keys() == lora.keys()
    names = [repository.name for repository in sd15_repositories(speedup="hyper-sd")]
    assert names[-1] == HYPER_SD.name


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "hyper-sd",
            {"guidance_scale": 1.0},
            "guidance_scale=1.0 with speedup='hyper-sd', which was made for 5 to 8: ",
        ),
        (
            "hyper-sd",
            {"num_inference_steps": 50},
            "num_inference_steps=50 with speedup='hyper-sd', .* made for 8: pict",
        ),
        (
            "lcm",
            {"guidance_scale": 7.5},
            "guidance_scale=7.5 with speedup='lcm', .* 1 to 2: .* Leave guidance_scale out",
        ),
    ],
)
def test_what_a_lora_was_not_trained_for(name, options, message):
    with pytest.warns(UserWarning, match=message):
        sampler_of(name, *(options.get(key) for key in ("num_inference_steps", "guidance_scale")))


def test_peft_is_missing(plain, lora, monkeypatch):
    monkeypatch.setattr(speedups, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"speedup='lcm' needs the package peft.* 'vislens_interp\[speedup\]'"):
        speedups.merge_lora(plain.text_to_image, "lcm", lora)


def test_what_cannot_be_merged(tiny, lora, tmp_path):
    def load(state, speedup="lcm"):
        return StableDiffusionGenerator.load(
            tiny.model, tiny.adapter, prompt=None, speedup=speedup, speedup_weights=state
        )

    with pytest.raises(ValueError, match="speedup='turbo' is unknown; expected None, 'hyper-sd' or 'lcm'"):
        load(lora, "turbo")
    with pytest.raises(ValueError, match="speedup_weights holds no LoRA: none of its 1 tensors is a first factor"):
        load({"weight": torch.zeros(2, 2)})
    first = next(name for name in lora if name.endswith("attn1_to_q.lora_down.weight"))
    other = {name: value for name, value in lora.items() if not name.startswith(first.partition(".")[0])}
    for part in ("lora_down.weight", "lora_up.weight", "alpha"):
        other[f"lora_unet_down_blocks_7_attentions_0_proj_in.{part}"] = lora[first.replace("lora_down.weight", part)]
    with pytest.raises(ValueError, match="cannot be merged into the UNet .*; .*download sd15 --speedup lcm"):
        load(other)
    with pytest.raises(ValueError, match="speedup_weights cannot be merged into the UNet"):
        load(lora | {first: torch.zeros(4, 99)})
    spoiled = copy.copy(lora)
    spoiled[first] = torch.full_like(lora[first], math.nan)
    with pytest.raises(ValueError, match="speedup_weights cannot be merged into the UNet"):
        load(spoiled)
    path = tmp_path / "lora.safetensors"
    save_file(lora, path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="speedup_weights=.* cannot be loaded .*truncated"):
        load(path)
