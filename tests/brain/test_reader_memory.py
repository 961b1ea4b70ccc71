"""What a large recording takes in memory, measured in a process of its own."""

import os
import subprocess
import sys

import pytest

PEAK = """
def peak():
    with open("/proc/self/status") as file:  # of this process alone: getrusage's goes back to the one that started it
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
"""

SURFACE = """
import numpy as np, pandas as pd, torch
from nilearn.surface import InMemoryMesh, PolyMesh, SurfaceImage
from vislens_interp.brain import BrainDataset

vertices, images = {vertices}, {images}
draw = np.random.default_rng(0)
mesh = InMemoryMesh(draw.normal(size=(vertices // 2, 3)), np.array([[0, 1, 2]]))
before = peak()
parts = {{side: draw.standard_normal((vertices // 2, images), dtype=np.float32) for side in ("left", "right")}}
betas = SurfaceImage(PolyMesh(left=mesh, right=mesh), parts)
names = [f"image{{row}}" for row in range(images)]
data = BrainDataset.from_surface(
    betas, pd.DataFrame({{"stim_file": names}}), torch.rand(images, 3, 8, 8), names=names, standard="session"
)
mean = data.mean_responses()
data.split([0.5, 0.5]), repr(data), data.summary()
after = peak()
assert abs(mean.mean()) < 1e-3 and abs(mean.std() - 1) < 1e-2, (mean.mean(), mean.std())
print(after * 1024, (after - before) * 1024)
"""

H5 = """
import h5py, numpy as np, torch
from vislens_interp.brain import BrainDataset

voxels, trials, path = {voxels}, {trials}, {path!r}
draw = np.random.default_rng(0)
with h5py.File(path, "w") as file:
    betas = file.create_dataset("betas", (trials, voxels), np.int16, chunks=(1, voxels))
    for trial in range(trials):
        betas[trial] = draw.integers(-900, 900, voxels, dtype=np.int16)
before = peak()
names = [f"image{{row}}" for row in range(trials)]
mask = np.arange(voxels) % 50 == 0
data = BrainDataset.from_h5(path, names, torch.zeros(trials, 3, 8, 8), names=names, regions=mask)
print(0, (peak() - before) * 1024)
"""


pytestmark = pytest.mark.skipif(not os.path.isfile("/proc/self/status"), reason="peaks are read from /proc")


def measured(code):
    done = subprocess.run([sys.executable, "-c", PEAK + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [int(part) for part in done.stdout.split()]


@pytest.mark.slow
def test_a_hundred_thousand_vertices_and_a_thousand_images_take_less_than_four_gib():
    whole, more = measured(SURFACE.format(vertices=100_000, images=1_000))
    print(f"peak of the process {whole / 2**30:.2f} GiB, of the data {more / 2**30:.2f} GiB")
    assert whole < 4 * 2**30


def test_a_file_larger_than_what_is_taken_stays_on_the_disk(tmp_path):
    """300 MB of betas, of which 2% are taken: 12 MB of responses."""
    _, more = measured(H5.format(voxels=500_000, trials=300, path=str(tmp_path / "betas.hdf5")))
    assert more < 250e6
