"""Which units of a layer are worth a look: sparse ones, selective ones, predictable ones; and which are dead."""

import os
from dataclasses import dataclass
from typing import Literal, Unpack, get_args

import torch
from torch import Tensor, nn

from vislens_interp.copies import row_groups, split_groups
from vislens_interp.images import ImageSource
from vislens_interp.math import pearson, ridge_loo
from vislens_interp.targets.reading import Reading
from vislens_interp.targets.whole_layer import LayerTable, pictures_for, read_layer
from vislens_interp.validation import check_whole, check_word

By = Literal["sparsity", "selectivity", "evidence"]

_CONSTANT = 1e-6  # of a unit's largest response: less than this is rounding
_STRONGEST = 0.01
_MIN_IMAGES = 20
_HELD_OUT = 0.2
_PENALTIES = torch.logspace(-9, 0, 19, dtype=torch.float64)  # of the largest squared singular value


@dataclass(frozen=True)
class TopUnits:
    """Units of a layer in the order of a score.

    Args:
        by: Which score.
        units: Units, best first.
        scores: Score of each of ``units``.
        all_scores: (K,) of every unit; NaN for constant ones.
        dead: Units that answer 0 to every image.
        constant: Units that answer every image alike, dead ones among them.
        table: The responses behind it.
    """

    by: By
    units: list[int]
    scores: list[float]
    all_scores: Tensor
    dead: list[int]
    constant: list[int]
    table: LayerTable

    def __str__(self) -> str:
        layer = self.table.target.get("layer") or "the output"
        images, units = self.table.responses.shape
        ranked = ", ".join(f"{unit} ({score:.2f})" for unit, score in zip(self.units, self.scores, strict=True))
        return (
            f"{layer}: {units} units on {images} images, by {self.by}: {ranked}\n"
            f"{len(self.dead)} dead: {_listed(self.dead)}\n"
            f"{len(self.constant) - len(self.dead)} constant but not 0: "
            f"{_listed(sorted(set(self.constant) - set(self.dead)))}"
        )


def top_units(
    model: nn.Module,
    layer: str | nn.Module | None,
    images: ImageSource,
    *,
    by: By = "sparsity",
    count: int = 10,
    embeddings: Tensor | None = None,
    path: str | os.PathLike[str] | None = None,
    progress: bool = False,
    **reading: Unpack[Reading],
) -> TopUnits:
    """Rank all units of a layer by what their responses to a set of images look like.

    Args:
        model: The network; left as it was.
        layer: Dotted name, module, or None for the model's own output.
        images: At least 20: (N, 3, H, W) in [0, 1], PIL images, paths or a folder.
        by: ``"sparsity"``, see :func:`sparsity`; ``"selectivity"``, see :func:`selectivity`; ``"evidence"``, how well a
            unit's responses can be predicted from embeddings, see :func:`predictability`.
        count: How many to list.
        embeddings: (N, D) of the same images, in the same order, for ``by="evidence"``:
            ``backend.encode(images).flatten(1)``, say.
        path: File to stream the responses to; None keeps them in memory. See
            :func:`~vislens_interp.targets.whole_layer.read_layer`.
        progress: Show a progress bar.
        reading: For :class:`~vislens_interp.targets.LayerTarget`: ``pool=``, ``layout=``, ``preprocess=``, ...

    Returns:
        The best units, and the dead and the constant ones.

    Raises:
        ValueError: An argument does not fit; the message says how.

    >>> from vislens_interp.preprocess import Preprocess
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    >>> found = top_units(model, "1", torch.rand(30, 3, 8, 8), count=2, preprocess=Preprocess(8, [0], [1]))
    >>> len(found.units)
    2
    """
    images = pictures_for(model, images, reading)
    _check(by, count, len(images), embeddings)
    return rank(read_layer(model, layer, images, path, progress=progress, **reading), by, count, embeddings)


