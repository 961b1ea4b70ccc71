"""From pixels in [0, 1] to what a network takes: differentiable, and compared with the transform that was given.

Published transforms read files. Here they are run on a few pictures; what they do to colours and to shapes becomes a
:class:`Preprocess`, if it can do the same, and they are applied as they are, without gradients, if it cannot.
"""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypeGuard, cast, get_args, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from vislens_interp.images import check_size, resize, to_pil
from vislens_interp.random_state import kept_random_state, random_states
from vislens_interp.validation import check_word

Fit: TypeAlias = Literal["crop", "squash", "shorter"]
"""What becomes of a picture that is not square: its centre is cut out, its sides are made equal, or it stays so."""


@runtime_checkable
class PublishedWeights(Protocol):
    """Weights as torchvision publishes them."""

    @property
    def transforms(self) -> Callable[..., Any]: ...
    @property
    def meta(self) -> Mapping[str, Any]: ...


PreprocessLike: TypeAlias = Callable[..., Any] | PublishedWeights
"""What may be given as ``preprocess=``, see :func:`as_preprocess`."""
_FileReader: TypeAlias = Callable[[Image.Image], Tensor]


class Preprocess(nn.Module):
    """What a network wants done to pixels in [0, 1]: resize, mix colours, subtract ``mean`` and divide by ``std``.

    The image is shown whole: where a published transform resizes to more than ``size`` and crops the centre (timm's
    ``crop_pct``), the shorter side here is resized to ``size`` itself, because reference and generated images must be
    seen by the network as they are drawn in a figure.

    Args:
        size: Side of the square that the network takes, in pixels; None leaves the size as it is.
        mean: Mean of each channel, on pixels in [0, 1]; one number or three.
        std: Standard deviation of each channel, above 0; one number or three.
        fit: ``"crop"`` cuts the centre square out of a picture that is not square, ``"squash"`` resizes both sides to
            ``size``, ``"shorter"`` the shorter side alone.
        colours: (3, 3) that multiplies red, green and blue before ``mean`` is subtracted, such as their order reversed;
            None leaves them.

    Raises:
        ValueError: An argument is outside of what is said above.

    >>> Preprocess(4, [0.5], [0.5])(torch.ones(1, 3, 8, 8)).mean().item()
    1.0
    """

    mean: Tensor
    std: Tensor
    colours: Tensor | None

    def __init__(
        self,
        size: int | None,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        fit: Fit = "crop",
        colours: Tensor | ArrayLike | None = None,
    ) -> None:
        super().__init__()
        if size is not None:
            check_size(size)
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, 3) or not all(np.isfinite(value) for value in values):
                raise ValueError(f"{name}={values!r}; expected 3 finite numbers, one a channel (or 1 for all).")
        if colours is None and max(mean) > 1:
            raise ValueError(
                f"mean={mean!r}; expected means of pixels in [0, 1], and these are of 0..255. Divide mean and std by"
                " 255."
            )
        if min(std) <= 0:
            raise ValueError(f"std={std!r}; expected numbers above 0.")
        check_word("fit", fit, get_args(Fit))
        self.size = size
        self.fit: Fit = fit
        # Not persistent: a model that carries its preprocessing keeps its state_dict and its fingerprint.
        for name, values in (("mean", mean), ("std", std)):
            with torch.inference_mode(False):  # gradients have to pass them later
                constants = torch.tensor([float(v) for v in values], dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, constants, persistent=False)
        matrix = None if colours is None else torch.as_tensor(colours, dtype=torch.float32)
        if matrix is not None and (tuple(matrix.shape) != (3, 3) or not matrix.isfinite().all()):
            raise ValueError(f"colours has shape {tuple(matrix.shape)}; expected (3, 3) finite numbers, or None.")
        self.register_buffer("colours", matrix, persistent=False)

    def at_size(self, size: int) -> "Preprocess":
        """The same for a network that takes squares of another side, in pixels, on the CPU."""
        mean, std = self.mean.flatten().tolist(), self.std.flatten().tolist()
        return Preprocess(size, mean, std, fit=self.fit, colours=self.colours)

    def forward(self, images: Tensor) -> Tensor:
        if self.size is not None:
            images = self._resized(images, self.size)
        if self.colours is not None:
            images = torch.einsum("dc,nchw->ndhw", self.colours.to(images), images)
        return (images - self.mean.to(images)) / self.std.to(images)

    def _resized(self, images: Tensor, size: int) -> Tensor:
        height, width = images.shape[-2:]
        if self.fit == "crop" or height == width:
            return resize(images, size)
        shorter = min(height, width)
        shape = (size, size) if self.fit == "squash" else (size * height // shorter, size * width // shorter)
        if shape == (height, width):
            return images
        return F.interpolate(images, shape, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)

    def describe(self) -> str:
        """One line for reports.

        >>> Preprocess(32, [0.5], [0.25]).describe()
        'resize to 32, mean (0.5,), std (0.25,)'
        """
        mean, std = (tuple(round(v, 6) for v in values.flatten().tolist()) for values in (self.mean, self.std))
        fit = {"crop": "", "squash": ", squashed", "shorter": ", uncropped"}[self.fit]
        said = f"{'any size' if self.size is None else f'resize to {self.size}{fit}'}, mean {mean}, std {std}"
        if self.colours is None:
            return said
        return f"{said}, colours {[[round(v, 6) for v in row] for row in self.colours.tolist()]}"

    def extra_repr(self) -> str:
        return self.describe()


class FileTransform:
    """A transform of PIL images, applied as it is to each image of a batch, rounded to 8 bits; without gradients.

    Args:
        transform: From a PIL image to a tensor (3, h, w).
        size: Side of the square that it makes, in pixels; None if it makes none.
    """

    def __init__(self, transform: _FileReader, size: int | None = None) -> None:
        self.transform, self.size = transform, size

    def __call__(self, images: Tensor) -> Tensor:
        pictures = to_pil(images.detach().float().clamp(0, 1))
        return torch.stack([self.transform(picture) for picture in pictures]).to(images.device)

    def describe(self) -> str:
        """One line for reports."""
        name = getattr(self.transform, "__name__", None) or " ".join(repr(self.transform).split())
        return f"{name}, applied to 8-bit pictures"


def preprocess_for(model: nn.Module) -> Preprocess:
    """The preprocessing that a model carries with it; never guessed.

    Args:
        model: A network of our zoo (``model.preprocess``), of timm (``model.pretrained_cfg``, ``model.default_cfg``, in
            the size that the model was built for) or of open_clip (``model.visual.preprocess_cfg``, also of the tower
            alone).

    Returns:
        The model's own :class:`Preprocess`, or a new one from its settings.

    Raises:
        ValueError: The model carries none, or one for other than three channels.
    """
    own = getattr(model, "preprocess", None)
    if isinstance(own, Preprocess):
        return own
    for attribute in ("pretrained_cfg", "default_cfg"):
        settings = getattr(model, attribute, None)
        if settings is None:
            continue
        if not isinstance(settings, Mapping):
            settings = getattr(settings, "__dict__", {})
        shape, mean, std = (settings.get(key) for key in ("input_size", "mean", "std"))
        if shape is None or mean is None or std is None:
            continue
        shape = settings.get("test_input_size") or shape  # timm's published accuracies are at this size
        shape = (_channels_of(model, settings) or shape[0], *(_built_for(model) or shape[1:]))
        if shape[0] != 3 or shape[1] != shape[2]:
            raise ValueError(
                f"model: {type(model).__name__}.{attribute} asks for inputs of shape {tuple(shape)}; expected 3"
                " channels and a square. Pass preprocess=, a function from (N, 3, H, W) in [0, 1] to what the model"
                " takes."
            )
        return Preprocess(int(shape[1]), mean, std)
    for tower in (getattr(model, "visual", None), model):
        settings = getattr(tower, "preprocess_cfg", None)
        if isinstance(settings, Mapping) and {"size", "mean", "std"} <= settings.keys():
            sides = settings["size"] if isinstance(settings["size"], (list, tuple)) else [settings["size"]]
            if any(side != sides[0] for side in sides):
                raise ValueError(
                    f"preprocess: preprocess_cfg makes images of size {settings['size']}; expected a square. Pass a"
                    " function from (N, 3, H, W) in [0, 1] to what the model takes."
                )
            fit = "squash" if settings.get("resize_mode") == "squash" else "crop"
            return Preprocess(int(sides[0]), settings["mean"], settings["std"], fit=fit)
    raise ValueError(
        f"model: {type(model).__name__} does not say how its inputs are prepared (no .preprocess, no timm"
        " .pretrained_cfg, no open_clip .preprocess_cfg). Pass preprocess=, such as Preprocess(224, mean, std),"
        " torchvision's weights, or transformers' image processor; Preprocess(size, [0], [1]) if it takes pixels in"
        " [0, 1]."
    )


def _built_for(model: nn.Module) -> tuple[int, int] | None:
    """Height and width that a timm model insists on, whatever its published settings say."""
    embed = getattr(model, "patch_embed", None)
    size = getattr(embed, "img_size", None)
    strict = getattr(embed, "strict_img_size", False) and not getattr(embed, "dynamic_img_pad", False)
    return (int(size[0]), int(size[1])) if strict and isinstance(size, (list, tuple)) and len(size) == 2 else None


def _channels_of(model: nn.Module, settings: Mapping[str, object]) -> int | None:
    """Channels that the first convolution takes, by the name that timm's settings give it."""
    name = settings.get("first_conv")
    name = name[0] if isinstance(name, (list, tuple)) and name else name
    try:
        first = model.get_submodule(name) if isinstance(name, str) else None
    except AttributeError:
        return None
    return first.in_channels if isinstance(first, nn.Conv2d) else None


def as_preprocess(given: object) -> Callable[[Tensor], Tensor]:
    """What a person passes as ``preprocess=``, as a function of pixels in [0, 1].

    Args:
        given: A :class:`Preprocess`; torchvision's weights (``ResNet50_Weights.DEFAULT``), their ``transforms`` or
            ``transforms()``; an image processor of transformers; a transform of PIL images such as timm's and
            open_clip's; or a function of (N, 3, H, W) in [0, 1], which is used as it is. What reads PIL images is run
            on a few of them and translated, see :func:`translated`.

    Raises:
        TypeError: It is no function and none of the above.
        ValueError: It is random, gives bytes, or gives no image; the message names it.

    >>> from torchvision.models import ResNet18_Weights
    >>> as_preprocess(ResNet18_Weights.DEFAULT).describe()
    'resize to 224, mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)'
    """
    if isinstance(given, (Preprocess, FileTransform)):
        return given
    function = given.transforms() if isinstance(given, PublishedWeights) else given
    if isinstance(function, functools.partial) and isinstance(function.func, type):  # weights.transforms, not called
        function = function()
    function = getattr(function, "image_processor", function)  # transformers' processor of images and text
    if not _is_function(function):
        raise TypeError(
            f"preprocess is a {type(function).__name__}; expected Preprocess(size, mean, std), torchvision's weights or"
            " transforms, transformers' image processor, or a function of (N, 3, H, W) in [0, 1]."
        )
    if hasattr(function, "image_mean") and hasattr(function, "do_rescale"):
        with kept_random_state():
            return translated(function, functools.partial(_processed, function))
    takes_files = isinstance(getattr(function, "transforms", None), (list, tuple)) or hasattr(function, "crop_size")
    tensors = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with kept_random_state():
        if (takes_files or not _works(function, tensors)) and _works(function, _pictures()[0]):
            return translated(function, function)
    return function


def _is_function(given: object) -> TypeGuard[Callable[..., Any]]:
    return callable(given) and not isinstance(given, type)


def _works(function: Callable[..., object], argument: Tensor | Image.Image) -> bool:
    try:
        with torch.no_grad():
            return isinstance(function(argument), Tensor)
    except Exception:  # noqa: BLE001 (whatever it raises: it does not take this)
        return False


def _processed(processor: Callable[..., Mapping[str, Any]], picture: Image.Image) -> Tensor:
    """What transformers' image processor makes of one picture."""
    values = processor(images=picture, return_tensors="pt")["pixel_values"]
    return values[0] if isinstance(values, Tensor) and len(values) == 1 else values


# Transforms of files: measured on pictures


_SIZES = ((256, 256), (400, 400), (240, 330), (360, 250))  # height and width: square, twice, wide and tall
_ZOOMS = (1.0 - 0.0125 * torch.arange(49)).tolist()  # share of the side that a published centre crop shows
_CELLS = 12  # along each side of a smooth picture in which it is compared
_PIXEL = 0.6  # how far a centre crop may round, in pixels, times the slope of the smooth picture
_PLAIN = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0.2, 0.4, 0.6], [0.8, 0.2, 0.4]])
# Of the range of colours: nothing resamples a plain picture; in a smooth one it changes this much, and no more.
_CLOSE_PLAIN, _CLOSE_SMOOTH = 0.004, 0.012
_SHARP = (0.5, 1.6)  # contrast of fine noise, as a share of ours: what another filter or zoom leaves
_RUNS = 16  # of one picture, if random numbers are drawn


