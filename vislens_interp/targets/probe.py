"""Passes that prove, before anything is read, that a response is a function of one image and of nothing else."""

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from traceback import walk_tb
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vislens_interp.preprocess import describe_preprocess, preprocess_size
from vislens_interp.random_state import kept_random_state
from vislens_interp.targets.capture import LayerReached, plain, refuse_scattered, tensors_in

PROBE_IMAGES = 2  # two, so that a layer which folds other axes into the batch is seen; then one more
REPEATS = 32  # passes of a model that draws random numbers: a layer that is skipped in 1 of 10 passes escapes in 3 %
# What two passes over the same image may differ by, of the largest value of a channel: the order of sums in batches of
# different sizes, which is larger where fewer bits are kept.
_CLOSE, _CLOSE_IN_LOW_PRECISION = 0.005, 0.05
_SMALL = 1e-3  # of the layer's largest value: channels below differ by rounding alone


class ModelPassError(RuntimeError, ValueError):
    """A model that does not run on the images that the preprocessing makes."""


def tolerance(*tensors: Tensor, model: nn.Module | None = None) -> float:
    """What two readings of one image may differ by, as a share of the largest value."""
    kinds = {one.dtype for one in tensors}
    quantised = False
    if model is not None:
        kinds |= {one.dtype for one in (*model.parameters(), *model.buffers()) if one.is_floating_point()}
        quantised = any("quantized" in type(module).__module__ for module in model.modules())
    full = {torch.float32, torch.float64, torch.int64, torch.int32, torch.bool}
    on_cpu = all(one.device.type == "cpu" for one in tensors)
    return _CLOSE if kinds <= full and on_cpu and not quantised else _CLOSE_IN_LOW_PRECISION


def agree(one: Tensor, other: Tensor, close: float, axis: int = -1) -> bool:
    """Whether two readings of the same images are the same.

    The error is taken for each channel, because a few channels of a transformer are hundreds of times as large as the
    rest; most channels have to agree.

    Args:
        one: (N, ...) of some images.
        other: Of the same images in another pass.
        close: Share of a channel's largest value.
        axis: The channels.
    """
    if one.shape != other.shape:
        return False
    if one.numel() == 0:
        return True
    first, second = (tensor.detach().double().movedim(axis, 0).flatten(1).cpu() for tensor in (one, other))
    both_nan = first.isnan() & second.isnan()
    first, second = first.masked_fill(both_nan, 0), second.masked_fill(both_nan, 0)
    error = (first - second).abs().nan_to_num(torch.inf, torch.inf).amax(1)
    error[(first == second).all(1)] = 0  # infinite values that are the same
    size = first.abs().amax(1).nan_to_num(0, 0)
    return bool((error <= close * size.clamp_min(_SMALL * size.max())).double().mean() > 0.5)


class OwnState:
    """What a model keeps between passes: buffers and attributes of every module, as values that compare.

    Counters, caches and memory tokens are seen wherever they are numbers, tensors or containers of them, up to a depth
    of four; what C code keeps is not.

    Args:
        model: The network.
    """

    def __init__(self, model: nn.Module) -> None:
        seen: dict[int, object] = {}
        self._values: dict[tuple[str, str], object] = {}
        self._kept: dict[tuple[str, str], tuple[dict[str, Any], Any, Any]] = {}
        for name, module in model.named_modules():
            attributes = {key: value for key, value in module.__dict__.items() if key not in _MODULE_ATTRIBUTES}
            for holder, values in ((module._buffers, module._buffers), (module.__dict__, attributes)):
                for key, value in values.items():
                    self._values[name, key] = _frozen(value, seen)
                    copied = copy.copy(value) if isinstance(value, (dict, list, set, deque)) else None
                    self._kept[name, key] = (holder, value, copied)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OwnState) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]

    def restore(self, changed: "OwnState") -> None:
        """Put back what differs from this in a later state; objects that are no containers stay as they are."""
        for place, value in changed._values.items():
            if place not in self._values:
                del changed._kept[place][0][place[1]]
            elif value != self._values[place]:
                holder, was, copied = self._kept[place]
                holder[place[1]] = was
                frozen = self._values[place]
                if isinstance(frozen, _Values) and frozen.values is not None:
                    was.data.copy_(frozen.values)
                elif isinstance(was, (dict, set)):
                    was.clear()
                    was.update(copied)
                elif isinstance(was, (list, deque)):
                    was.clear()
                    was.extend(copied)


