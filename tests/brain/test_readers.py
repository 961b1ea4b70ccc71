"""Readers of laboratories' files: each gives what ``from_trials`` gives on the same numbers."""

import gc
import json
import warnings
from functools import partial

import h5py
import mne
import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from nilearn.maskers import NiftiLabelsMasker, NiftiMasker
from nilearn.surface import InMemoryMesh, PolyMesh, SurfaceImage
from PIL import Image

from vislens_interp.brain import BrainDataset
from vislens_interp.brain.readers import trials as shared
from vislens_interp.images import ImageFiles

pytestmark = pytest.mark.filterwarnings("default")  # what these libraries say of each other is not ours to mend

PICTURES, TRIALS = 6, 15  # some pictures are shown less often than others
SHOWN = np.random.default_rng(1).permutation(np.repeat(np.arange(PICTURES), 3))[:TRIALS]
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures whose order by name is not the order in which they were shown, and one that nobody saw."""
    folder = tmp_path_factory.mktemp("stimuli")
    draw = np.random.default_rng(0)
    for name in [*"cafebd", "unseen"]:
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


NAMES = [f"{name}.png" for name in "abcdef"]
LABELS = [NAMES[row] for row in SHOWN]


def numbers(columns, seed=0):
    return np.random.default_rng(seed).normal(size=(TRIALS, columns)).astype(np.float32)


def events(labels=LABELS):
    return pd.DataFrame({"onset": np.arange(len(labels)) * 4.0, "duration": 1.0, "stim_file": labels})


def epochs_array(values, kind="eeg", bads=(), metadata=True):
    """Epochs at 100 Hz from -0.05 to 0.2 s whose windows' means are known, (T, channels) × (steps)."""
    info = mne.create_info([f"{kind}{number}" for number in range(values.shape[1])], 100.0, kind)
    info["bads"] = list(bads)
    table = pd.DataFrame({"picture": LABELS}) if metadata else None
    codes = SHOWN + 1
    triggers = np.stack([np.arange(TRIALS), np.zeros(TRIALS, int), codes], 1)
    ids = {f"picture/{name[0]}": row + 1 for row, name in enumerate(NAMES)}
    return mne.EpochsArray(values, info, triggers, tmin=-0.05, event_id=ids, metadata=table, verbose="error")


def from_epochs(pictures, folder, *, file=True, kind="eeg"):
    values = np.random.default_rng(2).normal(size=(TRIALS, 3, 26)) * (1e-6 if kind == "eeg" else 1e-15)
    made = epochs_array(values, kind, bads=[f"{kind}1"])
    if file:
        made.save(folder / f"{kind}-epo.fif", fmt="double", verbose="error")
        made = folder / f"{kind}-epo.fif"
    data = BrainDataset.from_epochs(
        made,
        pictures,
        windows=["P1", (np.float64(0.1), np.float32(0.15))],
        image_column="picture",
        size=8,
        subject="s1",
    )
    scale = 1e6 if kind == "eeg" else 1e15
    times = np.round(np.arange(26) * 0.01 - 0.05, 2)
    means = [
        values[:, [0, 2]][..., (times >= a) & (times <= b)].mean(-1) * scale for a, b in ((0.08, 0.12), (0.1, 0.15))
    ]
    targets = [f"{kind}{number} {window}" for number in (0, 2) for window in ("P1", "0.1-0.15 s")]
    return data, np.stack(means, -1).reshape(TRIALS, -1), targets, {"eeg": "µV", "mag": "fT"}[kind]


def volumes(columns=3, seed=0):
    """Betas (4, 4, 4, T) whose regions 1 to 3 have known means, the image of regions, and the means."""
    regions = np.zeros((4, 4, 4), np.int32)
    regions[0], regions[1, :2], regions[3, 3, 3] = 1, 2, 3
    betas = np.random.default_rng(seed).normal(size=(4, 4, 4, TRIALS)).astype(np.float32)
    means = np.stack([betas[regions == number].mean(0, dtype=np.float64) for number in (1, 2, 3)], 1)
    return betas, regions, means[:, :columns]


