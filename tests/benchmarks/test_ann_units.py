"""The benchmark of units of networks: its arithmetic on made-up cells, and a run on tiny networks."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.ann_units import report as ann_report
from benchmarks.ann_units import run as ann_units
from benchmarks.ann_units.bench import Bench, Seen
from benchmarks.ann_units.methods import (
    CONTESTANTS,
    NATURAL,
    OURS,
    OURS_AT_ANGLE,
    UNEDITED,
    Budget,
    Heard,
    Watched,
)
from benchmarks.common import package as vl
from benchmarks.common.networks import NETWORKS, TUNING_UNITS, Network, load_units
from vislens_interp.backends.base import _registry
from vislens_interp.backends.embedded import embedded
from vislens_interp.images import image_keys
from vislens_interp.methods.base import Method
from vislens_interp.targets import CallableTarget

DREAM, CMA = "DeepDream", "CMA-ES"


def cell(network="vit_tiny64", unit=1, seed=0, **moved):
    """Of four methods, two images; ``moved`` and defaults are the mean changes from the input."""
    change = {OURS: 2.0, OURS_AT_ANGLE: 1.5, DREAM: 3.0, CMA: 0.5, NATURAL: 2.0, UNEDITED: 0.5} | moved
    told = {OURS: 70.0, OURS_AT_ANGLE: 65.0, DREAM: 60.0, CMA: 55.0, NATURAL: 80.0, UNEDITED: 50.0}
    far = {OURS: 0.1, OURS_AT_ANGLE: 0.1, DREAM: 0.4, CMA: 0.01, NATURAL: 0.0, UNEDITED: 0.05}
    spent = {OURS: 0.2, OURS_AT_ANGLE: 0.2, DREAM: 1.0, CMA: 4.0, NATURAL: 0.0, UNEDITED: 0.2}
    scores = []
    for label in change:
        for way in ("increase", "decrease"):
            values = {"response_change_from_input": [change[label] - 0.1, change[label] + 0.1]}
            values |= {"seconds": [spent[label]], "fit_seconds": [8.0], "kernel_distance": [far[label]]}
            scores += [{"method": label, "direction": way, "measure": k, "values": v} for k, v in values.items()]
        scores.append({"method": label, "direction": "both", "measure": "predictivity", "values": [told[label]]})
    return {
        "network": network,
        "layer": "blocks.1",
        "unit": unit,
        "first": False,
        "seed": seed,
        "passes": 8,
        "images": ["a", "b"],
        "angle": 40.0,
        "judge": "squeezenet",
        "correlation": 0.5,
        "start": 0.25,
        "shipped_optimise_steps": 20,
        "cpu_seconds": 60.0,
        "scores": scores,
        # Ours ends at 2.25 where it increases, and at 1.75 where it decreases: the start lies at -0.25 there.
        "traces": {DREAM: {way: [[0.1, 0.0], [0.4, 2.0], [0.8, 3.0]] for way in ("increase", "decrease")}},
    }


def test_a_change_is_against_the_same_unedited_pictures():
    found = ann_report.Found([cell(unit=unit) for unit in (1, 2)])
    assert found.change(OURS, "increase").shape == (2, 2, 1)
    np.testing.assert_allclose(found.change(OURS, "increase"), 1.5)
    np.testing.assert_allclose(found.both(DREAM, "change"), 2.5)


def test_seconds_at_equal_response():
    found = ann_report.Found([cell()])
    assert found.at_equal_response[DREAM] == [0.8, 0.4]
    assert found.at_equal_response[CMA] == [None, None]
    assert found.fastest == [0.8, 0.4]
    assert ann_report.against(found.fastest, found.seconds(OURS)) == (2, pytest.approx(0.6), pytest.approx(0.375))
    assert found.cases == [("vit_tiny64 blocks.1 1", 0, "increase"), ("vit_tiny64 blocks.1 1", 0, "decrease")]
    searched = ann_report.Found([cell(**{CMA: 2.0})])
    assert searched.at_equal_response[CMA] == [4.0, 4.0]  # not traced: all of its time
    weak = ann_report.Found([cell(**{DREAM: 1.0})])
    assert weak.fastest == [None, None]  # what it saw on the way, its pictures do not keep


def test_where_photographs_answer_as_much_there_is_nothing_to_time():
    found = ann_report.Found([cell(**{OURS: -1.0})])
    assert found.cases == found.fastest == []
    ((line, met),) = ann_report.cost_check(found).items()
    assert met is False
    assert "answers no more than the photographs do" in line


def test_a_method_that_is_not_finite_is_left_out_and_named():
    found = ann_report.Found([cell(), cell(unit=2, **{DREAM: float("nan")})])
    assert found.broken == [DREAM]
    assert DREAM not in found.methods
    assert found.baselines == [CMA]


def test_break_even():
    assert ann_report.break_even(8.0, 0.2, 0.6) == pytest.approx(20)
    assert ann_report.break_even(8.0, 0.6, 0.2) is None


def test_what_is_asked_is_judged():
    said = ann_report.checks(ann_report.Found([cell(unit=unit) for unit in (1, 2, 3)]))
    text = {line.split(":")[0].split(" (")[0]: (line, met) for line, met in said.items()}
    assert text["Units"][1] is False
    line, met = text["Predictivity among methods that make images"]
    assert met is True
    assert f"the best other, {OURS_AT_ANGLE}, 65.0 %, difference +5.00 [+5.00, +5.00]" in line
    assert text["Predictivity against the bar"][1] is False
    line, met = text["Realism among methods that reach +1 SD"]
    assert CMA not in line  # at 0 SD, it is not asked
    assert met is False  # OURS_AT_ANGLE is as real: not better
    line, met = text["Cost at equal response"]
    assert met is False
    assert "median ratio 0.38 (wanted: at most 0.1); the fit's 8.0 s are paid for after 20 images" in line


def test_an_edit_that_does_not_reach_one_sd_is_said():
    (line,) = ann_report.realism_check(ann_report.Found([cell(**{OURS: 1.0})]))
    assert f"{OURS} reaches +0.50 SD and is not among them" in line


def test_no_baseline_gets_there():
    ((line, met),) = ann_report.cost_check(ann_report.Found([cell(**{DREAM: 1.0})])).items()
    assert met is None
    assert "no optimisation baseline answers as much within 8 passes in any of 2 cases" in line


@pytest.mark.parametrize(("low", "mean", "met"), [(0.1, 0.2, True), (-0.1, 0.2, None), (-0.1, -0.05, False)])
def test_noise_leaves_a_claim_open(low, mean, met):
    assert ann_report.told_apart(low, mean) is met


def test_budgets_are_not_mixed():
    other = {**cell(unit=2), "passes": 16}
    with pytest.raises(ValueError, match=r"cells are of 2 budgets .*\(8, 2, 40.0\), \(16, 2, 40.0\).*another --out"):
        ann_report.Found([cell(), other])


def test_seeds_that_every_unit_has_count():
    found = ann_report.Found([cell(unit=1), cell(unit=1, seed=1), cell(unit=2)])
    assert found.seeds == [0]
    with pytest.raises(ValueError, match="share no seed"):
        ann_report.Found([cell(unit=1, seed=1), cell(unit=2)])


@pytest.mark.parametrize("passes", [0, 4, 10])
def test_a_budget_that_divides_into_octaves(passes):
    with pytest.raises(ValueError, match=f"passes={passes}; expected a multiple of 4, at least 8"):
        Budget(passes, 4, 40.0)


@pytest.mark.parametrize("passes", [8, 16, 32, 64])
def test_a_search_uses_its_passes(passes):
    search = Budget(passes, 4, 40.0).search
    assert passes - 2 <= 1 + search["population"] * search["generations"] <= passes


def test_what_the_target_says_is_noted():
    target = Heard(CallableTarget(lambda images: images.mean((1, 2, 3))))

    class Twice(Method):
        def _fit(self, reference, *, progress, checkpoint):
            """Nothing is learned."""

        def _generate(self, images, directions, seeds, alpha, strength):
            for level in (0.25, 0.75):
                self.target(torch.full_like(images, level))
            return images, None

    method = Watched(Twice().bind(target, None), target)
    method.generate(torch.rand(2, 3, 4, 4), {0: "decrease"}, seeds=[0, 1])
    assert [value for _, value in method.traces_["decrease"]] == [0.25, 0.75]
    assert method.made_["decrease"].shape == (2, 3, 4, 4)
    assert 0 < method.traces_["decrease"][0][0] < method.traces_["decrease"][1][0]


def run(places, out, *words):
    """The command, on one layer of the smallest network."""
    data, weights = places
    threads, network = torch.get_num_threads(), NETWORKS["cifar10_resnet20"]
    words = [*words, "--data", str(data), "--weights", str(weights), "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        # It judges itself, and learns from a sixth: SqueezeNet at 224 pixels would take most of the time.
        small = Network(network.build, {"layer1": 16}, judge="cifar10_resnet20")
        patch.setitem(NETWORKS, "cifar10_resnet20", small)
        patch.setitem(_registry, "embedded", partial(embedded, steps=2, draw_steps=2))
        patch.setattr(ann_report, "DRAWS", 50)
        whole = vl.ReferenceSet.of_backend
        patch.setattr(vl.ReferenceSet, "of_backend", lambda backend: whole(backend).at(range(0, 2118, 6)))
        try:
            return ann_units.main([*words, "--networks", "cifar10_resnet20", "vit_tiny64"])
        finally:
            torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore:.*WEAK EVIDENCE:UserWarning")
@pytest.mark.end_to_end
def test_every_method_runs_and_is_reported(places, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("cmaes")
    size = ["--units", "1", "--images", "2"]
    assert run(places, tmp_path, "run", *size) == 0
    printed = capsys.readouterr().out
    assert "not there: vit_tiny64" in printed
    assert "1 cells to run" in printed
    (file,) = tmp_path.glob("cell-*.json")
    before = file.stat().st_mtime_ns
    assert run(places, tmp_path, "run", *size) == 0
    assert file.stat().st_mtime_ns == before
    found = json.loads(file.read_text())["found"]
    assert {one["method"] for one in found["scores"]} == set(CONTESTANTS)
    forward = {one["method"]: one["values"][0] for one in found["scores"] if one["measure"] == "forward"}
    for label, one in CONTESTANTS.items():
        if one.kind == "optimised" or one.traced:
            assert 6 <= forward[label] <= 9 or "guided" in label, label
        else:
            assert forward[label] == 0, label
    with pytest.raises(ValueError, match="was begun with images=2, now 3; expected the same settings"):
        run(places, tmp_path, "run", "--units", "1", "--images", "3")
    assert run(places, tmp_path, "run", "--again", NATURAL, *size) == 0
    again = json.loads(file.read_text())["found"]
    assert {one["method"] for one in again["scores"]} == set(CONTESTANTS)
    kept = [one for one in found["scores"] if one["method"] != NATURAL]
    assert again["scores"][: len(kept)] == kept
    assert run(places, tmp_path, "report") == 0
    text = (tmp_path / "ann_units.md").read_text()
    assert "Not measured, for no cell of it is there: vit_tiny64" in text
    assert text.index("What fails, first") < text.index("What holds") < text.index("## Cost")
    numbers = json.loads((tmp_path / "ann_units.json").read_text())
    assert False in numbers["checks"].values()  # one unit of one network is too few
    for name in ("figure4", "scores"):
        path = tmp_path / f"ann_units_{name}.webp"
        assert path.stat().st_size < 400_000
        with Image.open(path) as drawn:
            assert min(drawn.size) > 60


class Drawn(Bench):
    """Random responses, so that nothing is read."""

    reference = torch.empty(0)

    def __init__(self):
        pass

    def responses(self, name, layer, images):
        return torch.randn(60, len(load_units()[name][layer]))


def test_whatever_has_been_run_holds_all_networks_and_no_tuning_unit():
    every = list(ann_units.cells(Drawn(), list(ann_units.TARGETS), 4, 2))
    assert [(cell.network, cell.seed) for cell in every[:4]] == [(name, 0) for name in ann_units.TARGETS]
    assert len({cell.stem for cell in every}) == len(every) == 4 * 4 * 2
    ours = [cell for cell in every if cell.network == "vit_tiny64" and cell.seed == 0]
    assert [cell.layer for cell in ours] == ["blocks.1", "blocks.6", "blocks.11", "blocks.1"]
    assert [cell.first for cell in ours] == [True, True, True, False]
    tuning = {
        (name, layer, unit)
        for name, layers in load_units().items()
        for layer, units in layers.items()
        for unit in units[:TUNING_UNITS]
    }
    assert tuning.isdisjoint({(cell.network, cell.layer, cell.unit) for cell in every})


def test_a_network_of_timm_is_seen_below_its_classifier():
    timm = pytest.importorskip("timm")
    bench = Drawn()
    bench.device, bench.cache, bench.networks = torch.device("cpu"), None, {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = {"img_size": 16, "patch_size": 8, "depth": 1, "num_classes": 5}
        network = timm.create_model("vit_tiny_patch16_224", **options).eval()
    network.preprocess = torch.nn.Identity()
    bench.networks["vit_tiny64"] = network
    seen = Seen(bench, "vit_tiny64")
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network.head(seen(images)), network(images), rtol=1e-4, atol=1e-4)
    seen.known = {key: torch.zeros(192) for key in image_keys(images[:1])}
    assert seen(images)[0].abs().sum() == 0
    assert seen(images)[1].abs().sum() > 0
