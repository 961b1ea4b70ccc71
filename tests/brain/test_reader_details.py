"""Gaps in recordings, regions and pictures by name, and names that look like numbers."""

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from nilearn.maskers import NiftiLabelsMasker, NiftiMasker
from nilearn.surface import InMemoryMesh, PolyMesh, SurfaceImage
from PIL import Image
from sklearn.utils import Bunch

from vislens_interp.brain import BrainDataset
from vislens_interp.brain.readers import trials as shared
from vislens_interp.brain.readers.h5 import nsd_names
from vislens_interp.brain.readers.trials import Session, gather, pair_by_name, read_events
from vislens_interp.brain.windows import window_masks

NAMES = ["001", "002", "003"]
SHOWN = [0, 2, 1, 0, 1, 2, 0]
LABELS = [NAMES[row] for row in SHOWN]
EVENTS = pd.DataFrame({"stim_file": LABELS})
PICTURES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_regions_leave_out_voxels_with_gaps_and_stay_on_the_disk(tmp_path):
    betas = np.random.default_rng(9).normal(size=(7, 6))
    betas[3, 0] = np.nan  # a voxel with a gap
    betas[5] = np.nan  # a trial that was never recorded
    with h5py.File(tmp_path / "betas.hdf5", "w") as file:
        file["betas"] = betas
    masks = {"V1": np.arange(6) < 3, "V4": np.arange(6) >= 3}
    means = np.stack([betas[:, 1:3].mean(1), betas[:, 3:].mean(1)], 1)
    expected = BrainDataset.from_trials(PICTURES, means, SHOWN, targets=["V1", "V4"]).responses
    given = {"names": NAMES, "standard": "none", "cache": tmp_path / "kept.npy"}
    data = BrainDataset.from_h5(tmp_path / "betas.hdf5", LABELS, PICTURES, regions=masks, **given)
    assert torch.allclose(data.responses, expected, atol=1e-6, equal_nan=True)
    assert np.array_equal(np.load(tmp_path / "kept.npy"), data.responses.numpy(), equal_nan=True)
    masks["hole"] = np.arange(6) == 0
    with pytest.raises(ValueError, match="ROI 'hole': every vertex has missing values in recorded trials"):
        BrainDataset.from_h5(tmp_path / "betas.hdf5", LABELS, PICTURES, regions=masks, names=NAMES)


def test_onsets_are_numbers():
    def read(onsets):
        table = EVENTS.assign(onset=onsets)
        return read_events(table, "stim_file")[0]["onset"].tolist()

    assert read([str(4 * row) for row in range(7)]) == [4.0 * row for row in range(7)]  # "8" before "12"
    for wrong in (["n/a"] + [1.0] * 6, [np.nan] + [1.0] * 6):
        with pytest.raises(ValueError, match="events: onset .* in row 1 is no number; expected seconds"):
            read(wrong)


def test_masks_events_and_datasets_as_people_have_them(tmp_path):
    betas = np.random.default_rng(9).normal(size=(7, 6))
    with h5py.File(tmp_path / "betas.hdf5", "w") as file:
        file["one/betas"] = betas
    given = {"dataset": "one/betas", "trial_axis": 0, "standard": "none"}
    masks = {"V1": np.array([1, 1, np.nan, np.nan, 0, -1])}  # outside is NaN, 0 or below

    def read(events, names=NAMES):
        return BrainDataset.from_h5(tmp_path / "betas.hdf5", events, PICTURES, names=names, regions=masks, **given)

    expected = BrainDataset.from_trials(PICTURES, betas[:, :2].mean(1)[:, None], SHOWN, targets=["V1"]).responses
    for events in (np.array(LABELS), EVENTS["stim_file"]):
        assert torch.allclose(read(events).responses, expected, atol=1e-6, equal_nan=True)
    assert torch.allclose(read(SHOWN, ["0", "1", "2"]).responses, expected, atol=1e-6, equal_nan=True)
    np.save(tmp_path / "betas.npy", betas)
    with pytest.raises(ValueError, match=r"a \.mat saved with -v7.3 \(arrays go to from_trials\)"):
        BrainDataset.from_h5(tmp_path / "betas.npy", LABELS, PICTURES, names=NAMES)