def from_nifti(pictures, folder, *, suffix=".nii"):
    betas, regions, means = volumes()
    nibabel.save(nibabel.Nifti1Image(betas, AFFINE), folder / f"betas{suffix}")
    nibabel.save(nibabel.Nifti1Image(regions, AFFINE), folder / "regions.nii")
    events().to_csv(folder / "events.tsv", sep="\t", index=False)
    data = BrainDataset.from_nifti(
        folder / f"betas{suffix}",
        folder / "regions.nii",
        folder / "events.tsv",
        pictures,
        targets={1: "V1", 2: "V4", 3: "IT"},
        size=8,
        subject="s1",
    )
    return data, means, ["V1", "V4", "IT"], "beta"


def from_voxels(pictures, folder):
    betas, regions, _ = volumes()
    image = [nibabel.Nifti1Image(part, AFFINE) for part in (betas[..., :7], betas[..., 7:])]
    table = events()
    masker = NiftiMasker(nibabel.Nifti1Image((regions == 2).astype(np.int8), AFFINE), reports=False)
    data = BrainDataset.from_nifti(
        image, masker, [table[:7], table[7:]], pictures, size=8, subject="s1", standard="session"
    )
    values = betas[regions == 2].T.astype(np.float64)
    values = np.concatenate([(part - part.mean(0)) / part.std(0) for part in (values[:7], values[7:])])
    targets = [f"voxel {x} {y} {z}" for x, y, z in np.argwhere(regions == 2)]
    return data, values, targets, "beta, z-scored within sessions"


def surface(values):
    """A SurfaceImage of 12 vertices a side, (24, T)."""
    mesh = InMemoryMesh(np.random.default_rng(0).normal(size=(12, 3)), np.array([[0, 1, 2], [3, 4, 5]]))
    return SurfaceImage(PolyMesh(left=mesh, right=mesh), {"left": values[:12], "right": values[12:]})


def from_surface(pictures, folder, *, regions=False):
    values = np.random.default_rng(3).normal(size=(24, TRIALS)).astype(np.float32)
    files = {side: folder / f"hemi-{side[0].upper()}_betas.func.gii" for side in ("left", "right")}
    for path, part in zip(files.values(), (values[:12], values[12:]), strict=True):
        arrays = [nibabel.gifti.GiftiDataArray(trial, datatype="NIFTI_TYPE_FLOAT32") for trial in part.T]
        nibabel.save(nibabel.GiftiImage(darrays=arrays), path)
    read = SurfaceImage(surface(values).mesh, files)
    numbers = np.repeat([0, 1, 2, 1], 6)
    given = {"labels": surface(numbers), "targets": {1: "FFA", 2: "PPA"}} if regions else {}
    data = BrainDataset.from_surface(read, events(), pictures, size=8, subject="s1", **given)
    if regions:
        return data, np.stack([values[numbers == one].mean(0) for one in (1, 2)], 1), ["FFA", "PPA"], "beta"
    targets = [f"{side} {vertex}" for side in ("left", "right") for vertex in range(12)]
    return data, values.T, targets, "beta"


def from_nsd(pictures, folder):
    """Session files as NSD has them: trials first, whole numbers, a session a file."""
    draw = np.random.default_rng(4)
    betas = draw.integers(-900, 900, (TRIALS, 3, 4, 5), dtype=np.int16)
    paths = [folder / f"betas_session{number:02d}.hdf5" for number in (1, 2)]
    for path, part in zip(paths, (betas[:8], betas[8:]), strict=True):
        with h5py.File(path, "w") as file:
            file["betas"] = part
    masks = {"V1": np.zeros((3, 4, 5), bool), "V4": np.zeros((3, 4, 5), bool)}
    masks["V1"][0], masks["V4"][2, 1:] = True, True
    data = BrainDataset.from_h5(paths, LABELS, pictures, regions=masks, size=8, subject="s1")
    scored = np.concatenate([(part - part.mean(0)) / part.std(0) for part in (betas[:8], betas[8:])])
    return data, np.stack([scored[:, mask].mean(1) for mask in masks.values()], 1), ["V1", "V4"], "z-scored beta"


