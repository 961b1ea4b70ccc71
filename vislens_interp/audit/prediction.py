"""Do pictures tell how a unit treats photographs that nobody edited?"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from vislens_interp.audit.material import Material, Pictures, ends
from vislens_interp.audit.result import Row
from vislens_interp.evaluation.compare import build, fit_beside, is_edit
from vislens_interp.methods.base import Method
from vislens_interp.methods.controls import Shuffled
from vislens_interp.methods.landscape import LandscapeEdit
from vislens_interp.methods.natural_images import RandomImages

EXTREME = 0.1
"""Share of the photographs at each end that extreme pairs come from, and that AUPRC is to find."""
RANDOM_SETS = 100
Measure = Callable[[Tensor, Tensor], Tensor]
"""Scores (N,) and weights (D, N) to (D,)."""
EXTREMES, PAIRS, PEARSON, AUPRC = "2AFC, extremes", "2AFC, random pairs", "Pearson", "AUPRC"
SHUFFLED, REFUSAL = "against shuffled responses", "evidence of shuffled responses"


def picture_score(material: Material, seen: Pictures) -> Tensor:
    """(N,) cosine of each photograph to the preferred pictures minus that to the suppressed ones, by the judge."""
    return (material.features @ (seen["increase"].mean(0) - seen["decrease"].mean(0))).round(decimals=12)


def pairs(score: Tensor, responses: Tensor, extreme: float | None = None) -> tuple[Tensor, Tensor]:
    """(N, N) how right the score tells each pair (1, 0.5 or 0), and which pairs are asked.

    Args:
        score, responses: (N,) each.
        extreme: None asks all pairs; 0.1 one of the tenth with the largest responses and one of the other tenth.
    """
    asked = responses[:, None] > responses[None]
    if extreme is not None:
        count = max(1, int(extreme * len(responses)))
        order = responses.argsort(descending=True, stable=True)
        high, low = (
            torch.zeros(len(order), dtype=torch.bool).index_fill(0, rows, True)
            for rows in (order[:count], order[-count:])
        )
        asked = asked & high[:, None] & low[None]
    apart = score[:, None] - score[None]
    return asked * ((apart > 0).double() + 0.5 * (apart == 0)), asked.double()


def told(score: Tensor, responses: Tensor, weights: Tensor, extreme: float | None = None) -> Tensor:
    """(D,) share of pairs that the score tells right, in each draw (D, N)."""
    right, asked = pairs(score, responses, extreme)
    return ((weights @ right) * weights).sum(1) / ((weights @ asked) * weights).sum(1)


def weighted_pearson(score: Tensor, responses: Tensor, weights: Tensor) -> Tensor:
    """(D,) correlation in each draw (D, N)."""
    share, responses = weights / weights.sum(1, keepdim=True), responses / responses.std().clamp_min(1e-300)
    a, b = (values[None] - (share @ values)[:, None] for values in (score, responses))
    spread = ((share * a**2).sum(1) * (share * b**2).sum(1)).sqrt()
    return torch.where(spread > 1e-12, (share * a * b).sum(1) / spread.clamp_min(1e-300), 0.0)  # 0: nothing is said


def average_precision(score: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """(D,) area under precision and recall in each draw (D, N); ``wanted`` (N,) says what is to be found."""
    order = score.argsort(descending=True, stable=True)
    hits, counts = (weights * wanted)[:, order], weights[:, order]
    return (hits * hits.cumsum(1) / counts.cumsum(1).clamp_min(1)).sum(1) / hits.sum(1)


def with_ends(measure: Callable[[Tensor], Tensor], material: Material) -> tuple[float, float, float]:
    """A measure of weights (D, N) with its bootstrap interval over photographs."""
    once = torch.ones(1, len(material.photographs), dtype=torch.float64)
    return ends(measure(material.weights), measure(once).item())


def of_random_pictures(material: Material, name: str, measure: Measure) -> float:
    """What 95 % of random photographs reach, put in the place of the pictures: the bar of a measure.

    A direction in the judge's features that has nothing to do with the unit may still fit its responses by chance, and
    intervals over photographs do not know that. As many photographs as there are pictures are drawn for either sense;
    they leave the set that is asked, with other crops of theirs. NaN where that leaves nothing to ask.
    """
    key = f"random pictures, {name}"
    if key not in material.known:
        natural = material.features
        count = min(len(material.inputs), len(natural) // 4)
        generator = torch.Generator().manual_seed(material.seed)
        found = []
        for _ in range(RANDOM_SETS):
            order = torch.randperm(len(natural), generator=generator)
            up, down = order[:count], order[count : 2 * count]
            weights = (~torch.isin(material.groups, material.groups[order[: 2 * count]])).double()[None]
            found.append(measure(natural @ (natural[up].mean(0) - natural[down].mean(0)), weights))
        material.known[key] = torch.cat(found).nanquantile(0.95).item()
    return material.known[key]


def prediction(material: Material, name: str, maker: Method) -> list[Row]:
    """Four views of one question: do the pictures tell how the unit answers photographs?"""
    responses = material.responses
    if len(responses.unique()) < 2:
        why = "The unit answers all photographs alike, so that nothing can be predicted."
        return [Row(name, test, why) for test in (EXTREMES, PAIRS, PEARSON, AUPRC)]
    score = picture_score(material, material.seen(name, maker))
    top = torch.zeros(len(responses), dtype=torch.float64)
    top[responses.argsort(descending=True, stable=True)[: max(1, int(EXTREME * len(responses)))]] = 1
    base = top.mean().item()
    tests: dict[str, tuple[Measure, float, str]] = {
        EXTREMES: (
            lambda score, weights: told(score, responses, weights, EXTREME),
            0.5,
            "Of a photograph that drives it most and one that does least, they tell which in {value:.2f}; chance 0.5",
        ),
        PAIRS: (
            lambda score, weights: told(score, responses, weights),
            0.5,
            "Of any two photographs, they tell which drives the unit more in {value:.2f}; chance 0.5",
        ),
        PEARSON: (
            lambda score, weights: weighted_pearson(score, responses, weights),
            0.0,
            "Likeness to the pictures correlates with the response by {value:.2f}; chance is 0",
        ),
        AUPRC: (
            lambda score, weights: average_precision(score, top, weights),
            base,
            f"Likeness to the pictures finds the top {EXTREME:.0%} at a precision of {{value:.2f}}; chance {base:.2f}",
        ),
    }
    rows = []
    for test, (measure, chance, meaning) in tests.items():
        ends = with_ends(lambda weights, measure=measure: measure(score, weights), material)
        control = of_random_pictures(material, test, measure)
        said = f"{meaning.format(value=ends[0])}. Random photographs reach {control:.2f}."
        rows.append(Row.of(name, test, said, ends, chance, control))
    return rows


def shuffled(material: Material, name: str, given: str | Method, maker: Method, repeats: int = 1) -> list[Row]:
    """The same method on responses dealt out to the wrong images: pictures must tell less, and evidence refuse."""
    learns = is_edit(maker) or (maker.shows_reference and not isinstance(maker, RandomImages))
    if not learns or not maker.uses_responses:
        why = "Not asked: it learns nothing from natural responses that could be shuffled."
        return [Row(name, SHUFFLED, why)]
    responses = material.responses
    own = picture_score(material, material.seen(name, maker))
    draws, points, refused = [], [], []
    once = torch.ones(1, len(responses), dtype=torch.float64)
    for repeat in range(repeats):
        pictures, weak = _on_shuffled(material, given, material.seed + 1 + repeat)
        refused += [] if weak is None else [weak]
        score = picture_score(material, material.view(pictures))
        for weights, kept in ((material.weights, draws), (once, points)):
            kept.append(told(own, responses, weights, EXTREME) - told(score, responses, weights, EXTREME))
    gap = ends(torch.stack(draws).mean(0), torch.stack(points).mean().item())
    meaning = (
        f"Of 100 extreme pairs, pictures of the same method on shuffled responses tell {100 * gap[0]:.0f} fewer. "
        "If that is not above 0, what the pictures tell has another source than the responses."
    )
    rows = [Row.of(name, SHUFFLED, meaning, gap, 0.0)]
    if refused:
        share = sum(refused) / len(refused)
        said = f"Evidence refuses {sum(refused)} of {len(refused)} fits on shuffled responses; it has to refuse all."
        rows.append(Row(name, REFUSAL, said, "passed" if share == 1 else "failed", share, bar=1.0))
    return rows


def _on_shuffled(material: Material, given: str | Method, seed: int) -> tuple[Pictures, bool | None]:
    """Pictures of a method on permuted responses, and whether its evidence is weak; None where it has none."""
    ours = material.lens.fitted_method
    control = Shuffled(build(copy.deepcopy(given), ours), seed=seed)
    fit_beside(control, ours, material.lens.reference_set)
    found = control.method.evidence_ if isinstance(control.method, LandscapeEdit) else {}
    evidence = found.get(material.target.names[material.unit])
    return material.draw(control), None if evidence is None else evidence.weak
