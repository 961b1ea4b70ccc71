"""What is given as preprocess= does to a picture what it would do by itself, or it is refused."""

import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter, ImageOps
from torch import nn
from torchvision import transforms as T

from vislens_interp.images import to_pil
from vislens_interp.preprocess import (
    FileTransform,
    Preprocess,
    as_preprocess,
    describe_preprocess,
    normalises,
    preprocess_for,
    preprocess_size,
)
from vislens_interp.targets import LayerTarget, read_responses

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photograph(height, width, seed=0):
    """Smooth, as photographs are, so that filters of resizing agree."""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def test_preprocess_known_answer_and_gradient():
    preprocess = Preprocess(None, [0.5, 0.0, 0.25], [0.5, 1.0, 0.25])
    images = torch.full((2, 3, 4, 4), 0.75, requires_grad=True)
    out = preprocess(images)
    assert torch.allclose(out[0, :, 0, 0], torch.tensor([0.5, 0.75, 2.0]))
    out.sum().backward()
    assert images.grad is not None
    assert torch.allclose(images.grad[0, :, 0, 0], torch.tensor([2.0, 1.0, 4.0]))
    assert Preprocess(8, [0], [1])(images).shape == (2, 3, 8, 8)
    assert preprocess.describe() == "any size, mean (0.5, 0.0, 0.25), std (0.5, 1.0, 0.25)"
    assert "any size" in repr(preprocess)


def test_preprocess_adds_nothing_to_a_state_dict():
    model = nn.Sequential(nn.Linear(2, 2))
    before = set(model.state_dict())
    model.preprocess = Preprocess(8, [0.5], [0.5])
    assert set(model.state_dict()) == before
    assert preprocess_for(model) is model.preprocess


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, [0.5], [0.5]), "size=0"),
        ((8, [0.5, 0.5], [0.5]), r"mean=\[0.5, 0.5\]; expected 3"),
        ((8, [0.5], [float("nan")]), "std=.*finite"),
        ((8, [123.7, 116.3, 103.5], [58.4, 57.1, 57.4]), "mean=.*; expected means of pixels in .* std by 255"),
        ((8, [0.5], [0.0]), r"std=\[0.0\]; expected numbers above 0"),
    ],
)
def test_preprocess_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Preprocess(*arguments)


@pytest.mark.parametrize("attribute", ["pretrained_cfg", "default_cfg"])
@pytest.mark.parametrize("wrap", [dict, lambda settings: types.SimpleNamespace(**settings)])
def test_preprocess_for_reads_timms_settings(attribute, wrap):
    model = nn.Identity()
    settings = {"input_size": (3, 224, 224), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    setattr(model, attribute, wrap(settings))
    preprocess = preprocess_for(model)
    assert preprocess.size == 224
    assert torch.allclose(preprocess.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    assert torch.allclose(preprocess.std.flatten(), torch.tensor([0.4, 0.5, 0.6]))
    setattr(model, attribute, wrap(settings | {"test_input_size": (3, 288, 288)}))
    assert preprocess_for(model).size == 288
    setattr(model, attribute, wrap(settings | {"input_size": (1, 28, 28)}))
    with pytest.raises(ValueError, match=r"inputs of shape \(1, 28, 28\); expected 3 channels"):
        preprocess_for(model)


def test_preprocess_for_never_guesses():
    with pytest.raises(ValueError, match="Linear does not say how its inputs are prepared.*Pass preprocess="):
        preprocess_for(nn.Linear(2, 2))
    model = nn.Linear(2, 2)
    model.pretrained_cfg = {"mean": (0.5, 0.5, 0.5)}  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="does not say"):
        preprocess_for(model)


def test_preprocess_size():
    from torchvision.transforms._presets import ImageClassification

    assert preprocess_size(Preprocess(32, [0], [1])) == 32
    assert preprocess_size(Preprocess(None, [0], [1])) is None
    assert preprocess_size(ImageClassification(crop_size=64)) == 64
    assert preprocess_size(lambda images: images) is None


def test_preprocess_for_reads_open_clips_settings():
    tower = nn.Identity()
    tower.preprocess_cfg = {"size": (64, 64), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}  # pyright: ignore
    model = nn.Module()
    model.visual = tower
    said = "resize to 64, mean (0.1, 0.2, 0.3), std (0.4, 0.5, 0.6)"
    assert preprocess_for(model).describe() == preprocess_for(tower).describe() == said
    tower.preprocess_cfg["size"] = (64, 32)  # pyright: ignore
    with pytest.raises(ValueError, match="preprocess_cfg makes images of size .64, 32.; expected a square"):
        preprocess_for(model)


IMAGENET = "resize to 224, mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)"


def test_what_a_preprocessing_does():
    assert describe_preprocess(Preprocess(8, [0], [1])) == "resize to 8, mean (0.0,), std (1.0,)"
    assert describe_preprocess(torch.sigmoid) == "sigmoid"
    assert [normalises(one) for one in (Preprocess(8, [0], [1]), Preprocess(8, [0.5], [1]), torch.sigmoid)] == [
        False,
        True,
        False,
    ]


def test_as_preprocess_reads_published_transforms():
    from torchvision.models import ResNet18_Weights
    from transformers import CLIPImageProcessor

    steps = [T.Resize(256), T.CenterCrop(224), T.ToTensor(), T.Normalize(MEAN, STD)]
    processor = CLIPImageProcessor(
        size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}, image_mean=MEAN, image_std=STD
    )
    weights = ResNet18_Weights.DEFAULT
    for one in (weights, weights.transforms, weights.transforms(), T.Compose(steps), processor):
        assert as_preprocess(one).describe() == IMAGENET  # pyright: ignore
    own = Preprocess(8, [0], [1])
    assert as_preprocess(own) is own
    assert as_preprocess(torch.sigmoid) is torch.sigmoid
    with pytest.raises(ValueError, match="preprocess: Compose gives the same picture two different results.*is_train"):
        as_preprocess(T.Compose([T.RandomRotation(3), *steps]))
    with pytest.raises(TypeError, match="preprocess is a int; expected Preprocess"):
        as_preprocess(224)


