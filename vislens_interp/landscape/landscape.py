"""The fitted landscape: the VAE, its prior, the scale of the responses, and what the reference set looks like in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vislens_interp.files import load_state, rebuilding, save_state
from vislens_interp.landscape import vae as vaes
from vislens_interp.landscape.prior import SIGN, ActivationPrior, ResponseScaler, Sense
from vislens_interp.landscape.vae import VAE
from vislens_interp.schema import HISTORY, check_finite, check_schema

SCHEMA = {
    "vae": {"kind": str, "config": dict, "channels_last": bool, "weights": {str: Tensor}},
    "prior": {"latent_dim": int, "blocks": [[int]]},
    "scaler": {"mean": Tensor, "std": Tensor},
    "names": [str],
    "latents": Tensor,
    "responses": Tensor,
    "held_out": Tensor,
    "history?": HISTORY,
    "settings?": {str: object},
}


def check_state(state: Mapping[str, Any], where: str, name: str = "") -> None:
    """Raise ValueError, with the field, where what :meth:`Landscape.state` gave was changed in a file."""
    check_schema(state, SCHEMA, where, name)
    check_finite(state, where, name)
    prefix = f"{name}." if name else ""
    rows, units = len(state["latents"]) if state["latents"].ndim else 0, len(state["names"])
    shapes = {"latents": (rows, state["prior"]["latent_dim"]), "responses": (rows, units)}
    shapes |= {"held_out": (state["held_out"].numel(),), "scaler.mean": (units,), "scaler.std": (units,)}
    parts = {**state, **{f"scaler.{key}": value for key, value in state["scaler"].items()}}
    for part, shape in shapes.items():
        if parts[part].shape != shape:
            raise ValueError(
                f"{where}: {prefix}{part} has shape {tuple(parts[part].shape)}; expected {shape}, a row for each of"
                f" latents and a column for each of names. Restore a copy, or fit again."
            )
    held_out = state["held_out"]
    if not rows or held_out.is_floating_point() or not ((held_out >= 0) & (held_out < rows)).all():
        raise ValueError(f"{where}: {prefix}held_out are not rows of {rows} {prefix}latents. Restore a copy.")
    if not (state["scaler"]["std"] > 0).all() or len(state["prior"]["blocks"]) != units:
        raise ValueError(
            f"{where}: {prefix}scaler.std or {prefix}prior.blocks do not fit {units} names. Restore a copy."
        )


@dataclass
class Landscape:
    """Latents organised by the responses of one or several units.

    Args:
        vae, prior: Encodes x to latents and decodes them; the activation prior that it was fitted under.
        scaler, names: Standardiser of the responses; name of each unit, in the order of the prior's blocks.
        latents, responses: (N, latent_dim) posterior means of the reference set, and (N, K) its raw responses.
        held_out: Rows of the reference set that the fit never saw.
        history, settings: One row an epoch, and the fit's recipe.
    """

    vae: VAE
    prior: ActivationPrior
    scaler: ResponseScaler
    names: list[str]
    latents: Tensor
    responses: Tensor
    held_out: Tensor
    history: list[dict[str, float]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def describe(
        cls,
        vae: VAE,
        prior: ActivationPrior,
        scaler: ResponseScaler,
        names: list[str],
        x: Tensor,
        responses: Tensor,
        *,
        held_out: Tensor,
        history: list[dict[str, float]] | None = None,
        settings: dict[str, object] | None = None,
    ) -> "Landscape":
        """Freeze ``vae`` and encode the reference set with it."""
        vae = vae.eval().requires_grad_(False)
        with torch.no_grad():
            latents = torch.cat([vae.encode(part)[0] for part in x.split(512)])
        known = latents.cpu(), responses.float().cpu(), held_out
        return cls(vae, prior, scaler, names, *known, history or [], settings or {})

    @torch.no_grad()
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x to the posterior's mean and sigma, (N, latent_dim) each."""
        parts = [self.vae.encode(part) for part in x.split(256)]
        mean = torch.cat([part[0] for part in parts])
        return mean, torch.cat([(part[1] / 2).exp() for part in parts])

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Latents (N, latent_dim) to x."""
        return torch.cat([self.vae.decode(part) for part in z.split(256)])

    @property
    def learned(self) -> Tensor:
        """(N,) bool: images of the reference set that the fit learned from."""
        learned = torch.ones(len(self.latents), dtype=torch.bool)
        learned[self.held_out] = False
        return learned

    def block(self, unit: int) -> slice:
        """The latent dimensions of one unit."""
        return slice(*self.prior.blocks[unit])

    def mask(self, units: list[int]) -> Tensor:
        """(latent_dim,) bool: the dimensions that an edit of these units may move."""
        mask = torch.zeros(self.prior.latent_dim, dtype=torch.bool)
        for unit in units:
            mask[self.block(unit)] = True
        return mask

    def goal(
        self, z: Tensor, directions: dict[int, Sense], mode: int | None = None, *, top_activating_power: float = 0.0
    ) -> Tensor:
        """Where an edit leads: ``z`` (N, latent_dim) with the blocks of these units at their prior means.

        Args:
            mode: Which of several means; None for the one nearest to each image's own code.
            top_activating_power: Dimensions that are no unit's go to the mean code of the images that drive these units
                that way, each weighted by its response to this power; 0 leaves them as they are.
        """
        goal = z.clone()
        if top_activating_power > 0:
            rest = ~self.mask(list(range(len(self.names))))
            power = top_activating_power
            codes = [self.top_activating_mean(unit, sense, power) for unit, sense in directions.items()]
            goal[:, rest] = torch.stack(codes).mean(0)[rest].to(z)
        for unit, direction in directions.items():
            block = self.block(unit)
            chosen: Tensor | int | None = mode
            if chosen is None:
                means = torch.stack([self.prior.goal(unit, direction, index) for index in range(self.prior.modes)])
                chosen = torch.cdist(z[:, block], means.to(z)).argmin(1).cpu()
            goal[:, block] = self.prior.goal(unit, direction, chosen).to(z)
        return goal

    def top_activating_mean(self, unit: int, direction: Sense, power: float) -> Tensor:
        """(latent_dim,) mean code of the images that drive a unit up (or down), weighted by |response|^power.

        At power 2 the weights are those that the prior's precision, ((r + ε) / λ)², gives to strong responses.
        Images that the fit held out have no part in it.
        """
        learned = self.learned
        standard = self.scaler.standardise(self.responses)[learned, unit]
        weights = (SIGN[direction] * standard).clamp_min(0) ** power
        return (weights[:, None] * self.latents[learned]).sum(0) / weights.sum().clamp_min(1e-12)

    def axis(self, unit: int, z: Tensor) -> Tensor:
        """Position of latents (N, latent_dim) along a unit's axis: -1 at its suppressed mean, +1 at its preferred."""
        return z[:, self.block(unit)].mean(1)

    def axes(self) -> Tensor:
        """(K, *x), on the CPU: how x moves along each unit's axis, from 0 to +1, at the mean of all else."""
        z = self.latents.mean(0).repeat(len(self.names), 2, 1)
        for unit in range(len(self.names)):
            z[unit, :, self.block(unit)] = torch.tensor([[0.0], [1.0]])
        x = self.decode(z.flatten(0, 1).to(next(self.vae.parameters()).device)).cpu()
        return (x[1::2] - x[::2]).contiguous()

    def state(self) -> dict[str, Any]:
        """Everything, as nested dictionaries for :func:`vislens_interp.files.save_state`."""
        parts = {"vae": vaes.state(self.vae), "prior": self.prior.state(), "scaler": self.scaler.state()}
        return {one.name: getattr(self, one.name) for one in fields(self)} | parts

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Landscape":
        """The landscape that :meth:`state` described."""
        parts = {
            "vae": vaes.restore(state["vae"]).eval().requires_grad_(False),
            "prior": ActivationPrior.from_state(state["prior"]),
            "scaler": ResponseScaler(state["scaler"]["mean"], state["scaler"]["std"]),
        }
        # Cloned, because a file's tensors lie anywhere in memory, and matrix products depend on it in the last bit.
        tensors = {name: state[name].clone() for name in ("latents", "responses", "held_out")}
        return cls(**{**state, **parts, **tensors})

    def save(self, path: str | Path) -> Path:
        """Write the landscape to one file."""
        return save_state(path, "landscape", self.state())

    @classmethod
    def load(cls, path: str | Path) -> "Landscape":
        """Read what :meth:`save` wrote; raises ValueError for anything else."""
        state = load_state(path, "landscape")
        check_state(state, f"path={str(path)!r}")
        with rebuilding(path, "vae or prior"):
            return cls.from_state(state)
