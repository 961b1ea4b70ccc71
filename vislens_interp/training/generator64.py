"""Recipe: the generator of the embedded backend, latent diffusion conditioned on an embedding as by IP-Adapter."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from vislens_interp.backends.adapters import TOKENS, AdapterState
from vislens_interp.backends.stable_diffusion import StableDiffusionGenerator
from vislens_interp.files import fingerprint, write_atomically, write_text
from vislens_interp.precision import mixed_precision
from vislens_interp.training import autoencoder64
from vislens_interp.training.cifar10_ddpm import write_folder
from vislens_interp.training.data import TEST, TUNING, read_splits
from vislens_interp.training.embedder64 import embed
from vislens_interp.training.loop import Progress, add_test_figures, train
from vislens_interp.training.probe import retrieval
from vislens_interp.zoo.embedder import Embedder64

ABOUT = (
    "Embeddings to 64-pixel images: a UNet (diffusers' UNet2DConditionModel) on 16 x 16 latents with an IP-Adapter's "
    "image projection, in Stable Diffusion's folder layout, with its autoencoder."
)
DROPPED = 0.1
"""Share of embeddings that are zeros in training, which is what guidance leads away from in sampling."""

UNET: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 12,
    "out_channels": 12,
    "layers_per_block": 1,
    "block_out_channels": (32, 64, 128),
    "norm_num_groups": 16,
    "down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,  # how many heads: diffusers' name for it is an old mistake
    "cross_attention_dim": 256,
}
"""Small enough for a processor core, 13 ms an image in training: thin where maps are large, and the embedding is read
at 4 x 4 only, where attention is cheap."""


class Generator64(nn.Module):
    """What was trained: the UNet with the adapter in it, and the autoencoder that it speaks to."""

    def __init__(self, unet: Any, autoencoder: Any) -> None:
        super().__init__()
        self.unet, self.autoencoder = unet, autoencoder

    def generator(self, **options: Any) -> StableDiffusionGenerator:
        """A copy of it as the class that samples.

        Args:
            options: For :class:`StableDiffusionGenerator`.
        """
        unet, adapter = take_apart(self.unet)
        return StableDiffusionGenerator(
            unet, copy.deepcopy(self.autoencoder), scheduler().config, adapter, prompt=None, **options
        )


def scheduler() -> Any:
    """Stable Diffusion's noise schedule ending in pure noise, velocities, sampled from the very last step.

    Source: Lin et al. 2024, Common Diffusion Noise Schedules and Sample Steps are Flawed, Secs. 3.1 to 3.3.
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )


def build(settings: dict[str, Any] | None = None, *, dim: int = 512) -> Any:
    """A fresh UNet with a fresh adapter in it, as diffusers puts one there, all of it to be trained.

    Args:
        settings: Of diffusers' UNet2DConditionModel; None is :data:`UNET`.
        dim: Dimensions of the embeddings.
    """
    from diffusers import UNet2DConditionModel

    unet: Any = UNet2DConditionModel(**(UNET if settings is None else settings))
    width = unet.config.cross_attention_dim
    projection, norm = nn.Linear(dim, TOKENS * width), nn.LayerNorm(width)
    layers = {}
    for index, name in _cross_attentions(unet):
        hidden = unet.get_submodule(name).to_q.weight.shape[0]
        for letter in "kv":
            layers[f"{index}.to_{letter}_ip.weight"] = nn.Linear(width, hidden, bias=False).weight.detach()
    image_proj = {
        **{f"proj.{key}": value for key, value in projection.state_dict().items()},
        **{f"norm.{key}": value for key, value in norm.state_dict().items()},
    }
    unet._load_ip_adapter_weights([{"image_proj": image_proj, "ip_adapter": layers}], low_cpu_mem_usage=False)
    return unet.requires_grad_(True)


