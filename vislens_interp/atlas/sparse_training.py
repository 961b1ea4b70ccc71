"""A TopK dictionary of a layer, trained on its own vectors."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vislens_interp.atlas.sparse import SparseFeatures, largest
from vislens_interp.images import ImageSource
from vislens_interp.progress import tqdm
from vislens_interp.random_state import check_seed
from vislens_interp.reference import ReferenceSet
from vislens_interp.targets.layout import channel_axis
from vislens_interp.targets.target import LayerTarget
from vislens_interp.validation import check_positive

HELD_OUT = 10
"""Every tenth image is not learned from: it says how much of a layer the dictionary explains."""
DEAD_AFTER, DEAD_WEIGHT = 256, 1 / 32
"""Steps after which a latent that was never among the k largest counts as dead, and the weight of its loss."""


def train_sparse_features(
    model: nn.Module,
    layer: str | nn.Module | None,
    images: ImageSource | ReferenceSet,
    *,
    latents: int = 2048,
    k: int = 32,
    steps: int = 2000,
    batch_size: int = 1024,
    positions: int = 32,
    lr: float = 5e-4,
    size: int = 224,
    seed: int = 0,
    progress: bool = False,
    **reading: Any,
) -> SparseFeatures:
    """Train a sparse autoencoder on a layer's vectors, one a position of its map or a token.

    Vectors lose their mean and are divided by their root mean square. The loss is the share of their variance that is
    not explained, and for latents that have died that of what the others leave, with a small weight. Rows of the
    decoder keep length 1.

    Args:
        model: The network, left as it was.
        layer: Whose vectors; see :class:`~vislens_interp.targets.LayerTarget`.
        images: Folder, files, tensor (N, 3, H, W) in [0, 1] or reference set; every tenth image is held out.
        latents: Size of the dictionary, usually several times the layer's channels.
        k: Latents that are not 0 for one vector.
        steps: Steps of Adam; ``lr`` their size.
        batch_size: Vectors in a step.
        positions: Positions of an image that are taken, at random.
        size: Side in pixels to which images are brought before the model's own preprocessing.
        seed: Of the start, the positions and the batches.
        progress: Show a bar.
        reading: For ``LayerTarget``: ``preprocess=``, ``layout=`` and so on.

    Returns:
        The dictionary; ``about`` says the share of variance that it explains on held-out images, and how many latents
        were not active on any vector that was learned from.

    Raises:
        ValueError: A number is out of its range, or there are too few images.

    Source: Gao et al. 2024 (arXiv 2406.04093), TopK with an auxiliary loss of dead latents.

    >>> net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
    >>> from vislens_interp import Preprocess
    >>> images = torch.rand(20, 3, 16, 16)
    >>> options = {"preprocess": Preprocess(16, [0.5], [0.5]), "size": 16}
    >>> features = train_sparse_features(net, "1", images, latents=12, k=2, steps=5, batch_size=64, **options)
    >>> len(features), sorted(features.about)
    (12, ['dead', 'explained_variance', 'images', 'seed', 'steps'])
    """
    check_positive(latents=latents, k=k, steps=steps, batch_size=batch_size, positions=positions, lr=lr)
    if k > latents:
        raise ValueError(f"k={k} of latents={latents}; expected at most as many. Choose a smaller k.")
    generator = torch.Generator().manual_seed(check_seed(seed))
    reference = ReferenceSet.open(images, size, stream=True)
    if len(reference) < HELD_OUT:
        raise ValueError(f"images holds {len(reference)}; expected at least {HELD_OUT}, to hold some out. Pass more.")
    rows, owners = _vectors(LayerTarget(model, layer, 0, **reading), reference, positions, generator, progress)
    held_out = owners % HELD_OUT == 0
    centre = rows[~held_out].mean(0)
    scale = (rows[~held_out] - centre).square().mean().sqrt().clamp_min(1e-12)
    x = (rows - centre) / scale
    encoder, bias, decoder = _train(x[~held_out], latents, k, steps, batch_size, lr, generator, progress)
    features = SparseFeatures(
        encoder / scale, bias, kind="topk", k=k, centre=centre, decoder=decoder * scale, about={"seed": seed}
    )
    left = rows[held_out] - features.decode(features.encode(rows[held_out]))
    active = torch.zeros(latents, dtype=torch.bool)
    for part in rows[~held_out].split(batch_size):
        active |= (features.encode(part) > 0).any(0)
    features.about |= {
        "images": len(reference),
        "steps": steps,
        "explained_variance": round(1 - (left.square().sum() / (rows[held_out] - centre).square().sum()).item(), 4),
        "dead": int((~active).sum()),
    }
    return features


@torch.no_grad()
def _vectors(
    target: LayerTarget, reference: ReferenceSet, positions: int, generator: torch.Generator, progress: bool
) -> tuple[Tensor, Tensor]:
    """Vectors (M, D) of a layer at random positions, and the number of the image (M,) that each is of."""
    rows: list[Tensor] = []
    owners: list[Tensor] = []
    with tqdm(total=len(reference), desc="vectors", unit="image", disable=not progress) as bar:
        first = 0
        for part in reference.parts():
            maps = target.features(part).movedim(channel_axis(target.layout or "NC"), -1).float().cpu()
            flat = maps.reshape(len(part), -1, maps.shape[-1])
            count = min(positions, flat.shape[1])
            chosen = torch.rand(flat.shape[:2], generator=generator).argsort(1)[:, :count]
            rows.append(flat.gather(1, chosen[..., None].expand(-1, -1, flat.shape[-1])).flatten(0, 1))
            owners.append(torch.arange(first, first + len(part)).repeat_interleave(count))
            first += len(part)
            bar.update(len(part))
    return torch.cat(rows), torch.cat(owners)


def _train(
    x: Tensor, latents: int, k: int, steps: int, batch_size: int, lr: float, generator: torch.Generator, progress: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Encoder (D, M), bias (M,) and decoder (M, D) for vectors (N, D) of mean 0 and mean square 1."""
    decoder = F.normalize(torch.randn(latents, x.shape[1], generator=generator), dim=1).requires_grad_(True)
    encoder = decoder.detach().T.clone().requires_grad_(True)
    bias = torch.zeros(latents, requires_grad=True)
    optimizer = torch.optim.Adam([encoder, bias, decoder], lr)
    idle = torch.zeros(latents, dtype=torch.long)  # steps since a latent was among the k largest
    with torch.enable_grad(), tqdm(total=steps, desc="dictionary", unit="step", disable=not progress) as bar:
        for _ in range(steps):
            batch = x[torch.randint(len(x), (min(batch_size, len(x)),), generator=generator)]
            before = batch @ encoder + bias
            codes = largest(before, k)
            left = batch - codes @ decoder
            loss = left.square().mean()
            dead = idle > DEAD_AFTER
            if int(dead.sum()) >= k:
                again = largest(before.masked_fill(~dead, -torch.inf), k) @ decoder
                loss = loss + DEAD_WEIGHT * (left.detach() - again).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                decoder /= decoder.norm(dim=1, keepdim=True)
            idle = torch.where((codes > 0).any(0), 0, idle + 1)
            bar.update()
    return encoder.detach(), bias.detach(), decoder.detach()
