import itertools
import json
import lzma
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.common.script import provenance
from benchmarks.common.tables import verdict
from benchmarks.table3 import landscapes as table3_bench
from benchmarks.table3 import rows as plan
from benchmarks.table3 import run as cifar10_landscape
from benchmarks.table3.landscapes import Cell, cells, fit, optimize_settings
from benchmarks.table3.report import EXTRAS, STAGES, checks, read_cells, report
from benchmarks.table3.rows import ALIKE, FIT, HELD, JUDGED_IMAGES, NOISY, OURS, RIVAL, ROWS, SIGN, TEST_UNITS, UNSEEN
from benchmarks.table3.statistics import GIVEN_UP, MEANS, Table, change_where_given_up
from benchmarks.table3.tuning import choose, score
from vislens_interp.backends.pixel import PixelBackend
from vislens_interp.config import OptimizeConfig
from vislens_interp.landscape.vae import BottleneckCVAE


def test_change_where_similarity_was_given_up():
    kept = torch.tensor([[1.0, 0.9, 0.5], [1.0, 1.0, 1.0], [0.8, 0.7, 0.75]])
    change = torch.tensor([[0.0, 1.0, 3.0], [0.0, 0.5, 0.2], [0.0, 2.0, 9.0]])
    found = change_where_given_up(change, kept, span=0.5)
    at = dict(zip(GIVEN_UP, found.T.tolist(), strict=True))
    assert at[0.2] == pytest.approx([1.0, 0.5, 2.0], abs=1e-5)  # 0.1 of similarity is lost
    assert at[0.1] == pytest.approx([0.5, 0.5, 1.0], abs=1e-5)
    # Lost 0.2 half way down the second line; the others never lose so much, and count with the most they reached.
    assert at[0.4] == pytest.approx([1.5, 0.5, 9.0], abs=1e-5)


def entries(row, slope):
    """One method: Δr grows by ``slope`` for all the similarity that is lost."""
    for unit in range(3):
        for way in SIGN:
            doses = [
                {
                    "dose": float(step),
                    "decoded": {
                        "response": [-1 + SIGN[way] * slope * step * (unit + 1)] * 4,
                        "similarity": [0.9 - 0.03 * step] * 4,
                    },
                }
                for step in range(8)
            ]
            yield {
                "row": row.label,
                "layer": "conv3",
                "unit": unit,
                "seed": 0,
                "direction": way,
                "random": [0.6] * 4,
                "doses": doses,
            }


def test_matched_doses_of_methods_that_differ_by_a_known_factor():
    made = [*entries(OURS, 2.0), *entries(RIVAL, 1.0)]
    found = Table(made, draws=50).matched("increase", "decoded", OURS, RIVAL)
    # 10 % of the 0.3 between reconstruction and random pairs is one step: 2 against 1, times a unit's 1, 2, 3.
    one = found["Δr where 10% of similarity is given up"]
    assert one["difference"] == pytest.approx(2.0, abs=1e-5)
    assert one["by_unit"] == pytest.approx([1.0, 2.0, 3.0], abs=1e-5)
    assert one["low"] < 2.0 < one["high"]
    # Half of the common Δr is the rival's step 3.5 and ours 1.75.
    alike = found["similarity at 50% of the common Δr"]
    assert alike["difference"] == pytest.approx(0.03 * 1.75, abs=1e-5)
    assert alike["low"] == pytest.approx(alike["high"])
    assert found["pictures with a common Δr"] == 1
    assert found["never gave up so much"][OURS.label] == [0.0] * len(GIVEN_UP)


def test_a_tie_is_no_win():
    made = [*entries(OURS, 1.0), *entries(RIVAL, 1.0)]
    found = Table(made, draws=20).matched("decrease", "decoded", OURS, RIVAL)
    for name in ("Δr, mean over similarities", "similarity, mean over Δr"):
        assert np.allclose([found[name][key] for key in ("difference", "low", "high")], 0)


