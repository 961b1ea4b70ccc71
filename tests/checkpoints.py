"""Tiny checkpoints with random weights in the layouts of the published ones, and the published configurations.

What is written here has the names, files and oddities of ``stable-diffusion-v1-5/stable-diffusion-v1-5``,
``h94/IP-Adapter`` and ``laion/CLIP-ViT-H-14-laion2B-s32B-b79K``, so that the ordinary loading calls read it offline.
"""

import copy
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

UNET = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
VAE = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
ZERO_SNR = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.35.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}
TEXT = {
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "vocab_size": 49408,
}
VISION = {  # models/image_encoder/config.json of h94/IP-Adapter: ViT-H/14 as transformers writes it
    "architectures": ["CLIPVisionModelWithProjection"],
    "attention_dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "image_size": 224,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 5120,
    "layer_norm_eps": 1e-05,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_channels": 3,
    "num_hidden_layers": 32,
    "patch_size": 14,
    "projection_dim": 1024,
}
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.6.0",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
# Stable Diffusion XL base 1.0, and the VAE that was mended for float16.
UNET_XL = UNET | {
    "_diffusers_version": "0.19.0.dev0",
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}
VAE_XL = VAE | {
    "_diffusers_version": "0.18.0.dev0",
    "force_upcast": False,
    "scaling_factor": 0.13025,
}
SCHEDULER_XL = SCHEDULER | {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}
TEXT_2 = TEXT | {
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]

# The same kinds of block as the published networks, 32-pixel images, 16 x 16 latents, 24-d embeddings.
TINY_UNET = UNET | {
    # Before 0.9 diffusers takes a sample_size below 64 for a mistake.
    "_diffusers_version": "0.35.0",
    "attention_head_dim": 2,
    "block_out_channels": [8, 16],
    "cross_attention_dim": 16,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 16,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}
TINY_VAE = VAE | {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 32,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
}
TINY_TEXT = TEXT | {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "projection_dim": 16,
}
TINY_UNET_XL = UNET_XL | {
    "_diffusers_version": "0.35.0",
    "addition_time_embed_dim": 8,
    "attention_head_dim": [1, 2],
    "block_out_channels": [8, 16],
    "cross_attention_dim": 32,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "projection_class_embeddings_input_dim": 64,
    "sample_size": 16,
    "transformer_layers_per_block": [1, 2],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
}
TINY_VAE_XL = TINY_VAE | {"force_upcast": False, "scaling_factor": 0.13025}
TINY_TEXT_2 = TINY_TEXT | {"architectures": ["CLIPTextModelWithProjection"], "hidden_act": "gelu"}
TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 32, "head_width": 8, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 512, "width": 16, "heads": 2, "layers": 1},
}
DIM = TINY_CLIP["embed_dim"]


@dataclass(frozen=True)
class Checkpoints:
    """Where one set of tiny checkpoints lies."""

    model: Path
    """Stable Diffusion's folder."""
    adapter: Path
    """``models/ip-adapter_sd15.safetensors``; the ``.bin`` lies beside it."""
    clip: Path
    """open_clip's folder."""
    vae: Path | None = None
    """Of Stable Diffusion XL: the VAE's own folder."""


