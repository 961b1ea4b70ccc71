import json
import math
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from vislens_interp import CallableTarget, Direction, FeatureLens, LensResult, MeanOf, Preprocess, zoo
from vislens_interp.backends.pixel import PixelBackend
from vislens_interp.files import save_state
from vislens_interp.images import ImageFiles, to_pil
from vislens_interp.math import angle_between
from vislens_interp.methods import method_by_name
from vislens_interp.methods.base import Method
from vislens_interp.methods.directions import RidgePattern
from vislens_interp.methods.landscape import LandscapeEdit
from vislens_interp.targets.target import LayerTarget, Target

QUICK = {"epochs": 1, "shuffles": 1, "optimize": {"steps": 4, "chunk": 4}}


def pictures(count, seed=0):
    """Smooth colour pictures at 32 px, unlike one another."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=32, mode="bicubic", align_corners=False).clamp(0, 1)


class SmallNet(nn.Module):
    """An untrained network with what the library must leave alone: dropout, BatchNorm, a last layer of any kind."""

    def __init__(self, last=None):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.BatchNorm2d(8), nn.Tanh(), nn.Dropout(0.5))
        self.conv = nn.Conv2d(8, 6, 3, stride=2)
        self.last = nn.Identity() if last is None else last
        self.preprocess = Preprocess(32, [0.5], [0.5])

    def forward(self, x):
        return self.last(self.conv(self.stem(x)))


def small_network(seed=0, last=None):
    torch.manual_seed(seed)
    return SmallNet(last)


class Bare(PixelBackend):
    """The pixel backend without what it travels with."""

    name = "bare"

    def reference_images(self):
        return None

    def feature_extractor(self):
        return None


class Brightness(Target):
    """Two responses without gradients."""

    names = ("all", "top")
    differentiable = False

    def __call__(self, images):
        with torch.no_grad():
            return torch.stack([images.mean((1, 2, 3)), images[:, :, :8].mean((1, 2, 3))], 1)


@pytest.fixture(scope="session")
def network():
    return small_network()


@pytest.fixture(scope="session")
def fitted(network):
    """One unit, fitted on 220 pictures. Tests do not fit it again."""
    return FeatureLens(network, "conv", 2, backend="cifar10").fit(pictures(220), **QUICK)


@pytest.fixture(scope="session")
def pair(network):
    return FeatureLens(network, "conv", [1, 4], backend="cifar10").fit(pictures(220), **QUICK)


@pytest.fixture
def lens(network):
    """Not fitted."""
    return FeatureLens(network, "conv", 2, backend=Bare())


@pytest.fixture
def images():
    return pictures(3, seed=1)


# What comes out


def test_visualize(fitted, network, images):
    result = fitted.visualize(images, strength=0)
    assert isinstance(result, LensResult)
    assert list(result.images) == ["reference", "unedited", "increase", "decrease"]
    assert all(value.shape == (3, 3, 32, 32) for value in result.images.values())
    assert torch.equal(result.images["reference"], images)
    assert (result.unit, result.layer, result.model) == ("2", "conv", "SmallNet")
    assert result.names == ["image_00000", "image_00001", "image_00002"]
    assert result.evidence is fitted.evidence_["2"]
    assert set(result.similarity) == set(result.images)
    torch.testing.assert_close(result.similarity["reference"], torch.ones(3), atol=1e-5, rtol=0)

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
    assert list(result.images) == ["reference", "unedited", "increase"]
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
    assert list(results["1"].images) == ["reference", "unedited", "custom"]
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
    assert list(both.of_unit("4").images) == ["reference", "unedited", "increase"]


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


def test_the_first_inputs_were_held_out(fitted):
    images, names = fitted.reference_set.held_out(4)
    rows = fitted.landscape_.held_out[:4]
    assert torch.equal(images, pictures(220)[rows])
    assert names == [f"image_{row:05d}" for row in rows.tolist()]
    assert fitted.visualize(strength=0).names == fitted.reference_set.held_out(8)[1]


def test_summary(lens, fitted):
    assert str(lens).splitlines() == [
        "SmallNet, layer conv, unit 2 (mean over the map), backend bare",
        "preprocessing: resize to 32, mean (0.5,), std (0.5,)",
        "not fitted yet",
    ]
    lines = str(fitted).splitlines()
    assert lines[2] == "fitted on 220 images (given images)"
    assert lines[3] == str(fitted.evidence_["2"])


# What a lens is fitted on


def test_measured_responses(network):
    images = pictures(220)
    lens = FeatureLens(network, "conv", 2, backend="cifar10")
    measured = images[:, 0].mean((1, 2))
    with pytest.warns(UserWarning, match="unit 2 of the network, which reads the pictures"):  # it does not see red
        lens.fit(images, measured.double().numpy(), **QUICK)
    assert lens.reference_set.kind == "given images, measured responses"
    assert torch.equal(lens.landscape_.responses, measured[:, None])
    assert lens.evidence_["2"].correlation > 0.5
    with pytest.warns(UserWarning, match="5 of 5 images to edit are among those"):
        redder = lens.visualize(images[:5], "increase", strength=0).images
    assert (redder["increase"][:, 0].mean((1, 2)) > redder["unedited"][:, 0].mean((1, 2))).all()


@pytest.mark.parametrize("times", [-1.0, 1e4])
def test_a_network_that_does_not_speak_for_what_was_measured_says_so(network, times):
    images = pictures(220)
    own = LayerTarget(network, "conv", 2).responses(images)
    lens = FeatureLens(network, "conv", 2, backend="cifar10")
    with pytest.warns(UserWarning, match=r"unit 2 of the network, which reads the pictures, .* Pass judge= to"):
        lens.fit(images, times * own, **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lens.fit(images, 2 * own, **QUICK)


def test_a_baseline_learns_from_what_the_landscape_learned_from(network, fitted):
    class Seen(Method):
        def _fit(self, reference, *, progress, checkpoint):
            self.images, self.responses = reference.images, reference.responses

        def _generate(self, images, directions, seeds, alpha, strength):
            return images, None

    seen = Seen()
    fitted.visualize(pictures(2, seed=5), "increase", method=seen)
    held_out = fitted.landscape_.held_out.tolist()
    kept = [row for row in range(220) if row not in held_out]
    assert held_out
    assert torch.equal(seen.images, fitted.reference_set.images[kept])
    assert torch.equal(seen.responses, fitted.landscape_.responses[kept])


def test_what_was_measured_ranks_the_images_of_the_fit_and_a_sheet_says_that_it_read_the_network(network):
    images, own = pictures(220), LayerTarget(network, "conv", 2).responses(pictures(220))
    measured = own + torch.randn(220, 1, generator=torch.Generator().manual_seed(0)) * own.std()
    lens = FeatureLens(network, "conv", 2, backend="cifar10").fit(images, measured, **QUICK)
    best = measured[:, 0].argsort(descending=True)[:4]
    assert torch.equal(lens.top_images(4).images, images[best])
    assert torch.equal(lens.top_images(4).responses, measured[best, 0])
    assert torch.equal(lens.top_images(4, images).responses, own.topk(4, 0).values[:, 0])
    sheet = lens.contact_sheet([2], count=1, strength=0, **QUICK)
    assert sheet.settings["reference_set"] == "given images"


def test_a_label_that_looks_like_a_number_does_not_load_as_that_channel(network, tmp_path):
    lens = FeatureLens(network, "conv", "1", labels=[*"123456"], backend="cifar10").fit(pictures(220), **QUICK)
    lens.save(tmp_path / "lens.safetensors")
    with pytest.raises(ValueError, match=r"holds the units \['1'\]; pass the same ones as unit=, and labels="):
        FeatureLens.load(tmp_path / "lens.safetensors", network)
    with pytest.raises(ValueError, match=r"channels=None, but the lens in .* was fitted with \['0'\]"):
        FeatureLens.load(tmp_path / "lens.safetensors", network, unit=1)
    again = FeatureLens.load(tmp_path / "lens.safetensors", network, unit="1", labels=[*"123456"])
    assert torch.equal(again.target.responses(pictures(3)), LayerTarget(network, "conv", 0).responses(pictures(3)))


def test_what_is_wrong_is_said_before_a_fit(lens):
    for wrong, said in (
        ({"alpha": 2.0}, "alpha=2.0 must lie"),
        ({"direction": "up"}, "direction='up' is unknown"),
        ({"method": "optimize", "alphas": [0.5]}, "are weights of method='edit'"),
        ({"method": "nothing"}, "nothing"),
        ({"mode": 1}, "mode=1 is not there: this prior has the modes 0 to 0"),
    ):
        with pytest.raises((ValueError, KeyError), match=said):
            lens.validate(**wrong)
    assert lens.validate("increase", alpha=0.5) is None
    assert lens.method_ is None


def test_measured_responses_that_do_not_fit(lens):
    images = pictures(220)
    with pytest.raises(ValueError, match=r"responses has shape \(219, 1\); expected \(220, 1\)"):
        lens.fit(images, [0.5] * 219)
    with pytest.raises(ValueError, match=r"responses has shape \(1, 220\); expected \(220, 1\)"):
        lens.fit(images, torch.rand(1, 220))
    with pytest.raises(ValueError, match="responses= were given without the images="):
        lens.fit(responses=torch.rand(220))
    with pytest.raises(ValueError, match="responses holds 1 values that are NaN"):
        lens.fit(images, [math.nan] + [float(k) for k in range(219)])


def test_an_unfitted_lens_fits_on_what_it_is_given_if_that_is_enough(lens):
    with pytest.raises(ValueError, match=r"not fitted, .*'bare' has no reference set, and 3 images .* 200 are needed"):
        lens.visualize(pictures(3))
    with pytest.raises(ValueError, match="none images were given|none were given"):
        lens.visualize()
    with pytest.raises(ValueError, match="images=None, and backend 'bare' has no reference set of its own"):
        lens.fit()
    assert lens.method_ is None


def test_a_refit_that_fails_leaves_the_lens_as_it_was(network, images):
    lens = FeatureLens(network, "conv", 2, backend=Bare()).fit(pictures(220), **QUICK)
    before = lens.visualize(images, "increase", strength=0).images["increase"]
    with pytest.raises(ValueError, match="images holds 5 images; a landscape needs at least 200"):
        lens.fit(pictures(5), **QUICK)
    assert torch.equal(lens.visualize(images, "increase", strength=0).images["increase"], before)
    assert lens.top_images(1).images.shape[0] == 1
    assert len(lens.reference_set.held_out(8)[0]) == 8


def test_a_constant_unit_is_refused(lens):
    with pytest.raises(ValueError, match="unit '2' never varies"):
        lens.fit(pictures(1).expand(220, -1, -1, -1))


def test_settings_are_checked(lens):
    with pytest.raises(TypeError, match="epoch= is no setting of the landscape. Closest: epochs"):
        lens.fit(pictures(220), epoch=3)
    with pytest.raises(ValueError, match="epochs=0 must be greater than 0"):
        lens.fit(pictures(220), epochs=0)


# Targets that are no networks


def test_a_target_without_gradients(images):
    lens = FeatureLens(Brightness(), backend="cifar10").fit(pictures(220), **QUICK)
    result = lens.visualize(images, {"all": "increase"}, strength=0)
    assert (result.response_change["custom"] > 0).all()
    assert result.model == "Brightness"
    with pytest.raises(ValueError, match="method='optimize' needs gradients .* this target has none. Use"):
        lens.visualize(images, method="optimize", strength=0)


def test_what_can_be_refused_is_refused_before_the_fit(images):
    lens = FeatureLens(small_network(), "conv", 1, backend="cifar10")
    with pytest.raises(ValueError, match="seeds has 2 entries for"):
        lens.visualize(images, seeds=[1, 2])
    with pytest.raises(ValueError, match="judge reads 2 units .*; expected 1, one for each"):
        lens.visualize(images, judge=LayerTarget(small_network(seed=3), "conv", [0, 1]))
    with pytest.raises(ValueError, match="not fitted"):
        _ = lens.landscape_


def test_another_judge(fitted, images):
    judge = LayerTarget(small_network(seed=3), "conv", 0)
    result = fitted.visualize(images, "increase", strength=0, judge=judge)
    assert result.settings["judge"].startswith("0 of ")
    assert result.unit == "2"  # the lens's own: its landscape and its evidence are behind the pictures
    assert result.evidence is fitted.evidence_["2"]
    torch.testing.assert_close(result.responses["increase"], judge.responses(result.images["increase"])[:, 0])
    assert result.response_std == pytest.approx(judge.responses(pictures(220)).std().item(), rel=1e-4)


# Files


def test_save_and_load(fitted, network, images, tmp_path):
    again = FeatureLens.load(fitted.save(tmp_path / "lens.safetensors"), network)
    first, second = (one.visualize(images, strength=0) for one in (fitted, again))
    for key in first.images:
        assert torch.equal(first.images[key], second.images[key])
        assert torch.equal(first.responses[key], second.responses[key])
    assert first.settings == second.settings
    assert str(again) == str(fitted)
    assert torch.equal(again.sample(2, strength=0), fitted.sample(2, strength=0))
    with pytest.raises(ValueError, match="a loaded lens holds no reference images; pass images"):
        again.top_images()
    with pytest.raises(ValueError, match="holds no reference images; pass images, or call fit"):
        again.visualize()
    with pytest.raises(ValueError, match="judge= needs the reference images"):
        again.visualize(images, judge=fitted.target)


def test_another_preprocessing_is_refused(fitted, tmp_path):
    path = fitted.save(tmp_path / "lens.safetensors")
    other = small_network()
    other.preprocess = Preprocess(32, [0.0], [0.05])
    with pytest.raises(
        ValueError, match=r"preprocess='resize to 32, mean \(0.0,\).*was fitted with 'resize to 32, mean"
    ):
        FeatureLens.load(path, other)


def test_numpy_numbers_are_numbers(fitted, images, tmp_path):
    made = fitted.visualize(images, "increase", alpha=np.float32(0.5), seeds=np.arange(3), strength=0)
    assert (made.settings["alpha"], made.settings["seeds"]) == (0.5, [0, 1, 2])
    made.save(tmp_path / "out")
    several = FeatureLens(small_network(), "conv", 2, backend="cifar10")
    several.fit(pictures(220), **{**QUICK, "epochs": np.int64(1)}).save(tmp_path / "lens.safetensors")


def test_a_unit_is_named_as_it_was_given(network, images):
    lens = FeatureLens(network, "conv", [MeanOf([1, 4]), (2, slice(0, 2), 3)], backend="cifar10")
    assert [lens.index(unit) for unit in (MeanOf([1, 4]), (2, slice(0, 2), 3), lens.target.names[1])] == [0, 1, 1]
    with pytest.raises(KeyError, match=r"MeanOf\(units=\(1, 5\)\).* is not in this lens"):
        lens.index(MeanOf([1, 5]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_of_other_types_are_optimised_and_held(dtype, images):
    network = small_network().to(dtype)
    network.preprocess = Preprocess(32, [0.5], [0.5]).to(dtype)
    lens = FeatureLens(network, "conv", [1, 4], backend="cifar10").fit(pictures(220), **QUICK)
    for technique in ("edit", "optimize"):
        made = lens.visualize(images, {1: "increase"}, method=technique, strength=0)
        assert torch.isfinite(made.images["custom"]).all()


def test_natural_images_of_a_lens_fitted_from_files(fitted, images, tmp_path):
    for index, picture in enumerate(to_pil(pictures(220))):
        picture.save(tmp_path / f"{index:03}.png")
    responses = fitted.landscape_.responses
    maker = method_by_name("natural_images").fit(fitted.target, fitted.backend, pictures(220), responses)
    maker.images_ = ImageFiles(tmp_path, 32)  # as embedding backends have them
    made = maker.generate(images, {0: "increase"}, seeds=[0, 1, 2]).images
    assert made.shape == (3, 3, 32, 32)
    torch.testing.assert_close(made, fitted.top_images(3).images, atol=1 / 255, rtol=0)


def test_several_units_survive_a_file(pair, network, images, tmp_path):
    again = FeatureLens.load(pair.save(tmp_path / "lens.safetensors"), network)
    way = {1: "increase"}
    first, second = (one.visualize(images, way, strength=0).of_unit("4") for one in (pair, again))
    assert torch.equal(first.images["custom"], second.images["custom"])


def test_units_that_are_no_numbers_are_asked_for(network, tmp_path):
    path = (
        FeatureLens(network, "conv", (2, 3, 3), backend="cifar10")
        .fit(pictures(220), **QUICK)
        .save(tmp_path / "lens.safetensors")
    )
    with pytest.raises(ValueError, match=r"holds the units .*; pass the same ones as unit="):
        FeatureLens.load(path, network)
    assert FeatureLens.load(path, network, unit=(2, 3, 3)).evidence_


def test_another_model_or_unit_is_refused(fitted, network, tmp_path):
    path = fitted.save(tmp_path / "lens.safetensors")
    with pytest.raises(ValueError, match=r"model's weights \(fingerprint .*\) are not those that the lens in"):
        FeatureLens.load(path, small_network(seed=1))
    with pytest.raises(ValueError, match=r"units=\['3'\], but the lens in .* was fitted with \['2'\]; pass that"):
        FeatureLens.load(path, network, unit=3)
    with pytest.raises(ValueError, match="layer='stem.1', but the lens in .* was fitted with 'conv'"):
        FeatureLens.load(path, network, layer="stem.1")
    with pytest.raises(ValueError, match="layer 'conv' not found in ConvNet"):
        FeatureLens.load(path, zoo.load("cifar10_convnet"))


def test_files_that_are_no_lens(fitted, network, tmp_path):
    path = fitted.save(tmp_path / "lens.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="truncated or not a saved lens"):
        FeatureLens.load(path, network)
    with pytest.raises(ValueError, match="holds a landscape, expected a lens"):
        FeatureLens.load(fitted.landscape_.save(tmp_path / "landscape.safetensors"), network)
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="was not written by vislens_interp"):
        FeatureLens.load(tmp_path / "other.safetensors", network)
    header = {"vislens_interp": json.dumps({"kind": "lens", "version": 999, "state": {}})}
    save_file({"a": torch.ones(1)}, tmp_path / "newer.safetensors", metadata=header)
    with pytest.raises(ValueError, match="format version 999, newer than this library reads"):
        FeatureLens.load(tmp_path / "newer.safetensors", network)
    with pytest.raises(FileNotFoundError, match="no such file; expected a saved lens"):
        FeatureLens.load(tmp_path / "absent.safetensors", network)


def test_a_failed_save_leaves_the_old_file(fitted, network, tmp_path):
    path = fitted.save(tmp_path / "lens.safetensors")
    whole = path.read_bytes()
    with pytest.raises(TypeError, match="is a function; expected tensors and JSON values"):
        save_state(path, "lens", {"evidence": test_files_that_are_no_lens})
    assert path.read_bytes() == whole
    assert [file.name for file in tmp_path.iterdir()] == ["lens.safetensors"]


def test_an_unfitted_lens_is_not_saved(lens, tmp_path):
    with pytest.raises(ValueError, match="this lens is not fitted; call fit"):
        lens.save(tmp_path / "lens.safetensors")
    with pytest.raises(ValueError, match="this lens is not fitted; call fit"):
        print(lens.evidence_)


# Bad arguments


def test_a_lens_on_nothing(network):
    with pytest.raises(ValueError, match=r"layer 'conv9' not found in ConvNet. Closest: .*'conv.'.* list_units"):
        FeatureLens(zoo.load("cifar10_convnet"), "conv9", 0)
    with pytest.raises(ValueError, match=r"6"):
        FeatureLens(network, "conv", 6)
    with pytest.raises(ValueError, match=r"unit=None, but layer 'conv' has shape \(6, 6, 6\).* list_units"):
        FeatureLens(network, "conv")
    with pytest.raises(KeyError, match="backend='sdxl' is unknown; expected one of"):
        FeatureLens(network, "conv", 2, backend="sdxl")
    with pytest.raises(ValueError, match="Pass preprocess="):
        FeatureLens(nn.Sequential(nn.Conv2d(3, 4, 3)), "0", 1)


def test_an_only_output_needs_no_unit():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 1))
    lens = FeatureLens(model, preprocess=Preprocess(32, [0.5], [0.5]), backend="cifar10")
    assert lens.target.shape == (1,)
    assert str(lens).splitlines()[0] == "Sequential, output, unit 0, backend cifar10"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"direction": "up"}, "direction='up' is unknown; expected 'increase', 'decrease', 'both' or a dict"),
        ({"direction": {2: "up"}}, r"direction\[2\]='up' is unknown; expected one of"),
        ({"direction": {}}, r"direction=\{\} names no unit"),
        ({"method": "dream"}, "method='dream' is unknown; expected one of edit, optimize, ridge_direction"),
        ({"alpha": 1.5}, r"alpha=1.5 must lie in \[0, 1\]"),
        ({"alpha": -1.0}, r"alpha=-1.0 must lie in \[0, 1\]"),
        ({"strength": 2.0}, r"strength=2.0 must lie in \[0, 1\]"),
        ({"seeds": [1, 2]}, "seeds has 2 entries for 3 images; give one for all or one an image"),
        ({"mode": 1}, "mode=1 is not there: this prior has the modes 0 to 0"),
        ({"on_error": "ignore"}, "on_error='ignore'; expected 'raise' or 'skip'"),
    ],
    ids=str,
)
def test_bad_arguments(fitted, images, arguments, message):
    with pytest.raises(ValueError, match=message):
        fitted.visualize(images, **({"strength": 0} | arguments))


def test_an_unknown_unit_in_a_direction(fitted, images):
    with pytest.raises(KeyError, match="unit 17 is not in this lens; it points at 2"):
        fitted.visualize(images, {17: "increase"})


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda x: x * 255, ValueError, "look like 0..255"),
        (lambda x: x * 4 - 2, ValueError, "look normalised"),
        (lambda x: x.index_fill(0, torch.tensor([1]), math.nan), ValueError, "NaN or infinite values in 1 of 3 images"),
        (lambda x: x[0], ValueError, r"For one image pass images\[None\]"),
        (lambda x: x[:, :1], ValueError, "Grey images"),
        (lambda x: torch.cat([x, x[:, :1]], 1), ValueError, "RGBA images"),
        (lambda x: (x * 255).byte(), ValueError, "expected floating point"),
        (lambda x: x[:0], ValueError, "is empty"),
        (lambda x: x.numpy(), TypeError, "torch.from_numpy"),
        (lambda x: [], ValueError, "empty sequence"),
    ],
    ids=["0..255", "normalised", "NaN", "one", "grey", "RGBA", "bytes", "empty", "numpy", "list"],
)
def test_bad_images(fitted, images, wrong, error, message):
    for call in (fitted.visualize, fitted.fit):
        with pytest.raises(error, match=message):
            call(wrong(images))
    with pytest.raises(error, match=message):
        fitted.top_images(images=wrong(images))


def test_folders(fitted, images, tmp_path):
    with pytest.raises(ValueError, match="is a folder without images"):
        fitted.visualize(tmp_path, strength=0)
    with pytest.raises(FileNotFoundError, match="nothing is there; expected an image file or a folder"):
        fitted.visualize(tmp_path / "absent")
    for name, picture in zip("abc", to_pil(images), strict=True):
        picture.save(tmp_path / f"{name}.png")
    whole = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "d.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"2 of 4 images in source cannot be read: b.png .*d.jpg .*on_error='skip'"):
        fitted.visualize(tmp_path, strength=0)
    with pytest.warns(UserWarning, match=r"b.png .*d.jpg .*Going on with the other 2"):
        result = fitted.visualize(str(tmp_path), "increase", strength=0, on_error="skip")
    assert result.names == ["a.png", "c.png"]
    torch.testing.assert_close(result.images["reference"], images[[0, 2]], atol=0.5 / 255 + 1e-6, rtol=0)
    one = fitted.visualize(tmp_path / "c.png", "increase", strength=0)
    torch.testing.assert_close(one.images["increase"], result.images["increase"][1:], atol=1e-5, rtol=0)
    Image.fromarray(np.full((32, 32, 4), 100, np.uint8)).save(tmp_path / "c.png")
    with pytest.raises(ValueError, match="transparent pixels; flatten it"):
        fitted.visualize(tmp_path / "c.png")


def test_images_of_other_sizes(fitted):
    result = fitted.visualize([*to_pil(torch.rand(1, 3, 40, 64)), *to_pil(torch.rand(1, 3, 20, 20))], strength=0)
    assert result.images["increase"].shape == (2, 3, 32, 32)


# The caller's model


def state_of(model):
    return (
        {name: (value.data_ptr(), value.clone()) for name, value in model.state_dict(keep_vars=False).items()},
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [parameter.grad for parameter in model.parameters()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        torch.get_rng_state(),
    )


def assert_untouched(before, after):
    for name, (place, value) in before[0].items():
        assert after[0][name][0] == place
        assert torch.equal(after[0][name][1], value)
    assert before[1:5] == after[1:5]
    assert torch.equal(before[5], after[5])


@pytest.fixture
def training_model():
    model = small_network().train()
    model.stem[1].eval()
    model.conv.bias.requires_grad_(False)
    torch.manual_seed(123)
    return model


def test_the_model_and_the_random_state_are_left_alone(training_model, images):
    before = state_of(training_model)
    lens = FeatureLens(training_model, "conv", 2, backend="cifar10").fit(pictures(220), **QUICK, w_consistency=1.0)
    lens.visualize(images, strength=0.02)
    lens.visualize(images, "increase", method="optimize", strength=0)
    lens.visualize(images, alphas=[0.5], strength=0)
    lens.sample(2, strength=0)
    lens.top_images(2)
    assert_untouched(before, state_of(training_model))


class Refusing(nn.Module):
    """Raises when it meets more than so many images."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def forward(self, x):
        if len(x) > self.most:
            raise RuntimeError("too many images for me")
        return x


