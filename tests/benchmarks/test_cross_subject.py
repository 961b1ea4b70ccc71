"""Landscapes of one subject judged by another: weights, draws and pairs by hand; a small run that ends in a page."""

import json
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.common import v4_sessions as v4_data
from benchmarks.cross_subject import judging, made, subjects
from benchmarks.cross_subject import report as page
from benchmarks.cross_subject import run as cross_subject
from benchmarks.v4_recorded import methods
from vislens_interp.brain.planted import Tuning
from vislens_interp.preprocess import Preprocess

# ---- arithmetic -----------------------------------------------------------------------------------------------------


def made_up(pictures=40, neurons=6, seed=0):
    recorded = np.random.default_rng(seed).normal(size=(pictures, neurons))
    cell = {"rows": list(range(100, 100 + pictures)), "recorded": recorded.tolist(), "population_sd": 0.5}
    return cell, {"encoder": (recorded / 2).tolist(), "population_sd": 0.25}, recorded


def test_a_population_changes_by_the_mean_of_what_edits_became():
    cell, encoder, recorded = made_up()
    judge = judging.Judge(cell, encoder, 0, 0)
    zero = judge.weights({"rows": [100, 103], "counts": [1, 1]})
    after = judge.weights({"rows": [101, 102], "counts": [3, 1]})
    by_hand = (0.75 * recorded[1] + 0.25 * recorded[2]) - recorded[[0, 3]].mean(0)
    (found,) = judge.population("recorded", after[None], zero)
    assert found.value == pytest.approx(by_hand.mean() / 0.5)
    np.testing.assert_allclose(judge.by_neuron(after[None], zero)[0], by_hand)
    (seen,) = judge.population("encoder", after[None], zero)
    assert seen.value == pytest.approx(found.value)  # half the response in SDs half as large
    (same,) = judge.population("recorded", zero[None], zero)
    assert same.value == 0
    assert np.abs(same.draws).max() < 1e-9


def test_few_pictures_make_a_wide_interval():
    """Edits that all become the same five pictures are known less well than edits that become many."""
    cell, _, _ = made_up(pictures=400, neurons=200)
    judge = judging.Judge(cell, None, 0, 0)
    zero = np.full(400, 1 / 400)
    few = judge.weights({"rows": list(range(100, 105)), "counts": [80] * 5})
    many = judge.weights({"rows": list(range(100, 300)), "counts": [2] * 200})
    narrow, wide = judge.population("recorded", np.stack([many, few]), zero)
    assert np.std(wide.draws) > 3 * np.std(narrow.draws)


def test_draws_cover_what_a_mean_of_neurons_and_pictures_varies_by():
    """Neurons and pictures with effects of their own: the SD of draws is that of the closed form."""
    rng = np.random.default_rng(1)
    neurons, pictures = 40, 300
    gain, own = rng.normal(1, 1, neurons), rng.normal(size=pictures)
    half = np.arange(pictures) < 150
    recorded = half[:, None] * gain + own[:, None]
    cell = {"rows": list(range(pictures)), "recorded": recorded.tolist(), "population_sd": 1.0}
    judge = judging.Judge(cell, None, 0, 0)
    (found,) = judge.population("recorded", (half / 150)[None], ~half / 150)
    assert found.value == pytest.approx(gain.mean() + own[half].mean() - own[~half].mean())
    expected = (gain.var() / neurons + own[half].var() / 150 + own[~half].var() / 150) ** 0.5
    assert np.std(found.draws) == pytest.approx(expected, rel=0.1)


def test_units_are_drawn_first():
    units = [judging.Measured(value, np.full(judging.DRAWS, value)) for value in (0.0, 1.0, 2.0, 3.0)]
    found = judging.drawn_mean(units)
    assert found.value == 1.5
    assert np.std(found.draws) == pytest.approx(np.std([0, 1, 2, 3]) / 2, rel=0.1)
    assert np.std(judging.mean(units).draws) == 0
    assert (units[3] - units[1]).ends == [2.0, 2.0, 2.0]