def rank(table: LayerTable, by: By = "sparsity", count: int = 10, embeddings: Tensor | None = None) -> TopUnits:
    """Rank the units of a table, see :func:`top_units`."""
    responses = table.responses
    _check(by, count, len(responses), embeddings)
    low, high = responses.aminmax(dim=0)
    flat = high - low <= _CONSTANT * torch.maximum(low.abs(), high.abs())
    scores = torch.full((responses.shape[1],), torch.nan, dtype=torch.float64)
    varied = (~flat).nonzero().flatten()
    for part in varied.split(256):  # of a table that may be larger than memory
        columns = responses[:, part].double()
        if by == "sparsity":
            scores[part] = sparsity(columns)
        elif by == "selectivity":
            scores[part] = selectivity(columns)
        elif embeddings is not None:
            scores[part] = predictability(columns, embeddings)
    order = scores.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)[: min(count, len(varied))]
    return TopUnits(
        by=by,
        units=order.tolist(),
        scores=scores[order].tolist(),
        all_scores=scores,
        dead=((low == 0) & (high == 0)).nonzero().flatten().tolist(),
        constant=flat.nonzero().flatten().tolist(),
        table=table,
    )


def sparsity(responses: Tensor) -> Tensor:
    """How few images drive a unit: 0 where all do alike, 1 where a single one does.

    Args:
        responses: (N, K).

    Returns:
        (K,), float64: (1 - (Σr/N)² / (Σr²/N)) / (1 - 1/N), lifetime sparseness.

    Source: Vinje and Gallant, Science 287, 2000, after Rolls and Tovee 1995. Deviation: a unit whose responses go
    below 0, as they do before a rectification, is first lifted so that its lowest response is 0.

    >>> sparsity(torch.eye(4)[:, :1])
    tensor([1.], dtype=torch.float64)
    """
    values = responses.double()
    values = values - values.amin(0).clamp_max(0)
    count = len(values)
    return (1 - values.mean(0) ** 2 / (values**2).mean(0)) / (1 - 1 / count)


def selectivity(responses: Tensor) -> Tensor:
    """How far a unit's strongest images stand out: their mean response, in SDs above the mean of all.

    The strongest are one in a hundred, at least one. Of a normal distribution they lie 2.7 SDs out.

    Args:
        responses: (N, K).

    Returns:
        (K,), float64.

    >>> selectivity(torch.tensor([[0.0], [0.0], [0.0], [4.0]]))
    tensor([1.7321], dtype=torch.float64)
    """
    values = responses.double()
    strongest = values.topk(max(1, round(_STRONGEST * len(values))), dim=0).values.mean(0)
    return (strongest - values.mean(0)) / values.std(0, correction=0)


def predictability(responses: Tensor, embeddings: Tensor, *, seed: int = 0) -> Tensor:
    """How well a unit's responses can be predicted from embeddings: Pearson correlation on held-out images.

    A ridge regression with a bias on four fifths of the images, the penalty of each unit by its leave-one-out error
    there; the correlation over the other fifth. Images whose embeddings are all but identical lie on one side. A unit
    with none cannot be moved by a landscape of these embeddings.

    Args:
        responses: (N, K).
        embeddings: (N, D).
        seed: Of the split.

    Returns:
        (K,), float64, from -1 to 1.

    Source: :func:`~vislens_interp.math.ridge_loo`.
    """
    x, r = embeddings.double().cpu(), responses.double().cpu()
    kept, held = split_groups(row_groups(x), max(2, round(_HELD_OUT * len(x))), seed=seed)
    weights, *_ = ridge_loo(x[kept], r[kept], _PENALTIES, relative=True)
    return pearson(x[held] @ weights, r[held])


def _check(by: str, count: int, images: int, embeddings: Tensor | None) -> None:
    check_word("by", by, get_args(By))
    check_whole(1, count=count)
    if images < _MIN_IMAGES:
        raise ValueError(f"images: {images} came; expected at least {_MIN_IMAGES} to rank units. Pass more.")
    if (by == "evidence") != (embeddings is not None):
        came = "not given" if embeddings is None else "given, which only 'evidence' takes"
        raise ValueError(
            f"by={by!r}, but embeddings were {came}; expected (N, D) embeddings of the same images with by='evidence'"
            " alone, such as backend.encode(images).flatten(1)."
        )
    if embeddings is not None and (embeddings.ndim != 2 or len(embeddings) != images):
        raise ValueError(
            f"embeddings has shape {tuple(embeddings.shape)}; expected ({images}, D), one row an image. Flatten what is"
            " behind the first axis."
        )


def _listed(units: list[int], most: int = 20) -> str:
    more = f", and {len(units) - most} more" if len(units) > most else ""
    return (", ".join(map(str, units[:most])) or "none") + more
