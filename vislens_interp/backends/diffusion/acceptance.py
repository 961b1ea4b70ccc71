"""``vislens accept sd15``, ``sdxl``: what has to hold with the real weights, what was found, what a failure means."""

import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from vislens_interp import zoo
from vislens_interp.backends.base import draw_noise
from vislens_interp.backends.diffusion.adapters import read_adapter
from vislens_interp.backends.diffusion.generator import StableDiffusionGenerator
from vislens_interp.backends.diffusion.sdxl import StableDiffusionXLGenerator
from vislens_interp.backends.embedding import EmbeddingBackend
from vislens_interp.backends.reference_photographs import ReferencePhotographs
from vislens_interp.backends.sources import CLIP, find
from vislens_interp.backends.weights import IP_ADAPTER, OPENCLIP, PublishedRepository
from vislens_interp.files import write_text
from vislens_interp.images import ImageFiles, load_images, to_pil
from vislens_interp.landscape.edit import interpolate
from vislens_interp.landscape.fit import fit_landscape
from vislens_interp.landscape.prior import ActivationPrior
from vislens_interp.math import pearson

SEED, PHOTOGRAPHS, FITTED = 42, 8, 200
ANCHOR = "https://user-images.githubusercontent.com/24734142/266492875-2d50d223-8475-44f0-a7c6-08b51cb53572.png"
ANCHOR_PIXELS = (0.8110, 0.8843, 0.9326, 0.9224, 0.9878, 1.0, 0.9736, 1.0, 1.0)
"""The picture of diffusers' test of IP-Adapter with Stable Diffusion 1.5, and ``images[0, :3, :3, -1]`` that it expects
(tests/pipelines/ip_adapters/test_ip_adapter_stable_diffusion.py, ``test_text_to_image``)."""


@dataclass(frozen=True)
class Facts:
    """What is published of the checkpoints; the defaults are those of Stable Diffusion 1.5's.

    Args:
        adapter_tensors: Tensors in the adapter's file.
        adapter_values: Values in them.
        adapter_last: Its last attention weight, with its shape.
        prompt: Token ids of the prompt, without padding.
        negative_prompt: Token ids of the negative prompt.
        vae_scale: What latents are multiplied by.
        vision: The vision tower as transformers' configuration says it.
        trained: Whether the weights are trained; of random ones, what pictures show is measured and not judged.
    """

    adapter_tensors: int = 36
    adapter_values: int = 22_319_616
    adapter_last: tuple[str, tuple[int, ...]] = ("31.to_k_ip.weight", (1280, 768))
    prompt: tuple[int, ...] = (49406, 949, 3027, 267, 1400, 3027, 49407)
    negative_prompt: tuple[int, ...] = (
        *(49406, 25576, 267, 1049, 934, 267, 2103, 15376, 267),
        *(5719, 3027, 267, 1042, 3027, 49407),
    )
    vae_scale: float = 0.18215
    vision: dict[str, int] = field(
        default_factory=lambda: {
            "hidden_size": 1280,
            "image_size": 224,
            "intermediate_size": 5120,
            "num_attention_heads": 16,
            "num_hidden_layers": 32,
            "patch_size": 14,
            "projection_dim": 1024,
        }
    )
    trained: bool = True