def test_each_kind_and_direction_has_its_best_setting():
    def row(prior, way, lr, held, noise, score):
        setting = {"lr": lr, "w_kld": 1e-4, "scale": "latent", "noise": noise, "w_consistency": held}
        return {"prior": prior, "direction": way, **setting, "score": score}

    rows = [
        row(prior, way, lr, held, noise, score)
        for prior in ("structured", "standard")
        for way in SIGN
        for lr, held, noise, score in (
            (0.1, 0.0, 0.0, 1.0),
            (0.2, 0.0, 0.0, 2.0),
            (0.25, 0.0, 2.0, 1.5),
            (0.3, 0.01, 0.0, 3.0),
            (0.4, 0.03, 2.0, 2.5),
        )
    ]
    rows[0]["score"] = 9.0  # structured, increase, lr 0.1
    chosen = choose(rows)
    assert {name: chosen["structured"]["increase"][name] for name in ("lr", "noise", "w_consistency")} == {
        "lr": 0.1,
        "noise": 0.0,
        "w_consistency": 0.0,
    }
    assert chosen["structured"]["decrease"]["lr"] == 0.3
    assert chosen["alike"]["increase"]["lr"] == 0.3  # as heavy a loss as held's, and the best of those
    for kind, lr in (("standard", 0.2), ("noisy", 0.25), ("held", 0.3)):
        assert {one["lr"] for one in chosen[kind].values()} == {lr}
    assert chosen["grid"] == rows


def test_a_setting_is_scored_by_both_measures_and_a_large_unit_counts_no_more_than_a_small_one():
    def row(lr, sizes, cost):
        """Two units with three pictures: Δr grows by size a step, and similarity falls by cost an SD of it."""
        curves = []
        for unit, size in enumerate(sizes):
            change = [[size * step for step in range(5)]] * 3
            kept = [[1 - cost * step * size / (1, 100)[unit] for step in range(5)]] * 3
            decoded, refined = {"change": change, "similarity": kept}, {"change": change[:2], "similarity": kept[:2]}
            curves.append({"random": 0.5, "decoded": decoded, "refined": refined})
        return {"prior": "structured", "direction": "increase", "lr": lr, "curves": curves}

    weak, costly, best = score([row(0.1, (1.0, 100.0), 0.02), row(0.2, (1.0, 100.0), 0.2), row(0.3, (2.0, 90.0), 0.02)])
    assert "curves" not in best
    # Similarity at shares of the 4 and the 360 SD that all three reach: their mean is 0.6 of it.
    for stage in ("similarity, decoded", "similarity, refined"):
        assert weak[stage] == pytest.approx([1 - 0.02 * 0.6 * 4, 1 - 0.02 * 0.6 * 3.6], abs=1e-6)
        assert costly[stage] == pytest.approx([1 - 0.2 * 0.6 * 4, 1 - 0.2 * 0.6 * 3.6], abs=1e-6)
        assert best[stage] == pytest.approx(weak[stage], abs=1e-6)
    assert best["score"] > weak["score"] > costly["score"]
    assert sum(one["score"] for one in (weak, costly, best)) == pytest.approx(0, abs=1e-9)


def test_nothing_of_an_optimisation_is_left_to_our_defaults():
    tuned = {"lr": 0.1, "w_kld": 1e-4, "scale": "latent", "w_consistency": 0.0}
    given = {kind: dict.fromkeys(SIGN, tuned) for kind in ("structured", "standard")}
    given["noisy"] = dict.fromkeys(SIGN, tuned | {"noise": 2.0})
    given["held"] = given["alike"] = dict.fromkeys(SIGN, tuned | {"w_consistency": 0.01})
    default = OptimizeConfig()
    ours = vars(PixelBackend.defaults.optimize).items()
    every = {name for name, value in ours if value != getattr(default, name)} - {"steps"}
    assert every
    for row in ROWS:
        if row.technique == "optimize":
            settings = optimize_settings(row, "increase", given, 200)
            assert every <= set(settings)
            plain = settings["w_silent"] == settings["w_consistency"] == 0 and settings["prior_mean_scale"] == 1
            assert plain == (row not in (OURS, ALIKE, HELD))
            assert (settings["noise"] > 0) == (row == NOISY)
    published = optimize_settings(ROWS[4], "increase", given, 200)
    assert (published["lr"], published["w_kld"], published["move"]) == (0.1, 0.001, "block")


