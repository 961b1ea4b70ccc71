"""Simulate, load, compare: what was planted has to come back out of the published layouts."""

import math
import pickle
import shutil

import numpy as np
import pytest
import torch

from vislens_interp.brain import load_algonauts, load_brainactiv, simulate_algonauts, simulate_brainactiv
from vislens_interp.images import image_keys

SNR = {"OFA": 1.0, "FFA-1": 0.6, "PPA": 2.0}


@pytest.fixture(scope="module")
def algonauts(tmp_path_factory, clouds):
    folder = tmp_path_factory.mktemp("algonauts")
    return folder, simulate_algonauts(folder, clouds, snr=SNR)


@pytest.fixture(scope="module")
def brainactiv(tmp_path_factory, clouds):
    folder = tmp_path_factory.mktemp("brainactiv")
    return folder, simulate_brainactiv(folder, clouds, snr=SNR, shared=60, missing=0.1)


@pytest.fixture
def changed(tmp_path):
    """A copy that a test may damage."""

    def copy(folder):
        return shutil.copytree(folder, tmp_path / "copy")

    return copy


def test_algonauts_gives_back_what_was_planted(algonauts, clouds, correlate):
    folder, truth = algonauts
    data = load_algonauts(folder, rois=truth.targets, size=32)
    assert data.targets == ["OFA", "FFA-1", "PPA"]
    assert (data.subject, data.units, data.repetitions, len(data)) == ("subj01", "z-scored beta", 1, 300)
    assert data.names[:2] == ["nsd-00007", "nsd-00014"]
    assert image_keys(data.images[:]) == image_keys(clouds)
    expected = torch.tensor([math.sqrt(value) for value in truth.ceiling(3).values()])
    assert torch.allclose(correlate(data.mean_responses(), truth.responses), expected, atol=0.04)


def test_noiseless_responses_come_back_exactly(tmp_path, clouds, correlate):
    """With sessions of offsets and gains of their own, only z-scoring within sessions can do this."""
    truth = simulate_algonauts(tmp_path / "a", clouds, snr=1e4, sessions=3)
    data = load_algonauts(tmp_path / "a", rois=truth.targets)
    assert correlate(data.mean_responses(), truth.responses).min() > 0.998
    truth = simulate_brainactiv(tmp_path / "b", clouds, snr=1e4, sessions=3)
    found = {
        standard: load_brainactiv(tmp_path / "b", rois=truth.targets, standard=standard).mean_responses()
        for standard in ("session", "all", "none")
    }
    assert correlate(found["session"], truth.responses).min() > 0.998
    assert (correlate(found["all"], truth.responses) < correlate(found["session"], truth.responses) - 0.01).all()
    assert torch.allclose(correlate(found["all"], found["none"]), torch.ones(3), atol=1e-3)


def test_brainactiv_gives_back_what_was_planted(brainactiv, clouds, correlate):
    folder, truth = brainactiv
    data = load_brainactiv(folder, rois=truth.targets, size=32)
    assert (data.subject, data.units, data.repetitions, len(data)) == ("subj01", "z-scored beta", 3, 300)
    assert image_keys(data.images[:]) == image_keys(clouds)
    assert data.counts.float().mean().item() == pytest.approx(1 + 2 * 0.9, abs=0.06)
    share = (1 / data.counts.float()).mean().item()
    expected = torch.tensor([snr**2 / (snr**2 + share) for snr in SNR.values()])
    assert torch.allclose(correlate(data.mean_responses(), truth.responses) ** 2, expected, atol=0.06)
    for form in ("split_half", "ncsnr"):
        assert torch.allclose(data.noise_ceiling(form).r2, expected, atol=0.06)
        assert torch.allclose(data.noise_ceiling(form).ncsnr, torch.tensor(list(SNR.values())), rtol=0.15)


def test_vertices_below_the_threshold_are_left_out(brainactiv):
    folder, truth = brainactiv
    strict, lax = (load_brainactiv(folder, rois=truth.targets, t_threshold=t) for t in (5.0, 0.0))
    assert (lax.noise_ceiling().r2 < strict.noise_ceiling().r2).all()
    with pytest.raises(ValueError, match=r"ROI 'OFA' has no vertex in subj01 of BrainACTIV's layout \(t > 99\)"):
        load_brainactiv(folder, rois=["OFA"], t_threshold=99)


def test_parts_share_no_image(brainactiv):
    folder, _ = brainactiv
    parts = {part: load_brainactiv(folder, part=part) for part in ("train", "test", "all")}
    assert [len(part) for part in parts.values()] == [240, 60, 300]
    assert not set(parts["train"].keys) & set(parts["test"].keys)
    assert parts["test"].names == parts["all"].names[240:]
    # A session is standardised over all of its images, so that a part has the values that it has in the whole.
    assert torch.equal(parts["test"].responses.nan_to_num(), parts["all"].responses[240:].nan_to_num())


