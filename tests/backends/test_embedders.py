import copy
import json
import shutil

import open_clip
import pytest
import torch
from checkpoints import CLIP_MEAN, CLIP_STD, DIM, TINY_CLIP, VISION
from PIL import Image
from torch import nn

from vislens_interp.backends.diffusion.acceptance import as_transformers
from vislens_interp.backends.embedders import Embedder, OpenCLIPEmbedder
from vislens_interp.preprocess import Preprocess


@pytest.fixture(scope="module")
def embedder(tiny):
    return OpenCLIPEmbedder.load(tiny.clip)


@pytest.fixture
def images():
    return torch.rand(5, 3, 40, 50, generator=torch.Generator().manual_seed(0))


def vision_model(config, tower, **changes):
    """transformers' network with open_clip's weights; every weight has to find its place."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**{**config, **changes})).eval()
    missing, unexpected = model.load_state_dict(as_transformers(tower.state_dict()), strict=False)
    assert not unexpected
    assert all("position_ids" in name for name in missing)
    return model


def agreement(tower, config, size):
    """Largest difference to transformers with gelu, and with its default, quick_gelu."""
    pixels = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = tower(pixels)
        right, wrong = (
            vision_model(config, tower, hidden_act=name)(pixels).image_embeds - ours for name in ("gelu", "quick_gelu")
        )
    return right.abs().max().item(), wrong.abs().max().item(), ours.abs().max().item()


def test_it_is_transformers_network_with_gelu(embedder):
    cfg = TINY_CLIP["vision_cfg"]
    config = VISION | {
        "hidden_size": cfg["width"],
        "image_size": cfg["image_size"],
        "intermediate_size": 4 * cfg["width"],
        "num_attention_heads": cfg["width"] // cfg["head_width"],
        "num_hidden_layers": cfg["layers"],
        "projection_dim": DIM,
    }
    right, wrong, _ = agreement(embedder.visual, config, cfg["image_size"])
    assert right < 1e-5
    assert wrong > 1e-4  # the default activation is not the published one


@pytest.mark.slow
def test_vit_h_is_transformers_network_with_gelu():
    torch.manual_seed(0)
    config = copy.deepcopy(open_clip.get_model_config("ViT-H-14"))
    tower = open_clip.model._build_vision_tower(config["embed_dim"], config["vision_cfg"]).eval()
    right, wrong, scale = agreement(tower, VISION, 224)
    assert right < 1e-4
    assert wrong > 1e-3
    assert scale > 0.1


def test_it_says_what_it_is(embedder):
    assert isinstance(embedder, Embedder)
    assert (embedder.dim, embedder.size, embedder.device) == (DIM, 28, torch.device("cpu"))
    assert not any(parameter.requires_grad for parameter in embedder.parameters())
    assert not embedder.visual.training


def test_embeddings_are_projected_and_not_normalised(embedder, images):
    embedded = embedder(images)
    assert embedded.shape == (5, DIM)
    assert embedded.dtype == torch.float32
    norms = embedded.norm(dim=1)
    assert norms.std() > 1e-4
    assert (norms - 1).abs().min() > 0.1


def test_gradients_flow_to_pixels_and_only_there(embedder, images):
    pixels = images[:1].clone().requires_grad_()
    embedder(pixels).square().sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    assert not embedder(images).requires_grad  # so that 9,000 images leave no graph


def test_an_embedding_depends_on_its_image_alone(tiny, images):
    small = OpenCLIPEmbedder.load(tiny.clip, batch_size=2)
    together = small(images)
    torch.testing.assert_close(torch.cat([small(image[None]) for image in images]), together, atol=1e-5, rtol=0)
    torch.testing.assert_close(OpenCLIPEmbedder.load(tiny.clip)(images), together, atol=1e-5, rtol=0)


def test_files_are_read_as_open_clip_reads_them(embedder, tmp_path):
    generator = torch.Generator().manual_seed(0)
    for name in "ab":
        pixels = (torch.rand(61, 47, 3, generator=generator) * 255).byte().numpy()
        Image.fromarray(pixels).resize((90, 130)).save(tmp_path / f"{name}.png")
    transform = open_clip.image_transform(28, is_train=False, mean=CLIP_MEAN, std=CLIP_STD)
    expected = torch.stack([transform(Image.open(tmp_path / f"{name}.png")) for name in "ab"])
    embedded, names = embedder.embed_files(tmp_path)
    assert names == ["a.png", "b.png"]
    with torch.no_grad():
        torch.testing.assert_close(embedded, embedder.visual(expected), atol=1e-5, rtol=0)


def test_preprocessing_comes_from_the_checkpoint(tiny, tmp_path):
    assert OpenCLIPEmbedder.load(tiny.clip).preprocess.mean.flatten().tolist() == pytest.approx(CLIP_MEAN)
    shutil.copytree(tiny.clip, tmp_path / "clip")
    config = json.loads((tmp_path / "clip/open_clip_config.json").read_text())
    config["preprocess_cfg"]["mean"] = [0.5, 0.5, 0.5]
    (tmp_path / "clip/open_clip_config.json").write_text(json.dumps(config))
    assert OpenCLIPEmbedder.load(tmp_path / "clip").preprocess.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    config["preprocess_cfg"]["resize_mode"] = "squash"
    (tmp_path / "clip/open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="resize_mode='squash'; expected 'bicubic' and 'shortest', as ViT-H-14"):
        OpenCLIPEmbedder.load(tmp_path / "clip")


@pytest.fixture
def architecture(tmp_path):
    """The tiny network among open_clip's own, for weights that come without a configuration."""
    (tmp_path / "vislens-tiny.json").write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(tmp_path / "vislens-tiny.json")
    yield "vislens-tiny"
    del open_clip.factory._MODEL_CONFIGS["vislens-tiny"]


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_a_file_and_a_folder_without_configuration(tiny, tmp_path, architecture, images, embedder, name):
    (tmp_path / "clip").mkdir()
    shutil.copy(tiny.clip / name, tmp_path / "clip")
    for source in (tmp_path / "clip" / name, tmp_path / "clip"):
        loaded = OpenCLIPEmbedder.load(source, architecture=architecture)
        assert torch.equal(loaded(images), embedder(images))
        assert loaded.preprocess.mean.flatten().tolist() == pytest.approx(CLIP_MEAN)


