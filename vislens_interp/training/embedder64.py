"""Recipe: the small embedder of the embedded backend, from labels and from agreement between views of an image."""

import copy
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import update_bn

from vislens_interp.files import write_atomically
from vislens_interp.precision import mixed_precision
from vislens_interp.training.data import TEST, TUNING, Splits, pixels, read_splits, views
from vislens_interp.training.loop import Progress, add_test_figures, train
from vislens_interp.training.probe import knn_accuracy, linear_probe, retrieval
from vislens_interp.zoo.embedder import Embedder64

ABOUT = "A compact ResNet at 64 pixels whose standardised 512-d output is the embedding."


class Pupil(nn.Module):
    """The embedder with the two heads that only its training needs."""

    def __init__(self, embedder: Embedder64, classes: int) -> None:
        super().__init__()
        from lightly.models.modules import SimCLRProjectionHead

        self.embedder = embedder
        self.classify = nn.Linear(embedder.dim, classes)
        self.project = SimCLRProjectionHead(embedder.dim, embedder.dim, 128)


def run(
    data: Path,
    out: Path,
    *,
    device: str = "cpu",
    seed: int = 0,
    epochs: int = 120,
    batch_size: int = 256,
    lr: float = 2e-3,
    w_self: float = 0.3,
    temperature: float = 0.2,
    small: int = 64,
    small_share: float = 0.7,
    minutes: float | None = None,
    steps: int | None = None,
) -> tuple[nn.Module, Progress]:
    """Train :class:`Embedder64` on two views of each image.

    Args:
        data: What :func:`~vislens_interp.training.data.read_splits` reads.
        out: Folder for the checkpoint.
        w_self: Weight of SimCLR's loss beside the labels' cross-entropy. Images of one class have no labels to learn
            from: its weight is then 1 and the labels' 0.
        temperature: Of SimCLR's loss.
        small: Side in pixels of the views in the first ``small_share`` of the steps; 40 costs half of 64, which is what
            two cores can pay.
        steps: The whole run's, instead of ``epochs``.

    Returns:
        The averaged embedder and the history: 20-NN and linear probe top-1 (where there are classes), and the share of
        views whose nearest neighbour among all images' other views is their own image's.

    Source of the loss: Chen et al. 2020 (SimCLR), by lightly's NTXentLoss and projection head.
    """
    from lightly.loss import NTXentLoss

    torch.manual_seed(seed)
    splits = read_splits(data, 64)
    images, labels = splits.train.to(device), splits.train_labels.to(device)
    model = Pupil(Embedder64(), len(splits.classes)).to(device).to(memory_format=torch.channels_last)
    contrast = NTXentLoss(temperature)
    labelled = len(splits.classes) > 1
    w_labels, weight = (1.0, w_self) if labelled else (0.0, 1.0)
    per_epoch = max(1, len(images) // batch_size)
    total = steps or epochs * per_epoch

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(0, len(images), (batch_size,), generator=generator).to(device)
        side = small if step < small_share * total else images.shape[-1]
        model.embedder.preprocess.size = side  # of this model's alone; what is measured and kept sees whole images
        with mixed_precision(images.device):
            both = model.embedder(torch.cat([views(images[rows], generator, size=side) for _ in range(2)]))
            logits, projected = model.classify(both), model.project(both)
        one, other = projected.float().chunk(2)
        named = cross_entropy(logits.float(), labels[rows].repeat(2), label_smoothing=0.1)
        return w_labels * named + weight * contrast(one, other)

    def evaluate(average: nn.Module) -> dict[str, float]:
        return figures(settle(cast(Pupil, average).embedder, splits.train), splits, TUNING)

    average, progress = train(
        model,
        loss,
        out=out,
        steps=total,
        lr=lr,
        seed=seed,
        minutes=minutes,
        weight_decay=0.05,
        warmup=min(500, total // 10),
        evaluate=evaluate,
        evaluate_every=10 * per_epoch,
    )
    embedder = settle(cast(Pupil, average).embedder, splits.train)
    add_test_figures(progress, total, lambda: figures(embedder, splits, TEST, bank=len(splits.train)))
    progress.data = splits.describe()
    return embedder, progress


@torch.no_grad()
def settle(embedder: Embedder64, images: Tensor) -> Embedder64:
    """A copy whose batch norms know its own outputs for clean images, no longer a training network's for views.

    Args:
        embedder: The averaged embedder.
        images: Bytes (N, 3, H, W), of which 10,000 evenly chosen are seen.
    """
    embedder = copy.deepcopy(embedder)
    seen = evenly(images, 10_000)
    update_bn([pixels(part) for part in seen.split(500)], embedder, next(embedder.parameters()).device)
    embedder.eval()
    raw = torch.cat([embedder.features(pixels(part)) for part in seen.split(500)])
    cast(Tensor, embedder.standardise.running_mean).copy_(raw.mean(0))
    cast(Tensor, embedder.standardise.running_var).copy_(raw.var(0, unbiased=False))
    return embedder


def evenly(rows: Tensor, count: int) -> Tensor:
    """About ``count`` rows, evenly spaced; all of them where there are fewer."""
    return rows[:: max(1, len(rows) // count)]


@torch.no_grad()
def figures(embedder: Any, splits: Splits, held_out: slice, *, bank: int = 10_000) -> dict[str, float]:
    """What the embeddings of these held-out images say about their labels, and about other views of the same image.

    Neighbours and probe know ``bank`` of the training images: fewer during a run, which on a CPU would otherwise spend
    most of its time on this.
    """
    asked = splits.validation[held_out]
    generator = torch.Generator().manual_seed(1)
    one, other = (embedder(views(asked[:1000], generator)) for _ in range(2))
    found = {"view_retrieval": retrieval(one, other)}
    if len(splits.classes) > 1:
        found |= probes(embedder, splits, held_out, bank)
    return found


def probes(network: Any, splits: Splits, held_out: slice, bank: int) -> dict[str, float]:
    """20-NN and linear probe top-1 of a network's outputs on these held-out images, from ``bank`` training images."""
    known, asked = embed(network, evenly(splits.train, bank)), embed(network, splits.validation[held_out])
    labels = evenly(splits.train_labels, bank).to(known.device), splits.validation_labels[held_out].to(known.device)
    return {
        "knn20_top1": knn_accuracy(known, labels[0], asked, labels[1]),
        "linear_probe_top1": linear_probe(known, labels[0], asked, labels[1]),
    }


@torch.no_grad()
def embed(network: Any, images: Tensor, batch_size: int = 500) -> Tensor:
    """Embeddings (N, D) float32 of bytes (N, 3, H, W), a batch at a time."""
    device = next(network.parameters()).device
    return torch.cat([network(pixels(part.to(device))) for part in images.split(batch_size)])


def save(model: nn.Module, path: Path) -> Path:
    """Write the weights in half precision, what ``Embedder64.load`` reads."""
    weights = {
        name: (value.half() if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    return write_atomically(path.with_suffix(".safetensors"), lambda temporary: save_file(weights, temporary))