def write_checkpoints(folder: Path) -> Checkpoints:
    """A Stable Diffusion folder with every part, the adapter in both formats, and an open_clip checkpoint."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = write_stable_diffusion(folder / "stable-diffusion-v1-5")
        adapter = adapter_state(unet, DIM)
        write_adapter(folder / "IP-Adapter" / "models", adapter)
        write_clip(folder / "CLIP-ViT-H-14")
    return Checkpoints(
        folder / "stable-diffusion-v1-5",
        folder / "IP-Adapter" / "models" / "ip-adapter_sd15.safetensors",
        folder / "CLIP-ViT-H-14",
    )


def write_checkpoints_xl(folder: Path) -> Checkpoints:
    """The same for Stable Diffusion XL: its folder without weights of a VAE, the mended VAE, the adapter.

    The embedder is that of :func:`write_checkpoints`, which has to come first.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel

    model, vae = folder / "stable-diffusion-xl-base-1.0", folder / "sdxl-vae-fp16-fix"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        unet = UNet2DConditionModel.from_config(TINY_UNET_XL)
        _enliven(unet)
        half = {name: value.half() for name, value in unet.state_dict().items()}
        _write_weights(model / "unet/diffusion_pytorch_model.fp16.safetensors", half)
        _write_json(model / "unet/config.json", TINY_UNET_XL)
        _write_json(model / "scheduler/scheduler_config.json", SCHEDULER_XL)
        _write_text(model)
        _write_text(model, "_2", TINY_TEXT_2)
        _write_json(model / "model_index.json", {"_class_name": "StableDiffusionXLPipeline"})
        _write_weights(vae / "diffusion_pytorch_model.safetensors", AutoencoderKL.from_config(TINY_VAE_XL).state_dict())
        _write_json(vae / "config.json", TINY_VAE_XL)
        adapter = write_adapter(
            folder / "IP-Adapter" / "sdxl_models", adapter_state(unet, DIM), "ip-adapter_sdxl_vit-h"
        )
    return Checkpoints(model, adapter, folder / "CLIP-ViT-H-14", vae)


def write_stable_diffusion(
    folder: Path, *, scheduler: dict[str, Any] = SCHEDULER, text: bool = True, unet: dict[str, Any] = TINY_UNET
) -> Any:
    """Stable Diffusion's folder, with or without what reads text; returns the UNet.

    The VAE has the attention names of the published file; diffusers since 0.16 writes others.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel

    network, vae = UNet2DConditionModel.from_config(unet), AutoencoderKL.from_config(TINY_VAE)
    _enliven(network)
    _write_weights(folder / "unet/diffusion_pytorch_model.safetensors", network.state_dict())
    _write_json(folder / "unet/config.json", unet)
    _write_weights(folder / "vae/diffusion_pytorch_model.safetensors", _before_0_16(vae.state_dict()))
    _write_json(folder / "vae/config.json", TINY_VAE)
    _write_json(folder / "scheduler/scheduler_config.json", scheduler)
    index = INDEX | {"scheduler": ["diffusers", scheduler["_class_name"]]}
    if text:
        _write_text(folder)
        _write_safety_checker(folder)
    else:
        for name in ("text_encoder", "tokenizer", "safety_checker", "feature_extractor"):
            index[name] = [None, None]
    _write_json(folder / "model_index.json", index)
    return network


def _enliven(network: Any) -> None:
    """Weights large enough that every input can be seen in the output of an untrained network."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "attn2" in name:
                weight.mul_(4)


