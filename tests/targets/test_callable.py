import json

import numpy as np
import pytest
import torch

from vislens_interp.targets import CallableTarget

IMAGES = torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def brightness(images):
    return images.mean((1, 2, 3))


class Counts:
    """A function that counts what it is asked, and fails as often as it is told to."""

    def __init__(self, fails=0):
        self.asked, self.fails = [], fails

    def __call__(self, images):
        self.asked.append(len(images))
        if self.fails:
            self.fails -= 1
            raise ConnectionError("no answer")
        return np.stack([images.mean((1, 2, 3)), images[:, 0].mean((1, 2))], 1)


def test_known_answer():
    target = CallableTarget(brightness)
    assert target.names == ["brightness"]
    assert not target.differentiable
    assert torch.equal(target.responses(IMAGES), brightness(IMAGES)[:, None])
    assert not target(IMAGES.clone().requires_grad_()).requires_grad


def test_numpy_in_and_out_in_batches():
    function = Counts()
    target = CallableTarget(function, ["all", "red"], numpy=True, batch_size=3)
    expected = torch.stack([brightness(IMAGES), IMAGES[:, 0].mean((1, 2))], 1)
    assert torch.allclose(target.responses(IMAGES), expected, atol=1e-6)
    assert function.asked == [3, 3, 1]
    assert target.responses(IMAGES).dtype == torch.float32


def test_what_was_asked_is_not_asked_again():
    function = Counts()
    target = CallableTarget(function, ["all", "red"], numpy=True)
    first = target.responses(IMAGES)
    assert torch.equal(target.responses(IMAGES.flip(0)), first.flip(0))
    assert torch.equal(target(torch.cat([IMAGES, IMAGES])), torch.cat([first, first]))
    assert function.asked == [7]
    target(IMAGES[:1] * 0.5)
    assert function.asked == [7, 1]
    none = CallableTarget(function, ["all", "red"], numpy=True, cache=0)
    assert torch.equal(none.responses(IMAGES), first)
    assert torch.equal(none.responses(IMAGES), first)
    assert function.asked == [7, 1, 7, 7]
    few = CallableTarget(function, ["all", "red"], numpy=True, cache=2)
    assert torch.equal(few.responses(IMAGES), first)
    few(IMAGES[-2:])
    few(IMAGES[:1])
    assert function.asked == [7, 1, 7, 7, 7, 1]


def test_the_function_cannot_change_the_images():
    def spoils(images):
        images += 1
        return images.mean((1, 2, 3))

    images = IMAGES.clone()
    CallableTarget(spoils, numpy=True)(images)
    assert torch.equal(images, IMAGES)
    CallableTarget(spoils)(images)
    assert torch.equal(images, IMAGES)


def test_retries():
    function = Counts(fails=2)
    target = CallableTarget(function, ["all", "red"], numpy=True, retries=2, wait=0)
    assert target(IMAGES).shape == (7, 2)
    assert function.asked == [7, 7, 7]
    with pytest.raises(ConnectionError, match="no answer"):
        CallableTarget(Counts(fails=2), ["all", "red"], numpy=True, retries=1, wait=0)(IMAGES)


def test_size():
    seen = []
    target = CallableTarget(lambda images: seen.append(images.shape) or brightness(images), ["b"], size=4)
    target(IMAGES)
    assert seen == [(7, 3, 4, 4)]


def test_describe():
    said = json.loads(json.dumps(CallableTarget(brightness, name="lamp", size=4).describe()))
    assert said == {"model": "lamp", "units": ["brightness"], "preprocess": "resize to 4"}


@pytest.mark.parametrize(
    ("function", "names", "error", "message"),
    [
        (lambda images: brightness(images)[:3], ["b"], ValueError, r"returned shape \(3,\) for 7 images"),
        (lambda images: images.mean((2, 3)), ["b"], ValueError, r"returned shape \(7, 3\).*expected \(7, 1\)"),
        (lambda images: ["bright"] * len(images), ["b"], TypeError, "returned a list that is no array of numbers"),
        (lambda images: brightness(images) * torch.nan, ["b"], ValueError, "NaN or infinite responses for 7 of 7"),
    ],
)
def test_wrong_answers(function, names, error, message):
    with pytest.raises(error, match=message):
        CallableTarget(function, names)(IMAGES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": []}, r"names=\[\]; expected a list of at least one"),
        ({"names": ["a", "a"]}, "each once"),
        ({"names": "abc"}, "names='abc'; expected a list"),
        ({"names": [1]}, "expected strings"),
        ({"name": ""}, "name=''; expected a string that is not empty"),
        ({"batch_size": 0}, "batch_size=0; expected a whole number of at least 1"),
        ({"retries": -1}, "retries=-1"),
        ({"cache": -1}, "cache=-1"),
        ({"wait": -1}, "wait=-1; expected seconds"),
        ({"size": 0}, "size=0; expected the side"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        CallableTarget(brightness, **arguments)


def test_no_function():
    with pytest.raises(TypeError, match="function is a str; expected a function of images"):
        CallableTarget("brightness")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="CallableTarget has no features"):
        CallableTarget(brightness).features(IMAGES)
    with pytest.raises(ValueError, match="divide by 255"):
        CallableTarget(brightness).responses(IMAGES * 255)


def test_gradients_of_a_function_of_torch():
    weight = torch.tensor([1.0, 2.0, 3.0])
    target = CallableTarget(lambda images: images.mean((2, 3)) @ weight, batch_size=2, differentiable=True)
    images = torch.rand(5, 3, 4, 4, requires_grad=True)
    responses = target(images)
    assert torch.allclose(responses[:, 0], images.mean((2, 3)) @ weight)
    responses.sum().backward()
    assert images.grad is not None
    assert torch.allclose(images.grad, (weight / 16)[:, None, None].expand(5, 3, 4, 4))
    assert not target(images.detach()).requires_grad
    assert torch.allclose(target.responses(images.detach()), responses.detach())
    cut = CallableTarget(lambda images: images.detach().mean((1, 2, 3)), differentiable=True)
    with pytest.raises(ValueError, match="carry no gradient to the images; expected torch's operations"):
        cut(images)
    with pytest.raises(ValueError, match="differentiable=True with numpy=True; expected one of the two"):
        CallableTarget(lambda images: images, differentiable=True, numpy=True)
