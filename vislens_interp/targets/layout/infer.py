"""Where a layer's output holds images, channels and positions: established from how it was made, never assumed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from vislens_interp.targets.layout.kinds import Axes, Axis, axis_of, is_whole, kinds, size_of

Layout: TypeAlias = Literal["NCHW", "NHWC", "NLC", "LNC", "NCL", "NC"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
_CLASS_TOKENS = ("cls", "class")  # what a class token's parameter is called: cls_token, class_token, class_embedding


def channel_axis(layout: Layout) -> int:
    """The axis of the channels.

    >>> channel_axis("NCHW"), channel_axis("NLC")
    (1, 2)
    """
    return layout.index("C")


def check_layout(layout: str | None) -> Layout | None:
    """The layout of this name; None is none declared.

    Raises:
        ValueError: There is none, naming those that there are.
    """
    for known in (None, *LAYOUTS):
        if layout == known:
            return known
    raise ValueError(f"layout={layout!r}; expected None or one of {', '.join(map(repr, LAYOUTS))}.")


@dataclass(frozen=True)
class Arrangement:
    """How a layer's output becomes one with the images first, and what its axes then are.

    Args:
        layout: After :meth:`arrange`; never ``"LNC"``.
        raw: Of what the layer gives, without the windows that are folded into the images.
        folded: Rows of the batch axis that belong to one image: 1, or the number of windows.
        windows_first: Whether the batch axis runs through the images fastest, (windows, N).
        prefix: Tokens before the patches, where that is established.
        class_token: Which of them is the class token, where the name of its parameter says so.
        is_map: Whether the two axes of positions are a picture's height and width.
        flat: Whether the layer gives more axes of positions than :attr:`raw` has, which become one.
    """

    layout: Layout
    raw: Layout
    folded: int = 1
    windows_first: bool = False
    prefix: int | None = None
    class_token: int | None = None
    is_map: bool = True
    flat: bool = False

    def arrange(self, output: Tensor) -> Tensor:
        """The output with the images first, (N, ...) of :attr:`layout`; gradients flow."""
        if self.raw == "LNC":
            output = output.movedim(1, 0)
        if self.flat:
            output = output.flatten(1, -2) if self.raw == "NLC" else output.flatten(2)
        if self.folded == 1:
            return output
        if self.windows_first:
            output = output.unflatten(0, (self.folded, -1)).movedim(0, 1)
        else:
            output = output.unflatten(0, (-1, self.folded))
        if self.raw in ("NCHW", "NCL"):  # (N, windows, C, ...): the windows join the positions
            return output.movedim(1, 2).flatten(2)
        return output.flatten(1, -2) if output.ndim > 3 else output


def declared(layout: Layout, shape: Sequence[int], count: int) -> Arrangement:
    """The arrangement of a layout that the user declares, which has to fit the shape.

    Args:
        layout: What the user passed.
        shape: The output's shape.
        count: Images in the pass.

    Raises:
        ValueError: Rank or batch axis do not fit.
    """
    shape = tuple(shape)
    if len(layout) != len(shape):
        raise ValueError(
            f"layout={layout!r} has {len(layout)} axes, the layer's output has {len(shape)} (shape {shape});"
            f" expected a layout of {len(shape)} axes. Pass another layout=, or another layer."
        )
    if shape[layout.index("N")] != count:
        raise ValueError(
            f"layout={layout!r}: axis {layout.index('N')} of the output is {shape[layout.index('N')]} long for {count}"
            f" images (shape {shape}); expected the images there. Pass another layout=, or another layer."
        )
    return Arrangement("NLC" if layout == "LNC" else layout, layout, is_map=layout in ("NCHW", "NHWC"))


def establish(shape: Sequence[int], axes: Axes | None, layer: nn.Module | None = None) -> Arrangement:
    """The arrangement of a layer's output, from what its axes are.

    Exactly one axis holds the images (alone, or with windows), exactly one the channels, the rest positions; the kind
    of a leaf module has to agree.

    Args:
        shape: The output's shape.
        axes: What :class:`~vislens_interp.targets.layout.tracer.AxisTracer` says of it.
        layer: The module that made it.

    Raises:
        ValueError: It cannot be established; the message says why and what to pass.
    """
    shape = tuple(shape)
    if axes is None:
        raise _open(shape, "no image enters it in a way that can be followed")
    if any(kinds(axis) & {"X"} for axis in axes):
        raise _open(shape, "an operation on the way to it mixes its axes in a way that cannot be followed")
    holding_images = [place for place, axis in enumerate(axes) if "N" in kinds(axis)]
    if len(holding_images) != 1 or kinds(axes[holding_images[0]]) - {"N", "S"}:
        raise _open(shape, "no axis holds the images alone or with windows of them")
    images = holding_images[0]
    folded = _folded(axes[images])
    if folded is None:
        raise _open(shape, "the images are spread over their axis")
    if any("M" in kinds(axis) for axis in axes):
        raise _open(shape, "a layer that runs over positions, not channels, made it")
    leaf = leaf_axis(layer, len(shape))
    # A Linear over heads makes what its leaf says; so does a K without map.
    if (len(shape) == 2 or leaf == len(shape) - 1) and kinds(axes[-1]) in ({"H"}, {"K"}):
        axes = (*axes[:-1], axis_of("C", size_of(axes[-1])))
    if any(kinds(axis) & {"H", "K"} for axis in axes):
        raise _open(shape, "weights mixed heads or neighbouring channels on an axis that is not theirs alone")
    channels = _channels(shape, axes, images)
    if leaf is not None and leaf != channels:
        raise _open(
            shape, f"{type(layer).__name__} makes axis {leaf}, but the channels before it are on axis {channels}"
        )
    if len(shape) > 4 and images == 0 and channels in (1, len(shape) - 1):
        return replace(_arrangement("NLC" if channels > 1 else "NCL", *folded, [()]), flat=True, prefix=None)
    for raw in LAYOUTS:
        if (len(raw), raw.index("N"), raw.index("C")) == (len(shape), images, channels):
            return _arrangement(raw, *folded, [axis for axis, letter in zip(axes, raw, strict=True) if letter in "HWL"])
    raise _open(shape, f"images on axis {images} and channels on axis {channels} are none of the known layouts")


def _folded(axis: Axis) -> tuple[int, bool] | None:
    """Rows of an axis of images that belong to one of them, and whether they are its slower part; None if mixed up."""
    places = [place for place, atom in enumerate(axis) if atom.kind == "N"]
    if len(places) != 1 or places[0] not in (0, len(axis) - 1):
        return None
    count = axis[places[0]].size
    return (size_of(axis) // count, places[0] > 0) if count == axis[places[0]].source.size else None


def _channels(shape: tuple[int, ...], axes: Axes, images: int) -> int:
    found = [place for place, axis in enumerate(axes) if "C" in kinds(axis)]
    if len(found) == 2 and found[1] == len(shape) - 1 and _are_heads(axes[found[0]], axes[found[1]]):
        return found[1]  # (N, heads, L, features), as queries and keys are normalised: a feature of every head
    if len(found) > 1:
        raise _open(shape, f"axes {found} share the channels between them, as heads and their features do")
    if found:
        if not is_whole(axes[found[0]], axes):
            raise _open(shape, f"axis {found[0]} holds parts of channels, such as heads, not channels")
        return found[0]
    single = [place for place, axis in enumerate(axes) if not axis and place != images]
    # One channel leaves no trace: an axis of length 1, whichever it is, reads the same.
    if single and all(not axis or kinds(axis) == {"S"} for place, axis in enumerate(axes) if place != images):
        return 1 if 1 in single else single[-1]
    raise _open(shape, "no axis holds channels")


def _are_heads(heads: Axis, features: Axis) -> bool:
    """Whether two axes are the two factors of the same channels, heads and the features of each."""
    if len(heads) != 1 or len(features) != 1:
        return False
    (head,), (feature,) = heads, features
    return head.key == feature.key and feature.stride == 1 and head.stride == feature.size


def _arrangement(raw: Layout, rows: int, windows_first: bool, positions: list[Axis]) -> Arrangement:
    layout: Layout = "NLC" if raw == "LNC" else raw
    if rows > 1:
        layout = "NCL" if raw in ("NCHW", "NCL") else "NLC"
    prefix = token = None
    if layout == "NLC" and rows == 1 and raw in ("NLC", "LNC"):
        prefix, token = _prefix(positions[0])
    is_map = layout in ("NCHW", "NHWC") and all(len(axis) <= 1 and kinds(axis) <= {"S"} for axis in positions)
    return Arrangement(layout, raw, rows, windows_first, prefix, token, is_map)


def _prefix(axis: Axis) -> tuple[int | None, int | None]:
    """How many tokens stand before the patches, and which is the class token."""
    if kinds(axis) != {"S"}:
        return None, None
    atom, *others = axis
    if others or not atom.source.parts:
        return 0, None
    names: list[str] = []
    patches = 0
    for name, length in atom.source.parts:
        if name is None:
            patches += length
        elif patches:
            return None, None  # tokens behind or between the patches
        else:
            names += [name] * length
    if atom.size != atom.source.size or len(names) + patches != atom.size or not patches:
        return None, None
    classes = [place for place, name in enumerate(names) if any(word in name.split(".")[-1] for word in _CLASS_TOKENS)]
    return len(names), classes[0] if len(classes) == 1 else None


def leaf_axis(layer: nn.Module | None, rank: int) -> int | None:
    """The axis on which a leaf module makes or normalises its channels; None for other kinds.

    Args:
        layer: The module.
        rank: Axes of its output.
    """
    if isinstance(layer, (_ConvNd, _NormBase, nn.GroupNorm)):
        return 1
    # timm's LayerNorm2d derives from nn.LayerNorm but has its channels first.
    if isinstance(layer, nn.Linear) or (type(layer) is nn.LayerNorm and len(layer.normalized_shape) == 1):
        return rank - 1
    return None


def _open(shape: tuple[int, ...], why: str) -> ValueError:
    fitting = [repr(name) for name in LAYOUTS if len(name) == len(shape)]
    remedy = f"Pass layout={' or '.join(fitting)}" if fitting else "Choose a layer of rank 2 to 4"
    return ValueError(
        f"layout: the channel axis of an output of shape {shape} cannot be established: {why}; expected one axis of"
        f" images, one of channels, and positions. {remedy}, or pass unit= a function of the output."
    )