_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
_LARGE = 2**20  # numbers in a tensor above which its version stands for its values
_LONG = 10_000
_DEEP = 4


class _Values:
    """A tensor's values at one time."""

    def __init__(self, tensor: Tensor) -> None:
        version = None if tensor.is_inference() else tensor._version
        self.mark = (id(tensor), version, tuple(tensor.shape), tensor.dtype)
        plain = tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_meta
        self.values = tensor.detach().clone() if plain and tensor.numel() <= _LARGE else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Values) or self.mark[2:] != other.mark[2:]:
            return False
        if self.values is None or other.values is None:
            return self.mark == other.mark
        return torch.equal(torch.nan_to_num(self.values), torch.nan_to_num(other.values))

    __hash__ = None  # type: ignore[assignment]


def _frozen(value: object, seen: dict[int, object], depth: int = 0) -> object:
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return value
    if isinstance(value, Tensor):
        return _Values(value)
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes() if value.size <= _LARGE else id(value)
    if depth >= _DEEP or isinstance(value, (nn.Module, FunctionType, MethodType, ModuleType, type)):
        return id(value)
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = id(value)  # for what holds itself
    if isinstance(value, Mapping) and len(value) <= _LONG:
        seen[id(value)] = [(_frozen(k, seen, depth + 1), _frozen(v, seen, depth + 1)) for k, v in value.items()]
    elif isinstance(value, (list, tuple, deque)) and len(value) <= _LONG:
        seen[id(value)] = [_frozen(one, seen, depth + 1) for one in value]
    elif isinstance(value, (set, frozenset)) and len(value) <= _LONG:
        seen[id(value)] = {one if isinstance(one, (bool, int, float, str)) else id(one) for one in value}
    elif isinstance(getattr(value, "__dict__", None), dict):
        seen[id(value)] = [(key, _frozen(one, seen, depth + 1)) for key, one in vars(value).items()]
    return seen[id(value)]


def first_difference(
    model: nn.Module, run: Callable[[Tensor], object], one: Tensor, other: Tensor, *, alone: bool = False
) -> str:
    """The first layer that answers differently in two passes, for a message.

    Args:
        model: The network.
        run: Runs it, whole.
        one: What it takes in the first pass.
        other: In the second.
        alone: Whether ``other`` is the beginning of ``one``, not the same images again.
    """
    reference = _outputs(model, run, one, seed=0)
    modules = dict(model.named_modules())
    for seed in range(1, 2 if alone else REPEATS):
        for (name, first), (again, second) in zip(reference, _outputs(model, run, other, seed=seed), strict=False):
            if name != again:
                break
            if alone:
                if first.ndim == 0 or second.ndim == 0 or len(first) * len(other) != len(second) * len(one):
                    continue
                first = first[: len(second)]
            if not agree(first, second, tolerance(first, model=model)):
                return f"; the first layer that differs is {name!r} ({type(modules[name]).__name__})"
    return "; no module inside it differs, so it is the model's own code"


def _outputs(
    model: nn.Module, run: Callable[[Tensor], object], inputs: Tensor, *, seed: int
) -> list[tuple[str, Tensor]]:
    """Name and first tensor of every layer that a pass calls, in order."""
    outputs: list[tuple[str, Tensor]] = []

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[object, ...], output: object) -> None:
            tensors = tensors_in(output)
            if tensors:
                outputs.append((name, next(iter(tensors.values())).detach().clone()))

        return hook

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if name and not isinstance(module, torch.jit.ScriptModule):
                hooks.callback(module.register_forward_hook(note(name)).remove)
        with kept_random_state(seed=seed), torch.no_grad():
            run(inputs)
    return outputs


def checked_model(model: nn.Module) -> nn.Module:
    """A module whose layers can be read, of what was given.

    Raises:
        TypeError: It is no module.
        ValueError: Its weights are elsewhere, or parts of it are compiled.
    """
    if not isinstance(model, nn.Module):
        remedy = (
            "Pass CallableTarget(function) for a function of images."
            if callable(model)
            else "Pass such as zoo.load(name)."
        )
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module. {remedy}")
    model = plain(model)
    refuse_scattered(model)
    return model


