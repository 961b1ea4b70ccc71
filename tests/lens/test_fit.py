"""What a lens is fitted on, and targets that are no networks."""

import math
import warnings

import pytest
import torch
from small_networks import QUICK, Bare, Brightness, pictures, small_network

from vislens_interp import FeatureLens
from vislens_interp.methods.base import Method
from vislens_interp.targets.target import LayerTarget


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
    with pytest.warns(UserWarning, match="deviation of 0"), pytest.raises(ValueError, match="unit '2' never varies"):
        lens.fit(pictures(220), responses=torch.ones(220))
    with pytest.raises(ValueError, match="images holds 220 images that are all copies of one"):  # whatever the unit
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
    for judge in (small_network(seed=3), "squeezenet1_0"):
        with pytest.raises(TypeError, match="judge is a .*; expected a Target.* Pass LayerTarget"):
            lens.visualize(images, judge=judge)
    with pytest.raises(TypeError, match=r"alphas=0.5 is a float; expected a sequence. Pass \[0.5\]"):
        lens.visualize(images, alphas=0.5)
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
