"""A generator that cannot hallucinate: an edited embedding becomes the natural images that lie nearest to it."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vislens_interp.backends.base import Described, check_seed_count
from vislens_interp.backends.embedders import Embedder
from vislens_interp.config import Config
from vislens_interp.images import ImageFiles, check_images, check_shape, image_keys
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.math import unit_rows
from vislens_interp.preprocess import Preprocess
from vislens_interp.validation import check_shares, check_switches

FILES_AT_ONCE = 64
DEFAULTS = Config.of(
    fit={"epochs": 10, "lr": 1e-4, "w_kld": 0.2, "w_consistency": 0.0},
    prior={"block_dim": 1, "axis_scale_sd": 2.0, "gradients": False},
    # By angle: at α = 1 every picture would be at the same goal, and so the same; at 0.6 most have hardly turned.
    edit={"angle": 55.0, "interpolation": "lerp", "keep_norm": True, "residual": "fade", "top_activating_power": 3.0},
    strength=1.0,
    shuffles=2,
)
"""Chosen on recordings of one monkey's V4 neurons (benchmarks/v4_recorded/run.py, tune), reported on another's."""


@dataclass(frozen=True)
class Retrieved:
    """The gallery's images that lie nearest to embeddings.

    Args:
        rows: (N, k) positions in the gallery, the nearest first.
        cosine: (N, k) their cosine to the embedding.
    """

    rows: Tensor
    cosine: Tensor

    def responses(self, recorded: Tensor) -> Tensor:
        """What was recorded to the retrieved images, averaged over the k: no model has a part in it.

        Args:
            recorded: (M, K) responses to the gallery's images, NaN where there are none.

        Returns:
            (N, K); NaN where none of the k has a response.
        """
        if len(recorded) <= int(self.rows.max()) or recorded.ndim != 2:
            raise ValueError(
                f"recorded has shape {tuple(recorded.shape)}, but row {int(self.rows.max())} of the gallery was "
                "retrieved; expected (M, K), a row for each of its images."
            )
        return recorded[self.rows.to(recorded.device)].nanmean(1)


class RetrievalBackend(Described):
    """Images to embeddings by an embedder; embeddings to the nearest natural images of a gallery.

    What it shows is real, so that responses recorded to the gallery judge an edit without any model
    (:meth:`retrieve`). Nothing is refined: ``strength`` plays no part. There are no gradients.

    Args:
        embedder: Images to embeddings; a network's layer becomes one by :class:`NetworkEmbedder`.
        gallery: Natural images that edits may become: (M, 3, S, S) in [0, 1], or files. The fit should not have seen
            them.
        count: k, how many :meth:`retrieve` gives. Of the k, :meth:`decode` shows the one whose rank is the picture's
            noise seed mod k, so that several seeds show several.
        leave_out_own: A picture of the gallery that is edited is not among its own neighbours.
        reference: The backend's own reference images, which a lens without others is fitted on; or None.
        start_from: (n, D) embeddings whose Gaussian every fit starts from; None takes the reference images', or else
            the gallery's.
        latent_dim: Dimensions of the latent; None is the smaller of 512, the embedding's and n - 1.
        noise: What the start takes for noise in each direction, as a share of a direction's mean variance.
        defaults: Settings of a fit and an edit.

    Attributes:
        embeddings: (M, D) of the gallery.

    Raises:
        ValueError: The gallery is too small for ``count``, or its images are not square.

    Source: a first look at recordings of macaque V4 judged edits so.
    """

    name = "retrieval"
    differentiable = False

    def __init__(
        self,
        embedder: Embedder,
        gallery: Tensor | ImageFiles,
        *,
        count: int = 1,
        leave_out_own: bool = True,
        reference: Tensor | None = None,
        start_from: Tensor | None = None,
        latent_dim: int | None = None,
        noise: float = 0.1,
        defaults: Config = DEFAULTS,
    ) -> None:
        check_switches(leave_out_own=leave_out_own)
        if isinstance(gallery, Tensor):
            check_images(gallery, "gallery")
        if gallery.shape[2] != gallery.shape[3]:
            raise ValueError(f"gallery has shape {tuple(gallery.shape)}; expected square images, (M, 3, S, S).")
        if not 1 <= count < len(gallery):
            raise ValueError(
                f"count={count} for a gallery of {len(gallery)} images; expected from 1 to {len(gallery) - 1}, for an "
                "image is not its own neighbour. Give a larger gallery."
            )
        self.embedder, self.gallery, self.count = embedder, gallery, count
        self.size: int = gallery.shape[2]
        self.shape: tuple[int, ...] = (embedder.dim,)
        self.device = embedder.device
        self.defaults = defaults
        self._reference = None if reference is None else check_images(reference, "reference")
        self.embeddings = self.encode(gallery)
        self._unit = unit_rows(self.embeddings)
        self._places: dict[str, list[int]] = {}
        if leave_out_own:
            for row, key in enumerate(key for part in _parts(gallery) for key in image_keys(part)):
                self._places.setdefault(key, []).append(row)
        if start_from is None:
            start_from = self.embeddings if reference is None else self.encode(reference)
        start_from = start_from.to(self.embeddings)
        self._mean, self._covariance = start_from.mean(0), start_from.T.cov(correction=0)
        self._latent_dim = min(512, embedder.dim, len(start_from) - 1) if latent_dim is None else latent_dim
        self._noise = noise

    @torch.no_grad()
    def encode(self, images: Tensor | ImageFiles) -> Tensor:
        """Images (N, 3, H, W), in memory or in files, to embeddings (N, D)."""
        return torch.cat([self.embedder(part) for part in _parts(images)]).to(self.device)

    def retrieve(self, x: Tensor, *, inputs: Tensor | None = None, count: int | None = None) -> Retrieved:
        """The gallery's images nearest to embeddings, by cosine.

        Args:
            x: (N, D).
            inputs: (N, 3, S, S) the images that x was made from; those that are in the gallery are left out of their
                own neighbours.
            count: How many; None is the backend's.
        """
        count = self.count if count is None else count
        cosine = unit_rows(x.to(self._unit)) @ self._unit.T
        if inputs is not None and self._places:
            for row, key in enumerate(image_keys(inputs)):
                cosine[row, self._places.get(key, [])] = -torch.inf
        found = cosine.topk(count, dim=1)
        return Retrieved(found.indices.cpu(), found.values.cpu())

    def render(self, x: Tensor) -> Tensor:
        """The nearest image to each of (N, D) embeddings: (N, 3, S, S)."""
        return self.gallery[self.retrieve(x.detach(), count=1).rows[:, 0]].to(self.device)

    def decode(self, x: Tensor, *, init_image: Tensor | None, strength: float, seeds: list[int]) -> Tensor:
        """Natural images (N, 3, S, S), of each embedding's k nearest the one at its seed mod k."""
        meaning = ": 0 keeps the image, 1 ignores it; retrieval refines nothing and ignores it always."
        check_shares(meaning, strength=strength)
        check_seed_count(seeds, len(x))
        found = self.retrieve(x, inputs=init_image)
        ranks = torch.tensor([seed % self.count for seed in seeds])
        return self.gallery[found.rows[torch.arange(len(x)), ranks]].to(self.device)

    def reference_images(self) -> Tensor | None:
        """The reference images that it was given, or None."""
        return self._reference

    def vae(self) -> EmbeddingVAE:
        """The best VAE under N(0, 1) for embeddings like those that it was told to start from."""
        noise = self._noise * self._covariance.diagonal().mean().item()
        vae = EmbeddingVAE.principal(self._mean.cpu(), self._covariance.cpu(), self._latent_dim, noise)
        return vae.to(self.device)

    def feature_extractor(self) -> None:
        """None: there is no unrelated network here."""
        return