def anchor(model: nn.Module) -> Tensor:
    """A tensor of the device and floating-point type that the model computes with."""
    for tensor in chain(model.parameters(), model.buffers()):  # lazily: the first parameter is mostly it
        if tensor.is_floating_point():
            return tensor
    return torch.empty(0)


def input_dtype(model: nn.Module, run: Callable[[Tensor], object], inputs: Tensor) -> torch.dtype:
    """The floating-point type that a model takes images in: that of the weights which they meet first.

    Args:
        model: The network.
        run: Runs it.
        inputs: Images, preprocessed.
    """
    kinds = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    if len(kinds) <= 1:
        return anchor(model).dtype
    met: list[torch.dtype] = []
    reached = LayerReached()

    def note(module: nn.Module, args: tuple[object, ...]) -> None:
        weights = [one.dtype for one in module._parameters.values() if one is not None and one.is_floating_point()]
        if weights and args and isinstance(args[0], Tensor) and args[0].is_floating_point():
            met.append(weights[0])
            raise reached

    with ExitStack() as hooks:
        for module in model.modules():
            if not module._modules and not isinstance(module, torch.jit.ScriptModule):
                hooks.callback(module.register_forward_pre_hook(note).remove)
        with torch.no_grad(), suppress(LayerReached, Exception):  # a pass that fails is told of by the next one
            run(inputs)
    return met[0] if met else anchor(model).dtype


def probe_images(model: nn.Module, preprocess: Callable[[Tensor], Tensor], image_size: int | None) -> Tensor:
    """Three images, unlike one another, for the first passes, where the model is."""
    size = preprocess_size(preprocess) or image_size
    if size is None:
        raise ValueError(
            f"image_size: neither it nor preprocess ({describe_preprocess(preprocess)}) says what size of images"
            f" {type(model).__name__} takes. Pass image_size=, or preprocess=Preprocess(size, mean, std)."
        )
    # Unlike one another, and the same whatever the caller's random state is.
    generator = torch.Generator().manual_seed(0)
    return torch.rand((PROBE_IMAGES + 1, 3, size, size), generator=generator).to(anchor(model).device)


def gradient_reaches(output: Tensor, images: Tensor) -> bool:
    """Whether a backward pass from an output ends at the images, and not only at what the model itself made."""
    nodes, seen = [output.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if getattr(node, "variable", None) is images:
            return True
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [before for before, _ in node.next_functions]
    return False


def prepared(preprocess: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Images as the network takes them, one of each.

    Raises:
        ValueError: The preprocessing fails, gives no tensor, or another number of images.
    """
    try:
        inputs = preprocess(images)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise ValueError(
            f"preprocess={describe_preprocess(preprocess)} fails on images of shape {tuple(images.shape)}"
            f" ({type(error).__name__}: {error}); expected a function of (N, 3, H, W) in [0, 1]. Mend it, or pass"
            " Preprocess(size, mean, std)."
        ) from error
    if isinstance(inputs, Tensor) and inputs.ndim and len(inputs) == len(images):
        return inputs
    came = f"shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else f"a {type(inputs).__name__}"
    raise ValueError(
        f"preprocess={describe_preprocess(preprocess)} gives {came} for {len(images)} images; expected a tensor with"
        " one row an image. Crops and flips of an image are images of their own: pass them as such, or average them in"
        " a module around the model."
    )


@contextmanager
def told_of(model: nn.Module, inputs: Tensor) -> Iterator[None]:
    """Inside, what the model itself raises is told as what it is: a pass that fails on such images."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (ValueError, TypeError)) and _is_ours(error):
            raise
        raise ModelPassError(
            f"a pass of {type(model).__name__} fails on images of shape {tuple(inputs.shape)} and type {inputs.dtype},"
            f" which preprocess= makes ({type(error).__name__}: {error}); expected a model that takes them. Pass"
            " another preprocess= or image_size=, or forward_args= with what its forward takes beside the images."
        ) from error


def _is_ours(error: BaseException) -> bool:
    *_, (frame, _) = walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").startswith("vislens_interp.targets.")
