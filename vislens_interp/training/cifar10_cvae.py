"""Recipe: the standard CVAE of CIFAR-10 images, the warm start of every pixel landscape and the paper's baseline."""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from vislens_interp import zoo
from vislens_interp.landscape.prior import kl_divergence
from vislens_interp.landscape.vae import BottleneckCVAE, sample_posterior
from vislens_interp.precision import mixed_precision
from vislens_interp.training.cifar10_convnet import normalise, split
from vislens_interp.training.data import augment, evenly, pixels, read_images
from vislens_interp.training.loop import Progress, train
from vislens_interp.zoo.convnet import ConvNet


def run(
    data: Path,
    out: Path,
    *,
    device: str = "cpu",
    seed: int = 0,
    epochs: int = 20,
    batch_size: int = 128,
    lr: float = 2e-3,
    w_kld: float = 0.1,
    w_consistency: float = 0.5,
    minutes: float | None = None,
    steps: int | None = None,
) -> tuple[nn.Module, Progress]:
    """Train :class:`BottleneckCVAE` under N(0, 1) with a pixel loss and a feature loss.

    Args:
        data: Folder with ``train.zip`` and ``test.zip`` (or folders ``train``, ``test``), one folder a class.
        out: Folder for the checkpoint.
        w_kld: Weight of the KLD beside the squared error summed over pixels.
        w_consistency: Weight of the squared error in features of the zoo's ConvNet; 0 is the paper's standard VAE.
            Compared are, at equal weight, its ``conv3`` maps (what is where), their means (how much of it: what a
            pooled unit answers) and ``fc1`` before the ReLU.

    Returns:
        The averaged network and its history: shares of the variance of pixels and features left unexplained.
    """
    torch.manual_seed(seed)
    images, _, _ = read_images(split(data, "train"), 32)
    held_out, _, _ = read_images(split(data, "test"), 32)
    images, held_out = images.to(device), held_out[::2].to(device)
    see: ConvNet | None = None
    if w_consistency > 0:
        see = cast(ConvNet, zoo.load("cifar10_convnet").to(device).requires_grad_(False))

    def features(batch: Tensor) -> list[Tensor]:
        if see is None:
            return []
        maps = see.maps(normalise(batch))
        return [maps.flatten(1), maps.mean((2, 3)), see.semantics(maps)]

    with torch.no_grad():
        probe = pixels(evenly(images, 2000))
        variance_pixels = probe.flatten(1).var(0).sum()
        variances = [part.float().var(0).sum() for part in features(probe)]
    model = BottleneckCVAE().to(device).to(memory_format=torch.channels_last)
    zero, one = torch.zeros(1, device=device), torch.ones(1, device=device)

    def errors(network: BottleneckCVAE, batch: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        batch = batch.contiguous(memory_format=torch.channels_last)
        with mixed_precision(batch.device):
            mean, log_variance = network.encode(batch)
            mean, log_variance = mean.float(), log_variance.float()
            decoded = network.decode(mean if noise is None else sample_posterior(mean, log_variance, noise)).float()
            recon = ((decoded - batch) ** 2).flatten(1).sum(1).mean()
            pairs = zip(features(decoded), features(batch), variances, strict=True)
            seen = sum(((a.float() - b.float()) ** 2).sum(1).mean() / variance for a, b, variance in pairs)
            seen = torch.as_tensor(seen).to(recon) / max(1, len(variances))
        return recon, kl_divergence(mean, log_variance, zero, one).mean(), seen

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(0, len(images), (batch_size,), generator=generator).to(images.device)
        noise = torch.randn(batch_size, model.latent_dim, generator=generator).to(device)
        batch = pixels(augment(images[rows], generator, padding=0))
        recon, kld, seen = errors(model, batch, noise)
        return recon + w_kld * kld + w_consistency * variance_pixels * seen

    @torch.no_grad()
    def evaluate(average: nn.Module) -> dict[str, float]:
        network = cast(BottleneckCVAE, average)
        rows = [errors(network, pixels(batch), None) for batch in held_out.split(500)]
        recon, kld, seen = (torch.stack(column).mean() for column in zip(*rows, strict=True))
        return {
            "pixel_error": (recon / variance_pixels).item(),
            "feature_error": seen.item(),
            "kld": kld.item(),
        }

    per_epoch = max(1, len(images) // batch_size)
    return train(
        model,
        loss,
        out=out,
        steps=steps or epochs * per_epoch,
        lr=lr,
        seed=seed,
        minutes=minutes,
        data=(images,),
        settings={"batch_size": batch_size, "w_kld": w_kld, "w_consistency": w_consistency},
        evaluate=evaluate,
        evaluate_every=2 * per_epoch,
    )