def test_averaged_files_of_the_first_release(brainactiv, changed, correlate):
    folder, truth = brainactiv
    copy = changed(folder)
    for side in ("lh", "rh"):
        file = copy / "subj01" / f"{side}.fmri_data.npy"
        np.save(file, np.nanmean(np.load(file).astype(np.float32), 1))
    data = load_brainactiv(copy, rois=truth.targets)
    assert (data.repetitions, data.units) == (1, "beta")
    values = sum(
        np.load(copy / "subj01" / f"{side}.fmri_data.npy")[:, 6:12].mean(1) for side in ("lh", "rh")
    )  # OFA, the first region after six vertices of none
    assert torch.allclose(data.mean_responses()[:, 0], torch.from_numpy(values / 2).float(), atol=1e-3)
    with pytest.raises(FileNotFoundError, match="standard='session', but responses are averaged over trials"):
        load_brainactiv(copy, standard="session")


def test_without_sessions(brainactiv, changed):
    folder, _ = brainactiv
    copy = changed(folder)
    (copy / "subj01" / "session_id.npy").unlink()
    assert load_brainactiv(copy).units == "beta, z-scored over all trials"
    with pytest.raises(
        FileNotFoundError, match="session_id.npy' is missing; .* It comes from scripts/download_nsd_fmri.py"
    ):
        load_brainactiv(copy, standard="session")


def test_hemispheres_and_regions_out_of_several(brainactiv):
    folder, _ = brainactiv
    both, left, right = (load_brainactiv(folder, rois=["OFA"], hemisphere=side) for side in ("both", "lh", "rh"))
    means = [data.mean_responses() for data in (left, right)]
    assert torch.allclose(both.mean_responses(), (means[0] + means[1]) / 2, atol=1e-4)
    joint = load_brainactiv(folder, rois={"faces": ["OFA", "FFA-1"], "PPA": ["PPA"]})
    assert joint.targets == ["faces", "PPA"]
    single = load_brainactiv(folder, rois=["OFA", "FFA-1"]).mean_responses().mean(1)
    assert torch.allclose(joint.mean_responses()[:, 0], single, atol=1e-4)
    assert load_brainactiv(folder).targets == ["FFA-1", "OFA", "PPA"]


def test_a_vertex_with_gaps_is_left_out(brainactiv, changed):
    folder, _ = brainactiv
    copy = changed(folder)
    file = copy / "subj01" / "lh.fmri_data.npy"
    betas = np.load(file)
    betas[5, 0, 7] = np.nan  # OFA's second vertex in a trial that was recorded
    np.save(file, betas)
    found = load_brainactiv(copy, rois=["OFA"])
    assert found.counts.equal(load_brainactiv(folder, rois=["OFA"]).counts)
    betas[:, :, 6:12] = np.nan
    np.save(file, betas)
    left_out = load_brainactiv(copy, rois=["OFA"])
    right = load_brainactiv(folder, rois=["OFA"], hemisphere="rh")
    assert torch.allclose(left_out.responses.nan_to_num(), right.responses.nan_to_num(), atol=1e-5)
    betas = np.load(folder / "subj01" / "lh.fmri_data.npy")
    betas[np.arange(6), 0, np.arange(6, 12)] = np.nan  # one gap in each
    np.save(file, betas)
    with pytest.raises(ValueError, match="ROI 'OFA': every vertex has missing values"):
        load_brainactiv(copy, rois=["OFA"], hemisphere="lh")


@pytest.mark.parametrize("load", [load_algonauts, load_brainactiv])
def test_unknown_things(load, algonauts, brainactiv):
    folder = algonauts[0] if load is load_algonauts else brainactiv[0]
    with pytest.raises(KeyError, match="ROI 'FFA1' is not in subj01 .* Closest: .*FFA-1.*HCP_MMP1"):
        load(folder, rois=["FFA1"])
    with pytest.raises(FileNotFoundError, match="has no subj02; expected the subject's folder in it. It comes from"):
        load(folder, 2)
    with pytest.raises(ValueError, match="hemisphere='left' is unknown; expected 'both', 'lh' or 'rh'"):
        load(folder, hemisphere="left")
    with pytest.raises(ValueError, match="part='validation' is unknown"):
        load(folder, part="validation")
    assert load(folder / "subj01", rois=["PPA"]).targets == ["PPA"]


def without(name):
    def change(place):
        (place / name).unlink()

    return change


def shape(name, *shape):
    def change(place):
        np.save(place / name, np.zeros(shape))

    return change


def hostile(place):
    class Calls:
        def __reduce__(self):
            return print, ("run",)

    (place / "roi_masks" / "mapping_floc-faces.npy").write_bytes(pickle.dumps(Calls()))