OF_SDXL: dict[str, Any] = {
    "adapter_tensors": 144,
    "adapter_values": 349_188_096,
    "adapter_last": ("139.to_k_ip.weight", (1280, 2048)),
    "vae_scale": 0.13025,
}
"""What is other for Stable Diffusion XL; both its tokenizers make the ids of 1.5's."""


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was checked and found, what has to hold, and what a failure means.

    Args:
        state: ``"passed"``, ``"failed"``, or ``"measured"`` where nothing is judged.
    """

    name: str
    state: str
    found: str
    expected: str
    failure: str


class Acceptance:
    """The checks of one backend.

    Args:
        backend: ``get_backend("sd15", device)``, or ``"sdxl"``.
        repositories: Where its files were published; their sizes and checksums are compared.
        facts: What is published of the checkpoints.
        fast: The same backend with a speed-up, or None: 8 steps are then not compared with 50.
        anchor: The picture of diffusers' IP-Adapter test (:data:`ANCHOR`), or None: its pixels are then not compared.
    """

    def __init__(
        self,
        backend: EmbeddingBackend,
        repositories: Sequence[PublishedRepository],
        facts: Facts | None = None,
        fast: EmbeddingBackend | None = None,
        anchor: str | Path | None = None,
    ) -> None:
        if not isinstance(getattr(backend, "generator", None), StableDiffusionGenerator):
            raise TypeError(f"backend {backend.name!r} draws without Stable Diffusion; expected sd15 or sdxl.")
        self.backend, self.generator = backend, cast(StableDiffusionGenerator, backend.generator)
        self.is_xl = isinstance(backend.generator, StableDiffusionXLGenerator)
        self.repositories, self.fast = repositories, fast
        self.anchor = None if anchor is None else ImageFiles(anchor, self.generator.size)  # it is there
        self.facts = facts or Facts(**(OF_SDXL if self.is_xl else {}))
        self.exact = self.generator.dtype == torch.float32 and self.generator.device.type == "cpu"

    def run(self, say: Callable[[str], None] = print) -> list[Finding]:
        """All findings; each is said as soon as it is there. A check that raises has failed."""
        findings = []
        for name, expected, failure, judged, check in CHECKS:
            try:
                passed, found = check(self)
            except Exception as error:  # noqa: BLE001 (whatever goes wrong is what this command is to report)
                passed, found = False, f"{type(error).__name__}: {error}"
            judge = passed is not None and (judged or self.facts.trained)
            state = ("passed" if passed else "failed") if judge else "measured"
            findings.append(Finding(name, state, found, expected, failure))
            say(f"{state:8} {name}: {found}" + (f". {failure}" if state == "failed" else ""))
        return findings

    @cached_property
    def photographs(self) -> Tensor:
        """Eight shipped photographs, (8, 3, S, S)."""
        return self.crops[self.whole[:: len(self.whole) // PHOTOGRAPHS][:PHOTOGRAPHS]]

    @cached_property
    def crops(self) -> ReferencePhotographs:
        """The shipped photographs and parts of them, in their file."""
        return ReferencePhotographs(zoo.WEIGHTS / "embedded/reference.zip", self.backend.size)

    @cached_property
    def whole(self) -> list[int]:
        """Rows of the photographs themselves."""
        groups = self.crops.groups.tolist()
        return [groups.index(group) for group in sorted(set(groups))]

    @cached_property
    def embeddings(self) -> Tensor:
        """Of the photographs, (8, D)."""
        return self.backend.encode(self.photographs).float()

    @cached_property
    def pictures(self) -> Tensor:
        """What is drawn from the photographs' embeddings, (8, 3, S, S) on the CPU."""
        return self.draw(self.embeddings)

    def draw(self, embeddings: Tensor, strength: float = 1.0, images: Tensor | None = None) -> Tensor:
        """Pictures of one noise seed, on the CPU."""
        return self.generator(embeddings, init_image=images, strength=strength, seeds=[SEED] * len(embeddings)).cpu()

    def alike(self, one: Tensor, other: Tensor) -> tuple[bool, str]:
        """Whether two ways to one picture agree up to rounding: 1e-3 in float32 on a CPU, else 0.02 on average."""
        difference = (one.float().cpu() - other.float().cpu()).abs()
        largest, mean = difference.max().item(), difference.mean().item()
        return (largest < 1e-3 if self.exact else mean < 0.02), f"largest difference {largest:.1e}, mean {mean:.1e}"