def from_glmsingle(pictures, folder):
    """GLMsingle from Python: trials last; every voxel of a mask."""
    betas = np.random.default_rng(5).normal(size=(3, 4, 5, TRIALS)).astype(np.float32)
    with h5py.File(folder / "TYPED_FITHRF_GLMDENOISE_RR.hdf5", "w") as file:
        file["betasmd"] = betas
    mask = np.zeros((3, 4, 5), bool)
    mask[1, 2] = True
    data = BrainDataset.from_h5(
        folder / "TYPED_FITHRF_GLMDENOISE_RR.hdf5",
        events(),
        pictures,
        regions=mask,
        standard="none",
        size=8,
        subject="s1",
        cache=folder / "responses.npy",
    )
    return data, betas[mask].T, [f"voxel 1 2 {place}" for place in range(5)], "beta"


def spikes():
    """Spike counts (T, 3) in 0.05 to 0.15 s, and the times that give them."""
    counts = np.random.default_rng(6).poisson(4, (TRIALS, 3))
    draw = np.random.default_rng(7)
    times = [
        np.sort(np.concatenate([4.0 * t + 0.05 + 0.0999 * draw.random(n) for t, n in enumerate(unit)]))
        for unit in counts.T
    ]
    return counts, times


def nwb_file(times=None, column="image_name"):
    from datetime import UTC, datetime

    from pynwb import NWBFile
    from pynwb.epoch import TimeIntervals
    from pynwb.file import Subject

    file = NWBFile("a session", "one", datetime(2026, 1, 1, tzinfo=UTC), subject=Subject(subject_id="s1", age="P1Y"))
    shown = TimeIntervals(name="presentations", description="pictures")
    shown.add_column(column, "the picture")
    for trial, label in enumerate(LABELS):
        shown.add_row(start_time=4.0 * trial, stop_time=4.0 * trial + 0.1, **{column: label})
    file.add_time_intervals(shown)
    if times is not None:
        file.add_unit_column("quality", "of the sorting")
        for number, unit in enumerate(times):
            file.add_unit(spike_times=unit, id=10 + number, quality="good" if number else "noise")
    return file


def from_nwb(pictures, folder):
    from pynwb import NWBHDF5IO

    counts, times = spikes()
    with NWBHDF5IO(folder / "one.nwb", "w") as io:
        io.write(nwb_file(times))
    data = BrainDataset.from_nwb(
        folder / "one.nwb", pictures, image_column="image_name", where="quality == 'good'", size=8
    )
    return data, counts[:, 1:], ["unit 11", "unit 12"], "spikes in 0.05-0.15 s"


def bids(folder, pictures, runs=2):
    """A dataset with preprocessed runs and pictures, and the betas that nilearn gives when asked trial by trial."""
    from nilearn.glm.first_level import FirstLevelModel, make_first_level_design_matrix

    root, func = folder / "bids", folder / "bids" / "sub-01" / "func"
    made = root / "derivatives" / "sub-01" / "func"
    func.mkdir(parents=True)
    made.mkdir(parents=True)
    (root / "stimuli").symlink_to(pictures)
    draw, regions = np.random.default_rng(8), volumes()[1]
    expected, start = [], 0
    for run, count in zip(range(1, runs + 1), (8, TRIALS - 8), strict=True):
        table = events(LABELS[start : start + count])
        table.loc[len(table)] = [4.0 * count, 1.0, "n/a"]
        bold = (100 + 30 * draw.random((4, 4, 4, 60))).astype(np.float32)
        name = f"sub-01_task-things_run-{run}"
        image = nibabel.Nifti1Image(bold, AFFINE)
        nibabel.save(image, made / f"{name}_space-MNI_desc-preproc_bold.nii.gz")
        sidecar = {"RepetitionTime": 1.5, "StartTime": 0.7}
        (made / f"{name}_space-MNI_desc-preproc_bold.json").write_text(json.dumps(sidecar))
        table.to_csv(func / f"{name}_events.tsv", sep="\t", index=False)
        series = np.stack([bold[regions == number].mean(0) for number in (1, 2, 3)], 1)
        kinds = [f"t{row}" for row in range(count)] + ["other"]
        design = make_first_level_design_matrix(
            0.7 + np.arange(60) * 1.5, table[["onset", "duration"]].assign(trial_type=kinds), hrf_model="spm"
        )
        scaled = nibabel.Nifti1Image((100 * (series / series.mean(0) - 1)).T.reshape(3, 1, 1, 60), AFFINE)
        model = FirstLevelModel(
            mask_img=nibabel.Nifti1Image(np.ones((3, 1, 1), np.int8), AFFINE), noise_model="ols", signal_scaling=False
        ).fit(scaled, design_matrices=design)
        expected += [
            model.compute_contrast(f"t{row}", output_type="effect_size").get_fdata().ravel() for row in range(count)
        ]
        start += count
    return root, nibabel.Nifti1Image(regions, AFFINE), np.stack(expected)


