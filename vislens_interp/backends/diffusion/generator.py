"""Embeddings to images: Stable Diffusion 1.5 with IP-Adapter, or any latent diffusion model of the same layout."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypedDict, Unpack

import torch
from torch import Tensor, nn

from vislens_interp.backends.base import check_generation, draw_noise
from vislens_interp.backends.diffusion.adapters import AdapterState, check_adapter, check_loaded, read_adapter
from vislens_interp.backends.diffusion.loading import has_accelerate, quiet, read_parts
from vislens_interp.backends.diffusion.speedups import SAMPLERS, LoraState, Sampler, merge_lora, read_lora, sampler_of
from vislens_interp.backends.sources import ADAPTER, Needs, first_line
from vislens_interp.backends.weights import IP_ADAPTER, SD15
from vislens_interp.images import resize
from vislens_interp.memory import in_batches, memory_left, too_little_memory
from vislens_interp.progress import tqdm
from vislens_interp.validation import check_counts, check_switches, check_word

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

PROMPT = "best quality, high quality"
NEGATIVE_PROMPT = "monochrome, lowres, bad anatomy, worst quality, low quality"
"""What the adapter's release generates with (tencent-ailab/IP-Adapter, ip_adapter/ip_adapter.py, ``generate``)."""


PICTURE_MEMORY = 0.8e9
"""Bytes that decoding takes for each 512-pixel image of a batch in half precision; calculated, not measured."""
RENAMED = {"steps": "num_inference_steps", "guidance": "guidance_scale"}
"""Arguments of 0.1.0 and what they are called now; the old names work in this version, with a warning."""

P = ParamSpec("P")


def _with_old_names(function: Callable[P, None]) -> Callable[P, None]:
    """Take the arguments in :data:`RENAMED` by their old names too."""

    @functools.wraps(function)
    def renamed(*args: P.args, **options: P.kwargs) -> None:
        for old in RENAMED.keys() & options.keys():
            new = RENAMED[old]
            if new in options:
                raise TypeError(f"{old}= and {new}= are one argument; expected {new}= alone. Leave {old}= out.")
            warnings.warn(
                f"{old}= is called {new}= now; the old name goes with the next version.", FutureWarning, stacklevel=2
            )
            options[new] = options.pop(old)
        function(*args, **options)

    return renamed


class LoadOptions(TypedDict, total=False):
    """Keyword arguments of ``StableDiffusionGenerator.load`` and of the class, which say what each of them means."""

    adapter_file: str | None
    scheduler: Mapping[str, Any] | None
    revision: str | None
    adapter_revision: str | None
    local_files_only: bool
    prompt: str | None
    size: int | None
    num_inference_steps: int | None
    guidance_scale: float | None
    speedup: str | None
    speedup_weights: str | Path | LoraState | None
    adapter_scale: float
    negative_prompt: str
    dtype: torch.dtype | None
    batch_size: int | None
    channels_last: bool
    compile: bool | str
    vae_slicing: bool
    vae_tiling: bool
    offload: Literal["model", "sequential"] | None
    progress: bool


