"""Fewer steps for Stable Diffusion: LoRAs that were distilled for it, read, checked and merged into the UNet."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vislens_interp.backends.sources import damaged, find, first_line
from vislens_interp.backends.weights import HYPER_SD, HYPER_SDXL, LCM_LORA, PublishedRepository
from vislens_interp.validation import check_word, missing_library

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

LoraState = Mapping[str, Tensor]
"""A LoRA's tensors by the names of its file."""

_DOWN = (".lora_down.weight", ".lora_A.weight", ".lora.down.weight")
"""How a LoRA's first factor is called: by kohya (the published files), by PEFT and by older diffusers."""


@dataclass(frozen=True)
class Sampler:
    """How pictures are drawn: which LoRA is in the UNet, by which scheduler, in how many steps.

    Args:
        repository: Where the LoRA is published; None: there is none.
        num_inference_steps: Steps of a whole run, unless told otherwise.
        guidance_scale: Weight of classifier-free guidance, unless told otherwise.
        steps: Fewest and most steps that the LoRA was trained for.
        guidance: Least and most guidance that the publisher gives.
        scheduler: diffusers' class.
        schedule: Settings of the scheduler that replace the checkpoint's.
    """

    repository: PublishedRepository | None
    num_inference_steps: int
    guidance_scale: float
    steps: tuple[int, float] = (1, float("inf"))
    guidance: tuple[float, float] = (1.0, float("inf"))
    scheduler: str = "DDIMScheduler"
    schedule: Mapping[str, Any] = field(default_factory=dict)

    @property
    def published(self) -> PublishedRepository:
        """The LoRA's repository, of a sampler that has one."""
        assert self.repository is not None
        return self.repository

    @property
    def file(self) -> str:
        """The LoRA's file in its repository."""
        return self.published.files[0].path


SAMPLERS: dict[str | None, Sampler] = {
    None: Sampler(None, 50, 7.5),
    "hyper-sd": Sampler(HYPER_SD, 8, 5.0, (8, 8), (5.0, 8.0), schedule={"timestep_spacing": "trailing"}),
    "lcm": Sampler(LCM_LORA, 8, 1.5, (2, 8), (1.0, 2.0), "LCMScheduler"),
}
"""By ``speedup=``. None is the paper's (Sec. B.2.2). ``"hyper-sd"`` is the 8-step LoRA that keeps classifier-free
guidance and the negative prompt (Ren et al. 2024, model card). ``"lcm"`` adds noise after every step (Luo et al. 2023);
with image adapters users report burnt pictures, so it is the second choice."""

SAMPLERS_XL: dict[str | None, Sampler] = {
    None: Sampler(None, 50, 5.0),
    "hyper-sd": replace(SAMPLERS["hyper-sd"], repository=HYPER_SDXL),
}
"""Of Stable Diffusion XL; 5 is the guidance of diffusers' pipeline, and so of the adapter's release."""


def sampler_of(
    speedup: str | None,
    num_inference_steps: int | None,
    guidance_scale: float | None,
    samplers: Mapping[str | None, Sampler] = SAMPLERS,
) -> Sampler:
    """The sampler of this name, with a warning where it is asked for what its LoRA was not trained for.

    Raises:
        ValueError: There is no such sampler.
    """
    check_word("speedup", speedup, samplers)
    sampler = samplers[speedup]
    for name, value, (low, high) in (
        ("num_inference_steps", num_inference_steps, sampler.steps),
        ("guidance_scale", guidance_scale, sampler.guidance),
    ):
        if speedup is not None and value is not None and not low <= value <= high:
            trained = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            warnings.warn(
                f"{name}={value} with speedup={speedup!r}, which was made for {trained}: pictures may be blurred or "
                f"burnt. Leave {name} out.",
                stacklevel=4,
            )
    return sampler


def read_lora(
    speedup: str,
    source: str | Path | None = None,
    *,
    local_files_only: bool = True,
    samplers: Mapping[str | None, Sampler] = SAMPLERS,
) -> LoraState:
    """Read the LoRA of a speed-up.

    Args:
        speedup: ``"hyper-sd"`` or ``"lcm"``.
        source: A file, a folder or an id on the hub that holds the published file; None is its own repository.
        local_files_only: Never go to the hub.
        samplers: Those of the model.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is damaged, or no LoRA.
    """
    sampler = sampler_of(speedup, None, None, samplers)
    path = Path(source or sampler.published.repo_id).expanduser()
    if not path.is_file():
        folder = find(str(path), ((sampler.file,),), argument="speedup_weights", local_files_only=local_files_only)
        path = folder / sampler.file
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise damaged("speedup_weights", path, error) from error


def merge_lora(
    pipeline: "StableDiffusionPipeline | StableDiffusionXLPipeline",
    speedup: str,
    state: LoraState,
    samplers: Mapping[str | None, Sampler] = SAMPLERS,
) -> None:
    """Add a LoRA to the weights of a pipeline's UNet, for good: a step then costs what it cost before.

    diffusers loads it, which knows the names of all trainers. It passes over parts that fit nowhere; their number
    is checked here.

    Raises:
        ImportError: PEFT is missing, by which diffusers does this.
        ValueError: The LoRA was made for another network, or holds numbers that are not finite.
    """
    if find_spec("peft") is None:
        raise missing_library(f"speedup={speedup!r} needs the package peft", "speedup")
    from peft.tuners.lora import LoraLayer

    parts = sum(name.endswith(_DOWN) for name in state)
    backend = "sd15" if samplers is SAMPLERS else "sdxl"
    remedy = f"Expected {samplers[speedup].file}; delete it and run `vislens download {backend} --speedup {speedup}`."
    if parts == 0:
        raise ValueError(f"speedup_weights holds no LoRA: none of its {len(state)} tensors is a first factor. {remedy}")
    try:
        with torch.random.fork_rng(devices=[]):  # the weights that the file's replace
            pipeline.load_lora_weights(dict(state), adapter_name=speedup)
        placed = sum(isinstance(module, LoraLayer) for module in pipeline.unet.modules())
        if placed != parts:
            raise ValueError(f"{placed} of its {parts} parts fit the UNet")
        pipeline.fuse_lora(components=["unet"], safe_fusing=True)
    except (ValueError, RuntimeError, KeyError) as error:
        raise ValueError(f"speedup_weights cannot be merged into the UNet ({first_line(error)}). {remedy}") from error
    pipeline.unload_lora_weights()
