"""The embedded backend: photographs at 224 px, edited through EfficientNet-Lite0, which travels with the package."""

from pathlib import Path
from typing import Unpack

import torch

from vislens_interp import zoo
from vislens_interp.backends.base import register_backend
from vislens_interp.backends.closed_loop import CHUNK, STEPS, ClosedLoopGenerator, LoopOptions
from vislens_interp.backends.depth_embedder import DepthEmbedder
from vislens_interp.backends.embedding import EmbeddingBackend
from vislens_interp.backends.pyramid_decoder import PyramidDecoder
from vislens_interp.backends.reference_photographs import ReferencePhotographs
from vislens_interp.config import Config
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.validation import check_counts

NAME = "embedded"
NETWORK = "efficientnet_lite0"
STATISTICS, GRID, DECODER, REFERENCE = (
    "embedded/statistics.safetensors",
    "embedded/grid.safetensors",
    "embedded/decoder.safetensors",
    "embedded/reference.zip",
)
FILES = (f"{NETWORK}.safetensors", STATISTICS, GRID, DECODER, REFERENCE)
"""What ships below ``zoo/weights``; the recipes ``decoder`` and ``reference`` write the last four."""

CELLS = 3
"""To a side, of the grid that ships."""
INPUT = 128
"""Side in pixels at which the embedder sees pictures. Read-outs of tuning photographs lost little against 224 px
(SqueezeNet's units: 0.94, 0.90, 0.73 and 0.96, 0.92, 0.74), and an embedding costs a third."""
EDIT_SIZE = 224
"""Side in pixels at which it sees a picture while it is edited. What rises at 224 px carries over to other networks
better than what rises at 128 px (docs/design/diary.md); a step costs 2.3 times as much."""
LATENT_DIM, NOISE = 512, 0.1
"""Of the VAE that fits start from: dimensions of its latent, and the variance in each direction taken for noise."""

# One epoch, for the closed-form start is as good: held-out correlations of nine units were the same after one and ten.
DEFAULTS = Config.of(
    fit={"epochs": 1, "lr": 1e-4, "w_kld": 0.2, "w_consistency": 0.0},
    prior={"block_dim": 1, "axis_scale_sd": 4.0, "gradients": False},
    edit={"alpha": 1.0, "goal": "surrogate_ascent", "interpolation": "lerp", "keep_norm": True},
    optimize={"steps": STEPS, "chunk": CHUNK, "strength": 0.0},
    strength=0.0,
    shuffles=2,
)


def embedded(
    device: torch.device | str = "cpu",
    *,
    folder: str | Path | None = None,
    name: str | None = None,
    cache: str | Path | None = None,
    size: int = 224,
    grid: int | None = None,
    edit_size: int = EDIT_SIZE,
    **options: Unpack[LoopOptions],
) -> EmbeddingBackend:
    """Photographs embedded by the channel means of all depths of EfficientNet-Lite0, and edited in a closed loop.

    At strength 0 an unedited picture is the photograph itself. An edit changes it until the embedding that is read from
    it again has moved as asked, within a limit of pixel change. The target is asked by ``method="optimize"`` alone.

    Args:
        device: Where everything computes.
        folder: A person's own, with what ``python -m vislens_interp.training decoder`` wrote for their images; None is
            what the package brings, by its checksums.
        name: What results and files call the backend; None is ``"embedded"``, or the name of the folder.
        cache: Folder where embeddings are kept; see :class:`~vislens_interp.backends.embedding.EmbeddingBackend`.
        size: Side of the pictures in pixels, a multiple of 32.
        grid: 3 adds to an embedding where in the picture things are, for targets that look at one place of it, as
            single neurons do; the reference photographs are then embedded anew. None is the channel means alone.
        edit_size: Side in pixels at which the embedder sees a picture while it is edited, at most the picture's and at
            least 128, which takes half the time and moves deep units less.
        options: For :class:`~vislens_interp.backends.closed_loop.ClosedLoopGenerator`: ``steps=``, ``change=``.

    Raises:
        FileNotFoundError: A file is missing; the message names it.
        ValueError: A file is damaged, or belongs to another network.
    """
    check_counts(edit_size=edit_size)
    statistics, unused = (STATISTICS, GRID) if grid is None else (GRID, STATISTICS)
    if folder is None:
        place = zoo.WEIGHTS
        for file in FILES:
            if file != unused:
                zoo.weights(file)
    else:
        place = Path(folder)
        wanted = {statistics: "decoder" if grid is None else "reference", DECODER: "decoder"}
        if missing := {file: recipe for file, recipe in wanted.items() if not (place / file).is_file()}:
            raise FileNotFoundError(
                f"folder={str(folder)!r} lacks {', '.join(missing)}; expected what these recipes write: "
                + "; ".join(
                    f"python -m vislens_interp.training {one} --data DIR --out {folder}" for one in missing.values()
                )
            )
    embedder = DepthEmbedder(zoo.load(NETWORK), size=INPUT, grid=grid).load_statistics(place / statistics).to(device)
    decoder = PyramidDecoder.load(place / DECODER, embedder)
    reference = ReferencePhotographs(place / REFERENCE, size, embedder) if (place / REFERENCE).is_file() else None

    def start() -> EmbeddingVAE:
        """The best VAE under N(0, 1) for the reference set, or for embeddings as the embedder standardises them."""
        x = None if reference is None else reference.embeddings()
        if x is None:
            return EmbeddingVAE.principal(
                torch.zeros(embedder.dim),
                torch.eye(embedder.dim) if grid is None else embedder.variances().diag(),
                LATENT_DIM,
                NOISE,
            )
        return EmbeddingVAE.principal(x.mean(0), x.T.cov(correction=0), LATENT_DIM, NOISE)

    return EmbeddingBackend(
        embedder,
        ClosedLoopGenerator(embedder, decoder, size=size, edit_size=max(INPUT, min(size, edit_size)), **options),
        name=name or (NAME if folder is None else place.name),
        defaults=DEFAULTS,
        reference=reference,
        vae_factory=start,
        cache=cache,
    )


register_backend(NAME, embedded)