def take_apart(unet: Any) -> tuple[Any, AdapterState]:
    """The UNet as it was before the adapter came, and the adapter by IP-Adapter's names: copies, in float32.

    The inverse of what diffusers does when it loads an adapter.
    """
    from diffusers import UNet2DConditionModel

    state = {name: value.detach().clone() for name, value in unet.state_dict().items()}
    inside = "encoder_hid_proj.image_projection_layers.0."
    adapter: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name in [name for name in state if name.startswith(inside)]:
        key = name.removeprefix(inside).replace("image_embeds.", "proj.")
        adapter["image_proj"][key] = state.pop(name)
    for index, name in _cross_attentions(unet):
        for letter in "kv":
            value = state.pop(f"{name}.processor.to_{letter}_ip.0.weight")
            adapter["ip_adapter"][f"{index}.to_{letter}_ip.weight"] = value
    with torch.random.fork_rng(devices=[]):  # fresh weights, replaced at once
        settings = {**unet.config, "encoder_hid_dim_type": None}
        plain: Any = UNet2DConditionModel.from_config(settings)
    plain.load_state_dict(state)
    return plain.to(unet.device), adapter


def _cross_attentions(unet: Any) -> list[tuple[int, str]]:
    """Position and name of each attention that reads an embedding; IP-Adapter names weights by position."""
    return [
        (index, name.removesuffix(".processor"))
        for index, name in enumerate(unet.attn_processors)
        if name.endswith("attn2.processor")
    ]


