"""Read one layer by one hook that is always removed, stop there, and leave the model as it was."""

import difflib
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields, is_dataclass
from itertools import chain
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from vislens_interp.random_state import random_states
from vislens_interp.targets.layout import Axes, AxisTracer

Output: TypeAlias = int | str | tuple[int | str, ...]
"""Which tensor of a tuple, dict or dataclass: a place, a name, or several, one inside the other."""
Place: TypeAlias = tuple[int | str, ...]
"""The same in full: ``()`` is the output itself."""

_SHARDED = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine")


class LayerReached(BaseException):
    """Ends a forward pass at the layer; no ``Exception``, so that a model's ``except Exception`` lets it through."""


@dataclass(frozen=True)
class Seen:
    """One call of a layer, as a full pass showed it.

    Args:
        axes: What the axes of each tensor that it returned are, by its place in the output (``()`` for the only one).
        shapes: Shape of each.
        factors: Of each, how its channels were taken apart on the way: (how many, how far apart).
        output: What it returned, tensors copied (safe from later in-place operations); None unless that was asked for.
        drew: Whether the pass had drawn random numbers by then.
    """

    axes: dict[Place, Axes | None]
    shapes: dict[Place, tuple[int, ...]]
    factors: dict[Place, frozenset[tuple[int, int]]]
    output: object
    drew: bool = False


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
    before, _, unit = layer.rpartition(":")  # as lucent writes it
    closest += f" The unit is an argument of its own: pass unit={unit}." if before and unit.isdecimal() else ""
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
    for name, parameter in chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(parameter):
            raise ValueError(
                f"model: {name!r} of a lazy module has no shape yet; expected a model that has run once. Run it on one"
                " batch of images, which makes its weights, then load trained ones."
            )
        if parameter.is_meta:
            raise ValueError(
                f"model: {name!r} is on the 'meta' device and has no values; expected loaded weights."
                " Load the model on the CPU or a GPU."
            )


def plain(model: nn.Module) -> nn.Module:
    """The module whose layers Python calls one by one: what ``torch.compile`` wraps, or the model itself.

    Raises:
        ValueError: Parts of it are compiled in place, so that hooks on their layers would not be called.
    """
    model = getattr(model, "_orig_mod", model)
    for name, module in model.named_modules():
        if hasattr(module, "_orig_mod") or module.__dict__.get("_compiled_call_impl") is not None:
            raise ValueError(
                f"model: {name or 'the model'} ({type(module).__name__}) is compiled by torch.compile inside"
                f" {type(model).__name__}, where hooks are not called; expected a plain module, or one that is compiled"
                " as a whole. Pass the model before compiling; its weights are the same."
            )
    return model


def refuse_script(model: nn.Module, layer_name: str) -> None:
    """Refuse a layer of TorchScript, which calls no hooks; a scripted model's own output can be read.

    Raises:
        ValueError: Naming the scripted module.
    """
    parts = layer_name.split(".") if layer_name else []
    for path in [".".join(parts[:count]) for count in range(len(parts) + 1)]:
        if layer_name and isinstance(_submodule(model, path), torch.jit.ScriptModule):
            where = "is" if path == layer_name else f"is inside {path or 'the model'}, which is"
            remedy = "Pass layer=None for the model's own output" if not path else "Choose a layer before or after it"
            raise ValueError(
                f"layer {layer_name!r} {where} scripted or traced: TorchScript calls no hooks; expected a layer that"
                f" Python calls. {remedy}, or pass the model before scripting."
            )


