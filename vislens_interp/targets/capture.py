"""Read one layer by one hook that is always removed, stop there, and leave the model as it was."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_SHARDED = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine")


class LayerReached(BaseException):
    """Ends a forward pass at the layer; no ``Exception``, so that a model's ``except Exception`` lets it through."""


@dataclass(frozen=True)
class Probe:
    """What one full pass showed of a layer.

    Args:
        n_calls: How often the pass called the layer.
        output: What its first call returned (a copy, safe from later in-place operations); None without a call.
    """

    n_calls: int
    output: Tensor | None


def find_layer(model: nn.Module, layer: str | nn.Module | None) -> tuple[str, nn.Module]:
    """Look a layer up by its dotted name, or a module's name up by identity.

    Args:
        model: The network.
        layer: A name as in ``model.named_modules()``, a module inside the model, or None for the model's own output.

    Returns:
        The dotted name (``""`` for the model itself) and the module.

    Raises:
        ValueError: The layer is not in the model; the closest names are listed.
        TypeError: ``layer`` is none of the above.

    >>> find_layer(nn.Sequential(nn.ReLU(), nn.Tanh()), "1")
    ('1', Tanh())
    """
    if layer is None:
        return "", model
    if isinstance(layer, nn.Module):
        for name, module in model.named_modules():
            if module is layer:
                return name, module
        raise ValueError(
            f"layer is a {type(layer).__name__} that is not inside this {type(model).__name__}; expected one of its"
            " modules (not a copy). list_units(model) shows all names."
        )
    if not isinstance(layer, str):
        raise TypeError(f"layer is a {type(layer).__name__}; expected a dotted name, a module of the model, or None.")
    modules = dict(model.named_modules(remove_duplicate=False))
    if layer in modules:
        return layer, modules[layer]
    near = difflib.get_close_matches(layer, [name for name in modules if name], n=3, cutoff=0.4)
    closest = f" Closest: {', '.join(map(repr, near))}." if near else ""
    raise ValueError(
        f"layer {layer!r} not found in {type(model).__name__}.{closest} list_units(model) shows all names."
    )


def refuse_scattered(model: nn.Module) -> None:
    """Refuse a model whose weights are not where its layers are: offloaded, sharded, replicated or without values.

    Raises:
        ValueError: Naming the module and what holds it.
    """
    for name, module in model.named_modules():
        kind = next((cls.__name__ for cls in type(module).__mro__ if cls.__name__ in _SHARDED), None)
        if kind is None and hasattr(module, "_hf_hook"):
            kind = f"accelerate's {type(module._hf_hook).__name__}"
        if kind is not None:
            raise ValueError(
                f"model: {name or 'the model'} ({type(module).__name__}) is held by {kind}, which moves or splits its"
                " weights; expected a plain module on one device. Pass the module inside it (model.module), or load"
                " it without offloading."
            )
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ValueError(
                f"model: parameter {name!r} is on the 'meta' device and has no values; expected loaded weights."
                " Load the model on the CPU or a GPU."
            )


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in eval mode and its parameters need no gradients; afterwards all is as it was.

    The training flag of every module, ``requires_grad`` of every parameter and the random state of the CPU and of CUDA
    are restored, also after an exception. Flags are set directly, because a model's own ``train`` may do more (merge
    adapters, say). Only what differs is touched.

    Args:
        model: The network; its parameters stay where they are.
    """
    training = [module for module in model.modules() if module.training]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    cpu_state = torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        for module in training:
            module.training = False
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for module in training:
            module.training = True
        for parameter in trainable:
            parameter.requires_grad_(True)
        torch.set_rng_state(cpu_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)


def run_to_layer(model: nn.Module, layer_name: str, inputs: Tensor, *, stop: bool = True) -> Tensor:
    """Run a model as far as one layer, and return that layer's output; gradients flow.

    Args:
        model: The network, in whatever mode it is: see :func:`undisturbed`.
        layer_name: Dotted name; ``""`` is the model's own output.
        inputs: What the model takes, already preprocessed.
        stop: End the pass at the layer's first output. False runs the whole pass, as :func:`probe` does, and checks
            that the layer was called once.

    Returns:
        The layer's output, of its own shape.

    Raises:
        ValueError: There is no such layer, the pass did not call it, or it called it several times (``stop=False``).
        TypeError: The layer's output is no tensor.
    """
    if not stop:
        return single_output(probe(model, layer_name, inputs), model, layer_name)
    if layer_name == "":
        return _tensor(model(inputs), model, layer_name)
    layer = _submodule(model, layer_name)
    outputs: list[Tensor] = []
    reached = LayerReached()

    def keep_and_stop(module: nn.Module, args: Any, output: Any) -> None:
        outputs.append(_tensor(output, model, layer_name))
        raise reached

    hook = layer.register_forward_hook(keep_and_stop)
    try:
        model(inputs)
    except LayerReached as caught:
        if caught is not reached:  # the model itself reads a layer of some other model
            raise
    finally:
        hook.remove()
        reached.__traceback__ = None  # it holds the frames of the pass, and with them every activation
    if not outputs:
        raise _never_called(model, layer_name)
    return outputs[0]


def probe(model: nn.Module, layer_name: str, inputs: Tensor) -> Probe:
    """Run one full pass and count the calls of one layer.

    Args:
        model: The network.
        layer_name: Dotted name; ``""`` is the model's own output.
        inputs: What the model takes, already preprocessed.

    Returns:
        The number of calls and the first output.

    Raises:
        ValueError: There is no such layer.
        TypeError: The layer's output is no tensor.
    """
    if layer_name == "":
        return Probe(1, _tensor(model(inputs), model, layer_name))
    layer = _submodule(model, layer_name)
    outputs: list[Tensor] = []
    n_calls = 0

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal n_calls
        n_calls += 1
        if not outputs:
            # A copy: a ReLU(inplace=True) further on would overwrite it.
            outputs.append(_tensor(output, model, layer_name).clone())

    hook = layer.register_forward_hook(keep)
    try:
        model(inputs)
    finally:
        hook.remove()
    return Probe(n_calls, outputs[0] if outputs else None)


def single_output(probed: Probe, model: nn.Module, layer_name: str) -> Tensor:
    """The output of a layer that was called exactly once.

    Raises:
        ValueError: It was called several times, or never.
    """
    if probed.output is None:
        raise _never_called(model, layer_name)
    if probed.n_calls > 1:
        raise ValueError(
            f"layer {layer_name!r} is called {probed.n_calls} times in one pass of {type(model).__name__}; expected"
            " once, because its response would be ambiguous. Choose a layer before or after it; list_units(model)"
            " shows those that are called once."
        )
    return probed.output


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return find_layer(model, name)[1]  # whose message lists near names


def _tensor(output: Any, model: nn.Module, layer_name: str) -> Tensor:
    if not isinstance(output, Tensor):
        where = f"layer {layer_name!r}" if layer_name else "the model's own output (layer=None)"
        raise TypeError(
            f"{where} of {type(model).__name__} gives a {type(output).__name__}; expected one tensor."
            " Choose a layer whose output is a tensor (list_units(model) shows them), or wrap the model."
        )
    return output


def _never_called(model: nn.Module, layer_name: str) -> ValueError:
    return ValueError(
        f"layer {layer_name!r} is never called in a forward pass of {type(model).__name__}; expected one call."
        " list_units(model) shows the layers that are called; of a compiled model, pass the one before compiling."
    )
