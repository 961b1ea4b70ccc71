"""The model of the caller is left as it was; what a lens points at."""

import pytest
import torch
from small_networks import QUICK, Bare, Brightness, SmallNet, pictures, small_network
from torch import nn

from vislens_interp import CallableTarget, Direction, FeatureLens


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
    with pytest.raises(ValueError, match="layer: the model is a Brightness, which says itself what it reads"):
        FeatureLens(Brightness(), "conv")


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
    assert torch.allclose(result.responses["inputs"], redness(images[:3]), atol=1e-5)
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
