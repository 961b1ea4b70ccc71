"""A target without a module: any function of images, in NumPy, slow, remote or without gradients."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vislens_interp.images import check_shape, resize
from vislens_interp.targets.target import Target
from vislens_interp.validation import check_switches, check_whole


class CallableTarget(Target):
    """Responses from a function: a model behind an interface, a service, a formula, measured data.

    The function is called with batches; each image's responses are kept, so that an image that was seen is not asked
    for again. With ``differentiable`` its gradients are used where images need them, so that a model of several inputs,
    or of several networks, can be optimised; nothing is kept of these calls.

    Args:
        function: Images (n, 3, H, W) in [0, 1], float32 on the CPU, to responses (n,) or (n, K): a tensor, an array or
            nested lists. n is at most ``batch_size``.
        names: A name for each of K units; None is one unit, called as the function is.
        name: The target's own name. A lens on a target with a name can be saved, and loaded with one of the same name;
            you vouch that the function behind it is the same.
        numpy: Give the function a NumPy array instead of a tensor.
        size: Side of the square that images are resized to before, in pixels; None leaves them.
        batch_size: Images in a call.
        retries: How often a call is repeated that raises an exception; the last one is raised.
        wait: Seconds before the first repetition, doubled before each further one.
        cache: How many images' responses to keep, the latest; 0 keeps none.
        differentiable: Whether the function is made of torch's operations, so that gradients of responses reach the
            images. It does not go with ``numpy``.
        device: Where the function wants its images.

    Raises:
        TypeError: ``function`` is none.
        ValueError: Another argument is outside of what is said above.

    >>> target = CallableTarget(lambda images: images.mean((1, 2, 3)), names=["brightness"])
    >>> target.responses(torch.ones(2, 3, 4, 4))
    tensor([[1.],
            [1.]])
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        names: Sequence[str] | None = None,
        *,
        name: str | None = None,
        numpy: bool = False,
        size: int | None = None,
        batch_size: int = 32,
        retries: int = 0,
        wait: float = 1.0,
        cache: int = 10_000,
        differentiable: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        check_switches(numpy=numpy, differentiable=differentiable)
        if not callable(function):
            raise TypeError(f"function is a {type(function).__name__}; expected a function of images.")
        check_whole(1, batch_size=batch_size)
        check_whole(0, retries=retries, cache=cache)
        if not 0 <= wait < float("inf"):
            raise ValueError(f"wait={wait!r}; expected seconds, 0 or more.")
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise ValueError(f"size={size!r}; expected the side of a square in pixels, or None.")
        called = getattr(function, "__name__", type(function).__name__)
        self.names = [called] if names is None else list(names)
        if isinstance(names, str) or not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"names={names!r}; expected a list of at least one name, each once.")
        if not all(isinstance(one, str) for one in self.names):
            raise ValueError(f"names={names!r}; expected strings.")
        if name is not None and (not isinstance(name, str) or not name):
            raise ValueError(f"name={name!r}; expected a string that is not empty, or None.")
        if differentiable and numpy:
            raise ValueError(
                "differentiable=True with numpy=True; expected one of the two, for NumPy's functions have no gradients."
                " Leave one of them out."
            )
        self.function = function
        self.differentiable = differentiable
        self._device = torch.device(device)
        self.name = name
        self.numpy = numpy
        self.size = size
        self.batch_size = batch_size
        self.retries = retries
        self.wait = wait
        self.cache = cache
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()

    @property
    def device(self) -> torch.device:
        """Where the function wants its images."""
        return self._device

    def __call__(self, images: Tensor) -> Tensor:
        check_shape(images)
        if self.differentiable and images.requires_grad and torch.is_grad_enabled():
            return self._with_gradients(images)
        with torch.no_grad():
            images = self._resized(images.detach(), "cpu")
            keys = [_key(image) for image in images]
            known = {key: value for key in keys if (value := self._kept.get(key)) is not None}
            missing = list({key: row for row, key in enumerate(keys) if key not in known}.items())
            for start in range(0, len(missing), self.batch_size):
                part = missing[start : start + self.batch_size]
                read = self._ask(images[[row for _, row in part]])
                known.update({key: value for (key, _), value in zip(part, read, strict=True)})
            for key in keys:
                self._keep(key, known[key])
            return torch.stack([known[key] for key in keys]).to(self._device)

    def _with_gradients(self, images: Tensor) -> Tensor:
        parts = self._resized(images, self._device).split(self.batch_size)
        responses = torch.cat([self._ask(part) for part in parts])
        if not responses.requires_grad:
            raise ValueError(
                f"differentiable=True, but the responses of {self.names[0]!r} carry no gradient to the images; expected"
                " torch's operations from images to responses. Leave out what cuts it, such as .detach(), .item() or"
                " torch.no_grad(), or pass differentiable=False."
            )
        return responses

    def _resized(self, images: Tensor, device: torch.device | str) -> Tensor:
        images = images.to(device, torch.float32)
        return images if self.size is None else resize(images, self.size)

    def _keep(self, key: bytes, value: Tensor) -> None:
        if not self.cache:
            return
        with suppress(KeyError):  # another thread may have taken it out again
            self._kept[key] = value
            self._kept.move_to_end(key)
            while len(self._kept) > self.cache:
                self._kept.popitem(last=False)

    def _ask(self, images: Tensor) -> Tensor:
        wait = self.wait
        for attempt in range(self.retries + 1):
            try:
                given = images.to(self._device, copy=True)  # the function may write into it
                answer = self.function(given.numpy() if self.numpy else given)
                break
            except Exception:
                if attempt == self.retries:
                    raise
                time.sleep(wait)
                wait *= 2
        return self._checked(answer, len(images))

    def _checked(self, answer: object, count: int) -> Tensor:
        try:
            values = answer if isinstance(answer, Tensor) else torch.from_numpy(np.array(answer, float))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"function returned a {type(answer).__name__} that is no array of numbers; expected"
                f" ({count},) or ({count}, {len(self.names)}). Return a tensor, an array or lists."
            ) from error
        column = values[:, None] if values.ndim == 1 and len(self.names) == 1 else values
        if tuple(column.shape) != (count, len(self.names)):
            raise ValueError(
                f"function returned shape {tuple(values.shape)} for {count} images and the units"
                f" {', '.join(self.names)}; expected ({count}, {len(self.names)}), images first. Pass names=, one a"
                " unit."
            )
        values = column.float() if column.requires_grad else column.detach().cpu().float()
        if not values.isfinite().all():
            raise ValueError(
                f"function returned NaN or infinite responses for {int((~values.isfinite()).any(1).sum())} of {count}"
                " images; expected finite ones. Mend the function."
            )
        return values

    def describe(self) -> dict[str, Any]:
        """What a saved result says of its target, as JSON values."""
        function = "a function without a name" if self.name is None else self.name
        prepared = "none" if self.size is None else f"resize to {self.size}"
        return {"model": function, "units": list(self.names), "preprocess": prepared}


def _key(image: Tensor) -> bytes:
    # The shape too: the same bytes may be another picture.
    digest = hashlib.sha256(repr(tuple(image.shape)).encode())
    digest.update(image.contiguous().numpy().tobytes())
    return digest.digest()
