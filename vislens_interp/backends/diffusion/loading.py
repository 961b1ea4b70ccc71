"""Reading Stable Diffusion's parts: a folder of diffusers' layout, an id on the hub, or a single file."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from vislens_interp.backends.sources import (
    IMAGE_CONFIGS,
    TEXT_CONFIGS,
    VAE_ALONE,
    damaged,
    find,
    parts_of,
    reading,
)

if TYPE_CHECKING:
    from diffusers import ModelMixin
    from transformers import PreTrainedModel


TAKES = "SD1.5 takes 5 GB"


def read_parts(
    model: str | Path,
    *,
    config: str | Path | None = None,
    xl: bool = False,
    vae: str | Path | None = None,
    revision: str | None,
    local_files_only: bool,
    text: bool,
) -> dict[str, Any]:
    """The networks, the tokenizers and the settings of the scheduler, by the names of the generator's arguments.

    Args:
        model: An id on the hub, a folder or, with ``config``, a single file.
        config: Id or folder with the configurations and the tokenizer of a single file.
        xl: Stable Diffusion XL, with two text encoders.
        vae: An id or a folder with a VAE alone; None takes the one of ``model``.
        revision: Branch, tag or commit of ``model`` on the hub.
        local_files_only: Never go to the hub.
        text: Read the text encoders and the tokenizers too.

    Raises:
        FileNotFoundError: Files are missing.
        ValueError: A file is damaged or lacks weights.
        MemoryError: The weights do not fit.
    """
    path = Path(model).expanduser()
    if path.is_file() and config is None:
        raise ValueError(
            f"model={str(model)!r} is a single file, which is read of Stable Diffusion 1.5 alone; expected a folder or"
            " an id on the hub. Run `vislens download sdxl`, or save it by diffusers' save_pretrained."
        )
    with torch.random.fork_rng(devices=[]), quiet():
        if path.is_file() and config is not None:
            needs = [*IMAGE_CONFIGS, *(TEXT_CONFIGS if text else ())]
            folder = find(config, needs, argument="config", local_files_only=local_files_only)
            parts = _read_single_file(path, folder, text=text)
        else:
            needs = parts_of(text=text, xl=xl, vae=vae is None)
            folder = find(model, needs, argument="model", revision=revision, local_files_only=local_files_only)
            place = None if vae is None else find(vae, VAE_ALONE, argument="vae", local_files_only=local_files_only)
            parts = _read_folder(folder, [] if not text else ["", "_2"] if xl else [""], place)
    return {**parts, "scheduler": _read_schedule(folder)}


def _read_schedule(folder: Path) -> dict[str, Any]:
    schedule = folder / "scheduler/scheduler_config.json"
    try:
        return json.loads(schedule.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise damaged("model", schedule, error) from error


def _read_folder(folder: Path, texts: Sequence[str], vae: Path | None) -> dict[str, Any]:
    """The networks of a folder, with text encoders and tokenizers whose names end so, and a VAE from elsewhere."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    parts: dict[str, Any] = {
        "unet": _read_network(UNet2DConditionModel, folder, "unet"),
        "vae": _read_network(AutoencoderKL, vae or folder, "" if vae else "vae"),
    }
    for end in texts:
        kind = CLIPTextModelWithProjection if end else CLIPTextModel
        parts[f"text_encoder{end}"] = _read_network(kind, folder, f"text_encoder{end}")
        with reading("model", folder / f"tokenizer{end}", TAKES):
            tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder=f"tokenizer{end}", local_files_only=True)
        parts[f"tokenizer{end}"] = tokenizer
    return parts


def _read_network(kind: "type[ModelMixin] | type[PreTrainedModel]", folder: Path, part: str) -> Any:
    """One network of a folder, with every weight from its file: what is missing would otherwise stay random."""
    place = folder / part
    is_text = part.startswith("text_encoder")
    stem = "model" if is_text else "diffusion_pytorch_model"
    whole = [place / f"{stem}.safetensors", place / f"{stem}.bin", place / "pytorch_model.bin"]
    variant = None if any(path.is_file() for path in whole) else "fp16"
    options: dict[str, Any] = {} if is_text else {"low_cpu_mem_usage": has_accelerate()}
    with reading("model", place, TAKES):
        loaded: Any = kind.from_pretrained(
            folder, subfolder=part or None, variant=variant, local_files_only=True, output_loading_info=True, **options
        )
    network, info = loaded
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(
            f"model={str(place)!r} lacks {len(missing)} weights (first: {missing[0]!r}); expected those of "
            f"{kind.__name__}. Delete it and run `vislens download sd15`, or pass another folder."
        )
    return network


def _read_single_file(path: Path, config: Path, *, text: bool) -> dict[str, Any]:
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

    left_out: dict[str, Any] = {"safety_checker": None, "feature_extractor": None}
    prefixes = {"unet": "model.diffusion_model.", "vae": "first_stage_model.", "text_encoder": "cond_stage_model."}
    with reading("model", path, TAKES):
        names = _names_in(path)
        kinds = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
        parts: dict[str, Any] = {
            # Not by accelerate, which stops at a weight that is not there with words that nobody understands.
            part: kind.from_single_file(
                str(path), config=str(config), subfolder=part, local_files_only=True, low_cpu_mem_usage=False
            )
            for part, kind in kinds.items()
        }
        if text:
            pipeline: Any = StableDiffusionPipeline.from_single_file(
                str(path), config=str(config), local_files_only=True, **left_out, **parts
            )
            parts |= {part: getattr(pipeline, part) for part in ("text_encoder", "tokenizer")}
    for part, prefix in prefixes.items():
        # Names differ one by one; diffusers would leave what is not there at random values without a word.
        expected = len(parts[part].state_dict()) if part in parts else 0
        found = sum(name.startswith(prefix) for name in names)
        if found < expected:
            raise ValueError(
                f"model={str(path)!r} holds {found} of the {expected} weights of the {part} ({prefix}*); expected all. "
                "Delete it and run `vislens download sd15`, or pass another file."
            )
    return parts


def _names_in(path: Path) -> list[str]:
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    state = torch.load(path, map_location="meta", weights_only=True, mmap=True)
    return list(state.get("state_dict", state))


def has_accelerate() -> bool:
    """Whether accelerate is installed, without importing it."""
    return find_spec("accelerate") is not None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Run without the advice and the bars that diffusers and transformers print for what is done here on purpose."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    libraries: list[Any] = [of_diffusers, of_transformers]
    before = [(library, library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    try:
        for library in libraries:
            library.set_verbosity_error()
            library.disable_progress_bar()
        yield
    finally:
        for library, verbosity, bars in before:
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()
