"""The Fréchet Inception distance, under its name only where Inception's published weights are."""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
"""The file that torch-fidelity publishes, in which FIDs are comparable."""


def fid(images_a: Tensor, images_b: Tensor, *, weights: str | Path | None = None, batch_size: int = 32) -> float:
    """FID between two sets of images: Inception-v3's 2,048 pooled features, as torchmetrics computes them.

    Args:
        images_a, images_b: (N, 3, H, W) and (M, 3, H, W) in [0, 1], usually the real ones first. FID is biased upwards
            by few images: compare sets of equal size, thousands.
        weights: File of Inception's weights; None looks where torch.hub keeps it.

    Raises:
        FileNotFoundError, ImportError: The weights are not on this machine (nothing is downloaded), or torch-fidelity
            is not.
        ValueError: There are fewer than two images in a set, or pixels are out of range.

    Source: Heusel et al. 2017; the paper's FID@2k. In any other features it is a Fréchet distance, not the FID: see
    :func:`~vislens_interp.metrics.realism.frechet_distance`.
    """
    for name, images in (("images_a", images_a), ("images_b", images_b)):
        if images.ndim != 4 or images.shape[1] != 3 or len(images) < 2:
            raise ValueError(
                f"{name} has shape {tuple(images.shape)}; expected (N, 3, H, W) with at least two images. Give more."
            )
        if not ((images >= 0) & (images <= 1)).all():
            raise ValueError(f"{name} holds pixels outside of [0, 1]; expected RGB in that range. Clamp or rescale it.")
    path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS if weights is None else Path(weights)
    if not path.is_file():
        raise FileNotFoundError(
            f"weights={str(path)!r}: no such file; expected {WEIGHTS} of torch-fidelity's release, 92 MB, and nothing "
            "is downloaded here. Put it there, pass weights=, or call frechet_distance or kernel_distance on "
            "the features of a network that is here, under that name."
        )
    if find_spec("torch_fidelity") is None:
        raise ImportError(
            "FID needs Inception-v3 as torch-fidelity defines it, which is not installed. "
            "Run: pip install 'torchmetrics[image]'"
        )
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=2048, feature_extractor_weights_path=str(path))
    for images, real in ((images_a, True), (images_b, False)):
        for part in images.split(batch_size):
            metric.update((part * 255).round().to(torch.uint8), real=real)
    return float(metric.compute())
