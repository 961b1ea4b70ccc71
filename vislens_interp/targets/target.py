"""What a lens points at: images in, one response a unit out."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from vislens_interp.files import fingerprint
from vislens_interp.images import check_images, check_shape
from vislens_interp.preprocess import (
    Preprocess,
    PreprocessLike,
    as_preprocess,
    describe_preprocess,
    normalises,
    preprocess_for,
    preprocess_size,
)
from vislens_interp.progress import tqdm
from vislens_interp.random_state import kept_random_state
from vislens_interp.targets.capture import (
    Output,
    Seen,
    chosen_call,
    find_layer,
    pick,
    place_of,
    refuse_script,
    run_to_layer,
    survey,
)
from vislens_interp.targets.forward import Forward
from vislens_interp.targets.layout import Arrangement, Layout, channel_axis, check_layout, declared, establish
from vislens_interp.targets.pooling import check_heads, pool_of, resolve_heads, resolve_pool
from vislens_interp.targets.probe import (
    PROBE_IMAGES,
    REPEATS,
    OwnState,
    agree,
    anchor,
    checked_model,
    first_difference,
    gradient_reaches,
    input_dtype,
    prepared,
    probe_images,
    told_of,
    tolerance,
)
from vislens_interp.targets.selectors import (
    CHANNEL_UNITS,
    Labels,
    OneUnit,
    Pool,
    Unit,
    by_label,
    labels_of,
    own_labels,
    pool_unit,
    unit_list,
    unit_name,
    unit_names,
)
from vislens_interp.targets.undisturbed import undisturbed
from vislens_interp.validation import check_whole

LARGEST_BATCH, SMALLEST_BATCH, PIXELS_AT_ONCE = 256, 8, 8 * 224**2
"""Images in a pass on a processor: EfficientNet-Lite2 reads 256 images at 260 px in 15 s by eights, in 38 s at once."""
WIDEST = 8192
"""Channels of a layer that is read whole, at most."""


class Target(ABC):
    """Images to responses. Subclasses set ``names`` and ``differentiable`` and define :meth:`__call__`.

    Attributes:
        names: A name for each of the K units.
        differentiable: Whether gradients of responses reach the images.
        batch_size: Images in a pass of :meth:`responses`, unless that is told otherwise.
        doubts: Unit name to why its responses are not to be trusted; every result on it then says so.
    """

    names: list[str]
    differentiable: bool
    batch_size: int = 256
    doubts: Mapping[str, str] = MappingProxyType({})

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

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Responses (N, K) and features (N, ...) of the same images, in one pass where the target can; gradients flow.

        Args:
            images: (N, 3, H, W) in [0, 1].
        """
        return self(images), self.features(images)

    def describe(self) -> dict[str, Any]:
        """What a saved result says of its target, as JSON values."""
        return {"model": type(self).__name__, "units": list(self.names)}

    def whole_layer(self) -> "tuple[Callable[[], Target], list[int], str] | None":
        """How all units of this target's layer are read: what makes that target, our columns in it, and what it is.

        Targets that say the same of themselves read the same. None: this target is no selection from a whole.
        """
        return None

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
        check_whole(1, batch_size=batch_size)
        batches = tqdm(images.split(batch_size), desc="responses", unit="batch", disable=not progress)
        with torch.no_grad():  # not inference_mode: a model may cache tensors in its pass, and train with them later
            return torch.cat([self(batch).float() for batch in batches]).cpu()


