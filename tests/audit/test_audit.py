"""Tests that can fail: pictures that tell how a unit behaves pass them, others do not."""

import json

import pytest
import torch
from colours import CYAN, QUICK, RED, Painter
from torch import nn

from vislens_interp import CallableTarget, FeatureLens, LayerTarget, Preprocess
from vislens_interp.audit import AuditResult, Row, audit
from vislens_interp.audit.full import interpretability, randomisation
from vislens_interp.audit.material import Material, independent_judge
from vislens_interp.audit.paths import NO_LAYERS, paths
from vislens_interp.audit.prediction import average_precision, told, weighted_pearson
from vislens_interp.cli import main
from vislens_interp.cli.arguments import build_parser
from vislens_interp.images import image_keys, to_pil
from vislens_interp.landscape.calibration import operating_point
from vislens_interp.methods.controls import Shuffled
from vislens_interp.methods.landscape import LandscapeEdit
from vislens_interp.methods.natural_images import NaturalImages
from vislens_interp.methods.prototypes import EditedPrototypes
from vislens_interp.metrics.predictivity import predictivity
from vislens_interp.targets.subset import UnitsOf

PREDICTION = ("2AFC, extremes", "2AFC, random pairs", "Pearson", "AUPRC")
METHODS = {"honest": Painter(), "lying": Painter(CYAN, RED), "natural": "natural_images", "random": "random_images"}


@pytest.fixture(scope="module")
def audited(lens, photographs, judge):
    return lens.audit(photographs, METHODS, judge=judge)


def states(result, method):
    return {row.test: row.state for row in result.of(method)}


def test_pictures_that_show_what_the_unit_prefers_pass(audited):
    for method in ("honest", "natural"):
        found = [states(audited, method)[test] for test in PREDICTION]
        assert found == [
            "not run",
            "passed",
            "passed",
            "passed",
        ]  # of extremes random ones tell all


@pytest.mark.parametrize("method", ["lying", "random"])
def test_pictures_of_something_else_fail(audited, method):
    assert {test: states(audited, method)[test] for test in PREDICTION} == dict.fromkeys(PREDICTION, "failed")


def test_top_photographs_travel_as_photographs_do_and_suppressed_colours_do_not(audited):
    assert states(audited, "natural")["paths"] == "passed"
    assert states(audited, "lying")["paths"] == "failed"


def test_random_photographs_take_no_path(lens, photographs, judge):
    groups = torch.arange(100)
    passed = {"random_images": 0, "natural_images": 0}
    for seed in range(20):
        material = Material(lens, 0, photographs[:8], photographs[20:], groups, judge, seed)
        for method in passed:
            passed[method] += paths(material, method, lens.maker(method))[0].state == "passed"
    assert passed["random_images"] <= 3  # one in twenty by chance
    assert passed["natural_images"] == 20


def test_top_photographs_tell_more_than_those_of_shuffled_responses(audited):
    assert states(audited, "natural")["against shuffled responses"] == "passed"
    assert states(audited, "honest")["against shuffled responses"] == "not run"


def test_shuffled_responses_fail(reference, photographs, judge, backend, lens):
    order = torch.randperm(220, generator=torch.Generator().manual_seed(3))
    dealt = FeatureLens(lens.target, backend=backend)
    with pytest.warns(UserWarning, match="a correlation of"):
        dealt.fit(reference, responses=lens.reference_set.responses[order], **QUICK)
    assert dealt.evidence_["0"].weak
    result = dealt.audit(photographs, ["natural_images"], judge=judge)
    assert {states(result, "natural_images")[test] for test in PREDICTION} == {"failed"}
    assert states(result, "natural_images")["against shuffled responses"] == "failed"


def test_edits_of_the_lens_are_compared_with_those_of_shuffled_responses(lens, photographs, judge):
    edit = LandscapeEdit(strength=0.0, **QUICK)  # without the backend's refinement, which takes half a minute
    result = audit(lens, photographs, {"edit": edit}, judge=judge)
    rows = {row.test: row for row in result.rows}
    tests = ("2AFC, random pairs", "Pearson", "AUPRC", "against shuffled responses", "evidence of shuffled responses")
    assert [rows[test].state for test in tests] == ["passed"] * 5