def translated(given: object, transform: _FileReader) -> "Preprocess | FileTransform":
    """A :class:`Preprocess` that does what a transform does to files, or the transform as it is, with a warning.

    What it does to colours is measured on plain pictures, and what it does to shapes on square, wide and tall ones.
    Then both are compared on smooth pictures and on fine noise, except for how much of the border a centre crop leaves
    out.

    Args:
        given: What the user passed, for messages, and for the numbers that it declares.
        transform: From a PIL image to a tensor.

    Raises:
        ValueError: It is random, or gives no float tensor (C, h, w).
    """
    name = getattr(given, "__name__", type(given).__name__)
    states = random_states()
    outputs = [_checked(transform(picture), name) for picture in _pictures()]
    draws = random_states() != states
    if any(not torch.equal(transform(_pictures()[2]), outputs[2]) for _ in range(_RUNS if draws else 1)):
        raise ValueError(
            f"preprocess: {name} gives the same picture two different results; expected a transform without randomness."
            " Pass the one for evaluation (timm: is_training=False)."
        )
    shapes = [tuple(output.shape[-2:]) for output in outputs]
    found = _measured(given, transform, outputs, shapes)
    if isinstance(found, Preprocess):
        return found
    side = shapes[0][0] if len(set(shapes)) == 1 and shapes[0][0] == shapes[0][1] else None
    warnings.warn(
        f"preprocess: {name} does what Preprocess cannot: {found}. It is applied as it is to 8-bit pictures, one by"
        " one, and passes no gradients. For gradients pass a function of (N, 3, H, W) in [0, 1].",
        stacklevel=4,
    )
    return FileTransform(transform, side)


