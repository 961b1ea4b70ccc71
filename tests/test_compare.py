"""Methods on one bench: known answers on a unit that reads brightness, the table's form, going on after a stop."""

import csv
import io

import numpy as np
import pytest
import torch

from vislens_interp import FeatureLens
from vislens_interp.backends.base import Defaults
from vislens_interp.baselines.ridge_pattern import RidgePattern
from vislens_interp.comparison import COLUMNS, Comparison
from vislens_interp.landscape.vae import EmbeddingVAE
from vislens_interp.metrics import interval, paired_difference
from vislens_interp.targets import CallableTarget

SIZE = 6
METHODS = ["edit", "ridge_pattern", "unedited", "random_images", "natural_images"]


def pictures(count, seed=0):
    coarse = torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=SIZE, mode="bilinear")


class Flat:
    """x is the picture itself, around grey."""

    name, size, shape = "flat", SIZE, (3 * SIZE * SIZE,)
    device, differentiable = torch.device("cpu"), False
    defaults = Defaults(
        fit={"epochs": 1, "w_kld": 0.03}, prior={"block_dim": 1, "gradients": False}, strength=0.05, shuffles=0
    )

    def encode(self, images):
        return images.flatten(1) - 0.5

    def render(self, x):
        return (x + 0.5).unflatten(1, (3, SIZE, SIZE)).clamp(0, 1)

    def decode(self, x, *, reference, strength, seeds):
        noise = [torch.randn(self.shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return self.render(x + 0.01 * strength * torch.stack(noise))

    def reference(self):
        return None

    def vae(self):
        x = self.encode(pictures(500, seed=9))
        return EmbeddingVAE.principal(x.mean(0), x.T.cov(correction=0), 12, 1e-3)

    def perception(self):
        return None


def brightness(images):
    return images.mean((1, 2, 3))


def redness(images):
    return images[:, 0].mean((1, 2))


def layout(images):
    """Colours of a 3 x 3 grid: an embedding in which nothing is made."""
    return torch.nn.functional.adaptive_avg_pool2d(images, 3).flatten(1)


def lens_on(function):
    return FeatureLens(CallableTarget(function), backend=Flat()).fit(pictures(260))


@pytest.fixture(scope="module")
def lens():
    return lens_on(brightness)


@pytest.fixture(scope="module")
def found(lens):
    return lens.compare(pictures(6, seed=1), METHODS, seeds=(0, 1), angle=25.0, features=layout, second=layout)


def test_who_moves_a_bright_unit(found):
    for way in ("increase", "decrease"):
        for method in ("edit", "ridge_pattern"):
            assert found.interval(method, way, "response_change").low > 0
            assert found.interval(method, way, "right_way").mean == 1
            # A linear read-out of the colours sees all of a change of brightness.
            changes = [found.interval(method, way, name).mean for name in ("response_change", "transfer")]
            assert changes[0] == pytest.approx(changes[1], rel=0.05)
        assert abs(found.interval("unedited", way, "response_change").mean) < 1e-6
        assert found.interval("unedited", way, "similarity").mean > 0.999
    assert found.interval("natural_images", "both", "predictivity").mean > 0.8
    assert found.interval("unedited", "both", "predictivity").mean == 0.5  # the same pictures twice: every choice a tie
    assert found.difference("edit", "unedited", "increase", "response_change").excludes_zero


def test_intervals_are_those_of_the_bootstrap(found):
    key = ("edit", "increase", "response_change")
    other = ("ridge_pattern", "increase", "response_change")
    levels = {"levels": ("image", "seed"), "same_images": True}
    assert str(found.interval(*key)) == str(interval(found.values[key], **levels))
    apart = paired_difference(found.values[key], found.values[other], **levels)
    assert str(found.difference("edit", "ridge_pattern", *key[1:])) == str(apart)


def test_edits_turn_by_the_same_angle(found):
    for method in ("edit", "ridge_pattern"):
        assert found.matched[method]
    assert not found.matched["natural_images"]
    angle = found.interval("ridge_pattern", "increase", "edit_angle").mean
    assert angle == pytest.approx(25, abs=2)  # clipping to pictures takes a little
    assert "Edits turn by 25°, except where there is no such setting: unedited" in " ".join(found.notes)


def test_the_table_is_tidy(found):
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert tuple(rows[0]) == COLUMNS
    assert len({(row["method"], row["direction"], row["measure"]) for row in rows}) == len(rows)
    assert {row["method"] for row in rows} == set(METHODS)
    for row in rows:
        assert float(row["ci_low"]) <= float(row["mean"]) + 1e-9
        assert float(row["mean"]) <= float(row["ci_high"]) + 1e-9
    one = next(
        r for r in rows if (r["method"], r["direction"], r["measure"]) == ("edit", "increase", "response_change")
    )
    assert float(one["mean"]) == found.values["edit", "increase", "response_change"].mean()
    assert (one["units"], one["images"], one["seeds"], one["difference"]) == ("1", "6", "2", "")
    assert {"forward", "backward", "seconds", "memory", "fit_seconds"} <= {row["measure"] for row in rows}


def test_text_forms(found, tmp_path):
    markdown = found.to_markdown(tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == markdown
    assert markdown.count("| natural_images |") == 3  # increase, decrease, both
    assert "Budgets are equal" in markdown  # nobody asked the target
    latex = found.to_latex()
    assert r"natural\_images &" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 3


def test_figures_are_drawn(found, tmp_path):
    found.figure().savefig(tmp_path / "pictures.png")
    found.scores_figure().savefig(tmp_path / "scores.png")
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("pictures.png", "scores.png"))
    with pytest.raises(ValueError, match=r"measures=\['beauty'\] were not measured; expected some of"):
        found.scores_figure(["beauty"])


def test_units_join_and_are_drawn_first(found):
    other = lens_on(redness).compare(
        pictures(6, seed=1), METHODS, seeds=(0, 1), angle=25.0, features=layout, second=layout
    )
    both = Comparison.join([found, other])
    values = both.values["edit", "increase", "response_change"]
    assert values.shape == (2, 6, 2)
    assert np.array_equal(values[:1], found.values["edit", "increase", "response_change"])
    assert both.units == [*found.units, *other.units]
    assert "bootstrap over 2 units" in " ".join(both.notes)
    assert {row["units"] for row in both.table()} == {2}
    unlike = lens_on(redness).compare(pictures(6, seed=1), ["edit"], seeds=(0, 1), angle=25.0)
    with pytest.raises(ValueError, match="comparisons differ in methods"):
        Comparison.join([found, unlike])
    fewer = lens_on(redness).compare(pictures(6, seed=1), METHODS, seeds=(0, 1), angle=25.0)
    with pytest.raises(ValueError, match="comparisons differ in measures or numbers of images.*features="):
        Comparison.join([found, fewer])
    with pytest.raises(ValueError, match="comparisons is empty"):
        Comparison.join([])


def test_an_interrupted_comparison_goes_on(lens, tmp_path, monkeypatch):
    folder, images = tmp_path / "kept", pictures(4, seed=1)
    whole = lens.compare(images, ["edit", "ridge_pattern"], (0, 1), angle=20.0, folder=tmp_path / "whole")

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RidgePattern, "generate", stop)
        with pytest.raises(KeyboardInterrupt):
            lens.compare(images, ["edit", "ridge_pattern"], (0, 1), angle=20.0, folder=folder)
    kept = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert set(kept) == {"comparison.json", "edit-seed0.safetensors", "edit-seed1.safetensors"}
    resumed = lens.compare(images, ["edit", "ridge_pattern"], (0, 1), angle=20.0, folder=folder)
    assert {n: (folder / n).stat().st_mtime_ns for n in kept if n != "comparison.json"} == {
        n: t for n, t in kept.items() if n != "comparison.json"
    }
    for key, values in whole.values.items():
        if key[2] not in ("seconds", "memory", "fit_seconds"):
            assert np.array_equal(values, resumed.values[key]), key
    assert len(lens.compare(images, ["edit", "unedited"], (0, 1), angle=20.0, folder=folder).methods) == 2
    with pytest.raises(ValueError, match="holds another comparison: angle differ. Pass a new folder"):
        lens.compare(images, ["edit"], (0, 1), angle=30.0, folder=folder)
    with pytest.raises(ValueError, match="holds something else; expected a new or empty one"):
        lens.compare(images, ["edit"], (0, 1), angle=20.0, folder=tmp_path)


def test_unequal_budgets_are_said_and_the_callers_method_is_untouched(lens):
    pytest.importorskip("cmaes")
    mine = RidgePattern()
    found = lens.compare(pictures(2, seed=1), {"search": "cma_es", "mine": mine}, (0,), angle=20.0)
    assert found.budgets["search"] > 0
    assert found.budgets["mine"] == 0
    assert found.notes[0].startswith("Budgets are unequal: ")
    assert "No features= were given" in " ".join(found.notes)
    assert mine.angle is None
    assert not hasattr(mine, "directions_")


def test_by_default_edits_turn_as_far_as_the_lenss_own(lens):
    found = lens.compare(pictures(3, seed=1), ["ridge_pattern"], (0,))
    assert found.settings["angle"] > 1


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"methods": "edit"}, TypeError, r"methods is a str; expected a list of names.*Pass \['edit'"),
        ({"methods": []}, ValueError, r"methods names \[\]; expected at least one, each once"),
        ({"methods": ["edit", "edit"]}, ValueError, "each once. Give labels"),
        ({"methods": ["ridge_patern"]}, ValueError, "method='ridge_patern' is unknown.*Closest: ridge_pattern"),
        ({"methods": {"x": 3}}, TypeError, r"methods\['x'\] is a int; expected a name, or an object with fit"),
        ({"methods": ["edit"], "seeds": (1, 1)}, ValueError, r"seeds=\(1, 1\); expected at least one whole number"),
        ({"methods": ["edit"], "angle": 0.0}, ValueError, "angle=0.0 must lie above 0 and up to 180"),
        ({"methods": ["edit"], "features": lambda x: x[:1]}, ValueError, "gave 1 rows for"),
    ],
)
def test_refused(lens, arguments, error, says):
    with pytest.raises(error, match=says):
        lens.compare(pictures(2, seed=1), **arguments)


def test_what_was_not_measured_is_named(found):
    with pytest.raises(KeyError, match="was not measured; methods are"):
        found.interval("edit", "increase", "beauty")
