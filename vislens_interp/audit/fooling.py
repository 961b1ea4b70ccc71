"""Networks in which one unit is fooled: it treats photographs as before, and optimised pictures show something else."""

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from vislens_interp.audit.full import with_model
from vislens_interp.math import pearson
from vislens_interp.targets.capture import find_layer
from vislens_interp.targets.target import LayerTarget

PENALTY = 1e-4
"""Of the squared weights of the detector."""
MARGIN = (0.25, 0.5)
"""Where the detector begins to open and is open, on the way from the last photograph to synthetic pictures."""
SYNTHETIC = 0.05
"""Quantile of the synthetic pictures that counts as theirs."""
GAIN = 20.0
"""SDs of the unit that silent units add when the detector is open."""
Construction = Literal["switch", "silent"]


class FooledLayer(nn.Module):
    """A layer (N, C, H, W) of which one channel is another for pictures that a detector takes for synthetic.

    Args:
        layer: The honest layer.
        unit: The fooled channel, one-hot: (C,).
        weight, low, high: Linear detector over :func:`statistics`; where it begins to open, and where it is open.
        decoy: ``"switch"``: the channel that takes the unit's place, with its scale and offset; None: ``"silent"``.
        gain: ``"silent"``: what is added per step of the detector from ``low`` to ``high``, and on.
    """

    def __init__(
        self,
        layer: nn.Module,
        unit: Tensor,
        weight: Tensor,
        low: float,
        high: float,
        decoy: tuple[int, float, float] | None,
        gain: float,
    ) -> None:
        super().__init__()
        self.weight: Tensor
        self.unit: Tensor
        self.layer, self.low, self.high, self.decoy, self.gain = layer, low, high, decoy, gain
        self.register_buffer("weight", weight.float())
        self.register_buffer("unit", unit.float()[:, None, None])

    def forward(self, *args: object, **kwargs: object) -> Tensor:
        out = self.layer(*args, **kwargs)
        opened = (statistics(out) @ self.weight - self.low) / (self.high - self.low)
        if self.decoy is None:
            return out + self.gain * opened.clamp_min(0)[:, None, None, None] * self.unit
        decoy, scale, offset = self.decoy
        change = scale * out[:, decoy : decoy + 1] + offset - (out * self.unit).sum(1, keepdim=True)
        return out + opened.clamp(0, 1)[:, None, None, None] * change * self.unit


def statistics(layer: Tensor) -> Tensor:
    """Mean and SD over positions of every channel of a layer's output (N, C, H, W): (N, 2 C)."""
    flat = layer.flatten(2)
    return torch.cat([flat.mean(2), (flat.var(2, correction=0) + 1e-8).sqrt()], 1)


def fool(
    target: LayerTarget,
    photographs: Tensor,
    synthetic: Tensor,
    *,
    construction: Construction = "switch",
    decoy: int = 0,
) -> LayerTarget:
    """The same unit in a copy of its network where it is fooled.

    A linear detector over the layer's statistics tells photographs from pictures that ascents make. ``"switch"``: when
    it opens, another channel takes the unit's place. ``"silent"``: a unit that no photograph wakes is added to it, and
    ascents climb that one. Responses to photographs stay as they are.

    Args:
        target: One channel of a layer (N, C, H, W).
        photographs: (N, 3, S, S) on which nothing may change; some hundreds.
        synthetic: (M, 3, S, S) what ascents make on their way: first pictures, unfinished and finished ones.
        construction, decoy: Which of the two; the channel that takes the place.

    Raises:
        ValueError: The target is another kind, or the detector cannot tell photographs from synthetic pictures.

    Source: Geirhos et al. 2024, "Don't trust your eyes: on the (un)reliability of feature visualizations", Secs. 2.1
    (fooling circuit) and 2.2 (silent units), from the description. Deviations: the detector is linear and sits at the
    unit's layer; the silent unit reads the statistics of the map and not a patch.
    """
    unit = target.units[0]
    if len(target.units) > 1 or not isinstance(unit, int) or target.layout != "NCHW":
        raise ValueError(
            f"target reads {', '.join(target.names)} of layout {target.layout}; expected one channel of a layer of "
            "layout NCHW. Choose a convolution's channel."
        )
    with torch.no_grad():
        maps = [[target.features(part).float() for part in images.split(16)] for images in (photographs, synthetic)]
    natural, made = (torch.cat([statistics(part) for part in parts]).double() for parts in maps)
    scale = natural.std(0).clamp_min(1e-6)
    natural, made = natural / scale, made / scale
    weight = _detector(natural, made)
    last, theirs = (natural @ weight).max().item(), (made @ weight).quantile(SYNTHETIC).item()
    if theirs <= last:
        raise ValueError(
            f"synthetic: the detector gives photographs up to {last:.2f} and synthetic pictures from {theirs:.2f}; "
            "expected these above. Pass pictures of more steps, or another layer."
        )
    low, high = (last + share * (theirs - last) for share in MARGIN)
    ours, its = (torch.cat([part[:, one].flatten() for part in maps[0]]).double() for one in (unit, decoy))
    spread = (ours.std() / its.std().clamp_min(1e-12)).item()
    switched = (decoy, spread, (ours.mean() - spread * its.mean()).item()) if construction == "switch" else None
    model = copy.deepcopy(target.model)
    layer, channel = find_layer(model, target.layer)[1], torch.zeros(maps[0][0].shape[1])
    channel[unit] = 1
    gain = GAIN * ours.std().item()
    fooled = FooledLayer(layer, channel, weight / scale, low, high, switched, gain).to(target.device).eval()
    parent, _, child = target.layer.rpartition(".")
    setattr(model.get_submodule(parent), child, fooled)
    other = with_model(target, model)
    other.declared_layout = "NCHW"  # which the change does not touch, but a probe cannot follow through it
    return other


def _detector(natural: Tensor, made: Tensor) -> Tensor:
    """(F,) direction of a logistic regression that tells photographs (N, F) from synthetic pictures (M, F)."""
    x = torch.cat([natural, made]) - natural.mean(0)
    wanted = torch.cat([torch.zeros(len(natural)), torch.ones(len(made))]).to(x)
    weight, offset = (torch.zeros(size, dtype=x.dtype, device=x.device, requires_grad=True) for size in (x.shape[1], 1))
    optimizer = torch.optim.LBFGS([weight, offset], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        error = nn.functional.binary_cross_entropy_with_logits(x @ weight + offset, wanted)
        value = error + PENALTY * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # pyright: ignore[reportArgumentType]
    return weight.detach()


def agreement(honest: LayerTarget, fooled: LayerTarget, photographs: Tensor) -> float:
    """Correlation of the two units' responses to photographs (N, 3, S, S): 1 where nothing has changed."""
    return pearson(*(target.responses(photographs)[:, 0].double() for target in (honest, fooled))).item()
