"""The published networks of single macaque V4 neurons, built anew: small convolution networks, one a neuron."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import pad

from vislens_interp.brain.outside import OutsideEncoder
from vislens_interp.files import rebuilding
from vislens_interp.preprocess import Preprocess

SIZE = 112
MEAN = (116.222, 109.270, 100.381)
"""Of red, green and blue from 0 to 255, which the networks were trained without."""
LAYERS, STRIDED, KERNEL = 5, (1, 2), 5


class CompactNetwork(nn.Module):
    """The network of one neuron: RGB from 0 to 255, (N, 3, 112, 112), to its response (N, 1).

    A 5 x 5 convolution, then four of depthwise 5 x 5 and pointwise 1 x 1, each with batch norm and ReLU; a linear map
    of all positions and channels to one number.

    Args:
        widths: Channels of the five layers.
        size: Side of the images in pixels, a multiple of 4.

    Source: Cowley et al. 2023, "Compact deep neural network models of visual cortex"; written from a description of the
    published files, not from the code.
    """

    mean: Tensor

    def __init__(self, widths: Sequence[int], size: int = SIZE) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.layer0_conv = nn.Conv2d(3, widths[0], KERNEL, padding=KERNEL // 2)
        self.layer0_bn = nn.BatchNorm2d(widths[0])
        for layer, (before, after) in enumerate(pairwise(widths), start=1):
            strided = layer in STRIDED
            depthwise = nn.Conv2d(
                before,
                before,
                KERNEL,
                stride=2 if strided else 1,
                padding=0 if strided else KERNEL // 2,
                groups=before,
                bias=False,
            )
            self.add_module(f"layer{layer}_conv_depth", depthwise)
            self.add_module(f"layer{layer}_conv_point", nn.Conv2d(before, after, 1))
            self.add_module(f"layer{layer}_bn", nn.BatchNorm2d(after))
        self.Beta = nn.Linear(widths[-1] * (size // 4) ** 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.layer0_bn(self.layer0_conv(images - self.mean)).relu()
        for layer in range(1, LAYERS):
            if layer in STRIDED:
                x = pad(x, (1, 3, 1, 3))
            x = self.get_submodule(f"layer{layer}_conv_depth")(x)
            x = self.get_submodule(f"layer{layer}_bn")(self.get_submodule(f"layer{layer}_conv_point")(x)).relu()
        return self.Beta(x.permute(0, 2, 3, 1).flatten(1))


class CompactNetworks(nn.Module):
    """The networks of several neurons side by side: RGB from 0 to 255, (N, 3, 112, 112), to responses (N, neurons).

    Attributes:
        labels, preprocess: ``"neuron0"`` and so on, for ``unit=`` by name; from pixels in [0, 1] to what they take.
    """

    output_layout = "NC"

    def __init__(self, networks: dict[str, CompactNetwork]) -> None:
        super().__init__()
        self.labels = list(networks)
        self.networks = nn.ModuleList(networks.values())
        self.preprocess = Preprocess(SIZE, [0.0], [1 / 255])

    @classmethod
    def load(cls, path: str | Path, neurons: Sequence[int] | None = None) -> Self:
        """Read ``compact_models.safetensors`` of one session, in evaluation mode and without gradients to weights.

        Args:
            neurons: Numbers of the wanted ones, in the order of the session's recordings; None is all.

        Raises:
            FileNotFoundError, ValueError, KeyError: There is no such file, it is damaged or holds other networks, or
                lacks a neuron.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"path={str(path)!r}: no such file; expected compact_models.safetensors of a session of macaque V4 "
                "(github.com/cowleygroup/V4_compact_models). docs/data.md says where files are looked for."
            )
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"path={str(path)!r} cannot be read as a safetensors file ({error}). Copy it again."
            ) from error
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if found := re.match(r"neuron(\d+)\.(.+)", name):
                states.setdefault(int(found[1]), {})[found[2]] = tensor
        if not states:
            raise ValueError(
                f"path={str(path)!r} holds no key such as 'neuron0.layer0_conv.weight'; expected the networks of a V4 "
                "session. Pass compact_models.safetensors."
            )
        wanted = sorted(states) if neurons is None else list(neurons)
        if missing := [number for number in wanted if number not in states]:
            raise KeyError(
                f"neurons={missing} are not in {str(path)!r}, which holds {min(states)} to {max(states)}; expected "
                "numbers among them."
            )
        with rebuilding(path, "its networks"):
            networks = {f"neuron{number}": _restore(states[number]) for number in wanted}
        return cls(networks).eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([network(images) for network in self.networks], 1)


def v4_encoder(path: str | Path, neurons: Sequence[int] | None = None) -> OutsideEncoder:
    """The published networks of one session as a target: images in [0, 1] of any size, gradients flow.

    Args:
        neurons: Numbers of the wanted ones; None is all.

    They share recorded responses with whatever else was fitted to this session, and the responses' noise. Resizing
    alone moves them, so compare with an unedited image that went through the same pipeline.
    """
    networks = CompactNetworks.load(path, neurons)
    session = Path(path).resolve().parent.name
    return OutsideEncoder(
        networks, networks.labels, size=SIZE, input_range=(0.0, 255.0), name=f"compact V4 networks of {session}"
    )


def _restore(state: dict[str, Tensor]) -> CompactNetwork:
    widths = [len(state[f"layer{layer}_bn.weight"]) for layer in range(LAYERS)]
    side = round((state["Beta.weight"].shape[1] / widths[-1]) ** 0.5)
    with torch.random.fork_rng(devices=[]):  # fresh weights, replaced at once
        network = CompactNetwork(widths, 4 * side)
    network.load_state_dict(state)
    return network
