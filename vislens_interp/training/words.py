"""Recipe: the read-out of ImageNet's classes from the embedded backend's embeddings, in closed form."""

import time
from pathlib import Path

import torch
from torch import Tensor

from vislens_interp import zoo
from vislens_interp.backends.base import get_backend
from vislens_interp.backends.embedded import NETWORK
from vislens_interp.evaluation.words import SHIPPED, WordReadout
from vislens_interp.files import fingerprint
from vislens_interp.reference import ReferenceSet
from vislens_interp.training.data import TEST, TUNING, evenly, pixels, read_splits
from vislens_interp.training.loop import Progress

ABOUT = (
    "Names the directions of the embedded backend's embeddings by ImageNet's 1,000 classes: a ridge regression from "
    "embeddings to the class scores that EfficientNet-Lite0's own head gives to the same pictures. No other network's "
    "head has a part in it, and no label. Terms of the read-out: Apache-2.0."
)
SOURCE = "the ImageNet classes of EfficientNet-Lite0's head, the embedder's own"


def run(
    data: Path,
    out: Path,
    *,
    device: str = "cpu",
    images: int = 8000,
    ridge: float = 0.1,
) -> tuple[WordReadout, Progress]:
    """Fit it on images of a folder and on the backend's reference photographs; minutes on a processor.

    Args:
        data: What :func:`~vislens_interp.training.data.read_splits` reads; labels are not used.
        out: Not used: nothing is resumed.
        images: How many images are used, evenly over the sorted names.
        ridge: Penalty, in mean variances of an embedding's dimension.

    Returns:
        The read-out, and for held-out images the correlation of its scores with the head's.
    """
    from torchvision.models import SqueezeNet1_0_Weights

    started = time.monotonic()
    backend = get_backend("embedded", device)
    embedder, network = backend.embedder, zoo.load(NETWORK)  # pyright: ignore[reportAttributeAccessIssue]
    splits = read_splits(data, 64)
    some = evenly(splits.train, images)[:images]
    reference = ReferenceSet.of_backend(backend)
    assert reference is not None  # it travels with the package

    @torch.no_grad()
    def read(part: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings, and the head's scores at the embedder's size."""
        scores = [embedder.network(embedder.preprocess(some)) for some in part.to(device).split(embedder.batch_size)]
        return embedder(part).double().cpu(), torch.cat(scores).double().cpu()

    parts = [read(pixels(part)) for part in some.split(64)] + [read(part) for part in reference.parts()]
    x, scores = (torch.cat([part[index] for part in parts]) for index in range(2))
    centre, level = x.mean(0), scores.mean(0)
    gram = (x - centre).T @ (x - centre)
    gram.diagonal().add_(ridge * gram.diagonal().mean())
    weights = torch.linalg.solve(gram, (x - centre).T @ (scores - level))
    # What all classes have in common names none of them.
    weights = weights - weights.mean(1, keepdim=True)

    def figure(rows: slice) -> float:
        held, truth = read(pixels(splits.validation[rows][:500]))
        told = (held - centre) @ weights
        stacked = torch.stack([told, truth - level - (truth - level).mean(1, keepdim=True)])
        return torch.stack([pair.corrcoef()[0, 1] for pair in stacked.transpose(0, 2).mT]).nanmean().item()

    names = SqueezeNet1_0_Weights.IMAGENET1K_V1.meta["categories"]
    readout = WordReadout(
        names,
        weights,
        SOURCE,
        embedder=fingerprint(embedder.state_dict()),
        teacher=fingerprint(network.state_dict()),
    )
    history = [{"step": 1, "correlation": figure(TUNING), "test_correlation": figure(TEST)}]
    used = f"{len(some):,} images ({splits.describe()}) and the {len(reference):,} reference photographs of the backend"
    return readout, Progress(1, time.monotonic() - started, history, used)


def save(model: WordReadout, path: Path) -> Path:
    """Write what ships as ``embedded/words.safetensors``."""
    return model.save(path.parent / SHIPPED)