def test_also_after_an_exception(training_model):
    training_model.last = Refusing(most=100)
    before = state_of(training_model)
    lens = FeatureLens(training_model, "last", 2, backend="cifar10")
    with pytest.raises(RuntimeError, match="too many images for me"):
        lens.fit(pictures(220), **QUICK)
    assert_untouched(before, state_of(training_model))
    assert lens.method_ is None


def test_a_later_module_is_never_reached(training_model, images):
    training_model.last = Refusing(most=2)  # lets the first pass of two images through
    lens = FeatureLens(training_model, "conv", 2, backend="cifar10").fit(pictures(220), **QUICK)
    assert lens.visualize(images, "increase", strength=0).images["increase"].shape == images.shape


# What a lens points at


def test_a_lens_says_how_it_reads(network):
    lens = FeatureLens(network, "conv", Direction([1.0, 0, 0, 0, 0, -1.0], name="contrast"), pool="max", backend=Bare())
    assert str(lens).splitlines()[0] == "SmallNet, layer conv, unit contrast (max over the map), backend bare"
    neuron = FeatureLens(network, "conv", (2, 1, 1), pool="max", backend=Bare())
    assert "over the map" not in str(neuron).splitlines()[0]
    whole = FeatureLens(network, "conv", lambda features: features[:, 0].amax((1, 2)), backend=Bare())
    assert "over the map" not in str(whole).splitlines()[0]
    named = FeatureLens(network, "conv", "c", labels=list("abcdef"), backend=Bare())
    assert named.target.names == ["c"]
    with pytest.raises(ValueError, match="layer, unit: the model is a Brightness, which says itself what it reads"):
        FeatureLens(Brightness(), "conv", 2)


