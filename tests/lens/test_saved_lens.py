"""Lenses in files."""

import json
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_networks import QUICK, Bare, pictures, small_network

from vislens_interp import FeatureLens, MeanOf, Preprocess, zoo
from vislens_interp.files import load_state, save_state
from vislens_interp.images import ImageFiles, to_pil
from vislens_interp.methods import method_by_name


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


class Own(Bare):
    """A backend with a reference set of its own."""

    def __init__(self, seed=0):
        super().__init__()
        self.own = pictures(220, seed)

    def reference_images(self):
        return self.own


def test_a_loaded_lens_opens_the_backends_own_reference_set_again(network, images, tmp_path):
    lens = FeatureLens(network, "conv", 2, backend=Own()).fit(**QUICK)
    path = lens.save(tmp_path / "lens.safetensors")
    again = FeatureLens.load(path, network, backend=Own())
    assert torch.equal(again.top_images(3).images, lens.top_images(3).images)
    assert torch.equal(again.reference_set.responses, lens.reference_set.responses)
    assert again.reference_set.held_out_rows == lens.reference_set.held_out_rows
    assert again.visualize(images, "increase", judge=lens.target, strength=0).settings["judge"]
    other = FeatureLens.load(path, network, backend=Own(seed=1))  # the backend has other images now
    with pytest.raises(ValueError, match="a loaded lens holds no reference images"):
        other.top_images()


def test_no_warning_of_overlap_comes_before_an_error(fitted, network, tmp_path):
    again = FeatureLens.load(fitted.save(tmp_path / "lens.safetensors"), network)
    learned = pictures(220)[[row for row in range(220) if row not in fitted.reference_set.held_out_rows][:3]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for arguments in ({"method": "ridge_direction"}, {"judge": fitted.target}):
            with pytest.raises(ValueError, match="reference images, which a loaded lens does not have"):
                again.visualize(learned, **arguments)
            with pytest.raises(ValueError, match="reference images, which a loaded lens does not have"):
                again.validate(**arguments)  # before a folder of inputs is read
    with pytest.warns(UserWarning, match="3 of 3 images to edit are among those"):
        again.visualize(learned, strength=0)


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
    with pytest.raises(
        ValueError, match="model is a ConvNet, and the lens in .* was saved for a SmallNet .layer 'conv'"
    ):
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


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("evidence",), [{}], r"evidence\[0\].unit is missing; expected text"),
        (("seed",), "0", "seed is '0'; expected a whole number"),
        (("backend",), "nowhere", "is of backend 'nowhere', which is unknown; expected one of .*pass the backend"),
        (("origin",), "nowhere", "origin is 'nowhere'; expected one of"),
        (("target", "units"), None, "target.units is None; expected a list"),
        (("target", "units"), ["3"], "target.units is \\['3'\\]; expected landscape.names"),
        (("target", "pool"), 3, "target.pool is 3; expected text"),
        (("landscape",), {}, "landscape.vae is missing"),
        (("landscape", "latents"), torch.full((220, 12), torch.nan), "landscape.responses has shape|latents holds NaN"),
        (("landscape", "responses"), torch.zeros(3, 1), "landscape.responses has shape"),
        (("landscape", "prior"), {}, "landscape.prior.latent_dim is missing; .*Restore a copy, or make it again"),
        (("landscape", "scaler"), {"x": 1}, "landscape.scaler.mean is missing"),
        (("landscape", "held_out"), torch.tensor([10**6]), "landscape.held_out are not rows of 220"),
        (("landscape", "vae", "kind"), "Exec", "landscape cannot be restored"),
        (("config", "fit"), {"epochs": "many"}, "config cannot be restored"),
        (("surrogate",), {"members": 3}, "surrogate cannot be restored"),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_an_edited_lens_is_refused_by_field(fitted, network, tmp_path, path, value, message):
    state = load_state(fitted.save(tmp_path / "lens.safetensors"), "lens")
    at = state
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    save_state(tmp_path / "edited.safetensors", "lens", state)
    with pytest.raises(ValueError, match=rf"edited.safetensors'.*({message})"):
        FeatureLens.load(tmp_path / "edited.safetensors", network)


@pytest.mark.parametrize(
    "state", [None, 3, {}, {"$dict": 3}, {"$dict": [["seed"]]}, {"$tensor": "x"}, {"$dict": [["seed", {}]]}]
)
def test_an_edited_header_is_refused(network, tmp_path, state):
    header = {"vislens_interp": json.dumps({"kind": "lens", "version": 1, "state": state})}
    save_file({"a": torch.ones(1)}, tmp_path / "lens.safetensors", metadata=header)
    with pytest.raises(
        ValueError, match="lens.safetensors'.*expected|lens.safetensors'.*was not written by save_state"
    ):
        FeatureLens.load(tmp_path / "lens.safetensors", network)


def test_a_notebook_shows_a_lens(fitted, lens):
    assert "not fitted yet" in lens._repr_html_()
    shown = fitted._repr_html_()
    assert "good evidence" in shown
    assert "doubt these pictures" not in shown


def test_a_checkpoint_that_cannot_be_written_is_said_before_the_fit(lens, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written"):
        lens.fit(pictures(3), checkpoint=tmp_path / "file" / "checkpoint")  # three are too few: no fit was begun
