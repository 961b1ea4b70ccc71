"""``python -m vislens_interp.training.ship DIR``: put finished weights among those that travel with the package."""

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from vislens_interp import zoo
from vislens_interp.backends.embedded import FILES
from vislens_interp.evaluation.words import SHIPPED as WORDS
from vislens_interp.files import write_atomically, write_text

SHIPPED = (*FILES, WORDS, "vit_tiny64.safetensors", "natural_spectrum.safetensors")
LIMIT = 95_000_000
"""Bytes of all shipped weights: what the wheel may weigh."""


def ship(source: Path) -> list[str]:
    """Copy what is there of the backend and of ``vit_tiny64``, with the model cards, and write the checksums anew.

    Args:
        source: The recipes' ``--out``.

    Returns:
        Names of what was copied.

    Raises:
        FileNotFoundError: Nothing is there, or a card is missing.
        ValueError: Everything together is larger than a wheel may be.
    """
    names = [name for name in SHIPPED if (source / name).is_file()]
    if not names:
        raise FileNotFoundError(
            f"source={str(source)!r} holds none of {', '.join(SHIPPED)}; expected the recipes' --out. Run them first."
        )
    cards = sorted({f"{name.split('/')[0].split('.')[0]}.md" for name in names})
    if missing := [card for card in cards if not (source / card).is_file()]:
        raise FileNotFoundError(
            f"source={str(source)!r} lacks the model cards {', '.join(missing)}; expected one beside each network. Run "
            "its recipe to the end."
        )
    sums = json.loads((zoo.WEIGHTS / "checksums.json").read_text(encoding="utf-8"))
    others = sum((zoo.WEIGHTS / name).stat().st_size for name in sums if name not in names)
    size = others + sum((source / name).stat().st_size for name in names)
    if size > LIMIT:
        raise ValueError(f"source={str(source)!r} brings the weights to {size:,} bytes; expected {LIMIT:,} at most.")
    for name in (*names, *cards):
        write_atomically(zoo.WEIGHTS / name, partial(shutil.copyfile, source / name))
    sums |= {name: hashlib.sha256((source / name).read_bytes()).hexdigest() for name in names}
    write_text(zoo.WEIGHTS / "checksums.json", json.dumps(dict(sorted(sums.items())), indent=1) + "\n")
    return names


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; 0 when files were copied, 1 when not."""
    parser = argparse.ArgumentParser(prog="python -m vislens_interp.training.ship", description=__doc__)
    parser.add_argument("source", type=Path, help="the recipes' --out")
    args = parser.parse_args(argv)
    try:
        print(*ship(args.source), sep="\n")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
