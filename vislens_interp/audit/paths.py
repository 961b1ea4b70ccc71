"""Do the pictures travel through the network as the photographs do that drive the unit?

What photographs have in common is taken out first: ranks of whole activations correlate highly between any two of one
set, and less between sets, whatever the unit is.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn.functional import normalize

from vislens_interp.audit.material import Material, ends
from vislens_interp.audit.result import Row
from vislens_interp.copies import top_rows
from vislens_interp.methods.base import Method
from vislens_interp.targets.inspect import list_units
from vislens_interp.targets.layout import Arrangement, channel_axis
from vislens_interp.targets.target import LayerTarget

TEST = "paths"
LAYERS = 8
"""Layers that are looked at, evenly among those up to the target's."""
TOP = 16
"""Top photographs, beside those that the method natural_images shows; halves of them are the ceiling."""
RANDOM = 48
"""Random photographs of the same set: the mean of one half is what all have in common, the other half is the floor."""
SETS = 200
"""Draws of as many random photographs as there are pictures."""
NO_LAYERS = "Not run: no layer with weights can be read on the way to the target's."
SMALLEST_GAP = 0.1
"""Cosine by which ceiling and floor have to differ, as they do for 66 of 69 tuning units of SqueezeNet."""


def weighted_layers(target: LayerTarget) -> dict[str, Arrangement]:
    """Layers with weights, and where their outputs hold images and channels; left out where that is not known."""
    weights = {name: getattr(one, "weight", None) for name, one in target.model.named_modules()}
    infos = list_units(
        target.model,
        image_size=target._image_size,
        preprocess=target.preprocess,
        forward_args=target.forward_args or None,
    )
    known = {info.name: info.arrangement for info in infos if info.arrangement is not None}
    return {name: known[name] for name, one in weights.items() if name in known and getattr(one, "ndim", 0) > 1}


def path(target: LayerTarget, images: Tensor, layers: Mapping[str, Arrangement]) -> dict[str, Tensor]:
    """Means over positions (N, C) of layers on the way to the target's, in the order of their calls.

    Args:
        target: Whose network; a pass ends at its layer.
        images: (N, 3, S, S) in [0, 1].
        layers: Some of :func:`weighted_layers`.
    """
    modules = dict(target.model.named_modules())
    seen: dict[str, list[Tensor]] = {}

    def keep(module: nn.Module, args: tuple[object, ...], output: object, *, name: str) -> None:
        if isinstance(output, Tensor):
            maps = layers[name].arrange(output.detach())
            maps = maps.movedim(channel_axis(layers[name].layout), 1)
            means = maps if maps.ndim == 2 else maps.mean(tuple(range(2, maps.ndim)))
            seen.setdefault(name, []).append(means.double().cpu())

    with ExitStack() as hooks, torch.no_grad():
        for name in layers:
            hooks.callback(modules[name].register_forward_hook(partial(keep, name=name)).remove)
        for part in images.split(8):
            target.features(part)
    return {name: torch.cat(rows) for name, rows in seen.items() if sum(map(len, rows)) == len(images)}


def ranked(activations: Tensor) -> Tensor:
    """Ranks of each image's channels (N, C), standardised: products of two rows are Spearman's correlation."""
    ranks = torch.from_numpy(rankdata(activations.numpy(), axis=1))
    ranks = ranks - ranks.mean(1, keepdim=True)
    return ranks / ranks.norm(dim=1, keepdim=True).clamp_min(1e-12)


def likeness(rows: Mapping[str, Tensor], way: Mapping[str, Tensor]) -> Tensor:
    """(N,) cosine of each image's departure from the mean with a way (C,), mean over layers."""
    return torch.stack([normalize(rows[one], dim=1) @ normalize(way[one], dim=0) for one in way]).mean(0)


def paths(material: Material, name: str, maker: Method) -> list[Row]:
    """How far preferred pictures go the way of top photographs, away from the mean photograph, layer by layer.

    Source: Geirhos et al. 2024, Sec. 3 (rank correlation of activations, layer by layer). Deviations: the mean ranks of
    random photographs are subtracted, and the floor is random photographs of the set that the top ones come from.
    """
    target = material.target
    if not isinstance(target, LayerTarget):
        return [Row(name, TEST, "Not run: the target shows no layers of a network.")]
    if TEST not in material.known:
        material.known[TEST] = _natural(material, target)
    top, random, mean, layers = material.known[TEST]
    if not layers:
        return [Row(name, TEST, NO_LAYERS)]
    seen = path(target, material.make(name, maker)["increase"], layers)
    made = {one: ranked(seen[one]) - mean[one] for one in mean}
    way = {one: rows.mean(0) for one, rows in top.items()}
    alike, apart = likeness(made, way), likeness(random, way)
    floor = apart.mean().item()
    ceiling = likeness({one: x[::2] for one, x in top.items()}, {one: x[1::2].mean(0) for one, x in top.items()})
    gap = ceiling.mean().item() - floor
    if gap < SMALLEST_GAP:
        why = f"top photographs share no path of their own: {ceiling.mean():.2f} among them, {floor:.2f} with others."
        return [Row(name, TEST, f"Not run: {why}")]
    generator = torch.Generator().manual_seed(material.seed)
    drawn = torch.randint(len(apart), (SETS, len(alike)), generator=generator)
    control = ((apart[drawn].mean(1) - floor) / gap).quantile(0.95).item()
    scaled = (alike - floor) / gap
    value = ends(material.redrawn(scaled), scaled.mean().item())
    meaning = (
        f"Away from the mean photograph, activations over {len(mean)} layers go the way of top photographs: cosine "
        f"{alike.mean():.2f}; top photographs among themselves {ceiling.mean():.2f}, random ones {floor:.2f}. As a "
        f"share of that way: {value[0]:.2f}; random photographs reach {control:.2f}."
    )
    return [Row.of(name, TEST, meaning, value, 0.0, control)]


def _natural(
    material: Material, target: LayerTarget
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], dict[str, Arrangement]]:
    """Ranks by layer, less the mean ones, of top photographs and of random ones; the mean ones (C,); the layers."""
    learned, shown = material.learned, len(material.inputs)
    order = top_rows(material.column, learned.groups, shown + TOP)
    generator = torch.Generator().manual_seed(material.seed)
    others = top_rows(torch.rand(len(learned), generator=generator), learned.groups, RANDOM + shown + TOP)
    known = learned.groups[order]
    others = [row for row in others if learned.groups[row] not in known][:RANDOM]
    layers = weighted_layers(target)
    names = list(path(target, learned.images[order[:1]], layers))
    if not names:
        return {}, {}, {}, {}
    kept = {
        names[row]: layers[names[row]]
        for row in sorted({round(x) for x in torch.linspace(0, len(names) - 1, LAYERS).tolist()})
    }
    top, random = (
        {one: ranked(x) for one, x in path(target, learned.images[rows], kept).items()}
        for rows in (order[shown:], others)
    )
    mean = {one: rows[::2].mean(0) for one, rows in random.items()}
    top = {one: rows - mean[one] for one, rows in top.items()}
    return top, {one: rows[1::2] - mean[one] for one, rows in random.items()}, mean, kept