@pytest.mark.filterwarnings("default")  # nilearn's
def test_vertices_without_a_value_or_a_region_are_left_out():
    side = InMemoryMesh(np.eye(3), np.array([[0, 1, 2]]))
    left, right = np.random.default_rng(9).normal(size=(2, 3, 7))
    left[0, 2] = right[:, 4] = left[:2, 4] = np.nan
    numbers = {"left": np.array([1, 1, -1]), "right": np.array([2, 0, 2])}
    betas = SurfaceImage(PolyMesh(left=side, right=side), {"left": left, "right": right})
    expected = np.stack([left[:2].mean(0), right[[0, 2]].mean(0)], 1)
    expected[2, 0] = left[1, 2]
    data = BrainDataset.from_surface(betas, EVENTS, PICTURES, labels=numbers, names=NAMES)
    wanted = BrainDataset.from_trials(PICTURES, expected, SHOWN, targets=["region 1", "region 2"])
    assert data.targets == wanted.targets
    assert torch.allclose(data.responses, wanted.responses, atol=1e-6, equal_nan=True)
    with pytest.raises(ValueError, match="labels holds fractions; expected whole numbers"):
        BrainDataset.from_surface(betas, EVENTS, PICTURES, labels=numbers | {"left": [1, 1.5, 2]}, names=NAMES)


def test_names_of_digits_keep_their_zeros(tmp_path):
    pd.DataFrame({"stim_file": LABELS}).to_csv(tmp_path / "events.tsv", sep="\t", index=False)
    with h5py.File(tmp_path / "betas.hdf5", "w") as file:
        file["betas"] = np.arange(7.0)[:, None]
    data = BrainDataset.from_h5(
        tmp_path / "betas.hdf5", tmp_path / "events.tsv", PICTURES, names=NAMES, standard="none"
    )
    assert data.responses[:, 0, 0].tolist() == [0.0, 2.0, 1.0]


def image(values, shift=0.0):
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[0, 3] = shift
    return nibabel.Nifti1Image(values, affine)


@pytest.mark.filterwarnings("default")  # nilearn's, of its own arguments
@pytest.mark.parametrize("voxels", [False, True])
def test_volumes_without_a_value_are_no_zeros(voxels):
    regions = np.zeros((4, 4, 4), np.int16)
    regions[0], regions[1] = 1, 2
    betas = np.random.default_rng(3).normal(size=(4, 4, 4, 7)).astype(np.float32) + 5
    betas[0, 0, 0] = betas[3] = np.nan  # a voxel with a gap, and those that no region holds
    betas[..., 4] = np.nan  # a trial that was never recorded
    betas[1, ..., 6] = np.inf
    masked = np.where(np.isfinite(betas), betas, np.nan)
    inside = np.delete(regions.ravel() > 0, 0).reshape(-1)
    if voxels:
        mask = np.zeros((4, 4, 4), np.int8).ravel()
        mask[1:] = inside
        masker, expected = NiftiMasker(image(mask.reshape(4, 4, 4)), reports=False), masked.reshape(64, 7)[mask > 0].T
    else:
        masker = image(regions)
        with np.errstate(invalid="ignore"):
            sums = [np.nansum(masked[row], (0, 1)) / np.isfinite(masked[row]).sum((0, 1)) for row in (0, 1)]
        expected = np.stack(sums, 1)
    data = BrainDataset.from_nifti(image(betas), masker, EVENTS, PICTURES, names=NAMES)
    wanted = BrainDataset.from_trials(PICTURES, expected, SHOWN, targets=data.targets).responses
    assert torch.allclose(data.responses, wanted, atol=1e-5, equal_nan=True)
    assert bool(data.responses[SHOWN[4]].isnan().any(1).any())


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("left", [1, 2])
def test_a_region_that_the_volumes_do_not_hold_is_refused(left):
    regions = np.zeros((4, 4, 4), np.int16)
    for number in range(left + 1):
        regions[number] = number + 1
    betas, mask = np.random.default_rng(3).normal(size=(4, 4, 4, 7)), regions > 1
    masked = NiftiLabelsMasker(image(regions), mask_img=image(mask.astype(np.int8)), reports=False)
    for given in (image(regions, shift=-2.0), masked):
        with pytest.raises(ValueError, match=f"regions names {left + 1}, and {left} of them are left"):
            BrainDataset.from_nifti(image(betas), given, EVENTS, PICTURES, names=NAMES)
    sessions = [image(betas), image(betas, shift=2.0)]  # of which the second one lacks a region
    with pytest.raises(
        ValueError, match=f"a session gives {left} numbers for a trial, and there are {left + 1} targets"
    ):
        BrainDataset.from_nifti(sessions, image(regions), [EVENTS] * 2, PICTURES, names=NAMES)
    with pytest.raises(ValueError, match="regions: nilearn cannot read them in volumes 0 to 1 .*; expected regions in"):
        BrainDataset.from_nifti(image(betas), image(regions, shift=900.0), EVENTS, PICTURES, names=NAMES)


