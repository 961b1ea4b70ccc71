"""What a lens makes: pictures, doses, samples, top images, of one unit and of several."""

import json
import math

import pytest
import torch
from small_networks import QUICK, pictures

from vislens_interp import CallableTarget, FeatureLens, LensResult, MeanOf
from vislens_interp.images import image_keys
from vislens_interp.math import angle_between
from vislens_interp.methods import METHODS, method_by_name
from vislens_interp.methods.activation_maximization import ActivationMaximization
from vislens_interp.methods.directions import RidgePattern
from vislens_interp.methods.landscape import LandscapeEdit
from vislens_interp.methods.prototypes import likeness, prototype_rows
from vislens_interp.report.render import measured


def test_visualize(fitted, network, images):
    result = fitted.visualize(images, strength=0)
    assert isinstance(result, LensResult)
    assert list(result.images) == ["inputs", "unedited", "increase", "decrease"]
    assert all(value.shape == (3, 3, 32, 32) for value in result.images.values())
    assert torch.equal(result.images["inputs"], images)
    assert (result.unit, result.layer, result.model) == ("2", "conv", "SmallNet")
    assert result.names == ["image_00000", "image_00001", "image_00002"]
    assert result.evidence is fitted.evidence_["2"]
    assert set(result.similarity) == set(result.images)
    torch.testing.assert_close(result.similarity["inputs"], torch.ones(3), atol=1e-5, rtol=0)

    with torch.no_grad():
        expected = {key: network.eval()(2 * value - 1)[:, 2].mean((1, 2)) for key, value in result.images.items()}
    reference = fitted.target.responses(pictures(220))
    for key in ("increase", "decrease"):
        torch.testing.assert_close(result.responses[key], expected[key], atol=1e-5, rtol=1e-4)
        change = (expected[key] - expected["unedited"]) / reference.std()
        torch.testing.assert_close(result.response_change[key], change, atol=1e-4, rtol=1e-3)
    assert result.response_mean == pytest.approx(reference.mean().item(), rel=1e-4)


def test_the_edit_moves_the_response(fitted):
    result = fitted.visualize(pictures(20, seed=1), strength=0)
    assert fitted.evidence_["2"].correlation > 0.5
    assert result.response_change["increase"].mean() > 0.5
    assert result.response_change["decrease"].mean() < -0.5


def test_unedited_is_alpha_zero_of_the_same_pipeline(fitted, images):
    result = fitted.visualize(images, "increase", alpha=0.0, strength=0)
    assert list(result.images) == ["inputs", "unedited", "increase"]
    assert torch.equal(result.images["increase"], result.images["unedited"])
    assert (result.response_change["increase"] == 0).all()


def test_optimize(fitted, images):
    result = fitted.visualize(images, "increase", method="optimize", strength=0)
    assert result.settings["method"] == "optimize"
    assert result.settings["alpha"] is None
    assert result.settings["settings"]["optimize"]["steps"] == 4
    assert (result.response_change["increase"] > 0).all()
    alone = fitted.visualize(images[2:], "increase", method="optimize", strength=0)
    torch.testing.assert_close(alone.images["increase"], result.images["increase"][2:], atol=1e-5, rtol=0)


