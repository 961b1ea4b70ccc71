"""The two networks whose latents become landscapes: one for images, one for embeddings."""

from typing import Any

import torch
from torch import Tensor, nn

from vislens_interp.validation import check_word


class BottleneckCVAE(nn.Module):
    """Convolutional VAE from image to image through one bottleneck.

    Args:
        latent_dim, image_size: Dimensions of the latent; side of the images in pixels, a multiple of 4.
        width: Channels of the first layer; 16 in the paper, doubled at each of two strides.

    Source: App. B.2.1. ``fc_bn_mu`` and ``fc_bn_logvar`` are the linear layers "FC_bn" of its list.
    """

    def __init__(self, latent_dim: int = 192, image_size: int = 32, width: int = 16) -> None:
        super().__init__()
        if image_size % 4:
            raise ValueError(f"image_size={image_size} must be a multiple of 4: two layers halve it.")
        self.config = {"latent_dim": latent_dim, "image_size": image_size, "width": width}
        self.latent_dim = latent_dim
        self.shape = (3, image_size, image_size)
        side = image_size // 4
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        features = 4 * width * side * side
        self.fc_mu = nn.Linear(features, latent_dim)
        self.fc_logvar = nn.Linear(features, latent_dim)
        self.fc_bn_mu = nn.Linear(latent_dim, latent_dim)
        self.fc_bn_logvar = nn.Linear(latent_dim, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, features),
            nn.ReLU(),
            nn.Unflatten(1, (4 * width, side, side)),
            nn.ConvTranspose2d(4 * width, 2 * width, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, 3, 3, padding=1),
            nn.Sigmoid(),
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, 3, S, S) in [0, 1] to the posterior's mean and log variance, (N, latent_dim) each."""
        features = self.encoder(x)
        return self.fc_bn_mu(self.fc_mu(features)), self.fc_bn_logvar(self.fc_logvar(features))

    def decode(self, z: Tensor) -> Tensor:
        """Latents (N, latent_dim) to images (N, 3, S, S) in [0, 1]."""
        return self.decoder(z)

    def change_basis(self, columns: Tensor, centre: Tensor, variance: Tensor) -> None:
        """Replace the latent z by z' with z = columns @ z' + centre, in place; what is decoded stays the same.

        Args:
            columns, centre, variance: (D, D), invertible; (D,); (D,) typical posterior variance of z.
        """
        decode, mean, log_variance = self.decoder[0], self.fc_bn_mu, self.fc_bn_logvar
        assert isinstance(decode, nn.Linear)
        parameters = mean.weight, mean.bias, log_variance.weight, log_variance.bias
        _change_basis(parameters, decode, columns, centre, variance)


