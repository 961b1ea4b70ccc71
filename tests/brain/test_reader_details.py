"""Gaps in recordings, and names that look like numbers."""

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from vislens_interp.brain import BrainDataset

NAMES = ["001", "002", "003"]
SHOWN = [0, 2, 1, 0, 1, 2, 0]
LABELS = [NAMES[row] for row in SHOWN]
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
