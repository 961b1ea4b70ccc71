"""Encoders from elsewhere as targets: what they take and give is declared, and gradients flow where they can."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vislens_interp.brain.responses import as_names
from vislens_interp.files import fingerprint
from vislens_interp.images import check_shape, resize
from vislens_interp.random_state import kept_random_state
from vislens_interp.targets.callable import CallableTarget
from vislens_interp.targets.target import Target
from vislens_interp.targets.undisturbed import undisturbed
from vislens_interp.validation import check_switches

AXES = "NRCT"
"""Images, repetitions, channels (regions, neurons, electrodes), times."""


class OutsideEncoder(Target):
    """An in-silico encoder that somebody else trained, as a target for a lens or as a judge.

    Images in [0, 1] are resized, brought to the range that the encoder takes, and shown to it; of what it gives,
    repetitions are averaged, channels chosen, and a window of time averaged.

    Args:
        encoder: A torch module (frozen while it is asked, and left as it was), or a function of (n, 3, size, size).
        channels, targets: Names of all channels that it gives, in their order, and of the wanted ones; None is all.
        size: Side of its images in pixels; None leaves them as they are.
        input_range: What black and white are to it: (0, 1), (0, 255), (-1, 1), ...
        mean, std: Subtracted and divided by after that, one number a colour; None leaves that out.
        output: What the axes of its output are, each once: ``N`` images, ``R`` repetitions, ``C`` channels, ``T``
            times. ``"N"`` alone is one channel; ``"NRCT"`` are EEG responses as BERG gives them.
        times, window: Seconds after the picture's onset, one a point; (first, last) to average over, both inclusive.
        numpy: The encoder takes and gives NumPy arrays (uint8 where ``input_range`` is (0, 255)), without gradients.
        gradients: Whether gradients flow through it; None: from torch modules, unless ``numpy``.
        name: What results call it; a lens on a function can be saved only with one.

    Raises:
        ValueError, KeyError: Declarations do not fit together, a target is no channel; or, later, the encoder gives
            another shape.

    >>> def encoder(images):  # uint8 in, (images, repetitions, channels, times) out
    ...     return images.mean((1, 2, 3))[:, None, None, None] * np.ones((1, 4, 2, 3))
    >>> eeg = OutsideEncoder(
    ...     encoder, ["Oz", "POz"], size=8, input_range=(0, 255), output="NRCT", times=[0.0, 0.1, 0.2],
    ...     window=(0.1, 0.2), targets=["POz"], numpy=True,
    ... )
    >>> eeg.responses(torch.ones(1, 3, 16, 16))
    tensor([[255.]])
    """

    def __init__(
        self,
        encoder: nn.Module | Callable[..., object],
        channels: Sequence[str],
        *,
        size: int | None,
        input_range: tuple[float, float] = (0.0, 1.0),
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        output: str = "NC",
        times: Sequence[float] | None = None,
        window: tuple[float, float] | None = None,
        targets: Sequence[str] | None = None,
        numpy: bool = False,
        gradients: bool | None = None,
        name: str | None = None,
        batch_size: int = 32,
    ) -> None:
        check_switches(numpy=numpy, gradients=gradients)
        if not callable(encoder):
            raise TypeError(f"encoder is a {type(encoder).__name__}; expected a torch module or a function of images.")
        self.channels = as_names(channels, "channels")
        if not self.channels or len(set(self.channels)) < len(self.channels):
            raise ValueError(f"channels={channels!r}; expected a list of at least one name, each once.")
        if output[:1] != "N" or not set(output) <= set(AXES) or len(set(output)) < len(output):
            raise ValueError(
                f"output={output!r}; expected N and then any of R, C and T, each once, such as 'NC' or 'NRCT'."
            )
        if "C" not in output and len(self.channels) > 1:
            raise ValueError(
                f"output={output!r} has no axis of channels, but channels names {len(self.channels)}. Add C to output."
            )
        low, high = input_range
        if not low < high:
            raise ValueError(f"input_range={input_range}; expected (black, white), black below white.")
        if ("T" in output) != (times is not None):
            raise ValueError(
                f"output={output!r} with times={times!r}; expected times, in seconds, exactly where output has a T."
            )
        wanted = self.channels if targets is None else as_names(targets, "targets")
        if unknown := [one for one in wanted if one not in self.channels]:
            raise KeyError(f"targets={unknown} are none of the channels; expected some of {', '.join(self.channels)}.")
        if not wanted or len(set(wanted)) < len(wanted):
            raise ValueError(f"targets={wanted}; expected at least one of the channels, each once.")
        self.encoder, self.size, self.output, self.numpy = encoder, size, output, numpy
        self.low, self.high = float(low), float(high)
        self.mean, self.std = _colours(mean, "mean"), _colours(std, "std")
        self.times = None if times is None else torch.as_tensor(times, dtype=torch.float64)
        self.window = window
        self._inside = self._points(window)
        self._columns = [self.channels.index(one) for one in wanted]
        self.names = wanted
        self.name, self.batch_size = name, batch_size
        self.differentiable = (isinstance(encoder, nn.Module) and not numpy) if gradients is None else gradients
        if self.differentiable and numpy:
            raise ValueError(
                "gradients=True with numpy=True; expected one of them: no gradient passes through an array."
            )
        # Answers are kept: an encoder without gradients is mostly a slow one, or one behind an interface.
        self._asked = (
            None if self.differentiable else CallableTarget(self._ask, wanted, name=name, batch_size=batch_size)
        )

    @property
    def device(self) -> torch.device:
        """Where a module's weights are; the CPU for functions."""
        first = next(self.encoder.parameters(), None) if isinstance(self.encoder, nn.Module) else None
        return torch.device("cpu") if first is None or self.numpy else first.device

    def __call__(self, images: Tensor) -> Tensor:
        check_shape(images)
        return self._ask(images) if self._asked is None else self._asked(images)

    def _ask(self, images: Tensor) -> Tensor:
        """Responses (n, K)."""
        images = images if self.size is None else resize(images, self.size)
        images = images.to(self.device) * (self.high - self.low) + self.low
        images = images if self.mean is None else images - self.mean.to(images)
        images = images if self.std is None else images / self.std.to(images)
        given = images
        if self.numpy:
            bytes_ = (self.low, self.high) == (0.0, 255.0) and self.mean is None and self.std is None
            given = (images.round().to(torch.uint8) if bytes_ else images).numpy()
        if isinstance(self.encoder, nn.Module):
            with undisturbed(self.encoder), kept_random_state():
                answer = self.encoder(given)
        else:
            answer = self.encoder(given)
        answer = answer if isinstance(answer, Tensor) else torch.from_numpy(np.asarray(answer, dtype=np.float32))
        answer = answer if answer.is_floating_point() else answer.float()  # counts, which have no mean
        return self._read(answer, len(images))

    def _read(self, answer: Tensor, count: int) -> Tensor:
        sizes = {"N": count, "C": len(self.channels), "T": 0 if self.times is None else len(self.times)}
        fits = answer.ndim == len(self.output) and all(
            axis == "R" or size == sizes[axis] for axis, size in zip(self.output, answer.shape, strict=True)
        )
        if not fits:
            expected = ", ".join("any" if axis == "R" else str(sizes[axis]) for axis in self.output)
            raise ValueError(
                f"encoder gave shape {tuple(answer.shape)} for {count} images; expected ({expected}), as "
                f"output={self.output!r}, channels and times say. Declare what it gives."
            )
        axes = self.output
        if "R" in axes:
            answer, axes = answer.mean(axes.index("R")), axes.replace("R", "")
        if "T" in axes:
            inside = self._inside.to(answer.device)
            answer, axes = answer.index_select(axes.index("T"), inside).mean(axes.index("T")), axes.replace("T", "")
        if "C" not in axes:
            return answer[:, None]
        return answer[:, self._columns]

    def _points(self, window: tuple[float, float] | None) -> Tensor:
        """Positions of the times inside of the window."""
        if self.times is None:
            if window is not None:
                raise ValueError(f"window={window}, but output={self.output!r} has no times. Leave window out.")
            return torch.empty(0, dtype=torch.long)
        if window is None:
            return torch.arange(len(self.times))
        first, last = window
        # Times in single precision are decimals only up to rounding.
        inside = ((self.times >= first - 1e-6) & (self.times <= last + 1e-6)).nonzero()[:, 0]
        if not len(inside):
            raise ValueError(
                f"window={window} holds none of the times, which go from {self.times.min():g} to "
                f"{self.times.max():g} s; expected (first, last) in seconds."
            )
        return inside

    def describe(self) -> dict[str, Any]:
        """What a saved result says of its target, as JSON values."""
        module = isinstance(self.encoder, nn.Module)
        said: dict[str, Any] = {
            "model": self.name or (type(self.encoder).__name__ if module else "a function without a name"),
            "units": list(self.names),
            "input": {
                "size": self.size,
                "range": [self.low, self.high],
                "mean": None if self.mean is None else self.mean.flatten().tolist(),
                "std": None if self.std is None else self.std.flatten().tolist(),
            },
            "reads": self.output,
            "window": None if self.window is None else list(self.window),
        }
        if isinstance(self.encoder, nn.Module):
            said["fingerprint"] = fingerprint(self.encoder.state_dict())
        return said


def _colours(values: Sequence[float] | None, argument: str) -> Tensor | None:
    if values is None:
        return None
    if len(values) not in (1, 3) or (argument == "std" and min(values) <= 0):
        above = ", each above 0" if argument == "std" else ""
        raise ValueError(f"{argument}={list(values)}; expected 3 numbers, one a colour (or 1 for all){above}.")
    return torch.tensor([float(value) for value in values]).view(1, -1, 1, 1)
