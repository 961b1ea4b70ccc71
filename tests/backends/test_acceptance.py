"""``vislens accept`` on the tiny checkpoints: it passes, and every planted fault is caught by name."""

import hashlib
import json
import shutil
from functools import partial

import open_clip
import pytest
import torch
from checkpoints import DIM, TINY_CLIP, adapter_state, write_adapter, write_hub_cache
from torch import nn

from vislens_interp.backends.base import _registry
from vislens_interp.backends.diffusion import acceptance
from vislens_interp.backends.diffusion.acceptance import CHECKS, OF_SDXL, Acceptance, Facts
from vislens_interp.backends.embedding import sd15 as build_sd15
from vislens_interp.backends.embedding import sdxl as build_sdxl
from vislens_interp.backends.weights import (
    IP_ADAPTER,
    IP_ADAPTER_SDXL,
    OPENCLIP,
    REPOSITORIES,
    SD15,
    SDXL,
    SDXL_VAE,
    PublishedFile,
    PublishedRepository,
)
from vislens_interp.cli import main
from vislens_interp.images import to_pil

PUBLISHED = {"sd15": (SD15, IP_ADAPTER, OPENCLIP), "sdxl": (SDXL, SDXL_VAE, IP_ADAPTER_SDXL, OPENCLIP)}
BUILD = {"sd15": build_sd15, "sdxl": build_sdxl}
SEMANTIC = {"found again", "strength grows", "vae", "few steps", "cost", "anchor"}


@pytest.fixture
def name(request):
    """Of the backend: sd15, unless a test says another."""
    return getattr(request, "param", "sd15")


both = pytest.mark.parametrize("name", ["sd15", "sdxl"], indirect=True)