def test_timms_transforms_for_a_loader_are_refused():
    from timm.data import create_transform

    for settings_ in ({"normalize": False}, {"use_prefetcher": True}):
        with pytest.raises(ValueError, match="preprocess: Compose gives torch.uint8 in 0..255, which a loader"):
            as_preprocess(create_transform(32, is_training=False, **settings_))
    with pytest.raises(ValueError, match="two different results"):
        as_preprocess(create_transform(32, is_training=True))
    said = as_preprocess(create_transform((3, 32, 32), mean=MEAN, std=STD)).describe()  # pyright: ignore
    assert said == IMAGENET.replace("to 224", "to 32")


def test_colours_in_another_order_and_normalised_twice():
    from transformers import MobileViTImageProcessor

    sizes = {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}
    preprocess = as_preprocess(MobileViTImageProcessor(**sizes))
    assert preprocess.describe() == (  # pyright: ignore
        "resize to 64, mean (0.0, 0.0, 0.0), std (1.0, 1.0, 1.0),"
        " colours [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]"
    )
    steps = [T.Resize((64, 64)), T.ToTensor(), T.Normalize(MEAN, STD), T.Normalize(MEAN, STD)]
    images = photograph(64, 64)
    twice = as_preprocess(T.Compose(steps))(images)
    assert torch.allclose(twice[0], T.Compose(steps)(to_pil(images)[0]), atol=0.06)
    tensors = T.Compose([T.Resize(64), T.Normalize(MEAN, STD), T.Normalize(MEAN, STD)])  # takes tensors alone
    assert torch.equal(as_preprocess(tensors)(images), tensors(images))


