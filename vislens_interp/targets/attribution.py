"""Where in an image a unit looks: Captum computes and draws."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict, Unpack

import torch
from torch import Tensor, nn

from vislens_interp.images import check_images
from vislens_interp.targets.target import Target
from vislens_interp.validation import check_word

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

METHODS = ("NeuronIntegratedGradients", "NeuronGradient", "NeuronFeatureAblation")
"""Captum's neuron methods that take nothing but a network, a neuron and images, and draw no random numbers."""

_WITHOUT_GRADIENTS = "NeuronFeatureAblation"


class Drawing(TypedDict, total=False):
    """Settings of Captum's ``visualize_image_attr``."""

    method: str
    outlier_perc: int | float
    cmap: "str | Colormap | None"
    alpha_overlay: float
    show_colorbar: bool
    title: str | None


@dataclass(frozen=True)
class Attribution:
    """What each pixel contributes to a unit's response.

    Args:
        unit: Name of the unit.
        method: Captum's class.
        images: (N, 3, H, W) in [0, 1].
        values: (N, 3, H, W), what the method gives: of ``NeuronIntegratedGradients``, shares of the response that add
            up to its difference from the response to the baseline (black).
        responses: (N,) of the unit.
    """

    unit: str
    method: str
    images: Tensor = field(repr=False)
    values: Tensor = field(repr=False)
    responses: Tensor

    def figure(self, *, sign: str = "absolute_value", **settings: Unpack[Drawing]) -> "Figure":
        """Images above, where the unit looks below, drawn by Captum.

        Args:
            sign: What is drawn: ``"absolute_value"``, ``"positive"``, ``"negative"`` or ``"all"``.
            settings: More for Captum's ``visualize_image_attr``: ``outlier_perc=``, ``cmap=``, ...

        Returns:
            A figure to save or show.
        """
        from captum.attr import visualization
        from matplotlib.figure import Figure

        count = len(self.images)
        figure = Figure(figsize=(1.6 * count, 3.6), layout="constrained")
        axes = figure.subplots(2, count, squeeze=False)
        for column in range(count):
            pixels = self.images[column].permute(1, 2, 0).clamp(0, 1).cpu().numpy()
            values = self.values[column].permute(1, 2, 0).cpu().numpy()
            above, below = axes[:, column]
            above.imshow(pixels)
            if values.any():
                visualization.visualize_image_attr(
                    values, sign=sign, plt_fig_axis=(figure, below), use_pyplot=False, **settings
                )
            else:  # Captum refuses to scale it
                below.text(0.5, 0.5, "nowhere", ha="center", va="center", fontsize=8)
            for axis in (above, below):
                axis.set_axis_off()
            above.set_title(f"{self.responses[column]:.3g}", fontsize=8)
        figure.suptitle(f"unit {self.unit}: {self.method}", fontsize=9)
        return figure


def attribute(
    target: Target, images: Tensor, unit: int = 0, *, method: str = "NeuronIntegratedGradients", **settings: object
) -> Attribution:
    """Attribute a unit's response to the pixels of images.

    The unit as this library reads it (pooled, of any layout, any call) is the neuron that Captum is shown, and the
    pixels are those before the network's preprocessing.

    Args:
        target: What is read; needs gradients, except by ``"NeuronFeatureAblation"``.
        images: (N, 3, H, W) in [0, 1].
        unit: Place of the unit among the target's.
        method: One of :data:`METHODS`.
        settings: For the method's ``attribute``: ``n_steps=``, ``baselines=`` (None is black), ``feature_mask=``, ...

    Returns:
        The attribution, on the CPU.

    Raises:
        ValueError: The method is unknown, or the target has no gradients.

    >>> from vislens_interp.preprocess import Preprocess
    >>> from vislens_interp.targets import LayerTarget
    >>> target = LayerTarget(nn.Sequential(nn.Conv2d(3, 4, 3)), "0", 2, preprocess=Preprocess(8, [0], [1]))
    >>> attribute(target, torch.rand(2, 3, 8, 8), n_steps=4).values.shape
    torch.Size([2, 3, 8, 8])
    """
    check_word("method", method, METHODS)
    check_images(images)
    if not target.differentiable and method != _WITHOUT_GRADIENTS:
        raise ValueError(
            f"method={method!r} needs gradients, and {type(target).__name__} gives none; expected a differentiable"
            f" target. Pass method={_WITHOUT_GRADIENTS!r}, which only runs the target."
        )
    import captum.attr

    images = images.detach().to(target.device)
    if method == "NeuronIntegratedGradients":
        settings.setdefault("internal_batch_size", max(target.batch_size, len(images)))
    reader = _Reader(target)
    neuron = getattr(captum.attr, method)(reader, reader)
    with torch.inference_mode(False), torch.set_grad_enabled(method != _WITHOUT_GRADIENTS):
        # A clone: gradients cannot be asked of a tensor that inference mode made.
        values = neuron.attribute(images.clone().requires_grad_(), unit, **settings)
    return Attribution(
        unit=target.names[unit],
        method=method,
        images=images.cpu(),
        values=values.detach().cpu(),
        responses=target.responses(images)[:, unit],
    )


class _Reader(nn.Module):
    """A target as the module that Captum wants: its output is (N, K), and a neuron one of its columns."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.target = target

    def forward(self, images: Tensor) -> Tensor:
        return self.target(images)