class StableDiffusionGenerator:
    """Images from embeddings: a UNet with an IP-Adapter denoises latents by DDIM, a VAE decodes them.

    Args:
        unet: diffusers' UNet2DConditionModel; the adapter is put into it.
        vae: diffusers' AutoencoderKL.
        scheduler: The noise schedule, as ``scheduler_config.json`` says it, of whichever scheduler: DDIM is made of it.
        adapter: The adapter's weights (:func:`~vislens_interp.backends.diffusion.adapters.read_adapter`).
        text_encoder: CLIP's text encoder, or None for a model without text.
        tokenizer: Its tokenizer.
        text_encoder_2, tokenizer_2: The second ones of Stable Diffusion XL.
        embedding_dim: Dimensions of the embeddings; None takes what the adapter takes.
        size: Side of the images in pixels, a multiple of 8; None is what the UNet was trained on (512 for SD1.5).
        num_inference_steps: Steps of a whole run. None is 50, as in Sec. B.2.2, or 8 with a speed-up.
        guidance_scale: Weight of classifier-free guidance; 1 is none. None is 7.5, the default of diffusers and of the
            adapter's release (the paper gives none), 5 with ``"hyper-sd"``, 1.5 with ``"lcm"``.
        speedup: ``"hyper-sd"`` or ``"lcm"``: a LoRA for few steps (:mod:`~vislens_interp.backends.diffusion.speedups`).
            It needs the extra ``speedup``.
        speedup_weights: Its tensors, or a file, a folder or an id on the hub; None is the published one.
        adapter_scale: Weight of the adapter's attention; 1 in its release.
        prompt: Text beside the embedding; None where the model reads no text: its text states are one zero token.
        negative_prompt: What guidance leads away from. The negative embedding is zeros.
        device: Where it computes.
        dtype: Precision; None is float16 on CUDA and float32 elsewhere.
        batch_size: Images at a time; None: as many as memory is left for, at most 16 on a GPU and 4 elsewhere. Where
            memory runs out they are halved, with a warning.
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

    samplers: Mapping[str | None, Sampler] = SAMPLERS
    adapter_files: Needs = ADAPTER
    weights_memory = 3.4
    """GB of all weights in float16."""

    @_with_old_names
    def __init__(
        self,
        unet: "UNet2DConditionModel",
        vae: "AutoencoderKL",
        scheduler: Mapping[str, Any],
        adapter: AdapterState,
        *,
        text_encoder: "CLIPTextModel | None" = None,
        tokenizer: "CLIPTokenizer | None" = None,
        text_encoder_2: "CLIPTextModelWithProjection | None" = None,
        tokenizer_2: "CLIPTokenizer | None" = None,
        embedding_dim: int | None = None,
        size: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        speedup: str | None = None,
        speedup_weights: str | Path | LoraState | None = None,
        adapter_scale: float = 1.0,
        prompt: str | None = PROMPT,
        negative_prompt: str = NEGATIVE_PROMPT,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        batch_size: int | None = None,
        channels_last: bool = False,
        compile: bool | str = False,  # noqa: A002 (torch's word for it)
        vae_slicing: bool = False,
        vae_tiling: bool = False,
        offload: Literal["model", "sequential"] | None = None,
        progress: bool = False,
    ) -> None:
        check_switches(channels_last=channels_last, vae_slicing=vae_slicing, vae_tiling=vae_tiling)
        import diffusers

        sampler = sampler_of(speedup, num_inference_steps, guidance_scale, self.samplers)
        num_inference_steps = sampler.num_inference_steps if num_inference_steps is None else num_inference_steps
        guidance_scale = sampler.guidance_scale if guidance_scale is None else guidance_scale
        check_counts(num_inference_steps=num_inference_steps, batch_size=1 if batch_size is None else batch_size)
        if guidance_scale < 1:
            raise ValueError(f"guidance_scale={guidance_scale} must be at least 1, which is none; 7.5 is usual.")
        if size is not None and (size < 8 or size % 8):
            raise ValueError(
                f"size={size} must be a multiple of 8, the pixels of one latent in Stable Diffusion's VAE."
            )
        if prompt is not None and (text_encoder is None or tokenizer is None):
            raise ValueError(
                f"prompt={prompt!r} needs a text encoder and a tokenizer, and this model has none. Pass prompt=None."
            )
        self.embedding_dim = check_adapter(adapter, unet, embedding_dim=embedding_dim)
        self.num_inference_steps, self.guidance_scale, self.speedup = num_inference_steps, guidance_scale, speedup
        self.batch_size, self.progress = batch_size or 1, progress
        self.prompt, self.negative_prompt = prompt, negative_prompt
        self.device = torch.device(device)
        self.dtype = dtype or (torch.float16 if self.device.type == "cuda" else torch.float32)
        self.unet, self.vae = unet.eval().requires_grad_(False), vae.eval().requires_grad_(False)
        texts = {"text_encoder": text_encoder, "text_encoder_2": text_encoder_2}
        parts = {
            "unet": unet,
            "vae": vae,
            **{name: one if one is None else one.eval().requires_grad_(False) for name, one in texts.items()},
            "tokenizer": tokenizer,
            "tokenizer_2": tokenizer_2,
            # Latents are not bounded, whatever a configuration leaves out; the pipelines insist on the offset of 1.
            "scheduler": getattr(diffusers, sampler.scheduler).from_config(
                {**scheduler, "clip_sample": False, "steps_offset": 1, **sampler.schedule}
            ),
        }
        with quiet():
            self.text_to_image, self.image_to_image = self._pipelines(parts)
            if speedup is not None:
                if not isinstance(speedup_weights, Mapping):
                    speedup_weights = read_lora(speedup, speedup_weights, samplers=self.samplers)
                merge_lora(self.text_to_image, speedup, speedup_weights, self.samplers)
            weights: Any = {part: dict(tensors) for part, tensors in adapter.items()}
            with torch.random.fork_rng(devices=[]):  # the weights that the adapter's replace
                self.text_to_image.load_ip_adapter(
                    weights,
                    subfolder="",
                    weight_name="",
                    image_encoder_folder=None,
                    low_cpu_mem_usage=has_accelerate(),
                )
            self.text_to_image.set_ip_adapter_scale(adapter_scale)
        self.size = size or int(unet.config["sample_size"]) * self.vae_scale_factor
        for pipeline in (self.text_to_image, self.image_to_image):
            pipeline.set_progress_bar_config(disable=True)
        with quiet():
            self._place([one for one in texts.values() if one is not None], offload, channels_last)
        if batch_size is None:
            self.batch_size = self._fitting_batch()
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
        config: str | Path = SD15.repo_id,
        embedding_dim: int | None = None,
        device: torch.device | str = "cpu",
        **options: Unpack[LoadOptions],
    ) -> Self:
        """Read a checkpoint and its adapter.

        Args:
            model: An id on the hub, a folder of diffusers' layout, or a single file
                (``v1-5-pruned-emaonly.safetensors``).
            adapter: An id, a folder, a file (``ip-adapter_sd15.safetensors`` or ``.bin``), or its weights.
            config: Id or folder with the configurations and the tokenizer of a single file, which has none.
            embedding_dim, device: For the constructor.
            adapter_file: File within the adapter's folder or repository.
            scheduler: Settings that replace those of ``scheduler_config.json``.
            revision: Branch, tag or commit of ``model`` on the hub.
            adapter_revision: The same of ``adapter``.
            local_files_only: Never go to the hub, unless it is False.
            prompt: None reads neither text encoder nor tokenizer.
            options: The others are for the constructor, such as ``speedup=``.

        Raises:
            FileNotFoundError: Files are missing or the hub is out of reach; the message names what is missing.
            ValueError: A file is damaged, lacks weights, or the adapter is of another kind.
            MemoryError: The weights do not fit.
        """
        read = partial(read_parts, model, config=config)
        return cls._of(read, adapter, options, embedding_dim=embedding_dim, device=device)

    @classmethod
    def _of(
        cls,
        read: Callable[..., dict[str, Any]],
        adapter: str | Path | AdapterState,
        options: LoadOptions,
        **arguments: object,
    ) -> Self:
        """The generator of what :func:`read_parts` gives, with the adapter and the speed-up read."""
        local_files_only = options.pop("local_files_only", True)
        with_text = options.get("prompt", PROMPT) is not None
        parts = read(revision=options.pop("revision", None), local_files_only=local_files_only, text=with_text)
        parts["scheduler"] |= options.pop("scheduler", None) or {}
        name, revision = options.pop("adapter_file", None), options.pop("adapter_revision", None)
        if isinstance(adapter, str | Path):
            adapter = read_adapter(
                adapter, name=name, revision=revision, local_files_only=local_files_only, needs=cls.adapter_files
            )
        speedup, lora = options.get("speedup"), options.get("speedup_weights")
        if speedup is not None and not isinstance(lora, Mapping):
            options["speedup_weights"] = read_lora(
                speedup, lora, local_files_only=local_files_only, samplers=cls.samplers
            )
        return cls(**{**parts, "adapter": adapter, **options, **arguments})

    def _pipelines(self, parts: dict[str, Any]) -> tuple[Any, Any]:
        """diffusers' pipelines from noise and from an image, of the same parts."""
        from vislens_interp.backends.diffusion.pipelines import ImageToImage, TextToImage

        known = {name: part for name, part in parts.items() if not name.endswith("_2")}
        known |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        return TextToImage(**known), ImageToImage(**known)

    def _place(self, text_encoders: Sequence[nn.Module], offload: str | None, channels_last: bool) -> None:
        home = torch.device("cpu") if offload else self.device
        networks: list[nn.Module] = [self.unet, self.vae, *text_encoders]
        with self._memory_said():
            for network in networks:
                network.to(home, self.dtype)
                if channels_last:
                    network.to(memory_format=torch.channels_last)
        if offload is None:
            return
        check_word("offload", offload, ("model", "sequential", None))
        if self.device.type == "cpu":
            raise ValueError(
                f"offload={offload!r} moves weights off a GPU, but device={str(self.device)!r}. Leave it out."
            )
        if not has_accelerate():
            raise ImportError(f"offload={offload!r} needs the package accelerate. Install it: pip install accelerate")
        # The other pipeline holds the same modules, and so the same hooks.
        if offload == "model":
            self.text_to_image.enable_model_cpu_offload(device=self.device)
        else:
            self.text_to_image.enable_sequential_cpu_offload(device=self.device)

    def _fitting_batch(self) -> int:
        """Images for which memory is left: 0.8 GB each of 512 pixels in half precision, which is calculated."""
        most, left = (16 if self.device.type == "cuda" else 4), memory_left(self.device)
        if left is None:
            return most
        each = PICTURE_MEMORY * (self.size / 512) ** 2 * self.dtype.itemsize / 2
        return max(1, min(most, int(left / each)))

    @property
    def vae_scale_factor(self) -> int:
        """Pixels of one latent, along a side."""
        return self.text_to_image.vae_scale_factor

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a picture's latents."""
        side = self.size // self.vae_scale_factor
        return self.unet.config["in_channels"], side, side

    def pooled(self, count: int) -> dict[str, Tensor]:
        """What the UNet is told of the prompt beside text states and embeddings: nothing."""
        return {}

    @property
    def _text(self) -> tuple[Tensor, Tensor]:
        """Text states of the prompt and of the negative prompt, (1, L, C) each."""
        return self._encoded[0], self._encoded[1]

    @cached_property
    def _encoded(self) -> tuple[Tensor, ...]:
        """Both prompts as the text encoders give them, the states first; encoded once for all images."""
        if self.prompt is None:
            zeros = torch.zeros(1, 1, self.unet.config["cross_attention_dim"], dtype=self.dtype, device=self.device)
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
                ``max(1, round(strength · num_inference_steps))`` steps are taken.
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
            return self._initial(init_image)
        with self._memory_said(), tqdm(total=len(embeddings), desc="generate", disable=not self.progress) as bar:

            def draw(rows: slice) -> Tensor:
                start = None if init_image is None or strength == 1 else self._initial(init_image[rows])
                pictures = self._batch(embeddings[rows], start, strength, seeds[rows])
                bar.update(len(pictures))
                return pictures

            made, self.batch_size = in_batches(draw, len(embeddings), self.batch_size)
        images = torch.cat(made)
        if bad := (~images.flatten(1).isfinite().all(1)).nonzero().flatten().tolist():
            raise ValueError(
                f"pictures {', '.join(map(str, bad))} of {len(images)} hold NaN in {self.dtype}; expected numbers. "
                "The networks left its range: pass dtype=torch.bfloat16 or torch.float32."
            )
        return images

    def _initial(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) at the generator's size, in [0, 1]: diffusers takes a value below 0 for [-1, 1]."""
        return resize(images.float(), self.size).clamp(0, 1).to(self.device)

    def predict_noise(self, latents: Tensor, condition: Tensor, time: Tensor) -> Tensor:
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
            added_cond_kwargs={"image_embeds": [condition], **self.pooled(len(latents))},
        ).sample

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Clean latents (N, C, h, w) as images (N, 3, size, size) in [0, 1], float32; gradients flow."""
        made = self.vae.decode(latents / self.vae.config["scaling_factor"], return_dict=False)[0]
        return (made.float() / 2 + 0.5).clamp(0, 1)

    def _batch(self, embeddings: Tensor, init_image: Tensor | None, strength: float, seeds: list[int]) -> Tensor:
        count = len(embeddings)
        positive, negative = (states.expand(count, -1, -1) for states in self._text)
        # On the CPU, so that a seed means the same noise on every device.
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        arguments: dict[str, Any] = {
            "generator": generators,
            "prompt_embeds": positive,
            "negative_prompt_embeds": negative if self.guidance_scale > 1 else None,
            "ip_adapter_image_embeds": [embeddings[:, None].to(self.device, self.dtype)],
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "output_type": "pt",
            **self._pooled_arguments(count),
        }
        if init_image is None:
            latents = draw_noise(generators, self.latent_shape).to(self.device, self.dtype)
            result = self.text_to_image(height=self.size, width=self.size, latents=latents, **arguments)
        else:
            result = self.image_to_image(image=init_image, strength=strength, **arguments)
        return result.images.float()

    def _pooled_arguments(self, count: int) -> dict[str, Any]:
        """The same, and that of the negative prompt, as the pipelines take it."""
        return {}

    @contextlib.contextmanager
    def _memory_said(self) -> Iterator[None]:
        """Say what would help where memory runs out."""
        try:
            yield
        except RuntimeError as error:
            if not too_little_memory(error):
                raise
            raise MemoryError(
                f"memory ran out on {self.device} at size={self.size}, batch_size={self.batch_size}, {self.dtype} "
                f"({first_line(error)}); in float16 weights take {self.weights_memory} GB, decoding 0.8 GB for each "
                "512-pixel image of a batch. Lower batch_size, pass vae_slicing=True or vae_tiling=True, "
                "offload='model' on a GPU, or a smaller size."
            ) from error
