"""The loop that every recipe shares: minutes, checkpoints that resume, a moving average of the weights."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vislens_interp.files import fingerprint, load_state, locked, rebuilding, save_state, write_atomically
from vislens_interp.progress import tqdm
from vislens_interp.random_state import check_seed
from vislens_interp.schema import HISTORY, check_finite, check_schema, check_tensors, restore_optimizer

SCHEMA = {
    "model": dict,
    "average": dict,
    "optimizer": dict,
    "step": int,
    "seconds": float,
    "history": HISTORY,
    "identity?": (dict, None),  # 0.1.0 does not say
}


@dataclass
class Progress:
    """Where a training run stands; saved beside the weights, so that a run goes on where it was."""

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    data: str = ""
    """What the recipe was trained on, for its model card."""


def train(
    model: nn.Module,
    loss: Callable[[int, torch.Generator], Tensor],
    *,
    out: Path,
    steps: int,
    lr: float,
    seed: int,
    minutes: float | None = None,
    weight_decay: float = 0.0,
    warmup: int = 200,
    ema_decay: float = 0.999,
    clip: float = 1.0,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    evaluate_every: int = 1000,
    checkpoint_seconds: float = 60.0,
    data: Sequence[Tensor] = (),
    settings: Mapping[str, object] | None = None,
) -> tuple[nn.Module, Progress]:
    """Minimise ``loss`` with AdamW and one cosine cycle, and return the moving average of the weights.

    Args:
        model: Trained in place; a state in ``out`` replaces its weights first.
        loss: ``loss(step, generator)``: the loss of one batch drawn with ``generator``. Its randomness depends on the
            seed, the step and the device alone, so that a run resumed there sees the batches that an uninterrupted one
            would.
        out: Folder of ``checkpoint.safetensors``.
        steps: Optimiser steps of the whole run; a run stopped by ``minutes`` goes on when called again.
        minutes: Stop after so many minutes of this call, and after one step at least.
        evaluate: Figures of the averaged model, every ``evaluate_every`` steps and at the end.
        data: What ``loss`` draws its batches from. The checkpoint knows it, the seed and the settings: it is refused
            where any of them is another.
        settings: What else ``loss`` depends on, by name.

    Returns:
        The averaged model (on the same device, in evaluation mode) and where the run stands.

    Raises:
        ValueError: A number is out of its range, the checkpoint is of another run, or the loss is no longer finite.
        BlockingIOError: Another process trains in ``out`` (an OSError).
    """
    check_seed(seed)
    if minutes is not None and not 0 < minutes < math.inf:
        raise ValueError(f"minutes={minutes} must be a number above 0, or None for the whole run.")
    if steps < 1 or not 0 < lr < math.inf:
        raise ValueError(f"steps={steps} and lr={lr} must be above 0.")
    identity = {"seed": seed, "steps": steps, "lr": lr, "weight_decay": weight_decay, "warmup": warmup}
    identity |= {"ema_decay": ema_decay, "clip": clip, **(settings or {})}
    identity["data"] = fingerprint({str(place): part for place, part in enumerate(data)})
    checkpoint = out / "checkpoint.safetensors"
    with locked(checkpoint, wait=False):
        on_gpu = next(model.parameters()).is_cuda  # there a step is many small kernels; fused, they are one
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, fused=on_gpu)
        average = copy.deepcopy(model).eval().requires_grad_(False)
        progress = _resumed(checkpoint, identity, model, average, optimizer)

        def save() -> None:
            if value is not None and not torch.isfinite(value):
                raise ValueError(
                    f"lr={lr:g}: the loss is {value.item()} at step {progress.step}, and nothing is written; expected "
                    "a finite one. The checkpoint, if there is one, holds the last good state. Lower lr, or look at "
                    "the images."
                )
            parts = {"model": model, "average": average, "optimizer": optimizer}
            state = {name: part.state_dict() for name, part in parts.items()} | {"identity": identity}
            reached = {"step": progress.step, "seconds": progress.seconds, "history": progress.history}
            save_state(checkpoint, "checkpoint", state | reached)

        value: Tensor | None = None
        started = saved = time.monotonic()
        before = progress.seconds
        bar = tqdm(total=steps, initial=progress.step, unit="step", mininterval=5)
        # One step at least: weights that nothing was learned by are no outcome.
        while progress.step < steps and (minutes is None or time.monotonic() - started < 60 * minutes or value is None):
            rate = lr * min(1.0, (progress.step + 1) / max(1, warmup))
            rate *= 0.5 * (1 + torch.cos(torch.tensor(torch.pi * progress.step / steps)).item())
            for group in optimizer.param_groups:
                group["lr"] = rate
            generator = torch.Generator().manual_seed(seed * 1_000_003 + progress.step)
            torch.manual_seed(seed * 1_000_003 + progress.step)  # dropout draws from the global generator
            model.train()
            value = loss(progress.step, generator)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            progress.step += 1
            progress.seconds = before + time.monotonic() - started
            _follow(average, model, min(ema_decay, (1 + progress.step) / (10 + progress.step)))
            bar.update()
            if progress.step % 50 == 0:
                bar.set_postfix(loss=f"{value.item():.4f}")
            if evaluate is not None and progress.step % evaluate_every == 0:
                progress.history.append({"step": progress.step, "loss": value.item(), **evaluate(average)})
                bar.write(str(progress.history[-1]))
            if time.monotonic() - saved > checkpoint_seconds:
                save()
                saved = time.monotonic()
        bar.close()
        if evaluate is not None and (not progress.history or progress.history[-1]["step"] != progress.step):
            progress.history.append({"step": progress.step, **evaluate(average)})
        save()
    return average, progress


def _resumed(
    checkpoint: Path, identity: dict[str, Any], model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> Progress:
    """Put back what a checkpoint holds, if there is one; one that was changed, or is of another run, is refused."""
    if not checkpoint.exists():
        return Progress()
    where, state = f"path={str(checkpoint)!r}", load_state(checkpoint, "checkpoint")
    check_schema(state, SCHEMA, where)
    before = identity if state.get("identity") is None else state["identity"]  # one of 0.1.0 does not say
    with rebuilding(checkpoint, "identity"):  # what is compared may be anything
        for name in sorted(set(identity) - {"steps", "warmup"}):  # a run may be made longer
            if before.get(name) != identity[name]:
                raise ValueError(
                    f"checkpoint {str(checkpoint)!r} belongs to a run with {name} {before.get(name)!r}, not "
                    f"{identity[name]!r}; pass that, or another folder."
                )
    if state["step"] < 0 or any("step" not in row for row in state["history"]):
        raise ValueError(f"{where}: step is {state['step']} and history {state['history']}; expected steps done.")
    for name in ("model", "average"):
        check_tensors(state[name], model.state_dict(), where, name)
    check_finite(state, where)
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    restore_optimizer(optimizer, state["optimizer"], where)
    return Progress(state["step"], state["seconds"], state["history"])


def add_test_figures(progress: Progress, steps: int, figures: Callable[[], dict[str, float]]) -> None:
    """Add ``test_...`` figures to a finished run's last entry; a run that is not finished does not look at them."""
    if progress.step >= steps and progress.history:
        progress.history[-1] |= {f"test_{name}": value for name, value in figures().items()}


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for mean, now in zip(average.buffers(), model.buffers(), strict=True):
        mean.copy_(now)


def save_weights(model: nn.Module, path: Path, *, half: bool = False) -> Path:
    """Write the weights to ``path`` with the suffix ``.safetensors``, if wanted in half precision."""
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if half:
        weights = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    return write_atomically(path.with_suffix(".safetensors"), lambda temporary: save_file(weights, temporary))


def save_half(model: nn.Module, path: Path) -> Path:
    """Write the weights in half precision, as every network ships."""
    return save_weights(model, path, half=True)