def run_to_layer(
    model: nn.Module,
    layer_name: str,
    inputs: Tensor,
    *,
    call: int = 0,
    output: Output | None = None,
    before: bool = False,
    forward: Callable[[Tensor], object] | None = None,
    stop: bool = True,
) -> Tensor:
    """Run a model as far as one layer, and return that layer's output; gradients flow.

    Args:
        model: The network, in whatever mode it is: see :func:`undisturbed`.
        layer_name: Dotted name; ``""`` is the model's own output.
        inputs: What the model takes, already preprocessed.
        call: Which call of the layer in the pass, from 0.
        output: Which tensor of a tuple, dict or dataclass; see :func:`pick`.
        before: Read the layer's first input instead of its output.
        forward: How the model is called, see :class:`~vislens_interp.targets.forward.Forward`; None calls it with
            ``inputs`` alone.
        stop: End the pass at the layer; otherwise it runs to its end, for models that keep something of every pass.

    Returns:
        The layer's output, of its own shape.

    Raises:
        ValueError: There is no such layer or tensor, or the pass did not call it (so often).
        TypeError: The layer's output holds no tensor, or several.
    """
    if layer_name == "":
        return pick((forward or model)(inputs), output, model, layer_name)
    layer = _submodule(model, layer_name)
    outputs: list[Tensor] = []
    reached = LayerReached()
    left = call
    ours = threading.get_ident()

    def keep_and_stop(module: nn.Module, args: tuple[object, ...], result: object = None) -> None:
        nonlocal left
        if outputs or threading.get_ident() != ours:  # a hook is on the module, whichever thread runs it
            return
        if left:
            left -= 1
            return
        chosen = pick(args[0] if before else result, output, model, layer_name)
        if stop:
            outputs.append(chosen)
            raise reached
        outputs.append(chosen.clone())  # what follows may overwrite it

    hook = _hooked(layer, keep_and_stop, before)
    try:
        (forward or model)(inputs)
    except LayerReached as caught:
        if caught is not reached:  # the model itself reads a layer of some other model
            raise
    finally:
        hook.remove()
        reached.__traceback__ = None  # it holds the frames of the pass, and with them every activation
    if not outputs:
        if left < call:
            raise ValueError(_calls(model, layer_name, call - left, call))
        raise _never_called(model, layer_name)
    return outputs[0]


def survey(
    model: nn.Module,
    layer_names: Iterable[str],
    inputs: Tensor,
    *,
    keep: bool = False,
    before: bool = False,
    forward: Callable[[Tensor], object] | None = None,
) -> dict[str, list[Seen]]:
    """Run one full pass, and see every call of these layers and what the axes of their outputs are.

    Args:
        model, layer_names, inputs, before, forward: As :func:`run_to_layer` takes them, for several layers.
        keep: Copy the outputs too.

    Returns:
        For each name its calls, in their order; none for a layer that the pass does not call.

    Raises:
        ValueError: There is no such layer.
    """
    found: dict[str, list[Seen]] = {name: [] for name in layer_names}
    # Keyed as the tracer asks; views of a parameter have its storage.
    names = {
        parameter.untyped_storage()._cdata: name
        for name, parameter in model.named_parameters()
        if parameter.layout is torch.strided and not parameter.is_mkldnn
    }
    tracer = AxisTracer(inputs, names)
    ours, states = threading.get_ident(), random_states()

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[object, ...], output: object = None) -> None:
            if threading.get_ident() != ours:
                return
            output = args[0] if before else output
            tensors = tensors_in(output)
            found[name].append(
                Seen(
                    {path: tracer.axes(tensor) for path, tensor in tensors.items()},
                    {path: tuple(tensor.shape) for path, tensor in tensors.items()},
                    {path: tracer.factors(tensor) for path, tensor in tensors.items()},
                    _copied(output) if keep else None,
                    tracer.drew or random_states() != states,
                )
            )

        return hook

    with ExitStack() as hooks:
        for name in found:
            if name:
                hooks.callback(_hooked(_submodule(model, name), note(name), before).remove)
        with tracer:
            output = (forward or model)(inputs)
            if "" in found:
                note("")(model, (inputs,), output)
    return found


def tensors_in(output: object) -> dict[Place, Tensor]:
    """Every tensor of a layer's output by its place: ``()`` for a tensor itself, ``("logits",)`` or ``(0, 1)`` inside.

    >>> list(tensors_in((torch.zeros(2), {"a": torch.zeros(2), "b": None})))
    [(0,), (1, 'a')]
    """
    if isinstance(output, Tensor):
        return {(): output}
    return {(key, *path): tensor for key, part in _parts(output) for path, tensor in tensors_in(part).items()}


def place_of(output: Output | None, places: Iterable[Place]) -> Place | None:
    """The chosen place in full; without a choice the only one, or None if there are several."""
    if output is not None:
        return output if isinstance(output, tuple) else (output,)
    known = list(places)
    return known[0] if len(known) == 1 else None


