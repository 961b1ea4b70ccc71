"""Backends whose x is an embedding: an embedder carries images there, a diffusion model back."""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Unpack, cast

import torch
from torch import Tensor, nn

from vislens_interp.backends.base import Described, register_backend
from vislens_interp.backends.cache import RowCache, weights_fingerprint
from vislens_interp.backends.closed_loop import ClosedLoopGenerator
from vislens_interp.backends.diffusion.adapters import AdapterState
from vislens_interp.backends.diffusion.generator import LoadOptions, StableDiffusionGenerator
from vislens_interp.backends.diffusion.sdxl import StableDiffusionXLGenerator
from vislens_interp.backends.diffusion.speedups import sampler_of
from vislens_interp.backends.embedders import Embedder, OpenCLIPEmbedder
from vislens_interp.backends.reference_photographs import ReferencePhotographs
from vislens_interp.backends.sources import CLIP, VAE_ALONE, Needs, find, parts_of
from vislens_interp.backends.weights import IP_ADAPTER, IP_ADAPTER_SDXL, OPENCLIP, SD15, SDXL, SDXL_VAE
from vislens_interp.config import Config
from vislens_interp.images import ImageFiles, check_images
from vislens_interp.landscape.vae import VAE, EmbeddingVAE
from vislens_interp.preprocess import describe_preprocess

RENDER_SEED = 42
FILES_AT_ONCE = 64
"""Pictures in memory where they come from files: 200 MB at 512 px."""

PAPER = Config.of(
    # Table S3, column NSD. Its w_kld is not given; on recordings of macaque V4, edits with 0.3 to 3 were alike.
    fit={
        "epochs": 150,
        "batch_size": 128,
        "lr": 1e-4,
        "lr_step": 10,
        "lr_gamma": 0.9,
        "clip": 1.0,
        "w_kld": 1.0,
        "w_consistency": 0.0,
    },
    prior={"block_dim": None, "closed_form_init": False},
    # Algorithm 2. The paper gives no α; BrainACTIV's released presets end at 0.75.
    edit={"alpha": 0.75, "interpolation": "slerp", "keep_norm": True},
    strength=1.0,
    shuffles=2,
)
"""The paper's recipe, as far as it says it; no benchmark has chosen these."""


