"""The true architectures: names, shapes and counts of the published weights, on the meta device; slow: two steps."""

import copy

import open_clip
import pytest
import torch
from checkpoints import SCHEDULER, TEXT, UNET, VAE, VISION, adapter_state
from torch import nn

from vislens_interp import FeatureLens
from vislens_interp.backends.diffusion.acceptance import as_transformers
from vislens_interp.backends.diffusion.adapters import check_adapter
from vislens_interp.backends.diffusion.generator import StableDiffusionGenerator
from vislens_interp.backends.embedders import OpenCLIPEmbedder
from vislens_interp.backends.embedding import EmbeddingBackend
from vislens_interp.preprocess import Preprocess


def millions(state):
    return round(sum(value.numel() for value in state.values()) / 1e6, 2)


def shapes(state):
    return {name: tuple(value.shape) for name, value in state.items()}


@pytest.fixture(scope="module")
def unet():
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel.from_config(UNET)


def vision_tower(layers=32):
    config = copy.deepcopy(open_clip.get_model_config("ViT-H-14"))
    assert config["vision_cfg"]["layers"] == 32
    config["vision_cfg"]["layers"] = layers
    return open_clip.model._build_vision_tower(config["embed_dim"], config["vision_cfg"])


def test_unet(unet):
    state = unet.state_dict()
    assert len(state) == 686
    assert millions(state) == 859.52
    known = {
        "conv_in.weight": (320, 4, 3, 3),
        "time_embedding.linear_1.weight": (1280, 320),
        "down_blocks.0.attentions.0.proj_in.weight": (320, 320, 1, 1),
        "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k.weight": (640, 768),
        "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj.weight": (10240, 1280),
        "up_blocks.3.resnets.2.conv_shortcut.weight": (320, 640, 1, 1),
        "conv_out.bias": (4,),
    }
    assert known.items() <= shapes(state).items()


def test_vae():
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        vae = AutoencoderKL.from_config(VAE)
    state = vae.state_dict()
    assert len(state) == 248
    assert millions(state) == 83.65
    assert vae.config["scaling_factor"] == 0.18215  # the file does not say it
    known = {
        "encoder.mid_block.attentions.0.to_q.weight": (512, 512),
        "decoder.up_blocks.2.resnets.0.conv_shortcut.weight": (256, 512, 1, 1),
        "quant_conv.weight": (8, 8, 1, 1),
        "post_quant_conv.weight": (4, 4, 1, 1),
    }
    assert known.items() <= shapes(state).items()


def test_text_encoder():
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        state = CLIPTextModel(CLIPTextConfig(**TEXT)).state_dict()
    assert len(state) == 196
    assert millions(state) == 123.06


def test_vision_tower():
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.device("meta"):
        tower = vision_tower()
        theirs = CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)).state_dict()
    state = tower.state_dict()
    assert millions(state) == 632.08
    known = {
        "class_embedding": (1280,),
        "positional_embedding": (257, 1280),
        "proj": (1280, 1024),
        "conv1.weight": (1280, 3, 14, 14),
        "transformer.resblocks.31.attn.in_proj_weight": (3840, 1280),
        "transformer.resblocks.31.mlp.c_fc.weight": (5120, 1280),
    }
    assert known.items() <= shapes(state).items()
    assert shapes(as_transformers(state)) == shapes(theirs)
    assert not any(isinstance(module, open_clip.transformer.QuickGELU) for module in tower.modules())


def test_adapter(unet):
    state = adapter_state(unet, 1024)
    assert millions({**state["image_proj"], **state["ip_adapter"]}) == 22.32
    assert check_adapter(state, unet, embedding_dim=1024) == 1024
    assert shapes(state["image_proj"])["proj.weight"] == (3072, 1024)
    # Half precision: the 44.6 MB of ip-adapter_sd15.safetensors.
    assert 2 * sum(value.numel() for part in state.values() for value in part.values()) == pytest.approx(
        44.64e6, rel=1e-3
    )
    layers = shapes(state["ip_adapter"])
    assert list(layers) == [f"{index}.to_{letter}_ip.weight" for index in range(1, 32, 2) for letter in "kv"]
    assert [layers[f"{index}.to_k_ip.weight"][0] for index in (1, 5, 9, 13, 19, 25, 31)] == [
        320, 640, 1280, 1280, 640, 320, 1280,
    ]  # fmt: skip


@pytest.mark.slow
def test_two_steps_at_512_pixels_through_a_lens():
    """The true architectures with random weights; ViT-H two layers deep, for 200 images go through it.

    At its full depth it is in test_embedders.py.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config(UNET)
    adapter = adapter_state(unet, 1024)
    generator = StableDiffusionGenerator(
        unet, AutoencoderKL.from_config(VAE), SCHEDULER, adapter, prompt=None, num_inference_steps=2, batch_size=1
    )
    embedder = OpenCLIPEmbedder(vision_tower(layers=2), Preprocess(224, [0.5] * 3, [0.5] * 3), batch_size=8)
    backend = EmbeddingBackend(embedder, generator, name="sd15")
    assert (backend.size, backend.shape) == (512, (1024,))

    model = nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), nn.ReLU())
    model.__dict__["preprocess"] = Preprocess(64, [0.5], [0.5])  # carried, no layer of the Sequential
    coarse = torch.rand(201, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    pictures = nn.functional.interpolate(coarse, size=224, mode="bilinear")
    lens = FeatureLens(model, "1", unit=2, backend=backend).fit(pictures[1:], epochs=1, shuffles=1)
    result = lens.visualize(pictures[:1], "increase")
    assert result.images["increase"].shape == (1, 3, 512, 512)
    assert result.images["increase"].std() > 0.01
