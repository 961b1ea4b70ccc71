import shutil

import pytest
from checkpoints import write_hub_cache

from vislens_interp.backends.sources import ADAPTER, CLIP, IMAGE_PARTS, PINNED, TEXT_PARTS, find
from vislens_interp.backends.weights import IP_ADAPTER, OPENCLIP, SD15, sd15_repositories


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache of the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_what_is_downloaded_is_what_is_read():
    """``vislens download sd15`` fetches everything that loading asks for."""
    needs = {SD15.repo_id: (*IMAGE_PARTS, *TEXT_PARTS), IP_ADAPTER.repo_id: ADAPTER, OPENCLIP.repo_id: CLIP}
    for precision in ("fp16", "fp32"):
        for repository in sd15_repositories(precision):
            fetched = {file.path for file in repository.files}
            for names in needs[repository.repo_id]:
                assert fetched & set(names), f"{repository.repo_id}: none of {names}"
            assert PINNED[repository.repo_id] == repository.revision


def test_a_folder_is_taken_as_it_is(tiny):
    assert find(tiny.model, (*IMAGE_PARTS, *TEXT_PARTS), argument="model") == tiny.model
    assert find(str(tiny.clip), CLIP, argument="clip") == tiny.clip


def test_a_folder_that_lacks_files(tiny, tmp_path):
    shutil.copytree(tiny.model, tmp_path / "sd")
    (tmp_path / "sd/unet/config.json").unlink()
    (tmp_path / "sd/vae/diffusion_pytorch_model.safetensors").unlink()
    missing = "lacks unet/config.json, vae/diffusion_pytorch_model.fp16.safetensors; expected"
    with pytest.raises(FileNotFoundError, match=f"model=.*{missing}.*vislens download sd15"):
        find(tmp_path / "sd", IMAGE_PARTS, argument="model")


@pytest.mark.parametrize("source", ["./not/there", "/not/there", "a b/c", "no-owner"])
def test_nothing_there(source):
    with pytest.raises(
        FileNotFoundError, match="nothing is there; expected a folder, or an id .*vislens download sd15"
    ):
        find(source, CLIP, argument="clip")


def test_ids_are_looked_up_in_the_cache(cache, tiny):
    write_hub_cache(cache, tiny)
    folder = find(SD15.repo_id, IMAGE_PARTS, argument="model")
    assert folder.parent.name == "snapshots"
    assert (folder / "unet/config.json").is_file()
    # Downloaded by somebody under the branch's name, before the pinned commit.
    assert folder == find(SD15.repo_id, IMAGE_PARTS, argument="model", revision="main")
    assert folder == find(SD15.repo_id, IMAGE_PARTS, argument="model", revision=folder.name)


def test_the_pinned_commit_comes_first(cache, tiny):
    write_hub_cache(cache, tiny, {SD15.repo_id: SD15.revision})
    assert find(SD15.repo_id, IMAGE_PARTS, argument="model").name == SD15.revision


def test_ids_that_are_not_in_the_cache(cache, tiny):
    with pytest.raises(FileNotFoundError, match=f"clip='{OPENCLIP.repo_id}' lacks open_clip_model.safetensors in the"):
        find(OPENCLIP.repo_id, CLIP, argument="clip")
    write_hub_cache(cache, tiny)
    with pytest.raises(
        FileNotFoundError, match="at revision 'v2' lacks unet/config.json.* Run `vislens download sd15`"
    ):
        find(SD15.repo_id, IMAGE_PARTS, argument="model", revision="v2")


def test_half_a_download(cache, tiny):
    """The hub keeps an interrupted file under another name, so that it counts as missing."""
    write_hub_cache(cache, tiny)
    (snapshot,) = cache.glob("models--stable*/snapshots/*")
    (snapshot / "unet/diffusion_pytorch_model.safetensors").rename(snapshot.parents[1] / "blob.incomplete")
    with pytest.raises(FileNotFoundError, match="lacks unet/diffusion_pytorch_model.fp16.safetensors in the hub's"):
        find(SD15.repo_id, IMAGE_PARTS, argument="model")


def test_the_hub_is_out_of_reach(cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    expected = "could not be fetched from the Hugging Face hub .*; expected a connection, .*vislens download sd15"
    with pytest.raises(FileNotFoundError, match=expected):
        find(IP_ADAPTER.repo_id, ADAPTER, argument="adapter", local_files_only=False)
    assert not list(cache.rglob("*.safetensors"))