def run(
    data: Path,
    out: Path,
    *,
    weights: Path | None = None,
    device: str = "cpu",
    seed: int = 0,
    steps: int = 60_000,
    batch_size: int = 256,
    lr: float = 5e-4,
    ema_decay: float = 0.9995,
    retrieved: int = 200,
    guidance: float = 2.0,
    sampling_steps: int = 25,
    settings: dict[str, Any] | None = None,
    evaluate_every: int = 5000,
    minutes: float | None = None,
) -> tuple[nn.Module, Progress]:
    """Train the denoiser and its adapter together, from nothing.

    Args:
        data: What :func:`~vislens_interp.training.data.read_splits` reads.
        out: Folder for the checkpoint, and for the latents and embeddings of the training images and their mirror
            images, which are computed once.
        weights: Folder of ``embedder64.safetensors`` and ``autoencoder64``; None is two above ``out``.
        retrieved: Held-out images from whose embeddings pictures are made when it is measured; 1,000 after the end.
        guidance: Of those pictures; ``sampling_steps`` likewise.
        settings: Of :func:`build`.

    Returns:
        A :class:`Generator64` with the averaged weights, and the history: the velocities' mean squared error at fixed
        noise, and the share of pictures whose embedding is nearest to the wanted one, among all those wanted.

    Raises:
        FileNotFoundError: The embedder or the autoencoder is not there.
        ValueError: The run began with other ones.
    """
    weights = weights or out.parents[1]
    torch.manual_seed(seed)
    embedder = Embedder64.load(weights / "embedder64.safetensors").to(device)
    autoencoder = autoencoder64.load(weights / "autoencoder64").to(device)
    splits = read_splits(data, 64)
    latents, embeddings = _prepare(out, embedder, autoencoder, splits.train)
    latents, embeddings = latents.to(device), embeddings.to(device)
    wanted_latents = autoencoder64.encode(autoencoder, splits.validation)
    wanted = embed(embedder, splits.validation)
    schedule = scheduler()
    # Half of the time on a CPU goes to norms and attention, which are faster in the ordinary layout; not so on CUDA.
    order = torch.channels_last if torch.device(device).type == "cuda" else torch.contiguous_format
    model: Any = nn.Module.to(build(settings, dim=embedder.dim), device).to(memory_format=order)
    text = torch.zeros(1, 1, model.config["cross_attention_dim"], device=device)  # what prompt=None means in sampling

    def error(network: Any, clean: Tensor, condition: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        noisy = schedule.add_noise(clean, noise, times).contiguous(memory_format=order)
        with mixed_precision(clean.device):
            predicted = network(
                noisy,
                times,
                encoder_hidden_states=text.expand(len(clean), -1, -1),
                added_cond_kwargs={"image_embeds": [condition[:, None]]},
            ).sample
        return mse_loss(predicted.float(), schedule.get_velocity(clean, noise, times))

    def draw(shape: torch.Size, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        noise = torch.randn(shape, generator=generator)
        return noise.to(device), torch.randint(0, 1000, (shape[0],), generator=generator).to(device)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(0, len(latents), (batch_size,), generator=generator).to(device)
        kept = (torch.rand(batch_size, 1, generator=generator) >= DROPPED).to(device)
        clean = latents[rows].float()
        return error(model, clean, embeddings[rows].float() * kept, *draw(clean.shape, generator))

    @torch.no_grad()
    def figures(network: Any, held_out: slice, count: int) -> dict[str, float]:
        generator = torch.Generator().manual_seed(1)
        pairs = zip(wanted_latents[held_out].split(250), wanted[held_out].split(250), strict=True)
        rows = [error(network, clean, x, *draw(clean.shape, generator)) * len(clean) for clean, x in pairs]
        asked = wanted[held_out][:count]
        sampler = Generator64(network, autoencoder).generator(
            device=device, guidance=guidance, steps=sampling_steps, batch_size=100
        )
        made = sampler(asked, seeds=list(range(len(asked))))
        return {
            "velocity_error": (torch.stack(rows).sum() / len(wanted[held_out])).item(),
            f"retrieval_of_{len(asked)}": retrieval(embedder(made), asked),
        }

    average, progress = train(
        model,
        loss,
        out=out,
        steps=steps,
        lr=lr,
        seed=seed,
        minutes=minutes,
        warmup=min(1000, steps // 10),
        ema_decay=ema_decay,
        evaluate=lambda average: figures(average, TUNING, retrieved),
        evaluate_every=evaluate_every,
    )
    add_test_figures(progress, steps, lambda: figures(average, TEST, max(retrieved, 1000)))
    progress.data = splits.describe()
    return Generator64(average, autoencoder).eval(), progress


def _prepare(out: Path, embedder: Embedder64, autoencoder: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Latents and embeddings in half precision, first of all images, then of their mirror images; kept in ``out``."""
    inputs = {
        "embedder64": fingerprint(embedder.state_dict()),
        "autoencoder64": fingerprint(autoencoder.state_dict()),
        "images": fingerprint({"images": images}),
    }
    said, file = out / "inputs.json", out / "latents.safetensors"
    if said.is_file():
        before = json.loads(said.read_text(encoding="utf-8"))
        other = sorted(name for name in inputs if before.get(name) != inputs[name])
        if other and (out / "checkpoint.safetensors").is_file():
            raise ValueError(
                f"checkpoint in {str(out)!r} belongs to a run with another {' and another '.join(other)}; expected "
                "those that it began with. Put them back, or pass another --out."
            )
        if not other and file.is_file():
            stored = load_file(file)
            return stored["latents"], stored["embeddings"]
    both = torch.cat([images, images.flip(-1)])
    latents = autoencoder64.encode(autoencoder, both).half().cpu()
    embeddings = embed(embedder, both).half().cpu()
    tensors = {"latents": latents.contiguous(), "embeddings": embeddings.contiguous()}
    write_atomically(file, lambda temporary: save_file(tensors, temporary))
    write_text(said, json.dumps(inputs))
    return latents, embeddings


def save(model: Generator64, path: Path) -> Path:
    """Write Stable Diffusion's folder and ``adapter.safetensors`` in it, in half precision.

    ``StableDiffusionGenerator.load(path, path / "adapter.safetensors", prompt=None)`` reads it.
    """
    unet, adapter = take_apart(model.unet)
    write_folder(path, {"unet": unet, "vae": model.autoencoder, "scheduler": scheduler()})
    flat = {
        f"{part}.{name}": value.half().cpu().contiguous()
        for part, tensors in adapter.items()
        for name, value in tensors.items()
    }
    write_atomically(path / "adapter.safetensors", lambda temporary: save_file(flat, temporary))
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["vislens_interp.zoo.autoencoder", "PatchAutoencoder"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": [None, None],
        "tokenizer": [None, None],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    }
    write_text(path / "model_index.json", json.dumps(index, indent=2))
    return path