def test_who_judges_whom():
    assert subjects.animal_pair("201025", "201025") == ("PE", "PE", subjects.SAME)
    assert subjects.animal_pair("201025", "210225") == ("PE", "PE", subjects.OWN)
    assert subjects.animal_pair("190929", "210225") == ("WE", "PE", subjects.OTHER)
    pairs = [subjects.subject_pair("simulated1", name) for name in subjects.SIMULATED]
    assert pairs == [subjects.SELF, subjects.SHARED, subjects.UNSHARED]


def test_the_control_answers_to_something_else():
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(200, 1, generator=draw), torch.randn(200, 1, generator=draw)
    noise = 0.1 * torch.randn(200, 4, generator=draw)
    taken = subjects.unlike(torch.cat([a, a, b, b], 1) + noise)
    assert sorted(taken) == [0, 1, 2, 3]
    assert {taken[0], taken[1]} == {2, 3}


def test_what_edits_became_is_counted():
    assert cross_subject.tally(torch.tensor([[3, 1], [3, 3]])) == {"rows": [1, 3], "counts": [1, 3]}


def test_groups_share_no_neuron():
    groups = cross_subject.group_columns(55)
    assert sorted(column for group in groups for column in group) == list(range(55))
    assert max(map(len, groups)) - min(map(len, groups)) <= 1


# ---- a small run ----------------------------------------------------------------------------------------------------

SESSIONS = ("201025", "190925")
SIDE = 24


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A session of each animal, 420 pictures; three neurons that like red, and one that likes blue."""
    folder = tmp_path_factory.mktemp("cross")
    draw = np.random.default_rng(0)
    for name in SESSIONS:
        place = folder / "macaque_v4" / name
        place.mkdir(parents=True)
        coarse = draw.integers(0, 256, (420, 3, 3, 3), dtype=np.uint8)
        with zipfile.ZipFile(place / "images.zip", "w") as archive:
            for row, picture in enumerate(coarse):
                file = folder / "picture.png"
                Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file)
                archive.write(file, f"image{row:04d}.png")
        red, blue = coarse[..., 0].mean((1, 2)), coarse[..., 2].mean((1, 2))
        np.save(place / "responses.npy", np.stack([red, red, red, blue]) + draw.normal(size=(4, 420)) * 8)
    return folder


@pytest.fixture
def small(monkeypatch):
    """A backbone of one layer, three regions, two angles."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 12, 3, padding=1))
    network.__dict__["preprocess"] = Preprocess(16, [0.5], [0.5])
    monkeypatch.setattr(cross_subject, "load_squeezenet", lambda data: network)
    names = ("red", "blue", "bright")
    regions = {f"region{place}": Tuning("feature", (name,)) for place, name in enumerate(names)}
    for module in (subjects, judging, page):
        monkeypatch.setattr(module, "REGIONS", regions)
    for module in (cross_subject, judging, page):
        monkeypatch.setattr(module, "ANGLES", (25.0, 55.0))
    monkeypatch.setattr(v4_data, "SIZE", SIDE)
    monkeypatch.setattr(cross_subject, "EDITED", 20)
    monkeypatch.setattr(cross_subject, "LATENT_DIM", 8)
    monkeypatch.setattr(cross_subject, "GROUP_METHODS", (methods.OURS, methods.MEANS))
    monkeypatch.setattr(cross_subject, "GROUPS", 2)
    monkeypatch.setattr(made, "PICTURES", 2)
    monkeypatch.setattr(made, "SIDE", 32)
    monkeypatch.setattr(made, "COMPARED", (methods.OURS,))
    monkeypatch.setattr(made.vl, "get_backend", partial(made.vl.get_backend, steps=2))