def test_full_audit(lens, photographs, judge):
    methods = {"painter": Painter(), "natural": "natural_images", "lying": Painter(CYAN, RED)}
    result = audit(lens, photographs, methods, judge=judge, full=True)
    for method, wanted in (("painter", "failed"), ("natural", "passed")):  # a painter asks no network
        assert states(result, method)["random weights"] == wanted
    assert [states(result, method)["transfer"] for method in methods] == ["passed", "passed", "failed"]
    # Random photographs stayed among their own tasks, and so told fewer than all; of the other tasks they tell all.
    assert [states(result, method)["uncalibrated MIS"] for method in methods] == ["not run", "not run", "failed"]
    found = {row.method: row.value for row in result.rows if row.test == "identification"}
    assert found == {"painter": 1.0, "natural": 1.0, "lying": 0.0}


def test_a_method_with_fewer_pictures_than_a_full_audit_takes_shows_none_twice(lens, photographs, judge):
    """Nine pictures are taken; there are eight prototypes, of which the first was shown, and counted, twice."""
    methods = {"prototypes": "prototypes", "natural": "natural_images", "three": NaturalImages(3)}
    material = Material(lens, 0, photographs[:9], photographs[9:], torch.arange(111), judge)
    for label, method in methods.items():
        made = material.make(label, lens.maker(method))
        assert len(set(image_keys(made["increase"]))) == len(made["increase"])
    assert [len(made["decrease"]) for made in material.pictures.values()] == [8, 9, 3]
    assert EditedPrototypes(count=4).distinct == Shuffled(EditedPrototypes(count=4)).distinct == 4
    assert "with 8 pictures each way" in interpretability(material, "prototypes", lens.maker("prototypes"))[0].meaning


def test_a_full_audit_from_the_shell_counts_its_photographs_before_a_fit(photographs, tmp_path, capsys):
    for row, picture in enumerate(to_pil(photographs[:28])):
        (tmp_path / "photographs").mkdir(exist_ok=True)
        picture.save(tmp_path / "photographs" / f"{row}.png")
    words = ["--model", "zoo:cifar10_convnet", "--layer", "conv3", "--unit", "16", "--backend", "cifar10", "--full"]
    images = ["--images", str(tmp_path / "photographs"), "--reference", str(tmp_path / "none")]
    assert main(["audit", *words, *images, "--out", str(tmp_path / "out")]) == 1
    assert "images holds 28 different photographs; expected at least 29: 9 are edited" in capsys.readouterr().err


def test_a_target_without_a_network_is_audited_as_far_as_it_goes(reference, photographs, judge, backend):
    target = CallableTarget(lambda images: images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3)))
    lens = FeatureLens(target, backend=backend).fit(reference, w_consistency=0, **QUICK)
    result = lens.audit(photographs, {"painter": Painter(), "ascent": "deepdream"}, judge=judge)
    assert states(result, "painter")["paths"] == "not run"
    assert "needs gradients" in result.of("ascent")[0].meaning


def test_a_loaded_lens_is_audited_as_far_as_it_goes(lens, photographs, judge, backend, tmp_path):
    again = FeatureLens.load(lens.save(tmp_path / "lens.safetensors"), lens.target, backend=backend)
    again.fitted_method.override(strength=0.0)
    result = again.audit(photographs, ["edit", "natural_images"], judge=judge, full=True)
    can = (*PREDICTION[1:], "transfer")
    assert "not run" not in [states(result, "edit")[test] for test in can]
    tests = ("against shuffled responses", "paths", "random weights")
    for row in [*result.of("natural_images"), *(row for row in result.of("edit") if row.test in tests)]:
        assert row.state == "not run"
        assert "reference images, which a loaded lens does not have" in row.meaning
    with pytest.raises(ValueError, match="holds no reference images; pass images"):
        again.audit(judge=judge)


