"""What one picture of ``backend="sd15"`` costs: operations counted, seconds and memory measured. Run by sd15_speed.

The networks have the published shapes and random weights, which cost what the real ones do, and run in the library's
own generator and embedder. On a CPU a whole picture takes many minutes, so some denoising steps and one decoding are
timed, in a process of their own whose peak memory is read. On a GPU whole pictures are timed.
"""

import gc
import json
import math
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import package as vl
from benchmarks.common.script import read
from benchmarks.sd15_speed.report import FEW_STEPS, STEPS
from benchmarks.speed.run import seconds_of, wait

_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "set_alpha_to_one": False}


@dataclass(frozen=True)
class Networks:
    """Shapes of the five networks; ``networks.toml`` says whose they are."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    text: dict[str, Any]
    clip: str | dict[str, Any]
    dim: int


def _networks(name: str) -> Networks:
    said = read(Path(__file__).with_name("networks.toml"))[name]
    depth = len(said["vae"]["block_out_channels"])
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * depth, "up_block_types": ["UpDecoderBlock2D"] * depth}
    return Networks(**said | {"vae": said["vae"] | blocks})


PUBLISHED, SDXL, TINY = _networks("published"), _networks("sdxl"), _networks("tiny")


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    steps: int = 3  # denoising steps timed by parts
    embedded: int = 4  # images that the embedder takes at once
    grid_steps: int = STEPS  # of a whole picture
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)  # pictures at once
    repeats: int = 4  # calls timed for one picture; a batch of n takes a share of them, at least one
    matrix: int = 2048  # side of the square matrices of the matrix rate


QUICK = Effort(steps=2, embedded=2, grid_steps=3, batches=(1, 2), repeats=2, matrix=64)


def _vision_tower(networks: Networks) -> tuple[nn.Module, int]:
    """open_clip's vision tower, and the side of the square that it takes."""
    import open_clip

    config = networks.clip
    if isinstance(config, str):
        config = open_clip.get_model_config(config)["vision_cfg"]
    tower = open_clip.model._build_vision_tower(networks.dim, dict(config))
    return tower.eval(), config.get("image_size", 224)


def _diffusion(networks: Networks) -> tuple[Any, Any, Any]:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextModel(CLIPTextConfig(vocab_size=49408, **networks.text))
    return UNet2DConditionModel(**networks.unet).eval(), AutoencoderKL(**networks.vae).eval(), text.eval()


def _adapter(unet: Any, dim: int) -> dict[str, dict[str, Tensor]]:
    """IP-Adapter's weights, by its file's names."""
    cross = unet.config.cross_attention_dim
    layers = {}
    for index, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            hidden = unet.get_submodule(name.removesuffix(".processor")).to_q.weight.shape[0]
            layers |= {f"{index}.to_{letter}_ip.weight": torch.randn(hidden, cross) / cross**0.5 for letter in "kv"}
    projection = {
        "proj.weight": torch.randn(4 * cross, dim) / dim**0.5,
        "proj.bias": torch.zeros(4 * cross),
        "norm.weight": torch.ones(cross),
        "norm.bias": torch.zeros(cross),
    }
    return {"image_proj": projection, "ip_adapter": layers}