def test_baselines_by_name_and_by_object(fitted, images):
    names = ["ridge_direction", "ridge_pattern", "difference_of_means", "centroids", "natural_images", "unedited"]
    names.append("shuffled")
    used = {name: {} if name == "natural_images" else {"strength": 0} for name in names}
    made = {name: fitted.visualize(images, "increase", method=name, **used[name]) for name in names}
    assert made["ridge_pattern"].settings["method"] == "ridge_pattern"
    said = made["ridge_pattern"].settings
    assert (said["alpha"], said["baseline"][0], said["baseline"][1]["alpha"]) == (0.75, "RidgePattern", 0.75)
    assert "baseline" not in fitted.visualize(images, "increase", strength=0).settings
    own = fitted.visualize(images[:1], "increase", method="ridge_direction").settings  # BrainACTIV's, not the backend's
    assert own["strength"] == 0.6
    assert (made["ridge_pattern"].response_change["increase"] > 0).all()
    assert (made["unedited"].response_change["increase"] == 0).all()
    best = fitted.top_images(10).images
    shown = made["natural_images"].images["increase"]
    assert all((picture == best).flatten(1).all(1).any() for picture in shown)
    assert fitted.visualize(images, "increase", method="edit", strength=0).settings["method"] == "edit"
    by_object = fitted.visualize(images, "increase", method=RidgePattern(angle=5.0), strength=0)
    assert by_object.settings["method"] == "RidgePattern"
    assert by_object.settings["alpha"] is None
    assert by_object.settings["baseline"][1]["angle"] == 5.0
    turned = angle_between(by_object.images["increase"], images)
    torch.testing.assert_close(turned, torch.full((3,), 5.0), atol=0.2, rtol=0)


def test_painted_pictures_of_any_size_say_where_they_were_used(fitted, images):
    painter = ActivationMaximization(steps=3, size=64, diversity=1.0)
    result = fitted.visualize(images, "increase", method=painter, seeds=[1, 2, 3])
    assert result.images["increase"].shape == result.images["unedited"].shape == (3, 3, 64, 64)
    assert result.transparent("increase").shape == (3, 4, 64, 64)
    assert result.settings["baseline"][1]["size"] == 64
    assert result.figure() is not None
    assert not fitted.visualize(images, "increase", strength=0).importance


def test_what_baselines_are_refused(fitted, images, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="mode=0 names a mean of the landscape's prior, which 'centroids' does not"):
        fitted.visualize(images, method="centroids", mode=0)
    with pytest.raises(TypeError, match=r"method is a int; expected a name, or a Method such as RidgePattern"):
        fitted.visualize(images, method=3)
    monkeypatch.setattr(fitted.reference_set, "origin", "synthetic")
    with pytest.raises(ValueError, match="method='random_images' shows reference images as natural ones, and those of"):
        fitted.visualize(images, method="random_images")
    blind = FeatureLens(CallableTarget(lambda images: images.mean((1, 2, 3))), backend="cifar10")
    for name in ("deepdream", "standard_vae"):
        with pytest.raises(ValueError, match="needs gradients from the .* this target has none. Use "):
            blind.visualize(images, method=name)
    assert blind.method_ is None  # refused before a fit
    loaded = FeatureLens.load(fitted.save(tmp_path / "lens"), fitted.target.model)
    with pytest.raises(ValueError, match="method='unedited' is fitted on the reference images, which a loaded lens"):
        loaded.visualize(images, method="unedited", strength=0)


def test_refinement_and_seeds(fitted, images):
    result = fitted.visualize(images[:2], "increase", strength=0.02, seeds=[1, 2])
    assert result.settings["strength"] == 0.02
    assert result.settings["seeds"] == [1, 2]
    bare = fitted.visualize(images[:2], "increase", strength=0)
    assert 0 < (result.images["unedited"] - bare.images["unedited"]).abs().mean() < 0.1


def test_the_same_seed_is_bit_identical(network, fitted, images):
    again = FeatureLens(network, "conv", 2, backend="cifar10").fit(pictures(220), **QUICK)
    assert again.evidence_ == fitted.evidence_
    first, second = (one.visualize(images, strength=0) for one in (fitted, again))
    for key in first.images:
        assert torch.equal(first.images[key], second.images[key])
        assert torch.equal(first.responses[key], second.responses[key])


def test_an_edit_does_not_depend_on_its_batch(fitted):
    many = pictures(51, seed=2)
    together = fitted.visualize(many, strength=0)
    for rows in ([50], [7, 50, 3]):
        some = fitted.visualize(many[rows], strength=0)
        for key in together.images:
            torch.testing.assert_close(some.images[key], together.images[key][rows], atol=1e-5, rtol=0)


