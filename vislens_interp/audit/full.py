"""The slower tests: random weights, another network, the other units of the layer, an interpretability score."""

import copy

import torch
from torch import Tensor, nn

from vislens_interp.audit.material import Material, Pictures, axis, ends
from vislens_interp.audit.paths import NO_LAYERS, path, weighted_layers
from vislens_interp.audit.prediction import of_random_pictures, picture_score, weighted_pearson, with_ends
from vislens_interp.audit.result import Row
from vislens_interp.evaluation.compare import build
from vislens_interp.math import pearson
from vislens_interp.methods.base import Method
from vislens_interp.methods.landscape import LandscapeMethod
from vislens_interp.reference import ReferenceSet
from vislens_interp.targets.forward import Forward
from vislens_interp.targets.target import LayerTarget

RANDOM, TRANSFER, IDENTIFIED, MIS = "random weights", "transfer", "identification", "uncalibrated MIS"
STAGES = (1 / 3, 2 / 3, 1.0)
"""Shares of the layers up to the target's, counted from it downwards, whose weights are permuted."""
THINNED = 3
"""A network with random weights reads one of so many reference images."""
CANDIDATES = 100
TASKS = 20


def with_model(target: LayerTarget, model: nn.Module) -> LayerTarget:
    """The same units of a network of the same architecture, read in the same way."""
    other = copy.copy(target)
    other.model, other._forward = model, Forward(model, target.forward_args or None)
    return other


