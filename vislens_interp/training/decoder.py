"""Recipe: the embedded backend for photographs of one's own domain, in closed form: statistics and a decoder."""

from pathlib import Path

import torch

from vislens_interp import zoo
from vislens_interp.backends.depth_embedder import DepthEmbedder
from vislens_interp.backends.embedded import DECODER, INPUT, NETWORK, STATISTICS
from vislens_interp.backends.pyramid_decoder import PyramidDecoder
from vislens_interp.training.data import TEST, TUNING, evenly, pixels, read_splits
from vislens_interp.training.loop import Progress

ABOUT = (
    "The embedded backend's own parts: the standard deviations of EfficientNet-Lite0's channel means, and ridge "
    "regressions from its feature maps to patches of pixels."
)


def run(
    data: Path,
    out: Path,
    *,
    device: str = "cpu",
    size: int = 224,
    images: int = 400,
) -> tuple[PyramidDecoder, Progress]:
    """Fit both on images of a folder; minutes on a processor.

    Args:
        data: What :func:`~vislens_interp.training.data.read_splits` reads.
        out: Not used: nothing is resumed.
        size: Side in pixels of the images that the decoder is fitted to; it draws any size.
        images: How many images are used, evenly over the sorted names.

    Returns:
        The decoder with its embedder, and the peak signal-to-noise ratio for each number of dropped levels.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    splits = read_splits(data, size)
    some = pixels(evenly(splits.train, images)[:images])
    embedder = DepthEmbedder(zoo.load(NETWORK), size=INPUT).to(device).standardise(some)
    decoder = PyramidDecoder(embedder).fit(some)

    @torch.no_grad()
    def figures(rows: slice) -> dict[str, float]:
        wanted = pixels(splits.validation[rows][:50])
        maps = [decoder.maps(part) for part in wanted.split(10)]
        found = {}
        for dropped in range(decoder.levels):
            drawn = torch.cat([decoder(part, size, dropped=dropped).clamp(0, 1).cpu() for part in maps])
            found[f"psnr_dropped_{dropped}"] = peak_signal_noise_ratio(
                drawn, wanted, data_range=1.0, dim=(1, 2, 3), reduction="elementwise_mean"
            ).item()
        return found

    test = {f"test_{name}": value for name, value in figures(TEST).items()}
    return decoder, Progress(1, 0.0, [{"step": 1, **figures(TUNING), **test}], splits.describe())


def save(model: PyramidDecoder, path: Path) -> Path:
    """Write what ``backend="embedded"`` reads from ``folder=``."""
    model.embedder.save_statistics(path.parent / STATISTICS)
    return model.save(path.parent / DECODER)
