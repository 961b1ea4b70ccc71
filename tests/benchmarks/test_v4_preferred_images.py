"""Pictures for V4 neurons: the list, the arithmetic on made-up cells, and all of it end to end on tiny networks."""

import io
import json
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.common import v4_sessions as v4_data
from benchmarks.common.edit_methods import BRAINACTIV, JOB_METHODS, NATURAL, OURS, PATTERN, SHUFFLED, SIGN
from benchmarks.common.figures import FIGURE_BYTES
from benchmarks.v4_encoder import run as v4_encoder
from benchmarks.v4_preferred_images import report as pages
from benchmarks.v4_preferred_images import run as bench
from vislens_interp.backends import embedded
from vislens_interp.backends.base import _registry
from vislens_interp.brain.v4 import CompactNetwork
from vislens_interp.files import write_text
from vislens_interp.preprocess import Preprocess

TUNED = v4_data.TUNING_SESSIONS[0]
LISTED = {"201025": [0, 1, 2], "210225": [0]}
SAID = {"commit": "c" * 40, "dirty": False, "device": "a CPU", "command": "python x", "cpus": 2, "threads": 1}
SAID |= {"torch": "2", "seed": 0, "date": "today", "python": "3"}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(pages, "DRAWS", 50)


# ---- what is done ---------------------------------------------------------------------------------------------------


def test_the_list_is_the_one_that_was_drawn():
    listed = bench.load_neurons()
    assert listed == bench.draw_neurons()
    assert {name: len(set(some)) for name, some in listed.items()} == {"201025": 30, "210225": 18}
    assert all(max(some) < v4_data.NEURONS[name] for name, some in listed.items())


def test_any_beginning_and_any_share_hold_both_sessions():
    work = bench.take_turns(bench.load_neurons())
    assert len(set(work)) == 48
    for count in (8, 16, 24):
        assert sum(name == "201025" for name, _ in work[:count]) == 5 * count // 8
    for share in (work[0::2], work[1::2]):
        assert {name for name, _ in share[:3]} == {"201025", "210225"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pictures", "--out", "x"], "pictures needs --data"),
        (["report"], "arguments are required: --out"),
        (["report", "--out", "x", "--share", "2/2"], "expected I/N with I from 0 to N - 1"),
        (["pictures", "--data", "x", "--out", "x", "--angle", "20"], "belong to --tune: nothing is chosen"),
        (["figure", "--data", "x", "--out", "x", "--tune"], "leave --tune out"),
    ],
)
def test_commands_that_make_no_sense(words, said, capsys):
    with pytest.raises(SystemExit):
        bench.parse(words)
    assert said in capsys.readouterr().err


def test_a_figure_is_made_small_enough(tmp_path):
    page = bench.sheet([("noise", torch.rand(3, 3, 64, 64), ["+1.0"] * 3)] * 2)
    sizes = []
    for limit in (10_000_000, 40_000):
        bench.save_small(page, tmp_path / "figure.webp", limit)
        sizes.append((tmp_path / "figure.webp").stat().st_size)
    assert sizes[1] <= 40_000 < sizes[0]
    with Image.open(tmp_path / "figure.webp") as drawn:
        assert drawn.size == (522, 264)
    with pytest.raises(ValueError, match=r"limit=1000 bytes; expected \d+ at least for this figure. Show fewer"):
        bench.save_small(page, tmp_path / "figure.webp", 1000)


# ---- arithmetic on made-up cells ------------------------------------------------------------------------------------


