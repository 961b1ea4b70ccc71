"""The closed loop: what leaves, what comes back, and that nothing is lost or counted twice."""

import csv
import json
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from vislens_interp.backends.retrieval import NetworkEmbedder, RetrievalBackend
from vislens_interp.brain import BrainDataset, Display, Experiment, StopRule, read_block
from vislens_interp.brain.experiment.blocks import ordered
from vislens_interp.brain.experiment.experiment import simulated
from vislens_interp.brain.experiment.surrogate import Surrogate
from vislens_interp.files import load_state
from vislens_interp.preprocess import Preprocess

SMALL = Display(size_px=16, size_deg=4.0)


def clouds(count=60, side=16, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return nn.functional.interpolate(torch.rand(count, 3, 4, 4, generator=draw), size=side, mode="bilinear")


def retrieval(pictures):
    """A real backend that takes milliseconds: the means of colours, and the gallery's nearest picture."""
    network = nn.AvgPool2d(8)
    return RetrievalBackend(NetworkEmbedder(network, Preprocess(16, [0.0] * 3, [1.0] * 3)), pictures)


class Painter(RetrievalBackend):
    """It makes pictures: the colours of a picture's sixteen places are shifted until they are those asked for."""

    name = "painter"

    def __init__(self, pictures):
        places = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
        super().__init__(NetworkEmbedder(places, Preprocess(16, [0.0] * 3, [1.0] * 3)), pictures)

    def decode(self, x, *, init_image, strength, seeds):
        shift = (x - self.encode(init_image)).view(-1, 3, 4, 4)
        return (init_image + nn.functional.interpolate(shift, size=self.size)).clamp(0, 1)


def redness(images):
    """Rates of two planted cells, for red and for blue."""
    red, blue = (images[:, 0] - images[:, 1]).mean((1, 2)), (images[:, 2] - images[:, 0]).mean((1, 2))
    return torch.stack([8 + 40 * red, 8 + 40 * blue], 1).clamp_min(0)


@pytest.fixture
def experiment(tmp_path):
    pictures = clouds()
    return Experiment(pictures, retrieval(pictures), ["red", "blue"], tmp_path / "exp", display=SMALL)


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    """Three blocks with pictures that are made, told by a planted cell."""
    pictures = clouds(150)
    rate = lambda images: redness(images)[:, :1]  # noqa: E731
    folder = tmp_path_factory.mktemp("loop") / "exp"
    found = Experiment(pictures, Painter(pictures), ["red"], folder, display=Display(16, 2.0), seed=1)
    blocks = []
    for number, design in enumerate(("explore", "mixed", "exploit")):
        blocks.append(found.ask(16, design))
        found.tell(simulated(blocks[-1], rate, number))
    return found, blocks, rate


def rates(block, rate, kind):
    chosen = [block.stimuli.index(trial.stimulus) for trial in block.trials if trial.kind == kind]
    return rate(block.images[chosen]).mean().item()


def test_the_loop_finds_what_was_planted(loop):
    found, blocks, rate = loop
    last = blocks[-1]
    assert rates(last, rate, "natural") > rates(last, rate, "control") + 1
    assert rates(last, rate, "made") > rates(last, rate, "natural") + 1
    status = found.status()
    assert (status.blocks, status.trials, status.answered, status.pending, status.stop) == (3, 48, 48, (), None)
    assert status.r["red"] > 0.3
    assert status.best["red"][1] == max(row[0] for row in found.responses.values())
    assert "3 blocks, 48 of 48 trials answered" in str(status)
    expected, unsure = found.predict(blocks[-1].images)
    assert torch.corrcoef(torch.stack([expected, rate(blocks[-1].images)[:, 0].double()]))[0, 1] > 0.5
    assert (unsure > 0).all()


def test_a_block_is_a_folder_that_a_laboratory_can_run(loop):
    block = loop[1][0]
    with (block.folder / "conditions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial_id"] for row in rows] == [trial.trial_id for trial in block.trials]
    assert rows[0] | {"image": "", "kind": ""} == {
        "trial_id": "b001-t001", "image": "", "trigger": "1", "kind": "", "size_px": "16", "size_deg": "2.0",
        "duration": "0.25", "gap": "0.75",
    }  # fmt: skip
    for row in rows:
        with Image.open(block.folder / row["image"]) as picture:
            assert picture.size == (16, 16)
    events = pd.read_csv(block.folder / "events.tsv", sep="\t")
    assert events.columns.tolist() == ["onset", "duration", "trial_type", "stim_file", "trial_id", "trigger"]
    assert events.stim_file.tolist() == [f"{trial.stimulus}.png" for trial in block.trials]
    assert (block.folder / "stimuli" / events.stim_file[0]).is_file()
    kinds = [trial.kind for trial in block.trials]
    assert (kinds.count("control"), kinds.count("made"), kinds.count("natural")) == (4, 6, 6)
    assert {place // 4 for place, kind in enumerate(kinds) if kind == "control"} == {0, 1, 2, 3}  # interleaved
    said = json.loads((block.folder / "manifest.json").read_text())
    assert said["backend"] == "painter"
    assert {"seed", "seeds", "angle", "strength", "sha256", "display"} <= set(said)
    made = [trial for trial in block.trials if trial.kind == "made"]
    assert set(said["seeds"]) == {trial.stimulus for trial in made}
    found, name = loop[0], made[0].stimulus  # the manifest makes its pictures again
    goal = load_state(block.folder / "embeddings.safetensors", "block")["goals"][name].float()
    again = found.backend.decode(
        goal.view(1, *found.backend.shape), strength=said["strength"], seeds=[said["seeds"][name]],
        init_image=found.gallery[[found.names.index(made[0].source)]],
    )  # fmt: skip
    assert (again[0] - block.images[block.stimuli.index(name)]).abs().max() < 1 / 255
    again = read_block(block.folder)
    assert again.trials == block.trials
    assert torch.equal(again.images, block.images)


def test_no_picture_comes_twice_in_a_row():
    for seed in range(20):
        order = ordered(["a", "b", "c", "d"], ["d"], 3, seed)
        assert sorted(order) == sorted("abcd" * 3)
        assert all(first != second for first, second in pairwise(order))
    assert ordered(["a"], [], 3, 0) == ["a"] * 3


def test_every_design_asks_for_what_it_says(experiment):
    first = experiment.ask(20, "explore", made=0)
    experiment.tell(simulated(first, redness, 0))
    experiment.fit()
    blocks = {
        design: experiment.ask(9, design, made=0, controls=1 / 3, target="red") for design in ("exploit", "contrast")
    }
    shown = [trial.source for block in (first, *blocks.values()) for trial in block.trials]
    assert len(set(shown)) == len(shown)  # no natural picture comes back

    def chosen(block):
        return np.array([trial.expected for trial in block.trials if trial.target == "red"])

    free = [row for row, name in enumerate(experiment.names) if name not in {t.source for t in first.trials}]
    expected = experiment.predict(clouds()[free], "red")[0]
    assert chosen(blocks["exploit"]).min() >= expected.sort(descending=True).values[8].item() - 1e-6
    assert np.ptp(chosen(blocks["contrast"])) > np.ptp(chosen(blocks["exploit"]))
    with pytest.raises(KeyError, match="target 'green' is not in this experiment. Closest: red"):
        experiment.ask(4, target="green")
    with pytest.raises(ValueError, match="n=50, and 22 of 60 pictures were not shown yet"):
        experiment.ask(50)
    with pytest.raises(ValueError, match="design='best' is unknown; expected 'explore'"):
        experiment.ask(4, "best")


def test_exploring_leaves_the_least_unknown():
    draw = np.random.default_rng(0)
    x = np.concatenate([draw.normal(size=(20, 3)) * 0.01, np.eye(3) * 3, -np.eye(3) * 3])
    surrogate = Surrogate(x).fit(x, np.full((26, 1), np.nan), np.zeros((26, 1)))
    chosen = surrogate.spread_out(x, 0, 3, taken=[25])
    assert set(chosen) < set(range(20, 25))
    assert {(row - 20) % 3 for row in chosen} == {0, 1, 2}  # the opposite of a picture tells nothing new
    assert sorted(surrogate.spread_out(x[:3], 0, 9)) == [0, 1, 2]


def test_the_surrogate_learns_a_planted_line_and_knows_what_it_does_not():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(400, 6))
    truth = x @ np.array([3.0, 0, 0, -2, 0, 0]) + 20
    means = np.full((400, 2), np.nan)
    means[:100, 0] = truth[:100] + draw.normal(size=100)
    surrogate = Surrogate(x).fit(x, means, np.ones((400, 2)))
    expected, unsure = surrogate.predict(x[100:], 0)
    assert np.corrcoef(expected, truth[100:])[0, 1] > 0.98
    errors = expected - truth[100:]
    assert 0.5 < np.sqrt((errors**2).mean()) / np.sqrt((unsure**2).mean()) < 2  # it is as wrong as it says
    assert unsure.mean() < 0.5 * surrogate.predict(x[100:], 1)[1].mean() * truth.std()  # nothing is known of this one
    direction = surrogate.direction(surrogate.posterior(0).weights)
    assert direction @ np.array([3.0, 0, 0, -2, 0, 0]) / np.sqrt(13) > 0.95
    ways = surrogate.draws(0, 2000, seed=0)
    assert np.allclose(
        np.cov(ways), surrogate.posterior(0).covariance, atol=0.1 * np.ptp(surrogate.posterior(0).covariance)
    )


