"""FID, by the one network that the name stands for."""

from pathlib import Path

import torch
from torch import Tensor

from vislens_interp.images import check_images

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
"""Inception-v3 as torch-fidelity publishes it: TensorFlow's weights of 2015, which FID means."""
LEAST = 2


def fid(real: Tensor, generated: Tensor, *, weights: str | Path | None = None, batch_size: int = 32) -> float:
    """Fréchet Inception distance between real and generated pictures.

    Args:
        real: (N, 3, H, W) in [0, 1].
        generated: (M, 3, H, W) in [0, 1].
        weights: File of Inception-v3's weights; None looks for it in torch hub's folder of checkpoints.
        batch_size: Pictures in a pass.

    Returns:
        The distance. Fewer than 2,048 pictures make it large whatever they show; compare equal numbers only.

    Raises:
        FileNotFoundError: The weights are not on this machine. Nothing is downloaded, and no other network's distance
            is given this name: see :func:`~vislens_interp.metrics.realism.frechet_distance`.
        ImportError: torch-fidelity, which holds the network, is not installed.
        ValueError: A set holds fewer than two pictures, or no pictures at all.

    Source: Heusel et al. 2017; torchmetrics' ``FrechetInceptionDistance``, pool-3 features (2,048).
    """
    for name, images in (("real", real), ("generated", generated)):
        check_images(images, name)
        if len(images) < LEAST:
            raise ValueError(f"{name} holds {len(images)} images; expected at least {LEAST}. Give thousands.")
    file = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS if weights is None else Path(weights)
    if not file.is_file():
        raise FileNotFoundError(
            f"weights={str(file)!r}: no such file; FID needs Inception-v3's own weights. Put {WEIGHTS} of "
            "github.com/toshas/torch-fidelity there, or use frechet_distance over another network, under its own name."
        )
    try:
        import torch_fidelity  # noqa: F401  # pyright: ignore[reportMissingImports] (torchmetrics asks for it late)
    except ImportError as error:
        raise ImportError(
            "torch-fidelity is not installed; FID's network is in there. Run pip install torch-fidelity, or use "
            "frechet_distance over another network."
        ) from error
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=2048, normalize=True, feature_extractor_weights_path=str(file))
    for images, is_real in ((real, True), (generated, False)):
        for part in images.split(batch_size):
            metric.update(part, real=is_real)
    return metric.compute().item()