def test_loading_leaves_the_global_generator(tiny):
    before = torch.get_rng_state()
    OpenCLIPEmbedder.load(tiny.clip)
    assert torch.equal(torch.get_rng_state(), before)


def test_half_precision_stays_near(tiny, images, embedder):
    half = OpenCLIPEmbedder.load(tiny.clip, dtype=torch.bfloat16)(images)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, embedder(images), atol=0.1, rtol=0)
    assert not torch.equal(half, embedder(images))


def test_truncated_and_mismatched(tiny, tmp_path):
    shutil.copytree(tiny.clip, tmp_path / "clip")
    path = tmp_path / "clip/open_clip_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="clip=.* cannot be loaded .*truncated.*vislens download sd15"):
        OpenCLIPEmbedder.load(tmp_path / "clip")
    path.write_bytes(whole)
    wide = copy.deepcopy(TINY_CLIP)
    wide["vision_cfg"]["width"] = 64
    (tmp_path / "clip/open_clip_config.json").write_text(json.dumps({"model_cfg": wide}))
    with pytest.raises(ValueError, match="clip=.* cannot be loaded .*made for something else"):
        OpenCLIPEmbedder.load(tmp_path / "clip")


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="clip=.* lacks open_clip_model.safetensors; .*vislens download sd15"):
        OpenCLIPEmbedder.load(tmp_path)
    with pytest.raises(ValueError, match="architecture='ViT-Z' is unknown to open_clip; expected a name such as"):
        OpenCLIPEmbedder.load(tmp_path, architecture="ViT-Z")


def test_wrong_arguments(embedder):
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        OpenCLIPEmbedder(nn.Identity(), Preprocess(8, [0.5], [0.5]), batch_size=0)
    with pytest.raises(ValueError, match="preprocess has no size; expected the side"):
        OpenCLIPEmbedder(nn.Identity(), Preprocess(None, [0.5], [0.5]))
    with pytest.raises(ValueError, match="images has 4 channels .*expected 3, RGB"):
        embedder(torch.rand(1, 4, 28, 28))


def test_too_little_memory(tiny, tmp_path):
    shutil.copytree(tiny.clip, tmp_path / "clip")
    giant = copy.deepcopy(TINY_CLIP)
    giant["vision_cfg"]["width"] = 2**37  # more than 128 TiB, which no system addresses
    (tmp_path / "clip/open_clip_config.json").write_text(json.dumps({"model_cfg": giant}))
    with pytest.raises(MemoryError, match="clip=.* does not fit into memory .*; ViT-H/14 takes 8 GB while it loads"):
        OpenCLIPEmbedder.load(tmp_path / "clip")
