import shutil

import pytest
import torch
from checkpoints import DIM, TINY_UNET, UNET, adapter_state

from vislens_interp.backends.diffusion.adapters import check_adapter, check_loaded, read_adapter


@pytest.fixture(scope="module")
def unet():
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        return UNet2DConditionModel.from_config(TINY_UNET)


@pytest.fixture
def state(unet):
    return adapter_state(unet, DIM)


def test_both_formats_hold_the_same(tiny):
    one, other = read_adapter(tiny.adapter), read_adapter(tiny.adapter.with_suffix(".bin"))
    assert one.keys() == other.keys()
    for part in one:
        assert one[part].keys() == other[part].keys()
        assert all(torch.equal(value, other[part][name]) for name, value in one[part].items())
    # Position in the UNet's list of attentions, of which every second looks at the text.
    assert set(one["ip_adapter"]) == {f"{index}.to_{letter}_ip.weight" for index in (1, 3, 5, 7) for letter in "kv"}


def test_a_folder_of_the_published_layout(tiny, tmp_path):
    assert read_adapter(tiny.adapter.parents[1])["image_proj"].keys() == read_adapter(tiny.adapter)["image_proj"].keys()
    shutil.copy(tiny.adapter.with_suffix(".bin"), tmp_path / "ip-adapter_sd15_light.bin")
    assert read_adapter(tmp_path, name="ip-adapter_sd15_light.bin")["ip_adapter"]
    (tmp_path / "models").mkdir()
    shutil.copy(tiny.adapter.with_suffix(".bin"), tmp_path / "models")
    assert read_adapter(tmp_path)["ip_adapter"]  # only the .bin is there


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ip-adapter-plus_sd15.safetensors", "patch tokens"),
        ("ip-adapter-plus-face_sd15.bin", "patch tokens"),
        ("ip-adapter-full-face_sd15.safetensors", "patch tokens"),
        ("ip-adapter-faceid_sd15.bin", "face recognition"),
        ("ip-adapter_sd15_vit-G.safetensors", "1,280-d embedding of ViT-bigG/14"),
        ("ip-adapter_sdxl.safetensors", "Stable Diffusion XL"),
    ],
)
def test_other_kinds_are_refused_by_their_names(name, why, tmp_path):
    remedy = "expected one that takes ViT-H/14's global embedding. Use models/ip-adapter_sd15.safetensors"
    for arguments in ((tmp_path / name, None), ("h94/IP-Adapter", f"models/{name}")):
        with pytest.raises(ValueError, match=f"{why}.*{remedy}"):
            read_adapter(arguments[0], name=arguments[1])


def test_the_right_ones_fit(unet, state):
    assert check_adapter(state, unet, embedding_dim=DIM) == DIM
    assert check_adapter(state, unet, embedding_dim=None) == DIM


def test_patch_tokens_are_refused_by_shape(unet, state):
    plus = {"latents": torch.zeros(1, 16, 16), "proj_in.weight": torch.zeros(16, 1280)}
    for projection in (plus, {"proj.0.weight": torch.zeros(8, 8), "proj.3.weight": torch.zeros(8)}):
        with pytest.raises(ValueError, match="patch tokens .*expected 'proj.weight' over one global embedding. Use"):
            check_adapter({**state, "image_proj": projection}, unet, embedding_dim=DIM)


def test_bigg_is_refused_by_shape(unet):
    with pytest.raises(ValueError, match="takes 1280-d embeddings \\(ViT-bigG/14\\), but the embedder makes 1024"):
        check_adapter(adapter_state(unet, 1280), unet, embedding_dim=1024)


def test_another_number_of_tokens(unet):
    with pytest.raises(ValueError, match="adapter makes 8 tokens .* has 128 rows\\); expected 4"):
        check_adapter(adapter_state(unet, DIM, tokens=8), unet, embedding_dim=DIM)


def test_an_adapter_for_another_unet(unet, state):
    wide = adapter_state(_meta_unet(), 1024)
    with pytest.raises(ValueError, match="tokens of 768 values, but the UNet attends to 16"):
        check_adapter(wide, unet, embedding_dim=1024)
    layers = {**state["ip_adapter"], "3.to_k_ip.weight": torch.zeros(99, 16)}
    with pytest.raises(ValueError, match=r"in 1 of 8 .*'3.to_k_ip.weight' has shape \(99, 16\), expected \(8, 16\)"):
        check_adapter({**state, "ip_adapter": layers}, unet, embedding_dim=DIM)
    fewer = {name: value for name, value in state["ip_adapter"].items() if not name.startswith("7.")}
    with pytest.raises(ValueError, match="in 2 of 8 .*has shape None"):
        check_adapter({**state, "ip_adapter": fewer}, unet, embedding_dim=DIM)


def _meta_unet():
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel.from_config(UNET)


def test_a_unet_without_adapter_is_seen(unet):
    with pytest.raises(
        ValueError, match="has 0 image projections.* would ignore embeddings; expected the one of an IP"
    ):
        check_loaded(unet)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_truncated(tiny, tmp_path, suffix):
    whole = tiny.adapter.with_suffix(suffix).read_bytes()
    path = tmp_path / f"ip-adapter_sd15{suffix}"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="adapter=.* cannot be loaded .*truncated.*vislens download sd15"):
        read_adapter(path)


def test_a_pickle_that_is_more_than_tensors_is_not_run(tmp_path):
    path = tmp_path / "ip-adapter_sd15.bin"
    torch.save({"image_proj": print, "ip_adapter": {}}, path)
    with pytest.raises(ValueError, match="adapter=.* cannot be loaded"):
        read_adapter(path)


def test_no_adapter_at_all(tiny, tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "some.safetensors")
    with pytest.raises(ValueError, match="lacks 'image_proj' or 'ip_adapter'; expected an IP-Adapter checkpoint"):
        read_adapter(tmp_path / "some.safetensors")
    with pytest.raises(FileNotFoundError, match=r"lacks models/ip-adapter_sd15.safetensors; .*vislens download sd15"):
        read_adapter(tmp_path)


def test_half_precision_as_published(tiny):
    assert {value.dtype for part in read_adapter(tiny.adapter).values() for value in part.values()} == {torch.float16}