def test_settings_say_how_it_was_made(fitted, images):
    settings = fitted.visualize(images, "decrease", alpha=0.5, strength=0, seeds=7).settings
    assert {key: settings[key] for key in ("method", "alpha", "strength", "seeds", "direction", "backend")} == {
        "method": "edit",
        "alpha": 0.5,
        "strength": 0,
        "seeds": 7,
        "direction": "decrease",
        "backend": "cifar10",
    }
    assert settings["reference_set"] == "given images"
    assert settings["target"]["fingerprint"] == fitted.target.fingerprint()
    assert settings["settings"]["fit"]["epochs"] == 1
    assert "torch" in settings["versions"]


def test_a_result_can_be_saved(fitted, images, tmp_path):
    folder = fitted.visualize(images, strength=0).save(tmp_path / "unit2")
    assert json.loads((folder / "result.json").read_text(encoding="utf-8"))["unit"] == "2"


# Several units


def test_several_units_share_pictures(pair, images):
    result = pair.visualize(images, {1: "increase", 4: "decrease"}, strength=0)
    assert (result.unit, result.units) == ("1", ["1", "4"])
    results = {unit: result.of_unit(unit) for unit in result.units}
    assert results["1"] is result is results["4"].of_unit(1)
    with pytest.raises(KeyError, match="unit 5 is not in this result; it holds 1, 4"):
        result.of_unit(5)
    assert list(results["1"].images) == ["inputs", "unedited", "custom"]
    for key in results["1"].images:
        assert torch.equal(results["1"].images[key], results["4"].images[key])
    assert results["1"].wanted_sign("custom") == 1
    assert results["4"].wanted_sign("custom") == -1
    assert results["1"].evidence is pair.evidence_["1"]
    expected = pair.target.responses(results["1"].images["custom"])
    torch.testing.assert_close(results["4"].responses["custom"], expected[:, 1])


def test_one_of_several_units_moves_its_block_alone(pair, images):
    method, block = pair.method_, pair.landscape_.mask([1])
    held = method.latents(images, {1: "increase"})[1]
    without = LandscapeEdit(method.config, cross_talk_steps=0).share(method)
    before, after = without.latents(images, {1: "increase"})
    assert torch.equal(before[:, ~block], after[:, ~block])

    def respond(latents):
        return pair.target(pair.landscape_.vae.decode(latents)).detach()

    start, free, kept = (respond(latents) for latents in (before, after, held))
    assert (kept - start)[:, 0].abs().max() < 0.5 * (free - start)[:, 0].abs().max()  # what the default holds
    both = pair.visualize(images, "increase", strength=0)
    assert list(both.of_unit("4").images) == ["inputs", "unedited", "increase"]


def test_the_mean_of_units_is_one_unit(network):
    lens = FeatureLens(network, "conv", MeanOf([1, 4]), backend="cifar10")
    assert len(lens.target.names) == 1


# Dose-response, sample, top images


