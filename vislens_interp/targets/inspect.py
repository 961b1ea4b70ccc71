"""The layers of a model that a lens can point at."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from vislens_interp.preprocess import PreprocessLike, as_preprocess, preprocess_for
from vislens_interp.random_state import kept_random_state
from vislens_interp.targets.capture import Seen, refuse_script, survey
from vislens_interp.targets.forward import Forward
from vislens_interp.targets.layout import Arrangement, Layout, channel_axis, establish
from vislens_interp.targets.probe import PROBE_IMAGES, checked_model, input_dtype, prepared, probe_images, told_of
from vislens_interp.targets.undisturbed import undisturbed


@dataclass(frozen=True)
class LayerInfo:
    """A layer that a lens can point at.

    Args:
        name: Dotted name; ``""`` is the model's own output.
        kind: Class of the module.
        shape: Shape of its output for one image.
        n_units: Channels or features that an int selects; None where ``layout=`` has to be passed first.
        layout: Layout of its output, images first; None where it has to be passed.
        prefix: Tokens before the patches, where there are tokens and it could be established.
        arrangement: How its output is brought into this layout; None where the layout is.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    n_units: int | None
    layout: Layout | None = field(default=None, compare=False)
    prefix: int | None = field(default=None, compare=False)
    arrangement: Arrangement | None = field(default=None, compare=False, repr=False)


def list_units(
    model: nn.Module,
    *,
    image_size: int | None = None,
    preprocess: PreprocessLike | None = None,
    forward_args: Mapping[str, object] | None = None,
) -> list[LayerInfo]:
    """The layers that a lens can point at, found by one pass.

    Left out are layers that the pass does not call, calls several times, or that give no tensor with the images first.

    Args:
        model: The network; left as it was.
        image_size: Side of the images for the pass, in pixels; None takes what the preprocessing makes.
        preprocess: From pixels in [0, 1] to what the network takes; None asks the model.
        forward_args: What the model takes beside the images, as :class:`LayerTarget`.

    Returns:
        One entry a layer, in the order of ``model.named_modules()``: the model's own output first.

    Raises:
        ValueError: The preprocessing or the size of images is not known.

    >>> from vislens_interp.preprocess import Preprocess
    >>> for info in list_units(nn.Sequential(nn.Conv2d(3, 4, 3)), preprocess=Preprocess(8, [0], [1])):
    ...     print(info)
    LayerInfo(name='', kind='Sequential', shape=(4, 6, 6), n_units=4, layout='NCHW', prefix=None)
    LayerInfo(name='0', kind='Conv2d', shape=(4, 6, 6), n_units=4, layout='NCHW', prefix=None)
    """
    model = checked_model(model)
    preprocess = preprocess_for(model) if preprocess is None else as_preprocess(preprocess)
    modules = dict(model.named_modules())
    names = [name for name in modules if not _is_scripted_inside(model, name)]
    with torch.inference_mode(False), torch.enable_grad(), undisturbed(model), kept_random_state():
        images = probe_images(model, preprocess, image_size)[:PROBE_IMAGES].requires_grad_()
        forward = Forward(model, forward_args)
        inputs = prepared(preprocess, images)
        inputs = inputs.to(images.device, input_dtype(model, forward, inputs))
        with told_of(model, inputs):
            found = survey(model, names, inputs, forward=forward)

    infos = [_info(name, modules[name], calls[0]) for name, calls in found.items() if len(calls) == 1]
    return [info for info in infos if info is not None]


def _info(name: str, module: nn.Module, seen: Seen) -> LayerInfo | None:
    if len(seen.shapes) != 1:
        return None
    ((path, shape),) = seen.shapes.items()
    kind = type(module).__name__
    try:
        arrangement = establish(shape, seen.axes[path], module)
    except ValueError:
        images_first = len(shape) > 1 and shape[0] == PROBE_IMAGES
        return LayerInfo(name, kind, shape[1:], None) if images_first else None
    arranged = tuple(arrangement.arrange(torch.empty(shape, device="meta")).shape)
    layout = arrangement.layout
    return LayerInfo(name, kind, arranged[1:], arranged[channel_axis(layout)], layout, arrangement.prefix, arrangement)


def _is_scripted_inside(model: nn.Module, name: str) -> bool:
    try:
        refuse_script(model, name)
    except ValueError:
        return True
    return False
