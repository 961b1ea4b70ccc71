import json

import numpy as np
import pytest
import torch

from vislens_interp.brain import load_brainactiv, simulate_algonauts, simulate_brainactiv, simulate_things_eeg
from vislens_interp.brain.simulate import CHANNELS


def test_files_are_those_of_the_releases(tmp_path, clouds):
    simulate_algonauts(tmp_path / "a", clouds[:8], subject=3)
    names = {
        str(path.relative_to(tmp_path / "a" / "subj03"))
        for path in (tmp_path / "a" / "subj03").rglob("*")
        if path.is_file()
    }
    assert {
        "training_split/training_fmri/lh_training_fmri.npy",
        "training_split/training_fmri/rh_training_fmri.npy",
        "training_split/training_images/train-0001_nsd-00007.png",
        "roi_masks/mapping_floc-faces.npy",
        "roi_masks/lh.floc-faces_challenge_space.npy",
    } <= names
    # As the published files are read: a mapping of numbers to names, in an array of one object.
    mapping = np.load(tmp_path / "a/subj03/roi_masks/mapping_floc-faces.npy", allow_pickle=True).item()
    assert mapping == {0: "Unknown", 1: "OFA", 2: "FFA-1", 3: "PPA"}

    simulate_brainactiv(tmp_path / "b", clouds[:8], shared=3)
    place = tmp_path / "b" / "subj01"
    betas = np.load(place / "lh.fmri_data.npy")
    assert (betas.shape, betas.dtype) == ((8, 3, 27), np.float16)
    assert np.load(place / "roi" / "rh.PPA_mask.npy").dtype == bool
    assert np.load(place / "session_id.npy").shape == (8, 3)
    assert np.isin(np.load(tmp_path / "b" / "shared1000.npy"), np.load(place / "coco_ids.npy")).all()

    simulate_things_eeg(tmp_path / "c", clouds[:8])
    for folder in "abc":
        said = json.loads((tmp_path / folder / "simulated.json").read_text(encoding="utf-8"))
        assert said["what"] == "simulated responses, no recordings"
        assert next(iter(said["planted"].values()))["features"] == ["red"]
    found = np.load(tmp_path / "c/sub-01/preprocessed_eeg_training.npy", allow_pickle=True).item()
    assert found["preprocessed_eeg_data"].shape == (8, 4, 17, 100)
    assert tuple(found["ch_names"]) == CHANNELS
    assert (found["times"][0], found["times"][-1]) == (-0.2, 0.79)


def test_subjects_share_the_truth_and_not_the_noise(tmp_path, clouds):
    truths = [simulate_brainactiv(tmp_path, clouds[:40], subject=subject) for subject in (1, 2)]
    assert torch.equal(truths[0].responses, truths[1].responses)
    first, second = (load_brainactiv(tmp_path, subject).responses for subject in (1, 2))
    signal = truths[0].responses[:, [1, 0, 2]]  # regions come in the order of their names
    noise = [found.mean(1) - signal * (found.mean(1) * signal).mean(0) for found in (first, second)]
    assert torch.corrcoef(torch.stack([part.flatten() for part in noise]))[0, 1].abs() < 0.3
    assert torch.corrcoef(torch.stack([first.mean(1).flatten(), second.mean(1).flatten()]))[0, 1] > 0.5


def test_the_same_seed_gives_the_same_files(tmp_path, clouds):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        simulate_brainactiv(tmp_path / folder, clouds[:10], seed=seed)
    a, b, c = ((tmp_path / folder / "subj01" / "lh.fmri_data.npy").read_bytes() for folder in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"repetitions": 0}, "repetitions=0; expected a whole number of at least 1"),
        ({"sessions": 1.5}, "sessions=1.5; expected a whole number"),
        ({"missing": 1.0}, "missing=1.0, shared=0 of 8 images"),
        ({"shared": 9}, "shared=9 of 8 images"),
        ({"rois": ["V1/V2"]}, "target 'V1/V2' cannot be part of a file's name"),
        ({"snr": 0.0}, "snr of 'OFA' is 0.0; expected a number above 0"),
    ],
)
def test_errors(tmp_path, clouds, given, message):
    with pytest.raises(ValueError, match=message):
        simulate_brainactiv(tmp_path, clouds[:8], **given)


def test_one_picture_is_not_enough(tmp_path, clouds):
    with pytest.raises(ValueError, match="images holds 1 pictures; expected at least 2"):
        simulate_algonauts(tmp_path, clouds[:1])
