"""Which axis of a layer's output holds its channels: declared, or established from the layer, never assumed."""

from collections.abc import Sequence
from typing import Literal, TypeAlias, TypeGuard, get_args

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

Layout: TypeAlias = Literal["NCHW", "NHWC", "NLC", "NC"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def channel_axis(layout: Layout) -> int:
    """The axis of the channels.

    >>> channel_axis("NCHW"), channel_axis("NLC")
    (1, 2)
    """
    return layout.index("C")


def check_layout(layout: str | None) -> None:
    """Refuse a name that is no layout; None is none declared.

    Raises:
        ValueError: Naming the layouts that there are.
    """
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r}; expected None or one of {', '.join(map(repr, LAYOUTS))}.")


def resolve_layout(
    shape: Sequence[int], layout: str | None = None, *, layer: nn.Module | None = None, model: nn.Module | None = None
) -> Layout:
    """The layout of a layer's output.

    (N, C) is features and (N, L, C) tokens. A map of rank 4 is NCHW if convolutions, normalisations of channels or
    nothing with channels at all made it; channels-last maps (Swin, the inside of a ConvNeXt block) have to be declared.

    Args:
        shape: The output's shape, batch first.
        layout: What the user declares; overrides the rest.
        layer: The module that made the output; what it is made of is evidence.
        model: The network around it; evidence where the layer itself has no channels (a ReLU).

    Returns:
        One of ``LAYOUTS``.

    Raises:
        ValueError: The declared layout does not fit the shape, or none can be established.

    >>> resolve_layout((2, 64, 8, 8), layer=nn.ReLU())
    'NCHW'
    """
    shape = tuple(shape)
    check_layout(layout)
    for declared in LAYOUTS:
        if layout == declared:
            if len(declared) != len(shape):
                raise ValueError(
                    f"layout={layout!r} has {len(declared)} axes, the layer's output has {len(shape)} (shape {shape});"
                    f" expected a layout of {len(shape)} axes. Pass another layout=, or another layer."
                )
            return declared
    if len(shape) == 2:
        return "NC"
    if len(shape) == 3 and not _channels_first(layer, shape):
        return "NLC"
    if len(shape) == 4:
        first, last = _channels_first(layer, shape), _channels_last(layer, shape)
        if not first and not last:
            first = not any(_is_layer_norm(module) for module in (model.modules() if model is not None else ()))
        if first and not last:
            return "NCHW"
    fitting = [repr(name) for name in LAYOUTS if len(name) == len(shape)]
    remedy = f"Pass layout={' or '.join(fitting)}" if fitting else "Choose a layer of rank 2 to 4"
    raise ValueError(
        f"layout: the channel axis of an output of shape {shape} cannot be established; expected (N, C), (N, L, C), or"
        f" an (N, C, H, W) made by convolutions. {remedy}, or pass unit= a function of the output."
    )


def _channels_first(layer: nn.Module | None, shape: tuple[int, ...]) -> bool:
    """Whether something in the layer has its channels on axis 1, as many as the output has."""
    for module in layer.modules() if layer is not None else ():
        if isinstance(module, _ConvNd):
            channels = module.out_channels
        elif isinstance(module, _NormBase):
            channels = module.num_features
        elif isinstance(module, nn.GroupNorm):
            channels = module.num_channels
        elif isinstance(module, nn.LayerNorm) and not _is_layer_norm(module):
            channels = module.normalized_shape[0]
        else:
            continue
        if channels == shape[1]:
            return True
    return False


def _channels_last(layer: nn.Module | None, shape: tuple[int, ...]) -> bool:
    """Whether something in the layer has its channels on the last axis, as many as the output has."""
    for module in layer.modules() if layer is not None else ():
        if isinstance(module, nn.Linear) and module.out_features == shape[-1]:
            return True
        if _is_layer_norm(module) and module.normalized_shape[-1] == shape[-1]:
            return True
    return False


def _is_layer_norm(module: nn.Module) -> TypeGuard[nn.LayerNorm]:
    # timm's LayerNorm2d derives from nn.LayerNorm but has its channels first.
    return isinstance(module, nn.LayerNorm) and not type(module).__name__.endswith("2d")
