"""What a lens points at: images in, one response a unit out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from vislens_interp.files import fingerprint
from vislens_interp.images import check_images, check_shape, preprocess_for, preprocess_size
from vislens_interp.targets.capture import find_layer, probe, refuse_scattered, run_to_layer, single_output, undisturbed
from vislens_interp.targets.layout import Layout, channel_axis, check_layout, resolve_layout
from vislens_interp.targets.selectors import MeanOf, OneUnit, Pool, Unit, check_pool, pool_unit, unit_list, unit_name

_PROBE_IMAGES = 2  # two, so that a layer which folds other axes into the batch is seen


class Target(ABC):
    """Images to responses. Subclasses set ``names`` and ``differentiable`` and define :meth:`__call__`.

    Attributes:
        names: A name for each of the K units.
        differentiable: Whether gradients of responses reach the images.
        batch_size: Images in a pass of :meth:`responses`, unless that is told otherwise.
    """

    names: list[str]
    differentiable: bool
    batch_size: int = 256

    @property
    def device(self) -> torch.device:
        """Where passes run; images are moved there."""
        return torch.device("cpu")

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """Responses with gradients, if the images need them and the target is differentiable.

        Args:
            images: (N, 3, H, W) in [0, 1]. The range is not checked here: optimisation calls this in a loop.

        Returns:
            (N, K), on :attr:`device`.
        """

    def features(self, images: Tensor) -> Tensor:
        """The representation that responses are read from, for losses that ask for it to be kept; gradients flow.

        Args:
            images: (N, 3, H, W) in [0, 1].

        Returns:
            (N, ...), on :attr:`device`.

        Raises:
            TypeError: This kind of target has none.
        """
        raise TypeError(
            f"{type(self).__name__} has no features; expected a target that reads a network's layer, such as"
            " LayerTarget. Pass a network to take them from instead."
        )

    def responses(self, images: Tensor, *, batch_size: int | None = None, progress: bool = False) -> Tensor:
        """Responses to any number of images, without gradients.

        Args:
            images: (N, 3, H, W) in [0, 1], on any device.
            batch_size: Images in a pass; None is the target's own.
            progress: Show a progress bar.

        Returns:
            (N, K), float32, on the CPU.

        Raises:
            ValueError: Images break the convention, or ``batch_size`` is below 1.
        """
        check_images(images)
        batch_size = self.batch_size if batch_size is None else batch_size
        _check_batch_size(batch_size)
        batches = images.split(batch_size)
        if progress:
            from tqdm import tqdm

            batches = tqdm(batches, desc="responses", unit="batch")
        with torch.no_grad():  # not inference_mode: a model may cache tensors in its pass, and train with them later
            return torch.cat([self(batch).float() for batch in batches]).cpu()


class LayerTarget(Target):
    """Units of one layer of a network, which is left as it was: mode, gradients, device, hooks and random state.

    Everything is checked at construction, by one full pass of two grey images; after that a pass stops at the layer.

    Args:
        model: The network. Images are moved to its device, never the other way.
        layer: Dotted name, module, or None for the model's own output.
        unit: A unit or a list of them, see :func:`~vislens_interp.targets.selectors.pool_unit`.
        pool: How a channel's map becomes one number: ``"mean"``, ``"max"`` or ``"center"``.
        layout: Layout of the layer's output where it is not clear: ``"NCHW"``, ``"NHWC"``, ``"NLC"``, ``"NC"``.
        preprocess: From pixels in [0, 1] to what the network takes; None asks the model.
        batch_size: Images in a pass of :meth:`responses`.
        image_size: Side of the images for the first pass, in pixels, where ``preprocess`` does not say it.

    Raises:
        ValueError: Layer, unit, pool, layout or preprocessing do not fit the model; the message says how.
        TypeError: The layer or the unit is of a wrong type, or the layer gives no tensor.

    >>> from vislens_interp.images import Preprocess
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    >>> target = LayerTarget(model, "0", [1, 3], preprocess=Preprocess(8, [0.5], [0.5]))
    >>> target.responses(torch.rand(5, 3, 8, 8)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str | nn.Module | None,
        unit: Unit,
        *,
        pool: Pool = "mean",
        layout: Layout | None = None,
        preprocess: Callable[[Tensor], Tensor] | None = None,
        batch_size: int = 256,
        image_size: int | None = None,
    ) -> None:
        _check_model(model)
        _check_batch_size(batch_size)
        check_pool(pool)
        check_layout(layout)
        self.model = model
        self.layer, module = find_layer(model, layer)
        self.units: list[OneUnit] = unit_list(unit)
        self.names = [unit_name(one) for one in self.units]
        self.pool: Pool = pool
        self.batch_size = batch_size
        self.preprocess = preprocess_for(model) if preprocess is None else preprocess

        # With gradients, whatever the caller's mode is: the pass also finds out if they arrive.
        with torch.inference_mode(False), torch.enable_grad(), undisturbed(model):
            images = _probe_images(model, self.preprocess, image_size).requires_grad_()
            probed = probe(model, self.layer, self._prepare(images))
            output = single_output(probed, model, self.layer)
            if output.ndim < 2 or len(output) != _PROBE_IMAGES:
                raise ValueError(
                    f"layer {self.layer!r} of {type(model).__name__} gives shape {tuple(output.shape)} for"
                    f" {_PROBE_IMAGES} images; expected the images on the first axis and at least one more. Choose a"
                    " layer before or after it."
                )
            self.shape = tuple(output.shape[1:])
            self.layout: Layout | None = None
            if layout is not None or any(isinstance(one, (int, MeanOf)) for one in self.units):
                self.layout = resolve_layout(output.shape, layout, layer=module, model=model)
            check_pool(pool, self.layout)
            self.differentiable = self._select(output).requires_grad

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return _anchor(self.model).device

    def __call__(self, images: Tensor) -> Tensor:
        return self._select(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        check_shape(images)
        with undisturbed(self.model):
            return run_to_layer(self.model, self.layer, self._prepare(images))

    def _prepare(self, images: Tensor) -> Tensor:
        anchor = _anchor(self.model)
        return self.preprocess(images.to(anchor.device)).to(anchor)

    def _select(self, output: Tensor) -> Tensor:
        # Tuples and functions do not look at the layout, which may then be unknown.
        return pool_unit(output, self.units, pool=self.pool, layout=self.layout or "NC")

    def fingerprint(self) -> str:
        """A short hash of the model's weights as they are now."""
        return fingerprint({key: value for key, value in self.model.state_dict().items() if isinstance(value, Tensor)})

    def describe(self) -> dict[str, Any]:
        """What a saved result says of its target, as JSON values."""
        said = getattr(self.preprocess, "describe", None)
        return {
            "model": type(self.model).__name__,
            "layer": self.layer,
            "units": list(self.names),
            "pool": self.pool,
            "layout": self.layout,
            "shape": list(self.shape),
            "preprocess": str(said()) if callable(said) else repr(self.preprocess),
            "fingerprint": self.fingerprint(),
        }


@dataclass(frozen=True)
class LayerInfo:
    """A layer that a lens can point at.

    Args:
        name: Dotted name; ``""`` is the model's own output.
        kind: Class of the module.
        shape: Shape of its output for one image.
        n_units: Channels or features that an int selects; None where ``layout=`` has to be passed first.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    n_units: int | None


def list_units(
    model: nn.Module, *, image_size: int | None = None, preprocess: Callable[[Tensor], Tensor] | None = None
) -> list[LayerInfo]:
    """The layers that a lens can point at, found by one pass.

    Left out are layers that the pass does not call, calls several times, or that give no tensor with the images first.

    Args:
        model: The network; left as it was.
        image_size: Side of the images for the pass, in pixels; None takes what the preprocessing makes.
        preprocess: From pixels in [0, 1] to what the network takes; None asks the model.

    Returns:
        One entry a layer, in the order of ``model.named_modules()``: the model's own output first.

    Raises:
        ValueError: The preprocessing or the size of images is not known.

    >>> from vislens_interp.images import Preprocess
    >>> for info in list_units(nn.Sequential(nn.Conv2d(3, 4, 3)), preprocess=Preprocess(8, [0], [1])):
    ...     print(info)
    LayerInfo(name='', kind='Sequential', shape=(4, 6, 6), n_units=4)
    LayerInfo(name='0', kind='Conv2d', shape=(4, 6, 6), n_units=4)
    """
    _check_model(model)
    preprocess = preprocess_for(model) if preprocess is None else preprocess
    calls: dict[str, list[tuple[int, ...] | None]] = {}
    modules = dict(model.named_modules())

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            calls.setdefault(name, []).append(tuple(output.shape) if isinstance(output, Tensor) else None)

        return hook

    with ExitStack() as hooks, torch.no_grad(), undisturbed(model):
        images = _probe_images(model, preprocess, image_size)
        inputs = preprocess(images).to(_anchor(model))
        for name, module in modules.items():
            handle = module.register_forward_hook(note(name))
            hooks.callback(handle.remove)
        model(inputs)

    infos: list[LayerInfo] = []
    for name, module in modules.items():
        shapes = calls.get(name, [])
        shape = shapes[0] if len(shapes) == 1 else None
        if shape is None or len(shape) < 2 or shape[0] != _PROBE_IMAGES:
            continue
        try:
            n_units = shape[channel_axis(resolve_layout(shape, layer=module, model=model))]
        except ValueError:
            n_units = None
        infos.append(LayerInfo(name, type(module).__name__, shape[1:], n_units))
    return infos


def read_responses(
    model: nn.Module,
    layer: str | nn.Module | None,
    unit: Unit,
    images: Tensor,
    *,
    pool: Pool = "mean",
    layout: Layout | None = None,
    preprocess: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Responses of a unit to images: :class:`LayerTarget` in one call.

    Args:
        model: The network; left as it was.
        layer: Dotted name, module, or None for the model's own output.
        unit: A unit or a list of them.
        images: (N, 3, H, W) in [0, 1].
        pool: How a channel's map becomes one number: ``"mean"``, ``"max"`` or ``"center"``.
        layout: Layout of the layer's output where it cannot be established.
        preprocess: From pixels in [0, 1] to what the network takes; None asks the model.
        batch_size: Images in a pass.

    Returns:
        float32 on the CPU: (N,) for one unit, (N, K) for a list.

    Raises:
        ValueError, TypeError: As :class:`LayerTarget` and :meth:`Target.responses`.

    >>> from vislens_interp.images import Preprocess
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    >>> read_responses(model, "1", 2, torch.rand(5, 3, 8, 8), preprocess=Preprocess(8, [0.5], [0.5])).shape
    torch.Size([5])
    """
    check_images(images)
    target = LayerTarget(
        model,
        layer,
        unit,
        pool=pool,
        layout=layout,
        preprocess=preprocess,
        batch_size=batch_size,
        image_size=min(images.shape[-2:]),
    )
    responses = target.responses(images)
    return responses if isinstance(unit, list) else responses[:, 0]


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module.")
    refuse_scattered(model)


def _check_batch_size(batch_size: int) -> None:
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r}; expected a whole number of at least 1.")


def _anchor(model: nn.Module) -> Tensor:
    """A tensor of the device and floating-point type that the model computes with."""
    for tensor in chain(model.parameters(), model.buffers()):  # lazily: the first parameter is mostly it
        if tensor.is_floating_point():
            return tensor
    return torch.empty(0)


def _probe_images(model: nn.Module, preprocess: Callable[[Tensor], Tensor], image_size: int | None) -> Tensor:
    size = preprocess_size(preprocess) or image_size
    if size is None:
        raise ValueError(
            f"image_size: neither it nor preprocess ({type(preprocess).__name__}) says what size of images"
            f" {type(model).__name__} takes. Pass image_size=, or preprocess=Preprocess(size, mean, std)."
        )
    return torch.full((_PROBE_IMAGES, 3, size, size), 0.5, device=_anchor(model).device)