def test_every_unit_of_a_layer_is_in_one_group_of_each_landscape():
    bench = SimpleNamespace(units=lambda layer: ([], list(range(100, 200))))
    every = cells(seeds=2)
    assert len({str(cell) for cell in every}) == len(every)
    for layer, count in TEST_UNITS.items():
        for row in ROWS:
            kind = (layer, row.start, row.landscape, 1)
            mine = [cell for cell in every if (cell.layer, cell.start, cell.landscape, cell.seed) == kind]
            assert [unit for cell in mine for unit in cell.units(bench)] == list(range(100, 100 + count))
            assert mine[-1].group >= UNSEEN


def test_the_report_counts_the_units_that_are_new(tmp_path):
    """Ours goes twice as far as the rival for the new units, and half as far for those of earlier tables."""
    drawn = torch.Generator().manual_seed(0)
    steps, images = (0, 1, 2, 3), 6
    for layer, group in (("conv3", 0), ("conv3", 1), ("fc1", 0), ("fc1", 1)):
        made = []
        for row in ROWS:
            slope = {OURS: (0.5, 2.0)[group], ALIKE: 1.5}.get(row, 1.0)
            for seed, way in itertools.product(range(2), SIGN):
                jitter = 0.01 * torch.rand(len(steps), images, generator=drawn)
                doses = [
                    {
                        "dose": step,
                        **{
                            stage: {
                                "response": [SIGN[way] * slope * step] * images,
                                "similarity": (0.9 - 0.1 * step + jitter[step]).tolist(),
                                "features": torch.randint(9, (JUDGED_IMAGES, 64), generator=drawn).tolist(),
                            }
                            for stage in STAGES
                        },
                    }
                    for step in steps
                ]
                said = {"row": row.label, "layer": layer, "group": group, "seed": seed, "unit": 7 + group, "sd": 2.0}
                where = {"commit": "abc", "device": "a machine", **({"cut_from": 500} if group else {})}
                about = {"direction": way, "input": [0.1] * images, "random": [0.3] * images}
                made.append({**said, **where, **about, "settings": {}, "seconds": 1.0, "doses": doses})
        path = tmp_path / f"cell-{layer}-{group}.json.xz"
        path.write_bytes(lzma.compress(json.dumps(made).encode(), preset=0))
    (tmp_path / "tuned.json").write_text(
        json.dumps(dict.fromkeys(("structured", "alike", "standard", "noisy", "held")))
    )
    crossed = [
        {"kind": kind, "unit": 1, "direction": way, "target": [sign * 2.0] * 4, "other": [sign * other] * 4}
        for kind, other in (("single", 1.0), ("both", 0.1))
        for way, sign in SIGN.items()
    ]
    pairs = [{"units": [1, 2], "correlation": 0.25, "edits": crossed, "commit": "abc", "device": "a machine"}] * 3
    (tmp_path / "pairs-0-of-1.json").write_text(json.dumps(pairs))
    bench = SimpleNamespace(real=torch.randint(9, (300, 64), generator=drawn).float(), features=lambda real: real)
    text = report(bench, tmp_path, provenance(seed=[0, 1]), draws=10)
    numbers = json.loads((tmp_path / "table3.json").read_text())
    found = {name: one["asked"]["increase, refined"][MEANS[0]] for name, one in numbers["compared"].items()}
    assert found["unseen units"]["low"] > 0
    assert found["all units"]["by_unit"][0] < 0 < found["all units"]["by_unit"][1]
    failed, rest = text.split("**What holds.**")
    held, body = rest.split("`python", 1)
    for way, stage in itertools.product(SIGN, STAGES):
        assert f"Structured against standard-VAE optimisation, unseen units, {way}, {stage}: Δr" in held
    assert "unseen units" not in failed
    assert "3 pairs: cross-talk of single pictures is 0.10 [0.10, 0.10]" in held
    assert numbers["pairs"]["of mean changes"]["both over single"] == pytest.approx(0.1)
    assert "conv3 7, conv3 8*, fc1 7, fc1 8*" in body
    assert "Cells were run at abc on a machine; abc on a machine, of 500 images and cut to the first 200." in body
    row = next(one for one in numbers["rows"] if one["method"] == OURS.label and one["direction"] == "increase")
    assert row["change"][0] == pytest.approx((1.5 + 6.0) / 2, abs=1e-6)
    assert row["change_raw"] == pytest.approx(2 * (1.5 + 6.0) / 2, abs=1e-6)
    assert row["change_by_unit"] == pytest.approx([1.5, 6.0, 1.5, 6.0], abs=1e-6)