def _before_0_16(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of the VAE's attention that the published file still has."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in state.items():
        for new, former in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{former}.")
        renamed[name] = tensor
    return renamed


def _write_text(folder: Path, end: str = "", config: dict[str, Any] = TINY_TEXT) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    encoder = (CLIPTextModelWithProjection if end else CLIPTextModel)(CLIPTextConfig(**config))
    state = {
        name if name.startswith("text_projection") else f"text_model.{name.removeprefix('text_model.')}": value
        for name, value in encoder.state_dict().items()
    }
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]  # in the published file, a buffer no more
    _write_weights(folder / f"text_encoder{end}/model.safetensors", state)
    _write_json(folder / f"text_encoder{end}/config.json", config)
    # CLIP's bytes, as letters, then the same at the end of a word; two merges; the two special tokens last.
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "qu", "qua"]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens[:-2])}
    vocabulary |= {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    _write_json(folder / f"tokenizer{end}/vocab.json", vocabulary)
    _write(folder / f"tokenizer{end}/merges.txt", "#version: 0.2\nq u\nqu a\n")
    special = {
        name: {"content": token, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        for name, token in (
            ("bos_token", "<|startoftext|>"),
            ("eos_token", "<|endoftext|>"),
            ("unk_token", "<|endoftext|>"),
        )
    } | {"pad_token": "<|endoftext|>"}
    _write_json(folder / f"tokenizer{end}/special_tokens_map.json", special)
    _write_json(
        folder / f"tokenizer{end}/tokenizer_config.json",
        {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77}
        | {"name_or_path": "openai/clip-vit-large-patch14", "tokenizer_class": "CLIPTokenizer"},
    )


def _write_safety_checker(folder: Path) -> None:
    """A part of the published folder that nothing here may read: its weights are unreadable on purpose."""
    _write_json(folder / "safety_checker/config.json", {"architectures": ["StableDiffusionSafetyChecker"]})
    _write(folder / "safety_checker/model.safetensors", "never to be read")
    _write_json(folder / "feature_extractor/preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor"})


def adapter_state(unet: Any, dim: int, tokens: int = 4) -> dict[str, dict[str, Tensor]]:
    """IP-Adapter's two parts for this UNet, named by the position of each attention in the UNet's list."""
    cross = unet.config.cross_attention_dim
    layers: dict[str, Tensor] = {}
    for index, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            hidden = unet.get_submodule(name.removesuffix(".processor")).to_q.weight
            for letter in "kv":
                weight = torch.empty(hidden.shape[0], cross, device=hidden.device)
                layers[f"{index}.to_{letter}_ip.weight"] = torch.nn.init.normal_(weight)
    projection = {
        "proj.weight": torch.nn.init.normal_(torch.empty(tokens * cross, dim, device=hidden.device)),
        "proj.bias": torch.zeros(tokens * cross, device=hidden.device),
        "norm.weight": torch.ones(cross, device=hidden.device),
        "norm.bias": torch.zeros(cross, device=hidden.device),
    }
    return {"image_proj": projection, "ip_adapter": layers}


def write_adapter(folder: Path, state: dict[str, dict[str, Tensor]], name: str = "ip-adapter_sd15") -> Path:
    """``models/ip-adapter_sd15.safetensors`` and ``.bin`` in half precision, as they are published; the former."""
    half = {part: {key: value.half() for key, value in tensors.items()} for part, tensors in state.items()}
    flat = {f"{part}.{key}": value for part, tensors in half.items() for key, value in tensors.items()}
    _write_weights(folder / f"{name}.safetensors", flat)
    torch.save(half, folder / f"{name}.bin")
    return folder / f"{name}.safetensors"


# Where the LoRAs for few steps reach: 278 modules of Stable Diffusion 1.5.
LORA_ENDS = (
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv"),
)


def lora_state(unet: Any, rank: int = 4, alpha: float = 2.0, peft: bool = False) -> dict[str, Tensor]:
    """A LoRA in the layout of ``Hyper-SD15-8steps-CFG-lora.safetensors`` and LCM-LoRA, which is kohya's, or in PEFT's.

    Two factors and an alpha for every module; the product counts alpha / rank.
    """
    state: dict[str, Tensor] = {}
    for name, module in unet.named_modules():
        if not name.endswith(LORA_ENDS) or name in LORA_ENDS:
            continue
        weight = module.weight
        down = torch.empty(rank, *weight.shape[1:], device=weight.device)
        up = torch.empty(weight.shape[0], rank, *(1 for _ in weight.shape[2:]), device=weight.device)
        down, up = (torch.nn.init.normal_(factor, std=0.2) for factor in (down, up))
        if peft:  # which has its alpha in the file's header, and without one takes the rank
            state |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up * (alpha / rank)}
        else:
            stem = f"lora_unet_{name.replace('.', '_')}"
            state |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
            state[f"{stem}.alpha"] = torch.tensor(alpha)
    return state


def write_clip(folder: Path) -> None:
    """open_clip's folder: the whole CLIP with its text tower, as a safetensors file and as a ``.bin``."""
    from open_clip.model import CLIP

    model = CLIP(**copy.deepcopy(TINY_CLIP))
    _write_weights(folder / "open_clip_model.safetensors", model.state_dict())
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    preprocess = {"mean": CLIP_MEAN, "std": CLIP_STD}
    _write_json(folder / "open_clip_config.json", {"model_cfg": TINY_CLIP, "preprocess_cfg": preprocess})