class EmbeddingBackend(Described):
    """Images to embeddings by an embedder, embeddings to images by a generator: Stable Diffusion, or a closed loop.

    Args:
        name: What results and files call it.
        defaults: Settings of a fit and an edit.
        reference: The backend's own reference images (N, 3, H, W) in [0, 1], a
            :class:`~vislens_interp.backends.reference_photographs.ReferencePhotographs`, whose embeddings are then not
            computed again, or None.
        vae_factory: Makes the VAE that every fit starts from; None: fresh weights, as in the paper.
        cache: Folder where embeddings are kept (``backends/cache.py``), so that no image is embedded twice by the same
            weights, whatever lens, unit or process asks; None keeps none.

    Raises:
        ValueError: The adapter takes other embeddings than the embedder makes.

    Source: Algorithm 2.
    """

    def __init__(
        self,
        embedder: Embedder,
        generator: StableDiffusionGenerator | ClosedLoopGenerator,
        *,
        name: str,
        defaults: Config = PAPER,
        reference: Tensor | ReferencePhotographs | None = None,
        vae_factory: Callable[[], VAE] | None = None,
        cache: str | Path | None = None,
    ) -> None:
        if embedder.dim != generator.embedding_dim:
            raise ValueError(
                f"embedder makes {embedder.dim}-d embeddings, but the generator takes {generator.embedding_dim}; "
                "expected the same. Use the adapter that was trained on this embedder."
            )
        if cache is not None and not isinstance(embedder, nn.Module):
            raise TypeError(
                f"cache={str(cache)!r} is kept under a hash of the embedder's weights, and a {type(embedder).__name__} "
                "is no nn.Module; expected one. Leave cache out."
            )
        self.embedder, self.generator = embedder, generator
        self.name, self.defaults = name, defaults
        self.size = generator.size
        self.shape: tuple[int, ...] = (embedder.dim,)
        self.device = generator.device
        self._reference = check_images(reference, "reference") if isinstance(reference, Tensor) else reference
        self._vae_factory, self.cache = vae_factory, cache
        self._vae: VAE | None = None

    encodes_files = True
    """A cache knows files by name and does not read them."""
    differentiable = False
    """Whether pictures have gradients with respect to x."""

    def encode(self, images: Tensor | ImageFiles) -> Tensor:
        """Images (N, 3, H, W), in memory or in files, to un-normalised embeddings (N, D)."""
        if isinstance(images, ReferencePhotographs) and (known := images.embeddings()) is not None:
            return known.to(self.device)
        if isinstance(images, ImageFiles) and hasattr(self.embedder, "embed_files"):
            # As the network's published transform reads files, and not over the size of the backend's own pictures.
            images, side = copy.copy(images), self.embedder.size
            images.size, images.shape = side, (*images.shape[:2], side, side)
        in_zip = isinstance(images, ReferencePhotographs)  # without paths, by which a cache knows files
        if self.cache is not None and not in_zip and not (isinstance(images, Tensor) and images.requires_grad):
            return self._from_cache(images)
        if isinstance(images, ImageFiles):
            return torch.cat([self.encode(part) for part in images.split(FILES_AT_ONCE)])
        return self.embedder(images).to(self.device)

    def _from_cache(self, images: Tensor | ImageFiles) -> Tensor:
        size = images.size if isinstance(images, ImageFiles) else None  # what files are read at before they are seen
        network = cast(nn.Module, self.embedder)
        preprocess = getattr(network, "preprocess", None)
        seen_as = None if preprocess is None else describe_preprocess(preprocess)
        fingerprint = weights_fingerprint(network, kind=type(network).__name__, size=size, preprocess=seen_as)
        source = images.paths if isinstance(images, ImageFiles) else images
        rows = RowCache(cast(Path, self.cache), "embeddings", fingerprint).rows(
            source, self.embedder, size=size, batch_size=FILES_AT_ONCE
        )
        return rows.tensor().to(self.device)

    @property
    def closed_loop(self) -> ClosedLoopGenerator | None:
        """The generator, where it can change a picture until what is read from it again scores higher."""
        return self.generator if isinstance(self.generator, ClosedLoopGenerator) else None

    def render(self, x: Tensor) -> Tensor:
        """The images that embeddings (N, D) describe, from noise of one seed."""
        return self.decode(x, init_image=None, strength=1.0, seeds=[RENDER_SEED] * len(x))

    def decode(self, x: Tensor, *, init_image: Tensor | None, strength: float, seeds: list[int]) -> Tensor:
        """Embeddings (N, D) to images (N, 3, S, S), starting from ``init_image`` where ``strength`` is below 1."""
        return self.generator(x, init_image=init_image, strength=strength, seeds=seeds)

    def reference_images(self) -> Tensor | ImageFiles | None:
        """The backend's own reference images, or None."""
        return self._reference

    def vae(self) -> VAE:
        """The embedding VAE that every fit starts from, the same each time."""
        if self._vae_factory is not None:
            if self._vae is None:
                self._vae = self._vae_factory().to(self.device)
            return copy.deepcopy(self._vae)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return EmbeddingVAE(*self.shape).to(self.device)

    def feature_extractor(self) -> Callable[[Tensor], Tensor] | None:
        """None: there is no unrelated network here; the embedding is what is edited."""
        return None


Source = tuple[str | Path | Mapping[str, object], Needs, str | None]
"""A file, a folder, an id on the hub or tensors; the files that it has to hold; its revision on the hub."""


class StableDiffusionOptions(LoadOptions, total=False):
    """Keyword arguments of :func:`sd15` and :func:`sdxl`; the former says what each of them means."""

    config: str | Path
    clip_revision: str | None
    architecture: str
    reference: Tensor | None
    cache: str | Path | None


def sd15(
    device: torch.device | str = "cpu",
    *,
    model: str | Path = SD15.repo_id,
    adapter: str | Path | AdapterState = IP_ADAPTER.repo_id,
    clip: str | Path = OPENCLIP.repo_id,
    **options: Unpack[StableDiffusionOptions],
) -> EmbeddingBackend:
    """The paper's full path: CLIP ViT-H/14, IP-Adapter and Stable Diffusion 1.5 at 512 px.

    Args:
        device: Where everything computes.
        model: Stable Diffusion: an id on the hub, a folder or a single file.
        adapter: IP-Adapter: an id, a folder, a file or its weights.
        clip: open_clip's ViT-H-14: an id, a folder or a file.
        adapter_file: File within the adapter's folder or repository; None is ``models/ip-adapter_sd15.safetensors``.
        revision: Branch, tag or commit of ``model`` on the hub; ``adapter_revision``, ``clip_revision`` likewise.
        architecture: open_clip's name of the network where ``clip`` is a file; "ViT-H-14" unless told otherwise.
        local_files_only: Never download, unless it is False; `vislens download sd15` does that.
        dtype: Precision of both; None is float16 on CUDA and float32 elsewhere.
        reference: Reference images of the backend; None: a lens is fitted on images that are given to it.
        cache: Folder where embeddings are kept; see :class:`EmbeddingBackend`.
        options: The others are for :meth:`StableDiffusionGenerator.load`, such as ``num_inference_steps=``,
            ``guidance_scale=``, ``batch_size=``, or ``speedup="hyper-sd"`` for 8 steps.

    Raises:
        FileNotFoundError: Weights are missing; the message says which, and how to get them.
        ValueError: A file is damaged or of another kind.
    """
    needs = parts_of(text=options.get("prompt", "") is not None)
    sources: dict[str, Source] = {"model": (model, needs, options.get("revision"))}
    kind = StableDiffusionGenerator
    return _of_stable_diffusion("sd15", kind, partial(kind.load, model), sources, adapter, clip, device, options)


