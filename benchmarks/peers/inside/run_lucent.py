"""torch-lucent in its own environment: ``run_lucent.py FILE``, as ``job.py`` says.

Settings are ``image_size`` (lucent's default: 128), ``steps`` (512) and ``fixed_image_size``, what the network is shown
(default: 224 for smaller pictures, else the picture with its padding). All else is as released.
"""

from typing import Any

import job as peers_job
import torch
from torch import Tensor, nn


def paint(network: nn.Module, job: dict[str, Any]) -> Tensor:
    from lucent.optvis import objectives, param, render

    settings = job["settings"]
    images = render.render_vis(
        network,
        objectives.channel(job["layer"].replace(".", "_"), job["unit"]),
        lambda: param.image(settings["image_size"]),
        thresholds=(settings["steps"],),
        fixed_image_size=settings.get("fixed_image_size"),
        show_image=False,
        progress=False,
    )
    return torch.from_numpy(images[-1][0]).permute(2, 0, 1)


if __name__ == "__main__":
    peers_job.main(paint, "torch-lucent", "kornia")