def from_bids(pictures, folder):
    root, regions, expected = bids(folder, pictures)
    names = {1: "V1", 2: "V4", 3: "IT"}
    data = BrainDataset.from_bids(root, "things", regions, space="MNI", targets=names, size=8)
    return data, expected, ["V1", "V4", "IT"], "percent signal change"


READERS = {
    "epochs file": from_epochs,
    "epochs in memory": partial(from_epochs, file=False),
    "MEG": partial(from_epochs, kind="mag"),
    "nifti": from_nifti,
    "nifti, compressed": partial(from_nifti, suffix=".nii.gz"),
    "nifti, voxels by session": from_voxels,
    "surface, vertices": from_surface,
    "surface, regions": partial(from_surface, regions=True),
    "NSD": from_nsd,
    "GLMsingle": from_glmsingle,
    "NWB": from_nwb,
    "BIDS": from_bids,
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_reader_gives_what_arrays_give(reader, pictures, tmp_path):
    data, values, targets, units = reader(pictures, tmp_path)
    expected = BrainDataset.from_trials(
        ImageFiles([pictures / name for name in NAMES], 8), np.float32(values), SHOWN, targets=targets, units=units
    )
    assert torch.allclose(data.responses, expected.responses, rtol=1e-4, atol=1e-5, equal_nan=True)
    assert torch.equal(data.counts, expected.counts)
    assert torch.equal(data.images[:], expected.images[:])
    assert (data.targets, data.units, data.names) == (targets, units, NAMES)
    assert data.subject in ("s1", "sub-01")
    assert "paired by" in data.summary()
    assert "1 pictures were never shown" in data.summary()
    assert f"{PICTURES} images" in repr(data)
    assert "noise ceiling R" in repr(data)
    first, second = data.split([0.5, 0.5])
    assert first.pairing == data.pairing
    assert len(first) + len(second) == PICTURES
    assert data.noise_ceiling("ncsnr").targets == tuple(targets)


def test_a_cache_is_a_file_and_the_same(pictures, tmp_path):
    data = from_glmsingle(pictures, tmp_path)[0]
    assert np.array_equal(np.load(tmp_path / "responses.npy"), data.responses.numpy(), equal_nan=True)


def test_large_recordings_are_read_in_parts(pictures, tmp_path, monkeypatch):
    """The same numbers when a chunk holds a trial or two."""
    parted = ("NSD", "GLMsingle", "nifti, voxels by session", "epochs in memory")
    whole = {name: READERS[name](pictures, tmp_path)[0].responses for name in parted}
    monkeypatch.setattr(shared, "CHUNK_BYTES", 900)
    for name, responses in whole.items():
        assert torch.allclose(READERS[name](pictures, tmp_path)[0].responses, responses, atol=1e-5, equal_nan=True)


def test_every_time_point_and_event_names(pictures):
    values = np.random.default_rng(2).normal(size=(TRIALS, 2, 26)) * 1e-6
    made = epochs_array(values, metadata=False)
    files = {f"picture/{name[0]}": pictures / name for name in NAMES}
    data = BrainDataset.from_epochs(made, files, windows="times", size=8)
    assert len(data.targets) == 52
    assert data.targets[:2] == ["eeg0 -0.050 s", "eeg0 -0.040 s"]
    assert data.responses[0, 0, 27].item() == pytest.approx(values[SHOWN == 0][0, 1, 1] * 1e6, rel=1e-5)
    assert "the epochs' event names" in data.pairing
    raw = BrainDataset.from_epochs(made, files, windows=(0.1, 0.15), picks=["eeg1"], units="SD of noise", size=8)
    assert raw.units == "SD of noise"
    assert raw.responses[1, 0, 0].item() == pytest.approx(values[SHOWN == 1][0, 1, 15:21].mean(), rel=1e-5)


@pytest.mark.filterwarnings("error:epochs:UserWarning")
def test_microvolts_that_were_given_as_volts_are_told(pictures):
    values = 5 * np.random.default_rng(2).normal(size=(TRIALS, 2, 26))
    given = {"images": pictures, "windows": "P1", "image_column": "picture", "size": 8}
    with pytest.warns(
        UserWarning, match="half of the responses are beyond 10000 µV, converted from V .*: MNE stores V"
    ):
        BrainDataset.from_epochs(epochs_array(values), **given)
    BrainDataset.from_epochs(epochs_array(values), units="SD", **given)
    BrainDataset.from_epochs(epochs_array(values * 1e-6), **given)


def test_dropped_epochs_and_bad_channels_are_left_out(pictures):
    values = np.random.default_rng(2).normal(size=(TRIALS, 3, 26)) * 1e-6
    values[4, 0] *= 1000
    made = epochs_array(values, bads=["eeg2"])
    made.drop_bad(reject={"eeg": 200e-6}, verbose="error")
    data = BrainDataset.from_epochs(made, pictures, windows="P1", image_column="picture", size=8)
    assert data.targets == ["eeg0", "eeg1"]
    assert int((~data.responses.isnan()).sum()) == 2 * (TRIALS - 1)
    assert "1 epochs were dropped" in data.pairing
    assert "bad channels left out: eeg2" in data.pairing
    assert "converted from V × 1e6" in data.pairing


def test_unobserved_presentations_are_absent(pictures):
    counts, times = spikes()
    file = nwb_file()
    file.add_unit(spike_times=times[0], obs_intervals=[[0.0, 20.1]], id=3)
    file.add_unit(spike_times=times[1], obs_intervals=[[0.0, 99.0]], id=4)
    data = BrainDataset.from_nwb(file, pictures, image_column="image_name", table="presentations", size=8)
    assert int((~data.responses[..., 0].isnan()).sum()) == 5  # onsets 0 to 16 s
    assert torch.nansum(data.responses[..., 1]).item() == counts[:, 1].sum()


def test_times_that_are_no_seconds_are_told(pictures, tmp_path):
    given = {"images": pictures, "image_column": "image_name", "size": 8}
    with pytest.warns(
        UserWarning, match="no unit has a spike within .* begin at 0 to 56, and spikes come at 5.* one clock"
    ):
        BrainDataset.from_nwb(nwb_file([1000 * unit for unit in spikes()[1]]), **given)
    for window in ((50, 150), 0.1, (0.15, 0.05)):
        with pytest.raises(ValueError, match="expected two ends in seconds, start first"):
            BrainDataset.from_nwb(nwb_file(spikes()[1]), window=window, **given)

    root, regions, _ = bids(tmp_path, pictures)
    func = root / "derivatives" / "sub-01" / "func"
    read = partial(BrainDataset.from_bids, root, "things", regions, space="MNI", size=8)
    expected = read(subject="sub-01")
    assert expected.subject == "sub-01"
    for bold in sorted(func.glob("*.nii.gz")):  # the same in the header, in milliseconds
        (func / bold.name.replace(".nii.gz", ".json")).write_text(json.dumps({"StartTime": 0.7}))
        image = nibabel.load(bold)
        changed = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
        changed.header.set_xyzt_units("mm", "msec")
        changed.header["pixdim"][4] = 1500
        nibabel.save(changed, bold)
    assert torch.allclose(read().responses, expected.responses, equal_nan=True)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine), bold)
    with pytest.raises(ValueError, match="has no RepetitionTime in .* and none in its header"):
        read()
    sidecar = func / bold.name.replace(".nii.gz", ".json")
    sidecar.write_text('{"RepetitionTime": 1500}')
    with pytest.raises(ValueError, match="has RepetitionTime 1500; expected seconds"):
        read()
    sidecar.write_text('{"RepetitionTime": 0.2}')
    with pytest.raises(
        ValueError, match="5 of 8 begin after its 60 volumes of 0.2 s, the last one at 28; expected onsets"
    ):
        read()