def test_a_cell_that_was_interrupted_goes_on_where_it_was(tmp_path, monkeypatch):
    path = tmp_path / "cell-conv3-1-0-consistent-shipped.json.xz"
    cell, where = Cell("conv3", 1, 0, "consistent", "shipped"), {"commit": "abc", "device": "cpu"}
    seen = []

    def fit(bench, cell, learnt):
        seen.append(learnt.exists())
        learnt.touch()

    def measure(bench, cell, method, tuned, done):
        for unit in range(len(done), 3):
            yield {"unit": unit, "doses": [0.5, 1.0]}
            if unit == 1 and len(done) == 0:
                raise KeyboardInterrupt

    monkeypatch.setattr(cifar10_landscape, "fit", fit)
    monkeypatch.setattr(cifar10_landscape, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        cifar10_landscape.finish_cell(path, None, cell, {}, where)
    assert not path.exists()
    part = tmp_path / f"{path.name}.part"
    part.write_text(part.read_text()[:-9])  # killed while it wrote the second record
    cifar10_landscape.finish_cell(path, None, cell, {}, where)
    assert [entry["unit"] for entry in read_cells(tmp_path)] == [0, 1, 2]
    assert {entry["commit"] for entry in read_cells(tmp_path)} == {"abc"}
    assert seen == [False, True]  # what was learnt is learnt once
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.data
@pytest.mark.end_to_end
def test_cells_measure_every_row_of_their_landscapes(data, tmp_path, monkeypatch):
    (tmp_path / "cifar10").mkdir()
    for name in ("train", "test"):  # the test images stand in for ten times as many
        (tmp_path / "cifar10" / f"{name}.zip").symlink_to(data / "cifar10" / "test.zip")
    (tmp_path / "networks").symlink_to(data / "networks")
    for module, name, small in (
        (plan, "REFERENCE_IMAGES", 600),
        (plan, "TEST_IMAGES", 6),
        (plan, "TRACE", (0, 1, 2)),
        (cifar10_landscape, "STEPS", 2),
        (plan, "REFINED_AT", (0, 1, 2)),
        (plan, "REFINED_IMAGES", 1),
    ):
        monkeypatch.setattr(module, name, small)
    monkeypatch.setitem(FIT, "epochs", 1)
    two = {key: {"lr": 0.2, "w_kld": 0.0001, "scale": "response", "w_consistency": 0.03, "noise": 0.0} for key in SIGN}
    tuned = {"structured": {**two, "increase": two["increase"] | {"w_consistency": 0.01}}, "alike": two}
    other = {**tuned["structured"], "increase": two["increase"] | {"lr": 0.4}}
    save_file(BottleneckCVAE().state_dict(), tmp_path / "pixel_vae.safetensors")
    bench = table3_bench.Material(tmp_path, tmp_path / "pixel_vae.safetensors")
    cell = Cell("conv3", UNSEEN, 0, "consistent", "shipped")
    monkeypatch.setattr(Cell, "units", lambda self, bench: bench.units(self.layer)[1][:1])
    path = tmp_path / "cell.landscape"
    method = fit(bench, cell, path)
    made = list(cifar10_landscape.measure(bench, cell, method, tuned, []))
    found = {(one["row"], one["direction"]): one for one in made}
    assert list(found) == [(row.label, way) for row in (ROWS[1], OURS, ALIKE) for way in SIGN]
    for (row, _), one in found.items():
        assert [dose["dose"] for dose in one["doses"]] == (
            [0, 0.25, 0.5, 0.75, 1] if row == ROWS[1].label else [0, 1, 2]
        )
        assert [len(one["doses"][-1][stage]["response"]) for stage in ("decoded", "refined")] == [2, 1]
        assert one["doses"][0] == made[0]["doses"][0]  # α = 0 is the landscape's, whatever is done in it
    ours, alike = ({way: found[row.label, way]["doses"] for way in SIGN} for row in (OURS, ALIKE))
    assert ours["decrease"] == alike["decrease"]  # one weight, and one picture
    assert ours["increase"] != alike["increase"]
    # What was interrupted goes on in the landscape that was learnt, and does what is left.
    again = fit(bench, cell, path)
    assert torch.equal(again.landscape_.latents, method.landscape_.latents)
    begun = json.loads(json.dumps(made[:3]))
    with pytest.raises(
        ValueError, match="was begun with .*'lr': 0.2.*; tuned.json now says .*Delete what is left of the"
    ):
        next(cifar10_landscape.measure(bench, cell, again, {**tuned, "structured": other}, begun))
    rest = list(cifar10_landscape.measure(bench, cell, again, tuned, begun))
    assert [(one["row"], one["direction"]) for one in rest] == list(found)[3:]
    assert [one["doses"] for one in rest] == [one["doses"] for one in made[3:]]
    # The other landscapes, each with its own rows.
    tuned |= dict.fromkeys(("standard", "noisy", "held"), two)
    for other in {(row.start, row.landscape) for row in ROWS} - {("consistent", "shipped")}:
        one = Cell("conv3", UNSEEN, 0, *other)
        rows = [entry["row"] for entry in cifar10_landscape.measure(bench, one, fit(bench, one), tuned, [])]
        assert rows == [row.label for row in ROWS if (row.start, row.landscape) == other for _ in SIGN]


def test_what_fails_is_said_first():
    measures = ("Δr, mean over similarities", "similarity, mean over Δr")
    asked = {key: {"difference": 0.1, "low": -0.1, "high": 0.3} for key in measures}
    numbers = {
        "rows": [{"method": ROWS[1].label, "direction": way, "normalised_similarity": 0.7} for way in SIGN],
        "reconstruction": {ROWS[1].label: {"bias": [-0.1, -0.2, 0.0]}},
        "editing": {"wins": 1.0, "mean_change": 0.8, "pairs": 24},
        "compared": {
            "unseen units": {
                "asked": {"increase, decoded": asked},
                **{extra: {"decrease, refined": asked} for extra in EXTRAS},
            }
        },
    }
    text = "\n".join(verdict(checks(numbers)))
    failed, held = text.split("**What holds.**")
    assert "Structured against standard-VAE optimisation, unseen units, increase, decoded: Δr" in failed
    assert failed.count("The same, unseen units, and") == 2 * len(EXTRAS)
    assert "-0.10 SD off" in held
    numbers["reconstruction"][ROWS[1].label]["bias"][0] = -0.4
    assert "-0.40 SD off" in "\n".join(verdict(checks(numbers))).split("**What holds.**")[0]
