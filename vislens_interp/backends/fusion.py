"""Batch norms folded into the convolutions before them: the same numbers from fewer passes over memory."""

import copy
from collections import Counter
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

TOLERANCE = 1e-3
"""Largest difference that rounding may make, as a share of an output's largest value."""


def fused(
    network: nn.Module, run: Callable[[nn.Module], Sequence[Tensor]], kept: Collection[str] = ()
) -> nn.Module | None:
    """A copy of a network in which batch norms that directly follow a convolution are part of it.

    Args:
        network: In evaluation mode; it is not changed.
        run: Runs a network on an example and gives the outputs that matter. It shows which batch norm follows which
            convolution, and that the copy gives the same.
        kept: Names of modules whose own output is read; they are left as they are.

    Returns:
        The copy, its weights in the order of axes in which convolutions are fastest; None where there is nothing to
        fold, or the copy does not give the same.
    """
    from timm.layers import BatchNormAct2d  # timm takes a while to import

    names = {module: name for name, module in network.named_modules()}
    wrote: dict[int, tuple[nn.Module, Tensor]] = {}
    calls: Counter[nn.Module] = Counter()
    pairs: dict[str, str] = {}

    def convolved(module: nn.Module, args: tuple[object, ...], output: Tensor) -> None:
        calls[module] += 1
        wrote[id(output)] = module, output  # with the output itself, so that no later tensor has its id

    def normed(module: nn.Module, args: tuple[object, ...]) -> None:
        calls[module] += 1
        conv, output = wrote.get(id(args[0]), (None, None))
        if conv is not None and output is args[0] and names[conv] not in kept:
            pairs[names[conv]] = names[module]

    handles = [module.register_forward_hook(convolved) for module in names if isinstance(module, nn.Conv2d)]
    # Of these classes it is known what they do after the norm; a class made from them may do more.
    norms = [module for module in names if type(module) in (nn.BatchNorm2d, BatchNormAct2d)]
    handles += [norm.register_forward_pre_hook(normed) for norm in norms]
    try:
        wanted = run(network)
    finally:
        for handle in handles:
            handle.remove()
    made = copy.deepcopy(network)
    modules = dict(made.named_modules())
    once = {names[module] for module, count in calls.items() if count == 1}
    folded = 0
    for conv_name, norm_name in pairs.items():
        conv, norm = modules[conv_name], modules[norm_name]
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        if norm.running_mean is None or not {conv_name, norm_name} <= once:
            continue
        made.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm).requires_grad_(False))
        after = ("drop", "act") if isinstance(norm, BatchNormAct2d) else ()
        made.set_submodule(norm_name, nn.Sequential(*(norm.get_submodule(name) for name in after)))
        folded += 1
    if not folded:
        return None
    made = made.to(memory_format=torch.channels_last)
    same = all(
        (got - known).abs().max() <= TOLERANCE * known.abs().max() for got, known in zip(run(made), wanted, strict=True)
    )
    return made if same else None
