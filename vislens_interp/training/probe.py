"""What an embedding holds: nearest neighbours and a linear probe."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from vislens_interp.training.data import Splits, evenly, pixels

AT_ONCE = 500
NEIGHBOURS = 20
STEPS, DECAY = 40, 1e-4
"""Of the linear probe: iterations of L-BFGS on all embeddings at once; weight of the squared norm."""


@torch.no_grad()
def accuracy(network: nn.Module, prepare: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> float:
    """Share of images (uint8) whose largest logit is their label; ``prepare`` takes pixels in [0, 1]."""
    device = next(network.parameters()).device
    hits = [
        (network(prepare(pixels(batch.to(device)))).argmax(1) == truth.to(device)).float()
        for batch, truth in zip(images.split(AT_ONCE), labels.split(AT_ONCE), strict=True)
    ]
    return torch.cat(hits).mean().item()


def knn_accuracy(bank: Tensor, bank_labels: Tensor, queries: Tensor, labels: Tensor) -> float:
    """Share of queries whose label wins the vote of their 20 nearest embeddings, weighed by exp(cosine / 0.07).

    Args:
        bank: Embeddings (N, D) that vote.
        bank_labels: Their labels (N,).
        queries: Embeddings (M, D).
        labels: Their true labels (M,).

    Source: Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, Sec. 3.4.
    """
    bank, classes = normalize(bank.float(), dim=1), int(bank_labels.max()) + 1
    hits = []
    for part, truth in zip(queries.split(1000), labels.split(1000), strict=True):
        cosine, rows = (normalize(part.float(), dim=1) @ bank.T).topk(min(NEIGHBOURS, len(bank)), dim=1)
        votes = torch.zeros(len(part), classes, device=bank.device)
        votes.scatter_add_(1, bank_labels[rows], (cosine / 0.07).exp())
        hits.append((votes.argmax(1) == truth).float())
    return torch.cat(hits).mean().item()


def linear_probe(train: Tensor, train_labels: Tensor, queries: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy of a logistic regression on frozen embeddings.

    Args:
        train: Embeddings (N, D) that it is fitted on, standardised by their own mean and spread.
        train_labels: Their labels (N,).
        queries: Embeddings (M, D).
        labels: Their true labels (M,).
    """
    mean, std = train.float().mean(0), train.float().std(0).clamp_min(1e-6)
    seen, asked = (train.float() - mean) / std, (queries.float() - mean) / std
    classes = int(max(train_labels.max(), labels.max())) + 1
    weight = nn.Parameter(torch.zeros(classes, train.shape[1], device=train.device))
    bias = nn.Parameter(torch.zeros(classes, device=train.device))
    solver = torch.optim.LBFGS([weight, bias], max_iter=STEPS, history_size=10, line_search_fn="strong_wolfe")

    @torch.enable_grad()
    def closure() -> Tensor:
        solver.zero_grad()
        loss = cross_entropy(seen @ weight.T + bias, train_labels) + DECAY * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)  # pyright: ignore[reportArgumentType] (a tensor is what LBFGS takes)
    with torch.no_grad():
        return ((asked @ weight.T + bias).argmax(1) == labels).float().mean().item()


def probes(network: nn.Module, splits: Splits, held_out: slice, bank: int) -> dict[str, float]:
    """20-NN and linear probe top-1 of a network's outputs on these held-out images, from ``bank`` training images."""
    known, asked = embed(network, evenly(splits.train, bank)), embed(network, splits.validation[held_out])
    labels = evenly(splits.train_labels, bank).to(known.device), splits.validation_labels[held_out].to(known.device)
    return {
        "knn20_top1": knn_accuracy(known, labels[0], asked, labels[1]),
        "linear_probe_top1": linear_probe(known, labels[0], asked, labels[1]),
    }


@torch.no_grad()
def embed(network: nn.Module, images: Tensor) -> Tensor:
    """Embeddings (N, D) float32 of bytes (N, 3, H, W), a batch at a time."""
    device = next(network.parameters()).device
    return torch.cat([network(pixels(part.to(device))) for part in images.split(AT_ONCE)])