def test_a_network_without_layers_that_can_be_read_is_audited_as_far_as_it_goes(reference, photographs, judge, backend):
    red = LayerTarget(nn.Sequential(nn.AvgPool2d(2)), None, 0, preprocess=Preprocess(32, [0], [1]))
    lens = FeatureLens(red, backend=backend).fit(reference, **QUICK)
    material = Material(lens, 0, photographs[:8], photographs[20:], torch.arange(100), judge)
    maker = lens.maker("natural_images")
    (row,) = paths(material, "natural", maker)
    assert (row.state, row.meaning) == ("not run", NO_LAYERS)
    assert randomisation(material, "natural", "natural_images", maker) == [Row("natural", "random weights", NO_LAYERS)]


def test_random_photographs_leave_the_tasks_that_they_are_asked_of(lens, photographs, judge):
    """They stayed among their own tasks, and so did further crops of them: like themselves alone, they told some."""
    groups = torch.arange(100) // 2  # two crops of each photograph
    material = Material(lens, 0, photographs[:8], photographs[20:], groups, judge)
    material.__dict__["features"] = torch.eye(50, dtype=torch.float64)[groups]
    material._seen["none"] = {"increase": torch.zeros(8, 50).double(), "decrease": torch.zeros(8, 50).double()}
    (row,) = interpretability(material, "none", lens.maker("edit"))
    assert row.bar == 0.5
    assert material.known["random pictures, uncalibrated MIS"] == 0.0


def test_a_share_of_pairs_is_that_of_the_metric(photographs):
    features = photographs.mean((2, 3)).double()
    responses = features @ torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64)
    up = features[:3]
    score = torch.nn.functional.normalize(features, dim=1) @ torch.nn.functional.normalize(up, dim=1).mean(0)
    once = torch.ones(1, 120, dtype=torch.float64)
    for extreme in (None, 0.1):
        wanted = predictivity(up, None, features, responses, extreme=extreme).accuracy
        assert told(score, responses, once, extreme).item() == pytest.approx(wanted)


def test_known_values():
    score, wanted = torch.tensor([4.0, 3, 2, 1]).double(), torch.tensor([1.0, 0, 1, 0]).double()
    once = torch.ones(1, 4, dtype=torch.float64)
    assert average_precision(score, wanted, once).item() == pytest.approx((1 + 2 / 3) / 2)
    assert weighted_pearson(score, 2 * score + 1, once).item() == pytest.approx(1)
    assert weighted_pearson(torch.ones(4).double(), score, once).item() == 0
    twice = torch.tensor([[2.0, 0, 1, 1]]).double()  # a draw with weights is the draw itself
    drawn = torch.tensor([0, 0, 2, 3])
    other = torch.tensor([1.0, 5, 2, 4]).double()
    wanted_r = weighted_pearson(score[drawn], other[drawn], once)
    assert weighted_pearson(score, other, twice).item() == pytest.approx(wanted_r.item())


def test_the_judge_is_never_of_the_targets_architecture(lens):
    from vislens_interp import zoo

    own = LayerTarget(zoo.load("squeezenet1_0"), "features.4", 0)
    assert independent_judge(own, 32)[1] == "efficientnet_lite2"
    assert independent_judge(UnitsOf(own, [0]), 32)[1] == "efficientnet_lite2"
    see, name = independent_judge(lens.target, 32)
    assert name == "squeezenet1_0"
    assert see(torch.rand(2, 3, 32, 32)).shape == (2, 512)


def test_a_verdict_is_in_words_and_on_the_page(audited, lens, tmp_path):
    said = audited.verdict("lying")
    assert said.startswith("failed: 2AFC, extremes, 2AFC, random pairs")
    page = audited.html()
    assert page.index("Of a photograph that drives") < page.index("Settings")
    folder = audited.save(tmp_path / "audit")
    assert sorted(path.name for path in folder.iterdir()) == ["audit.html", "audit.json"]
    content = json.loads((folder / "audit.json").read_text())
    assert content["verdict"]["lying"] == said
    assert "score" not in content
    assert operating_point(lens.evidence_["0"]) in page
    assert operating_point(lens.evidence_["0"]) in str(audited)
    assert audited.save(folder) == folder
    loaded = AuditResult.load(folder)
    assert (loaded.rows, loaded.title) == (audited.rows, audited.title)
    assert loaded.to_dict() == audited.to_dict()


