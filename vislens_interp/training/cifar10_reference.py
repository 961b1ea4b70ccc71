"""Recipe: the synthetic reference set of the pixel backend, drawn from the shipped DDPM; no photograph is read."""

import io
import zipfile
from pathlib import Path

import torch

from vislens_interp.backends.pixel import PixelBackend
from vislens_interp.files import write_bytes
from vislens_interp.images import to_pil
from vislens_interp.progress import tqdm

BATCH = 50


def run(out: Path, *, device: str = "cpu", count: int = 2000, seed: int = 0) -> Path:
    """Sample ``count`` pictures and pack them as PNG.

    Args:
        out: Folder of ``cifar10_reference.zip``.
        count: How many pictures; picture k uses ``seed + k``.

    Returns:
        The zip's path.
    """
    refiner = PixelBackend(device).refiner
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for rows in tqdm(torch.arange(count).split(BATCH), desc="sample"):
            grey = torch.full((len(rows), 3, refiner.size, refiner.size), 0.5, device=device)
            pictures = refiner(grey, strength=1.0, seeds=[seed + row for row in rows.tolist()])
            for row, picture in zip(rows.tolist(), to_pil(pictures), strict=True):
                png = io.BytesIO()
                picture.save(png, "PNG", optimize=True)
                entry = zipfile.ZipInfo(f"synthetic/{row:05d}.png", date_time=(2026, 1, 1, 0, 0, 0))  # the same bytes
                archive.writestr(entry, png.getvalue())
    return write_bytes(Path(out) / "cifar10_reference.zip", buffer.getvalue())


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for cifar10_reference.zip")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    print(run(arguments.out, device=arguments.device, count=arguments.count))
