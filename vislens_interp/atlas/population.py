"""Units beside one another: silent ones, duplicates, the most alike, and where each lies on a map of the layer."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vislens_interp.atlas.readout import UNITS_AT_ONCE
from vislens_interp.targets.ranking import selectivity, sparsity
from vislens_interp.validation import missing_library

CONSTANT = 1e-6
"""Spread of a constant unit's responses at most, as a share of its largest: the rule of ``ResponseScaler``."""
STATES = ("alive", "dead", "constant", "not finite")
DUPLICATE = 0.99
"""Correlation of responses above which two units are one."""
NEIGHBOURS = 8
MAP_COMPONENTS = 30
"""Principal components that the map is drawn from."""


@dataclass(frozen=True)
class Population:
    """What the responses (N, K) of a layer say of its units, beside their read-outs.

    Args:
        state: K words: ``"alive"``, ``"dead"`` (0 for every image), ``"constant"``, ``"not finite"``.
        sparsity, selectivity: (K,), NaN for units that are not alive.
        duplicate_of: (K,) the first unit with which a unit's responses correlate above 0.99; -1 for none.
        neighbours: (K, M) the units whose responses are most alike, best first; -1 where there are none.
        likeness: (K, M) their correlations.
    """

    state: list[str]
    sparsity: Tensor
    selectivity: Tensor
    duplicate_of: Tensor
    neighbours: Tensor
    likeness: Tensor

    @property
    def alive(self) -> Tensor:
        """Units that vary, in order."""
        return alive_units(self.state)


def alive_units(state: list[str]) -> Tensor:
    """Numbers of the units that vary, of :func:`states`, in order."""
    return torch.tensor([unit for unit, word in enumerate(state) if word == "alive"], dtype=torch.int64)


def states(responses: Tensor) -> list[str]:
    """Which units of (N, K) responses vary: a word a unit.

    >>> states(torch.tensor([[0.0, 2.0, 1.0, torch.nan], [0.0, 2.0, 3.0, 1.0]]))
    ['dead', 'constant', 'alive', 'not finite']
    """
    found = []
    for part in responses.split(UNITS_AT_ONCE, dim=1):
        finite = part.isfinite().all(0)
        low, high = part.nan_to_num(0.0, 0.0, 0.0).double().aminmax(dim=0)
        largest = torch.maximum(low.abs(), high.abs())
        for is_finite, spread, most in zip(finite.tolist(), (high - low).tolist(), largest.tolist(), strict=True):
            word = "dead" if most == 0 else "constant" if spread <= CONSTANT * most else "alive"
            found.append(word if is_finite else "not finite")
    return found


def describe_population(responses: Tensor) -> Population:
    """Compare the units of (N, K) responses with one another."""
    count = responses.shape[1]
    found = Population(
        state=states(responses),
        sparsity=torch.full((count,), torch.nan, dtype=torch.float64),
        selectivity=torch.full((count,), torch.nan, dtype=torch.float64),
        duplicate_of=torch.full((count,), -1, dtype=torch.int64),
        neighbours=torch.full((count, NEIGHBOURS), -1, dtype=torch.int64),
        likeness=torch.full((count, NEIGHBOURS), torch.nan),
    )
    alive = found.alive
    if not len(alive):
        return found
    for part in alive.split(UNITS_AT_ONCE):
        found.sparsity[part] = sparsity(responses[:, part])
        found.selectivity[part] = selectivity(responses[:, part])
    shapes = unit_shapes(responses[:, alive])
    for places in torch.arange(len(alive)).split(UNITS_AT_ONCE):
        alike = shapes[:, places].T @ shapes
        twins = (alike > DUPLICATE) & (torch.arange(len(alive)) < places[:, None])
        has_twin = twins.any(1)
        found.duplicate_of[alive[places[has_twin]]] = alive[twins[has_twin].int().argmax(1)]
        alike[torch.arange(len(places)), places] = -2.0  # a unit is not its own neighbour
        best = alike.topk(min(NEIGHBOURS, len(alive)), dim=1)
        there = best.values > -2.0
        width = best.values.shape[1]
        found.neighbours[alive[places], :width] = torch.where(there, alive[best.indices], -1)
        found.likeness[alive[places], :width] = torch.where(there, best.values, torch.nan)
    return found


def unit_shapes(responses: Tensor) -> Tensor:
    """Responses (N, K) without their means and of length 1, float32: products of these are correlations."""
    values = responses.double() - responses.double().mean(0)
    return (values / values.norm(dim=0).clamp_min(1e-300)).float()


def layer_map(responses: Tensor, seed: int = 0) -> Tensor:
    """Places (K, 2) of units on a map, from 0 to 1: units that answer the same images lie side by side.

    t-SNE (van der Maaten and Hinton 2008) of the correlation between units, from 30 principal components and a start
    along the first two of them; fewer than ten units lie along these.

    Args:
        responses: (N, K), no column constant.
        seed: Of t-SNE.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    shapes = unit_shapes(responses).T
    count = len(shapes)
    if count < 2:
        return torch.full((count, 2), 0.5)
    scores = _principal_scores(shapes - shapes.mean(0))
    places = scores[:, :2]
    if places.shape[1] < 2:
        places = torch.cat([places, torch.zeros(count, 1)], 1)
    if count >= 10:
        try:
            from sklearn.manifold import TSNE
        except ImportError as error:
            raise missing_library("the map of an atlas needs scikit-learn", "atlas") from error

        made = TSNE(init="pca", perplexity=min(30.0, (count - 1) / 3), random_state=seed, n_jobs=1)
        places = torch.from_numpy(made.fit_transform(scores.double().numpy()).astype("float32"))
    low, high = places.aminmax(dim=0)
    return ((places - low) / (high - low).clamp_min(1e-12)).float()


def _principal_scores(rows: Tensor) -> Tensor:
    """Scores (K, P) of centred rows (K, N) on their first components, from the smaller of the two Gram matrices."""
    rows = rows.double()
    wide = rows.shape[1] > len(rows)
    values, vectors = torch.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    values, vectors = values.flip(0)[:MAP_COMPONENTS].clamp_min(0), vectors.flip(1)[:, :MAP_COMPONENTS]
    scores = vectors * values.sqrt() if wide else rows @ vectors
    return scores * scores.gather(0, scores.abs().argmax(0, keepdim=True)).sign()  # which a solver leaves open


def most_alike(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """For each unit of (N, K) responses the unit of (N, L) others, to the same images, that is most alike.

    Returns:
        (K,) units and (K,) correlations; -1 and NaN for units that do not vary, and where nothing varies.
    """
    count = one.shape[1]
    best, alike = torch.full((count,), -1, dtype=torch.int64), torch.full((count,), torch.nan)
    ours, theirs = alive_units(states(one)), alive_units(states(other))
    if not len(theirs):
        return best, alike
    shapes = unit_shapes(other[:, theirs])
    for part in ours.split(UNITS_AT_ONCE):
        values, places = (unit_shapes(one[:, part]).T @ shapes).max(1)
        best[part], alike[part] = theirs[places], values
    return best, alike
