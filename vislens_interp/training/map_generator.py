"""Recipe: the generator that draws what the kept feature maps do not hold, at all strengths at once."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vislens_interp import zoo
from vislens_interp.backends.depth_embedder import DepthEmbedder
from vislens_interp.backends.embedded import INPUT, NETWORK, STATISTICS
from vislens_interp.backends.pyramid_decoder import PyramidDecoder
from vislens_interp.files import fingerprint, write_text
from vislens_interp.training.data import TEST, TUNING, augment, evenly, pixels, read_splits
from vislens_interp.training.loop import Progress, add_test_figures, train
from vislens_interp.zoo.map_generator import MapGenerator

ABOUT = (
    "Embeddings of all depths, and what a closed-form decoder draws of the kept feature maps, to 64-pixel pictures: a "
    "transformer over 8 x 8 patches, trained with levels of maps left out at random, in pixels and in the embedder's "
    "maps."
)
STATISTICS64, DECODER64 = "statistics64.safetensors", "decoder64.safetensors"
FITTED_ON = 1000
"""Training images that the embedder's statistics and the closed-form decoder are taken from."""


def run(
    data: Path,
    out: Path,
    *,
    device: str = "cpu",
    seed: int = 0,
    steps: int = 40_000,
    batch_size: int = 32,
    lr: float = 5e-4,
    ema_decay: float = 0.999,
    size: int = 64,
    w_pixels: float = 0.3,
    w_maps: float = 1.0,
    w_embedding: float = 0.5,
    evaluate_every: int = 1000,
    minutes: float | None = None,
) -> tuple[nn.Module, Progress]:
    """Train the generator; the embedder is EfficientNet-Lite0 as it ships.

    It draws from embeddings as the backend reads them, at 128 px; what it draws is compared at its own size. Half of a
    batch has no map at all, its other half a random number of levels left out. The loss compares pictures with the
    images that they should be: in pixels, in the maps of all layers, and in the embedding.

    Args:
        data: What :func:`~vislens_interp.training.data.read_splits` reads.
        out: Folder of the checkpoint; ``statistics64.safetensors`` (of the comparison) and ``decoder64.safetensors``
            are put beside it.
        size: Side of the pictures in pixels.
        w_pixels: Weight of the mean absolute error of pixels; ``w_maps`` and ``w_embedding`` likewise.

    Returns:
        The averaged network and the history.
    """
    torch.manual_seed(seed)
    splits = read_splits(data, size)
    some = pixels(evenly(splits.train, FITTED_ON))
    embedder, decoder = _embedder_and_decoder(some, size, out, device)
    levels = decoder.levels
    reader = DepthEmbedder(zoo.load(NETWORK), size=INPUT).load_statistics(zoo.weights(STATISTICS)).to(device)
    model = MapGenerator(embedder.dim, levels=levels).to(device)
    with torch.no_grad():
        spreads = [item.std() for item in embedder.maps(some[:64], size=size)]

    def see(images: Tensor) -> tuple[list[Tensor], Tensor]:
        maps = embedder.maps(images.to(device), size=size)
        return maps, embedder.from_maps(maps)

    def draw(kept: Sequence[Tensor], dropped: Tensor) -> Tensor:
        drawn = torch.zeros(len(dropped), 3, size, size, device=device)
        for count in dropped.unique().tolist():
            rows = dropped == count
            if count < levels:
                drawn[rows] = decoder([item[rows] for item in kept], size, dropped=count).clamp(0, 1)
        return drawn

    def error(network: nn.Module, images: Tensor, dropped: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            maps, x = see(images)
            drawing = draw(decoder.maps(images), dropped)
            given = reader(images.to(device))
        made = network(given, drawing, dropped)
        seen, again = see(made)
        in_maps = torch.stack([(a - b).abs().mean() / s for a, b, s in zip(seen, maps, spreads, strict=True)]).mean()
        in_embedding = (again - x).square().mean()
        in_pixels = (made - images.to(device)).abs().mean()
        return w_pixels * in_pixels + w_maps * in_maps + w_embedding * in_embedding, in_embedding

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(0, len(splits.train), (batch_size,), generator=generator)
        images = pixels(augment(splits.train[rows], generator, padding=0))
        dropped = torch.randint(1, levels + 1, (batch_size,), generator=generator)
        dropped[: batch_size // 2] = levels
        return error(model, images, dropped.to(device))[0]

    @torch.no_grad()
    def figures(network: nn.Module, held_out: slice) -> dict[str, float]:
        images = pixels(splits.validation[held_out][:500])
        found: dict[str, float] = {}
        for dropped in (1, levels):
            parts = [error(network, part, torch.full((len(part),), dropped)) for part in images.split(100)]
            found[f"loss_dropped_{dropped}"] = torch.stack([part[0] for part in parts]).mean().item()
            found[f"embedding_error_dropped_{dropped}"] = torch.stack([part[1] for part in parts]).mean().item()
        return found

    average, progress = train(
        model,
        loss,
        out=out,
        steps=steps,
        lr=lr,
        seed=seed,
        minutes=minutes,
        data=(splits.train,),
        settings={"batch_size": batch_size, "size": size, "weights": [w_pixels, w_maps, w_embedding]},
        warmup=min(500, max(1, steps // 10)),
        ema_decay=ema_decay,
        evaluate=lambda average: figures(average, TUNING),
        evaluate_every=evaluate_every,
    )
    add_test_figures(progress, steps, lambda: figures(average, TEST))
    progress.data = splits.describe()
    return average, progress


def _embedder_and_decoder(images: Tensor, size: int, out: Path, device: str) -> tuple[DepthEmbedder, PyramidDecoder]:
    """Those fitted on images (N, 3, size, size), or read from ``out`` where an earlier run fitted them on the same."""
    embedder = DepthEmbedder(zoo.load(NETWORK), size=size).to(device)
    statistics, weights, origin = (out / f"{name}" for name in (STATISTICS64, DECODER64, "decoder64.txt"))
    key = fingerprint({"images": images})
    ours = origin.read_text(encoding="utf-8").strip() == key if origin.is_file() else True  # 0.1.0 did not say
    if statistics.is_file() and weights.is_file() and ours:
        embedder.load_statistics(statistics)
        return embedder, PyramidDecoder.load(weights, embedder)
    weights.unlink(missing_ok=True)  # so that a kill leaves none of other images under this key
    write_text(origin, key)
    embedder.standardise(images).save_statistics(statistics)
    decoder = PyramidDecoder(embedder).fit(images, batch_size=50)
    decoder.save(weights)
    return embedder, decoder


def save(model: MapGenerator, path: Path) -> Path:
    """Write ``map_generator.safetensors``."""
    return model.save(path.with_suffix(".safetensors"))
