"""Whatever happens, a model is left as it was: every entry point, when all goes well, with a bad selector, and with a
module that raises."""

import pytest
import torch
from torch import nn

from vislens_interp import FeatureLens, LayerTarget, Preprocess, list_units, read_responses

IMAGES = torch.rand(4, 3, 32, 32)


class Raises(nn.Module):
    """Raises when it is told to."""

    def __init__(self):
        super().__init__()
        self.angry = False

    def forward(self, inputs):
        if self.angry:
            raise RuntimeError("a module raises")
        return inputs


def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), Raises(), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten()
    )
    model.__dict__["preprocess"] = Preprocess(32, [0.5], [0.5])  # no module of it, which a Sequential would call
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[0].grad_checkpointing = True
    model[3].register_forward_hook(lambda module, args, output: None)  # the caller's own
    return model.train()


HOOKS = [name for name in vars(nn.Module()) if name.endswith("_hooks")]


def state(model):
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [parameter.grad for parameter in model.parameters()],
        [{name: len(getattr(module, name)) for name in HOOKS} for module in model.modules()],
        [sorted(vars(module)) for module in model.modules()],
        model[0].grad_checkpointing,
        torch.get_rng_state().tolist(),
    )


ENTRIES = {
    "LayerTarget": lambda model, unit: LayerTarget(model, "3", unit),
    "call": lambda model, unit: LayerTarget(model, "3", unit)(IMAGES.clone().requires_grad_()).sum().backward(),
    "responses": lambda model, unit: LayerTarget(model, "3", unit).responses(IMAGES, batch_size=3),
    "features": lambda model, unit: LayerTarget(model, "3", unit).features(IMAGES),
    "read_responses": lambda model, unit: read_responses(model, "3", unit, IMAGES),
    "list_units": lambda model, unit: list_units(model, preprocess=None if unit == 1 else lambda x: x, image_size=32),
    "FeatureLens": lambda model, unit: FeatureLens(model, "3", unit, backend="cifar10").top_images(2, IMAGES),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("outcome", ["normal", "bad selector", "a module raises"])
def test_a_model_is_left_as_it_was(entry, outcome):
    model = network()
    before = state(model)
    if outcome == "normal":
        ENTRIES[entry](model, 1)
    elif outcome == "bad selector" and entry != "list_units":
        with pytest.raises(ValueError, match="unit=9 is out of range"):
            ENTRIES[entry](model, 9)
    elif outcome == "bad selector":
        list_units(model, preprocess=lambda images: images, image_size=32)
        with pytest.raises(ValueError, match="image_size: neither"):
            list_units(model, preprocess=lambda images: images)
    else:
        model[2].angry = True
        with pytest.raises(RuntimeError, match="a module raises"):
            ENTRIES[entry](model, 1)
        model[2].angry = False
    after = state(model)
    assert after[1:] == before[1:]
    assert after[0].keys() == before[0].keys()
    assert all(torch.equal(value, before[0][name]) for name, value in after[0].items())


def test_also_when_it_raises_only_later():
    model = network()
    target = LayerTarget(model, "3", 1)
    before = state(model)
    model[2].angry = True
    for read in (target, target.features, target.responses):
        with pytest.raises(RuntimeError, match="a module raises"):
            read(IMAGES)
    model[2].angry = False
    assert state(model)[1:] == before[1:]