def _measured(
    given: object, transform: _FileReader, outputs: list[Tensor], shapes: list[tuple[int, ...]]
) -> "Preprocess | str":
    """The same as a :class:`Preprocess`, or why there is none."""
    if any(len(output) != 3 for output in outputs):
        return f"it gives {len(outputs[0])} channels"
    plain = torch.stack([transform(_picture(colour)).double().flatten(1).mean(1) for colour in _PLAIN])
    bias, matrix = plain[0], (plain[1:4] - plain[0]).T
    scale = matrix.abs().max().clamp_min(1e-12)
    bent = ((_PLAIN.double() @ matrix.T + bias - plain).abs().max() / scale).item()
    if not bent <= _CLOSE_PLAIN:
        return f"its colours are no linear mixture of red, green and blue (by {bent:.2g} of their range)"
    geometries = _geometries(shapes)
    if not geometries:
        return f"it makes pictures of height and width {shapes} of {list(_SIZES)}"
    compare = functools.partial(_difference, matrix=matrix, bias=bias)
    zooms = [1.0] if geometries[0] in ((None, "crop"), (geometries[0][0], "shorter")) else _ZOOMS
    zoom = min(zooms, key=lambda one: compare(outputs[0], _SIZES[0], one, "crop"))
    errors = [
        (max(compare(output, shape, zoom, fit) for output, shape in zip(outputs, _SIZES, strict=True)), size, fit)
        for size, fit in geometries
    ]
    error, size, fit = min(errors, key=lambda one: one[0])
    if not error / scale <= _CLOSE_SMOOTH:
        return f"a smooth picture differs by {error / scale:.2g} of the range of colours from a resized one"
    ours = _preprocess(given, size, cast(Fit, fit), matrix, bias)
    noise = torch.rand(3, size or 64, size or 64, generator=torch.Generator().manual_seed(0))
    contrast = [values.double().std().item() for values in (transform(to_pil(noise[None])[0]), ours(noise[None])[0])]
    sharp = contrast[0] / max(contrast[1], 1e-12)
    if not _SHARP[0] <= sharp <= _SHARP[1]:
        return f"it leaves {sharp:.0%} of the contrast of fine detail, and resizing 100 %"
    return ours