def cut(path, size=3000):
    path.write_bytes(path.read_bytes()[:size])
    return path


def broken_epochs(folder):
    epochs_array(np.zeros((TRIALS, 2, 26))).save(folder / "a-epo.fif", verbose="error")
    return {"epochs": cut(folder / "a-epo.fif"), "windows": "P1"}


def text_nifti(folder):
    (folder / "betas.nii.gz").write_text("no volumes")
    return (folder / "betas.nii.gz", nibabel.Nifti1Image(volumes()[1], AFFINE), events())


def cut_nifti(folder):
    image = nibabel.Nifti1Image(volumes()[0], AFFINE)
    nibabel.save(image, folder / "betas.nii")
    return (cut(folder / "betas.nii"), nibabel.Nifti1Image(volumes()[1], AFFINE), events())


def few_events(folder):
    return (nibabel.Nifti1Image(volumes()[0], AFFINE), nibabel.Nifti1Image(volumes()[1], AFFINE), events()[:-2])


def unsorted_events(folder):
    return (nibabel.Nifti1Image(volumes()[0], AFFINE), nibabel.Nifti1Image(volumes()[1], AFFINE), events()[::-1])


def other_column(folder):
    table = events().rename(columns={"stim_file": "stimulus_file"})
    return (nibabel.Nifti1Image(volumes()[0], AFFINE), nibabel.Nifti1Image(volumes()[1], AFFINE), table)