class EmbeddingVAE(nn.Module):
    """VAE from embedding to embedding, one linear layer each way.

    Args:
        dim, latent_dim: Dimensions of the embedding and of the latent; None for ``dim``, as in the paper.

    Source: App. B.2.1 (1024 → 2048, half of it log variance; 1024 → 1024).
    """

    def __init__(self, dim: int, latent_dim: int | None = None) -> None:
        super().__init__()
        self.latent_dim = dim if latent_dim is None else latent_dim
        self.config = {"dim": dim, "latent_dim": self.latent_dim}
        self.shape = (dim,)
        self.fc_encode = nn.Linear(dim, 2 * self.latent_dim)
        self.fc_decode = nn.Linear(self.latent_dim, dim)

    @classmethod
    def principal(cls, mean: Tensor, covariance: Tensor, latent_dim: int, noise: float) -> "EmbeddingVAE":
        """The best such VAE under N(0, 1) for Gaussian embeddings, in closed form.

        Args:
            mean, covariance: (dim,) and (dim, dim), of the embeddings.
            latent_dim: Dimensions of the latent, from 1 to dim: the principal components of the largest variances.
            noise: Variance in each direction that is taken for noise, above 0; w_kld / (2 · w_recon) of Eq. 4.
                Components below it are left out of the decoder.

        Source: Lucas et al. 2019, Don't Blame the ELBO, Sec. 4 (the optimum is that of probabilistic PCA).
        """
        if not 1 <= latent_dim <= len(mean):
            raise ValueError(f"latent_dim={latent_dim} must lie from 1 to {len(mean)}, the dimensions of an embedding.")
        if noise <= 0:
            raise ValueError(f"noise={noise} must be greater than 0: a variance in each direction.")
        with torch.random.fork_rng(devices=[]):
            vae = cls(len(mean), latent_dim)
        variances, directions = torch.linalg.eigh(covariance.double().cpu())
        variances, directions = variances.flip(0)[:latent_dim].clamp_min(0), directions.flip(1)[:, :latent_dim]
        # The largest entry of each direction is positive, which a solver leaves open.
        largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
        directions = directions * largest.sign()
        length = (variances - noise).clamp_min(0).sqrt()
        read = (length / (length**2 + noise))[:, None] * directions.T
        spread = (noise / (length**2 + noise)).log()
        centre = mean.double().cpu()
        with torch.no_grad():
            vae.fc_encode.weight.copy_(torch.cat([read, torch.zeros_like(read)]))
            vae.fc_encode.bias.copy_(torch.cat([-read @ centre, spread]))
            vae.fc_decode.weight.copy_(directions * length)
            vae.fc_decode.bias.copy_(centre)
        return vae

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (N, dim) to the posterior's mean and log variance, (N, latent_dim) each."""
        mean, log_variance = self.fc_encode(x).chunk(2, dim=-1)
        return mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """Latents (N, latent_dim) to embeddings (N, dim)."""
        return self.fc_decode(z)

    def change_basis(self, columns: Tensor, centre: Tensor, variance: Tensor) -> None:
        """As :meth:`BottleneckCVAE.change_basis`."""
        size, weight, bias = self.latent_dim, self.fc_encode.weight.data, self.fc_encode.bias.data
        parameters = weight[:size], bias[:size], weight[size:], bias[size:]  # views of the one layer for both
        _change_basis(parameters, self.fc_decode, columns, centre, variance)


def _change_basis(
    parameters: tuple[Tensor, Tensor, Tensor, Tensor],
    decode: nn.Linear,
    columns: Tensor,
    centre: Tensor,
    variance: Tensor,
) -> None:
    """In place; ``parameters`` are weight and bias of the mean, then of the log variance."""
    inverse = torch.linalg.inv(columns)
    with torch.no_grad():
        mean_weight, mean_bias, variance_weight, variance_bias = parameters
        mean_bias.copy_(inverse @ (mean_bias - centre))
        mean_weight.copy_(inverse @ mean_weight)
        decode.bias.add_(decode.weight @ centre)
        decode.weight.copy_(decode.weight @ columns)
        # A diagonal Gaussian does not stay diagonal. The nearest one that is has the new precision's diagonal, which
        # is never wider than the old: too wide a start would drown in noise what the decoder has learned.
        variance_weight.zero_()
        variance_bias.copy_(-(columns**2 / variance[:, None]).sum(0).log())


VAE = BottleneckCVAE | EmbeddingVAE
KINDS = {kind.__name__: kind for kind in (BottleneckCVAE, EmbeddingVAE)}


def sample_posterior(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """z = mean + sigma · noise."""
    return mean + (log_variance / 2).exp() * noise


def build(kind: str, config: dict[str, int]) -> VAE:
    """A VAE from its class name and configuration, with fresh weights from the global generator."""
    check_word("kind", kind, KINDS)
    return KINDS[kind](**config)


def state(vae: VAE) -> dict[str, Any]:
    """What :func:`restore` needs to make the same network again."""
    # Not a matter of values, but convolutions round differently in the other layout.
    channels_last = any(weight.ndim == 4 and not weight.is_contiguous() for weight in vae.parameters())
    return {
        "kind": type(vae).__name__,
        "config": vae.config,
        "channels_last": channels_last,
        "weights": vae.state_dict(),
    }


def restore(saved: dict[str, Any]) -> VAE:
    """The network that :func:`state` described."""
    with torch.random.fork_rng(devices=[]):
        vae = build(saved["kind"], saved["config"])
    vae.load_state_dict(saved["weights"])
    return vae.to(memory_format=torch.channels_last) if saved["channels_last"] else vae
