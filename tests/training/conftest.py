"""Pictures of four kinds, which the recipes at 64 px are trained on for a few steps."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """``train`` and ``val``: a disc, a ring, stripes and a cross, each its own mirror image, in two classes."""
    root = tmp_path_factory.mktemp("pictures")
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    radius = np.hypot(x, y)
    masks = {
        "round/disc": radius < 0.6,
        "round/ring": (radius > 0.5) & (radius < 0.9),
        "straight/stripes": np.sin(12 * y) > 0,
        "straight/cross": (abs(x) < 0.25) | (abs(y) < 0.25),
    }
    colours = [(230, 40, 40), (40, 200, 60), (50, 80, 230), (240, 220, 60)]
    for (name, mask), colour in zip(masks.items(), colours, strict=True):
        image = Image.fromarray(np.where(mask[..., None], np.uint8(colour), np.uint8((20, 20, 20))))
        for path in (f"train/{name}.png", f"val/{name}_a.png", f"val/{name}_b.png"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            image.save(root / path)
    return root