@pytest.mark.end_to_end
def test_what_is_shared_transfers_and_the_page_says_what_fails_first(data, small, tmp_path):
    said = cross_subject.provenance(seed=0)
    cross_subject.fit(data, tmp_path, said, list(SESSIONS))
    assert len(list(tmp_path.glob("judge-*.json"))) == 2 * 2 + 3
    sources = sorted(tmp_path.glob("source-*.json"))
    assert len(sources) == 2 * 2 * 2 * (1 + 2) + 3 * 3
    sources += [tmp_path / f"made-{name}.json" for name in SESSIONS]
    before = [path.stat().st_mtime_ns for path in sources]
    cross_subject.fit(data, tmp_path, said, list(SESSIONS))
    assert [path.stat().st_mtime_ns for path in sources] == before
    text, kept = page.report(tmp_path, said, table_angle=55.0)
    other = f"PE to WE, {subjects.OTHER}"
    for way in ("increase", "decrease"):
        for view in ("recorded", "encoder"):
            ends = kept["changes"][view][other][methods.OURS][way]["55"]
            assert ends[1] <= ends[0] <= ends[2]
            assert ends[0] > 0.3
        assert len(kept["neurons"][other][way]) == 4
        planted = kept["simulated"]["truth"]
        assert planted[subjects.SHARED][methods.OURS][way]["55"][0] > 0.3
    assert "Sessions that have not been run: 190929, 210225." in text
    verdicts = [line.split("**")[1] for line in text.splitlines() if line.startswith(("- **met", "- **MISSED"))]
    assert verdicts == sorted(verdicts, key=lambda word: word == "met")
    found = page.findings(json.loads(json.dumps(kept)))
    assert len(found.aims) == 4 + 4 + 4 + 4
    assert list(kept["made"]) == [
        *(f"{name}, {level}" for name, level in (("PE to PE", subjects.SAME), ("WE to PE", subjects.OTHER))),
        *(f"{name}, {level}" for name, level in (("WE to WE", subjects.SAME), ("PE to WE", subjects.OTHER))),
    ]
    moved = [held[methods.OURS][way][0] for held in kept["made"].values() for way in held[methods.OURS]]
    assert sum(moved) > 0  # two pictures and two steps: the direction alone is known
    assert "## Pictures made by the default generator, judged by encoders" in text
    assert {measure.direction for measure in found.measures} == {"increase", "decrease"}


def test_nothing_to_report_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no landscape that was judged yet; run `fit` first"):
        page.report(tmp_path, {}, table_angle=55.0)


def test_an_aim_is_missed_where_the_interval_says_so():
    """The control has to fail; what is not above zero is not met."""
    held = {way: {"55": [0.2, -0.1, 0.5]} for way in ("increase", "decrease")}
    pair = f"PE to WE, {subjects.OTHER}"
    rivals = (methods.SHUFFLED, methods.BRAINACTIV)
    numbers = {
        "table_angle": 55.0,
        "sessions": list(SESSIONS),
        "regions": [17, 17],
        "changes": {"recorded": {pair: {methods.OURS: held}}},
        "neurons": {pair: {way: [0.1, -0.1, 0.4] for way in held}},
        "minus ours": {subjects.OTHER: {rival: {way: [-0.3, -0.4, -0.2] for way in held} for rival in rivals}},
        "over animals": {subjects.OTHER: {way: [0.2, -0.1, 0.5] for way in held}},
        "simulated": {
            "truth": {
                subjects.SHARED: {methods.OURS: {way: {"55": [0.9, 0.7, 1.1]} for way in held}},
                subjects.UNSHARED: {
                    methods.OURS: {"increase": {"55": [0.0, -0.1, 0.1]}, "decrease": {"55": [0.4, 0.2, 0.6]}}
                },
            }
        },
    }
    met = [aim.met for aim in page.findings(numbers).aims]
    assert met == [False, False, True, True, True, True, True, True, True, False]
    numbers["regions"] = [4, 17]  # a control of few regions shows nothing
    assert [aim.met for aim in page.findings(numbers).aims][-4:] == [True, True, None, None]
    del numbers["simulated"]
    assert [aim.met for aim in page.findings(numbers).aims][-4:] == [None] * 4
