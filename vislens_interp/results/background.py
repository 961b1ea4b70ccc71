"""What stands behind the pictures of one unit: the reference set's responses, and where all lies in the landscape."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vislens_interp.copies import top_rows
from vislens_interp.images import ImageFiles
from vislens_interp.landscape.evidence import Evidence
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.modes import STRONG
from vislens_interp.landscape.prior import SENSES, Sense
from vislens_interp.schema import Spec

TOP = 10
"""Top images of a report, as in the paper's Figure 4."""
MODE_IMAGES = 5

_POSITIONS = {str: [[float]]}
BACKGROUND: dict[str, Spec] = {
    "means": _POSITIONS,
    "moves": _POSITIONS,
    "galleries": {str: {"names": [str], "responses": [(float, None)]}},
    "alphas": [float],
    "changes": [[(float, None)]],
}
"""What :meth:`Background.numbers` writes."""
EVIDENCE: dict[str, Spec] = {
    "unit": str,
    "correlation": (float, None),  # JSON has no other word for what is not finite
    "p_value": float,
    "shuffles": int,
    "reconstruction": (float, None),
    "strong_images": int,
    "images": int,
    "held_out": int,
    "reasons": [str],
    "copies?": int,
}
"""What ``Evidence.to_dict`` writes."""


def read_evidence(kept: Mapping[str, object]) -> Evidence:
    """Evidence as :data:`EVIDENCE` says; None is what is not finite."""
    fields = {name.removesuffix("?") for name in EVIDENCE}
    values: dict[str, Any] = {key: math.nan if kept[key] is None else kept[key] for key in fields & kept.keys()}
    return Evidence(**values)


@dataclass(frozen=True, eq=False)
class TopImages:
    """Images ranked by how strongly they drive a unit.

    Args:
        images: (n, 3, H, W), the strongest first.
        responses: (n,) raw responses.
        names: One an image.
    """

    images: Tensor = field(repr=False)
    responses: Tensor
    names: list[str]


@dataclass(frozen=True, eq=False)
class Background:
    """The reference set as a unit and its landscape see it, for the report.

    Positions are on two latent axes, see :class:`Axes`.

    Args:
        responses: (R,) raw responses of the reference images, by what read the made pictures.
        positions: (R, 2) their latents.
        names: Their names; empty where nobody knows them.
        means: For each direction (modes, 2): where the prior means lie.
        moves: For ``"unedited"`` and each direction (N, 2): the latents of the pictures before and after.
        galleries: Reference images in rows: ``"top"``, one crop of each photograph; ``"prototypes_increase"`` and
            ``"prototypes_decrease"``, see :class:`~vislens_interp.methods.prototypes.Prototypes`; and ``"increase_1"``,
            ``"decrease_1"`` and so on, the most and the least driving ones that lie nearest to each of several means.
            Empty where the images are not there.
        alphas: Signed weights of a dose-response, ascending; negative is towards the suppressed mean.
        changes: (len(alphas), N) change of the response against α = 0, in SDs.

    Raises:
        ValueError: A part has an unknown name, or its shape does not fit the others.
    """

    responses: Tensor
    positions: Tensor
    names: list[str]
    means: dict[str, Tensor]
    moves: dict[str, Tensor]
    galleries: dict[str, TopImages] = field(default_factory=dict)
    alphas: list[float] = field(default_factory=list)
    changes: Tensor = field(default_factory=lambda: torch.zeros(0, 0))

    def __post_init__(self) -> None:
        count, images = len(self.responses), {len(move) for move in self.moves.values()}
        if not count or self.positions.shape != (count, 2) or len(self.names) not in (0, count):
            raise ValueError(
                f"background has {count} responses, positions {tuple(self.positions.shape)}, {len(self.names)} names;"
                " expected one response, position (2) and name a reference image, at least one of them."
            )
        placed = {f"means[{key!r}]": value for key, value in self.means.items()}
        placed |= {f"moves[{key!r}]": value for key, value in self.moves.items()}
        for name, value in {**placed, "positions": self.positions, "responses": self.responses[:, None]}.items():
            if value.ndim != 2 or (name in placed and value.shape[1:] != (2,)) or not value.isfinite().all():
                raise ValueError(f"background.{name} has shape {tuple(value.shape)}; expected (n, 2) finite numbers.")
        if not set(self.means) <= set(SENSES) or not set(self.moves) <= {"unedited", *SENSES, "custom"}:
            raise ValueError(
                f"background has means of {list(self.means)} and moves of {list(self.moves)}; expected senses."
            )
        if len(images) > 1 or ("unedited" not in self.moves and self.moves):
            raise ValueError("background.moves differ in length; expected a position an image, 'unedited' among them.")
        for key, row in self.galleries.items():
            counts = len(row.images), len(row.responses), len(row.names)
            known = re.fullmatch(r"top|prototypes_(increase|decrease)|(increase|decrease)_\d+", key)
            if not known or len(set(counts)) > 1:
                raise ValueError(
                    f"background.galleries[{key!r}] has {counts[0]} images, {counts[1]} responses, {counts[2]} names;"
                    " expected as many of each, under 'top', 'prototypes_increase', 'increase_1', 'decrease_1', ..."
                )
        if self.changes.shape[:1] != (len(self.alphas),) or any(abs(alpha) > 1 for alpha in self.alphas):
            raise ValueError(
                f"background.changes has shape {tuple(self.changes.shape)} for alphas {self.alphas}; expected a row for"
                " each, and these in [-1, 1]."
            )

    @classmethod
    def of(
        cls,
        landscape: Landscape,
        unit: int,
        latents: Mapping[str, Tensor],
        *,
        responses: Tensor | None = None,
        pictures: Tensor | ImageFiles | None = None,
        names: list[str] | None = None,
        groups: Tensor | None = None,
        prototypes: Mapping[Sense, Tensor] | None = None,
        changes: Mapping[float, Tensor] | None = None,
    ) -> "Background":
        """Gather it for one unit of a fitted landscape; no network is run.

        Args:
            landscape: The fit.
            unit: Position of the unit in it.
            latents: For ``"unedited"`` and each direction (N, latent_dim).
            responses: (R,) responses of the reference set where another target read the pictures; None are the fit's.
            pictures: (R, 3, H, W) the reference set, in memory or in files, if it is at hand.
            names: Its names.
            groups: (R,) which of them are crops or copies of one photograph; None: no two are.
            prototypes: Rows of the reference set that tell most of the unit, to either side.
            changes: Signed weight to the changes of the response that it made, (N,) in SDs.
        """
        values = landscape.responses[:, unit] if responses is None else responses
        axes = Axes.of(landscape, unit)
        galleries = {}
        if pictures is not None:
            names = names or [f"image_{row:05d}" for row in range(len(pictures))]
            groups = torch.arange(len(values)) if groups is None else groups
            rows = {"top": torch.tensor(top_rows(values.cpu(), groups, TOP), dtype=torch.long)}
            rows |= {f"prototypes_{sense}": chosen for sense, chosen in (prototypes or {}).items()}
            if landscape.prior.modes > 1:
                rows |= _rows_of_modes(landscape, unit, values, groups)
            galleries = {
                key: TopImages(pictures[chosen].cpu(), values[chosen], [names[row] for row in chosen.tolist()])
                for key, chosen in rows.items()
            }
        means = {}
        for direction in SENSES:
            goals = landscape.latents.mean(0).repeat(landscape.prior.modes, 1)
            modes = torch.arange(landscape.prior.modes)
            goals[:, landscape.block(unit)] = landscape.prior.goal(unit, direction, modes).float()
            means[direction] = axes.place(goals)
        ordered = sorted((changes or {}).items())
        return cls(
            responses=values.float().cpu(),
            positions=axes.place(landscape.latents),
            names=list(names or []),
            means=means,
            moves={key: axes.place(value.cpu()) for key, value in latents.items()},
            galleries=galleries,
            alphas=[alpha for alpha, _ in ordered],
            changes=torch.stack([change for _, change in ordered]) if ordered else torch.zeros(0, 0),
        )

    def numbers(self) -> dict[str, Any]:
        """All that is neither a picture nor one a reference image, as JSON values."""
        return {
            "means": {key: value.tolist() for key, value in self.means.items()},
            "moves": {key: value.tolist() for key, value in self.moves.items()},
            "galleries": {
                key: {"names": row.names, "responses": row.responses.tolist()} for key, row in self.galleries.items()
            },
            "alphas": self.alphas,
            "changes": self.changes.tolist(),
        }


