"""Fitting a landscape: a VAE trained so that a unit's responses organise its latents."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from numbers import Real
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from vislens_interp.config import MIN_IMAGES, FitConfig
from vislens_interp.copies import row_groups, split_groups
from vislens_interp.files import fingerprint, load_state_if_there, rebuilding, save_state
from vislens_interp.landscape.alternate import Alternating, settled
from vislens_interp.landscape.landscape import Landscape
from vislens_interp.landscape.modes import assign_modes
from vislens_interp.landscape.prior import ActivationPrior, ResponseScaler, kl_divergence
from vislens_interp.landscape.vae import VAE, EmbeddingVAE, sample_posterior
from vislens_interp.precision import mixed_precision
from vislens_interp.progress import tqdm
from vislens_interp.schema import HISTORY, check_finite, check_schema, check_tensors, restore_optimizer

Features = Callable[[Tensor], Tensor]
_ROW = {"epoch": int, "seconds": float, "loss": Real, "validation_loss": Real}


def split_rows(count: int, settings: FitConfig, groups: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Rows of a reference set of ``count`` images that a fit may learn from, and those that it holds out; sorted.

    Copies of an image (rows of one group) lie on the same side.
    """
    groups = torch.arange(count) if groups is None else groups
    return split_groups(groups, max(1, round(settings.validation * count)), seed=settings.seed)


def fit_landscape(
    vae: VAE,
    x: Tensor,
    responses: Tensor,
    prior: ActivationPrior,
    settings: FitConfig,
    *,
    names: list[str] | None = None,
    scaler: ResponseScaler | None = None,
    consistency: Features | None = None,
    groups: Tensor | None = None,
    checkpoint: Path | None = None,
    progress: bool = False,
) -> Landscape:
    """Train ``vae`` on x under the activation prior of these responses (Eq. 4) and return the landscape.

    Args:
        vae: Where to start: fresh weights, or a shared VAE's for a warm start. It is copied, not changed.
        x: (N, ...) what the VAE encodes: pixels or embeddings.
        responses: (N, K) raw responses, one column for each block of the prior; ``names`` are the units'.
        scaler: Standardiser of the responses; None fits one on these.
        consistency: Differentiable features of x, (N, ...) to (N, F): the target's own layer, or another network's.
        groups: (N,) which images are copies of one another (:mod:`vislens_interp.copies`); None looks for equal rows.
        checkpoint: File that an interrupted fit resumes from; removed when the fit is done.

    Raises:
        ValueError: Too few images, counts that differ, responses that are not finite, or a unit that never varies.
    """
    groups = _checked_groups(x, responses, groups)
    if responses.ndim != 2 or responses.shape[1] != len(prior.blocks):
        raise ValueError(f"responses has shape {tuple(responses.shape)}; expected (N, {len(prior.blocks)}).")
    if settings.w_consistency > 0 and consistency is None:
        raise ValueError(f"w_consistency={settings.w_consistency} needs consistency=, a function from x to features.")
    scaler = scaler or ResponseScaler.fit(responses, names)
    vae = copy.deepcopy(vae).requires_grad_(True)
    training, held_out = split_rows(len(x), settings, groups)

    standard = scaler.standardise(responses.float())
    modes = assign_modes(vae, x, standard, prior, seed=settings.seed)
    loss = _Loss(vae, x, standard, modes, prior, settings, consistency, training)
    solver = _Adam(loss, training) if settings.solver == "adam" else _Rounds(loss, training)
    history: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    fixed: dict[str, object] = {}
    if checkpoint is not None:
        data = fingerprint({"x": x, "responses": responses})
        fixed = {"settings": asdict(settings), "data": data, "prior": prior.state()}
        if (saved := _load_checkpoint(checkpoint, fixed, vae)) is not None:
            vae.load_state_dict(saved["vae"])
            solver.load(saved["solver"], f"path={str(checkpoint)!r}")
            history, best = saved["history"], saved["best"]

    started = time.monotonic() - (history[-1]["seconds"] if history else 0.0)
    first = len(history)
    bar = tqdm(range(first, settings.epochs), initial=first, total=settings.epochs, desc="fit", disable=not progress)
    for epoch in bar:
        if _is_over(history, settings):  # asked here, so that a fit that was interrupted after its last epoch is over
            break
        row = solver.epoch(epoch)
        row |= {f"validation_{name}": value for name, value in loss.validate(held_out).items()}
        history.append({"epoch": epoch + 1, "seconds": time.monotonic() - started, **row})
        bar.set_postfix(loss=f"{row['loss']:.2f}", validation=f"{row['validation_loss']:.2f}")
        losses = [entry["validation_loss"] for entry in history]
        if losses[-1] <= min(losses):
            best = {name: value.detach().clone() for name, value in vae.state_dict().items()}
        if checkpoint is not None:
            state = {"vae": vae.state_dict(), "solver": solver.state(), "history": history, "best": best}
            save_state(checkpoint, "fit checkpoint", fixed | state)
    if not best:
        raise ValueError(
            f"x, with values up to {x.abs().max().item():.4g}, gave a validation loss that is not finite in any epoch; "
            "expected values of the order of 1. Scale x, or lower lr."
        )
    vae.load_state_dict(best)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    names = names or [str(unit) for unit in range(responses.shape[1])]
    return Landscape.describe(
        vae, prior, scaler, names, x, responses, held_out=held_out, history=history, settings=asdict(settings)
    )