def test_an_audit_that_was_damaged_is_not_loaded(audited, tmp_path):
    folder = audited.save(tmp_path / "audit")
    content = json.loads((folder / "audit.json").read_text())
    row = content["rows"][0]
    for damaged, said in (
        ({**content, "kind": "vislens_interp result"}, "was not written by vislens_interp"),
        ({**content, "format_version": 99}, "format version 99, newer"),
        ({**content, "rows": [{**row, "state": "fine"}]}, r"rows\[0\]\.state"),
        ({**content, "rows": [{**row, "value": "high"}]}, r"rows\[0\]\.value"),
        ({key: value for key, value in content.items() if key != "unit"}, "unit"),
    ):
        (folder / "audit.json").write_text(json.dumps(damaged))
        with pytest.raises(ValueError, match=said):
            AuditResult.load(folder)
    (folder / "audit.json").write_text("{")
    with pytest.raises(ValueError, match="truncated or no JSON"):
        AuditResult.load(folder)
    with pytest.raises(FileNotFoundError, match=r"holds no audit\.json"):
        AuditResult.load(tmp_path)


def test_the_lens_report_says_what_was_tested(lens, audited, photographs):
    result = lens.visualize(photographs[:1], "increase", strength=0.0)
    assert "Audit" in result.html()
    assert audited.verdict("lying") in result.html()
    assert operating_point(lens.evidence_["0"]) in result.html()
    lens.audits_ = {}
    assert "Not audited" in lens.visualize(photographs[:1], "increase", strength=0.0).html()


def test_errors(lens, audited, photographs, reference, judge, tmp_path):
    unfitted = FeatureLens(lens.target, backend=lens.backend)
    for arguments, error, message in (
        ({"images": photographs[:20]}, ValueError, "images holds 20 different photographs; expected at least 28"),
        ({"methods": ["edt"]}, ValueError, "method='edt' is unknown"),
        ({"unit": 7}, KeyError, "unit 7 is not in this lens"),
        ({}, ValueError, "this lens is not fitted"),
    ):
        with pytest.raises(error, match=message):
            unfitted.audit(**{"images": photographs, "judge": judge, **arguments})
    with pytest.raises(ValueError, match="images that the fit learned from"):
        audit(lens, reference, judge=judge)
    with pytest.raises(KeyError, match=r"method 'maco' was not audited; expected one of honest"):
        audited.of("maco")
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(ValueError, match=r"holds 'mine.txt', not written by an earlier audit"):
        audited.save(tmp_path)
    with pytest.raises(ValueError, match="is a file; expected a folder"):
        audited.save(tmp_path / "mine.txt")


def test_a_row_is_passed_above_its_bar_alone():
    assert Row.of("m", "t", "", (0.7, 0.51, 0.9), 0.5).state == "passed"
    assert Row.of("m", "t", "", (0.7, 0.5, 0.9), 0.5).state == "failed"
    assert Row.of("m", "t", "", (0.7, float("nan"), 0.9), 0.5).state == "failed"
    assert Row.of("m", "t", "", (0.7, 0.51, 0.9), 0.5, 0.72).state == "failed"  # random photographs reach that too
    assert Row.of("m", "t", "", (1.0, 1.0, 1.0), 0.5, 1.0).state == "not run"  # and so nothing can be told
    assert AuditResult("0", "", "Net", (Row("m", "t", "why"),)).verdict("m") == "not run: t"


def test_command_line_takes_what_the_docs_say():
    words = "audit --model zoo:cifar10_convnet --layer conv3 --unit 16 --out a --full --methods edit maco"
    args = build_parser().parse_args(words.split())
    assert (args.command, args.images, args.full, args.methods) == ("audit", None, True, ["edit", "maco"])


def test_command_refuses_another_folder_before_it_loads_anything(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("")
    words = ["audit", "--model", "zoo:cifar10_convnet", "--layer", "conv3", "--unit", "16", "--out", str(tmp_path)]
    assert main(words) == 1
    assert "'mine.txt', not written by an earlier audit" in capsys.readouterr().err