def _tokenizer() -> Any:
    """CLIP's tokenizer without its words: any prompt is padded to the same 77 tokens."""
    from transformers import CLIPTokenizer

    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = {special["bos_token"]: 49406, special["eos_token"]: 49407}
        (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (Path(folder) / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
        config = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", **special}
        config |= dict.fromkeys(("unk_token", "pad_token"), special["eos_token"])
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def build_generator(networks: Networks, **options: Any) -> vl.StableDiffusionGenerator:
    """The library's generator on networks of these shapes, with a prompt, and random weights."""
    torch.manual_seed(0)
    unet, vae, text = _diffusion(networks)
    adapter = _adapter(unet, networks.dim)
    return vl.StableDiffusionGenerator(
        unet, vae, _SCHEDULE, adapter, text_encoder=text, tokenizer=_tokenizer(), prompt=vl.PROMPT, **options
    )


def flops(work: Callable[[], Any]) -> int:
    """Floating-point operations of some work: matrix products, convolutions and attention."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def picture_counts(unet: Any, vae: Any) -> dict[str, float]:
    """Operations of a denoising step with guidance, and of decoding one picture, on the device of the networks."""
    channels, size, config = unet.config.in_channels, unet.config.sample_size, unet.config
    two = torch.empty(2, channels, size, size)  # guidance: with the condition and without
    states = torch.empty(2, 77, config.cross_attention_dim)
    told = {}
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        told = {"text_embeds": torch.empty(2, pooled), "time_ids": torch.empty(2, 6)}
    step = flops(lambda: unet(two, torch.tensor(1), states, added_cond_kwargs=told))
    return {"step": step, "decode": flops(lambda: vae.decode(two[:1])), "pixels": 8 * size}


def paths() -> list[dict[str, Any]]:
    """Operations of each path to a picture, of the published shapes; nothing is drawn."""
    found = []
    for name, networks in {"sd15": PUBLISHED, "sdxl": SDXL}.items():
        with torch.device("meta"), torch.no_grad():
            unet, vae, _ = _diffusion(networks)
            counted = picture_counts(unet, vae)
        found += [{"backend": name, "steps": steps, **counted} for steps in (STEPS, FEW_STEPS)]
    return found


def counts(networks: Networks) -> dict[str, float]:
    """Floating-point operations of each part (a multiplication and an addition are two), and weights.

    Of matrix products, convolutions and attention, on the meta device; without the adapter's four tokens, which are
    below a thousandth of a step.
    """
    with torch.device("meta"), torch.no_grad():
        unet, vae, text = _diffusion(networks)
        tower, side = _vision_tower(networks)
        adapter = _adapter(unet, networks.dim)
        found = picture_counts(unet, vae)
        found["embed"] = flops(lambda: tower(torch.empty(1, 3, side, side)))
    found["picture"] = STEPS * found["step"] + found["decode"]
    networks_of = [list(network.parameters()) for network in (tower, unet, vae, text)]
    sizes = [
        sum(value.numel() for value in part) for part in (*networks_of, *(one.values() for one in adapter.values()))
    ]
    return found | {"embedder_weights": sizes[0], "weights": sum(sizes)}


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Operations a second of a product of square matrices, median of five: what the machine can do just now."""
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = [seconds_of(lambda: one @ other, device) for _ in range(6)]
    return 2 * side**3 / median(seconds[1:])


@contextmanager
def _timed(module: nn.Module, device: torch.device) -> Iterator[list[tuple[float, float]]]:
    """Wall and CPU seconds of each of a module's forward passes, which do not call one another."""
    moments: list[tuple[float, float]] = []
    found: list[tuple[float, float]] = []

    def note(*_: object) -> None:
        wait(device)
        moments.append((time.perf_counter(), time.process_time()))

    with module.register_forward_pre_hook(note), module.register_forward_hook(note):
        yield found
    for (wall, cpu), (wall_end, cpu_end) in zip(moments[::2], moments[1::2], strict=True):
        found.append((wall_end - wall, cpu_end - cpu))


@torch.no_grad()
def _measured(
    work: Callable[[], Any], modules: dict[str, nn.Module], effort: Effort, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """Seconds of modules' passes in some work, wall and CPU, and the matrix rate around it."""
    side = effort.matrix * (4 if device.type == "cuda" else 1)
    if device.type == "cuda":  # its kernels are chosen and loaded at the first call
        work()
        torch.cuda.reset_peak_memory_stats(device)
    rates = [matrix_rate(device, dtype, side)]
    found: dict[str, Any] = {"dtype": str(dtype).removeprefix("torch.")}
    with ExitStack() as stack:
        timed = {name: stack.enter_context(_timed(module, device)) for name, module in modules.items()}
        work()
    for name, calls in timed.items():
        found |= {name: [wall for wall, _ in calls], f"{name}_cpu": [cpu for _, cpu in calls]}
    rates.append(matrix_rate(device, dtype, side))
    return found | {"rates": rates, "memory": peak_memory(device), "threads": torch.get_num_threads()}


def parts(networks: Networks, effort: Effort, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Seconds of denoising steps and of a decoding, in the generator itself, and the matrix rate around them."""
    generator = build_generator(networks, device=device, dtype=dtype, num_inference_steps=effort.steps, batch_size=1)
    embedding = torch.randn(1, networks.dim)

    def draw() -> None:
        if not generator(embedding, seeds=[42]).isfinite().all():
            raise ValueError(f"networks made pictures that are not finite in {dtype}; expected numbers. Report this.")

    found = _measured(draw, {"step": generator.unet, "decode": generator.vae.decoder}, effort, device, dtype)
    return found | {"device": device.type, "pixels": generator.size}


def embedding(networks: Networks, effort: Effort, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Seconds of an image's embedding, in the embedder itself, and the matrix rate around it."""
    torch.manual_seed(0)
    tower, pixels = _vision_tower(networks)
    embedder = vl.OpenCLIPEmbedder(tower, vl.Preprocess(pixels, [0.5], [0.25]), device=device, dtype=dtype)
    images = torch.rand(effort.embedded, 3, pixels, pixels)
    found = _measured(lambda: [embedder(images) for _ in range(3)], {"embed": embedder}, effort, device, dtype)
    each = {name: [seconds / effort.embedded for seconds in found[name]] for name in ("embed", "embed_cpu")}
    return found | each | {"images": effort.embedded}


def peak_memory(device: torch.device) -> int:
    """Most bytes held: tensors on a GPU, else resident memory of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage's number may be that of the process that started this one
        lines = [line.split() for line in status.read_text(encoding="utf-8").splitlines()]
        (kilobytes,) = (words[1] for words in lines if words[:1] == ["VmHWM:"])
        return int(kilobytes) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def alone(work: Callable[..., Any], *arguments: object, threads: int) -> Any:
    """A function's result from a process of its own, so that its memory is not somebody else's."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        return pool.submit(work, *arguments).result()


@dataclass(frozen=True)
class Variant:
    """One way to run the generator."""

    dtype: str
    compile: bool
    channels_last: bool

    def __str__(self) -> str:
        return self.dtype + ", channels-last" * self.channels_last + ", compiled" * self.compile


def variants(device: torch.device) -> list[Variant]:
    """Half precisions, with and without channels-last and compilation; the costly ones last."""
    dtypes = ["float16", "bfloat16"] if device.type == "cuda" else ["float32", "bfloat16"]
    compiled = [False, True] if device.type == "cuda" else [False]
    return [Variant(dtype, compile_, last) for compile_, dtype, last in product(compiled, dtypes, [False, True])]


@dataclass
class Grid:
    """Whole pictures a second of one variant, batch after batch; its generator is built where it is first needed."""

    networks: Networks
    effort: Effort
    device: torch.device
    variant: Variant

    @cached_property
    def generator(self) -> vl.StableDiffusionGenerator:
        gc.collect()  # what an earlier variant left would count as this one's memory
        options = {**asdict(self.variant), "dtype": getattr(torch, self.variant.dtype)}
        return build_generator(self.networks, device=self.device, **options)

    def cell(self, batch: int) -> dict[str, Any]:
        """Pictures a second and peak memory at this batch; both None where it did not fit."""
        effort, device = self.effort, self.device
        if self.variant.compile:
            torch.compiler.reset()  # else a second size is compiled for all sizes, which nobody with one size has
        generator = self.generator
        generator.batch_size, embeddings, seeds = batch, torch.randn(batch, self.networks.dim), list(range(batch))
        draw = lambda: generator(embeddings, seeds=seeds)  # noqa: E731
        try:
            generator.num_inference_steps = 2  # the first call of a shape compiles, or chooses kernels
            first = seconds_of(draw, device)
            generator.num_inference_steps = effort.grid_steps
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            count = max(1, math.ceil(effort.repeats / batch))
            seconds = [seconds_of(draw, device) for _ in range(count)]
        except MemoryError as error:
            return {"batch": batch, "rate": None, "memory": None, "error": str(error).partition(".")[0]}
        memory = peak_memory(device) if device.type == "cuda" else None
        return {
            "batch": batch,
            "rate": batch / median(seconds),
            "seconds": seconds,
            "first_call": first,
            "steps": effort.grid_steps,
            "memory": memory,
        }
