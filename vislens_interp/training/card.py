"""The model card that a recipe writes beside its weights: data and terms, steps, hardware, figures."""

import platform
from collections.abc import Mapping
from pathlib import Path

import torch

from vislens_interp.files import write_text
from vislens_interp.training.loop import Progress

NO_TERMS = "not stated; pass --terms"


def hardware(device: str) -> str:
    """What a run computes on, in words."""
    if device.startswith("cuda"):
        return f"one {torch.cuda.get_device_name(device)}"
    return f"{torch.get_num_threads()} threads of a CPU ({platform.machine()})"


def write_card(
    path: Path,
    *,
    about: str,
    data: str,
    terms: str | None,
    parameters: int,
    options: Mapping[str, object],
    progress: Progress,
    device: str,
) -> Path:
    """Write ``NAME.md``.

    Args:
        path: Where it goes; its stem is the title.
        about: What the network is, one sentence.
        terms: Under which terms the images of ``data`` are.
        parameters: How many it has; 0 of what is no network.
        progress: Steps, seconds and the history, whose last entry are the figures.
    """
    said = ", ".join(f"{name} {value}" for name, value in options.items())
    last = progress.history[-1] if progress.history else {}
    figures = [f"  - {name.replace('_', ' ')}: {value:.4g}" for name, value in last.items() if name != "step"]
    training = (
        f"- **Training**: `python -m vislens_interp.training {path.stem}` ({said}), {progress.step:,} steps in "
        f"{progress.seconds / 60:.1f} minutes on {hardware(device)}, torch {torch.__version__}."
    )
    lines = [
        f"# {path.stem}",
        "",
        about + (f" {parameters / 1e6:.2f} M parameters." if parameters else ""),
        "",
        f"- **Data**: {data}",
        f"- **Terms of the data**: {terms or NO_TERMS}.",
        training,
        "- **Figures** (held-out images; those called test at odd positions, which tuned nothing, the others at even):",
        *(figures or ["  - none"]),
        "",
    ]
    return write_text(path, "\n".join(lines))
