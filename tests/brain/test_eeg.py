import math
import pickle
import shutil

import numpy as np
import pytest
import torch

from vislens_interp.brain import load_things_eeg, simulate_things_eeg
from vislens_interp.brain.windows import WINDOWS
from vislens_interp.images import image_keys

SNR = {"Oz": 1.0, "PO7": 0.5, "P3": 2.0}
LATE = "ignore:windows. .* reach beyond 0.2 s"


@pytest.fixture(scope="module")
def things(tmp_path_factory, clouds):
    folder = tmp_path_factory.mktemp("things")
    channels = {"Oz": "feature", "PO7": "mixture", "P3": "spatial"}
    return folder, simulate_things_eeg(
        folder, clouds, test_images=clouds[:12].flip(3), channels=list(channels), snr=SNR, test_repetitions=9
    )


def points(*names):
    """Time points of windows, of 100 from -0.2 s on."""
    times = np.round(np.linspace(-0.2, 0.79, 100), 2)
    return np.any([(times >= WINDOWS[name][0]) & (times <= WINDOWS[name][1]) for name in names], axis=0)


@pytest.mark.filterwarnings(LATE)
def test_what_was_planted_comes_back(things, clouds, correlate):
    folder, truth = things
    data = load_things_eeg(folder, size=32)
    assert data.targets == ["Oz", "PO7", "P3"]
    assert (data.subject, data.units, data.repetitions, len(data)) == ("sub-01", "noise-normalised EEG", 4, 300)
    assert image_keys(data.images[:]) == image_keys(clouds)
    expected = torch.tensor(list(truth.ceiling(4).values()))
    assert torch.allclose(correlate(data.mean_responses(), truth.responses) ** 2, expected, atol=0.06)
    for form in ("split_half", "ncsnr"):
        assert torch.allclose(data.noise_ceiling(form).r2, expected, atol=0.06)


@pytest.mark.filterwarnings(LATE)
def test_the_papers_value_is_the_mean_over_all_windows(things):
    folder = things[0]
    recorded = np.load(folder / "sub-01" / "preprocessed_eeg_training.npy", allow_pickle=True).item()
    assert recorded["preprocessed_eeg_data"].shape == (300, 4, 3, 100)
    everything = points(*WINDOWS)
    assert everything.sum() == 66  # 0.05 to 0.70 s: neighbours leave no time point between them
    expected = recorded["preprocessed_eeg_data"][..., everything].mean(-1)
    assert np.allclose(load_things_eeg(folder).responses.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("window", ["C1", "P1", "N170"])
def test_single_windows(things, window, recwarn):
    folder = things[0]
    recorded = np.load(folder / "sub-01" / "preprocessed_eeg_training.npy", allow_pickle=True).item()
    data = load_things_eeg(folder, windows=window, channels=["PO7"])
    expected = recorded["preprocessed_eeg_data"][:, :, 1, points(window)].mean(-1)
    assert data.targets == ["PO7"]
    assert np.allclose(data.responses[..., 0].numpy(), expected, atol=1e-5)
    assert not recwarn
    # The signal is constant, so a window's ratio follows from the number of its points.
    snr = SNR["PO7"] * math.sqrt(points(window).sum() / points(*WINDOWS).sum())
    assert data.noise_ceiling("ncsnr").ncsnr.item() == pytest.approx(snr, abs=0.12)


def test_intervals_and_lists(things):
    folder, _ = things
    data = load_things_eeg(folder, windows=["P1", (0.1, 0.15)], channels=["P3", "Oz"])
    assert data.targets == ["P3 P1", "P3 0.1-0.15 s", "Oz P1", "Oz 0.1-0.15 s"]
    for name, windows in (("P1", "P1"), ("0.1-0.15 s", (0.1, 0.15))):
        single = load_things_eeg(folder, windows=windows, channels=["Oz"])
        assert torch.equal(single.responses, data.select([f"Oz {name}"]).responses)
    baseline = load_things_eeg(folder, windows=(-0.2, 0.0)).noise_ceiling("ncsnr")
    assert (baseline.r2 < 0.25).all()


def test_late_windows_warn(things):
    with pytest.warns(UserWarning, match=r"windows: LPP \(to 0.70 s\) reach beyond 0.2 s, when the next image came on"):
        load_things_eeg(things[0], windows="LPP")
    with pytest.warns(UserWarning, match=r"all \(to 0.70 s\)"):
        load_things_eeg(things[0])


def test_the_test_part_and_other_places_of_pictures(things, tmp_path, clouds):
    folder = things[0]
    data = load_things_eeg(folder, part="test", windows="P1", size=32)
    assert data.responses.shape == (12, 9, 3)
    assert image_keys(data.images[:]) == image_keys(clouds[:12].flip(3))
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "image_metadata.npy").unlink()
    assert load_things_eeg(copy, windows="P1").images.paths == sorted((copy / "training_images").rglob("*.png"))
    (copy / "image_set").mkdir()
    (copy / "training_images").rename(copy / "image_set" / "training_images")
    assert len(load_things_eeg(copy / "sub-01", windows="P1")) == 300
    assert len(load_things_eeg(copy, windows="P1", images=copy / "image_set")) == 300
    with pytest.raises(
        FileNotFoundError, match="has no training_images; expected the folder of pictures. Pass images="
    ):
        load_things_eeg(copy, windows="P1", images=copy / "sub-01")