class LayerTarget(Target):
    """Units of one layer of a network, which is left as it was: mode, gradients, device, hooks and random state.

    Everything is checked at construction: one full pass of two images finds how often the layer is called and what the
    axes of its output are, a pass of three that the images are where they seem to be. After that a pass stops at the
    layer.

    Args:
        model: The network. Images are moved to its device, never the other way. Of a compiled model the module inside
            is read.
        layer: Dotted name, module, or None for the model's own output.
        unit: A unit or a list of them, see :func:`~vislens_interp.targets.selectors.pool_unit`; or labels.
        pool: How a channel's positions become one number: ``"mean"``, ``"max"``, ``"center"``, and on tokens ``"cls"``,
            ``"token:k"`` or ``"patch_mean"``, which leaves the tokens before the patches out.
        token: Short for a pool: 3 for ``"token:3"``, ``"cls"`` for ``"cls"``.
        layout: Layout of the layer's output where it is not clear: ``"NCHW"``, ``"NHWC"``, ``"NLC"``, ``"LNC"``,
            ``"NCL"``, ``"NC"``.
        output: Which tensor of a layer that gives several: its place in a tuple, its name in a dict or dataclass.
        call: Which call of a layer that a pass calls several times, from 0.
        preprocess: From pixels in [0, 1] to what the network takes; None asks the model. See
            :func:`~vislens_interp.preprocess.as_preprocess` for what may be given.
        labels: Names of the layer's channels, for ``unit=`` by name: see
            :func:`~vislens_interp.targets.selectors.labels_of`. None takes the model's own ``labels`` or
            transformers' ``config.id2label``, if the layer is the model's output.
        batch_size: Images in a pass of :meth:`responses`. None: 256, on a processor as many fewer as they are larger,
            for passes of large batches spend their time in asking for memory.
        image_size: Side of the images for the first pass, in pixels, where ``preprocess`` does not say it.
        forward_args: Arguments that the model's ``forward`` takes beside the images, by name, such as ``{"input_ids":
            ids}``; a function among them is called with the images. The images go to ``pixel_values`` if the model has
            such an argument, otherwise to the first that is not named here.

    Attributes:
        shape: Shape of the layer's output for one image, images first and windows joined: what a tuple indexes.
        layout: Its layout; None where no unit needs one and it could not be established.
        prefix: Tokens before the patches, where there are tokens and it could be established.
        n_units: Channels, where the layout is known.

    Raises:
        ValueError: Layer, unit, pool, layout or preprocessing do not fit the model; the message says how.
        TypeError: The layer or the unit is of a wrong type, or the layer gives no tensor, or several.
        KeyError: A unit's name is not among the labels.

    >>> from vislens_interp.preprocess import Preprocess
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
        token: int | str | None = None,
        layout: Layout | None = None,
        output: Output | None = None,
        call: int | None = None,
        preprocess: PreprocessLike | None = None,
        labels: Labels | None = None,
        batch_size: int | None = None,
        image_size: int | None = None,
        forward_args: Mapping[str, object] | None = None,
    ) -> None:
        model = checked_model(model)
        if batch_size is not None:
            check_whole(1, batch_size=batch_size)
        self._forward = Forward(model, forward_args)
        pool = pool_of(pool, token)
        self.declared_layout: Layout | None = check_layout(layout)
        self.model = model
        self.layer, module = find_layer(model, _unprefixed(layer))
        refuse_script(model, self.layer)
        said = getattr(model, "output_layout", None)  # as our in-silico encoders say
        if self.layer == "" and layout is None and isinstance(said, str):
            layout = check_layout(said)
        self.labels = labels_of(labels) if labels is not None else own_labels(model) if self.layer == "" else None
        self.units: list[OneUnit] = unit_list(by_label(unit, self.labels))
        self.names = unit_names(self.units, unit, self.labels)
        self.pool: Pool = pool
        self._ask_model(one=not isinstance(unit, list))
        self.output, self.call = output, call
        self.preprocess = preprocess_for(model) if preprocess is None else as_preprocess(preprocess)
        self._image_size = image_size
        side = preprocess_size(self.preprocess) or image_size
        self.batch_size = _usual_batch_size(self.device, side) if batch_size is None else batch_size
        self._read, self._before, self.units = resolve_heads(self.layer, module, self.units)
        self._stops, self._draws = True, False

        # With gradients, whatever the caller's mode is: the pass also finds out if they arrive.
        with torch.inference_mode(False), torch.enable_grad(), undisturbed(model), kept_random_state():
            images = probe_images(model, self.preprocess, image_size)
            self._dtype = input_dtype(model, self._forward, prepared(self.preprocess, images[:PROBE_IMAGES]))
            state = OwnState(model)
            watched = images[:PROBE_IMAGES].requires_grad_()
            seen = self._survey(watched)
            changes = OwnState(model) != state
            raw = pick(seen.output, output, model, self._read)
            self._arrangement = _arrangement(seen, raw, layout, self.units, None if self._before else module, output)
            arranged = self._arrange(raw)
            self.shape = tuple(arranged.shape[1:])
            self.layout: Layout | None = None if self._arrangement is None else self._arrangement.layout
            self.prefix = None if self._arrangement is None else self._arrangement.prefix
            self.n_units = None if self.layout is None else arranged.shape[channel_axis(self.layout)]
            self._check_labels(given=labels is not None)
            check_heads(seen, self.units, self._before)
            with torch.no_grad():
                three = self._check_state(images.flip(0), changes=changes)
                self._check_batch_axis(raw, three)
            self._pool = resolve_pool(pool, self._arrangement, self.shape, self.units)
            self.differentiable = gradient_reaches(self._select(arranged), watched)
            with torch.no_grad():
                self._check_one_image(images, arranged.detach(), self._arrange(three), drew=seen.drew)
            self._draws = seen.drew or not self._stops

    def at(self, unit: Unit) -> "LayerTarget":
        """A target on other units of the same layer, which is read in the same way.

        Args:
            unit: A unit or a list of them, or labels.

        Raises:
            ValueError, TypeError, KeyError: The layer has no such unit.

        >>> from vislens_interp.preprocess import Preprocess
        >>> target = LayerTarget(nn.Sequential(nn.Conv2d(3, 4, 3)), "0", 1, preprocess=Preprocess(8, [0], [1]))
        >>> target.at([0, 3]).names
        ['0', '3']
        """
        return LayerTarget(
            self.model,
            self.layer or None,
            unit,
            pool=self.pool,
            layout=self.declared_layout,
            output=self.output,
            call=self.call,
            preprocess=self.preprocess,
            labels=self.labels,
            batch_size=self.batch_size,
            image_size=self._image_size,
            forward_args=self._forward.forward_args or None,
        )

    def _survey(self, images: Tensor) -> Seen:
        """What a full pass shows of the layer's chosen call."""
        model = self.model
        inputs = self._prepare(images)
        twice = _normalising(model) if normalises(self.preprocess) else []
        with told_of(model, inputs):
            found = survey(model, [self._read, *twice], inputs, keep=True, before=self._before, forward=self._forward)
        for name in twice:
            if found[name]:
                raise ValueError(
                    f"preprocess={describe_preprocess(self.preprocess)}, but {type(model).__name__} normalises its"
                    f" inputs itself in {name!r}; expected one normalisation. Pass preprocess=Preprocess(size, [0],"
                    " [1])."
                )
        self._call = chosen_call(found[self._read], self.call, model, self._read)
        return found[self._read][self._call]

    def _check_state(self, images: Tensor, *, changes: bool) -> Tensor:
        """The layer's output, and whether passes may stop at it: not if the model keeps something of every pass."""
        before = OwnState(self.model)
        if changes:  # in the first whole pass, which may only have filled a cache
            self._stops = False
            output = self._pass(images)
            if OwnState(self.model) != before:
                return output
            self._stops = True
        output = self._pass(images)
        after = OwnState(self.model)
        if after == before:
            return output
        self._stops = False
        before.restore(after)
        return self._pass(images)

    def _check_one_image(self, images: Tensor, two: Tensor, reversed_three: Tensor, *, drew: bool) -> None:
        """Refuse responses that are no function of one image: random ones, and those that depend on the batch.

        ``two`` and ``reversed_three`` are the layer's arranged output for the first two images, and for all in reversed
        order; ``drew`` is whether the pass draws random numbers on its way to the layer.
        """
        same = self._is_same(two, reversed_three[[2, 1]]) and self._is_same(
            two[:1], self._arrange(self._pass(images[:1]))
        )
        if same and not drew:
            return
        model, inputs = self.model, self._prepare(images)
        if not same:
            self._check_preprocess(images, inputs)
        for _ in range(REPEATS if drew else 4):
            if not self._is_same(two, self._arrange(self._pass(images[:PROBE_IMAGES]))):
                where = first_difference(model, self._forward, inputs, inputs)
                raise ValueError(
                    f"layer {self.layer!r} of {type(model).__name__} gives the same images other responses in a second"
                    f" pass{where}; expected a function of the image. Something is random or counts its passes, such as"
                    " F.dropout(x) without training=self.training. Mend the model, or choose a layer before it."
                )
        if not same:
            where = first_difference(model, self._forward, inputs, self._prepare(images[:1]), alone=True)
            raise ValueError(
                f"layer {self.layer!r} of {type(model).__name__} gives an image other responses alone than among"
                f" others{where}; expected a function of the image, and what an image gives depends on the others."
                " Something runs over the batch, such as BatchNorm with track_running_stats=False. Mend the model, or"
                " choose a layer before it."
            )

    def _check_preprocess(self, images: Tensor, inputs: Tensor) -> None:
        """Refuse a preprocessing that is random, or depends on the other images, if that is why responses differ."""
        close = tolerance(inputs)
        for given, count in ((images, len(images)), (images, len(images)), (images[:1], 1)):
            if not agree(inputs[:count], self._prepare(given), close, 1):
                raise ValueError(
                    f"preprocess={describe_preprocess(self.preprocess)} gives an image two different results"
                    f" {'in two calls' if count > 1 else 'alone and among others'}; expected a function of the image."
                    " Pass the transform for evaluation, without randomness and without statistics of the batch."
                )

    def _is_same(self, one: Tensor, other: Tensor) -> bool:
        """Whether two readings of the same images agree, in most channels and in the units."""
        axis = -1 if self.layout is None else channel_axis(self.layout)
        close = tolerance(one, model=self.model)
        if not agree(one, other, close, axis):
            return False
        first, second = (self._select(tensor).double() for tensor in (one, other))
        size = (one.float() if one.dtype == torch.bool else one).abs().max()
        floor = size.double().nan_to_num(0, 0) * 1e-3
        error = (first - second).abs()
        return bool(((error <= close * first.abs().amax(0).clamp_min(floor)) | (first == second) | error.isnan()).all())

    def _ask_model(self, *, one: bool) -> None:
        """Take over what a model says of its own outputs: those that it refuses to be read by, and its doubts.

        Several by their numbers, such as all that there are, may be read: only ``one``, or names, point at a unit.
        """
        if self.layer == "":
            refused, doubts = _said_of(self.model, "refused"), _said_of(self.model, "doubts")
            own = dict(enumerate(own_labels(self.model) or []))
            named = zip(self.names, self.units, strict=True)  # a unit may have been asked for by its number
            labels = {name: own.get(unit, name) if isinstance(unit, int) else name for name, unit in named}
            for name, label in labels.items():
                if (label if one else name) in refused:
                    raise ValueError(
                        f"unit={label!r} of {type(self.model).__name__}: {refused[label]}. Expected one that can be "
                        "trusted."
                    )
            self.doubts = {name: doubts[label] for name, label in labels.items() if label in doubts}

    def _check_labels(self, *, given: bool) -> None:
        """Refuse labels of another layer; a model's own are left out if no unit was named by them."""
        if not self.labels or self.n_units in (None, len(self.labels)):
            return
        if given or self.names != [unit_name(one) for one in self.units]:
            raise ValueError(
                f"labels has {len(self.labels)} names for a layer with {self.n_units} channels; expected one a channel."
                " Pass layer=None for the model's own output, or the labels of this layer."
            )
        self.labels = None

    def _run(self, inputs: Tensor) -> Tensor:
        return run_to_layer(
            self.model,
            self._read,
            inputs,
            call=self._call,
            output=self.output,
            before=self._before,
            forward=self._forward,
            stop=self._stops,
        )

    def _pass(self, images: Tensor) -> Tensor:
        """The layer's output for images of the probe."""
        inputs = self._prepare(images)
        with told_of(self.model, inputs):
            return self._run(inputs)

    def _arrange(self, output: Tensor) -> Tensor:
        return output if self._arrangement is None else self._arrangement.arrange(output)

    def _check_batch_axis(self, two: Tensor, three: Tensor) -> None:
        """Refuse an output whose images are not where they seem: three have to give half as much again as two."""
        axis = 0 if self._arrangement is None else self._arrangement.raw.index("N")
        want = list(two.shape)
        want[axis] = two.shape[axis] // PROBE_IMAGES * (PROBE_IMAGES + 1)
        if tuple(want) != tuple(three.shape) or (self._arrangement is None and len(two) != PROBE_IMAGES):
            raise ValueError(
                f"layer {self.layer!r} of {type(self.model).__name__} gives shape {tuple(two.shape)} for {PROBE_IMAGES}"
                f" images and {tuple(three.shape)} for {PROBE_IMAGES + 1}; expected the images on"
                f" {'the first axis' if axis == 0 else f'axis {axis}'}. Choose a layer before or after it."
            )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return anchor(self.model).device

    def __call__(self, images: Tensor) -> Tensor:
        return self._select(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        check_shape(images)
        with undisturbed(self.model), kept_random_state() if self._draws else nullcontext():
            return self._arrange(self._run(self._prepare(images)))

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(images)
        return self._select(features), features

    def _prepare(self, images: Tensor) -> Tensor:
        device = self.device
        return prepared(self.preprocess, images.to(device)).to(device, self._dtype)

    def _select(self, output: Tensor) -> Tensor:
        # Tuples and functions do not look at the layout, which may then be unknown.
        responses = pool_unit(output, self.units, pool=self._pool, layout=self.layout or "NC", prefix=self.prefix)
        if responses.is_complex():
            raise ValueError(
                f"layer {self.layer!r} of {type(self.model).__name__} gives complex numbers; expected real ones. Pass"
                " unit= a function of the output, such as lambda output: output[:, 3].abs().mean((1, 2))."
            )
        return responses

    def fingerprint(self) -> str:
        """A short hash of the model's weights as they are now."""
        return fingerprint({key: value for key, value in self.model.state_dict().items() if isinstance(value, Tensor)})

    def whole_layer(self) -> "tuple[Callable[[], Target], list[int], str] | None":
        count = self.n_units or 0
        columns = [unit for unit in self.units if isinstance(unit, int)]
        plain = isinstance(self.preprocess, Preprocess) and not self.forward_args
        if not plain or len(columns) < len(self.units) or not 0 < count <= WIDEST:
            return None
        described = {name: value for name, value in self.describe().items() if name not in ("units", "channels")}
        return lambda: self.at(list(range(count))), columns, json.dumps(described, sort_keys=True)

    @property
    def forward_args(self) -> dict[str, Any]:
        """Arguments that the model's ``forward`` takes beside the images."""
        return self._forward.forward_args

    def describe(self) -> dict[str, Any]:
        """What a saved result says of its target, as JSON values."""
        chosen = {"output": self.output, "call": self.call, "declared_layout": self.declared_layout}
        if self.names != [unit_name(unit) for unit in self.units]:  # named by labels, which may look like numbers
            chosen["channels"] = [unit_name(unit) for unit in self.units]
        name = getattr(self.model, "name", None)
        chosen["name"] = name if isinstance(name, str) else None
        return {
            "model": type(self.model).__name__,
            "layer": self.layer,
            "units": list(self.names),
            "pool": self.pool,
            "layout": self.layout,
            "shape": list(self.shape),
            "preprocess": describe_preprocess(self.preprocess),
            "fingerprint": self.fingerprint(),
            **{name: value for name, value in chosen.items() if value is not None},
        }


def _usual_batch_size(device: torch.device, side: int | None) -> int:
    if device.type != "cpu" or side is None:
        return LARGEST_BATCH
    return max(SMALLEST_BATCH, min(LARGEST_BATCH, PIXELS_AT_ONCE // side**2))


def _unprefixed(layer: str | nn.Module | None) -> str | nn.Module | None:
    """A layer's name without what ``torch.compile`` puts before it, and what it wraps."""
    if isinstance(layer, nn.Module):
        return getattr(layer, "_orig_mod", layer)
    return layer.removeprefix("_orig_mod.") if isinstance(layer, str) else layer


def _arrangement(
    seen: Seen,
    raw: Tensor,
    layout: Layout | None,
    units: list[OneUnit],
    module: nn.Module | None,
    output: Output | None,
) -> Arrangement | None:
    found: Arrangement | None = None
    try:
        found = establish(raw.shape, seen.axes[place_of(output, seen.shapes) or ()], module)
    except ValueError:
        if layout is None and any(isinstance(one, CHANNEL_UNITS) for one in units):
            raise
    if layout is None or (found is not None and found.raw == layout):
        return found
    return declared(layout, raw.shape, PROBE_IMAGES)


def _said_of(model: nn.Module, attribute: str) -> dict[str, str]:
    said = getattr(model, attribute, None)
    return said if isinstance(said, dict) else {}


def _normalising(model: nn.Module) -> list[str]:
    """Names of modules that normalise pixels if the pass calls them."""

    def known(module: nn.Module) -> bool:
        return normalises(module) or type(module).__name__ == "Normalize" or hasattr(module, "image_mean")  # detectors

    return [name for name, module in model.named_modules() if name and known(module)]
