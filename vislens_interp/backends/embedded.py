"""The embedded backend: our own small embedder and generator, which travel with the package or are a person's own."""

from pathlib import Path
from typing import Any

import torch

from vislens_interp import zoo
from vislens_interp.backends.base import register_backend
from vislens_interp.backends.embedding import EmbeddingBackend
from vislens_interp.backends.reference_archive import ReferenceArchive
from vislens_interp.backends.stable_diffusion import StableDiffusionGenerator
from vislens_interp.config import Config
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.zoo.embedder import Embedder64

NAME = "embedded"
EMBEDDER, GENERATOR, REFERENCE = "embedder64.safetensors", "generator64", "reference64.zip"
FILES = (
    EMBEDDER,
    f"{GENERATOR}/adapter.safetensors",
    f"{GENERATOR}/scheduler/scheduler_config.json",
    f"{GENERATOR}/unet/config.json",
    f"{GENERATOR}/unet/diffusion_pytorch_model.safetensors",
    f"{GENERATOR}/vae/config.json",
    f"{GENERATOR}/vae/diffusion_pytorch_model.safetensors",
    REFERENCE,
)
"""What ships below ``zoo/weights``; the recipes write the same names (docs/training64.md)."""

LATENT_DIM, NOISE = 512, 0.1
"""Of the VAE that fits start from: dimensions of its latent, and the variance in each direction taken for noise."""

# goal="surrogate_ascent" moved the responses of natural neighbours furthest on tuning units (ARCHITECTURE.md, What
# measurement changed); `embedded_backend.py retrieval --tune` compares. The rest was chosen before anything was
# measured, after what the pixel landscape taught; benchmarks/embedded_tuning.py measures.
DEFAULTS = Config.of(
    fit={"epochs": 10, "lr": 1e-4, "w_kld": 0.2, "w_consistency": 0.0},
    prior={"block_dim": 1, "axis_scale_sd": 4.0, "gradients": False},
    edit={"alpha": 1.0, "goal": "surrogate_ascent", "interpolation": "lerp", "keep_norm": True},
    optimize={"steps": 20, "lr": 0.1, "w_kld": 1e-3, "move": "all", "scale": "spread", "chunk": 8, "strength": 0.6},
    strength=1.0,
    shuffles=2,
)
SAMPLING: dict[str, Any] = {"guidance": 2.0, "steps": 12}
RENDER_STEPS = 2


def embedded(
    device: torch.device | str = "cpu",
    *,
    folder: str | Path | None = None,
    name: str | None = None,
    cache: str | Path | None = None,
    **options: Any,
) -> EmbeddingBackend:
    """Images at 64 px through ``embedder64`` and ``generator64``: the same classes as the path to 512 px, smaller.

    Args:
        device: Where everything computes.
        folder: A person's own, with what the recipes ``embedder64``, ``generator64`` and, if it is there,
            ``reference64`` wrote; None is what the package brings, by its checksums.
        name: What results and files call the backend; None is ``"embedded"``, or the name of the folder.
        cache: Folder where embeddings are kept; see :class:`~vislens_interp.backends.embedding.EmbeddingBackend`.
        options: For :class:`~vislens_interp.backends.stable_diffusion.StableDiffusionGenerator`: ``steps=``,
            ``guidance=``, ``batch_size=``.

    Raises:
        FileNotFoundError: A file is missing; the message names it.
        ValueError: A file is damaged, or the reference set belongs to another embedder.

    The reference set is synthetic: pictures that the generator made, none of them a photograph.
    """
    if folder is None:
        place = zoo.WEIGHTS
        for file in FILES:
            zoo.weights(file)
    else:
        place = Path(folder)
        if missing := [file for file in FILES if file != REFERENCE and not (place / file).is_file()]:
            raise FileNotFoundError(
                f"folder={str(folder)!r} lacks {', '.join(missing)}; expected what the recipes embedder64, "
                "autoencoder64 and generator64 write. Train them: python -m vislens_interp.training NAME --data DIR "
                f"--out {folder}"
            )
    embedder: Any = Embedder64.load(place / EMBEDDER)  # its device is a property, which the protocol does not foresee
    generator = StableDiffusionGenerator.load(
        place / GENERATOR,
        place / GENERATOR / "adapter.safetensors",
        prompt=None,
        embedding_dim=embedder.dim,
        device=device,
        dtype=torch.float32,  # small enough; half precision would buy nothing
        **{"batch_size": 16, "channels_last": True, **SAMPLING, **options},
    )
    reference = ReferenceArchive(place / REFERENCE, embedder) if (place / REFERENCE).is_file() else None

    def start() -> EmbeddingVAE:
        """The best VAE under N(0, 1) for the reference set, or for embeddings as the embedder standardises them."""
        if reference is None:
            return EmbeddingVAE.principal(torch.zeros(embedder.dim), torch.eye(embedder.dim), LATENT_DIM, NOISE)
        x = reference.embeddings
        return EmbeddingVAE.principal(x.mean(0), x.T.cov(correction=0), LATENT_DIM, NOISE)

    return EmbeddingBackend(
        embedder.to(device),
        generator,
        name=name or (NAME if folder is None else place.name),
        defaults=DEFAULTS,
        reference=reference,
        vae_factory=start,
        render_steps=RENDER_STEPS,
        cache=cache,
    )


register_backend(NAME, embedded)