def made_up(session, neuron, sizes, *, weak=False):
    """A cell in which method and judge change every picture by ``sizes[method](judge, way)``, over two halves."""
    judges = (pages.PUBLISHED, pages.ENCODER)

    def half(shift):
        methods = []
        for method in (*JOB_METHODS, NATURAL, pages.RANDOM):
            for way in SIGN:
                one = {"method": method, "direction": way, "natural": [0.5, 0.5], "diversity": 0.9}
                size = sizes.get(method, lambda judge, way: 0.1)
                one["changes"] = {judge: [size(judge, way) + shift, size(judge, way)] for judge in judges}
                if method in JOB_METHODS:
                    one |= {"reached": [40.0, 40.0], "similarity": [0.3, 0.5], "arrived": 1, "kernel": None}
                methods.append(one)
        flat = {judge: [0.0, 0.0] for judge in judges}
        evidence = {"weak": weak, "correlation": 0.5}
        cell = {"rows": [0, 1], "judge_r": dict.fromkeys(judges, 0.5), "evidence": evidence, "methods": methods}
        cell |= {"input": flat, "zero": flat, "original": flat, "zero_natural": [0.4, 0.4]}
        return cell | {"zero_diversity": 0.9, "zero_kernel": 0.1, "input_kernel": 0.0}

    return {
        "provenance": SAID,
        "settings": {"angle": 40.0},
        "session": session,
        "neuron": neuron,
        "angle": 40.0,
        "halves": [half(0.02), half(-0.02)],
    }


def always(value):
    return lambda judge, way: value


def cells_of(*sizes, weak=()):
    units = [(name, neuron) for name, some in LISTED.items() for neuron in some]
    return [made_up(*unit, size, weak=unit in weak) for unit, size in zip(units, sizes, strict=True)]


def test_both_halves_are_one_neuron():
    judged = pages.Judged(cells_of(*[{OURS: always(1.0)}] * 4))
    assert judged.changes(pages.ENCODER, OURS, "increase") == pytest.approx(np.tile([1.02, 1.0, 0.98, 1.0], (4, 1)))
    assert judged.means(pages.PUBLISHED, OURS, "decrease") == pytest.approx(np.ones(4))
    assert pages.over_halves(judged.cells, NATURAL, "increase", pages.ENCODER) == pytest.approx([0.1] * 4)
    assert judged.methods == list(JOB_METHODS)


def test_a_sign_is_right_where_both_judges_say_so():
    good = {OURS: always(1.0)}
    torn = {OURS: lambda judge, way: 1.0 if judge == pages.PUBLISHED else -1.0}
    one_way = {OURS: lambda judge, way: 1.0 if way == "increase" else -1.0}
    beaten = {OURS: always(1.0), SHUFFLED: lambda judge, way: 2.0 if way == "decrease" else 0.0}
    judged = pages.Judged(cells_of(good, torn, one_way, beaten))
    assert judged.right(OURS, "increase").tolist() == [True, False, True, True]
    assert judged.right_both_ways(OURS).tolist() == [True, False, False, True]
    assert judged.right_both_ways(OURS, SHUFFLED).tolist() == [True, False, False, False]
    assert judged.agree(OURS).tolist() == [1.0, 0.0, 1.0, 1.0]


def test_checks_ask_neurons_with_good_evidence_and_every_judge():
    good = {OURS: always(1.0), SHUFFLED: always(-0.1), BRAINACTIV: always(0.5)}
    bad = {**good, OURS: always(-1.0)}
    cells = cells_of(good, good, good, bad, weak=[("210225", 0)])
    checks = pages.checks_of(pages.Judged(cells), LISTED)
    assert list(checks.values())[:3] == [True, True, True]
    assert (
        "Of 3 neurons with good evidence (of 4, 40°), both judges see the wanted sign in both directions for 100.0%"
        in (list(checks)[1])
    )
    assert list(pages.checks_of(pages.Judged(cells_of(good, good, good, bad)), LISTED).values())[1] is False
    only = pages.Judged(cells_of(good, good, good, bad, weak=[(n, i) for n, some in LISTED.items() for i in some]))
    assert [ok for text, ok in pages.checks_of(only, LISTED).items() if "no share can be told" in text] == [False]
    assert "2 of the 4 neurons" in next(iter(pages.checks_of(pages.Judged(cells[:2]), LISTED)))


def test_equal_to_brainactiv_is_not_behind_in_increase_and_not_ahead_in_decrease():
    judged = pages.Judged(cells_of(*[{OURS: always(0.5), BRAINACTIV: always(0.5)}] * 4))
    found = {text: ok for text, ok in pages.checks_of(judged, LISTED).items() if "BrainACTIV" in text}
    assert [("increase" in text) == ok for text, ok in found.items()] == [True] * 4
    ahead = {OURS: lambda judge, way: 1.0 if judge == pages.ENCODER else 0.4, BRAINACTIV: always(0.5)}
    found = pages.checks_of(pages.Judged(cells_of(*[ahead] * 4)), LISTED)
    assert [ok for text, ok in found.items() if "BrainACTIV" in text and pages.PUBLISHED in text] == [False, False]
    assert [ok for text, ok in found.items() if "BrainACTIV" in text and pages.ENCODER in text] == [True, True]


