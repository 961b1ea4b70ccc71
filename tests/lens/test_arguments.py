"""Arguments that cannot work."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from vislens_interp import FeatureLens, Preprocess, zoo
from vislens_interp.evaluation.words import WordReadout
from vislens_interp.images import to_pil
from vislens_interp.methods.prototypes import Prototypes
from vislens_interp.targets.whole_layer import read_responses


def test_a_lens_on_nothing(network):
    with pytest.raises(ValueError, match=r"layer 'conv9' not found in ConvNet. Closest: .*'conv.'.* list_units"):
        FeatureLens(zoo.load("cifar10_convnet"), "conv9", 0)
    with pytest.raises(TypeError, match="model is a function; expected a .*Module. Pass CallableTarget"):
        FeatureLens(lambda images: images.mean((1, 2, 3)))
    with pytest.raises(TypeError, match="units= is no argument here. Closest: unit"):
        FeatureLens(network, "conv", units=3)
    with pytest.raises(TypeError, match="imagesize= is no argument here.* Closest: image_size"):
        read_responses(network, "conv", 3, torch.rand(1, 3, 8, 8), imagesize=8)
    with pytest.raises(ValueError, match=r"6"):
        FeatureLens(network, "conv", 6)
    with pytest.raises(ValueError, match=r"unit=None, but layer 'conv' has shape \(6, 6, 6\).* list_units"):
        FeatureLens(network, "conv")
    with pytest.raises(KeyError, match="backend='sdxxl' is unknown; expected one of"):
        FeatureLens(network, "conv", 2, backend="sdxxl")
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
        ({"method": "dream"}, "method='dream' is unknown; expected one of edit, optimize, edited_prototypes"),
        ({"alpha": 1.5}, r"alpha=1.5 must lie in \[0, 1\]"),
        ({"alpha": -1.0}, r"alpha=-1.0 must lie in \[0, 1\]"),
        ({"strength": 2.0}, r"strength=2.0 must lie in \[0, 1\]"),
        ({"seeds": [1, 2]}, "seeds has 2 entries for 3 images; give one for all or one an image"),
        ({"mode": 1}, "mode=1 is not there: this prior has the modes 0 to 0"),
        ({"on_error": "ignore"}, "on_error='ignore' is unknown; expected 'raise' or 'skip'"),
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
        (lambda x: x.numpy(), TypeError, r"torch.from_numpy\(array\)\."),
        (lambda x: x[0].permute(1, 2, 0).mul(255).byte().numpy(), TypeError, r"\[None\].permute\(0, 3, 1, 2\) / 255"),
        (lambda x: [], ValueError, "empty sequence"),
    ],
    ids=["0..255", "normalised", "NaN", "one", "grey", "RGBA", "bytes", "empty", "numpy", "bytes last", "list"],
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
    torch.testing.assert_close(result.images["inputs"], images[[0, 2]], atol=0.5 / 255 + 1e-6, rtol=0)
    one = fitted.visualize(tmp_path / "c.png", "increase", strength=0)
    torch.testing.assert_close(one.images["increase"], result.images["increase"][1:], atol=1e-5, rtol=0)
    Image.fromarray(np.full((32, 32, 4), 100, np.uint8)).save(tmp_path / "c.png")
    with pytest.raises(ValueError, match="transparent pixels; flatten it"):
        fitted.visualize(tmp_path / "c.png")


def test_images_of_other_sizes(fitted):
    result = fitted.visualize([*to_pil(torch.rand(1, 3, 40, 64)), *to_pil(torch.rand(1, 3, 20, 20))], strength=0)
    assert result.images["increase"].shape == (2, 3, 32, 32)


def test_wrong_arguments_are_refused_before_a_fit(lens, fitted, images):
    """The backend of this lens has no reference set, so that a fit is refused in other words."""
    for call, error, message in (
        (lambda: lens.sample(2.5), TypeError, "count=2.5 is a float; expected a whole number of at least 1"),
        (lambda: lens.sample(strength=2), ValueError, r"strength=2 must lie in \[0, 1\]"),
        (lambda: lens.attribute(unit=7), KeyError, "unit 7 is not in this lens"),
        (lambda: lens.attribute(method="Gradient"), ValueError, "method='Gradient' is unknown; expected 'Neuron"),
        (lambda: lens.audit(images, judge="resnet"), TypeError, "judge is a str; expected a function of images"),
        (lambda: lens.compare(images, embedding=3), TypeError, "embedding is a int; expected a function of images"),
        (lambda: lens.compare(images, second=3), TypeError, "second is a int; expected a function of images"),
        (lambda: lens.sample(), ValueError, "this lens is not fitted"),
        (lambda: fitted.top_images(3, "no folder", unit=7), KeyError, "unit 7 is not in this lens"),
        (lambda: lens.fit("no folder", epoch=3), TypeError, "epoch= is no setting of the landscape"),
        (lambda: fitted.top_images(-1), ValueError, "count=-1 must be at least 1"),
        (lambda: fitted.visualize(images, words="animals"), TypeError, "words is a str; expected a WordReadout"),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize("out", [None, "result"])
def test_what_the_backends_own_images_cannot_do_is_refused_before_a_fit(network, fitted, images, out, tmp_path):
    lens = FeatureLens(network, "conv", 2, backend="cifar10")  # whose reference set is synthetic
    narrow, folder = WordReadout(["warm", "cold"], torch.eye(2), "a test"), out and tmp_path / out
    for arguments, error, message in (
        ({"method": "natural_images"}, ValueError, "natural_images' shows reference images as natural ones, and those"),
        ({"method": Prototypes()}, ValueError, r"method Prototypes\(\) shows reference images as natural ones"),
        ({"words": "animals"}, TypeError, "words is a str; expected a WordReadout"),
        ({"words": narrow}, ValueError, "words reads embeddings of 2 dimensions, and x of backend 'cifar10' has shape"),
        ({"words": narrow, "method": "maco"}, ValueError, "words= has no effect on method 'maco'"),
    ):
        with pytest.raises(error, match=message):
            lens.visualize(images, out=folder, **arguments)
    assert lens.method_ is None
    assert fitted.visualize(images[:1], method="natural_images").settings["shows_reference"]  # of given photographs