def write_hub_cache(folder: Path, written: Checkpoints, commits: dict[str, str] | None = None) -> None:
    """The same checkpoints as ``huggingface_hub`` keeps what it has downloaded, under the published names.

    By their branch's name, or by the commits of these repositories.
    """
    model = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    for name, source in (
        (model if written.vae is None else "stabilityai/stable-diffusion-xl-base-1.0", written.model),
        ("h94/IP-Adapter", written.adapter.parents[1]),
        ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", written.clip),
        *([] if written.vae is None else [("madebyollin/sdxl-vae-fp16-fix", written.vae)]),
    ):
        commit = (commits or {}).get(name, "0123456789abcdef0123456789abcdef01234567")
        repository = folder / f"models--{name.replace('/', '--')}"
        shutil.copytree(source, repository / "snapshots" / commit)
        if name not in (commits or {}):
            _write(repository / "refs" / "main", commit)


def single_file(folder: Path, path: Path) -> Path:
    """Stable Diffusion's folder as the one file of its first release (``v1-5-pruned-emaonly.safetensors``)."""
    from safetensors.torch import load_file

    state: dict[str, Tensor] = {}
    for name, tensor in load_file(folder / "unet/diffusion_pytorch_model.safetensors").items():
        state[f"model.diffusion_model.{_ldm_unet(name)}"] = tensor
    for name, tensor in load_file(folder / "vae/diffusion_pytorch_model.safetensors").items():
        renamed = _ldm_vae(name)
        # Its attention was written as 1 x 1 convolutions.
        state[f"first_stage_model.{renamed}"] = tensor[:, :, None, None] if _is_conv(renamed, tensor) else tensor
    for name, tensor in load_file(folder / "text_encoder/model.safetensors").items():
        state[f"cond_stage_model.transformer.{name}"] = tensor
    return _write_weights(path, state)


def _ldm_unet(name: str) -> str:
    layers = TINY_UNET["layers_per_block"]
    first = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    stem, leaf = name.rsplit(".", 1)
    if stem in first:
        return f"{first[stem]}.{leaf}"
    parts = name.split(".")
    kind = parts[1] if parts[0] == "mid_block" else parts[2]
    rest = name.split(f".{kind}.", 1)[1].split(".", 1)[1]
    if kind == "resnets":
        for new, old in _LDM_RESNET.items():
            rest = re.sub(f"^{new}", old, rest)
    attention = int(kind == "attentions")
    if parts[0] == "mid_block":
        return f"middle_block.{1 if attention else 2 * int(parts[2])}.{rest}"
    block, index = int(parts[1]), int(parts[3])
    first_of_block = block * (layers + 1)
    if parts[0] == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{first_of_block + layers + 1}.0.op.{leaf}"
        return f"input_blocks.{1 + first_of_block + index}.{attention}.{rest}"
    if kind == "upsamplers":
        attended = TINY_UNET["up_block_types"][block].startswith("CrossAttn")
        return f"output_blocks.{first_of_block + layers}.{1 + attended}.conv.{leaf}"
    return f"output_blocks.{first_of_block + index}.{attention}.{rest}"


_LDM_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def _ldm_vae(name: str) -> str:
    blocks = len(TINY_VAE["block_out_channels"])
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    parts = name.split(".")
    if len(parts) > 2 and parts[1] == "mid_block":
        if parts[2] == "resnets":
            return f"{parts[0]}.mid.block_{int(parts[3]) + 1}.{'.'.join(parts[4:])}"
        leaf = {"group_norm": "norm", "query": "q", "key": "k", "value": "v", "proj_attn": "proj_out"}[parts[4]]
        return f"{parts[0]}.mid.attn_1.{leaf}.{parts[5]}"
    if len(parts) > 2 and parts[1] in ("down_blocks", "up_blocks"):
        level = int(parts[2]) if parts[1] == "down_blocks" else blocks - 1 - int(parts[2])
        way = parts[1].removesuffix("_blocks")
        if parts[3] == "resnets":
            return f"{parts[0]}.{way}.{level}.block.{'.'.join(parts[4:])}"
        return f"{parts[0]}.{way}.{level}.{way}sample.{'.'.join(parts[5:])}"
    return name


def _is_conv(name: str, tensor: Tensor) -> bool:
    return "attn_1" in name and tensor.ndim == 2


def _write_weights(path: Path, state: dict[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Cloned, because safetensors refuses memory that tensors share.
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path, metadata={"format": "pt"})
    return path


def _write_json(path: Path, value: Any) -> None:
    _write(path, json.dumps(value, indent=2))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
