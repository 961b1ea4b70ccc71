"""Maps of preferences: what was planted is shown, and weak evidence is not."""

import socket

import mne
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from vislens_interp.brain import BrainDataset, preference_map
from vislens_interp.brain.maps.surface import COLOURS, WEAK

pytestmark = pytest.mark.filterwarnings("default")  # what these libraries say of each other is not ours to mend

SCORES = np.array([[2.0, -1.0], [0.5, 1.5], [-1.0, -2.0], [np.nan, np.nan], [1.0, 3.0]])
PLACES = ["V1", "FFA", "OFA", "PPA", "IT"]
EVIDENCE = np.array([0.8, 0.3, 0.9, 0.9, 0.1])
VERTICES = 10242


def planted(**given):
    return preference_map(
        SCORES, axes=["edge", "face"], places=PLACES, **({"evidence": EVIDENCE, "unit": "Δr (SD)"} | given)
    )


def test_what_is_preferred_and_what_is_weak():
    found = planted()
    assert found.preferred.tolist() == [0, 1, -1, -1, 1]
    assert found.weak.tolist() == [False, False, False, False, True]
    assert str(found) == "5 places prefer: edge 1, face 1; 1 weakly supported"
    assert str(planted(evidence=None)) == "5 places prefer: edge 1, face 2; evidence unknown"
    assert planted(evidence=EVIDENCE * np.array([np.nan, 1, 1, 1, 1]), threshold=0.5).weak.tolist() == [
        True, True, False, False, True,
    ]  # fmt: skip


def test_a_noise_ceiling_is_evidence_by_name():
    responses = torch.randn(8, 3, 2, generator=torch.Generator().manual_seed(0))
    data = BrainDataset.from_arrays(torch.rand(8, 3, 4, 4), responses, targets=["V1", "PPA"])
    ceiling = data.noise_ceiling("ncsnr")
    found = preference_map([[1.0], [2.0]], axes=["face"], places=["PPA", "V1"], evidence=ceiling)
    assert np.allclose(found.evidence, ceiling.r.flip(0).numpy())
    with pytest.raises(ValueError, match="evidence lacks 1 of 1 places, such as 'FFA'"):
        preference_map([[1.0]], axes=["face"], places=["FFA"], evidence=ceiling)


def test_tables_come_back(tmp_path):
    found = planted()
    folder = found.save(tmp_path / "map", {"course": Figure()})
    assert sorted(path.name for path in folder.iterdir()) == ["course.png", "preferences.csv"]
    frame = pd.DataFrame(SCORES, index=PLACES, columns=["edge", "face"]).assign(evidence=EVIDENCE)
    nested = {place: dict(zip(("edge", "face", "evidence"), row, strict=True)) for place, row in
              zip(PLACES, np.column_stack([SCORES, EVIDENCE]), strict=True)}  # fmt: skip
    for source in (folder / "preferences.csv", frame, nested):
        again = preference_map(source)
        assert again.places == found.places
        assert again.axes == found.axes
        assert np.allclose(again.scores, SCORES, equal_nan=True)
        assert np.allclose(again.evidence, EVIDENCE)
    numbered = preference_map(pd.DataFrame(SCORES, index=PLACES))
    assert numbered.axes == ("0", "1")
    assert np.array_equal(numbered.scores, SCORES, equal_nan=True)
    assert preference_map(frame[["edge"]], evidence=dict(zip(PLACES, EVIDENCE, strict=True))).weak.sum() == 1


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"scores": SCORES, "axes": ["edge"], "places": PLACES}, ValueError, r"scores has shape \(5, 2\) for 5 places"),
        ({"scores": SCORES}, TypeError, "axes or places is None for scores in an array"),
        ({"scores": SCORES, "axes": ["a", "a"], "places": PLACES}, ValueError, "axes holds 2 names, 1 of them differ"),
        ({"scores": SCORES * np.inf, "axes": ["a", "b"], "places": PLACES}, ValueError, "scores holds infinite values"),
        (
            {"scores": SCORES, "axes": ["a", "b"], "places": PLACES, "evidence": {"V1": 1.0}},
            ValueError,
            "evidence lacks 4 of 5 places, such as 'FFA'",
        ),
        (
            {"scores": SCORES, "axes": ["a", "b"], "places": PLACES, "evidence": [1.0]},
            ValueError,
            r"evidence has shape \(1,\); expected \(5,\)",
        ),
        ({"scores": {"V1": {"edge": "much"}}}, ValueError, "'much' of place 'V1' along 'edge' is no number"),
        ({"scores": "none.csv"}, FileNotFoundError, "scores='none.csv': no such file"),
    ],
)
def test_wrong_scores(given, error, message):
    with pytest.raises(error, match=message):
        preference_map(given.pop("scores"), **given)