def standardising(folder):
    masker = NiftiLabelsMasker(nibabel.Nifti1Image(volumes()[1], AFFINE), standardize="zscore_sample", reports=False)
    return (nibabel.Nifti1Image(volumes()[0], AFFINE), masker, events())


def text_h5(folder):
    (folder / "betas.hdf5").write_text("no betas")
    return (folder / "betas.hdf5", LABELS)


def other_h5(folder):
    with h5py.File(folder / "betas.hdf5", "w") as file:
        file["beta"] = np.zeros((TRIALS, 4))
    return (folder / "betas.hdf5", LABELS)


def short_h5(folder):
    with h5py.File(folder / "betas.hdf5", "w") as file:
        file["betas"] = np.zeros((TRIALS - 2, 4))
    return (folder / "betas.hdf5", LABELS)


def text_nwb(folder):
    (folder / "one.nwb").write_text("no spikes")
    return (folder / "one.nwb",)


def other_surface(folder):
    return (surface(np.zeros((24, TRIALS))), events(), {"left": np.ones(12), "right": np.ones(9)})


def no_events(folder):
    root, _, _ = bids(folder, folder)
    (root / "sub-01" / "func" / "sub-01_task-things_run-2_events.tsv").unlink()
    return (root, "things", nibabel.Nifti1Image(volumes()[1], AFFINE))