def test_responses_come_in_parts_late_twice_and_with_gaps(experiment, tmp_path):
    with pytest.raises(KeyError, match="'b001-t001' was never asked for. Call ask first."):
        experiment.tell({"b001-t001": [1, 2]})
    block = experiment.ask(8, repetitions=2)
    ids = [trial.trial_id for trial in block.trials]
    assert len(ids) == 16
    assert experiment.tell({ids[0]: [1.0, np.nan], ids[1]: {"red": 2.0, "blue": 3.0}}) == 3
    assert experiment.tell({ids[0]: [1.0, np.nan], ids[1]: [2.0, 3.0]}) == 0
    assert experiment.tell({ids[1]: [np.nan, np.nan]}) == 0  # a gap takes nothing away
    assert experiment.tell({ids[0]: [np.nan, 5.0]}) == 1
    with pytest.raises(ValueError, match="has the response 2 already, and 7 was told; .* Pass replace=True"):
        experiment.tell({ids[1]: [7.0, 3.0]})
    assert experiment.tell({ids[1]: [7.0, 3.0]}, replace=True) == 1
    assert experiment.responses == {ids[0]: [1.0, 5.0], ids[1]: [7.0, 3.0]}
    status = experiment.status()
    assert (status.answered, len(status.pending)) == (2, 14)
    frame = pd.DataFrame({"trial_id": ids[2:4], "red": [1.0, 2.0], "blue": [3.0, 4.0], "comment": ["", "blinked"]})
    frame.to_csv(experiment.folder.parent / "answers.csv", index=False)
    assert experiment.tell(experiment.folder.parent / "answers.csv") == 4
    assert experiment.tell(frame) == 0
    gaps = pd.DataFrame({"trial_id": ids[8:10], "red": [1, None], "blue": [None, 4]})
    assert experiment.tell(gaps.convert_dtypes()) == 2  # pandas' own integers, whose gaps are pd.NA
    events = pd.read_csv(block.folder / "events.tsv", sep="\t")  # the template, filled in by its reader
    events.assign(red=range(16), blue=2.0).iloc[6:8].to_csv(tmp_path / "events.tsv", sep="\t", index=False)
    assert experiment.tell(tmp_path / "events.tsv") == 4
    assert experiment.responses[ids[7]] == [7.0, 2.0]
    (tmp_path / "broken.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TypeError, match="windows= belongs to epochs and NWB files"):
        experiment.tell(frame, windows="N170")
    before = experiment.responses
    for told, error, message in (
        ({"b001-t99": [1, 2]}, KeyError, "trial 'b001-t99' was never asked for. Closest: b001-t"),
        ({ids[5]: 1.0}, ValueError, "expected 2 finite numbers, of 'red', 'blue'"),
        ({ids[5]: [np.inf, 1]}, ValueError, "expected 2 finite numbers"),
        ({ids[5]: ["much", 1]}, ValueError, "expected 2 finite numbers"),
        ({ids[5]: {"rde": 1}}, KeyError, "'rde' is no target. Closest: red"),
        (frame.rename(columns={"red": "a", "blue": "b"}), KeyError, "expected the experiment's targets 'red', 'blue'"),
        (frame.rename(columns={"trial_id": "x"}), KeyError, "trial_column='trial_id' is not in responses"),
        (pd.concat([frame, frame.assign(red=9)]), ValueError, "comes twice in responses, with different numbers"),
        (tmp_path / "none.csv", FileNotFoundError, "none.csv': no such file; expected a table"),
        (tmp_path / "broken.csv", ValueError, "broken.csv' cannot be read as a table"),
        (7, TypeError, "responses is 7; expected a mapping from trial ids"),
    ):
        with pytest.raises(error, match=message):
            experiment.tell(told)
    assert experiment.responses == before


@pytest.mark.filterwarnings("default")
def test_epochs_and_spikes_come_back_by_trial(experiment, tmp_path):
    import mne

    block = experiment.ask(6)
    ids = [trial.trial_id for trial in block.trials][::-1]  # in another order than they were asked for
    values = np.zeros((6, 2, 21))
    values[..., 12:17] = (np.arange(12).reshape(6, 2, 1) + 1) * 1e-6
    epochs = mne.EpochsArray(
        values, mne.create_info(["red", "blue"], 100.0, "eeg"), tmin=-0.05, verbose="error",
        metadata=pd.DataFrame({"trial_id": ids}),
    )  # fmt: skip
    assert experiment.tell(epochs, windows=(0.08, 0.1)) == 12
    assert experiment.responses[ids[2]] == pytest.approx([5.0, 6.0])
    with pytest.raises(TypeError, match="responses are epochs and windows is missing"):
        experiment.tell(epochs)
    other = epochs.copy()
    other.metadata = pd.DataFrame({"trial_id": [*ids[:5], "b009-t001"]})
    with pytest.raises(ValueError, match="paired by trial id: column 'trial_id' of epochs.metadata names 1 of 6"):
        experiment.tell(other, windows=(0.08, 0.1))
    other.metadata = pd.DataFrame({"trial_id": [*ids[:5], ids[0]]})
    with pytest.raises(ValueError, match="comes twice in responses, with different numbers"):
        experiment.tell(other, windows=(0.08, 0.1))
    epochs.save(tmp_path / "answers-epo.fif", fmt="double", verbose="error")
    assert experiment.tell(tmp_path / "answers-epo.fif", windows=(0.08, 0.1), replace=True) <= 12

    from datetime import UTC, datetime

    from pynwb import NWBHDF5IO, NWBFile

    file = NWBFile("a session", "one", datetime(2026, 1, 1, tzinfo=UTC))
    file.add_trial_column("trial_id", "of the experiment")
    for place, trial in enumerate(ids):
        file.add_trial(start_time=float(place), stop_time=place + 0.2, trial_id=trial)
    file.add_unit_column("cell", "its name")
    for cell in ("red", "blue"):
        times = np.concatenate([place + np.linspace(0.06, 0.14, place + 1) for place in range(6)])
        file.add_unit(spike_times=times, cell=cell)
    with NWBHDF5IO(tmp_path / "answers.nwb", "w") as io:
        io.write(file)
    experiment.tell(tmp_path / "answers.nwb", label="cell", replace=True)
    assert experiment.responses[ids[4]] == [5.0, 5.0]
    assert experiment.status().pending == ()


def test_another_process_goes_on(experiment, tmp_path):
    pictures = clouds()
    block = experiment.ask(8)
    experiment.tell(simulated(block, redness))
    other = Experiment(pictures, retrieval(pictures), ["red", "blue"], tmp_path / "exp", display=SMALL)
    assert str(other.status()) == str(experiment.status())
    assert repr(other) == f"Experiment({str(tmp_path / 'exp')!r}, {len(pictures)} pictures, targets=['red', 'blue'])"
    assert "1 blocks, 8 of 8 trials answered" in other._repr_html_()
    assert repr(block) == f"Block(1, 8 trials of 8 pictures, {str(block.folder)!r})"
    following = other.ask(6, "mixed")
    assert following.number == 2
    assert len(experiment.blocks()) == 2
    with pytest.raises(
        ValueError, match=r"is of an experiment with another targets \(\['red', 'blue'\], now \['red'\]"
    ):
        Experiment(pictures, retrieval(pictures), ["red"], tmp_path / "exp", display=SMALL)
    with pytest.raises(ValueError, match="with another gallery"):
        Experiment(pictures.flip(0), retrieval(pictures), ["red", "blue"], tmp_path / "exp", display=SMALL)


def test_what_is_known_before_is_learnt_from(tmp_path):
    pictures = clouds()
    data = BrainDataset.from_arrays(pictures, redness(pictures), targets=["red", "blue"])
    found = Experiment(data, retrieval(pictures), ["blue"], tmp_path / "exp", display=SMALL)
    expected = found.predict(clouds(seed=3))[0]
    assert torch.corrcoef(torch.stack([expected, redness(clouds(seed=3))[:, 1].double()]))[0, 1] > 0.8
    with pytest.raises(KeyError, match="target 'bleu' is not in this experiment. Closest: blue"):
        found.predict(pictures[:2], "bleu")
    with pytest.raises(
        ValueError, match="names 'image_00000' more than once .2 such names.; expected each picture once"
    ):
        Experiment(data.take([0, 0, 1, 1, *range(2, 20)]), retrieval(pictures), folder=tmp_path / "other")
    with pytest.raises(ValueError, match="targets is None for pictures without responses"):
        Experiment(pictures, retrieval(pictures), folder=tmp_path / "other")
    with pytest.raises(ValueError, match="holds 4 pictures; expected at least 8"):
        Experiment(pictures[:4], retrieval(pictures), ["red"], tmp_path / "other")


def test_it_says_when_to_stop(tmp_path):
    pictures = clouds()
    given = {"display": SMALL, "stop_rule": StopRule(trials=40, patience=2, gain=0.1)}
    found = Experiment(pictures, retrieval(pictures), ["red"], tmp_path / "flat", **given)
    for number in range(4):
        block = found.ask(6)
        assert found.status().stop is None
        found.tell({trial.trial_id: float(trial.kind == "control") * (number < 2) for trial in block.trials})
    assert found.status().stop == "no better picture in 2 blocks (by 0.1 SD)"
    found = Experiment(pictures, retrieval(pictures), ["red"], tmp_path / "long", **given)
    block = found.ask(10, repetitions=4)
    found.tell(dict.fromkeys([trial.trial_id for trial in block.trials], 1.0))
    assert found.status().stop == "40 trials are answered, of a budget of 40"


def test_broken_files_are_named(experiment, tmp_path):
    block = experiment.ask(6)
    picture = block.folder / "stimuli" / f"{block.stimuli[0]}.png"
    Image.new("RGB", (16, 16)).save(picture)
    with pytest.raises(ValueError, match="is missing or was changed; expected the picture as it was written"):
        read_block(block.folder)
    (experiment.folder / "responses.json").write_text("[1]")
    with pytest.raises(ValueError, match="responses.json': responses is a list; expected a dictionary"):
        experiment.tell({})
    (experiment.folder / "responses.json").write_text("{")
    with pytest.raises(ValueError, match="responses.json': responses cannot be restored"):
        experiment.status()
    (experiment.folder / "responses.json").write_text('{"b001-t001": [1]}')
    with pytest.raises(ValueError, match="'b001-t001' has 1 numbers; expected 2"):
        experiment.fit()
    (block.folder / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="manifest.json' was not written by vislens_interp"):
        experiment.blocks()
    with pytest.raises(FileNotFoundError, match="holds no manifest.json; expected a folder of Experiment.ask"):
        read_block(tmp_path)
    (experiment.folder / "experiment.json").write_text("no")
    with pytest.raises(ValueError, match="experiment.json' is truncated or no JSON"):
        Experiment(clouds(), retrieval(clouds()), ["red", "blue"], experiment.folder, display=SMALL)


KILLS = """
import os, random, signal, sys, time
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from test_experiment import SMALL, clouds, redness, retrieval
from vislens_interp.brain import Experiment
from vislens_interp.brain.experiment.experiment import simulated

pictures = clouds(200)
backend = retrieval(pictures)

def go_on(folder, blocks):
    found = Experiment(pictures, backend, ["red", "blue"], folder, display=SMALL)
    while True:
        done = found.blocks(pictures=True)
        if done and found.status().pending:
            answers = list(simulated(done[-1], redness, done[-1].number).items())
            for start in range(0, len(answers), 3):  # a laboratory that tells everything it has, again and again
                found.tell(dict(answers[: start + 3]))
        elif len(done) >= blocks:
            return
        else:
            found.ask(8, "mixed")

draw, kills, blocks = random.Random(0), 0, 4
while True:
    child = os.fork()
    if child == 0:
        go_on(sys.argv[3], blocks)
        os._exit(0)
    if kills < 20:
        time.sleep(draw.uniform(0.02, 0.5))
        os.kill(child, signal.SIGKILL)
    _, state = os.waitpid(child, 0)
    kills += os.WIFSIGNALED(state)
    if os.WIFEXITED(state):
        assert os.WEXITSTATUS(state) == 0
        if kills == 20:
            break
        blocks += 2  # it was done before the kill: the next ones get more work
go_on(sys.argv[2], blocks)  # one that nobody interrupts
print(kills)
"""


def contents(folder):
    blocks = {path.name: json.loads((path / "manifest.json").read_text()) for path in sorted(folder.glob("block_*"))}
    return blocks, json.loads((folder / "responses.json").read_text())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills need os.fork")
def test_twenty_kills_lose_nothing_and_count_nothing_twice(tmp_path):
    """Killed between and within calls, the experiment ends as one that was never interrupted."""
    arguments = [os.path.dirname(__file__), str(tmp_path / "whole"), str(tmp_path / "killed")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLS, *arguments],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 20, done.stderr
    whole, killed = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    assert whole == killed
    trials = [trial["trial_id"] for block in killed[0].values() for trial in block["trials"]]
    assert len(trials) == len(set(trials)) == 8 * len(killed[0]) >= 32
    assert set(killed[1]) == set(trials)
    assert not [path.name for path in (tmp_path / "killed").iterdir() if path.name.endswith((".tmp", ".old"))]