@pytest.mark.filterwarnings("default")
def test_an_atlas_names_the_regions_that_it_holds():
    regions = np.zeros((4, 4, 4))
    regions[0], regions[2], regions[3] = 1, 3, -1
    betas = np.random.default_rng(3).normal(size=(4, 4, 4, 7))

    def read(atlas, **given):
        data = BrainDataset.from_nifti(image(betas), atlas, EVENTS, PICTURES, names=NAMES, **given)
        assert np.allclose(data.responses[SHOWN[0], 0], [betas[row, ..., 0].mean() for row in (0, 2)], atol=1e-6)
        return data.targets

    assert read(image(regions)) == ["1", "3"]
    assert read(image(np.where(regions > 0, regions, np.nan)), targets={1: "V1"}) == ["V1", "region 3"]
    table = pd.DataFrame({"index": [0, 1, 2, 3], "name": ["Background", "V1", "V2", "V3"]})
    assert read(Bunch(maps=image(regions), labels=list(table["name"]), lut=table)) == ["V1", "V3"]
    assert read(Bunch(maps=image(regions), labels=["Background", "V1", "V3"])) == ["V1", "V3"]
    with pytest.raises(ValueError, match="regions names 3 labels, and its image holds 2 regions"):
        read(Bunch(maps=image(regions), labels=["Background", "V1", "V2", "V3"]))
    with pytest.raises(ValueError, match="whose values are .*; expected a 3D image of whole numbers"):
        read(image(regions / 2))
    with pytest.raises(ValueError, match="regions: nilearn cannot read this image"):
        read("nowhere.nii")


def test_the_names_of_nsd(tmp_path):
    from scipy.io import savemat

    order = np.arange(1, 1501)[None]
    pictures = np.stack([np.arange(1500) * 7 + 1, np.arange(1500) + 1])
    savemat(tmp_path / "nsd_expdesign.mat", {"masterordering": order, "subjectim": pictures})
    found = nsd_names(tmp_path / "nsd_expdesign.mat", 1, [2])
    assert len(found) == 750
    assert found[:2] == ["nsd-05250", "nsd-05257"]
    with pytest.raises(ValueError, match="subject=3, sessions=.1.; expected 1 to 2, and sessions of 1 to 2"):
        nsd_names(tmp_path / "nsd_expdesign.mat", 3, [1])
    with pytest.raises(FileNotFoundError, match="expected nsd_expdesign.mat"):
        nsd_names(tmp_path / "none.mat", 1, [1])
    savemat(tmp_path / "other.mat", {"x": 1})
    with pytest.raises(ValueError, match="holds x; expected masterordering and subjectim"):
        nsd_names(tmp_path / "other.mat", 1, [1])


@pytest.fixture
def pictures(tmp_path):
    for name in "abcdf":
        Image.new("RGB", (8, 8), (ord(name), 0, 0)).save(tmp_path / f"{name}.png")
    return tmp_path


def test_pairing_never_takes_an_order(pictures, tmp_path):
    def pair(labels, images=pictures, **given):
        return shared.pair_by_name(labels, images, source="column 'x'", **({"size": 8} | given))

    found = pair(["faces/a.png", "n/a", float("nan"), "c.png"])
    assert (found.names, found.kept.tolist(), found.shown.tolist()) == (["a.png", "c.png"], [0, 3], [0, 1])
    assert "2 trials without a picture are left out" in found.text
    assert pair(["f", "a"]).names == ["a.png", "f.png"]
    memory = torch.rand(2, 3, 8, 8)
    assert pair(["C:\\stimuli\\f.png", "stimuli\\a.png"]).names == ["a.png", "f.png"]
    dotted = pair(["contrast 0.5", "contrast 0.1"], memory, names=["contrast 0.1.png", "contrast 0.5.png"])
    assert dotted.shown.tolist() == [1, 0]
    assert pair(["x.1"], torch.rand(3, 3, 8, 8), names=["x.png", "x.1.png", "x.2.png"]).names == ["x.1.png"]
    assert torch.equal(pair(["b", "a", "b"], memory, names=["a", "b"]).images, memory)
    with pytest.raises(ValueError, match="names is None for images in memory; expected a name for each"):
        pair(["a"], memory)
    with pytest.raises(ValueError, match="names 1 of 2 pictures that images do not hold, such as 'g.png'"):
        pair(["a.png", "g.png"])
    with pytest.raises(ValueError, match="names no picture in 2 trials"):
        pair(["", "n/a"])
    with pytest.raises(ValueError, match="images maps no file to 'b'"):
        pair(["a", "b"], {"a": pictures / "a.png"})
    assert len(pair(["a"], {"a": pictures / "a.png", "b": pictures / "gone.png"}).names) == 1  # nobody saw that one
    with pytest.raises(FileNotFoundError, match="images: 1 of 1 files are not there, such as .*gone.png"):
        pair(["a"], {"a": pictures / "gone.png"})
    with pytest.raises(ValueError, match="names 'a', which may be several pictures"):
        pair(["a"], memory, names=["one/a.png", "two/a.png"])
    with pytest.raises(ValueError, match="names holds 2 for 2 images, 'a' more than once"):
        pair(["a"], memory, names=["a", "a"])
    with pytest.raises(TypeError, match="images is a int; expected a folder"):
        pair(["a"], 3)


