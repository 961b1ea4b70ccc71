"""Embeddings to images: Stable Diffusion 1.5 with IP-Adapter, or any latent diffusion model of the same layout."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import torch
from safetensors import safe_open
from torch import Tensor

from vislens_interp.backends.adapters import AdapterState, check_adapter, check_loaded, read_adapter
from vislens_interp.backends.base import check_generation
from vislens_interp.backends.sources import (
    IMAGE_CONFIGS,
    IMAGE_PARTS,
    TEXT_CONFIGS,
    TEXT_PARTS,
    damaged,
    find,
    first_line,
    too_little_memory,
)
from vislens_interp.backends.weights import IP_ADAPTER, SD15
from vislens_interp.images import resize
from vislens_interp.progress import tqdm

PROMPT = "best quality, high quality"
NEGATIVE_PROMPT = "monochrome, lowres, bad anatomy, worst quality, low quality"
"""What the adapter's release generates with (tencent-ailab/IP-Adapter, ip_adapter/ip_adapter.py, ``generate``)."""


class StableDiffusionGenerator:
    """Images from embeddings: a UNet with an IP-Adapter denoises latents by DDIM, a VAE decodes them.

    Args:
        unet: diffusers' UNet2DConditionModel; the adapter is put into it.
        vae: diffusers' AutoencoderKL.
        scheduler: The noise schedule, as ``scheduler_config.json`` says it, of whichever scheduler: DDIM is made of it.
        adapter: The adapter's weights (:func:`~vislens_interp.backends.adapters.read_adapter`).
        text_encoder: CLIP's text encoder, or None for a model without text.
        tokenizer: Its tokenizer.
        embedding_dim: Dimensions of the embeddings; None takes what the adapter takes.
        size: Side of the images in pixels, a multiple of 8; None is what the UNet was trained on (512 for SD1.5).
        steps: DDIM steps of a whole run; 50 in Sec. B.2.2.
        guidance: Weight of classifier-free guidance; 1 is none. 7.5 is the default of diffusers and of the adapter's
            release; the paper gives none.
        adapter_scale: Weight of the adapter's attention; 1 in its release.
        prompt: Text beside the embedding; None where the model reads no text: its text states are one zero token.
        negative_prompt: What guidance leads away from. The negative embedding is zeros.
        device: Where it computes.
        dtype: Precision; None is float16 on CUDA and float32 elsewhere.
        batch_size: Images at a time.
        channels_last: Lay out convolutions for tensor cores.
        compile: Compile the UNet: True, or a mode of :func:`torch.compile`.
        vae_slicing: Decode one image of a batch at a time.
        vae_tiling: Decode in overlapping tiles; pixels change slightly at their borders.
        offload: ``"model"`` keeps only the part on the GPU that computes, ``"sequential"`` only the layer (slow). Needs
            accelerate.
        progress: Show a bar over the images.

    Source: Algorithm 2, line 5; Sec. B.2.2 (SD1.5, DDIM, 50 steps, no safety checker). Deviations: strength 1 is
    text-to-image, for image-to-image at strength 1 starts from the reference under SD1.5's last, not quite pure noise
    and so leaks it; the reference is encoded by the posterior's mode; timesteps are rounded, not truncated.
    """

    def __init__(
        self,
        unet: Any,
        vae: Any,
        scheduler: Mapping[str, Any],
        adapter: AdapterState,
        *,
        text_encoder: Any = None,
        tokenizer: Any = None,
        embedding_dim: int | None = None,
        size: int | None = None,
        steps: int = 50,
        guidance: float = 7.5,
        adapter_scale: float = 1.0,
        prompt: str | None = PROMPT,
        negative_prompt: str = NEGATIVE_PROMPT,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        batch_size: int = 4,
        channels_last: bool = False,
        compile: bool | str = False,  # noqa: A002 (torch's word for it)
        vae_slicing: bool = False,
        vae_tiling: bool = False,
        offload: Literal["model", "sequential"] | None = None,
        progress: bool = False,
    ) -> None:
        from diffusers import DDIMScheduler

        from vislens_interp.backends.pipelines import ImageToImage, TextToImage

        for name, value in (("steps", steps), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        if guidance < 1:
            raise ValueError(f"guidance={guidance} must be at least 1, which is none; 7.5 is usual.")
        if size is not None and (size < 8 or size % 8):
            raise ValueError(
                f"size={size} must be a multiple of 8, the pixels of one latent in Stable Diffusion's VAE."
            )
        if prompt is not None and (text_encoder is None or tokenizer is None):
            raise ValueError(
                f"prompt={prompt!r} needs a text encoder and a tokenizer, and this model has none. Pass prompt=None."
            )
        self.embedding_dim = check_adapter(adapter, unet, embedding_dim=embedding_dim)
        self.steps, self.guidance, self.batch_size, self.progress = steps, guidance, batch_size, progress
        self.prompt, self.negative_prompt = prompt, negative_prompt
        self.device = torch.device(device)
        self.dtype = dtype or (torch.float16 if self.device.type == "cuda" else torch.float32)
        self.unet, self.vae = unet.eval().requires_grad_(False), vae.eval().requires_grad_(False)
        parts = {
            "unet": unet,
            "vae": vae,
            "text_encoder": None if text_encoder is None else text_encoder.eval().requires_grad_(False),
            "tokenizer": tokenizer,
            # Latents are not bounded, whatever a configuration leaves out; the pipelines insist on the offset of 1.
            "scheduler": DDIMScheduler.from_config({**scheduler, "clip_sample": False, "steps_offset": 1}),
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }
        with _quiet():
            self.text_to_image = TextToImage(**parts)
            weights: Any = {part: dict(tensors) for part, tensors in adapter.items()}
            with torch.random.fork_rng(devices=[]):  # the weights that the adapter's replace
                self.text_to_image.load_ip_adapter(
                    weights,
                    subfolder="",
                    weight_name="",
                    image_encoder_folder=None,
                    low_cpu_mem_usage=_has_accelerate(),
                )
            self.text_to_image.set_ip_adapter_scale(adapter_scale)
            self.image_to_image = ImageToImage(**parts)
        self.size = size or int(unet.config.sample_size) * self.text_to_image.vae_scale_factor
        for pipeline in (self.text_to_image, self.image_to_image):
            pipeline.set_progress_bar_config(disable=True)
        with _quiet():
            self._place(text_encoder, offload, channels_last)
        if vae_slicing:
            vae.enable_slicing()
        if vae_tiling:
            vae.enable_tiling()
        if compile:
            unet.compile(mode=None if compile is True else compile)

    @classmethod
    def load(
        cls,
        model: str | Path = SD15.repo_id,
        adapter: str | Path | AdapterState = IP_ADAPTER.repo_id,
        *,
        adapter_file: str | None = None,
        config: str | Path = SD15.repo_id,
        scheduler: Mapping[str, Any] | None = None,
        revision: str | None = None,
        adapter_revision: str | None = None,
        local_files_only: bool = True,
        prompt: str | None = PROMPT,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> Self:
        """Read a checkpoint and its adapter.

        Args:
            model: An id on the hub, a folder of diffusers' layout, or a single file
                (``v1-5-pruned-emaonly.safetensors``).
            adapter: An id, a folder, a file (``ip-adapter_sd15.safetensors`` or ``.bin``), or its weights.
            adapter_file: File within the adapter's folder or repository.
            config: Id or folder with the configurations and the tokenizer of a single file, which has none.
            scheduler: Settings that replace those of ``scheduler_config.json``.
            revision: Branch, tag or commit of ``model`` on the hub.
            adapter_revision: The same of ``adapter``.
            local_files_only: Never go to the hub.
            prompt: None reads neither text encoder nor tokenizer.
            dtype: Precision.
            device: Where it computes.
            options: For the constructor.

        Raises:
            FileNotFoundError: Files are missing or the hub is out of reach; the message names what is missing.
            ValueError: A file is damaged, lacks weights, or the adapter is of another kind.
            MemoryError: The weights do not fit.
        """
        if isinstance(adapter, Mapping):
            adapter_state = adapter
        else:
            adapter_state = read_adapter(
                adapter, name=adapter_file, revision=adapter_revision, local_files_only=local_files_only
            )
        path = Path(model).expanduser()
        with torch.random.fork_rng(devices=[]), _quiet():
            if path.is_file():
                needs = [*IMAGE_CONFIGS, *(() if prompt is None else TEXT_CONFIGS)]
                folder = find(config, needs, argument="config", local_files_only=local_files_only)
                parts = _read_single_file(path, folder, text=prompt is not None)
            else:
                needs = [*IMAGE_PARTS, *(() if prompt is None else TEXT_PARTS)]
                folder = find(model, needs, argument="model", revision=revision, local_files_only=local_files_only)
                parts = _read_folder(folder, text=prompt is not None)
        try:
            schedule = json.loads((folder / "scheduler/scheduler_config.json").read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise damaged("model", folder / "scheduler/scheduler_config.json", error) from error
        return cls(
            **parts,
            scheduler={**schedule, **(scheduler or {})},
            adapter=adapter_state,
            prompt=prompt,
            dtype=dtype,
            device=device,
            **options,
        )

    def _place(self, text_encoder: Any, offload: str | None, channels_last: bool) -> None:
        layout = {"memory_format": torch.channels_last} if channels_last else {}
        home = torch.device("cpu") if offload else self.device
        try:
            for network in (self.unet, self.vae, *([] if text_encoder is None else [text_encoder])):
                network.to(home, self.dtype, **layout)
        except RuntimeError as error:
            if not too_little_memory(error):
                raise
            raise self._memory_error(error) from error
        if offload is None:
            return
        if offload not in ("model", "sequential"):
            raise ValueError(f"offload={offload!r} is unknown; expected 'model', 'sequential' or None.")
        if self.device.type == "cpu":
            raise ValueError(
                f"offload={offload!r} moves weights off a GPU, but device={str(self.device)!r}. Leave it out."
            )
        if not _has_accelerate():
            raise ImportError(f"offload={offload!r} needs the package accelerate. Install it: pip install accelerate")
        # The other pipeline holds the same modules, and so the same hooks.
        if offload == "model":
            self.text_to_image.enable_model_cpu_offload(device=self.device)
        else:
            self.text_to_image.enable_sequential_cpu_offload(device=self.device)

    @cached_property
    def _text(self) -> tuple[Tensor, Tensor]:
        """Text states of the prompt and of the negative prompt, (1, L, C) each; encoded once for all images."""
        if self.prompt is None:
            zeros = torch.zeros(1, 1, self.unet.config.cross_attention_dim, dtype=self.dtype, device=self.device)
            return zeros, zeros
        states: Any = self.text_to_image.encode_prompt(
            self.prompt, self.device, 1, True, negative_prompt=self.negative_prompt
        )
        return states

    @torch.no_grad()
    def __call__(
        self, embeddings: Tensor, *, init_image: Tensor | None = None, strength: float = 1.0, seeds: list[int]
    ) -> Tensor:
        """Images of embeddings.

        Args:
            embeddings: (N, embedding_dim), un-normalised.
            init_image: (N, 3, H, W) in [0, 1], what a strength below 1 starts from; None at strength 1.
            strength: SDEdit's γ: 0 returns the image, 1 does not look at it, between them the last
                ``max(1, round(strength · steps))`` steps are taken.
            seeds: Noise seed of each image.

        Returns:
            (N, 3, size, size) in [0, 1], float32. An image does not depend on the others of its batch, up to rounding.

        Raises:
            ValueError: An argument is not of this form, or no adapter is in the UNet.
            MemoryError: Memory ran out.
        """
        check_loaded(self.unet)
        check_generation(embeddings, self.embedding_dim, init_image, strength, seeds)
        if init_image is not None and strength == 0:
            return resize(init_image.float(), self.size).to(self.device)
        batches = torch.arange(len(embeddings)).split(self.batch_size)
        made = []
        try:
            with tqdm(total=len(embeddings), desc="generate", disable=not self.progress) as bar:
                for rows in batches:
                    start = None if init_image is None or strength == 1 else resize(init_image[rows].float(), self.size)
                    made.append(self._batch(embeddings[rows], start, strength, [seeds[row] for row in rows.tolist()]))
                    bar.update(len(rows))
        except RuntimeError as error:
            if not too_little_memory(error):
                raise
            raise self._memory_error(error) from error
        return torch.cat(made)

    def predict(self, latents: Tensor, condition: Tensor, time: Tensor) -> Tensor:
        """What the UNet says to noisy latents (N, C, h, w) at a timestep, beside the prompt and without guidance.

        Args:
            latents: On the generator's device, in its precision; gradients flow.
            condition: (N, 1, embedding_dim) embeddings; zeros are none.
            time: One timestep of the schedule.
        """
        text, _ = self._text
        return self.unet(
            latents,
            time,
            encoder_hidden_states=text.expand(len(latents), -1, -1),
            added_cond_kwargs={"image_embeds": [condition]},
        ).sample

    def show(self, latents: Tensor) -> Tensor:
        """Clean latents (N, C, h, w) as images (N, 3, size, size) in [0, 1], float32; gradients flow."""
        made = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return (made.float() / 2 + 0.5).clamp(0, 1)

    def _batch(self, embeddings: Tensor, init_image: Tensor | None, strength: float, seeds: list[int]) -> Tensor:
        from vislens_interp.backends.pipelines import draw_noise

        count = len(embeddings)
        positive, negative = (states.expand(count, -1, -1) for states in self._text)
        arguments: dict[str, Any] = {
            "prompt_embeds": positive,
            "negative_prompt_embeds": negative if self.guidance > 1 else None,
            "ip_adapter_image_embeds": [embeddings[:, None].to(self.device, self.dtype)],
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "output_type": "pt",
        }
        # On the CPU, so that a seed means the same noise on every device.
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        if init_image is None:
            side = self.size // self.text_to_image.vae_scale_factor
            noise = draw_noise(generators, torch.Size([self.unet.config.in_channels, side, side]))
            latents = noise.to(self.device, self.dtype)
            result = self.text_to_image(height=self.size, width=self.size, latents=latents, **arguments)
        else:
            result = self.image_to_image(image=init_image, strength=strength, generator=generators, **arguments)
        return result.images.float()  # type: ignore[union-attr]

    def _memory_error(self, error: RuntimeError) -> MemoryError:
        return MemoryError(
            f"memory ran out on {self.device} at size={self.size}, batch_size={self.batch_size}, {self.dtype} "
            f"({first_line(error)}); weights take 3.4 GB in float16, and 6 GB should do for one 512-pixel image. Lower "
            "batch_size, pass vae_slicing=True or vae_tiling=True, offload='model' on a GPU, or a smaller size."
        )


def _read_folder(folder: Path, *, text: bool) -> dict[str, Any]:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    parts: dict[str, Any] = {
        "unet": _read_network(UNet2DConditionModel, folder, "unet", low_cpu_mem_usage=_has_accelerate()),
        "vae": _read_network(AutoencoderKL, folder, "vae", low_cpu_mem_usage=_has_accelerate()),
    }
    if text:
        from transformers import CLIPTextModel

        parts["text_encoder"] = _read_network(CLIPTextModel, folder, "text_encoder")
        parts["tokenizer"] = _read_tokenizer(folder)
    return parts


def _read_network(kind: Any, folder: Path, part: str, **options: Any) -> Any:
    """One network of a folder, with every weight from its file: what is missing would otherwise stay random."""
    place = folder / part
    stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
    whole = [place / f"{stem}.safetensors", place / f"{stem}.bin", place / "pytorch_model.bin"]
    variant = None if any(path.is_file() for path in whole) else "fp16"
    try:
        network, info = kind.from_pretrained(
            folder, subfolder=part, variant=variant, local_files_only=True, output_loading_info=True, **options
        )
    except Exception as error:  # every reader has its own kinds
        raise _read_error(place, error) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(
            f"model={str(place)!r} lacks {len(missing)} weights (first: {missing[0]!r}); expected those of "
            f"{kind.__name__}. Delete it and run `vislens download sd15`, or pass another folder."
        )
    return network


def _read_tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)
    except Exception as error:  # every reader has its own kinds
        raise _read_error(folder / "tokenizer", error) from error


def _read_single_file(path: Path, config: Path, *, text: bool) -> dict[str, Any]:
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

    left_out: dict[str, Any] = {"safety_checker": None, "feature_extractor": None}
    prefixes = {"unet": "model.diffusion_model.", "vae": "first_stage_model.", "text_encoder": "cond_stage_model."}
    try:
        names = _names_in(path)
        if not text:
            kinds = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
            parts: dict[str, Any] = {
                part: kind.from_single_file(str(path), config=str(config), subfolder=part, local_files_only=True)
                for part, kind in kinds.items()
            }
        else:
            pipeline: Any = StableDiffusionPipeline.from_single_file(
                str(path), config=str(config), local_files_only=True, **left_out
            )
            parts = {part: getattr(pipeline, part) for part in (*prefixes, "tokenizer")}
    except Exception as error:  # every reader has its own kinds
        raise _read_error(path, error) from error
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


def _read_error(path: Path, error: Exception) -> Exception:
    if too_little_memory(error):
        return MemoryError(
            f"model={str(path)!r} does not fit into memory ({first_line(error)}); SD1.5 takes 5 GB while it "
            "loads. Close other programs, or use a machine with more."
        )
    return damaged("model", path, error)


def _has_accelerate() -> bool:
    from importlib.util import find_spec

    return find_spec("accelerate") is not None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice and the bars that diffusers and transformers print for what is done here on purpose."""
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