def test_a_table_that_is_none(tmp_path):
    (tmp_path / "a.csv").write_text("place,edge\nV1,1\nV1,2\n")
    with pytest.raises(ValueError, match="names a place twice; expected a row for each place"):
        preference_map(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("place,edge\ncaf\u00e9,1\n", encoding="latin-1")
    with pytest.raises(ValueError, match="is not in UTF-8 .*expected a CSV or TSV in UTF-8"):
        preference_map(tmp_path / "a.csv")


@pytest.fixture(scope="module")
def regions():
    """Five patches of each hemisphere, one for each place."""
    numbers = np.repeat(np.arange(6), VERTICES // 6 + 1)[:VERTICES]
    return {"left": numbers, "right": numbers}


def test_a_surface_is_drawn_offline(regions, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("something was downloaded"))
    found = planted()
    figure = found.surface(regions=regions, targets=dict(enumerate(PLACES, 1)), axes=["face"])
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == [f"{row}, {side}" for row in ("preferred", "face", "evidence") for side in ("left", "right")]
    assert {text.get_text() for text in figure.axes[0].texts} == set(PLACES)
    legend = next(axis.get_legend() for axis in figure.axes if axis.get_legend())
    assert [text.get_text() for text in legend.get_texts()] == ["edge", "face", "nothing", "weak\n(< 0.2)"]
    preferred, score = (figure.axes[place].collections[-1] for place in (0, 3))
    shown = np.unique(preferred.to_rgba(preferred.get_array()), axis=0)
    wanted = [tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)) for colour in (COLOURS[0], COLOURS[1], WEAK)]
    assert all(any(np.allclose(colour[:3], one, atol=0.01) for colour in shown) for one in wanted)
    values = score.get_array()
    assert values.max() == 1.5  # IT's 3.0 is weak, and not shown
    assert values.min() == -2.0


def test_numbers_below_0_belong_to_no_region(regions):
    """FreeSurfer's labels are -1 outside of every region."""
    outside = {side: np.where(numbers == 0, -1, numbers) for side, numbers in regions.items()}
    figures = [
        planted().surface(regions=one, targets=dict(enumerate(PLACES, 1)), axes=[]) for one in (regions, outside)
    ]
    expected, found = (figure.axes[0].collections[-1].get_array() for figure in figures)
    assert np.ma.allequal(found, expected)
    assert np.array_equal(found.mask, expected.mask)


