"""All methods on one unit whose preference is planted: brightness, in pictures of 8 px."""

import csv
import io

import numpy as np
import pytest
import torch
from torch import nn

from vislens_interp import CallableTarget, Comparison, FeatureLens, Preprocess
from vislens_interp.config import Config
from vislens_interp.evaluation import comparison
from vislens_interp.evaluation.comparison import COLUMNS
from vislens_interp.files import load_state, save_state
from vislens_interp.images import image_keys
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.methods.directions import RidgePattern
from vislens_interp.metrics.bootstrap import intervals, paired_difference
from vislens_interp.report.comparison import scores_figure

SIZE, COUNT = 8, 240
METHODS = ["edit", "ridge_pattern", "natural_images", "random_images", "unedited"]


def pictures(count=COUNT, seed=0):
    coarse = torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=SIZE, mode="bilinear")


class Flat:
    """x is the picture around grey; decoding adds a little noise of each image's seed."""

    name, size, shape = "flat", SIZE, (3 * SIZE * SIZE,)
    device, differentiable = torch.device("cpu"), True
    defaults = Config.of(fit={"w_consistency": 0.0}, strength=0.5, shuffles=1)

    def encode(self, images):
        return images.flatten(1) - 0.5

    def render(self, x):
        return (x + 0.5).unflatten(1, (3, SIZE, SIZE)).clamp(0, 1)

    def decode(self, x, *, init_image, strength, seeds):
        noise = [torch.randn(self.shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return self.render(x + 0.02 * strength * torch.stack(noise))

    def reference_images(self):
        return None

    def vae(self):
        """Trained in closed form: the principal components of pictures like those of the tests."""
        x = self.encode(pictures(400, seed=9))
        *_, components = torch.linalg.svd(x - x.mean(0), full_matrices=False)
        with torch.random.fork_rng(devices=[]):
            vae = EmbeddingVAE(*self.shape, latent_dim=12)
        with torch.no_grad():
            vae.fc_encode.weight.copy_(torch.cat([components[:12], torch.zeros(12, *self.shape)]))
            vae.fc_encode.bias.copy_(torch.cat([-components[:12] @ x.mean(0), torch.full((12,), -4.0)]))
            vae.fc_decode.weight.copy_(components[:12].T)
            vae.fc_decode.bias.copy_(x.mean(0))
        return vae

    def feature_extractor(self):
        return None


def grid(images):
    """An embedding without a network: colours on a grid of 2 x 2, around grey, and one number for all."""
    seen = (nn.functional.adaptive_avg_pool2d(images, 2) - 0.5).flatten(1)
    return torch.cat([seen, torch.full((len(seen), 1), 0.01)], 1)


class Bright(nn.Module):
    """Two channels: how bright a picture is, and how red."""

    preprocess = Preprocess(SIZE, [0.0], [1.0])

    def __init__(self):
        super().__init__()
        self.read = nn.Conv2d(3, 2, 1)
        with torch.no_grad():
            self.read.weight.copy_(torch.tensor([[1.0, 1, 1], [1, -0.5, -0.5]])[:, :, None, None] / 3)
            self.read.bias.zero_()

    def forward(self, x):
        return self.read(x)


def bright_lens(unit=0, **settings):
    chosen = {"shuffles": 1, "epochs": 1, "w_consistency": 0.0, "w_kld": 0.03, "block_dim": 1, **settings}
    return FeatureLens(Bright(), "read", unit, backend=Flat()).fit(pictures(), **chosen)


@pytest.fixture(scope="module")
def lens():
    return bright_lens()


@pytest.fixture(scope="module")
def inputs():
    return pictures(4, seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="module")
def found(lens, inputs, folder):
    return lens.compare(inputs, METHODS, (0, 1), angle=30, embedding=grid, second=grid, folder=folder)


def mean(found, method, direction, measure):
    (row,) = [row for row in found.table([measure]) if (row["method"], row["direction"]) == (method, direction)]
    return row["mean"]


def test_the_planted_preference_is_scored_as_planted(found):
    for way in ("increase", "decrease"):
        for method in ("edit", "ridge_pattern", "natural_images"):
            assert mean(found, method, way, "response_change_from_input") > 0.3
            assert mean(found, method, way, "right_way") > 0.8
        assert abs(mean(found, "unedited", way, "response_change")) < 1e-6
        assert mean(found, "natural_images", way, "percentile") > 90
    assert mean(found, "natural_images", "both", "predictivity") > 85
    assert mean(found, "ridge_pattern", "both", "predictivity") > 85
    # both sets of pictures are the same, so that they tell nothing
    assert mean(found, "unedited", "both", "predictivity") == 50
    assert mean(found, "natural_images", "both", "predictivity_easy") > mean(
        found, "natural_images", "both", "predictivity"
    )


def test_a_linear_unit_transfers(found):
    """What the second network predicts is the unit itself: brightness is linear in its features."""
    for method in ("ridge_pattern", "natural_images"):
        assert mean(found, method, "increase", "transfer_change") == pytest.approx(
            mean(found, method, "increase", "response_change_from_input"), abs=0.1
        )


def test_edits_are_matched_in_angle(found):
    assert mean(found, "ridge_pattern", "increase", "edit_angle") == pytest.approx(30, abs=0.5)
    assert mean(found, "unedited", "increase", "edit_angle") == pytest.approx(0, abs=0.1)
    assert ("natural_images", "increase", "edit_angle") not in found.scores
    assert any("matched at 30°, except: natural_images, random_images, unedited" in note for note in found.notes)


def test_the_table_is_tidy(found):
    rows = found.table()
    assert all(tuple(row) == COLUMNS for row in rows)
    assert all(row["ci_low"] <= row["mean"] + 1e-9 and row["mean"] <= row["ci_high"] + 1e-9 for row in rows)
    assert len({(row["method"], row["direction"], row["measure"]) for row in rows}) == len(rows) == len(found.scores)
    assert {row["method"] for row in rows} == set(METHODS)
    assert rows[0]["images"] == 4
    assert rows[0]["seeds"] == 2


def test_costs_are_in_the_table(found):
    assert mean(found, "ridge_pattern", "increase", "forward") == 0
    assert mean(found, "ridge_pattern", "increase", "seconds") > 0
    assert ("edit", "increase", "fit_seconds") in found.scores


def test_equal_budgets_are_not_called_unequal_and_unequal_ones_are(found, lens, inputs):
    assert not any("Budgets" in note for note in found.notes)
    climbed = lens.compare(inputs, ["unedited", "cma_es"], (0,))
    (said,) = [note for note in climbed.notes if "Budgets are unequal" in note]
    assert "unedited 0 + 0" in said
    assert "predictivity" not in climbed.measures
    assert any("Pass embedding=" in note for note in climbed.notes)


def test_it_goes_on_where_it_was(found, lens, inputs, folder, monkeypatch):
    kept = sorted(folder.iterdir())
    assert len(kept) == len(METHODS) * 2
    times = [path.stat().st_mtime_ns for path in kept]
    kept[0].unlink()

    def refuse(*_, **__):
        raise AssertionError("made again, though it was kept")

    if not kept[0].name.startswith("ridge_pattern"):
        monkeypatch.setattr(RidgePattern, "generate", refuse)
    again = lens.compare(inputs, METHODS, (0, 1), angle=30, embedding=grid, second=grid, folder=folder)
    assert [path.stat().st_mtime_ns for path in kept[1:]] == times[1:]
    for key, values in found.scores.items():
        if key[2] not in ("seconds", "fit_seconds", "memory"):
            assert np.array_equal(again.scores[key], values), key


def test_parts_of_another_comparison_are_refused(found, lens, folder):
    with pytest.raises(
        ValueError, match=r"folder holds 'edit-.*' of another comparison: its images was .*Name another"
    ):
        lens.compare(pictures(4, seed=5), ["edit"], (0,), angle=30, embedding=grid, folder=folder)
    with pytest.raises(ValueError, match="its method was"):
        lens.compare(pictures(4, seed=1), ["ridge_pattern"], (0,), angle=40, embedding=grid, folder=folder)


def test_it_goes_on_when_the_fit_differs_by_rounding(found, lens, inputs, folder):
    """Another number of threads adds in another order: the last bits of the landscape's weights are others."""
    weight = lens.landscape_.vae.fc_decode.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight += 1e-7 * before
    try:
        again = lens.compare(inputs, ["edit"], (0, 1), angle=30, embedding=grid, second=grid, folder=folder)
        key = ("edit", "increase", "response_change")
        assert np.array_equal(again.scores[key], found.scores[key])
        assert any("differs from today's by rounding" in note for note in again.notes)
        assert not any("by rounding" in note for note in found.notes)
    finally:
        with torch.no_grad():
            weight.copy_(before)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("responses", torch.zeros(COUNT, 1), "the responses that its landscape was fitted on differ"),
        ("images", {}, r"images\['unedited'\] is None; expected 8-bit pictures"),
        ("costs", {"0/increase": {"forward": "many"}}, r"costs\['0/increase'\]\['forward'\] is 'many'; expected"),
        ("costs", {}, r"costs\['0/increase'\] or angles.* is missing"),
        ("identity", "[[", "identity is None; expected a dictionary"),
    ],
)
def test_an_edited_part_is_refused_by_field(found, lens, inputs, folder, tmp_path, field, value, message):
    (part,) = folder.glob("edit-*-seed0.safetensors")
    save_state(tmp_path / part.name, "comparison part", {**load_state(part, "comparison part"), field: value})
    with pytest.raises(ValueError, match=f"{part.name}.*{message}"):
        lens.compare(inputs, ["edit"], (0,), angle=30, embedding=grid, second=grid, folder=tmp_path)