@pytest.mark.parametrize(
    ("read", "package"),
    [
        (lambda: BrainDataset.from_epochs("x", "y", windows="P1"), "mne"),
        (lambda: BrainDataset.from_nifti("x", "y", "z", "a"), "nilearn"),
        (lambda: BrainDataset.from_surface("x", "y", "z"), "nilearn"),
        (lambda: BrainDataset.from_h5("x", "y", "z"), "h5py"),
        (lambda: BrainDataset.from_bids("x", "y", "z", space="a"), "nilearn"),
        (lambda: BrainDataset.from_nwb("x", "y", image_column="z"), "pynwb"),
    ],
)
def test_a_missing_package_is_named(read, package, monkeypatch):
    monkeypatch.setattr(shared, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=f"needs the package {package}, which is not installed; .* pip install"):
        read()


def test_regions_that_would_be_others_are_refused(tmp_path):
    with h5py.File(tmp_path / "betas.hdf5", "w") as file:
        file["betas"] = np.random.default_rng(9).normal(size=(7, 4))
    numbers = np.array([-1, 0, 1, 2])
    given = {"names": NAMES, "targets": {1: "V1", 2: "V1"}}
    with pytest.raises(ValueError, match="targets calls several numbers of regions 'V1'"):
        BrainDataset.from_h5(tmp_path / "betas.hdf5", LABELS, PICTURES, regions=numbers, **given)
    with pytest.raises(ValueError, match=r"regions\['V1'\] holds -1, 0, 1, 2, ...; expected truth values"):
        BrainDataset.from_h5(tmp_path / "betas.hdf5", LABELS, PICTURES, regions={"V1": numbers}, names=NAMES)
    data = BrainDataset.from_h5(
        tmp_path / "betas.hdf5", LABELS, PICTURES, regions={"V1": (numbers == 1).astype(int)}, names=NAMES
    )
    assert data.targets == ["V1"]


def test_whole_numbers_of_one_file_say_nothing_of_another(tmp_path):
    for name, values in (("a", 300 * np.arange(7, dtype=np.int16)), ("b", np.arange(7.0))):
        with h5py.File(tmp_path / name, "w") as file:
            file["betas"] = values[:, None]
    data = BrainDataset.from_h5([tmp_path / "a", tmp_path / "b"], LABELS * 2, PICTURES, names=NAMES, standard="none")
    assert data.responses[0, :, 0].tolist() == [0.0, 3.0, 6.0] * 2


def test_a_session_without_trials():
    paired = pair_by_name(NAMES, PICTURES, source="a test", names=NAMES)
    values = np.array([[1.0], [2.0], [3.0]])
    sessions = [Session(0, lambda start, stop: values[:0]), Session(3, lambda start, stop: values[start:stop])]
    found = gather(sessions, paired, 1, standard="session")
    assert found[:, 0, 0].tolist() == pytest.approx([-(1.5**0.5), 0.0, 1.5**0.5])


def test_names_with_points_in_them():
    names = ["low/contrast 0.25.png", "low/contrast 0.50.png", "low/contrast 1.png"]
    for labels in (["contrast 0.25", "contrast 0.50"], ["low/contrast 0.25", "low/contrast 0.50"], names[:2]):
        assert pair_by_name(labels, PICTURES, source="a test", names=names).names == names[:2]


@pytest.mark.parametrize("rate", [500.0, 1024.0, 2048.0])
def test_every_time_point_has_a_name(rate):
    times = np.arange(-100, 400) / rate
    masks, _ = window_masks("times", times)
    assert len(masks) == 500
    assert all(mask.sum() == 1 for mask in masks.values())
    assert [float(label.removesuffix(" s")) for label in masks] == pytest.approx(times.tolist(), abs=5e-4)
