"""Makes the tests' atlas in a folder, and is killed while it does: ``killed.py FOLDER THREADS``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
import torch
from small_layer import clouds, kinds, small_backend, small_layer

from vislens_interp.atlas import Atlas

if __name__ == "__main__":
    folder, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    atlas = Atlas(small_layer(), "layer", clouds(220), backend=small_backend(), words=kinds)
    atlas.fit(folder, inputs=2, top_images=4).save(folder, shard=5)
