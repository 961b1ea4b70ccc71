"""Gaps in recordings, and names that look like numbers."""

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from vislens_interp.brain import BrainDataset
from vislens_interp.brain.readers.trials import Session, gather, pair_by_name
from vislens_interp.brain.windows import window_masks

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
