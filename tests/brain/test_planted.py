import math

import pytest
import torch

from vislens_interp.brain.planted import FEATURES, TUNINGS, GaborBank, PlantedTruth, Tuning, plant


def grating(angle, wavelength, side=48):
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    turned = x * math.cos(math.radians(angle)) + y * math.sin(math.radians(angle))
    return (0.5 + 0.4 * torch.cos(2 * math.pi * turned / wavelength)).expand(1, 3, -1, -1)


def flat(*colour):
    return torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 48, 48)


@pytest.mark.parametrize("angle", [0, 45, 90, 135])
@pytest.mark.parametrize(("scale", "wavelength"), [("fine", 4.0), ("coarse", 9.0)])
def test_a_grating_drives_its_own_filter_most(angle, scale, wavelength):
    maps = GaborBank()(grating(angle, wavelength)).mean((2, 3))[0]
    start = 0 if scale == "fine" else 4
    assert FEATURES[start + maps[start : start + 4].argmax()] == f"{scale} {angle}°"


@pytest.mark.parametrize(
    ("colour", "names"),
    [((1, 0, 0), {"red", "yellow"}), ((0, 1, 0), {"green", "yellow"}), ((0, 0, 1), {"blue"}), ((0.5, 0.5, 0.5), set())],
)
def test_colours(colour, names):
    maps = GaborBank()(flat(*map(float, colour))).mean((2, 3))[0]
    assert {name for name, value in zip(FEATURES, maps, strict=True) if value > 1e-4} - {"bright"} == names
    assert maps[FEATURES.index("bright")] == pytest.approx(sum(colour) / 3, abs=1e-5)


def test_the_bank_is_fixed_and_draws_nothing(clouds):
    before = torch.get_rng_state()
    assert torch.equal(GaborBank()(clouds[:4]), GaborBank()(clouds[:4]))
    assert torch.equal(torch.get_rng_state(), before)
    assert list(GaborBank().parameters()) == []


def test_responses_are_standard_and_follow_the_pictures(clouds):
    truth = plant(["a", "b", "c", "d", "e", "f"], clouds, 1.0)
    assert torch.allclose(truth.responses.mean(0), torch.zeros(6), atol=1e-4)
    assert torch.allclose(truth.responses.std(0, correction=0), torch.ones(6), atol=1e-4)
    assert torch.allclose(truth(clouds[40:50]), truth.responses[40:50], atol=1e-3)
    images = clouds[:3].clone().requires_grad_()
    truth(images).sum().backward()
    assert images.grad.abs().flatten(1).sum(1).gt(0).all()


def test_a_feature_answers_to_its_feature(clouds):
    truth = PlantedTruth({"a": Tuning("feature", ("red",))}, clouds, {"a": 1.0})
    more = clouds[:20] * torch.tensor([1, 0.5, 0.5]).view(3, 1, 1)
    assert (truth(more) > truth(clouds[:20])).all()


def test_a_mixture_answers_to_either_of_its_features(clouds):
    truth = PlantedTruth({"a": Tuning("mixture", ("fine 0°", "blue"))}, clouds, {"a": 1.0})
    vertical, blue, horizontal = grating(0, 4.0), flat(0.1, 0.1, 0.9), grating(90, 4.0)
    strong = truth(torch.cat([vertical, blue, horizontal]))[:, 0]
    assert strong[0] > 1
    assert strong[1] > 1
    assert strong[2] < 0


def test_a_place_answers_to_its_place(clouds):
    truth = PlantedTruth({"a": Tuning("spatial", ("bright",), (0.25, 0.75))}, clouds, {"a": 1.0})
    spots = torch.zeros(4, 3, 48, 48)
    for row, (y, x) in enumerate([(36, 12), (12, 12), (12, 36), (36, 36)]):
        spots[row, :, y - 6 : y + 6, x - 6 : x + 6] = 1
    assert truth(spots)[:, 0].argmax() == 0
    assert truth(spots)[0] > truth(spots)[1:].max() + 1


def test_ceilings():
    truth = PlantedTruth({"a": TUNINGS[0], "b": TUNINGS[1]}, torch.rand(20, 3, 16, 16), {"a": 1.0, "b": 0.5})
    assert truth.ceiling(3) == {"a": 0.75, "b": pytest.approx(0.25 / (0.25 + 1 / 3))}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("peak", ("red",)), "kind='peak' is unknown"),
        (("mixture", ("red",)), "of a mixture; expected 2 of"),
        (("mixture", ("red", "red")), "expected 2 of"),
        (("feature", ("purple",)), "of a feature; expected 1 of"),
        (("spatial", ("red",), (0.5, 2.0)), r"place=\(0.5, 2.0\); expected two numbers from 0 to 1"),
    ],
)
def test_wrong_tunings(given, message):
    with pytest.raises(ValueError, match=message):
        Tuning(*given)


def test_wrong_plants(clouds):
    with pytest.raises(ValueError, match="snr of 'b' is None; expected a number above 0"):
        plant(["a", "b"], clouds[:5], {"a": 1.0})
    with pytest.raises(
        ValueError, match="target 'a' answers the same to all of them; expected pictures that differ in red"
    ):
        plant(["a"], torch.full((5, 3, 8, 8), 0.5), 1.0)
