"""``python -m vislens_interp.training.natural_spectrum DATA --out DIR``: the spectrum of photographs, for MACO.

``ship`` then puts it among what travels with the package.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from vislens_interp.files import save_state, write_text
from vislens_interp.methods.natural_spectrum import EPS, FILE, KIND, NaturalSpectrum, measure
from vislens_interp.training.card import hardware
from vislens_interp.training.data import TUNING, pixels, read_images

SOURCES = {64: ("tiny_imagenet/train_0.zip", slice(None)), 224: ("photos/imagenet500.zip", TUNING)}
"""Side to file of the data folder, and which of its images in the sorted order of their names: none that test."""
AT_ONCE = 250


def measure_file(path: Path, size: int, rows: slice) -> tuple[NaturalSpectrum, int]:
    """Mean amplitudes of the images of a zip at one size, and how many they were."""
    images = read_images(path, size)[0][rows]
    parts = images.split(AT_ONCE)
    weights = torch.tensor([len(part) for part in parts]) / len(images)
    found = [measure(pixels(part)) for part in parts]
    means = (torch.einsum("n,n...->...", weights, torch.stack(values)) for values in zip(*found, strict=True))
    return NaturalSpectrum(*means), len(images)


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; 0 when the file was written, 1 when not."""
    parser = argparse.ArgumentParser(prog="python -m vislens_interp.training.natural_spectrum", description=__doc__)
    parser.add_argument("data", type=Path, help="folder with tiny_imagenet and photos")
    parser.add_argument("--out", type=Path, required=True, help="where the file and its card go")
    args = parser.parse_args(argv)
    start, sizes, said = time.perf_counter(), {}, []
    try:
        for size, (name, rows) in SOURCES.items():
            spectrum, count = measure_file(args.data / name, size, rows)
            sizes[str(size)] = {"amplitude": spectrum.amplitude.half(), "mean": spectrum.mean}
            half = "" if rows == slice(None) else ", those at even positions of the sorted list, which tune"
            said.append(f"{count:,} photographs of `{name}`{half}, at {size} px")
        path = save_state(args.out / FILE, KIND, {"sizes": sizes})
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    minutes = (time.perf_counter() - start) / 60
    took = f"{minutes:.1f} minutes on {hardware('cpu')}, torch {torch.__version__}."
    card = f"""# {path.stem}

Mean absolute Fourier coefficients of photographs, in logits of pixels with decorrelated colours; what `MACO` keeps.

- **Data**: {"; ".join(said)}. ImageNet photographs (terms: non-commercial research); a mean over them holds no picture.
- **Measurement**: `python -m vislens_interp.training.natural_spectrum DATA --out DIR`, {took} Pixels are clipped to
  [{EPS}, {1 - EPS}] before the logit; colours as in `methods/fourier.py`; half precision.
- **Known limits**: no window, so that the borders of pictures add to both axes, as in the published spectrum; the
  64-pixel images are compressed (WebP, quality 80) and so hold less of the highest frequencies.
- **Terms**: Apache-2.0, as far as the data's terms allow.
"""
    write_text(args.out / f"{path.stem}.md", card)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