def test_a_bare_pickle_is_read_too(things, tmp_path):
    """How a later release of the same data was written."""
    copy = shutil.copytree(things[0], tmp_path / "copy")
    file = copy / "sub-01" / "preprocessed_eeg_training.npy"
    file.write_bytes(pickle.dumps(np.load(file, allow_pickle=True).item(), 4))
    before, after = (load_things_eeg(folder, windows="P1") for folder in (things[0], copy))
    assert torch.equal(before.responses, after.responses)


class Runs:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def test_a_hostile_file_runs_nothing(things, tmp_path):
    copy = shutil.copytree(things[0], tmp_path / "copy")
    marker = tmp_path / "marker"
    found = {"preprocessed_eeg_data": np.zeros((300, 4, 3, 100)), "ch_names": [Runs(marker)], "times": np.zeros(100)}
    for content in (found, np.array(found, dtype=object)):
        np.save(copy / "sub-01" / "preprocessed_eeg_training.npy", content, allow_pickle=True)
        with pytest.raises(ValueError, match="asks for _?io.open.* Nothing in it was run"):
            load_things_eeg(copy)
    for name in ("train", "test"):
        np.save(copy / "image_metadata.npy", {f"{name}_img_concepts": Runs(marker)}, allow_pickle=True)
    shutil.copy(things[0] / "sub-01" / "preprocessed_eeg_training.npy", copy / "sub-01")
    with pytest.raises(ValueError, match="image_metadata.npy' asks for"):
        load_things_eeg(copy)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"channels": ["PO77"]}, KeyError, "channel 'PO77' is not in sub-01. Closest: PO7"),
        ({"windows": "N170b"}, KeyError, "window 'N170b' is unknown. Closest: N170"),
        ({"windows": (0.3, 0.2)}, ValueError, "window 0.3-0.2 s holds no time point; .* start first"),
        ({"windows": (0.9, 1.2)}, ValueError, "holds no time point; .* within -0.2 to 0.79"),
        ({"windows": [0.1]}, ValueError, "windows holds 0.1; expected a name, or an interval"),
        ({"part": "train"}, ValueError, "part='train' is unknown; expected 'training' or 'test'"),
        ({"subject": 3}, FileNotFoundError, "has no sub-03 or sub-3; .*osf.io/anp5v"),
    ],
)
def test_unknown_things(things, given, error, message):
    with pytest.raises(error, match=message):
        load_things_eeg(things[0], **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": None}, "has no times .*; expected preprocessed_eeg_data, ch_names, times"),
        ({"times": np.zeros(99)}, r"shape \(300, 4, 3, 100\) for 3 channels and 99 times"),
        ({"ch_names": ["Oz"]}, "for 1 channels"),
        ({"preprocessed_eeg_data": np.zeros((7, 4, 3, 100))}, "unequal counts: 300 in training_images, 7 in sub-01"),
        (
            {"preprocessed_eeg_data": np.full((300, 4, 3, 100), np.nan)},
            "every value of target 'Oz', 'PO7', 'P3' is NaN",
        ),
        ({"preprocessed_eeg_data": [1.0]}, r"has shape \(\)"),
    ],
)
def test_damage(things, tmp_path, change, message):
    copy = shutil.copytree(things[0], tmp_path / "copy")
    file = copy / "sub-01" / "preprocessed_eeg_training.npy"
    found = np.load(file, allow_pickle=True).item() | change
    np.save(file, {key: value for key, value in found.items() if value is not None}, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        load_things_eeg(copy, windows="P1")


def test_missing_files(things, tmp_path):
    copy = shutil.copytree(things[0], tmp_path / "copy")
    listed = (copy / "image_metadata.npy").read_bytes()
    for wrong in ({}, {"train_img_concepts": ["a"], "train_img_files": []}):
        np.save(copy / "image_metadata.npy", np.array(wrong, dtype=object), allow_pickle=True)
        with pytest.raises(ValueError, match="image_metadata.npy': the list of pictures cannot be restored"):
            load_things_eeg(copy, windows="P1")
    (copy / "image_metadata.npy").write_bytes(listed)
    next((copy / "training_images").rglob("*.png")).unlink()
    with pytest.raises(FileNotFoundError, match="1 of 300 pictures are missing, .*osf.io/y63gw"):
        load_things_eeg(copy, windows="P1")
    (copy / "sub-01" / "preprocessed_eeg_training.npy").unlink()
    with pytest.raises(FileNotFoundError, match="no such file; expected preprocessed EEG. It comes from THINGS-EEG2"):
        load_things_eeg(copy, windows="P1")
