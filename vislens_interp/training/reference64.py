"""Recipe: the synthetic reference set of the embedded backend, drawn by its generator; no training image is in it."""

import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from tqdm import tqdm

from vislens_interp.backends.reference_archive import write_reference
from vislens_interp.backends.stable_diffusion import StableDiffusionGenerator
from vislens_interp.files import fingerprint, load_state, save_state
from vislens_interp.training.data import read_splits
from vislens_interp.training.embedder64 import embed, evenly
from vislens_interp.training.loop import Progress
from vislens_interp.zoo.embedder import Embedder64

ABOUT = (
    "The synthetic reference set of the embedded backend: pictures that generator64 drew, and the embeddings of "
    "exactly these pictures. None of them is a photograph or a file of a data set. Being synthetic, they drive a "
    "network's units less, and with less variety, than photographs do: for work that matters, fit on real images."
)
BATCH = 25
CHECKPOINT_SECONDS = 60.0


class Drawn(NamedTuple):
    """Pictures (N, 3, S, S) in [0, 1], the best first within each class, and the embedder that belongs to them."""

    images: Tensor
    embedder: Embedder64


def run(
    data: Path,
    out: Path,
    *,
    weights: Path | None = None,
    device: str = "cpu",
    seed: int = 0,
    count: int = 2400,
    kept: float = 0.67,
    learned: int = 20_000,
    spread: float = 1.0,
    guidance: float = 2.0,
    sampling_steps: int = 12,
    minutes: float | None = None,
) -> tuple[Drawn, Progress]:
    """Sample embeddings like those of the training images, draw them, and keep what came out as it was wanted.

    A wanted embedding is a class's mean plus a random mixture of how all images differ from their classes' means: a
    Gaussian of their shared covariance, so that no image's own embedding is asked for.

    Args:
        data: What :func:`~vislens_interp.training.data.read_splits` reads; its statistics alone are used.
        out: Folder of the checkpoint.
        weights: Folder of ``embedder64.safetensors`` and ``generator64``; None is two above ``out``.
        count: Pictures in the finished set.
        kept: Share of the drawn pictures that is kept in each class: those whose embedding came nearest.
        learned: Training images that the statistics are taken of.
        spread: Standard deviations within a class, as a share of the training images'.
        guidance: Of the generator; ``sampling_steps`` likewise.
        minutes: Stop after so many minutes; what was drawn so far makes a smaller set.

    Returns:
        The pictures kept, and how near they came: centred cosines of wanted and obtained embeddings.

    Raises:
        FileNotFoundError: The embedder or the generator is not there.
        ValueError: The run began with other ones.
    """
    weights = weights or out.parents[1]
    embedder = Embedder64.load(weights / "embedder64.safetensors").to(device)
    folder = weights / "generator64"
    generator = StableDiffusionGenerator.load(
        folder,
        folder / "adapter.safetensors",
        prompt=None,
        embedding_dim=embedder.dim,
        device=device,
        dtype=torch.float32,
        guidance=guidance,
        steps=sampling_steps,
        batch_size=BATCH,
        channels_last=True,
    )
    splits = read_splits(data, 64)
    checkpoint, total = out / "checkpoint.safetensors", round(count / kept)
    made_by = {
        "embedder64": fingerprint(embedder.state_dict()),
        "generator64": fingerprint(generator.unet.state_dict()),
    }
    means, residuals = statistics(
        embed(embedder, evenly(splits.train, learned)).cpu(), evenly(splits.train_labels, learned)
    )
    pixels, cosines, seconds = torch.empty(0, 3, 64, 64, dtype=torch.uint8), torch.empty(0), 0.0
    if checkpoint.is_file():
        state = load_state(checkpoint, "reference checkpoint")
        if other := [name for name, value in made_by.items() if state["made_by"][name] != value]:
            raise ValueError(
                f"checkpoint in {str(out)!r} belongs to a run with another {' and another '.join(other)}; expected "
                "those that it began with. Put them back, or pass another --out."
            )
        pixels, cosines, seconds = state["pixels"], state["cosines"], state["seconds"]
    started = saved = time.monotonic()
    before = seconds
    bar = tqdm(total=total, initial=len(pixels), unit="picture", mininterval=5)
    while len(pixels) < total:
        rows = torch.arange(len(pixels), min(total, len(pixels) + BATCH))
        wanted = torch.stack([_wanted(row, means, residuals, spread, seed) for row in rows.tolist()])
        made = generator(wanted.to(device), seeds=[seed + row for row in rows.tolist()])
        with torch.no_grad():
            obtained = embedder(made).cpu()
        pixels = torch.cat([pixels, (made.cpu() * 255).round().to(torch.uint8)])
        cosines = torch.cat([cosines, cosine_similarity(obtained, wanted)])
        seconds = before + time.monotonic() - started
        bar.update(len(rows))
        over = minutes is not None and time.monotonic() - started >= 60 * minutes
        if over or len(pixels) == total or time.monotonic() - saved > CHECKPOINT_SECONDS:
            state = {"pixels": pixels, "cosines": cosines, "seconds": seconds, "made_by": made_by}
            save_state(checkpoint, "reference checkpoint", state)
            saved = time.monotonic()
        if over:
            break
    bar.close()
    rows = best(cosines, len(means), kept)
    figures = {
        "step": len(rows),
        "cosine_wanted_obtained": cosines[rows].mean().item(),
        "cosine_of_all_drawn": cosines.mean().item(),
        "lowest_cosine_kept": cosines[rows].min().item(),
    }
    progress = Progress(step=len(rows), seconds=seconds, history=[figures])
    progress.data = f"statistics of the embeddings of {splits.describe()}; no image"
    return Drawn(pixels[rows].float() / 255, embedder), progress


def statistics(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Each class's mean (C, D), and every embedding's difference from its own class's (N, D)."""
    classes, index = labels.cpu().unique(return_inverse=True)
    sums = torch.zeros(len(classes), embeddings.shape[1]).index_add_(0, index, embeddings)
    means = sums / index.bincount()[:, None]
    return means, embeddings - means[index]


def _wanted(row: int, means: Tensor, residuals: Tensor, spread: float, seed: int) -> Tensor:
    """Mean of class ``row`` modulo their number, plus a mixture of all residuals with their covariance."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + row)
    mixture = torch.randn(len(residuals), generator=generator) / len(residuals) ** 0.5
    return means[row % len(means)] + spread * mixture @ residuals


def best(cosines: Tensor, classes: int, kept: float) -> Tensor:
    """Rows to keep, in order: in each class, whose draws are ``classes`` rows apart, the share of highest cosines."""
    rows = []
    for label in range(min(classes, len(cosines))):
        own = torch.arange(label, len(cosines), classes)
        rows.append(own[cosines[own].argsort(descending=True, stable=True)[: max(1, round(kept * len(own)))]])
    return torch.cat(rows).sort().values


def save(drawn: Drawn, path: Path) -> Path:
    """Write the zip that :class:`~vislens_interp.backends.reference_archive.ReferenceArchive` reads, at most 6 MB."""
    return write_reference(path.with_suffix(".zip"), drawn.images, drawn.embedder.cpu())