def _files(run: Acceptance) -> tuple[bool, str]:
    from huggingface_hub import try_to_load_from_cache

    wrong, count = [], 0
    for repository in run.repositories:
        for file in repository.files:
            count += 1
            path = try_to_load_from_cache(repository.repo_id, file.path, revision=repository.revision)
            if not isinstance(path, str):
                wrong.append(f"{file.path} missing")
            elif file.exact and Path(path).stat().st_size != file.size:
                wrong.append(f"{file.path} has {Path(path).stat().st_size} bytes")
            elif file.sha256:
                with open(path, "rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
                wrong += [] if digest == file.sha256 else [f"{file.path} has sha256 {digest}"]
    return not wrong, "; ".join(wrong) or f"{count} files"


def _adapter(run: Acceptance) -> tuple[bool, str]:
    state = read_adapter(IP_ADAPTER.repo_id, needs=run.generator.adapter_files)
    tensors = [tensor for part in state.values() for tensor in part.values()]
    name, shape = run.facts.adapter_last
    last = tuple(state["ip_adapter"][name].shape) if name in state["ip_adapter"] else None
    found = (len(tensors), sum(tensor.numel() for tensor in tensors), last)
    return found == (run.facts.adapter_tensors, run.facts.adapter_values, shape), f"{found[0]} tensors, {found[1:]}"


def _tokens(run: Acceptance) -> tuple[bool, str]:
    generator, pipeline = run.generator, run.generator.text_to_image
    tokenizers = [pipeline.tokenizer, *([pipeline.tokenizer_2] if run.is_xl else [])]
    prompts = (generator.prompt, generator.negative_prompt)
    ids = [[tuple(tokenizer(text).input_ids) for text in prompts] for tokenizer in tokenizers]
    return all(one == [run.facts.prompt, run.facts.negative_prompt] for one in ids), str(ids)


@torch.no_grad()
def _embedder(run: Acceptance) -> tuple[bool, str]:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    folder = find(OPENCLIP.repo_id, CLIP, argument="clip")
    state = load_file(folder / "open_clip_model.safetensors")
    with torch.random.fork_rng(devices=[]):
        settings: dict[str, Any] = {**run.facts.vision, "hidden_act": "gelu"}
        theirs = CLIPVisionModelWithProjection(CLIPVisionConfig(**settings)).eval()
    tower = {name.removeprefix("visual."): value for name, value in state.items() if name.startswith("visual.")}
    missing, unexpected = theirs.load_state_dict(as_transformers(tower), strict=False)
    if unexpected or any("position_ids" not in name for name in missing):
        return False, f"missing {missing}, unexpected {unexpected}"
    side = run.facts.vision["image_size"]
    pictures = [picture.resize((side, side), 3) for picture in to_pil(run.photographs)]  # 3: bicubic, Pillow's own
    pixels = load_images(pictures)[0]
    mean, std = (torch.tensor(values)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    expected = theirs((pixels - mean) / std).image_embeds
    found = run.backend.embedder(pixels).float().cpu()
    difference = ((found - expected).abs().max() / expected.abs().max()).item()
    cosine = F.cosine_similarity(found, expected).min().item()
    return (difference < 1e-4 if run.exact else cosine > 0.999), f"difference {difference:.1e}, cosine {cosine:.5f}"


def _timesteps(run: Acceptance) -> tuple[bool, str]:
    scheduler, steps = run.generator.text_to_image.scheduler, run.generator.num_inference_steps
    scheduler.set_timesteps(steps)
    times = [int(time) for time in scheduler.timesteps]
    return times == _published_times(steps), f"{times[0]} to {times[-1]}"


def _published_times(steps: int) -> list[int]:
    return [1000 // steps * row + 1 for row in reversed(range(steps))]


def _guidance(run: Acceptance) -> tuple[bool, str]:
    one = run.embeddings[:1, None]
    (halves,) = run.generator.text_to_image.prepare_ip_adapter_image_embeds(None, [one], one.device, 1, True)
    right = not halves[0].any() and torch.equal(halves[1:], one)
    return right, "zeros, then the embedding" if right else "not zeros first"


def _scale(run: Acceptance) -> tuple[bool, str]:
    factor = run.generator.vae.config["scaling_factor"]
    return factor == run.facts.vae_scale, str(factor)


def _start(run: Acceptance) -> tuple[Tensor, Tensor]:
    """The noise of the first picture, and its embedding as the UNet takes it."""
    generator = run.generator
    noise = draw_noise([torch.Generator().manual_seed(SEED)], generator.latent_shape)
    return noise.to(generator.device, generator.dtype), run.embeddings[:1, None].to(generator.device, generator.dtype)


@torch.no_grad()
def _by_hand(run: Acceptance) -> tuple[bool, str]:
    """DDIM with guidance, as the papers write it, with the published constants."""
    generator = run.generator
    share = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2, 0)
    times = _published_times(generator.num_inference_steps)
    latent, embedding = _start(run)
    for row, step in enumerate(times):
        towards, away = (
            generator.unet(latent, step, text, added_cond_kwargs={"image_embeds": [image], **more}).sample
            for text, image, more in zip(
                generator._text, (embedding, torch.zeros_like(embedding)), _told(generator), strict=True
            )
        )
        noise = away + generator.guidance_scale * (towards - away)
        now, after = share[step].item(), share[times[row + 1] if row + 1 < len(times) else 0].item()
        clean = (latent - (1 - now) ** 0.5 * noise) / now**0.5
        latent = after**0.5 * clean + (1 - after) ** 0.5 * noise
    scaled: Any = latent / run.facts.vae_scale  # diffusers asks for a FloatTensor, which is a CPU's alone
    picture = (generator.vae.decode(scaled, return_dict=False)[0].float() / 2 + 0.5).clamp(0, 1)
    return run.alike(picture, run.pictures[:1])


def _told(generator: StableDiffusionGenerator) -> list[dict[str, Tensor]]:
    """What SDXL's UNet is told beside text and embedding, by the papers: pooled text, sizes; 1.5's nothing."""
    if not isinstance(generator, StableDiffusionXLGenerator):
        return [{}, {}]
    side = float(generator.size)
    sizes = torch.tensor([[side, side, 0, 0, side, side]], dtype=generator.dtype, device=generator.device)
    return [{"text_embeds": one, "time_ids": sizes} for one in generator._encoded[2:]]


def _stock_picture(run: Acceptance, embedding: Tensor, parts: Mapping[str, object], **how: object) -> Tensor:
    """What diffusers' own pipeline draws of an embedding (1, 1, D), with some of its parts replaced."""
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    known = {**run.generator.text_to_image.components, **parts}
    if run.is_xl:
        stock: Any = StableDiffusionXLPipeline(**known, add_watermarker=False)
    else:
        stock = StableDiffusionPipeline(**known, requires_safety_checker=False)
    stock.set_progress_bar_config(disable=True)
    made = stock(
        prompt=run.generator.prompt,
        negative_prompt=run.generator.negative_prompt,
        ip_adapter_image_embeds=[torch.cat([torch.zeros_like(embedding), embedding])],
        output_type="pt",
        **how,
    )
    return made.images


def _stock(run: Acceptance) -> tuple[bool, str]:
    generator = run.generator
    latent, embedding = _start(run)
    picture = _stock_picture(
        run,
        embedding,
        {},
        latents=latent,
        num_inference_steps=generator.num_inference_steps,
        guidance_scale=generator.guidance_scale,
        height=generator.size,
        width=generator.size,
    )
    return run.alike(picture, run.pictures[:1])


def _anchor(run: Acceptance) -> tuple[bool | None, str]:
    """diffusers' own test of the adapter, whose picture and pixels are published."""
    from diffusers import PNDMScheduler

    if run.anchor is None or run.is_xl:
        return None, f"not compared: {'no pixels of this adapter are published' if run.is_xl else 'no --anchor'}"
    generator = run.generator
    schedule = {**generator.text_to_image.scheduler.config, "skip_prk_steps": True, "timestep_spacing": "leading"}
    embedding = run.backend.encode(run.anchor)[:, None].to(generator.dtype)
    picture = _stock_picture(
        run,
        embedding,
        {"scheduler": PNDMScheduler.from_config(schedule)},
        generator=torch.Generator().manual_seed(33),
        num_inference_steps=5,
        guidance_scale=7.5,
    )
    found = picture[0, -1, :3, :3].flatten().float().cpu()
    difference = (found - torch.tensor(ANCHOR_PIXELS)).abs().max().item()
    text = f"{', '.join(f'{value:.4f}' for value in found)}: up to {difference:.3f} off"
    return (difference < 0.03 if generator.dtype == torch.float16 else None), text


def _alpha_0(run: Acceptance) -> tuple[bool, str]:
    """A landscape of shipped photographs and their brightness; the edit of Algorithm 2 at weight 0."""
    rows = run.whole[:: len(run.whole) // FITTED][:FITTED]
    parts = [run.crops[rows[start : start + PHOTOGRAPHS]] for start in range(0, FITTED, PHOTOGRAPHS)]
    x = torch.cat([run.backend.encode(part).float().cpu() for part in parts])
    brightness = torch.cat([part.mean((1, 2, 3)) for part in parts])[:, None]
    settings = replace(run.backend.defaults.fit, solver="alternating", epochs=1)
    prior = ActivationPrior(x.shape[1], [(0, x.shape[1])])
    landscape = fit_landscape(run.backend.vae().cpu(), x, brightness, prior, settings)
    with torch.no_grad():
        z = landscape.encode(x)[0]
        goal = landscape.goal(z, {0: "increase"})
        still, moved = (landscape.decode(interpolate(z, goal, alpha, "slerp")) for alpha in (0.0, 1.0))
        kept = torch.allclose(still, landscape.decode(z), atol=1e-4, rtol=1e-4)
    near, far, others = (
        F.cosine_similarity(one, own).mean().item() for one, own in ((still, x), (moved, x), (still, x.roll(1, 0)))
    )
    right = kept and (near > max(0.8, far, (1 + others) / 2) or not run.facts.trained)
    return right, f"cosine to the photograph's own {near:.3f}, at α = 1 {far:.3f}, to another's {others:.3f}"


def _strength_0(run: Acceptance) -> tuple[bool, str]:
    made = run.draw(run.embeddings[:1], 0.0, run.photographs[:1])
    return torch.equal(made, run.photographs[:1]), f"changes {(made - run.photographs[:1]).abs().max():.1e}"


def _strength_1(run: Acceptance) -> tuple[bool, str]:
    one, other = (run.draw(run.embeddings[:1], 1.0, images) for images in (run.photographs[:1], run.photographs[1:2]))
    return torch.equal(one, other), f"another input changes {(one - other).abs().max():.1e}"


def _batch(run: Acceptance) -> tuple[bool, str]:
    return run.alike(run.draw(run.embeddings[1:2]), run.pictures[1:2])


def _found_again(run: Acceptance) -> tuple[bool, str]:
    found = _own(run, run.pictures)
    return found >= PHOTOGRAPHS - 1, f"{found} of {PHOTOGRAPHS}"


def _own(run: Acceptance, pictures: Tensor) -> int:
    """How many pictures are nearer to their own photograph's embedding than to the others'."""
    made, wanted = (F.normalize(x.cpu(), dim=1) for x in (run.backend.encode(pictures).float(), run.embeddings))
    return int(((made @ wanted.T).argmax(1) == torch.arange(len(made))).sum())


def _deaf(run: Acceptance) -> tuple[bool, str]:
    pipeline = run.generator.text_to_image
    scales = [getattr(layer, "scale", None) for layer in run.generator.unet.attn_processors.values()]
    pipeline.set_ip_adapter_scale(0.0)
    try:
        pictures = run.draw(run.embeddings)
    finally:
        pipeline.set_ip_adapter_scale(next(scale[0] for scale in scales if scale is not None))
    alike, found = run.alike(pictures[:1].expand_as(pictures), pictures)
    return alike and not torch.equal(pictures, run.pictures), f"{found}; {_own(run, pictures)} found again"


def _growth(run: Acceptance) -> tuple[bool, str]:
    photographs, x = run.photographs[:2], run.embeddings[:2]
    distances = [(run.draw(x, g, photographs) - photographs).square().mean().item() ** 0.5 for g in (0.02, 0.3, 0.6, 1)]
    return distances == sorted(distances), ", ".join(f"{distance:.3f}" for distance in distances)


@torch.no_grad()
def _vae(run: Acceptance) -> tuple[bool, str]:
    generator = run.generator
    pixels = (2 * run.photographs[:1] - 1).to(generator.device, generator.dtype)
    codes = generator.vae.encode(pixels, return_dict=False)[0].mode().float()
    latents = codes * generator.vae.config["scaling_factor"]
    spread = latents.std().item()
    error = (run.draw(run.embeddings[:1], 0.02, run.photographs[:1]) - run.photographs[:1]).square().mean()
    decibels = -10 * error.log10().item()
    return 0.5 < spread < 1.5 and decibels > 20, f"latents' SD {spread:.2f}, {decibels:.1f} dB"


def _few_steps(run: Acceptance) -> tuple[bool | None, str]:
    if run.fast is None:
        return None, "not compared: no speed-up was given"
    network: Any = zoo.load("squeezenet1_0")
    with torch.no_grad():
        before, slow, quick = (
            network(network.preprocess(images.cpu()))
            for images in (run.photographs, run.pictures, run.fast.render(run.embeddings))
        )
    found = pearson((slow - before).flatten(), (quick - before).flatten())
    return float(found) > 0.5, f"r = {float(found):.2f} over {before.shape[1]} units and {len(before)} photographs"


def _cost(run: Acceptance) -> tuple[bool | None, str]:
    start = time.perf_counter()
    run.draw(run.embeddings[:1])
    text = f"{time.perf_counter() - start:.2f} s a picture of {run.generator.num_inference_steps} steps at batch 1"
    if run.generator.device.type == "cuda":
        text += f", {torch.cuda.max_memory_allocated(run.generator.device) / 1e9:.2f} GB at most in this run"
    return None, text


# Name; what has to hold; what a failure means; whether random weights are judged too; the check.
CHECKS: tuple[tuple[str, str, str, bool, Callable[[Acceptance], tuple[bool | None, str]]], ...] = (
    ("files", "every published size and SHA-256", "A file is another: delete it and download again.", True, _files),
    ("adapter", "the published tensors", "The adapter is of another kind or for another UNet.", True, _adapter),
    ("tokens", "the published ids of both prompts", "The tokenizer's files are others.", True, _tokens),
    (
        "embedder",
        "transformers' embedding of the same file: to 1e-4 in float32 on a CPU, else by cosine 0.999",
        "Projection, activation (gelu, not quick_gelu), order of channels or normalisation of the embedder are wrong.",
        True,
        _embedder,
    ),
    ("timesteps", "leading, offset 1", "The scheduler's spacing or offset is wrong by a step.", True, _timesteps),
    ("guidance halves", "the zero embedding first", "Guidance leads away from the embedding.", True, _guidance),
    (
        "vae scale",
        "0.18215, of sdxl 0.13025",
        "Latents reach the VAE at another scale: washed-out or burnt pictures.",
        True,
        _scale,
    ),
    (
        "written out",
        "DDIM with guidance by the papers' equations gives the same picture",
        "Scheduler, guidance, scale or order of channels differ from what was published.",
        True,
        _by_hand,
    ),
    ("stock pipeline", "the same picture", "Our change of diffusers' pipeline does more than it should.", True, _stock),
    (
        "anchor",
        "the pixels of diffusers' own IP-Adapter test to 0.03 in float16 (PNDM, 5 steps, seed 33)",
        "Embedder, adapter or networks differ from those that diffusers tests.",
        True,
        _anchor,
    ),
    (
        "alpha 0",
        (
            "an edit at α = 0 is the reconstruction, whose cosine to the embedding is above 0.8, above that at α = 1, "
            "and nearer to 1 than to that with another photograph's"
        ),
        "The landscape does not carry embeddings: pictures change before anything is edited.",
        True,
        _alpha_0,
    ),
    ("strength 0", "the input, to the bit", "Strength 0 goes through the VAE.", True, _strength_0),
    ("strength 1", "nothing of the input, to the bit", "The input leaks into strength 1.", True, _strength_1),
    ("batch", "alone the same as among eight", "Embeddings of one picture reach another.", True, _batch),
    ("found again", "7 or 8 of 8 by their embedding", "The embedding is not heard.", False, _found_again),
    ("adapter at scale 0", "eight equal pictures", "Something else carries the embedding.", True, _deaf),
    ("strength grows", "the distance to the input grows", "Strength does not mean noise.", False, _growth),
    ("vae", "latents' SD 0.5 to 1.5, over 20 dB at strength 0.02", "The VAE or its scale is another.", False, _vae),
    ("few steps", "r > 0.5 with the pictures of 50 steps", "The LoRA or its schedule is wrong.", False, _few_steps),
    ("cost", "measured, not judged", "", True, _cost),
)


def write_report(findings: Sequence[Finding], backend: EmbeddingBackend, folder: str | Path) -> Path:
    """``accept.md`` to attach to an issue, and the same as ``accept.json``; the former's path."""
    folder = Path(folder)
    device = torch.cuda.get_device_name(backend.device) if backend.device.type == "cuda" else platform.processor()
    where = {
        "device": device or str(backend.device),
        "dtype": str(getattr(backend.generator, "dtype", "")),
        "platform": platform.platform(),
        **{name: metadata.version(name) for name in ("torch", "diffusers", "transformers", "open_clip_torch")},
    }
    record = {"where": where, "findings": [asdict(finding) for finding in findings]}
    write_text(folder / "accept.json", json.dumps(record, indent=1))
    cells = [
        [one.state, one.name, one.found, one.expected, one.failure if one.state == "failed" else ""] for one in findings
    ]
    rows = [" | ".join(cell.replace("|", "/").replace("\n", " ") for cell in line) for line in cells]
    head = "| state | check | found | expected | what it means |\n|---|---|---|---|---|\n"
    about = ", ".join(f"{name} {value}" for name, value in where.items())
    write_text(folder / "accept.md", f"{about}\n\n{head}" + "".join(f"| {row} |\n" for row in rows))
    return folder / "accept.md"


_TRANSFORMERS = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "transformer.resblocks": "encoder.layers",
    "ln_pre": "pre_layrnorm",  # sic
    "ln_post": "post_layernorm",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def as_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's vision tower by the names of transformers' ``CLIPVisionModelWithProjection``."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name == "proj":
            renamed["visual_projection.weight"] = tensor.T
        elif "attn.in_proj" in name:
            layer, leaf = name.split(".")[2], name.rsplit("_", 1)[1]
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"vision_model.encoder.layers.{layer}.self_attn.{letter}_proj.{leaf}"] = part
        else:
            for old, new in _TRANSFORMERS.items():
                name = name.replace(old, new)
            renamed[f"vision_model.{name}"] = tensor
    return renamed
