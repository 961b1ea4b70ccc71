"""What simulated regions answer to: tuning planted in a bank of Gabor filters, which is no encoder's backbone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vislens_interp.brain.responses import as_names
from vislens_interp.images import check_images
from vislens_interp.validation import check_word

FEATURES = (
    *(f"{scale} {angle}°" for scale in ("fine", "coarse") for angle in (0, 45, 90, 135)),
    *("red", "green", "blue", "yellow", "bright"),
)
"""The bank's channels: energy at two scales and four orientations (0° is a vertical grating), colours, luminance."""

SIDE, POOLED = 48, 12
WAVELENGTHS = (4.0, 9.0)
"""Of the two scales, in pixels of the picture at ``SIDE``."""
SMALL = 1e-3
"""Of energies: below it the root is smooth, so that flat pictures have gradients."""


class GaborBank(nn.Module):
    """A fixed, closed-form stand-in for visual cortex: nothing in it was trained, and nothing is drawn at random.

    Energy of quadrature pairs of Gabor filters on the luminance, divided by the energy of all orientations and a
    constant; rectified red-green and blue-yellow opponency; luminance. Truth planted here and recovered through a
    trained network cannot come from weights that the two share.

    Returns:
        Maps (N, 13, 12, 12) of images (N, 3, H, W) in [0, 1], differentiable; channels are :data:`FEATURES`.

    Source: Adelson and Bergen 1985 (energy); Heeger 1992 (division).

    >>> GaborBank()(torch.rand(2, 3, 40, 40)).shape
    torch.Size([2, 13, 12, 12])
    """

    def __init__(self) -> None:
        super().__init__()
        for scale, wavelength in enumerate(WAVELENGTHS):
            self.register_buffer(f"filters{scale}", _gabors(wavelength), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) to maps (N, 13, 12, 12)."""
        images = F.interpolate(check_images(images).float(), (SIDE, SIDE), mode="bilinear", antialias=True)
        red, green, blue = images.unbind(1)
        luminance = images.mean(1)
        centred = luminance - luminance.mean((1, 2), keepdim=True)
        maps = []
        for scale in range(len(WAVELENGTHS)):
            filters = self.get_buffer(f"filters{scale}")
            border = filters.shape[-1] // 2
            even, odd = F.conv2d(F.pad(centred[:, None], [border] * 4, "reflect"), filters).chunk(2, 1)
            energy = F.adaptive_avg_pool2d((even**2 + odd**2 + SMALL**2).sqrt() - SMALL, POOLED)
            maps.append(energy / (energy.mean(1, keepdim=True) + 0.02))
        opponent = torch.stack([red - green, green - red, blue - (red + green) / 2, (red + green) / 2 - blue], 1)
        colours = F.adaptive_avg_pool2d(torch.cat([opponent.relu(), luminance[:, None]], 1), POOLED)
        return torch.cat([*maps, colours], 1)


def _gabors(wavelength: float) -> Tensor:
    """Filters (8, 1, s, s): four orientations, even then odd, each with mean 0 and norm 1."""
    half = math.ceil(wavelength)
    y, x = torch.meshgrid(*[torch.arange(-half, half + 1.0)] * 2, indexing="ij")
    window = torch.exp(-(x**2 + y**2) / (2 * (wavelength / 2) ** 2))
    filters = []
    for wave in (torch.cos, torch.sin):
        for angle in (0, 45, 90, 135):
            turned = x * math.cos(math.radians(angle)) + y * math.sin(math.radians(angle))
            filters.append(wave(2 * math.pi * turned / wavelength) * window)
    bank = torch.stack(filters)[:, None]
    bank = bank - bank.mean((2, 3), keepdim=True)
    return bank / bank.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


@dataclass(frozen=True)
class Tuning:
    """What one simulated target answers to.

    Args:
        kind: ``"feature"``: how much of one feature there is in the picture; ``"mixture"``: whichever of two unlike
            features is stronger (both in SDs), so that the mean of its preferences is neither; ``"spatial"``: one
            feature at a place, less the same in the whole picture.
        features: Names out of :data:`FEATURES`: one, for a mixture two.
        place: Horizontal and vertical centre of the place, 0 to 1 from the upper left.
    """

    kind: Literal["feature", "mixture", "spatial"]
    features: tuple[str, ...]
    place: tuple[float, float] = (0.25, 0.25)

    def __post_init__(self) -> None:
        check_word("kind", self.kind, ("feature", "mixture", "spatial"))
        wanted = 2 if self.kind == "mixture" else 1
        unknown = [name for name in self.features if name not in FEATURES]
        if len(set(self.features)) != wanted or len(self.features) != wanted or unknown:
            raise ValueError(
                f"features={self.features} of a {self.kind}; expected {wanted} of {', '.join(FEATURES)}. Name "
                "each once."
            )
        if not all(0 <= value <= 1 for value in self.place):
            raise ValueError(f"place={self.place}; expected two numbers from 0 to 1, such as (0.25, 0.25).")


TUNINGS = (
    Tuning("feature", ("red",)),
    Tuning("mixture", ("fine 0°", "blue")),
    Tuning("spatial", ("bright",)),
    Tuning("feature", ("coarse 90°",)),
    Tuning("mixture", ("coarse 45°", "yellow")),
    Tuning("spatial", ("green",), (0.7, 0.6)),
)
"""What targets are given where nothing else is said, in turn."""


class PlantedTruth:
    """What simulated targets answer without noise, as a function of images.

    Args:
        tuning: Target to tuning.
        images: (N, 3, H, W) over which responses have mean 0 and SD 1; a target that is the same for all is refused.
        snr: Target to SD of the signal over SD of the noise of one repetition (NSD's ncsnr).

    Attributes:
        responses: (N, K) noiseless responses to ``images``.

    >>> truth = PlantedTruth({"OFA": TUNINGS[0]}, torch.rand(20, 3, 16, 16), {"OFA": 1.0})
    >>> truth(torch.rand(3, 3, 32, 32)).shape, truth.ceiling(3)["OFA"]
    (torch.Size([3, 1]), 0.75)
    """

    def __init__(self, tuning: Mapping[str, Tuning], images: Tensor, snr: Mapping[str, float]) -> None:
        self.targets = list(tuning)
        self.tuning, self.snr = dict(tuning), {name: float(snr[name]) for name in tuning}
        self.bank = GaborBank()
        with torch.no_grad():
            maps = torch.cat([self.bank(part) for part in images.split(64)])
            pooled = maps.mean((2, 3))
            # A feature that the pictures lack (grey ones have no colour) stays at 0 in place of being blown up.
            self._mean, self._std = pooled.mean(0), pooled.std(0, correction=0).clamp_min(1e-4)
            raw = self._raw(maps)
            self._offset, self._scale = raw.mean(0), raw.std(0, correction=0)
        flat = [name for name, scale in zip(self.targets, self._scale.tolist(), strict=True) if scale < 1e-4]
        if flat:
            raise ValueError(
                f"images: target {flat[0]!r} answers the same to all of them; expected pictures that differ in "
                f"{' and '.join(self.tuning[flat[0]].features)}. Plant another feature."
            )
        self.responses = (raw - self._offset) / self._scale

    def __call__(self, images: Tensor) -> Tensor:
        """Noiseless responses (N, K) to any images (N, 3, H, W), differentiable, in SDs over the images planted in."""
        bank = self.bank.to(images.device)
        return (self._raw(bank(images)) - self._offset.to(images.device)) / self._scale.to(images.device)

    def ceiling(self, repetitions: int) -> dict[str, float]:
        """Share of the variance of averaged responses that is signal, target by target: snr² / (snr² + 1/n)."""
        return {name: snr**2 / (snr**2 + 1 / repetitions) for name, snr in self.snr.items()}

    def _raw(self, maps: Tensor) -> Tensor:
        mean, std = self._mean.to(maps.device), self._std.to(maps.device)
        columns = []
        for tuning in self.tuning.values():
            channels = [FEATURES.index(name) for name in tuning.features]
            standard = (maps[:, channels].mean((2, 3)) - mean[channels]) / std[channels]
            if tuning.kind == "mixture":
                columns.append(torch.logsumexp(3 * standard, 1) / 3)
            elif tuning.kind == "spatial":
                chosen = maps[:, channels[0]]
                columns.append((chosen * _window(tuning.place).to(maps)).sum((1, 2)) - chosen.mean((1, 2)))
            else:
                columns.append(standard[:, 0])
        return torch.stack(columns, 1)


def _window(place: tuple[float, float]) -> Tensor:
    """Gaussian weights (12, 12) around a place; they add up to 1."""
    centres = (torch.arange(POOLED) + 0.5) / POOLED
    x, y = (torch.exp(-((centres - value) ** 2) / (2 * 0.12**2)) for value in place)
    weights = y[:, None] * x[None]
    return weights / weights.sum()


def plant(
    names: Sequence[str] | Mapping[str, Tuning], images: Tensor, snr: float | Mapping[str, float]
) -> PlantedTruth:
    """Give each target a tuning; ValueError for an SNR that is missing or not above 0.

    Args:
        names: Targets, which take :data:`TUNINGS` in turn, or target to tuning.
        snr: One for all, or target to its own; above 0.
    """
    if isinstance(names, Mapping):
        tuning = dict(names)
    else:
        tuning = {name: TUNINGS[place % len(TUNINGS)] for place, name in enumerate(as_names(names))}
    each = dict(snr) if isinstance(snr, Mapping) else dict.fromkeys(tuning, float(snr))
    for name in tuning:
        if each.get(name, 0) <= 0:
            raise ValueError(
                f"snr of {name!r} is {each.get(name)}; expected a number above 0, SD of signal over noise."
            )
    return PlantedTruth(tuning, images, each)
