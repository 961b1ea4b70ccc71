"""Do the pictures travel through the network as the photographs do that drive the unit?"""

from contextlib import ExitStack

import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from vislens_interp.audit.material import Material, distinct, ends
from vislens_interp.audit.result import Row
from vislens_interp.methods.base import Method
from vislens_interp.targets.target import LayerTarget

TEST = "paths"
LAYERS = 8
"""Layers that are looked at, evenly among those up to the target's."""
TOP = 16
"""Top photographs, beside those that the method natural_images shows; halves of them are the ceiling."""
UNRELATED, THEIRS = 4, 4
"""Units of the layer that correlate least with this one; top photographs of each. They are the floor."""
SMALLEST_GAP = 0.02
"""Rank correlation by which ceiling and floor have to differ."""


def path(target: LayerTarget, images: Tensor, names: list[str] | None = None) -> dict[str, Tensor]:
    """Means over positions (N, C) of layers on the way to the target's, in the order of their calls.

    Args:
        target: Whose network; a pass ends at its layer.
        images: (N, 3, S, S) in [0, 1].
        names: Layers; None takes all with weights.
    """
    modules = dict(target.model.named_modules())
    if names is None:
        weights = {name: getattr(one, "weight", None) for name, one in modules.items()}
        names = [name for name, weight in weights.items() if isinstance(weight, Tensor) and weight.ndim > 1]
    last = target.layout == "NHWC"
    seen: dict[str, list[Tensor]] = {}

    def keep(name: str):
        def hook(module: nn.Module, args: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim in (2, 3, 4):
                axes = {2: (), 3: (1,), 4: (1, 2) if last else (2, 3)}[output.ndim]
                seen.setdefault(name, []).append((output.mean(axes) if axes else output).detach().double().cpu())

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for name in names:
            hooks.callback(modules[name].register_forward_hook(keep(name)).remove)
        for part in images.split(8):
            target.features(part)
    return {name: torch.cat(rows) for name, rows in seen.items() if sum(map(len, rows)) == len(images)}


def ranked(activations: Tensor) -> Tensor:
    """Rows (N, C) as standardised ranks: products of two are Spearman's correlation."""
    ranks = torch.from_numpy(rankdata(activations.numpy(), axis=1))
    ranks = ranks - ranks.mean(1, keepdim=True)
    return ranks / ranks.norm(dim=1, keepdim=True).clamp_min(1e-12)


def paths(material: Material, name: str, maker: Method) -> list[Row]:
    """Rank correlation of activations between preferred pictures and top photographs, between its floor and ceiling."""
    target = material.target
    if not isinstance(target, LayerTarget) or material.layer is None:
        return [Row(name, TEST, "Not run: the target shows no layers of a network.")]
    if "paths" not in material.known:
        material.known["paths"] = _natural(material, target)
    top, others = material.known["paths"]
    made = {one: ranked(x) for one, x in path(target, material.make(name, maker)["increase"], list(top)).items()}
    alike = torch.stack([made[one] @ natural.mean(0) for one, natural in top.items()]).mean(0)
    floor = torch.stack([(others[one] @ natural.mean(0)).mean() for one, natural in top.items()]).mean().item()
    ceiling = torch.stack([x[::2].mean(0) @ x[1::2].mean(0) for x in top.values()]).mean().item()
    if ceiling - floor < SMALLEST_GAP:
        why = f"top photographs share no path of their own: {ceiling:.2f} among them, {floor:.2f} with other units'."
        return [Row(name, TEST, f"Not run: {why}")]
    scaled = (alike - floor) / (ceiling - floor)
    value = ends(material.redrawn(scaled), scaled.mean().item())
    meaning = (
        f"Activations over {len(top)} layers: rank correlation {alike.mean():.2f} with top photographs, which have "
        f"{ceiling:.2f} among themselves and {floor:.2f} with those of unrelated units. As a share of that way: "
        f"{value[0]:.2f}."
    )
    return [Row.of(name, TEST, meaning, value, 0.0)]


def _natural(material: Material, target: LayerTarget) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Ranked activations by layer of top photographs, and of those of units that have nothing to do with this one."""
    assert material.layer is not None
    responses, own = material.layer
    related = torch.corrcoef(responses.T).nan_to_num(2)[own].abs()
    theirs = [
        row
        for unit in related.argsort()[:UNRELATED].tolist()
        for row in distinct(responses[:, unit], material.groups, THEIRS)
    ]
    shown = len(material.inputs)
    top = material.learned.images[distinct(material.column, material.learned.groups, shown + TOP)[shown:]]
    names = list(path(target, top[:1]))
    kept = [names[row] for row in sorted({round(x) for x in torch.linspace(0, len(names) - 1, LAYERS).tolist()})]
    natural, others = (path(target, images, kept) for images in (top, material.photographs[theirs]))
    return {one: ranked(x) for one, x in natural.items()}, {one: ranked(x) for one, x in others.items()}