@pytest.fixture
def hub(name, request, tmp_path, monkeypatch):
    """The tiny checkpoints in a cache of the hub, at the published commits."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    tiny = request.getfixturevalue("tiny" if name == "sd15" else "tiny_xl")
    write_hub_cache(tmp_path / "hub", tiny, {one.repo_id: one.revision for one in PUBLISHED[name]})
    return tmp_path / "hub"


@pytest.fixture
def repositories(hub, name):
    made = []
    for one in PUBLISHED[name]:
        folder = hub / f"models--{one.repo_id.replace('/', '--')}" / "snapshots" / one.revision
        files = tuple(
            PublishedFile(
                path.relative_to(folder).as_posix(), path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
            )
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        )
        made.append(PublishedRepository(one.name, one.repo_id, one.revision, one.licence, one.terms, files))
    return made


@pytest.fixture
def facts(name, request):
    """What would be published of the tiny checkpoints."""
    generator, vision = request.getfixturevalue(name).generator, TINY_CLIP["vision_cfg"]
    state = adapter_state(generator.unet, DIM)
    tensors = [tensor for part in state.values() for tensor in part.values()]
    last_name, last = list(state["ip_adapter"].items())[-1]
    tokenizer = generator.text_to_image.tokenizer
    return Facts(
        len(tensors),
        sum(tensor.numel() for tensor in tensors),
        (last_name, tuple(last.shape)),
        *(tuple(tokenizer(text).input_ids) for text in (generator.prompt, generator.negative_prompt)),
        0.18215 if name == "sd15" else 0.13025,
        {
            "hidden_size": vision["width"],
            "image_size": vision["image_size"],
            "intermediate_size": 4 * vision["width"],
            "num_attention_heads": vision["width"] // vision["head_width"],
            "num_hidden_layers": vision["layers"],
            "patch_size": vision["patch_size"],
            "projection_dim": DIM,
        },
        trained=False,
    )


def run(repositories, facts, plant=None, name="sd15"):
    backend = BUILD[name](num_inference_steps=3)
    if plant is not None:
        plant(backend)
    said = []
    findings = Acceptance(backend, repositories, facts).run(said.append)
    assert len(said) == len(findings) == len(CHECKS)
    return {finding.name: finding for finding in findings}


@both
def test_it_passes(name, repositories, facts):
    findings = run(repositories, facts, name=name)
    assert {name: one.found for name, one in findings.items() if one.state == "failed"} == {}
    assert {name for name, one in findings.items() if one.state == "measured"} == SEMANTIC
    assert all(one.expected and (one.failure or name == "cost") for name, one in findings.items())


def test_the_published_facts():
    """Of the adapter and the tokenizer; test_published.py counts the same on the true architectures."""
    facts = Facts()
    assert (facts.adapter_tensors, facts.adapter_values) == (36, 22_319_616)
    assert facts.prompt[0] == facts.negative_prompt[0] == 49406
    assert len(facts.negative_prompt) == 15
    assert facts.vae_scale == 0.18215
    assert Facts(**OF_SDXL).adapter_values == 349_188_096  # counted in test_sdxl.py


def wrong_projection(backend):
    proj = backend.embedder.visual.proj
    proj.data = proj.data.flip(0)


def quick_gelu(backend):
    for block in backend.embedder.visual.transformer.resblocks:
        block.mlp.gelu = open_clip.transformer.QuickGELU()


class Swapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return self.inner(images.flip(1))


def swapped_channels(backend):
    backend.embedder.preprocess = Swapped(backend.embedder.preprocess)


def swapped_channels_of_pictures(backend):
    processor = backend.generator.text_to_image.image_processor
    before = processor.postprocess
    processor.postprocess = lambda images, **options: before(images.flip(1), **options)


def swapped_halves(backend):
    pipeline = backend.generator.text_to_image
    before = pipeline.prepare_ip_adapter_image_embeds
    pipeline.prepare_ip_adapter_image_embeds = lambda *given: [before(*given)[0].roll(len(given[1][0]), 0)]


def mixed_batch(backend):
    pipeline = backend.generator.text_to_image
    before = pipeline.prepare_ip_adapter_image_embeds

    def prepare(*given):
        (both,) = before(*given)
        half = len(both) // 2
        return [torch.cat([both[:half], both[half:].roll(1, 0)])]

    pipeline.prepare_ip_adapter_image_embeds = prepare


def off_by_one(backend):
    backend.generator.text_to_image.scheduler.register_to_config(steps_offset=0)


def vae_scale(backend):
    backend.generator.vae.register_to_config(scaling_factor=0.13025)


def changed_input(backend):
    generator = backend.generator
    generator._initial = lambda images, own=generator._initial: own(images) + 0.1


def wrong_sizes(backend):
    sizes = torch.tensor([[16.0, 16, 0, 0, 16, 16]])
    backend.generator.text_to_image._get_add_time_ids = lambda *_, **__: sizes


def wrong_vae_scale(backend):
    backend.generator.vae.register_to_config(scaling_factor=0.18215)


FAULTS = [
    (wrong_projection, {"embedder"}),
    (quick_gelu, {"embedder"}),
    (swapped_channels, {"embedder"}),
    (swapped_channels_of_pictures, {"written out"}),
    (swapped_halves, {"guidance halves", "written out"}),
    (mixed_batch, {"batch"}),
    (off_by_one, {"timesteps", "written out"}),
    (vae_scale, {"vae scale", "written out"}),
    (changed_input, {"strength 0"}),
]


@pytest.mark.parametrize(("plant", "caught"), FAULTS, ids=lambda value: value.__name__ if callable(value) else "")
def test_planted_faults(repositories, facts, plant, caught):
    failed = {check for check, one in run(repositories, facts, plant).items() if one.state == "failed"}
    assert caught <= failed
    if caught in ({"embedder"}, {"strength 0"}):
        assert failed == caught


@pytest.mark.parametrize("name", ["sdxl"], indirect=True)
def test_planted_faults_of_sdxl(name, repositories, facts):
    """The checks that have to catch each, alone, for the others were seen above."""
    checks = {check[0]: check[-1] for check in CHECKS}
    for plant, caught in (
        (swapped_halves, ("guidance halves", "written out")),
        (off_by_one, ("timesteps", "written out")),
        (wrong_vae_scale, ("vae scale", "written out")),
        (wrong_sizes, ("written out",)),
        (mixed_batch, ("batch",)),
    ):
        backend = build_sdxl(num_inference_steps=2)
        plant(backend)
        accepted = Acceptance(backend, repositories, facts)
        assert [checks[one](accepted)[0] for one in caught] == [False] * len(caught), plant.__name__


def test_a_wrong_adapter(repositories, facts, hub, sd15):
    (path,) = hub.rglob("ip-adapter_sd15.safetensors")
    write_adapter(path.parent, adapter_state(sd15.generator.unet, DIM))  # other weights of the same form
    findings = run(repositories, facts)
    assert findings["files"].state == "failed"
    assert "models/ip-adapter_sd15.safetensors has sha256" in findings["files"].found
    assert findings["adapter"].state == "passed"
    other = Facts(**{**facts.__dict__, "adapter_tensors": facts.adapter_tensors + 4})
    assert run(repositories, other)["adapter"].state == "failed"


def test_a_check_that_raises_has_failed(repositories, facts, hub):
    backend = build_sd15(num_inference_steps=3)
    shutil.rmtree(next(hub.glob("models--laion*")))
    findings = {one.name: one for one in Acceptance(backend, repositories, facts).run(str)}
    assert findings["embedder"].state == "failed"
    assert findings["embedder"].found.startswith("FileNotFoundError: clip='laion/CLIP-ViT-H-14")
    assert "open_clip_model.safetensors missing" in findings["files"].found


def test_other_backends_are_refused(retrieval, repositories):
    with pytest.raises(TypeError, match="backend 'retrieval' draws without Stable Diffusion; expected sd15 or sdxl"):
        Acceptance(retrieval, repositories)


def test_the_command(repositories, facts, hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(acceptance, "Facts", lambda: facts)
    monkeypatch.setitem(REPOSITORIES, "sd15", lambda *given: repositories)
    monkeypatch.setitem(_registry, "sd15", partial(build_sd15, num_inference_steps=2))
    assert main(["accept", "sd15", "--out", str(tmp_path / "report")]) == 0
    said = capsys.readouterr().out
    assert "passed   embedder: difference" in said
    assert "all passed; " in said
    record = json.loads((tmp_path / "report/accept.json").read_text())
    assert [one["name"] for one in record["findings"]] == [check[0] for check in CHECKS]
    assert record["where"]["dtype"] == "torch.float32"
    assert "| passed | embedder | " in (tmp_path / "report/accept.md").read_text()
    (path,) = hub.rglob("special_tokens_map.json")
    path.write_text(path.read_text() + "\n")
    assert main(["accept", "sd15", "--out", str(tmp_path / "report")]) == 1
    assert "vislens: error: 1 of 20 checks failed: files. " in capsys.readouterr().err
    assert "A file is another: delete it" in (tmp_path / "report/accept.md").read_text()


def test_the_anchor(repositories, facts, tmp_path):
    """With a picture it is drawn by PNDM in five steps, and judged in float16 alone."""
    path = tmp_path / "anchor.png"
    to_pil(torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(0)))[0].save(path)
    backend = build_sd15(num_inference_steps=3)
    with pytest.raises((ValueError, OSError), match="nothing.png"):  # before the other checks, which take long
        Acceptance(backend, repositories, facts, anchor=tmp_path / "nothing.png")
    accepted = Acceptance(backend, repositories, facts, anchor=path)
    (check,) = (one[-1] for one in CHECKS if one[0] == "anchor")
    calls = []
    hook = backend.generator.unet.register_forward_hook(lambda *_: calls.append(1))
    passed, found = check(accepted)
    hook.remove()
    assert passed is None  # float32
    assert found.endswith(" off")
    assert found.count(", ") == 8
    assert len(calls) == 6  # PNDM takes its second step twice


def test_a_landscape_that_forgets(repositories, facts, monkeypatch):
    """α = 0 has to be the reconstruction, and near to the embedding."""
    (check,) = (one[-1] for one in CHECKS if one[0] == "alpha 0")
    backend = build_sd15(num_inference_steps=2)
    passed, found = check(Acceptance(backend, repositories, facts))
    assert passed
    assert found.startswith("cosine to the photograph's own ")
    judged = Facts(**{**facts.__dict__, "trained": True})
    fit = acceptance.fit_landscape

    def forgetful(*given):
        landscape = fit(*given)
        decode = landscape.decode
        monkeypatch.setattr(landscape, "decode", lambda z: decode(z).mean(0, keepdim=True).expand(len(z), -1))
        return landscape

    assert check(Acceptance(backend, repositories, judged))[0]
    monkeypatch.setattr(acceptance, "fit_landscape", forgetful)
    assert not check(Acceptance(backend, repositories, judged))[0]  # every picture becomes the mean
