"""Horama in its own environment: ``run_horama.py FILE``, as ``job.py`` says.

``method`` is ``fourier``, ``maco`` or ``accentuation``; settings are arguments of the tool's function. It paints what
the network takes, between -2.5 and 2.5; the picture is that in colours again, cut off where no pixel can be. ``maco``
reads ``spectrum_decorrelated.npy`` in the working folder, and downloads it where it is not there.
"""

from typing import Any

import job as peers_job
import torch
from torch import Tensor, nn


def paint(network: nn.Module, job: dict[str, Any]) -> Tensor:
    import horama

    mean, std = (torch.tensor(values)[:, None, None] for values in (peers_job.MEAN, peers_job.STD))
    layer = peers_job.to_layer(network, job["layer"])

    def objective(images: Tensor) -> Tensor:
        return layer(images)[:, job["unit"]].mean()

    draw, given = getattr(horama, job["method"]), dict(job["settings"])
    given |= {"box_size": tuple(given["box_size"])} if "box_size" in given else {}
    if job["method"] == "accentuation":
        given["image_seed"] = (peers_job.read_picture(job["reference"]) - mean) / std
    picture, _ = draw(objective, device="cpu", **given)  # its transparency is not judged
    return picture.detach() * std + mean


if __name__ == "__main__":
    peers_job.main(paint, "horama", "einops")