BLOCKS = {
    "resize": lambda size: [T.Resize((size, size))],
    "crop": lambda size: [T.Resize(round(size / 0.875)), T.CenterCrop(size)],
    "bicubic": lambda size: [T.Resize(size, interpolation=T.InterpolationMode.BICUBIC), T.CenterCrop(size)],
    "no resizing": lambda size: [T.CenterCrop(size)],
    "pad": lambda size: [T.Pad(20), T.Resize((size, size))],
    "oblong": lambda size: [T.Resize((size, size // 2))],
    "longest": lambda size: [lambda image: ImageOps.pad(image, (size, size))],
}
PICTURES = {
    "nothing": [],
    "flip": [T.RandomHorizontalFlip(1.0)],
    "grey": [T.Grayscale(3)],
    "invert": [T.RandomInvert(1.0)],
    "posterize": [T.RandomPosterize(3, 1.0)],
    "contrast": [T.RandomAutocontrast(1.0)],
    "blur": [lambda image: image.filter(ImageFilter.GaussianBlur(4))],
    "turn": [lambda image: image.transpose(Image.Transpose.ROTATE_90)],
}
TENSORS = {
    "nothing": [],
    "normalize": [T.Normalize(MEAN, STD)],
    "twice": [T.Normalize(MEAN, STD), T.Normalize((0.5,) * 3, (0.5,) * 3)],
    "bgr": [T.Lambda(lambda x: x.flip(0)), T.Normalize(MEAN, STD)],
    "255": [T.Lambda(lambda x: x * 255), T.Normalize((123.7, 116.3, 103.5), (58.4, 57.1, 57.4))],
    "standardised": [T.Lambda(lambda x: (x - x.mean()) / x.std())],
    "gamma": [T.Lambda(lambda x: x**0.45)],
    "one channel": [T.Lambda(lambda x: x[:1])],
}


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    geometry=st.sampled_from(list(BLOCKS)),
    picture=st.sampled_from(list(PICTURES)),
    tensor=st.sampled_from(list(TENSORS)),
    size=st.sampled_from([32, 48]),
    shape=st.sampled_from([(96, 96), (80, 120), (130, 70)]),
)
@pytest.mark.filterwarnings("ignore:preprocess. Compose does what Preprocess cannot")
def test_any_transform_of_public_blocks_does_what_it_does_by_itself(geometry, picture, tensor, size, shape):
    transform = T.Compose([*PICTURES[picture], *BLOCKS[geometry](size), T.ToTensor(), *TENSORS[tensor]])
    images = photograph(*shape)
    expected = transform(to_pil(images)[0])
    preprocess = as_preprocess(transform)
    got = preprocess(images)[0]
    assert got.shape == expected.shape
    scale = max(1.0, float(expected.max() - expected.min()))
    if isinstance(preprocess, FileTransform):
        assert torch.allclose(got, expected, atol=1e-6)
        return
    if geometry == "crop":  # shown whole: what the crop leaves out is all that differs
        whole = T.Compose([*PICTURES[picture], T.Resize(size), T.CenterCrop(size), T.ToTensor(), *TENSORS[tensor]])
        expected = whole(to_pil(images)[0])
    assert (got - expected).abs().max() <= 0.1 * scale
    assert (got - expected).abs().mean() <= 0.02 * scale


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        ("gamma", "its colours are no linear mixture of red, green and blue"),
        ("one channel", "it gives 1 channels"),
        ("standardised", "its colours are no linear|a smooth picture differs by"),
    ],
)
def test_what_is_applied_as_it_is_is_said(tensor, why):
    with pytest.warns(UserWarning, match=f"preprocess: Compose does what Preprocess cannot: ({why}).*passes no grad"):
        preprocess = as_preprocess(T.Compose([T.Resize((32, 32)), T.ToTensor(), *TENSORS[tensor]]))
    assert isinstance(preprocess, FileTransform)
    assert preprocess.size == preprocess_size(preprocess) == 32
    assert "applied to 8-bit pictures" in describe_preprocess(preprocess)


def test_gradients_pass_what_is_translated_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    steps = [T.Resize((32, 32)), T.ToTensor(), T.Normalize(MEAN, STD)]
    assert LayerTarget(model, "0", 1, preprocess=T.Compose(steps)).differentiable
    bent = T.Compose([*steps, T.Lambda(lambda x: x.sign() * x.abs() ** 0.5)])
    with pytest.warns(UserWarning, match="passes no gradients"):
        target = LayerTarget(model, "0", 1, preprocess=bent)
    assert not target.differentiable
    images = torch.cat([photograph(60, 60, seed) for seed in range(3)])
    by_hand = model(torch.stack([bent(picture) for picture in to_pil(images)]))[:, 1].mean((1, 2))
    assert torch.allclose(target.responses(images)[:, 0], by_hand, atol=1e-6)


def test_open_clips_own_transform():
    from open_clip.transform import PreprocessCfg, image_transform_v2

    images = photograph(90, 60)
    for mode in ("shortest", "squash"):
        transform = image_transform_v2(PreprocessCfg(size=48, resize_mode=mode), is_train=False)
        preprocess = as_preprocess(transform)
        assert isinstance(preprocess, Preprocess)
        assert torch.allclose(preprocess(images)[0], transform(to_pil(images)[0]), atol=0.05)  # pyright: ignore
    with pytest.warns(UserWarning, match="cannot"):
        as_preprocess(image_transform_v2(PreprocessCfg(size=48, resize_mode="longest"), is_train=False))


def test_any_function_of_tensors_or_of_pictures():
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    images = photograph(32, 32)
    expected = model((images - 0.3) / 0.2)[:, 1].mean((1, 2))
    got = read_responses(model, "0", 1, images, preprocess=lambda x: (x - 0.3) / 0.2)
    assert torch.allclose(got, expected, atol=1e-5)
    of_pictures = T.Compose([T.Resize(32), T.ToTensor(), T.Normalize([0.3], [0.2])])
    got = read_responses(model, "0", 1, images, preprocess=lambda picture: of_pictures(picture))
    assert torch.allclose(got, expected, atol=0.02)


def test_timm_models_built_otherwise_than_published():
    import timm

    small = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=1)
    assert preprocess_for(small).size == 64
    with pytest.raises(ValueError, match=r"asks for inputs of shape \(1, 224, 224\); expected 3 channels"):
        preprocess_for(timm.create_model("resnet10t", in_chans=1))