def write_cells(folder, cells):
    for cell in cells:
        write_text(bench.cell_path(folder, cell["session"], cell["neuron"], False), json.dumps(cell))


def test_what_fails_and_what_loses_is_said_first(tmp_path):
    sizes = {OURS: always(0.5), PATTERN: always(0.9), SHUFFLED: always(0.0)}
    write_cells(tmp_path, cells_of(sizes, sizes, sizes, {**sizes, OURS: always(0.6)}))
    text, kept = pages.report(tmp_path, LISTED, SAID)
    assert text.index("What fails, first") < text.index("- Nothing of what was asked.") < text.index("What holds")
    against = text[text.index("## Ours against the others") :]
    assert against.index("| ours loses | ridge pattern | increase") < against.index("| ours wins |")
    assert "4 neurons (3 of session 201025, 1 of session 210225), 4 photographs each, turned by 40°" in text
    assert "Pictures were made at cccccccccc on a CPU." in text
    assert kept["changes"][pages.ENCODER][OURS]["decrease"] == [0.5, 0.5, 0.5, 0.6]
    assert all(kept["checks"].values())
    found = pages.findings(json.loads(json.dumps(kept)))
    assert [aim.met for aim in found.aims] == [True] * len(kept["checks"])
    assert [one.value for one in found.measures] == pytest.approx([0.525] * 4)
    assert [one.direction for one in found.measures] == ["increase", "decrease"] * 2


def test_nothing_to_report_and_cells_of_two_kinds(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"--out .* holds no neuron yet; expected one at least\. Run `pictures`"
    ):
        pages.report(tmp_path, LISTED, SAID)
    cells = cells_of({}, {}, {}, {})
    cells[0]["settings"] = {"angle": 40.0, "steps": 3}
    write_cells(tmp_path, cells)
    with pytest.raises(ValueError, match="holds cells of 2 settings; expected one"):
        pages.report(tmp_path, LISTED, SAID)


# ---- end to end -----------------------------------------------------------------------------------------------------


def write_session(folder, name, seed, *, published):
    """404 pictures and two neurons, one that likes red, one that likes brightness below; with networks of no use."""
    place = folder / "macaque_v4" / name
    place.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (404, 4, 4, 3), dtype=np.uint8)
    with zipfile.ZipFile(place / "images.zip", "w") as archive:
        for row, picture in enumerate(coarse):
            file = io.BytesIO()
            Image.fromarray(picture).resize((112, 112), Image.Resampling.BICUBIC).save(file, "JPEG")
            archive.writestr(f"image{row:04d}.jpg", file.getvalue())
    red, below = coarse[..., 0].mean((1, 2)), coarse[:, 2:].mean((1, 2, 3)) - coarse[:, :2].mean((1, 2, 3))
    np.save(place / "responses.npy", np.stack([red, below]) + draw.normal(size=(2, 404)) * 3)
    if published:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            state = {f"neuron{number}.{key}": value for number in (0, 1) for key, value in network_state().items()}
        save_file(state, place / "compact_models.safetensors")


def network_state():
    return CompactNetwork([3, 3, 3, 3, 3]).state_dict()