MALFORMED = {
    "epochs cut short": (
        lambda p, f: BrainDataset.from_epochs(**broken_epochs(f), images=p, image_column="picture", size=8),
        ValueError,
        "a-epo.fif' cannot be read by MNE",
    ),
    "epochs without metadata": (
        lambda p, f: BrainDataset.from_epochs(
            epochs_array(np.zeros((TRIALS, 2, 26)), metadata=False), p, windows="P1", image_column="x", size=8
        ),
        ValueError,
        "epochs have no metadata; expected a table with that column",
    ),
    "a window that epochs do not hold": (
        lambda p, f: BrainDataset.from_epochs(
            epochs_array(np.zeros((TRIALS, 2, 26))), p, windows="LPP", image_column="picture", size=8
        ),
        ValueError,
        "window LPP reaches over 0.4 to 0.7 s, and the epochs hold -0.05 to 0.2 s; .* C1, P1, N170",
    ),
    "a bad channel by name": (
        lambda p, f: BrainDataset.from_epochs(
            epochs_array(np.zeros((TRIALS, 2, 26)), bads=["eeg1"]),
            p,
            windows="P1",
            image_column="picture",
            picks=["eeg1"],
        ),
        ValueError,
        "channel 'eeg1' is marked bad",
    ),
    "volumes that are text": (
        lambda p, f: BrainDataset.from_nifti(*text_nifti(f), p, size=8),
        ValueError,
        "betas.nii.gz' cannot be read by nibabel",
    ),
    "volumes cut short": (
        lambda p, f: BrainDataset.from_nifti(*cut_nifti(f), p, size=8),
        ValueError,
        "betas: volumes .* cannot be read",
    ),
    "fewer events than volumes": (
        lambda p, f: BrainDataset.from_nifti(*few_events(f), p, size=8),
        ValueError,
        "events has 13 rows, 13 of them with a picture in 'stim_file', and betas 15 volumes",
    ),
    "events in another order": (
        lambda p, f: BrainDataset.from_nifti(*unsorted_events(f), p, size=8),
        ValueError,
        "rows are not in the order of their onsets",
    ),
    "events without the column": (
        lambda p, f: BrainDataset.from_nifti(*other_column(f), p, size=8),
        KeyError,
        "image_column='stim_file' is not in events. Closest: stimulus_file.",
    ),
    "a masker that standardises": (
        lambda p, f: BrainDataset.from_nifti(*standardising(f), p, size=8),
        ValueError,
        "regions is a masker with standardize='zscore_sample', which would apply to the few volumes",
    ),
    "no HDF5": (lambda p, f: BrainDataset.from_h5(*text_h5(f), p, size=8), ValueError, "cannot be read by h5py"),
    "HDF5 of something else": (
        lambda p, f: BrainDataset.from_h5(*other_h5(f), p, size=8),
        KeyError,
        "dataset 'betas or modelmd or betasmd' is not in betas.hdf5. .*beta",
    ),
    "fewer trials than names": (
        lambda p, f: BrainDataset.from_h5(*short_h5(f), p, size=8),
        ValueError,
        "events holds 15 names for 13 trials in 1 files",
    ),
    "names by number for vertices": (
        lambda p, f: BrainDataset.from_surface(surface(np.zeros((24, TRIALS))), events(), p, targets={1: "V1"}, size=8),
        ValueError,
        "targets maps numbers of regions to names, and none of the 24 targets has such a number",
    ),
    "labels of another surface": (
        lambda p, f: BrainDataset.from_surface(*other_surface(f)[:2], p, labels=other_surface(f)[2], size=8),
        ValueError,
        "labels has .* numbers of regions, and betas .* vertices; expected one for each vertex",
    ),
    "no NWB": (
        lambda p, f: BrainDataset.from_nwb(*text_nwb(f), p, image_column="image_name", size=8),
        ValueError,
        "one.nwb' cannot be read by pynwb",
    ),
    "NWB without units": (
        lambda p, f: BrainDataset.from_nwb(nwb_file(), p, image_column="image_name", size=8),
        ValueError,
        "file holds no units with spike times",
    ),
    "NWB without the column": (
        lambda p, f: BrainDataset.from_nwb(nwb_file(spikes()[1]), p, image_column="image", size=8),
        KeyError,
        "image_column='image' is in 0 tables of the file",
    ),
    "a run without events": (
        lambda p, f: BrainDataset.from_bids(*no_events(f), space="MNI", size=8),
        FileNotFoundError,
        "run-2_space-MNI_desc-preproc_bold.nii.gz has no .*_events.tsv of the same session and run",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_files_end_in_one_clear_line(case, pictures, tmp_path):
    read, kind, message = MALFORMED[case]
    with pytest.raises(kind, match=message) as caught:
        read(pictures, tmp_path)
    assert "\n" not in str(caught.value)
    del caught
    with warnings.catch_warnings():  # MNE leaves a file open that it could not read
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
