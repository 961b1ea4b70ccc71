"""Copies of the same picture in a set: found, kept on one side of every split, permuted together and counted once."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from vislens_interp.images import ImageFiles

_SIDE = 12  # of the thumbnails that are compared: what recompression and another size leave as it is
_PICTURES_APART = 0.14  # root mean square difference of two thumbnails, as a share of their contrast
_FLAT = 0.004  # the same, absolute: one step of 8 bits, for pictures without contrast
_ROWS_APART = 0.02  # squared distance of two rows as a share of that of a random pair, in many dimensions
_CHANCE = 1e-7  # that two independent rows lie so near, in few
_CHUNK = 2048


def thumbnails(images: "Tensor | ImageFiles") -> Tensor:
    """Pictures as rows that hardly change when a picture is resized or recompressed.

    Args:
        images: (N, 3, H, W) in [0, 1], or files that give them in parts (``.split``).

    Returns:
        (N, 432), float32, on the CPU.
    """
    parts = [F.adaptive_avg_pool2d(part.detach().float(), _SIDE).flatten(1).cpu() for part in images.split(64)]
    return torch.cat(parts)


def picture_groups(images: "Tensor | ImageFiles") -> Tensor:
    """Which pictures are copies of one another, identical or resized or recompressed.

    Two are copies if their thumbnails of 12 x 12 differ by less than 0.14 of their contrast; a copy of a copy is one.

    Args:
        images: (N, 3, H, W) in [0, 1], or files.

    Returns:
        (N,) number of each picture's group, from 0, in the order of their first pictures.

    >>> picture_groups(torch.rand(3, 3, 16, 16)[[0, 1, 0, 2]]).tolist()
    [0, 1, 0, 2]
    """
    if isinstance(images, Tensor) and images.ndim != 4:
        return row_groups(images)  # x of a backend whose images are no pictures
    rows = thumbnails(images)
    contrast = rows.std(1, correction=0)
    near = (_PICTURES_APART * contrast).clamp_min(_FLAT)
    return _groups(rows / rows.shape[1] ** 0.5, lambda one, other: near[one][:, None] * near[other][None, :])


def row_groups(x: Tensor) -> Tensor:
    """The same of rows without their pictures, such as embeddings: those that are identical, or all but.

    Args:
        x: (N, ...).

    Returns:
        (N,) number of each row's group.
    """
    rows = x.detach().flatten(1).double().cpu()
    rows = ((rows - rows.mean(0)) / rows.std().clamp_min(1e-300)).float()  # of any scale
    variance = rows.square().sum(1).mean().clamp_min(1e-12)
    some = rows[:: max(1, len(rows) // 512)].double()
    gram = some @ some.T
    dimension = (gram.trace() ** 2 / gram.square().sum().clamp_min(1e-30)).item()  # participation ratio
    apart = min(_ROWS_APART, _CHANCE ** (2 / max(dimension, 1)))
    limit = 2 * variance.item() * apart
    return _groups(rows, lambda one, other: torch.tensor(limit))


def _groups(rows: Tensor, limit: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Connected components of rows whose squared distance is at most ``limit`` of two chunks of rows."""
    count = len(rows)
    pairs: list[Tensor] = []
    places = torch.arange(count).split(_CHUNK)
    squares = rows.square().sum(1)
    for number, one in enumerate(places):
        for other in places[number:]:
            allowed = limit(one, other)
            distance = squares[one][:, None] + squares[other][None, :] - 2 * rows[one] @ rows[other].T
            noise = 1e-5 * (squares[one][:, None] + squares[other][None, :])  # of this quick way to compute it
            near = (distance <= allowed + noise).nonzero()
            for part in near.split(65536):
                exact = (rows[one[part[:, 0]]] - rows[other[part[:, 1]]]).double().square().sum(1)
                kept = part[exact <= allowed.expand_as(distance)[part[:, 0], part[:, 1]]]
                pairs.append(torch.stack([one[kept[:, 0]], other[kept[:, 1]]], 1))
    found = torch.cat(pairs)
    graph = coo_matrix((np.ones(len(found)), (found[:, 0].numpy(), found[:, 1].numpy())), (count, count))
    return renumbered(torch.from_numpy(connected_components(graph, directed=False)[1].astype(np.int64)))


def renumbered(groups: Tensor) -> Tensor:
    """The same groups numbered from 0 in the order of their first rows.

    >>> renumbered(torch.tensor([5, 2, 5, 9])).tolist()
    [0, 1, 0, 2]
    """
    values, places = groups.unique(return_inverse=True)
    order = torch.empty(len(values), dtype=torch.int64)
    order[places[first_rows(groups)]] = torch.arange(len(values))
    return order[places]


def first_rows(groups: Tensor) -> Tensor:
    """The first row of each group, in their order."""
    _, places = np.unique(groups.numpy(), return_index=True)
    return torch.from_numpy(np.sort(places))


def top_rows(column: Tensor, groups: Tensor, count: int) -> list[int]:
    """Rows of the images that drive a unit most, one of each group: crops of one photograph are shown once.

    >>> top_rows(torch.tensor([1.0, 5.0, 4.0, 3.0]), torch.tensor([0, 1, 1, 2]), 2)
    [1, 3]
    """
    order = column.argsort(descending=True, stable=True)
    return order[first_rows(groups[order])[:count]].tolist()


def split_groups(groups: Tensor, held_out: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to learn from and at least ``held_out`` rows that are not, no group on both sides; sorted.

    Without copies these are the rows of a random permutation.

    Args:
        groups: (N,) group of each row.
        held_out: How many rows.
        seed: Of the permutation.
    """
    inside = held_out_mask(groups, torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed)), held_out)
    return (~inside).nonzero()[:, 0], inside.nonzero()[:, 0]


def held_out_mask(groups: Tensor, order: Tensor, held_out: int) -> Tensor:
    """Which rows are held out, (N,): whole groups, as ``order`` meets them, until there are ``held_out`` rows.

    >>> held_out_mask(torch.tensor([0, 1, 0, 2]), torch.tensor([2, 3, 0, 1]), 1).tolist()
    [True, False, True, False]
    """
    _, places, sizes = groups.unique(return_inverse=True, return_counts=True)
    taken = torch.zeros(len(sizes), dtype=torch.bool)
    count = 0
    for group in places[order].tolist():
        if count >= held_out:
            break
        if not taken[group]:
            taken[group] = True
            count += int(sizes[group])
    return taken[places]


def permuted_rows(groups: Tensor, generator: torch.Generator) -> Tensor:
    """A permutation of the pictures as row numbers: all copies of one get the same row, that of another's first.

    Without copies this is ``torch.randperm``.
    """
    first = first_rows(groups)
    return first[torch.randperm(len(first), generator=generator)][groups]


def means(values: Tensor, groups: Tensor) -> Tensor:
    """Mean of each group that there is, (G, ...), in the order of their numbers."""
    _, places, counts = groups.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(counts), *values.shape[1:], dtype=values.dtype).index_add_(0, places, values)
    return sums / counts.to(values).view(-1, *[1] * (values.ndim - 1))
