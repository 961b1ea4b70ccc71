"""dreamlens in its own environment: ``run_dreamlens.py FILE``, as ``job.py`` says.

``method`` is ``maximize``, ``maco`` or ``feature_accentuation``; settings are those of the tool's own configuration.
``maco`` takes the spectrum from ``DREAMLENS_CACHE``, and downloads it where it is not there.
"""

import os
from pathlib import Path
from typing import Any

import job as peers_job
from torch import Tensor, nn

BOX = 0.9  # side of MACO's crops, as a share of the picture's: it is the whole picture that is judged, not a twentieth


def paint(network: nn.Module, job: dict[str, Any]) -> Tensor:
    os.environ.setdefault("DREAMLENS_CACHE", str(Path.cwd()))
    import dreamlens
    from dreamlens.optimization import FeatureAccentuationConfig, MacoConfig, RenderConfig

    tool = dreamlens.FeatureVisualizer(network, normalize=True, device="cpu")
    target = dreamlens.FeatureTarget.for_channel(job["layer"], job["unit"])
    settings: dict[str, Any] = dict(job["settings"])
    if job["method"] == "maximize":
        found = tool.visualize(target, method="maximize", config=RenderConfig(**settings))
    elif job["method"] == "maco":
        found = tool.visualize(target, method="maco", config=MacoConfig(box_size=BOX, **settings))
    else:
        found = tool.visualize(
            target,
            method="feature_accentuation",
            image=peers_job.read_picture(job["reference"]),
            regularization_layer=job["layer"],
            config=FeatureAccentuationConfig(**settings),
        )
    return found.as_chw(device="cpu").detach()


if __name__ == "__main__":
    peers_job.main(paint, "dreamlens")