def pick(result: object, output: Output | None, model: nn.Module, layer_name: str) -> Tensor:
    """One tensor of what a layer returned: the only one, or the chosen one.

    Args:
        result: What the layer returned.
        output: Where it is; None is the only tensor there.
        model, layer_name: For messages.

    Raises:
        TypeError: There is no tensor, or there are several and none is chosen.
        ValueError: Nothing is at the chosen place.
    """
    tensors = tensors_in(result)
    place = place_of(output, tensors)
    if place in tensors and output != ():
        return _dense(tensors[place], model, layer_name)
    where = f"layer {layer_name!r}" if layer_name else "the model's own output (layer=None)"
    where += f" of {type(model).__name__} gives a {type(result).__name__}"
    listed = ", ".join(f"{_shown(path)} of shape {tuple(tensor.shape)}" for path, tensor in tensors.items())
    if output is None:
        remedy = f"Pass output= for one of {listed}" if tensors else "Choose a layer whose output is a tensor"
        raise TypeError(
            f"{where}; expected one tensor. {remedy} (list_units(model) shows the layers), or wrap the model."
        )
    remedy = "Leave output= out" if isinstance(result, Tensor) else f"Choose one of {listed or 'another layer'}"
    raise ValueError(f"output={output!r}: {where}, in which no tensor is there; expected its place. {remedy}.")


def chosen_call(seen: list[Seen], call: int | None, model: nn.Module, layer_name: str) -> int:
    """Which call of a layer is read: the only one, or the chosen one.

    Raises:
        ValueError: The layer was called several times and none is chosen, or not so often, or never.
    """
    if not seen:
        raise _never_called(model, layer_name)
    if call is None and len(seen) == 1:
        return 0
    if call is None:
        raise ValueError(
            f"layer {layer_name!r} is called {len(seen)} times in one pass of {type(model).__name__}; expected once,"
            f" because its response would be ambiguous. Pass call=0 to call={len(seen) - 1}, or choose a layer before"
            " or after it."
        )
    if isinstance(call, bool) or not isinstance(call, int) or not 0 <= call < len(seen):
        raise ValueError(_calls(model, layer_name, len(seen), call))
    return call


def _calls(model: nn.Module, layer_name: str, calls: int, call: object) -> str:
    return (
        f"call={call!r}, but layer {layer_name!r} is called {calls} times in one pass of {type(model).__name__};"
        f" expected 0..{calls - 1}. Pass one of these."
    )


def _parts(output: object) -> list[tuple[int | str, object]]:
    if isinstance(output, Mapping):
        return list(output.items())
    if isinstance(output, (list, tuple)):
        return list(enumerate(output))
    if is_dataclass(output) and not isinstance(output, type):
        return [(field.name, getattr(output, field.name)) for field in fields(output)]
    return []


def _shown(path: Place) -> str:
    return repr(path[0] if len(path) == 1 else path)


def _copied(output: object) -> object:
    # Copies: a ReLU(inplace=True) further on would overwrite the tensors.
    if isinstance(output, Tensor):
        return output.clone()
    copies = {key: _copied(part) for key, part in _parts(output)}
    return copies if isinstance(output, Mapping) or is_dataclass(output) else tuple(copies.values())


def _dense(tensor: Tensor, model: nn.Module, layer_name: str) -> Tensor:
    if tensor.is_quantized or tensor.is_sparse or tensor.is_mkldnn or tensor.is_nested:
        raise ValueError(
            f"layer {layer_name!r} of {type(model).__name__} gives a tensor of type {tensor.dtype} and layout"
            f" {tensor.layout}; expected an ordinary one (quantised, sparse and nested ones have no channels to read)."
            " Choose a layer after its dequantisation, or pass the model before quantising."
        )
    return tensor


def _hooked(layer: nn.Module, hook: Callable[..., None], before: bool) -> RemovableHandle:
    return layer.register_forward_pre_hook(hook) if before else layer.register_forward_hook(hook)


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except (AttributeError, RuntimeError):  # TorchScript has no such method
        return find_layer(model, name)[1]  # whose message lists near names


def _never_called(model: nn.Module, layer_name: str) -> ValueError:
    return ValueError(
        f"layer {layer_name!r} is never called in a forward pass of {type(model).__name__}; expected one call."
        " list_units(model) shows the layers that are called."
    )