def test_a_dose_response(fitted, images):
    result = fitted.visualize(images, strength=0, alphas=[0.5])
    alphas, changes = result.dose_response
    assert alphas == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert changes.shape == (5, 3)
    assert (changes[2] == 0).all()
    torch.testing.assert_close(changes[4], result.response_change["increase"], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(changes[0], result.response_change["decrease"], atol=1e-4, rtol=1e-3)
    assert result.dose_response_figure().axes
    with pytest.raises(ValueError, match="holds no dose-response; expected an edit. Pass alphas="):
        _ = fitted.visualize(images, method="unedited", strength=0).dose_response


@pytest.mark.parametrize("alpha", [-1.5, 1.01, math.nan])
def test_a_dose_out_of_range(fitted, images, alpha):
    with pytest.raises(ValueError, match=r"alphas=.* must lie in \(0, 1\]; each direction is taken"):
        fitted.visualize(images, alphas=[alpha])


def test_samples_use_seed_plus_k(fitted):
    four = fitted.sample(4, strength=0, seed=5)
    assert four.shape == (4, 3, 32, 32)
    torch.testing.assert_close(fitted.sample(2, strength=0, seed=7), four[2:], atol=1e-5, rtol=0)
    assert not torch.equal(fitted.sample(4, "decrease", strength=0, seed=5), four)
    with pytest.raises(ValueError, match="direction='both' is two; sample 'increase' and 'decrease' one after"):
        fitted.sample(4, "both")
    with pytest.raises(ValueError, match="count=0 must be at least 1"):
        fitted.sample(0)


def test_top_images(fitted):
    top = fitted.top_images(5)
    responses = fitted.target.responses(pictures(220))[:, 0]
    assert torch.equal(top.responses, responses.sort(descending=True).values[:5])
    row = int(responses.argmax())
    assert torch.equal(top.images[0], pictures(220)[row])
    assert top.names[0] == f"image_{row:05d}"
    assert len(fitted.top_images(9, pictures(4)).images) == 4


def test_without_images_a_units_prototypes_are_moved(fitted):
    result = fitted.visualize(strength=0)
    read = fitted.landscape_.responses[:, 0]
    like = likeness(fitted.backend, fitted.reference_set)
    driving, others = prototype_rows(like, read, fitted.reference_set.groups, 4)
    rows = [*driving.tolist(), *others.tolist()]
    assert result.names == [f"image_{row:05d}" for row in rows]
    assert torch.equal(result.images["inputs"], pictures(220)[rows])
    assert result.responses["inputs"][:4].min() > result.responses["inputs"][4:].max()


def test_attribution_without_images_takes_the_same(fitted):
    torch.testing.assert_close(fitted.attribute(n_steps=2).images, fitted.visualize(strength=0).images["inputs"])


def test_a_result_says_where_its_inputs_are_from(fitted, network, images, tmp_path):
    learned = fitted.reference_set.learned_keys
    by_itself = fitted.visualize(strength=0)
    count = sum(key in learned for key in image_keys(by_itself.images["inputs"]))
    assert 0 < count <= 8
    assert by_itself.settings["inputs"] == {"chosen": "prototypes", "learned": count}
    for text in (by_itself.summary(), by_itself.html()):
        assert "images were given: the inputs are prototypes" in text
        assert f"learned from {count} of the 8 inputs" in text
    given = fitted.visualize(images, strength=0)
    assert given.settings["inputs"] == {"chosen": "given", "learned": 0}
    assert given.inputs_note == []
    with pytest.warns(UserWarning, match="1 of 1 images to edit"):
        written = fitted.visualize(by_itself.images["inputs"][:1], strength=0, out=tmp_path / "result")
    assert written.inputs_note == ["the fit learned from 1 of the 1 input: they may change more than other images"]
    assert LensResult.load(tmp_path / "result").inputs_note == written.inputs_note
    many = FeatureLens(network, "conv", [0, 1, 2, 3, 4], backend="cifar10").fit(pictures(220), **QUICK)
    assert many.visualize(strength=0).inputs_note[0].endswith("reference images that the fit never saw")


def test_responses_that_were_given_guided_the_pictures(network, images):
    lens = FeatureLens(network, "conv", 2, backend="cifar10")
    read = lens.target.responses(pictures(220))
    lens.fit(pictures(220), responses=read, **QUICK)
    assert lens.visualize(images, strength=0).judge == "SmallNet itself; responses that were given guided them"
    asked = lens.visualize(images, "increase", method=ActivationMaximization(steps=1, size=16))
    assert asked.judge == "SmallNet itself, the network that guided them"


@pytest.mark.parametrize("inputs", [None, 5, {"chosen": ["prototypes"]}, {"chosen": "by hand", "learned": 0}])
def test_a_record_of_inputs_that_says_nothing_is_left_out(fitted, images, inputs):
    result = fitted.visualize(images, strength=0)
    result.settings["inputs"] = inputs
    assert result.inputs_note == []


def test_units_share_the_inputs_that_are_not_given(pair, network):
    shared = pair.visualize(strength=0)
    assert 4 < len(set(shared.names)) == len(shared) <= 8
    assert shared.responses["inputs"][:2].min() > shared.of_unit("1").response_mean
    many = FeatureLens(network, "conv", [0, 1, 2, 3, 4], backend="cifar10").fit(pictures(220), **QUICK)
    assert many.visualize(strength=0).names == many.reference_set.held_out(8)[1]


@pytest.mark.parametrize("method", [name for name in METHODS if method_by_name(name).shows_reference])
def test_reference_images_that_are_shown_are_not_the_same(fitted, images, method, tmp_path):
    """One seed for all inputs picks another image for each of them, in memory and into a folder."""
    result = fitted.visualize(images, method=method)
    for sense in ("increase", "decrease"):
        assert len(result.images[sense].flatten(1).unique(dim=0)) == len(images)
    assert result.settings["seeds"] == [0, 1, 2]
    written = fitted.visualize(images, method=method, out=tmp_path / "result")
    assert torch.equal((written.images["increase"][:] * 255).round(), (result.images["increase"] * 255).round())
    again = fitted.visualize(images, method=method, seeds=[5, 1, 2])
    assert not torch.equal(again.images["increase"][0], result.images["increase"][0])
    assert torch.equal(again.images["increase"][1:], result.images["increase"][1:])
    assert not any(measured(result, "increase", row)["change"] for row in range(3))  # they are no versions of these


def test_no_photograph_is_shown_twice(network):
    """Wherever natural images are shown, copies and crops of one photograph are one."""
    whole = torch.cat([pictures(220), pictures(220)])
    lens = FeatureLens(network, "conv", [2], backend="cifar10").fit(whole, modes=2, block_dim=3, **QUICK)
    groups = lens.reference_set.groups
    assert len(groups.unique()) == 220
    result = lens.visualize(strength=0)
    shown = {key: gallery.names for key, gallery in result.background.galleries.items()}
    assert {"top", "prototypes_increase", "increase_1", "decrease_2"} <= set(shown)
    shown |= {
        "inputs": result.names,
        "top_images": lens.top_images(8).names,
        "held out": lens.reference_set.held_out(8)[1],
    }
    shown["sheet"] = lens.contact_sheet([2, 3]).rows[0].top.names
    for where, names in shown.items():
        numbers = [int(groups[int(name.removeprefix("image_"))]) for name in names]
        assert len(set(numbers)) == len(numbers), where
    images = lens.visualize(pictures(5, seed=1), "increase", method="natural_images").images["increase"]
    assert len(images.flatten(1).unique(dim=0)) == 5


def test_summary(lens, fitted):
    assert str(lens).splitlines() == [
        "SmallNet, layer conv, unit 2 (mean over the map), backend bare",
        "preprocessing: resize to 32, mean (0.5,), std (0.5,)",
        "not fitted yet",
    ]
    lines = str(fitted).splitlines()
    assert lines[2] == "fitted on 220 images (given images)"
    assert lines[3] == str(fitted.evidence_["2"])


def test_a_result_shows_prototypes(fitted, images):
    result = fitted.visualize(images[:2])
    rows = result.background.galleries
    for sense in ("increase", "decrease"):
        kept = rows[f"prototypes_{sense}"]
        assert len(set(kept.names)) == len(kept.images) == 8
    assert rows["prototypes_increase"].responses.min() > rows["prototypes_decrease"].responses.max()
    assert "preferred prototype 8" in result.html()
    assert "suppressed prototype 8" in result.html()


def test_edits_of_prototypes(fitted, images):
    edited, plain = (fitted.visualize(images[:3], method=one) for one in ("edited_prototypes", "prototypes"))
    for sense, sign in (("increase", 1), ("decrease", -1)):
        assert not torch.equal(edited.images[sense], plain.images[sense])
        gain = sign * (edited.responses[sense] - plain.responses[sense])
        assert gain.mean() > 0