@pytest.fixture(scope="module")
def data(places, tmp_path_factory):
    folder = tmp_path_factory.mktemp("v4")
    (folder / "networks").symlink_to(places[0] / "networks")
    for seed, name in enumerate((*v4_data.TEST_SESSIONS, TUNED)):
        write_session(folder, name, seed, published=name in v4_data.TEST_SESSIONS)
    return folder


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A backbone of one layer in the place of SqueezeNet, two steps of sampling, one neuron of each session."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, padding=1))
    network.__dict__["preprocess"] = Preprocess(16, [0.5], [0.5])
    monkeypatch.setattr(v4_encoder, "load_squeezenet", lambda data: network)
    monkeypatch.setitem(_registry, "embedded", partial(embedded.embedded, size=64, steps=2))
    monkeypatch.setattr(bench, "LIST", tmp_path / "list.json")
    monkeypatch.setattr(bench, "PAGE", tmp_path / "results" / "v4_preferred_images")
    monkeypatch.setattr(bench, "TUNED", 1)
    monkeypatch.setattr(bench, "TUNING_SESSIONS", (TUNED,))
    monkeypatch.setattr(embedded, "LATENT_DIM", 32)
    monkeypatch.setattr(bench, "FIGURE_NEURONS", 1)
    monkeypatch.setattr(bench, "FIGURE_PICTURES", 2)
    (tmp_path / "results").mkdir()
    write_text(tmp_path / "list.json", json.dumps({name: [0] for name in v4_data.TEST_SESSIONS}))


@pytest.mark.end_to_end
def test_end_to_end(data, small, tmp_path, capsys):
    out, threads = tmp_path / "out", torch.get_num_threads()
    common = ["--data", str(data), "--out", str(out), "--images", "2"]
    try:
        bench.main(["judges", *common, "--only-session", "201025"])
        assert "201025, half 1: median R 0." in capsys.readouterr().out
        bench.main(["pictures", *common, "--share", "0/2"])
        (path,) = out.glob("pictures-*.json")
        before = path.stat().st_mtime_ns
        bench.main(["pictures", *common])
        assert "pictures-210225-0: " in capsys.readouterr().out
        assert path.stat().st_mtime_ns == before
        bench.main(["report", "--out", str(out)])
        bench.main(["figure", *common])
        tuned = ["--tune", "--methods", PATTERN, "--angle", "20", "--only-session", TUNED]
        with pytest.raises(ValueError, match="was begun with angle=40.0, now 20.0"):
            bench.main(["pictures", *common, *tuned])
        common[common.index(str(out))] = str(tmp_path / "tuning")
        bench.main(["pictures", *common, *tuned])
        bench.main(["report", "--tune", "--out", str(tmp_path / "tuning")])
    finally:
        torch.set_num_threads(threads)
    cells = [json.loads(file.read_text()) for file in sorted(out.glob("pictures-*.json"))]
    assert [(cell["session"], cell["neuron"]) for cell in cells] == [("201025", 0), ("210225", 0)]
    half = cells[0]["halves"][0]
    assert half["judge_r"][pages.ENCODER] > 0.9  # the half that it has not seen
    assert half["evidence"]["shuffles"] == 2
    assert not set(half["rows"]) & set(cells[0]["halves"][1]["rows"])
    reached = [one["reached"] for one in half["methods"] if one["method"] == PATTERN]
    assert reached[0] == pytest.approx([40.0] * 2, abs=0.2)
    kept = json.loads((tmp_path / "results" / "v4_preferred_images.json").read_text())
    assert kept["neurons"] == [["201025", 0], ["210225", 0]]
    assert set(kept["changes"]) == {pages.PUBLISHED, pages.ENCODER}
    assert set(kept["changes"][pages.ENCODER]) == set(JOB_METHODS)
    figure = tmp_path / "results" / "v4_preferred_images.webp"
    assert 0 < figure.stat().st_size <= FIGURE_BYTES
    with Image.open(figure) as drawn:
        assert drawn.size[1] == 4 * 132  # rows of a neuron
    text = (tmp_path / "tuning" / "tuning_pictures.md").read_text()
    assert "(tuning neurons)" in text
    assert "What fails" not in text


def test_an_encoder_judges_what_it_has_not_learnt_from(data, small, tmp_path):
    session = v4_data.load_session(data, "201025")
    tmp_path.joinpath("out").mkdir()
    first, second = session.halves()
    encoder = bench.our_encoder(data, session, 1, tmp_path / "out", "cpu")
    assert encoder.card["held_out_rows"] == first.tolist()
    assert encoder.card["learnt_from"] == len(second)
    again = bench.our_encoder(data, session, 1, tmp_path / "out", "cpu")
    shown = session.images[:3]
    torch.testing.assert_close(bench.predicted(again, shown), bench.predicted(encoder, shown))
