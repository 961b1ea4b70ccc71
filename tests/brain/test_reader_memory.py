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

START = """
import time
from pathlib import Path
import numpy as np, pandas as pd, torch
from vislens_interp.brain import BrainDataset

count, images, folder = {targets}, {images}, Path({folder!r})
draw = np.random.default_rng(0)
names = [f"image{{row}}" for row in range(images)]
events, pictures = pd.DataFrame({{"stim_file": names}}), torch.rand(images, 3, 8, 8)
"""

USE = """
began = time.monotonic()
data = read()
assert data.responses.shape == (images, 1, count), data.responses.shape
mean = data.mean_responses()
data.split([0.5, 0.5]), repr(data), data.summary()
assert torch.isfinite(mean).all() and mean.std() > 0
print(peak() * 1024, round(time.monotonic() - began), round(time.process_time()))
"""

READERS = {
    "surface": """
from nilearn.surface import InMemoryMesh, PolyMesh, SurfaceImage
mesh = InMemoryMesh(draw.normal(size=(count // 2, 3)), np.array([[0, 1, 2]]))
parts = {side: draw.standard_normal((count // 2, images), dtype=np.float32) for side in ("left", "right")}
betas = SurfaceImage(PolyMesh(left=mesh, right=mesh), parts)
read = lambda: BrainDataset.from_surface(betas, events, pictures, names=names, standard="session")
""",
    "NIfTI": """
import nibabel
from nilearn.maskers import NiftiMasker
shape = 50, 50, count // 2500
header = nibabel.Nifti1Image(np.zeros((*shape, 1), np.float32), np.eye(4)).header
header.set_data_shape((*shape, images))
with open(folder / "betas.nii", "wb") as file:
    header["vox_offset"], header["magic"] = 352, b"n+1"
    file.write(header.binaryblock + bytes(4))
    for image in range(images):
        file.write(draw.standard_normal(count, dtype=np.float32).tobytes())
masker = NiftiMasker(nibabel.Nifti1Image(np.ones(shape, np.int8), np.eye(4)), reports=False)
read = lambda: BrainDataset.from_nifti(
    folder / "betas.nii", masker, events, pictures, names=names, standard="session"
)
""",
    "HDF5": """
import h5py
with h5py.File(folder / "betas.hdf5", "w") as file:
    betas = file.create_dataset("betas", (images, count), np.int16, chunks=(1, count))
    for image in range(images):
        betas[image] = draw.integers(-900, 900, count, dtype=np.int16)
read = lambda: BrainDataset.from_h5(folder / "betas.hdf5", names, pictures, names=names)
""",
    "epochs": """
import mne
info = mne.create_info(count // 400, 500.0, "eeg")
values = draw.normal(size=(images, count // 400, 400)) * 1e-6
made = mne.EpochsArray(values, info, tmin=-0.1, metadata=events, verbose="error")
made.save(folder / "large-epo.fif", verbose="error")
del values, made
read = lambda: BrainDataset.from_epochs(
    folder / "large-epo.fif", pictures, windows="times", image_column="stim_file", names=names
)
""",
    "NWB": """
from datetime import UTC, datetime
from pynwb import NWBHDF5IO, NWBFile
from pynwb.epoch import TimeIntervals
shown = TimeIntervals(name="presentations", description="pictures")
shown.add_column("image_name", "the picture")
for image, name in enumerate(names):
    shown.add_row(start_time=float(image), stop_time=image + 0.2, image_name=name)
file = NWBFile("a session", "one", datetime(2026, 1, 1, tzinfo=UTC))
file.add_time_intervals(shown)
for unit in range(count):
    file.add_unit(spike_times=np.sort(draw.uniform(0, images, 2 * images)))
with NWBHDF5IO(folder / "one.nwb", "w") as io:
    io.write(file)
del file, shown
read = lambda: BrainDataset.from_nwb(folder / "one.nwb", pictures, image_column="image_name", names=names)
""",
    "BIDS": """
import json, nibabel
from nilearn.maskers import NiftiMasker
shape, runs = (50, 50, count // 2500), 10
func, derived = folder / "sub-01" / "func", folder / "derivatives" / "sub-01" / "func"
func.mkdir(parents=True), derived.mkdir(parents=True)
for run in range(runs):
    own, name = names[run::runs], f"sub-01_task-things_run-{run + 1}"
    table = pd.DataFrame({"onset": np.arange(len(own)) * 4.0, "duration": 1.0, "stim_file": own})
    table.to_csv(func / f"{name}_events.tsv", sep="\\t", index=False)
    bold = 100 + 10 * draw.standard_normal((*shape, 3 * len(own)), dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(bold, np.eye(4)), derived / f"{name}_space-MNI_bold.nii")
    (derived / f"{name}_space-MNI_bold.json").write_text(json.dumps({"RepetitionTime": 1.5}))
del bold
(folder / "stimuli").mkdir()
from PIL import Image
for name in names:
    Image.new("RGB", (8, 8), f"#{int(name[5:]):06d}").save(folder / "stimuli" / f"{name}.png")
masker = NiftiMasker(nibabel.Nifti1Image(np.ones(shape, np.int8), np.eye(4)), reports=False)
read = lambda: BrainDataset.from_bids(folder, "things", masker, space="MNI", size=8)
""",
}
UNITS = 2_000
"""Of an NWB file: as many as several probes give."""

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
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.filterwarnings("default")
def test_a_hundred_thousand_targets_and_a_thousand_images_take_less_than_four_gib(reader, tmp_path):
    """From a process that makes the file first, which is no part of the seconds."""
    targets = UNITS if reader == "NWB" else 100_000
    code = START.format(targets=targets, images=1_000, folder=str(tmp_path)) + READERS[reader] + USE
    whole, seconds, cpu = measured(code)
    print(
        f"{reader}: {targets} targets, peak of the process {whole / 2**30:.2f} GiB, {seconds} s ({cpu} s of CPU in all)"
    )
    assert whole < 4 * 2**30


def test_a_file_larger_than_what_is_taken_stays_on_the_disk(tmp_path):
    """300 MB of betas, of which 2% are taken: 12 MB of responses."""
    _, more = measured(H5.format(voxels=500_000, trials=300, path=str(tmp_path / "betas.hdf5")))
    assert more < 250e6
