"""Makes the tests' atlas in a folder, and is killed while it does: ``killed.py FOLDER THREADS``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
import torch
from small_layer import clouds, kinds, small_layer

from vislens_interp.atlas import Atlas
from vislens_interp.backends.base import get_backend

folder, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
atlas = Atlas(small_layer(), "layer", clouds(220), backend=get_backend("embedded", size=64), words=kinds)
atlas.fit(folder, inputs=2, top_images=4).save(folder, shard=5)