def permuted(model: nn.Module, names: list[str], seed: int) -> nn.Module:
    """A copy whose weights of these layers are dealt out anew within each tensor, so that their scale stays."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in names:
            for parameter in model.get_submodule(name).parameters():
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return model


def randomisation(material: Material, name: str, given: str | Method, maker: Method) -> list[Row]:
    """Do pictures lose their likeness to the unit's as its weights, from the top down, are replaced by random ones?

    Source: Adebayo et al. 2018, "Sanity checks for saliency maps", carried over. A network with random weights still
    computes a function of the image: good evidence for its units would be right; their pictures have to be others.
    """
    target = material.target
    if not isinstance(target, LayerTarget) or not maker.uses_responses:
        return [Row(name, RANDOM, "Not run: the target or the method has no weights to randomise.")]
    layers = list(path(target, material.photographs[:1], weighted_layers(target)))
    if not layers:
        return [Row(name, RANDOM, NO_LAYERS)]
    reference = material.lens.reference_set
    thin = reference.at(range(0, len(reference), THINNED)).without_responses()
    own, told_of = axis(material.seen(name, maker)), []
    for share in STAGES:
        names = layers[-max(1, round(share * len(layers))) :]
        changed = with_model(target, permuted(target.model, names, material.seed))
        natural = changed.responses(material.photographs)[:, material.unit].double()
        r = 0.0 if natural.std() == 0 else pearson(natural, material.responses).item()
        read = thin.with_responses(thin.read_by(changed))
        if read.responses is None or (read.responses.std(0) == 0).any():
            told_of.append((r, 0.0, None))  # a silent unit has no pictures that could be alike
            continue
        seen = material.view(_pictures(material, given, changed, read))
        told_of.append((r, (axis(seen) @ own).item(), seen))
    r, likeness, seen = told_of[-1]
    said = ", ".join(f"{alike:.2f} where responses keep r = {kept:.2f}" for kept, alike, _ in told_of)
    if seen is None:
        return [Row(name, RANDOM, "Not run: with random weights the unit is silent.")]
    up, down = (material.redrawn(rows) for rows in seen.values())
    lost = ends(1 - nn.functional.normalize(up - down, dim=1) @ own, 1 - likeness)
    meaning = (
        f"Likeness to the unit's own pictures, from the top layers down: {said}. With all weights random, pictures "
        "have to lose at least half of what the responses lose."
    )
    return [Row.of(name, RANDOM, meaning, lost, (1 - max(0.0, r)) / 2)]


def _pictures(material: Material, given: str | Method, target: LayerTarget, reference: ReferenceSet) -> Pictures:
    """Pictures of a method for another target, fitted anew without controls."""
    maker = build(copy.deepcopy(given), material.lens.fitted_method)
    if isinstance(maker, LandscapeMethod):
        maker.override(shuffles=0)
    maker.fit(target, material.lens.backend, reference)
    return material.draw(maker)


def transfer(material: Material, name: str, maker: Method) -> list[Row]:
    """Do the pictures drive the best matching unit of an independently trained network, which never saw them?"""
    responses, features = material.responses, material.features
    related = torch.nan_to_num(pearson(features, responses[:, None].expand_as(features)), -1.0)
    best = int(related.argmax())
    sd = features[:, best].std().clamp_min(1e-12)
    up, down = (rows[:, best] / sd for rows in material.seen(name, maker).values())
    gap = ends(material.redrawn(up) - material.redrawn(down), (up.mean() - down.mean()).item())
    meaning = (
        f"Feature {best} of the judge matches the unit best (r = {related[best]:.2f} over photographs); preferred "
        f"pictures drive it {gap[0]:+.2f} SD more than suppressed ones."
    )
    return [Row.of(name, TRANSFER, meaning, gap, 0.0)]


def identification(material: Material, name: str, maker: Method) -> list[Row]:
    """For which of the layer's units were the pictures made?"""
    if material.layer is None or (material.layer[0].std(0) > 0).sum() < 3:
        return [Row(name, IDENTIFIED, "Not run: the layer has no other units that are known.")]
    responses, own = material.layer
    alive = [unit for unit in range(responses.shape[1]) if unit != own and responses[:, unit].std() > 0]
    order = torch.randperm(len(alive), generator=torch.Generator().manual_seed(material.seed))[: CANDIDATES - 1]
    others = [alive[row] for row in order.tolist()]
    score = picture_score(material, material.seen(name, maker))

    def beaten(score: Tensor, weights: Tensor) -> Tensor:
        mine = weighted_pearson(score, responses[:, own], weights)
        theirs = torch.stack([weighted_pearson(score, responses[:, unit], weights) for unit in others])
        return (mine[None] > theirs.nan_to_num(-1)).double().mean(0)

    share = with_ends(lambda weights: beaten(score, weights), material)
    control = of_random_pictures(material, IDENTIFIED, beaten)
    meaning = (
        f"What the pictures predict fits this unit better than {share[0]:.0%} of {len(others)} others of its layer; "
        "guessing, 50%."
    )
    return [Row.of(name, IDENTIFIED, meaning, share, 0.5, control)]


def interpretability(material: Material, name: str, maker: Method) -> list[Row]:
    """Machine Interpretability Score of Zimmermann et al. 2024, not calibrated on people's answers.

    K pictures each way (nine, or as many as the method has), 20 tasks: which of two photographs, one of the 20 that
    drive the unit most and one of the 20 that do least, drives it? Deviations: another embedding than DreamSim, and the
    share of right answers instead of a sigmoid whose slope was fitted to people's.
    """
    responses = material.responses
    count = min(TASKS, len(responses) // 2)
    order = responses.argsort(descending=True, stable=True)
    score = picture_score(material, material.seen(name, maker))
    first, second = order[:count], order[-count:].flip(0)
    right = (score[first] > score[second]).double()
    value = ends(material.redrawn(right), right.mean().item())
    shown = len(material.make(name, maker)["increase"])
    meaning = (
        f"{value[0]:.0%} of {count} tasks with {shown} pictures each way; guessing, 50%. Not calibrated "
        "on people's answers: not to be compared with published scores."
    )

    def told(score: Tensor, weights: Tensor) -> Tensor:
        asked = weights[:, first] * weights[:, second] > 0
        return (asked & (score[first] > score[second])).sum(1) / asked.sum(1)

    control = of_random_pictures(material, MIS, told)
    return [Row.of(name, MIS, meaning, value, 0.5, control)]
