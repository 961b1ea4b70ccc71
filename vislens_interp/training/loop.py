"""The loop that every recipe shares: minutes, checkpoints that resume, a moving average of the weights."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vislens_interp.files import load_state, save_state, write_atomically
from vislens_interp.progress import tqdm


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
) -> tuple[nn.Module, Progress]:
    """Minimise ``loss`` with AdamW and one cosine cycle, and return the moving average of the weights.

    Args:
        model: Trained in place; a state in ``out`` replaces its weights first.
        loss: ``loss(step, generator)``: the loss of one batch drawn with ``generator``. Its randomness depends on the
            seed, the step and the device alone, so that a run resumed there sees the batches that an uninterrupted one
            would.
        out: Folder of ``checkpoint.safetensors``.
        steps: Optimiser steps of the whole run; a run stopped by ``minutes`` goes on when called again.
        minutes: Stop after so many minutes of this call.
        evaluate: Figures of the averaged model, every ``evaluate_every`` steps and at the end.

    Returns:
        The averaged model (on the same device, in evaluation mode) and where the run stands.
    """
    on_gpu = next(model.parameters()).is_cuda  # there a step is many small kernels; fused, they are one
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, fused=on_gpu)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    progress = Progress()
    checkpoint = out / "checkpoint.safetensors"
    if checkpoint.exists():
        state = load_state(checkpoint, "checkpoint")
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        progress = Progress(state["step"], state["seconds"], state["history"])

    def save() -> None:
        save_state(
            checkpoint,
            "checkpoint",
            {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": progress.step,
                "seconds": progress.seconds,
                "history": progress.history,
            },
        )

    started = saved = time.monotonic()
    before = progress.seconds
    bar = tqdm(total=steps, initial=progress.step, unit="step", mininterval=5)
    while progress.step < steps and (minutes is None or time.monotonic() - started < 60 * minutes):
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
        decay = min(ema_decay, (1 + progress.step) / (10 + progress.step))
        _follow(average, model, decay)
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


def add_test_figures(progress: Progress, steps: int, figures: Callable[[], dict[str, float]]) -> None:
    """Add ``test_...`` figures to a finished run's last entry; a run that is not finished does not look at them."""
    if progress.step >= steps and progress.history:
        progress.history[-1] |= {f"test_{name}": value for name, value in figures().items()}


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
    for mean, now in zip(average.buffers(), model.buffers(), strict=True):
        mean.copy_(now)


def save_half(model: nn.Module, path: Path) -> Path:
    """Write the weights in half precision, as every network ships."""
    weights = {
        name: (value.half() if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    return write_atomically(path.with_suffix(".safetensors"), lambda temporary: save_file(weights, temporary))