def _smooth(rows: Tensor, columns: Tensor) -> Tensor:
    """Colours (3, h, w) at relative heights and widths of a picture in which no two directions look alike."""
    down, right = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([0.15 + 0.7 * right, 0.15 + 0.7 * down, 0.15 + 0.7 * right * down])


@functools.cache
def _pictures() -> tuple[Image.Image, ...]:
    """The smooth picture in every shape."""
    return tuple(
        to_pil(_smooth((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width)[None])[0]
        for height, width in _SIZES
    )


def _picture(colour: Tensor) -> Image.Image:
    return to_pil(colour[None, :, None, None].expand(1, 3, *_SIZES[0]))[0]


def _checked(output: object, name: str) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim != 3:
        shape = f" of shape {tuple(output.shape)}" if isinstance(output, Tensor) else ""
        came = f"a {type(output).__name__}{shape}"
        raise ValueError(
            f"preprocess: {name} makes {came} of a picture; expected a tensor (3, h, w). Add ToTensor(), or pass a"
            " function from (N, 3, H, W) in [0, 1] to what the model takes."
        )
    if not output.is_floating_point():
        raise ValueError(
            f"preprocess: {name} gives {output.dtype} in 0..255, which a loader normalises later; expected floating"
            " point, as the network takes it. Build it with its normalisation (timm: use_prefetcher=False,"
            " normalize=True), or pass Preprocess(size, mean, std)."
        )
    return output


def _geometries(shapes: list[tuple[int, ...]]) -> list[tuple[int | None, Fit]]:
    """What sizes and fits would make these shapes of our pictures."""
    if shapes == list(_SIZES):
        return [(None, "crop")]
    sides = {side for shape in shapes for side in shape}
    if len(sides) == 1:
        size = sides.pop()
        return [(size, fit) for fit in ("crop", "squash")]
    shorter = {min(shape) for shape in shapes}
    size = min(shorter)
    wanted = [(size * height // min(height, width), size * width // min(height, width)) for height, width in _SIZES]
    off = max(abs(a - b) for one, other in zip(shapes, wanted, strict=True) for a, b in zip(one, other, strict=True))
    return [(size, "shorter")] if len(shorter) == 1 and off <= 1 else []


def _difference(output: Tensor, shape: tuple[int, int], zoom: float, fit: Fit, matrix: Tensor, bias: Tensor) -> float:
    """How far a transformed smooth picture is from what is expected, in cells of it."""
    height, width = shape
    cut = fit == "crop" and output.shape[-1] == output.shape[-2]
    shown = (min(shape) / height, min(shape) / width) if cut else (1.0, 1.0)
    # The colours are linear along each side, so that a cell's mean is the colour at its middle.
    middles = [
        F.adaptive_avg_pool1d((torch.arange(side, dtype=torch.double)[None, None] + 0.5) / side - 0.5, _CELLS)[0, 0]
        for side in output.shape[-2:]
    ]
    colours = _smooth(0.5 + middles[0] * zoom * shown[0], 0.5 + middles[1] * zoom * shown[1])
    expected = torch.einsum("dc,chw->dhw", matrix, colours) + bias[:, None, None]
    error = (F.adaptive_avg_pool2d(output.double(), _CELLS) - expected).abs().max().item()
    return error - _PIXEL * matrix.abs().max().item() / min(output.shape[-2:])


def _preprocess(given: object, size: int | None, fit: Fit, matrix: Tensor, bias: Tensor) -> Preprocess:
    """The measured colours in numbers: those that the transform declares, where they say the same."""
    for mean, std in _declared(given):
        exact = 1 / torch.tensor(std, dtype=torch.double)
        shift = -torch.tensor(mean, dtype=torch.double) * exact
        if (matrix - torch.diag(exact.expand(3))).abs().max() < 1e-4 and (bias - shift).abs().max() < 1e-4:
            return Preprocess(size, mean, std, fit=fit)
    chosen = matrix.abs().argmax(1)
    factors = matrix.gather(1, chosen[:, None])[:, 0]
    order = torch.eye(3, dtype=torch.double)[chosen]
    if (factors <= 0).any() or (matrix - order * factors[:, None]).abs().max() > 1e-5 * factors.max():
        return Preprocess(size, (0.0 - bias).tolist(), [1.0], fit=fit, colours=matrix)
    colours = None if torch.equal(order, torch.eye(3, dtype=torch.double)) else order
    return Preprocess(size, (0.0 - bias / factors).tolist(), (1 / factors).tolist(), fit=fit, colours=colours)


def _declared(given: object) -> list[tuple[list[float], list[float]]]:
    """Means and standard deviations that a transform names, and none at all."""
    steps = getattr(given, "transforms", [])
    places = [(given, "mean", "std"), (given, "image_mean", "image_std")]
    places += [(step, "mean", "std") for step in (steps if isinstance(steps, (list, tuple)) else [])]
    found = [([0.0], [1.0])]
    for place, *names in places:
        values = [getattr(place, name, None) for name in names]
        if all(isinstance(value, (Tensor, list, tuple)) for value in values):
            mean, std = (torch.as_tensor(value, dtype=torch.double).flatten().tolist() for value in values)
            found.append((mean, std))
    return [pair for pair in found if len(pair[0]) in (1, 3) and len(pair[1]) in (1, 3) and min(pair[1]) > 0]


def describe_preprocess(preprocess: Callable[[Tensor], Tensor]) -> str:
    """One line that says what a preprocessing does, as far as it says so itself.

    Args:
        preprocess: What :func:`as_preprocess` gave.
    """
    said = getattr(preprocess, "describe", None)
    if callable(said):
        return str(said())
    return getattr(preprocess, "__name__", None) or repr(preprocess)


def normalises(preprocess: Callable[[Tensor], Tensor]) -> bool:
    """Whether a preprocessing is known to subtract a mean or to divide by a standard deviation.

    Args:
        preprocess: What :func:`as_preprocess` gave.
    """
    if isinstance(preprocess, FileTransform):
        return True
    return isinstance(preprocess, Preprocess) and bool((preprocess.mean != 0).any() or (preprocess.std != 1).any())


def preprocess_size(preprocess: Callable[[Tensor], Tensor]) -> int | None:
    """Side in pixels of what a preprocessing makes, or None if it does not say.

    Args:
        preprocess: A :class:`Preprocess`, a torchvision transform of published weights, or any function.
    """
    for attribute in ("size", "crop_size"):
        size = getattr(preprocess, attribute, None)
        if isinstance(size, (list, tuple)) and size and all(side == size[0] for side in size):
            size = size[0]
        if isinstance(size, int) and not isinstance(size, bool):
            return size
    return None