TRAINING = "training_split/training_fmri/lh_training_fmri.npy"
IMAGES = "training_split/training_images"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (without(TRAINING), FileNotFoundError, "lh_training_fmri.npy': no such file; .* Algonauts 2023"),
        (without("roi_masks/mapping_floc-faces.npy"), FileNotFoundError, "has no mapping_.*Algonauts 2023"),
        (without("roi_masks/rh.floc-faces_challenge_space.npy"), FileNotFoundError, "rh.floc-faces.*Algonauts 2023"),
        (without(f"{IMAGES}/train-0003_nsd-00021.png"), FileNotFoundError, "train-0003 is missing .*0004.*Algonauts"),
        (without(f"{IMAGES}/train-0300_nsd-02100.png"), ValueError, r"shape \(300, 24\) for 299 pictures"),
        (shape(TRAINING, 300, 9), ValueError, r"has shape \(24,\); expected \(9,\), as many vertices as"),
        (shape(TRAINING, 300), ValueError, r"has shape \(300,\) for 300 pictures"),
        (hostile, ValueError, "asks for builtins.print; .* Nothing in it was run"),
    ],
)
def test_damaged_algonauts(algonauts, changed, change, error, message):
    folder = changed(algonauts[0])
    change(folder / "subj01")
    with pytest.raises(error, match=message):
        load_algonauts(folder)


def test_algonauts_without_pictures(algonauts, changed):
    folder = changed(algonauts[0])
    shutil.rmtree(folder / "subj01" / IMAGES)
    with pytest.raises(FileNotFoundError, match="has no pictures such as train-0001_nsd-00013.png"):
        load_algonauts(folder)
    with pytest.raises(FileNotFoundError, match="lh_test_fmri.npy': no such file"):
        load_algonauts(folder, part="test")


def text(name):
    def change(place):
        (place / name).write_text("no array")

    return change


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (without("coco_ids.npy"), FileNotFoundError, "coco_ids.npy': no such file; .*download_nsd_fmri.py"),
        (without("rh.fmri_data.npy"), FileNotFoundError, "rh.fmri_data.npy': no such file"),
        (text("coco_ids.npy"), ValueError, "coco_ids.npy' cannot be read as an array"),
        (shape("lh.fmri_data.npy", 299, 3, 27), ValueError, r"has shape \(299, 3, 27\) for 300 images"),
        (shape("session_id.npy", 300, 2), ValueError, r"session_id.npy has shape \(300, 2\); expected \(300, 3\)"),
        (shape("roi/lh.OFA_mask.npy", 5), ValueError, r"lh.OFA_mask.npy has shape \(5,\); expected \(27,\)"),
        (shape("roi/lh.OFA_tval.npy", 1), ValueError, r"lh.OFA_tval.npy has shape \(1,\); expected \(27,\)"),
        (without("../images/100000.png"), FileNotFoundError, "1 of 300 pictures are missing, .*download_nsd_images.py"),
        (without("../shared1000.npy"), FileNotFoundError, "shared1000.npy': no such file"),
    ],
)
def test_damaged_brainactiv(brainactiv, changed, change, error, message):
    folder = changed(brainactiv[0])
    change(folder / "subj01")
    with pytest.raises(error, match=message):
        load_brainactiv(folder, part="all" if "images" in message or "arr" in message else "train")


def test_brainactiv_other_errors(brainactiv, changed):
    folder, _ = brainactiv
    with pytest.raises(ValueError, match="standard='run' is unknown"):
        load_brainactiv(folder, standard="run")
    copy = changed(folder)
    shutil.rmtree(copy / "subj01" / "roi")
    with pytest.raises(FileNotFoundError, match="has no lh.<ROI>_mask.npy; expected a mask for each region"):
        load_brainactiv(copy)
    copy = shutil.copytree(folder, copy, dirs_exist_ok=True)
    np.save(copy / "shared1000.npy", [])
    with pytest.raises(ValueError, match="part='test' of subj01 has no recorded image"):
        load_brainactiv(copy, part="test")


def test_a_missing_vertex_of_algonauts_is_left_out_of_its_region_alone(algonauts, changed):
    folder = changed(algonauts[0])
    whole = load_algonauts(folder)
    path = folder / "subj01" / "training_split" / "training_fmri" / "lh_training_fmri.npy"
    betas = np.load(path).astype(np.float32)
    masks = folder / "subj01" / "roi_masks"
    outside = np.flatnonzero(sum(np.load(file) for file in masks.glob("lh.*_challenge_space.npy")) == 0)
    inside = np.flatnonzero(np.load(masks / "lh.floc-faces_challenge_space.npy"))
    betas[3, outside[:1]] = np.nan
    np.save(path, betas)
    assert torch.equal(load_algonauts(folder).responses, whole.responses)
    betas[5, inside[0]] = np.nan
    np.save(path, betas)
    data = load_algonauts(folder)
    assert not data.responses.isnan().any()
    same = [torch.allclose(data.responses[..., k], whole.responses[..., k]) for k in range(len(whole.targets))]
    assert 0 < same.count(False) < len(same)