class NetworkEmbedder(nn.Module):
    """Any network's features as an embedder; standardised, once :meth:`standardise_on` has seen images.

    Args:
        network: Preprocessed images to features (N, D), or to maps (N, D, H, W), of which the mean over positions is
            taken; frozen here, in evaluation mode.
        preprocess: What it wants done to pixels, with a size.
        batch_size: Images at a time.

    Standardised, every dimension has mean 0 and variance 1 over those images, and a cosine is a centred one.

    >>> embedder = NetworkEmbedder(nn.Conv2d(3, 5, 3), Preprocess(8, [0.5], [0.5]))
    >>> embedder(torch.rand(2, 3, 16, 16)).shape
    torch.Size([2, 5])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocess: Preprocess, *, batch_size: int = 64) -> None:
        super().__init__()
        if preprocess.size is None:
            raise ValueError("preprocess has no size; expected the side in pixels that the network takes.")
        self.network = network.eval().requires_grad_(False)
        self.preprocess, self.size, self.batch_size = preprocess, preprocess.size, batch_size
        with torch.no_grad():
            self.dim = int(self._pooled(torch.zeros(1, 3, self.size, self.size, device=self.device)).shape[1])
        self.register_buffer("mean", torch.zeros(self.dim, device=self.device))
        self.register_buffer("std", torch.ones(self.dim, device=self.device))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        first = next(self.network.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    def standardise_on(self, images: Tensor) -> "NetworkEmbedder":
        """Make every dimension have mean 0 and variance 1 over images (N, 3, H, W); one that never varies is 0."""
        self.mean, self.std = torch.zeros_like(self.mean), torch.ones_like(self.std)
        with torch.no_grad():
            x = self(images)
        self.mean, spread = x.mean(0), x.std(0)
        self.std = torch.where(spread > 1e-6 * spread.max(), spread, torch.inf)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] to embeddings (N, dim), float32; gradients flow to the images."""
        check_shape(images)
        parts = [self._pooled(self.preprocess(part.to(self.device))) for part in images.split(self.batch_size)]
        return (torch.cat(parts) - self.mean) / self.std

    def _pooled(self, images: Tensor) -> Tensor:
        features = self.network(images)
        if not isinstance(features, Tensor) or features.ndim not in (2, 4):
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(
                f"network gives {shape}; expected features (N, D) or maps (N, D, H, W). Wrap it so that it does."
            )
        return features.float() if features.ndim == 2 else features.float().mean((2, 3))


def _parts(images: Tensor | ImageFiles) -> Iterable[Tensor]:
    return images.split(FILES_AT_ONCE) if isinstance(images, ImageFiles) else (images,)