def test_a_folder_that_cannot_be_written_is_said_before_the_work(lens, inputs, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written"):
        lens.compare(inputs, ["edit"], (0,), folder=tmp_path / "file")


def test_a_label_that_a_spreadsheet_would_run_is_text(tmp_path):
    scores = {("=1+1", "increase", "percentile"): np.ones((1, 1, 1))}
    assert "\n'=1+1,increase," in Comparison(["=1+1"], ["u"], [0], ["k"], scores).to_csv(tmp_path / "scores.csv")


def test_differences_are_paired(found):
    (row,) = [
        row
        for row in found.difference("natural_images", "unedited", ["response_change_from_input"])
        if row["direction"] == "increase"
    ]
    assert row["method"] == "natural_images - unedited"
    assert row["mean"] == pytest.approx(
        mean(found, "natural_images", "increase", "response_change_from_input")
        - mean(found, "unedited", "increase", "response_change_from_input")
    )
    assert row["ci_low"] > 0
    with pytest.raises(ValueError, match="other='nobody' is not in this comparison"):
        found.difference("edit", "nobody")


def test_differences_of_all_measures_share_their_draws(found, monkeypatch):
    drawn = []
    monkeypatch.setattr(comparison, "intervals", lambda *given, **how: drawn.append(1) or intervals(*given, **how))
    rows = found.difference("natural_images", "unedited")
    assert len(drawn) <= 2 < len(rows)  # of the measures that each image has, and of the others
    for row in rows[:2]:
        one, two = (found.scores[name, row["direction"], row["measure"]] for name in ("natural_images", "unedited"))
        alone = paired_difference(one, two, draws=comparison.DRAWS, same_images=found.same_images)
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((alone.low, alone.high))


def test_units_are_joined(found, inputs):
    red = bright_lens(1).compare(inputs, METHODS, (0, 1), angle=30, embedding=grid, second=grid)
    both = Comparison.join([found, red])
    assert both.units == ["Bright read 0", "Bright read 1"]
    assert both.same_images
    key = ("edit", "increase", "response_change_from_input")
    assert both.scores[key].shape == (2, 4, 2)
    assert mean(both, *key) == pytest.approx((mean(found, *key) + mean(red, *key)) / 2)
    assert not any("One unit" in note for note in both.notes)
    assert any("One unit" in note for note in found.notes)
    assert not any("WEAK" in note for note in found.notes)
    with pytest.raises(ValueError, match="unit 'Bright read 0' twice"):
        Comparison.join([found, found])
    with pytest.raises(ValueError, match=r"comparisons\[1\] has methods .*Compare all"):
        Comparison.join([found, Comparison(["edit"], ["x"], [0, 1], red.images, {})])
    with pytest.raises(ValueError, match="comparisons is empty"):
        Comparison.join([])


def test_each_unit_of_a_lens_is_moved_alone(inputs):
    several = bright_lens([0, 1], block_dim=2).compare(inputs, ["ridge_pattern"], (0,), embedding=grid)
    assert several.units == ["Bright read 0", "Bright read 1"]
    assert several.scores["ridge_pattern", "increase", "response_change_from_input"].shape == (2, 4, 1)
    assert mean(several, "ridge_pattern", "increase", "response_change_from_input") > 0.3


def test_what_is_written_can_be_read(found, tmp_path):
    text = found.to_csv(tmp_path / "scores.csv", ["percentile"])
    assert (tmp_path / "scores.csv").read_text() == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [float(row["mean"]) for row in rows] == [row["mean"] for row in found.table(["percentile"])]
    markdown = found.to_markdown(measures=["percentile"]).splitlines()
    assert markdown[0] == "| method | direction | measure | mean | 95 % interval |"
    assert len([line for line in markdown if line.startswith("| ")]) == 1 + len(rows)
    assert "- 1 unit, 4 images, 2 seeds." in markdown
    latex = found.to_latex(tmp_path / "scores.tex", ["percentile"])
    assert r"ridge\_pattern & increase & percentile & $" in latex
    assert latex.count(r"\\") == 1 + len(rows)
    with pytest.raises(ValueError, match="measures names 'beauty', which was not measured"):
        found.table(["beauty"])


def test_figures_are_drawn(found, tmp_path):
    found.figure().savefig(tmp_path / "scores.png")
    found.pictures_figure().savefig(tmp_path / "pictures.png")
    assert (tmp_path / "pictures.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="unit='x' has no pictures here"):
        found.pictures_figure("x")
    with pytest.raises(ValueError, match="rows or labels is empty"):
        scores_figure([], [], {}, title="")


def test_every_method_learns_what_the_landscape_learned(lens, inputs):
    class Seen(RidgePattern):
        def _fit(self, reference, **settings):
            self.keys_ = image_keys(reference.images)
            assert torch.allclose(reference.responses, self.target.responses(reference.images), atol=1e-6)
            super()._fit(reference, **settings)

    method = Seen()
    lens.compare(inputs, {"seen": method}, (0,), embedding=grid)
    held_out = image_keys(pictures()[lens.landscape_.held_out])
    assert len(method.keys_) == COUNT - len(held_out)
    assert not set(method.keys_) & set(held_out)


def test_compare_refuses(lens, inputs):
    for arguments, error, message in (
        ({"methods": "edit"}, TypeError, r"methods='edit' is a str; expected a sequence. Pass \['edit'\]"),
        ({"methods": RidgePattern()}, TypeError, "methods=.* is a RidgePattern; expected a sequence"),
        ({"seeds": 3}, TypeError, r"seeds=3 is a int; expected a sequence. Pass \[3\]"),
        ({"methods": []}, ValueError, "methods is empty"),
        ({"methods": ["edit", "edit"]}, ValueError, "'edit' twice.*Pass a dict"),
        ({"methods": [3]}, TypeError, "methods holds a int"),
        ({"methods": ["edt"]}, ValueError, "method='edt' is unknown"),
        ({"seeds": ()}, ValueError, r"seeds=\[\]; expected different numbers"),
        ({"seeds": (1, 1)}, ValueError, r"seeds=\[1, 1\]"),
        ({"direction": "up"}, ValueError, "direction='up' is unknown"),
        ({"angle": 200}, ValueError, r"angle=200 must lie in \[0, 180\]"),
        ({"strength": 2}, ValueError, r"strength=2 must lie in \[0, 1\]"),
        ({"natural": pictures(5, seed=3)}, ValueError, "natural has 5 images to judge by; expected at least 20"),
        ({"natural": pictures()}, ValueError, r"natural holds \d+ images that the methods learn from"),
    ):
        with pytest.raises(error, match=message):
            lens.compare(inputs, **{"methods": ["edit"], "seeds": (0,), **arguments})


def test_what_cannot_work_is_refused_before_a_fit(inputs, tmp_path):
    lens = FeatureLens(CallableTarget(lambda x: x.mean((1, 2, 3)), name="mean"), backend=Flat())
    for arguments, error, message in (
        ({"images": tmp_path / "nothing"}, FileNotFoundError, "nothing"),
        ({"methods": ["edt"]}, ValueError, "method='edt' is unknown"),
        ({"methods": ["maco"]}, ValueError, "needs gradients"),
        ({"natural": pictures(5, seed=3)}, ValueError, "natural has 5 images to judge by"),
        ({}, ValueError, "this lens is not fitted"),
    ):
        with pytest.raises(error, match=message):
            lens.compare(**{"images": inputs, "methods": ["edit"], **arguments})


def test_what_cannot_work_is_refused_before_anything_is_made(inputs, tmp_path):
    blind = FeatureLens(CallableTarget(lambda x: x.mean((1, 2, 3)), name="mean"), backend=Flat())
    blind.fit(pictures(), shuffles=0, epochs=1, w_consistency=0.0, block_dim=1)
    with pytest.raises(ValueError, match="needs gradients"):
        blind.compare(inputs, ["unedited", "activation_maximization"], (0,), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    (said,) = [note for note in blind.compare(inputs, ["unedited"], (0,)).notes if "WEAK EVIDENCE" in note]
    assert "no shuffled control was fitted" in said


def test_a_score_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"has shape \(1, 2, 1\); expected \(1, 1, 1\)"):
        Comparison(["a"], ["u"], [0], ["k"], {("a", "increase", "percentile"): np.zeros((1, 2, 1))})
    with pytest.raises(ValueError, match="a measure of"):
        Comparison(["a"], ["u"], [0], ["k"], {("a", "increase", "beauty"): np.zeros((1, 1, 1))})