def _is_over(history: list[dict[str, float]], settings: FitConfig) -> bool:
    """Whether a fit stops after these epochs: none of the last few was better, or the loss has come to a stand."""
    losses = [row["validation_loss"] for row in history]
    if losses and settings.patience is not None and len(losses) > losses.index(min(losses)) + settings.patience:
        return True
    return settings.solver == "alternating" and settled(history, settings.tolerance)


def _checked_groups(x: Tensor, responses: Tensor, groups: Tensor | None) -> Tensor:
    """Which images are copies of one another, once there are enough of them."""
    if len(x) != len(responses):
        raise ValueError(f"responses has {len(responses)} rows for {len(x)} images; expected one row an image.")
    if len(x) < MIN_IMAGES:
        raise ValueError(
            f"images holds {len(x)} images; a landscape needs at least {MIN_IMAGES} to be more than noise. Give more "
            "reference images to fit()."
        )
    groups = row_groups(x) if groups is None else groups
    distinct = len(groups.unique())
    if distinct < MIN_IMAGES:
        raise ValueError(
            f"images holds {len(x)} images of which {distinct} are distinct and the rest are copies of these; a"
            f" landscape needs at least {MIN_IMAGES} distinct ones. Give more reference images to fit()."
        )
    return groups


def _load_checkpoint(path: Path, fixed: dict[str, object], vae: VAE) -> dict[str, Any] | None:
    """What an interrupted fit goes on from, if it is one of the same settings, images, responses and prior."""
    saved = load_state_if_there(path, "fit checkpoint")
    if saved is None:
        return None
    with rebuilding(path, "settings, data or prior"):  # what is compared may be anything
        if saved.get("settings") != fixed["settings"]:
            raise ValueError(
                f"checkpoint={str(path)!r} belongs to a fit with other settings; delete it or use those settings."
            )
        if any(saved.get(part) != value for part, value in fixed.items()):
            raise ValueError(
                f"checkpoint={str(path)!r} belongs to a fit of other images, responses or prior; delete it or pass"
                " those."
            )
    where = f"path={str(path)!r}"
    check_schema(saved, {"vae": dict, "solver": dict, "best": dict, "history": [_ROW]}, where)
    check_schema(saved["history"], HISTORY, where, "history")
    known = any(math.isfinite(row["validation_loss"]) for row in saved["history"])
    for name in ("vae", "best") if known or saved["best"] else ("vae",):
        check_tensors(saved[name], vae.state_dict(), where, name)
    check_finite(saved["best"], where, "best")
    if saved["history"] and math.isfinite(saved["history"][-1]["validation_loss"]):
        check_finite(saved["vae"], where, "vae")
    return saved


class _Adam:
    """Epochs of gradient steps: the paper's recipe."""

    def __init__(self, loss: "_Loss", training: Tensor) -> None:
        self.loss, self.vae, self.settings, self.training = loss, loss.vae, loss.settings, training
        self.optimizer = torch.optim.Adam(
            self.vae.parameters(), lr=self.settings.lr, fused=isinstance(self.vae, EmbeddingVAE)
        )
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, self.settings.lr_step, self.settings.lr_gamma)

    def epoch(self, number: int) -> dict[str, float]:
        """Mean losses over one pass."""
        # One generator an epoch, so that a resumed fit draws what an uninterrupted one would.
        draw = torch.Generator().manual_seed(self.settings.seed * 100_003 + number + 1)
        self.vae.train()
        batches = self.training[torch.randperm(len(self.training), generator=draw)].split(self.settings.batch_size)
        steps: list[Tensor] = []
        for rows in batches:
            parts = self.loss(rows, torch.randn(len(rows), self.vae.latent_dim, generator=draw))
            self.optimizer.zero_grad(set_to_none=True)
            parts["loss"].backward()
            torch.nn.utils.clip_grad_norm_(self.vae.parameters(), self.settings.clip)
            self.optimizer.step()
            steps.append(torch.stack([value.detach() for value in parts.values()]))
        self.schedule.step()
        # Read at the end: a GPU would have to wait at every step.
        sums: dict[str, float] = dict.fromkeys(parts, 0.0)
        for rows, values in zip(batches, torch.stack(steps).tolist(), strict=True):
            for name, value in zip(sums, values, strict=True):
                sums[name] += value * len(rows)
        return {name: value / len(self.training) for name, value in sums.items()}

    def state(self) -> dict[str, dict[str, object]]:
        """What an interrupted fit goes on from, beside the weights."""
        schedule = {k: v for k, v in self.schedule.state_dict().items() if not k.startswith("_")}
        return {"optimizer": self.optimizer.state_dict(), "schedule": schedule}

    def load(self, state: dict[str, Any], where: str) -> None:
        """Go on from what :meth:`state` gave; ``where`` names its file in an error."""
        check_schema(state, {"optimizer": dict, "schedule": {"last_epoch": int}}, where, "solver")
        restore_optimizer(self.optimizer, state["optimizer"], where, "solver.optimizer")
        self.schedule.last_epoch = state["schedule"]["last_epoch"]