def test_a_lens_on_which_call_and_which_output_survives_a_file(tmp_path):
    class Twice(SmallNet):
        def forward(self, x):
            made = self.last(self.conv(self.stem(x)))
            return {"first": made, "second": self.last(made * 2)}

    torch.manual_seed(0)
    model = Twice()
    lens = FeatureLens(model, "last", 2, call=1, backend=Bare()).fit(pictures(220), **QUICK)
    again = FeatureLens.load(lens.save(tmp_path / "lens.safetensors"), model, backend=Bare())
    assert again.target.describe() == lens.target.describe()
    assert lens.target.describe()["call"] == 1
    with pytest.raises(ValueError, match="call=0, but the lens in .* was fitted with 1"):
        FeatureLens.load(tmp_path / "lens.safetensors", model, backend=Bare(), call=0)
    target = FeatureLens(model, None, 2, output="second", backend=Bare()).target
    assert torch.allclose(target.responses(pictures(3)), lens.target.responses(pictures(3)), atol=1e-6)


def test_a_lens_on_a_function(tmp_path):
    def redness(images):
        return images[:, 0].mean((1, 2)) - images[:, 1].mean((1, 2))

    everything = pictures(223)
    images, fitted_on = everything[:3], everything[3:]
    lens = FeatureLens(CallableTarget(redness, ["red"], name="camera"), backend=Bare())
    lens.fit(fitted_on, **QUICK, w_consistency=0)
    result = lens.visualize(images[:3], strength=0)
    assert torch.allclose(result.responses["reference"], redness(images[:3]), atol=1e-5)
    assert result.model == "camera"
    with pytest.raises(
        ValueError, match="method='optimize' needs gradients .* this target has none. Use method='edit'"
    ):
        lens.visualize(images[:3], method="optimize")
    path = lens.save(tmp_path / "lens.safetensors")
    again = FeatureLens.load(path, CallableTarget(redness, ["red"], name="camera"), backend=Bare())
    assert torch.equal(again.sample(1, strength=0), lens.sample(1, strength=0))
    with pytest.raises(ValueError, match="model='eye', but the lens in .* was fitted with 'camera'"):
        FeatureLens.load(path, CallableTarget(redness, ["red"], name="eye"), backend=Bare())
    lens.target.name = None  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="CallableTarget without a name.*Pass name= to CallableTarget"):
        lens.save(path)