@dataclass(frozen=True, eq=False)
class Axes:
    """Two axes of a latent space: a unit's own, and what divides images most beside it.

    The first is the landscape's axis, on which a single suppressed mean lies at -1 and a preferred one at +1. The
    second is the main direction of the reference latents orthogonal to it, in their SDs; where there are several
    means, the main direction in which these differ.

    Args:
        first: (latent_dim,) weights of the first axis.
        second: (latent_dim,) weights of the second.
        centre: Of the second axis: the reference set's mean on it.
        scale: Its SD on it.
    """

    first: Tensor
    second: Tensor
    centre: float
    scale: float

    @classmethod
    def of(cls, landscape: Landscape, unit: int) -> "Axes":
        latents, block = landscape.latents.double(), landscape.block(unit)
        first = torch.zeros(latents.shape[1], dtype=torch.float64)
        first[block] = 1 / (block.stop - block.start)
        if landscape.prior.modes > 1:
            spread = torch.zeros(landscape.prior.modes, len(first), dtype=torch.float64)
            spread[:, block] = landscape.prior.means[unit].double()
        else:
            spread = latents
        spread = spread - spread.mean(0)
        along = first / first.norm()
        spread = spread - (spread @ along)[:, None] * along
        second = torch.linalg.eigh(spread.T @ spread).eigenvectors[:, -1]
        second = second * second[second.abs().argmax()].sign()  # an eigenvector's sign is anybody's choice
        on_it = latents @ second
        return cls(first, second, on_it.mean().item(), max(on_it.std().item(), 1e-12))

    def place(self, z: Tensor) -> Tensor:
        """Latents (N, latent_dim) to positions (N, 2)."""
        z = z.double()
        return torch.stack([z @ self.first, (z @ self.second - self.centre) / self.scale], 1).float()


def _rows_of_modes(landscape: Landscape, unit: int, values: Tensor, groups: Tensor) -> dict[str, Tensor]:
    """For each mean the strongly driven reference images that lie nearest to it, the strongest first."""
    standard = (values - values.mean()) / values.std().clamp_min(torch.finfo(values.dtype).tiny)
    codes = landscape.latents[:, landscape.block(unit)]
    found = {}
    for direction, sign in zip(SENSES, (1, -1), strict=True):
        strong = (sign * standard >= STRONG).nonzero()[:, 0]
        means = landscape.prior.goal(unit, direction, torch.arange(landscape.prior.modes))
        nearest = torch.cdist(codes[strong], means.to(codes)).argmin(1)
        for mode in range(landscape.prior.modes):
            own = strong[nearest == mode]
            best = top_rows((sign * standard[own]).cpu(), groups[own.cpu()], MODE_IMAGES)
            found[f"{direction}_{mode + 1}"] = own[best]
    return found