def test_vertices_and_views(regions):
    scores = np.zeros((2 * VERTICES, 1))
    scores[:200] = 1
    found = preference_map(scores, axes=["edge"], places=[f"vertex {row}" for row in range(2 * VERTICES)])
    figure = found.surface(views=["ventral"], axes=[])
    assert [axis.get_title() for axis in figure.axes if axis.get_title()] == [
        "preferred, left, ventral", "preferred, right, ventral",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="this map has 5 places; expected 20484, the vertices of fsaverage5"):
        planted().surface()
    with pytest.raises(ValueError, match="targets gives no number to place 'IT' .1 of 5 have none"):
        planted().surface(regions=regions, targets=dict(enumerate(PLACES[:4], 1)))
    with pytest.raises(ValueError, match=r"expected .10242,. numbers a hemisphere"):
        planted().surface(regions={"left": np.ones(3), "right": np.ones(3)}, targets={1: "V1"})
    with pytest.raises(ValueError, match="regions is a int; expected region numbers of 'left' and 'right'"):
        planted().surface(regions=3, targets={1: "V1"})
    with pytest.raises(ValueError, match="views='left' is unknown"):
        found.surface(views=["left"])
    with pytest.raises(KeyError, match="axis 'edges' is not in this map. Closest: edge"):
        found.surface(axes=["edges"])
    many = preference_map(np.ones((1, 9)), axes=list("abcdefghi"), places=["V1"])
    with pytest.raises(ValueError, match="this map has 9 axes; expected at most 8"):
        many.surface(axes=["a"])
    with pytest.raises(ValueError, match="this map has 9 axes; expected at most 8"):
        many.topography(sensors())
    with pytest.raises(ValueError, match="this map has 9 axes; expected at most 8"):
        many.time_course()


def sensors(count=8):
    montage = mne.channels.make_standard_montage("biosemi32")
    info = mne.create_info(montage.ch_names[:count], 100.0, "eeg")
    return info.set_montage(montage)


def test_a_topography_marks_what_is_supported():
    info = sensors()
    scores = np.linspace(-1, 1, 16)[:, None] * [1, -0.5]
    evidence = np.arange(16) / 16
    places = [f"{name} {window}" for window in ("P1", "N170") for name in info.ch_names]
    found = preference_map(scores, axes=["edge", "face"], places=places, evidence=evidence, threshold=0.4)
    figure = found.topography(info)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == [
        "edge, P1", "face, P1", "preferred", "evidence", "edge, N170", "face, N170", "preferred", "evidence",
    ]  # fmt: skip
    dots = [axis.collections[-1].get_facecolor() for axis in figure.axes if axis.get_title() == "preferred"]
    assert all(len(colours) == 8 for colours in dots)
    grey = tuple(int(WEAK[i : i + 2], 16) / 255 for i in (1, 3, 5))
    assert sum(np.allclose(colour[:3], grey) for colours in dots for colour in colours) == 7  # 0/16 to 6/16
    with pytest.warns(UserWarning, match="8 of 16 places, such as '.* P1', are no sensors of info and are left out"):
        found.topography(mne.pick_info(info, range(4)), axes=["edge"])
    with pytest.raises(ValueError, match="no place, such as 'V1', is a sensor of info"):
        planted().topography(info)
    with pytest.raises(ValueError, match="info has sensors without positions"):
        found.topography(mne.create_info(info.ch_names, 100.0, "eeg"))
    with pytest.raises(KeyError, match="axis 'x' is not in this map"):
        found.topography(info, axes=["x"])


def test_a_time_course_takes_names_of_time_points():
    times = np.arange(20) * 0.01
    bump = np.exp(-((times - 0.1) ** 2) / 0.001)
    scores = np.stack([np.concatenate([bump, 0.2 * bump])] * 2, 1) * [1, 0.5]
    places = [f"{name} {time:.3f} s" for name in ("Oz", "Fz") for time in times]
    found = preference_map(scores, axes=["edge", "face"], places=places, evidence=np.tile(bump, 2), threshold=0.5)
    figure = found.time_course()
    assert [axis.get_ylabel() for axis in figure.axes] == ["Oz\nscore", "Fz\nscore"]
    line = figure.axes[0].lines[0]
    assert np.allclose(line.get_xdata(), times)
    assert np.allclose(line.get_ydata(), bump)
    scores[20:] = np.nan  # a sensor without a number is the last of all
    found = preference_map(scores[::-1], axes=["edge", "face"], places=places[::-1])
    assert [axis.get_ylabel() for axis in found.time_course().axes] == ["Oz\nscore", "Fz\nscore"]
    with pytest.raises(KeyError, match="sensor 'O' is not in this map"):
        found.time_course(sensors=["O"])
    with pytest.raises(ValueError, match="places such as 'V1' carry no times"):
        planted().time_course()
