import gc
import weakref
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from vislens_interp.random_state import kept_random_state
from vislens_interp.targets.capture import (
    LayerReached,
    chosen_call,
    find_layer,
    pick,
    plain,
    refuse_scattered,
    refuse_script,
    run_to_layer,
    survey,
)
from vislens_interp.targets.undisturbed import undisturbed


class Raises(nn.Module):
    def forward(self, inputs):
        raise RuntimeError("this layer was reached")


class Swallows(nn.Module):
    """A model that goes on with something else when a layer of it fails."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.second = nn.Conv2d(4, 5, 1)

    def forward(self, inputs):
        try:
            return self.second(self.first(inputs))
        except Exception:  # noqa: BLE001 (what the test is about)
            return torch.zeros(len(inputs), 5)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.unused = nn.Conv2d(3, 3, 1)
        self.pair = Pair()

    def forward(self, inputs):
        return self.conv(self.conv(self.pair(inputs)[0]))


class Pair(nn.Module):
    def forward(self, inputs):
        return inputs, inputs


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 2)
    )


IMAGES = torch.rand(2, 3, 8, 8)


def hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_find_layer():
    model = nn.Sequential(nn.Sequential(nn.ReLU()), nn.Tanh())
    assert find_layer(model, "0.0") == ("0.0", model.get_submodule("0.0"))
    assert find_layer(model, model[1]) == ("1", model[1])
    assert find_layer(model, None) == ("", model)
    assert find_layer(model, model) == ("", model)
    with pytest.raises(ValueError, match=r"layer '0.1' not found in Sequential. Closest: .*'0.0'.*list_units"):
        find_layer(model, "0.1")
    with pytest.raises(ValueError, match="layer 'features' not found in Sequential. list_units"):
        find_layer(model, "features")
    with pytest.raises(ValueError, match="layer is a Tanh that is not inside this Sequential"):
        find_layer(model, nn.Tanh())
    with pytest.raises(TypeError, match="layer is a int; expected a dotted name"):
        find_layer(model, 3)  # pyright: ignore[reportArgumentType]


def test_both_names_of_a_shared_module_are_found():
    act = nn.ReLU()
    assert find_layer(nn.Sequential(act, act), "1") == ("1", act)


def test_output_is_the_layers():
    model = network().eval()
    expected = model[1](model[0](IMAGES))
    assert torch.equal(run_to_layer(model, "1", IMAGES), expected)
    assert torch.equal(run_to_layer(model, "2", IMAGES, before=True), expected)
    assert torch.equal(run_to_layer(model, "", IMAGES), model(IMAGES))
    # The ReLU in place behind the layer must not reach what a survey keeps.
    seen = survey(model, ["1", ""], IMAGES, keep=True)
    assert torch.equal(seen["1"][0].output, expected)
    assert seen["1"][0].shapes == {(): (2, 4, 6, 6)}
    assert torch.equal(seen[""][0].output, model(IMAGES))
    assert hooks(model) == 0


def test_pass_stops_at_the_layer():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), Raises())
    assert torch.equal(run_to_layer(model, "1", IMAGES), model[:2](IMAGES))
    with pytest.raises(RuntimeError, match="was reached"):
        survey(model, ["1"], IMAGES)
    assert hooks(model) == 0


def test_model_cannot_swallow_the_stop():
    model = Swallows()
    assert torch.equal(run_to_layer(model, "first", IMAGES), model.first(IMAGES))
    assert not issubclass(LayerReached, Exception)


def test_a_stop_of_another_reader_passes_through():
    inner = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())

    class Stops(nn.Module):
        def forward(self, inputs):
            raise LayerReached

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Tanh()

        def forward(self, inputs):
            return self.head(run_to_layer(inner, "0", inputs))

    assert torch.equal(run_to_layer(Reads(), "head", IMAGES), torch.tanh(inner[0](IMAGES)))
    with pytest.raises(LayerReached):
        run_to_layer(nn.Sequential(Stops(), nn.ReLU()), "1", IMAGES)


def test_hooks_are_gone_after_an_exception():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Raises(), nn.ReLU())
    with pytest.raises(RuntimeError, match="was reached"):
        run_to_layer(model, "2", IMAGES)
    assert hooks(model) == 0
    with pytest.raises(RuntimeError, match="was reached"):
        survey(model, ["0", "2"], IMAGES)
    assert hooks(model) == 0
    with pytest.raises(ValueError, match="'7' not found"):
        survey(model, ["0", "7"], IMAGES)
    assert hooks(model) == 0


def test_hooks_of_the_caller_stay():
    model = network()
    seen = []
    model[0].register_forward_hook(lambda module, args, output: seen.append(1))
    run_to_layer(model, "1", IMAGES)
    assert seen == [1]
    assert hooks(model) == 1


def test_repeated_and_absent_calls():
    model = Shared()
    seen = survey(model, ["conv", "unused"], IMAGES, keep=True)
    assert len(seen["conv"]) == 2
    first = model.conv(IMAGES)
    for call, expected in enumerate([first, model.conv(first)]):
        assert chosen_call(seen["conv"], call, model, "conv") == call
        assert torch.equal(seen["conv"][call].output, expected)
        assert torch.equal(run_to_layer(model, "conv", IMAGES, call=call), expected)
    with pytest.raises(ValueError, match="'conv' is called 2 times in one pass of Shared.*Pass call=0 to call=1"):
        chosen_call(seen["conv"], None, model, "conv")
    for wrong in (2, -1, True):
        with pytest.raises(ValueError, match=rf"call={wrong}, but layer 'conv' is called 2 times.*expected 0..1"):
            chosen_call(seen["conv"], wrong, model, "conv")
    with pytest.raises(ValueError, match="call=5, but layer 'conv' is called 2 times"):
        run_to_layer(model, "conv", IMAGES, call=5)
    with pytest.raises(ValueError, match="layer 'unused' is never called in a forward pass of Shared"):
        run_to_layer(model, "unused", IMAGES)
    with pytest.raises(ValueError, match="layer 'unused' is never called in a forward pass of Shared"):
        chosen_call(seen["unused"], None, model, "unused")
    with pytest.raises(ValueError, match="'uned' not found in Shared. Closest: 'unused'"):
        run_to_layer(model, "uned", IMAGES)
    assert hooks(model) == 0


def test_which_tensor():
    model = Shared()
    with pytest.raises(
        TypeError, match=r"'pair' of Shared gives a tuple; expected one tensor. Pass output= for one of 0"
    ):
        run_to_layer(model, "pair", IMAGES)
    with pytest.raises(TypeError, match="the model's own output.*gives a tuple"):
        run_to_layer(Pair(), "", IMAGES)
    assert torch.equal(run_to_layer(model, "pair", IMAGES, output=1), IMAGES)
    with pytest.raises(ValueError, match="output=2: layer 'pair' of Shared gives a tuple, in which no tensor is there"):
        run_to_layer(model, "pair", IMAGES, output=2)
    with pytest.raises(ValueError, match="output=0: layer 'conv'.*gives a Tensor.*Leave output= out"):
        run_to_layer(model, "conv", IMAGES, output=0)
    assert hooks(model) == 0

    @dataclass
    class Made:
        logits: torch.Tensor
        hidden: tuple

    value = torch.ones(2)
    for result, output in (
        ((value, None), None),
        ({"a": value}, None),
        ({"a": value, "b": torch.zeros(2)}, "a"),
        (Made(value, (torch.zeros(2),)), "logits"),
        (Made(torch.zeros(2), (None, value)), ("hidden", 1)),
    ):
        assert pick(result, output, model, "pair") is value
    with pytest.raises(TypeError, match="gives a NoneType; expected one tensor. Choose a layer"):
        pick(None, None, model, "pair")
    with pytest.raises(ValueError, match="expected an ordinary one .quantised"):
        pick(torch.ones(2, 2).to_sparse(), None, model, "pair")


def test_gradients_flow():
    model = network().eval()
    images = IMAGES.clone().requires_grad_()
    run_to_layer(model, "0", images)[:, 1].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_activations_are_freed_without_the_garbage_collector():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    references = []
    model[0].register_forward_hook(lambda module, args, output: references.append(weakref.ref(output)))
    gc.collect()
    gc.disable()
    try:
        with torch.no_grad():
            output = run_to_layer(model, "1", IMAGES)
        assert references[0]() is None
        reference = weakref.ref(output)
        del output
        assert reference() is None
    finally:
        gc.enable()


def state(model):
    return (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        torch.get_rng_state().tolist(),
        {name: value.clone() for name, value in model.state_dict().items()},
    )


@pytest.mark.parametrize("fails", [False, True])
def test_undisturbed(fails):
    model = network().train()
    model[1].eval()
    model[5].weight.requires_grad_(False)
    before = state(model)
    try:
        with undisturbed(model), kept_random_state():
            assert not any(module.training for module in model.modules())
            assert not any(parameter.requires_grad for parameter in model.parameters())
            assert torch.equal(model(IMAGES), model(IMAGES))
            torch.rand(3)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    after = state(model)
    assert after[:3] == before[:3]
    assert all(torch.equal(after[3][name], value) for name, value in before[3].items())


def test_undisturbed_does_not_call_the_models_own_train():
    class Counts(nn.Linear):
        calls = 0

        def train(self, mode=True):
            self.calls += 1
            return super().train(mode)

    model = Counts(2, 2)
    with undisturbed(model):
        assert not model.training
    assert model.training
    assert model.calls == 0


def test_scattered_models_are_refused_by_name():
    with pytest.raises(ValueError, match="the model .DataParallel. is held by DataParallel.*model.module"):
        refuse_scattered(nn.DataParallel(network()))
    model = network()

    class AlignDevicesHook(nn.Module):
        pass

    model[0]._hf_hook = AlignDevicesHook()
    with pytest.raises(ValueError, match="0 .Conv2d. is held by accelerate's AlignDevicesHook"):
        refuse_scattered(model)
    with pytest.raises(ValueError, match="'0.weight' is on the 'meta' device"):
        refuse_scattered(network().to("meta"))
    with pytest.raises(ValueError, match="'0.weight' of a lazy module has no shape yet"):
        refuse_scattered(nn.Sequential(nn.LazyConv2d(4, 1)))
    refuse_scattered(network())


def test_compiled_and_scripted_models():
    model = network()
    assert plain(torch.compile(model)) is model
    model[5].compile()
    with pytest.raises(ValueError, match="5 .Linear. is compiled by torch.compile inside Sequential"):
        plain(model)
    with pytest.raises(ValueError, match="0 .OptimizedModule. is compiled"):
        plain(nn.Sequential(torch.compile(network())))
    scripted = torch.jit.trace(network().eval(), IMAGES)
    refuse_script(scripted, "")
    with pytest.raises(ValueError, match="layer '0' is scripted or traced.*Choose a layer before or after it"):
        refuse_script(nn.Sequential(scripted), "0")
    with pytest.raises(ValueError, match="layer '1' is inside the model, which is scripted or traced.*layer=None"):
        refuse_script(scripted, "1")
    with pytest.raises(
        ValueError, match="layer '0.1' is inside 0, which is scripted.*Choose a layer before or after it"
    ):
        refuse_script(nn.Sequential(scripted), "0.1")


def test_gradient_checkpointing_is_off_inside():
    model = network()
    model[0].grad_checkpointing = True
    with undisturbed(model):
        assert not model[0].grad_checkpointing
    assert model[0].grad_checkpointing