def sdxl(
    device: torch.device | str = "cpu",
    *,
    model: str | Path = SDXL.repo_id,
    vae: str | Path | None = SDXL_VAE.repo_id,
    adapter: str | Path | AdapterState = IP_ADAPTER_SDXL.repo_id,
    clip: str | Path = OPENCLIP.repo_id,
    **options: Unpack[StableDiffusionOptions],
) -> EmbeddingBackend:
    """The paper's path with Stable Diffusion XL at 1,024 px; arguments as for :func:`sd15`, and one more.

    The embedder is that of ``"sd15"``, so embeddings, their cache and fitted landscapes serve both.

    Args:
        vae: An id or a folder with the VAE alone; None takes the one in ``model``, which leaves float16's range.
    """
    needs = parts_of(text=options.get("prompt", "") is not None, xl=True, vae=vae is None)
    sources: dict[str, Source] = {"model": (model, needs, options.get("revision"))}
    if vae is not None:
        sources["vae"] = (vae, VAE_ALONE, None)
    kind = StableDiffusionXLGenerator
    return _of_stable_diffusion(
        "sdxl", kind, partial(kind.load, model, vae=vae), sources, adapter, clip, device, options
    )


def _of_stable_diffusion(
    name: str,
    kind: type[StableDiffusionGenerator],
    load: Callable[..., StableDiffusionGenerator],
    sources: dict[str, Source],
    adapter: str | Path | AdapterState,
    clip: str | Path,
    device: torch.device | str,
    options: StableDiffusionOptions,
) -> EmbeddingBackend:
    """The embedder and a generator, after everything that is missing was said at once."""
    adapter_file, clip_revision = options.get("adapter_file"), options.pop("clip_revision", None)
    local_files_only = options.get("local_files_only", True)
    sources = {
        "clip": (clip, CLIP, clip_revision),
        **sources,
        "adapter": (
            adapter,
            ((adapter_file,),) if adapter_file else kind.adapter_files,
            options.get("adapter_revision"),
        ),
    }
    if (speedup := options.get("speedup")) is not None:
        sampler = sampler_of(speedup, None, None, kind.samplers)
        weights = options.get("speedup_weights") or sampler.published.repo_id
        sources["speedup_weights"] = (weights, ((sampler.file,),), None)
    _check_present(sources, local_files_only, name)
    device = torch.device(device)
    precision = options.get("dtype") or (torch.float16 if device.type == "cuda" else torch.float32)
    embedder = OpenCLIPEmbedder.load(
        clip,
        architecture=options.pop("architecture", "ViT-H-14"),
        revision=clip_revision,
        local_files_only=local_files_only,
        device=device,
        dtype=precision,
    )
    reference, cache = options.pop("reference", None), options.pop("cache", None)
    generator = load(adapter, embedding_dim=embedder.dim, device=device, **{**options, "dtype": precision})
    return EmbeddingBackend(embedder, generator, name=name, reference=reference, cache=cache)


def _check_present(sources: dict[str, Source], local_files_only: bool, backend: str) -> None:
    """Say all that is missing at once, before gigabytes are read."""
    problems = []
    for argument, (source, needs, revision) in sources.items():
        if isinstance(source, Mapping) or Path(source).expanduser().is_file():
            continue
        try:
            find(source, needs, argument=argument, revision=revision, local_files_only=local_files_only)
        except FileNotFoundError as error:
            problems.append(str(error).replace("download sd15", f"download {backend}"))
    if problems:
        raise FileNotFoundError(" ".join(problems))


register_backend("sd15", sd15)
register_backend("sdxl", sdxl)
