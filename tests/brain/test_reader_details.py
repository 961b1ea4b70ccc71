"""Gaps in recordings, and names that look like numbers."""

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from nilearn.maskers import NiftiLabelsMasker, NiftiMasker

from vislens_interp.brain import BrainDataset

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