class _Rounds:
    """Rounds of exact solutions; all that is carried from one to the next is in the weights."""

    def __init__(self, loss: "_Loss", training: Tensor) -> None:
        settings = loss.settings
        rows = training.to(loss.x.device)
        self.solver = Alternating(
            cast(EmbeddingVAE, loss.vae),
            loss.x[rows].float(),
            loss.prior_mean[rows],
            loss.prior_sigma[rows],
            loss.prior.blocks,
            settings.w_recon,
            settings.w_kld,
        )

    def epoch(self, number: int) -> dict[str, float]:
        """The mean losses after one round."""
        return self.solver.round(first=number == 0)

    def state(self) -> dict[str, dict[str, object]]:
        return {}

    def load(self, state: dict[str, Any], where: str) -> None:
        pass


class _Loss:
    """Eq. 4 on rows of the reference set, plus the consistency loss."""

    def __init__(
        self,
        vae: VAE,
        x: Tensor,
        responses: Tensor,
        modes: Tensor,
        prior: ActivationPrior,
        settings: FitConfig,
        consistency: Features | None,
        training: Tensor,
    ) -> None:
        self.vae, self.x, self.settings, self.prior = vae, x, settings, prior
        self.prior_mean, self.prior_sigma = (part.to(x.device) for part in prior.parameters(responses, modes))
        self.consistency = consistency if settings.w_consistency > 0 else None
        self.features: Tensor | None = None
        if self.consistency is not None:
            with torch.no_grad():
                parts = [self.consistency(part).flatten(1) for part in x.split(256)]
                # Half precision halves the memory; filled by hand, for torch.cat refuses it under CPU autocast.
                self.features = torch.empty(len(x), parts[0].shape[1], dtype=torch.float16, device=x.device)
                for part, rows in zip(parts, torch.arange(len(x)).split(256), strict=True):
                    self.features[rows] = part.half()
            probe = training[:: max(1, len(training) // 2048)]
            variance_x = x[probe].flatten(1).var(0).sum()
            variance_features = self.features[probe].float().var(0).sum()
            self.scale = (settings.w_consistency * variance_x / variance_features.clamp_min(1e-12)).item()

    def __call__(self, rows: Tensor, noise: Tensor | None) -> dict[str, Tensor]:
        with mixed_precision(self.x.device, enabled=self.settings.bf16):
            x = self.x[rows]
            mean, log_variance = (part.float() for part in self.vae.encode(x))
            z = mean if noise is None else sample_posterior(mean, log_variance, noise.to(mean))
            decoded = self.vae.decode(z).float()
            recon = ((decoded - x) ** 2).flatten(1).sum(1).mean()
            kld = kl_divergence(mean, log_variance, self.prior_mean[rows], self.prior_sigma[rows]).mean()
            parts = {"recon": recon, "kld": kld}
            total = self.settings.w_recon * recon + self.settings.w_kld * kld
            if self.consistency is not None and self.features is not None:
                error = (self.consistency(decoded).flatten(1).float() - self.features[rows].float()) ** 2
                parts["consistency"] = self.scale * error.sum(1).mean()
                total = total + parts["consistency"]
            return {"loss": total, **parts}

    @torch.no_grad()
    def validate(self, rows: Tensor) -> dict[str, float]:
        """The same losses on held-out rows, at the posterior's mean: no noise, so that epochs compare."""
        self.vae.eval()
        sums: dict[str, float] = {}
        for part in rows.split(256):
            for name, value in self(part, None).items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(part) / len(rows)
        return sums
